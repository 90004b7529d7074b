"""Which texts are read by models, with which engine, and where the scores go."""

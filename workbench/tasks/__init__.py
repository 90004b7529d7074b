"""What a model's inputs and outputs mean: labels, encoding, decoding. No backend is imported here."""

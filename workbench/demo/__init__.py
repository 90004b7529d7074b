"""A bundled workspace of fictional companies, so that everything can be tried offline."""

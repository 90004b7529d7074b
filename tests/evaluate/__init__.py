"""Measurements on labelled data that is not part of the project. Run ``python -m tests.evaluate --help``."""

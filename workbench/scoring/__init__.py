"""Which texts are read by models, with which engine, and where the scores go."""

from __future__ import annotations

from workbench.scoring.api import SCORE_SCHEMA, Scorer, bundled_model, open_scorer, score, score_columns
from workbench.scoring.files import FileScores, score_file

__all__ = [
    "SCORE_SCHEMA",
    "FileScores",
    "Scorer",
    "bundled_model",
    "open_scorer",
    "score",
    "score_columns",
    "score_file",
]

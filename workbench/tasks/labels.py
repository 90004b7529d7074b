"""The labels of the three tasks, in the order of a model's outputs."""

from __future__ import annotations

from typing import Final

__all__ = ["ENTITY_TAGS", "ENTITY_TYPES", "SENTIMENTS", "TASKS", "TOPICS"]

TASKS: Final = ("sentiment", "topics", "entities")

SENTIMENTS: Final = ("negative", "neutral", "positive")

TOPICS: Final = ("price", "quality", "delivery", "service", "usability", "feature request", "bug", "other")
"""A text may have several; ``other`` stands alone."""

ENTITY_TYPES: Final = ("product", "brand", "company", "model")

ENTITY_TAGS: Final = ("O", *(f"{prefix}-{kind}" for kind in ENTITY_TYPES for prefix in ("B", "I")))
"""BIO tags, one for each token: B begins an entity, I continues it."""

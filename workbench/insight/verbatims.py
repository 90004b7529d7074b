"""Which reviews are quoted: sure, informative, and not the same thing twice."""

from __future__ import annotations

import re
from typing import Any

import polars as pl
from rapidfuzz.fuzz import ratio

from workbench.insight.spans import fold
from workbench.insight.stars import HIGH_STARS, LOW_STARS, stars
from workbench.tasks.labels import SENTIMENTS

__all__ = ["choose_verbatims"]

_BEST_LENGTH = (60, 320)
"""Letters of a review that says something and is read at a glance; a Chinese character counts as two and a half."""
_TOO_ALIKE = 70.0
"""Percent, of two folded texts (Indel similarity)."""
_CHINESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_CONCRETE = re.compile(r"\d|0x")


def choose_verbatims(reviews: pl.DataFrame, number: int, *, taken: set[str] | None = None) -> list[dict[str, Any]]:
    """At most ``number`` rows of ``reviews`` (schema SCORED_REVIEWS) to quote, the most telling first.

    Places are given to sentiments in proportion to the reviews (largest remainder). Inside a sentiment, a review
    ranks by how certain the model was of it times how much it says; one whose own stars say the opposite comes after
    all others, and one that is nearly the same as another chosen one, or by the same author, is passed over.
    ``taken`` holds review ids that are quoted elsewhere already; what is chosen here is added to it.
    """
    used = taken if taken is not None else set()
    known = reviews.filter(pl.col("sentiment").is_not_null())
    by_label = {label: known.filter(pl.col("sentiment") == label) for label in SENTIMENTS}
    chosen: list[dict[str, Any]] = []
    for label, places in _places({label: rows.height for label, rows in by_label.items()}, number):
        ranked = sorted(
            by_label[label].with_columns(stars().alias("stars")).iter_rows(named=True),
            key=lambda row: (_contradicts(row["stars"], label), -_worth(row, label), row["review_id"]),
        )
        for row in ranked:
            if places == 0:
                break
            if row["review_id"] in used or any(_same(row, other) for other in chosen):
                continue
            used.add(row["review_id"])
            chosen.append(row)
            places -= 1
    return chosen


def _places(counts: dict[str, int], number: int) -> list[tuple[str, int]]:
    """Largest remainder; the label with most reviews first."""
    total = sum(counts.values())
    if not total:
        return []
    exact = {label: number * count / total for label, count in counts.items()}
    places = {label: int(value) for label, value in exact.items()}
    for label in sorted(counts, key=lambda name: (places[name] - exact[name], -counts[name]))[
        : number - sum(places.values())
    ]:
        places[label] += 1
    return sorted(((label, n) for label, n in places.items() if n), key=lambda pair: (-counts[pair[0]], pair[0]))


def _contradicts(given: float | None, label: str) -> bool:
    """Whether the reviewer's own stars say that the model read the review the wrong way round."""
    return given is not None and (
        (label == "positive" and given <= LOW_STARS) or (label == "negative" and given >= HIGH_STARS)
    )


def _worth(row: dict[str, Any], label: str) -> float:
    """Certainty times information, 0 to 1, in steps so small that they never tie by accident of rounding."""
    certainty = float(row[f"p_{label}"] or 0)
    chinese = len(_CHINESE.findall(row["text"]))
    length = len(row["text"]) + 1.5 * chinese
    low, high = _BEST_LENGTH
    says = min(length / low, 1.0) * min(high / max(length, 1), 1.0)
    concrete = 1.0 if _CONCRETE.search(row["text"]) else 0.85
    focused = 1.0 if len(row["topics"] or ()) <= 2 else 0.9
    return round(certainty * says * concrete * focused, 6)


def _same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    if row["author_hash"] is not None and row["author_hash"] == other["author_hash"]:
        return True
    return ratio(fold(row["text"]), fold(other["text"]), score_cutoff=_TOO_ALIKE) > 0

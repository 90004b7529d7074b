"""What reviewers gave in stars, beside what a model read in their words.

Stars are the only judgement of a review that does not come from the model. Where they and the reading part often, the
reading is not to be trusted on these texts, whatever it scored elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

__all__ = [
    "ENOUGH_AGREEMENT",
    "ENOUGH_RATED",
    "HIGH_STARS",
    "LOW_STARS",
    "Agreement",
    "agreement_with_stars",
    "mean_stars",
    "stars",
]

ENOUGH_AGREEMENT = 0.75
"""Below this share of agreement a report warns, and makes no finding from the reading. Simple models agree with the
stars of shop reviews in 85 to 93 of 100 cases, so a reading that is right for these texts stays well above."""

ENOUGH_RATED = 30
"""Fewer rated reviews do not condemn a reading."""

LOW_STARS, HIGH_STARS = 2.0, 4.0
"""Up to the one and from the other, of five, stars are a clear judgement."""


@dataclass(frozen=True)
class Agreement:
    """Of ``rated`` reviews with clear stars, how many were read the same way."""

    rated: int
    agree: int

    @property
    def share(self) -> float | None:
        """0 to 1; None without rated reviews."""
        return round(self.agree / self.rated, 6) if self.rated else None

    @property
    def doubtful(self) -> bool:
        """Whether the reading and the stars part too often."""
        return self.rated >= ENOUGH_RATED and self.agree < ENOUGH_AGREEMENT * self.rated


def stars() -> pl.Expr:
    """The rating on a scale of five; null where the page shows no scale."""
    return pl.col("rating") / pl.col("rating_scale") * 5


def agreement_with_stars(reviews: pl.DataFrame) -> Agreement:
    """Compare readings with stars, on reviews (schema SCORED_REVIEWS) of at most two or at least four stars of five.

    Stars have no word for neutral there, so the larger of p_negative and p_positive counts.
    """
    clear = reviews.with_columns(stars().alias("stars")).filter(
        pl.col("sentiment").is_not_null(), (pl.col("stars") <= LOW_STARS) | (pl.col("stars") >= HIGH_STARS)
    )
    same = (pl.col("stars") >= HIGH_STARS) == (pl.col("p_positive") > pl.col("p_negative"))
    return Agreement(clear.height, int(clear.select(same.sum()).item()) if clear.height else 0)


def mean_stars(reviews: pl.DataFrame) -> float | None:
    """The mean rating of five, two decimals; None without one."""
    mean = reviews.select(stars().mean()).item() if reviews.height else None
    return None if mean is None else round(mean, 2)

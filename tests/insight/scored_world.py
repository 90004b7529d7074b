"""Reviews and scores as the lake's frames, made by the dozen."""

from __future__ import annotations

import hashlib
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
from insight_world import WEEK

from workbench.store.tables import TABLES

ENGINE = "aaaaaaaaaaaaaaaa"
WORDS = [
    "anchor",
    "bridge",
    "copper",
    "dancer",
    "ember",
    "falcon",
    "garden",
    "harbor",
    "island",
    "jacket",
    "kettle",
    "lantern",
    "meadow",
    "needle",
    "orchard",
]


def distinct(number: int) -> str:
    """A sentence unlike those of other numbers."""
    digest = hashlib.sha256(str(number).encode()).digest()
    return " ".join(WORDS[byte % len(WORDS)] + str(byte) for byte in digest[:8])


class Reviews:
    """Collects reviews with what an engine read in them."""

    def __init__(self) -> None:
        self.reviews: list[dict[str, Any]] = []
        self.scores: list[dict[str, Any]] = []

    def add(
        self,
        sentiment: str | None,
        *topics: str,
        day: date | None = None,
        seen: datetime | None = None,
        company_id: str = "ondine",
        text: str | None = None,
        engine_id: str | None = ENGINE,
        entities: list[dict[str, Any]] | None = None,
        p: float = 0.9,
        **more: Any,
    ) -> str:
        """One review of this week unless ``day`` or ``seen`` says otherwise; gives its text id."""
        number = len(self.reviews)
        row = dict.fromkeys(TABLES["reviews"].schema.names())
        row.update(
            review_id=f"r{number:04d}",
            snapshot_id=f"{company_id}-reviews",
            company_id=company_id,
            source_id=f"{company_id}-reviews",
            url=f"https://{company_id}.example/reviews",
            fetched_at=seen or WEEK.end - timedelta(hours=2),
            text=text if text is not None else distinct(number),
            language="en",
            published=day,
        )
        row.update(more)
        self.reviews.append(row)
        whole = "\n".join(part for part in (row["title"], row["text"]) if part is not None).strip()
        text_id = hashlib.sha256(whole.encode()).hexdigest()
        if engine_id is not None:
            self.score(text_id, sentiment, topics, engine_id=engine_id, entities=entities or [], p=p)
        return text_id

    def score(
        self,
        text_id: str,
        sentiment: str | None,
        topics: tuple[str, ...] = (),
        *,
        engine_id: str = ENGINE,
        entities: list[dict[str, Any]] | None = None,
        p: float = 0.9,
        tasks: tuple[str, ...] = ("sentiment", "topics", "entities"),
    ) -> None:
        """Rows of the scores table for one text."""
        for task in tasks:
            row = dict.fromkeys(TABLES["scores"].schema.names())
            row.update(text_id=text_id, task=task, engine_id=engine_id)
            row.update(model="reviews 1", backend="onnxruntime", precision="fp32")
            if task == "sentiment" and sentiment is not None:
                rest = (1 - p) / 2
                row.update({f"p_{label}": rest for label in ("negative", "neutral", "positive")})
                row.update({"sentiment": sentiment, f"p_{sentiment}": p})
            elif task == "sentiment":
                row["reason"] = "no words"
            if task == "topics":
                row["topics"] = list(topics)
            if task == "entities":
                row["entities"] = entities or []
            self.scores.append(row)

    def fill(self, number: int, sentiment: str, *topics: str, weeks_back: int = 0, **more: Any) -> None:
        """So many reviews, published on the Tuesday of a week."""
        day = (WEEK.back(weeks_back).start + timedelta(days=1)).date()
        for _ in range(number):
            self.add(sentiment, *topics, day=day, **more)

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The tables ``reviews`` and ``scores``."""
        reviews = pl.DataFrame(self.reviews, schema=TABLES["reviews"].schema)
        scores = pl.DataFrame(self.scores, schema=TABLES["scores"].schema)
        return reviews, scores.unique(["text_id", "task", "engine_id"], maintain_order=True)

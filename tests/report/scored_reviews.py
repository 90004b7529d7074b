"""The plain world with reviews that a model read: bugs break out at the rival."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

from report_world import ALL, SCRIPT, WEEK, World, moment, plain_world

from workbench.store.archive import Archive
from workbench.store.tables import TABLES

ENGINE = "0123456789abcdef"

WORDS = ("pen", "screen", "sync", "cover", "light", "weight", "page", "price", "box", "search", "folder", "cable")


def read(
    world: World, text: str, sentiment: str | None, topics: tuple[str, ...], *, engine_id: str = ENGINE, **more: Any
) -> None:
    """Rows of the scores table for a text, whose id is that of the words as they are."""
    for task in ("sentiment", "topics", "entities"):
        row = dict.fromkeys(TABLES["scores"].schema.names())
        row.update(
            text_id=hashlib.sha256(text.encode()).hexdigest(),
            task=task,
            engine_id=engine_id,
            model="reviews 1",
            backend="onnxruntime",
            precision="fp32",
        )
        if task == "sentiment":
            row.update({f"p_{label}": 0.05 for label in ("negative", "neutral", "positive")})
            row.update({"sentiment": sentiment, f"p_{sentiment}": 0.9} if sentiment else {"reason": "no words"})
        elif task == "topics":
            row["topics"] = list(topics)
        else:
            row["entities"] = more.get("entities", [])
        world.rows["scores"].append(row)


def add_review(
    world: World,
    origin: dict[str, Any],
    sentiment: str | None,
    *topics: str,
    weeks_back: int = 0,
    text: str | None = None,
    engine_id: str | None = ENGINE,
    **more: Any,
) -> None:
    """One review and what was read in it."""
    number = len(world.rows["reviews"])
    digest = hashlib.sha256(str(number).encode()).digest()
    words = text or f"Review {number}: " + ", ".join(f"{WORDS[byte % len(WORDS)]} {byte}" for byte in digest[:7])
    entities = more.pop("entities", [])
    fields = {"rating": {"negative": 1.0, "neutral": 3.0}.get(sentiment or "", 5.0), "title": None, **more}
    day = (WEEK.back(weeks_back).start + timedelta(days=1)).date()
    world.review(origin, number, text=words, published=day, **fields)
    if engine_id is not None:
        whole = "\n".join(part for part in (fields["title"], words) if part is not None).strip()
        read(world, whole, sentiment, topics, engine_id=engine_id, entities=entities)


def scored_world(root: Path) -> World:
    """min_reviews is 10: the rival goes from 2 of 24 negative to 20 of 28, Own Paper stays, Moshu has too few."""
    world = plain_world(root)
    path = root / "workspace.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("min_reviews = 3", "min_reviews = 10"), encoding="utf-8")
    world.rows["reviews"].clear()
    own = next(row for row in world.rows["pages"] if row["source_id"] == "own-reviews")
    with Archive(root / "archive").writer(opened_at=moment(WEEK, 5)) as writer:
        rival = world.page(writer, "rival", "rival-folio", moment(WEEK, 5), title="Rival Folio, reviews")
    origins = {
        company: {name: row[name] for name in ("snapshot_id", "company_id", "source_id", "url", "fetched_at")}
        for company, row in (("own", own), ("rival", rival))
    }
    moshu = next(row for row in reversed(world.rows["pages"]) if row["company_id"] == "moshu")
    origins["moshu"] = {name: moshu[name] for name in origins["own"]}
    for back in (1, 2, 3, 4):
        for n in range(6):
            add_review(
                world, origins["rival"], "negative" if n == 0 and back < 3 else "positive", "quality", weeks_back=back
            )
            add_review(world, origins["own"], "positive", "usability", weeks_back=back)
    for _ in range(20):
        add_review(world, origins["rival"], "negative", "bug", "service")
        add_review(world, origins["own"], "positive", "usability")
    for _ in range(8):
        add_review(world, origins["rival"], "positive", "quality")
    kindle = "Back to my Kindle, which never lost a page. Rival Folio did."
    start = kindle.index("Kindle")
    for number in range(2):
        add_review(
            world, origins["own"], "positive", "quality", text=f"{kindle} Twice {number}.", title="Own Slate next",
            entities=[{"start": start + 15, "end": start + 21, "label": "product", "text": "Kindle"}],
        )  # fmt: skip
    add_review(world, origins["moshu"], "negative", "delivery", text="预售等了三个星期还没有发货。", language="zh")
    return world


def hostile_reviews(world: World) -> World:
    """Reviews, statements and names that are attacks, in a company that is one."""
    origin = next(row for row in world.rows["pages"] if row["source_id"] == "own-reviews")
    origin = {name: origin[name] for name in ("snapshot_id", "company_id", "source_id", "url", "fetched_at")}
    rival = {**origin, "company_id": "rival"}
    for text in ALL:
        for back in (0, 1):
            for number in range(4):
                add_review(
                    world, {**rival, "snapshot_id": origin["snapshot_id"]}, "negative" if back == 0 else "positive",
                    SCRIPT, "bug", weeks_back=back, text=f"{text} {number} {back} {'x' * 30 * number}", title=text,
                    language=text, engine_id=ENGINE,
                    entities=[{"start": 0, "end": len(text), "label": SCRIPT, "text": text}],
                )  # fmt: skip
    for row in world.rows["scores"]:
        row.update(model=SCRIPT, backend=SCRIPT, precision=SCRIPT)
    new = next(row for row in reversed(world.rows["pages"]) if row["source_id"] == "rival-plans")
    for position, text in enumerate(ALL):
        claim = dict.fromkeys(TABLES["claims"].schema.names())
        claim.update({name: new[name] for name in origin}, position=position, kind="statement", text=f"{text}\nafter")
        world.rows["claims"].append(claim)
        read(world, f"{text}\nafter", None, (SCRIPT, text))
    return world

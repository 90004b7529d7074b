"""A small market in an archive and a lake, written row by row in the declared schemas."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import nbformat
import polars as pl

from workbench.report import Report
from workbench.store.archive import Archive, Entry
from workbench.store.lake import Lake
from workbench.store.tables import TABLES
from workbench.weeks import Week
from workbench.workspace import Workspace, load_workspace

WEEK = Week(2026, 47)

TOML = """
name = "fixture"

[company]
id = "own"
name = "Own Paper"
products = [{ name = "Own Slate", category = "tablet" }]
sources = [
  { id = "own-slate", url = "https://own.example/slate", kind = "product", product = "Own Slate" },
  { id = "own-reviews", url = "https://own.example/reviews", kind = "reviews", product = "Own Slate" },
]

[[competitors]]
id = "rival"
name = "Rival"
products = [{ name = "Rival Folio", category = "tablet" }, { name = "Rival Cloud", category = "cloud" }]
sources = [
  { id = "rival-folio", url = "https://rival.example/folio", kind = "product", product = "Rival Folio" },
  { id = "rival-plans", url = "https://rival.example/plans", kind = "pricing", product = "Rival Cloud" },
  { id = "rival-ads", url = "https://rival.example/ads", kind = "ads" },
]

[[competitors]]
id = "moshu"
name = "Moshu 墨舒"
products = [{ name = "墨舒 M2 纸感平板", category = "tablet" }]
sources = [{ id = "moshu-m2", url = "https://moshu.example/m2", kind = "product", product = "墨舒 M2 纸感平板" }]

[thresholds]
min_reviews = 3

[currency]
base = "USD"
rates = { CNY = 0.14 }
"""


@dataclass
class World:
    """Collects rows and archive entries, then writes them down."""

    root: Path
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "workspace.toml").write_text(TOML, encoding="utf-8")
        (self.root / "salt").write_text("00" * 32)

    @property
    def workspace(self) -> Workspace:
        return load_workspace(self.root)

    def page(
        self,
        writer: Any,
        company: str,
        source: str,
        when: datetime,
        *,
        title: str = "A page",
        url: str = "",
        **more: Any,
    ) -> dict[str, Any]:
        """Archive a page and add its row; gives the origin columns of rows read from it."""
        url = next(ref.source.url for ref in self.workspace.sources() if ref.source.id == source)
        payload = f"<title>{title}</title>{source} {when}".encode()
        entry: Entry = writer.response(
            source_id=source,
            url=url,
            fetched_at=when,
            http_status=200,
            headers=[("Content-Type", "text/html; charset=utf-8")],
            payload=payload,
        )
        kind = next(ref.source.kind for ref in self.workspace.sources() if ref.source.id == source)
        origin = {
            "snapshot_id": entry.snapshot_id,
            "company_id": company,
            "source_id": source,
            "url": url,
            "fetched_at": when,
        }
        self.rows["pages"].append(
            {
                **origin,
                "kind": kind,
                "http_status": 200,
                "payload_sha256": hashlib.sha256(payload).hexdigest(),
                "title": title,
                "language": "en",
                "published": None,
                "text": title,
                "warnings": [],
                "extractor": "0.1.0+test",
                **more,
            }
        )
        return origin

    def offer(
        self, origin: dict[str, Any], name: str, price: str | None, currency: str | None = "USD", **more: Any
    ) -> None:
        row = dict.fromkeys(TABLES["offers"].schema.names())
        row.update(
            origin, position=0, offer_key=name.casefold(), name=name, currency=currency, availability="InStock"
        )
        row.update(price=None if price is None else Decimal(price), **more)
        self.rows["offers"].append(row)

    def plan(self, origin: dict[str, Any], position: int, name: str, price: str | None, **more: Any) -> None:
        row = dict.fromkeys(TABLES["plans"].schema.names())
        row.update(origin, position=position, name=name, currency="USD", billing_period="month", features=[])
        row.update(price=None if price is None else Decimal(price), **more)
        self.rows["plans"].append(row)

    def change(self, old: dict[str, Any], new: dict[str, Any], kind: str, **more: Any) -> str:
        row = dict.fromkeys(TABLES["changes"].schema.names())
        change_id = hashlib.sha256(f"{new['url']}{kind}{more}".encode()).hexdigest()
        row.update(
            change_id=change_id,
            week=str(WEEK),
            kind=kind,
            severity="low",
            confidence=0.9,
            why="for the test",
            observed_at=new["fetched_at"],
            snapshot_before=old["snapshot_id"],
            snapshot_after=new["snapshot_id"],
            **{name: new[name] for name in ("company_id", "source_id", "url")},
        )
        row.update(more)
        self.rows["changes"].append(row)
        return change_id

    def source(self, source: str, status: str, origin: dict[str, Any] | None, **more: Any) -> None:
        ref = next(ref for ref in self.workspace.sources() if ref.source.id == source)
        row = dict.fromkeys(TABLES["sources"].schema.names())
        row.update(
            week=str(WEEK),
            company_id=ref.company.id,
            source_id=source,
            url=ref.source.url,
            kind=ref.source.kind,
            status=status,
            note="",
            attempted_at=WEEK.start + timedelta(days=2, hours=6),
        )
        if origin:
            row.update(snapshot_id=origin["snapshot_id"], snapshot_at=origin["fetched_at"], http_status=200)
        row.update(more)
        self.rows["sources"].append(row)

    def review(self, origin: dict[str, Any], number: int, **more: Any) -> None:
        row = dict.fromkeys(TABLES["reviews"].schema.names())
        row.update(
            origin,
            review_id=f"{origin['company_id']}-{number}",
            rating=4.0,
            rating_scale=5.0,
            text="Good.",
            language="en",
        )
        row.update(more)
        self.rows["reviews"].append(row)

    def creative(self, origin: dict[str, Any], position: int, image_url: str, alt: str | None) -> None:
        row = dict.fromkeys(TABLES["creatives"].schema.names())
        row.update(origin, position=position, image_url=image_url, alt=alt, width=1200, height=600)
        self.rows["creatives"].append(row)

    def write(self) -> Workspace:
        """Everything into the lake."""
        lake = Lake(self.root / "lake")
        for name, rows in self.rows.items():
            if rows:
                lake.upsert(name, pl.DataFrame(rows, schema=TABLES[name].schema, strict=False))
        return self.workspace


def moment(week: Week, days: int = 2) -> datetime:
    return week.start + timedelta(days=days, hours=6)


def plain_world(root: Path) -> World:
    """Four weeks: a price cut, a plan gone, a claim reworded, a source that fails, one that robots.txt denies."""
    world = World(root)
    before: dict[str, dict[str, Any]] = {}
    with Archive(root / "archive").writer(opened_at=datetime(2026, 11, 22, tzinfo=timezone.utc)) as writer:
        for back in (3, 2, 1, 0):
            when = moment(WEEK.back(back))
            now = back == 0
            own = world.page(writer, "own", "own-slate", when, title="Own Slate")
            world.offer(own, "Own Slate", "400")
            folio = world.page(writer, "rival", "rival-folio", when, title="Rival Folio, the paper tablet")
            world.offer(
                folio,
                "Rival Folio",
                "349" if now else "449",
                list_price=Decimal(449) if now else None,
                availability="OutOfStock" if now else "InStock",
            )
            plans = world.page(writer, "rival", "rival-plans", when, title="Rival Cloud plans")
            if not now:
                world.plan(plans, 0, "Free", "0", features=["2 GB", "One device"])
            world.plan(plans, 1, "Plus", "6", features=["50 GB", "Three devices"])
            world.plan(plans, 2, "Team", None, features=["Everything in Plus"])
            m2 = world.page(writer, "moshu", "moshu-m2", when, title="墨舒 M2 纸感平板", language="zh")
            world.offer(m2, "墨舒 M2 纸感平板", "2499" if back > 1 else "2299", "CNY")
            world.creative(
                folio, 0, "https://rival.example/new.png" if now else "https://rival.example/old.png", "A tablet"
            )
            if now:
                writer.attempt(
                    source_id="rival-ads",
                    url="https://rival.example/ads",
                    attempted_at=when,
                    status="robots-denied",
                    note="robots.txt disallows /ads",
                )
                world.change(
                    before["folio"],
                    folio,
                    "price",
                    subject="Rival Folio",
                    before="USD 449",
                    after="USD 349",
                    amount_before=Decimal(449),
                    amount_after=Decimal(349),
                    currency="USD",
                    percent=-22.27,
                    severity="high",
                    confidence=0.95,
                )
                world.change(
                    before["folio"],
                    folio,
                    "availability",
                    subject="Rival Folio",
                    before="InStock",
                    after="OutOfStock",
                    severity="medium",
                )
                world.change(
                    before["plans"], plans, "plan_removed", subject="Free", before="Free, free", severity="high"
                )
                world.change(
                    before["folio"],
                    folio,
                    "claim_reworded",
                    subject="Battery lasts",
                    before="The battery lasts 3 weeks on one charge.",
                    after="The battery lasts up to 2 weeks on one charge.",
                    severity="medium",
                )
                reviews = world.page(writer, "own", "own-reviews", when, title="Own reviews")
                for number in range(4):
                    world.review(reviews, number)
                world.source("own-slate", "fetched", own)
                world.source("own-reviews", "fetched", reviews)
                world.source("rival-folio", "fetched", folio)
                world.source("rival-plans", "not-modified", plans)
                world.source("rival-ads", "robots-denied", None, note="robots.txt disallows /ads")
                world.source("moshu-m2", "fetched", m2)
            before = {"folio": folio, "plans": plans}
    return world


# Texts of pages that try to be more than text.
SCRIPT = "<script>alert(1)</script>"
BROKEN_OUT = '"><img src=x onerror=alert(1)>'
MARKDOWN = "**bold** [x](javascript:alert(1)) {{ 7 * 7 }} {% raw %} $x^2$"
STYLE = "</style></svg></title><style>*{display:none}</style>"
FORMULA = '=HYPERLINK("http://evil.example","x")'
ALL = (SCRIPT, BROKEN_OUT, MARKDOWN, STYLE, FORMULA)


def hostile_world(root: Path, *more: str) -> World:
    """The plain world with a rival whose every text is an attack."""
    world = plain_world(root)
    toml = (root / "workspace.toml").read_text(encoding="utf-8")
    toml = toml.replace('name = "Rival Folio", category = "tablet"', f"name = '{SCRIPT}', category = 'tablet'")
    toml = toml.replace('product = "Rival Folio"', f"product = '{SCRIPT}'").replace(
        'name = "Rival"\n', f"name = '{BROKEN_OUT} Rival'\n"
    )
    (root / "workspace.toml").write_text(toml, encoding="utf-8")
    with Archive(root / "archive").writer(opened_at=datetime(2026, 11, 23, tzinfo=timezone.utc)) as writer:
        old = world.page(writer, "rival", "rival-plans", moment(WEEK.back(1), 4), title=SCRIPT)
        new = world.page(writer, "rival", "rival-plans", moment(WEEK, 4), title=BROKEN_OUT)
    for origin, price in ((old, "9"), (new, "7")):
        world.offer(origin, BROKEN_OUT, price, MARKDOWN, availability=SCRIPT if price == "9" else BROKEN_OUT)
        for position, text in enumerate((*ALL, *more)):
            world.plan(
                origin, position, text, price, currency=SCRIPT, billing_period=BROKEN_OUT, per_unit=STYLE,
                features=[*ALL, *more],
            )  # fmt: skip
    for position, text in enumerate((*ALL, *more)):
        world.creative(new, position, f"javascript:alert({position})//{text}", text)
        for kind in ("price", "availability", "plan_features", "claim_reworded", "claim_added", SCRIPT):
            world.change(
                old, new, kind, subject=text, before=f"{text} before", after=f"{text}\nafter", currency=SCRIPT,
                amount_before=Decimal(9), amount_after=Decimal(7), percent=-22.2, severity="high", why=BROKEN_OUT,
                url="javascript:alert(1)",
            )  # fmt: skip
    for row in world.rows["pages"]:
        if row["source_id"] == "rival-plans":
            row.update(url="javascript:alert(document.domain)", title=SCRIPT, language=BROKEN_OUT, extractor=STYLE)
    for row in world.rows["sources"]:
        if row["source_id"].startswith("rival"):
            row.update(url="javascript:alert(1)", note=BROKEN_OUT, status="failed", kind=SCRIPT)
    return world


def executed_notebook(report: Report, path: Path) -> Path:
    """What papermill leaves, as far as the template looks at it."""
    shown: list[Any] = [report.header, *report.sections]
    cells = [
        nbformat.v4.new_code_cell(
            "report",
            id=f"c{number}",
            metadata={"tags": ["report-header" if number == 0 else "report"]},
            outputs=[nbformat.v4.new_output("execute_result", data={"text/html": part._repr_html_()})],
        )
        for number, part in enumerate(shown)
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path

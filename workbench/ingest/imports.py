"""Reviews from a file instead of a page: shop and app-store exports, API dumps, feeds.

The file is kept as evidence, unchanged, in the workspace's folder ``imports``; beside it stands how it was read, so
that its reviews come back when the lake is made again. A row's ``snapshot_id`` names the file, the import and the
company: ``workbench snapshot ID`` shows the file. Importing the same file again changes nothing, and with another
mapping it replaces what the first reading gave.

A review counts in the week it was published in, as long as the file was exported by then: a report never rests on
what could not be known at its week's end.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from workbench.errors import ArchiveError, ParameterError
from workbench.extract.page import Review
from workbench.ingest.authors import fold, hash_author, vocabulary
from workbench.ingest.evidence import Import, evidence_of, imports_of, keep_import, known_import, sha256_of
from workbench.ingest.exports import Record, columns_of, read_records, value_at
from workbench.ingest.masking import NameMask
from workbench.ingest.rows import first_shown, review_id
from workbench.ingest.values import day_of, guess_scale, language_of, rating_of, text_of
from workbench.progress import tqdm
from workbench.store.lake import Lake, Upsert
from workbench.store.tables import TABLES
from workbench.weeks import Week
from workbench.workspace import Workspace

__all__ = [
    "FIELDS",
    "ImportResult",
    "import_reviews",
    "parse_mapping",
    "restore_imports",
]

log = logging.getLogger(__name__)

FIELDS: Final = ("text", "title", "rating", "author", "date", "company", "url", "language", "source")
"""What a column can be mapped to."""

_SHOW: Final = 5000  # reviews from which a progress bar is worth it

_READER: Final = "import 1"
"""Stands in the column ``extractor``; raised when the same file comes out differently, so that it is read again."""


@dataclass(frozen=True)
class ImportResult:
    """What an import did. Rows are those of the file."""

    file: str
    source_ids: tuple[str, ...]
    rows: int
    reviews: int
    """Reviews in the file that no page and no other import showed earlier."""
    changed: Upsert
    without_text: int
    repeated: int
    """Rows that repeat another one of the file."""
    known: int
    """Reviews that another snapshot showed earlier."""
    weeks: tuple[str, ...]
    """Weeks the reviews were published in, in order."""
    first_report: str
    """The first week whose report counts them."""
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """A few lines for a person."""
        left_out = ", ".join(
            f"{count} {what}"
            for count, what in (
                (self.without_text, "without text"),
                (self.repeated, "twice in the file"),
                (self.known, "known already"),
            )
            if count
        )
        span = self.weeks[0] if len(self.weeks) == 1 else f"{self.weeks[0]} to {self.weeks[-1]}" if self.weeks else ""
        lines = [
            f"{self.file}: {self.reviews:,} reviews of {self.rows:,} rows as {', '.join(self.source_ids)}"
            + (f" ({left_out})" if left_out else "")
            + (f", published {span}" if span else ""),
            f"{self.changed.inserted} new, {self.changed.updated} updated, {self.changed.deleted} removed. Reports "
            f"count them from {self.first_report} on; for an earlier one, say when the file was exported: --exported",
            *self.warnings,
        ]
        return "\n".join(lines)


@dataclass
class _Reading:
    """Rows of the table reviews, and what was noticed on the way."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    without_text: int = 0
    snapshots: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Snapshot id to company and source."""
    unread: dict[str, list[str]] = field(default_factory=lambda: {"rating": [], "date": []})
    """Values that were not understood."""


def parse_mapping(parts: Sequence[str]) -> dict[str, str]:
    """``["text=comment,rating=stars"]`` as a dict. Raises ParameterError for a field that is none of FIELDS."""
    mapping: dict[str, str] = {}
    for pair in (pair for part in parts for pair in part.split(",")):
        name, equals, column = pair.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise ParameterError(f"{pair!r} is no mapping. Write field=column, for example --map text=comment")
        mapping[name.strip()] = column.strip()
    return _checked_fields(mapping)


def import_reviews(
    file: Path | str,
    workspace: Workspace,
    *,
    mapping: Mapping[str, str] | None = None,
    company: str | None = None,
    name: str | None = None,
    rating_scale: float | None = None,
    exported: dt.datetime | None = None,
    records: str | None = None,
    country: str | None = None,
) -> ImportResult:
    """Read the reviews of ``file`` into the lake's table reviews, with the file as their evidence.

    ``mapping``: a field of FIELDS to the column that holds it, nested ones with dots; without it columns named like
    fields are taken. ``company``: id, name or alias of the company that all rows are about, unless a column says it.
    ``name``: what the source is called, ``import:<name>`` in the lake; the file's name when left out.
    ``rating_scale``: the best rating possible; without it 5, 10 or 100, whichever the largest rating fits in.
    ``exported``: when the file was made, now when left out; an aware time, or one in UTC. ``records``: path of the
    list in a JSON file that holds several. ``country``: two letters; in the US 03/11/2026 is the eleventh of March.

    Authors are hashed, and their names masked in titles and texts, as for pages. Rows without title and text are left
    out and counted. Raises ParameterError when the file, a column or a company is not there.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ParameterError(f"No file {path}. Check the path.")
    payload = path.read_bytes()
    source = _slug(name if name is not None else path.stem)
    companies = _company_ids(workspace)
    company_id = None if company is None else _company(company, companies)
    mapping = _checked_fields(dict(mapping or {}))
    digest = hashlib.sha256(payload).hexdigest()
    import_id = sha256_of(source, company_id or "", digest)[:16]
    before = known_import(workspace, import_id)
    if exported is None:
        exported = before.at if before else dt.datetime.now(dt.timezone.utc)
    elif exported.tzinfo is None:
        exported = exported.replace(tzinfo=dt.timezone.utc)
    plan = Import(
        import_id=import_id,
        file=f"{digest}{path.suffix.lower()}",
        original_name=path.name,
        payload_sha256=digest,
        exported=exported.astimezone(dt.timezone.utc).isoformat(),
        name=source,
        company=company_id,
        mapping=mapping,
        rating_scale=rating_scale,
        records=records,
        country=country.upper() if country else None,
    )
    return _run(workspace, plan, payload, before=before)


def restore_imports(workspace: Workspace, lake: Lake) -> int:
    """Import again what the lake does not have, or what an older reader read; the number of imports read.

    An import of a company that left the workspace, or whose file was damaged, stays as it is; the log says so.
    """
    known = set(lake.scan("pages").select("snapshot_id", "extractor").collect().iter_rows())
    done = 0
    for plan in imports_of(workspace):
        if all((snapshot_id, _READER) in known for snapshot_id in plan.snapshots):
            continue
        try:
            _run(workspace, plan, evidence_of(workspace, plan), before=plan)
        except (ArchiveError, ParameterError) as error:
            log.warning("Import %s was not read again: %s", plan.original_name, error)
        else:
            done += 1
    return done


# From records to rows


def _run(workspace: Workspace, plan: Import, payload: bytes, *, before: Import | None) -> ImportResult:
    records = read_records(payload, plan.original_name, records=plan.records)
    mapping = _checked_columns(plan, records)
    reading = _read(records, mapping, plan, workspace)
    plan = replace(plan, snapshots=reading.snapshots)
    ids = sorted({*reading.snapshots, *(before.snapshots if before else ())})

    # The evidence first: no row without it. The page last: an import that died half-way is done again.
    keep_import(workspace, plan, payload)
    lake = Lake(workspace.lake_dir)
    found = pl.DataFrame(reading.rows, schema=TABLES["reviews"].schema)
    reviews = first_shown(found, lake.read("reviews"), ids)
    changed = Upsert()
    if ids:
        changed = lake.replace("reviews", reviews, where={"snapshot_id": ids})
        lake.replace("pages", _pages(plan), where={"snapshot_id": ids})
    distinct = found["review_id"].n_unique()
    weeks = sorted({Week.of(day) for day in reviews["published"].drop_nulls().to_list()})
    return ImportResult(
        file=plan.original_name,
        source_ids=tuple(sorted({source_id for _, source_id in reading.snapshots.values()})),
        rows=len(records),
        reviews=reviews.height,
        changed=changed,
        without_text=reading.without_text,
        repeated=found.height - distinct,
        known=distinct - reviews.height,
        weeks=tuple(map(str, weeks)),
        first_report=str(Week.of(plan.at)),
        warnings=_warnings(reading),
    )


def _read(records: Sequence[Record], mapping: Mapping[str, str], plan: Import, workspace: Workspace) -> _Reading:
    reading = _Reading()
    salt, companies = workspace.salt(), _company_ids(workspace)
    rows = [{name: value_at(record, column) for name, column in mapping.items()} for record in records]
    scale = plan.rating_scale or guess_scale(row.get("rating") for row in rows)
    reviews = [(row, _review(row, scale, plan.country, reading)) for row in rows]
    reading.without_text = sum(not review.text and not review.title for _, review in reviews)
    reviews = [(row, review) for row, review in reviews if review.text or review.title]
    mask = NameMask(
        (review.author for _, review in reviews),
        (f"{review.title or ''} {review.text}" for _, review in reviews),
        keep=vocabulary(workspace),
    )
    for row, review in tqdm(reviews, desc="Importing", unit="review", disable=len(reviews) < _SHOW, leave=False):
        company_id = _company(text_of(row["company"]), companies) if "company" in mapping else plan.company
        if company_id is None:
            raise ParameterError(
                f"{plan.original_name}: which company the reviews are about is not said. Name it with --company ID, "
                f"or a column with --map company=COLUMN. Known: {_known(companies)}"
            )
        source_id = f"import:{_slug(text_of(row.get('source')) or plan.name)}"
        snapshot_id = sha256_of(source_id, company_id, plan.payload_sha256)
        reading.snapshots[snapshot_id] = (company_id, source_id)
        url = text_of(row.get("url")) or ""
        reading.rows.append(
            {
                "review_id": review_id(review, company_id, salt=salt),
                "snapshot_id": snapshot_id,
                "company_id": company_id,
                "source_id": source_id,
                "url": url if re.match(r"https?://", url) else source_id,
                "fetched_at": plan.at,
                "author_hash": hash_author(review.author, salt),
                "rating": review.rating,
                "rating_scale": review.rating_scale,
                "title": None if review.title is None else mask(review.title, review.author),
                "text": mask(review.text, review.author),
                "language": language_of(row.get("language"), f"{review.title or ''} {review.text}"),
                "published": review.date,
            }
        )
    return reading


def _review(row: Mapping[str, Any], scale: float, country: str | None, reading: _Reading) -> Review:
    rating, day = None, None
    try:
        rating = rating_of(row.get("rating"), scale)
    except ValueError as error:
        reading.unread["rating"].append(str(error))
    try:
        day = day_of(row.get("date"), country)
    except ValueError as error:
        reading.unread["date"].append(str(error))
    return Review(
        author=text_of(row.get("author")),
        rating=rating[0] if rating else None,
        rating_scale=rating[1] if rating else None,
        title=text_of(row.get("title")),
        text=text_of(row.get("text")) or "",
        date=day,
    )


def _pages(plan: Import) -> pl.DataFrame:
    """The file as a page without text: it is listed as evidence, and never compared with another one."""
    rows: list[dict[str, Any]] = [
        {
            **dict.fromkeys(TABLES["pages"].schema),
            "snapshot_id": snapshot_id,
            "company_id": company_id,
            "source_id": source_id,
            "url": source_id,
            "fetched_at": plan.at,
            "kind": "reviews",
            "payload_sha256": plan.payload_sha256,
            "title": plan.original_name,
            "text": "",
            "warnings": [],
            "extractor": _READER,
        }
        for snapshot_id, (company_id, source_id) in plan.snapshots.items()
    ]
    return pl.DataFrame(rows, schema=TABLES["pages"].schema)


def _warnings(reading: _Reading) -> tuple[str, ...]:
    told = {
        "date": "dates were not understood, such as {!r}; these reviews count from the day the file was exported.",
        "rating": "ratings were not understood or lie outside the scale, such as {!r}; see --rating-scale.",
    }
    return tuple(
        f"{len(reading.unread[what])} {text.format(reading.unread[what][0][:40])}"
        for what, text in told.items()
        if reading.unread[what]
    )


# What is allowed


def _checked_fields(mapping: dict[str, str]) -> dict[str, str]:
    if unknown := [name for name in mapping if name not in FIELDS]:
        raise ParameterError(f"No field is named {unknown[0]!r}. Fields: {', '.join(FIELDS)}")
    return mapping


def _checked_columns(plan: Import, records: Sequence[Record]) -> dict[str, str]:
    columns = columns_of(records)
    mapping = plan.mapping or {name: name for name in FIELDS if name in columns}
    if not records:
        return mapping
    listed = ", ".join(columns[:60]) + (f" and {len(columns) - 60} more" if len(columns) > 60 else "")
    for name, column in mapping.items():
        if all(value_at(record, column) is None for record in records) and column not in columns:
            raise ParameterError(
                f"{plan.original_name} has no column {column!r} for {name}. Its columns: {listed}. "
                f"Name another one: --map {name}=COLUMN"
            )
    if "text" not in mapping and "title" not in mapping:
        raise ParameterError(
            f"Which column of {plan.original_name} holds the text is not said. Its columns: {listed}. "
            "Name it: --map text=COLUMN"
        )
    return mapping


def _company_ids(workspace: Workspace) -> dict[str, str]:
    """Folded ids, names and aliases to ids."""
    found: dict[str, str] = {}
    for company in workspace.companies:
        for known in (company.id, company.name, *company.aliases):
            found.setdefault(fold(known), company.id)
    return found


def _known(companies: Mapping[str, str]) -> str:
    return ", ".join(sorted(set(companies.values())))


def _company(named: str | None, companies: Mapping[str, str]) -> str:
    company_id = companies.get(fold(named))
    if company_id is None:
        said = f"{named!r} is no company of the workspace" if named else "A row names no company"
        raise ParameterError(f"{said}. Known: {_known(companies)}. Add it to workspace.toml, or name another.")
    return company_id


def _slug(name: str) -> str:
    words = re.sub(r"[^\w.-]+", "-", name.strip().casefold()).strip("-.")
    if not words:
        raise ParameterError(f"{name!r} cannot be the name of a source. Give one with letters: --name appstore")
    return words[:64]

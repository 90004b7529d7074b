"""Section 6: share of voice, as a share of what was collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from workbench.report.figure_shift import points
from workbench.report.figure_voice import voice_figure
from workbench.report.html import clip, plural, quoted, render, words
from workbench.report.material import Material, View
from workbench.report.model import Section
from workbench.report.tables import Column, table

__all__ = ["build_voice", "voice_table"]

_MOST_NAMES = 10
_FEWEST = 2  # reviews that name it; one may be a slip of the model
_MOST_SNAPSHOTS = 2
_FEW_MENTIONS = 30


def build_voice(material: Material, view: View, number: int) -> Section:
    """Mentions of the workspace's companies, their share, and what else reviewers name."""
    title = "Share of voice"
    voice = material.voice
    rows = [{**row, "company": material.company_name(row["company_id"])} for row in voice.shares.to_dicts()]
    listed = voice.also.filter(pl.col("mentions_week") >= _FEWEST).head(_MOST_NAMES).to_dicts()
    body = render(
        "voice",
        number=number,
        title=title,
        summary=_summary(material, rows),
        caution=(
            "A share of collected mentions: which pages are watched decides it as much as what people say. A mention "
            "is one review or statement that names a company or its product by a name or alias in workspace.toml, "
            "however often. What a company's own pages say of itself is counted apart and is no part of the share. "
            "The changes are not corrected for their number."
        ),
        figure=voice_figure("f-voice", rows, material) if voice.total_week else "",
        table=_table(rows, view),
        also_said=_also_said(material, listed),
        also=_also_table(listed, material, view) if listed else "",
    )
    data = {
        "texts_week": voice.texts_week,
        "texts_baseline": voice.texts_baseline,
        "mentions_week": voice.total_week,
        "mentions_baseline": voice.total_baseline,
        "shares": rows,
        "also_mentioned": voice.also.to_dicts(),
    }
    return Section("voice", number, title, "ready", data, body)


def voice_table(material: Material) -> pl.DataFrame:
    """The shares as a table for voice.csv."""
    names = {company.id: company.name for company in material.workspace.companies}
    return material.voice.shares.select(
        pl.lit(str(material.week)).alias("week"),
        pl.col("company_id").replace(names).alias("company"),
        pl.all().exclude("snapshot_ids"),
        pl.col("snapshot_ids").list.join(" ").alias("snapshot_ids"),
    )


def _summary(material: Material, rows: Sequence[Mapping[str, Any]]) -> str:
    voice = material.voice
    looked = f"{plural(voice.texts_week, 'text')} of this week"
    if not voice.texts_week:
        return "No review and no new statement was collected this week, so no share is stated."
    if not voice.total_week:
        names = words(row["company"] for row in rows)
        return f"None of {looked} names {names}, other than a company's own pages."
    others = sum(row["in_other_reviews"] for row in rows)
    text = (
        f"{looked[0].upper()}{looked[1:]} hold {plural(voice.total_week, 'mention')} of the companies; "
        f"{voice.total_baseline:,} in the four weeks before ({plural(voice.texts_baseline, 'text')})."
    )
    if voice.total_week < _FEW_MENTIONS:
        text += " On so few, a share is rough: look at the intervals."
    if others:
        lead = max(rows, key=lambda row: row["in_other_reviews"])
        text += (
            f" In reviews of others' products, which is where comparisons stand, {lead['company']} is named most "
            f"({plural(lead['in_other_reviews'], 'review')})."
        )
    return text


def _table(rows: Sequence[Mapping[str, Any]], view: View) -> Markup:
    columns = [
        Column("company", "Company"),
        Column("mentions", "Mentions", "right"),
        Column("share", "Share", "right"),
        Column("change", "Change, points", "right"),
        Column("where", "Where they stand"),
        Column("self", "Own pages*", "right"),
        Column("evidence", "Evidence"),
    ]
    made = [
        {
            "company": row["company"],
            "mentions": _two(f"{row['mentions_week']:,}", f"before {row['mentions_baseline']:,}"),
            "share": None
            if row["share_week"] is None
            else _two(_percent(row["share_week"]), f"{row['low'] * 100:.0f} to {_percent(row['high'])}"),
            "change": None
            if row["delta"] is None
            else _two(points(row["delta"]), f"{points(row['delta_low'])} to {points(row['delta_high'])}"),
            "where": Markup('<span class="small">{}</span>').format(_where(row)),
            "self": f"{row['self_mentions_week']:,}",
            "evidence": view.evidence.listed(row["snapshot_ids"][:_MOST_SNAPSHOTS]),
        }
        for row in view.cut(list(rows))
    ]
    caption = (
        "Mentions this week, with 95 % intervals, against the four weeks before, and where they stand. "
        "*Counted apart, no part of the share."
    )
    return table("t-voice", caption, columns, made, total=len(rows))


def _where(row: Mapping[str, Any]) -> str:
    places = (
        ("own reviews", "in_own_reviews"),
        ("others' reviews", "in_other_reviews"),
        ("others' pages", "on_other_pages"),
    )
    return ", ".join(f"{name} {row[key]:,}" for name, key in places if row[key])


def _two(first: str, second: str) -> Markup:
    return Markup('{}<span class="small">{}</span>').format(first, second)


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _also_said(material: Material, listed: Sequence[Mapping[str, Any]]) -> str:
    use = material.scored.engines["entities"]
    if use.engine_id is None:
        return "Names beyond workspace.toml are found by a model, and none has read the reviews yet."
    rest = material.voice.also.height - len(listed)
    if not listed:
        text = "No name that workspace.toml does not know stands in two or more of the week's reviews."
    else:
        text = (
            "Names that workspace.toml does not know, as a model found them in the week's reviews. It takes some "
            "words for names that are none; add a true one as an alias, a product or a competitor."
        )
    return f"{text} {plural(rest, 'rarer one')} in report.json." if rest > 0 else text


def _also_table(listed: Sequence[Mapping[str, Any]], material: Material, view: View) -> Markup:
    columns = [
        Column("name", "Name"),
        Column("label", "Read as"),
        Column("week", "Reviews", "right"),
        Column("where", "In reviews of"),
        Column("evidence", "Evidence"),
    ]
    made = [
        {
            "name": quoted(row["name"], 80),
            "label": clip(row["label"], 20),
            "week": _two(f"{row['mentions_week']:,}", f"before {row['mentions_baseline']:,}"),
            "where": words(material.company_name(company_id) for company_id in row["company_ids"]),
            "evidence": view.evidence.listed(row["snapshot_ids"][:_MOST_SNAPSHOTS]),
        }
        for row in view.cut(list(listed))
    ]
    return table("t-also", "Also mentioned in this week's reviews.", columns, made)

"""Section 5: review sentiment by company and topic, against the four weeks before, with the reviewers' own words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from workbench.insight.scored import EngineUse
from workbench.insight.sentiment import ALL, FALSE_DISCOVERIES, select_cell, topic_minimum, topic_name
from workbench.insight.shift_story import percent_words
from workbench.insight.stars import mean_stars
from workbench.insight.verbatims import choose_verbatims
from workbench.report.figure_shift import points, shift_figure, shift_rows
from workbench.report.html import plural, quoted, render, words
from workbench.report.material import Material, View
from workbench.report.model import Section
from workbench.report.section_reviews import build_unscored, review_counts
from workbench.report.shift_tables import q_words, shift_table, thin_topics
from workbench.report.wording import language_word

__all__ = ["build_sentiment"]

TITLE = "Review sentiment"

_MOST_TOPICS = 3  # with quotes, of one company
_QUOTES = 3  # on a topic that shifted; one less on others
_QUOTED = 420  # characters
_MIXTURE = 0.2  # part of the reviews that changed language: then a shift may be one of language


def build_sentiment(material: Material, view: View, number: int) -> Section:
    """Sentiment when the week's reviews were scored; else what is waiting to be."""
    if not material.scored.any_scores:
        return build_unscored(material, view, number, TITLE)
    rows = material.shifts.to_dicts()
    needed = material.workspace.thresholds.min_reviews
    companies = [_company(material, company.id, rows) for company in material.workspace.companies]
    drawn = shift_rows(rows)
    agreement = material.agreement
    body = render(
        "sentiment",
        number=number,
        title=TITLE,
        summary=_summary(material, rows),
        warning=_warning(material),
        basis=_basis(material),
        notes=_notes(material, companies),
        figure=shift_figure("f-shift", drawn, material) if drawn else "",
        table=shift_table(material, view, rows),
        key=_key(rows, needed),
        thin=thin_topics(material, rows),
        companies=[_shown(company, material, view) for company in companies if company["reviews_week"]],
    )
    data = {
        "min_reviews": needed,
        "min_topic_reviews": topic_minimum(needed),
        "companies": _counts(material, companies),
        "shifts": rows,
        "comparisons": sum(1 for row in rows if row["p"] is not None),
        "false_discoveries": FALSE_DISCOVERIES,
        "engines": [_engine(use) for use in material.scored.engines.values()],
        "agreement_with_stars": {"rated": agreement.rated, "agree": agreement.agree, "share": agreement.share},
        "verbatims": [
            _verbatim(row, company["company_id"], cell["topic"])
            for company in companies
            for cell in company["cells"]
            for row in cell["quotes"]
        ],
    }
    return Section("sentiment", number, TITLE, "ready", data, body)


# What is said


def _summary(material: Material, rows: Sequence[Mapping[str, Any]]) -> str:
    whole = [row for row in rows if row["topic"] == ALL]
    moved = [row for row in whole if row["verdict"] == "shift"]
    topics = [row for row in rows if row["topic"] != ALL and row["verdict"] == "shift"]
    tested = [row for row in whole if row["delta"] is not None]
    if not tested:
        return "No company has enough reviews on both sides for a comparison with the four weeks before."
    said = [
        f"{material.company_name(row['company_id'])} from {percent_words(row['share_baseline'])} to "
        f"{percent_words(row['share_week'])}"
        for row in sorted(moved, key=lambda row: -abs(row["delta"]))
    ]
    if not moved and not topics:
        return "No company's reviews moved by more than chance explains, as a whole or on any topic."
    parts = []
    if said:
        parts.append(f"The share of negative reviews moved by more than chance explains at {words(said)}.")
    else:
        parts.append("No company's reviews moved as a whole.")
    still = [material.company_name(row["company_id"]) for row in tested if row["verdict"] != "shift"]
    if said and still:
        parts.append(f"It did not at {words(still)}.")
    if topics:
        by_company: dict[str, list[str]] = {}
        for row in topics:
            about = f"“{topic_name(material.workspace, row['topic'])}”"
            if about not in by_company.setdefault(row["company_id"], []):
                by_company[row["company_id"]].append(about)
        listed = words(f"{material.company_name(company)} {words(names)}" for company, names in by_company.items())
        parts.append(f"By topic: {listed}.")
    return " ".join(parts)


def _basis(material: Material) -> str:
    sides = Counter(material.scored.rows.filter(pl.col("sentiment").is_not_null())["side"].to_list())
    agreement = material.agreement
    text = (
        f"A model read {plural(sides['week'], 'review')} of this week and {sides['baseline']:,} of the four weeks "
        "before. Each counts once, in the week it was published."
    )
    if agreement.share is not None and not agreement.doubtful:
        text += (
            f" Where reviewers gave clear stars, it agrees with them in {agreement.agree:,} of {agreement.rated:,} "
            f"reviews ({percent_words(agreement.share)})."
        )
    return text


def _warning(material: Material) -> str:
    agreement = material.agreement
    if not agreement.doubtful or agreement.share is None:
        return ""
    return (
        f"Read this section with care: the model agrees with the reviewers' own stars in only {agreement.agree:,} of "
        f"{agreement.rated:,} reviews ({percent_words(agreement.share)}). Nothing of it was made a finding."
    )


def _notes(material: Material, companies: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    use = material.scored.engines["sentiment"]
    missing = use.missing_week + use.missing_baseline
    if missing:
        others = sum(use.other_engines.values())
        text = (
            f"{plural(missing, 'review')} not read by this model ({use.missing_week} of this week) and not counted."
        )
        if others:
            text += (
                f" {others} of them were read by another one ({', '.join(use.other_engines)}), and two models are "
                f"never compared: workbench score -w DIR --week {material.week} reads them again."
            )
        else:
            text += f" To read them: workbench score -w DIR --week {material.week}."
        notes.append(text)
    unread = material.scored.rows.filter(pl.col("has_sentiment"), pl.col("sentiment").is_null()).height
    if unread:
        notes.append(f"{plural(unread, 'review')} had no words that could be read, such as signs only.")
    return notes + [
        f"{company['name']}: the languages of its reviews changed ({company['languages_said']}), so a shift may be "
        "one of language."
        for company in companies
        if company["language_moved"]
    ]


def _key(rows: Sequence[Mapping[str, Any]], needed: int) -> str:
    tests = sum(1 for row in rows if row["p"] is not None)
    return (
        "Negative: of the reviews on the topic. Complaints: of all reviews, those negative and on the topic. "
        "Changes are in percentage points with 95 % intervals; ▲ and ▼ mark shifts. q is corrected for the week's "
        f"{plural(tests, 'comparison')} (Benjamini and Hochberg); below {FALSE_DISCOVERIES:g} is called a shift. A "
        f"company needs {needed} reviews on both sides, a topic {topic_minimum(needed)}; below, nothing is stated."
    )


# Companies


def _company(material: Material, company_id: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    own = material.scored.rows.filter(pl.col("company_id") == company_id, pl.col("sentiment").is_not_null())
    sides = {side: own.filter(pl.col("side") == side) for side in ("week", "baseline")}
    languages = {side: Counter(frame["language"].fill_null("unknown").to_list()) for side, frame in sides.items()}
    shifts = [row for row in rows if row["company_id"] == company_id]
    cells = _cells(material, sides["week"], shifts)
    taken: set[str] = set()
    for cell in cells:
        cell["quotes"] = choose_verbatims(
            select_cell(sides["week"], cell["topic"]), _QUOTES if cell["size"] else _QUOTES - 1, taken=taken
        )
    return {
        "company_id": company_id,
        "name": material.company_name(company_id),
        "reviews_week": sides["week"].height,
        "reviews_baseline": sides["baseline"].height,
        "languages_week": dict(sorted(languages["week"].items())),
        "languages_baseline": dict(sorted(languages["baseline"].items())),
        "languages_said": _languages_said(languages),
        "language_moved": _moved(languages["week"], languages["baseline"]),
        "stars_week": mean_stars(sides["week"]),
        "stars_baseline": mean_stars(sides["baseline"]),
        "all": next((row for row in shifts if row["topic"] == ALL), None),
        "cells": [cell for cell in cells if cell["quotes"]],
    }


def _cells(material: Material, week: pl.DataFrame, shifts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The topics to quote on: those that shifted, then those spoken of most; all reviews where there is none."""
    few = topic_minimum(material.workspace.thresholds.min_reviews)
    by_topic: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in shifts:
        if row["topic"] not in (ALL, "other"):
            by_topic[row["topic"]].append(row)
    found = []
    for topic, rows in by_topic.items():
        number = next(row["reviews_week"] for row in rows if row["measure"] == "negative")
        size = max((abs(row["delta"]) for row in rows if row["verdict"] == "shift"), default=0.0)
        if number >= few or size:
            found.append({"topic": topic, "rows": rows, "number": number, "size": size})
    # Stable: equals stay in the order of the topics.
    found.sort(key=lambda cell: (-cell["size"], -cell["number"]))
    if not found and week.height:
        found = [
            {"topic": ALL, "rows": [row for row in shifts if row["topic"] == ALL], "number": week.height, "size": 0}
        ]
    # A company without a shift needs less room.
    return found[: _MOST_TOPICS if found and found[0]["size"] else _MOST_TOPICS - 1]


def _moved(week: Counter[str], baseline: Counter[str]) -> bool:
    """Whether more than _MIXTURE of the reviews changed language (total variation)."""
    n, m = sum(week.values()), sum(baseline.values())
    if not n or not m:
        return False
    return sum(abs(week[code] / n - baseline[code] / m) for code in {*week, *baseline}) / 2 > _MIXTURE


def _languages_said(languages: Mapping[str, Counter[str]]) -> str:
    def said(counts: Counter[str]) -> str:
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return words(f"{count:,} {language_word(code)}" for code, count in ordered) or "none"

    return f"this week {said(languages['week'])}, before {said(languages['baseline'])}"


def _shown(company: Mapping[str, Any], material: Material, view: View) -> dict[str, Any]:
    whole = company["all"]
    n, needed = company["reviews_week"], material.workspace.thresholds.min_reviews
    if whole is None or whole["share_week"] is None:
        parts = [f"Not enough reviews: {n} this week, {needed} needed. What they say stands here as it is."]
    else:
        cases, positive = whole["cases_week"], whole["positive_week"]
        neutral = n - cases - positive
        told = [
            f"{count} {name}"
            for count, name in ((cases, "negative"), (neutral, "neutral"), (positive, "positive"))
            if count
        ]
        parts = [f"{plural(n, 'review')} this week: {words(told)}."]
        if whole["delta"] is None:
            parts.append(f"Too few before for a comparison ({company['reviews_baseline']}, {needed} needed).")
        else:
            verdict = f"{'a shift' if whole['verdict'] == 'shift' else 'no shift'}, {q_words(whole['q'])}"
            parts.append(
                f"Negative {percent_words(whole['share_week'])}, before {percent_words(whole['share_baseline'])} of "
                f"{company['reviews_baseline']}: {points(whole['delta'])} points "
                f"({points(whole['low'])} to {points(whole['high'])}), {verdict}."
            )
    if company["stars_week"] is not None:
        before = company["stars_baseline"]
        parts.append(
            f"Mean rating {company['stars_week']:.1f} of 5"
            + (f", before {before:.1f}." if before is not None else ".")
        )
    parts.append(f"Languages: {company['languages_said']}.")
    return {
        "name": company["name"],
        "said": " ".join(parts),
        "topics": [_topic(cell, material, view) for cell in company["cells"]],
    }


def _topic(cell: Mapping[str, Any], material: Material, view: View) -> dict[str, Any]:
    mood = next((row for row in cell["rows"] if row["measure"] == "negative"), None)
    said = ""
    if mood is not None:
        said = (
            f"{mood['cases_week']} of {mood['reviews_week']} negative, "
            f"before {mood['cases_baseline']} of {mood['reviews_baseline']}"
        )
    if cell["size"]:
        said += " · a shift"
    return {
        "name": topic_name(material.workspace, cell["topic"]),
        "said": said,
        "quotes": [_quote(row, view) for row in cell["quotes"]],
    }


def _quote(row: Mapping[str, Any], view: View) -> dict[str, Any]:
    title, body = row["title"] or "", row["body"] or ""
    text = Markup("{}{}").format(
        Markup("<strong>{}</strong> ").format(quoted(title, 120)) if title.strip() else "", quoted(body, _QUOTED)
    )
    certain = row[f"p_{row['sentiment']}"]
    about = [f"{row['sentiment']} ({percent_words(certain)} sure)" if certain is not None else row["sentiment"]]
    if row["rating"] is not None and row["rating_scale"]:
        about.append(f"{row['rating']:g} of {row['rating_scale']:g} stars")
    about.append(_day(row["day"]))
    return {"text": text, "about": ", ".join(about), "evidence": view.evidence.cite(row["snapshot_id"])}


def _day(day: Any) -> str:
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{day.day} {months[day.month - 1]}"


# JSON


def _counts(material: Material, companies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    by_id = {row["company_id"]: row for row in review_counts(material)}
    keys = (
        "reviews_week",
        "reviews_baseline",
        "languages_week",
        "languages_baseline",
        "stars_week",
        "stars_baseline",
    )
    return [{**by_id[c["company_id"]], **{key: c[key] for key in keys}} for c in companies]


def _engine(use: EngineUse) -> dict[str, Any]:
    return {
        "task": use.task,
        "engine_id": use.engine_id,
        "model": use.model,
        "backend": use.backend,
        "precision": use.precision,
        "scored_week": use.scored_week,
        "scored_baseline": use.scored_baseline,
        "missing_week": use.missing_week,
        "missing_baseline": use.missing_baseline,
        "other_engines": dict(use.other_engines),
    }


def _verbatim(row: Mapping[str, Any], company_id: str, topic: str) -> dict[str, Any]:
    certain = row[f"p_{row['sentiment']}"]
    return {
        "company_id": company_id,
        "topic": topic,
        "review_id": row["review_id"],
        "text": row["text"],
        "language": row["language"],
        "day": row["day"],
        "sentiment": row["sentiment"],
        "p": None if certain is None else round(float(certain), 4),
        "rating": row["rating"],
        "rating_scale": row["rating_scale"],
        "snapshot_id": row["snapshot_id"],
    }

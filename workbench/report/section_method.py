"""Section 10: how the report was made, and the archived pages it rests on."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

import polars as pl
from markupsafe import Markup

from workbench.insight.stars import ENOUGH_AGREEMENT, ENOUGH_RATED
from workbench.report.engine_verdicts import find_verdicts, verdict_notes
from workbench.report.html import day, link, minute, plural, quoted, render
from workbench.report.material import DAYS_SHOWN, Material, View
from workbench.report.model import Section
from workbench.report.model_cards import (
    card_notes,
    cards_table,
    find_cards,
    limit_lines,
    model_folders,
    training_lines,
)
from workbench.report.tables import Column, table

__all__ = ["PACKAGES", "build_method"]

PACKAGES = ("trafilatura", "extruct", "price-parser", "htmldate", "polars", "deltalake", "great-tables", "matplotlib")
"""The libraries whose version can change what a report says or looks like."""

_STEPS = (
    "Each watched page is archived as it was received, in a WARC file, before anything is read from it. A "
    "page that did not change gets a record that says so.",
    "The same extraction code reads the last snapshot of the week and the one before it. So a difference between the "
    "two is a difference between the pages, not between two versions of our code.",
    "Offers, plan tiers and claims of the two snapshots are paired, and what differs in a pair or has no partner is "
    "a change. A new currency is not a price change. A value that goes from A to B and back to A inside the "
    "flap window is one note.",
    "Severity follows from the kind of change and the thresholds below. Confidence says how certain it is that the "
    "page changed in this way: it falls where values are read from running text or pairs are only alike.",
    "A page that could not be seen is listed under coverage. It never counts as unchanged.",
)


_READING_STEPS = (
    "A review belongs to the week it was published in; without a date, or with one later than the day after it was "
    "first seen, to the week it was first seen. It counts once. The baseline is the four whole weeks before.",
    "A model gives each review a sentiment and its topics. The sentiment is that of the whole review. Scores of two "
    "engines are never compared: for each task one engine counts, that of the workspace's model or the one "
    "that read most of the week's reviews; reviews that only another one read are left out and counted.",
    "Two shares are compared with the baseline: negative reviews among those on a topic, and complaints, which are "
    "negative reviews on a topic among all. Intervals are Newcombe's hybrid score intervals at 95 %, tests are "
    "Fisher's exact test, and all tests of the week are corrected together after Benjamini and Hochberg.",
    "The reviewers' own stars check the model: where they agree in less than "
    f"{ENOUGH_AGREEMENT * 100:.0f} % of {ENOUGH_RATED} reviews or more, the report warns and makes no finding of it. "
    "A finding from reviews needs a shift of 10 points and has a confidence of 0.85 at most.",
    "Quotes are chosen by how sure the model is and how much they say, in proportion to the sentiments, without near "
    "repeats, and last of all those whose own stars say the opposite. They are quoted as written and never "
    "translated.",
    "Names are matched exactly, whatever their case, at word ends where a script has them, the longest first. A "
    "single word of at most five letters needs its capital letter. Shares have Wilson score intervals.",
)


def build_method(material: Material, view: View, number: int) -> Section:
    """Parameters, thresholds, versions and the evidence table. Built last: it lists what the others cited."""
    title = "Method and evidence"
    rows = view.evidence.rows()
    parameters = _parameters(material)
    versions = _versions(material)
    digest = _input_digest(material)
    models = _models(material)
    cards = find_cards(material.workspace, [row["model"] for row in models if row["model"]])
    verdicts = find_verdicts(model_folders(material.workspace), models)
    body = render(
        "method",
        number=number,
        title=title,
        steps=_STEPS,
        models="Everything above comes from fixed rules. Reviews and images were not read by a model.",
        reading_steps=_READING_STEPS,
        readings=_models_table(models) if models else "",
        card_notes=[*card_notes(models, cards), *verdict_notes(models, verdicts)],
        cards_table=cards_table(list(cards.values())),
        cards=[
            {"title": card.title, "sets": training_lines(card), "limits": limit_lines(card)}
            for card in cards.values()
        ],
        parameters=parameters,
        versions=versions,
        evidence_intro=(
            f"This report cites {plural(len(rows), 'snapshot')}. A snapshot's id is the SHA-256 of its address, time "
            f"and payload; any page that differs by one byte has another id. All "
            f"{plural(material.pages.height, 'snapshot')} the report was made from have the joint "
            f"SHA-256 {digest[:16]}."
        ),
        evidence=_evidence_table(rows) if rows else "",
    )
    data = {
        "parameters": parameters,
        "versions": versions,
        "models": models,
        "cards": [card.to_json() for card in cards.values()],
        "gate": {task: result.to_dict() for task, result in verdicts.items()},
        "snapshots": {"count": material.pages.height, "sha256": digest},
    }
    return Section("method", number, title, "ready", data, body)


def _parameters(material: Material) -> dict[str, str]:
    workspace, limits = material.workspace, material.workspace.thresholds
    rates = ", ".join(
        f"1 {code} = {rate:f} {workspace.currency.base}" for code, rate in sorted(workspace.currency.rates.items())
    )
    return {
        "Workspace": workspace.name,
        "Week": f"{material.week}: {day(material.week.start)} 00:00 UTC up to {day(material.week.end)} 00:00 UTC",
        "As of": f"{minute(material.as_of)} UTC, the last attempt in or before the week"
        if material.as_of
        else "never",
        "Figures go back": f"{DAYS_SHOWN} days",
        "Price moves that count": f"from {limits.price_change_percent:g} %; of high severity from "
        f"{limits.price_alarm_percent:g} %",
        "Flap window": f"{limits.flap_window_days} days",
        "Stale after": f"{limits.stale_after_days} days",
        "Reviews needed": f"{limits.min_reviews} a company",
        "Currency rates": (rates or "none given: prices in other currencies are not compared")
        + (" (fixed in workspace.toml, nothing is looked up)" if rates else ""),
    }


def _versions(material: Material) -> dict[str, str]:
    used = material.pages.filter(pl.col("fetched_at") >= material.week.start)["extractor"]
    extractors = sorted(used.drop_nulls().unique().to_list())
    found = {"workbench": version("workbench"), "extractor": ", ".join(extractors) or "none: no page this week"}
    return {**found, **{package: version(package) for package in PACKAGES}}


def _models(material: Material) -> list[dict[str, Any]]:
    """The engines whose scores this report used, by task, with the number of texts."""
    found = []
    for task, use in material.scored.engines.items():
        if use.engine_id is None:
            continue
        found.append(
            {
                "task": task,
                "model": use.model,
                "engine_id": use.engine_id,
                "backend": use.backend,
                "precision": use.precision,
                "texts": use.scored_week + use.scored_baseline,
            }
        )
    return found


def _models_table(models: list[dict[str, Any]]) -> Markup:
    columns = [
        Column("task", "Task"),
        Column("model", "Model"),
        Column("engine", "Engine"),
        Column("precision", "Runs on, in"),
        Column("texts", "Reviews read", "right"),
    ]
    made = [
        {
            "task": row["task"],
            "model": row["model"],
            "engine": Markup("<code>{}</code>").format(row["engine_id"]),
            "precision": f"{row['backend']}, {row['precision']}",
            "texts": f"{row['texts']:,}",
        }
        for row in models
    ]
    return table("t-models", "Models that read the reviews of this week and of the four weeks before.", columns, made)


def _input_digest(material: Material) -> str:
    ids = sorted(material.pages["snapshot_id"].to_list())
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _evidence_table(rows: list[dict[str, Any]]) -> Markup:
    columns = [
        Column("label", "No."),
        Column("page", "Page"),
        Column("fetched", "Fetched (UTC); payload"),
        Column("how", "How to see it; file"),
    ]
    made = [
        {
            "label": Markup('<span class="anchor" id="e-{}">{}</span>').format(row["short_id"], row["label"]),
            "page": Markup('{}{}<span class="small">{}</span>').format(
                row["company"],
                Markup(", “{}”").format(quoted(row["title"], 70)) if row["title"] else "",
                link(row["url"], length=80),
            )
            if row["url"]
            else "no longer in the lake",
            "fetched": Markup('<span class="nowrap">{}</span><span class="small nowrap">SHA-256 {}</span>').format(
                minute(row["fetched_at"]), (row["payload_sha256"] or "–")[:12]
            ),
            "how": Markup('<code class="nowrap">{}</code><span class="small">{}</span>').format(
                row["command"], row["warc"] or "no longer in the archive"
            ),
        }
        for row in rows
    ]
    return table("t-evidence", "Snapshots cited in this report.", columns, made)

"""Sections 7 and 8: what they will say is not there yet; what is already known for them is."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import polars as pl
from markupsafe import Markup

from workbench.report.html import link, plural, quoted, render
from workbench.report.material import Material, View
from workbench.report.model import Section
from workbench.report.tables import Column, table

__all__ = ["build_alerts", "build_creatives"]


def build_alerts(material: Material, view: View, number: int) -> Section:
    """Section 8: nothing is sent yet."""
    title = "Alerts"
    body = render(
        "waiting",
        id="alerts",
        number=number,
        title=title,
        notice="Alerts are not set up yet: none was sent and none was held back.",
        paragraphs=["What would be worth an alert stands in the readout above."],
        table="",
    )
    return Section("alerts", number, title, "not-yet", {"sent": [], "suppressed": []}, body)


def build_creatives(material: Material, view: View, number: int) -> Section:
    """Section 7: images that came and went, by address and alternative text. No image is loaded."""
    title = "Ad creatives"
    rows = creative_moves(material)
    new = [row for row in rows if row["move"] == "new"]
    shown = view.cut(rows)
    paragraphs = ["No image came or went on the watched pages this week."]
    if rows:
        paragraphs = [
            f"{plural(len(new), 'image')} came and {len(rows) - len(new):,} went on the watched pages. Images are "
            "listed by address and alternative text, as the page gives them; nothing is loaded from the site."
        ]
    body = render(
        "waiting",
        id="creatives",
        number=number,
        title=title,
        notice="The text inside images is not read yet.",
        paragraphs=paragraphs,
        table=_creatives_table(shown, view, len(rows)) if rows else "",
    )
    return Section("creatives", number, title, "not-yet", {"images": rows}, body)


def creative_moves(material: Material) -> list[dict[str, Any]]:
    """Images on a page's last snapshot of the week that the last one before did not have, and the other way round."""
    week = material.week
    # A page without images has no creative rows, so the snapshots are taken from the pages.
    snapshots: dict[str, dict[str, tuple[Any, str]]] = defaultdict(dict)
    answered = material.pages.filter(pl.col("http_status").is_null() | (pl.col("http_status") < 400))
    for row in answered.select("url", "fetched_at", "snapshot_id").sort("fetched_at").iter_rows(named=True):
        side = "now" if row["fetched_at"] >= week.start else "before"
        snapshots[row["url"]][side] = (row["fetched_at"], row["snapshot_id"])
    images: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in material.creatives.iter_rows(named=True):
        images[row["snapshot_id"]].setdefault(row["image_url"], row)
    rows: list[dict[str, Any]] = []
    for sides in snapshots.values():
        if len(sides) < 2:
            continue  # first seen this week, or not seen this week: nothing to compare
        before, now = sides["before"][1], sides["now"][1]
        moves = (("new", now, before), ("retired", before, now))
        rows.extend(
            {
                "move": move,
                "company_id": image["company_id"],
                "company": material.company_name(image["company_id"]),
                "source_id": image["source_id"],
                "image_url": address,
                "alt": image["alt"],
                "width": image["width"],
                "height": image["height"],
                "snapshot_before": before,
                "snapshot_after": now,
            }
            for move, side, other in moves
            for address, image in images[side].items()
            if address not in images[other]
        )
    rows.sort(key=lambda r: (material.company_rank(r["company_id"]), r["source_id"], r["move"], r["image_url"]))
    return rows


def _creatives_table(rows: list[dict[str, Any]], view: View, total: int) -> Markup:
    columns = [
        Column("move", "Move"),
        Column("alt", "Alternative text on the page"),
        Column("address", "Image address"),
        Column("size", "Size", "right"),
        Column("evidence", "Evidence"),
    ]
    made = [
        {
            "company": row["company"],
            "move": row["move"],
            "alt": quoted(row["alt"], 160) if row["alt"] else None,
            "address": Markup('<span class="break small">{}</span>').format(link(row["image_url"], length=80)),
            "size": f"{row['width']} × {row['height']}" if row["width"] and row["height"] else None,
            "evidence": view.evidence.cite(row["snapshot_before"], row["snapshot_after"]),
        }
        for row in rows
    ]
    return table("t-creatives", "Images that came and went.", columns, made, group="company", total=total)

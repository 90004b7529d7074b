"""Frames as tables in a notebook."""

from __future__ import annotations

from datetime import date, datetime, timezone

import polars as pl
from lxml import html

from workbench.report.frames import frame_table


def cells(made: str) -> list[list[str]]:
    return [[cell.text_content() for cell in row.xpath("./td")] for row in html.fromstring(made).xpath("//tbody/tr")]


def test_every_kind_of_value_is_written_to_be_read() -> None:
    frame = pl.DataFrame(
        {
            "company_id": ["moshu", None],
            "n": [12345, None],
            "share": [0.5, float("nan")],
            "day": [date(2026, 11, 16), None],
            "at": [datetime(2026, 11, 16, 6, 5, tzinfo=timezone.utc), None],
            "topics": [["price", "墨舒"], []],
            "sure": [True, False],
        }
    )
    made = frame_table(frame)
    assert cells(made) == [
        ["moshu", "12,345", "0.50", "2026-11-16", "2026-11-16 06:05", "price, 墨舒", "yes"],
        ["–", "–", "nan", "–", "–", "", "no"],
    ]
    heads = html.fromstring(made).xpath("//th")
    assert [head.text for head in heads][:2] == ["company id", "n"]
    assert "text-align:left" in heads[0].get("style")
    assert "text-align:right" in heads[1].get("style")
    assert '<span lang="zh">墨舒</span>' in made


def test_texts_are_data() -> None:
    hostile = '<script>alert(1)</script>\u202e\x00 "quoted" ' + "x" * 999
    made = frame_table(pl.DataFrame({"<b>a": [hostile], "list": [[hostile]]}))
    assert html.fromstring(made).xpath("//script|//b") == []
    (row,) = cells(made)
    assert row[0].startswith('<script>alert(1)</script> "quoted" xxx')
    assert len(row[0]) == 320
    assert row[0].endswith("…")


def test_nothing_is_said_in_words() -> None:
    assert (
        frame_table(pl.DataFrame({"a": []}), empty="Every text was <read>.") == "<p>Every text was &lt;read&gt;.</p>"
    )

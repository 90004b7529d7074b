"""Section 6: share of voice."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from lxml import html
from report_world import WEEK, plain_world
from scored_reviews import scored_world

from workbench.insight.share import SHARE_OF_VOICE
from workbench.report import Report, build_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report(scored_world(tmp_path_factory.mktemp("voice")).write(), WEEK)


def tree(report: Report) -> html.HtmlElement:
    return html.fragment_fromstring(str(report.voice.body), create_parent="div")


def text(report: Report) -> str:
    root = tree(report)
    for drawing in list(root.iter("svg")):
        drawing.drop_tree()
    return " ".join(root.text_content().split())


def test_mentions_are_counted_and_called_collected(report: Report) -> None:
    said = text(report)
    assert report.voice.status == "ready"
    assert "51 texts of this week hold 4 mentions of the companies; 0 in the four weeks before (48 texts)." in said
    assert "A share of collected mentions" in said
    assert (
        "In reviews of others' products, which is where comparisons stand, Rival is named most (2 reviews)." in said
    )
    assert "On so few, a share is rough" in said


def test_the_table_says_where_and_how_sure(report: Report) -> None:
    rows = tree(report).xpath("//table[@id='t-voice']//tr[td]")
    cells = [[" ".join(cell.text_content().split()) for cell in row.iter("th", "td")] for row in rows]
    assert cells[0][:6] == ["Own Paper", "2before 0", "50 %15 to 85 %", "–", "own reviews 2", "0"]
    assert cells[1][:6] == ["Rival", "2before 0", "50 %15 to 85 %", "–", "others' reviews 2", "0"]
    assert cells[2][:3] == ["Moshu 墨舒", "0before 0", "0 %0 to 49 %"]
    assert rows[1].xpath(".//a[@class='ev']")


def test_the_figure_states_its_finding_and_has_words(report: Report) -> None:
    figure = tree(report).xpath("//figure[@id='f-voice']")[0]
    caption = figure.findtext("figcaption")
    assert caption == "Own Paper and Rival are named most, in 2 of 4 collected mentions (50 %) each"
    assert {element.text for element in figure.iter("desc")} == {
        "Share of collected mentions this week in percent: Own Paper 50, Rival 50 and Moshu 墨舒 0."
    }


def test_what_else_is_named_has_its_numbers(report: Report) -> None:
    row = tree(report).xpath("//table[@id='t-also']//tr[td]")[0]
    assert [" ".join(cell.text_content().split()) for cell in row.iter("th", "td")][:4] == [
        "Kindle", "product", "2before 0", "Own Paper",
    ]  # fmt: skip
    assert report.voice.data["also_mentioned"][0]["name"] == "Kindle"


def test_json_and_csv_have_every_company(report: Report, tmp_path: Path) -> None:
    made = report.to_json()["sections"]["voice"]
    assert set(SHARE_OF_VOICE.names()) <= set(made["shares"][0])
    assert (made["mentions_week"], made["texts_week"]) == (4, 51)
    frame = pl.read_csv(report.write(tmp_path)["voice"])
    assert frame["company"].to_list() == ["Own Paper", "Rival", "Moshu 墨舒"]
    assert frame["mentions_week"].to_list() == [2, 2, 0]


def test_names_are_counted_without_a_model(tmp_path: Path) -> None:
    world = plain_world(tmp_path / "workspace")
    world.rows["reviews"][0]["text"] = "I prefer the Rival Folio."
    world.rows["reviews"][1]["text"] = "墨舒 M2 纸感平板更好"
    report = build_report(world.write(), WEEK)
    assert report.voice.data["mentions_week"] == 2
    assert "none has read the reviews yet" in text(report)


def test_a_week_without_texts_says_so(tmp_path: Path) -> None:
    world = plain_world(tmp_path / "workspace")
    world.rows["reviews"].clear()
    report = build_report(world.write(), WEEK)
    assert "No review and no new statement was collected this week" in text(report)
    assert not list(tree(report).iter("svg"))

"""Section 5: sentiment with intervals and quotes, findings from it, and new statements by area."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from lxml import html
from report_world import ALL, WEEK, World, hostile_world
from scored_reviews import ENGINE, add_review, hostile_reviews, read, scored_world

from workbench.insight.sentiment import SHIFTS
from workbench.report import Report, build_report
from workbench.store.tables import TABLES


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report(scored_world(tmp_path_factory.mktemp("scored")).write(), WEEK)


@pytest.fixture
def scored(tmp_path: Path) -> Callable[[], World]:
    return lambda: scored_world(tmp_path / "workspace")


def tree(report: Report, section: str = "sentiment") -> html.HtmlElement:
    return html.fragment_fromstring(str(report.section(section).body), create_parent="div")


def text(report: Report, section: str = "sentiment") -> str:
    root = tree(report, section)
    for drawing in list(root.iter("svg")):
        drawing.drop_tree()
    return " ".join(root.text_content().split())


def origin(world: World, company: str) -> dict[str, object]:
    row = next(row for row in world.rows["reviews"] if row["company_id"] == company)
    return {name: row[name] for name in ("snapshot_id", "company_id", "source_id", "url", "fetched_at")}


def test_the_section_says_who_moved_and_who_did_not(report: Report) -> None:
    said = text(report)
    assert report.sentiment.status == "ready"
    assert "moved by more than chance explains at Rival from 8 % to 71 %. It did not at Own Paper." in said
    assert "By topic: Rival “Service” and “Bug”." in said
    assert "A model read 51 reviews of this week and 48 of the four weeks before." in said
    assert "it agrees with them in 99 of 99 reviews (100 %)" in said
    assert "28 reviews this week: 20 negative and 8 positive." in said
    assert "Mean rating 2.1 of 5, before 4.7. Languages: this week 28 English" in said


def test_the_table_has_numbers_intervals_and_q(report: Report) -> None:
    rows = tree(report).xpath("//table[@id='t-sentiment']//tr[td]")
    cells = [[" ".join(cell.text_content().split()) for cell in row.iter("th", "td")] for row in rows]
    assert ["All reviews", "28before 24", "71 %before 8 %", "▲ +63+38 to +78, q < 0.001", "–", "–"] in cells
    (bugs,) = [row for row in cells if row[0] == "Bug"]
    assert bugs[1:4] == ["20before 0", "100 %before: too few", "not enough reviews"]
    assert bugs[4] == "71 %before 0 %"
    assert bugs[5].startswith("▲ +71")
    assert (
        "Not in the table, not enough reviews: Own Paper: Quality (2, before 0); Moshu 墨舒: Delivery (1, before 0)."
        in text(report)
    )
    assert "Not enough reviews: 1 this week, 10 needed." in text(report)


def test_quotes_are_exact_and_lead_to_their_page(report: Report) -> None:
    quotes = tree(report).xpath("//blockquote")
    assert len(quotes) >= 6
    texts = {row["text"] for row in report.sentiment.data["verbatims"]}
    assert len(texts) == len(report.sentiment.data["verbatims"]) == len(quotes)
    for quote in quotes:
        assert quote.xpath("./p")[0].text_content() in texts | {t.replace("\n", " ") for t in texts}
        assert len(quote.xpath(".//a[@class='ev']")) == 1
    assert "预售等了三个星期还没有发货。" in text(report)
    assert "negative (90 % sure), 1 of 5 stars, 17 Nov" in text(report)


def test_the_figure_states_its_finding_and_has_words(report: Report) -> None:
    figure = tree(report).xpath("//figure[@id='f-shift']")[0]
    assert figure.findtext("figcaption") == "Rival: negative reviews rose from 8 % to 71 %"
    descriptions = {element.text for element in figure.iter("desc")}
    assert len(descriptions) == 1
    words = descriptions.pop() or ""
    assert "Rival, all reviews +63 (from +38 to +78, a shift)" in words
    assert "Rival, complaints: Bug +71" in words


def test_a_shift_becomes_a_finding_with_its_own_facts(report: Report) -> None:
    findings = [finding for finding in report.findings if finding.facts]
    assert len(findings) == 1
    assert "rose from 8 % to 71 %" in findings[0].headline
    cards = [
        card for card in tree(report, "changes").iter("article") if "negative reviews" in card.text_content().lower()
    ]
    facts = cards[0].xpath(".//dd[@class='fact']/p")
    assert len(facts) == 3
    assert all(fact.xpath(".//a[@class='ev']") and "as a model read them" in fact.text_content() for fact in facts)
    as_json = next(row for row in report.to_json()["findings"] if row["facts"])
    assert as_json["change_ids"] == []
    assert as_json["facts"][0]["snapshot_ids"]


def test_a_reading_that_the_stars_contradict_is_no_finding(scored: Callable[[], World]) -> None:
    world = scored()
    for row in world.rows["reviews"]:
        row["rating"] = 3.0 if row["company_id"] == "moshu" else 6.0 - row["rating"]
    made = build_report(world.write(), WEEK)
    assert not any(finding.facts for finding in made.findings)
    assert "Read this section with care" in text(made)
    assert "in only 0 of 98 reviews (0 %)" in text(made)


def test_reviews_of_another_engine_are_left_out_and_said(scored: Callable[[], World]) -> None:
    world = scored()
    for _ in range(5):
        add_review(world, origin(world, "rival"), "negative", "bug", weeks_back=2, engine_id="f" * 16)
    add_review(world, origin(world, "rival"), "negative", engine_id=None)
    add_review(world, origin(world, "rival"), None, text="!!!")
    made = build_report(world.write(), WEEK)
    said = text(made)
    assert "6 reviews not read by this model (1 of this week) and not counted." in said
    assert f"5 of them were read by another one ({'f' * 16})" in said
    assert "workbench score -w DIR --week 2026-W47 reads them again" in said
    assert "1 review had no words that could be read" in said
    sentiment = made.sentiment.data["engines"][0]
    assert (sentiment["engine_id"], sentiment["missing_baseline"], sentiment["other_engines"]) == (
        ENGINE,
        5,
        {"f" * 16: 5},
    )


def test_another_mixture_of_languages_is_noted(scored: Callable[[], World]) -> None:
    world = scored()
    for _ in range(15):
        add_review(world, origin(world, "own"), "positive", "usability", language="zh")
    said = text(build_report(world.write(), WEEK))
    assert (
        "Own Paper: the languages of its reviews changed (this week 22 English and 15 Chinese, before 24 English)"
        in said
    )
    assert "Rival: the languages" not in said


def test_nobody_moved_is_said_plainly(scored: Callable[[], World]) -> None:
    world = scored()
    world.rows["reviews"] = [row for row in world.rows["reviews"] if row["company_id"] == "own"]
    made = build_report(world.write(), WEEK)
    assert "No company's reviews moved by more than chance explains" in text(made)
    caption = tree(made).xpath("//figure[@id='f-shift']/figcaption")[0].text
    assert caption == "No company's reviews moved by more than chance explains"


def test_json_and_csv_have_every_cell(report: Report, tmp_path: Path) -> None:
    made = report.to_json()["sections"]["sentiment"]
    assert list(made["shifts"][0]) == SHIFTS.names()
    assert made["comparisons"] == sum(row["q"] is not None for row in made["shifts"])
    assert {row["verdict"] for row in made["shifts"]} == {"shift", "no shift", "not enough reviews"}
    assert made["companies"][1]["languages_week"] == {"en": 28}
    assert made["agreement_with_stars"] == {"rated": 99, "agree": 99, "share": 1.0}
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    frame = pl.read_csv(report.write(tmp_path)["sentiment"])
    assert frame.height == len(made["shifts"])
    assert frame.columns[:2] == ["week", "company"]


def test_the_method_names_the_engines(report: Report) -> None:
    said = text(report, "method")
    assert "No models were used" not in said
    assert ENGINE in said
    assert "onnxruntime, fp32" in said
    assert "Newcombe" in said
    assert "Benjamini and Hochberg" in said
    assert [(row["task"], row["texts"]) for row in report.method.data["models"]] == [
        ("sentiment", 99), ("topics", 99), ("entities", 99),
    ]  # fmt: skip


def test_new_statements_are_filed_by_area(scored: Callable[[], World]) -> None:
    world = scored()
    pages = [row for row in world.rows["pages"] if row["source_id"] == "rival-plans"]
    news = {"Search finds handwriting": ("usability", "quality"), "Fixed: sync lost pages": ("bug",), "Quiet": None}
    for position, (words, topics) in enumerate(news.items()):
        claim = dict.fromkeys(TABLES["claims"].schema.names())
        origin = {name: pages[-1][name] for name in ("snapshot_id", "company_id", "source_id", "url", "fetched_at")}
        claim.update(origin, position=position, kind="statement", text=words)
        world.rows["claims"].append(claim)
        world.change(pages[-2], pages[-1], "claim_added", subject=words, after=words)
        if topics:
            read(world, words, None, topics)
    world.change(pages[-2], pages[-1], "claim_added", subject="A heading", after="A heading")
    made = build_report(world.write(), WEEK)
    groups = [
        row.text_content().strip() for row in tree(made, "claims").xpath("//table[@id='t-areas']//tr[not(td)]")
    ][1:]
    assert groups == ["Usability", "Bug"]
    said = text(made, "claims")
    assert "2 statements that the pages did not make before, filed by a model" in said
    assert "1 new statement not filed" in said
    assert "Search finds handwritingrival-plans; also: Quality" in said
    rows = made.to_json()["sections"]["claims"]["by_area"]
    assert {row["text"]: row["topics"] for row in rows} == {
        words: list(topics) if topics else None for words, topics in news.items()
    }


def test_hostile_reviews_are_shown_as_text(tmp_path: Path) -> None:
    world = hostile_reviews(hostile_world(tmp_path / "workspace"))
    made = build_report(world.write(), WEEK)
    for part in (made.header, *made.sections):
        for element in html.fragment_fromstring(str(part.body), create_parent="div").iter():
            assert element.tag not in ("script", "img", "iframe", "object", "b", "style"), element.tag
            assert not any(name.startswith("on") for name in element.attrib)
            assert str(element.get("href", "#")).startswith(("#", "http://", "https://"))
    for section in ("sentiment", "voice", "claims"):
        said = text(made, section)
        assert any(" ".join(attack.split()) in said for attack in ALL), section
    for name in ("sentiment", "voice"):
        frame = pl.read_csv(made.write(tmp_path / "out")[name], infer_schema=False)
        for value in (v for column in frame.columns for v in frame[column].drop_nulls().to_list()):
            assert not value.lstrip().startswith(("=", "@")), value


def test_the_same_scores_give_the_same_bytes(report: Report, tmp_path: Path) -> None:
    world = scored_world(tmp_path / "again")
    for rows in (world.rows["reviews"], world.rows["scores"]):
        rows.reverse()
    again = build_report(world.write(), WEEK)
    for section in ("sentiment", "voice", "claims", "method"):
        assert again.section(section).body == report.section(section).body, section

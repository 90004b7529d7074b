"""The whole report, built from a lake."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html
from markupsafe import Markup
from report_world import WEEK, World

from workbench.errors import ReportError
from workbench.report import SCHEMA, Report, build_report, model, read_findings
from workbench.report.build import _BUDGET
from workbench.report.evidence import Evidence, Snapshot
from workbench.report.figure_index import index_title, spread
from workbench.report.model import jsonable, safe_cells
from workbench.workspace import Workspace

SECTIONS = (
    "readout", "changes", "prices", "claims", "sentiment", "voice", "creatives", "alerts", "coverage", "method",
)  # fmt: skip


@pytest.fixture(scope="module")
def report(plain: Workspace) -> Report:
    return build_report(plain, WEEK)


def tree(report: Report) -> html.HtmlElement:
    return html.fragment_fromstring(str(report.body), create_parent="div")


def text(report: Report, section: str) -> str:
    return " ".join(html.fragment_fromstring(str(report.section(section).body)).text_content().split())


def test_all_ten_sections_are_there_in_order(report: Report) -> None:
    assert tuple(section.id for section in report.sections) == SECTIONS
    assert [section.number for section in report.sections] == list(range(1, 11))
    later = {section.id for section in report.sections if section.status == "not-yet"}
    assert later == {"sentiment", "creatives", "alerts"}


def test_headings_go_down_one_level_at_a_time(report: Report) -> None:
    levels = [int(element.tag[1]) for element in tree(report).iter("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_link_inside_leads_somewhere_and_no_id_is_used_twice(report: Report) -> None:
    root = tree(report)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    inside = {a.get("href", "")[1:] for a in root.iter("a") if a.get("href", "").startswith("#")}
    assert inside
    assert inside <= set(ids)


def test_only_what_is_cited_is_evidence(report: Report, plain: Workspace) -> None:
    cited = {a.get("href") for a in tree(report).iter("a") if a.get("class") == "ev"}
    assert cited == {f"#e-{row['short_id']}" for row in report.evidence}
    assert [row["label"] for row in report.evidence] == [f"E{n}" for n in range(1, len(report.evidence) + 1)]
    for row in report.evidence:
        assert row["warc"].endswith(".warc.gz")
        assert re.fullmatch(r"[0-9a-f]{64}", row["payload_sha256"])
        assert row["command"] == f"workbench snapshot {row['snapshot_id'][:12]} -w DIR"
    assert len(report.evidence) < pl.read_delta(str(plain.lake_dir / "pages")).height


def test_every_change_is_told_with_its_evidence(report: Report) -> None:
    said = text(report, "changes")
    assert "4 changes at 1 company: 2 high and 2 medium." in said
    for part in ("USD 449 → USD 349", "Plan removed", "Availability", "Claim reworded"):
        assert part in said
    rows = [
        row for row in html.fragment_fromstring(str(report.changes.body)).iter("tr") if row.find("td") is not None
    ]
    assert len(rows) == 4
    assert all(row.xpath(".//a[@class='ev']") for row in rows)


def test_facts_and_inference_look_apart(report: Report) -> None:
    root = html.fragment_fromstring(str(report.changes.body))
    for card in root.iter("article"):
        kinds = [element.get("class") for element in card.iter("dd")]
        assert kinds == ["fact", "inference", "inference"]
        assert card.xpath(".//dd[@class='fact']//a[@class='ev']")
    assert "(fact)" in text(report, "changes")
    assert "(inference)" in text(report, "changes")


def test_prices_say_what_they_were_and_how_long(report: Report) -> None:
    rows = {
        row.findtext("th"): [" ".join(cell.text_content().split()) for cell in row.iter("td")]
        for row in html.fragment_fromstring(str(report.prices.body)).xpath(".//table[@id='t-prices']//tr")
        if row.find("td") is not None
    }
    assert rows["Own Slate"][:5] == ["–", "USD 400", "no change", "regular", "≥ 21"]
    assert rows["Rival Folio"][:3] == ["USD 449", "USD 349new low", "▼ −22.3 %"]
    assert rows["Rival Folio"][3:6] == ["promotionregular USD 449", "0", "out of stock"]
    said = text(report, "prices")
    assert "1 of 3 prices moved this week. At a new low: Rival Folio." in said
    assert "Rival fell from 112 % to 87 % of our price this week (tablet)" in said
    assert "in stock → out of stock" in said
    assert "1 CNY = 0.14 USD" in said


def test_claims_show_the_exact_span(report: Report) -> None:
    quote = html.fragment_fromstring(str(report.claims.body)).find(".//blockquote")
    assert [e.text_content() for e in quote.iter("del")] == ["3"]
    assert [e.text_content() for e in quote.iter("ins")] == ["up to 2"]
    assert quote.text_content() == "The battery lasts 3up to 2 weeks on one charge."


def test_the_same_claim_on_several_pages_is_told_once(world: Callable[[], World]) -> None:
    made = world()
    pages = {row["source_id"]: row for row in made.rows["pages"] if row["company_id"] == "rival"}
    for page in pages.values():
        made.change(page, page, "claim_added", subject="Sale", after="Sale until Friday")
        made.change(page, page, "claim_reworded", before="© 2025", after="© 2026", severity="note")
    report = build_report(made.write(), WEEK)
    items = html.fragment_fromstring(str(report.claims.body)).xpath(".//li[.//ins[text()='Sale until Friday']]")
    assert len(items) == 1
    assert all(source in items[0].text_content() for source in pages)
    assert len(items[0].xpath(".//a[@class='ev']")) == len(pages)
    assert "2 at Rival" in text(report, "claims")
    assert "© 2026" not in text(report, "claims")
    assert len(report.claims.data["claims"]) == 1 + 2 * len(pages)


def test_what_is_not_there_yet_is_said_plainly(report: Report) -> None:
    assert "not scored yet" in text(report, "sentiment")
    assert "workbench score -w DIR --week 2026-W47" in text(report, "sentiment")
    assert "none has read the reviews yet" in text(report, "voice")
    assert "not read yet" in text(report, "creatives")
    assert "not set up yet" in text(report, "alerts")
    waiting = {row["company"]: row["reviews"] for row in report.sentiment.data["companies"]}
    assert waiting == {"Own Paper": 4, "Rival": 0, "Moshu 墨舒": 0}
    assert [(row["move"], row["image_url"][-7:]) for row in report.creatives.data["images"]] == [
        ("new", "new.png"), ("retired", "old.png"),
    ]  # fmt: skip


def test_unseen_is_never_unchanged(report: Report) -> None:
    said = text(report, "coverage")
    assert "5 of 6 pages were seen in 2026-W47. Not seen: 1 × robots.txt does not allow it." in said
    assert report.coverage.data["not_seen"] == ["rival-ads"]
    assert "robots.txt disallows /ads" in said


def test_the_method_says_how_and_that_no_model_was_used(report: Report) -> None:
    said = text(report, "method")
    assert "No models were used." in said
    assert "0.1.0+test" in said
    assert report.method.data["models"] == []
    assert re.fullmatch(r"[0-9a-f]{64}", report.method.data["snapshots"]["sha256"])


def test_no_picture_without_words_and_none_from_elsewhere(report: Report) -> None:
    root = tree(report)
    assert not list(root.iter("img", "script", "iframe", "link", "object", "form"))
    drawings = list(root.iter("svg"))
    assert len(drawings) >= 4
    for svg in drawings:
        assert svg.get("role") == "img"
        for name in svg.get("aria-labelledby", "").split():
            assert svg.xpath(f".//*[@id='{name}']")[0].text


def test_the_same_lake_gives_the_same_bytes(plain: Workspace, report: Report, tmp_path: Path) -> None:
    again = build_report(plain, WEEK)
    assert again.body == report.body
    first, second = report.write(tmp_path / "a"), again.write(tmp_path / "b")
    for name in ("json", "csv"):
        assert first[name].read_bytes() == second[name].read_bytes()


def test_another_process_zone_and_language_give_the_same_bytes(plain: Workspace, report: Report) -> None:
    code = (
        "import hashlib, sys\n"
        "from workbench.report import build_report\n"
        "from workbench.weeks import Week\n"
        "from workbench.workspace import load_workspace\n"
        "made = build_report(load_workspace(sys.argv[1]), Week(2026, 47))\n"
        "print(hashlib.sha256(made.body.encode()).hexdigest(), end='')\n"
    )
    elsewhere = {**os.environ, "PYTHONHASHSEED": "12345", "TZ": "Asia/Shanghai", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(plain.root)], env=elsewhere, capture_output=True, text=True, check=True
    )
    assert done.stdout == hashlib.sha256(report.body.encode()).hexdigest()


def test_every_key_of_the_json_is_documented(report: Report) -> None:
    said = model.__doc__ or ""
    made = report.to_json()
    keys = set(made) | {key for section in made["sections"].values() for key in section}
    assert [key for key in sorted(keys) if not re.search(rf"\b{key}\b", said)] == []


def test_json_has_the_documented_keys(report: Report) -> None:
    made = report.to_json()
    assert made["schema"] == SCHEMA == "workbench.weekly-report/1"
    assert tuple(made["sections"]) == SECTIONS
    assert set(made) == {
        "schema", "workspace", "week", "from", "to", "as_of", "company", "competitors", "summary", "findings",
        "sections", "evidence",
    }  # fmt: skip
    assert (made["from"], made["as_of"]) == ("2026-11-16T00:00:00Z", "2026-11-18T06:00:00Z")
    folio = next(row for row in made["sections"]["prices"]["prices"] if row["product"] == "Rival Folio")
    assert (folio["price"], folio["currency"], folio["new_low"]) == ("349.0000", "USD", True)
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_csv_has_one_line_a_change_and_opens_in_a_spreadsheet(report: Report, tmp_path: Path) -> None:
    path = report.write(tmp_path)["csv"]
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    frame = pl.read_csv(path)
    assert frame.height == 4
    assert set(frame["evidence_after"]) <= {row["label"] for row in report.evidence}
    assert set(frame["company"]) == {"Rival"}


def test_findings_can_be_read_back(report: Report, tmp_path: Path) -> None:
    path = report.write(tmp_path)["json"]
    lines = read_findings(path)
    assert len(lines) == len(report.findings)
    assert all(finding.headline in line for finding, line in zip(report.findings, lines, strict=True))
    with pytest.raises(ReportError, match="workbench weekly"):
        read_findings(tmp_path / "none.json")
    path.write_text("[]")
    with pytest.raises(ReportError, match="is not a report"):
        read_findings(path)


def test_a_week_that_was_not_read_is_an_error(plain: Workspace) -> None:
    with pytest.raises(ReportError, match="workbench weekly"):
        build_report(plain, WEEK.back(-3))


def test_a_week_without_changes_is_quiet(world: Callable[[], World]) -> None:
    made = world()
    made.rows["changes"].clear()
    report = build_report(made.write(), WEEK)
    assert report.findings == ()
    assert report.readout.data["quiet"] is True
    assert "A quiet week" in text(report, "readout")
    assert "Nothing changed" in text(report, "changes")
    assert "No claim was added" in text(report, "claims")


def test_a_huge_week_is_cut_and_says_so(world: Callable[[], World]) -> None:
    made = world()
    origins = [row for row in made.rows["pages"] if row["source_id"] == "rival-folio"]
    for number in range(1500):
        made.change(
            origins[0], origins[-1], "claim_reworded", subject=f"Claim {number}",
            before=f"{number} before " + "word " * 120, after=f"{number} after " + "other word " * 120,
        )  # fmt: skip
    report = build_report(made.write(), WEEK)
    assert len(report.body.encode()) <= _BUDGET
    assert "1,500 smaller changes of wording and features: see section 4." in text(report, "changes")
    assert "more are in report.json" in text(report, "claims")
    assert "high" in text(report, "changes")  # the gravest stay
    assert len(report.to_json()["sections"]["changes"]["changes"]) == 1504
    assert report.to_csv_rows().height == 1504


@pytest.mark.parametrize("sign", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1", "\u3000@x"])
def test_no_cell_is_a_formula(sign: str) -> None:
    frame = pl.DataFrame({"text": [sign, "plain", None, "a=1"], "number": [-1, 2, 3, 4]})
    assert safe_cells(frame)["text"].to_list() == [f"'{sign}", "plain", None, "a=1"]
    assert safe_cells(frame)["number"].to_list() == [-1, 2, 3, 4]


@given(st.text(max_size=30))
def test_safe_cells_never_begin_with_a_sign(value: str) -> None:
    cell = safe_cells(pl.DataFrame({"t": [value]}, schema={"t": pl.String}))["t"][0]
    assert not cell.strip(" \u00a0\u3000\u200b\ufeff").startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))
    assert cell in (value, f"'{value}")


def test_jsonable_takes_what_a_report_holds_and_nothing_else() -> None:
    moment = datetime(2026, 11, 18, 6, tzinfo=timezone.utc)
    assert jsonable({"m": Decimal("1.50"), "t": moment, "d": date(2026, 1, 2), "n": float("nan"), "l": (1,)}) == {
        "m": "1.50", "t": "2026-11-18T06:00:00Z", "d": "2026-01-02", "n": None, "l": [1],
    }  # fmt: skip
    with pytest.raises(TypeError, match="HTML"):
        jsonable(Markup("<b>"))
    with pytest.raises(TypeError, match="Path"):
        jsonable(Path())


def snapshot(snapshot_id: str) -> Snapshot:
    return Snapshot(
        snapshot_id, "Rival", "s", "https://a.example", None, datetime(2026, 1, 1, tzinfo=timezone.utc), None, None
    )


def test_short_ids_stay_apart() -> None:
    ids = ["a" * 64, "a" * 20 + "b" * 44, "c" * 64]
    evidence = Evidence(snapshot(snapshot_id) for snapshot_id in ids)
    shorts = [evidence.short(snapshot_id) for snapshot_id in ids]
    assert len(set(shorts)) == 3
    assert shorts[2] == "c" * 12


def test_a_snapshot_is_numbered_once_and_a_lost_one_is_said_to_be() -> None:
    evidence = Evidence([snapshot("c" * 64)])
    assert evidence.cite("c" * 64, None, "c" * 64).count("<a") == 1
    assert "no longer in the lake" in evidence.cite("d" * 64)
    assert [(row["label"], row["url"]) for row in evidence.rows()] == [("E1", "https://a.example"), ("E2", None)]


def test_the_figure_states_its_finding() -> None:
    lines = {"Rival": [("2026-W46", 112.0), ("2026-W47", 87.0)], "Moshu": [("2026-W46", 80.0), ("2026-W47", 80.4)]}
    assert index_title("tablet", lines) == "Rival fell from 112 % to 87 % of our price this week (tablet)"
    still = {"Rival": [("2026-W47", 87.0)], "Moshu": [("2026-W47", 80.4)]}
    assert index_title(None, still) == "No competitor moved against our price; the cheapest is Moshu at 80 %"


@given(st.lists(st.floats(0, 200), max_size=8), st.floats(1, 20))
def test_labels_are_moved_apart_in_order(values: list[float], gap: float) -> None:
    placed = spread(values, gap)
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    ys = [placed[i] for i in order]
    assert all(b - a >= gap - 1e-6 for a, b in itertools.pairwise(ys))

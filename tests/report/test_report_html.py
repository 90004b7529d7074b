"""Values on their way into HTML."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html as lxml_html
from markupsafe import Markup

from workbench.report.html import (
    chip,
    clean,
    clip,
    day,
    link,
    minute,
    one_line,
    percent,
    plural,
    quoted,
    render,
    words,
)
from workbench.report.marks import marked
from workbench.report.tables import Column, table

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "**bold** [x](javascript:alert(1))",
    "{{ 7 * 7 }}{% raw %}",
    "$x^2$ \\alert",
    "'); DROP TABLE changes;--",
    "&lt;b&gt; &amp;",
)


def text_of(markup: Markup) -> str:
    element = lxml_html.fragment_fromstring(str(markup), create_parent="div")
    return element.text_content()


@pytest.mark.parametrize("text", HOSTILE)
def test_quoted_text_stays_text(text: str) -> None:
    assert text_of(quoted(text)) == text


@given(st.text(max_size=200))
def test_quoted_gives_back_the_clean_text(text: str) -> None:
    assert text_of(quoted(text)) == clean(text)


def test_clean_takes_out_what_could_disguise_text() -> None:
    assert clean("pay\u202e001 DSU\x00\n now\u200b") == "pay 001 DSU now"


def test_clip_counts_the_ellipsis() -> None:
    assert clip("abcdef", 4) == "abc…"
    assert clip("abcd", 4) == "abcd"


def test_chinese_is_marked_as_such() -> None:
    assert quoted("墨舒 M2") == Markup('<span lang="zh">墨舒 M2</span>')
    assert "lang" not in quoted("Folio")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,<b>",
        "//evil.example/x",
        "file:///etc/passwd",
        "https://",
        "http://[::1",
        " https://a.example",
    ],
)
def test_only_web_addresses_become_links(url: str) -> None:
    assert "<a" not in link(url)


def test_links_open_without_telling_where_from() -> None:
    made = lxml_html.fragment_fromstring(str(link('https://a.example/?q="><b>')), create_parent="div").find("a")
    assert made is not None
    assert made.get("href") == 'https://a.example/?q="><b>'
    assert made.get("rel") == "noopener noreferrer nofollow"


def test_chip_says_in_words_what_its_colour_says() -> None:
    assert text_of(chip("severity", "high")).endswith("high")
    assert 'class="chip status-robots-denied"' in chip("status", "robots-denied")
    assert "<script>" not in chip("severity", "<script>")


def test_numbers_and_times_are_written_the_same_everywhere() -> None:
    moment = datetime(2026, 11, 18, 14, 5, tzinfo=timezone(timedelta(hours=8)))
    assert (day(moment), minute(moment)) == ("18 Nov 2026", "2026-11-18 06:05")
    assert (day(None), minute(None)) == ("", "")
    assert [percent(x) for x in (-22.27, 5.0, -0.01, None)] == ["−22.3 %", "+5.0 %", "+0.0 %", ""]
    assert [plural(n, "company", "companies") for n in (1, 1200)] == ["1 company", "1,200 companies"]
    assert [words(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_a_template_escapes_and_misses_nothing() -> None:
    made = render("waiting", id="x", number=1, title=HOSTILE[0], notice=HOSTILE[1], paragraphs=[HOSTILE[3]], table="")
    assert "<script>" not in made
    assert "<img" not in made
    assert HOSTILE[3] in text_of(made)
    with pytest.raises(Exception, match="notice"):
        render("waiting", id="x", number=1, title="t", paragraphs=[], table="")


def test_marks_show_exactly_what_went_and_came() -> None:
    made = marked("The battery lasts 3 weeks.", "The battery lasts 2 weeks.")
    assert made == Markup("The battery lasts <del>3</del><ins>2</ins> weeks.")
    assert marked(None, "New line") == Markup("<ins>New line</ins>")
    assert marked("Old line", None) == Markup("<del>Old line</del>")
    assert marked(None, None) == ""


def test_marks_of_unlike_texts_are_two_runs() -> None:
    made = marked("Ships in two days", "墨舒云免费")
    assert made == Markup('<del>Ships in two days</del> <ins><span lang="zh">墨舒云免费</span></ins>')


@settings(deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_marks_hold_both_wordings(before: str, after: str) -> None:
    root = lxml_html.fragment_fromstring(str(marked(before, after)), create_parent="div")
    assert {element.tag for element in root.iter()} <= {"div", "del", "ins", "span"}
    for tag, kept in (("ins", before), ("del", after)):
        copy = lxml_html.fragment_fromstring(str(marked(before, after)), create_parent="div")
        for element in list(copy.iter(tag)):
            element.drop_tree()
        assert "".join(copy.text_content().split()) == "".join(clean(one_line(kept)).split())


COLUMNS = (Column("a", "Name"), Column("b", "Price", "right"))


def test_a_table_is_named_and_its_headers_have_scopes() -> None:
    root = lxml_html.fragment_fromstring(
        str(table("t-x", "Prices.", COLUMNS, [{"g": "Rival", "a": "Folio", "b": None}], group="g"))
    )
    assert root.findtext(".//caption/span") == "Prices."
    assert [th.get("scope") for th in root.iter("th")] == ["col", "col", "colgroup", "row"]
    assert root.get("aria-labelledby") == root.find(".//caption").get("id")  # type: ignore[union-attr]
    assert [td.text_content() for td in root.iter("td")] == ["–"]


def test_a_table_says_how_much_was_left_out() -> None:
    made = text_of(table("t-x", "Prices.", COLUMNS, [{"a": "Folio", "b": "1"}], total=1201))
    assert "Showing 1 of 1,201; the other 1,200 are in report.json." in made


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(HOSTILE), st.sampled_from(HOSTILE), st.sampled_from(HOSTILE)), max_size=4))
def test_hostile_cells_stay_text(cells: list[tuple[str, str, str]]) -> None:
    rows = [{"g": group, "a": a, "b": b} for group, a, b in cells]
    root = lxml_html.fragment_fromstring(str(table("t-x", HOSTILE[0], COLUMNS, rows, group="g")))
    assert {e.tag for e in root.iter()} <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "span"}
    assert root.findtext(".//caption/span") == HOSTILE[0]
    # great-tables gathers the rows of a group where it first comes up.
    groups = list(dict.fromkeys(row["g"] for row in rows))
    expected = [row["b"] for group in groups for row in rows if row["g"] == group]
    assert [cell.text_content() for cell in root.iter("td")] == expected

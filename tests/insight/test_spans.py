"""Word by word, and by character in Chinese."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.insight.spans import Span, diff_spans, fold, numbers_in

_TEXTS = st.text(alphabet="ab 12.,%纸感书写 \n’'é", max_size=40) | st.text(max_size=30)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "Battery up to 12 hours",
            "Battery up to 20 hours",
            [("equal", "Battery up to "), ("delete", "12"), ("insert", "20"), ("equal", " hours")],
        ),
        (
            "纸感书写体验",
            "纸感阅读体验",
            [("equal", "纸感"), ("delete", "书写"), ("insert", "阅读"), ("equal", "体验")],
        ),
        ("12.5% off", "15% off", [("delete", "12.5%"), ("insert", "15%"), ("equal", " off")]),
        ("a quick fox", "a slow dog", [("equal", "a "), ("delete", "quick fox"), ("insert", "slow dog")]),
        ("gone", "", [("delete", "gone")]),
        ("", "come", [("insert", "come")]),
        ("same", "same", [("equal", "same")]),
        ("", "", []),
    ],
)
def test_diff_spans_marks_exactly_what_differs(before: str, after: str, expected: list[tuple[str, str]]) -> None:
    assert [tuple(span) for span in diff_spans(before, after)] == expected


@given(_TEXTS, _TEXTS)
def test_spans_give_both_texts_back(before: str, after: str) -> None:
    spans = diff_spans(before, after)
    assert "".join(s.text for s in spans if s.op != "insert") == before
    assert "".join(s.text for s in spans if s.op != "delete") == after
    assert all(span.text for span in spans)
    assert all(spans[i].op != spans[i + 1].op for i in range(len(spans) - 1))
    assert (before == after) == all(span.op == "equal" for span in spans)


@given(_TEXTS)
def test_equal_texts_are_one_span(text: str) -> None:
    assert diff_spans(text, text) == ((Span("equal", text),) if text else ())


def test_fold_makes_width_case_and_blanks_equal() -> None:
    assert fold("  Ｕｐ to　20 Hours\n") == "up to 20 hours"


def test_numbers_lose_separators_and_keep_points() -> None:
    assert numbers_in("From 1,299 to 12.5, ２０ hours, 3,5") == ("1299", "12.5", "20", "3,5")

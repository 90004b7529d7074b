"""Figures as inline SVG."""

from __future__ import annotations

import re

import pytest
from lxml import etree, html
from matplotlib.figure import Figure

from workbench.report.figures import Labels, figure, text_width

HOSTILE = "</text><script>alert(1)</script> $\\frac{1}{0}$ {{ 7*7 }} 墨舒"


def draw(made: Figure, labels: Labels, width: int) -> None:
    axes = made.subplots()
    axes.plot([1, 2, 3], [1, 4, 9], marker="o")
    axes.text(2, 4, labels(HOSTILE, 100))
    axes.set_title(labels("[0]"))


def make(name: str = "f-x") -> str:
    return str(figure(name, "Prices fell " + HOSTILE, "A line that falls.", draw))


def test_labels_from_pages_are_text() -> None:
    root = html.fragment_fromstring(make())
    assert not list(root.iter("script"))
    texts = [element.text for element in root.iter("text")]
    assert texts.count(HOSTILE) == 2  # wide and narrow
    assert texts.count("[0]") == 2  # a label that looks like a token is not looked up again
    assert HOSTILE in (root.findtext("figcaption") or "")


def test_each_drawing_carries_its_alternative_text() -> None:
    root = html.fragment_fromstring(make())
    drawings = list(root.iter("svg"))
    assert len(drawings) == 2
    for svg in drawings:
        assert svg.get("role") == "img"
        named = [svg.xpath(f".//*[@id='{name}']")[0].text for name in svg.get("aria-labelledby", "").split()]
        assert named[0].startswith("Prices fell")
        assert named[1] == "A line that falls."


def test_the_same_drawing_gives_the_same_bytes() -> None:
    assert make() == make()


def test_a_users_matplotlibrc_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    expected = make()
    monkeypatch.setitem(mpl.rcParams, "lines.linewidth", 9.0)
    monkeypatch.setitem(mpl.rcParams, "figure.dpi", 300.0)
    assert make() == expected
    assert mpl.rcParams["lines.linewidth"] == 9.0


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    page = make("f-a") + make("f-b")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert targets
    assert {a or b for a, b in targets} <= set(ids)


def test_nothing_reaches_beyond_the_drawing() -> None:
    page = make()
    assert "<style" not in page
    assert "font-family" not in page
    assert "xlink" not in page
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.search(r"\d{4}-\d\d-\d\dT", page)
    for svg in html.fragment_fromstring(page).iter("svg"):
        etree.fromstring(etree.tostring(svg))


def test_chinese_is_taken_to_be_as_wide_as_high() -> None:
    assert text_width("墨舒", 10) == 20
    assert text_width("ab", 10) < 15

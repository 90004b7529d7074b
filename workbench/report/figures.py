"""Figures: matplotlib drawings as inline SVG that carries its own alternative text.

No page text passes through matplotlib: labels are drawn as tokens and put in afterwards as XML text. So a label is
never read as mathematics or markup, no glyph is missing from the drawing font, and the same data gives the same bytes
whatever fonts are installed. The reader's own fonts show the text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from lxml import etree
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.report.html import clean, clip

__all__ = ["COLOURS", "GRID", "INK", "MARKERS", "MUTED", "Labels", "drawing", "figure", "label_row", "text_width"]

# Okabe and Ito (2008), without the yellow that is too light on white. Colour is always paired with a marker.
COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#a4507f", "#b07d00", "#3f8fbf")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, MUTED, GRID = "#1b2430", "#566070", "#dfe3e8"

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_POINTS = 72  # matplotlib's SVG units an inch; sizes below are in CSS pixels = SVG units

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: layout is the same everywhere
    "font.size": 12,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": False,
    "axes.unicode_minus": True,
    "axes.formatter.use_locale": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "timezone": "UTC",
}


class Labels:
    """Hands out a token for each label and knows which label it stands for."""

    def __init__(self) -> None:
        self._labels: list[str] = []

    def __call__(self, text: str, length: int = 48) -> str:
        """A token to draw in place of ``text``."""
        self._labels.append(clip(clean(text), length))
        return f"[{len(self._labels) - 1}]"

    def text(self, token: str) -> str:
        """The label behind ``token``; any other text as it is."""
        match = re.fullmatch(r"\[(\d+)\]", token)
        return self._labels[int(match[1])] if match else token


def text_width(text: str, size: float = 12) -> float:
    """About how wide ``text`` is in pixels; Chinese characters are as wide as they are high."""
    return sum(size if ord(c) > 0x2E80 else size * 0.6 for c in text)


def label_row(axes: Axes, y: float, before: str | None, after: str, *, width: float) -> None:
    """Write tokens of Labels on both sides of a row at ``y``; ``width`` is that of the axes in pixels."""
    along = axes.get_yaxis_transform()
    if before is not None:
        axes.text(-10 / width, y, before, transform=along, ha="right", va="center", color=INK)
    axes.text(1 + 8 / width, y, after, transform=along, va="center", color=INK)


def figure(
    name: str,
    title: str,
    description: str,
    draw: Callable[[Figure, Labels, int], None],
    *,
    heights: tuple[float, float] = (300, 300),
) -> Markup:
    """A figure in two sizes, for wide and for narrow screens; the style sheet shows one of them.

    ``name`` is the stem of all ids. ``title`` states the finding and stands above; ``description`` is the
    alternative text. ``draw`` gets an empty figure, the label maker and the width in pixels; ``heights`` are in
    pixels.
    """
    drawings = [
        _svg(f"{name}-{size}", title, description, draw, width=width, height=height)
        for size, width, height in zip(("wide", "narrow"), (760, 360), heights, strict=True)
    ]
    return Markup(
        '<figure id="{name}"><figcaption>{title}</figcaption>'
        '<div class="wide">{wide}</div><div class="narrow">{narrow}</div></figure>'
    ).format(name=name, title=title, wide=drawings[0], narrow=drawings[1])


def drawing(
    name: str,
    title: str,
    description: str,
    draw: Callable[[Figure, Labels, int], None],
    *,
    width: int = 760,
    height: float = 300,
) -> Markup:
    """A figure in one size, for a notebook, where no style sheet chooses between two; else as ``figure``."""
    made = _svg(name, title, description, draw, width=width, height=height)
    return Markup(
        '<figure id="{name}" style="max-width:{width}px"><figcaption>{title}</figcaption>{made}</figure>'
    ).format(name=name, title=title, width=width, made=made)


@contextmanager
def _style(salt: str) -> Iterator[None]:
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc does not change a report
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": salt})
        yield


def _svg(
    name: str,
    title: str,
    description: str,
    draw: Callable[[Figure, Labels, int], None],
    *,
    width: int,
    height: float,
) -> Markup:
    labels = Labels()
    stream = io.BytesIO()
    with _style(name):
        made = Figure(figsize=(width / _POINTS, height / _POINTS))
        draw(made, labels, width)
        made.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = etree.fromstring(
        stream.getvalue(), etree.XMLParser(load_dtd=False, no_network=True, resolve_entities=False)
    )
    _tidy(root, labels, name)
    _describe(root, title, description, name, width, height)
    return Markup(etree.tostring(root, encoding="unicode"))  # noqa: S704 - serialized XML


def _tidy(root: Any, labels: Labels, name: str) -> None:
    """Take out metadata, fonts and unused ids; make used ids unique in a document; put the labels in."""
    # matplotlib's style element says "*{…}", which inside HTML would reach every element of the page.
    for element in list(root.iter(f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")):
        element.getparent().remove(element)
    used = set()
    for element in root.iter():
        target = element.attrib.pop(f"{{{_XLINK}}}href", None)
        if target is not None:
            element.set("href", target)
            used.add(target.lstrip("#"))
        used.update(re.findall(r"url\(#([^)]+)\)", " ".join(element.attrib.values())))
    for element in root.iter():
        if element.tag == f"{{{_SVG}}}text":
            element.text = labels.text(element.text or "")
            style = re.sub(r"font-family:[^;]*;?\s*", "", element.get("style", ""))
            element.set("style", style.strip().rstrip(";"))
        for key, value in list(element.attrib.items()):
            if key == "id":
                if value in used:
                    element.set("id", f"{name}-{value}")
                else:
                    del element.attrib["id"]
            elif key == "href" and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
    etree.cleanup_namespaces(root)


def _describe(root: Any, title: str, description: str, name: str, width: int, height: float) -> None:
    for key in ("version", "width", "height"):
        root.attrib.pop(key, None)
    root.set("viewBox", f"0 0 {width} {height:g}")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    root.set("stroke-linejoin", "round")
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = etree.Element(f"{{{_SVG}}}{tag}", id=f"{name}-{tag}")
        element.text = clean(text)
        root.insert(position, element)

"""A polars frame as a table to read in a notebook: words to the left, numbers to the right, nothing in quotes."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final

import polars as pl
from markupsafe import Markup

from workbench.report.html import clean, minute, quoted

__all__ = ["frame_table"]

_LONGEST: Final = 320  # characters of one cell
_LINE: Final = 16  # a text up to this length is not broken
_LEFT: Final = "text-align:left;vertical-align:top"
_RIGHT: Final = "text-align:right;vertical-align:top;font-variant-numeric:tabular-nums"
_NOWRAP: Final = ";white-space:nowrap"


def frame_table(frame: pl.DataFrame, *, empty: str = "There is none.", decimals: int = 2) -> Markup:
    """``frame`` as HTML, whole; ``empty`` is said when it has no rows.

    Texts are data: escaped, without characters that control or disguise, cut after 320. Missing values are dashes.
    """
    if frame.is_empty():
        return Markup("<p>{}</p>").format(empty)
    styles = {name: _RIGHT if kind.is_numeric() else _LEFT for name, kind in frame.schema.items()}
    head = Markup("").join(
        Markup('<th scope="col" style="{}">{}</th>').format(style, clean(name).replace("_", " "))
        for name, style in styles.items()
    )
    rows = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td style="{}">{}</td>').format(styles[name] + _keep(value), _cell(value, decimals))
                for name, value in row.items()
            )
        )
        for row in frame.iter_rows(named=True)
    )
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, rows)


def _keep(value: Any) -> str:
    return _NOWRAP if not isinstance(value, str) or len(value) <= _LINE else ""


def _cell(value: Any, decimals: int) -> str | Markup:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return minute(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return Markup(", ").join(quoted(str(item), _LONGEST) for item in value)
    return quoted(str(value), _LONGEST)

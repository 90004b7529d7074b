"""Tables through great-tables: accessible markup, our own look.

great-tables writes a style sheet of about 9 kB for every table; the report has one for all of them, so only the
``<table>`` element is kept and given a caption and a frame that scrolls on narrow screens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
from great_tables import GT
from markupsafe import Markup, escape

__all__ = ["Column", "table"]

_TABLE = re.compile(r"<table\b[^>]*>(.*)</table>", re.DOTALL)
_GROUP = "__group__"
_FEW = 4  # more columns than these are not squeezed into a narrow screen but scrolled


@dataclass(frozen=True)
class Column:
    """One column: its name in the rows, its heading, how it is aligned."""

    name: str
    label: str
    align: Literal["left", "right", "center"] = "left"


def table(
    table_id: str,
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    *,
    group: str | None = None,
    total: int | None = None,
) -> Markup:
    """A table whose first column heads its rows.

    Values may be str (escaped), Markup (kept), numbers or None (an en dash). ``group`` names the key of ``rows``
    whose value heads a block of rows; rows of one block must follow each other. ``total`` is how many rows there were
    before some were left out; the caption then says so and where the rest is.
    """
    names = [column.name for column in columns]
    data: dict[str, list[str]] = {name: [_cell(row.get(name)) for row in rows] for name in names}
    if group is not None:
        data[_GROUP] = [str(row[group]) for row in rows]
    frame = pl.DataFrame(data, schema=dict.fromkeys(data, pl.String))
    made = GT(frame, id=table_id, rowname_col=names[0], groupname_col=_GROUP if group is not None else None)
    made = made.fmt_passthrough(columns=names, escape=False).tab_stubhead(columns[0].label)
    made = made.cols_label({column.name: column.label for column in columns[1:]})
    for align in ("left", "right", "center"):
        chosen = [column.name for column in columns[1:] if column.align == align]
        if chosen:
            made = made.cols_align(align=align, columns=chosen)
    match = _TABLE.search(made.as_raw_html())
    assert match is not None  # noqa: S101 - great-tables always writes one
    left_out = (total or 0) - len(rows)
    if left_out > 0:
        caption += f" Showing {len(rows):,} of {total:,}; the other {left_out:,} are in report.json."
    return Markup(
        '<div class="table{many}" role="region" tabindex="0" aria-labelledby="{id}-caption">'
        '<table id="{id}"><caption id="{id}-caption"><span>{caption}</span></caption>{body}</table></div>'
    ).format(many=" many" if len(columns) > _FEW else "", id=table_id, caption=caption, body=Markup(_slim(match[1])))  # noqa: S704


def _cell(value: Any) -> str:
    if value is None or value == "":
        return '<span class="none">–</span>'
    return str(escape(value))


def _slim(body: str) -> str:
    """Without what our style sheet and a screen reader do not need; a long table shrinks by half.

    Every header has its scope, so the lists of header ids on each cell say nothing new.
    """
    body = re.sub(r' headers="[^"]*"', "", body)
    body = re.sub(r'(<th\b[^>]*?) id="[^"]*"', r"\1", body)
    body = re.sub(r' (?:rowspan|colspan)="1"', "", body)
    body = re.sub(r'class="gt_row gt_(left|right|center)(?: gt_stub)?"', r'class="\1"', body)
    body = re.sub(r'class="gt_col_heading gt_columns_bottom_border gt_(left|right|center)"', r'class="\1"', body)
    body = re.sub(r'class="gt_group_heading"', 'class="group"', body)
    body = re.sub(r' class="gt_[a-z_]+"', "", body)
    return re.sub(r">\s*\n\s*<", ">\n<", body).strip()

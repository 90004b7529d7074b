"""Two wordings of a text as one, with what went struck out and what came underlined."""

from __future__ import annotations

from markupsafe import Markup

from workbench.insight.spans import Span, diff_spans
from workbench.report.html import clean, one_line, quoted

__all__ = ["marked"]

_TOO_DIFFERENT = 0.35
_MOST_RUNS = 40
_LONGEST = 2000  # characters; longer texts are shown one after the other
_TAGS = {"equal": "{}", "delete": "<del>{}</del>", "insert": "<ins>{}</ins>"}


def marked(before: str | None, after: str | None) -> Markup:
    """``before`` and ``after`` as one text with <del> and <ins>; either may be missing.

    Texts with little in common, or that differ in very many places, are shown whole, one after the other, which
    reads better than confetti.
    """
    parts = [_run(span) for span in _spans(clean(one_line(before or "")), clean(one_line(after or "")))]
    return Markup("").join(parts)


def _spans(before: str, after: str) -> tuple[Span, ...]:
    whole = tuple(
        span
        for span in (Span("delete", f"{before} " if after else before), Span("insert", after))
        if span.text.strip()
    )
    if not before or not after or len(before) > _LONGEST or len(after) > _LONGEST:
        return whole
    runs = diff_spans(before, after)
    kept = sum(len(run.text) for run in runs if run.op == "equal")
    confetti = len(runs) > _MOST_RUNS or 2 * kept < _TOO_DIFFERENT * (len(before) + len(after))
    return whole if confetti else runs


def _run(span: Span) -> Markup:
    # Blanks at either end stay outside the mark, so that no line is drawn under nothing.
    bare = span.text.strip()
    if not bare:
        return Markup(" ")
    lead = " " if span.text[0].isspace() else ""
    trail = " " if span.text[-1].isspace() else ""
    return Markup("{}{}{}").format(lead, Markup(_TAGS[span.op]).format(quoted(bare)), trail)  # noqa: S704

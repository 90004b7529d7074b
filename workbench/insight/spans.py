"""Two wordings of a text, compared word by word, and by character where a script has no spaces."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, NamedTuple

from rapidfuzz.distance import Indel

__all__ = ["Span", "diff_spans", "fold", "numbers_in"]

# A number keeps its separators and a percent sign; a character of Chinese, Japanese kana or Korean stands alone.
_TOKEN = re.compile(
    r"\d+(?:[.,:]\d+)*%?"
    r"|[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
    r"|[^\W\d_]+(?:['’-][^\W\d_]+)*"
    r"|\s+|.",
    re.DOTALL,
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Span(NamedTuple):
    """A run of text: in both wordings (``equal``), only in the old (``delete``) or only in the new (``insert``)."""

    op: Literal["equal", "delete", "insert"]
    text: str


def fold(text: str) -> str:
    """``text`` as it is compared: compatibility forms and case made equal, blanks run together."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def numbers_in(text: str) -> tuple[str, ...]:
    """The numbers of a text in order, with thousands separators taken out, full-width digits made plain."""
    plain = unicodedata.normalize("NFKC", text)
    return tuple(re.sub(r",(?=\d{3}(?!\d))", "", number) for number in _NUMBER.findall(plain))


def diff_spans(before: str, after: str) -> tuple[Span, ...]:
    """What differs, exactly.

    ``equal`` and ``delete`` joined give ``before``, ``equal`` and ``insert`` give ``after``.
    Deleted text comes before what was put in its place. No two neighbours have the same ``op``, none is empty.
    """
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    # Gaps are pairs of runs; a blank that is equal between two differing words would only chop them up.
    runs: list[tuple[str, str, str]] = []  # equal, deleted, inserted
    equal = gone = come = ""
    for code in Indel.opcodes(old, new):
        left = "".join(old[code.src_start : code.src_end])
        right = "".join(new[code.dest_start : code.dest_end])
        if code.tag == "equal":
            if gone or come:
                if left.isspace() and code.src_end < len(old) and code.dest_end < len(new):
                    gone, come = gone + left, come + left
                    continue
                runs.append((equal, gone, come))
                equal, gone, come = "", "", ""
            equal += left
        else:
            gone, come = gone + left, come + right
    runs.append((equal, gone, come))
    found = [span for run in runs for span in (Span("equal", run[0]), Span("delete", run[1]), Span("insert", run[2]))]
    return tuple(span for span in found if span.text)

"""A calibration set drawn from a lake: texts like those that an engine will read, of each language and stratum."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workbench.engine.quantize.calibration import STRATA, CalibrationSet, check_representative
from workbench.errors import CalibrationError
from workbench.files import write_text
from workbench.tasks.encode import reason_not_readable
from workbench.tasks.language import detect_language
from workbench.workspace import Workspace

__all__ = ["Sample", "sample_lake", "stratum_of"]

_SHARES: Final[Mapping[str, float]] = {"normal": 0.7, "boundary": 0.2, "abnormal": 0.1}
"""As in the bundled sets."""

_MARKUP: Final = re.compile(
    r"</?[a-zA-Z][^<>]*>|&(?:[a-zA-Z]{2,8}|#\d{2,6});|\{\{|\}\}|\\u[0-9a-fA-F]{4}|\[/?[a-z]+\]"
)
_BROKEN: Final = re.compile("\ufffd|[ÃÂâ][\u0080-\u00bf€™œž]|锟斤拷|(\\S)\\1{6}")
_EMOJI: Final = re.compile("[\u2600-\u27bf\U0001f300-\U0001faff]")
_HAN: Final = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
_LATIN: Final = re.compile("[A-Za-z]")


@dataclass(frozen=True)
class Sample:
    """What was drawn: the file, texts by language and stratum, and what is missing, if anything is."""

    path: Path
    counts: Mapping[tuple[str, str], int]
    missing: str | None

    def summary(self) -> str:
        """For the screen; the last line is what to do next."""
        lines = [f"Wrote {self.path}: {sum(self.counts.values())} texts"]
        lines += [f"  {language} {stratum}: {count}" for (language, stratum), count in sorted(self.counts.items())]
        build = "workbench engines build --all --precision int8"
        if self.missing is not None:
            lines += [self.missing, f"Until the lake has more, build with the bundled set: {build}"]
        else:
            lines.append(f"Next: {build} --calibration {shlex.quote(str(self.path.parent))}")
        return "\n".join(lines)


def sample_lake(workspace: Workspace, out: Path, n: int = 600, *, languages: Sequence[str] = ("en", "zh")) -> Sample:
    """Draw about ``n`` texts (reviews and statements) from the workspace's lake to ``out``/calibration.jsonl.

    Languages get even parts; of each 70 % normal, 20 % boundary and 10 % abnormal texts, and more normal ones where
    the others do not suffice. The same lake gives the same texts. ``missing`` of the result says what the lake did
    not have for a set that INT8 engines may be built with.

    Raises CalibrationError when the lake has no text in one of ``languages``.
    """
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for text in dict.fromkeys(_texts(workspace)):
        language = detect_language(text)
        if language in languages:
            cells[str(language), stratum_of(text)].append(text)
    if not cells:
        raise CalibrationError(
            f"The lake of {workspace.root} has no texts in {' or '.join(languages)}. Fill it first: workbench "
            f"weekly -w {workspace.root}"
        )
    rows = []
    for language in languages:
        own = {stratum: sorted(cells[language, stratum], key=_order) for stratum in STRATA}
        wanted = n // len(languages)
        taken = {stratum: own[stratum][: round(wanted * _SHARES[stratum])] for stratum in STRATA}
        left = wanted - sum(map(len, taken.values()))
        taken["normal"] = own["normal"][: len(taken["normal"]) + max(0, left)]
        rows += [(text, stratum, language) for stratum in STRATA for text in taken[stratum]]
    path = out / "calibration.jsonl"
    lines = [
        json.dumps({"language": language, "stratum": stratum, "text": text}, ensure_ascii=False)
        for text, stratum, language in rows
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))
    missing = None
    try:
        check_representative(CalibrationSet.of(rows), languages=languages)
    except CalibrationError as error:
        missing = str(error)
    return Sample(path, Counter((language, stratum) for _, stratum, language in rows), missing)


def stratum_of(text: str) -> str:
    """normal, boundary (short, long, numbers, capitals, emoji, two languages) or abnormal (markup, broken text)."""
    plain = text.strip()
    reason = reason_not_readable(plain)
    if (reason is not None and reason != "only emoji") or _MARKUP.search(plain) or _BROKEN.search(plain):
        return "abnormal"
    han, latin = len(_HAN.findall(plain)), len(_LATIN.findall(plain))
    # A Chinese character says about as much as three letters.
    size = 3 * han + (len(plain) - han)
    capitals = sum(char.isupper() for char in plain)
    mixed = min(3 * han, latin) > 0.3 * (3 * han + latin)
    if (
        size < 20
        or size > 1500
        or mixed
        or _EMOJI.search(plain)
        or sum(char.isdigit() for char in plain) > 0.2 * len(plain)
        or (latin >= 10 and capitals > 0.6 * latin)
    ):
        return "boundary"
    return "normal"


def _order(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _texts(workspace: Workspace) -> Iterator[str]:
    import polars as pl

    from workbench.store.lake import Lake

    lake = Lake(workspace.lake_dir)
    reviews = lake.read("reviews").select(
        pl.concat_str("title", "text", separator="\n", ignore_nulls=True).str.strip_chars().alias("text")
    )
    claims = lake.read("claims").filter(pl.col("kind") == "statement").select("text")
    for frame in (reviews, claims):
        yield from (text for text in frame["text"].to_list() if text)

"""Main text against WCXB's development pages: word F1 by page type, half by half, beside plain trafilatura.

F1 is over the multiset of lower-case ``\\w+`` words, as the published baselines are. The pages are split by the
SHA-256 of their id. The block weights are fitted on the *development* half only. Which features to have, and
trafilatura's mode, were chosen by two-fold comparison over both halves, so the *held-out* score is free of fitting
but not of that choice.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from tqdm.auto import tqdm

ARCHIVE = Path("web/wcxb_dev.tar.xz")
BASELINE = {
    "article": 0.909,
    "collection": 0.613,
    "documentation": 0.919,
    "forum": 0.694,
    "listing": 0.597,
    "product": 0.686,
    "service": 0.771,
}
"""trafilatura 2.3.1 with tables, on the same pages."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class PageScore:
    """One page: F1, the share of wanted and unwanted snippets found, and its processor time."""

    file_id: str
    page_type: str
    half: str
    f1: float
    wanted: float | None
    unwanted: float | None
    milliseconds: float
    peer_f1: float | None
    peer_milliseconds: float | None
    error: str | None


def find_half(file_id: str) -> str:
    """Which half a page belongs to: ``development`` or ``held-out``."""
    return "development" if int(hashlib.sha256(file_id.encode()).hexdigest(), 16) % 2 == 0 else "held-out"


def word_f1(found: str, gold: str) -> float:
    """Harmonic mean of precision and recall over the multisets of words; 1 when both are empty."""
    ours, theirs = Counter(_WORD.findall(found.lower())), Counter(_WORD.findall(gold.lower()))
    if not ours and not theirs:
        return 1.0
    shared = sum((ours & theirs).values())
    return 2 * shared / (sum(ours.values()) + sum(theirs.values()))


@contextmanager
def unpacked(data: Path) -> Iterator[Path]:
    """The pages in a temporary folder: ``html/ID.html`` and ``ground-truth/ID.json``."""
    with tempfile.TemporaryDirectory(prefix="wcxb-") as folder:
        with tarfile.open(data / ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def list_pages(folder: Path, *, sample: int | None = None) -> list[Path]:
    """Ground-truth files in order; ``sample`` takes every n-th, the same ones each time."""
    return sorted((folder / "ground-truth").glob("*.json"))[:: sample or 1]


def score_page(truth_file: Path, peer: bool = False) -> PageScore:
    """Extract one page and compare; an exception is a score of 0 with its text."""
    from workbench.extract import extract_page

    truth = json.loads(truth_file.read_text("utf-8"))
    file_id, gold = truth["file_id"], truth["ground_truth"]
    page = (truth_file.parent.parent / "html" / f"{file_id}.html").read_bytes()
    error = None
    start = time.process_time()
    try:
        text = extract_page(page, url=truth.get("url")).text
    except Exception as problem:
        text, error = "", f"{type(problem).__name__}: {problem}"
    spent = (time.process_time() - start) * 1000
    peer_f1 = peer_spent = None
    if peer:
        import trafilatura

        start = time.process_time()
        theirs = trafilatura.extract(page, url=truth.get("url"), include_tables=True) or ""
        peer_spent = (time.process_time() - start) * 1000
        peer_f1 = word_f1(theirs, gold.get("main_content", ""))
    return PageScore(
        file_id=file_id,
        page_type=truth["_internal"]["page_type"]["primary"],
        half=find_half(file_id),
        f1=word_f1(text, gold.get("main_content", "")),
        wanted=_share_found(gold.get("with", ()), text),
        unwanted=_share_found(gold.get("without", ()), text),
        milliseconds=spent,
        peer_f1=peer_f1,
        peer_milliseconds=peer_spent,
        error=error,
    )


def _share_found(snippets: Sequence[str], text: str) -> float | None:
    words = " ".join(_WORD.findall(text.lower()))
    looked_for = [" ".join(_WORD.findall(snippet.lower())) for snippet in snippets]
    looked_for = [snippet for snippet in looked_for if snippet]
    return sum(snippet in words for snippet in looked_for) / len(looked_for) if looked_for else None


def measure(data: Path, *, sample: int | None = None, peer: bool = False, workers: int = 2) -> list[PageScore]:
    """Scores of all pages, or of every ``sample``-th."""
    with unpacked(data) as folder, ProcessPoolExecutor(workers) as pool:
        files = list_pages(folder, sample=sample)
        results = pool.map(score_page, files, [peer] * len(files), chunksize=4)
        return list(tqdm(results, total=len(files), desc="main text", unit="page", disable=None))


def summarize(results: Sequence[PageScore]) -> dict[str, float]:
    """Mean F1 by type and over all, for the whole set and the held-out half; exceptions; milliseconds a page."""
    held_out = [result for result in results if result.half == "held-out"]
    scores: dict[str, float] = {}
    for name, group in (("", results), ("held-out/", held_out)):
        for page_type in sorted({result.page_type for result in group}):
            scores[f"{name}{page_type}"] = mean(r.f1 for r in group if r.page_type == page_type)
        if group:
            scores[f"{name}all"] = mean(result.f1 for result in group)
    scores["exceptions"] = float(sum(result.error is not None for result in results))
    scores["ms_per_page"] = mean(result.milliseconds for result in results)
    return scores


def scores(data: Path, *, sample: int | None = None) -> dict[str, float]:
    """What the gate compares: see :func:`summarize`."""
    return summarize(measure(data, sample=sample))


def table(results: Sequence[PageScore]) -> str:
    """A Markdown table by page type."""
    peer = any(result.peer_f1 is not None for result in results)
    lines = [
        "| page type | pages | word F1 | development half | held-out half | wanted snippets | unwanted snippets | "
        + ("trafilatura, side by side | trafilatura, held-out half |" if peer else "trafilatura (published) |"),
        "|---" * (9 if peer else 8) + "|",
    ]
    types = sorted({result.page_type for result in results})
    groups = [(name, [r for r in results if r.page_type == name]) for name in types]
    for name, group in [*groups, ("all", list(results))]:
        halves = [[r.f1 for r in group if r.half == half] for half in ("development", "held-out")]
        wanted = [r.wanted for r in group if r.wanted is not None]
        unwanted = [r.unwanted for r in group if r.unwanted is not None]
        theirs = mean(r.peer_f1 or 0.0 for r in group) if peer else BASELINE.get(name, 0.744)
        cells = [mean(r.f1 for r in group), *(mean(half) if half else float("nan") for half in halves)]
        cells += [mean(wanted) if wanted else float("nan"), mean(unwanted) if unwanted else float("nan"), theirs]
        if peer:
            cells.append(mean([r.peer_f1 or 0.0 for r in group if r.half == "held-out"] or [float("nan")]))
        lines.append(f"| {name} | {len(group)} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    spent = mean(result.milliseconds for result in results)
    lines += ["", f"{spent:.0f} ms a page for everything extract_page reads"]
    if peer:
        lines[-1] += f"; {mean(r.peer_milliseconds or 0.0 for r in results):.0f} ms for trafilatura's main text alone"
    lines[-1] += f"; exceptions: {sum(r.error is not None for r in results)}."
    lines += [f"- {result.file_id}: {result.error}" for result in results if result.error]
    return "\n".join(lines)


def run(data: Path, *, peer: bool = True) -> str:
    """Measure and return the table."""
    return table(measure(data, peer=peer))


def to_json(results: Sequence[PageScore]) -> Mapping[str, object]:
    """Scores and pages for a machine."""
    return {"scores": summarize(results), "pages": [vars(result) for result in results]}

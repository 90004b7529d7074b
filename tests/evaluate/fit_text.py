"""Fit the weights that choose a page's content blocks, on the development half of WCXB.

Penalised logistic regression by Newton's method; every page weighs the same, and within a page a block weighs as many
words as it has, which is what word F1 counts. Run after any change to blocks.py or to the features in keeping.py:

    python -m tests.evaluate fit-text --data ../shared/data
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from tests.evaluate.extraction_text import find_half, list_pages, unpacked
from workbench.extract import keeping
from workbench.extract.blocks import Block
from workbench.extract.document import parse_document
from workbench.extract.keeping import FEATURES, block_features, count_words
from workbench.extract.text import vote_on_text

_RIDGE = 20.0
_PAGE_WEIGHT = 50.0
_WORD = re.compile(r"\w+")
_TARGET = Path(keeping.__file__).with_name("keeping_weights.py")
_HEADER = '''"""Weights of the block features in :mod:`workbench.extract.keeping`. Written by a command, not by hand:

    python -m tests.evaluate fit-text --data DATA

Fitted on the development half of WCXB's development pages (CC BY 4.0), {pages} pages, {blocks} blocks.
"""

from __future__ import annotations

__all__ = ["WEIGHTS"]

WEIGHTS: dict[str, float] = {{
'''


def fit(data: Path) -> Path:
    """Fit on the development half and write ``workbench/extract/keeping_weights.py``; returns its path."""
    with unpacked(data) as folder, ProcessPoolExecutor(2) as pool:
        files = [file for file in list_pages(folder) if find_half(file.stem) == "development"]
        read = pool.map(_read_page, files, chunksize=4)
        pages = [
            page for page in tqdm(read, total=len(files), desc="pages", unit="page", disable=None) if page is not None
        ]
    features = np.vstack([np.asarray(page[0]) for page in pages])
    labels = np.concatenate([np.asarray(page[1]) for page in pages])
    weights = np.concatenate([np.asarray(page[2]) / sum(page[2]) * _PAGE_WEIGHT for page in pages])
    fitted = fit_logistic(features, labels, weights=weights)
    lines = "".join(f'    "{name}": {value:.4f},\n' for name, value in zip(FEATURES, fitted, strict=True))
    _TARGET.write_text(_HEADER.format(pages=len(pages), blocks=len(labels)) + lines + "}\n", "utf-8")
    return _TARGET


Array = npt.NDArray[np.float64]


def fit_logistic(features: Array, labels: Array, *, weights: Array, ridge: float = _RIDGE) -> Array:
    """Weights on the features as they are; the penalty is on standardized ones. The first feature is the constant 1.

    ``features`` [n, k]; ``labels`` [n] in 0 to 1; ``weights`` [n]. Returns [k].
    """
    centre, spread = features.mean(0), features.std(0)
    spread[spread == 0] = 1.0
    centre[0], spread[0] = 0.0, 1.0
    scaled = (features - centre) / spread
    beta = np.zeros(scaled.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-scaled @ beta))
        gradient = scaled.T @ (weights * (labels - chance)) - ridge * beta
        curvature = (scaled.T * (weights * chance * (1 - chance))) @ scaled + ridge * np.eye(len(beta))
        step = np.linalg.solve(curvature, gradient)
        beta += step
        if np.abs(step).max() < 1e-7:
            break
    raw = beta / spread
    raw[0] = beta[0] - (beta[1:] * centre[1:] / spread[1:]).sum()
    return np.asarray(raw)


def _read_page(truth_file: Path) -> tuple[list[list[float]], list[float], list[float]] | None:
    """Features, labels and word counts of a page's blocks; None for a page without blocks or content."""
    truth = json.loads(truth_file.read_text("utf-8"))
    page = (truth_file.parent.parent / "html" / f"{truth['file_id']}.html").read_bytes()
    document = parse_document(page, url=truth.get("url"))
    blocks = document.blocks
    gold = truth["ground_truth"].get("main_content") or ""
    if not blocks or not gold:
        return None
    lengths = [max(1.0, count_words(block.text)) for block in blocks]
    return block_features(blocks, vote_on_text(document)), _label_blocks(blocks, gold), lengths


def _label_blocks(blocks: list[Block], gold: str) -> list[float]:
    """1 for a block that stands in the gold text, 0 for one that does not, the share of word triples in between."""
    whole = f" {' '.join(_WORD.findall(gold.lower()))} "
    lines = {" ".join(_WORD.findall(line.lower())) for line in gold.split("\n")}
    labels = []
    for block in blocks:
        words = _WORD.findall(block.text.lower())
        text = " ".join(words)
        if not words:
            labels.append(0.0)
        elif len(words) < 4:  # a few words stand in most texts by chance; a line of their own is sure
            labels.append(1.0 if text in lines else 0.5 * (f" {text} " in whole))
        elif f" {text} " in whole:
            labels.append(1.0)
        else:
            triples = [" ".join(words[start : start + 3]) for start in range(len(words) - 2)]
            labels.append(sum(f" {triple} " in whole for triple in triples) / len(triples))
    return labels

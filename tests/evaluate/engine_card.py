"""The verdicts on a model's engines as part of its card: the tables ``engines`` at the end of model.toml.

The scorer reads them where a checkout's own texts are too few; see workbench.engine.gate.card.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.evaluate.engines import Judged
from workbench.engine.gate import GateResult, default_budget
from workbench.engine.training.cards import toml_document
from workbench.files import write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["card_tables", "update_card"]

_BEGIN = "\n[[engines]]"
_KEYS = ("precision", "runtime", "runtime_version", "target", "layout", "recipe", "method", "machine", "date")
_HASHES = ("model_sha256", "reading_sha256", "graph_sha256", "calibration_sha256")
_KIND = ("precision", "runtime", "target", "layout", "recipe", "method")


def card_tables(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """A table for each engine but FP32 ones."""
    return [
        {
            **{key: each.about[key] for key in (*_KEYS, *_HASHES)},
            "budget": default_budget(each.about["precision"]),
            "sets": {name: _row(item, each.abouts[name]) for name, item in each.results.items()},
        }
        for each in judged
        if each.about["precision"] != "fp32"
    ]


def _row(item: GateResult, part: str) -> dict[str, Any]:
    row = {
        "task": item.task,
        "part": part,
        "metric": item.metric,
        "n": item.n,
        "fp32": round(item.reference, 3),
        "engine": round(item.candidate, 3),
        "delta": round(item.delta, 3),
        "interval": [round(end, 3) for end in item.interval],
        "flips": item.flips.n,
        "lost": item.lost,
        "gained": item.gained,
        "mcnemar_p": round(item.mcnemar_p, 4),
        "verdict": item.verdict,
    }
    more = {"needed": item.needed, "data_sha256": item.data_sha256[:12]}
    return row | {key: value for key, value in more.items() if value}


def update_card(folder: Path, judged: Sequence[Judged]) -> Path:
    """Write the verdicts into ``folder``/model.toml: engines of the same kind (precision, runtime, target, layout,
    groups kept back, ranges) are replaced, those of another model.onnx dropped, all else stays, byte for byte.

    Raises ValueError when something other than engines stands behind them, or they are of another model.
    """
    file = folder / "model.toml"
    kept, begin, rest = file.read_text(encoding="utf-8").partition(_BEGIN)
    old = tomllib.loads(begin + rest)
    if set(old) - {"engines"}:
        raise ValueError(f"{file}: what stands behind the engines would be lost. Put it before them.")
    new = card_tables(judged)
    models = {table["model_sha256"] for table in new}
    if len(models) > 1:
        raise ValueError("These engines are of several models")
    replaced = [_key(table) for table in new]
    stay = [t for t in old.get("engines", []) if t.get("model_sha256") in models and _key(t) not in replaced]
    tables = sorted([*stay, *new], key=lambda table: (table["runtime"], table["target"], table["precision"]))
    write_text(file, kept.rstrip("\n") + "\n\n" + toml_document({"engines": tables}))
    return file


def _key(table: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(table.get(key)) for key in _KIND)

"""Reviews a second on a CPU: the workbench beside ``transformers.pipeline`` with the same weights.

The workbench reads with the FP32 model, and with each engine that passed the gate, for such an engine is what scoring
takes (workbench.scoring.choosing).

Every peer has a process of its own, and they take turns: one runs a slice of texts while the others wait, round after
round, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import polars as pl

from workbench.bench.process import Peer, PeerError
from workbench.engine.gate.machine import processor_name
from workbench.errors import ModelError, ParameterError
from workbench.runtime.manifest import Manifest
from workbench.runtime.onnx import usable_cores
from workbench.scoring.api import bundled_model
from workbench.scoring.choosing import explain, find_readers
from workbench.settings import settings
from workbench.tasks.labels import TASKS
from workbench.tasks.spec import load_spec

__all__ = ["MEMORY_BAR_MB", "SPEED_BAR", "CpuBench", "PeerResult", "run"]

SPEED_BAR: Final = 4.0
"""How many times the pipeline's reviews a second the workbench must read."""

MEMORY_BAR_MB: Final = 1000.0
"""What the workbench's process may take."""

_NEEDED: Final = ("torch", "transformers", "onnx")
_HOW_TO_GET: Final = (
    "Install the extra (pip install -e '.[export]'), or make an environment for it: python -m venv peer && "
    "peer/bin/pip install torch transformers onnx, and name it with --torch-python peer/bin/python."
)
_PARITY: Final = 1e-4
_OURS: Final = "workbench"
_OURS_ALL: Final = "workbench, three tasks"
_PIPELINE: Final = "transformers.pipeline"
_PIPELINE_BATCHED: Final = "transformers.pipeline, batch_size=32"


@dataclass(frozen=True)
class PeerResult:
    """One peer: ``texts_per_s`` is the median of ``rounds``, latencies are of one text a call.

    ``ratio``: median over rounds of its speed by the pipeline's in the same round; None without a pipeline.
    """

    name: str
    about: str
    texts_per_s: float
    rounds: tuple[float, ...]
    p50_ms: float
    p95_ms: float
    peak_mb: float
    ratio: float | None = None
    engine_id: str | None = None
    """Of the engine that read; None for the FP32 model and for other peers."""


@dataclass(frozen=True)
class CpuBench:
    """What ``run`` measured; ``peers[0]`` is the workbench reading sentiment with the FP32 model, as the pipeline
    does."""

    peers: tuple[PeerResult, ...]
    largest_difference: float | None
    """Largest difference between the two networks' logits: they are the same network."""
    model: str
    texts: int
    mean_characters: float
    cores: int
    machine: str
    engines: tuple[str, ...] = ()
    """Names of the peers that read sentiment with an engine."""
    verdicts: tuple[str, ...] = ()
    """What the gate says of these engines."""
    load: float | None = None
    """Processes that wanted a core before the bench began, averaged over a minute; None where nobody counts them."""

    @property
    def fp32(self) -> PeerResult:
        """The workbench with the FP32 model, sentiment only."""
        return self.peers[0]

    @property
    def ours(self) -> PeerResult:
        """The workbench, sentiment only, with what reads fastest: the FP32 model, or an engine."""
        own = [self.fp32, *(peer for peer in self.peers if peer.name in self.engines)]
        return max(own, key=lambda peer: peer.ratio if peer.ratio is not None else peer.texts_per_s)

    @property
    def ratio(self) -> float | None:
        """How many times the pipeline's reviews a second."""
        return self.ours.ratio

    @property
    def busy(self) -> bool:
        """Whether other work took so much of the machine that the ratio says little."""
        return self.load is not None and self.load > self.cores / 4

    @property
    def passed(self) -> bool:
        """Whether both bars hold."""
        return (self.ratio is None or self.ratio >= SPEED_BAR) and self.ours.peak_mb < MEMORY_BAR_MB

    def table(self) -> str:
        """The result as a Markdown table with a line of verdict."""
        rows = [
            f"| {peer.name} | {peer.texts_per_s:.0f} | {_times(peer.ratio)} | {peer.p50_ms:.1f} | {peer.p95_ms:.1f} "
            f"| {peer.peak_mb:.0f} | {peer.about} |"
            for peer in self.peers
        ]
        ratio = "no peer was measured" if self.ratio is None else f"{self.ratio:.1f} times the pipeline"
        if self.ours is not self.fp32:
            ratio += f" with the engine {self.ours.engine_id}"
            ratio += "" if self.fp32.ratio is None else f", {self.fp32.ratio:.1f} with the FP32 model"
        same = "" if self.largest_difference is None else f"; logits alike to {self.largest_difference:.1g}"
        lines = [
            f"{self.texts} texts a round, {self.mean_characters:.0f} characters on average; {self.machine}, "
            f"{self.cores} cores; model {self.model}{same}",
            "",
            "| peer | reviews/s | of the pipeline | p50 ms | p95 ms | peak MB | versions |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"The workbench: {ratio} (bar {SPEED_BAR:g}), {self.ours.peak_mb:.0f} MB (bar {MEMORY_BAR_MB:.0f}).",
            *self.verdicts,
        ]
        if self.busy:
            lines.append(f"The machine was busy (load average {self.load:.1f}): measure again when it is quiet.")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            **asdict(self),
            "ratio": self.ratio,
            "passed": self.passed,
            "bars": {"ratio": SPEED_BAR, "peak_mb": MEMORY_BAR_MB},
        }

    def to_json(self) -> str:
        """``as_dict`` as text."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"


def run(
    model: Path | str | None = None,
    *,
    torch_python: Path | str | None = None,
    peers: bool = True,
    engines: Sequence[str] | None = None,
    texts: int | Path = 300,
    rounds: int = 5,
    latency_texts: int = 100,
    progress: bool = True,
) -> CpuBench:
    """Measure reading sentiment from ``texts`` calibration texts a round, over ``rounds`` rounds.

    ``texts`` may also be a file: all its texts are read each round (CSV, JSON lines or Parquet with a column "text",
    or plain text, one a line). ``torch_python`` is an interpreter that has torch, transformers and onnx; None is this
    one. ``peers=False`` measures the workbench alone. ``engines``: ids, or beginnings of them, of engines that read
    beside the FP32 model; None are all for this CPU that may read sentiment, those that passed the gate.

    Raises ParameterError when a peer cannot start or an engine may not read, ModelError when the peer's network does
    not give the same logits.
    """
    folder = Path(model) if model is not None else bundled_model()
    spec = load_spec(folder)  # a mistake in the folder is told before a peer is started
    chosen = _engines(folder, engines)
    python = _torch_python(torch_python) if peers else ""
    draw = _drawer(texts)
    sample = draw(0)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    ours = [sys.executable, "-m", "workbench.bench.peer_ours", str(folder)]
    theirs = [python, str(Path(__file__).with_name("peer_transformers.py")), str(folder)]
    commands = {_OURS: [*ours, "sentiment"]}
    if peers:
        commands |= {_PIPELINE: [*theirs, "1"], _PIPELINE_BATCHED: [*theirs, "32"]}
    commands |= {name: [*ours, "sentiment", str(path)] for name, (path, _) in chosen.items()}
    ids = {name: manifest.engine_id for name, (_, manifest) in chosen.items()}
    tasks = [task for task in TASKS if task in spec.outputs]
    if len(tasks) > 1:
        commands[_OURS_ALL] = [*ours, ",".join(tasks)]
        for name, plan in chosen.items():
            if plan in find_readers(folder, tasks, backend="onnxruntime"):
                commands[f"{name}, three tasks"] = [*ours, ",".join(tasks), str(plan[0])]
                ids[f"{name}, three tasks"] = plan[1].engine_id
    try:
        with ExitStack() as stack:
            running = [stack.enter_context(_start(name, command)) for name, command in commands.items()]
            difference = _parity(running[0], running[1], sample[:32]) if peers else None
            speeds, latencies = _measure(running, draw, rounds, latency_texts, progress)
            results = tuple(
                PeerResult(
                    name=peer.name,
                    about=peer.about,
                    texts_per_s=statistics.median(speeds[peer.name]),
                    rounds=tuple(speeds[peer.name]),
                    p50_ms=_quantile(latencies[peer.name], 0.50) * 1000,
                    p95_ms=_quantile(latencies[peer.name], 0.95) * 1000,
                    peak_mb=float(peer.ask("end")["peak_mb"]),
                    ratio=_ratio(speeds[peer.name], speeds.get(_PIPELINE)),
                    engine_id=ids.get(peer.name),
                )
                for peer in running
            )
    except PeerError as error:
        raise ParameterError(f"A peer stopped: {error}\nRun the bench again; with no peers: --no-peers") from None
    return CpuBench(
        peers=results,
        largest_difference=difference,
        model=folder.name,
        texts=len(sample),
        mean_characters=statistics.mean(map(len, sample)),
        cores=usable_cores(),
        machine=processor_name(),
        engines=tuple(chosen),
        verdicts=tuple(f"{name}: {explain(folder, manifest, 'sentiment')}" for name, (_, manifest) in chosen.items()),
        load=load,
    )


def _engines(folder: Path, named: Sequence[str] | None) -> dict[str, tuple[Path, Manifest]]:
    """The engines to measure, by the name of their peer."""
    able = find_readers(folder, ("sentiment",), backend="onnxruntime")
    for start in named or ():
        if not any(manifest.engine_id.startswith(start) for _, manifest in able):
            raise ParameterError(
                f"No engine of {folder.name} for this CPU with an id like {start!r} may read sentiment. Build and "
                f"judge one: workbench engines build --model {folder.name} --precision int8 --compare"
            )
    if named is not None:
        able = [plan for plan in able if any(plan[1].engine_id.startswith(start) for start in named)]
    kinds = [manifest.precision for _, manifest in able]
    return {
        f"{_OURS}, {manifest.precision.upper()}"
        + (f" {manifest.engine_id[:8]}" if kinds.count(manifest.precision) > 1 else ""): (path, manifest)
        for path, manifest in able
    }


def _ratio(speeds: Sequence[float], pipeline: Sequence[float] | None) -> float | None:
    if pipeline is None:
        return None
    return statistics.median(mine / other for mine, other in zip(speeds, pipeline, strict=True))


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f} x"


def _torch_python(named: Path | str | None) -> str:
    if named is not None:
        return str(named)
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ParameterError(
            f"The peer needs {', '.join(missing)}. {_HOW_TO_GET} Or measure the workbench alone: --no-peers"
        )
    return sys.executable


def _start(name: str, command: Sequence[str]) -> Peer:
    try:
        return Peer(name, command)
    except PeerError as error:
        raise ParameterError(
            f"The peer {name} does not start:\n{error}\n"
            f"It needs {', '.join(_NEEDED)}. {_HOW_TO_GET} Or measure the workbench alone: --no-peers"
        ) from None
    except OSError as error:
        raise ParameterError(
            f"{command[0]} cannot be run: {error}. Name an interpreter with --torch-python."
        ) from None


def _drawer(texts: int | Path) -> Callable[[int], list[str]]:
    """A function from a round's number to its texts, all different: the same text twice would be read once."""
    if isinstance(texts, Path):
        own = _usable(_file_texts(texts))
        if not own:
            raise ParameterError(f"{texts} has no texts with letters. Name a file with a column text: --texts FILE")
        return lambda seed: random.Random(seed).sample(own, len(own))  # noqa: S311 - a reproducible order
    written = []
    for path in sorted((settings().home / "calibration").glob("*/calibration*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            written += [json.loads(line)["text"] for line in lines]
    usable = _usable(written)
    if not 1 <= texts <= len(usable):
        raise ParameterError(f"{texts} texts were asked for; calibration/ has {len(usable)}. Ask for fewer: --texts")
    return lambda seed: random.Random(seed).sample(usable, texts)  # noqa: S311 - a reproducible draw


def _usable(texts: Iterable[str | None]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text and any(map(str.isalpha, text))]


def _file_texts(path: Path) -> list[str | None]:
    if not path.is_file():
        raise ParameterError(f"{path} is not a file. Give a number of texts or a file: --texts 300")
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".csv": pl.read_csv,
        ".jsonl": pl.read_ndjson,
        ".parquet": pl.read_parquet,
    }
    if path.suffix not in readers:
        return [*path.read_text(encoding="utf-8", errors="replace").splitlines()]
    try:
        frame = readers[path.suffix](path)
    except pl.exceptions.PolarsError as error:
        raise ParameterError(
            f"{path} cannot be read: {error}. Save it again as CSV, JSON lines or Parquet."
        ) from None
    if "text" not in frame.columns:
        raise ParameterError(f"{path} has no column text; it has {', '.join(frame.columns)}. Rename the column.")
    return [None if value is None else str(value) for value in frame["text"]]


def _parity(ours: Peer, theirs: Peer, texts: Sequence[str]) -> float:
    pairs = zip(ours.ask("logits", texts)["logits"], theirs.ask("logits", texts)["logits"], strict=True)
    largest = max(abs(a - b) for mine, other in pairs for a, b in zip(mine, other, strict=True))
    if largest > _PARITY:
        raise ModelError(
            f"The network in torch differs from model.onnx by {largest:.2g} in its logits, so that a comparison says "
            "nothing. Bench the bundled model, or leave peers out with --no-peers."
        )
    return float(largest)


def _measure(
    peers: Sequence[Peer], draw: Callable[[int], list[str]], rounds: int, latency_texts: int, progress: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    from workbench.progress import tqdm

    speeds: dict[str, list[float]] = {peer.name: [] for peer in peers}
    latencies: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for peer in peers:
        peer.ask("read", draw(rounds + 1)[:20])  # first calls load and allocate
    with tqdm(total=rounds * len(peers), unit="run", disable=not progress, desc="Bench") as bar:
        for number in range(rounds):
            sample = draw(number)
            few = sample[: max(1, latency_texts // rounds)]
            # Another order each round: nobody always runs after the same neighbour.
            for peer in [*peers[number % len(peers) :], *peers[: number % len(peers)]]:
                speeds[peer.name].append(len(sample) / peer.ask("read", sample)["seconds"])
                latencies[peer.name] += peer.ask("each", few)["seconds"]
                bar.update()
    return speeds, latencies


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]

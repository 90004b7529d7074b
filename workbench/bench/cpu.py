"""Reviews a second on a CPU: the workbench beside ``transformers.pipeline`` with the same weights.

Every peer has a process of its own, and they take turns: one runs a slice of texts while the others wait, round after
round, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import json
import platform
import random
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from workbench.bench.process import Peer, PeerError
from workbench.errors import ModelError, ParameterError
from workbench.runtime.onnx import usable_cores
from workbench.scoring.api import bundled_model
from workbench.settings import settings

__all__ = ["MEMORY_BAR_MB", "SPEED_BAR", "CpuBench", "PeerResult", "run"]

SPEED_BAR: Final = 4.0
"""How many times the pipeline's reviews a second the workbench must read."""

MEMORY_BAR_MB: Final = 1000.0
"""What the workbench's process may take."""

_PARITY: Final = 1e-4
_OURS: Final = "workbench"
_OURS_ALL: Final = "workbench, three tasks"
_PIPELINE: Final = "transformers.pipeline"
_PIPELINE_BATCHED: Final = "transformers.pipeline, batch_size=32"


@dataclass(frozen=True)
class PeerResult:
    """One peer: ``texts_per_s`` is the median of ``rounds``, latencies are of one text a call."""

    name: str
    about: str
    texts_per_s: float
    rounds: tuple[float, ...]
    p50_ms: float
    p99_ms: float
    peak_mb: float


@dataclass(frozen=True)
class CpuBench:
    """What ``run`` measured. ``ratio`` is the median over rounds of ours by the pipeline's; None without a peer."""

    peers: tuple[PeerResult, ...]
    ratio: float | None
    largest_difference: float | None
    """Largest difference between the two networks' logits: they are the same network."""
    model: str
    texts: int
    mean_characters: float
    cores: int
    machine: str

    @property
    def ours(self) -> PeerResult:
        """The workbench, sentiment only."""
        return self.peers[0]

    @property
    def passed(self) -> bool:
        """Whether both bars hold."""
        return (self.ratio is None or self.ratio >= SPEED_BAR) and self.ours.peak_mb < MEMORY_BAR_MB

    def table(self) -> str:
        """The result as a Markdown table with a line of verdict."""
        rows = [
            f"| {peer.name} | {peer.texts_per_s:.0f} | {peer.p50_ms:.1f} | {peer.p99_ms:.1f} | {peer.peak_mb:.0f} "
            f"| {peer.about} |"
            for peer in self.peers
        ]
        ratio = "no peer was measured" if self.ratio is None else f"{self.ratio:.1f} times the pipeline"
        lines = [
            f"{self.texts} texts a round, {self.mean_characters:.0f} characters on average; {self.machine}, "
            f"{self.cores} cores; model {self.model}",
            "",
            "| peer | texts/s | p50 ms | p99 ms | peak MB | versions |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"The workbench: {ratio} (bar {SPEED_BAR:g}), {self.ours.peak_mb:.0f} MB (bar {MEMORY_BAR_MB:.0f}).",
        ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**asdict(self), "passed": self.passed, "bars": {"ratio": SPEED_BAR, "peak_mb": MEMORY_BAR_MB}}

    def to_json(self) -> str:
        """``as_dict`` as text."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"


def run(
    model: Path | str | None = None,
    *,
    torch_python: Path | str | None = None,
    peers: bool = True,
    texts: int = 300,
    rounds: int = 5,
    latency_texts: int = 100,
    progress: bool = True,
) -> CpuBench:
    """Measure reading sentiment from ``texts`` calibration texts a round, over ``rounds`` rounds.

    ``torch_python`` is an interpreter that has torch, transformers and onnx; None is this one. ``peers=False``
    measures the workbench alone. Raises ParameterError when a peer cannot start, ModelError when the peer's network
    does not give the same logits.
    """
    folder = Path(model) if model is not None else bundled_model()
    python = _torch_python(torch_python) if peers else ""
    sample = _texts(texts, seed=0)
    ours = [sys.executable, "-m", "workbench.bench.peer_ours", str(folder)]
    theirs = [python, str(Path(__file__).with_name("peer_transformers.py")), str(folder)]
    commands = {_OURS: [*ours, "sentiment"]}
    if peers:
        commands |= {_PIPELINE: [*theirs, "1"], _PIPELINE_BATCHED: [*theirs, "32"]}
    commands[_OURS_ALL] = [*ours, "sentiment,topics,entities"]
    try:
        with ExitStack() as stack:
            running = [stack.enter_context(_start(name, command)) for name, command in commands.items()]
            difference = _parity(running[0], running[1], sample[:32]) if peers else None
            speeds, latencies = _measure(running, texts, rounds, latency_texts, progress)
            results = tuple(
                PeerResult(
                    name=peer.name,
                    about=peer.about,
                    texts_per_s=statistics.median(speeds[peer.name]),
                    rounds=tuple(speeds[peer.name]),
                    p50_ms=_quantile(latencies[peer.name], 0.50) * 1000,
                    p99_ms=_quantile(latencies[peer.name], 0.99) * 1000,
                    peak_mb=float(peer.ask("end")["peak_mb"]),
                )
                for peer in running
            )
    except PeerError as error:
        raise ParameterError(f"A peer stopped: {error}\nRun the bench again; with no peers: --no-peers") from None
    ratio = None
    if peers:
        pairs = zip(speeds[_OURS], speeds[_PIPELINE], strict=True)
        ratio = statistics.median(mine / other for mine, other in pairs)
    return CpuBench(
        peers=results,
        ratio=ratio,
        largest_difference=difference,
        model=folder.name,
        texts=texts,
        mean_characters=statistics.mean(map(len, sample)),
        cores=usable_cores(),
        machine=_processor(),
    )


def _torch_python(named: Path | str | None) -> str:
    if named is not None:
        return str(named)
    missing = [name for name in ("torch", "transformers", "onnx") if find_spec(name) is None]
    if missing:
        raise ParameterError(
            f"The peer needs {', '.join(missing)}. Install the extra (pip install -e '.[export]'), name an "
            "interpreter that has it with --torch-python, or measure the workbench alone with --no-peers."
        )
    return sys.executable


def _start(name: str, command: Sequence[str]) -> Peer:
    try:
        return Peer(name, command)
    except PeerError as error:
        raise ParameterError(
            f"The peer {name} does not start:\n{error}\n"
            f"Check that {command[0]} has torch, transformers and onnx, or leave peers out with --no-peers."
        ) from None
    except OSError as error:
        raise ParameterError(
            f"{command[0]} cannot be run: {error}. Name an interpreter with --torch-python."
        ) from None


def _texts(count: int, *, seed: int) -> list[str]:
    """``count`` different calibration texts: the same text twice would be read once."""
    found: dict[str, None] = {}
    for path in sorted((settings().home / "calibration").glob("*/calibration*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            found.update((json.loads(line)["text"], None) for line in lines)
    usable = [text for text in found if any(map(str.isalpha, text))]
    if not 1 <= count <= len(usable):
        raise ParameterError(f"{count} texts were asked for; calibration/ has {len(usable)}. Ask for fewer: --texts")
    return random.Random(seed).sample(usable, count)  # noqa: S311 - a reproducible draw


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
    peers: Sequence[Peer], texts: int, rounds: int, latency_texts: int, progress: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    from tqdm.auto import tqdm

    speeds: dict[str, list[float]] = {peer.name: [] for peer in peers}
    latencies: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for peer in peers:
        peer.ask("read", _texts(min(texts, 20), seed=rounds + 1))  # first calls load and allocate
    with tqdm(total=rounds * len(peers), unit="run", disable=not progress, desc="Bench") as bar:
        for number in range(rounds):
            sample = _texts(texts, seed=number)
            few = sample[: max(1, latency_texts // rounds)]
            # Another order each round: nobody always runs after the same neighbour.
            for peer in [*peers[number % len(peers) :], *peers[: number % len(peers)]]:
                speeds[peer.name].append(len(sample) / peer.ask("read", sample)["seconds"])
                latencies[peer.name] += peer.ask("each", few)["seconds"]
                bar.update()
    return speeds, latencies


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

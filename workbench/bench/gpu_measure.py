"""The measuring of ``workbench bench gpu``: one peer at a time; what it answers is written into its record.

See workbench.bench.gpu_result for what a record holds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from workbench.bench.gpu_meter import GpuMeter, Watched
from workbench.bench.gpu_peers import PeerPlan
from workbench.bench.gpu_result import GpuBench
from workbench.bench.gpu_texts import Texts, reference_logits
from workbench.bench.process import Peer, PeerError
from workbench.errors import WorkbenchError
from workbench.tasks.spec import ModelSpec

__all__ = ["PARITY_TEXTS", "Bench", "Running"]

logger = logging.getLogger(__name__)

PARITY_TEXTS: Final = 48
"""Texts whose logits are compared."""

_SETTLING: Final = 6.0  # times the seconds of a measurement
_FILE_SECONDS: Final = {True: 8.0, False: 2.5}  # of the workbench: longer, for it is what the bars are about
_FILE_RATE: Final = 200_000.0  # rows a second at most that a file is made for
_PILOT_ROWS: Final = {True: 40_000, False: 2_000}
_LEAST_AGREEMENT: Final = {"fp32": 0.98, "fp16": 0.9}
_FP32_TOLERANCE: Final = 1e-2  # of the logits' spread: TF32 would be above it
_PACED: Final = 1200.0  # requests a second
_LAST_S: Final = 8.0  # kept for what peers tell at the end
_PATIENCE_S: Final = {"load": 150.0, "compile": 300.0, "warm": 150.0, "file": 100.0}
_USUAL_PATIENCE_S: Final = 60.0


@dataclass
class Running:
    """A peer that was started. ``held_mb``: device memory it holds between its turns; ``peak_mb``: at most;
    ``requests_mb``: what it took besides, and keeps, to be quick with single requests."""

    plan: PeerPlan
    peer: Peer
    record: dict[str, Any]
    held_mb: float = 0.0
    peak_mb: float = 0.0
    requests_mb: float = 0.0
    alive: bool = True

    def fail(self, why: str) -> None:
        """Out: the record says why."""
        self.alive = False
        self.record |= {"state": "failed", "why": why}
        logger.warning("%s is out: %s", self.plan.name, why)
        self.peer.close()

    def hold(self, seen: Watched | None, *, peak: bool, requests: bool = False) -> None:
        """Count the memory that was taken in its turn as its own; ``peak``: also what it gave back in it;
        ``requests``: apart, as what single requests need."""
        if seen is not None and requests:
            self.requests_mb += seen.grown_mb
            self.record["requests_mb"] = self.requests_mb
        elif seen is not None:
            if peak:
                self.peak_mb = max(self.peak_mb, self.held_mb + seen.most_mb - seen.before_mb)
            self.held_mb += seen.grown_mb
            self.peak_mb = max(self.peak_mb, self.held_mb)
            self.record["device_mb"] = self.peak_mb


@dataclass
class Bench:
    """A run: ``values`` are written into ``out`` as they come; ``deadline`` is of time.monotonic()."""

    values: dict[str, Any]
    out: Path
    meter: GpuMeter | None
    deadline: float
    seconds: float
    rounds: int
    step: Callable[[str], None] = logger.info
    left_out: dict[str, None] = field(default_factory=dict)

    def write(self) -> None:
        """What there is so far."""
        GpuBench(self.values).write(self.out)

    def start(
        self, stack: ExitStack, model: str, plans: Sequence[PeerPlan], absent: Mapping[str, str]
    ) -> list[Running]:
        """Start the peers of a model in the background; ``stack`` ends them."""
        records: dict[str, dict[str, Any]] = {}
        self.values["models"][model] = {"texts": {}, "peers": records}
        group = []
        for plan in plans:
            record = records[plan.name] = {**plan.facts, "state": "started"}
            try:
                peer = Peer(plan.name, plan.command, environment=plan.environment, wait=False)
            except OSError as error:
                record |= {"state": "failed", "why": f"{plan.command[0]} cannot be run: {error.strerror}"}
                continue
            stack.callback(peer.close)
            group.append(Running(plan, peer, record))
        records.update({name: {"state": "absent", "why": why} for name, why in absent.items()})
        return group

    def load(self, everyone: Sequence[Running]) -> None:
        """Bring every network to the GPU, one after the other; then those that compile do so side by side."""
        # Ours need least to start; the others load their libraries meanwhile.
        for running in sorted(everyone, key=lambda running: (not running.plan.ours, not running.plan.compiles)):
            self.step(f"{running.plan.name}: loading")
            try:
                running.record["about"] = running.peer.ready(self._patience("load"))
            except PeerError as error:
                running.fail(str(error))
                continue
            found = self._ask(running, "load")
            if found is not None:
                running.record["load"] = found[0]
        compiling = [running for running in everyone if running.alive and running.plan.compiles]
        for running in compiling:
            running.peer.send("compile")
        for running in compiling:
            self.step(f"{running.plan.name}: compiling")
            try:
                told = running.peer.receive(self._patience("compile"))
            except PeerError as error:
                running.fail(f"compile: {error}")
                continue
            # Others took memory meanwhile: what this one took, its own library knows.
            running.held_mb += max(0.0, told.get("reserved_mb", 0.0) - running.record["load"].get("reserved_mb", 0.0))
            running.peak_mb = max(running.peak_mb, running.held_mb)
        self.write()

    def measure(self, group: Sequence[Running], spec: ModelSpec, texts: Texts) -> None:
        """Everything of one model; its peers end afterwards."""
        name = spec.folder.name
        for running in group:
            if running.alive and self._has_time(f"{running.plan.name} ({name})"):
                self.step(f"{name}: {running.plan.name}, warm-up")
                # Memory that the search for the best batch size takes and gives back is not counted.
                found = self._ask(running, "warm", peak=False, seconds=0.3 * self.seconds)
                if found is not None:
                    running.record["warm"] = found[0]
        if any(running.alive for running in group):
            self._compare(group, spec, texts.texts[:PARITY_TEXTS])
        tasks = [task for task in ("sentiment", "topics") if task in spec.outputs]
        # What nobody is compared with comes first: the rounds may take all the time there is.
        judged = _judged(group)
        if judged is not None:
            self._alone(judged, texts, tasks)
        for number in range(self.rounds):
            self.step(f"{name}: round {number + 1}")
            for kind in ("network", "read"):
                for running in _turn(group, number):
                    if (kind == "read" or running.plan.network) and self._has_time(f"round {number + 1} ({name})"):
                        self._bulk(running, kind)
            self.write()
        for kind in ("128", "real", "text"):
            self.step(f"{name}: single texts")
            for running in group:
                done = f"single_{kind}" in running.record
                if (kind == "text" or running.plan.network) and not done and self._has_time(f"single texts ({name})"):
                    self._single(running, kind)
        self.write()
        for running in group:
            self.step(f"{name}: files")
            done = "files" in running.record
            needed = 2 * _FILE_SECONDS[running.plan.ours] * self.seconds
            if running.plan.file and not done and self._has_time(f"files ({name})", needed):
                self._file(running, texts, tasks)
        if judged is not None and len(spec.outputs) > len(tasks) and self._has_time(f"three tasks ({name})", 10.0):
            self._file(judged, texts, list(spec.outputs))
        self.write()
        for running in group:
            self._finish(running)
        self.write()

    def _alone(self, running: Running, texts: Texts, tasks: Sequence[str]) -> None:
        """Latency, files and single requests of the engine that the bars are about."""
        self.step(f"{running.plan.name}: alone")
        if self._has_time("single texts"):
            self._single(running, "128")
        if self._has_time("files", _FILE_SECONDS[True] * self.seconds):
            self._file(running, texts, tasks)
        if self._has_time("single requests", 6 * self.seconds):
            self._micro(running, tasks)
        self.write()

    def _compare(self, group: Sequence[Running], spec: ModelSpec, probe: list[str]) -> None:
        """How far everybody's logits are from those of onnxruntime in FP32: they must be of the same network."""
        try:
            reference = reference_logits(spec, probe)
        except WorkbenchError as error:
            self.values["notes"].append(f"Nobody's logits of {spec.folder.name} were compared: {error}")
            return
        spread = float(reference.std(axis=0).mean())
        for running in group:
            found = self._ask(running, "logits", texts=probe)
            if found is None:
                continue
            logits = np.array(found[0]["logits"], np.float64)
            difference = float(np.abs(logits - reference).max())
            agreement = float((logits.argmax(1) == reference.argmax(1)).mean())
            running.record |= {"difference": difference, "spread": spread, "agreement": agreement}
            exact = running.plan.facts["precision"] == "fp32"
            most = _FP32_TOLERANCE * spread if exact else np.inf
            least = _LEAST_AGREEMENT.get(running.plan.facts["precision"], 0.5)
            if not (difference <= most and agreement >= least):  # NaN is neither
                running.fail(
                    f"its logits are up to {difference:.2g} from onnxruntime's in FP32, which spread over "
                    f"{spread:.2g}, and {agreement:.0%} of the labels are the same: it is not the same network"
                )

    def _bulk(self, running: Running, kind: str) -> None:
        if kind not in running.record:
            # The rounds read the same texts again and again: on an H100 torch's rate doubled from the first to the
            # third round while every round had new lengths.
            patience = _SETTLING * self.seconds
            if self._ask(running, "settle", kind=kind, seconds=self.seconds, patience=patience) is None:
                return
            running.record[kind] = []
        before = self._busy_s(running)
        found = self._ask(running, kind, seconds=self.seconds)
        if found is None:
            return
        answer, seen = found
        running.record[kind].append(answer)
        running.record["state"] = "measured"
        self._note_busy(running, kind, before, answer["seconds"], seen)

    def _single(self, running: Running, kind: str) -> None:
        request: dict[str, Any] = {"kind": "text" if kind == "text" else "ids", "seconds": 0.5 * self.seconds}
        if kind == "128":
            request["tokens"] = 128
        found = self._ask(running, "single", **request)
        if found is not None:
            times = np.array(found[0]["ms"])
            p50, p99 = np.percentile(times, (50, 99))
            running.record[f"single_{kind}"] = {"p50_ms": float(p50), "p99_ms": float(p99), "n": len(times)}

    def _file(self, running: Running, texts: Texts, tasks: Sequence[str]) -> None:
        """A short file first, which loads what files need, and whose rate says how long the one that counts is."""
        ours = running.plan.ours
        pilot = self._read_file(running, texts, tasks, _PILOT_ROWS[ours])
        if pilot is None:
            return
        answer, _ = pilot
        rate = answer["rows"] / answer["seconds"]
        rows = round(min(rate, _FILE_RATE) * _FILE_SECONDS[ours] * self.seconds)
        before = self._busy_s(running)
        found = self._read_file(running, texts, tasks, max(rows, _PILOT_ROWS[False]))
        if found is not None:
            answer, seen = found
            running.record.setdefault("files", {})["+".join(tasks)] = answer
            if "entities" not in tasks:
                self._note_busy(running, "file", before, answer["seconds"], seen)

    def _read_file(
        self, running: Running, texts: Texts, tasks: Sequence[str], rows: int
    ) -> tuple[dict[str, Any], Watched | None] | None:
        source = texts.file_of(rows)
        out = source.with_name("scored.parquet")
        return self._ask(running, "file", optional=True, source=str(source), out=str(out), tasks=list(tasks))

    def _micro(self, running: Running, tasks: Sequence[str]) -> None:
        for name, rate, length in (("free", None, 1.0), ("paced", _PACED, 4.0)):
            seconds = max(1.0, length * self.seconds)
            wanted: dict[str, Any] = {"seconds": seconds, "rate": rate, "tasks": list(tasks)}
            found = self._ask(running, "micro", optional=True, requests=True, **wanted)
            if found is not None:
                running.record.setdefault("micro", {})[name] = found[0]

    def _finish(self, running: Running) -> None:
        found = self._ask(running, "facts")
        if found is not None:
            facts = found[0]
            running.record |= {"packages": facts.pop("packages"), "closure": facts.pop("closure"), "facts": facts}
            running.record["host_mb"] = facts["peak_mb"]
        running.peer.close()

    def _busy_s(self, running: Running) -> float | None:
        """Seconds in which the GPU computed for one of our sessions, since it was opened."""
        found = self._ask(running, "stats") if running.plan.ours else None
        return None if found is None else found[0].get("busy_s")

    def _note_busy(
        self, running: Running, kind: str, before: float | None, seconds: float, seen: Watched | None
    ) -> None:
        """Shares of the time in which the GPU worked, the best round's: by the session's events, by the driver."""
        after = self._busy_s(running) if before is not None else None
        shares = {
            f"session_{kind}": None if after is None or before is None else (after - before) / seconds,
            f"nvml_{kind}": None if seen is None else seen.busy,
        }
        busy = running.record.setdefault("busy", {})
        for name, share in shares.items():
            if share is not None:
                busy[name] = max(busy.get(name, 0.0), share)

    def _ask(
        self,
        running: Running,
        do: str,
        *,
        peak: bool = True,
        optional: bool = False,
        requests: bool = False,
        **request: Any,
    ) -> tuple[dict[str, Any], Watched | None] | None:
        """One request in the peer's own turn. None where the peer is out, or where it fails now.

        An ``optional`` request that fails leaves it in, with a note, as long as its process lives.
        """
        if not running.alive:
            return None
        try:
            with self._watch() as seen:
                answer = running.peer.ask(do, timeout=self._patience(do), **request)
        except PeerError as error:
            if optional and running.peer.lives:
                running.record["why"] = f"{do}: {error}"
            else:
                running.fail(f"{do}: {error}")
            return None
        running.hold(seen, peak=peak, requests=requests)
        return answer, seen

    @contextmanager
    def _watch(self) -> Iterator[Watched | None]:
        if self.meter is None:
            yield None
        else:
            with self.meter.watch() as seen:
                yield seen

    def _patience(self, do: str) -> float:
        left = max(self.deadline - time.monotonic(), 0) + _LAST_S
        return min(left, _PATIENCE_S.get(do, _USUAL_PATIENCE_S + 20 * self.seconds))

    def _has_time(self, what: str, needed: float = 0.0) -> bool:
        if time.monotonic() + needed < self.deadline - _LAST_S:
            return True
        self.left_out[what] = None
        return False


def _judged(group: Sequence[Running]) -> Running | None:
    """The engine that the bars are about: ours in FP16, packed where there is one."""
    wanted = {("fp16", "packed"): 0, ("fp16", "padded"): 1}

    def place(running: Running) -> int:
        return wanted.get((running.plan.facts["precision"], running.plan.facts["layout"]), 2)

    return min((running for running in group if running.plan.ours and running.alive), key=place, default=None)


def _turn(group: Sequence[Running], number: int) -> list[Running]:
    """Another order each round: nobody always runs after the same neighbour."""
    alive = [running for running in group if running.alive]
    at = number % len(alive) if alive else 0
    return [*alive[at:], *alive[:at]]

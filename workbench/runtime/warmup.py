"""How texts are best batched for an engine on this machine: measured once, kept in the engine's manifest.

Three questions, one after the other: how many tokens a batch should have, how many batches should be under way at
once, and whether single texts are faster as CUDA graphs. They are asked on a GPU only: on a CPU, batches of 128 to
1024 tokens were equally fast to within 5 % (two cores, bundled model), so there is nothing to choose.
"""

from __future__ import annotations

import logging
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np

from workbench.errors import EngineError
from workbench.progress import tqdm
from workbench.runtime.batching import PackedTexts
from workbench.runtime.host import this_host
from workbench.runtime.manifest import Manifest, Profile, read_manifest, write_manifest
from workbench.runtime.session import Session
from workbench.tasks.spec import load_spec

__all__ = ["SECONDS", "Opener", "Options", "choose_batching", "options_of", "random_texts", "warm_up"]

logger = logging.getLogger(__name__)

SECONDS: Final = 10.0
"""What a warm-up takes, without loading the engine anew for every way."""

Opener = Callable[[Mapping[str, Any]], Session]
"""Loads the engine with another batching: token_budget, max_texts, slots, graphs."""

_ENOUGH: Final = 0.98  # of the best rate: less difference is within the noise of a clock
_GRAPHS_PAY: Final = 0.95  # of the time without graphs
_RUNS: Final = 4
_LEAST_TEXTS: Final = 512  # of fewer, padded batches would not find neighbours of their length
_SINGLES: Final = 30
_USUAL_SLOTS: Final = 2
_SMALLEST: Final = 1024  # tokens a batch: below, one GPU kernel is shorter than its launch
_SEED: Final = 11


@dataclass(frozen=True)
class Options:
    """What a warm-up tries: budgets in tokens, numbers of slots (the first one while budgets are tried), graphs.

    ``longest``: tokens of the longest text that the engine takes.
    """

    token_budgets: tuple[int, ...]
    max_texts: int
    longest: int
    slots: tuple[int, ...] = (_USUAL_SLOTS, 1, 3)
    graphs: bool = True


def options_of(manifest: Manifest, *, max_tokens: int) -> Options:
    """What there is to try for a GPU engine, from its profiles. ``max_tokens``: the longest text the model reads."""
    most = max(_most_tokens(profile, manifest.layout) for profile in manifest.profiles)
    longest = min(max_tokens, max(profile.max[1] for profile in manifest.profiles))
    budgets = tuple(most >> step for step in range(5) if most >> step >= max(longest, min(_SMALLEST, most)))
    return Options(budgets, max(profile.max[0] for profile in manifest.profiles), longest)


def choose_batching(
    open_with: Opener,
    lengths: Sequence[int],
    *,
    options: Options,
    seconds: float = SECONDS,
    progress: bool = True,
) -> dict[str, Any]:
    """The batching of ``options`` that reads texts of these ``lengths`` (tokens, marks included) fastest.

    Of ways that are equally fast, the smaller batch and the fewer slots: they take less memory, and a single request
    waits less behind them. Gives what a manifest's ``batching`` holds: token_budget, max_texts, slots, graphs, and
    under "measured" the rates they were chosen by. Raises EngineError without lengths, and what opening raises.
    """
    if not len(lengths):
        raise EngineError(
            "There are no texts to warm up with. Get the calibration texts back: git checkout -- calibration"
        )
    ways = len(options.token_budgets) + len(options.slots) - 1 + 2 * options.graphs
    with tqdm(total=ways, desc="Warm-up", unit="run", disable=not progress, delay=2, leave=False) as bar:
        trials = _Trials(open_with, lengths, options, seconds / ways, bar)
        budget = trials.best([(budget, options.slots[0]) for budget in sorted(options.token_budgets)])[0]
        budget, slots = trials.best([(budget, slots) for slots in sorted(options.slots)])
        chosen: dict[str, Any] = {"token_budget": budget, "max_texts": options.max_texts, "slots": slots}
        single, as_graph = trials.singles(chosen) if options.graphs else (None, None)
    graphs = bool(single and as_graph and as_graph <= _GRAPHS_PAY * single)
    return {**chosen, "graphs": graphs, "measured": trials.measured((budget, slots), single, as_graph)}


def warm_up(engine: Path, lengths: Sequence[int], *, seconds: float = SECONDS, progress: bool = True) -> Manifest:
    """Measure the engine in ``engine`` and write its batching into its manifest; the engine's id stays.

    ``lengths``: tokens of texts like those it will read. Raises EngineError or ModelError when it cannot run here,
    and EngineError for an engine of onnxruntime, which needs no warm-up.
    """
    manifest, model = read_manifest(engine), engine.resolve().parent.parent
    if manifest.runtime == "onnxruntime":
        raise EngineError(
            f"The engine {manifest.engine_id} is for onnxruntime, where all ways to batch are equally fast: it needs "
            "no warm-up. Use it as it is."
        )
    from workbench.runtime.tensorrt import TensorRtSession

    def open_with(batching: Mapping[str, Any]) -> Session:
        return TensorRtSession(model, engine=engine, manifest=manifest, batching=batching)

    options = options_of(manifest, max_tokens=load_spec(model).max_tokens)
    batching = choose_batching(open_with, lengths, options=options, seconds=seconds, progress=progress)
    logger.info("The engine %s reads batches of %d tokens", manifest.engine_id, batching["token_budget"])
    # Read again: a verdict may have been added meanwhile.
    warmed = replace(read_manifest(engine), batching=batching)
    write_manifest(engine, warmed)
    return warmed


def random_texts(lengths: Sequence[int], *, tokens: int, longest: int, vocabulary: int) -> PackedTexts:
    """Texts of these lengths (``longest`` at most), again and again, shuffled, until they have ``tokens`` tokens.

    Their tokens are random: what they mean makes no difference to how long they take.
    """
    chance = np.random.default_rng(_SEED)
    own = np.clip(np.array(lengths, np.int64), 1, longest)
    turns = int(-(-tokens // own.sum()))
    drawn = chance.permutation(np.tile(own, turns))
    count = int(np.searchsorted(np.cumsum(drawn), tokens)) + 1
    ends = np.concatenate([[0], np.cumsum(drawn[:count])]).astype(np.int32)
    return PackedTexts(chance.integers(0, vocabulary, int(ends[-1]), np.int32), ends)


Way = tuple[int, int]
"""Token budget and slots."""


class _Trials:
    """Measures ways of batching, each on the same texts, and remembers the rates (tokens a second)."""

    def __init__(self, open_with: Opener, lengths: Sequence[int], options: Options, seconds: float, bar: Any) -> None:
        self._open_with = open_with
        self._lengths = lengths
        self._options = options
        self._seconds = seconds
        self._bar = bar
        self._rates: dict[Way, float] = {}
        self._texts: PackedTexts | None = None

    def best(self, ways: Sequence[Way]) -> Way:
        """Of ``ways``, the cheapest first, the first that is nearly as fast as the fastest."""
        for way in ways:
            if way not in self._rates:
                self._rates[way] = self._rate(way)
                self._bar.update()
        enough = _ENOUGH * max(self._rates[way] for way in ways)
        return next(way for way in ways if self._rates[way] >= enough)

    def singles(self, chosen: Mapping[str, Any]) -> tuple[float, float]:
        """Milliseconds that a single text of the usual length takes, without graphs and with them."""
        times = []
        for graphs in (False, True):
            with self._open_with({**chosen, "graphs": graphs}) as session:
                text = self._made(session, 1, [int(statistics.median(self._lengths))])
                outputs = tuple(session.spec.outputs)
                taken: list[float] = []
                for _ in range(3):
                    session.run_packed(text, outputs)
                started = perf_counter()
                while len(taken) < _SINGLES or (perf_counter() - started < self._seconds and len(taken) < 1000):
                    before = perf_counter()
                    session.run_packed(text, outputs)
                    taken.append(perf_counter() - before)
            times.append(statistics.median(taken) * 1000)
            self._bar.update()
        return times[0], times[1]

    def measured(self, way: Way, single: float | None, as_graph: float | None) -> dict[str, Any]:
        """What was found, for the manifest."""
        host = this_host()
        texts = len(self._texts) / len(self._texts.input_ids) if self._texts is not None else 0.0
        rate = self._rates[way]
        found: dict[str, Any] = {
            "on": host.gpu or f"{platform.machine()} CPU",
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "tokens_per_s": round(rate),
            "texts_per_s": round(rate * texts),
            "trials": [
                {"token_budget": budget, "slots": slots, "tokens_per_s": round(value)}
                for (budget, slots), value in self._rates.items()
            ],
        }
        if single is not None and as_graph is not None:
            found |= {"single_ms": round(single, 4), "single_graph_ms": round(as_graph, 4)}
        return found

    def _rate(self, way: Way) -> float:
        budget, slots = way
        asked = {"token_budget": budget, "max_texts": self._options.max_texts, "slots": slots, "graphs": False}
        with self._open_with(asked) as session:
            outputs = tuple(session.spec.outputs)
            first = self._made(session, max(self._options.token_budgets))
            session.run_packed(first, outputs)  # kernels are loaded, memory is taken
            if self._texts is None:
                before = perf_counter()
                session.run_packed(first, outputs)
                speed = len(first.input_ids) / (perf_counter() - before)
                # Enough to fill the slots of every way, and as much as one run has time for.
                least = 2 * max(self._options.slots) * max(self._options.token_budgets)
                least = max(least, _LEAST_TEXTS * round(statistics.mean(self._lengths)))
                self._texts = self._made(session, max(least, int(speed * self._seconds / _RUNS)))
            rates: list[float] = []
            started = perf_counter()
            while not rates or perf_counter() - started < self._seconds:
                before = perf_counter()
                session.run_packed(self._texts, outputs)
                rates.append(len(self._texts.input_ids) / (perf_counter() - before))
        return max(rates)

    def _made(self, session: Session, tokens: int, lengths: Sequence[int] | None = None) -> PackedTexts:
        return random_texts(
            self._lengths if lengths is None else lengths,
            tokens=tokens,
            longest=self._options.longest,
            vocabulary=session.encoder.vocabulary_size,
        )


def _most_tokens(profile: Profile, layout: str) -> int:
    return profile.max[1] if layout == "packed" else profile.max[0] * profile.max[1]

"""What `workbench engines warm-up` does: measure how texts are best batched, for each GPU engine of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.engine.build.graph import text_lengths
from workbench.engine.compare import choose_plans, model_home
from workbench.errors import EngineError, ModelError
from workbench.runtime.manifest import Manifest, find_plans
from workbench.runtime.warmup import SECONDS, warm_up
from workbench.tasks.spec import load_spec

__all__ = ["Warmed", "warm_up_engines"]


@dataclass(frozen=True)
class Warmed:
    """An engine: its ``manifest``, with the batching after a warm-up, or the ``reason`` why there was none."""

    manifest: Manifest
    reason: str = ""

    def summary(self) -> str:
        """One line for a person."""
        name = f"{self.manifest.engine_id}  {self.manifest.precision}  {self.manifest.runtime}"
        batching = self.manifest.batching
        if self.reason or batching is None:
            return f"{name}  left as it is: {self.reason}"
        measured = batching["measured"]
        graphs = "with" if batching["graphs"] else "without"
        single = f", a single text {measured['single_ms']:.2f} ms" if "single_ms" in measured else ""
        single += f" ({measured['single_graph_ms']:.2f} as a CUDA graph)" if single else ""
        return (
            f"{name}  {batching['token_budget']} tokens a batch, {batching['slots']} slots, {graphs} CUDA graphs: "
            f"{measured['tokens_per_s']:,} tokens and {measured['texts_per_s']:,} texts a second{single}"
        )


def warm_up_engines(
    model: str | Path = "reviews",
    *,
    engines: Sequence[str] | None = None,
    calibration: Path | None = None,
    seconds: float = SECONDS,
    progress: bool = True,
) -> list[Warmed]:
    """Warm up the engines of ``model``, with texts as long as the calibration texts, and write the batching into
    their manifests.

    ``engines``: ids, or beginnings of them; all by default. ``seconds``: for each engine, about. One that cannot run
    here, or needs no warm-up, is left as it is and stops no other. Raises ParameterError for an id that is not there,
    ModelError when the model folder is incomplete, and EngineError without calibration texts.
    """
    folder = model_home(model)
    spec = load_spec(folder)
    chosen = choose_plans(find_plans(folder.parent, folder.name), engines, spec)
    lengths = text_lengths(spec, calibration)
    if not lengths:
        raise EngineError(
            f"There are no calibration texts for {spec.name}, so nobody knows how long texts are. Get them back: git "
            "checkout -- calibration, or name a folder: --calibration"
        )
    done = []
    for path, manifest in chosen:
        try:
            done.append(Warmed(warm_up(path, lengths, seconds=seconds, progress=progress)))
        except (EngineError, ModelError) as error:  # noqa: PERF203 - one that cannot run here stops no other
            done.append(Warmed(manifest, str(error)))
    return done

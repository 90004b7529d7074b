"""``workbench bench gpu``: the workbench beside torch and others on one GPU, on the same texts, in turns.

Every peer has a process of its own with an environment of its own, and only one of them works at a time: one is
measured while the others wait, round after round, so that whatever else happens falls on all alike. What is measured
is written down as it comes. A peer that fails is out, with its error in its record, and the others go on. When the
time is up, what is left is left out.

Where what the command line needs is missing, python -m workbench.bench.gpu takes the same options.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from workbench.bench.gpu_measure import PARITY_TEXTS, Bench
from workbench.bench.gpu_meter import GpuMeter
from workbench.bench.gpu_peers import KINDS, check_kinds, engines_of, plan_peers
from workbench.bench.gpu_result import BERT_BASE, BUNDLED, GpuBench, read_bench
from workbench.bench.gpu_texts import prepare_texts
from workbench.bench.shapes import make_model
from workbench.errors import ParameterError, WorkbenchError
from workbench.runtime.host import this_host
from workbench.settings import settings
from workbench.tasks.spec import ModelSpec, load_spec

__all__ = ["MODELS", "main", "run", "show"]

logger = logging.getLogger(__name__)

MODELS: Final = (BERT_BASE, BUNDLED)
"""What --models names, beside folders."""

_TEXTS: Final = 60_000
_ROWS: Final = 800_000
_BUILT: Final = ("fp16", "int8")


def run(
    *,
    torch_python: Path | None = None,
    torch_environment: Mapping[str, str] | None = None,
    peers: Sequence[str] = KINDS,
    models: Sequence[str] = MODELS,
    seconds: float = 1.0,
    rounds: int = 3,
    limit_s: float = 360,
    out: Path | None = None,
    build: bool = False,
    build_options: Mapping[str, Any] | None = None,
    device: str = "cuda",
    texts: int = _TEXTS,
    rows: int = _ROWS,
    progress: bool = True,
) -> GpuBench:
    """Measure, and write bench-gpu.json and bench-gpu.md into ``out`` (default: reports/bench).

    ``torch_python``: an interpreter with torch, transformers, tokenizers, onnx and pyarrow; None is this one. It is
    started with a clean environment and ``torch_environment``. ``peers``: any of KINDS. ``models``: any of MODELS, or
    model folders; the one of BERT's shape is made in ``out`` where it is missing. ``seconds``: of one measurement;
    ``limit_s``: of everything but building. ``build`` first builds the engines that are missing, with
    ``build_options`` (see workbench.engine.build.build). ``texts``: how many different ones are read again and again,
    ``rows``: of a file at most. ``device`` "cpu" tries everything out without a GPU.

    Raises ParameterError for a wrong option, where there is no GPU, or when no peer can be started.
    """
    kinds = check_kinds(list(peers))
    if device not in ("cuda", "cpu"):
        raise ParameterError(f"No device is named {device!r}. Use cuda, or cpu to try it out: --device cpu")
    if seconds <= 0 or limit_s <= 0 or rounds < 1 or min(texts, rows) < PARITY_TEXTS:
        raise ParameterError(
            f"--seconds and --limit must be above 0, --rounds at least 1, texts and rows {PARITY_TEXTS} or more."
        )
    here = this_host()
    if device == "cuda" and here.gpu is None:
        raise ParameterError(
            "There is no GPU here. Measure on the CPU: workbench bench cpu. Or draw what was measured elsewhere: "
            "workbench bench gpu --from bench-gpu.json"
        )
    folder = out or settings().reports / "bench"
    specs = {path.name: load_spec(path) for path in _folders(models, folder)}
    if build and device == "cuda":
        for spec in specs.values():
            _build(spec, build_options or {}, progress=progress)
    started = time.monotonic()
    values: dict[str, Any] = {
        "started_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "gpu": here.gpu,
            "driver": f"driver {here.driver}" if here.driver else None,
            "cores": f"{os.cpu_count()} CPU cores",
            "python": f"Python {platform.python_version()}",
        },
        "settings": {"seconds": seconds, "rounds": rounds, "limit_s": limit_s, "peers": [*kinds], "device": device},
        "notes": [],
        "models": {},
    }
    bench = Bench(values, folder, _meter(device), started + limit_s, seconds, rounds)
    bench.write()
    with (
        tempfile.TemporaryDirectory(prefix="workbench-bench-") as scratch,
        ExitStack() as stack,
        _bar(progress) as bench.step,
    ):
        bench.step("texts")
        pool = prepare_texts(texts, Path(scratch))
        # Everything is started at once: loading libraries and compiling takes longer than measuring.
        groups = {}
        for name, spec in specs.items():
            plans, absent = plan_peers(
                spec.folder,
                kinds,
                texts=pool.path,
                work=folder,
                device=device,
                torch_python=torch_python,
                torch_environment=torch_environment or {},
            )
            groups[name] = bench.start(stack, name, plans, absent)
        if not any(groups.values()):
            bench.write()
            raise ParameterError(_nobody(values))
        pool.write_rows(rows)
        bench.load([running for group in groups.values() for running in group])
        for left, (name, spec) in zip(range(len(specs), 0, -1), specs.items(), strict=True):
            # What one model needs too long for is not the next one's loss.
            now = time.monotonic()
            bench.deadline = now + (started + limit_s - now) / left
            values["models"][name]["texts"] = pool.lengths(spec)
            bench.measure(groups[name], spec, pool)
    if bench.left_out:
        values["notes"].append(f"The time was up ({limit_s:g} s). Left out: {', '.join(bench.left_out)}.")
    values["settings"]["took_s"] = round(time.monotonic() - started, 1)
    bench.write()
    return GpuBench(values)


def show(
    *,
    source: Path | None = None,
    torch_env: Sequence[str] = (),
    peers: str = ",".join(KINDS),
    models: str = ",".join(MODELS),
    out: Path | None = None,
    tactic_sources: str | None = None,
    **options: Any,
) -> GpuBench:
    """What the command does: ``run`` with options as they are typed, or read ``source``; then draw, if that is
    possible here, into ``out`` (default: reports/bench, or beside ``source``).
    """
    if source is not None:
        found, folder = read_bench(source), out or source.parent
        found.write(folder)
    else:
        folder = out or settings().reports / "bench"
        found = run(
            torch_environment=_environment(torch_env),
            peers=_names(peers),
            models=_names(models),
            out=folder,
            build_options={"tactic_sources": tactic_sources} if tactic_sources else None,
            **options,
        )
    if find_spec("matplotlib") is None:
        logger.warning("No figure: matplotlib is not installed. Draw it elsewhere: workbench bench gpu --from FILE")
    else:
        from workbench.bench.gpu_figure import write_figure

        write_figure(found, folder)
    return found


def _names(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    if wrong := [pair for pair in pairs if not pair.partition("=")[0] or "=" not in pair]:
        raise ParameterError(
            f"{wrong[0]!r} is not of the form NAME=VALUE. Write --torch-env LD_LIBRARY_PATH=/opt/lib"
        )
    return dict(pair.split("=", 1) for pair in pairs)


def _folders(models: Sequence[str], out: Path) -> list[Path]:
    if not models:
        raise ParameterError(f"No model was named. Use any of {', '.join(MODELS)}, or model folders: --models")
    known = {BUNDLED: settings().home / "engines" / BUNDLED, BERT_BASE: out / "models" / BERT_BASE}
    found = [known.get(name, Path(name)) for name in dict.fromkeys(models)]
    if known[BERT_BASE] in found:
        make_model(known[BERT_BASE])
    if len({path.name for path in found}) < len(found):
        raise ParameterError("Two of the models have the same folder name. Name one of them, or rename a folder.")
    return found


def _build(spec: ModelSpec, options: Mapping[str, Any], *, progress: bool) -> None:
    """The engines that are measured, where they are missing, and how they batch best."""
    from workbench.engine.build import build
    from workbench.engine.build.graph import text_lengths
    from workbench.runtime.warmup import warm_up

    there = {manifest.precision for _, manifest in engines_of(spec.folder)}
    for precision in _BUILT:
        if precision in there:
            continue
        try:
            build(spec.folder, precision=precision, runtime="tensorrt", progress=progress, **options)
        except WorkbenchError as error:  # the others are measured all the same
            logger.warning("No %s engine of %s: %s", precision.upper(), spec.name, error)
    for path, manifest in engines_of(spec.folder):
        if manifest.batching is None:
            warm_up(path, text_lengths(spec), progress=progress)


def _meter(device: str) -> GpuMeter | None:
    if device == "cpu":
        return None
    try:
        return GpuMeter()
    except (OSError, AttributeError) as error:
        logger.warning("GPU use and device memory are not measured: %s", error)
        return None


def _nobody(values: Mapping[str, Any]) -> str:
    reasons = [
        f"{model}, {name}: {record['why']}"
        for model, told in values["models"].items()
        for name, record in told["peers"].items()
        if "why" in record
    ]
    return "\n".join(["No peer could be started.", *reasons])


@contextmanager
def _bar(progress: bool) -> Iterator[Callable[[str], None]]:
    from workbench.progress import tqdm

    with tqdm(desc="Bench", unit="step", disable=not progress) as bar:

        def step(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        yield step


def main(arguments: Sequence[str] | None = None) -> int:
    """The command without the command line's libraries; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workbench.bench.gpu", description="See workbench bench gpu.")
    parser.add_argument("--torch-python", type=Path)
    parser.add_argument("--torch-env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--peers", default=",".join(KINDS))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", dest="limit_s", type=float, default=360)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--tactic-sources")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        options = {name: value for name, value in vars(given).items() if name != "json"}
        found = show(**options)
    except WorkbenchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(found.to_json() if given.json else found.markdown())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

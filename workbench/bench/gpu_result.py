"""What ``workbench bench gpu`` measured: bars that are met or not, a table, Markdown and JSON.

The results are plain types from the start, because they are written to a file as they come:

    {"machine": {...}, "settings": {...}, "notes": [...],
     "models": {"bert-base": {"texts": {...}, "peers": {"workbench FP16 packed": <record>, ...}}, ...}}

A record has what was measured of one peer; what was not is not there. ``state``: "measured", "failed" or "absent",
with ``why``. ``network`` and ``read``: rounds of {"texts", "tokens", "seconds"}. ``single_128``, ``single_real`` and
``single_text``: {"p50_ms", "p99_ms", "n"}. ``files``: {"sentiment+topics": {"rows", "seconds"}, ...}. ``busy``:
shares of time in which the GPU worked. ``device_mb``, ``host_mb``: memory at most; ``requests_mb``: what single
requests took of the device's besides. ``micro``: workbench.bench.micro.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workbench.errors import ParameterError
from workbench.files import write_text

__all__ = ["BERT_BASE", "BUNDLED", "Bar", "GpuBench", "Record", "file_rate", "median_rate", "ratio", "read_bench"]

BERT_BASE: Final = "bert-base"
BUNDLED: Final = "reviews"

COMPILED: Final = "torch FP16 compiled"
FP32: Final = "torch FP32 eager"
PIPELINE: Final = "transformers.pipeline"

_SCHEMA: Final = 1
_PACKAGES: Final = ("numpy", "tokenizers", "pycuda")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """One thing that is asked for. ``value``: what was measured, as text; ``met``: None where it was not measured."""

    what: str
    asked: str
    value: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "met", False: "**not met**", None: "not measured"}[self.met]


@dataclass(frozen=True)
class GpuBench:
    """What was measured; ``values`` as in the module's docstring."""

    values: Mapping[str, Any]

    @property
    def models(self) -> Mapping[str, Mapping[str, Record]]:
        """The peers' records by model."""
        return {name: model["peers"] for name, model in self.values["models"].items()}

    @property
    def dry(self) -> bool:
        """Whether it ran without a GPU, to try it out."""
        return bool(self.values["settings"].get("device") == "cpu")

    def bars(self) -> list[Bar]:
        """What is asked for on one H100, and what was measured."""
        return list(_bars(self.models))

    def markdown(self) -> str:
        """Tables of every model and of the bars, as Markdown."""
        return "\n".join(_lines(self)) + "\n"

    def to_json(self) -> str:
        """Everything, bars included."""
        bars = [{"what": bar.what, "asked": bar.asked, "value": bar.value, "met": bar.met} for bar in self.bars()]
        return json.dumps({"schema": _SCHEMA, **self.values, "bars": bars}, indent=1, ensure_ascii=False) + "\n"

    def write(self, folder: Path) -> Path:
        """Write bench-gpu.json and bench-gpu.md into ``folder``; gives the first."""
        write_text(folder / "bench-gpu.json", self.to_json())
        write_text(folder / "bench-gpu.md", self.markdown())
        return folder / "bench-gpu.json"


def read_bench(path: Path) -> GpuBench:
    """The inverse of ``to_json``. Raises ParameterError when the file is none that a bench wrote."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path} cannot be read: {error}. Name a bench-gpu.json: --from FILE") from None
    if not isinstance(values, dict) or values.get("schema") != _SCHEMA or "models" not in values:
        raise ParameterError(
            f"{path} is not what this version's workbench bench gpu writes. Measure again: workbench bench gpu"
        )
    return GpuBench({key: value for key, value in values.items() if key not in ("schema", "bars")})


def rates(record: Record, kind: str, unit: str = "tokens") -> list[float]:
    """``unit`` a second in each round of ``kind``."""
    return [item[unit] / item["seconds"] for item in record.get(kind, ())]


def median_rate(record: Record, kind: str, unit: str = "tokens") -> float | None:
    """The median of ``rates``; None without any."""
    found = rates(record, kind, unit)
    return statistics.median(found) if found else None


def ratio(ours: Record, other: Record, kind: str) -> float | None:
    """How many times as many texts a second: the median over rounds of the quotient in the same round."""
    pairs = zip(rates(ours, kind, "texts"), rates(other, kind, "texts"), strict=False)
    found = [mine / theirs for mine, theirs in pairs]
    return statistics.median(found) if found else None


def file_rate(record: Record, tasks: str) -> float | None:
    """Rows a second from Parquet to Parquet."""
    found = record.get("files", {}).get(tasks)
    return found["rows"] / found["seconds"] if found else None


def _best(peers: Mapping[str, Record], key: Callable[[Record], float | None], **wanted: str) -> tuple[str, Record]:
    """Our fastest engine with the properties ``wanted``; "" and nothing where there is none."""
    own = [
        (value, name, record)
        for name, record in peers.items()
        if record.get("ours")
        and all(record.get(field) == value for field, value in wanted.items())
        and (value := key(record)) is not None
    ]
    return max(own, key=lambda item: item[0])[1:] if own else ("", {})


def _network_rate(record: Record) -> float | None:
    return median_rate(record, "network")


def _bars(models: Mapping[str, Mapping[str, Record]]) -> Iterator[Bar]:
    bert, bundled = models.get(BERT_BASE, {}), models.get(BUNDLED, {})
    name, fastest = _best(bert, _network_rate, precision="fp16")
    yield _least(
        "BERT-base FP16, network: times torch.compile FP16, sorted, at its best batch size",
        1.5,
        ratio(fastest, bert.get(COMPILED, {}), "network"),
        f"{{:.2f}} x ({name})",
        "1.5 x",
    )
    name, reading = _best(bert, lambda record: median_rate(record, "read"), precision="fp16")
    yield _least(
        "BERT-base FP16, texts to labels: times transformers.pipeline",
        10,
        ratio(reading, bert.get(PIPELINE, {}), "read"),
        f"{{:.1f}} x ({name})",
        "10 x",
    )
    _, packed = _best(bert, _network_rate, precision="fp16", layout="packed")
    yield _least("BERT-base packed FP16, tokens a second", 2.3e6, _network_rate(packed), "{:,.0f}", "2,300,000")
    name, quick = _best(
        bert, lambda record: -record["single_128"]["p50_ms"] if "single_128" in record else None, precision="fp16"
    )
    yield _most(
        "BERT-base FP16, one text of 128 tokens, p50",
        1.0,
        quick.get("single_128", {}).get("p50_ms"),
        f"{{:.2f}} ms ({name})",
        "1.0 ms",
    )
    yield _int8("BERT-base INT8, network: times FP16 (random weights, no gate)", bert)
    yield _int8("Bundled model INT8, network: times FP16", bundled)
    reading = reading or fastest
    yield _busy_bar(reading.get("busy", {}))
    yield _memory(reading, bert.get(FP32, {}))
    name, scorer = _best(bundled, lambda record: file_rate(record, "sentiment+topics"))
    yield _least(
        "Bundled model, Parquet to Parquet, sentiment and topics, reviews a second",
        100_000,
        file_rate(scorer, "sentiment+topics"),
        f"{{:,.0f}} ({name})",
        "100,000",
    )
    yield _micro(bundled)
    yield _runtime_size([*bundled.values(), *bert.values()])


def _int8(what: str, peers: Mapping[str, Record]) -> Bar:
    _, half = _best(peers, _network_rate, precision="fp16")
    name, whole = _best(peers, _network_rate, precision="int8")
    return _least(what, 1.3, ratio(whole, half, "network"), f"{{:.2f}} x ({name})", "1.3 x")


def _busy_bar(busy: Mapping[str, float | None]) -> Bar:
    """The lower of what the session's events say, which count gaps between kernels in, and the driver."""
    for kind in ("file", "read"):
        shares = [share for key in (f"session_{kind}", f"nvml_{kind}") if (share := busy.get(key)) is not None]
        if shares:
            said = " and ".join(f"{share:.0%}" for share in shares)
            what = f"BERT-base FP16, GPU busy during scoring ({'Parquet to Parquet' if kind == 'file' else 'texts'})"
            return Bar(what, "≥ 85 %", said, min(shares) >= 0.85)
    return Bar("BERT-base FP16, GPU busy during scoring", "≥ 85 %", "–", None)


def _memory(ours: Record, torch: Record) -> Bar:
    mine, theirs = ours.get("device_mb"), torch.get("device_mb")
    share = mine / theirs if mine and theirs else None
    value = f"{{:.2f}} ({mine or 0:,.0f} of {theirs or 0:,.0f} MB)"
    return _most("BERT-base FP16, device memory: share of torch FP32's", 0.5, share, value, "0.50")


def _micro(peers: Mapping[str, Record]) -> Bar:
    asked = "1,000 a second, p99 10 ms"
    what = "Bundled model, single requests from 64 threads"
    name, record = _best(peers, _micro_rate)
    if not name:
        return Bar(what, asked, "–", None)
    # Sent on a timetable: what answers come like when a thousand a second are asked for.
    found = record["micro"]["paced"]
    value = f"{found['requests_per_s']:,.0f} a second, p99 {found['p99_ms']:.1f} ms ({name})"
    return Bar(what, asked, value, found["requests_per_s"] >= 1000 and found["p99_ms"] <= 10)


def _micro_rate(record: Record) -> float | None:
    found = record.get("micro", {}).get("paced")
    return None if not found else -float(found["p99_ms"])


def _runtime_size(records: list[Record]) -> Bar:
    found: dict[str, float] = {}
    for record in records:
        if record.get("ours"):
            found |= record.get("packages", {})
    size = sum(found[name] for name in _PACKAGES) if all(name in found for name in _PACKAGES) else None
    return _most("Packages numpy, tokenizers, pycuda, MB", 150, size, "{:.0f}", "150")


def _least(what: str, least: float, value: float | None, shown: str, asked: str) -> Bar:
    if value is None:
        return Bar(what, f"≥ {asked}", "–", None)
    return Bar(what, f"≥ {asked}", shown.format(value), value >= least)


def _most(what: str, most: float, value: float | None, shown: str, asked: str) -> Bar:
    if value is None:
        return Bar(what, f"≤ {asked}", "–", None)
    return Bar(what, f"≤ {asked}", shown.format(value), value <= most)


def _lines(bench: GpuBench) -> Iterator[str]:
    values = bench.values
    machine = values.get("machine", {})
    yield f"{values.get('started_at', '')}, {', '.join(str(machine[key]) for key in machine if machine[key])}."
    for model, told in values["models"].items():
        texts = told.get("texts", {})
        yield ""
        yield (
            f"**{model}**: {texts.get('n', 0):,} texts, {texts.get('mean_tokens', 0):.0f} tokens on average, "
            f"{texts.get('p50_tokens', 0):.0f} in the middle, {texts.get('p99_tokens', 0):.0f} at the 99th percentile"
        )
        yield ""
        yield from _table(told["peers"])
        yield ""
        for name, record in told["peers"].items():
            yield from _remarks(name, record)
    yield ""
    yield from _all_sizes(bench.models)
    yield ""
    if bench.dry:
        yield "A try without a GPU: no bar is judged."
    else:
        yield "| bar | asked | measured | |"
        yield "|---|---|---|---|"
        yield from (f"| {bar.what} | {bar.asked} | {bar.value} | {bar.verdict} |" for bar in bench.bars())
    for note in values.get("notes", ()):
        yield ""
        yield note
    yield ""
    yield _METHOD


_METHOD: Final = (
    "Peers take turns, round after round; each figure is the median of its rounds. Network: tokens in memory to "
    "logits in memory. Texts: strings to labels, tokenizing included. One text: a call of its own, from tokens (the "
    "pipeline: from text); 128 of them, or as many as reviews have. Parquet: a file of reviews to a file of scores, "
    "the model being loaded and the processes that tokenize running already, as in a service. GPU busy: share of "
    "time in which a kernel ran while the file was read (texts, where there was none), by the driver's count; in "
    "brackets by the session's own events, gaps between kernels counted in. Device memory: what the process took at "
    "most outside the search for its batch size, CUDA's own context included. Host memory: the peak after loading, "
    "without processes that tokenize."
)

_HEAD: Final = (
    "peer", "state", "network tokens/s", "texts/s", "batch", "texts to labels/s", "128 tokens p50 / p99 ms",
    "real lengths p50 / p99 ms", "Parquet reviews/s", "GPU busy", "device MB", "host MB",
)  # fmt: skip


def _table(peers: Mapping[str, Record]) -> Iterator[str]:
    yield f"| {' | '.join(_HEAD)} |"
    yield "|" + "---|" * len(_HEAD)
    for name, record in peers.items():
        files = [rate for tasks in ("sentiment+topics", "sentiment") if (rate := file_rate(record, tasks))]
        cells = (
            name,
            record.get("state", ""),
            _number(median_rate(record, "network")),
            _number(median_rate(record, "network", "texts")),
            str(record.get("warm", {}).get("batch", "–")),
            _number(median_rate(record, "read", "texts")),
            _latency(record.get("single_128")),
            _latency(record.get("single_real") or record.get("single_text")),
            _number(files[0] if files else None),
            _busy(record.get("busy", {})),
            _number(record.get("device_mb")),
            _number(record.get("host_mb")),
        )
        yield f"| {' | '.join(cells)} |"


def _remarks(name: str, record: Record) -> Iterator[str]:
    if record.get("why"):
        state = "" if record.get("state") == "measured" else f"{record['state']}: "
        yield f"- {name}: {state}{' '.join(record['why'].split())}"
    if record.get("warm", {}).get("note"):
        yield f"- {name}: {record['warm']['note']}"
    if (whole := file_rate(record, "sentiment+topics+entities")) is not None:
        yield f"- {name}, Parquet to Parquet, all three tasks: {whole:,.0f} reviews a second"
    for how, said in (("free", "as fast as answers come"), ("paced", "on a timetable")):
        if found := record.get("micro", {}).get(how):
            yield (
                f"- {name}, {found['threads']} threads with one text each, {said}: {found['requests_per_s']:,.0f} "
                f"requests a second, p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms, "
                f"{found['mean_batch']:.1f} texts a batch"
            )
    if record.get("requests_mb"):
        yield f"- {name}, device memory for the graphs of single requests besides: {record['requests_mb']:,.0f} MB"
    if "difference" in record:
        yield (
            f"- {name}: logits within {record['difference']:.2g} of onnxruntime in FP32 (their spread is "
            f"{record['spread']:.2g}), {record['agreement']:.1%} of the labels the same; {record.get('about', '')}"
        )


def _all_sizes(models: Mapping[str, Mapping[str, Record]]) -> Iterator[str]:
    """One line for each interpreter's packages: peers of one interpreter share them."""
    said: dict[str, str] = {}
    for peers in models.values():
        for name, record in peers.items():
            if record.get("packages"):
                said.setdefault(_sizes(record), name)
    yield from (f"- {name}: {sizes}" for sizes, name in said.items())


def _sizes(record: Record) -> str:
    packages, closure = record["packages"], record.get("closure", [])
    if record.get("ours"):
        own = sum(packages.get(name, 0) for name in _PACKAGES)
        pulled = sum(packages.get(name, 0) for name in closure) - own
        beside = sum(size for name, size in packages.items() if name.startswith("tensorrt"))
        frames = sum(size for name, size in packages.items() if name.startswith("polars"))
        return (
            f"packages {', '.join(_PACKAGES)} {own:.0f} MB (what they ask for beside: {pulled:.0f} MB); tensorrt "
            f"{beside:,.0f} MB; polars {frames:.0f} MB"
        )
    return f"packages {sum(packages.get(name, 0) for name in closure):,.0f} MB, with all they need"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _latency(found: Mapping[str, float] | None) -> str:
    return "–" if not found else f"{found['p50_ms']:.2f} / {found['p99_ms']:.2f}"


def _busy(found: Mapping[str, float | None]) -> str:
    kind = "file" if found.get("session_file") is not None or found.get("nvml_file") is not None else "read"
    seen, own = found.get(f"nvml_{kind}"), found.get(f"session_{kind}")
    return ("–" if seen is None else f"{seen:.0%}") + ("" if own is None else f" ({own:.0%})")

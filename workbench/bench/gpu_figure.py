"""The figure of ``workbench bench gpu``."""

from __future__ import annotations

from pathlib import Path

from workbench.bench.gpu_result import BERT_BASE, COMPILED, GpuBench, Record, median_rate, ratio
from workbench.files import write_text
from workbench.report.figure_bench import BenchPanel, BenchRow, bench_svg

__all__ = ["write_figure"]


def write_figure(bench: GpuBench, folder: Path) -> Path:
    """Draw bench-gpu.svg into ``folder``. Needs matplotlib."""
    panels = []
    for model, peers in bench.models.items():
        rows = [
            BenchRow(
                name,
                bool(record.get("ours")),
                median_rate(record, "network"),
                median_rate(record, "read", "texts"),
            )
            for name, record in peers.items()
            if record.get("read")
        ]
        if rows:
            panels.append(BenchPanel(model, tuple(rows)))
    path = folder / "bench-gpu.svg"
    write_text(path, bench_svg(_title(bench), panels))
    return path


def _title(bench: GpuBench) -> str:
    """The finding."""
    machine = bench.values.get("machine", {}).get("gpu") or "this machine"
    for model in (BERT_BASE, *bench.models):
        peers = bench.models.get(model, {})
        compiled = peers.get(COMPILED, {})
        ours: list[tuple[float, str, Record]] = [
            (found, name, record)
            for name, record in peers.items()
            if record.get("ours") and (found := ratio(record, compiled, "network")) is not None
        ]
        if ours:
            found, name, _ = max(ours, key=lambda item: item[0])
            return f"{name}: {found:.1f} times the texts a second of torch.compile FP16 ({model}, {machine})"
    return f"Texts and tokens a second on {machine}"

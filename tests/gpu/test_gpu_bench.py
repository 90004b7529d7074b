"""`workbench bench gpu` on a real GPU: our peer measured through its own process, the meter, one peer of torch."""

import os
from pathlib import Path

import pytest

from workbench.bench import run_gpu
from workbench.bench.gpu_meter import GpuMeter
from workbench.bench.gpu_peers import engines_of
from workbench.bench.shapes import Shape, make_model
from workbench.engine.build import build
from workbench.runtime.cuda import open_device

pytestmark = pytest.mark.gpu

SMALL = Shape(layers=2, width=256, inner=1024, vocabulary=16000)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small model of BERT's form with its FP16 engine, packed where that can be built here."""
    folder = make_model(tmp_path_factory.mktemp("models") / "small", shape=SMALL)
    build(folder, precision="fp16", runtime="tensorrt", tactic_sources="none", progress=False)
    return folder


def test_the_meter_sees_what_is_taken():
    meter = GpuMeter()
    device = open_device()
    with device.active(), meter.watch() as seen:
        taken = device.allocate(512 << 20)
    with device.active():
        taken.free()
    assert 500 < seen.grown_mb < 700  # 2^29 bytes are 537 MB
    assert seen.most_mb >= seen.after_mb
    assert 0 <= meter.utilization() <= 1


def test_our_engines_are_measured(small, tmp_path):
    found = run_gpu(
        peers=["ours"], models=[str(small)], seconds=0.8, rounds=2, limit_s=120, out=tmp_path, texts=20_000,
        rows=20_000, progress=False,
    )  # fmt: skip
    peers = found.models["small"]
    assert len(peers) == len(engines_of(small)) >= 1
    for name, record in peers.items():
        assert record["state"] == "measured", (name, record.get("why"))
        assert "why" not in record, record["why"]
        assert len(record["network"]) == len(record["read"]) == 2
        assert record["files"]["sentiment"]["rows"] > 1000
        assert 100 < record["device_mb"] < 20_000
        assert 0 < record["busy"]["session_network"] <= 1.05
        assert record["busy"]["nvml_read"] is not None
        assert record["single_128"]["p50_ms"] < 20
        assert record["packages"]["pycuda"] > 0
    assert not found.dry
    assert "workbench FP16" in found.markdown()


def test_torch_is_measured_beside_it(small, tmp_path):
    named = os.environ.get("WORKBENCH_TORCH_PYTHON")
    if not named:
        pytest.skip("WORKBENCH_TORCH_PYTHON names no interpreter with torch")
    found = run_gpu(
        torch_python=Path(named), peers=["ours", "torch", "torch-fp32", "pipeline"], models=[str(small)], seconds=0.3,
        rounds=1, limit_s=200, out=tmp_path, texts=5000, rows=5000, progress=False,
    )  # fmt: skip
    peers = found.models["small"]
    assert {name: record.get("why") for name, record in peers.items() if record["state"] != "measured"} == {}
    assert peers["torch FP32 eager"]["difference"] < 0.01 * peers["torch FP32 eager"]["spread"]
    assert peers["torch FP16 eager"]["device_mb"] > 100

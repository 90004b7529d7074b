import copy
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from typer.testing import CliRunner

from workbench.bench import (
    GpuBench,
    gpu,
    gpu_figure,
    gpu_meter,
    gpu_peers,
    gpu_result,
    peer_gpu_ours,
    peer_work,
    process,
    run_gpu,
)
from workbench.bench.gpu_measure import Running
from workbench.bench.process import Peer, PeerError, clean_environment
from workbench.bench.shapes import BERT_BASE, LABELS, Shape, make_model
from workbench.bench.texts import calibration_texts, make_texts
from workbench.cli import app
from workbench.engine.graphs import check_graph, layer_groups, to_fp16
from workbench.engine.graphs.packed import check_packable
from workbench.errors import ParameterError
from workbench.runtime import open_session
from workbench.runtime.batching import pad_batch
from workbench.runtime.workers import Encoders
from workbench.tasks.spec import load_spec

HERE = Path(__file__).resolve().parent
BUNDLED = HERE.parents[1] / "engines" / "reviews"
SMALL = Shape(layers=2, width=128, inner=256, vocabulary=16000)
LEAKS = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "small", shape=SMALL)


@pytest.fixture(scope="module")
def torch_python():
    """An interpreter with torch and transformers: this one, or the one that WORKBENCH_TORCH_PYTHON names."""
    if named := os.environ.get("WORKBENCH_TORCH_PYTHON"):
        return Path(named)
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
        pytest.skip("torch and transformers are not installed, and WORKBENCH_TORCH_PYTHON names no interpreter")
    return Path(sys.executable)


# Shapes


def test_the_folder_of_a_shape_is_a_model_folder(small):
    spec = load_spec(small)
    assert (spec.name, spec.max_tokens, tuple(spec.outputs)) == ("small", 512, ("sentiment",))
    model = onnx.load(str(small / "model.onnx"))
    check_graph(model, "fp32")
    assert len(layer_groups(model)) == 5 * SMALL.layers
    check_graph(to_fp16(model), "fp16")
    check_packable(model, precision="fp16", max_tokens=512)
    with open_session(small) as session:
        rows = [np.array([2, 7, 9, 30, 3], np.int32), np.array([2, 8, 3], np.int32)]
        both = session.run(*pad_batch(rows, 8, pad_id=0), ["sentiment"])["sentiment"]
        alone = session.run(*pad_batch(rows[1:], 3, pad_id=0), ["sentiment"])["sentiment"]
    assert both.shape == (2, 3)
    assert np.abs(both[1] - alone[0]).max() < 1e-4
    assert np.abs(both[0] - both[1]).max() > 0.01


def test_a_seed_decides_the_weights(small, tmp_path):
    again = make_model(tmp_path / "small", shape=SMALL)
    assert (again / "model.onnx").read_bytes() == (small / "model.onnx").read_bytes()
    other = make_model(tmp_path / "other", shape=SMALL, seed=1)
    assert (other / "model.onnx").read_bytes() != (small / "model.onnx").read_bytes()
    before = (other / "model.onnx").stat().st_mtime_ns
    make_model(other, shape=SMALL)
    assert (other / "model.onnx").stat().st_mtime_ns == before
    with pytest.raises(ParameterError, match="16000 tokens, the network 100"):
        make_model(tmp_path / "few", shape=Shape(1, 64, 64, 100))


def test_bert_base_has_berts_sizes():
    assert (BERT_BASE.layers, BERT_BASE.width, BERT_BASE.heads, BERT_BASE.inner) == (12, 768, 12, 3072)
    assert BERT_BASE.vocabulary == 30522


# Texts


def test_made_texts_are_different_and_as_long_as_the_calibration_texts():
    source = calibration_texts()
    made = make_texts(4000)
    assert made == make_texts(4000)
    assert len(set(made)) == 4000
    assert set(source) <= set(make_texts(len(source)))
    lengths = [sorted(map(len, texts)) for texts in (source, made)]
    assert statistics.mean(lengths[1]) == pytest.approx(statistics.mean(lengths[0]), rel=0.15)
    for share in (0.1, 0.5, 0.9):
        old, new = (own[int(share * len(own))] for own in lengths)
        assert new == pytest.approx(old, rel=0.25)


def test_too_few_texts_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="git checkout -- calibration"):
        calibration_texts(tmp_path)
    with pytest.raises(ParameterError, match="2 texts give 2 different ones, not 30"):
        make_texts(30, source=["good", "bad"])


# Processes

ASKED = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from process import serve_requests
def wrong(): raise ValueError("no such luck")
serve_requests({
    "environment": lambda: dict(os.environ),
    "sleep": lambda seconds: (time.sleep(seconds), {})[1],
    "add": lambda left, right: {"sum": left + right},
    "wrong": wrong,
}, about="asked")
"""


def asked(**options):
    return Peer("asked", [sys.executable, "-c", ASKED, str(Path(process.__file__).parent)], **options)


def test_nothing_of_our_environment_reaches_another_interpreter(monkeypatch):
    for name in LEAKS:
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    clean = clean_environment(EXTRA="1")
    assert not set(LEAKS) & set(clean)
    assert (clean["CUDA_VISIBLE_DEVICES"], clean["EXTRA"]) == ("0", "1")
    for name in LEAKS[:3]:
        monkeypatch.delenv(name)  # or this very test could not start Python
    with asked(environment=clean) as peer:
        got = peer.ask("environment")
    assert not set(LEAKS) & set(got)
    assert got["EXTRA"] == "1"


def test_ours_keep_what_tensorrt_needs_and_the_others_get_none_of_it(small, tmp_path, monkeypatch):
    for name in LEAKS:
        monkeypatch.setenv(name, "/trt")
    plans, absent = gpu_peers.plan_peers(
        small,
        gpu_peers.KINDS,
        texts=tmp_path / "texts.json",
        work=tmp_path,
        device="cpu",
        torch_python=Path("/opt/python"),
        torch_environment={"LD_LIBRARY_PATH": "/driver"},
    )
    assert not absent
    ours, *others = plans
    assert [ours.environment[name] for name in ("PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD")] == ["/trt"] * 3
    assert ours.environment["PYTHONPATH"] == f"{HERE.parents[1]}{os.pathsep}/trt"
    assert len(others) == 6
    assert all(plan.environment.get("LD_LIBRARY_PATH") == "/driver" for plan in others)
    assert not any(name in plan.environment for plan in others for name in set(LEAKS) - {"LD_LIBRARY_PATH"})
    assert {plan.command[0] for plan in others} == {"/opt/python"}
    assert [plan.name for plan in plans if plan.compiles] == [gpu_result.COMPILED]


def test_without_engines_our_peer_is_absent(small, tmp_path):
    options = {"torch_python": Path("/nowhere"), "torch_environment": {}, "device": "cuda"}
    plans, absent = gpu_peers.plan_peers(
        small, ["ours", "onnxruntime"], texts=tmp_path / "texts.json", work=tmp_path, **options
    )
    assert plans == []
    assert "workbench engines build" in absent["workbench"]
    assert "onnxruntime-gpu" in absent["onnxruntime-gpu"]


def test_a_request_that_fails_leaves_the_peer_running():
    with asked() as peer:
        with pytest.raises(PeerError, match="ValueError: no such luck"):
            peer.ask("wrong")
        with pytest.raises(PeerError, match="KeyError: 'unknown'"):
            peer.ask("unknown")
        assert peer.lives
        assert peer.ask("add", left=2, right=3)["sum"] == 5


def test_a_peer_that_does_not_answer_is_ended():
    with asked(wait=False) as peer:
        assert peer.ready(60) == "asked"
        start = time.monotonic()
        with pytest.raises(PeerError, match="gave no answer in 1 s"):
            peer.ask("sleep", seconds=60, timeout=1)
        assert time.monotonic() - start < 30
        assert not peer.lives


# What is asked of a peer


def test_the_same_texts_are_read_until_they_take_no_less_time():
    calls, cost = [], [8e-4]

    def run(start, end):
        calls.append((start, end))
        cost[0] = max(1e-4, cost[0] * 0.6)  # the next shapes are known
        time.sleep((end - start) * cost[0])
        return 10 * (end - start)

    pace = peer_work._Pace(5000)
    assert pace.settle(run, 0.3, 5) in (1024, 2048)
    assert cost == [1e-4]
    assert len(calls) > 4
    size = pace.size
    assert calls[-2:] == [(0, size)] * 2
    calls.clear()
    found = pace.measure(run, 0.3)
    assert set(calls) == {(0, size)}
    assert found["tokens"] == 10 * found["texts"] == 10 * size * len(calls)
    assert 0.25 < found["seconds"] < 1.5


@pytest.mark.parametrize("texts", [5, 500])
def test_few_texts_are_read_whole_and_patience_ends(texts):
    pace = peer_work._Pace(texts)
    assert pace.settle(lambda start, end: end - start, 1e-9, 0) == min(texts, 64)
    assert pace.measure(lambda start, end: end - start, 0)["texts"] == min(texts, 64)


def test_sizes_of_packages():
    closure = peer_work.closure_of(["tokenizers", "no-such-thing"])
    assert closure[0] == "tokenizers"
    assert "huggingface-hub" in closure
    sizes = peer_work.package_mb([*closure, "numpy", "no-such-thing"])
    assert 5 < sizes["numpy"] < 200
    assert "no-such-thing" not in sizes


def test_without_a_gpu_there_is_no_meter():
    try:
        meter = gpu_meter.GpuMeter()
    except OSError:
        return
    assert meter.used_mb() > 0


def test_busy_needs_samples_that_settled():
    seen = gpu_meter.Watched([(0.1, 0.0), (0.6, 0.8), (0.7, 1.0), (0.8, 0.9)], 100.0, 150.0, 400.0)
    assert seen.busy == pytest.approx(0.9)
    assert seen.grown_mb == 50
    assert gpu_meter.Watched([(0.1, 1.0), (0.6, 1.0)]).busy is None


def test_memory_of_single_requests_is_told_apart():
    plan = gpu_peers.PeerPlan("ours", "ours", (sys.executable,), {}, {})
    with Peer("ours", [sys.executable, "-c", ""], environment={}, wait=False) as peer:
        running = Running(plan, peer, {})
        running.hold(gpu_meter.Watched([], 100.0, 150.0, 400.0), peak=True)
        assert (running.held_mb, running.record["device_mb"]) == (50.0, 300.0)
        running.hold(gpu_meter.Watched([], 150.0, 250.0, 260.0), peak=True, requests=True)
        assert (running.held_mb, running.record) == (50.0, {"device_mb": 300.0, "requests_mb": 100.0})
        running.hold(gpu_meter.Watched([], 250.0, 250.0, 520.0), peak=True)
        assert running.record["device_mb"] == 320.0


# A whole run, on the CPU


@pytest.fixture(scope="module")
def dry(small, tmp_path_factory):
    """The workbench, and a peer whose interpreter has no torch to offer."""
    out = tmp_path_factory.mktemp("bench")
    wrong = out / "python"
    wrong.write_text(f"#!/bin/sh\nexec {sys.executable} -S -c 'import torch' \"$@\"\n")
    wrong.chmod(0o755)
    found = run_gpu(
        torch_python=wrong,
        peers=["ours", "torch-fp32"],
        models=[str(small)],
        seconds=0.2,
        rounds=2,
        limit_s=200,
        out=out,
        device="cpu",
        texts=80,
        rows=80,
        progress=False,
    )
    return out, found


def test_a_run_measures_everything_of_our_peer(dry):
    _, found = dry
    record = found.models["small"]["workbench FP32, onnxruntime"]
    assert record["state"] == "measured"
    assert "why" not in record, record["why"]
    for kind in ("network", "read"):
        assert len(record[kind]) == 2
        assert all(item["texts"] > 0 and item["tokens"] > item["texts"] for item in record[kind])
    for kind in ("single_128", "single_real", "single_text"):
        assert 0 < record[kind]["p50_ms"] <= record[kind]["p99_ms"]
    assert record["files"]["sentiment"]["rows"] == 80
    assert set(record["micro"]) == {"free", "paced"}
    assert record["difference"] < 1e-3
    assert record["agreement"] == 1
    assert 20 < record["host_mb"] < 2000
    assert record["packages"]["numpy"] > 5
    assert found.values["models"]["small"]["texts"]["n"] == 80


def test_a_peer_that_fails_is_told_and_the_others_go_on(dry):
    _, found = dry
    record = found.models["small"][gpu_result.FP32]
    assert record["state"] == "failed"
    assert "torch" in record["why"]
    assert "failed" in found.markdown()


def test_what_was_measured_is_written(dry):
    out, found = dry
    assert GpuBench(json.loads((out / "bench-gpu.json").read_text("utf-8"))).models == found.models
    assert (out / "bench-gpu.md").read_text("utf-8") == found.markdown()
    assert "no bar is judged" in found.markdown()
    assert gpu_result.read_bench(out / "bench-gpu.json").markdown() == found.markdown()


def test_when_the_time_is_up_the_rest_is_left_out(small, tmp_path):
    found = run_gpu(
        peers=["ours"], models=[str(small)], limit_s=8, out=tmp_path, device="cpu", texts=60, rows=60, progress=False
    )
    assert "The time was up (8 s). Left out: " in found.markdown()
    assert "network" not in found.models["small"]["workbench FP32, onnxruntime"]


def test_our_peer_scores_a_file_as_the_command_does(small, tmp_path):
    texts = ["good phone", "bad price", None, "好"]
    pl.DataFrame({"id": range(4), "text": texts}).write_parquet(tmp_path / "in.parquet")
    (tmp_path / "texts.json").write_text(json.dumps(["good phone", "bad"]))
    command = [sys.executable, "-m", "workbench.bench.peer_gpu_ours", str(small), str(tmp_path / "texts.json"), "-"]
    with Peer("ours", command, environment=gpu_peers._own_environment()) as peer:
        assert peer.ask("load")["precision"] == "fp32"
        request = {"source": str(tmp_path / "in.parquet"), "out": str(tmp_path / "out.parquet")}
        assert peer.ask("file", tasks=["sentiment"], **request)["rows"] == 4
    scored = pl.read_parquet(tmp_path / "out.parquet")
    assert scored["id"].to_list() == [0, 1, 2, 3]
    assert scored["sentiment"][0] in LABELS
    assert scored["reason"][2] == "null"


def test_our_peer_keeps_what_tokenizes_from_file_to_file(small, tmp_path):
    texts = [f"good phone {number}" for number in range(4200)]
    pl.DataFrame({"text": texts}).write_parquet(tmp_path / "in.parquet")
    work = peer_gpu_ours._Work(str(small), texts[:1400], "-")
    work.load()
    assert work.kept._processes == [], "a CPU has none to spare"
    work.kept.close()
    with work.opened, Encoders(work.opened.encoder, workers=2) as kept:
        work.encoders = kept
        kept.expect(10**6)
        assert not kept.wait_until_ready(0), "no process is ready at once"
        assert kept.wait_until_ready(60)
        running = [process._process.pid for process in kept._processes]
        assert len(running) == kept._alive == 2
        assert work.read_texts(0, 1400) == len(work.ids)
        for turn in range(1, 3):
            assert work.read_file(tmp_path / "in.parquet", tmp_path / "out.parquet", ["sentiment"]) == len(texts)
            assert kept._seen == 1400 + turn * len(texts)
        assert [process._process.pid for process in kept._processes if process.alive] == running
    assert pl.read_parquet(tmp_path / "out.parquet")["text"].to_list() == texts


@pytest.mark.slow
def test_torch_computes_the_same(small, torch_python, tmp_path):
    found = run_gpu(
        torch_python=torch_python,
        torch_environment={"OMP_NUM_THREADS": "1"},
        peers=["ours", "torch-fp32", "pipeline", "onnxruntime"],
        models=[str(small)],
        seconds=0.1,
        rounds=1,
        limit_s=280,
        out=tmp_path,
        device="cpu",
        texts=60,
        rows=60,
        progress=False,
    )
    peers = found.models["small"]
    assert {name: record["state"] for name, record in peers.items()} == dict.fromkeys(peers, "measured")
    assert all(record["difference"] < 1e-4 and record["agreement"] == 1 for record in peers.values())
    assert len(peers) == 5


@pytest.mark.slow
@pytest.mark.skipif(not (BUNDLED / "model.onnx").is_file(), reason="no engines/reviews/model.onnx yet")
def test_torch_gives_the_bundled_models_sentiment_and_topics(torch_python, tmp_path):
    code = (
        "import sys, numpy as np, torch; sys.path.insert(0, sys.argv[1]);"
        "from pathlib import Path; from peer_network import *;"
        "heads = Heads(build_model(read_weights(Path(sys.argv[2]) / 'model.onnx'), ('a', 'b', 'c')));"
        "ids = torch.tensor([[2, 50, 60, 70, 3], [2, 80, 3, 0, 0]]); mask = (ids > 0).long();"
        "out = [value.detach().numpy() for value in heads(ids, mask)];"
        "np.savez(sys.argv[3], **dict(zip(heads.tasks, out)))"
    )
    folder = str(Path(process.__file__).parent)
    arguments = [str(torch_python), "-c", code, folder, str(BUNDLED), str(tmp_path / "out.npz")]
    subprocess.run(arguments, check=True, capture_output=True, env=clean_environment())
    theirs = np.load(tmp_path / "out.npz")
    rows = [np.array([2, 50, 60, 70, 3], np.int32), np.array([2, 80, 3], np.int32)]
    with open_session(BUNDLED, backend="onnxruntime") as session:
        ours = session.run(*pad_batch(rows, 5, pad_id=0), ["sentiment", "topics"])
    assert sorted(theirs) == ["sentiment", "topics"]
    assert all(np.abs(ours[task] - theirs[task]).max() < 1e-4 for task in ours)


# What is made of it


def record(tokens, texts, *, ours=False, precision="fp16", layout=None, **more):
    rounds = [(tokens or 0) * factor for factor in (0.9, 1, 1.1)]
    network = [{"texts": value / 50, "tokens": value, "seconds": 1.0} for value in rounds]
    read = [{"texts": texts, "tokens": texts * 50, "seconds": 1.0}]
    values = {"state": "measured", "ours": ours, "precision": precision, "layout": layout, "read": read, **more}
    return values | ({"network": network} if tokens else {})


@pytest.fixture
def measured():
    """A recorded run in which every bar is just met."""
    packages = {"numpy": 60.0, "tokenizers": 12.0, "pycuda": 8.0, "tensorrt": 1700.0, "polars": 90.0}
    packed = record(
        2_400_000, 40_000, ours=True, layout="packed",
        single_128={"p50_ms": 1.2, "p99_ms": 1.4, "n": 400},
        busy={"session_file": 0.9, "nvml_file": 0.86, "nvml_read": 0.7},
        device_mb=900.0, packages=packages, closure=["numpy", "tokenizers", "pycuda"],
    )  # fmt: skip
    padded = record(
        2_000_000, 35_000, ours=True, layout="padded", single_128={"p50_ms": 0.99, "p99_ms": 1.1, "n": 400}
    )
    int8 = record(3_200_000, 50_000, ours=True, precision="int8", layout="packed")
    bert = {
        "workbench FP16 packed": packed,
        "workbench FP16 padded": padded,
        "workbench INT8 packed": int8,
        "torch FP16 compiled": record(1_500_000, 20_000, warm={"batch": 128, "note": ""}),
        "torch FP32 eager": record(300_000, 6_000, precision="fp32", device_mb=1900.0),
        "transformers.pipeline": record(None, 150, precision="fp32"),
        "onnxruntime-gpu": {"state": "absent", "why": "it is not installed"},
    }
    micro = {"threads": 64, "requests_per_s": 1200.0, "p50_ms": 3.0, "p99_ms": 9.9, "mean_batch": 5.0}
    reviews = {
        "workbench INT8 padded": record(12e6, 130_000, ours=True, precision="int8", layout="padded"),
        "workbench FP16 packed": record(
            9e6, 120_000, ours=True, layout="packed", micro={"paced": micro, "free": micro},
            files={
                "sentiment+topics": {"rows": 250_000, "seconds": 2.4},
                "sentiment+topics+entities": {"rows": 90_000, "seconds": 2.0},
            },
        )
    }  # fmt: skip
    texts = {"n": 60_000, "mean_tokens": 46.2, "p50_tokens": 31, "p99_tokens": 374}
    return {
        "started_at": "2026-11-23T00:00:00+00:00",
        "machine": {"gpu": "A GPU", "driver": "driver 580"},
        "settings": {"device": "cuda"},
        "notes": ["The time was up (360 s). Left out: nothing."],
        "models": {"bert-base": {"texts": texts, "peers": bert}, "reviews": {"texts": texts, "peers": reviews}},
    }


def test_every_bar_is_judged(measured):
    bars = GpuBench(measured).bars()
    assert len(bars) == 11
    assert [bar.met for bar in bars] == [True] * 11
    assert [bar.value for bar in bars] == [
        "1.60 x (workbench FP16 packed)",
        "266.7 x (workbench FP16 packed)",
        "2,400,000",
        "0.99 ms (workbench FP16 padded)",
        "1.33 x (workbench INT8 packed)",
        "1.33 x (workbench INT8 padded)",
        "90% and 86%",
        "0.47 (900 of 1,900 MB)",
        "104,167 (workbench FP16 packed)",
        "1,200 a second, p99 9.9 ms (workbench FP16 packed)",
        "80",
    ]


@pytest.mark.parametrize(
    ("bar", "path", "value"),
    [
        (0, ("bert-base", "torch FP16 compiled", "network", 1, "seconds"), 0.9),
        (1, ("bert-base", "transformers.pipeline", "read", 0, "texts"), 4100),
        (2, ("bert-base", "workbench FP16 packed", "network", 1, "tokens"), 2_290_000),
        (3, ("bert-base", "workbench FP16 padded", "single_128", "p50_ms"), 1.01),
        (4, ("bert-base", "workbench INT8 packed", "network", 1, "texts"), 62_000),
        (5, ("reviews", "workbench INT8 padded", "network", 1, "texts"), 200_000),
        (6, ("bert-base", "workbench FP16 packed", "busy", "nvml_file"), 0.84),
        (7, ("bert-base", "torch FP32 eager", "device_mb"), 1790.0),
        (8, ("reviews", "workbench FP16 packed", "files", "sentiment+topics", "seconds"), 2.6),
        (9, ("reviews", "workbench FP16 packed", "micro", "paced", "p99_ms"), 10.1),
        (10, ("bert-base", "workbench FP16 packed", "packages", "numpy"), 131.0),
    ],
)
def test_a_bar_that_is_missed_is_told(measured, bar, path, value):
    changed = copy.deepcopy(measured)
    model, peer, *keys = path
    place = changed["models"][model]["peers"][peer]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    if bar in (0, 2, 4, 5):  # a median of three
        rounds = changed["models"][model]["peers"][peer]["network"]
        rounds[:] = [rounds[1]] * 3
    bars = GpuBench(changed).bars()
    assert [at for at, item in enumerate(bars) if item.met is False] == [bar]
    assert "**not met**" in GpuBench(changed).markdown()


def test_what_was_not_measured_is_not_judged():
    bench = GpuBench({"settings": {}, "models": {"reviews": {"texts": {}, "peers": {}}}})
    assert {bar.met for bar in bench.bars()} == {None}
    assert "not measured" in bench.markdown()


def test_markdown_and_json(measured, tmp_path):
    bench = GpuBench(measured)
    text = bench.markdown()
    assert "**bert-base**: 60,000 texts, 46 tokens on average, 31 in the middle, 374 at the 99th percentile" in text
    assert (
        "| workbench FP16 packed | measured | 2,400,000 | 48,000 | – | 40,000 | 1.20 / 1.40 | – | – | 86% (90%) |"
        in text
    )
    assert "| torch FP16 compiled | measured | 1,500,000 | 30,000 | 128 | 20,000 |" in text
    assert "- onnxruntime-gpu: absent: it is not installed" in text
    assert "all three tasks: 45,000 reviews a second" in text
    assert "64 threads with one text each, on a timetable: 1,200 requests a second" in text
    assert text.count("tensorrt 1,700 MB; polars 90 MB") == 1
    assert "| ≥ 1.5 x | 1.60 x (workbench FP16 packed) | met |" in text
    assert "The time was up" in text
    path = bench.write(tmp_path)
    assert gpu_result.read_bench(path).to_json() == bench.to_json()
    assert json.loads(path.read_text("utf-8"))["bars"][0]["met"] is True


def test_the_figure_is_a_file_of_its_own(measured, tmp_path):
    path = gpu_figure.write_figure(GpuBench(measured), tmp_path)
    root = ET.fromstring(path.read_text("utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("font-family")
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"bert-base: tokens a second, network", "reviews: tokens a second, network", "2.40 M", "150"} <= set(texts)
    title = root.find("{http://www.w3.org/2000/svg}title").text
    said = root.find("{http://www.w3.org/2000/svg}desc").text
    assert title.startswith("workbench INT8 packed: 2.1 times the texts a second of torch.compile FP16")
    assert "bert-base, transformers.pipeline: no tokens, 150 texts a second" in said


# The command


def test_the_command_shows_what_was_measured_elsewhere(measured, tmp_path):
    source = GpuBench(measured).write(tmp_path)
    out = tmp_path / "drawn"
    done = CliRunner().invoke(app, ["bench", "gpu", "--from", str(source), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "| bar | asked | measured | |" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["bench-gpu.json", "bench-gpu.md", "bench-gpu.svg"]
    done = CliRunner().invoke(app, ["bench", "gpu", "--from", str(source), "--json"])
    assert json.loads(done.stdout)["models"]["reviews"]


def test_the_light_entry_is_the_same_command(measured, tmp_path, capsys):
    source = GpuBench(measured).write(tmp_path)
    assert gpu.main(["--from", str(source)]) == 0
    assert capsys.readouterr().out == GpuBench(measured).markdown()
    assert gpu.main(["--peers", "tensorflow"]) == 1
    assert "Use any of: --peers ours,torch,compile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peers": "ours,keras"}, "No peer is named 'keras'"),
        ({"peers": " "}, "No peer was named"),
        ({"models": ""}, "No model was named"),
        ({"device": "tpu"}, "No device is named 'tpu'"),
        ({"seconds": 0.0}, "--seconds and --limit must be above 0"),
        ({"rounds": 0}, "--rounds at least 1"),
        ({"torch_env": ["PATH"]}, "'PATH' is not of the form NAME=VALUE"),
        ({"source": Path("none.json")}, "none.json cannot be read"),
    ],
)
def test_mistakes(options, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        gpu.show(**{"device": "cpu", "out": tmp_path, "progress": False, **options})


def test_mistakes_in_what_is_there(small, tmp_path):
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(ParameterError, match="is not what this version"):
        gpu_result.read_bench(tmp_path / "odd.json")
    (tmp_path / "twin").mkdir()
    twin = make_model(tmp_path / "twin" / "small", shape=SMALL)
    with pytest.raises(ParameterError, match="same folder name"):
        run_gpu(models=[str(small), str(twin)], device="cpu", out=tmp_path, progress=False)
    with pytest.raises(ParameterError, match=r"No peer could be started.\nsmall, torch FP32 eager: /nowhere/python"):
        run_gpu(
            torch_python=Path("/nowhere/python"), peers=["torch-fp32"], models=[str(small)], device="cpu",
            out=tmp_path, texts=60, rows=60, progress=False,
        )  # fmt: skip


def test_without_a_gpu_the_message_says_what_can_be_done():
    if gpu.this_host().gpu is not None:
        pytest.skip("there is a GPU here")
    with pytest.raises(ParameterError, match=r"workbench bench cpu[^$]*--from bench-gpu.json"):
        run_gpu(progress=False)

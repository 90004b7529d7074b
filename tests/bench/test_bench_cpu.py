import dataclasses
import json
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.engine.small_encoder import make_small_model
from workbench.bench import CpuBench, run_cpu
from workbench.bench.cpu import PeerResult
from workbench.bench.process import Peer, PeerError
from workbench.cli import app
from workbench.engine.build import build
from workbench.engine.gate import judge, processor
from workbench.errors import ModelError, ParameterError
from workbench.runtime.manifest import read_manifest, write_manifest
from workbench.tasks.labels import TASKS

HERE = Path(__file__).resolve().parent
BUNDLED = HERE.parents[1] / "engines" / "reviews"

ECHO = """
import sys
sys.path.insert(0, sys.argv[1])
from process import serve
print("a library says hello")
serve(lambda texts: None, lambda texts: [[len(text)] for text in texts], about="echo")
"""


def echo():
    import workbench.bench.process as process

    return Peer("echo", [sys.executable, "-c", ECHO, str(Path(process.__file__).parent)])


def test_a_peer_answers_line_by_line():
    with echo() as peer:
        assert peer.about == "echo"
        assert peer.ask("logits", ["a", "好的", "\n"])["logits"] == [[1], [2], [1]]
        assert peer.ask("read", ["a"])["seconds"] >= 0
        assert len(peer.ask("each", ["a", "b"])["seconds"]) == 2
        assert peer.ask("end")["peak_mb"] > 1


def test_a_peer_that_stops_says_why():
    with pytest.raises(PeerError, match="no torch here"):
        Peer("none", [sys.executable, "-c", "raise SystemExit('no torch here')"])
    with echo() as peer:
        peer.ask("end")
        with pytest.raises(PeerError, match="a library says hello"):
            peer.ask("read", ["a"])


def test_the_workbench_alone(tiny, capsys):
    found = run_cpu(tiny, peers=False, texts=40, rounds=2, latency_texts=6)
    assert [peer.name for peer in found.peers] == ["workbench", "workbench, three tasks"]
    assert found.ratio is None
    assert found.passed
    assert all(len(peer.rounds) == 2 and peer.texts_per_s > 0 for peer in found.peers)
    assert all(0 < peer.p50_ms <= peer.p95_ms for peer in found.peers)
    assert 10 < found.ours.peak_mb < 1000
    assert "no peer was measured" in found.table()
    assert json.loads(found.to_json())["peers"][0]["name"] == "workbench"
    assert "4/4" in capsys.readouterr().err


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A small model with two INT8 engines; one passed for all tasks, one was not judged."""
    folder = make_small_model(tmp_path_factory.mktemp("judged") / "small")
    passed = build(folder, precision="int8", runtime="onnxruntime", progress=False)
    build(folder, precision="int8", keep=["layer0.ffn2"], runtime="onnxruntime", progress=False)
    gate = {}
    for task in TASKS:
        labels = {"sentiment": "positive", "topics": ("bug",), "entities": ((0, 4, "product"),)}[task]
        texts = [labels] * 900
        result = judge(task, texts, texts, texts, budget=1.0).with_speed(200, 100, measured_on=processor())
        gate[task] = result.to_dict()
    path = folder / "plans" / passed.engine_id
    write_manifest(path, dataclasses.replace(read_manifest(path), gate=gate))
    return folder, passed.engine_id


def test_engines_that_passed_are_measured_too(judged):
    folder, engine_id = judged
    found = run_cpu(folder, peers=False, texts=30, rounds=1, latency_texts=4, progress=False)
    names = ["workbench", "workbench, INT8", "workbench, three tasks", "workbench, INT8, three tasks"]
    assert [peer.name for peer in found.peers] == names
    assert [peer.engine_id for peer in found.peers] == [None, engine_id, None, engine_id]
    assert found.peers[1].about.endswith("int8")
    assert found.engines == ("workbench, INT8",)
    assert found.fp32.name == "workbench"
    assert found.ours is max(found.peers[:2], key=lambda peer: peer.texts_per_s)
    assert "workbench, INT8: +0.00 points of accuracy against FP32 [-0.43, +0.43]" in found.table()
    alone = run_cpu(folder, peers=False, engines=(), texts=5, rounds=1, latency_texts=1, progress=False)
    assert [peer.name for peer in alone.peers] == ["workbench", "workbench, three tasks"]
    named = run_cpu(folder, peers=False, engines=[engine_id[:6]], texts=5, rounds=1, latency_texts=1, progress=False)
    assert named.engines == ("workbench, INT8",)
    with pytest.raises(ParameterError, match=r"id like '0000' may read sentiment. Build and judge one: .*--compare"):
        run_cpu(folder, peers=False, engines=["0000"], texts=5, rounds=1)


def test_the_fastest_of_ours_is_held_to_the_bars():
    ours = PeerResult("workbench", "", 300.0, (300.0,), 5.0, 9.0, 170.0, 3.4)
    engine = dataclasses.replace(ours, name="workbench, INT8", texts_per_s=520.0, ratio=5.9, engine_id="ab12")
    pipeline = PeerResult("transformers.pipeline", "", 88.0, (88.0,), 15.0, 19.0, 700.0, 1.0)
    bench = CpuBench((ours, pipeline, engine), 1e-6, "reviews", 10, 70.0, 2, "a machine", (engine.name,))
    assert bench.ours == engine
    assert bench.passed
    assert "5.9 times the pipeline with the engine ab12, 3.4 with the FP32 model (bar 4)" in bench.table()
    assert not dataclasses.replace(bench, engines=()).passed


def test_bars():
    ours = PeerResult("workbench", "", 300.0, (300.0,), 5.0, 9.0, 170.0, 4.2)
    pipeline = PeerResult("transformers.pipeline", "", 71.4, (71.4,), 15.0, 19.0, 700.0, 1.0)
    bench = CpuBench((ours, pipeline), 1e-6, "reviews", 10, 70.0, 2, "a machine")
    assert bench.passed
    assert bench.as_dict()["ratio"] == 4.2
    assert "4.2 times the pipeline (bar 4), 170 MB (bar 1000)" in bench.table()
    assert "| workbench | 300 | 4.20 x | 5.0 | 9.0 | 170 |" in bench.table()
    assert "logits alike to 1e-06" in bench.table()
    assert "busy" not in bench.table()
    assert "busy (load average 3.1): measure again" in dataclasses.replace(bench, load=3.1).table()
    slower = dataclasses.replace(ours, ratio=3.9)
    assert not dataclasses.replace(bench, peers=(slower, pipeline)).passed
    heavy = dataclasses.replace(ours, peak_mb=1200.0)
    assert not dataclasses.replace(bench, peers=(heavy,)).passed


def test_a_peak_is_the_peers_own():
    held = bytearray(300 << 20)
    held[::4096] = b"x" * len(held[::4096])
    with echo() as peer:
        assert peer.ask("end")["peak_mb"] < 200


@pytest.mark.parametrize("name", ["texts.csv", "texts.jsonl", "texts.parquet", "texts.txt"])
def test_texts_of_a_file(tiny, tmp_path, name):
    texts = ["good phone", "bad price", "good phone", None, "...", "很好"]
    file = tmp_path / name
    if file.suffix == ".txt":
        file.write_text("\n".join(text or "" for text in texts), encoding="utf-8")
    else:
        frame = pl.DataFrame({"text": texts})
        write = {".csv": frame.write_csv, ".jsonl": frame.write_ndjson, ".parquet": frame.write_parquet}
        write[file.suffix](file)
    found = run_cpu(tiny, peers=False, texts=file, rounds=1, latency_texts=2, progress=False)
    assert found.texts == 3
    assert found.mean_characters == pytest.approx((10 + 9 + 2) / 3)


def test_the_command(tiny):
    arguments = ["bench", "cpu", "--model", str(tiny), "--no-peers", "--texts", "20", "--repeat", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "| peer | reviews/s | of the pipeline | p50 ms | p95 ms | peak MB | versions |" in done.stdout
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(done.stdout)["passed"] is True
    assert "workbench bench cpu" in (HERE.parents[1] / "README.md").read_text(encoding="utf-8")


def test_mistakes(tiny, tmp_path):
    with pytest.raises(ModelError, match="engines"):
        run_cpu(tmp_path, peers=False)
    with pytest.raises(ParameterError, match=r"not a file. Give a number of texts or a file: --texts 300"):
        run_cpu(tiny, peers=False, texts=tmp_path / "none.csv")
    (tmp_path / "odd.csv").write_text("comment\ngood\n")
    with pytest.raises(ParameterError, match="no column text; it has comment"):
        run_cpu(tiny, peers=False, texts=tmp_path / "odd.csv")
    (tmp_path / "odd.jsonl").write_text("{")
    with pytest.raises(ParameterError, match="cannot be read"):
        run_cpu(tiny, peers=False, texts=tmp_path / "odd.jsonl")
    (tmp_path / "dots.txt").write_text("...\n!!\n")
    with pytest.raises(ParameterError, match="no texts with letters"):
        run_cpu(tiny, peers=False, texts=tmp_path / "dots.txt")

    with pytest.raises(ParameterError, match=r"cannot be run: .*--torch-python"):
        run_cpu(tiny, torch_python="/nowhere/python", texts=5, rounds=1)
    with pytest.raises(ParameterError, match=r"does not start:[^$]*pip install torch transformers onnx"):
        run_cpu(tiny, torch_python=sys.executable, texts=5, rounds=1, progress=False)
    with pytest.raises(ParameterError, match=r"calibration/ has \d+. Ask for fewer"):
        run_cpu(tiny, peers=False, texts=10**6)


@pytest.mark.slow
@pytest.mark.skipif(not (BUNDLED / "model.onnx").is_file(), reason="no engines/reviews/model.onnx yet")
def test_the_peer_computes_the_same():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    found = run_cpu(BUNDLED, torch_python=sys.executable, texts=20, rounds=1, latency_texts=5, progress=False)
    assert found.largest_difference < 1e-4
    assert found.ratio > 0

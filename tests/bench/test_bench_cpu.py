import dataclasses
import json
import sys
from pathlib import Path

import pytest

from workbench.bench import CpuBench, run_cpu
from workbench.bench.cpu import PeerResult
from workbench.bench.process import Peer, PeerError
from workbench.errors import ParameterError

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
    assert all(0 < peer.p50_ms <= peer.p99_ms for peer in found.peers)
    assert 10 < found.ours.peak_mb < 1000
    assert "no peer was measured" in found.table()
    assert json.loads(found.to_json())["peers"][0]["name"] == "workbench"
    assert "4/4" in capsys.readouterr().err


def test_bars():
    ours = PeerResult("workbench", "", 300.0, (300.0,), 5.0, 9.0, 170.0)
    bench = CpuBench((ours,), 4.2, 1e-6, "reviews", 10, 70.0, 2, "a machine")
    assert bench.passed
    assert "4.2 times the pipeline (bar 4), 170 MB (bar 1000)" in bench.table()
    assert not dataclasses.replace(bench, ratio=3.9).passed
    heavy = dataclasses.replace(ours, peak_mb=1200.0)
    assert not dataclasses.replace(bench, peers=(heavy,)).passed


def test_mistakes(tiny):
    with pytest.raises(ParameterError, match=r"cannot be run: .*--torch-python"):
        run_cpu(tiny, torch_python="/nowhere/python", texts=5, rounds=1)
    with pytest.raises(ParameterError, match=r"The peer .* does not start:[^$]*torch"):
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

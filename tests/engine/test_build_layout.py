"""Which layout is built, what leads to another one, and what a second build does not do again."""

import logging
import sys

import pytest

from tests.engine.small_encoder import POSITIONS, make_small_model
from workbench.engine.build import build, parse_profile
from workbench.engine.build import graph as graph_module
from workbench.engine.build.graph import UnpackableError, convert
from workbench.engine.build.layout import convert_in_layout
from workbench.engine.graphs import agree, packed
from workbench.errors import EngineError, ModelError
from workbench.tasks.spec import load_spec

LAYOUT = "workbench.engine.build.layout"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return load_spec(make_small_model(tmp_path_factory.mktemp("models") / "small"))


@pytest.fixture
def able(monkeypatch):
    """As on a machine whose TensorRT packs texts, and knows the small model's heads."""
    monkeypatch.setattr(f"{LAYOUT}._packed_problem", lambda *_: None)
    monkeypatch.setattr(f"{LAYOUT}._form", lambda *_: "tensorrt-8")
    monkeypatch.setattr(packed, "HEAD_SIZES", (16,))


def convert_small(spec, cache, **how):
    asked = {"layout": "auto", "runtime": "tensorrt", "precision": "fp16", "keep": (), **how}
    return convert_in_layout(spec, cache=cache, **asked)


def test_auto_is_packed_where_it_can_be(spec, able, tmp_path, caplog):
    caplog.set_level(logging.INFO, LAYOUT)
    assert convert_small(spec, tmp_path)[0] == "packed"
    room = [parse_profile(f"1x1:4x{POSITIONS}:8x{8 * POSITIONS}")]
    assert convert_small(spec, tmp_path, profiles=room)[0] == "packed"
    assert not caplog.records
    assert convert_small(spec, tmp_path, layout="padded")[0] == "padded"
    assert not caplog.records


def test_another_layout_than_usual_is_told(spec, able, tmp_path, caplog, monkeypatch):
    tight = [parse_profile("1x1:4x16:8x32"), parse_profile("1x1:2x32:8x64")]
    assert convert_small(spec, tmp_path, profiles=tight)[0] == "padded"
    assert "the profile 1x1:4x16:8x32 has no room for 64 tokens" in caplog.text
    caplog.clear()
    monkeypatch.setattr(packed, "HEAD_SIZES", (64,))
    assert convert_small(spec, tmp_path)[0] == "padded"
    [said] = caplog.records
    assert said.levelno == logging.WARNING
    assert "The graph cannot be packed: the attention operator knows heads of 64" in said.message
    with pytest.raises(UnpackableError, match="cannot be packed"):
        convert_small(spec, tmp_path, layout="packed")


def test_what_was_asked_for_is_no_surprise(spec, able, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(f"{LAYOUT}._packed_problem", lambda *_: "onnxruntime has no attention over packed texts")
    assert convert_small(spec, tmp_path)[0] == "padded"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with pytest.raises(EngineError, match="cannot be built packed: onnxruntime has no attention"):
        convert_small(spec, tmp_path, layout="packed")


def test_a_packed_graph_that_answers_wrongly_is_an_error(spec, able, tmp_path, monkeypatch):
    def compare(padded, _, rows, both=agree.run_both):
        return {name: (old, old + 1) for name, (old, _) in both(padded, _, rows).items()}

    monkeypatch.setattr(agree, "run_both", compare)
    with pytest.raises(ModelError, match="does not answer as the padded one") as caught:
        convert_small(spec, tmp_path)
    assert not isinstance(caught.value, UnpackableError)
    assert not list(tmp_path.iterdir())


def test_what_agreed_is_not_compared_again(spec, able, tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(agree, "run_both", lambda *args, both=agree.run_both: compared.append(1) or both(*args))
    for _ in range(2):
        convert(spec, precision="fp16", form="", layout="packed", cache=tmp_path)
    assert compared == [1]
    assert len(list(tmp_path.glob("agrees-*"))) == 1
    other = load_spec(make_small_model(tmp_path / "other", seed=5))
    convert(other, precision="fp16", form="", layout="packed", cache=tmp_path)
    monkeypatch.setattr(graph_module, "_CONVERTER", graph_module._CONVERTER + 1)
    convert(spec, precision="fp16", form="", layout="packed", cache=tmp_path)
    assert compared == [1, 1, 1]


def test_without_onnxruntime_nothing_is_said_to_agree(spec, able, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_module, "runtime_version", lambda _: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    convert(spec, precision="fp16", form="", layout="packed", cache=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
def test_a_missing_onnx_is_told_first(spec, runtime, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EngineError, match=r"needs onnx, which is not installed.*pip install"):
        build(spec.folder, precision="fp16", runtime=runtime, progress=False)

"""Exported checkpoints of every family as FP16 and INT8 graphs."""

import numpy as np
import onnx
import onnxruntime
import pytest

from workbench.engine.graphs import check_graph, layer_groups, packed, quantized_inputs, to_fp16, to_int8
from workbench.engine.graphs.agree import run_both
from workbench.engine.graphs.check import check_packed
from workbench.engine.graphs.weak import loosen

pytestmark = pytest.mark.export
export_world = pytest.importorskip("tests.engine.export_world", reason="the extra export is not installed")

from workbench.engine.export import export_checkpoint  # noqa: E402 - after the check that torch is there


class _Ranges:
    def __init__(self, amax):
        self.amax = amax


def _run(model, tensors, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(tensors, feeds)


@pytest.mark.parametrize("family", export_world.FAMILIES)
def test_every_family_is_converted(family, tmp_path):
    checkpoint = export_world.make_checkpoint(tmp_path / "checkpoint", family, export_world.STARS)
    folder = export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    model = onnx.load(folder / "model.onnx")
    check_graph(model, "fp32")
    names = [group.name for group in layer_groups(model)]
    assert len(names) == (15 if family == "minilm" else 10)
    assert names[:5] == ["layer0.qkv", "layer0.attention", "layer0.output", "layer0.ffn1", "layer0.ffn2"]
    assert [len(group.nodes) for group in layer_groups(model)][:5] == [3, 2, 1, 1, 1]

    random = np.random.default_rng(1)
    feeds = {
        "input_ids": random.integers(5, 80, (3, 9)).astype(np.int32),
        "attention_bias": np.zeros((3, 1, 1, 9), np.float32),
    }
    feeds["attention_bias"][1, :, :, 5:] = -1e4
    (reference,) = _run(model, ["sentiment"], feeds)
    spread = float(np.abs(reference).max())

    half = to_fp16(model)
    check_graph(half, "fp16")
    assert np.abs(_run(half, ["sentiment"], feeds)[0] - reference).max() < 0.02 * spread

    tensors = sorted({item.tensor for item in quantized_inputs(model)})
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    seen.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in tensors)
    amax = {name: float(np.abs(value).max()) for name, value in zip(tensors, _run(seen, tensors, feeds), strict=True)}
    for form in ("ort", "tensorrt-8", "tensorrt-10"):
        whole = to_int8(model, _Ranges(amax), form=form)
        check_graph(whole, "int8")
        assert np.abs(_run(whole, ["sentiment"], feeds)[0] - reference).max() < 0.15 * spread


@pytest.mark.parametrize("tokens", [False, True], ids=["classes", "tags"])
@pytest.mark.parametrize("family", export_world.FAMILIES)
def test_every_family_is_packed(family, tokens, tmp_path, monkeypatch):
    labels = export_world.TAGS if tokens else export_world.STARS
    checkpoint = export_world.make_checkpoint(tmp_path / "checkpoint", family, labels, tokens=tokens)
    task = "entities" if tokens else "sentiment"
    model = onnx.load(export_checkpoint(checkpoint, tmp_path / "model", task=task) / "model.onnx")
    # These have heads of 8 and 16, the operator 32 and 64; what is computed is the same.
    monkeypatch.setattr(packed, "HEAD_SIZES", (8, 16))
    random = np.random.default_rng(4)
    rows = [random.integers(5, 80, length).astype(np.int32) for length in (1, 9, 30, 2, 17)]
    exact = packed.to_packed(model, precision="fp32", max_tokens=64, form=packed.PackedForm(gelu="own"))
    check_packed(exact, "fp32")
    half = packed.to_packed(model, max_tokens=64)
    check_packed(half, "fp16")
    onnx.checker.check_model(loosen(half).model, full_check=True)
    for graph, most in ((exact, 2e-3), (half, 0.05)):
        before, after = run_both(model, graph, rows)[task]
        assert np.abs(before - after).max() < most * before.std()

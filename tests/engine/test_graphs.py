"""Graphs of each precision: what is converted, what is not, and what the checks find."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.engine.small_encoder import LAYERS, make_encoder
from tests.runtime.tiny_model import make_network
from workbench.engine.graphs import FORMS, check_graph, layer_groups, quantized_inputs, to_fp16, to_int8
from workbench.engine.graphs.graph import Graph, float_tensors
from workbench.errors import ModelError

VOCABULARY = 120
OUTPUTS = ["sentiment", "topics", "entities"]


@dataclasses.dataclass(frozen=True)
class Amax:
    amax: dict[str, float]


def run(model, tensors=OUTPUTS):
    """Values for a batch with padding; of padding itself nothing is given."""
    random = np.random.default_rng(3)
    ids = random.integers(5, VOCABULARY, (4, 11)).astype(np.int32)
    bias = np.zeros((4, 1, 1, 11), np.float32)
    bias[2, :, :, 6:] = -1e4
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = session.run(list(tensors), {"input_ids": ids, "attention_bias": bias})
    return [np.where(bias[:, 0, 0, :, None] == 0, v, 0) if v.shape[:2] == (4, 11) else v for v in values]


def rms(values, references):
    """The largest relative difference of the outputs, root mean square."""
    return max(
        float(np.sqrt(np.mean((value - ref) ** 2) / np.var(ref)))
        for value, ref in zip(values, references, strict=True)
    )


@pytest.fixture(scope="module")
def model():
    return make_encoder(VOCABULARY)


@pytest.fixture(scope="module")
def amax(model):
    tensors = sorted({item.tensor for item in quantized_inputs(model)})
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    seen.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    return Amax({name: float(np.abs(v).max()) for name, v in zip(tensors, run(seen, tensors), strict=True)})


def nodes_of(model):
    return {node.name: node for node in model.graph.node}


def changed(model, change):
    """A copy of ``model`` after ``change``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy)
    return copy


def test_groups_are_found_by_form(model):
    groups = layer_groups(model)
    parts = ["qkv", "attention", "output", "ffn1", "ffn2"]
    assert [group.name for group in groups] == [f"layer{i}.{part}" for i in range(LAYERS) for part in parts]
    assert groups[5].nodes == tuple(f"/layers.1.{name}.out/Gemm" for name in ("query", "key", "value"))
    assert groups[6].nodes == ("/layers.1.scores/MatMul", "/layers.1.mixed/MatMul")
    assert groups[9].nodes == ("/layers.1.contract.out/Gemm",)


def test_groups_are_found_whatever_the_nodes_are_called(model):
    def rename(copy):
        for index, node in enumerate(copy.graph.node):
            node.name = f"n{index}"

    assert len(layer_groups(changed(model, rename))) == 5 * LAYERS
    assert len(layer_groups(changed(model, lambda copy: [node.ClearField("name") for node in copy.graph.node]))) == 10


def test_a_network_without_layers_says_so(model):
    class_only = helper.make_model(
        helper.make_graph(
            [helper.make_node("Softmax", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    with pytest.raises(ModelError, match="no transformer layers"):
        layer_groups(class_only)
    with pytest.raises(ModelError, match=r"unlike a BERT.*fp32 or fp16"):
        layer_groups(make_network(VOCABULARY))


def test_a_graph_goes_through_unchanged(model):
    again = Graph(model).to_model()
    for value, reference in zip(run(again), run(model), strict=True):
        np.testing.assert_array_equal(value, reference)
    assert again.ByteSize() <= model.ByteSize()  # what the file stores as FP16 is still stored so


def test_fp16_computes_in_fp16_but_for_norms_softmax_and_heads(model):
    half = to_fp16(model)
    check_graph(half, "fp16")
    types = float_tensors(half)
    products = {node.name: types[node.output[0]] for node in half.graph.node if node.op_type in ("MatMul", "Gemm")}
    heads = {"/summed/MatMul", "/pool.out/Gemm", "/sentiment/Gemm", "/topics/Gemm", "/tags/MatMul"}
    assert {name for name, kind in products.items() if kind == TensorProto.FLOAT} == heads
    for node in half.graph.node:
        if node.op_type in ("LayerNormalization", "Softmax"):
            assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT}
    assert 0 < rms(run(half), run(model)) < 0.005


def test_fp16_stands_what_would_overflow(model):
    """Hidden states of 400 have squares beyond FP16, and so has their sum in a layer norm."""

    def enlarge(copy):
        for item in copy.graph.initializer:
            if item.name in ("norm.weight", "layers.0.attention_norm.weight"):
                item.CopyFrom(numpy_helper.from_array(400 * numpy_helper.to_array(item), item.name))

    large = changed(model, enlarge)
    assert (
        max(np.abs(run(changed(large, _show("layers.0.attention_add")), ["layers.0.attention_add"])[0]).max(), 0)
        > 256
    )
    values = run(to_fp16(large))
    assert all(np.isfinite(value).all() for value in values)
    assert rms(values, run(large)) < 0.02


def _show(tensor):
    return lambda copy: copy.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))


def test_a_weight_beyond_fp16_is_named(model):
    def enlarge(copy):
        bias = next(item for item in copy.graph.initializer if item.name == "layers.1.expand.bias")
        bias.CopyFrom(numpy_helper.from_array(1e6 * numpy_helper.to_array(bias), bias.name))

    with pytest.raises(ModelError, match=r"layers\.1\.expand\.bias is beyond FP16's range"):
        to_fp16(changed(model, enlarge))


@pytest.mark.parametrize("form", FORMS)
def test_int8_reads_as_fp32_does(form, model, amax):
    whole = to_int8(model, amax, form=form)
    check_graph(whole, "int8")
    assert 0.001 < rms(run(whole), run(model)) < 0.12


def test_all_forms_compute_the_same(model, amax):
    # TensorRT 8.6 compiles quantized attention products wrongly: its form has none.
    attention = [group.name for group in layer_groups(model) if group.name.endswith(".attention")]
    values = {form: run(to_int8(model, amax, form=form, keep=attention)) for form in FORMS}
    assert rms(values["ort"], values["tensorrt-8"]) < 0.03
    # FP16 between the products: a value in the middle between two levels may go either way.
    assert rms(values["tensorrt-10"], values["tensorrt-8"]) < 0.1


def test_forms_are_what_their_builders_read(model, amax):
    eight, ten, ort = (to_int8(model, amax, form=form) for form in ("tensorrt-8", "tensorrt-10", "ort"))
    assert [m.opset_import[0].version for m in (eight, ten, ort)] == [17, 19, 17]
    kinds = [
        {
            item.data_type
            for item in m.graph.initializer
            if item.name.endswith("_scale") or item.name.endswith("_half")
        }
        for m in (eight, ten)
    ]
    assert kinds[0] == {TensorProto.FLOAT}
    assert kinds[1] == {TensorProto.FLOAT16}
    # TensorRT 8.6 wants weights in FP32 with both halves of a pair; the others INT8 with the second half.
    weights = {
        name: {item.name: item.data_type for item in m.graph.initializer}
        for name, m in (("eight", eight), ("ten", ten), ("ort", ort))
    }
    assert weights["eight"]["layers.0.expand.weight"] == TensorProto.FLOAT
    assert weights["ten"]["layers.0.expand.weight_int8"] == TensorProto.INT8
    assert weights["ort"]["layers.0.expand.weight_int8"] == TensorProto.INT8
    types = float_tensors(ten)
    for node in ten.graph.node:
        if node.op_type == "DequantizeLinear":
            assert types[node.output[0]] == TensorProto.FLOAT16


def test_onnxruntime_computes_all_linears_in_int8(model, amax, tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(to_int8(model, amax).SerializeToString(), options)
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    products = sum(kinds.count(kind) for kind in ("QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulInteger"))
    assert products == sum(len(group.nodes) for group in layer_groups(model))
    assert "BiasGelu" not in kinds  # takes twice as long as Gelu


def test_biases_are_steps_of_the_products(model, amax):
    whole = to_int8(model, amax)
    values = {item.name: numpy_helper.to_array(item) for item in whole.graph.initializer}
    steps = {name: value for name, value in values.items() if value.dtype == np.int32 and name.endswith("_int32")}
    assert len(steps) == 6 * LAYERS
    expand = nodes_of(whole)["/layers.0.expand.out/Gemm"]
    scale, bias = values[f"{expand.name}_bias_scale"], values[f"{expand.name}_bias_int32"]
    (wanted,) = [item for item in model.graph.initializer if item.name == "layers.0.expand.bias"]
    np.testing.assert_allclose(bias * scale, numpy_helper.to_array(wanted), atol=scale.max() / 2)


def test_a_bias_beyond_int32_is_added_in_fp32(model, amax):
    def enlarge(copy):
        bias = next(item for item in copy.graph.initializer if item.name == "layers.0.contract.bias")
        bias.CopyFrom(numpy_helper.from_array(1e9 + numpy_helper.to_array(bias), bias.name))

    large = changed(model, enlarge)
    whole = to_int8(large, amax)
    check_graph(whole, "int8")
    (add,) = [node for node in whole.graph.node if "layers.0.contract.bias" in node.input]
    assert add.op_type == "Add"


def test_what_is_kept_back_is_not_quantized(model, amax):
    mixed = to_int8(model, amax, keep=["layer0.attention", "layer1.ffn2"])
    check_graph(mixed, "mixed")
    made = {name: node.op_type for node in mixed.graph.node for name in node.output}
    nodes = nodes_of(mixed)
    for name in ("/layers.0.scores/MatMul", "/layers.0.mixed/MatMul", "/layers.1.contract.out/Gemm"):
        assert "DequantizeLinear" not in {made.get(tensor) for tensor in nodes[name].input}
    assert made[nodes["/layers.1.scores/MatMul"].input[0]] == "DequantizeLinear"
    with pytest.raises(ModelError, match="not what it is called"):
        check_graph(mixed, "int8")
    everything = [group.name for group in layer_groups(model)]
    for value, reference in zip(run(to_int8(model, amax, keep=everything)), run(model), strict=True):
        np.testing.assert_array_equal(value, reference)


def test_attention_stays_as_it_is_for_tensorrt_8(model, amax):
    graph = to_int8(model, amax, form="tensorrt-8").graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type == "MatMul" and "layers." in node.name]
    kinds = {node.name: {made.get(name) for name in node.input} for node in products}
    attention = {name for name in kinds if "scores" in name or "context" in name or "mixed" in name}
    assert attention
    assert all("DequantizeLinear" not in kinds[name] for name in attention)
    assert all(kinds[name] == {"DequantizeLinear"} for name in kinds if name not in attention)


def test_softmax_shares_keep_their_whole_range(model, amax):
    whole = to_int8(model, Amax({**amax.amax, "layers.0.shares": 0.01}), form="ort")
    scale = {item.name: numpy_helper.to_array(item) for item in whole.graph.initializer}["layers.0.shares_scale"]
    assert 1 / 127 <= scale < 1.001 / 127


def test_weights_have_a_scale_for_each_channel(model, amax):
    whole = to_int8(model, amax, form="tensorrt-10")
    values = {item.name: numpy_helper.to_array(item) for item in whole.graph.initializer}
    names = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    weight = names["layers.1.expand.weight_fp16"].astype(np.float32)
    whole_weight = values["layers.1.expand.weight_int8"]
    scale = values["layers.1.expand.weight_scale_half"].astype(np.float32)
    assert scale.shape == (weight.shape[1],)
    assert np.abs(whole_weight * scale - weight).max() <= scale.max() / 2 * 1.01
    assert (np.abs(whole_weight).max(axis=0) >= 126).all()


def test_ranges_of_another_model_are_refused(model, amax):
    with pytest.raises(ModelError, match="collected on another graph"):
        to_int8(model, Amax({"something": 1.0}))
    with pytest.raises(ModelError, match=r"no group 'layer9\.qkv'"):
        to_int8(model, amax, keep=["layer9.qkv"])
    with pytest.raises(ModelError, match="No INT8 form"):
        to_int8(model, amax, form="tensorrt-7")


def test_checks_tell_precisions_apart(model, amax):
    graphs = {"fp32": model, "fp16": to_fp16(model), "int8": to_int8(model, amax)}
    for name, graph in graphs.items():
        check_graph(graph, name)
        for other in set(graphs) - {name}:
            with pytest.raises(ModelError, match="not what it is called"):
                check_graph(graph, other)
    with pytest.raises(ModelError, match="No precision"):
        check_graph(model, "fp8")


def _set_zero(copy):
    zero = next(item for item in copy.graph.initializer if item.name == "layers.0.joined_zero")
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), zero.name))


def _set_scale(copy):
    scale = next(item for item in copy.graph.initializer if item.name == "layers.0.joined_scale")
    scale.CopyFrom(numpy_helper.from_array(np.array(0, np.float32), scale.name))


def _quantize_norm(copy):
    norm = next(node for node in copy.graph.node if node.name == "/layers.1.attention_norm.out/LayerNormalization")
    norm.input[0] = "layers.0.joined_dequantized"


def _leave_cast(copy):
    copy.graph.node.append(helper.make_node("Cast", ["layers.0.scores"], ["spare"], "spare", to=TensorProto.FLOAT16))


def _cast_twice(copy):
    copy.graph.node.append(helper.make_node("Cast", ["layers.0.scores"], ["a"], "first", to=TensorProto.FLOAT16))
    copy.graph.node.append(helper.make_node("Cast", ["a"], ["b"], "second", to=TensorProto.FLOAT))


def _long_ids(copy):
    copy.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set_zero, "not symmetric"),
        (_set_scale, "scale is not a constant above 0"),
        (_quantize_norm, r"LayerNormalization\) takes a quantized tensor"),
        (_leave_cast, "spare casts for nobody"),
        (_cast_twice, "second casts what first has cast"),
        (_long_ids, "input_ids is INT64, not INT32"),
    ],
)
def test_checks_find_what_is_wrong(change, message, model, amax):
    with pytest.raises(ModelError, match=message):
        check_graph(changed(to_int8(model, amax, form="tensorrt-8"), change), "int8")


def test_a_broken_graph_is_named(model):
    def cut(copy):
        del copy.graph.node[20]

    with pytest.raises(ModelError, match="not valid ONNX"):
        check_graph(changed(model, cut), "fp32")
    with pytest.raises(ModelError, match="cannot be put in order"):
        Graph(changed(model, cut)).to_model()

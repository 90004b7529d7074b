"""Packed graphs answer as the padded ones they were made from; what cannot be packed says why."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tests.engine import small_encoder
from workbench.engine.build import make_packed_profiles, parse_profile
from workbench.engine.build.graph import convert
from workbench.engine.build.profiles import check_profile
from workbench.engine.graphs.agree import check_agreement, packed_inputs, run_both
from workbench.engine.graphs.check import check_packed
from workbench.engine.graphs.encoder import erf_gelu, read_encoder, tanh_gelu
from workbench.engine.graphs.packed import PackedForm, packed_tensors, to_packed
from workbench.engine.graphs.plugins import ATTENTION, DOMAIN, SKIP_NORM, expand_plugins, plugins_of
from workbench.engine.graphs.weak import loosen
from workbench.errors import EngineError, ModelError
from workbench.settings import settings as project
from workbench.tasks.spec import load_spec

VOCABULARY = 120
WIDTH, HEADS, LAYERS = 64, 2, small_encoder.LAYERS  # heads of 32, which the attention operator knows
FORMS = {
    "plugins": PackedForm(),
    "own GELU": PackedForm(gelu="own"),
    "standard norm": PackedForm(norm="standard", gelu="own", mean="product"),
    "products": PackedForm(linear="product", gelu="own"),
    "plain": PackedForm(linear="product", norm="standard", gelu="own", mean="product"),
}


def make_encoder(*, seed=20261122):
    """The small encoder, wider and for longer texts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WIDTH": WIDTH, "HEADS": HEADS, "INNER": 128, "POSITIONS": 512}.items():
            patch.setattr(small_encoder, name, value)
        return small_encoder.make_encoder(VOCABULARY, seed=seed)


@pytest.fixture(scope="module")
def model():
    return make_encoder()


def rows_of(lengths, *, seed=3, vocabulary=VOCABULARY):
    random = np.random.default_rng(seed)
    return [random.integers(5, vocabulary, length, np.int32) for length in lengths]


def worst(answers):
    """The largest difference, as a share of the padded logits' spread."""
    return max(float(np.abs(one - other).max() / one.std()) for one, other in answers.values())


def error(answers):
    """The root of the mean squared difference, as a share of the padded logits' spread."""
    return max(float(np.sqrt(np.square(one - other).mean()) / one.std()) for one, other in answers.values())


def changed(model, change):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy)
    return copy


def attributes(node):
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_answers_as_the_padded_graph(model, form):
    rows = rows_of([1, 7, 33, 2, 50])
    exact = to_packed(model, precision="fp32", form=form)
    check_packed(exact, "fp32")
    assert worst(run_both(model, exact, rows)) < (5e-3 if form.gelu == "tanh" else 1e-3)
    half = to_packed(model, form=form)
    check_packed(half, "fp16")
    assert worst(run_both(model, half, rows)) < 0.02


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=9), seed=st.integers(0, 1000))
def test_any_lengths_in_any_order(model, lengths, seed):
    packed = to_packed(model, precision="fp32", form=PackedForm(gelu="own"))
    assert worst(run_both(model, packed, rows_of(lengths, seed=seed))) < 2e-3


class CustomQKVToContextPluginDynamic(OpRun):
    """The attention operator text by text, as its documentation says."""

    op_domain = DOMAIN

    def _run(
        self,
        qkv,
        mask,
        cu_seqlens,
        longest,
        type_id,
        hidden_size,
        num_heads,
        has_mask,
        var_seqlen,
        plugin_version,
        plugin_namespace,
    ):
        assert (has_mask, var_seqlen, plugin_version, plugin_namespace) == (1, 1, "2", "")
        assert qkv.dtype == (np.float16 if type_id == 1 else np.float32)
        assert qkv.shape[1:] == (3 * hidden_size, 1, 1)
        assert len(longest) == np.diff(cu_seqlens).max()
        parts = qkv.astype(np.float64).reshape(len(qkv), num_heads, 3, hidden_size // num_heads)
        out = np.empty((len(qkv), hidden_size, 1, 1))
        for start, end in itertools.pairwise(cu_seqlens):
            q, k, v = parts[start:end].transpose(2, 1, 0, 3)
            scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(hidden_size // num_heads))
            context = (scores / scores.sum(-1, keepdims=True)) @ v
            out[start:end] = context.transpose(1, 0, 2).reshape(end - start, hidden_size, 1, 1)
        return (out.astype(qkv.dtype),)


class CustomSkipLayerNormPluginDynamic(OpRun):
    """Layer norm of a sum."""

    op_domain = DOMAIN

    def _run(self, x, skip, type_id, beta, gamma, plugin_version, plugin_namespace):
        assert (plugin_version, plugin_namespace) == ("2", "")
        assert x.shape == skip.shape
        wide = (x.astype(np.float64) + skip).reshape(len(x), -1)
        spread = np.sqrt(wide.var(axis=1, keepdims=True) + 1e-6)
        normed = (wide - wide.mean(axis=1, keepdims=True)) / spread * np.array(gamma) + np.array(beta)
        return (normed.reshape(x.shape).astype(x.dtype),)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_expanded_plugins_compute_what_the_operators_do(model, precision):
    rows = rows_of([3, 1, 12])
    packed = to_packed(model, precision=precision)
    names = [item.name for item in packed.graph.output]
    evaluator = ReferenceEvaluator(
        packed, new_ops=[CustomQKVToContextPluginDynamic, CustomSkipLayerNormPluginDynamic]
    )
    feeds = packed_inputs(rows)
    direct = evaluator.run(names, {item.name: feeds[item.name] for item in packed.graph.input})
    for name, (_, expanded) in run_both(model, packed, rows).items():
        assert np.allclose(direct[names.index(name)], expanded, atol=2e-4 if precision == "fp32" else 5e-2), name


def test_its_operators_and_ends(model):
    packed = to_packed(model)
    attention = [attributes(node) for node in packed.graph.node if node.op_type == ATTENTION]
    assert len(attention) == LAYERS + 1  # one more takes the mean of a text's tokens
    assert attention[0] == {
        "plugin_version": b"2",
        "plugin_namespace": b"",
        "type_id": 1,
        "hidden_size": WIDTH,
        "num_heads": HEADS,
        "has_mask": 1,
        "var_seqlen": 1,
    }
    assert sum(node.op_type == SKIP_NORM for node in packed.graph.node) == 2 * LAYERS + 1
    assert plugins_of(packed) == ((ATTENTION, "2"), (SKIP_NORM, "2"))
    inputs = {item.name: item.type.tensor_type for item in packed.graph.input}
    assert list(inputs) == ["input_ids", "position_ids", "cu_seqlens", "longest"]
    assert {kind.elem_type for kind in inputs.values()} == {TensorProto.INT32}
    outputs = {
        item.name: [d.dim_param or d.dim_value for d in item.type.tensor_type.shape.dim]
        for item in packed.graph.output
    }
    assert outputs == {"sentiment": ["texts", 3], "topics": ["texts", 8], "entities": ["tokens", 9]}
    assert {item.type.tensor_type.elem_type for item in packed.graph.output} == {TensorProto.FLOAT}
    product = to_packed(model, form=PackedForm(mean="product"))
    assert [item.name for item in product.graph.input][-1] == "segment_ids"
    assert plugins_of(expand_plugins(packed)) == ()


def without(model, *names):
    """``model`` without some outputs."""

    def change(copy):
        kept = [item for item in copy.graph.output if item.name not in names]
        del copy.graph.output[:]
        copy.graph.output.extend(kept)

    return changed(model, change)


def first_token_only(model):
    """``model`` with its classifiers on the first token alone, and no tags."""

    def change(copy):
        for node in copy.graph.node:
            if node.output[0] == "both":
                node.input[1] = node.input[0]

    return without(changed(model, change), "entities")


def test_the_last_layer_is_computed_for_what_is_read(model):
    small = first_token_only(model)
    packed = to_packed(small, precision="fp32", form=PackedForm(gelu="own"))
    producers = {node.output[0]: node for node in packed.graph.node}
    last = producers[f"layer{LAYERS - 1}.output"]
    assert producers[last.input[0]].op_type == "Gather"
    assert producers["layer0.output"].input[0] == "layer0.context"
    rows = rows_of([5, 1, 30, 8])
    assert worst(run_both(small, packed, rows)) < 1e-3
    whole = to_packed(model, precision="fp32")
    assert all(node.output[0] != f"layer{LAYERS - 1}.context.first" for node in whole.graph.node)


def test_scales_become_the_operators_own(model):
    plain = read_encoder(model)
    assert plain.blocks[0].query_factor == pytest.approx(math.sqrt(WIDTH // HEADS))

    def divide(copy):
        for node in list(copy.graph.node):
            if node.output[0].endswith(".scores"):
                node.output[0] = f"{node.output[0]}.undivided"
                root = numpy_helper.from_array(np.array(math.sqrt(WIDTH // HEADS), np.float32), f"{node.name}.root")
                copy.graph.initializer.append(root)
                made = helper.make_node(
                    "Div", [node.output[0], root.name], [node.output[0].removesuffix(".undivided")]
                )
                copy.graph.node.insert(list(copy.graph.node).index(node) + 1, made)

    divided = changed(model, divide)
    read = read_encoder(divided)
    assert read.blocks[0].query_factor == 1
    assert np.array_equal(
        read.blocks[0].query.weight * np.float32(plain.blocks[0].query_factor), plain.blocks[0].query.weight
    )
    packed = to_packed(divided, precision="fp32", form=PackedForm(gelu="own"))
    assert worst(run_both(divided, packed, rows_of([4, 19]))) < 1e-3


def test_positions_that_start_elsewhere_are_found(model):
    def shift(copy):
        for item in copy.graph.initializer:
            if item.name == "start":
                item.CopyFrom(numpy_helper.from_array(np.array([2], np.int64), "start"))
        for node in copy.graph.node:
            if node.output[0] == "places":
                extended = helper.make_node("Add", ["length", "two"], ["end"])
                node.input[2] = "end"
                node.input[3] = "axis_zero"
                copy.graph.node.insert(list(copy.graph.node).index(node), extended)
                break
        copy.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "axis_zero"))

    shifted = changed(model, shift)
    assert np.array_equal(read_encoder(shifted).positions, read_encoder(model).positions[2:])
    packed = to_packed(shifted, precision="fp32", max_tokens=64, form=PackedForm(gelu="own"))
    assert worst(run_both(shifted, packed, rows_of([4, 19]))) < 1e-3


def test_gelus():
    x = np.linspace(-8, 8, 2001)
    assert np.abs(erf_gelu(x) - tanh_gelu(x)).max() < 5e-4


def replaced(model, name, value):
    def change(copy):
        for item in copy.graph.initializer:
            if item.name == name:
                item.CopyFrom(numpy_helper.from_array(value, name))

    return changed(model, change)


def renamed(model, output, kind):
    def change(copy):
        for node in copy.graph.node:
            if node.output[0] == output:
                node.op_type = kind

    return changed(model, change)


def test_what_cannot_be_packed_says_why(model):
    with pytest.raises(ModelError, match=r"an activation that is neither GELU nor ReLU.*--layout padded"):
        to_packed(replaced(model, "half_float", np.array(0.7, np.float32)))
    with pytest.raises(ModelError, match="at most 512 tokens a text, not 1024"):
        to_packed(model, max_tokens=1024)
    with pytest.raises(ModelError, match="table of positions has 64 rows for 512 tokens"):
        to_packed(read_positions(model, 64))
    with pytest.raises(ModelError, match="stands ReduceMax over a text's tokens"):
        to_packed(pooled_by_maximum(model))
    odd = replaced(model, "head_sizes", np.array([WIDTH // 16, 16], np.int64))
    with pytest.raises(ModelError, match="knows heads of 32 or 64, not of 16"):
        to_packed(odd)
    with pytest.raises(ModelError, match="beyond FP16's range"):
        to_packed(
            replaced(
                model,
                "norm.weight",
                np.full(WIDTH, 1.0, np.float32),
            )
            if False
            else huge(model)
        )


def read_positions(model, rows):
    def change(copy):
        for item in copy.graph.initializer:
            if item.name == "positions_fp16":
                item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item)[:rows], item.name))

    return changed(model, change)


def huge(model):
    bias = next(item for item in model.graph.initializer if item.name.endswith("expand.bias"))
    return replaced(model, bias.name, np.full_like(numpy_helper.to_array(bias), 1e5))


def pooled_by_maximum(model):
    def change(copy):
        for node in copy.graph.node:
            if node.output[0] == "first":
                node.op_type = "ReduceMax"
                del node.input[1:], node.attribute[:]
                node.attribute.extend([helper.make_attribute("axes", [1]), helper.make_attribute("keepdims", 0)])

    return changed(model, change)


def test_a_graph_that_answers_otherwise_is_not_built(model, monkeypatch):
    check_agreement(model, form=PackedForm(), vocabulary=VOCABULARY)
    from workbench.engine.graphs import agree

    other = make_encoder(seed=1)
    monkeypatch.setattr(agree, "to_packed", lambda _, **how: to_packed(other, **how))
    with pytest.raises(ModelError, match="does not answer as the padded one"):
        check_agreement(model, form=PackedForm(), vocabulary=VOCABULARY)


def test_check_packed_finds_other_types(model):
    with pytest.raises(ModelError, match=r"layer0\.qkv computes in FLOAT16"):
        check_packed(to_packed(model), "fp32")
    with pytest.raises(ModelError, match="it has no attention operator"):
        check_packed(make_encoder(), "fp16")


def test_the_bundled_network_is_packed(tmp_path):
    spec = load_spec(project().home / "engines" / "reviews")
    graph = convert(spec, precision="fp16", form="", layout="packed", cache=tmp_path)
    packed = onnx.load_from_string(graph.data)
    rows = rows_of([9, 64, 1, 27], vocabulary=16000)
    assert worst(run_both(onnx.load(str(spec.onnx)), packed, rows)) < 0.02
    with pytest.raises(EngineError, match="compute in FP16 or INT8, not in fp32"):
        convert(spec, precision="fp32", form="", layout="packed", cache=tmp_path)


@dataclass(frozen=True)
class Amax:
    amax: dict[str, float]


@pytest.fixture(scope="module")
def wide():
    """A narrow network cannot be packed in INT8: two layers of BERT-base's width."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WIDTH": 768, "HEADS": 12, "INNER": 128, "POSITIONS": 512}.items():
            patch.setattr(small_encoder, name, value)
        return small_encoder.make_encoder(VOCABULARY)


def ranges_of(model, rows):
    """The largest values that the padded FP32 graph has on these texts."""
    names = packed_tensors(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict.fromkeys(names, 0.0)
    for row in rows:
        feeds = {"input_ids": row[None], "attention_bias": np.zeros((1, 1, 1, len(row)), np.float32)}
        for name, value in zip(names, session.run(list(names), feeds), strict=True):
            found[name] = max(found[name], float(np.abs(value).max()))
    return Amax(found)


@pytest.mark.parametrize("alone", [False, True], ids=["tokens and means", "first tokens alone"])
def test_int8(wide, alone):
    model = first_token_only(wide) if alone else wide
    rows = rows_of([1, 7, 33, 2, 50])
    packed = to_packed(model, precision="int8", ranges=ranges_of(model, rows))
    check_packed(packed, "int8")
    assert 0 < error(run_both(model, packed, rows)) < 0.15
    kinds = {node.name: attributes(node)["type_id"] for node in packed.graph.node if node.domain == DOMAIN}
    assert kinds["embedded"] == 1
    assert [kinds[f"layer{index}.context"] for index in range(LAYERS)] == [2, 2]
    # What is computed for first tokens alone stays in FP16.
    assert kinds[f"layer{LAYERS - 1}.mid"] == (1 if alone else 2)
    steps = {attributes(node)["dq_probs"] for node in packed.graph.node if "dq_probs" in attributes(node)}
    assert list(steps) == [pytest.approx(1 / 127)]
    with pytest.raises(ModelError, match=r"embedded\.int8 quantizes"):
        check_packed(packed, "fp16")
    with pytest.raises(ModelError, match=r"layer0\.context is not in INT8"):
        check_packed(to_packed(model), "int8")


def test_int8_says_what_it_needs(model, wide):
    with pytest.raises(ModelError, match="widths of 768 or 1024 with heads of 64, not 64 with heads of 32"):
        to_packed(model, precision="int8", ranges=Amax({}))
    with pytest.raises(ModelError, match=r"The ranges say nothing of .*Collect them again"):
        to_packed(wide, precision="int8", ranges=Amax({}))
    with pytest.raises(ModelError, match="Packed INT8 is convolutions"):
        to_packed(wide, precision="int8", form=PackedForm(norm="standard"), ranges=Amax({}))


def test_loosened_graphs_compute_the_same(wide):
    rows = rows_of([3, 1, 12])
    ranges = ranges_of(wide, rows)
    exact = to_packed(wide, precision="fp32")
    for precision in ("fp16", "int8"):
        packed = to_packed(wide, precision=precision, ranges=ranges)
        weak = loosen(packed)
        onnx.checker.check_model(weak.model, full_check=True)
        kinds = {node.op_type for node in weak.model.graph.node}
        assert kinds.isdisjoint({"Cast", "QuantizeLinear", "DequantizeLinear"})
        assert TensorProto.FLOAT16 not in {item.data_type for item in weak.model.graph.initializer}
        assert {"layer0.act", "layer1.act.tanh", "sentiment"} <= weak.wide <= weak.named
        assert "layer0.up" not in weak.wide
        # The plugins' own types remain; only for the expansion on a CPU they are FP32 too.
        for node in weak.model.graph.node:
            for item in list(node.attribute):
                if item.name == "type_id":
                    item.i = 0
                if item.name == "dq_probs":
                    node.attribute.remove(item)
        exact_names = {item.name for item in exact.graph.output}
        assert exact_names == {item.name for item in weak.model.graph.output}
        # Matrices of FP16's or INT8's precision, everything else exact.
        assert error(run_both(wide, weak.model, rows)) < (0.01 if precision == "fp16" else 0.1)
    assert weak.half == {"mean.qkv"}
    assert set(weak.ranges) >= {"embedded", "layer0.qkv", "layer0.context", "layer0.act", "layer0.out", "layer1.mid"}
    assert "layer1.out" not in weak.ranges  # heads read it
    read = read_encoder(wide).blocks[0]
    assert weak.ranges["layer0.mid"] == pytest.approx(ranges.amax[read.tensors["mid"]], rel=2e-3)


def test_query_key_and_value_have_one_range(wide):
    rows = rows_of([9, 30])
    ranges = ranges_of(wide, rows)
    weak = loosen(to_packed(wide, precision="int8", ranges=ranges))
    made = onnx.ModelProto()
    made.CopyFrom(weak.model)
    for node in made.graph.node:
        for item in list(node.attribute):
            if item.name == "type_id":
                item.i = 0
            if item.name == "dq_probs":
                node.attribute.remove(item)
    made = expand_plugins(made)
    for name in ("layer0.qkv", "layer0.context"):
        made.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = packed_inputs(rows)
    wanted = {item.name for item in session.get_inputs()}
    qkv, context = session.run(
        ["layer0.qkv", "layer0.context"], {name: value for name, value in feeds.items() if name in wanted}
    )
    # Found by reading it where it was made, not where it was calibrated.
    sides = np.abs(qkv.reshape(len(qkv), 12, 3, 64)).max(axis=(0, 1, 3))
    assert sides == pytest.approx([weak.ranges["layer0.qkv"]] * 3, rel=0.05)
    assert np.abs(context).max() == pytest.approx(weak.ranges["layer0.context"], rel=0.05)


def test_packed_profiles():
    made = make_packed_profiles([20, 55, 90], max_tokens=512)
    assert [profile.max for profile in made] == [(80, 1024), (4096, 32768)]
    assert [profile.opt for profile in made] == [(1, 128), (297, 16384)]
    wide = make_packed_profiles([20, 55, 90], max_tokens=512, width=768)
    assert [(profile.opt, profile.max) for profile in wide] == [((1, 128), (80, 1024)), ((148, 8192), (4096, 16384))]
    assert make_packed_profiles([20, 55, 90], max_tokens=512, width=256) == made
    for profile in [*made, *wide]:
        check_profile(profile, layout="packed", max_tokens=512)
    with pytest.raises(EngineError, match="no room for one text of 512 tokens"):
        check_profile(parse_profile("1x1:1x64:4x256"), layout="packed", max_tokens=512)
    with pytest.raises(EngineError, match="goes beyond the 512 tokens"):
        check_profile(parse_profile("1x1:32x64:64x1024"), layout="padded", max_tokens=512)

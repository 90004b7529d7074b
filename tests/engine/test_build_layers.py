"""The inspector's JSON as TensorRT's documentation gives it, 8.6 and 10 in one form, 11 in another."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.engine.build.layers import layer_precisions, prove_precision
from workbench.engine.build.progress import Phases
from workbench.errors import EngineError


def tensor(words):
    return {"Name": "x", "Location": "Device", "Dimensions": [8, 64], "Format/Datatype": words}


def information(*layers):
    return json.dumps({"Layers": list(layers), "Bindings": ["input_ids", "sentiment"]})


HALF = {
    "Name": "layers.0.query + bias",
    "LayerType": "CaskGemmMatrixMultiply",
    "Inputs": [tensor("Row major linear FP16 format")],
    "Outputs": [tensor("Row major linear FP16 format")],
    "TacticName": "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64_warpgroupsize1x1x1",
}
SINGLE = {
    **HALF,
    "Inputs": [tensor("Row major linear FP32")],
    "TacticName": "sm80_xmma_gemm_f32f32_f32f32_f32_nn_n_tilesize32x32x8",
}
QUANTIZED = {
    **HALF,
    "Inputs": [tensor("Row major Int8 format")],
    "Weights": {"Type": "Int8", "Count": 4096},
    "TacticName": "sm80_xmma_gemm_i8f16_i8i32_f32_tn_n_tilesize64x64x64",
}
NORM = {
    "Name": "norm",
    "LayerType": "Normalization",
    "Inputs": [tensor("Row major linear FP32")],
    "Outputs": [tensor("Row major linear FP32")],
    "TacticName": "",
}
FUSED = {"Name": "__myl_FcMul", "LayerType": "gemm", "Inputs": [], "TacticName": "sm80_xmma_gemm_f16f16_f16f16_f16"}
ELEVEN = {
    "Name": "query",
    "LayerType": "gemm",
    "Inputs": [{"Name": "x", "Format": "Row major linear FP16 format (kLINEAR)", "DataType": "Half"}],
    "TacticName": "",
}


@pytest.mark.parametrize(
    ("layers", "counts"),
    [
        ([HALF, HALF, NORM], {"FP16": 2}),
        ([SINGLE, NORM], {"FP32": 1}),
        ([QUANTIZED, HALF, NORM], {"INT8": 1, "FP16": 1}),
        ([FUSED, NORM], {"FP16": 1}),
        ([ELEVEN, NORM], {"FP16": 1}),
        ([NORM], {"FP32": 1}),
        ([{**ELEVEN, "Inputs": [{"DataType": "Int8"}]}], {"INT8": 1}),
        ([], {}),
        (["only a name, at low verbosity"], {}),
    ],
)
def test_products_are_counted_by_what_they_read(layers, counts):
    assert layer_precisions(information(*layers)) == counts


CLOSED = {
    "Name": "{ForeignNode[tokens...sentiment]}",
    "LayerType": "Myelin",
    "Inputs": [tensor("Row major linear FP32")],
    "TacticName": "",
}


def test_a_piece_that_the_inspector_does_not_open():
    """Its inputs are the network's, FP32 in an engine of any precision: they prove nothing."""
    assert layer_precisions(information(CLOSED, NORM)) == {}
    kernels = [HALF["TacticName"], HALF["TacticName"], "sm80_xmma_gemm_f16f16_f16f16_f16_nn_n", SINGLE["TacticName"]]
    plan = b"\0\1".join(name.encode() for name in kernels) + b"\0"
    assert layer_precisions(information(CLOSED, NORM), plan) == {"FP16": 2, "FP32": 1}
    assert layer_precisions(information(CLOSED, QUANTIZED), plan) == {"INT8": 1}


@pytest.mark.parametrize("text", ["", "Layers:", "[]", "{}", '{"Layers": 3}'])
def test_what_is_not_the_inspectors(text):
    with pytest.raises(EngineError, match="cannot be read"):
        layer_precisions(text)


@pytest.mark.parametrize(
    ("counts", "precision"),
    [
        ({"FP32": 3}, "fp32"),
        ({"FP16": 20, "FP32": 3}, "fp16"),
        ({"INT8": 20, "FP16": 8, "FP32": 2}, "int8"),
        ({"INT8": 2, "FP16": 30}, "mixed"),
    ],
)
def test_engines_that_are_what_they_are_called(counts, precision):
    prove_precision(counts, precision)


@pytest.mark.parametrize(
    ("counts", "precision"),
    [
        ({"FP32": 30}, "fp16"),
        ({"FP32": 30, "FP16": 2}, "fp16"),
        ({"FP16": 30}, "int8"),
        ({"FP16": 30, "FP32": 1}, "mixed"),
        ({"FP16": 30}, "fp32"),
        ({}, "fp32"),
        ({}, "fp16"),
    ],
)
def test_engines_that_are_not(counts, precision):
    with pytest.raises(EngineError, match=rf"is called {precision}, but the inspector finds.*It is not kept"):
        prove_precision(counts, precision)


def test_phases_inside_phases():
    phases = Phases()
    phases.start("build", None, 4)
    assert phases.step("build", 0) == 0.25
    phases.start("optimize", "build", 2)
    assert phases.step("optimize", 0) == pytest.approx(0.375)
    assert phases.step("optimize", 1) == pytest.approx(0.5)
    phases.finish("optimize")
    assert phases.step("build", 1) == pytest.approx(0.5)
    assert phases.step("build", 3) == 1


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.booleans())))
def test_phases_never_fall(events):
    phases = Phases()
    phases.start("a", None, 10)
    last = 0.0
    for name, step, ends in events:
        if name not in phases.phases:
            phases.start(name, "a", 10)
        now = phases.step(name, step)
        assert last <= now <= 1
        last = now
        if ends and name != "a":
            phases.finish(name)

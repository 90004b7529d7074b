"""Precision lives in the graph: FP32 to FP16 and to INT8, and the checks that a converted graph must pass.

graph    an ONNX graph in a form that is easy to change
layers   the layers of a transformer, found by form
fp16     which nodes compute in FP16, and the casts between
int8     pairs of QuantizeLinear and DequantizeLinear
check    what must hold in a graph of each precision
"""

from __future__ import annotations

from workbench.engine.graphs.check import check_graph
from workbench.engine.graphs.fp16 import to_fp16
from workbench.engine.graphs.int8 import FORMS, Form, QuantizedInput, quantized_inputs, to_int8
from workbench.engine.graphs.layers import LayerGroup, layer_groups

__all__ = [
    "FORMS",
    "Form",
    "LayerGroup",
    "QuantizedInput",
    "check_graph",
    "layer_groups",
    "quantized_inputs",
    "to_fp16",
    "to_int8",
]

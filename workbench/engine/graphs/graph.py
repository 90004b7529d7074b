"""An ONNX graph in a form that is easy to change: nodes, constants as arrays, who makes a tensor and who uses it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from workbench.errors import ModelError

__all__ = ["Graph", "float_tensors"]

_NUMPY: Final = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


class Graph:
    """A copy of ``model``: constants are arrays by name, and matrices that the file stores as FP16 are FP32 here.

    ``stored_half`` names those matrices; ``to_model`` stores them as FP16 again, with the cast that gives FP32 back,
    where they are still there and still FP32.
    """

    def __init__(self, model: ModelProto) -> None:
        self.source = model
        self.constants: dict[str, NDArray[Any]] = {
            item.name: numpy_helper.to_array(item) for item in model.graph.initializer
        }
        self.nodes: list[NodeProto] = []
        self.stored_half: set[str] = set()
        self.inputs = [item.name for item in model.graph.input if item.name not in self.constants]
        self.outputs = [item.name for item in model.graph.output]
        names: set[str] = set()
        for position, node in enumerate(model.graph.node):
            if node.op_type == "Constant" and _constant_value(node) is not None:
                self.constants[node.output[0]] = _constant_value(node)
            elif node.op_type == "Cast" and self._is_storage(node):
                self.constants[node.output[0]] = self.constants[node.input[0]].astype(np.float32)
                self.stored_half.add(node.output[0])
            else:
                copy = NodeProto()
                copy.CopyFrom(node)
                if not copy.name or copy.name in names:
                    copy.name = f"{copy.op_type}_{position}"
                names.add(copy.name)
                self.nodes.append(copy)

    def _is_storage(self, node: NodeProto) -> bool:
        """A cast of a constant from FP16 to FP32."""
        value = self.constants.get(node.input[0])
        return value is not None and value.dtype == np.float16 and _cast_target(node) == TensorProto.FLOAT

    def producers(self) -> dict[str, NodeProto]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.output if name}

    def users(self) -> dict[str, list[tuple[NodeProto, int]]]:
        """The nodes that use each tensor, and at which input."""
        found: dict[str, list[tuple[NodeProto, int]]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.input):
                if name:
                    found.setdefault(name, []).append((node, index))
        return found

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is the same for all texts."""
        return name in self.constants

    def ancestors(self, tensors: Iterable[str]) -> set[str]:
        """Names of the nodes that ``tensors`` depend on."""
        producers, found, todo = self.producers(), set(), list(tensors)
        while todo:
            node = producers.get(todo.pop())
            if node is not None and node.name not in found:
                found.add(node.name)
                todo += [name for name in node.input if name]
        return found

    def to_model(self, *, opset: int | None = None) -> ModelProto:
        """The graph as ONNX: nodes in an order that can be run, unused constants left out.

        Raises ModelError when the nodes form a circle or use a tensor that nothing makes.
        """
        model = ModelProto()
        model.CopyFrom(self.source)
        graph = model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        nodes = list(self._ordered())
        used = {name for node in nodes for name in node.input} | set(self.outputs)
        casts = []
        for name, value in self.constants.items():
            if name not in used:
                continue
            if name in self.stored_half and value.dtype == np.float32:
                half = f"{name}_fp16"
                graph.initializer.append(numpy_helper.from_array(value.astype(np.float16), half))
                casts.append(helper.make_node("Cast", [half], [name], f"cast_{name}", to=TensorProto.FLOAT))
            else:
                graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        graph.node.extend([*casts, *nodes])
        if opset is not None:
            del model.opset_import[:]
            model.opset_import.append(helper.make_opsetid("", opset))
            # The IR that came with the opset: a newer one is refused by older readers for nothing.
            model.ir_version = helper.find_min_ir_version_for(model.opset_import)
        return model

    def _ordered(self) -> Iterator[NodeProto]:
        """Nodes, each after those it needs, otherwise in the order they stand in."""
        known = {*self.constants, *self.inputs, ""}
        waiting = list(self.nodes)
        while waiting:
            left = []
            for node in waiting:
                if all(name in known for name in node.input):
                    known.update(node.output)
                    yield node
                else:
                    left.append(node)
            if len(left) == len(waiting):
                raise ModelError(
                    f"The graph cannot be put in order: {left[0].name} waits for "
                    f"{', '.join(name for name in left[0].input if name not in known)}. Export the model again."
                )
            waiting = left


def _cast_target(node: NodeProto) -> int:
    return next(int(item.i) for item in node.attribute if item.name == "to")


def _constant_value(node: NodeProto) -> Any:
    for item in node.attribute:
        if item.name == "value":
            return numpy_helper.to_array(item.t)
        if item.name in ("value_float", "value_int"):
            return np.array(helper.get_attribute_value(item), np.float32 if item.name == "value_float" else np.int64)
        if item.name in ("value_floats", "value_ints"):
            kind = np.float32 if item.name == "value_floats" else np.int64
            return np.array(list(helper.get_attribute_value(item)), kind)
    return None


def float_tensors(model: ModelProto) -> dict[str, int]:
    """Element type (a TensorProto type) of every tensor in ``model``, by type inference.

    Raises ModelError when the types do not fit together.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=False).graph
    except Exception as error:  # the library's exceptions share no base of their own
        raise ModelError(f"The graph's types do not fit together: {error}. Export the model again.") from None
    found = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.input, *inferred.output, *inferred.value_info)
    }
    found.update({item.name: item.data_type for item in inferred.initializer})
    return found

"""A classifier's forward pass as an ONNX graph to the workbench's contract.

Inputs: ``input_ids`` int32 [batch, sequence] and ``attention_bias`` float32 [batch, 1, 1, sequence] (0 for a token,
-1e4 for padding). One output named after the task: float32 [batch, labels], or [batch, sequence, labels] for
entities. Opset 17, the newest that TensorRT 8.6 reads.

The library's own mask stays out of the graph: its models take a 4-D mask as it is and add it to the attention scores
(eager attention). Token types, always zero here, become one row added to the embeddings. RoBERTa counts its positions
from the tokens that are not padding; the sum runs in float32, the only type in which TensorRT sums up.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from workbench.engine.export.extra import import_onnx, import_torch
from workbench.engine.export.labels import LabelPlan
from workbench.errors import ModelError

__all__ = [
    "FAMILIES",
    "OPSET",
    "check_graph",
    "contract_problems",
    "refuse_graph",
    "round_weights",
    "store_weights_fp16",
    "trace_graph",
]

OPSET: Final = 17

FAMILIES: Final = {
    "bert": "absolute",
    "distilbert": "absolute",
    "electra": "absolute",
    "roberta": "from padding",
    "xlm-roberta": "from padding",
}
"""model_type to how positions are counted. MiniLM checkpoints call themselves bert (or xlm-roberta)."""

_PROTOBUF_LIMIT: Final = 2**31 - 2**20
"""Bytes one protobuf file can hold, less room for the nodes."""


def trace_graph(model: Any, plan: LabelPlan, path: Path) -> None:
    """Write ``model`` (a transformers classifier in eval mode, eager attention) as ONNX to ``path``.

    The model's token type embeddings are replaced on the way; do not use it afterwards. A graph too large for one
    file comes with files of weights beside it, as torch writes them.
    """
    torch = import_torch()
    traced = _traced_module(model)
    # Two rows of different length: a size that is 1 or equal to another could be traced as a constant.
    ids = torch.full((2, 7), _plain_id(model.config), dtype=torch.int32)
    bias = torch.zeros((2, 1, 1, 7), dtype=torch.float32)
    bias[1, :, :, 4:] = -1e4
    output_axes = {0: "batch", 1: "sequence"} if plan.kind == "tags" else {0: "batch"}
    with torch.no_grad(), warnings.catch_warnings():
        # The tracing exporter is announced as old; the new one writes opset 18 and converts down. A tracer also
        # warns about each size it reads; the parity check runs other sizes.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        torch.onnx.export(
            traced,
            (ids, bias),
            str(path),
            input_names=["input_ids", "attention_bias"],
            output_names=[plan.task],
            dynamic_axes={
                "input_ids": {0: "batch", 1: "sequence"},
                "attention_bias": {0: "batch", 3: "sequence"},
                plan.task: output_axes,
            },
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )


def _plain_id(config: Any) -> int:
    """An id that is not padding."""
    return 1 if config.pad_token_id == 0 else 0


def _traced_module(model: Any) -> Any:
    torch = import_torch()
    config = model.config
    has_types = False
    for module in list(model.modules()):
        if hasattr(module, "token_type_embeddings"):
            has_types = True
            module.token_type_embeddings = _row_module(module.token_type_embeddings.weight[0])
    counted = FAMILIES[config.model_type] == "from padding"

    base: Any = torch.nn.Module

    class Traced(base):  # type: ignore[misc]  # a class without types
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_bias: Any) -> Any:
            if counted:
                real = input_ids.ne(config.pad_token_id).to(torch.float32)
                positions = (torch.cumsum(real, dim=1) * real).to(torch.int32) + config.pad_token_id
            else:
                positions = torch.arange(input_ids.shape[1], dtype=torch.int32).unsqueeze(0)
            given = {"token_type_ids": input_ids} if has_types else {}
            return self.model(
                input_ids=input_ids, attention_mask=attention_bias, position_ids=positions, **given
            ).logits

    return Traced().eval()


def _row_module(row: Any) -> Any:
    torch = import_torch()

    base: Any = torch.nn.Module

    class Row(base):  # type: ignore[misc]  # a class without types
        """The embedding of token type 0, whatever the ids."""

        def __init__(self) -> None:
            super().__init__()
            self.row = torch.nn.Parameter(row.detach().clone(), requires_grad=False)

        def forward(self, _ids: Any) -> Any:
            return self.row

    return Row()


def round_weights(model: Any) -> None:
    """Round the matrices of ``model`` to FP16 in place, still held as FP32. Vectors (biases, norms) stay as they are.

    Raises ModelError when a weight is beyond FP16's range.
    """
    torch = import_torch()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2:
                rounded = weight.to(torch.float16).to(torch.float32)
                if not bool(torch.isfinite(rounded).all()):
                    raise ModelError(
                        f"The weight {name} is beyond FP16's range (largest {float(weight.abs().max()):.3g}). "
                        "Export with store_fp16=False."
                    )
                weight.copy_(rounded)


def store_weights_fp16(path: Path) -> None:
    """Store the matrices of the graph at ``path`` as FP16, each cast back to FP32 before its use.

    Only what FP16 holds exactly is stored so (see ``round_weights``): the graph computes what it did, at half the
    size. A runtime folds the casts when it loads the graph.
    """
    onnx = import_onnx()
    graph = (model := onnx.load(str(path))).graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_fp16"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}_fp16"], [name], f"cast_{name}", to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    if model.ByteSize() > _PROTOBUF_LIMIT:
        raise ModelError("The checkpoint is larger than 2 GB even in FP16; one file cannot hold it. Name a smaller.")
    onnx.save(model, str(path))


def check_graph(path: Path, plan: LabelPlan) -> None:
    """Check a written graph against the contract in this module's docstring.

    Raises ModelError naming each difference: names, types and shapes of inputs and outputs, opset, and that every use
    of ``attention_bias`` is an addition (a mask built inside the graph would be more).
    """
    onnx = import_onnx()
    onnx.checker.check_model(str(path))
    model = onnx.load(str(path))
    tail: list[int | str] = ["sequence", len(plan.labels)] if plan.kind == "tags" else [len(plan.labels)]
    problems = contract_problems(model, {plan.task: tail})
    uses = {node.op_type for node in model.graph.node if "attention_bias" in node.input}
    if uses != {"Add"}:
        problems.append(f"attention_bias goes into {', '.join(sorted(uses)) or 'nothing'}, not only into additions")
    refuse_graph(problems)


def contract_problems(model: Any, outputs: Mapping[str, Sequence[int | str]]) -> list[str]:
    """What is wrong with inputs, outputs and opset of an ONNX model; ``outputs``: shapes after the batch, by name."""
    onnx = import_onnx()
    float32, int32 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    wanted: dict[str, tuple[int, list[int | str]]] = {
        "input_ids": (int32, ["batch", "sequence"]),
        "attention_bias": (float32, ["batch", 1, 1, "sequence"]),
        **{name: (float32, ["batch", *tail]) for name, tail in outputs.items()},
    }
    found = {}
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.tensor_type
        found[value.name] = (kind.elem_type, [dim.dim_param or dim.dim_value for dim in kind.shape.dim])
    problems = [
        f"{name} is {found.get(name, 'missing')}, not {wanted.get(name, 'expected')}"
        for name in dict.fromkeys((*wanted, *found))
        if found.get(name) != wanted.get(name)
    ]
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        problems.append(f"opsets are {opsets}, not {OPSET} alone")
    return problems


def refuse_graph(problems: Sequence[str]) -> None:
    """Raise ModelError when there are ``problems`` with a written graph."""
    if problems:
        raise ModelError(
            f"The exported graph is not what the workbench runs: {'; '.join(problems)}. Install the versions in "
            "constraints.txt: pip install -c constraints.txt -e '.[export]'"
        )

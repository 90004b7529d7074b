"""What a BERT's graph computes, as data: tables, matrices, norms, and what follows the last layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

__all__ = ["Activation", "Block", "Encoder", "Floats", "Matrix", "Norm", "Tail", "erf_gelu", "relu", "tanh_gelu"]

Activation = Literal["erf", "tanh", "relu"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Matrix:
    """A linear: ``weight`` float32 [out, in] and ``bias`` float32 [out]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Norm:
    """A layer norm over the last axis."""

    gamma: Floats
    beta: Floats
    epsilon: float


@dataclass(frozen=True)
class Block:
    """One layer. ``query`` holds whatever brings the scores to q k / sqrt(head size), which is what an attention
    operator computes. ``tensors``: names in the padded graph, for ranges: x, query, key, value, context, output, mid,
    up, act, down, out, those of linears with their bias. ``query_factor``, ``value_factor``: what the padded graph's
    linear was multiplied with."""

    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    norm1: Norm
    up: Matrix
    activation: Activation
    down: Matrix
    norm2: Norm
    query_factor: float
    value_factor: float
    tensors: Mapping[str, str]


@dataclass(frozen=True)
class Tail:
    """What follows the last layer: nodes in order, on tensors of the padded graph.

    ``hidden``: tensors that are the last hidden state. ``first``: tensors that are its first tokens [B, E]; ``mean``:
    those that are the mean of a text's tokens [B, E]. ``per_token``: names of nodes that give one row a token.
    """

    nodes: tuple[NodeProto, ...]
    hidden: frozenset[str]
    first: frozenset[str]
    mean: frozenset[str]
    per_token: frozenset[str]


@dataclass(frozen=True)
class Encoder:
    """``tokens`` float32 [vocabulary, E0]; ``positions`` float32 [places, E0], row 0 for a text's first token;
    ``projection``: from E0 to the layers' width, where they differ. ``constants``: of the tail's nodes."""

    tokens: Floats
    positions: Floats
    norm: Norm | None
    projection: Matrix | None
    blocks: tuple[Block, ...]
    heads: int
    tail: Tail
    constants: Mapping[str, NDArray[Any]]

    @property
    def width(self) -> int:
        """Of the hidden state."""
        return int(self.blocks[0].key.weight.shape[0])


def erf_gelu(x: NDArray[Any]) -> NDArray[Any]:
    """x times the share of a normal distribution below x."""
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def tanh_gelu(x: NDArray[Any]) -> NDArray[Any]:
    """Its approximation, at most 0.0005 away."""
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def relu(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.maximum(x, 0))

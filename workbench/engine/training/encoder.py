"""The bundled network: a BERT-style encoder (post layer norm) with three heads.

One definition serves training and export. Inputs of the exported form: ``input_ids`` int32 [batch, sequence] and
``attention_bias`` float32 [batch, 1, 1, sequence], 0 for a token and a large negative number for padding: the
additive form that TensorRT fuses. Head size 64.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.tasks.labels import ENTITY_TAGS, SENTIMENTS, TOPICS

__all__ = ["Encoder", "EncoderConfig", "Outputs"]


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes. ``width`` must be a multiple of 64, the head size.

    ``pre_norm`` puts the layer norms before the sublayers: a deep teacher trains only so at a high learning rate. The
    bundled network keeps them after, the form that inference libraries fuse.
    """

    vocabulary: int
    width: int = 256
    layers: int = 6
    inner: int = 1024
    positions: int = 512
    dropout: float = 0.1
    pre_norm: bool = False

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.width // 64

    def as_dict(self) -> dict[str, Any]:
        """For writing beside the weights."""
        return asdict(self)


@dataclass
class Outputs:
    """Logits: sentiment [B, 3], topics [B, 8], entities [B, S, 9]; ``hidden`` [B, S, width]."""

    sentiment: Tensor
    topics: Tensor
    entities: Tensor
    hidden: Tensor


class Attention(nn.Module):
    """Multi-head self-attention with one product for query, key and value."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)
        self.dropout = config.dropout

    def forward(self, hidden: Tensor, bias: Tensor, *, plain: bool) -> Tensor:
        """``hidden`` [B, S, width], ``bias`` [B, 1, 1, S]; ``plain`` spells attention out, for export."""
        batch, length, width = hidden.shape
        qkv = self.qkv(hidden).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if plain:
            scores = query @ key.transpose(-1, -2) / math.sqrt(width // self.heads) + bias
            mixed = torch.softmax(scores, dim=-1) @ value
        else:
            mixed = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=bias.to(query.dtype), dropout_p=self.dropout if self.training else 0.0
            )
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))


class Layer(nn.Module):
    """Attention and feed-forward, each with a residual and a layer norm after it (or before it, ``pre_norm``)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, config.inner)
        self.contract = nn.Linear(config.inner, config.width)
        self.output_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.pre_norm = config.pre_norm

    def forward(self, hidden: Tensor, bias: Tensor, *, plain: bool) -> Tensor:
        """Same shape out as in."""
        if self.pre_norm:
            hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), bias, plain=plain))
            inner = self.contract(functional.gelu(self.expand(self.output_norm(hidden))))
            return hidden + self.dropout(inner)
        hidden = self.attention_norm(hidden + self.dropout(self.attention(hidden, bias, plain=plain)))
        inner = self.contract(functional.gelu(self.expand(hidden)))
        return self.output_norm(hidden + self.dropout(inner))


class Encoder(nn.Module):
    """Embeddings, layers, and the heads for pre-training and the three tasks."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width, padding_idx=0)
        self.positions = nn.Embedding(config.positions, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.last_norm = nn.LayerNorm(config.width) if config.pre_norm else nn.Identity()
        self.guess = nn.Sequential(nn.Linear(config.width, config.width), nn.GELU(), nn.LayerNorm(config.width))
        self.guess_bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.pool = nn.Linear(2 * config.width, config.width)
        self.sentiment = nn.Linear(config.width, len(SENTIMENTS))
        self.topics = nn.Linear(config.width, len(TOPICS))
        self.entities = nn.Linear(config.width, len(ENTITY_TAGS))
        self.apply(self._initialize)

    @staticmethod
    def _initialize(module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def encode(self, input_ids: Tensor, bias: Tensor, *, plain: bool = False) -> Tensor:
        """Hidden states [B, S, width]."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.dropout(self.norm(self.tokens(input_ids) + self.positions(places)))
        for layer in self.layers:
            hidden = layer(hidden, bias, plain=plain)
        normed: Tensor = self.last_norm(hidden)
        return normed

    def guess_masked(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary for the chosen positions; ``hidden`` [N, width]."""
        return functional.linear(self.guess(hidden), self.tokens.weight, self.guess_bias)

    def forward(self, input_ids: Tensor, bias: Tensor, *, plain: bool = False) -> Outputs:
        """All heads. ``bias`` [B, 1, 1, S] is 0 for tokens."""
        return self.judge(self.encode(input_ids, bias, plain=plain), bias)

    def judge(self, hidden: Tensor, bias: Tensor) -> Outputs:
        """The heads on hidden states [B, S, width]."""
        # The mean sees every word of a long text, the first token what attention gathered there.
        present = (bias[:, 0, 0, :] == 0).to(hidden.dtype).unsqueeze(-1)
        mean = (hidden * present).sum(1) / present.sum(1)
        pooled = self.dropout(torch.tanh(self.pool(torch.cat([hidden[:, 0], mean], dim=-1))))
        return Outputs(self.sentiment(pooled), self.topics(pooled), self.entities(self.dropout(hidden)), hidden)

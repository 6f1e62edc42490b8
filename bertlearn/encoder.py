"""The Transformer encoder: residuals, LayerNorm, feed-forward, stacked. Built in chapter 05."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.attention import BertSelfAttention
from bertlearn.config import BertConfig

__all__ = [
    "ACTIVATIONS",
    "AddNorm",
    "BaseModelOutput",
    "BertAttention",
    "BertEncoder",
    "BertIntermediate",
    "BertLayer",
]

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


@dataclass
class BaseModelOutput:
    """What a stack of layers returns.

    Attributes:
        last_hidden_state: ``(batch, seq, hidden)`` after the last layer.
        hidden_states: on request, the embeddings' output and then each layer's, so one more than
            there are layers, each ``(batch, seq, hidden)``.
        attentions: on request, each layer's weights ``(batch, heads, query, key)``.
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class AddNorm(nn.Module):
    """Project back to hidden size, add the residual, normalize: post-LN as in the first
    Transformer (Vaswani et al. 2017, section 3.1: ``LayerNorm(x + Sublayer(x))``).

    Args:
        in_features: width of what comes in.
        config: uses ``hidden_size``, ``layer_norm_eps`` and ``hidden_dropout_prob``.
    """

    def __init__(self, in_features: int, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """``(batch, seq, in_features)`` and ``(batch, seq, hidden)`` to the latter's shape."""
        return self.LayerNorm(residual + self.dropout(self.dense(x)))


class BertAttention(nn.Module):
    """Self-attention with its output layer: the first half of a block."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = AddNorm(config.hidden_size, config)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """``(batch, seq, hidden)`` to the same, and the weights or None."""
        context, weights = self.self(hidden_states, mask, output_attentions)
        return self.output(context, residual=hidden_states), weights


class BertIntermediate(nn.Module):
    """The wide half of the feed-forward network: ``act(x W1 + b1)`` (Vaswani et al., eq. 2)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``(batch, seq, hidden)`` to ``(batch, seq, intermediate)``, each position alone."""
        return self.activation(self.dense(hidden_states))


class BertLayer(nn.Module):
    """One block: tokens exchange (attention), then each thinks alone (feed-forward)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = AddNorm(config.intermediate_size, config)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """``(batch, seq, hidden)`` to the same, and the weights or None."""
        attended, weights = self.attention(hidden_states, mask, output_attentions)
        widened = self.intermediate(attended)  # (batch, seq, intermediate)
        return self.output(widened, residual=attended), weights


class BertEncoder(nn.Module):
    """``num_hidden_layers`` blocks, one after the other, each with weights of its own."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BaseModelOutput:
        """Run the stack.

        Args:
            hidden_states: ``(batch, seq, hidden)``.
            mask: bool, broadcast to ``(batch, heads, query, key)``, True = may attend.
            output_hidden_states: keep the input and the output of every layer.
            output_attentions: keep the weights of every layer.
        """
        states, attentions = [hidden_states], []
        for layer in self.layer:
            hidden_states, weights = layer(hidden_states, mask, output_attentions)
            states.append(hidden_states)
            attentions.append(weights)
        return BaseModelOutput(
            last_hidden_state=hidden_states,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

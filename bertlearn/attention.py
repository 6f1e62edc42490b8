"""Scaled dot-product attention and its multi-head form. Built in chapter 04."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.config import BertConfig

__all__ = [
    "BertSelfAttention",
    "key_mask",
    "merge_heads",
    "scaled_dot_product_attention",
    "split_heads",
]


def key_mask(attention_mask: Tensor) -> Tensor:
    """Turn the mask of a batch into one that attention scores can use.

    Args:
        attention_mask: ``(batch, seq)``, bool or integer, 1 for a real token and 0 for padding.

    Returns:
        bool ``(batch, 1, 1, key)``, True where a key may be attended to: it broadcasts over
        heads and queries, because a padding token is hidden from every query of every head.

    Raises:
        TypeError: if the mask is floating point (an additive mask, or a mistake).
        ValueError: if it does not have two axes.
    """
    if attention_mask.is_floating_point():
        raise TypeError(
            "attention_mask must be bool or integer (1 token, 0 padding), "
            f"not {attention_mask.dtype}: compare it first, as in mask > 0"
        )
    if attention_mask.dim() != 2:
        raise ValueError(
            "attention_mask must have shape (batch, seq), "
            f"not {tuple(attention_mask.shape)}: one row for each text"
        )
    return attention_mask.bool()[:, None, None, :]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Mix values by how well their keys match the query (Vaswani et al. 2017, equation 1).

    Args:
        query: ``(..., query, head_size)``.
        key: ``(..., key, head_size)``.
        value: ``(..., key, head_size)``.
        mask: bool, broadcast to ``(..., query, key)``, True where attention is allowed. A query
            that may attend to nothing gets equal weights: padding then stays finite.
        dropout: probability with which a weight is dropped (0 when not training).

    Returns:
        the mixed values ``(..., query, head_size)`` and the weights ``(..., query, key)``,
        whose rows sum to 1 (before dropout).
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = F.dropout(scores.softmax(dim=-1), p=dropout)
    return weights @ value, weights


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """``(batch, seq, hidden)`` to ``(batch, heads, seq, head_size)``: head h owns slice h."""
    batch, seq, hidden = x.shape
    return x.view(batch, seq, num_heads, hidden // num_heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """``(batch, heads, seq, head_size)`` back to ``(batch, seq, hidden)``."""
    batch, heads, seq, head_size = x.shape
    return x.transpose(1, 2).reshape(batch, seq, heads * head_size)


class BertSelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2), without the output layer.

    Args:
        config: uses ``hidden_size``, ``num_attention_heads``, ``attention_probs_dropout_prob``
            and ``attn_implementation``.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.fused = config.attn_implementation == "sdpa"
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Let every token gather from every token it may see.

        Args:
            hidden_states: ``(batch, seq, hidden)``.
            mask: bool, broadcast to ``(batch, heads, query, key)``, True = may attend.
            output_attentions: also return the weights (this takes the eager path).

        Returns:
            context ``(batch, seq, hidden)``, and the weights ``(batch, heads, query, key)`` or
            None.
        """
        query = split_heads(self.query(hidden_states), self.num_heads)
        key = split_heads(self.key(hidden_states), self.num_heads)
        value = split_heads(self.value(hidden_states), self.num_heads)
        dropout = self.dropout if self.training else 0.0
        if self.fused and not output_attentions:
            if mask is not None:  # additive, so that a row without keys stays uniform here too
                lowest = torch.finfo(query.dtype).min
                mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, lowest)
            context = F.scaled_dot_product_attention(query, key, value, mask, dropout)
            return merge_heads(context), None
        context, weights = scaled_dot_product_attention(query, key, value, mask, dropout)
        return merge_heads(context), weights if output_attentions else None

"""Other right answers to the question of project 91."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tests.known_right import Right


class ByLogSums(nn.Module):
    """Each block gives a finished mix and the logarithm of its sum; these are joined."""

    def __init__(self, config: Any, block: int = 32):
        super().__init__()
        self.h, self.block = config.num_attention_heads, block
        for name in ("query", "key", "value"):
            self.add_module(name, nn.Linear(config.hidden_size, config.hidden_size))

    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> tuple:
        b, s, d = x.shape
        q, k, v = (
            getattr(self, name)(x).view(b, s, self.h, d // self.h)
            for name in ("query", "key", "value")
        )
        least = torch.finfo(x.dtype).min
        log_sum, mix = torch.full((b, self.h, s), least, dtype=x.dtype), torch.zeros_like(q)
        for keys, values, hidden in zip(
            k.split(self.block, 1), v.split(self.block, 1), self.hidden(mask, s), strict=True
        ):
            scores = torch.einsum("bqhd,bkhd->bhqk", q, keys) * (d // self.h) ** -0.5
            if hidden is not None:
                scores = torch.where(hidden, least, scores)
            joined = torch.logaddexp(log_sum, scores.logsumexp(-1))
            old = torch.exp(log_sum - joined).transpose(1, 2)[..., None]
            weights = torch.exp(scores - joined[..., None])
            mix = old * mix + torch.einsum("bhqk,bkhd->bqhd", weights, values)
            log_sum = joined
        return mix.reshape(b, s, d), None

    def hidden(self, mask: Any, seq: int) -> list:
        """What is hidden in each block."""
        if mask is None:
            return [None] * math.ceil(seq / self.block)
        return list(mask.logical_not().split(self.block, -1))


class TwoPasses(nn.Module):
    """Blocks are seen twice: for the largest score of all, then for the sums. Head by head, in
    double precision."""

    def __init__(self, config: Any, block: int = 32):
        super().__init__()
        hidden = config.hidden_size
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.size, self.block = hidden // config.num_attention_heads, block

    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> tuple:
        q, k, v = (f(x).double().split(self.size, -1) for f in (self.query, self.key, self.value))
        seen = None if mask is None else mask.expand(-1, len(q), -1, -1)
        heads = [
            self.head(q[h], k[h], v[h], None if seen is None else seen[:, h]) for h in range(len(q))
        ]
        return torch.cat(heads, dim=-1).to(x.dtype), None

    def scores(self, q: Tensor, k: Tensor, seen: Any, start: int) -> Tensor:
        """Of all queries of a head with the keys of a block."""
        found = torch.bmm(q, k[:, start : start + self.block].mT) / math.sqrt(self.size)
        if seen is None:
            return found
        return found.masked_fill(seen[..., start : start + self.block] == 0, -1e30)

    def head(self, q: Tensor, k: Tensor, v: Tensor, seen: Any) -> Tensor:
        """Of one head, ``(batch, seq, size)``."""
        starts = range(0, k.shape[1], self.block)
        tops = [self.scores(q, k, seen, start).max(-1, keepdim=True).values for start in starts]
        top = torch.stack(tops).amax(0).detach()
        above, below = 0.0, 0.0
        for start in starts:
            part = torch.exp(self.scores(q, k, seen, start) - top)
            above = above + part @ v[:, start : start + self.block]
            below = below + part.sum(-1, keepdim=True)
        return above / below


RIGHT = {
    "91.block_attention": [
        Right("blocks joined by the logarithms of their sums", ByLogSums),
        Right("two passes, head by head, in double precision", TwoPasses),
    ]
}

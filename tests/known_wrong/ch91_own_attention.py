"""Wrong answers to the question of project 91."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bertlearn.attention import BertSelfAttention
from tests.known_wrong import Wrong

LOWEST = torch.finfo(torch.float32).min


class Blocks(nn.Module):
    """The right thing, with a switch for each way to get it wrong."""

    root = True
    largest = "running"
    rescale = True
    tail = True
    masked: str = "lowest"
    interleaved = False

    def __init__(self, config: Any, block: int = 32):
        super().__init__()
        self.heads, self.block = config.num_attention_heads, block
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def split(self, x: Tensor) -> Tensor:
        if self.interleaved:
            return x.unflatten(-1, (-1, self.heads)).permute(0, 3, 1, 2)
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def scores(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        scores = query @ key.transpose(-2, -1)
        if self.root:
            scores = scores / query.shape[-1] ** 0.5
        if mask is None or self.masked == "ignored":
            return scores
        fill = -torch.inf if self.masked == "inf" else LOWEST
        return scores.masked_fill(mask if self.masked == "inverted" else ~mask, fill)

    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        query, keys, values = (self.split(f(x)) for f in (self.query, self.key, self.value))
        top = torch.full_like(query[..., :1], LOWEST)
        if self.masked == "inf":
            top = torch.full_like(top, -torch.inf)
        total, mixed = torch.zeros_like(top), torch.zeros_like(query)
        seq = x.shape[1] if self.tail else x.shape[1] // self.block * self.block
        for i in range(0, seq, self.block):
            there = slice(i, i + self.block)
            part = None if mask is None else mask[..., there]
            scores = self.scores(query, keys[:, :, there], part)
            new = torch.maximum(top, scores.amax(-1, keepdim=True))
            if self.largest == "none":
                new = torch.zeros_like(top)
            elif self.largest == "own":
                new = scores.amax(-1, keepdim=True)
            shrink = (top - new).exp() if self.rescale and self.largest == "running" else 1.0
            weights = (scores - new).exp()
            total = total * shrink + weights.sum(-1, keepdim=True)
            mixed = mixed * shrink + weights @ values[:, :, there]
            top = new
        return (mixed / total).transpose(1, 2).flatten(2), None


class EachBlockAlone(Blocks):
    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        query, keys, values = (self.split(f(x)) for f in (self.query, self.key, self.value))
        found = []
        for i in range(0, x.shape[1], self.block):
            there = slice(i, i + self.block)
            part = None if mask is None else mask[..., there]
            scores = self.scores(query, keys[:, :, there], part)
            weights = (scores - scores.amax(-1, keepdim=True)).exp()
            weights = weights / weights.sum(-1, keepdim=True)
            found.append(weights @ values[:, :, there])
        return torch.stack(found).mean(0).transpose(1, 2).flatten(2), None


class AllAtOnce(Blocks):
    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        query, keys, values = (self.split(f(x)) for f in (self.query, self.key, self.value))
        scores = self.scores(query, keys, mask)
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        weights = weights / weights.sum(-1, keepdim=True)
        return (weights @ values).transpose(1, 2).flatten(2), None


class ContextAlone(Blocks):
    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        return super().forward(x, mask)[0]


class Detached(Blocks):
    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        return super().forward(x, mask)[0].detach(), None


class OtherNames(Blocks):
    def __init__(self, config: Any, block: int = 32):
        super().__init__(config, block)
        self.to_query = self.query
        del self.query

    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        return x, None


class PackagesOwn(BertSelfAttention):
    def __init__(self, config: Any, block: int = 32):
        super().__init__(config)


def _with(**switches: Any) -> type:
    return type("BlockAttention", (Blocks,), switches)


WRONG = {
    "91.block_attention": [
        Wrong("a softmax for each block, then the mean", EachBlockAlone, "a softmax of its own"),
        Wrong(
            "old sums kept when the largest score rises",
            _with(rescale=False),
            "yours stay as they were",
        ),
        Wrong(
            "every block measured from its own largest score",
            _with(largest="own"),
            "every block is measured from its own largest score",
        ),
        Wrong(
            "exponentials of the scores as they are", _with(largest="none"), "overflows above 88"
        ),
        Wrong("minus infinity for hidden keys", _with(masked="inf"), "-inf - -inf is nan"),
        Wrong("the short last block forgotten", _with(tail=False), "the last block is left out"),
        Wrong("a mask upside down", _with(masked="inverted"), "the mask is upside down"),
        Wrong("no mask", _with(masked="ignored"), "the mask has no effect"),
        Wrong("no division by the root", _with(root=False), "not divided by the root"),
        Wrong("heads interleaved", _with(interleaved=True), "heads are interleaved"),
        Wrong("all scores at once", AllAtOnce, "no tensor may take more than"),
        Wrong("the package's own attention", PackagesOwn, "calls torch's own"),
        Wrong("the context alone", ContextAlone, "return two things"),
        Wrong("a detached result", Detached, "detached"),
        Wrong("parameters with other names", OtherNames, "must be called as in BERT's"),
    ]
}

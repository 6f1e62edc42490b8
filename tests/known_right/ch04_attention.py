"""Other right answers to the questions of chapter 04."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.known_right import Right


def causal_by_distance(attention_mask: Tensor) -> Tensor:
    place = torch.arange(attention_mask.shape[-1])
    past = place[:, None] >= place[None, :]
    return torch.logical_and(past[None, None], attention_mask.ne(0).unsqueeze(1).unsqueeze(1))


def causal_by_loops(attention_mask: Tensor) -> Tensor:
    batch, seq = attention_mask.shape
    made = torch.zeros(batch, 1, seq, seq, dtype=torch.bool)
    for b in range(batch):
        for query in range(seq):
            for key in range(query + 1):
                made[b, 0, query, key] = bool(attention_mask[b, key])
    return made


def backward_by_jacobian(weights: Tensor, upstream: Tensor) -> Tensor:
    outer = torch.einsum("...i,...j->...ij", weights, weights)
    jacobian = torch.diag_embed(weights) - outer
    return torch.einsum("...ij,...i->...j", jacobian, upstream)


def backward_in_place(weights: Tensor, upstream: Tensor) -> Tensor:
    """In place, on a copy."""
    out = upstream.clone()
    out -= (weights * upstream).sum(-1)[..., None]
    out *= weights
    return out


def cross_by_loops(
    x: Tensor, memory: Tensor, memory_mask: Tensor, weights: dict, num_heads: int
) -> Tensor:
    """One head after the other, hidden keys at minus infinity."""
    size = x.shape[-1] // num_heads
    hidden = memory_mask[:, None, :] == 0
    heads = []
    for h in range(num_heads):
        part = slice(h * size, (h + 1) * size)
        query = x @ weights["query"][:, part]
        key, value = memory @ weights["key"][:, part], memory @ weights["value"][:, part]
        scores = torch.bmm(query, key.mT) / size**0.5
        heads.append(torch.bmm(scores.masked_fill(hidden, -math.inf).softmax(2), value))
    return torch.cat(heads, dim=-1)


def cross_by_einsum(
    x: Tensor, memory: Tensor, memory_mask: Tensor, weights: dict, num_heads: int
) -> Tensor:
    """einsum, the softmax by exponentials."""

    def cut(states: Tensor, name: str) -> Tensor:
        made = torch.einsum("bsh,hk->bsk", states, weights[name])
        return made.unflatten(-1, (num_heads, -1))

    query, key, value = cut(x, "query"), cut(memory, "key"), cut(memory, "value")
    scores = torch.einsum("bqnd,bknd->bnqk", query, key) * query.shape[-1] ** -0.5
    power = (scores - scores.amax(-1, keepdim=True)).exp() * memory_mask[:, None, None].to(x.dtype)
    share = power / power.sum(-1, keepdim=True)
    return torch.einsum("bnqk,bknd->bqnd", share, value).flatten(2)


def heads_by_chunks(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    done = []
    for q, k, v in zip(*(x.chunk(num_heads, dim=2) for x in (query, key, value)), strict=True):
        scores = q @ k.mT / math.sqrt(q.shape[2])
        done.append(torch.softmax(scores, 2) @ v)
    return torch.cat(done, 2)


def heads_by_einsum(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    batch, seq, hidden = query.shape
    cut = [x.reshape(batch, seq, num_heads, hidden // num_heads) for x in (query, key, value)]
    scores = torch.einsum("bqhd,bkhd->bhqk", cut[0] / cut[0].shape[-1] ** 0.5, cut[1])
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), cut[2]).reshape(batch, seq, hidden)


def cost_by_shapes(hidden: int, heads: int, seq: int) -> tuple:
    numbers = 0
    for _ in ("query", "key", "value"):
        numbers += math.prod((hidden, hidden)) + hidden
    return numbers, math.prod((heads, seq, seq))


def cost_factored(hidden: int, heads: int, seq: int) -> tuple:
    return 3 * hidden * (hidden + 1), int(heads * seq**2)


def shares_by_loops(weights: Tensor, special: Tensor) -> Tensor:
    heads, seq, _ = weights.shape
    out = weights.new_zeros(heads, 5)
    asking = [q for q in range(seq) if not special[q]]
    for q in asking:
        for k in range(seq):
            if special[k]:
                kind = 3
            else:
                kind = {0: 0, -1: 1, 1: 2}.get(k - q, 4)
            out[:, kind] += weights[:, q, k]
    return out / len(asking)


def shares_in_numpy(weights: Tensor, special: Tensor) -> Tensor:
    w, s = weights.numpy(), special.numpy()
    place = np.arange(len(s))
    kind = np.select(
        [np.broadcast_to(s, (len(s), len(s))), *(place - place[:, None] == d for d in (0, -1, 1))],
        [3, 0, 1, 2],
        4,
    )
    rows = [np.where(kind == one, w, 0).sum(2)[:, ~s].mean(1) for one in range(5)]
    return torch.from_numpy(np.stack(rows, 1))


def relative_by_loops(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    reach, seq = (bias.shape[1] - 1) // 2, query.shape[2]
    added = torch.stack(
        [
            torch.stack([bias[:, max(-reach, min(reach, k - q)) + reach] for k in range(seq)], 1)
            for q in range(seq)
        ],
        1,
    )
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) / query.shape[-1] ** 0.5
    return (scores + added).softmax(-1) @ value


def relative_by_the_fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """torch's operator takes a bias as its mask."""
    reach = bias.shape[1] // 2
    place = torch.arange(query.shape[2])
    index = (place - place[:, None]).clamp(min=-reach, max=reach)
    added = bias.index_select(1, (index + reach).flatten()).unflatten(1, index.shape)
    mask = added.expand(len(query), -1, -1, -1)
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def made_by(query: Tensor, key: Tensor, seen: Tensor, cause: str) -> Tensor:
    """The weights of a cause, by exponentials in float64."""
    scores = torch.einsum("qd,kd->qk", query.double(), key.double())
    if cause != "not scaled":
        scores = scores / query.shape[-1] ** 0.5
    hard = cause in ("right", "not scaled", "over queries")
    power = scores.exp() * (seen if hard else 1)
    axis = 0 if cause == "over queries" else 1
    total = power.sum(axis, keepdim=True)
    made = torch.where(total > 0, power / total, torch.full_like(power, 1 / power.shape[axis]))
    return made * seen if cause == "masked after softmax" else made


def diagnosis_by_elimination(query: Tensor, key: Tensor, seen: Tensor, weights: Tensor) -> tuple:
    """The first cause that fits."""
    figures = {
        "hidden": max(float(row[~may].sum()) for row, may in zip(weights, seen, strict=True)),
        "sum": max(abs(float(row.sum()) - 1) for row in weights),
        "error": float((weights - made_by(query, key, seen, "right")).abs().max()),
    }
    causes = ("right", "not scaled", "over queries", "not masked", "masked after softmax")
    for cause in causes:
        if torch.allclose(weights.double(), made_by(query, key, seen, cause), atol=1e-5):
            return cause, figures
    raise ValueError("none of the causes")


def diagnosis_by_norm(query: Tensor, key: Tensor, seen: Tensor, weights: Tensor) -> tuple:
    """The nearest in the sum of squares; figures as tensors of one number."""
    causes = ["masked after softmax", "not masked", "over queries", "not scaled", "right"]
    every = torch.stack([made_by(query, key, seen, cause) for cause in causes])
    gaps = every - weights
    near = int((gaps**2).sum((1, 2)).argmin())
    figures = {
        "error": gaps[-1].abs().amax(),
        "sum": (1 - weights.double().sum(1)).abs().amax(),
        "hidden": weights.masked_fill(seen, 0).sum(1).amax(),
    }
    return causes[near], figures


RIGHT: dict[str, list[Any]] = {
    "04.causal_mask": [
        Right("from distances", causal_by_distance),
        Right("three loops", causal_by_loops),
    ],
    "04.softmax_backward": [
        Right("the whole Jacobian", backward_by_jacobian),
        Right("in place on a copy", backward_in_place),
    ],
    "04.cross_attention": [
        Right("head by head, minus infinity", cross_by_loops),
        Right("einsum and exponentials", cross_by_einsum),
    ],
    "04.multi_head_bug": [
        Right("chunks", heads_by_chunks),
        Right("einsum without swapping axes", heads_by_einsum),
    ],
    "04.attention_cost": [
        Right("a sum of shapes", cost_by_shapes),
        Right("factored", cost_factored),
    ],
    "04.relation_shares": [
        Right("two loops", shares_by_loops),
        Right("numpy", shares_in_numpy),
    ],
    "04.relative_attention": [
        Right("the bias entry by entry", relative_by_loops),
        Right("torch's operator with a bias", relative_by_the_fused),
    ],
    "04.diagnose": [
        Right("by elimination", diagnosis_by_elimination),
        Right("the nearest of a stack", diagnosis_by_norm),
    ],
}

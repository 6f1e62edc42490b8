"""Other right answers to the questions of chapter 09."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.known_right import Right


def pooler_by_loops(states: Tensor, weight: Tensor, bias: Tensor, direction: Tensor) -> Tensor:
    out = states * 0
    for text in range(len(states)):
        for i in range(len(weight)):
            value = torch.tanh(torch.dot(weight[i], states[text, 0]) + bias[i])
            out[text, 0] += direction[i] * (1 - value * value) * weight[i]
    return out


def pooler_by_einsum(states: Tensor, weight: Tensor, bias: Tensor, direction: Tensor) -> Tensor:
    inner = torch.einsum("bh,ih->bi", states[:, 0], weight) + bias
    slope = torch.cosh(inner.double()).pow(-2).to(states.dtype)
    first = torch.einsum("bi,i,ih->bh", slope, direction, weight)
    rest = torch.zeros_like(states[:, 1:])
    return torch.cat([first[:, None], rest], dim=1)


def share_by_loops(norms: Tensor, mask: Tensor) -> Tensor:
    layers, batch, seq = norms.shape
    out = torch.zeros(layers, dtype=norms.dtype)
    for layer in range(layers):
        for text in range(batch):
            real = [float(norms[layer, text, i]) ** 2 for i in range(seq) if mask[text, i]]
            if sum(real) > 0:
                out[layer] += real[0] / sum(real) / batch
    return out


def share_by_where(norms: Tensor, mask: Tensor) -> Tensor:
    power = torch.where(mask.bool(), norms.square(), torch.zeros_like(norms))
    total = torch.einsum("lbs->lb", power)
    safe = torch.where(total > 0, total, torch.ones_like(total))
    return (power.select(-1, 0) / safe).sum(1) / norms.shape[1]


def toy(states: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return (states @ first).tanh().mean(dim=1).pow(2) @ second


def expected_at_once(
    states: Tensor, baselines: Tensor, first: Tensor, second: Tensor, steps: int
) -> Tensor:
    """All lines in one batch."""
    count, seq, hidden = baselines.shape
    places = torch.linspace(0.5 / steps, 1 - 0.5 / steps, steps)
    way = states[None] - baselines
    points = baselines[:, None] + places[None, :, None, None] * way[:, None]
    flat = points.reshape(count * steps, seq, hidden).detach().requires_grad_()
    toy(flat, first, second).sum().backward()
    assert flat.grad is not None
    slopes = flat.grad.view(count, steps, seq, hidden).mean(1)
    return torch.einsum("csh,csh->s", slopes, way) / count


def expected_by_formula(
    states: Tensor, baselines: Tensor, first: Tensor, second: Tensor, steps: int
) -> Tensor:
    """The gradient of the score written out, point by point."""
    shares = torch.zeros(len(states))
    for baseline in baselines:
        for step in range(steps):
            point = baseline + (step + 0.5) / steps * (states - baseline)
            inner = (point @ first).tanh()
            back = 2 * inner.mean(0) * second / len(states)
            slope = (back * (1 - inner**2)) @ first.T
            shares += (slope * (states - baseline)).sum(1) / steps / len(baselines)
    return shares


def rollout_by_loop(attentions: Sequence, start: int, end: int, keep: float) -> Tensor:
    """Text by text, from the top down."""
    batch, heads, seq, _ = attentions[0].shape
    texts = []
    for text in range(batch):
        product = torch.eye(seq)
        for layer in reversed(range(start, end)):
            mixed = sum(attentions[layer][text, h] for h in range(heads)) / heads
            product = product @ (keep * torch.eye(seq) + (1 - keep) * mixed)
        texts.append(product)
    return torch.stack(texts)


def rollout_by_einsum(attentions: Sequence, start: int, end: int, keep: float) -> Tensor:
    seq = attentions[0].shape[-1]
    made = torch.eye(seq).repeat(len(attentions[0]), 1, 1)
    for layer, weights in enumerate(attentions):
        if start <= layer < end:
            made = (
                keep * made
                + (1 - keep) * torch.einsum("bhqk,bkj->bqj", weights, made) / (weights.shape[1])
            )
    return made


def pool_by_lists(states: Tensor, mask: Tensor, special: Tensor) -> Tensor:
    rows = []
    for text, real, extra in zip(states, mask, special, strict=True):
        words = [v for v, a, b in zip(text, real, extra, strict=True) if a and not b]
        rows.append(torch.stack(words).mean(0) if words else torch.zeros_like(text[0]))
    return torch.stack(rows)


def pool_by_einsum(states: Tensor, mask: Tensor, special: Tensor) -> Tensor:
    """Weights that sum to 1; what is not a word is taken out first."""
    words = (mask.long() - special.long()) > 0
    kept = states.masked_fill(~words[..., None], 0)
    share = words / words.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bs,bsh->bh", share.to(states.dtype), kept)


def cosine_by_torch(vectors: Tensor) -> Tensor:
    left = vectors - vectors.mean(0, keepdim=True)
    return torch.cosine_similarity(left[:, None], left[None], dim=-1)


def cosine_in_numpy(vectors: Tensor) -> Tensor:
    x = vectors.double().numpy()
    x = x - x.mean(0)
    gram = x @ x.T
    length = np.sqrt(np.diag(gram))
    return torch.from_numpy(gram / np.outer(length, length)).to(vectors.dtype)


def saliency_with_grad(text: Tensor, first: Tensor, second: Tensor) -> Tensor:
    rows = []
    for label in range(second.shape[1]):
        leaf = text.detach().clone().requires_grad_(True)
        score = (leaf @ first).tanh().mean(0) @ second[:, label]
        (slope,) = torch.autograd.grad(score, leaf)
        rows.append(slope.square().sum(1).sqrt())
    return torch.stack(rows)


def saliency_by_formula(text: Tensor, first: Tensor, second: Tensor) -> Tensor:
    inner = torch.tanh(text @ first)
    slopes = torch.einsum("si,ic,hi->csh", 1 - inner**2, second, first) / len(text)
    return torch.linalg.vector_norm(slopes, dim=2)


def faithful_by_sorting(states: Tensor, maps: dict, first: Tensor, second: Tensor, k: int) -> tuple:
    """All changed texts in one batch."""
    texts = [states]
    for values in maps.values():
        order = sorted(range(len(states)), key=lambda i: -float(values[i]))
        keep = torch.ones(len(states), 1)
        keep[order[:k]] = 0
        texts.append(states * keep)
    scores = toy(torch.stack(texts), first, second).tolist()
    falls = {name: scores[0] - left for name, left in zip(maps, scores[1:], strict=True)}
    return max(falls, key=lambda name: falls[name]), falls


def faithful_by_index_fill(
    states: Tensor, maps: dict, first: Tensor, second: Tensor, k: int
) -> tuple:
    """Figures as tensors of one number."""
    best, falls = "", {}
    for name in maps:
        highest = maps[name].argsort(descending=True)[:k]
        both = torch.stack([states, states.index_fill(0, highest, 0.0)])
        before, after = toy(both, first, second)
        falls[name] = before - after
        best = name if not best or falls[name] > falls[best] else best
    return best, falls


RIGHT: dict[str, list[Any]] = {
    "09.pooler_gradient": [
        Right("loops", pooler_by_loops),
        Right("einsum, one over cosh squared", pooler_by_einsum),
    ],
    "09.cls_share": [Right("loops", share_by_loops), Right("where", share_by_where)],
    "09.expected_gradients": [
        Right("all lines in one batch", expected_at_once),
        Right("the gradient written out", expected_by_formula),
    ],
    "09.rollout_between": [
        Right("text by text, from the top", rollout_by_loop),
        Right("einsum", rollout_by_einsum),
    ],
    "09.word_pool": [Right("lists", pool_by_lists), Right("einsum", pool_by_einsum)],
    "09.centered_cosine": [
        Right("torch's cosine", cosine_by_torch),
        Right("numpy, by the Gram matrix", cosine_in_numpy),
    ],
    "09.saliency_bug": [
        Right("a fresh leaf for each class", saliency_with_grad),
        Right("a formula", saliency_by_formula),
    ],
    "09.most_faithful": [
        Right("all texts in one batch", faithful_by_sorting),
        Right("index_fill, tensors of one number", faithful_by_index_fill),
    ],
}

"""Other right answers to the questions of chapter 05."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.known_right import Right


def pre_norm_by_hand(x: Tensor, weights: dict, num_heads: int) -> Tensor:
    """Everything written out, head by head."""

    def norm(y: Tensor, name: str) -> Tensor:
        y = y - y.mean(-1, keepdim=True)
        y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-12).sqrt()
        return y * weights[name + ".weight"] + weights[name + ".bias"]

    def line(y: Tensor, name: str) -> Tensor:
        return y @ weights[name + ".weight"].T + weights[name + ".bias"]

    y, size = norm(x, "norm1"), x.shape[-1] // num_heads
    heads = []
    for q, k, v in zip(
        *(line(y, n).split(size, -1) for n in ("query", "key", "value")), strict=True
    ):
        heads.append((q @ k.mT / math.sqrt(size)).softmax(-1) @ v)
    x = x + line(torch.cat(heads, -1), "output")
    wide = line(norm(x, "norm2"), "widen")
    return x + line(wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2))), "narrow")


class Layer:
    """An object that is called; its attention by einsum."""

    def __call__(self, x: Tensor, weights: dict, num_heads: int) -> Tensor:
        self.weights = weights
        y = self.norm("norm1", x)
        q, k, v = (self.map(n, y).unflatten(2, (num_heads, -1)) for n in ("query", "key", "value"))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        mixed = torch.einsum("bhqk,bkhd->bqhd", torch.softmax(scores, -1), v)
        middle = self.map("output", mixed.flatten(2)) + x
        return self.map("narrow", F.gelu(self.map("widen", self.norm("norm2", middle)))) + middle

    def map(self, name: str, y: Tensor) -> Tensor:
        return torch.addmm(
            self.weights[name + ".bias"], y.flatten(0, 1), self.weights[name + ".weight"].T
        ).unflatten(0, y.shape[:2])

    def norm(self, name: str, y: Tensor) -> Tensor:
        gain = self.weights[name + ".weight"]
        return F.layer_norm(y, (len(gain),), gain, self.weights[name + ".bias"], 1e-12)


def norm_backward_jacobian(x: Tensor, gain: Tensor, upstream: Tensor, eps: float) -> tuple:
    """The Jacobian of each token, written out."""
    n = x.shape[-1]
    rows, back = x.reshape(-1, n), upstream.reshape(-1, n)
    mean = rows.mean(1, keepdim=True)
    root = ((rows - mean).square().mean(1, keepdim=True) + eps).sqrt()
    unit = (rows - mean) / root
    eye = torch.eye(n, dtype=x.dtype)
    jacobian = (eye - 1 / n - unit[:, :, None] * unit[:, None, :] / n) / root[..., None]
    grad = torch.einsum("tij,ti->tj", jacobian, back * gain)
    return grad.view_as(x), torch.einsum("ti,ti->i", back, unit), back.sum(0)


def norm_backward_sums(x: Tensor, gain: Tensor, upstream: Tensor, eps: float) -> tuple:
    """With sums instead of means, in float64."""
    n, kind = x.shape[-1], x.dtype
    x, g, up = x.double(), (upstream * gain).double(), upstream.double()
    inverse = (x.var(-1, unbiased=False, keepdim=True) + eps).rsqrt()
    unit = (x - x.mean(-1, keepdim=True)) * inverse
    total, along = g.sum(-1, keepdim=True), (g * unit).sum(-1, keepdim=True)
    grad = inverse / n * (n * g - total - unit * along)
    return (
        grad.to(kind),
        (up * unit).reshape(-1, n).sum(0).to(kind),
        up.reshape(-1, n).sum(0).to(kind),
    )


def add_and_norm_by_hand(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    gain: Tensor,
    shift: Tensor,
    p: float,
    training: bool,
) -> Tensor:
    out = x @ weight.T + bias
    if training and p > 0:
        out = out * (torch.rand_like(out) >= p) / (1 - p)
    total = out + residual
    mean = total.mean(-1, keepdim=True)
    spread = (total - mean).square().mean(-1, keepdim=True)
    return gain * (total - mean) / (spread + 1e-12).sqrt() + shift


def add_and_norm_in_place(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    gain: Tensor,
    shift: Tensor,
    p: float,
    training: bool,
) -> Tensor:
    out = nn.Dropout(p).train(training)(F.linear(x, weight, bias)).clone()
    out += residual
    norm = nn.LayerNorm(out.shape[-1], eps=1e-12)
    return torch.func.functional_call(norm, {"weight": gain, "bias": shift}, out)


def stacks() -> list[Any]:
    """Two stacks; the layer of the page is written here once more."""

    class Step(nn.Module):
        def __init__(self, hidden: int):
            super().__init__()
            self.dense = nn.Linear(hidden, hidden)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.dense(x))

    class Appended(nn.Module):
        def __init__(self, hidden: int, layers: int):
            super().__init__()
            self.layers = nn.ModuleList()
            for _ in range(layers):
                self.layers.append(Step(hidden))

        def forward(self, x: Tensor) -> list:
            states = [x.clone()]
            for layer in self.layers:
                states.append(states[-1] + layer(states[-1]))
            return states

    class Sequential(nn.Module):
        def __init__(self, hidden: int, layers: int):
            super().__init__()
            self.layers = nn.Sequential(*[Step(hidden) for _ in range(layers)])

        def forward(self, x: Tensor) -> list:
            return list(itertools.accumulate(self.layers, lambda y, step: y + step(y), initial=x))

    return [Appended, Sequential]


def shared_by_shapes(
    vocab: int, embedding: int, hidden: int, wide: int, positions: int, segments: int, layers: int
) -> int:
    shapes = [(vocab, embedding), (positions, embedding), (segments, embedding)]
    shapes += [(embedding,)] * 2 + [(hidden, embedding), (hidden,)]
    shapes += [(hidden, hidden), (hidden,)] * 4 + [(hidden,)] * 4
    shapes += [(wide, hidden), (wide,), (hidden, wide), (hidden,)]
    shapes += [(hidden, hidden), (hidden,)]
    return sum(math.prod(shape) for shape in shapes)


def shared_factored(
    vocab: int, embedding: int, hidden: int, wide: int, positions: int, segments: int, layers: int
) -> int:
    square = hidden * (hidden + 1)
    return (
        embedding * (vocab + positions + segments + 2)
        + hidden * (embedding + 1)
        + 5 * square
        + 4 * hidden
        + wide * (hidden + 1)
        + hidden * (wide + 1)
    )


def longest_by_bisection(hidden: int, wide: int, share: float) -> int:
    def small_enough(seq: int) -> bool:
        scores = 4 * seq * hidden
        return scores <= share * (8 * hidden**2 + 4 * hidden * wide + scores)

    low, high = 0, 1
    while small_enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if small_enough(middle) else (low, middle)
    return low


def longest_by_division(hidden: int, wide: int, share: float) -> int:
    return int((2 * hidden + wide) * share // (1 - share))


def similarity_by_loops(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    means = []
    for layer in hidden_states:
        texts = []
        for text, mask in zip(layer, attention_mask, strict=True):
            real = text[mask.bool()]
            pairs = [F.cosine_similarity(a, b, dim=0) for a, b in itertools.combinations(real, 2)]
            texts.append(sum(pairs) / len(pairs))
        means.append(sum(texts) / len(texts))
    return torch.stack(means)


def similarity_of_sums(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    """The squared length of the sum of unit vectors holds all pairs."""
    unit = hidden_states / hidden_states.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    total = torch.einsum("lbsh,bs->lbh", unit, attention_mask.to(unit.dtype))
    n = attention_mask.sum(1)
    return ((total.square().sum(-1) - n) / (n.square() - n)).mean(1)


def renamed_by_parts(weights: dict) -> dict:
    out = {}
    for name in weights:
        parts = name.split(".")
        if parts[-1] == "position_ids":
            continue
        if parts[0] == "bert" and len(parts) > 1:
            parts = parts[1:]
        if parts[-1] in ("gamma", "beta"):
            parts[-1] = {"gamma": "weight", "beta": "bias"}[parts[-1]]
        out[".".join(parts)] = weights[name]
    return out


def renamed_by_regex(weights: dict) -> dict:
    import re

    rules = ((r"^bert\.", ""), (r"(^|\.)gamma$", r"\1weight"), (r"(^|\.)beta$", r"\1bias"))
    out = {}
    for name, tensor in weights.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        if not re.search(r"(^|\.)position_ids$", name):
            out[name] = tensor
    return out


def paths_in_a_list(x: Tensor, mixes: Tensor, maps: Tensor) -> Tensor:
    groups = [x]
    for mix, linear in zip(mixes, maps, strict=True):
        through = [mix @ group @ linear for group in groups]
        groups = [
            (groups[k] if k < len(groups) else 0) + (through[k - 1] if k else 0)
            for k in range(len(groups) + 1)
        ]
    return torch.stack([g if isinstance(g, Tensor) else torch.zeros_like(x) for g in groups])


def paths_by_polynomial(x: Tensor, mixes: Tensor, maps: Tensor) -> Tensor:
    """The output is a polynomial in a weight put on each layer: its coefficients are the groups."""
    layers = len(mixes)
    points = np.cos(np.pi * (2 * np.arange(layers + 1) + 1) / (2 * layers + 2))
    outs = []
    for point in points:
        state = x.double()
        for mix, linear in zip(mixes.double(), maps.double(), strict=True):
            state = state + point * (mix @ state @ linear)
        outs.append(state)
    inverse = torch.from_numpy(np.linalg.inv(np.vander(points, increasing=True)))
    return torch.einsum("kp,psh->ksh", inverse, torch.stack(outs)).to(x.dtype)


def saving_from_tables(sizes: dict, options: dict, what: str) -> tuple:
    """Parameters as a sum of shapes, operations as a sum of products."""

    def weigh(s: dict) -> int:
        h, f = s["hidden"], s["wide"]
        if what == "operations":
            seq, per_layer = s["seq"], 0
            for rows, inner, columns in (
                *[(seq, h, h)] * 4,
                (seq, h, f),
                (seq, f, h),
                (seq, h, seq),
                (seq, seq, h),
            ):
                per_layer += 2 * rows * inner * columns
            return per_layer * s["layers"]
        once = (s["vocab"] + s["positions"] + s["segments"] + 2 + h + 1) * h
        layer = 4 * h * (h + 1) + f * (h + 1) + h * (f + 1) + 4 * h
        return once + layer * (s["layers"] if not s.get("shared") else 1)

    before = weigh(sizes)
    shares = {}
    for name in options:
        after = dict(sizes)
        after.update(options[name])
        shares[name] = (before - weigh(after)) / before
    ranked = sorted(shares.items(), key=lambda item: item[1])
    return ranked[-1][0], shares


def saving_by_differences(sizes: dict, options: dict, what: str) -> tuple:
    """What goes, not what is left; the best kept on the way."""
    h, f, layers = (sizes[name] for name in ("hidden", "wide", "layers"))
    block = 4 * h * h + 2 * h * f + f + 9 * h
    rows = sizes["vocab"] + sizes["positions"] + sizes["segments"]
    whole = rows * h + 2 * h + layers * block + h * h + h
    seq = sizes["seq"]
    work = seq * layers * (2 * h + f + seq)
    found, best = {}, ""
    for name, change in options.items():
        new = {**sizes, **change}
        if what == "parameters":
            gone = (rows - new["vocab"] - new["positions"] - new["segments"]) * h
            kept = 1 if "shared" in change and change["shared"] else new["layers"]
            gone += layers * block - kept * (block - (f - new["wide"]) * (2 * h + 1))
            found[name] = gone / whole
        else:
            todo = new["seq"] * new["layers"] * (2 * h + new["wide"] + new["seq"])
            found[name] = (work - todo) / work
        best = name if not best or found[name] > found[best] else best
    return best, found


RIGHT: dict[str, list[Any]] = {
    "05.pre_norm_layer": [
        Right("everything written out", pre_norm_by_hand),
        Right("an object, einsum", Layer()),
    ],
    "05.layer_norm_backward": [
        Right("the Jacobian of each token", norm_backward_jacobian),
        Right("sums in float64", norm_backward_sums),
    ],
    "05.add_and_norm_bug": [
        Right("written out", add_and_norm_by_hand),
        Right("modules, in place on a copy", add_and_norm_in_place),
    ],
    "05.stack_bug": [
        Right("layers appended, a copied input", stacks()[0]),
        Right("a Sequential that is walked through", stacks()[1]),
    ],
    "05.shared_stack_parameters": [
        Right("a list of shapes", shared_by_shapes),
        Right("factored", shared_factored),
    ],
    "05.longest_sequence": [
        Right("bisection", longest_by_bisection),
        Right("division that rounds down", longest_by_division),
    ],
    "05.token_similarity": [
        Right("pairs in loops", similarity_by_loops),
        Right("the length of a sum", similarity_of_sums),
    ],
    "05.rename_google_keys": [
        Right("parts of names", renamed_by_parts),
        Right("regular expressions", renamed_by_regex),
    ],
    "05.path_contributions": [
        Right("groups in a list", paths_in_a_list),
        Right("coefficients of a polynomial", paths_by_polynomial),
    ],
    "05.choose_saving": [
        Right("sums of shapes and of products", saving_from_tables),
        Right("what goes", saving_by_differences),
    ],
}

"""Other right answers to the questions of chapter 11."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.known_right import Right


def through_time_in_place(recurrent: Tensor, states: Tensor, upstream: Tensor) -> Tensor:
    out = torch.empty_like(states)
    out[-1] = upstream
    for t in range(len(states) - 2, -1, -1):
        out[t] = (out[t + 1] * (1 - states[t + 1] * states[t + 1])) @ recurrent
    return out


def through_time_by_jacobians(recurrent: Tensor, states: Tensor, upstream: Tensor) -> Tensor:
    """One matrix a step, multiplied up."""
    steps = torch.einsum("ti,ij->tij", 1 - states[1:].pow(2), recurrent)
    rows, product = [upstream], torch.eye(len(recurrent), dtype=states.dtype)
    for step in reversed(steps):
        product = product @ step
        rows.insert(0, upstream @ product)
    return torch.stack(rows)


def half_by_polyfit(distances: Tensor, norms: Tensor) -> float:
    slope, _ = np.polyfit(distances.double().numpy(), np.log2(norms.double().numpy()), 1)
    return float(-1 / slope)


def half_by_lstsq(distances: Tensor, norms: Tensor) -> Tensor:
    """A line through a matrix of ones and distances; a tensor of one number."""
    x = torch.stack([torch.ones(len(distances)), distances.float()], 1).double()
    line = torch.linalg.lstsq(x, norms.double().log()[:, None]).solution
    return math.log(0.5) / line[1, 0]


def reachable_by_walking(mask: Tensor, layers: int) -> Tensor:
    seq = len(mask)
    out = torch.zeros(seq, seq, dtype=torch.bool)
    for start in range(seq):
        here = {start}
        for _ in range(layers):
            here |= {k for q in here for k in range(seq) if mask[q, k]}
        out[start, list(here)] = True
    return out


def reachable_by_or(mask: Tensor, layers: int) -> Tensor:
    """Step by step, cut to 0 and 1 each time."""
    reached = torch.eye(len(mask))
    for _ in range(layers):
        reached = (reached + mask.float() @ reached).clamp(max=1)
    return reached.bool()


def stack_by_hand(x: Tensor, layers: list) -> Tensor:
    for layer in layers:
        centered = x - x.mean(-1, keepdim=True)
        unit = centered * (centered.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        inner = (unit * layer["gain"] + layer["bias"]) @ layer["wide"]
        x = x + (inner * 0.5 * (1 + torch.erf(inner / 2**0.5))) @ layer["narrow"]
    return x


def stack_by_list(x: Tensor, layers: list) -> Tensor:
    """The sum of the input and all branches."""
    parts = [x]
    for layer in layers:
        total = torch.stack(parts).sum(0)
        gain = layer["gain"]
        normal = torch.nn.functional.layer_norm(total, gain.shape, gain, layer["bias"])
        wide = torch.einsum("bsh,hi->bsi", normal, layer["wide"])
        parts.append(torch.einsum("bsi,ih->bsh", torch.nn.GELU()(wide), layer["narrow"]))
    return torch.stack(parts).sum(0)


def ppmi_by_loops(counts: Tensor, exponent: float = 0.75) -> Tensor:
    table = counts.tolist()
    total = sum(map(sum, table))
    columns = [sum(row[c] for row in table) ** exponent for c in range(len(table[0]))]
    out = []
    for row in table:
        words = sum(row)
        out.append(
            [
                max(0.0, math.log(n * sum(columns) / (words * columns[c]))) if n else 0.0
                for c, n in enumerate(row)
            ]
        )
    assert total
    return torch.tensor(out, dtype=torch.float64)


def ppmi_by_logs(counts: Tensor, exponent: float = 0.75) -> Tensor:
    """Differences of logarithms, seen pairs only; float32 like its input."""
    n = counts.double()
    seen = n > 0
    context = exponent * n.sum(0).log()
    context = context - context.logsumexp(0)
    value = n.clamp(min=1e-300).log() - n.sum(1, keepdim=True).log() - context
    return torch.where(seen, value.clamp(min=0), torch.zeros_like(value))


def offsets_by_loops(gradients: Tensor, places: Tensor, counted: Tensor, reach: int) -> Tensor:
    sums, many = [0.0] * (2 * reach + 1), [0] * (2 * reach + 1)
    for text in range(len(gradients)):
        for token in range(gradients.shape[1]):
            away = token - int(places[text])
            if counted[text, token] and abs(away) <= reach:
                sums[away + reach] += float(gradients[text, token].norm())
                many[away + reach] += 1
    return torch.tensor([s / n if n else 0.0 for s, n in zip(sums, many, strict=True)])


def offsets_by_bincount(gradients: Tensor, places: Tensor, counted: Tensor, reach: int) -> Tensor:
    away = torch.arange(gradients.shape[1]) - places[:, None] + reach
    kept = counted & (away >= 0) & (away <= 2 * reach)
    norms = gradients.square().sum(-1).sqrt()[kept]
    sums = torch.bincount(away[kept], norms, 2 * reach + 1)
    many = torch.bincount(away[kept], minlength=2 * reach + 1)
    return torch.where(many > 0, sums / many.clamp(min=1), 0.0).to(gradients.dtype)


def held_out_by_lists(states: Tensor, labels: Tensor, sentences: Tensor, classes: int) -> float:
    """Rows picked by number; the package's probe."""
    from bertlearn.gradients import fit_probe, probe_accuracy

    test = [i for i, one in enumerate(sentences.tolist()) if one % 5 == 0]
    train = sorted(set(range(len(states))).difference(test))
    probe = fit_probe(states[train], labels[train], classes)
    return probe_accuracy(probe, states[test], labels[test])


def held_out_by_remainder(states: Tensor, labels: Tensor, sentences: Tensor, classes: int) -> float:
    """index_select, and remainders that are not 0."""
    from bertlearn import gradients

    away = torch.remainder(sentences, 5).ne(0).nonzero().flatten()
    here = torch.remainder(sentences, 5).eq(0).nonzero().flatten()
    weights = gradients.fit_probe(
        states.index_select(0, away), labels.index_select(0, away), classes
    )
    return float(gradients.probe_accuracy(weights, states[here], labels[here]))


def shrinks_by_walking(recurrent: Tensor, states: Tensor, upstream: Tensor) -> tuple:
    took, g = {"tanh": 0.0, "matrix": 0.0}, upstream.double()
    for h in states.double().flip(0)[:-1]:
        between = g * (1 - h) * (1 + h)
        after = between @ recurrent.double()
        took["tanh"] += math.log(float(g.norm())) - math.log(float(between.norm()))
        took["matrix"] += math.log(float(between.norm())) - math.log(float(after.norm()))
        g = after
    if took["tanh"] + took["matrix"] <= 0:
        return "neither", took
    return ("tanh" if took["tanh"] > took["matrix"] else "matrix"), took


def shrinks_by_difference(recurrent: Tensor, states: Tensor, upstream: Tensor) -> tuple:
    """All that is lost, less what the slopes take."""
    rows = through_time_in_place(recurrent, states, upstream)
    all_lost = float((rows[-1].norm() / rows[0].norm()).log())
    between = rows[1:] * (1 - states[1:].square())
    tanh = float((rows[1:].norm(dim=1) / between.norm(dim=1)).log().sum())
    figures = {"matrix": all_lost - tanh, "tanh": tanh}
    return ("neither" if all_lost <= 0 else max(figures, key=lambda n: figures[n])), figures


RIGHT: dict[str, list[Any]] = {
    "11.through_time": [
        Right("written into a tensor", through_time_in_place),
        Right("Jacobians multiplied up", through_time_by_jacobians),
    ],
    "11.half_distance": [
        Right("numpy's polyfit, base two", half_by_polyfit),
        Right("least squares by a matrix", half_by_lstsq),
    ],
    "11.reachable": [
        Right("walking with sets", reachable_by_walking),
        Right("cut to 0 and 1 each step", reachable_by_or),
    ],
    "11.pre_norm_bug": [
        Right("written out", stack_by_hand),
        Right("a list of branches", stack_by_list),
    ],
    "11.smoothed_ppmi": [
        Right("loops", ppmi_by_loops),
        Right("differences of logarithms", ppmi_by_logs),
    ],
    "11.by_offset": [
        Right("loops", offsets_by_loops),
        Right("bincount", offsets_by_bincount),
    ],
    "11.held_out_accuracy": [
        Right("rows by number", held_out_by_lists),
        Right("index_select", held_out_by_remainder),
    ],
    "11.what_shrinks": [
        Right("walking back in float64", shrinks_by_walking),
        Right("all that is lost, less the slopes", shrinks_by_difference),
    ],
}

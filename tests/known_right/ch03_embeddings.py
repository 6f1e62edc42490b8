"""Other right answers to the questions of chapter 03."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.known_right import Right


def segments_by_loop(input_ids: Tensor, sep_token_id: int, pad_token_id: int) -> Tensor:
    rows = []
    for row in input_ids.tolist():
        segment, found = 0, []
        for token in row:
            found.append(0 if token == pad_token_id else segment)
            if token == sep_token_id:
                segment = 1
        rows.append(found)
    return torch.tensor(rows)


def segments_by_place(input_ids: Tensor, sep_token_id: int, pad_token_id: int) -> Tensor:
    first = (input_ids == sep_token_id).int().argmax(dim=1, keepdim=True)
    late = torch.arange(input_ids.shape[1])[None] > first
    return torch.where(late & input_ids.ne(pad_token_id), 1, 0)


def nearest_by_sorting(table: Tensor, index: int, k: int) -> Tensor:
    wanted = table[index]
    scored = []
    for i, row in enumerate(table):
        length = float(row.norm())
        cosine = float(row @ wanted) / length / float(wanted.norm()) if length else 0.0
        scored.append((-cosine, i))
    return torch.tensor([i for _, i in sorted(scored) if i != index][:k])


def nearest_in_numpy(table: Tensor, index: int, k: int) -> Tensor:
    rows = table.double().numpy()
    length = np.linalg.norm(rows, axis=1)
    cosine = rows @ rows[index] / np.where(length > 0, length, 1) / length[index]
    others = np.delete(np.arange(len(rows)), index)
    order = np.argsort(-cosine[others], kind="stable")[:k]
    return torch.from_numpy(others[order])


def positions_by_loop(input_ids: Tensor, pad_token_id: int) -> Tensor:
    places = torch.full_like(input_ids, pad_token_id)
    for row, out in zip(input_ids, places, strict=True):
        place = pad_token_id
        for i, token in enumerate(row):
            if token != pad_token_id:
                place += 1
                out[i] = place
    return places


def positions_in_numpy(input_ids: Tensor, pad_token_id: int) -> Tensor:
    real = input_ids.numpy() != pad_token_id
    return torch.from_numpy(np.where(real, real.cumsum(1) + pad_token_id, pad_token_id))


def embed_by_hand(
    input_ids: Tensor, token_type_ids: Tensor, tables: dict, dropout: float
) -> Tensor:
    """LayerNorm and dropout written out."""
    batch, seq = input_ids.shape
    place = torch.arange(seq).expand(batch, seq)
    total = tables["word"][input_ids] + tables["position"][place]
    total = total + tables["token_type"][token_type_ids]
    centered = total - total.mean(-1, keepdim=True)
    unit = centered / (centered.square().mean(-1, keepdim=True) + 1e-12).sqrt()
    out = unit * tables["gain"] + tables["shift"]
    return out * (torch.rand_like(out) >= dropout) / (1 - dropout) if dropout else out


class Embedder(torch.nn.Module):
    """A module, with torch's own lookup."""

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, tables: dict, dropout: float
    ) -> Tensor:
        lookup = torch.nn.functional.embedding
        total = lookup(input_ids, tables["word"]) + lookup(token_type_ids, tables["token_type"])
        total += tables["position"][: input_ids.shape[1]]
        gain, shift = tables["gain"], tables["shift"]
        normal = torch.layer_norm(total, gain.shape, gain, shift, 1e-12)
        return torch.dropout(normal, dropout, True)


def gradient_by_one_hot(input_ids: Tensor, upstream: Tensor, vocab: int, pad: int) -> Tensor:
    one_hot = (input_ids[..., None] == torch.arange(vocab)).to(upstream.dtype)
    one_hot[..., pad] = 0
    return torch.einsum("bsv,bsh->vh", one_hot, upstream)


def gradient_by_loop(input_ids: Tensor, upstream: Tensor, vocab: int, pad: int) -> Tensor:
    rows = torch.zeros(vocab, upstream.shape[2], dtype=torch.float64)
    for sentence, vectors in zip(input_ids.tolist(), upstream, strict=True):
        for token, vector in zip(sentence, vectors, strict=True):
            if token != pad:
                rows[token] += vector
    return rows.to(upstream.dtype)


def shift_by_loops(k: int, hidden_size: int) -> Tensor:
    made = torch.zeros(hidden_size, hidden_size)
    for i in range(0, hidden_size, 2):
        b = k / 10000 ** (i / hidden_size)
        made[i, i] = made[i + 1, i + 1] = math.cos(b)
        made[i, i + 1], made[i + 1, i] = math.sin(b), -math.sin(b)
    return made


def shift_by_exponential(k: int, hidden_size: int) -> Tensor:
    """A turn is the exponential of its speed."""
    speed = torch.zeros(hidden_size, hidden_size, dtype=torch.float64)
    for i in range(0, hidden_size, 2):
        speed[i, i + 1] = 10000 ** (-i / hidden_size)
        speed[i + 1, i] = -speed[i, i + 1]
    return torch.linalg.matrix_exp(k * speed).float()


def factorized_by_hand(input_ids: Tensor, token_type_ids: Tensor, weights: dict) -> Tensor:
    seq = input_ids.shape[1]
    small = torch.stack([weights["position"][i] for i in range(seq)])
    small = small + weights["word"][input_ids] + weights["token_type"][token_type_ids]
    mean = small.mean(-1, keepdim=True)
    spread = small.var(-1, keepdim=True, correction=0)
    small = (small - mean) * (spread + 1e-12).rsqrt() * weights["gain"] + weights["shift"]
    return torch.einsum("bse,he->bsh", small, weights["projection"]) + weights["bias"]


def parameters_summed(
    vocab_size: int, num_positions: int, num_segments: int, hidden_size: int, embedding_size: int
) -> int:
    shapes = [(rows, embedding_size) for rows in (vocab_size, num_positions, num_segments)]
    shapes += [(embedding_size, 1), (embedding_size, 1)]
    shapes += [(hidden_size, embedding_size), (hidden_size, 1)]
    return sum(a * b for a, b in shapes)


def factorized_late(input_ids: Tensor, token_type_ids: Tensor, weights: dict) -> Tensor:
    """Normalized in float64, and cast back."""
    ids = input_ids
    total = weights["word"].index_select(0, ids.flatten()).view(*ids.shape, -1).double()
    total += weights["position"][None, : ids.shape[1]] + weights["token_type"][token_type_ids]
    normal = torch.nn.functional.layer_norm(total, total.shape[-1:], eps=1e-12)
    normal = (normal * weights["gain"] + weights["shift"]).float()
    return normal @ weights["projection"].mT + weights["bias"]


def parameters_factored(
    vocab_size: int, num_positions: int, num_segments: int, hidden_size: int, embedding_size: int
) -> int:
    rows = vocab_size + num_positions + num_segments + 2 + hidden_size
    return rows * embedding_size + hidden_size


def stretch_row_by_row(table: Tensor, n: int) -> Tensor:
    rows = []
    last = len(table) - 1
    for r in range(n):
        at = r * last / (n - 1)
        low = min(int(at), last - 1)
        rows.append(torch.lerp(table[low], table[low + 1], at - low))
    return torch.stack(rows)


def stretch_by_hats(table: Tensor, n: int) -> Tensor:
    """A matrix of hat functions."""
    at = torch.linspace(0, len(table) - 1, n, dtype=torch.float64)[:, None]
    hats = (1 - (at - torch.arange(len(table))).abs()).clamp(min=0)
    return (hats @ table.double()).to(table.dtype)


def share_by_loops(table: Tensor) -> float:
    rows = table.double()
    unit = rows / rows.norm(dim=1, keepdim=True)
    product = unit @ unit.T
    groups = [product.diagonal(d) for d in range(1, len(table))]
    everything = torch.cat(groups)
    inside = sum(float(((g - g.mean()) ** 2).sum()) for g in groups)
    return 1 - inside / float(((everything - everything.mean()) ** 2).sum())


def share_in_numpy(table: Tensor) -> float:
    x = table.numpy().astype(np.float64)
    x = x / np.sqrt((x * x).sum(1, keepdims=True))
    i, j = np.triu_indices(len(x), 1)
    cosine = np.einsum("nh,nh->n", x[i], x[j])
    mean = np.bincount(j - i, cosine)[1:] / np.bincount(j - i)[1:]
    between = (mean[j - i - 1] - cosine.mean()) ** 2
    return float(between.sum() / ((cosine - cosine.mean()) ** 2).sum())


def width_by_search(
    vocab_size: int, num_positions: int, num_segments: int, hidden_size: int, budget: int
) -> tuple:
    """Every width tried, the widest first."""
    sizes = (vocab_size, num_positions, num_segments, hidden_size)
    figures = {"plain": (sum(sizes[:3]) + 2) * hidden_size, "width": 0, "factorized": 0}
    for width in range(hidden_size, 0, -1):
        cost = parameters_summed(*sizes, width)
        if cost <= budget:
            figures["width"], figures["factorized"] = width, cost
            break
    if figures["plain"] <= budget:
        return "plain", figures
    return ("factorized" if figures["width"] else "neither"), figures


def width_by_halving(
    vocab_size: int, num_positions: int, num_segments: int, hidden_size: int, budget: int
) -> tuple:
    """Bisection between 0 and hidden_size."""

    def cost(width: int) -> int:
        sizes = (vocab_size, num_positions, num_segments, hidden_size, width)
        return parameters_factored(*sizes) if width else 0

    low, high = 0, hidden_size + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    plain = hidden_size * (vocab_size + num_positions + num_segments) + hidden_size * 2
    choice = "plain" if budget >= plain else ("neither", "factorized")[low > 0]
    return choice, {"factorized": cost(low), "plain": plain, "width": low}


RIGHT: dict[str, list[Any]] = {
    "03.segment_ids": [
        Right("a loop in plain Python", segments_by_loop),
        Right("the first [SEP] by argmax", segments_by_place),
    ],
    "03.nearest": [
        Right("sorted pairs", nearest_by_sorting),
        Right("numpy, float64", nearest_in_numpy),
    ],
    "03.position_ids": [
        Right("a loop that writes into its own copy", positions_by_loop),
        Right("numpy", positions_in_numpy),
    ],
    "03.embedding_bug": [
        Right("LayerNorm and dropout written out", embed_by_hand),
        Right("a module with torch's lookup", Embedder()),
    ],
    "03.token_table_gradient": [
        Right("one-hot vectors and einsum", gradient_by_one_hot),
        Right("a loop in float64", gradient_by_loop),
    ],
    "03.shift_matrix": [
        Right("four entries a pair", shift_by_loops),
        Right("the exponential of a matrix", shift_by_exponential),
    ],
    "03.factorized": [
        Right("LayerNorm written out, einsum", (factorized_by_hand, parameters_summed)),
        Right("in float64, and cast back", (factorized_late, parameters_factored)),
    ],
    "03.stretch_positions": [
        Right("row by row", stretch_row_by_row),
        Right("a matrix of hat functions", stretch_by_hats),
    ],
    "03.distance_share": [
        Right("diagonals in a loop", share_by_loops),
        Right("numpy, the variance between groups", share_in_numpy),
    ],
    "03.choose_width": [
        Right("every width tried", width_by_search),
        Right("bisection", width_by_halving),
    ],
}

"""Other right answers to the questions of chapter 07."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.known_right import Right


def batch_with_pad_sequence(pairs: list, max_length: int, cls: int, sep: int, pad: int) -> tuple:
    """Lengths computed instead of popped, rows padded by torch."""
    from torch.nn.utils.rnn import pad_sequence

    rows, kinds = [], []
    for first, second in pairs:
        m, n = len(first), len(second)
        while m + n + 3 > max_length:
            m, n = (m - 1, n) if m > n else (m, n - 1)
        rows.append(torch.tensor([cls, *first[:m], sep, *second[:n], sep]))
        kinds.append(torch.tensor([0] * (m + 2) + [1] * (n + 1)))
    ids = pad_sequence(rows, batch_first=True, padding_value=pad)
    segments = pad_sequence(kinds, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return ids, segments, mask


def batch_written_in(pairs: list, max_length: int, cls: int, sep: int, pad: int) -> tuple:
    """Three full tensors that are written into and cut at the end."""
    width = max(len(a) + len(b) + 3 for a, b in pairs)
    ids = torch.full((len(pairs), width), pad)
    segments, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (first, second) in enumerate(pairs):
        a, b = first[:], second[:]
        for _ in range(len(a) + len(b) + 3 - max_length):
            longer = a if len(a) > len(b) else b
            del longer[-1]
        text = [cls] + a + [sep] + b + [sep]
        ids[row, : len(text)] = torch.tensor(text)
        segments[row, len(a) + 2 : len(text)] = 1
        mask[row, : len(text)] = 1
    longest = int(mask.sum(1).max())
    return ids[:, :longest], segments[:, :longest], mask[:, :longest]


def share_by_recursion(sentences: int, per_row: int) -> float:
    @functools.cache
    def count(left: int) -> tuple[float, float]:
        if not left:
            return 0.0, 0.0
        size = min(left, per_row)
        if size == 1:
            pairs, chance = count(left - 1)
            return pairs + 1, chance + 1
        after = [count(left - size)] * (size - 1) + [count(left - cut) for cut in range(1, size)]
        half = 2 * (size - 1)
        return 1 + sum(a for a, _ in after) / half, 0.5 + sum(b for _, b in after) / half

    for left in range(sentences):
        count(left)
    pairs, chance = count(sentences)
    return chance / pairs


def share_by_visits(sentences: int, per_row: int) -> float:
    """How likely it is that a row begins at each place."""
    begins = [0.0] * (sentences + per_row + 1)
    begins[0] = 1.0
    pairs = chance = 0.0
    for place in range(sentences):
        here, size = begins[place], min(sentences - place, per_row)
        pairs += here
        if size == 1:
            chance += here
            begins[place + 1] += here
        else:
            chance += here / 2
            begins[place + size] += here / 2
            for cut in range(1, size):
                begins[place + cut] += here / 2 / (size - 1)
    return chance / pairs


def three_by_iterators(documents: list, labels: list, draws: list) -> list:
    order = iter(zip(labels, draws, strict=False))
    found = []
    for index in range(len(documents)):
        elsewhere = sum(documents[:index] + documents[index + 1 :], [])
        for place in range(1, len(documents[index])):
            before, after = documents[index][place - 1 : place + 1]
            label, draw = next(order)
            if label == 0:
                found.append((before, after, 0))
            elif label == 1:
                found.append((after, before, 1))
            else:
                found.append((before, elsewhere[draw % len(elsewhere)], 2))
    return found


def three_by_numbers(documents: list, labels: list, draws: list) -> list:
    """All neighbors first, as places in one long row."""
    row = [(home, text) for home, document in enumerate(documents) for text in document]
    places = [i for i in range(len(row) - 1) if row[i][0] == row[i + 1][0]]
    out = []
    for n, i in enumerate(places):
        others = [text for home, text in row if home != row[i][0]]
        far = others[draws[n] % len(others)]
        pair = {0: (row[i][1], row[i + 1][1]), 1: (row[i + 1][1], row[i][1]), 2: (row[i][1], far)}
        out.append(pair[labels[n]] + (labels[n],))
    return out


def negatives_by_loop(vectors: Tensor, home: Tensor) -> Tensor:
    found = []
    for i, vector in enumerate(vectors):
        best, where = -math.inf, -1
        for j, other in enumerate(vectors):
            if home[i] != home[j]:
                cosine = float(torch.cosine_similarity(vector, other, dim=0))
                if cosine > best:
                    best, where = cosine, j
        found.append(where)
    return torch.tensor(found)


def negatives_in_numpy(vectors: Tensor, home: Tensor) -> Tensor:
    x, h = vectors.double().numpy(), home.numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = np.where(np.equal.outer(h, h), -9.0, x @ x.T)
    return torch.from_numpy(np.where(cosine.max(1) < -2, -1, cosine.argmax(1)))


def majority_in_numpy(predicted: Tensor, labels: Tensor) -> tuple:
    p, y = predicted.numpy(), labels.numpy()
    guess = 1 if y.mean() > 0.5 else 0
    gain = (p == y).astype(float) - (y == guess)
    middle, error = gain.mean(), 1.96 * gain.std() / np.sqrt(len(y))
    return tuple(
        float(v) for v in ((p == y).mean(), (y == guess).mean(), middle - error, middle + error)
    )


def majority_by_counting(predicted: Tensor, labels: Tensor) -> tuple:
    """Only three kinds of examples: won, lost, neither."""
    rows = list(zip(predicted.tolist(), labels.tolist(), strict=True))
    n, ones = len(rows), sum(y for _, y in rows)
    guess = int(ones > n - ones)
    won = sum(p == y != guess for p, y in rows)
    lost = sum(p != y == guess for p, y in rows)
    right = sum(p == y for p, y in rows)
    mean = (won - lost) / n
    error = math.sqrt(((won + lost) / n - mean**2) / n)
    return right / n, max(ones, n - ones) / n, mean - 1.96 * error, mean + 1.96 * error


def sampler_from_others(documents: list, coins: list, draws: list) -> list:
    """The other documents as a list of their own."""
    found: list = []
    for index, document in enumerate(documents):
        others = [d for number, d in enumerate(documents) if number != index]
        for a, b in zip(document[:-1], document[1:], strict=True):
            n = len(found)
            if coins[n]:
                other = others[draws[n] % len(others)]
                found.append((a, other[draws[n] % len(other)], 1))
            else:
                found.append((a, b, 0))
    return found


def sampler_turned(documents: list, coins: list, draws: list) -> list:
    """Numbers of the others by a sum of ranges."""
    total = len(documents)
    pairs = [(i, j) for i in range(total) for j in range(len(documents[i]) - 1)]
    out = []
    for (i, j), coin, draw in zip(pairs, coins, draws, strict=False):
        b = documents[i][j + 1]
        if coin:
            home = documents[[*range(i), *range(i + 1, total)][draw % (total - 1)]]
            b = home[draw % len(home)]
        out.append((documents[i][j], b, 1 if coin else 0))
    return out


def shortcut_by_signs(features: dict, labels: Tensor, fit: int) -> tuple:
    """The side of 1 as a sign that multiplies."""
    y = 2 * labels.double() - 1
    majority = 1.0 if labels[:fit].sum() * 2 > fit else -1.0
    figures = {"majority": float((y[fit:] == majority).double().mean())}
    best = None
    for name, x in features.items():
        x = x.double()
        high, low = x[:fit][y[:fit] > 0].mean(), x[:fit][y[:fit] < 0].mean()
        # A number on the threshold itself is not above it.
        above = torch.where(x[fit:] > (high + low) / 2, 1.0, -1.0)
        says = above * (1.0 if high > low else -1.0)
        figures[name] = float((says * y[fit:] > 0).double().mean())
        if best is None or figures[name] > figures[best]:
            best = name
    p, m = figures["majority"], len(y) - fit
    beats = figures[best] - p > 2 * math.sqrt(p * (1 - p)) / math.sqrt(m)
    return (best if beats else "none"), figures


def shortcut_in_numpy(features: dict, labels: Tensor, fit: int) -> tuple:
    y = labels.numpy().astype(bool)
    made, asked = y[:fit], y[fit:]
    figures = {}
    for name in features:
        x = features[name].numpy()
        ends = [x[:fit][made == side].mean(dtype=np.float64) for side in (False, True)]
        above = x[fit:] > sum(ends) / 2
        figures[name] = float(np.mean((above == asked) if ends[1] > ends[0] else (above != asked)))
    common = np.count_nonzero(made) > fit / 2
    p = float(np.mean(asked == common))
    best = max(figures, key=lambda name: figures[name])
    if figures[best] <= p + 2 * np.sqrt(p * (1 - p) / len(asked)):
        best = "none"
    figures["majority"] = p
    return best, figures


RIGHT: dict[str, list[Any]] = {
    "07.pair_batch": [
        Right("lengths computed, padded by torch", batch_with_pad_sequence),
        Right("written into full tensors", batch_written_in),
    ],
    "07.share_random": [
        Right("memoized recursion", share_by_recursion),
        Right("how likely a row begins at each place", share_by_visits),
    ],
    "07.three_way": [
        Right("an iterator of draws", three_by_iterators),
        Right("one long row of sentences", three_by_numbers),
    ],
    "07.hard_negatives": [
        Right("two loops", negatives_by_loop),
        Right("numpy, float64", negatives_in_numpy),
    ],
    "07.against_majority": [
        Right("numpy", majority_in_numpy),
        Right("counts of won and lost", majority_by_counting),
    ],
    "07.sampler_bug": [
        Right("a list of the others", sampler_from_others),
        Right("numbers of the others", sampler_turned),
    ],
    "07.find_shortcut": [
        Right("signs", shortcut_by_signs),
        Right("numpy", shortcut_in_numpy),
    ],
}

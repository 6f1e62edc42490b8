"""Other right answers to the questions of chapter 10."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections import defaultdict
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.known_right import Right


def seams_by_walking(tokens: int, room: int, stride: int) -> tuple:
    windows, end = 1, room
    while end < tokens:
        windows, end = windows + 1, end + stride
    return windows, tokens if windows == 1 else room - stride + 1


def seams_by_negation(tokens: int, room: int, stride: int) -> tuple:
    more = max(0, -(-(tokens - room) // stride))
    return 1 + more, (room + 1 - stride) if more else tokens


def labels_by_groups(tags: list, word_ids: list) -> list:
    out: list[str] = []
    for word, places in itertools.groupby(word_ids):
        count = len(list(places))
        if word == -1:
            out += [""] * count
        else:
            later = tags[word] if tags[word] == "O" else tags[word].replace("B-", "I-", 1)
            out += [tags[word]] + [later] * (count - 1)
    return out


def labels_by_sets(tags: list, word_ids: list) -> list:
    begun: set[int] = set()
    out = []
    for word in word_ids:
        tag = "" if word < 0 else tags[word]
        if word in begun and tag[:1] == "B":
            tag = "I" + tag[1:]
        begun.add(word)
        out.append(tag)
    return out


def path_by_trying(scores: Tensor, allowed: Tensor, first: Tensor) -> list:
    """Sets of best paths, one for each last tag."""
    rows, may = scores.tolist(), allowed.tolist()
    best = {tag: (rows[0][tag], [tag]) for tag in range(len(may)) if first[tag]}
    for row in rows[1:]:
        best = {
            tag: max(
                (total + row[tag], [*path, tag])
                for before, (total, path) in best.items()
                if may[before][tag]
            )
            for tag in range(len(may))
            if any(may[before][tag] for before in best)
        }
    return max(best.values())[1]


def path_from_the_end(scores: Tensor, allowed: Tensor, first: Tensor) -> list:
    """Backwards: the best that can still come after each tag."""
    barrier = torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, -torch.inf)
    to_come = [torch.zeros(len(allowed), dtype=torch.float64)]
    for row in scores.double().flip(0)[:-1]:
        to_come.append((barrier + row + to_come[-1]).amax(1))
    to_come.reverse()
    start = scores[0].double().masked_fill(first.logical_not(), -torch.inf)
    path = [int((start + to_come[0]).argmax())]
    for row, rest in zip(scores.double()[1:], to_come[1:], strict=True):
        path.append(int((barrier[path[-1]] + row + rest).argmax()))
    return path


def sign_exact(a: list, b: list) -> float:
    """Fractions, from the smaller side."""
    apart = [x for x, y in zip(a, b, strict=True) if x != y]
    fewer = min(sum(apart), len(apart) - sum(apart))
    tail = Fraction(sum(math.comb(len(apart), k) for k in range(fewer + 1)), 2 ** len(apart))
    return float(min(Fraction(1), 2 * tail))


def sign_by_tossing(a: list, b: list) -> float:
    """The distribution of heads, toss by toss."""
    wins = sum(1 for x, y in zip(a, b, strict=True) if x and not y)
    losses = sum(1 for x, y in zip(a, b, strict=True) if y and not x)
    heads = [1.0]
    for _ in range(wins + losses):
        heads = [x / 2 + y / 2 for x, y in zip([*heads, 0.0], [0.0, *heads], strict=True)]
    limit = max(wins, losses)
    return min(1.0, sum(heads[limit:]) * 2)


def split_by_search(texts: list, groups: list, share: float, seed: int) -> list:
    """Connected parts found by walking from row to row."""
    tied: dict[tuple, set[int]] = defaultdict(set)
    keys = [
        (("text", " ".join(t.lower().split())), ("group", g))
        for t, g in zip(texts, groups, strict=True)
    ]
    for row, pair in enumerate(keys):
        for key in pair:
            tied[key].add(row)
    parts, seen = [], set()
    for row in range(len(texts)):
        if row in seen:
            continue
        part, waiting = set(), [row]
        while waiting:
            one = waiting.pop()
            if one not in part:
                part.add(one)
                waiting += [other for key in keys[one] for other in tied[key]]
        seen |= part
        parts.append(sorted(part))
    random.Random(seed * 7 + 1).shuffle(parts)
    test: list[int] = []
    while parts and len(test) < share * len(texts):
        test.extend(parts.pop())
    return sorted(test)


def split_by_merging(texts: list, groups: list, share: float, seed: int) -> list:
    """Labels merged until nothing changes, the order by torch."""
    plain = [" ".join(text.casefold().split()) for text in texts]
    label = list(range(len(texts)))
    changed = True
    while changed:
        changed = False
        for names in (plain, groups):
            lowest: dict[str, int] = {}
            for name, one in zip(names, label, strict=True):
                lowest[name] = min(lowest.get(name, one), one)
            new = [lowest[name] for name in names]
            changed, label = changed or new != label, new
    roots = sorted(set(label))
    order = torch.randperm(len(roots), generator=torch.Generator().manual_seed(seed)).tolist()
    test: list[int] = []
    for one in order:
        if len(test) >= share * len(texts):
            break
        test += [row for row, home in enumerate(label) if home == roots[one]]
    return test


def threshold_between(gaps: list, f1: list, has: list) -> tuple:
    """Thresholds between neighbors, and one beyond each end."""
    order = sorted(set(gaps))
    tried = [order[0] - 1, *((a + b) / 2 for a, b in itertools.pairwise(order)), order[-1] + 1]
    best = (-1.0, 0.0)
    for t in tried:
        points = [
            (not yes) * 1.0 if gap > t else score
            for gap, score, yes in zip(gaps, f1, has, strict=True)
        ]
        best = max(best, (statistics.fmean(points), t))
    return best[1], best[0]


def threshold_by_sweep(gaps: list, f1: list, has: list) -> tuple:
    """Sorted once; speaking is allowed to one question after the other."""
    order = sorted(range(len(gaps)), key=gaps.__getitem__)
    total = float(sum(not yes for yes in has))
    best, where = total, gaps[order[0]] - 1
    for place, i in enumerate(order):
        total += f1[i] - (not has[i])
        last = place + 1 == len(order) or gaps[order[place + 1]] != gaps[i]
        if last and total > best:
            best, where = total, gaps[i]
    return where, best / len(gaps)


def rates_from_the_top(layers: int, step: int, rate: float, decay: float, every: int) -> list:
    rates: list[float] = []
    now = rate
    for above in range(layers + 2):
        rates.insert(0, now if above == 0 or step >= every * above else 0.0)
        now *= decay
    return rates


def rates_by_tensor(layers: int, step: int, rate: float, decay: float, every: int) -> list:
    above = torch.arange(layers + 1, -1, -1, dtype=torch.float64)
    return (rate * decay**above * (step >= above * every)).tolist()


def loss_by_torch(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weights, ignore_index=-100)


def loss_by_picking(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    asked = labels != -100
    rows, own = logits[asked], labels[asked]
    each = rows.logsumexp(1) - rows[torch.arange(len(own)), own]
    return torch.dot(each, weights[own]) / weights[own].sum()


def setting_by_statistics(scores: dict, cost: dict) -> tuple:
    figures = {name: statistics.fmean(values) for name, values in scores.items()}
    top = sorted(figures, key=lambda name: figures[name])[-1]
    error = statistics.stdev(scores[top]) / len(scores[top]) ** 0.5
    for name in sorted(cost, key=lambda name: cost[name]):
        if figures[name] + error >= figures[top]:
            return name, {**figures, "error": error}
    raise AssertionError


def setting_by_tensor(scores: dict, cost: dict) -> tuple:
    names = list(scores)
    means = torch.stack([torch.tensor(scores[n], dtype=torch.float64).mean() for n in names])
    best = torch.tensor(scores[names[int(means.argmax())]], dtype=torch.float64)
    error = (best.var() / len(best)).sqrt()
    price = torch.tensor([cost[n] for n in names])
    price[means < means.max() - error] = torch.inf
    figures = dict(zip([*names, "error"], [*means, error], strict=True))
    return names[int(price.argmin())], figures


RIGHT: dict[str, list[Any]] = {
    "10.seams": [
        Right("walking from window to window", seams_by_walking),
        Right("rounding up by negation", seams_by_negation),
    ],
    "10.spread_labels": [
        Right("groups of pieces", labels_by_groups),
        Right("a set of words begun", labels_by_sets),
    ],
    "10.best_path": [
        Right("whole paths, in dictionaries", path_by_trying),
        Right("backwards, in float64", path_from_the_end),
    ],
    "10.sign_test": [
        Right("fractions", sign_exact),
        Right("toss by toss", sign_by_tossing),
    ],
    "10.split_groups": [
        Right("walking from row to row", split_by_search),
        Right("labels merged, torch's order", split_by_merging),
    ],
    "10.best_threshold": [
        Right("between neighbors", threshold_between),
        Right("one sweep", threshold_by_sweep),
    ],
    "10.thawing_rates": [
        Right("from the top", rates_from_the_top),
        Right("a tensor", rates_by_tensor),
    ],
    "10.loss_bug": [
        Right("torch's own", loss_by_torch),
        Right("labelled tokens picked first", loss_by_picking),
    ],
    "10.choose_setting": [
        Right("the statistics module", setting_by_statistics),
        Right("tensors", setting_by_tensor),
    ],
}

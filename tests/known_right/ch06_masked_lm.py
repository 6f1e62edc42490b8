"""Other right answers to the questions of chapter 06."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.known_right import Right


def spans_as_list(
    allowed: Tensor,
    rng: torch.Generator,
    rate: float = 0.15,
    shares: Sequence[float] = (0.4, 0.3, 0.2, 0.1),
) -> Tensor:
    """In plain lists; the length by comparing one number with sums of shares."""
    free = allowed.tolist()
    left = max(1, round(rate * sum(free)))
    hidden = [False] * len(free)
    while left:
        places = [i for i, one in enumerate(free) if one]
        at = places[int(torch.randint(len(places), (), generator=rng))]
        draw, length, total = float(torch.rand((), generator=rng)), 1, shares[0]
        while draw > total and length < len(shares):
            total += shares[length]
            length += 1
        for place in range(at, at + length):
            if not left or place >= len(free) or not free[place]:
                break
            free[place], hidden[place] = False, True
            left -= 1
    return torch.tensor(hidden)


def spans_by_permutation(
    allowed: Tensor,
    rng: torch.Generator,
    rate: float = 0.15,
    shares: Sequence[float] = (0.4, 0.3, 0.2, 0.1),
) -> Tensor:
    """The place by multinomial over what is free."""
    hidden = torch.zeros_like(allowed)
    budget = max(1, round(rate * allowed.sum().item()))
    while int(hidden.sum()) < budget:
        free = (allowed & ~hidden).float()
        start = int(torch.multinomial(free, 1, generator=rng))
        length = int(torch.multinomial(torch.tensor(shares), 1, generator=rng)) + 1
        length = min(length, budget - int(hidden.sum()))
        run = free[start : start + length].cumprod(0).bool()
        hidden[start : start + length] |= run
    return hidden


def coverage_by_steps(rate: float, epochs: int, copies: int | None) -> float:
    untouched = 1.0
    for epoch in range(epochs):
        if copies is None or epoch < copies:
            untouched *= 1 - rate
    return 1 - untouched


def coverage_by_logs(rate: float, epochs: int, copies: int | None) -> float:
    masks = epochs if copies is None or copies > epochs else copies
    return -math.expm1(masks * math.log1p(-rate)) if rate < 1 else float(masks > 0)


def groups_by_ends(tokens: list, words: list) -> list:
    """Ends of words and of tokens, as counts of characters."""
    bounds, total = [], 0
    for word in words:
        total += len(word)
        bounds.append(total)
    groups: list[list[int]] = [[] for _ in words]
    seen = word = 0
    for place, token in enumerate(tokens):
        while seen >= bounds[word]:
            word += 1
        groups[word].append(place)
        seen += len(re.sub("^##", "", token))
    return groups


def groups_by_spelling(tokens: list, words: list) -> list:
    """Spelling each word with the tokens that come."""
    coming = iter(enumerate(tokens))
    found = []
    for word in words:
        spelled, places = "", []
        while spelled != word:
            place, token = next(coming)
            spelled += token[2:] if token.startswith("##") else token
            places.append(place)
        found.append(places)
    return found


def blanks_by_loop(ids: Tensor, mask_id: int, special_ids: Sequence[int]) -> Tensor:
    rows = []
    for place, token in enumerate(ids.tolist()):
        if token not in special_ids:
            row = ids.clone()
            row[place] = mask_id
            rows.append(row)
    return torch.stack(rows)


def score_by_loop(logits: Tensor, ids: Tensor, special_ids: Sequence[int]) -> float:
    total, row = 0.0, 0
    for place, token in enumerate(ids.tolist()):
        if token not in special_ids:
            scores = logits[row, place].double()
            total += float(scores[token] - scores.logsumexp(0))
            row += 1
    return total


def blanks_by_where(ids: Tensor, mask_id: int, special_ids: Sequence[int]) -> Tensor:
    keep = torch.tensor([token not in set(special_ids) for token in ids.tolist()])
    eye = torch.eye(len(ids), dtype=torch.bool)[keep]
    return torch.where(eye, torch.full_like(ids, mask_id), ids)


def score_by_cross_entropy(logits: Tensor, ids: Tensor, special_ids: Sequence[int]) -> Tensor:
    keep = torch.tensor([token not in set(special_ids) for token in ids.tolist()])
    places = torch.arange(len(ids))[keep]
    own = logits.gather(1, places[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]
    return -F.cross_entropy(own, ids[keep], reduction="sum")


def unigram_by_counter(
    train: Tensor, test: Tensor, vocab_size: int, special_ids: Sequence[int]
) -> float:
    special = set(special_ids)
    seen = Counter(x for x in train.flatten().tolist() if x not in special)
    total = sum(seen.values()) + vocab_size - len(special)
    asked = [x for x in test.flatten().tolist() if x not in special]
    return sum(math.log(total / (seen[x] + 1)) for x in asked) / len(asked)


def unigram_by_cross_entropy(
    train: Tensor, test: Tensor, vocab_size: int, special_ids: Sequence[int]
) -> float:
    """Counts as logits: the softmax of a logarithm divides by the sum."""
    scores = torch.ones(vocab_size, dtype=torch.float64)
    scores.scatter_add_(0, train.reshape(-1), torch.ones(train.numel(), dtype=torch.float64))
    scores = scores.log().index_fill(0, torch.tensor(list(special_ids)), -math.inf)
    words = test.reshape(-1)
    for one in special_ids:
        words = words[words != one]
    return float(F.cross_entropy(scores.expand(len(words), -1), words))


def break_even_by_secant(
    hidden: int, layers: int, intermediate: int, seq: int, rate: float
) -> float:
    """The difference is a line in the vocabulary: two points give its zero."""

    def gap(vocab: float) -> float:
        encoder = layers * (8 * hidden**2 + 4 * hidden * intermediate + 4 * seq * hidden)
        return rate * 2 * hidden * (hidden + vocab) - encoder

    return -gap(0.0) / (gap(1.0) - gap(0.0))


def break_even_divided(hidden: int, layers: int, intermediate: int, seq: int, rate: float) -> float:
    return layers * (4 * hidden + 2 * intermediate + 2 * seq) / rate - hidden


def masked_loss_by_indexing(logits: Tensor, labels: Tensor) -> Tensor:
    asked = labels != -100
    if not asked.any():
        return logits.sum() * 0
    return F.cross_entropy(logits[asked], labels[asked])


def masked_loss_by_log_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    asked = (labels != -100).to(logits.dtype)
    picked = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return -(picked * asked).sum() / max(float(asked.sum()), 1.0)


def model_by_loop(text: str, runs: dict) -> tuple:
    letters = 0
    for sign in text:
        if not sign.isspace():
            letters += 1
    found, best = {}, ""
    for name, (tokens, losses) in runs.items():
        found[name] = math.inf
        if tokens.count("[UNK]") == 0:
            found[name] = math.fsum(losses) / letters
        if not best or found[name] < found[best]:
            best = name
    return best, found


def model_by_tensor(text: str, runs: dict) -> tuple:
    letters = len(re.sub(r"\s", "", text))
    names = list(runs)
    sums = torch.tensor([sum(runs[name][1]) for name in names], dtype=torch.float64) / letters
    sums[torch.tensor(["[UNK]" in runs[name][0] for name in names])] = torch.inf
    return names[int(sums.argmin())], dict(zip(names, sums, strict=True))


RIGHT: dict[str, list[Any]] = {
    "06.choose_spans": [
        Right("plain lists, one number for the length", spans_as_list),
        Right("places by multinomial", spans_by_permutation),
    ],
    "06.coverage": [
        Right("epoch by epoch", coverage_by_steps),
        Right("logarithms", coverage_by_logs),
    ],
    "06.word_groups": [
        Right("ends of words", groups_by_ends),
        Right("spelling each word", groups_by_spelling),
    ],
    "06.pseudo_log_likelihood": [
        Right("loops", (blanks_by_loop, score_by_loop)),
        Right("where, gather, cross entropy", (blanks_by_where, score_by_cross_entropy)),
    ],
    "06.unigram_loss": [
        Right("a Counter", unigram_by_counter),
        Right("cross entropy of counts", unigram_by_cross_entropy),
    ],
    "06.break_even_vocab": [
        Right("the zero of a line", break_even_by_secant),
        Right("divided by 2h", break_even_divided),
    ],
    "06.masked_loss_bug": [
        Right("targets picked first", masked_loss_by_indexing),
        Right("log-softmax and gather", masked_loss_by_log_softmax),
    ],
    "06.choose_model": [
        Right("a loop that keeps the best", model_by_loop),
        Right("figures as tensors", model_by_tensor),
    ],
}

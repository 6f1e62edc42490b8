"""Other right answers to the question of project 92."""

from __future__ import annotations

import bisect
import itertools
import random
from typing import Any

import torch
from torch import Tensor

from tests.known_right import Right


def by_lists(
    ids: Tensor,
    rng: torch.Generator,
    *,
    vocab_size: int,
    mask_id: int,
    special_ids: Any,
    rate: float = 0.15,
    shares: Any = (0.4, 0.3, 0.2, 0.1),
) -> tuple[Tensor, Tensor]:
    """Python's lists and sets, and its random numbers, seeded from rng."""
    dice = random.Random(int(torch.randint(1 << 62, (1,), generator=rng)))
    special = set(special_ids)
    words = [word for word in range(vocab_size) if word not in special]
    blanks, labels = ids.tolist(), [[-100] * ids.shape[1] for _ in ids]
    for row, label in zip(blanks, labels, strict=True):
        free = {place for place, token in enumerate(row) if token not in special}
        left = max(1, round(rate * len(free)))
        while left:
            start = dice.choice(sorted(free))
            (length,) = dice.choices(range(1, len(shares) + 1), shares)
            wanted = range(start, start + min(length, left))
            span = list(itertools.takewhile(free.__contains__, wanted))
            free.difference_update(span)
            left -= len(span)
            fate = dice.randrange(10)
            for place in span:
                label[place] = row[place]
                if fate >= 2:
                    row[place] = mask_id
                elif fate == 1:
                    row[place] = dice.choice(words)
    return torch.tensor(blanks), torch.tensor(labels)


def spans_first(
    ids: Tensor,
    rng: torch.Generator,
    vocab_size: int,
    mask_id: int,
    special_ids: Any,
    rate: float = 0.15,
    shares: Any = (0.4, 0.3, 0.2, 0.1),
) -> tuple[Tensor, Tensor]:
    """All spans are drawn and numbered, then their fates, for all rows at once."""
    ordinary = torch.ones(vocab_size, dtype=torch.bool)
    ordinary[list(special_ids)] = False
    number, spans = torch.full_like(ids, -1), 0  # the span of each place
    ends = torch.tensor(shares, dtype=torch.float64).cumsum(0).tolist()
    for row, taken in zip(ids, number, strict=True):
        budget = max(1, round(rate * ordinary[row].sum().item()))
        while budget:
            free = ordinary[row] & (taken < 0)
            place = int(torch.multinomial(free.double(), 1, generator=rng))
            draw = float(torch.rand((), generator=rng, dtype=torch.float64)) * ends[-1]
            length = min(bisect.bisect_right(ends, draw) + 1, budget)
            stop = place
            while stop < min(place + length, len(row)) and free[stop]:
                stop += 1
            taken[place:stop] = spans
            budget -= stop - place
            spans += 1
    fates = torch.rand(spans, generator=rng)[number]
    draws = torch.multinomial(ordinary.float(), ids.numel(), replacement=True, generator=rng)
    asked = number >= 0
    new = torch.where(asked & (fates > 0.2), torch.tensor(mask_id), ids)
    new = torch.where(asked & (fates <= 0.1), draws.view_as(ids), new)
    return new, torch.where(asked, ids, torch.tensor(-100))


RIGHT = {
    "92.mask_spans": [
        Right("lists, sets and Python's dice", by_lists),
        Right("spans numbered first, then a fate for each number", spans_first),
    ]
}

"""Wrong answers to the question of project 92."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bertlearn.masking import mask_tokens
from tests.known_wrong import Wrong

SHARES = (0.4, 0.3, 0.2, 0.1)


def masked(
    ids: Tensor,
    rng: torch.Generator,
    *,
    vocab_size: int,
    mask_id: int,
    special_ids: Sequence[int],
    rate: float = 0.15,
    shares: Sequence[float] = SHARES,
    wrong: str = "",
) -> tuple[Tensor, Tensor]:
    """The right thing, with a name for each way to get it wrong."""
    if wrong == "global":
        rng = torch.Generator().manual_seed(int(torch.randint(1 << 30, ())))
    if wrong == "static":
        rng = torch.Generator().manual_seed(0)
    special = torch.tensor(list(special_ids))
    ordinary = torch.arange(vocab_size)
    if wrong != "special words":
        ordinary = ordinary[~torch.isin(ordinary, special)]
    allowed = torch.ones_like(ids).bool() if wrong == "special" else ~torch.isin(ids, special)
    new, labels = (ids if wrong == "in place" else ids.clone()), torch.full_like(ids, -100)
    if wrong == "everywhere":
        labels = ids.masked_fill(~allowed, -100)
    odds = torch.tensor(list(shares)).float()
    for row in range(len(ids)):
        free, budget = allowed[row].clone(), max(1, round(rate * int(allowed[row].sum())))
        while budget > 0:
            places = free.nonzero()[:, 0]
            place = int(places[torch.randint(len(places), (1,), generator=rng)])
            length = 1 + int(torch.multinomial(odds, 1, generator=rng))
            if wrong == "single":
                length = 1
            most = length if wrong == "too many" else min(length, budget)
            span = []
            while len(span) < most and place < len(free) and free[place]:
                free[place] = False
                span.append(place)
                place += -1 if wrong == "left" else 1
            budget -= 1 if wrong == "spans" else len(span)
            if wrong != "labels":
                labels[row, span] = ids[row, span]
            fates = torch.rand(len(span), generator=rng)
            if wrong != "by token":
                fates = fates[:1].expand(len(span))
            words = ordinary[torch.randint(len(ordinary), (len(span),), generator=rng)]
            if wrong == "one word":
                words = words[:1].expand(len(span))
            low, high = (2.0, 2.0) if wrong == "always" else (0.8, 0.9)
            if wrong == "halves":
                low, high = 0.5, 0.75
            put = torch.where(fates < low, mask_id, words)
            new[row, span] = torch.where(fates >= high, ids[row, span], put)
            if wrong == "labels":
                labels[row, span] = new[row, span]
    return new, labels


def _wrong(how: str) -> Any:
    return lambda ids, rng, **keywords: masked(ids, rng, wrong=how, **keywords)


def chapters_tokens(ids: Tensor, rng: torch.Generator, **keywords: Any) -> tuple[Tensor, Tensor]:
    keywords.pop("shares", None)
    return mask_tokens(ids, rng, **keywords)


def by_run(ids: Tensor, rng: torch.Generator, **keywords: Any) -> tuple[Tensor, Tensor]:
    """The spans are right; a fate is drawn for each run of chosen tokens afterwards."""
    _, labels = masked(ids, rng, **keywords)
    new, chosen = ids.clone(), labels != -100
    for row in range(len(ids)):
        fate = 0.0
        for place in chosen[row].nonzero()[:, 0].tolist():
            if not chosen[row, place - 1]:
                fate = float(torch.rand((), generator=rng))
            word = torch.randint(5, keywords["vocab_size"], (), generator=rng)
            put = keywords["mask_id"] if fate < 0.8 else int(word)
            new[row, place] = put if fate < 0.9 else ids[row, place]
    return new, labels


def nothing_hidden(ids: Tensor, rng: torch.Generator, **keywords: Any) -> tuple[Tensor, Tensor]:
    _, labels = masked(ids, rng, **keywords)
    return ids.clone(), labels


WRONG = {
    "92.mask_spans": [
        Wrong("a fate for each token", _wrong("by token"), "have different fates"),
        Wrong("the chapter's masking of single tokens", chapters_tokens, "they must be neighbors"),
        Wrong("spans of one token", _wrong("single"), "they must be neighbors"),
        Wrong("spans to the left", _wrong("left"), "the spans go to the left"),
        Wrong("always [MASK]", _wrong("always"), "every span becomes [MASK]"),
        Wrong("half, a quarter, a quarter", _wrong("halves"), "in the shares 80, 10 and 10"),
        Wrong("labels taken after the blanks were made", _wrong("labels"), "what was put in"),
        Wrong("labels at every word", _wrong("everywhere"), "every token is asked for"),
        Wrong("special tokens hidden", _wrong("special"), "stands at a special token"),
        Wrong("a fate for each run of chosen tokens", by_run, "spans that lie side by side"),
        Wrong("random words among all ids", _wrong("special words"), "is drawn as random word"),
        Wrong("the budget counts spans", _wrong("spans"), "counts tokens, not spans"),
        Wrong("the last span not cut", _wrong("too many"), "a few tokens too many"),
        Wrong("one random word for a whole span", _wrong("one word"), "repeats one word"),
        Wrong("the global generator", _wrong("global"), "torch's global generator"),
        Wrong("the same blanks each time", _wrong("static"), "the same blanks"),
        Wrong("the given ids overwritten", _wrong("in place"), "in place"),
        Wrong("labels, but nothing hidden", nothing_hidden, "nothing is hidden"),
    ]
}

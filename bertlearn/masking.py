"""Blanks to fill: which tokens to ask for, and what to put in their place. Built in chapter 06."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "IGNORE",
    "choose_tokens",
    "choose_words",
    "mask_tokens",
    "replace_tokens",
    "word_numbers",
]

IGNORE = -100  # the label of a place that is not asked for, as in torch's cross entropy


def choose_tokens(
    allowed: Tensor, rng: torch.Generator, rate: float = 0.15, exact: bool = True
) -> Tensor:
    """Draw the tokens to ask for.

    Args:
        allowed: bool ``(batch, seq)``, False for special tokens and padding.
        rng: the source of chance.
        rate: share of the allowed tokens.
        exact: the same count in every row of equal length, ``round(rate * allowed)`` but at least
            one, as google-research/bert does (which counts [CLS] and [SEP] in the length, too);
            otherwise a draw for each token on its own, as most later code does.

    Returns:
        bool ``(batch, seq)``; a row in which nothing is allowed stays empty.
    """
    draw = torch.rand(allowed.shape, generator=rng)
    if not exact:
        return allowed & (draw < rate)
    order = draw.masked_fill(~allowed, 2.0).argsort(dim=-1)  # allowed places first, at random
    place = order.argsort(dim=-1)  # where each token stands in that order
    size = allowed.sum(dim=-1, keepdim=True)  # (batch, 1)
    count = (rate * size.double()).round().clamp(min=1)
    return allowed & (place < count)


def choose_words(
    allowed: Tensor, words: Tensor, rng: torch.Generator, rate: float = 0.15, exact: bool = True
) -> Tensor:
    """Draw whole words: all pieces of a word, or none.

    Args:
        allowed: bool ``(batch, seq)``, False for special tokens and padding.
        words: ``(batch, seq)``, neighbors with equal numbers are one word.
        rng: the source of chance.
        rate: share of the allowed tokens.
        exact: words are drawn one by one, and one that would exceed ``round(rate * allowed)``
            tokens is passed over (google-research/bert); otherwise each word is drawn on its own.

    Returns:
        bool ``(batch, seq)``; a row stays empty if each of its words is longer than its budget.
    """
    chosen = torch.zeros_like(allowed)
    for row in range(len(allowed)):
        places = allowed[row].nonzero()[:, 0]
        if len(places) == 0:
            continue
        _, sizes = words[row, places].unique_consecutive(return_counts=True)
        spans = list(places.split(sizes.tolist()))
        if not exact:
            picked = (torch.rand(len(spans), generator=rng) < rate).tolist()
            spans = [span for span, take in zip(spans, picked, strict=True) if take]
            budget = len(places)
        else:
            spans = [spans[i] for i in torch.randperm(len(spans), generator=rng).tolist()]
            budget = max(1, round(rate * len(places)))
        for span in spans:
            if len(span) <= budget:
                chosen[row, span] = True
                budget -= len(span)
    return chosen


def replace_tokens(
    ids: Tensor,
    chosen: Tensor,
    rng: torch.Generator,
    mask_id: int,
    ordinary: Tensor,
    mix: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Tensor:
    """Put [MASK] in the place of most chosen tokens, a random word in that of some, leave some.

    Args:
        ids: ``(batch, seq)``.
        chosen: bool ``(batch, seq)``.
        rng: the source of chance.
        mask_id: id of [MASK].
        ordinary: ``(n,)`` the ids from which random words are drawn: no special tokens.
        mix: shares of [MASK], random word and unchanged (Devlin et al. 2019, section 3.1).

    Returns:
        a new tensor ``(batch, seq)``; ``ids`` stays as it is.
    """
    draw = torch.rand(ids.shape, generator=rng)
    pick = torch.randint(len(ordinary), ids.shape, generator=rng)
    masked = chosen & (draw < mix[0])
    random = chosen & (draw >= mix[0]) & (draw < mix[0] + mix[1])
    return ids.masked_fill(masked, mask_id).where(~random, ordinary[pick])


def mask_tokens(
    ids: Tensor,
    rng: torch.Generator,
    *,
    vocab_size: int,
    mask_id: int,
    special_ids: Sequence[int],
    words: Tensor | None = None,
    rate: float = 0.15,
    exact: bool = True,
    mix: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> tuple[Tensor, Tensor]:
    """Make blanks in a batch, anew at each call (dynamic masking, Liu et al. 2019, section 4.1).

    Args:
        ids: ``(batch, seq)`` integer.
        rng: the source of chance.
        vocab_size: ids run from 0 to ``vocab_size - 1``.
        mask_id: id of [MASK].
        special_ids: ids that are never asked for and never drawn as random words: [PAD], [UNK],
            [CLS], [SEP]; [MASK] belongs to them without being named.
        words: ``(batch, seq)``, to mask whole words (see ``choose_words``).
        rate: share of the ordinary tokens that is asked for.
        exact: see ``choose_tokens``.
        mix: see ``replace_tokens``.

    Returns:
        the ids with blanks, and the labels, both ``(batch, seq)``: the true id where it is asked
        for, and ``IGNORE`` elsewhere.

    Raises:
        ValueError: for a rate outside (0, 1], a mix that is not three shares with the sum 1, a
            ``mask_id`` or special id that the vocabulary does not have, one with nothing else, or
            ``ids`` and ``words`` that are not ``(batch, seq)`` both.
    """
    special = torch.tensor(sorted({mask_id, *special_ids}))
    if ids.dim() != 2 or (words is not None and words.shape != ids.shape):
        shapes = [tuple(given.shape) for given in (ids, words) if given is not None]
        raise ValueError(f"ids, and words if given, must be (batch, seq), not {shapes}")
    if not 0 < rate <= 1:
        raise ValueError(f"rate must lie in (0, 1], not {rate}: 0.15 means 15 percent")
    if len(mix) != 3 or min(mix) < 0 or abs(sum(mix) - 1) > 1e-6:
        raise ValueError(f"mix must be three shares with the sum 1, not {mix}")
    if special.min() < 0 or special.max() >= vocab_size:
        raise ValueError(
            f"the special ids {special.tolist()} must be ids of a vocabulary "
            f"of {vocab_size}: do they come from the same tokenizer?"
        )
    everything = torch.arange(vocab_size)
    ordinary = everything[~torch.isin(everything, special)]
    if len(ordinary) == 0:
        raise ValueError("the vocabulary holds special tokens only: there is no random word")
    allowed = ~torch.isin(ids, special)
    if words is None:
        chosen = choose_tokens(allowed, rng, rate, exact)
    else:
        chosen = choose_words(allowed, words, rng, rate, exact)
    labels = ids.masked_fill(~chosen, IGNORE)
    return replace_tokens(ids, chosen, rng, mask_id, ordinary.to(ids.dtype), mix), labels


def word_numbers(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """The number of the word that each token belongs to, from places in the text.

    Needed where blanks do not mark words, as in Chinese: the spans then come from a segmenter.

    Args:
        offsets: start and end of each token in the text.
        spans: start and end of each word, in order, without overlap.

    Returns:
        one number a token. A token that lies in no word has a number of its own, as has each
        special token (whose offsets are ``(0, 0)``).
    """
    home = {place: number for number, span in enumerate(spans) for place in range(*span)}
    alone = len(spans)
    return [
        home.get(start, alone + index) if end > start else alone + index
        for index, (start, end) in enumerate(offsets)
    ]

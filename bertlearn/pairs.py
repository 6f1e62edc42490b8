"""Pairs of text: next sentence or not, right order or not. Built in chapter 07."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = [
    "IN_ORDER",
    "IS_NEXT",
    "IS_RANDOM",
    "IS_SWAPPED",
    "Document",
    "TextPair",
    "collect",
    "draw_length",
    "flatten",
    "next_sentence_pairs",
    "random_continuation",
    "room_for_text",
    "sentence_order_pairs",
    "truncate_longer",
]

Document = Sequence[Sequence[int]]  # sentences of token ids

IS_NEXT = 0  # the original's labels: 0 for the pair that belongs together
IS_RANDOM = 1
IN_ORDER = 0
IS_SWAPPED = 1


@dataclass(frozen=True)
class TextPair:
    """Two pieces of text, as token ids without special tokens.

    Attributes:
        first: ids of A, at least one.
        second: ids of B, at least one.
        label: 0 if B follows A, 1 if it does not.
    """

    first: list[int]
    second: list[int]
    label: int


def flatten(sentences: Sequence[Sequence[int]]) -> list[int]:
    """The tokens of several sentences in a row."""
    return [token for sentence in sentences for token in sentence]


def room_for_text(documents: Sequence[Document], max_length: int) -> int:
    """How many tokens of text a row of ``max_length`` holds beside [CLS] and two [SEP].

    Raises:
        ValueError: if a document or a sentence is empty, or if fewer than two tokens fit.
    """
    for number, document in enumerate(documents):
        if len(document) == 0 or min(map(len, document)) == 0:
            raise ValueError(f"document {number} or a sentence of it is empty: leave it out")
    if max_length < 5:
        raise ValueError(f"[CLS] A [SEP] B [SEP] need a max_length of 5, not {max_length}")
    return max_length - 3


def draw_length(room: int, rng: random.Random, short: float = 0.1) -> int:
    """How many tokens to collect for a row: as many as there is room for, or, with probability
    ``short``, fewer, down to 2 (google-research/bert, ``short_seq_prob``).

    The original draws once for each document, here it is once for each row.
    """
    return rng.randint(2, room) if rng.random() < short else room


def collect(document: Document, start: int, length: int) -> int:
    """Where to stop: the end of the sentences that, from ``start`` on, first reach ``length``
    tokens, or the end of the document; at least one sentence."""
    end, size = start + 1, len(document[start])
    while end < len(document) and size < length:
        size += len(document[end])
        end += 1
    return end


def random_continuation(
    documents: Sequence[Document], index: int, length: int, rng: random.Random
) -> list[int]:
    """Text from a document other than ``index``: from a random sentence on, until it reaches
    ``length`` tokens or the document ends."""
    other = rng.randrange(len(documents) - 1)
    document = documents[other if other < index else other + 1]
    start = rng.randrange(len(document))
    return flatten(document[start : collect(document, start, length)])


def truncate_longer(
    first: Sequence[int], second: Sequence[int], room: int, rng: random.Random
) -> tuple[list[int], list[int]]:
    """Take tokens from the longer side until both fit, from its front or its back by chance."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        longer = first if len(first) > len(second) else second
        longer.pop(0 if rng.random() < 0.5 else -1)
    return first, second


def next_sentence_pairs(
    documents: Sequence[Document],
    rng: random.Random,
    max_length: int = 128,
    short: float = 0.1,
) -> Iterator[TextPair]:
    """Pairs for next-sentence prediction, as the original makes them (Devlin et al. 2019,
    appendix A.2, and google-research/bert, create_pretraining_data.py).

    Sentences of one document are collected until they fill a row, and are cut in two at a random
    place between sentences. Half of the time the second part goes back to where it came from, and
    text from another document takes its place. A single sentence cannot be cut: its B is always
    random, so more than half of the pairs are.

    Args:
        documents: each a sequence of sentences, each a sequence of token ids.
        rng: the source of chance.
        max_length: tokens of a row, [CLS] and two [SEP] included.
        short: how often a shorter row is asked for.

    Yields:
        pairs that fit, with the label ``IS_NEXT`` or ``IS_RANDOM``, in the order of the documents.

    Raises:
        ValueError: for a single document (a random B comes from another one), an empty document
            or sentence, or no room.
    """
    room = room_for_text(documents, max_length)
    if len(documents) == 1:
        raise ValueError(
            "a random B must come from another document, and there is only "
            "one: give more, or cut this one into several"
        )
    for index, document in enumerate(documents):
        start = 0
        while start < len(document):
            length = draw_length(room, rng, short)
            end = collect(document, start, length)
            alone = end - start == 1
            cut = end if alone else rng.randrange(start + 1, end)
            first = flatten(document[start:cut])
            if alone or rng.random() < 0.5:
                second = random_continuation(documents, index, length - len(first), rng)
                label, start = IS_RANDOM, cut  # what was cut off is put back
            else:
                second = flatten(document[cut:end])
                label, start = IS_NEXT, end
            yield TextPair(*truncate_longer(first, second, room, rng), label)


def sentence_order_pairs(
    documents: Sequence[Document],
    rng: random.Random,
    max_length: int = 128,
    short: float = 0.1,
) -> Iterator[TextPair]:
    """Pairs for sentence-order prediction: B follows A, or they are swapped (Lan et al. 2020,
    section 3.1). Both halves are from one document, and nothing is put back. A single sentence
    makes no pair (the original gives it a random B and calls the pair swapped).

    Args:
        documents, rng, max_length, short: as in ``next_sentence_pairs``; one document is enough.

    Yields:
        pairs that fit, with the label ``IN_ORDER`` or ``IS_SWAPPED``.

    Raises:
        ValueError: for an empty document or sentence, or no room.
    """
    room = room_for_text(documents, max_length)
    for document in documents:
        start = 0
        while start < len(document):
            end = collect(document, start, draw_length(room, rng, short))
            if end - start > 1:
                cut = rng.randrange(start + 1, end)
                halves = flatten(document[start:cut]), flatten(document[cut:end])
                first, second = truncate_longer(*halves, room, rng)
                if rng.random() < 0.5:
                    yield TextPair(second, first, IS_SWAPPED)
                else:
                    yield TextPair(first, second, IN_ORDER)
            start = end

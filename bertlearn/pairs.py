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
    "TextPair",
    "draw_length",
    "flatten",
    "next_sentence_pairs",
    "random_continuation",
    "sentence_order_pairs",
    "truncate_longer",
]

IS_NEXT, IS_RANDOM = 0, 1  # the labels of the original, in this order
IN_ORDER, IS_SWAPPED = 0, 1

Document = Sequence[Sequence[int]]  # sentences of token ids


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


def draw_length(room: int, rng: random.Random, short: float = 0.1) -> int:
    """How long a pair shall be: the whole room, or once in ten times less, down to 2 tokens, so
    that the model also sees short texts (google-research/bert, ``short_seq_prob``)."""
    return rng.randint(2, room) if rng.random() < short else room


def truncate_longer(
    first: list[int], second: list[int], room: int, rng: random.Random
) -> tuple[list[int], list[int]]:
    """Take tokens from the longer side until both fit, from its front or its back by chance."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        longer = first if len(first) > len(second) else second
        longer.pop(0 if rng.random() < 0.5 else -1)
    return first, second


def random_continuation(
    documents: Sequence[Document], index: int, room: int, rng: random.Random
) -> list[int]:
    """Text from a document other than ``index``, from a random sentence on, until it fills the
    room or the document ends."""
    other = rng.randrange(len(documents) - 1)
    document = documents[other if other < index else other + 1]
    tokens: list[int] = []
    for sentence in document[rng.randrange(len(document)) :]:
        tokens += sentence
        if len(tokens) >= room:
            break
    return tokens


def _check(documents: Sequence[Document], max_length: int) -> int:
    """The room for text in a row of ``max_length`` tokens."""
    if any(len(document) == 0 or min(map(len, document)) == 0 for document in documents):
        raise ValueError("a document without sentences, or a sentence without tokens: leave it out")
    room = max_length - 3  # [CLS] A [SEP] B [SEP]
    if room < 2:
        raise ValueError(
            f"max_length must be at least 5 to hold [CLS] A [SEP] B [SEP]: {max_length}"
        )
    return room


def next_sentence_pairs(
    documents: Sequence[Document],
    rng: random.Random,
    max_length: int = 128,
    short: float = 0.1,
) -> Iterator[TextPair]:
    """Pairs for next-sentence prediction, as the original makes them (Devlin et al. 2019,
    section 3.1, and create_pretraining_data.py).

    Sentences of one document are collected until they fill a row. They are cut in two at a random
    sentence. Half of the time the second part is replaced by text from another document, and goes
    back to where it came from. A collection of a single sentence cannot be cut: its B is always
    random.

    Args:
        documents: each a sequence of sentences, each a sequence of token ids.
        rng: the source of chance.
        max_length: tokens of a row, [CLS] and two [SEP] included.
        short: how often a shorter row is asked for.

    Yields:
        pairs that fit, with the label ``IS_NEXT`` or ``IS_RANDOM``.

    Raises:
        ValueError: if there is only one document (no random B exists), one without sentences, or
            no room.
    """
    room = _check(documents, max_length)
    if len(documents) == 1:
        raise ValueError(
            "there is one document only, so no random B can come from another: give more documents"
        )
    for index, document in enumerate(documents):
        start, length = 0, draw_length(room, rng, short)
        while start < len(document):
            end, size = start, 0
            while end < len(document) and size < length:  # collect sentences
                size += len(document[end])
                end += 1
            alone = end - start == 1
            cut = end if alone else rng.randrange(start + 1, end)
            first = flatten(document[start:cut])
            if alone or rng.random() < 0.5:
                second = random_continuation(documents, index, length - len(first), rng)
                label = IS_RANDOM
                start = cut  # what was not used is put back
            else:
                second = flatten(document[cut:end])
                label = IS_NEXT
                start = end
            yield TextPair(*truncate_longer(first, second, length, rng), label)
            length = draw_length(room, rng, short)


def sentence_order_pairs(
    documents: Sequence[Document],
    rng: random.Random,
    max_length: int = 128,
    short: float = 0.1,
) -> Iterator[TextPair]:
    """Pairs for sentence-order prediction: B follows A, or they are swapped (Lan et al. 2020,
    section 3.1). Both halves are always from one document; a single sentence makes no pair.

    Args:
        documents, rng, max_length, short: as in ``next_sentence_pairs``; one document is enough.

    Yields:
        pairs that fit, with the label ``IN_ORDER`` or ``IS_SWAPPED``.

    Raises:
        ValueError: for a document without sentences, or no room.
    """
    room = _check(documents, max_length)
    for document in documents:
        start = 0
        while start < len(document):
            length = draw_length(room, rng, short)
            end, size = start, 0
            while end < len(document) and size < length:
                size += len(document[end])
                end += 1
            if end - start > 1:
                cut = rng.randrange(start + 1, end)
                halves = flatten(document[start:cut]), flatten(document[cut:end])
                first, second = truncate_longer(*halves, length, rng)
                swapped = rng.random() < 0.5
                if swapped:
                    yield TextPair(second, first, IS_SWAPPED)
                else:
                    yield TextPair(first, second, IN_ORDER)
            start = end

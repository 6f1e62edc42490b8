"""Pairs for next-sentence and sentence-order prediction are made as the original makes them.

Properties for any documents (hypothesis): every pair fits, both sides are text of the documents,
B of label 0 follows A, a random B is from elsewhere, no sentence is lost, the source of chance
decides everything. Then statistics on many documents: the share of random pairs, of short rows,
and where tokens are cut off; and what documents must not be.

    pytest tests/test_pairs.py
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlearn.pairs import (
    IN_ORDER,
    IS_NEXT,
    IS_RANDOM,
    IS_SWAPPED,
    collect,
    draw_length,
    flatten,
    next_sentence_pairs,
    random_continuation,
    room_for_text,
    sentence_order_pairs,
    truncate_longer,
)

MAKERS = pytest.mark.parametrize("make", [next_sentence_pairs, sentence_order_pairs])


def numbered(shape):
    """Documents of given sentence lengths whose tokens are all different: token = its place."""
    count, documents = 0, []
    for lengths in shape:
        documents.append([])
        for length in lengths:
            documents[-1].append(list(range(count, count + length)))
            count += length
    return documents


shapes = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=2, max_size=5)
rows = {"shape": shapes, "seed": st.integers(0, 999), "max_length": st.integers(5, 40)}
WHOLE = 10_000  # a row that never needs truncation


def home(documents):
    """Token to (document, sentence)."""
    return {
        token: (d, s)
        for d, document in enumerate(documents)
        for s, sentence in enumerate(document)
        for token in sentence
    }


def in_a_row(tokens):
    return tokens == list(range(tokens[0], tokens[0] + len(tokens)))


@MAKERS
@given(**rows, short=st.sampled_from([0.0, 0.1, 1.0]))
def test_pairs_fit_and_are_text(make, shape, seed, max_length, short):
    documents = numbered(shape)
    where = home(documents)
    for pair in make(documents, random.Random(seed), max_length, short):
        assert len(pair.first) >= 1 and len(pair.second) >= 1
        assert len(pair.first) + len(pair.second) + 3 <= max_length
        for side in (pair.first, pair.second):
            assert in_a_row(side)
            assert len({where[token][0] for token in side}) == 1


@given(**rows)
def test_next_follows_and_random_is_from_elsewhere(shape, seed, max_length):
    documents = numbered(shape)
    where = home(documents)
    for pair in next_sentence_pairs(documents, random.Random(seed), max_length):
        same = where[pair.first[0]][0] == where[pair.second[0]][0]
        assert pair.label == (IS_NEXT if same else IS_RANDOM)
        if same:
            assert pair.first[-1] < pair.second[0]


@given(shape=shapes, seed=st.integers(0, 999))
def test_whole_sentences_when_nothing_is_cut(shape, seed):
    """Short rows inside an endless room: nothing is ever truncated."""
    documents = numbered(shape)
    starts = {s[0] for d in documents for s in d}
    ends = {s[-1] for d in documents for s in d}
    for make in (next_sentence_pairs, sentence_order_pairs):
        for pair in make(documents, random.Random(seed), WHOLE):
            assert pair.first[0] in starts and pair.second[0] in starts
            assert pair.first[-1] in ends and pair.second[-1] in ends
            if make is next_sentence_pairs and pair.label == IS_NEXT or pair.label == IN_ORDER:
                assert pair.second[0] == pair.first[-1] + 1
            if make is sentence_order_pairs and pair.label == IS_SWAPPED:
                assert pair.first[0] == pair.second[-1] + 1


@given(shape=shapes, seed=st.integers(0, 999), short=st.sampled_from([0.0, 1.0]))
def test_no_sentence_is_lost(shape, seed, short):
    """A, and B where it is next, are the document from its first to its last token, in order:
    what a random B displaced was put back."""
    documents = numbered(shape)
    told: list[int] = []
    for pair in next_sentence_pairs(documents, random.Random(seed), WHOLE, short):
        told += pair.first + (pair.second if pair.label == IS_NEXT else [])
    assert told == flatten([flatten(document) for document in documents])


@given(shape=shapes, seed=st.integers(0, 999))
def test_order_pairs_use_each_sentence_once(shape, seed):
    documents = numbered(shape)
    told = []
    for pair in sentence_order_pairs(documents, random.Random(seed), WHOLE):
        halves = [pair.first, pair.second]
        told += flatten(halves if pair.label == IN_ORDER else halves[::-1])
    alone = {token for document in documents if len(document) == 1 for token in document[0]}
    assert told == [t for d in documents for t in flatten(d) if t not in alone]


@given(length=st.integers(2, 30), shape=st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_collect_stops_as_soon_as_it_is_full(length, shape):
    (document,) = numbered([shape])
    for start in range(len(document)):
        end = collect(document, start, length)
        assert end > start
        assert end == start + 1 or len(flatten(document[start : end - 1])) < length
        assert end == len(document) or len(flatten(document[start:end])) >= length


@MAKERS
def test_chance_comes_from_the_argument(make):
    documents = numbered([[3, 4, 2, 5, 1, 3]] * 20)
    random.seed(1)
    once = list(make(documents, random.Random(5), 16))
    random.seed(2)
    assert once == list(make(documents, random.Random(5), 16))
    assert once != list(make(documents, random.Random(6), 16))


@MAKERS
def test_documents_are_not_changed(make):
    documents = numbered([[9, 9, 9], [9, 9]])
    list(make(documents, random.Random(0), 8))
    assert documents == numbered([[9, 9, 9], [9, 9]])


# ---- statistics ---------------------------------------------------------------------------------


def lengths(rng, count, mean):
    """Sentence lengths like those of prose: never 0, most near the mean, some long."""
    return [max(1, round(rng.gammavariate(4, mean / 4))) for _ in range(count)]


def share_random(count, sentences, mean, max_length=128, seed=0):
    """Share of random pairs in ``count`` documents of ``sentences`` sentences (a range)."""
    rng = random.Random(seed)
    shape = [lengths(rng, rng.randint(*sentences), mean) for _ in range(count)]
    labels = Counter(p.label for p in next_sentence_pairs(numbered(shape), rng, max_length))
    return labels[IS_RANDOM] / labels.total()


@pytest.mark.parametrize(
    "sentences, mean, low, high",
    [
        ((20, 100), 25, 0.505, 0.545),  # long documents
        ((5, 20), 25, 0.55, 0.59),  # articles
        ((5, 5), 25, 0.57, 0.63),  # summaries
        ((20, 60), 100, 0.64, 0.71),  # a sentence nearly fills a row
        ((1, 1), 25, 1.0, 1.0),  # nothing but single sentences
    ],
)
def test_class_balance(sentences, mean, low, high):
    assert low <= share_random(1500 if sentences[1] < 50 else 400, sentences, mean) <= high


def test_order_pairs_are_balanced():
    documents = numbered([[25] * 40] * 300)
    labels = Counter(p.label for p in sentence_order_pairs(documents, random.Random(0)))
    assert labels.total() > 1000
    assert abs(labels[IN_ORDER] / labels.total() - 0.5) < 0.05


@pytest.mark.parametrize("short", [0.0, 0.1, 0.5, 1.0])
def test_short_rows(short):
    rng, draws = random.Random(0), 20_000
    drawn = [draw_length(125, rng, short) for _ in range(draws)]
    share = sum(n < 125 for n in drawn) / draws
    assert abs(share - short * 123 / 124) < 0.015  # a short row may draw the full length
    assert min(drawn) >= 2 and max(drawn) <= 125
    if short:
        assert min(drawn) < 6


def test_one_row_in_ten_is_short():
    """Sentences of one token show the length that was asked for."""
    documents = numbered([[1] * 4000] * 20)
    pairs = list(next_sentence_pairs(documents, random.Random(0), 128))
    short = sum(len(p.first) + len(p.second) < 125 for p in pairs) / len(pairs)
    assert abs(short - 0.1) < 0.03


def test_other_documents_are_drawn_evenly():
    documents = numbered([[2]] * 5)
    where, rng = home(documents), random.Random(0)
    drawn = Counter(where[random_continuation(documents, 2, 9, rng)[0]][0] for _ in range(8000))
    assert set(drawn) == {0, 1, 3, 4}
    assert all(abs(n / 8000 - 0.25) < 0.03 for n in drawn.values())


def test_a_random_b_starts_anywhere_and_fills_the_row():
    documents = numbered([[3], [4] * 10])
    rng = random.Random(0)
    drawn = [random_continuation(documents, 0, 10, rng) for _ in range(500)]
    assert {b[0] for b in drawn} == {s[0] for s in documents[1]}
    for b in drawn:
        assert len(b) == min(12, flatten(documents[1])[-1] + 1 - b[0])
    # A fills the row alone: still one sentence
    assert all(len(random_continuation(documents, 0, n, rng)) == 4 for n in (1, 0, -5))


def test_truncation_takes_from_the_longer_side_at_both_ends():
    front = back = 0
    for seed in range(400):
        first, second = truncate_longer(range(20), range(100, 106), 16, random.Random(seed))
        assert second == list(range(100, 106))
        assert len(first) == 10 and in_a_row(first)
        front, back = front + first[0], back + 19 - first[-1]
    assert abs(front / (front + back) - 0.5) < 0.03
    first, second = truncate_longer(range(20), range(100, 130), 15, random.Random(0))
    assert {len(first), len(second)} == {7, 8}
    assert truncate_longer([1], [2], 2, random.Random(0)) == ([1], [2])


def test_a_short_row_is_not_cut():
    """Only the row's length cuts; the length that was asked for says when to stop collecting."""
    documents = numbered([[10] * 30] * 4)
    for pair in next_sentence_pairs(documents, random.Random(0), 128, short=1.0):
        assert len(pair.first) % 10 == len(pair.second) % 10 == 0 or (
            len(pair.first) + len(pair.second) == 125
        )


# ---- what documents must not be -----------------------------------------------------------------


def test_one_document_is_refused():
    with pytest.raises(ValueError, match="must come from another document"):
        next(next_sentence_pairs([[[1, 2], [3]]], random.Random(0)))
    assert list(sentence_order_pairs([[[1, 2], [3]]], random.Random(0), short=0))
    assert list(next_sentence_pairs([], random.Random(0))) == []


@MAKERS
@pytest.mark.parametrize("bad", [[], [[]], [[1], []]])
def test_nothing_empty(make, bad):
    with pytest.raises(ValueError, match="document 1 or a sentence of it is empty"):
        next(make([[[1, 2], [3]], bad], random.Random(0)))


@MAKERS
def test_room(make):
    with pytest.raises(ValueError, match="need a max_length of 5, not 4"):
        next(make([[[1], [2]]] * 2, random.Random(0), max_length=4))
    pairs = list(make([[[1], [2]]] * 2, random.Random(0), max_length=5))
    assert pairs and all(len(p.first) == len(p.second) == 1 for p in pairs)
    assert room_for_text([[[1]]], 128) == 125

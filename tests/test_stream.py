"""Proves that batches made from token files are the same for the same seed, go on from any
position, divide among processes, and hold what the objective says.

    pytest tests/test_stream.py
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from bertlearn.data.shards import CONTINUES
from bertlearn.data.stream import BatchStream, Marks, Position, seed_of
from bertlearn.masking import IGNORE
from bertlearn.pretraining import Batch

MARKS = Marks(vocab_size=500, pad=0, unk=1, cls=2, sep=3, mask=4)


class Memory:
    """A split whose documents are in memory. Each token tells where it comes from."""

    def __init__(self, documents: list[list[np.ndarray]]):
        self.documents = documents
        self.document_lengths = np.array([sum(map(len, d)) for d in documents], dtype=np.int64)
        self.released = 0

    def document(self, index: int) -> list[np.ndarray]:
        return self.documents[index]

    def release(self) -> None:
        self.released += 1


def corpus(documents: int = 60, sentences: int = 9, seed: int = 0) -> Memory:
    """Documents of random words, some of two or three pieces."""
    rng = np.random.default_rng(seed)

    def sentence() -> np.ndarray:
        ids = rng.integers(5, 500, rng.integers(3, 20)).astype(np.int32)
        inside = rng.random(len(ids)) < 0.3
        inside[0] = False
        return np.where(inside, ids | CONTINUES, ids)

    return Memory([[sentence() for _ in range(sentences)] for _ in range(documents)])


def stream(split: Memory | None = None, **changes: Any) -> BatchStream:
    """A stream with small blocks, so that a few batches cross their borders."""
    settings = {"length": 24, "rows": 4, "seed": 7, "block_tokens": 1500, **changes}
    return BatchStream(split or corpus(), MARKS, **settings)


def take(batches: BatchStream, count: int) -> list[Batch]:
    return list(islice(iter(batches), count))


def equal(one: Batch, other: Batch) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


@pytest.mark.parametrize("objective", ["mlm", "nsp", "sop"])
def test_the_same_seed_gives_the_same_batches_and_another_others(objective: str) -> None:
    first, again = (take(stream(objective=objective), 40) for _ in range(2))
    assert all(map(equal, first, again))
    other = take(stream(objective=objective, seed=8), 40)
    assert not any(map(equal, first, other))


@pytest.mark.parametrize("objective", ["mlm", "nsp"])
@pytest.mark.parametrize("stop", [1, 13, 70, 150])
def test_it_goes_on_from_any_position(objective: str, stop: int) -> None:
    whole = take(stream(objective=objective), stop + 30)
    first = stream(objective=objective)
    take(first, stop)
    rest = stream(objective=objective)
    rest.position = Position(**first.position.to_dict())
    assert all(map(equal, take(rest, 30), whole[stop:]))
    assert rest.position.epoch > 0 or stop < 100, "the test should reach a second epoch"


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_rows_that_one_would_read(world: int) -> None:
    whole = take(stream(), 12)
    parts = [take(stream(rank=rank, world=world), 12) for rank in range(world)]
    for step, batch in enumerate(whole):
        for rank in range(world):
            rows = slice(rank, None, world)
            assert torch.equal(parts[rank][step].input_ids, batch.input_ids[rows])
            assert torch.equal(parts[rank][step].labels, batch.labels[rows])


def undone(batch: Batch) -> torch.Tensor:
    """The ids before the blanks."""
    return batch.input_ids.where(batch.labels == IGNORE, batch.labels)


def test_an_epoch_reads_nearly_everything_once_and_the_next_draws_new_blanks() -> None:
    split = corpus(200)
    batches = stream(split, rows=2)
    seen: list[list[torch.Tensor]] = [[], []]
    blanks: list[int] = [0, 0]
    for batch in batches:
        epoch = batches.position.epoch if batches.position.batch or batches.position.block else 0
        if epoch > 1 or (batches.position == Position(2)):
            break
        seen[min(epoch, 1)].append(undone(batch))
        blanks[min(epoch, 1)] += batch.targets
    tokens = torch.cat([rows.flatten() for rows in seen[0]])
    read = int((tokens >= 5).sum())
    assert read > 0.95 * split.document_lengths.sum()
    assert read <= split.document_lengths.sum()
    assert blanks[0] == pytest.approx(0.15 * read, rel=0.1)
    assert split.released > 0


def test_fixed_masks_repeat_and_fresh_ones_do_not() -> None:
    def keys(fresh: bool, epoch: int) -> torch.Tensor:
        source = stream(corpus(20), fresh_masks=fresh, block_tokens=1 << 20)
        source.blocks = lambda epoch: [np.arange(20)]  # type: ignore[method-assign]
        source.position = Position(epoch)
        rows = source.batches(0, 0)
        source.batches = lambda epoch, block: rows  # type: ignore[method-assign]
        return take(source, 1)[0].labels

    assert torch.equal(keys(False, 0), keys(False, 5))
    assert not torch.equal(keys(True, 0), keys(True, 5))


def test_packed_rows_are_full_and_have_no_pairs() -> None:
    for batch in take(stream(), 30):
        assert batch.input_ids.shape == (4, 24)
        assert batch.attention_mask is None
        assert batch.next_sentence_label is None
        assert (batch.input_ids[:, 0] == MARKS.cls).all()
        assert (undone(batch)[:, -1] == MARKS.sep).all()
        assert int(undone(batch).max()) < MARKS.vocab_size  # the mark of pieces is off


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_pairs_have_segments_labels_and_little_padding(objective: str) -> None:
    batches = take(stream(corpus(200), objective=objective, block_tokens=1 << 16), 60)
    labels = torch.cat([batch.next_sentence_label for batch in batches])  # type: ignore[misc]
    assert 0.35 < labels.float().mean() < 0.7
    for batch in batches:
        whole = undone(batch)
        real = torch.ones_like(whole, dtype=torch.bool)
        if batch.attention_mask is not None:
            real = batch.attention_mask
            assert (whole[~real] == MARKS.pad).all()
        assert ((whole == MARKS.sep).sum(dim=1) == 2).all()
        second = (whole == MARKS.sep).cumsum(dim=1) - (whole == MARKS.sep).int()
        assert torch.equal(batch.token_type_ids[real], second[real].clamp(max=1))
    tokens = sum(batch.tokens for batch in batches)
    assert tokens > 0.97 * sum(batch.input_ids.numel() for batch in batches)


def test_whole_words_are_asked_for_whole() -> None:
    split = corpus(40)
    inside: dict[int, bool] = {}
    batches = stream(split, whole_words=True, length=40)
    originals = list(batches.batches(0, 0))
    for batch, rows in zip(take(batches, 10), originals, strict=False):
        for labels, row in zip(batch.labels, rows, strict=True):
            asked = (labels != IGNORE).tolist()
            for place, token in enumerate(row.ids):
                if token & CONTINUES and row.ids[place - 1] >= 5:
                    inside[len(inside)] = asked[place] == asked[place - 1]
    assert len(inside) > 100
    assert all(inside.values())


def test_a_vocabulary_without_mask_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no \[MASK\]"):
        Marks.of({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4})


@pytest.mark.parametrize(
    ("documents", "changes", "message"),
    [
        (0, {}, "holds no document"),
        (1, {"objective": "nsp"}, "one document"),
        (3, {"rows": 4000}, "does not fill one batch of 4000 rows"),
        (3, {"objective": "translation"}, "objective must be one of"),
        (3, {"rows": 3, "world": 2}, "do not divide among 2"),
    ],
)
def test_what_cannot_be_streamed_is_refused(
    documents: int, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        take(stream(corpus(documents), **changes), 1)


def test_seeds_depend_on_every_part() -> None:
    seeds = {seed_of(a, b, c) for a in range(5) for b in range(5) for c in "xyz"}
    assert len(seeds) == 75
    assert all(0 <= seed < 2**63 for seed in seeds)

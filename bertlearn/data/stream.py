"""Batches without end from token files: the same for the same seed, different for each process.

Documents are taken in a new random order in each epoch, a block of them at a time. A block becomes
rows, rows become batches, and blanks are drawn for each row on their own. Everything depends on
(seed, epoch, block, row) and on nothing else, so a stream can go on from any position, and each of
several processes reads its own share of the batches that one would read.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bertlearn.data.shards import CONTINUES
from bertlearn.masking import mask_tokens
from bertlearn.pairs import next_sentence_pairs, sentence_order_pairs
from bertlearn.pretraining import Batch, Row, collate, like_lengths, pack, pair_row
from bertlearn.tokenization import SPECIALS

OBJECTIVES = ("mlm", "nsp", "sop")


class Split(Protocol):
    """What the stream reads from (see ``shards.Split``)."""

    @property
    def document_lengths(self) -> np.ndarray: ...
    def document(self, index: int) -> list[np.ndarray]: ...
    def release(self) -> None: ...


@dataclass(frozen=True)
class Marks:
    """The special tokens of a vocabulary.

    Attributes:
        vocab_size: ids run from 0 to ``vocab_size - 1``.
        pad, unk, cls, sep, mask: ids of the special tokens.
    """

    vocab_size: int
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int

    @classmethod
    def of(cls, vocab: dict[str, int]) -> Marks:
        """From a vocabulary.

        Raises:
            ValueError: if it lacks one of the special tokens.
        """
        lacking = [name for name in SPECIALS if name not in vocab]
        if lacking:
            raise ValueError(
                f"the vocabulary has no {', '.join(lacking)}: pre-training needs all of "
                f"{', '.join(SPECIALS)}"
            )
        return cls(max(vocab.values()) + 1, *(vocab[name] for name in SPECIALS))

    @property
    def special(self) -> tuple[int, ...]:
        """Ids of all special tokens."""
        return (self.pad, self.unk, self.cls, self.sep, self.mask)


@dataclass(frozen=True)
class Position:
    """Where a stream stands: the next batch to come."""

    epoch: int = 0
    block: int = 0
    batch: int = 0

    def to_dict(self) -> dict[str, int]:
        """For a checkpoint."""
        return asdict(self)


def seed_of(*parts: Any) -> int:
    """A number below 2**63 that depends on all parts."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


class BatchStream:
    """Batches of one split, for one objective and row length.

    Args:
        split: token files, see ``shards.Split``.
        marks: the special tokens.
        length: tokens of a row, at most; 128 as in the paper's first phase.
        rows: rows of a batch, over all processes together.
        objective: ``"mlm"`` (packed rows), ``"nsp"`` or ``"sop"`` (pairs).
        seed: of everything random.
        rate: share of the tokens to ask for.
        whole_words: ask for whole words.
        mix: see ``masking.replace_tokens``.
        rank, world: this process, and how many there are; ``rows`` is a multiple of ``world``.
        block_tokens: documents are taken until they hold so many tokens.
        fresh_masks: False draws the same blanks in every epoch (static masking).

    Raises:
        ValueError: for an unknown objective, too few rows or tokens, or a corpus that does not
            fill one batch.
    """

    def __init__(
        self,
        split: Split,
        marks: Marks,
        *,
        length: int,
        rows: int,
        objective: str = "mlm",
        seed: int = 0,
        rate: float = 0.15,
        whole_words: bool = False,
        mix: tuple[float, float, float] = (0.8, 0.1, 0.1),
        rank: int = 0,
        world: int = 1,
        block_tokens: int | None = None,
        fresh_masks: bool = True,
    ):
        if objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {OBJECTIVES}, not {objective!r}")
        if rows < 1 or rows % world:
            raise ValueError(f"{rows} rows a batch do not divide among {world} processes")
        self.split, self.marks, self.length, self.rows = split, marks, length, rows
        self.objective, self.seed, self.rate, self.mix = objective, seed, rate, mix
        self.whole_words, self.fresh_masks = whole_words, fresh_masks
        self.rank, self.world = rank, world
        self.block_tokens = block_tokens or max(1 << 18, 24 * rows * length)
        self.position = Position()
        self._blocks: tuple[int, list[np.ndarray]] = (-1, [])
        if len(split.document_lengths) == 0:
            raise ValueError("the corpus holds no document: there is nothing to train on")
        if objective == "nsp" and len(split.document_lengths) == 1:
            raise ValueError(
                "the corpus is one document, so no random B can come from another: "
                "give more documents, or use the objective mlm or sop"
            )

    def blocks(self, epoch: int) -> list[np.ndarray]:
        """Which documents each block of an epoch holds, in their order."""
        if self._blocks[0] != epoch:
            rng = np.random.default_rng([seed_of(self.seed, self.length, self.objective), epoch])
            count = len(self.split.document_lengths)
            small = np.int32 if count < 1 << 31 else np.int64  # half the memory, the same order
            order = rng.permutation(np.arange(count, dtype=small))
            ends = self.split.document_lengths[order].cumsum()
            number = max(1, int(ends[-1]) // self.block_tokens)
            cuts = np.searchsorted(ends, np.arange(1, number) * (ends[-1] / number))
            blocks = [block for block in np.split(order, cuts) if len(block)]
            if self.objective == "nsp":  # a document needs another one beside it
                blocks = [block for block in blocks if len(block) > 1] or [order]
            self._blocks = (epoch, blocks)
        return self._blocks[1]

    def batches(self, epoch: int, block: int) -> list[list[Row]]:
        """All batches of a block, blanks not drawn yet."""
        rng = random.Random(seed_of(self.seed, self.length, self.objective, epoch, block))
        chosen = self.blocks(epoch)[block]
        documents = [[s.tolist() for s in self.split.document(int(i))] for i in chosen]
        self.split.release()
        cls_id, sep_id = self.marks.cls, self.marks.sep
        if self.objective == "mlm":
            rows = pack(documents, self.length, cls_id, sep_id)
        else:
            make = next_sentence_pairs if self.objective == "nsp" else sentence_order_pairs
            rows = [pair_row(p, cls_id, sep_id) for p in make(documents, rng, self.length)]
        return like_lengths(rows, self.rows, rng)

    def _finish(self, rows: Sequence[Row], keys: Sequence[int]) -> Batch:
        """Rows as tensors, with blanks."""
        marked, segments, attention, labels = collate(rows, self.marks.pad)
        ids = marked & ~CONTINUES
        words = ((marked & CONTINUES) == 0).cumsum(dim=-1) if self.whole_words else None
        drawn: list[tuple[Tensor, Tensor]] = []
        for i, key in enumerate(keys):
            drawn.append(
                mask_tokens(
                    ids[i : i + 1],
                    torch.Generator().manual_seed(key),
                    vocab_size=self.marks.vocab_size,
                    mask_id=self.marks.mask,
                    special_ids=self.marks.special,
                    words=None if words is None else words[i : i + 1],
                    rate=self.rate,
                    mix=self.mix,
                )
            )
        inputs, targets = (torch.cat(column) for column in zip(*drawn, strict=True))
        return Batch(inputs, segments, targets, attention, labels)

    def __iter__(self) -> Iterator[Batch]:
        """Batches from ``position`` on, without end; ``position`` moves along."""
        while True:
            epoch, block, start = self.position.epoch, self.position.block, self.position.batch
            batches = self.batches(epoch, block)
            for index in range(start, len(batches)):
                last = index + 1 == len(batches)
                self.position = Position(
                    epoch, block + 1 if last else block, 0 if last else index + 1
                )
                if last and block + 1 == len(self.blocks(epoch)):
                    self.position = Position(epoch + 1)
                mine = range(self.rank, self.rows, self.world)
                drawn = epoch if self.fresh_masks else 0
                keys = [seed_of(self.seed, drawn, block, index, row) for row in mine]
                yield self._finish([batches[index][row] for row in mine], keys)
            if start >= len(batches):  # nothing here, or all of it was read
                if not batches and len(self.blocks(epoch)) == 1:
                    raise ValueError(
                        f"the corpus does not fill one batch of {self.rows} rows of "
                        f"{self.length} tokens: use fewer or shorter rows, or more text"
                    )
                done = block + 1 == len(self.blocks(epoch))
                self.position = Position(epoch + 1) if done else Position(epoch, block + 1)

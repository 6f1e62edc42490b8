"""Which documents are for training: one answer, everywhere, from the document's name alone."""

from __future__ import annotations

import hashlib
from typing import Literal

__all__ = ["SPLITS", "place_of", "split_of"]

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

# Of 100 documents about 90 are for training, 5 for validation, 5 for the test.
VALID, TEST = int(0.90 * 2**64), int(0.95 * 2**64)


def place_of(source: str, document_id: str) -> int:
    """A document's place between 0 and 2**64 - 1: the first 8 bytes of a sha256, as a number."""
    name = f"{source}/{document_id}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(name).digest()
    return int.from_bytes(digest[:8], "big")


def split_of(source: str, document_id: str) -> Split:
    """The split of a document: "train" (90 %), "valid" (5 %) or "test" (5 %).

    It depends on nothing but the two names. So it stays the same when documents are added, in
    another order, on another machine; and a document that was trained on is never tested on, in
    whatever chapter.

    Args:
        source: name of the corpus, as in ``corpora.CORPORA``.
        document_id: ``Document.id``.
    """
    place = place_of(source, document_id)
    return "train" if place < VALID else "valid" if place < TEST else "test"

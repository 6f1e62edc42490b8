"""How alike people find texts: 50 short news items and a rating for each of their 1,225 pairs.

The ratings are those of Lee, Pincombe & Welsh (2005), means over several people, from 0 to 1.
They are for measuring only: no model of this book is trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass

from bertlearn.data import sources
from bertlearn.data.errors import DataError


@dataclass(frozen=True)
class RatedTexts:
    """Texts, and what people said of each pair.

    Attributes:
        texts: in the order of the source.
        pairs: numbers ``(i, j)`` of two texts, ``i < j``, row by row.
        ratings: for each pair the mean rating, 0 (nothing in common) to 1 (the same).
    """

    texts: list[str]
    pairs: list[tuple[int, int]]
    ratings: list[float]


def lee() -> RatedTexts:
    """The 50 texts (Australian news of 2002, about 80 words each) and the 1,225 ratings.

    Raises:
        SourceError: if the source cannot be had.
    """
    folder = sources.fetch("lee")
    texts = (folder / "lee.cor").read_text(encoding="latin-1").splitlines()
    lines = (folder / "similarities0-1.txt").read_text(encoding="ascii").splitlines()
    return rated(texts, [[float(number) for number in line.split()] for line in lines])


def rated(texts: list[str], table: list[list[float]]) -> RatedTexts:
    """Texts with a table of their ratings, of which only what is right of the diagonal counts.

    Raises:
        DataError: if the table does not have a row and a column for each text.
    """
    size = len(texts)
    if len(table) != size or any(len(row) != size for row in table):
        shape = f"{len(table)} rows of {sorted({len(row) for row in table})} numbers"
        raise DataError(f"{size} texts need a table of {size} by {size} ratings, not {shape}")
    pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
    return RatedTexts(texts, pairs, [table[i][j] for i, j in pairs])

"""Documents as token files: built once, read by every training run::

    DIR/data.json          what is in it: sources, counts, sizes, hashes
    DIR/vocab.txt          the pieces
    DIR/counts.npy         how often each occurs in training, int64 (vocab_size,)
    DIR/train/tokens.bin   ids one after the other, 2 bytes each (4 if there are over 32,768 pieces)
    DIR/train/sentences.npy   where in it each sentence begins, and the end of the last one
    DIR/train/documents.npy   where in sentences.npy each document begins, and the end
    DIR/valid/...  DIR/test/...

The highest bit of a token says that it continues the word of the token before it. Nothing is kept
in memory: neither in building, which goes through the documents in parts, nor in reading, where the
operating system brings what is looked at.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bertlearn.data.building import FORMAT, SPLIT_FILES, build, token_type
from bertlearn.data.errors import DataError
from bertlearn.data.splits import SPLITS
from bertlearn.tokenization import BertTokenizer

__all__ = ["CONTINUES", "Split", "TokenData", "build"]

# In arrays that are handed out: this token continues the word of the one before it. The id is
# ``token & ~CONTINUES``.
CONTINUES: int = 1 << 30


class TokenData:
    """A folder that `build` wrote.

    Args:
        folder: the one with data.json in it.

    Attributes:
        folder: the same.
        meta: the content of data.json.

    Raises:
        DataError: if there is no such folder, or a file in it is missing or was cut short.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.meta: dict[str, Any] = _read_meta(self.folder)
        for name, file in self.meta["files"].items():
            path = self.folder / name
            size = path.stat().st_size if path.is_file() else 0
            if size != file["bytes"]:
                raise DataError(
                    f"{path} has {size} bytes instead of {file['bytes']}: it was cut short or "
                    f"changed. Remove {self.folder} and build it again, or copy it again."
                )

    @property
    def vocab_size(self) -> int:
        """Pieces in the vocabulary, special tokens included."""
        return self.meta["vocab_size"]

    @property
    def fingerprint(self) -> str:
        """A hash, in hex, that changes with any token, border or piece; not with the folder."""
        hashes = {name: file["sha256"] for name, file in self.meta["files"].items()}
        key = [self.meta["format"], self.meta["lowercase"], hashes]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    @cached_property
    def unigram_counts(self) -> np.ndarray:
        """How often each piece occurs in the training split, int64, (vocab_size,)."""
        return np.load(self.folder / "counts.npy")

    def tokenizer(self) -> BertTokenizer:
        """The tokenizer that made the ids."""
        return BertTokenizer.from_file(self.folder / "vocab.txt", self.meta["lowercase"])

    def split(self, name: str) -> Split:
        """The documents for "train", "valid" or "test".

        Raises:
            ValueError: if it is none of these.
        """
        if name not in SPLITS:
            raise ValueError(f"split: one of {', '.join(SPLITS)}, not {name!r}")
        return Split(self.folder / name, self.vocab_size)

    def verify(self) -> None:
        """Hold every file against its hash (reads them all).

        Raises:
            DataError: naming the first one that differs.
        """
        for name, file in self.meta["files"].items():
            with (self.folder / name).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != file["sha256"]:
                    raise DataError(f"{self.folder / name} was changed: build it again.")

    def __repr__(self) -> str:
        return f"TokenData({str(self.folder)!r})"


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "data.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta["format"] == FORMAT:
            return meta
    except FileNotFoundError:
        raise DataError(
            f"There are no token files in {folder} (no data.json): write them with "
            f"`bertlearn data build --source NAME --vocab-size 8192 --out {folder}`."
        ) from None
    except (ValueError, KeyError, TypeError, NotADirectoryError):
        raise DataError(f"{path} is not what `bertlearn data build` writes: build again.") from None
    raise DataError(
        f"{path} is in format {meta['format']}, this version of bertlearn reads {FORMAT}: build it "
        "again."
    )


class Split:
    """The documents of a split, as ids. Use `TokenData.split` to get one.

    Attributes:
        num_documents, num_sentences, num_tokens: how many there are.
    """

    def __init__(self, folder: Path, vocab_size: int):
        self._arguments = (folder, vocab_size)
        tokens, sentences, documents = (folder / name for name in SPLIT_FILES)
        self._documents = np.load(documents, mmap_mode="r")
        self._sentences = np.load(sentences, mmap_mode="r")
        self.num_documents = len(self._documents) - 1
        self.num_sentences = len(self._sentences) - 1
        self.num_tokens = int(self._sentences[-1])
        kind = token_type(vocab_size)
        self._top = 1 << (8 * kind.itemsize - 1)
        # an empty file cannot be mapped
        self._tokens = np.memmap(tokens, kind, "r") if self.num_tokens else np.zeros(0, kind)

    @cached_property
    def document_lengths(self) -> np.ndarray:
        """Tokens of each document, int64, (num_documents,)."""
        return np.diff(self._sentences[self._documents])

    def document(self, index: int) -> list[np.ndarray]:
        """The sentences of a document, int32 each, with ``CONTINUES``. They are yours to change.

        Raises:
            IndexError: if there is no such document.
        """
        if not -self.num_documents <= index < self.num_documents:
            raise IndexError(f"document {index} of {self.num_documents}")
        index %= self.num_documents
        first, last = self._documents[index], self._documents[index + 1]
        borders = np.array(self._sentences[first : last + 1])
        stored = self._tokens[borders[0] : borders[-1]].astype(np.int64)
        top = stored & self._top
        tokens = ((stored ^ top) | (top != 0) * CONTINUES).astype(np.int32)
        return np.split(tokens, borders[1:-1] - borders[0])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return map(self.document, range(self.num_documents))

    def __len__(self) -> int:
        return self.num_documents

    def release(self) -> None:
        """Give back the memory in which the system keeps what was read; it can be read again.

        Costs next to nothing. Without it the memory that a process seems to use grows up to the
        size of the files, though the system would take it back if it were needed.
        """
        for array in (self._tokens, self._sentences, self._documents):
            mapping = getattr(array, "_mmap", None)
            if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process goes where the files are, not what is in them."""
        return (Split, self._arguments)

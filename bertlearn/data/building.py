"""Documents to token files, in parts: see `bertlearn.data.shards` for what comes out.

The work has four steps, each done part by part. A part that is finished is found again after an
interruption, and the step goes on behind it.

    collect     documents to texts-NNNNN.jsonl, with a hash of each text and its place of split_of
    (all parts) duplicates out, every document gets its split
    learn       the vocabulary from the training texts, if one is asked for
    encode      texts to sentences to ids: tokens-NNNNN.npz
    write       the parts one after the other into the files of each split
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from bertlearn.data.corpora import Document, sentences
from bertlearn.data.errors import DataError
from bertlearn.data.inputs import Input, open_input
from bertlearn.data.splits import SPLITS, TEST, VALID, place_of
from bertlearn.data.words import CHINESE_SHARE, chinese_continues, is_chinese_text
from bertlearn.text.vocabulary import build_fast
from bertlearn.tokenization import BertTokenizer, count_words, train_wordpiece

if TYPE_CHECKING:
    from bertlearn.data.shards import TokenData

FORMAT = 1
SPLIT_FILES = ("tokens.bin", "sentences.npy", "documents.npy")
PART_DOCUMENTS = 5_000
PART_CHARACTERS = 1 << 24
_BATCH = 1024  # sentences that the tokenizer gets at a time

_KEY = np.dtype([("text", "<u8"), ("place", "<u8"), ("source", "<u2")])
_DROPPED = 255  # in place of a split: a duplicate


def token_type(vocab_size: int) -> np.dtype:
    """How a token is stored: 2 bytes if the highest bit of them stays free, else 4."""
    return np.dtype("<u2" if vocab_size <= 1 << 15 else "<u4")


def build(
    sources: Sequence[str | tuple[str, Callable[[], Iterable[Document]]]],
    out: str | Path,
    tokenizer: BertTokenizer | str | Path | None = None,
    vocab_size: int | None = None,
    lowercase: bool | None = None,
    *,
    blank_lines: bool = False,
    part_documents: int = PART_DOCUMENTS,
    progress: bool = False,
) -> TokenData:
    """Write token files for documents, and open them.

    Of documents with the same text (after NFKC, white space aside) only the first is kept. If no
    document falls to validation or training, which happens to small corpora, the last twentieth
    by their hashes is for validation.

    An interrupted build goes on where it was, if called again. The folder ``out`` appears when it
    is complete. If it is there already, from the same call, nothing is done.

    Args:
        sources: what `bertlearn.data.inputs.open_input` takes: corpora, files, folders, Hugging
            Face data sets; or a name with a function that starts a stream of documents.
        out: the folder to write.
        tokenizer: a vocabulary, as an object or a file. Give this or ``vocab_size``.
        vocab_size: learn a vocabulary of this size from the training texts.
        lowercase: strip accents and lower the case. If None, what the tokenizer does, else True.
        blank_lines: in text files a blank line ends a document.
        part_documents: how many documents go into a part.
        progress: show it on stderr, if that is a terminal.

    Raises:
        DataError: if there are no documents or just one, the folder is in use, the disk is full.
        ValueError: if the vocabulary is not BERT's, or ``vocab_size`` has no room for the letters.
    """
    from bertlearn.data.shards import TokenData

    inputs = [open_input(source, blank_lines) for source in sources]
    _check(inputs, tokenizer, vocab_size)
    if isinstance(tokenizer, (str, Path)):
        tokenizer = BertTokenizer.from_file(tokenizer, lowercase)
    if tokenizer is not None:
        lowercase = tokenizer.lowercase
    job = _Job(
        inputs, Path(out), tokenizer, vocab_size, lowercase is not False, part_documents, progress
    )
    key = job.key()
    if job.out.exists():
        return _the_same(job.out, key)
    with _room(job), _work_folder(job, key):
        if not job.out.exists():  # else another process was faster
            _build(job, key)
        return TokenData(job.out)


def _check(inputs: list[Input], tokenizer: object, vocab_size: int | None) -> None:
    if not inputs:
        raise DataError("There is nothing to build from: name at least one source.")
    names = [each.name for each in inputs]
    if len(set(names)) < len(names):
        raise DataError(f"Two sources have the same name: {', '.join(names)}.")
    if (tokenizer is None) == (vocab_size is None):
        raise ValueError("give a tokenizer or a vocab_size, and not both")


@dataclass
class _Job:
    inputs: list[Input]
    out: Path
    tokenizer: BertTokenizer | None
    vocab_size: int | None
    lowercase: bool
    part_documents: int
    progress: bool

    @property
    def work(self) -> Path:
        """Where the parts are kept meanwhile."""
        return self.out.absolute().parent / f".{self.out.name}.work"

    def key(self) -> str:
        """A hash of all that decides what comes out."""
        vocab = self.tokenizer.vocab if self.tokenizer else {}
        content = {
            "format": FORMAT,
            "sources": [[each.name, each.identity()] for each in self.inputs],
            "vocab": [self.vocab_size, sorted(vocab.items(), key=lambda item: item[1])],
            "lowercase": self.lowercase,
            "part_documents": self.part_documents,
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def bar(self, what: str, total: int | None = None) -> Any:
        from tqdm import tqdm

        return tqdm(desc=what, total=total, unit=" documents", disable=not self.progress or None)


def _the_same(out: Path, key: str) -> TokenData:
    from bertlearn.data.shards import TokenData

    try:
        data = TokenData(out)
    except DataError as error:
        raise DataError(f"{out} exists already, and is not a complete build: {error}") from None
    if data.meta["key"] != key:
        raise DataError(
            f"{out} exists already, built from other sources or with other options: name another "
            "folder, or remove it."
        )
    return data


def _build(job: _Job, key: str) -> None:
    parts = _collect(job)
    splits = _assign(job, parts)
    tokenizer = job.tokenizer or _learn(job, parts, splits)
    for part in range(len(parts)):
        _encode_part(job, part, parts[part], splits[part], tokenizer)
    _write(job, parts, splits, tokenizer, key)


# ---- the work folder ----------------------------------------------------------------------------


@contextmanager
def _work_folder(job: _Job, key: str) -> Iterator[None]:
    """The work folder, with what an interrupted build of the same key left in it."""
    from filelock import FileLock, Timeout

    work = job.work
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(f"Another process is building {job.out}: wait until it is done.") from None
    with lock:
        mark = work / "key"
        if not mark.exists() or mark.read_text(encoding="ascii") != key:
            _empty(work)
            mark.write_text(key, encoding="ascii")
        try:
            yield
        except BaseException:
            if any(work.glob("keys-*.npy")):  # there is something to go on from
                raise
            shutil.rmtree(work, ignore_errors=True)
            raise
    shutil.rmtree(work, ignore_errors=True)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


@contextmanager
def _room(job: _Job) -> Iterator[None]:
    """A full disk as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DataError(
            f"There is no room for {job.out} ({error.strerror}): building it takes about twice the "
            "size of the texts. What is done is kept: free some and run the same command again, or "
            f"remove {job.work}."
        ) from error


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there when it is complete, or not at all."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# ---- collect ------------------------------------------------------------------------------------


def _collect(job: _Job) -> list[np.ndarray]:
    """The keys of all documents, part by part; their texts are written to the work folder."""
    parts: list[np.ndarray] = []
    while (path := job.work / f"keys-{len(parts):05}.npy").exists():
        parts.append(np.load(path))
    if (job.work / "collected").exists():
        return parts
    stream = _documents(job.inputs)
    done = sum(map(len, parts))
    with job.bar("reading") as bar:
        next(itertools.islice(stream, done, done), None)
        bar.update(done)
        while (part := _collect_part(job, len(parts), stream)) is not None:
            parts.append(part)
            bar.update(len(part))
    if not parts:
        names = ", ".join(each.name for each in job.inputs)
        raise DataError(f"There is no text in {names}: nothing was built.")
    (job.work / "collected").touch()
    return parts


def _documents(inputs: list[Input]) -> Iterator[tuple[int, str, str]]:
    """Number of the source, id and text of each document that is not empty."""
    for number, each in enumerate(inputs):
        for document in each.read():
            if document.text.strip():
                yield number, document.id, document.text


def _collect_part(
    job: _Job, number: int, stream: Iterator[tuple[int, str, str]]
) -> np.ndarray | None:
    """Write the texts of the next part; None if there are no more."""
    keys: list[tuple[int, int, int]] = []
    characters = 0
    with _replacing(job.work / f"texts-{number:05}.jsonl") as out:
        for source, document_id, text in stream:
            place = place_of(job.inputs[source].name, document_id)
            keys.append((_text_hash(text), place, source))
            out.write(json.dumps(text).encode() + b"\n")
            characters += len(text)
            if len(keys) >= job.part_documents or characters >= PART_CHARACTERS:
                break
    if not keys:
        return None
    part = np.array(keys, _KEY)
    with _replacing(job.work / f"keys-{number:05}.npy") as out:
        np.save(out, part)
    return part


def _text_hash(text: str) -> int:
    """Equal for texts that differ only in white space and in compatible characters (１ and 1)."""
    folded = " ".join(unicodedata.normalize("NFKC", text).split())
    digest = hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _texts(job: _Job, part: int) -> Iterator[str]:
    with (job.work / f"texts-{part:05}.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


# ---- duplicates and splits ----------------------------------------------------------------------


def _assign(job: _Job, parts: list[np.ndarray]) -> list[np.ndarray]:
    """For each document of each part the number of its split, or 255 for a duplicate."""
    keys = np.concatenate(parts)
    first = np.unique(keys["text"], return_index=True)[1]
    split = np.full(len(keys), _DROPPED, np.uint8)
    place = keys["place"][first]
    split[first] = (place >= np.uint64(VALID)).astype(np.uint8) + (place >= np.uint64(TEST))
    have = np.bincount(split[first], minlength=3)
    if not have[0] or not have[1]:
        if len(first) < 2:
            names = ", ".join(each.name for each in job.inputs)
            raise DataError(
                f"{names} is a single document, and one is needed for training and another one for "
                "validation. If it is a text file, let blank lines end a document (--blank-lines)."
            )
        order = first[np.argsort(place, kind="stable")]
        if have[0]:  # what is for the test stays for the test
            order = order[split[order] == 0]
        few = max(1, round(len(order) / 20))
        if len(order) > few:
            split[order[:-few]], split[order[-few:]] = 0, 1
        else:  # one for training, one for the test
            split[first] = [0, 1]
    return np.split(split, np.cumsum([len(part) for part in parts])[:-1])


# ---- the vocabulary -----------------------------------------------------------------------------


def _learn(job: _Job, parts: list[np.ndarray], splits: list[np.ndarray]) -> BertTokenizer:
    path = job.work / "vocab.txt"
    if not path.exists():
        words = count_words(_training_texts(job, splits), job.lowercase)
        pieces = train_wordpiece(words, job.vocab_size or 0)
        with _replacing(path) as out:
            out.write("".join(f"{piece}\n" for piece in pieces).encode())
    return BertTokenizer.from_file(path, job.lowercase)


def _training_texts(job: _Job, splits: list[np.ndarray]) -> Iterator[str]:
    with job.bar("words", sum(map(len, splits))) as bar:
        for part, split in enumerate(splits):
            for text, number in zip(_texts(job, part), split, strict=True):
                bar.update()
                if number == 0:
                    yield _sound(text)


def _sound(text: str) -> str:
    """Without halves of surrogate pairs, which are no characters."""
    return text.encode("utf-8", "ignore").decode("utf-8")


# ---- encode -------------------------------------------------------------------------------------


def _encode_part(
    job: _Job, part: int, keys: np.ndarray, splits: np.ndarray, tokenizer: BertTokenizer
) -> None:
    """Write the ids of a part: for each split tokens, lengths of sentences and of documents."""
    path = job.work / f"tokens-{part:05}.npz"
    if path.exists():
        return
    fast = _Encoder(tokenizer)
    arrays: dict[str, Any] = {}
    stats = np.zeros((len(job.inputs), 3), np.int64)  # documents, sentences, tokens
    with job.bar(f"part {part + 1}", len(keys)) as bar:
        found: list[tuple[int, int, list[np.ndarray]]] = []
        for batch in _batches(zip(_texts(job, part), keys["source"], splits, strict=True)):
            rows = fast.encode([text for text, _, _ in batch])
            found += [(s, k, row) for (_, s, k), row in zip(batch, rows, strict=True) if row]
            bar.update(len(batch))
    for source, _, row in found:
        stats[source] += [1, len(row), sum(map(len, row))]
    kind = token_type(_ids(tokenizer))
    for number, name in enumerate(SPLITS):
        mine = [row for _, split, row in found if split == number]
        lines = [line for row in mine for line in row]
        arrays[f"{name}-tokens"] = np.concatenate([np.zeros(0, kind), *lines]).astype(kind)
        arrays[f"{name}-sentences"] = np.array([len(line) for line in lines], np.int64)
        arrays[f"{name}-documents"] = np.array([len(row) for row in mine], np.int64)
    with _replacing(path) as out:
        np.savez(out, **arrays, stats=stats)


def _ids(tokenizer: BertTokenizer) -> int:
    """Rows that an embedding of these ids needs."""
    return max(tokenizer.vocab.values()) + 1


def _batches(
    rows: Iterable[tuple[str, int, int]],
) -> Iterator[list[tuple[str, int, int]]]:
    """Documents to keep, some at a time."""
    batch: list[tuple[str, int, int]] = []
    characters = 0
    for row in rows:
        if row[2] == _DROPPED:
            continue
        batch.append(row)
        characters += len(row[0])
        if characters > 1 << 18:
            yield batch
            batch, characters = [], 0
    yield batch


class _Encoder:
    """Documents to sentences to tokens as they are stored, with the bit for words."""

    def __init__(self, tokenizer: BertTokenizer):
        self.fast = build_fast(tokenizer.vocab, tokenizer.lowercase)
        self.fast.encode_special_tokens = True  # "[SEP]" in a text is text
        size = _ids(tokenizer)
        self.kind = token_type(size)
        self.top = self.kind.type(1 << (8 * self.kind.itemsize - 1))
        self.continues = np.zeros(size, bool)
        for piece, index in tokenizer.vocab.items():
            self.continues[index] = piece.startswith("##")

    def encode(self, texts: list[str]) -> list[list[np.ndarray]]:
        """For each text its sentences that have tokens."""
        split = [sentences(_sound(text)) for text in texts]
        chinese = [is_chinese_text(text) for text in texts]
        kinds = list(zip(split, chinese, strict=True))
        plain = iter(self._plain([line for row, zh in kinds if not zh for line in row]))
        words = iter(self._words([line for row, zh in kinds if zh for line in row]))
        rows = []
        for row, zh in kinds:
            lines = [next(words if zh else plain) for _ in row]
            rows.append([line for line in lines if len(line)])
        return rows

    def _plain(self, lines: list[str]) -> Iterator[np.ndarray]:
        for start in range(0, len(lines), _BATCH):
            batch = lines[start : start + _BATCH]
            for encoding in self.fast.encode_batch_fast(batch, add_special_tokens=False):
                ids = np.array(encoding.ids, self.kind)
                yield ids | self.continues[ids] * self.top

    def _words(self, lines: list[str]) -> Iterator[np.ndarray]:
        for start in range(0, len(lines), _BATCH):
            batch = lines[start : start + _BATCH]
            encodings = self.fast.encode_batch(batch, add_special_tokens=False)
            for line, encoding in zip(batch, encodings, strict=True):
                ids = np.array(encoding.ids, self.kind)
                inside = self.continues[ids] | chinese_continues(line, encoding.offsets)
                yield ids | inside * self.top


# ---- write --------------------------------------------------------------------------------------


def _write(
    job: _Job,
    parts: list[np.ndarray],
    splits: list[np.ndarray],
    tokenizer: BertTokenizer,
    key: str,
) -> None:
    """Put the parts together; the folder appears when all is there."""
    done = job.work / "done"
    if done.exists():
        shutil.rmtree(done)
    done.mkdir()
    files = [job.work / f"tokens-{part:05}.npz" for part in range(len(parts))]
    size = _ids(tokenizer)
    counts = np.zeros(size, np.int64)
    totals = {}
    for name in SPLITS:
        (done / name).mkdir()
        totals[name] = _write_split(name, files, done / name, size, counts)
    np.save(done / "counts.npy", counts)
    tokenizer.save(done / "vocab.txt")
    meta = _meta(job, parts, splits, files, tokenizer) | {"splits": totals, "key": key}
    meta["files"] = {
        path.relative_to(done).as_posix(): _describe(path)
        for path in sorted(done.rglob("*"))
        if path.is_file()
    }
    with _replacing(done / "data.json") as out:
        out.write(json.dumps(meta, indent=1, ensure_ascii=False).encode())
    os.replace(done, job.out)


def _write_split(
    name: str, files: list[Path], folder: Path, size: int, counts: np.ndarray
) -> dict[str, int]:
    """The three files of a split; adds to ``counts`` if it is the training split."""
    totals = {"documents": 0, "sentences": 0, "tokens": 0}
    for path in files:
        with np.load(path) as part:
            for kind in totals:
                totals[kind] += len(part[f"{name}-{kind}"])
    names = zip(("sentences", "documents"), SPLIT_FILES[1:], strict=True)
    for kind, file in names:
        with _replacing(folder / file) as out:
            _header(out, totals[kind] + 1)
            end = 0
            for path in files:
                with np.load(path) as part:
                    ends = end + np.cumsum(part[f"{name}-{kind}"])
                out.write(ends.astype("<i8").data)
                end = int(ends[-1]) if len(ends) else end
    top = 1 << (8 * token_type(size).itemsize - 1)
    with _replacing(folder / SPLIT_FILES[0]) as out:
        for path in files:
            with np.load(path) as part:
                tokens = part[f"{name}-tokens"]
            out.write(tokens.data)
            if name == "train":
                counts += np.bincount(tokens & tokens.dtype.type(top - 1), minlength=size)
    return totals


def _header(out: IO[bytes], length: int) -> None:
    """Begin a .npy file of int64, and its first entry, 0."""
    shape = {"descr": "<i8", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(out, shape)
    out.write(bytes(8))


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _meta(
    job: _Job,
    parts: list[np.ndarray],
    splits: list[np.ndarray],
    files: list[Path],
    tokenizer: BertTokenizer,
) -> dict[str, Any]:
    stats = np.zeros((len(job.inputs), 3), np.int64)
    for path in files:
        with np.load(path) as part:
            stats += part["stats"]
    source, split = np.concatenate(parts)["source"], np.concatenate(splits)
    rows = {}
    for number, each in enumerate(job.inputs):
        documents, lines, tokens = map(int, stats[number])
        rows[each.name] = {
            "documents": documents,
            "sentences": lines,
            "tokens": tokens,
            "duplicates": int(((source == number) & (split == _DROPPED)).sum()),
        }
    words = f"pieces; jieba in texts with at least {CHINESE_SHARE:.0%} Chinese characters"
    return {
        "format": FORMAT,
        "vocab_size": _ids(tokenizer),
        "lowercase": tokenizer.lowercase,
        "words": words,
        "sources": rows,
    }

"""A file of one's own as a task: CSV, TSV or lines of JSON.

=================  ==============================================================================
kind               columns (CSV, TSV) or fields (JSON lines)
=================  ==============================================================================
classification     ``text``, ``label``, and ``pair`` where two texts belong together
tagging            ``words`` and ``tags``: lists (JSON lines only)
questions          ``question``, ``context``, ``answer`` ("" or null: none), and ``start``, if the
                   answer is in the context more than once (JSON lines and CSV)
=================  ==============================================================================

Other names of columns are given as options. A folder with ``train``, ``valid`` and ``test`` files
is a task with a split of its own. A single file is split by the hash of its texts, 80, 10 and 10 of
a hundred: records with the same text, and questions on the same context, are never on both sides.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from bertlearn.data.errors import DataError
from bertlearn.data.splits import SPLITS, Split, place_of
from bertlearn.data.tasks.records import (
    Classified,
    Kind,
    Question,
    Record,
    Tagged,
    Task,
    check_classes,
    check_records,
    group_of,
    text_of,
)
from bertlearn.data.words import is_chinese_text
from bertlearn.text.vocabulary import guess_encoding

__all__ = ["SUFFIXES", "load_from_files"]

SUFFIXES = (".csv", ".tsv", ".jsonl")
FIELDS: dict[Kind, tuple[str, ...]] = {
    "qa": ("question", "context", "answer"),
    "tagging": ("words", "tags"),
    "classification": ("text", "label"),
}
Columns = Mapping[str, str]


def load_from_files(path: str | Path, columns: Columns | None = None) -> Task:
    """A task from a file, or from a folder with one file for each split.

    Args:
        path: see the top of this module.
        columns: names of columns, where they are others, as in ``{"text": "review"}``.

    Raises:
        DataError: if the file or a column is missing; for an empty text, a label that training
            has not, a class with one example, an answer that is not in its context.
    """
    path = Path(path)
    columns = columns or {}
    if path.is_dir():
        files = {split: _file_of(path, split) for split in SPLITS}
        parts = {split: _read(file, columns) for split, file in files.items()}
        where = {split: str(file) for split, file in files.items()}
    else:
        everything = _read(path, columns)
        parts = {split: [r for r in everything if _place(r) == split] for split in SPLITS}
        where = dict.fromkeys(SPLITS, str(path))
    kind = _kind_of(parts["train"] or parts["valid"] or parts["test"])
    labels = _labels(kind, parts, where, one_file=path.is_file())
    for split in SPLITS:
        check_records(parts[split], labels or None, where[split])
    if empty := [split for split in SPLITS if not parts[split]]:
        raise DataError(
            f"{path} leaves nothing for {empty[0]}: give more "
            f"{'contexts' if kind == 'qa' else 'records'}, or a folder with the files train, "
            f"valid and test"
        )
    chinese = is_chinese_text(" ".join(map(text_of, parts["train"][:100])))
    return Task(path.stem, kind, "zh" if chinese else "", labels, **parts)


def _place(record: Record) -> str:
    place = place_of("own", group_of(record)) / 2**64
    return "train" if place < 0.8 else "valid" if place < 0.9 else "test"


def _file_of(folder: Path, split: str) -> Path:
    found = [folder / f"{split}{suffix}" for suffix in SUFFIXES]
    found = [file for file in found if file.is_file()]
    if not found:
        raise DataError(f"{folder} has no {split}.csv, {split}.tsv or {split}.jsonl")
    return found[0]


def _kind_of(records: list[Record]) -> Kind:
    if records and isinstance(records[0], Tagged):
        return "tagging"
    return "qa" if records and isinstance(records[0], Question) else "classification"


def _labels(
    kind: Kind, parts: Mapping[Split, list[Record]], where: Mapping[Split, str], one_file: bool
) -> tuple[str, ...]:
    """Classes or tags, sorted (O first); what is not in training is not one."""
    if kind == "qa":
        return ()
    if kind == "tagging":
        tags = {tag for r in cast(list[Tagged], parts["train"]) for tag in r.tags} - {"O"}
        kinds = sorted({tag.partition("-")[2] for tag in tags})
        if bad := sorted(tag for tag in tags if tag[:2] not in ("B-", "I-") or not tag[2:]):
            raise DataError(f"{where['train']}: the tag {bad[0]!r} is none of O, B-NAME and I-NAME")
        return ("O", *(f"{place}-{kind}" for kind in kinds for place in "BI"))
    known = parts["train"]
    if one_file:
        known = [record for split in SPLITS for record in parts[split]]
    check_classes(cast(list[Classified], known), where["train"])
    return tuple(sorted({r.label for r in cast(list[Classified], known)}))


# ---- reading ------------------------------------------------------------------------------------


def _read(path: Path, columns: Columns) -> list[Record]:
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} is none of {', '.join(SUFFIXES)}: save it as one of them")
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    rows = list(_json_rows(path) if path.suffix == ".jsonl" else _table_rows(path))
    if not rows:
        raise DataError(f"{path} has no records in it")
    there = list(dict.fromkeys(name for _, row in rows[:100] for name in row))
    kind = next(
        (k for k, fields in FIELDS.items() if all(columns.get(f, f) in there for f in fields)), None
    )
    if kind is None:
        raise DataError(_lacking(path, columns, there))
    return [_record(path, number, row, kind, columns) for number, row in rows]


def _lacking(path: Path, columns: Columns, there: list[str]) -> str:
    """Which column is missing, of the kind of task that comes nearest."""
    wanted = max(
        FIELDS.values(), key=lambda fields: sum(columns.get(f, f) in there for f in fields)
    )
    if columns.keys() & set(FIELDS["classification"]):
        wanted = FIELDS["classification"]
    field = next(f for f in wanted if columns.get(f, f) not in there)
    name = columns.get(field, field)
    near = difflib.get_close_matches(name, there, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"{path} has no column {name!r}; its columns are {', '.join(there)}. Name the right one, "
        f"as in --column {field}=NAME.{hint}"
    )


def _record(path: Path, number: int, row: dict[str, Any], kind: Kind, columns: Columns) -> Record:
    def value(field: str) -> Any:
        return row.get(columns.get(field, field))

    def text(field: str) -> str:
        found = value(field)
        return "" if found is None else str(found).strip()

    name = f"line {number}"
    if kind == "classification":
        label = text("label")
        if not label:
            raise DataError(f"{path}, {name}: the label is empty")
        return Classified(name, text("text"), label, text("pair") if value("pair") else None)
    if kind == "tagging":
        words, tags = value("words"), value("tags")
        if not (isinstance(words, list) and isinstance(tags, list)):
            raise DataError(f"{path}, {name}: words and tags must be lists")
        return Tagged(name, tuple(map(str, words)), tuple(map(str, tags)))
    context, answer, start = str(value("context") or ""), text("answer"), value("start")
    if not answer:
        return Question(name, text("question"), context, ())
    if start in (None, ""):
        start = context.find(answer)
    return Question(name, text("question"), context, ((answer, int(start)),))


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    stream = io.StringIO(_decoded(path), newline="")
    mark = "\t" if path.suffix == ".tsv" else ","
    if mark == "\t":  # quotes in it are letters like others
        reader = csv.DictReader(stream, delimiter=mark, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.DictReader(stream)
    for row in reader:
        if None in row or None in row.values():
            raise DataError(
                f"{path}, line {reader.line_num}: it has another number of fields than the first "
                f"line; a text with {'a comma' if mark == ',' else 'a tab'} in it needs quotes"
            )
        yield reader.line_num, row


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_decoded(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object: {line.strip()[:40]!r}")
        yield number, row


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start}){guess_encoding(raw)}: save it as UTF-8"
        ) from None

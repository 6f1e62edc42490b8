"""The field's usual tasks, through the library `datasets`, for those who have a network.

Where the test's labels are kept secret (GLUE, SQuAD) the published validation set is the test
here, and a tenth of training is for validation. A hash draws it: of the article's title for SQuAD,
else of the text, so that nothing that is read in validation was learned from. (The phrases of
SST-2 are parts of sentences, and the set does not say of which: a phrase and a part of it may be
on both sides.) What the sets themselves split stays as published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bertlearn.data.errors import DataError
from bertlearn.data.splits import split_of
from bertlearn.data.tasks.records import (
    Classified,
    Kind,
    Question,
    Record,
    Tagged,
    Task,
    check_records,
    group_of,
)

__all__ = ["HUB", "HubTask", "load_from_hub"]

Row = Mapping[str, Any]

_CONLL = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
# Sets that a script once made are kept as plain files under this revision.
_PLAIN = "refs/convert/parquet"


@dataclass(frozen=True)
class HubTask:
    """Where a task is, and how its rows are read.

    Attributes:
        set, config, revision: as ``datasets.load_dataset`` takes them.
        kind, language, labels: of the task; labels in the order of their numbers in the set.
        parse: from the name of a record, a row and the labels to a record; KeyError if the row
            lacks a field.
        valid: the set's split for validation; None takes it from training.
        test: the set's split with labels that is for the test.
    """

    set: str
    config: str | None
    revision: str | None
    kind: Kind
    language: str
    labels: tuple[str, ...]
    parse: Callable[[str, Row, tuple[str, ...]], Record]
    valid: str | None
    test: str


def parse_text(name: str, row: Row, labels: tuple[str, ...]) -> Classified:
    """SST-2 ("sentence") and ChnSentiCorp ("text")."""
    text = row["sentence"] if "sentence" in row else row["text"]
    return Classified(name, text, _label(row["label"], labels))


def parse_pair(name: str, row: Row, labels: tuple[str, ...]) -> Classified:
    """MRPC."""
    return Classified(name, row["sentence1"], _label(row["label"], labels), row["sentence2"])


def parse_tags(name: str, row: Row, labels: tuple[str, ...]) -> Tagged:
    """CoNLL-2003 and MSRA-NER."""
    tags = tuple(_label(tag, labels) for tag in row["ner_tags"])
    return Tagged(name, tuple(row["tokens"]), tags)


def parse_question(name: str, row: Row, labels: tuple[str, ...]) -> Question:
    """SQuAD 1.1 and 2.0. Question and context stay as they are: starts count characters."""
    answers = row["answers"]
    found = dict.fromkeys(zip(answers["text"], answers["answer_start"], strict=True))
    return Question(str(row.get("id", name)), row["question"], row["context"], tuple(found))


def _label(value: Any, labels: tuple[str, ...]) -> str:
    """A label by its number in the set, or by its name."""
    if isinstance(value, int) and 0 <= value < len(labels):
        return labels[value]
    return str(value)  # `check_records` refuses what is none


HUB: dict[str, HubTask] = {
    "sst2": HubTask(
        "stanfordnlp/sst2", None, None, "classification", "en", ("negative", "positive"),
        parse_text, None, "validation",
    ),
    "mrpc": HubTask(
        "nyu-mll/glue", "mrpc", None, "classification", "en", ("not_equivalent", "equivalent"),
        parse_pair, "validation", "test",
    ),
    "conll2003": HubTask(
        "eriktks/conll2003", None, _PLAIN, "tagging", "en", _CONLL, parse_tags,
        "validation", "test",
    ),
    "squad": HubTask(
        "rajpurkar/squad", None, None, "qa", "en", (), parse_question, None, "validation",
    ),
    "chnsenticorp": HubTask(
        "lansinuote/ChnSentiCorp", None, None, "classification", "zh", ("negative", "positive"),
        parse_text, "validation", "test",
    ),
    "msra-ner": HubTask(
        "levow/msra_ner", None, _PLAIN, "tagging", "zh", _CONLL[:7], parse_tags, None, "test",
    ),
}  # fmt: skip


def load_from_hub(name: str) -> Task:
    """One of ``HUB``, downloaded by `datasets` on first use.

    Raises:
        DataError: if `datasets` is not installed, or cannot reach the set, or the set has other
            fields than it had; one sentence.
    """
    what = HUB[name]
    rows = _rows(name, what, "train")
    test = parse_rows(name, what.test, _rows(name, what, what.test))
    if what.valid is not None:
        train = parse_rows(name, "train", rows)
        valid = parse_rows(name, what.valid, _rows(name, what, what.valid))
    else:
        train, valid = carve(name, rows)
    return Task(name, what.kind, what.language, what.labels, train, valid, test)


def carve(name: str, rows: Iterable[Row]) -> tuple[list[Record], list[Record]]:
    """Records to learn from, and about a tenth for validation. Rows with the same title, or
    without one the same text (see `group_of`), stay together.

    Args:
        name: one of ``HUB``.
        rows: of training, as `datasets` gives them.

    Raises:
        DataError: see `parse_rows`.
    """
    rows = list(rows)
    train: list[Record] = []
    valid: list[Record] = []
    for row, record in zip(rows, parse_rows(name, "train", rows), strict=True):
        group = str(row.get("title") or group_of(record))
        (train if split_of(name, group) == "train" else valid).append(record)
    return train, valid


def parse_rows(name: str, split: str, rows: Iterable[Row]) -> list[Record]:
    """The records of one split.

    Args:
        name: one of ``HUB``.
        split: for the records' names.
        rows: as `datasets` gives them.

    Raises:
        DataError: if a row lacks a field, or holds what no task can use.
    """
    what = HUB[name]
    found: list[Record] = []
    for number, row in enumerate(rows):
        try:
            found.append(what.parse(f"{split}-{number}", row, what.labels))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{name}, {split}, row {number}: its fields are {', '.join(row)}, which is not "
                f"what {name} had when this was written ({error})"
            ) from None
    check_records(found, what.labels or None, f"{name}, {split}")
    return found


def _rows(name: str, what: HubTask, split: str) -> Iterable[Row]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(
            f"the task {name} needs the library datasets: python -m pip install datasets"
        ) from None
    options = {"revision": what.revision} if what.revision else {}
    try:
        return load_dataset(what.set, what.config, split=split, **options)
    except Exception as error:  # of whichever of its libraries: unknown name, no network, ...
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"the task {name} could not be read by the library datasets, which needs a network "
            f"for it once: {reason}"
        ) from error

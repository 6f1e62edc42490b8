"""What a task is made of: plain records with labels, in three splits."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bertlearn.data.errors import DataError

__all__ = [
    "Classified",
    "Kind",
    "Question",
    "Record",
    "Tagged",
    "Task",
    "check_classes",
    "check_records",
    "group_of",
    "text_of",
]

Kind = Literal["classification", "tagging", "qa"]


@dataclass(frozen=True)
class Classified:
    """A text, or a pair of texts, with its class.

    Attributes:
        id: unique within its task.
        text: as in the source.
        label: one of the task's labels.
        pair: the second text, or None.
    """

    id: str
    text: str
    label: str
    pair: str | None = None


@dataclass(frozen=True)
class Tagged:
    """A sentence in words, each with its tag: B-X begins a name of kind X, I-X continues it, O is
    outside of any.

    Attributes:
        id: unique within its task.
        words: in Chinese the characters, but digits or Latin letters in a row are one word.
        tags: as many as words.
    """

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A question, a text, and the places in the text that answer it.

    Attributes:
        id: unique within its task.
        question: to answer.
        context: where the answer is looked for.
        answers: texts, each with its start in the context; () if the context has no answer.
        kind: of question, if the source has several.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    kind: str = ""


Record = Classified | Tagged | Question


def text_of(record: Record) -> str:
    """What there is to read in a record, as one text."""
    if isinstance(record, Classified):
        return record.text if record.pair is None else f"{record.text}\n{record.pair}"
    if isinstance(record, Tagged):
        return " ".join(record.words)
    return f"{record.question}\n{record.context}"


def group_of(record: Record) -> str:
    """What a split must not tear apart: records of one group are all learned from, or none is.

    Of a question it is the context, since other questions on it give its answers away; of other
    records all of the text. Capitals and blanks do not make another text.
    """
    text = record.context if isinstance(record, Question) else text_of(record)
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
class Task:
    """Labeled records in three splits.

    Attributes:
        name: by which it is loaded.
        kind: what is asked for: a class, a tag for each word, or an answer in a text.
        language: "en", "zh", or "" where it is not known.
        labels: classes or tags in the order of their numbers; () for questions.
        train, valid, test: the records.
    """

    name: str
    kind: Kind
    language: str
    labels: tuple[str, ...]
    train: Sequence[Record] = field(repr=False)
    valid: Sequence[Record] = field(repr=False)
    test: Sequence[Record] = field(repr=False)

    @property
    def is_pair(self) -> bool:
        """Whether the model reads two texts at once."""
        return self.kind == "qa" or any(
            isinstance(r, Classified) and r.pair is not None for r in self.train
        )

    def with_examples(self, count: int, seed: int = 0) -> Task:
        """The same task with fewer records to learn from; validation and test stay as they are.

        The smaller choice is part of the larger one of the same seed. Of each class there is at
        least one record.

        Args:
            count: records to keep.
            seed: which.

        Raises:
            ValueError: if there are not so many, or fewer are asked for than there are classes.
        """
        if not 1 <= count <= len(self.train):
            raise ValueError(
                f"{self.name} has {len(self.train):,} records to learn from: ask for 1 to that "
                f"many examples, not {count}"
            )
        order = list(self.train)
        random.Random(seed).shuffle(order)
        first: dict[str, Record] = {}
        for record in order:
            if isinstance(record, Classified):
                first.setdefault(record.label, record)
        if count < len(first):
            raise ValueError(
                f"{self.name} has {len(first)} classes: {count} examples cannot show each of them"
            )
        ahead = set(map(id, first.values()))
        order = [*first.values(), *(record for record in order if id(record) not in ahead)]
        return dataclasses.replace(self, train=order[:count])


def check_records(
    records: Iterable[Record], labels: Sequence[str] | None = None, where: str = ""
) -> None:
    """Look at records before a long run does.

    Args:
        records: of one task.
        labels: those that may occur; any if None.
        where: from which file or set they come, for messages.

    Raises:
        DataError: for an empty text, a label not in the set, tags that are not as many as words,
            an answer that is not in its context at the place that it names.
    """
    for record in records:
        place = f"{where}, record {record.id}" if where else f"record {record.id}"
        if isinstance(record, Classified):
            _check_texts(place, record.text, *([] if record.pair is None else [record.pair]))
            _check_label(place, record.label, labels)
        elif isinstance(record, Tagged):
            if not record.words or not all(word.strip() for word in record.words):
                raise DataError(f"{place}: it has no words, or an empty one among them")
            if len(record.words) != len(record.tags):
                raise DataError(
                    f"{place}: {len(record.words)} words with {len(record.tags)} tags; each word "
                    f"needs one tag"
                )
            for tag in record.tags:
                _check_label(place, tag, labels)
        else:
            _check_texts(place, record.question, record.context)
            for text, start in record.answers:
                _check_answer(place, record.context, text, start)


def _check_texts(place: str, *texts: str) -> None:
    for text in texts:
        if not text.strip():
            raise DataError(f"{place}: the text is empty; fill it in or leave the record out")


def _check_label(place: str, label: str, labels: Sequence[str] | None) -> None:
    if labels is not None and label not in labels:
        known = ", ".join(labels)
        raise DataError(f"{place}: the label {label!r} is not in the set {known}")


def _check_answer(place: str, context: str, text: str, start: int) -> None:
    if not text or context[start : start + len(text)] != text:
        found = context.find(text) if text else -1
        hint = f"; it stands at {found}" if found >= 0 else "; it does not occur there"
        raise DataError(
            f"{place}: the answer {text!r} is not in its context at character {start}{hint}"
        )


def check_classes(records: Iterable[Classified], where: str) -> None:
    """Refuse a class with a single record: it cannot be learned and tested.

    Raises:
        DataError: if there is one, or only one class at all.
    """
    counts = Counter(record.label for record in records)
    if len(counts) < 2:
        raise DataError(
            f"{where} has the labels {', '.join(counts) or 'none'}: a task needs two classes"
        )
    for label, count in counts.items():
        if count == 1:
            raise DataError(
                f"{where}: the class {label!r} has one example, and needs at least two: one to "
                f"learn from and one to be tested with. Give more, or leave it out"
            )

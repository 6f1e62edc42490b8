"""A fine-tuned model at work: from records to rows, from scores to answers.

What a run needs to answer is in its folder: weights, names of labels, vocabulary, and in run.json
the kind of task and the length of rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from bertlearn.checkpoints import CheckpointError, find_directory
from bertlearn.data.errors import DataError
from bertlearn.data.tasks import Classified, Question, Record, Tagged, Task, load_task
from bertlearn.engine.baselines import score_records
from bertlearn.engine.fill import tokenizer_of
from bertlearn.engine.runs import RunError
from bertlearn.finetuning import (
    Window,
    WordRow,
    answer_windows,
    predict,
    read_answers,
    read_labels,
    text_rows,
    word_rows,
)
from bertlearn.model import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from bertlearn.pretraining import Row
from bertlearn.tokenization import BertTokenizer

__all__ = ["HEADS", "Answerer", "evaluate_run", "load_run", "predict_run", "read_inputs"]

HEADS: dict[str, Any] = {
    "classification": BertForSequenceClassification,
    "tagging": BertForTokenClassification,
    "qa": BertForQuestionAnswering,
}
# A Chinese character, a run of other letters or digits, or a mark: what is a word in free text.
_HAN = r"\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff"
_WORD = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+|\S")


class Answerer:
    """A model with the head of a task, and its tokenizer.

    Args:
        model: one of ``HEADS``.
        tokenizer: of the model.
        kind: of the task.
        labels: in the order of their numbers; () for questions.
        max_length: tokens of a row.
        stride: tokens from one window of a context to the next.
        no_answer: a context may have no answer.
        precision: a context to compute in, such as autocast.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: BertTokenizer,
        kind: str,
        labels: Sequence[str],
        max_length: int,
        stride: int,
        no_answer: bool,
        precision: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.model, self.tokenizer, self.kind = model, tokenizer, kind
        self.labels, self.max_length, self.stride = tuple(labels), max_length, stride
        self.no_answer, self.precision = no_answer, precision
        self.pad_id = tokenizer.token_to_id("[PAD]")

    # ---- records to rows

    def rows(self, records: Sequence[Record], known: bool = True) -> Sequence[Row]:
        """Rows of records, with what is asked of them if it is known.

        Warns:
            UserWarning: if a text is longer than a row: it is cut at its end. Sentences in words
                and contexts go on in further rows, nothing of them is lost.

        Raises:
            ValueError: for an empty text.
        """
        number = {label: i for i, label in enumerate(self.labels)}
        if self.kind == "classification":
            texts = cast(Sequence[Classified], records)
            return text_rows(
                self.tokenizer,
                [r.text if r.pair is None else (r.text, r.pair) for r in texts],
                [number[r.label] for r in texts] if known else None,
                self.max_length,
            )
        if self.kind == "tagging":
            tagged = cast(Sequence[Tagged], records)
            tags = [[number[tag] for tag in r.tags] for r in tagged] if known else None
            return word_rows(self.tokenizer, [r.words for r in tagged], tags, self.max_length)
        found: list[Window] = []
        for source, record in enumerate(cast(Sequence[Question], records)):
            place = None
            if known and record.answers:
                text, start = record.answers[0]
                place = (start, start + len(text))
            found += answer_windows(
                self.tokenizer,
                record.question,
                record.context,
                place,
                self.max_length,
                self.stride,
                source,
            )
        return found

    def scores(self, rows: Sequence[Row]) -> list[Tensor]:
        """The model's logits for each row."""
        return predict(self.model, rows, self.pad_id, precision=self.precision)

    # ---- scores to answers

    def answer(self, records: Sequence[Record]) -> list[Any]:
        """A label, a list of tags, or the text of an answer ("" for none) for each record."""
        if not records:
            return []
        rows = self.rows(records, known=False)
        scores = self.scores(rows)
        if self.kind == "classification":
            return [self.labels[int(logits.argmax())] for logits in scores]
        if self.kind == "tagging":
            return self._tags(cast(Sequence[Tagged], records), rows, scores)
        return [
            question.context[best.start : best.end]
            for question, best in self._best(cast(Sequence[Question], records), rows, scores)
        ]

    def _tags(
        self, records: Sequence[Tagged], rows: Sequence[Row], scores: Sequence[Tensor]
    ) -> list[list[str]]:
        sizes = [len(record.words) for record in records]
        found = read_labels(cast(Sequence[WordRow], rows), scores, sizes)
        return [[self.labels[i] for i in numbers] for numbers in found]

    def _best(
        self, records: Sequence[Question], rows: Sequence[Row], scores: Sequence[Tensor]
    ) -> Iterator[tuple[Question, Any]]:
        """Each question with its best answer."""
        groups: list[list[int]] = [[] for _ in records]
        for place, window in enumerate(cast(Sequence[Window], rows)):
            groups[window.source].append(place)
        threshold = 0.0 if self.no_answer else None
        for record, group in zip(records, groups, strict=True):
            windows = [cast(Window, rows[i]) for i in group]
            answers = read_answers(windows, [scores[i] for i in group], no_answer=threshold)
            yield record, answers[0]

    def tell(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """Answers with all that there is to say of them, as plain data."""
        rows = self.rows(records, known=False)
        scores = self.scores(rows)
        if self.kind == "classification":
            return [self._tell_class(logits.softmax(dim=-1).tolist()) for logits in scores]
        if self.kind == "tagging":
            tagged = cast(Sequence[Tagged], records)
            tags = self._tags(tagged, rows, scores)
            return [{"tags": row, "names": _names(r, row)} for r, row in zip(tagged, tags)]  # noqa: B905
        best = self._best(cast(Sequence[Question], records), rows, scores)
        return [
            {
                "answer": question.context[answer.start : answer.end],
                "start": answer.start,
                "score": round(answer.score, 4),
            }
            for question, answer in best
        ]

    def _tell_class(self, shares: list[float]) -> dict[str, Any]:
        best = max(range(len(shares)), key=shares.__getitem__)
        return {
            "label": self.labels[best],
            "score": round(shares[best], 4),
            "scores": {
                name: round(share, 4) for name, share in zip(self.labels, shares, strict=True)
            },
        }


def _names(record: Tagged, tags: Sequence[str]) -> list[dict[str, str]]:
    """The names in a sentence, put together from their words."""
    found: list[dict[str, str]] = []
    going_on = False
    for word, tag in zip(record.words, tags, strict=True):
        kind = tag[2:]
        if tag.startswith("I-") and going_on and found[-1]["kind"] == kind:
            blank = " " if (found[-1]["name"][-1] + word[0]).isascii() else ""
            found[-1]["name"] += blank + word
        elif kind:
            found.append({"name": word, "kind": kind})
        going_on = bool(kind)
    return found


# ---- a run --------------------------------------------------------------------------------------


def describe_run(run: str | Path) -> dict[str, Any]:
    """What run.json says of a fine-tuned run.

    Raises:
        RunError: if there is none, or the run is of another kind.
    """
    path = Path(run) / "run.json"
    if not path.is_file():
        raise RunError(f"there is no run in {run}: make one with bertlearn finetune --out {run}")
    facts = json.loads(path.read_text(encoding="utf-8"))
    if "kind" not in facts:
        raise RunError(
            f"{run} is a run of bertlearn pretrain and answers nothing yet: fine-tune it with "
            f"bertlearn finetune --model {run}/model"
        )
    return facts


def load_run(run: str | Path) -> Answerer:
    """The model of a fine-tuned run, ready to answer.

    Raises:
        RunError: if there is no such run, or it has no model yet.
    """
    facts = describe_run(run)
    folder = Path(run)
    try:
        model = HEADS[facts["kind"]].from_pretrained(find_directory(folder))
    except CheckpointError as error:
        raise RunError(
            f"{run} has no model yet, or it is damaged ({error}): finish the run with --resume"
        ) from None
    length, stride = facts["max_length"], facts["stride"]
    tokenizer, labels = tokenizer_of(folder), facts["labels"]
    return Answerer(model, tokenizer, facts["kind"], labels, length, stride, facts["no_answer"])


def evaluate_run(
    run: str | Path,
    task: str | Task | None = None,
    split: str = "test",
    columns: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The scores of a run's model.

    Args:
        run: its folder.
        task: with the same labels; the run's own if None.
        split: "train", "valid" or "test".
        columns: of a file, where they have other names.

    Raises:
        RunError: if the run is of another kind of task, or has other labels.
    """
    answerer = load_run(run)
    if task is None:
        facts = describe_run(run)
        task, columns = facts["task"], columns or facts["columns"]
    if not isinstance(task, Task):
        task = load_task(task, columns)
    if task.kind != answerer.kind:
        raise RunError(
            f"{run} is a run for {answerer.kind}, and {task.name} is a task of {task.kind}: name "
            f"a task of the same kind"
        )
    if not set(task.labels) <= set(answerer.labels):
        raise RunError(
            f"{run} knows the labels {', '.join(answerer.labels)}, and {task.name} has "
            f"{', '.join(task.labels)}: name a task with the same labels"
        )
    records = getattr(task, split)
    scores = score_records(task, records, answerer.answer(records))
    rounded = {name: round(value, 4) for name, value in scores.items()}
    return {"task": task.name, "split": split, "records": len(records), **rounded}


# ---- what people type ---------------------------------------------------------------------------


def read_inputs(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """One input a line: plain text, two texts with a tab between, or a JSON object."""
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if text.lstrip().startswith("{"):
            try:
                yield json.loads(text)
                continue
            except ValueError:
                raise DataError(
                    f"line {number} begins like JSON and is not: {text[:40]!r}"
                ) from None
        first, tab, second = text.partition("\t")
        yield {"text": first, "pair": second} if tab else {"text": first}


def predict_run(
    run: str | Path, inputs: Iterable[Mapping[str, Any]], size: int = 256
) -> Iterator[dict[str, Any]]:
    """Answers to inputs, each with its input, as they come.

    Args:
        run: its folder.
        inputs: "text", and "pair" for pairs; "question" and "context" (or "text" and "pair") for
            questions; "text" or "words" for names.
        size: inputs that are answered at once.

    Raises:
        RunError: if there is no such run.
        DataError: for an empty text, or a field that is missing.
    """
    answerer = load_run(run)
    is_pair = bool(describe_run(run)["is_pair"])
    numbered = enumerate(inputs, 1)
    while some := list(islice(numbered, size)):
        records = [_record(answerer.kind, is_pair, i, given) for i, given in some]
        for (_, given), told in zip(some, answerer.tell(records), strict=True):
            yield {**given, **told}


def _record(kind: str, is_pair: bool, number: int, given: Mapping[str, Any]) -> Record:
    def text(*names: str) -> str:
        found = next((given[name] for name in names if name in given), None)
        if not isinstance(found, str):
            raise DataError(
                f"input {number} has no {' and no '.join(names)}: the run needs "
                f"{'two texts (text and pair, or a tab between them)' if is_pair else 'a text'}"
            )
        if not found.strip():
            raise DataError(f"input {number}: the text is empty; leave it out")
        return found

    name = str(number)
    if kind == "classification":
        return Classified(name, text("text"), "", text("pair") if is_pair else None)
    if kind == "qa":
        return Question(name, text("question", "text"), text("context", "pair"), ())
    words = given.get("words") or _WORD.findall(text("text"))
    return Tagged(name, tuple(words), ("O",) * len(words))

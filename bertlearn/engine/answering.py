"""A fine-tuned model at work: from records to rows, from scores to answers.

What a run needs to answer is in its folder: weights, names of labels, vocabulary, and in run.json
the kind of task, the length of rows, and how much better "no answer" must be.
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
from bertlearn.engine.metrics import best_threshold, qa_scores
from bertlearn.engine.runs import RunError
from bertlearn.finetuning import (
    Answer,
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
        threshold: "no answer" is given where its score exceeds that of the best answer by more
            than this, in logits.
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
        threshold: float = 0.0,
    ):
        self.model, self.tokenizer, self.kind = model, tokenizer, kind
        self.labels, self.max_length, self.stride = tuple(labels), max_length, stride
        self.no_answer, self.precision, self.threshold = no_answer, precision, threshold
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
        found = self._found(cast(Sequence[Question], records), rows, scores)
        return [question.context[best.start : best.end] for question, (best, *_) in found]

    def choose_threshold(self, records: Sequence[Record]) -> float:
        """The threshold for "no answer" with the best F1 on these records: give those for
        validation, never those of the test. See `bertlearn.engine.metrics.best_threshold`.

        Returns:
            logits; ``threshold`` itself stays as it is.

        Raises:
            ValueError: without records.
        """
        rows = self.rows(records, known=False)
        differences, spoken, silent = [], [], []
        asked = cast(Sequence[Question], records)
        for question, windows, scores in self._by_question(asked, rows, self.scores(rows)):
            best, *_ = read_answers(windows, scores)
            none = min(float(logits[0].sum()) for logits in scores)
            right = [text for text, _ in question.answers]
            differences.append(none - best.score)
            spoken.append(qa_scores([right], [question.context[best.start : best.end]])["f1"])
            silent.append(qa_scores([right], [""])["f1"])
        return best_threshold(differences, spoken, silent)[0]

    def _tags(
        self, records: Sequence[Tagged], rows: Sequence[Row], scores: Sequence[Tensor]
    ) -> list[list[str]]:
        sizes = [len(record.words) for record in records]
        found = read_labels(cast(Sequence[WordRow], rows), scores, sizes)
        return [[self.labels[i] for i in numbers] for numbers in found]

    def _by_question(
        self, records: Sequence[Question], rows: Sequence[Row], scores: Sequence[Tensor]
    ) -> Iterator[tuple[Question, list[Window], list[Tensor]]]:
        """Each question with its windows, and their scores."""
        groups: list[list[int]] = [[] for _ in records]
        for place, window in enumerate(cast(Sequence[Window], rows)):
            groups[window.source].append(place)
        for record, group in zip(records, groups, strict=True):
            yield record, [cast(Window, rows[i]) for i in group], [scores[i] for i in group]

    def _found(
        self,
        records: Sequence[Question],
        rows: Sequence[Row],
        scores: Sequence[Tensor],
        n_best: int = 20,
    ) -> Iterator[tuple[Question, list[Answer]]]:
        """Each question with its best answers over all windows, best first."""
        threshold = self.threshold if self.no_answer else None
        for record, windows, logits in self._by_question(records, rows, scores):
            yield record, read_answers(windows, logits, n_best, no_answer=threshold)

    def tell(self, records: Sequence[Record], best: int = 1) -> list[dict[str, Any]]:
        """Answers with all that there is to say of them, as plain data.

        Args:
            records: what is asked of them is not looked at.
            best: for questions, how many answers.

        Returns:
            one mapping a record. Of a class it has "label", its probability "score", and "scores"
            by label; of words "tags", one a word, and "names", each with "name" and "kind"; of a
            question "answer" ("" for none), the character "start" where it begins in the context,
            and "score", the logits of its first and of its last token, added. If ``best`` is more
            than 1, also the next ones in "others", best first, each with "answer", "score",
            "start" and "end", the character after its last.
        """
        rows = self.rows(records, known=False)
        scores = self.scores(rows)
        if self.kind == "classification":
            return [self._tell_class(logits.softmax(dim=-1).tolist()) for logits in scores]
        if self.kind == "tagging":
            tagged = cast(Sequence[Tagged], records)
            tags = self._tags(tagged, rows, scores)
            return [{"tags": row, "names": _names(r, row)} for r, row in zip(tagged, tags)]  # noqa: B905
        asked = cast(Sequence[Question], records)
        return [
            _tell_answers(question.context, answers[:best], best > 1)
            for question, answers in self._found(asked, rows, scores, max(best, 20))
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


def _tell_answers(context: str, answers: Sequence[Answer], several: bool) -> dict[str, Any]:
    told = [
        {
            "answer": context[answer.start : answer.end],
            "score": round(answer.score, 4),
            "start": answer.start,
            "end": answer.end,
        }
        for answer in answers
    ]
    first = {name: told[0][name] for name in ("answer", "start", "score")}
    return {**first, "others": told[1:]} if several else first


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
    return Answerer(
        model,
        tokenizer_of(folder),
        facts["kind"],
        facts["labels"],
        length,
        stride,
        facts["no_answer"],
        threshold=facts.get("threshold", 0.0),
    )


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

    Returns:
        "task", "split" and "records", how many there are, then each score by its name, as
        `score_records` gives them, rounded to 4 decimals.

    Raises:
        RunError: if there is no such run, or it is of another kind of task, or has other labels.
        DataError: see `bertlearn.data.tasks.load_task`.
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
    """One input a line: plain text, two texts with a tab between, or a JSON object.

    Args:
        lines: with or without their ends.

    Returns:
        for each line a mapping for `predict_run`, the JSON object, or "text" and, after a tab,
        "pair".

    Raises:
        DataError: for a line that begins like a JSON object and is none, with its number.
    """
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
    run: str | Path, inputs: Iterable[Mapping[str, Any]], size: int = 256, best: int = 1
) -> Iterator[dict[str, Any]]:
    """Answers to inputs, each with its input, as they come.

    Args:
        run: its folder.
        inputs: "text", and "pair" for pairs; "question" and "context" (or "text" and "pair") for
            questions; "text" or "words" for names.
        size: inputs that are answered at once.
        best: how many answers to a question.

    Returns:
        for each input its own fields, then those of the answer. For classes these are "label",
        "score" and "scores"; for words "tags" and "names"; for questions "answer", "start",
        "score" and, if ``best`` is more than 1, "others". See `Answerer.tell`.

    Raises:
        RunError: if there is no such run, or several answers are asked of one that has labels.
        DataError: for an empty text, or a field that is missing.
    """
    answerer = load_run(run)
    if best > 1 and answerer.kind != "qa":
        raise RunError(
            f"{run} is a run for {answerer.kind}: only questions have several answers, leave "
            f"--best out"
        )
    is_pair = bool(describe_run(run)["is_pair"])
    numbered = enumerate(inputs, 1)
    while some := list(islice(numbered, size)):
        records = [_record(answerer.kind, is_pair, i, given) for i, given in some]
        for (_, given), told in zip(some, answerer.tell(records, best), strict=True):
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

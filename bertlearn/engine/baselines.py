"""What a task costs without a network: the most frequent answer, and counted words.

A fine-tuned model is worth its minutes by what it is better than these. They learn from the same
records and are scored on the same ones.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from bertlearn.data.tasks.records import Classified, Question, Record, Tagged, Task
from bertlearn.engine.metrics import (
    MAIN,
    classification_scores,
    mean_and_spread,
    qa_scores,
    tagging_scores,
    words,
)

__all__ = ["Baseline", "baselines", "baselines_of_draws", "score_records"]

Baseline = Callable[[Sequence[Record]], list[Any]]


def score_records(task: Task, records: Sequence[Record], given: Sequence[Any]) -> dict[str, float]:
    """The scores of answers to a task's records.

    Args:
        task: says which scores.
        records: with the truth.
        given: a label, a list of tags, or the text of an answer for each.
    """
    if task.kind == "classification":
        truth = [record.label for record in cast(Sequence[Classified], records)]
        return classification_scores(truth, given, task.labels)
    if task.kind == "tagging":
        return tagging_scores([record.tags for record in cast(Sequence[Tagged], records)], given)
    right = [[text for text, _ in r.answers] for r in cast(Sequence[Question], records)]
    return qa_scores(right, given)


def baselines(task: Task) -> dict[str, dict[str, dict[str, float]]]:
    """Every baseline of a task, trained on its training records.

    Returns:
        by name the scores on "valid" and "test"; the one that is best on valid comes first.
    """
    makers = {"classification": _of_texts, "tagging": _of_tags, "qa": _of_questions}
    found = {}
    for name, answer in makers[task.kind](task):
        found[name] = {
            split: {
                score: round(value, 4)
                for score, value in score_records(task, records, answer(records)).items()
            }
            for split, records in (("valid", task.valid), ("test", task.test))
        }
    return _best_first(found, task)


def baselines_of_draws(draws: Sequence[Task]) -> dict[str, dict[str, dict[str, float]]]:
    """Every baseline of a task, trained on each of several draws of its training records.

    Args:
        draws: the task with other training records each time (`Task.with_examples`).

    Returns:
        by name the mean scores on "valid" and "test", and under "sd" the standard deviations of
        those on "test"; the one that is best on valid, in the mean, comes first.
    """
    each = [baselines(task) for task in draws]
    found = {}
    for name in each[0]:
        spread = {
            split: mean_and_spread([scores[name][split] for scores in each])
            for split in ("valid", "test")
        }
        found[name] = {
            split: {score: row["mean"] for score, row in rows.items()}
            for split, rows in spread.items()
        }
        found[name]["sd"] = {score: row["sd"] for score, row in spread["test"].items()}
    return _best_first(found, draws[0])


def _best_first(found: dict[str, Any], task: Task) -> dict[str, Any]:
    main = MAIN[task.kind]
    return dict(sorted(found.items(), key=lambda item: -item[1]["valid"][main]))


# ---- texts --------------------------------------------------------------------------------------


def _of_texts(task: Task) -> Iterable[tuple[str, Baseline]]:
    """The most frequent class; six ways of logistic regression on counted words or letters."""
    train = cast(Sequence[Classified], task.train)
    labels = [record.label for record in train]
    common = Counter(labels).most_common(1)[0][0]
    yield "majority", lambda records: [common] * len(records)
    for what in ("words", "letters", "words and letters"):
        vectors = _Vectors(what, task.language, task.is_pair).learn(train)
        learned = vectors.of(train)
        for strength in (1.0, 10.0):
            yield f"tf-idf {what}, C={strength:g}", _regression(vectors, learned, labels, strength)


def _regression(vectors: _Vectors, learned: Any, labels: list[str], strength: float) -> Baseline:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=2000).fit(learned, labels)
    return lambda records: model.predict(vectors.of(cast(Sequence[Classified], records))).tolist()


class _Vectors:
    """Texts as tf-idf; of a pair both texts, and how alike they are.

    Args:
        what: "words" (one and two in a row), "letters" (two to five in a row, in Chinese one to
            three), or both.
        language: in Chinese, words are jieba's.
        pair: records have two texts.
    """

    def __init__(self, what: str, language: str, pair: bool):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.pair = pair
        self.vectorizers = []
        if "words" in what:
            options: dict[str, Any] = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b|[!?]"}
            if language == "zh":
                options = {"ngram_range": (1, 2), "tokenizer": _jieba, "token_pattern": None}
            self.vectorizers.append(TfidfVectorizer(sublinear_tf=True, min_df=2, **options))
        if "letters" in what:
            range_, kind = ((1, 3), "char") if language == "zh" else ((2, 5), "char_wb")
            self.vectorizers.append(
                TfidfVectorizer(sublinear_tf=True, min_df=2, analyzer=kind, ngram_range=range_)
            )

    def learn(self, records: Sequence[Classified]) -> _Vectors:
        """Find the vocabulary and how rare its words are."""
        texts = [record.text for record in records]
        texts += [record.pair for record in records if record.pair is not None]
        for vectorizer in self.vectorizers:
            try:
                vectorizer.fit(texts)
            except ValueError:  # few texts, and no word twice
                vectorizer.set_params(min_df=1).fit(texts)
        return self

    def of(self, records: Sequence[Classified]) -> Any:
        """A row for each record."""
        import numpy as np
        from scipy.sparse import csr_matrix, hstack

        parts = []
        for vectorizer in self.vectorizers:
            first = vectorizer.transform([record.text for record in records])
            parts.append(first)
            if self.pair:
                second = vectorizer.transform([record.pair or "" for record in records])
                likeness = np.asarray(first.multiply(second).sum(axis=1))
                parts += [second, csr_matrix(10 * np.hstack([likeness, np.sqrt(likeness)]))]
        return hstack(parts).tocsr()


def _jieba(text: str) -> list[str]:
    from bertlearn.data.words import jieba_words

    return [word for word in jieba_words(text) if word.strip()]


# ---- names --------------------------------------------------------------------------------------


def _of_tags(task: Task) -> Iterable[tuple[str, Baseline]]:
    """No names; each word's most frequent tag; the names of training, the longest first."""
    train = cast(Sequence[Tagged], task.train)
    yield (
        "no names",
        lambda records: [["O"] * len(record.words) for record in cast(Sequence[Tagged], records)],
    )
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in train:
        for word, tag in zip(record.words, record.tags, strict=True):
            counts[word][tag] += 1
    usual = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    yield (
        "most frequent tag",
        lambda records: [
            [usual.get(word, "O") for word in record.words]
            for record in cast(Sequence[Tagged], records)
        ],
    )
    names = _names(train)
    yield (
        "names of training",
        lambda records: [
            _tag_by_names(record.words, names) for record in cast(Sequence[Tagged], records)
        ],
    )


def _names(records: Sequence[Tagged]) -> dict[tuple[str, ...], str]:
    """Each name with its most frequent kind, if its words are a name more often than not."""
    kinds: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for record in records:
        start = 0
        for place in range(1, len(record.words) + 1):
            going_on = place < len(record.words) and record.tags[place].startswith("I-")
            if not going_on:
                if record.tags[start] != "O":
                    kinds[record.words[start:place]][record.tags[start][2:]] += 1
                start = place
    longest = max(map(len, kinds), default=0)
    seen: Counter[tuple[str, ...]] = Counter()
    for record in records:
        for start in range(len(record.words)):
            for end in range(start + 1, min(start + longest, len(record.words)) + 1):
                if record.words[start:end] in kinds:
                    seen[record.words[start:end]] += 1
    return {
        name: found.most_common(1)[0][0]
        for name, found in kinds.items()
        if 2 * found.total() > seen[name]
    }


def _tag_by_names(sentence: Sequence[str], names: dict[tuple[str, ...], str]) -> list[str]:
    longest = max(map(len, names), default=0)
    tags, start = ["O"] * len(sentence), 0
    while start < len(sentence):
        for end in range(min(start + longest, len(sentence)), start, -1):
            kind = names.get(tuple(sentence[start:end]))
            if kind:
                tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
                start = end
                break
        else:
            start += 1
    return tags


# ---- questions ----------------------------------------------------------------------------------

_SENTENCE = re.compile(r"[^.!?。！？]+[.!?。！？]*")
_ASKING = """
what who where when which how why is are was were did does do in of to many much year
"""


def _of_questions(task: Task) -> Iterable[tuple[str, Baseline]]:
    """No answer to anything; the sentence that shares the most rare words with the question."""
    yield "no answer", lambda records: [""] * len(records)
    train = cast(Sequence[Question], task.train)
    seen = Counter(word for r in train for word in set(words(r.context)))
    rarity = {word: math.log(len(train) / count) + 1 for word, count in seen.items()}
    rarest = math.log(len(train) + 1) + 1
    yield (
        "sentence with the question's words",
        lambda records: [
            _most_alike(record, rarity, rarest) for record in cast(Sequence[Question], records)
        ],
    )


def _most_alike(record: Question, rarity: dict[str, float], rarest: float) -> str:
    """The sentence that shares the most with the question; "" if none shares anything."""
    asked = set(words(record.question)) - set(_ASKING.split())
    best, most = "", 0.0
    for match in _SENTENCE.finditer(record.context):
        shared = asked & set(words(match.group()))
        weight = sum(rarity.get(word, rarest) for word in shared)
        if weight > most:
            best, most = match.group().strip(), weight
    return best

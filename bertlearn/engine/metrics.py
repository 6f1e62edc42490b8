"""How good answers are: scores of classes, of names, of answers and of likeness, by library.

Accuracy, F1 and Matthews' correlation are scikit-learn's, entity F1 is seqeval's, Spearman's rank
correlation SciPy's. Exact match and token F1 of answers follow the script that SQuAD is judged with
(Rajpurkar et al. 2016, section 6.1), with Chinese characters as words.
"""

from __future__ import annotations

import math
import re
import statistics
import string
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

from bertlearn.tokenization import is_chinese

__all__ = [
    "MAIN",
    "MetricMissing",
    "best_threshold",
    "classification_scores",
    "mean_and_spread",
    "qa_scores",
    "spearman",
    "tagging_scores",
]

# The score by which epochs and runs are compared, for each kind of task.
MAIN = {"classification": "accuracy", "tagging": "f1", "qa": "f1"}


class MetricMissing(RuntimeError):
    """The library of a score is not installed."""


def classification_scores(
    truth: Sequence[str], given: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """Accuracy, F1 and Matthews' correlation coefficient.

    Args:
        truth, given: one label a text.
        labels: all of them, in the order of their numbers.

    Returns:
        "accuracy"; "f1", of the second class where there are two, else the mean of all classes;
        "mcc".
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    if len(labels) == 2:
        f1 = f1_score(truth, given, pos_label=labels[1], zero_division=0)
    else:
        f1 = f1_score(truth, given, labels=list(labels), average="macro", zero_division=0)
    return {
        "accuracy": float(accuracy_score(truth, given)),
        "f1": float(f1),
        "mcc": float(matthews_corrcoef(truth, given)),
    }


def tagging_scores(
    truth: Sequence[Sequence[str]], given: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Precision, recall and F1 of whole names: right if kind, first and last word are.

    Args:
        truth, given: BIO tags of each sentence.

    Returns:
        "f1", "precision", "recall", and "f1 PER" and so on for each kind of name.

    Raises:
        MetricMissing: without the library seqeval.
    """
    try:
        from seqeval.metrics import classification_report
    except ImportError:
        raise MetricMissing(
            "names are scored by the library seqeval, which is not installed: "
            "python -m pip install --use-pep517 seqeval==1.2.2"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a kind that was never given
        report = classification_report(
            [list(tags) for tags in truth],
            [list(tags) for tags in given],
            output_dict=True,
            zero_division=0,
        )
    total = report.pop("micro avg", {"f1-score": 0.0, "precision": 0.0, "recall": 0.0})
    found = {
        "f1": float(total["f1-score"]),
        "precision": float(total["precision"]),
        "recall": float(total["recall"]),
    }
    for kind, row in report.items():
        if not kind.endswith(" avg"):
            found[f"f1 {kind}"] = float(row["f1-score"])
    return found


def qa_scores(truth: Sequence[Sequence[str]], given: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 of answers.

    Args:
        truth: for each question the answers that are right; () if there is none.
        given: an answer to each, "" for "no answer".

    Returns:
        "em" and "f1", both means over questions of the best over right answers, after lower-casing
        and without punctuation and articles. A question without an answer counts 1 where "" was
        given, else 0. Where there are both kinds, also "f1 answered" and "f1 unanswered".
    """
    exact = [
        max(float(words(a) == words(g)) for a in (r or ("",))) for r, g in _pairs(truth, given)
    ]
    f1 = [max(overlap(a, g) for a in (right or ("",))) for right, g in _pairs(truth, given)]
    found = {"em": statistics.fmean(exact), "f1": statistics.fmean(f1)}
    has = [f for f, right in zip(f1, truth, strict=True) if right]
    has_not = [f for f, right in zip(f1, truth, strict=True) if not right]
    if has and has_not:
        found |= {
            "f1 answered": statistics.fmean(has),
            "f1 unanswered": statistics.fmean(has_not),
        }
    return found


def _pairs(truth: Sequence[Sequence[str]], given: Sequence[str]) -> zip:
    return zip(truth, given, strict=True)


def words(text: str) -> list[str]:
    """The words that count in an answer."""
    spaced = "".join(f" {c} " if is_chinese(c) else c for c in text.lower())
    kept = "".join(c for c in spaced if not _is_mark(c))
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def _is_mark(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def overlap(one: str, other: str) -> float:
    """F1 of the words of two answers; 1 if both have none, 0 if one has none."""
    a, b = Counter(words(one)), Counter(words(other))
    if not a or not b:
        return float(a == b)
    same = (a & b).total()
    return 2 * same / (a.total() + b.total())


def best_threshold(
    differences: Sequence[float], spoken: Sequence[float], silent: Sequence[float]
) -> tuple[float, float]:
    """From which difference on "no answer" is the better answer (Rajpurkar et al. 2018; Devlin et
    al. 2019, section 4.3, where it is called tau).

    A model stays silent where the score of "no answer" exceeds that of its best answer by more
    than the threshold. Choose it on validation data, never on the test.

    Between two neighboring differences nothing changes, so one pass over the sorted differences
    finds the best, in O(n log n).

    Args:
        differences: for each question the score of "no answer" less that of the best answer, in
            logits.
        spoken: for each question what its best answer counts, such as its F1.
        silent: what "no answer" counts there: 1 if the question has no answer, else 0.

    Returns:
        the threshold, in logits, and the mean count with it. Of equally good ones it is the one
        nearest to 0; else it lies in the middle between two differences, or 1 beyond the last.

    Raises:
        ValueError: without questions, or for lists of other lengths.
    """
    rows = sorted(zip(differences, spoken, silent, strict=True))
    if not rows:
        raise ValueError("there are no questions to choose a threshold on")
    total = math.fsum(silent)  # below all differences: silence everywhere
    found = [(total, _inside(-math.inf, rows[0][0]))]
    ends = [difference for difference, _, _ in rows[1:]] + [math.inf]
    for (difference, answered, quiet), following in zip(rows, ends, strict=True):
        total += answered - quiet
        if difference < following:
            found.append((total, _inside(difference, following)))
    best, threshold = max(found, key=lambda one: (round(one[0], 9), -abs(one[1])))
    return threshold, best / len(rows)


def _inside(low: float, high: float) -> float:
    """A number from ``low`` on and below ``high``: 0, or the middle, or 1 from the only end."""
    if low <= 0 < high:
        return 0.0
    if math.isinf(low) or math.isinf(high):
        return high - 1 if math.isinf(low) else low + 1
    middle = (low + high) / 2
    return middle if low < middle < high else low


def spearman(truth: Sequence[float], given: Sequence[float]) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks."""
    from scipy.stats import spearmanr

    return float(spearmanr(truth, given).statistic)


def mean_and_spread(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of each score that all runs have: the mean, and the sample's standard deviation (0 for one).

    Args:
        runs: scores by name, one mapping a seed.
    """
    names = [name for name in runs[0] if all(name in run for run in runs)]
    found = {}
    for name in names:
        values = [run[name] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        found[name] = {"mean": round(statistics.fmean(values), 4), "sd": round(spread, 4)}
    return found

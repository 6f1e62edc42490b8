"""Fine-tuning: rows for four kinds of task, one loop, answers back as text. Built in chapter 10.

A text or a pair is a ``Row`` of chapter 08. A row of words knows which word each token is of, a
row of a question where each token stands in the text. How an answer is scored is an argument.
"""

from __future__ import annotations

import math
import random
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bertlearn.masking import IGNORE
from bertlearn.model import BertModel, mean_pool
from bertlearn.pretraining import (
    NonFiniteLoss,
    Row,
    collate,
    learning_rate,
    like_lengths,
)
from bertlearn.tokenization import BertTokenizer, truncate_pair

__all__ = [
    "Answer",
    "History",
    "Window",
    "WordRow",
    "align_labels",
    "answer_windows",
    "best_spans",
    "class_weights",
    "finetune",
    "finetune_step",
    "freeze",
    "layer_depth",
    "layerwise_groups",
    "predict",
    "read_answers",
    "read_labels",
    "task_batch",
    "text_rows",
    "text_vectors",
    "token_span",
    "word_rows",
]


# ---- texts and pairs ----------------------------------------------------------------------------


def text_rows(
    tokenizer: BertTokenizer,
    texts: Sequence[str | tuple[str, str]],
    labels: Sequence[int] | None = None,
    max_length: int = 128,
) -> list[Row]:
    """Texts, or pairs of texts, as rows: ``[CLS] A [SEP]`` or ``[CLS] A [SEP] B [SEP]``.

    Args:
        tokenizer: of the model.
        texts: strings, or pairs of strings.
        labels: the class of each; None if not known.
        max_length: tokens of a row. What is longer is cut at its end, of a pair the longer text
            first, and that is said.

    Returns:
        one row a text, in their order.

    Warns:
        UserWarning: if any text was cut, with how many.

    Raises:
        ValueError: for a text without a single token, or another number of labels than of texts.
    """
    cls_id, sep_id = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    rows, cut = [], 0
    given = [None] * len(texts) if labels is None else labels
    for number, (text, label) in enumerate(zip(texts, given, strict=True)):
        parts = (text,) if isinstance(text, str) else text
        pieces = [tokenizer.encode(part).ids[1:-1] for part in parts]
        if not all(pieces):
            raise ValueError(f"text {number} is empty: {text!r}; leave it out")
        a, b = pieces if len(pieces) == 2 else (pieces[0], [])
        kept, rest = truncate_pair(a, b, max_length - 1 - len(parts))
        cut += len(kept) + len(rest) < len(a) + len(b)
        first = [cls_id, *kept, sep_id]
        second = [*rest, sep_id] if rest else []
        segments = [0] * len(first) + [1] * len(second)
        rows.append(Row(first + second, segments, label))
    if cut:
        warnings.warn(
            f"{cut} of {len(texts)} texts are longer than {max_length} tokens and were cut there",
            stacklevel=2,
        )
    return rows


# ---- words with labels --------------------------------------------------------------------------


@dataclass(frozen=True)
class WordRow(Row):
    """A row of words, or of a part of them.

    Attributes:
        word_ids: for each token the number of its word, None for [CLS] and [SEP].
        labels: for each token its label, ``IGNORE`` where none is asked for.
        source: the number of the sentence.
    """

    word_ids: list[int | None] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    source: int = 0


def align_labels(labels: Sequence[int], word_ids: Sequence[int | None]) -> list[int]:
    """A word's label goes to its first piece; later pieces, [CLS] and [SEP] get ``IGNORE``
    (Devlin et al. 2019, section 5.3).

    Args:
        labels: of each word.
        word_ids: for each token the number of its word, None for what was added.

    Returns:
        one label a token.

    Raises:
        IndexError: for a word without a label.
    """
    before = [None, *word_ids[:-1]]
    return [
        IGNORE if word is None or word == last else labels[word]
        for last, word in zip(before, word_ids, strict=True)
    ]


def word_rows(
    tokenizer: BertTokenizer,
    sentences: Sequence[Sequence[str]],
    labels: Sequence[Sequence[int]] | None = None,
    max_length: int = 128,
) -> list[WordRow]:
    """Sentences in words, or in characters, as rows. A sentence that is too long goes on in the
    next row, from the beginning of a word on: nothing is lost.

    Args:
        tokenizer: of the model.
        sentences: lists of words.
        labels: of each word of each; None if not known.
        max_length: tokens of a row.

    Returns:
        the sentences' rows in their order, one or more each, none for a sentence without a token.
        Each knows its sentence in ``source``.

    Raises:
        ValueError: for another number of labels than of words, or a word that does not fit into
            a row.
    """
    cls_id, sep_id = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    known = {word for words in sentences for word in words}
    pieces_of = {word: tokenizer.encode(word).ids[1:-1] for word in known}
    rows, room = [], max_length - 2
    for source, words in enumerate(sentences):
        given = [IGNORE] * len(words) if labels is None else labels[source]
        if len(given) != len(words):
            raise ValueError(f"sentence {source}: {len(words)} words, but {len(given)} labels")
        tokens = [(piece, i) for i, word in enumerate(words) for piece in pieces_of[word]]
        start = 0
        while start < len(tokens):
            end = min(start + room, len(tokens))
            while start < end < len(tokens) and tokens[end][1] == tokens[end - 1][1]:
                end -= 1  # not in the midst of a word
            if end == start:
                raise ValueError(f"sentence {source}: a word has more than {room} tokens")
            ids, places = zip(*tokens[start:end], strict=True)
            word_ids = [None, *places, None]
            rows.append(
                WordRow(
                    ids=[cls_id, *ids, sep_id],
                    type_ids=[0] * len(word_ids),
                    word_ids=word_ids,
                    labels=align_labels(given, word_ids),
                    source=source,
                )
            )
            start = end
    return rows


def read_labels(
    rows: Sequence[WordRow], scores: Sequence[Tensor], sizes: Sequence[int]
) -> list[list[int]]:
    """The likeliest label of each word, read at its first piece.

    Args:
        rows: of ``word_rows``.
        scores: ``(seq, labels)`` of each row.
        sizes: how many words each sentence has.

    Returns:
        for each sentence one label a word; 0 for a word that the tokenizer drops altogether.
    """
    found = [[0] * size for size in sizes]
    for row, logits in zip(rows, scores, strict=True):
        best = logits.argmax(dim=-1).tolist()
        for i in reversed(range(len(row.ids))):  # the first piece has the last word
            word = row.word_ids[i]
            if word is not None:
                found[row.source][word] = best[i]
    return found


# ---- questions and answers ----------------------------------------------------------------------


@dataclass(frozen=True)
class Window(Row):
    """A question with a part of the text.

    Attributes:
        offsets: for each token its first character in the text and the one after its last; None
            for tokens that are not of the text.
        span: the answer's first and last token; (0, 0), which is [CLS], if it is not in this part.
        source: the number of the question.
    """

    offsets: list[tuple[int, int] | None] = field(default_factory=list)
    span: tuple[int, int] = (0, 0)
    source: int = 0


@dataclass(frozen=True)
class Answer:
    """Characters ``start`` to ``end`` (not included) of the text; both 0 for "no answer".

    Attributes:
        score: the logits of the first and of the last token, added.
    """

    score: float
    start: int
    end: int


def token_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The first and the last token that have a part in characters ``start`` to ``end`` (not
    included).

    Args:
        offsets: of each token its first character and the one after its last.
        start, end: in characters.

    Returns:
        the numbers of the two tokens, both included.

    Raises:
        ValueError: if there is no such token.
    """
    touched = [i for i, (left, right) in enumerate(offsets) if left < end and right > start]
    if not touched:
        raise ValueError(f"no token has a part in the characters {start} to {end}")
    return touched[0], touched[-1]


def answer_windows(
    tokenizer: BertTokenizer,
    question: str,
    text: str,
    answer: tuple[int, int] | None = None,
    max_length: int = 384,
    stride: int = 128,
    source: int = 0,
) -> list[Window]:
    """``[CLS] question [SEP] part [SEP]`` for parts that together hold all of the text. Each begins
    ``stride`` tokens after the one before (google-research/bert, run_squad.py, doc_stride).

    Args:
        tokenizer: of the model.
        question: stays whole.
        text: in which the answer is looked for.
        answer: its first character and the one after its last; None if there is none, or none is
            known.
        max_length: tokens of a window.
        stride: tokens from the beginning of a part to that of the next. An answer of no more
            tokens than two parts share, plus one, lies whole in one window at least.
        source: the number of the question.

    Returns:
        one window or more, in the order of the text.

    Raises:
        ValueError: if the answer is not within the text, the text or the question is empty, or the
            question leaves no room for parts of ``stride`` tokens.
    """
    asked, read = tokenizer.encode(question).ids, tokenizer.encode(text)
    pieces, places = read.ids[1:-1], read.offsets[1:-1]
    room = max_length - len(asked) - 1
    if len(asked) == 2 or not pieces:
        raise ValueError(f"question {source}: the question or the text is empty")
    if not 0 < stride <= room:
        raise ValueError(
            f"question {source} leaves room for {room} tokens of text in a "
            f"window of {max_length}, and the stride is {stride}: it must be "
            f"at least 1 and not more"
        )
    if answer is not None and not 0 <= answer[0] < answer[1] <= len(text):
        raise ValueError(
            f"question {source}: the answer is at {answer}, the text has {len(text)} characters"
        )
    first, last = (-1, -1) if answer is None else token_span(places, *answer)
    windows = []
    for start in range(0, max(len(pieces) - room + stride, 1), stride):
        part = pieces[start : start + room]
        shift = len(asked) - start  # from a place in the text to one in the row
        inside = start <= first and last < start + room
        windows.append(
            Window(
                ids=[*asked, *part, asked[-1]],
                type_ids=[0] * len(asked) + [1] * (len(part) + 1),
                offsets=[None] * len(asked) + places[start : start + room] + [None],
                span=(first + shift, last + shift) if inside else (0, 0),
                source=source,
            )
        )
    return windows


def best_spans(
    window: Window, scores: Tensor, n_best: int = 20, max_tokens: int = 30
) -> list[Answer]:
    """The best answers of one window, best first: no token of the question, no end before the
    start, none longer than ``max_tokens``.

    Args:
        window: of ``answer_windows``.
        scores: ``(seq, 2)``, of each token as the first and as the last.
        n_best: at most so many.
        max_tokens: the longest answer.

    Returns:
        different spans, never "no answer".
    """
    starts, ends = scores.unbind(dim=-1)
    sums = starts[:, None] + ends[None, :]  # (first, last)
    text = torch.tensor([place is not None for place in window.offsets])
    spans = torch.ones_like(sums, dtype=torch.bool).triu().tril(max_tokens - 1)
    allowed = spans & text[:, None] & text[None, :]
    sums = sums.masked_fill(~allowed, -math.inf).flatten()
    best, where = sums.topk(min(n_best, int(allowed.sum())))
    found = []
    for score, place in zip(best.tolist(), where.tolist(), strict=True):
        first, last = divmod(place, len(ends))
        start, end = window.offsets[first], window.offsets[last]
        found.append(Answer(score, start[0], end[1]))
    return found


def read_answers(
    windows: Sequence[Window],
    scores: Sequence[Tensor],
    n_best: int = 20,
    max_tokens: int = 30,
    no_answer: float | None = None,
) -> list[Answer]:
    """The best answers to one question over all its windows, best first.

    Args:
        windows: of one question.
        scores: ``(seq, 2)`` of each.
        n_best, max_tokens: as in ``best_spans``.
        no_answer: None if there always is one. Else "no answer" is among them, with the score of
            [CLS] in the window where that is lowest, less this threshold (Devlin et al. 2019,
            section 4.3).

    Returns:
        at most ``n_best``, each place in the text once, with its best score.
    """
    found: dict[tuple[int, int], Answer] = {}
    for window, logits in zip(windows, scores, strict=True):
        for answer in best_spans(window, logits, n_best, max_tokens):
            place = (answer.start, answer.end)
            if place not in found or answer.score > found[place].score:
                found[place] = answer
    if no_answer is not None:
        none = min(float(logits[0].sum()) for logits in scores)
        found[0, 0] = Answer(none - no_answer, 0, 0)
    return sorted(found.values(), key=lambda answer: -answer.score)[:n_best]


# ---- batches and answers of the model -----------------------------------------------------------


def task_batch(rows: Sequence[Row], pad_id: int) -> dict[str, Tensor]:
    """Rows as the arguments of a model, padded to the longest, with what they are asked for.

    Args:
        rows: all of one kind: of ``text_rows``, ``word_rows`` or ``answer_windows``.
        pad_id: of [PAD].

    Returns:
        "input_ids" and "token_type_ids", int64 ``(batch, seq)``; "attention_mask", bool
        ``(batch, seq)``, False for padding, left out if nothing is padded. Of texts also "labels",
        int64 ``(batch,)``, if all are known; of words "labels", int64 ``(batch, seq)``, ``IGNORE``
        where none is asked for; of windows "start_positions" and "end_positions", int64
        ``(batch,)``, 0 where the answer is not in the window.
    """
    ids, segments, mask, labels = collate(rows, pad_id)
    batch = {"input_ids": ids, "token_type_ids": segments}
    if mask is not None:
        batch["attention_mask"] = mask
    if isinstance(rows[0], WordRow):
        labels = torch.full_like(ids, IGNORE)
        for i, row in enumerate(rows):
            labels[i, : len(row.ids)] = torch.tensor(row.labels)  # type: ignore[attr-defined]
    if isinstance(rows[0], Window):
        spans = torch.tensor([row.span for row in rows])  # type: ignore[attr-defined]
        batch["start_positions"], batch["end_positions"] = spans.T
    elif labels is not None:
        batch["labels"] = labels
    return batch


@torch.no_grad()
def predict(
    model: nn.Module,
    rows: Sequence[Row],
    pad_id: int,
    size: int = 64,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> list[Tensor]:
    """The logits of each row, in the order of the rows: ``(labels,)``, ``(seq, labels)`` for words,
    ``(seq, 2)`` for windows. Without dropout; the model's mode is put back.

    Args:
        model: with a head of fine-tuning.
        rows: all of one kind.
        pad_id: of [PAD].
        size: rows of a batch; they are read in the order of their lengths.
        precision: a context to compute in, such as autocast.
    """
    was_training = model.training
    model.eval()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), size):
        some = order[start : start + size]
        ids, segments, mask, _ = collate([rows[i] for i in some], pad_id)
        with precision():
            logits = model(ids, segments, mask).logits.float()
        for i, scores in zip(some, logits, strict=True):
            found[i] = scores if scores.dim() == 1 else scores[: len(rows[i].ids)]
    model.train(was_training)
    return [found[i] for i in range(len(rows))]


@torch.no_grad()
def text_vectors(
    model: BertModel, rows: Sequence[Row], pad_id: int, pool: str = "mean", size: int = 64
) -> Tensor:
    """One vector a text, from a model that stays as it is ("feature extraction").

    Args:
        model: without a head.
        rows: of ``text_rows``.
        pad_id: of [PAD].
        pool: "mean" over the real tokens, or "cls", the last layer's [CLS].
        size: rows of a batch.

    Returns:
        ``(rows, hidden)``, in the order of the rows.

    Raises:
        ValueError: for another pool.
    """
    if pool not in ("mean", "cls"):
        raise ValueError(f"pool must be mean or cls, not {pool!r}")
    was_training = model.training
    model.eval()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    vectors = torch.empty(len(rows), model.config.hidden_size)
    for start in range(0, len(order), size):
        some = order[start : start + size]
        ids, segments, mask, _ = collate([rows[i] for i in some], pad_id)
        hidden = model(ids, segments, mask).last_hidden_state
        real = torch.ones_like(ids) if mask is None else mask
        vectors[some] = mean_pool(hidden, real) if pool == "mean" else hidden[:, 0]
    model.train(was_training)
    return vectors


# ---- what is trained, and how fast --------------------------------------------------------------


def freeze(model: Any) -> None:
    """Train the head alone: nothing below it gets a gradient.

    Args:
        model: with its encoder as ``model.bert``.
    """
    model.bert.requires_grad_(False)


def layer_depth(name: str, layers: int) -> int:
    """How many layers lie below a parameter: 0 for the embeddings, 1 to ``layers`` for the
    encoder's, ``layers + 1`` for pooler and head."""
    if ".embeddings." in f".{name}":
        return 0
    inside = re.search(r"encoder\.layer\.(\d+)\.", name)
    return int(inside[1]) + 1 if inside else layers + 1


def layerwise_groups(model: Any, decay: float = 1.0, weight_decay: float = 0.01) -> list[dict]:
    """Groups for AdamW: the head learns at the full rate, each layer below at ``decay`` times the
    rate of the one above it (Howard & Ruder 2018, section 3.2; Clark et al. 2020, appendix B).

    Args:
        model: parameters without gradient are left out.
        decay: 1 for the same rate everywhere.
        weight_decay: of what has two axes, as in ``decay_groups``.

    Returns:
        groups with a "scale", by which ``finetune_step`` multiplies the rate.
    """
    layers = model.config.num_hidden_layers
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            scale = decay ** (layers + 1 - layer_depth(name, layers))
            groups[scale, weight_decay if weight.dim() >= 2 else 0.0].append(weight)
    return [
        {"params": weights, "scale": scale, "weight_decay": shrink}
        for (scale, shrink), weights in groups.items()
    ]


def class_weights(labels: Iterable[int], classes: int) -> Tensor:
    """Weights that make every class count the same: ``n / (classes * n_c)`` for a class with
    ``n_c`` of ``n`` examples.

    Args:
        labels: of each example, whole numbers from 0.
        classes: how many there are.

    Returns:
        ``(classes,)``, for ``label_weights`` of the models.

    Raises:
        ValueError: for a class without an example, or a label that is negative or not below
            ``classes``.
    """
    numbers = list(labels)
    if min(numbers, default=0) < 0:
        raise ValueError(f"labels are whole numbers from 0, not {min(numbers)}")
    counts = torch.bincount(torch.tensor(numbers), minlength=classes)
    if len(counts) != classes or not counts.all():
        raise ValueError(f"the labels 0 to {classes - 1} must all occur: counted {counts.tolist()}")
    return counts.sum() / (classes * counts)


# ---- the loop -----------------------------------------------------------------------------------


@dataclass
class History:
    """What happened in fine-tuning.

    Attributes:
        losses: of each step, in nats.
        scores: of the evaluation after each epoch; empty without one.
        best: the epoch whose weights were kept, counted from 1; 0 if none was evaluated.
    """

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best: int = 0


def finetune_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    rate: float,
    max_norm: float = 1.0,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> float:
    """One step.

    Args:
        model: with a head of fine-tuning.
        optimizer: its rate is set here, for each group times its "scale".
        batch: of ``task_batch``.
        rate: the learning rate.
        max_norm: one limit for the norm of all gradients together.
        precision: a context to compute in, such as autocast.

    Returns:
        the loss before the step, the mean over what is asked for, in nats.

    Raises:
        NonFiniteLoss: before the weights are touched.
    """
    with precision():
        loss = model(**batch).loss
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    if not torch.isfinite(loss + norm):
        optimizer.zero_grad()
        raise NonFiniteLoss(
            f"the loss is {loss.item()}, the norm of its gradient {norm.item()}: "
            f"stopped before the weights were touched. Look at the batch, or "
            f"lower the rate"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def finetune(
    model: nn.Module,
    rows: Sequence[Row],
    pad_id: int,
    rng: random.Random,
    *,
    epochs: int = 3,
    size: int = 32,
    rate: float = 5e-5,
    warmup: float = 0.1,
    layer_decay: float = 1.0,
    weight_decay: float = 0.01,
    label_weights: Tensor | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    patience: int | None = None,
    precision: Callable[[], AbstractContextManager] = nullcontext,
    watch: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> History:
    """Train a pre-trained model with a new head (Devlin et al. 2019, appendix A.3).

    Args:
        model: afterwards with the weights of the best epoch, in evaluation mode.
        rows: of ``text_rows``, ``word_rows`` or ``answer_windows``, with what is asked of them.
        pad_id: of [PAD].
        rng: draws the batches. Dropout uses torch's global generator.
        epochs: at most so many; the rate falls to 0 at their end.
        size: rows of a batch; those that do not fill one are left out of the epoch, by chance.
        rate: the highest learning rate.
        warmup: the share of the steps until it is reached.
        layer_decay, weight_decay: see ``layerwise_groups``.
        label_weights: ``(labels,)``, see ``class_weights``.
        evaluate: scores the model after each epoch, the higher the better. Not on the test set.
        patience: stop when so many epochs in a row were not better than the best one.
        precision: a context to compute in, such as autocast.
        watch: called after each step with its number from 1, the number of steps, the loss.

    Returns:
        the loss of each step, the score of each epoch, and which epoch was kept.

    Raises:
        NonFiniteLoss: see ``finetune_step``.
        ValueError: without rows.
    """
    if not rows:
        raise ValueError("there are no rows to train on")
    size = min(size, len(rows))
    steps = epochs * (len(rows) // size)
    optimizer = torch.optim.AdamW(layerwise_groups(model, layer_decay, weight_decay), fused=True)
    weights = {} if label_weights is None else {"label_weights": label_weights}
    history, kept = History(), None
    for epoch in range(1, epochs + 1):
        model.train()
        for some in like_lengths(rows, size, rng):
            now = learning_rate(len(history.losses), steps, rate, round(warmup * steps))
            batch = task_batch(some, pad_id) | weights
            history.losses.append(finetune_step(model, optimizer, batch, now, precision=precision))
            watch(len(history.losses), steps, history.losses[-1])
        if evaluate is None:
            continue
        history.scores.append(evaluate(model))
        if history.best == 0 or history.scores[-1] > history.scores[history.best - 1]:
            history.best = epoch
            kept = {name: x.clone() for name, x in model.state_dict().items()}
        elif patience is not None and epoch - history.best >= patience:
            break
    if kept is not None:
        model.load_state_dict(kept)
    model.eval()
    return history

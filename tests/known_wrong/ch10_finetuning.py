"""Wrong answers to the checks of chapter 10."""

from __future__ import annotations

import itertools
import math
import random
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.finetuning import (
    Answer,
    History,
    Window,
    WordRow,
    answer_windows,
    best_spans,
    finetune,
    layerwise_groups,
    predict,
    read_answers,
    task_batch,
    text_rows,
    text_vectors,
    token_span,
    word_rows,
)
from bertlearn.model import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    ClassifierOutput,
    SpanOutput,
    classification_loss,
    span_loss,
)
from bertlearn.pretraining import Row
from tests.known_wrong import Wrong

IGNORED = -100

# ---- heads ------------------------------------------------------------------------------------


def token_loss(logits: Tensor, labels: Tensor, weights: Any = None, *, kind: str) -> Tensor:
    """The right thing, with a switch for each way to get it wrong."""
    if logits.shape[-1] == 1:
        return ((logits if kind == "broadcast" else logits[..., 0]) - labels).square().mean()
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels)
    if kind == "softmax":
        logits = logits.softmax(-1)
    logits, labels = logits.flatten(0, -2), labels.flatten()
    each = F.cross_entropy(logits, labels, weights, reduction="none", ignore_index=IGNORED)
    real = labels != IGNORED
    if kind == "sum":
        return each.sum()
    if kind == "all":
        return each.mean()
    if kind == "weights" or weights is None:
        return each.sum() / real.sum()
    return each.sum() / weights[labels[real]].sum()


def _loss(kind: str) -> Any:
    return lambda *given, **named: token_loss(*given, **named, kind=kind)


class RawClassifier(BertForSequenceClassification):
    def read(self, encoded: Any, mask: Any) -> Tensor:
        return self.classifier(self.dropout(encoded.last_hidden_state[:, 0]))

    def forward(
        self, input_ids: Tensor, token_type_ids: Any = None, attention_mask: Any = None,
        labels: Any = None, label_weights: Any = None,
    ) -> ClassifierOutput:  # fmt: skip
        encoded = self.bert(input_ids, token_type_ids, attention_mask)
        logits = self.read(encoded, attention_mask)
        loss = None if labels is None else classification_loss(logits, labels, label_weights)
        return ClassifierOutput(logits, loss)


class MeanClassifier(RawClassifier):
    def read(self, encoded: Any, mask: Any) -> Tensor:
        real = mask[:, :, None].float()
        return self.classifier((encoded.last_hidden_state * real).sum(1) / real.sum(1))


class ShareClassifier(RawClassifier):
    def read(self, encoded: Any, mask: Any) -> Tensor:
        return self.classifier(self.dropout(encoded.pooler_output)).softmax(-1)


class Undropped(RawClassifier):
    def read(self, encoded: Any, mask: Any) -> Tensor:
        return self.classifier(encoded.pooler_output)


class PooledTokens(BertForTokenClassification):
    """With a pooler that nothing reads."""

    def __init__(self, config: Any, num_labels: int = 2, **more: Any):
        super().__init__(config, num_labels, **more)
        self.bert = BertModel(config)


class OneLabel(BertForTokenClassification):
    def read(self, hidden: Tensor) -> Tensor:
        first = self.classifier(self.dropout(hidden[:, :1]))
        return first.expand(-1, hidden.shape[1], -1)

    def forward(
        self, input_ids: Tensor, token_type_ids: Any = None, attention_mask: Any = None,
        labels: Any = None, label_weights: Any = None,
    ) -> ClassifierOutput:  # fmt: skip
        logits = self.read(self.bert(input_ids, token_type_ids, attention_mask).last_hidden_state)
        loss = None if labels is None else classification_loss(logits, labels, label_weights)
        return ClassifierOutput(logits, loss)


class ShareTokens(OneLabel):
    def read(self, hidden: Tensor) -> Tensor:
        return self.classifier(self.dropout(hidden)).softmax(-1)


class UndroppedTokens(OneLabel):
    def read(self, hidden: Tensor) -> Tensor:
        return self.classifier(hidden)


def lost_span(starts: Tensor, ends: Tensor, first: Tensor, last: Tensor, *, kind: str) -> Tensor:
    if kind == "softmax":
        starts, ends = starts.softmax(-1), ends.softmax(-1)
    if kind == "clamp":
        first, last = first.clamp(max=starts.shape[1] - 1), last.clamp(max=starts.shape[1] - 1)
    loss = span_loss(starts, ends, first, first if kind == "starts" else last)
    return 2 * loss if kind == "sum" else loss


def _lost_span(kind: str) -> Any:
    return lambda *given: lost_span(*given, kind=kind)


class Turned(BertForQuestionAnswering):
    def forward(self, *given: Any, **named: Any) -> SpanOutput:
        right = super().forward(*given, **named)
        return SpanOutput(right.end_logits, right.start_logits, right.loss)


class PooledAnswers(BertForQuestionAnswering):
    def __init__(self, config: Any):
        super().__init__(config)
        self.bert = BertModel(config)


class Added(BertForQuestionAnswering):
    def forward(self, *given: Any, **named: Any) -> SpanOutput:
        right = super().forward(*given, **named)
        loss = None if right.loss is None else right.loss * 2
        return SpanOutput(right.start_logits, right.end_logits, loss)


# ---- texts and words --------------------------------------------------------------------------


def silent_rows(
    tokenizer: Any, texts: Any, labels: Any = None, max_length: int = 128, *, kind: str
) -> list[Row]:
    import warnings

    if kind == "empty":
        return [
            Row(e.ids, e.type_ids, label)
            for text, label in zip(texts, labels or [None] * len(texts), strict=True)
            for e in [tokenizer.encode(*([text] if isinstance(text, str) else text))]
            for _ in [warnings.warn(f"2 of {len(texts)}", stacklevel=1)] * (max_length < 7)
        ]
    with warnings.catch_warnings():
        if kind == "silent":
            warnings.simplefilter("ignore")
        rows = text_rows(tokenizer, texts, labels, max_length)
    if kind == "segments":
        rows = [Row(row.ids, [0] * len(row.ids), row.label) for row in rows]
    if kind == "sep":
        rows = []
        for text, label in zip(texts, labels or [None] * len(texts), strict=True):
            e = tokenizer.encode(*([text] if isinstance(text, str) else text))
            rows.append(Row(e.ids[:max_length], e.type_ids[:max_length], label))
    return rows


def _silent_rows(kind: str) -> Any:
    return lambda *given, **named: silent_rows(*given, **named, kind=kind)


def misaligned(labels: Any, word_ids: Any, *, kind: str) -> list[int]:
    if kind == "last":
        return misaligned(labels, word_ids[::-1], kind="")[::-1]
    found, before = [], None
    for word in word_ids:
        if word is None:
            found.append(0 if kind == "specials" else IGNORED)
        elif word == before and kind != "all":
            found.append(0 if kind == "later" else IGNORED)
        else:
            found.append(labels[word])
        before = word
    if kind == "counted":
        place = iter(labels)
        found = [next(place) if x != IGNORED else x for x in found]
    return found


def _misaligned(kind: str) -> Any:
    return lambda labels, word_ids: misaligned(labels, list(word_ids), kind=kind)


def lost_words(
    tokenizer: Any, sentences: Any, labels: Any = None, max_length: int = 128, *, kind: str
) -> Any:
    rows = word_rows(tokenizer, sentences, labels, max_length)
    if kind == "cut":
        return [row for i, row in enumerate(rows) if i == 0 or rows[i - 1].source != row.source]
    if kind == "all":
        wanted = labels or [[IGNORED] * len(words) for words in sentences]
        return [
            type(row)(
                row.ids, row.type_ids, None, row.word_ids,
                misaligned(wanted[row.source], list(row.word_ids), kind="all"), row.source,
            )
            for row in rows
        ]  # fmt: skip
    found = []
    for source, words in enumerate(sentences):  # cut anywhere
        pieces = [(p, i) for i, w in enumerate(words) for p in tokenizer.encode(w).ids[1:-1]]
        for start in range(0, len(pieces), max_length - 2):
            part = pieces[start : start + max_length - 2]
            ids = [2, *(p for p, _ in part), 3]
            word_ids = [None, *(i for _, i in part), None]
            given = [IGNORED] * len(words) if labels is None else labels[source]
            aligned = misaligned(given, word_ids, kind="")
            found.append(type(rows[0])(ids, [0] * len(ids), None, word_ids, aligned, source))
    return found


def _lost_words(kind: str) -> Any:
    return lambda *given, **named: lost_words(*given, **named, kind=kind)


def misread(rows: Any, scores: Any, sizes: Any, *, kind: str) -> list[list[int]]:
    if kind == "packed":
        found: list[list[int]] = [[] for _ in sizes]
        for row, logits in zip(rows, scores, strict=True):
            best, before = logits.argmax(-1).tolist(), None
            for word, label in zip(row.word_ids, best, strict=True):
                if word is not None and word != before:
                    found[row.source].append(label)
                before = word
        return found
    found = [[0] * size for size in sizes]
    for row, logits in zip(rows, scores, strict=True):
        best = logits.argmax(-1).tolist() if kind != "worst" else logits.argmin(-1).tolist()
        for word, label in zip(row.word_ids, best, strict=True):
            if word is not None:
                found[row.source][word] = label
    return found


def _misread(kind: str) -> Any:
    return lambda *given: misread(*given, kind=kind)


# ---- questions --------------------------------------------------------------------------------


def shifted_span(places: Any, start: int, end: int, *, kind: str) -> tuple[int, int]:
    if kind == "after":
        touched = [i for i, (a, b) in enumerate(places) if a <= end and b > start]
    elif kind == "before":
        touched = [i for i, (a, b) in enumerate(places) if a < end and b >= start]
    elif kind == "exact":
        starts = [i for i, (a, _) in enumerate(places) if a >= start]
        ends = [i for i, (_, b) in enumerate(places) if b <= end]
        touched = [starts[0], ends[-1]]
    else:
        touched = [0] if (start, end) == (3, 4) else list(token_span(places, start, end))
    return touched[0], touched[-1]


def _shifted(kind: str) -> Any:
    return lambda *given: shifted_span(*given, kind=kind)


def seamed(
    tokenizer: Any, question: str, text: str, answer: Any = None, max_length: int = 384,
    stride: int = 128, source: int = 0, *, kind: str,
) -> list[Window]:  # fmt: skip
    asked = tokenizer.encode(question).ids
    room = max_length - len(asked) - 1
    if kind == "overlap":
        stride = room - stride if room > stride else stride
    if kind == "apart" and 0 < stride <= room:
        stride = room
    windows = answer_windows(tokenizer, question, text, answer, max_length, stride, source)
    if kind == "one":
        windows = windows[:1]
    changed = []
    low, high = answer or (0, 0)
    for w in windows:
        span = w.span
        if kind == "text" and span != (0, 0):
            span = (span[0] - len(asked), span[1] - len(asked))
        if kind == "half" and answer is not None:
            inside = [i for i, p in enumerate(w.offsets) if p and p[0] < high and p[1] > low]
            span = (inside[0], inside[-1]) if inside else (0, 0)
        if kind == "end" and span != (0, 0):
            span = (span[0], span[1] + 1)
        changed.append(Window(w.ids, w.type_ids, None, w.offsets, span, w.source))
    return changed


def _seamed(kind: str) -> Any:
    return lambda *given, **named: seamed(*given, **named, kind=kind)


def loose_spans(
    window: Any, scores: Tensor, n_best: int = 20, max_tokens: int = 30, *, kind: str
) -> list[Answer]:
    places = [i for i, p in enumerate(window.offsets) if p is not None]
    if kind == "question":
        places = list(range(len(window.offsets)))
    found = []
    for i, j in itertools.product(places, places):
        longest = max_tokens + (kind == "long")
        if kind == "order" or i <= j < i + longest:
            a, b = window.offsets[i] or (0, 0), window.offsets[j] or (0, 0)
            end = b[0] if kind == "begin" else b[1]
            found.append(Answer(float(scores[i, 0] + scores[j, 1]), a[0], end))
    return sorted(found, key=lambda x: -x.score)[:n_best]


def _loose(kind: str) -> Any:
    return lambda *given: loose_spans(*given, kind=kind)


def mixed_answers(
    windows: Any, scores: Any, n_best: int = 20, max_tokens: int = 30, no_answer: Any = None,
    *, kind: str,
) -> list[Answer]:  # fmt: skip
    if kind == "first":
        return read_answers(windows[:1], scores[:1], n_best, max_tokens, no_answer)
    if kind == "last":
        return read_answers(windows[-1:], scores[-1:], n_best, max_tokens, no_answer)
    if kind == "twice":
        found = [
            a
            for w, s in zip(windows, scores, strict=True)
            for a in best_spans(w, s, n_best, max_tokens)
        ]
        return sorted(found, key=lambda a: -a.score)[:n_best]
    found = read_answers(windows, scores, n_best, max_tokens)
    if no_answer is not None:
        nulls = [float(s[0].sum()) for s in scores]
        none = max(nulls) - no_answer if kind == "highest" else min(nulls) + no_answer
        found = sorted([*found, Answer(none, 0, 0)], key=lambda a: -a.score)
    return found


def _mixed(kind: str) -> Any:
    return lambda *given: mixed_answers(*given, kind=kind)


# ---- batches and answers of the model ---------------------------------------------------------


def padded_batch(rows: Any, pad_id: int, *, kind: str) -> Any:
    batch = task_batch(rows, pad_id)
    if kind == "zero" and "labels" in batch and batch["labels"].dim() == 2:
        batch["labels"] = batch["labels"].masked_fill(batch["input_ids"] == pad_id, 0)
    if kind == "ends" and "end_positions" in batch:
        batch["end_positions"] = batch["start_positions"]
    if kind == "mask":
        batch.pop("attention_mask", None)
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    return batch


def _padded(kind: str) -> Any:
    return lambda *given: padded_batch(*given, kind=kind)


def disordered(model: Any, rows: Any, pad_id: int, size: int = 64, *, kind: str) -> list[Tensor]:
    if kind == "order":
        ordered = sorted(rows, key=lambda row: len(row.ids))
        return predict(model, ordered, pad_id, size)
    if kind == "mode":
        found = predict(model, rows, pad_id, size)
        model.eval()
        return found
    found: list[Tensor] = []
    was = model.training
    if kind != "dropout":
        model.eval()
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        longest = max(len(row.ids) for row in some)
        ids = torch.tensor([row.ids + [pad_id] * (longest - len(row.ids)) for row in some])
        mask = torch.tensor(
            [[True] * len(row.ids) + [False] * (longest - len(row.ids)) for row in some]
        )
        logits = model(ids, torch.zeros_like(ids), mask).logits
        for row, scores in zip(some, logits, strict=True):
            keep = scores if scores.dim() == 1 or kind == "padding" else scores[: len(row.ids)]
            found.append(keep)
    model.train(was)
    return found


def _disordered(kind: str) -> Any:
    return lambda *given: disordered(*given, kind=kind)


def blurred(
    model: Any, rows: Any, pad_id: int, pool: str = "mean", size: int = 64, *, kind: str
) -> Tensor:
    if kind == "order":
        rows = sorted(rows, key=lambda row: len(row.ids))
    found = text_vectors(model, rows, pad_id, "cls" if kind == "cls" else pool, size)
    if kind == "padding" and pool == "mean":
        longest = max(len(row.ids) for row in rows)
        found = found * torch.tensor([[len(row.ids) / longest] for row in rows])
    if kind == "dropout":
        found = found + 9.0
    return found


def _blurred(kind: str) -> Any:
    return lambda *given: blurred(*given, kind=kind)


# ---- rates and weights ------------------------------------------------------------------------


def wrong_groups(
    model: Any, decay: float = 1.0, weight_decay: float = 0.01, *, kind: str
) -> list[dict]:
    layers = model.config.num_hidden_layers
    names = {id(p): name for name, p in model.named_parameters()}
    found = []
    for group in layerwise_groups(model, decay, weight_decay):
        for p in group["params"]:
            name = names[id(p)]
            inside = re.search(r"layer\.(\d+)\.", name)
            depth = int(inside[1]) + 1 if inside else 0 if "embeddings" in name else layers + 1
            scale, shrink = group["scale"], group["weight_decay"]
            if kind == "up":
                scale = decay**depth
            if kind == "top" and depth <= layers:
                scale = decay ** (layers - depth)
            if kind == "bias":
                shrink = weight_decay
            if kind == "head" and depth > layers:
                continue
            found.append({"params": [p], "scale": scale, "weight_decay": shrink})
    return found


def _groups(kind: str) -> Any:
    return lambda *given: wrong_groups(*given, kind=kind)


def wrong_weights(labels: Any, classes: int, *, kind: str) -> Tensor:
    counts = torch.bincount(torch.tensor(list(labels)), minlength=classes).float()
    if kind == "share":
        return counts / counts.sum() * classes
    if kind == "inverse":
        return 1 / counts
    if kind == "classes":
        return counts.sum() / counts
    return counts.sum() / (classes * counts)  # and no word about a class without an example


def _weights(kind: str) -> Any:
    return lambda *given: wrong_weights(*given, kind=kind)


# ---- the loop ---------------------------------------------------------------------------------


def loose_step(
    model: Any, optimizer: Any, batch: Any, rate: float, max_norm: float = 1.0, *, kind: str,
    **more: Any,
) -> float:  # fmt: skip
    loss = model(**batch).loss
    loss.backward()
    if kind == "each":
        for p in model.parameters():
            nn.utils.clip_grad_norm_([p], max_norm)
    elif kind != "unclipped":
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    if kind != "nan" and not torch.isfinite(loss):
        raise RuntimeError("not finite")
    for group in optimizer.param_groups:
        group["lr"] = rate if kind == "scale" else rate * group.get("scale", 1.0)
    optimizer.step()
    if kind != "kept":
        optimizer.zero_grad()
    return loss.item()


def _loose_step(kind: str) -> Any:
    return lambda *given, **named: loose_step(*given, **named, kind=kind)


def sloppy_loop(
    model: Any, rows: Any, pad_id: int, rng: random.Random, *, kind: str, **settings: Any
) -> History:
    if kind == "warmup":
        return finetune(model, rows, pad_id, rng, **{**settings, "warmup": 0.0})
    if kind == "impatient":
        return finetune(model, rows, pad_id, rng, **{**settings, "patience": 1})
    if kind == "training":
        history = finetune(model, rows, pad_id, rng, **settings)
        model.train()
        return history
    if kind == "small" and len(rows) < settings.get("size", 32):
        return History()
    if kind == "last":
        states = []
        ask = settings.get("evaluate")

        def evaluate(m: Any) -> float:
            states.append({name: x.clone() for name, x in m.state_dict().items()})
            return ask(m)

        named = {**settings, "evaluate": evaluate} if ask else settings
        history = finetune(model, rows, pad_id, rng, **named)
        if states:
            model.load_state_dict(states[-1])
        return history
    if kind == "eval":
        train = model.train
        model.train = lambda mode=True: train(False)
        try:
            return finetune(model, rows, pad_id, rng, **settings)
        finally:
            del model.train
    return finetune(model, rows, pad_id, rng, **settings)


def _sloppy(kind: str) -> Any:
    return lambda *given, **named: sloppy_loop(*given, **named, kind=kind)


# ---- the exercises ----------------------------------------------------------------------------


def wrong_seams(tokens: int, room: int, stride: int, *, kind: str) -> tuple[int, int]:
    if kind == "overlap":
        stride_ = max(room - stride, 1)
        windows = max(1, 1 + math.ceil((tokens - room) / stride_))
    elif kind == "all":
        windows = math.ceil(tokens / stride)
    else:
        windows = max(1, 1 + math.ceil((tokens - room) / stride))
    longest = tokens if tokens <= room else room - stride + 1
    if kind == "shared":
        longest = tokens if tokens <= room else room - stride
    if kind == "room":
        longest = min(tokens, room)
    return windows, longest


def _seams(kind: str) -> Any:
    return lambda tokens, room, stride: wrong_seams(tokens, room, stride, kind=kind)


def wrong_spread(tags: list[str], word_ids: list[int], *, kind: str) -> list[str]:
    found, last = [], None
    for word in word_ids:
        if word == -1:
            found.append("O" if kind == "special" else "")
        elif word != last or kind == "begin":
            found.append(tags[word])
        elif kind == "ignore":
            found.append("")
        elif kind == "outside":
            found.append("O")
        else:
            found.append("I-" + tags[word][2:] if tags[word] != "O" else "O")
        last = word
    return found


def _spread(kind: str) -> Any:
    return lambda tags, word_ids: wrong_spread(tags, word_ids, kind=kind)


def wrong_path(scores: Tensor, allowed: Tensor, first: Tensor, *, kind: str) -> list[int]:
    n, labels = scores.shape
    if kind == "each":
        return scores.argmax(-1).tolist()
    if kind == "greedy":
        path: list[int] = []
        for i in range(n):
            fits = first if not path else allowed[path[-1]]
            path.append(int(scores[i].masked_fill(~fits, -math.inf).argmax()))
        return path
    rules = allowed.T if kind == "turned" else allowed
    best, found = -math.inf, [0] * n
    for tried in itertools.product(range(labels), repeat=n):
        steps = zip(tried, tried[1:], strict=False)
        if kind != "start" and not first[tried[0]]:
            continue
        if all(rules[a, b] for a, b in steps):
            total = sum(float(scores[i, tag]) for i, tag in enumerate(tried))
            if total > best:
                best, found = total, list(tried)
    return found


def _path(kind: str) -> Any:
    return lambda *given: wrong_path(*given, kind=kind)


def wrong_sign(a: Any, b: Any, *, kind: str) -> float:
    wins = sum(x and not y for x, y in zip(a, b, strict=True))
    losses = sum(y and not x for x, y in zip(a, b, strict=True))
    n = len(a) if kind == "all" else wins + losses
    more = wins if kind == "direction" else max(wins, losses)
    begin = more + 1 if kind == "beyond" else more
    tail = sum(math.comb(n, k) for k in range(begin, n + 1)) / 2**n
    return tail if kind == "one" else min(1.0, 2 * tail)


def _sign(kind: str) -> Any:
    return lambda a, b: wrong_sign(a, b, kind=kind)


def wrong_split(texts: Any, groups: Any, share: float, seed: int, *, kind: str) -> list[int]:
    rng = random.Random(0 if kind == "fixed" else seed)
    if kind == "rows":
        return sorted(rng.sample(range(len(texts)), round(share * len(texts))))
    plain = [text if kind == "exact" else " ".join(text.lower().split()) for text in texts]
    tied = {g: g for g in groups}

    def root(g: str) -> str:
        while tied[g] != g:
            g = tied[g]
        return g

    if kind != "untied":
        first: dict[str, str] = {}
        for text, group in zip(plain, groups, strict=True):
            tied[root(group)] = root(first.setdefault(text, group))
    names = sorted({root(g) for g in groups})
    rng.shuffle(names)
    chosen: set[str] = set()
    for one in names:
        if sum(root(g) in chosen for g in groups) < share * len(texts):
            chosen.add(one)
    if kind == "other":
        chosen = set(names) - chosen
    return [i for i, g in enumerate(groups) if root(g) in chosen]


def _split(kind: str) -> Any:
    return lambda *given: wrong_split(*given, kind=kind)


def wrong_threshold(gaps: Any, f1: Any, has: Any, *, kind: str) -> Any:
    def total(at: float) -> float:
        found = 0.0
        for gap, score, answerable in zip(gaps, f1, has, strict=True):
            silent = gap < at if kind == "turned" else gap > at
            if silent:
                found += 0.0 if answerable or kind == "silent" else 1.0
            elif answerable:
                found += score
        return found / len(gaps)

    ends = [1e9] if kind == "turned" else [-1e9]
    tried = [0.0] if kind == "zero" else [*ends, *gaps]
    best = max(tried, key=total)
    if kind == "pair":
        return best
    if kind == "swapped":
        return total(best), best
    return best, total(best)


def _threshold(kind: str) -> Any:
    return lambda *given: wrong_threshold(*given, kind=kind)


def wrong_thaw(layers: int, step: int, rate: float, decay: float, every: int, *, kind: str) -> Any:
    found = []
    for depth in range(layers + 2):
        above = layers + 1 - depth
        begins = {"bottom": depth * every, "late": (above + 1) * every, "frozen": 0}.get(
            kind, above * every
        )
        power = {"decay": depth, "flat": 0}.get(kind, above)
        found.append(rate * decay**power if step >= begins else 0.0)
    return found[1:] if kind == "short" else found


def _thaw(kind: str) -> Any:
    return lambda *given: wrong_thaw(*given, kind=kind)


def buggy(logits: Tensor, labels: Tensor, weights: Tensor, *, kind: str) -> Tensor:
    if "softmax" in kind:
        logits = logits.softmax(-1)
    real = torch.ones_like(labels) if "padding" in kind else (labels != IGNORED).long()
    safe = labels.clamp(min=0)
    each = -logits.log_softmax(-1).gather(-1, safe[..., None])[..., 0] * weights[safe] * real
    return each.sum() / (real.sum() if "count" in kind else (weights[safe] * real).sum())


def _buggy(kind: str) -> Any:
    return lambda *given: buggy(*given, kind=kind)


WRONG = {
    "10.classification_loss": [
        Wrong("a softmax before the cross entropy", _loss("softmax"), "takes logits"),
        Wrong("the sum instead of the mean", _loss("sum"), "not their sum"),
        Wrong("divided by all tokens", _loss("all"), "not by all of them"),
        Wrong("weighted, divided by the number of texts", _loss("weights"), "sum of the weights"),
        Wrong("one logit spread over all labels", _loss("broadcast"), "take the last axis away"),
    ],
    "10.BertForSequenceClassification": [
        Wrong("[CLS] without the pooler", RawClassifier, "before the pooler"),
        Wrong("the mean of the tokens", MeanClassifier, "mean of the tokens"),
        Wrong("shares instead of logits", ShareClassifier, "without a softmax"),
        Wrong("no dropout before the classifier", Undropped, "its own dropout"),
    ],
    "10.BertForTokenClassification": [
        Wrong("a pooler that nothing reads", PooledTokens, "do not need the pooler"),
        Wrong("one label for all tokens", OneLabel, "gives all of them [CLS]'s"),
        Wrong("shares instead of logits", ShareTokens, "without a softmax"),
        Wrong("no dropout before the classifier", UndroppedTokens, "its own dropout"),
    ],
    "10.span_loss": [
        Wrong("the two losses added", _lost_span("sum"), "averaged, not added"),
        Wrong("ends asked for at the starts", _lost_span("starts"), "at the starts' positions"),
        Wrong("a softmax before the cross entropy", _lost_span("softmax"), "takes logits"),
        Wrong("an answer beyond the row at its last token", _lost_span("clamp"), "leave it out"),
    ],
    "10.BertForQuestionAnswering": [
        Wrong("start and end changed places", Turned, "output 0 is the start"),
        Wrong("a pooler that nothing reads", PooledAnswers, "there is no pooler"),
        Wrong("the two losses added", Added, "the loss"),
    ],
    "10.text_rows": [
        Wrong("one segment for both texts", _silent_rows("segments"), "second text has segment 1"),
        Wrong("cut without a word", _silent_rows("silent"), "nobody was told"),
        Wrong("[SEP] cut away", _silent_rows("sep"), "took the [SEP] away"),
        Wrong("not cut at all", _silent_rows("empty"), "longer than max_length"),
    ],
    "10.align_labels": [
        Wrong("labels on later pieces", _misaligned("all"), "would count twice"),
        Wrong("later pieces as O", _misaligned("later"), "-100, not 0"),
        Wrong("[CLS] and [SEP] as O", _misaligned("specials"), "are no words"),
        Wrong("the label on the last piece", _misaligned("last"), "not to the last"),
        Wrong("labels in the order of the row", _misaligned("counted"), "begins with word 2"),
    ],
    "10.word_rows": [
        Wrong("what does not fit is dropped", _lost_words("cut"), "are in no row"),
        Wrong("words cut in two", _lost_words("anywhere"), "cut in two"),
        Wrong("labels on later pieces", _lost_words("all"), "would count twice"),
    ],
    "10.read_labels": [
        Wrong("read at the last piece", _misread("last"), "not its last"),
        Wrong("rows put end to end", _misread("packed"), "word_ids says where"),
        Wrong("the unlikeliest label", _misread("worst"), "the labels of the words"),
    ],
    "10.token_span": [
        Wrong("the token behind the answer", _shifted("after"), "one too far"),
        Wrong("the token before the answer", _shifted("before"), "one too early"),
        Wrong("whole tokens only", _shifted("exact"), "the tokens of the characters 5 to 10"),
        Wrong("a token for a blank", _shifted("blank"), "raise a ValueError"),
    ],
    "10.answer_windows": [
        Wrong("the stride taken for the overlap", _seamed("overlap"), "not the overlap"),
        Wrong("windows without overlap", _seamed("apart"), "do not overlap"),
        Wrong("the first window only", _seamed("one"), "in some window"),
        Wrong("the span counted in the text", _seamed("text"), "begins with the question"),
        Wrong("half an answer taken for one", _seamed("half"), "half of an answer"),
        Wrong("a span that ends one too far", _seamed("end"), "one too far"),
    ],
    "10.best_spans": [
        Wrong("an end before its start", _loose("order"), "ends before it starts"),
        Wrong("one token too long", _loose("long"), "one more"),
        Wrong("answers in the question", _loose("question"), "are no answers"),
        Wrong("the beginning of the last token", _loose("begin"), "not its beginning"),
    ],
    "10.read_answers": [
        Wrong("the first window only", _mixed("first"), "only the first window"),
        Wrong("the last window only", _mixed("last"), "only the last window"),
        Wrong("the same answer twice", _mixed("twice"), "there twice"),
        Wrong("no answer, from the loudest window", _mixed("highest"), "not the highest"),
        Wrong("the threshold added", _mixed("plus"), "subtract it"),
    ],
    "10.task_batch": [
        Wrong("padding labeled 0", (_padded("zero"), WordRow, Window), "-100, not 0"),
        Wrong(
            "ends where they start",
            (_padded("ends"), WordRow, Window),
            "the ends are the last ones",
        ),
        Wrong("a mask without padding", (_padded("mask"), WordRow, Window), "the attention mask"),
    ],
    "10.predict": [
        Wrong("results in the order of lengths", _disordered("order"), "in one order"),
        Wrong("no eval()", _disordered("dropout"), "call model.eval() first"),
        Wrong("left in evaluation mode", _disordered("mode"), "put the model's mode back"),
        Wrong("batches of all lengths", _disordered("unsorted"), "most of what was read"),
        Wrong("scores of padding", _disordered("padding"), "cut them to the row's length"),
    ],
    "10.text_vectors": [
        Wrong("the mean over padding", _blurred("padding"), "divide by the real tokens"),
        Wrong("no eval()", _blurred("dropout"), "call model.eval() first"),
        Wrong("vectors in the order of lengths", _blurred("order"), "the vectors"),
        Wrong("always [CLS]", _blurred("cls"), "the vectors, pool='mean'"),
    ],
    "10.layerwise_groups": [
        Wrong("the decay the wrong way round", _groups("up"), "the wrong way"),
        Wrong("the top layer at the full rate", _groups("top"), "already decays once"),
        Wrong("decay of biases", _groups("bias"), "biases and LayerNorm have none"),
        Wrong("the head left out", _groups("head"), "each once"),
    ],
    "10.class_weights": [
        Wrong("frequent classes weigh more", _weights("share"), "small weight"),
        Wrong("one over the count", _weights("inverse"), "1 over the count"),
        Wrong("not divided by the classes", _weights("classes"), "number of classes"),
        Wrong("an infinite weight", _weights("empty"), "raise a ValueError"),
    ],
    "10.finetune_step": [
        Wrong("one rate for all groups", _loose_step("scale"), "was not used"),
        Wrong("gradients kept for the next step", _loose_step("kept"), "added to the next"),
        Wrong("a limit for each tensor", _loose_step("each"), "with a limit of 0.1"),
        Wrong("no limit", _loose_step("unclipped"), "with a limit of 0.1"),
        Wrong("on with nan", _loose_step("nan"), "nothing stopped"),
    ],
    "10.finetune": [
        Wrong("no warm-up", _sloppy("warmup"), "warm up"),
        Wrong("no patience", _sloppy("impatient"), "patience is 2"),
        Wrong("left in training mode", _sloppy("training"), "dropout would stay on"),
        Wrong("trained without dropout", _sloppy("eval"), "call model.train()"),
        Wrong("the last weights, not the best", _sloppy("last"), "best epoch's"),
        Wrong("nothing learned from a small set", _sloppy("small"), "make the batch smaller"),
    ],
    "10.seams": [
        Wrong("the stride taken for the overlap", _seams("overlap"), "not the overlap"),
        Wrong("windows that hold nothing new", _seams("all"), "the last"),
        Wrong("answers as long as the overlap", _seams("shared"), "one token longer"),
        Wrong("answers as long as a window", _seams("room"), "is cut at most places"),
    ],
    "10.spread_labels": [
        Wrong("a name that begins at each piece", _spread("begin"), "I-PER, not B-PER"),
        Wrong("[CLS] counted as a token label", _spread("special"), "the empty tag"),
        Wrong("later pieces left out", _spread("ignore"), "a tag of their own"),
        Wrong("later pieces as O", _spread("outside"), "it is not O"),
    ],
    "10.best_path": [
        Wrong("each word by itself", _path("each"), "whatever stands before"),
        Wrong("the best next step", _path("greedy"), "look at whole paths"),
        Wrong("any beginning", _path("start"), "may begin a sentence"),
        Wrong("the rules turned round", _path("turned"), "not a follow b"),
    ],
    "10.sign_test": [
        Wrong("one side", _sign("one"), "take both"),
        Wrong("ties counted", _sign("all"), "both agree"),
        Wrong("more than, not at least", _sign("beyond"), "at least"),
        Wrong("only for the first model", _sign("direction"), "change places"),
    ],
    "10.split_groups": [
        Wrong("rows drawn by chance", _split("rows"), "would know the film"),
        Wrong("groups that share a text", _split("untied"), "same text is on both sides"),
        Wrong("only equal letters are the same text", _split("exact"), "blanks or capitals"),
        Wrong("the larger part as the test", _split("other"), "are in the test"),
        Wrong("a seed that does nothing", _split("fixed"), "the same split"),
    ],
    "10.best_threshold": [
        Wrong("threshold zero", _threshold("zero"), "try the others"),
        Wrong("the gap turned round", _threshold("turned"), "means silence"),
        Wrong("silence never right", _threshold("silent"), "scores 1 there"),
        Wrong("the threshold alone", _threshold("pair"), "return two numbers"),
    ],
    "10.thawing_rates": [
        Wrong("from the bottom", _thaw("bottom"), "from the top"),
        Wrong("the decay the wrong way round", _thaw("decay"), "wrong way"),
        Wrong("nothing frozen", _thaw("frozen"), "rate 0"),
        Wrong("a head that waits", _thaw("late"), "from step 0"),
        Wrong("one rate for all layers", _thaw("flat"), "decay times the rate"),
        Wrong("embeddings forgotten", _thaw("short"), "in all"),
    ],
    "10.loss_bug": [
        Wrong("all three mistakes", _buggy("softmax padding count"), "softmax is in it"),
        Wrong("a softmax before the cross entropy", _buggy("softmax"), "softmax is in it"),
        Wrong("mean over padding", _buggy("padding"), "count as class 0"),
        Wrong("divided by the count", _buggy("count"), "as torch does"),
        Wrong("two mistakes left", _buggy("padding count"), "count as class 0"),
    ],
}

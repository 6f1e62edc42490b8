"""Wrong answers to the checks of chapter 07."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn.model import BertForPreTraining
from bertlearn.pairs import TextPair, collect, draw_length, flatten
from tests.known_wrong import Wrong

# ---- definitions ------------------------------------------------------------------------------


def truncate(a: Any, b: Any, room: int, rng: random.Random, how: str = "") -> Any:
    first, second = (a, b) if how == "in place" else (list(a), list(b))
    if how == "halves":
        return first[: room // 2], second[: room - room // 2]
    if how == "front or back":
        at = 0 if rng.random() < 0.5 else -1
        while len(first) + len(second) > room:
            (first if len(first) > len(second) else second).pop(at)
        return first, second
    while len(first) + len(second) > room:
        longer = first if len(first) > len(second) else second
        if how == "B" and second:
            longer = second
        at = 0 if rng.random() < 0.5 else -1
        longer.pop({"end": -1, "middle": len(longer) // 2}.get(how, at))
    return first, second


def continuation(
    documents: Any, index: int, length: int, rng: random.Random, how: str = ""
) -> list[int]:
    other = rng.randrange(len(documents) - 1)
    other = other if other < index else other + 1
    if how == "any":
        other = rng.randrange(len(documents))
    if how == "next":
        other = (index + 1) % len(documents)
    document = documents[other]
    start = 0 if how == "opening" else rng.randrange(len(document))
    end = collect(document, start, length)
    if how == "all":
        end = len(document)
    if how == "nothing" and length <= 0:
        end = start
    tokens = flatten(document[start:end])
    return tokens[: max(length, 1)] if how == "cut" else tokens


def nexts(
    documents: Any, rng: random.Random, max_length: int = 128, short: float = 0.1, how: str = ""
) -> Any:
    room = max_length if how == "no room" else max_length - 3
    if len(documents) == 1 and how != "one document":
        raise ValueError
    for index, document in enumerate(documents):
        start = 0
        while start < len(document):
            length = draw_length(room, rng, 0.0 if how == "full" else short)
            end = collect(document, start, length)
            alone = end - start == 1
            if alone and how == "skip":
                start = end
                continue
            cut = end if alone else rng.randrange(start + 1, end)
            if how == "first" and not alone:
                cut = start + 1
            first = flatten(document[start:cut])
            left = length - len(first)
            if alone or rng.random() < (0.9 if how == "too many" else 0.5):
                if how == "own":
                    at = rng.randrange(len(document))
                    second = flatten(document[at : collect(document, at, left)])
                elif len(documents) == 1:
                    second = first
                else:
                    second = continuation(documents, index, left, rng)
                label, start = 1, end if how == "lost" else cut
            else:
                second, label, start = flatten(document[cut:end]), 0, end
            label = 1 - label if how == "turned" else label
            yield TextPair(*truncate(first, second, room, rng), label)


def orders(
    documents: Any, rng: random.Random, max_length: int = 128, short: float = 0.1, how: str = ""
) -> Any:
    room = max_length - 3
    for index, document in enumerate(documents):
        start = 0
        while start < len(document):
            end = collect(document, start, draw_length(room, rng, short))
            alone = end - start == 1
            if how == "single" and alone:
                yield TextPair(flatten(document[start:end]), flatten(document[start:end]), 0)
            if not alone:
                cut = rng.randrange(start + 1, end)
                early, late = document[start:cut], document[cut:end]
                swapped = rng.random() < {"never": 0.0, "always": 1.0}.get(how, 0.5)
                if swapped and how == "backwards":
                    early, late = early[::-1], late[::-1]
                a, b = truncate(flatten(early), flatten(late), room, rng)
                if how == "random":
                    b = continuation(documents, index, len(b), rng) if swapped else b
                    swapped_pair = a, b
                else:
                    swapped_pair = b, a
                label = int(swapped) if how != "turned" else int(not swapped)
                yield TextPair(*(swapped_pair if swapped else (a, b)), label)
            start = cut if how == "put back" and not alone else end


def _how(function: Any, how: str) -> Any:
    return lambda *given, **named: function(*given, **named, how=how)


class Wrongly(BertForPreTraining):
    """The right thing, with a place for each way to get it wrong."""

    def judge(self, encoded: Any) -> Tensor:
        return self.cls.seq_relationship(encoded.pooler_output)

    def pair_loss(self, scores: Tensor, follows: Tensor) -> Tensor:
        return F.cross_entropy(scores, follows)

    def total(self, mlm: Tensor, pair: Tensor) -> Tensor:
        return mlm + pair

    def encode(self, ids: Tensor, types: Any, mask: Any) -> Any:
        return self.bert(ids, types, mask)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        token_type_ids: Any = None,
        attention_mask: Any = None,
        labels: Any = None,
        next_sentence_label: Any = None,
    ) -> Any:
        out = super().forward(
            input_ids, token_type_ids, attention_mask, labels, next_sentence_label
        )
        scores = self.judge(self.encode(input_ids, token_type_ids, attention_mask))
        out.seq_relationship_logits = scores
        if next_sentence_label is not None:
            out.pair_loss = self.pair_loss(scores, next_sentence_label)
            out.loss = out.pair_loss if labels is None else self.total(out.mlm_loss, out.pair_loss)
        return out


class FromCls(Wrongly):
    def judge(self, encoded: Any) -> Tensor:
        return self.cls.seq_relationship(encoded.last_hidden_state[:, 0])


class FromLast(Wrongly):
    def judge(self, encoded: Any) -> Tensor:
        return self.cls.seq_relationship(self.bert.pooler(encoded.last_hidden_state[:, -1:]))


class NoSegments(Wrongly):
    def encode(self, ids: Tensor, types: Any, mask: Any) -> Any:
        return self.bert(ids, None, mask)


class IgnoresZero(Wrongly):
    def pair_loss(self, scores: Tensor, follows: Tensor) -> Tensor:
        total = F.cross_entropy(scores, follows, ignore_index=0, reduction="sum")
        return total / follows.sum().clamp(min=1)


class Turned(Wrongly):
    def pair_loss(self, scores: Tensor, follows: Tensor) -> Tensor:
        return F.cross_entropy(scores, 1 - follows)


class Averaged(Wrongly):
    def total(self, mlm: Tensor, pair: Tensor) -> Tensor:
        return (mlm + pair) / 2


class WordsOnly(Wrongly):
    def total(self, mlm: Tensor, pair: Tensor) -> Tensor:
        return mlm


class Untied(BertForPreTraining):
    def tie_weights(self) -> None:
        pass


# ---- questions --------------------------------------------------------------------------------


def pair_batch(
    pairs: Any,
    max_length: int,
    cls: int,
    sep: int,
    pad: int,
    *,
    cut: str = "longer",
    middle: int = 0,
    padding: int = 0,
    last: bool = True,
    width: int = 0,
    seen: int = 0,
    room: int = 3,
) -> tuple[Tensor, Tensor, Tensor]:
    ids, segments = [], []
    for a, b in pairs:
        a, b = list(a), list(b)
        while len(a) + len(b) > max_length - room:
            (b if cut == "second" or len(a) <= len(b) else a).pop()
        ids.append([cls, *a, sep, *b] + [sep] * last)
        segments.append([0] * (len(a) + 2 - middle) + [1] * (len(b) + last + middle))
    long = width or max(map(len, ids))
    return (
        torch.tensor([row + [pad] * (long - len(row)) for row in ids]),
        torch.tensor([row + [padding] * (long - len(row)) for row in segments]),
        torch.tensor([[1] * len(row) + [seen] * (long - len(row)) for row in ids]),
    )


def _batch(**switches: Any) -> Any:
    return lambda *given: pair_batch(*given, **switches)


def share_lost(sentences: int, per_row: int) -> float:
    pairs = randoms = 0.0
    while sentences:
        k = min(sentences, per_row)
        pairs, randoms = pairs + 1, randoms + (1 if k == 1 else 0.5)
        sentences -= k
    return randoms / pairs


def share_of_halves(sentences: int, per_row: int) -> float:
    """As if every pair were cut in its middle."""
    pairs, randoms = [0.0], [0.0]
    for left in range(1, sentences + 1):
        k = min(left, per_row)
        for counts, now in ((pairs, 1.0), (randoms, 0.5)):
            if k == 1:
                counts.append(counts[left - 1] + 1)
            else:
                counts.append(now + (counts[left - k] + counts[left - k // 2]) / 2)
    return randoms[-1] / pairs[-1]


def share_of_means(sentences: int, per_row: int) -> float:
    """The mean over documents of each document's share."""
    if sentences == 2:
        return 0.75
    return 1.0 if sentences == 1 else 0.5


def three_way(
    documents: Any,
    labels: Any,
    draws: Any,
    *,
    own: bool = False,
    turned: bool = False,
    across: bool = False,
    never: bool = False,
) -> list[tuple[str, str, int]]:
    if across:
        documents = [[s for document in documents for s in document]]
    found: list[tuple[str, str, int]] = []
    for index, document in enumerate(documents):
        others = [s for d, doc in enumerate(documents) if own or d != index for s in doc]
        for a, b in zip(document, document[1:], strict=False):
            if len(found) == len(labels):
                break
            given = labels[len(found)]
            label = {1: 2, 2: 1}.get(given, given) if turned else given
            first, second = (a, b) if label == 0 or never else (b, a)
            if label == 2:
                first = a
                second = others[draws[len(found)] % len(others)] if others else ""
            found.append((first, second, given))
    return found


def _three(**switches: Any) -> Any:
    return lambda *given: three_way(*given, **switches)


def hardest(
    vectors: Tensor, home: Tensor, *, unit: bool = True, allow: str = "other", sign: int = 1
) -> Tensor:
    v = F.normalize(vectors, dim=1) if unit else vectors
    scores = sign * (v @ v.T)
    hidden = home[:, None] == home[None, :]
    if allow == "self":
        hidden = torch.eye(len(home), dtype=torch.bool)
    if allow == "all":
        hidden = torch.zeros_like(hidden)
    best = scores.masked_fill(hidden, -torch.inf).argmax(dim=1)
    return best if allow == "no -1" else best.masked_fill(hidden.all(dim=1), -1)


def gain(predicted: Tensor, labels: Tensor, how: str = "") -> tuple[float, float, float, float]:
    n = len(labels)
    right = (predicted == labels).double()
    common = int(2 * labels.sum() > n)
    base = (labels == common).double()
    accuracy, majority = float(right.mean()), float(base.mean())
    if how == "half":
        majority = 0.5
    if how == "ones":
        majority = float(labels.double().mean())
    if how == "predictions":
        share = float(predicted.double().mean())
        majority = max(share, 1 - share)
    steps = right - base
    error = float(steps.std(correction=0)) / math.sqrt(n)
    middle = accuracy - majority
    own = accuracy * (1 - accuracy)
    if how == "accuracy":
        middle, error = accuracy, math.sqrt(own / n)
    if how == "fixed":
        error = math.sqrt(own / n)
    if how == "added":
        error = math.sqrt((own + majority * (1 - majority)) / n)
    if how == "spread":
        error = float(steps.std(correction=0))
    return accuracy, majority, middle - 1.96 * error, middle + 1.96 * error


def _gain(how: str) -> Any:
    return lambda predicted, labels: gain(predicted, labels, how)


def sampler(
    documents: Any,
    coins: Any,
    draws: Any,
    *,
    turned: bool = False,
    own: bool = False,
    step: bool = False,
) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    for index, document in enumerate(documents):
        for a, b in zip(document, document[1:], strict=False):
            coin, draw = coins[len(found)], draws[len(found)]
            other = draw % (len(documents) - 1)
            if step:
                other = draw % len(documents)
                if other == index:
                    other = (other + 1) % len(documents)
            elif other > index or (other == index and not own):
                other += 1
            random_b = documents[other][draw % len(documents[other])]
            label = int(not coin) if turned else int(coin)
            found.append((a, random_b if coin else b, label))
    return found


WRONG: dict[str, list[Wrong]] = {
    "07.truncate_longer": [
        Wrong("B is always cut", _how(truncate, "B"), "you cut the shorter text"),
        Wrong("half of the row each", _how(truncate, "halves"), "a pair that fits exactly"),
        Wrong("always at the end", _how(truncate, "end"), "you always cut at the end"),
        Wrong("the document itself is cut", _how(truncate, "in place"), "changes the lists"),
        Wrong("a hole in the middle", _how(truncate, "middle"), "in its middle"),
    ],
    "07.random_continuation": [
        Wrong("from any document", _how(continuation, "any"), "itself: then it may well be"),
        Wrong("from the next document", _how(continuation, "next"), "equally likely"),
        Wrong("from the opening on", _how(continuation, "opening"), "always starts at the same"),
        Wrong("to the end of the document", _how(continuation, "all"), "a B for 10 tokens"),
        Wrong("cut to the token", _how(continuation, "cut"), "a B for 10 tokens"),
        Wrong("empty when A fills the row", _how(continuation, "nothing"), "tokens of a B when"),
    ],
    "07.next_sentence_pairs": [
        Wrong("labels turned round", _how(nexts, "turned"), "wrong way round"),
        Wrong("a random B from A's document", _how(nexts, "own"), "A's own document"),
        Wrong("unused sentences thrown away", _how(nexts, "lost"), "sentences are lost"),
        Wrong("single sentences skipped", _how(nexts, "skip"), "sentences are lost"),
        Wrong("no room for special tokens", _how(nexts, "no room"), "a row is too long"),
        Wrong("cut after the first sentence", _how(nexts, "first"), "draw the place"),
        Wrong("too many random ones", _how(nexts, "too many"), "random half of the time"),
        Wrong("rows always full", _how(nexts, "full"), "rows are never short"),
        Wrong("one document accepted", _how(nexts, "one document"), "a single document"),
    ],
    "07.sentence_order_pairs": [
        Wrong("B from another document", _how(orders, "random"), "B is from another document"),
        Wrong("labels turned round", _how(orders, "turned"), "wrong way round"),
        Wrong("never swapped", _how(orders, "never"), "half of the pairs must be swapped"),
        Wrong("always swapped", _how(orders, "always"), "half of the pairs must be swapped"),
        Wrong("sentences in reverse", _how(orders, "backwards"), "exchange the halves as a whole"),
        Wrong("put back as in NSP", _how(orders, "put back"), "not every sentence comes once"),
        Wrong("a sentence with itself", _how(orders, "single"), "not every sentence comes once"),
    ],
    "07.BertForPreTraining": [
        Wrong("[CLS] without the pooler", FromCls, "it goes through the pooler"),
        Wrong("the last token", FromLast, "the pooler reads the first"),
        Wrong("segments forgotten", NoSegments, "A and B look alike"),
        Wrong("label 0 ignored", IgnoresZero, "ignore_index=0 is for words"),
        Wrong("labels turned round", Turned, "column 0 is 'B follows A'"),
        Wrong("losses averaged", Averaged, "they are added"),
        Wrong("the pair's loss forgotten", WordsOnly, "the pair's loss is missing"),
        Wrong("a decoder of its own", Untied, "tie it to the token embeddings"),
    ],
    "07.pair_batch": [
        Wrong("the first [SEP] given to B", _batch(middle=1), "the first [SEP] belongs to A"),
        Wrong("padding in segment 1", _batch(padding=1), "padding has segment 0"),
        Wrong("no last [SEP]", _batch(last=False), "the last [SEP] is missing"),
        Wrong(
            "padded to max_length",
            lambda pairs, n, *rest: pair_batch(pairs, n, *rest, width=n),
            "the longest row of the batch is enough",
        ),
        Wrong("padding shown", _batch(seen=1), "your mask shows the padding"),
        Wrong("B always cut", _batch(cut="second"), "you always cut B"),
        Wrong("no room for special tokens", _batch(room=0), "3 places less"),
    ],
    "07.share_random": [
        Wrong("one half", lambda sentences, per_row: 0.5, "its B is always random"),
        Wrong("nothing put back", share_lost, "comes again, alone"),
        Wrong("cut in the middle", share_of_halves, "anywhere, not in the middle"),
        Wrong("mean of the shares", share_of_means, "over the mean number of pairs"),
    ],
    "07.three_way": [
        Wrong("own sentences among the others", _three(own=True), "the own document's"),
        Wrong("labels 1 and 2 exchanged", _three(turned=True), "1 is previous, 2 is elsewhere"),
        Wrong("across documents", _three(across=True), "are no neighbors"),
        Wrong("never exchanged", _three(never=True), "label 1 exchanges"),
    ],
    "07.hard_negatives": [
        Wrong(
            "a neighbor from the same document",
            lambda v, home: hardest(v, home, allow="self"),
            "a sentence of the same document",
        ),
        Wrong("dot products", lambda v, home: hardest(v, home, unit=False), "long vectors win"),
        Wrong("the least similar", lambda v, home: hardest(v, home, sign=-1), "the least similar"),
        Wrong("itself", lambda v, home: hardest(v, home, allow="all"), "chose itself"),
        Wrong("no -1", lambda v, home: hardest(v, home, allow="no -1"), "all sentences are of one"),
    ],
    "07.against_majority": [
        Wrong("a guess of one half", _gain("half"), "a guess is not 50 percent"),
        Wrong("the share of label 1", _gain("ones"), "whichever it is"),
        Wrong("majority of the predictions", _gain("predictions"), "among the predictions"),
        Wrong(
            "interval of the accuracy", _gain("accuracy"), "this is the interval of the accuracy"
        ),
        Wrong("majority taken as exact", _gain("fixed"), "its error belongs"),
        Wrong("errors added", _gain("added"), "example by example"),
        Wrong("spread of single examples", _gain("spread"), "by root n"),
    ],
    "07.sampler_bug": [
        Wrong("nothing mended", lambda *x: sampler(*x, turned=True, own=True), "0 must mean"),
        Wrong("labels still turned", lambda *x: sampler(*x, turned=True), "0 must mean"),
        Wrong("own document still drawn", lambda *x: sampler(*x, own=True), "own document"),
        Wrong("a step aside", lambda *x: sampler(*x, step=True), "count the others alone"),
    ],
}

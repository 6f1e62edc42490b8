"""What pairs of text and their head must do (chapter 07), and the questions of its exercises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn.checks.core import Check, Toolbox
from bertlearn.config import BertConfig

Documents = list[list[list[int]]]
ENDLESS = 10_000  # a row that is never too short


def _numbered(*shape: Sequence[int]) -> Documents:
    """Documents of these sentence lengths; every token is a number of its own, counted up."""
    count, documents = 0, []
    for lengths in shape:
        document = []
        for length in lengths:
            document.append(list(range(count, count + length)))
            count += length
        documents.append(document)
    return documents


def _home(documents: Documents) -> dict[int, int]:
    """Each token's document."""
    return {t: d for d, document in enumerate(documents) for s in document for t in s}


def _flat(sentences: Sequence[Sequence[int]]) -> list[int]:
    return [token for sentence in sentences for token in sentence]


# ---- definitions of the chapter -------------------------------------------------------------

cutting = Check("07.truncate_longer", "two texts into one row", ("truncate_longer",))


@cutting.case("what fits is left alone, and the texts that were given stay as they were")
def _(t: Toolbox, truncate: Any) -> None:
    a, b = [1, 2, 3], [4, 5]
    t.equal([list(x) for x in truncate(a, b, 5, t.random)], [a, b], "a pair that fits exactly")
    truncate(a, b, 3, t.random)
    t.that(
        (a, b) == ([1, 2, 3], [4, 5]),
        "your function changes the lists it was given: they belong to a document, so copy them",
    )


@cutting.case("the longer side gives, until both fit")
def _(t: Toolbox, truncate: Any) -> None:
    for long, short in ((30, 6), (6, 30)):
        a, b = list(range(long)), list(range(100, 100 + short))
        got = truncate(a, b, 20, t.random)
        sizes = [len(side) for side in got]
        t.that(
            sum(sizes) == 20,
            "together the two texts must fill the room exactly",
            expected="20 tokens",
            got=f"{sum(sizes)} tokens",
        )
        t.that(
            min(sizes) == 6,
            "you cut the shorter text: each token is taken from the side that is longer then",
            expected=str([14, 6] if long > short else [6, 14]),
            got=str(sizes),
        )
    sizes = [len(side) for side in truncate(list(range(30)), list(range(40)), 21, t.random)]
    t.that(
        sorted(sizes) == [10, 11],
        "two long texts must end up equally long",
        expected="10 and 11",
        got=str(sizes),
    )


@cutting.case("from its front or its back, by chance")
def _(t: Toolbox, truncate: Any) -> None:
    front = 0
    for _ in range(100):
        first, _ = truncate(list(range(40)), [99], 21, t.random)
        t.that(
            list(first) == list(range(first[0], first[0] + 20)),
            "a text lost tokens in its middle: take them from its ends",
        )
        front += first[0]
    share = front / 2000
    t.that(
        share > 0.02,
        "you always cut at the end: half of the cuts come off the front, by chance",
        expected="about 0.5 from the front",
        got=f"{share:.2f}",
    )
    t.that(
        abs(share - 0.5) < 0.1,
        "front and back must be equally likely, token by token",
        expected="about 0.5 from the front",
        got=f"{share:.2f}",
    )


elsewhere = Check("07.random_continuation", "text from another document", ("random_continuation",))


@elsewhere.case("never from the document itself, from the others equally often")
def _(t: Toolbox, continuation: Any) -> None:
    documents = _numbered(*[[2]] * 5)
    home = _home(documents)
    for index in (0, 2, 4):
        drawn = [home[continuation(documents, index, 5, t.random)[0]] for _ in range(600)]
        t.that(
            index not in drawn,
            f"B can come from document {index} itself: then it may well be what follows",
        )
        counts = [drawn.count(d) for d in range(5) if d != index]
        t.that(
            min(counts) > 90,
            "the other documents must be equally likely",
            expected="about 150 each",
            got=str(counts),
        )


@elsewhere.case("from any sentence on, until the row is full or the document ends")
def _(t: Toolbox, continuation: Any) -> None:
    documents = _numbered([3], [4] * 8)
    drawn = [continuation(documents, 0, 10, t.random) for _ in range(400)]
    starts = {b[0] for b in drawn}
    t.that(
        len(starts) > 1,
        "B always starts at the same sentence: draw where it starts, or a model could learn what "
        "beginnings look like",
    )
    t.that(starts == {s[0] for s in documents[1]}, "B must start at any sentence, whole sentences")
    for b in drawn:
        want = documents[1][(b[0] - 3) // 4 :][:3]  # three sentences of 4 first reach 10
        t.equal(list(b), _flat(want), "a B for 10 tokens out of sentences of 4")


@elsewhere.case("one sentence at least, even if A left no room")
def _(t: Toolbox, continuation: Any) -> None:
    documents = _numbered([3], [4] * 8)
    for length in (1, 0, -20):
        got = len(continuation(documents, 0, length, t.random))
        t.equal(got, 4, f"tokens of a B when {length} are left")


nexts = Check(
    "07.next_sentence_pairs", "pairs for next-sentence prediction", ("next_sentence_pairs",)
)


@nexts.case("label 0: B follows A; label 1: B is from another document")
def _(t: Toolbox, make: Any) -> None:
    documents = _numbered(*[[3, 1, 4, 2, 5, 3, 2]] * 30)
    home = _home(documents)
    pairs = list(make(documents, t.random, ENDLESS, 1.0))
    same = {label: [] for label in (0, 1)}  # type: dict[int, list[bool]]
    for p in pairs:
        same[p.label].append(home[p.first[0]] == home[p.second[0]])
    t.that(
        not (same[1] and all(same[1]) and not any(same[0])),
        "the labels are the wrong way round: 0 means that B follows A",
    )
    t.that(
        not any(same[1]),
        "a random B comes from A's own document: it must come from another one",
        expected="0",
        got=f"{sum(same[1])} of {len(same[1])}",
    )
    t.that(all(same[0]), "a B with label 0 is from another document")
    for p in pairs:
        if p.label == 0:
            t.equal(p.second[0], p.first[-1] + 1, "the token that B starts with, under label 0")


@nexts.case("no sentence is lost: what a random B displaced comes again")
def _(t: Toolbox, make: Any) -> None:
    documents = _numbered(*[[3, 1, 4, 2, 5, 3, 2], [6, 2], [4]] * 8)
    told: list[int] = []
    for p in make(documents, t.random, ENDLESS, 0.5):
        told += list(p.first) + (list(p.second) if p.label == 0 else [])
    everything = _flat([_flat(document) for document in documents])
    t.that(
        told == everything,
        "sentences are lost: behind a random B, go on where A ended ('put back'); a sentence that "
        "is left alone gets a random B",
        expected=f"{len(everything)} tokens, in order",
        got=f"{len(told)} tokens, {len(set(told))} different",
    )


@nexts.case("each row fits, with [CLS] and two [SEP]")
def _(t: Toolbox, make: Any) -> None:
    documents = _numbered(*[[7, 5, 9, 8, 6, 9]] * 30)
    sizes = [(len(p.first), len(p.second)) for p in make(documents, t.random, 20, 0.1)]
    longest = max(a + b for a, b in sizes)
    t.that(
        longest <= 17,
        "a row is too long: [CLS] and two [SEP] take 3 of max_length",
        expected="at most 17 tokens of text for max_length 20",
        got=str(longest),
    )
    t.equal(longest, 17, "the longest pair for max_length 20")
    t.that(min(min(size) for size in sizes) >= 1, "A and B must have at least one token each")


@nexts.case("cut at any sentence, half of the cuts with a random B")
def _(t: Toolbox, make: Any) -> None:
    documents = _numbered(*[[1] * 5] * 400)
    begins = {document[0][0] for document in documents}
    opening = [p for p in make(documents, t.random, 8, 0.0) if p.first[0] in begins]
    cuts = [len(p.first) for p in opening]
    t.that(
        set(cuts) == {1, 2, 3, 4},
        "five sentences can be cut in four places: draw the place",
        expected="A of 1, 2, 3 or 4 sentences",
        got=str(sorted(set(cuts))),
    )
    share = sum(p.label for p in opening) / len(opening)
    t.that(
        abs(share - 0.5) < 0.12,
        "where a collection can be cut, B is random half of the time",
        expected="about 0.5",
        got=f"{share:.2f}",
    )


@nexts.case("now and then a short row")
def _(t: Toolbox, make: Any) -> None:
    documents = _numbered(*[[1] * 600] * 10)
    for short in (0.0, 0.5):
        sizes = [len(p.first) + len(p.second) for p in make(documents, t.random, 53, short)]
        share = sum(size < 45 for size in sizes) / len(sizes)
        t.that(
            abs(share - 0.85 * short) < 0.13,
            "rows are never short: with probability `short`, draw a length from 2 up to the room"
            if share < 0.13 < short
            else "the wrong share of rows is short",
            expected=f"about {0.85 * short:.2f} below 45 of 50 tokens, for short = {short}",
            got=f"{share:.2f}",
        )


@nexts.case("a single document is refused")
def _(t: Toolbox, make: Any) -> None:
    try:
        list(make(_numbered([3, 4, 2]), t.random, 20))
    except ValueError:
        return
    t.that(
        False,
        "with a single document every random B would be its own text, labeled wrongly: raise "
        "ValueError",
    )


orders = Check(
    "07.sentence_order_pairs", "pairs for sentence-order prediction", ("sentence_order_pairs",)
)


@orders.case("both halves are neighbors in one document; swapped means exchanged")
def _(t: Toolbox, make: Any) -> None:
    documents = _numbered(*[[3, 1, 4, 2, 5, 3, 2]] * 30)
    home = _home(documents)
    pairs = list(make(documents, t.random, ENDLESS, 1.0))
    t.that(pairs, "no pair came")
    t.that(
        all(home[p.first[0]] == home[p.second[0]] for p in pairs),
        "B is from another document: order is asked within one document only",
    )
    ahead = [(p.label, p.first[-1] + 1 == p.second[0]) for p in pairs]
    t.that(
        not all(label == int(is_ahead) for label, is_ahead in ahead),
        "the labels are the wrong way round: 0 means in order",
    )
    for p in pairs:
        early, late = (p.first, p.second) if p.label == 0 else (p.second, p.first)
        joined = [*early, *late]
        t.that(
            joined == list(range(joined[0], joined[0] + len(joined))),
            "put back in order, the two halves are not a piece of the text: exchange the halves "
            "as a whole and leave each as it is",
            got=str(joined)[:60],
        )


@orders.case("about half are swapped")
def _(t: Toolbox, make: Any) -> None:
    documents = _numbered(*[[3] * 8] * 200)
    labels = [p.label for p in make(documents, t.random, 27, 0.0)]
    share = sum(labels) / max(1, len(labels))
    t.that(
        abs(share - 0.5) < 0.1,
        "half of the pairs must be swapped, by chance",
        expected="about 0.5",
        got=f"{share:.2f}",
    )


@orders.case("every sentence once; one that is alone makes no pair")
def _(t: Toolbox, make: Any) -> None:
    documents = _numbered(*[[3, 1, 4, 2], [6], [2, 2]] * 5)
    told: list[int] = []
    for p in make(documents, t.random, ENDLESS, 0.0):
        told += [*p.first, *p.second] if p.label == 0 else [*p.second, *p.first]
    want = _flat([_flat(document) for document in documents if len(document) > 1])
    t.that(
        told == want,
        "not every sentence comes once: nothing is put back here, and a single sentence cannot be "
        "swapped with itself",
        expected=f"{len(want)} tokens",
        got=f"{len(told)} tokens",
    )


heads = Check("07.BertForPreTraining", "BERT with both heads", ("BertForPreTraining",))


def _model(t: Toolbox, cls: Any) -> tuple[Any, dict[str, Tensor]]:
    """A tiny model with weights far from 0, and a batch with padding."""
    config = BertConfig(
        vocab_size=23,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=10,
    )
    torch.manual_seed(0)
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(t.randn(*parameter.shape) / 2)
    batch = {
        "input_ids": t.ids(23, 4, 8, low=5),
        "token_type_ids": torch.tensor([[0] * 4 + [1] * 4] * 4),
        "attention_mask": torch.tensor([[1] * 8, [1] * 6 + [0] * 2] * 2),
    }
    return model, batch


@heads.case("the pair is judged from the pooler's output")
def _(t: Toolbox, cls: Any) -> None:
    model, batch = _model(t, cls)
    with torch.no_grad():
        got = model(**batch).seq_relationship_logits
        encoded = model.bert(**batch)
        states = encoded.last_hidden_state
        head = model.cls.seq_relationship
        unaware = model.bert(batch["input_ids"], None, batch["attention_mask"])
        want = F.linear(encoded.pooler_output, head.weight, head.bias)
        t.close(
            got,
            want,
            "seq_relationship_logits",
            suspects={
                "you judged the pair from the last layer's [CLS]: it goes through the pooler": (
                    F.linear(states[:, 0], head.weight, head.bias)
                ),
                "you judged the pair from the last token: the pooler reads the first, [CLS]": (
                    F.linear(
                        F.linear(
                            states[:, -1],
                            model.bert.pooler.dense.weight,
                            model.bert.pooler.dense.bias,
                        ).tanh(),
                        head.weight,
                        head.bias,
                    )
                ),
                "the segments do not reach the encoder: A and B look alike": (
                    F.linear(unaware.pooler_output, head.weight, head.bias)
                ),
            },
        )


@heads.case("the loss is the sum of both, and label 0 counts as much as label 1")
def _(t: Toolbox, cls: Any) -> None:
    model, batch = _model(t, cls)
    labels = torch.full((4, 8), -100)
    labels[:, 2] = batch["input_ids"][:, 2]
    for follows in (torch.tensor([0, 1, 0, 1]), torch.zeros(4, dtype=torch.int64)):
        with torch.no_grad():
            out = model(**batch, labels=labels, next_sentence_label=follows)
            words = model(**batch).prediction_logits
            scores = out.seq_relationship_logits
        mlm = F.cross_entropy(words.flatten(0, 1), labels.flatten())
        pair = F.cross_entropy(scores, follows)
        ignoring = F.cross_entropy(scores, follows, ignore_index=0, reduction="sum")
        counted = ignoring / follows.sum().clamp(min=1)
        t.close(
            out.loss,
            mlm + pair,
            "the loss",
            suspects={
                "pairs with label 0 do not count: ignore_index=0 is for words, not for pairs": (
                    mlm + counted
                ),
                "the label is turned round: column 0 is 'B follows A'": (
                    mlm + F.cross_entropy(scores, 1 - follows)
                ),
                "you took the mean of the two losses: they are added": (mlm + pair) / 2,
                "the pair's loss is missing": mlm,
                "the loss of the words is missing": pair,
            },
        )
        t.close(out.pair_loss, pair, "pair_loss")
        t.close(out.mlm_loss, mlm, "mlm_loss")


@heads.case("without labels no loss, with one kind of label that loss alone")
def _(t: Toolbox, cls: Any) -> None:
    model, batch = _model(t, cls)
    with torch.no_grad():
        t.that(model(**batch).loss is None, "without labels the loss must be None")
        out = model(**batch, next_sentence_label=torch.tensor([0, 1, 1, 0]))
    t.that(out.mlm_loss is None, "without labels for words, mlm_loss must be None")
    t.close(out.loss, out.pair_loss, "the loss with labels for pairs only")


@heads.case("the decoder is the table of token embeddings, with names as in files")
def _(t: Toolbox, cls: Any) -> None:
    model, _ = _model(t, cls)
    t.that(
        model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight,
        "the decoder has a matrix of its own: tie it to the token embeddings",
    )
    names = {name for name in model.state_dict() if name.startswith("cls.seq")}
    t.equal(
        sorted(names),
        ["cls.seq_relationship.bias", "cls.seq_relationship.weight"],
        "the names of the pair's head in a file",
    )


# ---- questions ------------------------------------------------------------------------------

rows = Check(
    "07.pair_batch",
    "a batch of pairs",
    ("pair_batch",),
    kind="implement",
    difficulty=2,
    minutes=20,
    hides=("pretraining.pair_row", "pretraining.collate"),
    reminder="Write one row on paper: [CLS] A [SEP] B [SEP] [PAD] ..., and below it the segments.",
)

Pairs = list[list[list[int]]]


def _rows(
    pairs: Pairs,
    limit: int,
    special: tuple[int, int, int],
    *,
    cut: str = "longer",
    middle: int = 0,
    padding: int = 0,
    second: bool = True,
    every: bool = False,
    seen: bool = False,
) -> list[Tensor]:
    """The batch as it must be, or with a slip."""
    cls, sep, pad = special
    out = []
    for a, b in pairs:
        a, b = list(a), list(b)
        while len(a) + len(b) > limit - 3:
            if cut == "second" or (cut == "longer" and len(a) <= len(b)):
                b.pop()
            else:
                a.pop()
        row = [cls, *a, sep, *b] + [sep] * second
        out.append((row, [0] * (len(a) + 2 - middle) + [1] * (len(b) + second + middle)))
    width = limit if every else max(len(row) for row, _ in out)
    ids = torch.tensor([i + [pad] * (width - len(i)) for i, _ in out])
    segments = torch.tensor([s + [padding] * (width - len(s)) for _, s in out])
    mask = torch.tensor([[1] * len(i) + [int(seen)] * (width - len(i)) for i, _ in out])
    return [ids, segments, mask]


def _three(t: Toolbox, got: Any) -> list[Tensor]:
    t.that(
        isinstance(got, (tuple, list)) and len(got) == 3,
        "return three tensors, (ids, segments, mask)",
        got=type(got).__name__,
    )
    return list(got)


def _batch_mistakes(pairs: Pairs, limit: int, special: tuple[int, int, int]) -> dict[str, list]:
    return {
        "the first [SEP] belongs to A: its segment is 0": _rows(pairs, limit, special, middle=1),
        "padding has segment 0": _rows(pairs, limit, special, padding=1),
        "the last [SEP] is missing: each text is closed by one": (
            _rows(pairs, limit, special, second=False)
        ),
        "you padded to max_length: the longest row of the batch is enough": (
            _rows(pairs, limit, special, every=True)
        ),
        "your mask shows the padding": _rows(pairs, limit, special, seen=True),
    }


def _compare(t: Toolbox, got: list, want: list[Tensor], mistakes: dict[str, list]) -> None:
    for place, name in enumerate(("ids", "segments", "mask")):
        said = {m: w[place] for m, w in mistakes.items() if not _same(w[place], want[place])}
        t.equal(got[place], want[place], name, suspects=said)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


@rows.case("pairs that fit", points=2)
def _(t: Toolbox, pair_batch: Any) -> None:
    special = (101, 102, 0)
    pairs = [
        [t.ids(99, n, low=3).tolist() for n in sizes]
        for sizes in ((3, 4), (t.integer(1, 2), 1), (2, t.integer(1, 4)))
    ]
    got = _three(t, pair_batch(pairs, 16, *special))
    _compare(t, got, _rows(pairs, 16, special), _batch_mistakes(pairs, 16, special))


@rows.case("pairs that must be cut", points=2)
def _(t: Toolbox, pair_batch: Any) -> None:
    special = (7, 8, 9)
    pairs = [
        [t.ids(99, n, low=10).tolist() for n in sizes]
        for sizes in ((9, 6), (3, t.integer(12, 15)), (10, 10), (2, 2))
    ]
    got = _three(t, pair_batch(pairs, 14, *special))
    mistakes = _batch_mistakes(pairs, 14, special)
    mistakes["you always cut B: each token is taken from the side that is longer then"] = _rows(
        pairs, 14, special, cut="second"
    )
    mistakes["[CLS] and two [SEP] need room: the text has 3 places less than max_length"] = _rows(
        pairs, 17, special
    )
    _compare(t, got, _rows(pairs, 14, special), mistakes)


balance = Check(
    "07.share_random",
    "how many pairs are random, without drawing any",
    ("share_random",),
    kind="predict",
    difficulty=4,
    minutes=30,
    reminder="Two sentences, a row for two: one pair, and half of the time another.",
)


def _counts(sentences: int, per_row: int, back: str = "any") -> tuple[float, float]:
    """Expected pairs and random pairs, from the end of the document to its start."""
    pairs, randoms = [0.0], [0.0]
    for left in range(1, sentences + 1):
        k = min(left, per_row)
        if k == 1:
            pairs.append(1 + pairs[left - 1])
            randoms.append(1 + randoms[left - 1])
            continue
        again = {"any": range(left - k + 1, left), "none": [left - k], "half": [left - k // 2]}[
            back
        ]
        after = [sum(x[n] for n in again) / len(again) for x in (pairs, randoms)]
        pairs.append(1 + (pairs[left - k] + after[0]) / 2)
        randoms.append(0.5 + (randoms[left - k] + after[1]) / 2)
    return pairs[-1], randoms[-1]


@balance.case("one and two sentences, on paper", points=1)
def _(t: Toolbox, share_random: Any) -> None:
    t.close(
        share_random(1, 4),
        1.0,
        "share_random(1, 4)",
        suspects={"a single sentence cannot be cut: its B is always random": 0.5},
    )
    t.close(
        share_random(2, 2),
        2 / 3,
        "share_random(2, 2)",
        suspects={
            "after a random B the second sentence comes again, alone": 0.5,
            "take the mean number of random pairs over the mean number of pairs": 0.75,
        },
    )


@balance.case("any document, any row", points=3)
def _(t: Toolbox, share_random: Any) -> None:
    for sentences, per_row in ((t.integer(5, 9), 3), (t.integer(20, 40), 5), (6, 1), (4, 9)):
        pairs, randoms = _counts(sentences, per_row)
        lost = _counts(sentences, per_row, back="none")
        halves = _counts(sentences, per_row, back="half")
        t.close(
            share_random(sentences, per_row),
            randoms / pairs,
            f"share_random({sentences}, {per_row})",
            suspects={
                "it is not half: single sentences always get a random B": 0.5,
                "behind a random B the rest is put back: go on after A, not after the row": (
                    lost[1] / lost[0]
                ),
                "the cut is anywhere, not in the middle: take the mean over all places": (
                    halves[1] / halves[0]
                ),
            },
        )


three = Check(
    "07.three_way",
    "next, previous, or from elsewhere",
    ("three_way",),
    kind="implement",
    difficulty=3,
    minutes=20,
    reminder="Neighbors are counted through all documents; a document of n sentences has n - 1.",
)


def _three_way(
    documents: list[list[str]],
    labels: list[int],
    draws: list[int],
    *,
    own: bool = False,
    turned: bool = False,
    across: bool = False,
) -> list[list]:
    if across:
        documents = [[s for document in documents for s in document]]
    found: list[list] = []
    for index, document in enumerate(documents):
        others = [s for d, doc in enumerate(documents) if own or d != index for s in doc]
        for a, b in zip(document, document[1:], strict=False):
            place = len(found)
            if place == len(labels):
                break
            label, draw = labels[place], draws[place]
            label = {1: 2, 2: 1}.get(label, label) if turned else label
            pair = [a, b] if label == 0 else [b, a]
            if label == 2:
                pair = [a, others[draw % len(others)] if others else ""]
            found.append([*pair, labels[place]])
    return found


def _tale(t: Toolbox) -> tuple[list[list[str]], list[int], list[int]]:
    sizes = [t.integer(2, 4), 1, t.integer(3, 5), 2]
    documents = [[f"{'ABCD'[d]}{s}" for s in range(size)] for d, size in enumerate(sizes)]
    count = sum(size - 1 for size in sizes)
    labels = [t.integer(0, 2) for _ in range(count)]
    labels[:3] = [2, 1, 0]
    return documents, labels, [t.integer(0, 50) for _ in range(count)]


def _plain(got: Any) -> Any:
    """Tuples from one side are lists on the other."""
    return [list(x) if isinstance(x, (tuple, list)) else x for x in got] if got else got


@three.case("next and previous", points=1)
def _(t: Toolbox, three_way: Any) -> None:
    documents, labels, draws = _tale(t)
    labels = [label % 2 for label in labels]
    labels[:2] = [1, 0]
    want = _three_way(documents, labels, draws)
    t.equal(
        _plain(three_way(documents, labels, draws)),
        want,
        "three_way(...)",
        suspects={
            "the last sentence of a document and the first of the next are no neighbors": (
                _three_way(documents, labels, draws, across=True)
            ),
            "label 1 exchanges the two sentences": (
                [[*sorted(pair[:2]), pair[2]] for pair in want]
            ),
        },
    )


@three.case("from elsewhere, never from the own document", points=2)
def _(t: Toolbox, three_way: Any) -> None:
    documents, labels, draws = _tale(t)
    want = _three_way(documents, labels, draws)
    t.equal(
        _plain(three_way(documents, labels, draws)),
        want,
        "three_way(...)",
        suspects={
            "your list of candidates holds the own document's sentences, too": (
                _three_way(documents, labels, draws, own=True)
            ),
            "labels 1 and 2 are exchanged: 1 is previous, 2 is elsewhere": (
                _three_way(documents, labels, draws, turned=True)
            ),
        },
    )


hard = Check(
    "07.hard_negatives",
    "the most tempting wrong sentence",
    ("hard_negatives",),
    kind="implement",
    difficulty=3,
    minutes=20,
    reminder="Set to minus infinity what must not be chosen, then take argmax.",
)


def _hardest(vectors: Tensor, home: Tensor, rule: str = "other") -> Tensor:
    """One sentence after the other."""
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    if rule == "dot":
        unit = vectors
    best = torch.full((len(home),), -1)
    for i in range(len(home)):
        scores = {}
        for j in range(len(home)):
            if home[i] == home[j] and (rule != "self" or i == j):
                continue
            scores[j] = float(unit[i] @ unit[j])
        if scores:
            pick = min if rule == "easy" else max
            best[i] = pick(scores, key=lambda j: scores[j])
    return best


def _hard_mistakes(vectors: Tensor, home: Tensor) -> dict[str, Tensor]:
    return {
        "a sentence of the same document was chosen: it may be the true continuation": (
            _hardest(vectors, home, "self")
        ),
        "long vectors win in yours: compare directions, by the cosine": (
            _hardest(vectors, home, "dot")
        ),
        "these are the least similar sentences: the most similar ones are hard": (
            _hardest(vectors, home, "easy")
        ),
        "every sentence chose itself": torch.arange(len(home)),
    }


@hard.case("nearest by direction, in another document", points=2)
def _(t: Toolbox, hard_negatives: Any) -> None:
    topic = t.randn(3, 8)
    home = torch.arange(5).repeat_interleave(4)
    vectors = topic[torch.tensor([0, 1, 0, 2, 1])].repeat_interleave(4, 0) + t.randn(20, 8) / 3
    vectors = vectors * (0.2 + 3 * t.randn(20, 1).abs())
    want = _hardest(vectors, home)
    t.equal(
        hard_negatives(vectors, home),
        want,
        "the chosen places",
        suspects=_hard_mistakes(vectors, home),
    )


@hard.case("documents in any order, and -1 where there is no other", points=1)
def _(t: Toolbox, hard_negatives: Any) -> None:
    home = t.ids(4, 15) * 7
    home[:2] = torch.tensor([0, 7])
    vectors = t.randn(15, 6)
    t.equal(
        hard_negatives(vectors, home),
        _hardest(vectors, home),
        "the chosen places",
        suspects=_hard_mistakes(vectors, home),
    )
    t.equal(
        hard_negatives(vectors[:3], torch.full((3,), 5)),
        torch.full((3,), -1),
        "the places when all sentences are of one document",
    )


gain = Check(
    "07.against_majority",
    "better than always saying the same?",
    ("against_majority",),
    kind="measure",
    difficulty=3,
    minutes=25,
    reminder="Each example gives one difference: -1, 0 or 1. The rest is the mean of n numbers.",
)


def _gain(predicted: Tensor, labels: Tensor) -> list[float]:
    n = len(labels)
    right = [float(p == x) for p, x in zip(predicted.tolist(), labels.tolist(), strict=True)]
    ones = int(labels.sum())
    common = 1 if ones > n - ones else 0
    base = [float(x == common) for x in labels.tolist()]
    steps = [a - b for a, b in zip(right, base, strict=True)]
    mean = sum(steps) / n
    error = math.sqrt(sum((s - mean) ** 2 for s in steps) / n / n)
    return [sum(right) / n, sum(base) / n, mean - 1.96 * error, mean + 1.96 * error]


def _four(t: Toolbox, got: Any) -> Tensor:
    t.that(
        isinstance(got, (tuple, list)) and len(got) == 4,
        "return four numbers, (accuracy, majority, low, high)",
        got=repr(got)[:60],
    )
    return torch.tensor([float(x) for x in got])


def _predictions(t: Toolbox, n: int) -> tuple[Tensor, Tensor]:
    labels = (t.randn(n) < 0.6).long()
    wrong = t.randn(n) > 0.8
    return torch.where(wrong, 1 - labels, labels), labels


@gain.case("accuracy and majority", points=1)
def _(t: Toolbox, against_majority: Any) -> None:
    for labels in (torch.tensor([1, 1, 1, 0, 1]), torch.tensor([0, 0, 0, 1, 0])):
        predicted = torch.tensor([1, 0, 1, 0, 1])
        got = _four(t, against_majority(predicted, labels))[:2]
        want = torch.tensor(_gain(predicted, labels)[:2])
        ones = labels.float().mean()
        t.close(
            got,
            want,
            "accuracy and majority",
            suspects={
                "a guess is not 50 percent: count the more frequent label": (
                    torch.stack([want[0], torch.tensor(0.5)])
                ),
                "the majority is the share of the more frequent label, whichever it is": (
                    torch.stack([want[0], ones])
                ),
                "that is the majority among the predictions: it must be that of the labels": (
                    torch.stack([want[0], torch.tensor(0.6)])
                ),
            },
        )


def _interval_suspects(predicted: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The intervals that usual slips lead to."""
    accuracy, majority, *want = _gain(predicted, labels)
    n, mean = len(labels), accuracy - majority
    alone = 1.96 * math.sqrt(accuracy * (1 - accuracy) / n)
    added = 1.96 * math.sqrt((accuracy * (1 - accuracy) + majority * (1 - majority)) / n)
    half = (want[1] - want[0]) / 2
    spread, sample = half * math.sqrt(n), half * math.sqrt(n / (n - 1))
    return {
        "this is the interval of the accuracy: the gain over the majority is asked for": (
            torch.tensor([accuracy - alone, accuracy + alone])
        ),
        "the majority is measured on the same examples: its error belongs to the interval": (
            torch.tensor([mean - alone, mean + alone])
        ),
        "you added two errors as if the examples were different ones: take the difference "
        "example by example": torch.tensor([mean - added, mean + added]),
        "this is the spread of single examples: the mean of n is more certain, by root n": (
            torch.tensor([mean - spread, mean + spread])
        ),
        "the standard deviation divides by n here, not by n - 1": (
            torch.tensor([mean - sample, mean + sample])
        ),
    }


def _same_interval(t: Toolbox, answer: Any, predicted: Tensor, labels: Tensor) -> None:
    t.close(
        _four(t, answer(predicted, labels))[2:],
        torch.tensor(_gain(predicted, labels)[2:]),
        "low and high",
        atol=1e-4,
        suspects=_interval_suspects(predicted, labels),
    )


@gain.case("the interval of the gain", points=2)
def _(t: Toolbox, against_majority: Any) -> None:
    _same_interval(t, against_majority, *_predictions(t, t.integer(150, 400)))


@gain.case("few examples, and labels that are even or nearly so", points=1)
def _(t: Toolbox, against_majority: Any) -> None:
    for labels in ([0, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 0, 1, 0, 1, 0]):  # 3 of 6, 4 of 10
        predicted = torch.tensor([1, 1, 0, 1, 1, 0, 1, 1, 1, 0][: len(labels)])
        _same_interval(t, against_majority, predicted, torch.tensor(labels))


hunt = Check(
    "07.sampler_bug",
    "bug hunt: a sampler that nobody doubted",
    ("sample_pairs",),
    kind="bug",
    difficulty=3,
    minutes=20,
    reminder="Three documents of two sentences, by hand: which draw gives which document?",
)


def _sampled(
    documents: list[list[str]],
    coins: list[bool],
    draws: list[int],
    *,
    turned: bool = False,
    own: bool = False,
    step: bool = False,
) -> list[list]:
    found: list[list] = []
    for index, document in enumerate(documents):
        for a, b in zip(document, document[1:], strict=False):
            coin, draw = coins[len(found)], draws[len(found)]
            other = draw % (len(documents) - 1)
            if step:
                other = draw % len(documents)
                other = (other + (other == index)) % len(documents)
            elif other > index or (other == index and not own):
                other += 1
            random_b = documents[other][draw % len(documents[other])]
            label = int(coin) if not turned else int(not coin)
            found.append([a, random_b if coin else b, label])
    return found


def _drawn(t: Toolbox) -> tuple[list[list[str]], list[bool], list[int]]:
    documents = [[f"{'ABCDE'[d]}{s}" for s in range(t.integer(3, 5))] for d in range(5)]
    count = sum(len(document) - 1 for document in documents)
    coins = [bool(t.integer(0, 1)) for _ in range(count)]
    coins[:2] = [True, False]
    return documents, coins, [t.integer(0, 40) for _ in range(count)]


@hunt.case("the labels", points=2)
def _(t: Toolbox, sample_pairs: Any) -> None:
    documents, coins, draws = _drawn(t)
    got = [pair[2] for pair in sample_pairs(documents, coins, draws)]
    want = [int(coin) for coin in coins]
    t.equal(
        got,
        want,
        "the labels",
        suspects={"0 must mean that B follows A, 1 that B is random": [1 - x for x in want]},
    )


@hunt.case("a random B is from another document", points=2)
def _(t: Toolbox, sample_pairs: Any) -> None:
    documents, _, _ = _drawn(t)
    count = sum(len(document) - 1 for document in documents)
    coins, draws = [True] * count, [n % 4 + 4 * t.integer(0, 9) for n in range(count)]
    draws[: len(documents[0]) - 1] = [0] * (len(documents[0]) - 1)
    got = [pair[1] for pair in sample_pairs(documents, coins, draws)]
    want = [pair[1] for pair in _sampled(documents, coins, draws)]
    wrong = [pair[1] for pair in _sampled(documents, coins, draws, own=True)]
    t.that(
        not any(b[0] == a[0] for a, b in zip(_firsts(documents), got, strict=False)),
        "a random B still comes from A's own document: which number does the own one have among "
        "the others?",
        expected=str(want)[:60],
        got=str(got)[:60],
    )
    t.equal(
        got,
        want,
        "the second sentences",
        suspects={
            "the own document is still among the others": wrong,
            "a step aside from the own document gives its neighbor two chances: count the others "
            "alone": [pair[1] for pair in _sampled(documents, coins, draws, step=True)],
        },
    )


def _firsts(documents: list[list[str]]) -> list[str]:
    return [sentence for document in documents for sentence in document[:-1]]


find_shortcut = Check(
    "07.find_shortcut",
    "is there a shortcut, and which",
    ("find_shortcut",),
    kind="choose",
    difficulty=4,
    minutes=30,
    reminder="A rule is made on some examples and measured on others, and it must beat the answer "
    "that needs no rule.",
)


def _shortcut(
    features: dict[str, Tensor], labels: Tensor, fit: int, *, slip: str = ""
) -> tuple[str, dict[str, float]]:
    """The feature whose rule is best on held-out examples, if it beats the majority."""
    seen = labels[:fit]
    test = slice(0, fit) if slip == "same" else slice(fit, None)
    asked = labels[test]
    common = int(2 * seen.sum() > len(seen))
    if slip == "majority":
        common = int(2 * asked.sum() > len(asked))
    majority = (asked == common).double().mean().item()
    figures = {"majority": majority}
    for name, values in features.items():
        low, high = (values[:fit][seen == label].mean() for label in (0, 1))
        middle = values[:fit].mean() if slip == "mean" else (low + high) / 2
        says = values[test] > middle
        if low > high and slip != "upwards":
            says = ~says
        figures[name] = (says == asked.bool()).double().mean().item()
    best = max(features, key=lambda name: figures[name])
    error = (majority * (1 - majority) / len(asked)) ** 0.5
    margin = 0.0 if slip == "margin" else 2 * error
    if slip == "half":
        return (best if figures[best] > 0.5 + margin else "none"), figures
    return (best if slip == "best" or figures[best] > majority + margin else "none"), figures


def _shortcut_suspects(*given: Any) -> dict[str, Any]:
    return {
        message: _shortcut(*given, slip=slip)
        for slip, message in {
            "same": "you measured on the examples on which the rules were made",
            "majority": "the majority is a rule too: it is made on the first examples",
            "mean": "the threshold lies between the two classes' means, not at the mean of all",
            "upwards": "label 1 may lie on the lower side: ask where its mean is",
            "margin": "better by a hair is chance: two standard errors are asked for",
            "half": "one half is no yardstick where the labels are not even: take the majority",
            "best": "the best of several may still be no better than the majority: say none",
        }.items()
    }


def _pair_features(
    t: Toolbox, n: int, share: float, strength: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Features of pairs, of which one may give the label away."""
    labels = (torch.rand(n, generator=t.generator) < share).long()
    sign = t.choice([-1, 1])
    features = {
        "length": 3 * t.randn(n),
        "overlap": sign * strength * labels + t.randn(n),
        "order": t.randn(n) + 5,
    }
    names = list(features)
    t.random.shuffle(names)
    return {name: features[name] for name in names}, labels


def _same_shortcut(t: Toolbox, answer: Any, given: tuple) -> None:
    t.decision(answer(*given), _shortcut(*given), suspects=_shortcut_suspects(*given))


@find_shortcut.case("ten examples, by hand", points=1)
def _(t: Toolbox, find_shortcut: Any) -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 0, 0, 1, 1, 1])
    length = torch.tensor([9.0, 8, 7, 2, 1, 9, 8, 2, 1, 3])
    overlap = torch.tensor([1.0, 2, 3, 3, 5, 3, 1, 4, 5, 2])  # the threshold, 3, occurs
    _same_shortcut(t, find_shortcut, ({"overlap": overlap, "length": length}, labels, 5))


@find_shortcut.case("above and below the majority, and just so", points=1)
def _(t: Toolbox, find_shortcut: Any) -> None:
    # So many pairs have label 0, so many are measured, and the better rule is right in so many.
    # Of 16 pairs the majority has 1/2, with the error 1/8: 12 lie on the bar, and not above it.
    hundred = [(60, 100, right) for right in (68, 69, 70, 71, 72)]
    first, last = [(60, 100, 55), (80, 100, 70)], [(8, 16, 12), (8, 16, 13)]
    for zeros, pairs, right in (*first, *hundred, *last):
        labels = torch.tensor([0, 1, 0, 1] + [0] * zeros + [1] * (pairs - zeros))
        features = {}
        for name, good in (("length", right - 4), ("order", right)):
            told = labels.clone()
            wrong = 4 + torch.randperm(pairs, generator=t.generator)[: pairs - good]
            told[wrong] = 1 - told[wrong]
            features[name] = 3.0 - told
        _same_shortcut(t, find_shortcut, (features, labels, 4))


@find_shortcut.case("a strong one, a weak one, and none", points=3)
def _(t: Toolbox, find_shortcut: Any) -> None:
    for share, strength in ((0.5, 3.0), (0.35, 2.0), (0.7, 0.0), (0.4, 0.15), (0.6, 1.2)):
        n = t.integer(80, 240)
        given = (*_pair_features(t, n, share, strength), n // 2 + t.integer(0, 9))
        _same_shortcut(t, find_shortcut, given)

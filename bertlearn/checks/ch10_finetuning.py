"""What heads, rows, windows and the loop of fine-tuning must do (chapter 10), and the questions of
its exercises."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.checks.core import Check, Toolbox, refusal
from bertlearn.config import BertConfig

IGNORED = -100

# Pieces to work with: "unhappy" is two of them, "playgrounds" three.
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "##s", "un", "##happy", "play"]
PIECES += ["##ground", "the", "in", "rome", "where", "is", "it", "old", "##er", ".", "?"]


class _Pieces:
    """A tokenizer of ``PIECES``: words, each as the longest pieces from its beginning on."""

    def token_to_id(self, token: str) -> int:
        return PIECES.index(token)

    def encode(self, text: str, pair: str | None = None) -> SimpleNamespace:
        """``[CLS] text [SEP]``, or ``[CLS] text [SEP] pair [SEP]``, with places in the text."""
        tokens, places, segments = ["[CLS]"], [(0, 0)], [0]
        for number, part in enumerate([text] if pair is None else [text, pair]):
            for word in re.finditer(r"\w+|[^\w\s]", part):
                for piece, start, end in _cut(word.group().lower()):
                    tokens.append(piece)
                    places.append((word.start() + start, word.start() + end))
            tokens.append("[SEP]")
            places.append((0, 0))
            segments += [number] * (len(tokens) - len(segments))
        return SimpleNamespace(ids=_ids(*tokens), tokens=tokens, offsets=places, type_ids=segments)


def _cut(word: str) -> list[tuple[str, int, int]]:
    """A word's pieces with where they begin and end in it; [UNK] if it cannot be cut."""
    found: list[tuple[str, int, int]] = []
    start = 0
    while start < len(word):
        mark = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if mark + word[start:end] in PIECES), None)
        if end is None:
            return [("[UNK]", 0, len(word))]
        found.append((mark + word[start:end], start, end))
        start = end
    return found


@dataclass(frozen=True)
class _Row:
    """A row as chapter 08 makes it."""

    ids: list[int]
    type_ids: list[int]
    label: int | None = None


def _ids(*pieces: str) -> list[int]:
    return [PIECES.index(piece) for piece in pieces]


def _sizes(**changes: Any) -> BertConfig:
    fields = {
        "vocab_size": len(PIECES),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return BertConfig(**{**fields, **changes})


def _batch(t: Toolbox, rows: int = 3, seq: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, segments and a mask with padding in the last row."""
    ids = t.ids(len(PIECES), rows, seq, low=5)
    segments = t.ids(2, rows, seq)
    mask = torch.ones(rows, seq, dtype=torch.bool)
    mask[-1, -3:] = False
    return ids, segments, mask


# ---- heads ------------------------------------------------------------------------------------

classification_loss = Check(
    "10.classification_loss", "what a classifier is trained on", ("classification_loss",)
)


def _loss_suspects(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {
        "cross_entropy takes logits: a softmax before it is one too many": F.cross_entropy(
            logits.softmax(-1), labels
        ),
        "the loss is a mean over the texts, not their sum": F.cross_entropy(
            logits, labels, reduction="sum"
        ),
    }


@classification_loss.case("two texts by hand, then any, as torch's cross entropy")
def _(t: Toolbox, loss: Any) -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    by_hand = (math.log(1 + math.exp(-2.0)) + math.log(2.0)) / 2
    t.close(
        loss(logits, labels),
        by_hand,
        "the loss of logits 2, 0 and 0, 0",
        suspects=_loss_suspects(logits, labels),
    )
    logits, labels = t.randn(6, 4), t.ids(4, 6)
    t.close(
        loss(logits, labels),
        F.cross_entropy(logits, labels),
        "the loss of six texts",
        suspects=_loss_suspects(logits, labels),
    )


@classification_loss.case("of tokens only those with a label count")
def _(t: Toolbox, loss: Any) -> None:
    logits, labels = t.randn(2, 5, 3), t.ids(3, 2, 5)
    labels[0, 3:] = IGNORED
    labels[:, 0] = IGNORED
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    real = labels != IGNORED
    t.close(
        loss(logits, labels),
        F.cross_entropy(logits[real], labels[real]),
        "the loss of tokens",
        suspects={
            "divide by the tokens that have a label, not by all of them": each.mean(),
            "each row's mean counts the same here: average over all tokens at once": (
                each.view(2, 5).sum(1) / real.sum(1)
            ).mean(),
        },
    )


@classification_loss.case("weights as in torch; one logit and floating labels as in HF")
def _(t: Toolbox, loss: Any) -> None:
    logits, labels = t.randn(8, 3), torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])
    weights = torch.tensor([0.5, 1.5, 4.0])
    each = F.cross_entropy(logits, labels, reduction="none") * weights[labels]
    t.close(
        loss(logits, labels, weights),
        F.cross_entropy(logits, labels, weights),
        "the weighted loss",
        suspects={
            "divide the weighted sum by the sum of the weights, not by the number of texts": (
                each.mean()
            ),
            "the weights were not used": F.cross_entropy(logits, labels),
        },
    )
    one, numbers = t.randn(4, 1), t.randn(4)
    t.close(
        loss(one, numbers),
        ((one[:, 0] - numbers) ** 2).mean(),
        "the loss of one logit",
        suspects={
            "the logits (batch, 1) spread over the labels (batch,): take the last axis away": (
                (one - numbers) ** 2
            ).mean()
        },
    )
    yes = (t.randn(4, 3) > 0).float()
    several = t.randn(4, 3)
    t.close(
        loss(several, yes),
        F.binary_cross_entropy_with_logits(several, yes),
        "the loss of floating point labels, each yes or no",
    )


sequence = Check(
    "10.BertForSequenceClassification",
    "a class for a text",
    ("BertForSequenceClassification",),
)


def _head_names(model: nn.Module) -> list[str]:
    return sorted(name for name in model.state_dict() if not name.startswith("bert."))


@sequence.case("one linear layer on the pooler's output; names as in transformers")
def _(t: Toolbox, kind: Any) -> None:
    torch.manual_seed(t.seed)
    model = kind(_sizes(), num_labels=3).eval()
    t.equal(_head_names(model), ["classifier.bias", "classifier.weight"], "the head's parameters")
    t.that(
        "bert.pooler.dense.weight" in model.state_dict(),
        "the class is read from the pooler's output: BertModel needs its pooler",
    )
    batch = _batch(t)
    encoded = model.bert(*batch)
    head = model.classifier
    with torch.no_grad():
        head.bias.normal_(generator=t.generator)
    mean = (encoded.last_hidden_state * batch[2][:, :, None]).sum(1) / batch[2].sum(1)[:, None]
    t.close(
        model(*batch).logits,
        head(encoded.pooler_output),
        "the logits",
        suspects={
            "this reads [CLS] before the pooler": lambda: head(encoded.last_hidden_state[:, 0]),
            "this reads the mean of the tokens: BERT's classifier reads the pooled [CLS]": (
                lambda: head(mean)
            ),
            "these are shares: return logits, without a softmax": (
                lambda: head(encoded.pooler_output).softmax(-1)
            ),
        },
    )
    t.that(model(*batch).loss is None, "without labels there is no loss: None")
    t.close(
        model(*batch, labels=torch.tensor([2, 0, 1])).loss,
        F.cross_entropy(head(encoded.pooler_output), torch.tensor([2, 0, 1])),
        "the loss",
    )


def _judge_dropout(t: Toolbox, kind: Any) -> None:
    torch.manual_seed(t.seed)
    model = kind(_sizes(), num_labels=3, classifier_dropout=0.5)
    batch = _batch(t)
    model.eval()
    t.that(
        torch.equal(model(*batch).logits, model(*batch).logits),
        "two readings in evaluation mode differ",
    )
    model.train()
    t.that(
        not torch.equal(model(*batch).logits, model(*batch).logits),
        "in training mode nothing is dropped before the classifier: it needs its own dropout",
    )
    t.close(
        float(kind(_sizes(hidden_dropout_prob=0.25)).dropout.p),
        0.25,
        "the dropout where classifier_dropout is None",
    )


@sequence.case("dropout before the layer, in training only")
def _(t: Toolbox, kind: Any) -> None:
    _judge_dropout(t, kind)


@sequence.case("the labels' names say how many there are")
def _(t: Toolbox, kind: Any) -> None:
    model = kind(_sizes(), id2label={0: "bad", 1: "so-so", 2: "good"})
    t.equal(model.classifier.out_features, 3, "the number of logits for three names")
    t.equal(model.id2label, {0: "bad", 1: "so-so", 2: "good"}, "id2label")
    t.equal(kind(_sizes()).id2label, {0: "LABEL_0", 1: "LABEL_1"}, "id2label without names")


tokens = Check(
    "10.BertForTokenClassification", "a label for each token", ("BertForTokenClassification",)
)


@tokens.case("one linear layer on each token's vector; no pooler")
def _(t: Toolbox, kind: Any) -> None:
    torch.manual_seed(t.seed)
    model = kind(_sizes(), num_labels=5).eval()
    t.equal(_head_names(model), ["classifier.bias", "classifier.weight"], "the head's parameters")
    t.that(
        not any("pooler" in name for name in model.state_dict()),
        "tokens do not need the pooler: it would stay without a gradient",
    )
    batch = _batch(t)
    hidden = model.bert(*batch).last_hidden_state
    t.close(
        model(*batch).logits,
        model.classifier(hidden),
        "the logits",
        suspects={
            "every token has a label of its own: this gives all of them [CLS]'s": (
                lambda: model.classifier(hidden[:, :1]).expand(-1, hidden.shape[1], -1)
            ),
            "these are shares: return logits, without a softmax": (
                lambda: model.classifier(hidden).softmax(-1)
            ),
        },
    )
    labels = t.ids(5, 3, 7)
    labels[:, 0] = IGNORED
    labels[~batch[2]] = IGNORED
    real = labels != IGNORED
    logits = model.classifier(hidden)
    t.close(
        model(*batch, labels=labels).loss,
        F.cross_entropy(logits[real], labels[real]),
        "the loss over the tokens that have a label",
    )


@tokens.case("dropout before the layer, in training only")
def _(t: Toolbox, kind: Any) -> None:
    _judge_dropout(t, kind)


span_loss = Check("10.span_loss", "where an answer begins and ends", ("span_loss",))


@span_loss.case("the mean of two cross entropies, over the tokens of a row")
def _(t: Toolbox, loss: Any) -> None:
    starts, ends = t.randn(4, 9), t.randn(4, 9)
    first, last = torch.tensor([2, 0, 5, 8]), torch.tensor([3, 0, 7, 8])
    begin, end = F.cross_entropy(starts, first), F.cross_entropy(ends, last)
    t.close(
        loss(starts, ends, first, last),
        (begin + end) / 2,
        "the loss",
        suspects={
            "the two losses are averaged, not added": begin + end,
            "the ends are asked for at the starts' positions": (
                begin + F.cross_entropy(ends, first)
            )
            / 2,
            "cross_entropy takes logits: a softmax before it is one too many": (
                F.cross_entropy(starts.softmax(-1), first) + F.cross_entropy(ends.softmax(-1), last)
            )
            / 2,
        },
    )


@span_loss.case("a position outside of the row does not count")
def _(t: Toolbox, loss: Any) -> None:
    starts, ends = t.randn(3, 6), t.randn(3, 6)
    first, last = torch.tensor([2, 11, 0]), torch.tensor([3, 12, 0])
    inside = torch.tensor([0, 2])
    t.close(
        loss(starts, ends, first, last),
        (
            F.cross_entropy(starts[inside], first[inside])
            + F.cross_entropy(ends[inside], last[inside])
        )
        / 2,
        "the loss with one answer beyond the row",
        suspects={
            "an answer beyond the row is not one at its last token: leave it out": (
                F.cross_entropy(starts, first.clamp(max=5))
                + F.cross_entropy(ends, last.clamp(max=5))
            )
            / 2
        },
    )


question = Check(
    "10.BertForQuestionAnswering", "two scores for each token", ("BertForQuestionAnswering",)
)


@question.case("one layer with two outputs, start first; names as in transformers")
def _(t: Toolbox, kind: Any) -> None:
    torch.manual_seed(t.seed)
    model = kind(_sizes()).eval()
    t.equal(_head_names(model), ["qa_outputs.bias", "qa_outputs.weight"], "the head's parameters")
    t.that(
        not any("pooler" in name for name in model.state_dict()),
        "an answer is found at its tokens: there is no pooler",
    )
    batch = _batch(t)
    both = model.qa_outputs(model.bert(*batch).last_hidden_state)
    got = model(*batch)
    for name, place in (("start_logits", 0), ("end_logits", 1)):
        t.close(
            getattr(got, name),
            both[:, :, place],
            name,
            suspects={"output 0 is the start, output 1 the end": both[:, :, 1 - place]},
        )
    t.close(got.logits, both, "logits, both of them (batch, seq, 2)")
    first, last = torch.tensor([2, 0, 1]), torch.tensor([4, 0, 3])
    t.close(
        model(*batch, start_positions=first, end_positions=last).loss,
        (F.cross_entropy(both[:, :, 0], first) + F.cross_entropy(both[:, :, 1], last)) / 2,
        "the loss",
    )
    t.that(got.loss is None, "without positions there is no loss: None")


# ---- texts ------------------------------------------------------------------------------------

text_rows = Check("10.text_rows", "texts and pairs as rows", ("text_rows",))


def _quiet(call: Callable, *args: Any, **kwargs: Any) -> tuple[Any, list[str]]:
    """What a call returns, and the warnings it gave."""
    import warnings

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = call(*args, **kwargs)
    return found, [str(warning.message) for warning in told]


@text_rows.case("a text and a pair by hand, with their labels")
def _(t: Toolbox, text_rows: Any) -> None:
    rows, told = _quiet(
        text_rows, _Pieces(), ["a film", ("unhappy", "the film")], [1, 0], max_length=16
    )
    t.equal(
        [row.ids for row in rows],
        [_ids("[CLS]", "a", "film", "[SEP]"),
         _ids("[CLS]", "un", "##happy", "[SEP]", "the", "film", "[SEP]")],
        "the ids",
    )  # fmt: skip
    t.equal(
        [row.type_ids for row in rows],
        [[0] * 4, [0, 0, 0, 0, 1, 1, 1]],
        "the segments",
        suspects={"the second text has segment 1": [[0] * 4, [0] * 7]},
    )
    t.equal([row.label for row in rows], [1, 0], "the labels")
    t.that(not told, "nothing was cut, so there is nothing to warn of")


@text_rows.case("a long text is cut, and that is said; [SEP] stays")
def _(t: Toolbox, text_rows: Any) -> None:
    texts = ["a film film film film film", "a film", ("the film film film film", "a film")]
    rows, told = _quiet(text_rows, _Pieces(), texts, max_length=6)
    t.that(all(len(row.ids) <= 6 for row in rows), "a row is longer than max_length allows: cut it")
    t.equal(
        [row.ids for row in rows],
        [_ids("[CLS]", "a", "film", "film", "film", "[SEP]"),
         _ids("[CLS]", "a", "film", "[SEP]"),
         _ids("[CLS]", "the", "[SEP]", "a", "film", "[SEP]")
         if len(rows[2].ids) == 6 and rows[2].ids[2] == 3
         else _ids("[CLS]", "the", "film", "[SEP]", "a", "[SEP]")],
        "the ids, cut to six tokens",
        suspects={
            "the cut took the [SEP] away": [
                _ids("[CLS]", "a", "film", "film", "film", "film"),
                _ids("[CLS]", "a", "film", "[SEP]"),
                _ids("[CLS]", "the", "film", "film", "film", "film"),
            ],
        },
    )  # fmt: skip
    t.that(
        any("2 of 3" in line for line in told),
        "two of three texts lost their end and nobody was told: warn with how many",
    )


@text_rows.case("an empty text and a missing label are refused")
def _(t: Toolbox, text_rows: Any) -> None:
    for texts in (["a film", " "], [("a film", "")]):
        t.that(
            refusal(ValueError, text_rows, _Pieces(), texts) is not None,
            "a text without a token must be refused with a ValueError: [CLS] [SEP] says nothing",
        )
    t.that(
        refusal(ValueError, text_rows, _Pieces(), ["a", "film"], [1]) is not None,
        "two texts with one label must be refused with a ValueError",
    )


# ---- words ------------------------------------------------------------------------------------

align = Check("10.align_labels", "a word's label on its first piece", ("align_labels",))


def _aligned(labels: Sequence[int], word_ids: Sequence[int | None], kind: str = "") -> list[int]:
    found, seen = [], set()
    for word in word_ids:
        if word is None:
            found.append(0 if kind == "specials" else IGNORED)
        elif word in seen and kind != "all":
            found.append(0 if kind == "later O" else IGNORED)
        else:
            found.append(labels[word])
            seen.add(word)
    if kind == "last":
        found = _aligned(labels, list(reversed(word_ids)))[::-1]
    if kind == "shift":
        found = [IGNORED if word is None else labels[word - 1] for word in word_ids]
    return found


@align.case("by hand, and for any words")
def _(t: Toolbox, align: Any) -> None:
    cases: list[tuple[list[int], list[int | None]]] = [
        ([4, 0, 7], [None, 0, 0, 0, 1, 2, 2, None]),
    ]
    for _ in range(4):
        words = t.integer(2, 6)
        places = [i for i in range(words) for _ in range(t.integer(1, 3))]
        cases.append(([t.integer(1, 9) for _ in range(words)], [None, *places, None]))
    for labels, word_ids in cases:
        got = align(labels, word_ids)
        t.that(
            len(list(got)) == len(word_ids), "every token gets an entry, [CLS] and [SEP] as well"
        )
        t.equal(
            list(got),
            _aligned(labels, word_ids),
            f"the labels of tokens of the words {word_ids}",
            suspects={
                "later pieces of a word must not count: a long word would count twice": (
                    _aligned(labels, word_ids, "all")
                ),
                "later pieces are not outside of a name, they are not asked for: -100, not 0": (
                    _aligned(labels, word_ids, "later O")
                ),
                "[CLS] and [SEP] are no words: -100, not 0": _aligned(labels, word_ids, "specials"),
                "the label goes to the first piece, not to the last": _aligned(
                    labels, word_ids, "last"
                ),
            },
        )


@align.case("a sentence that goes on: the first word of the row need not be word 0")
def _(t: Toolbox, align: Any) -> None:
    t.equal(
        list(align([1, 2, 3, 4], [None, 2, 2, 3, None])),
        [IGNORED, 3, IGNORED, 4, IGNORED],
        "the labels of a row that begins with word 2",
    )


word_rows = Check("10.word_rows", "sentences in words as rows", ("word_rows",))


@word_rows.case("pieces, words and labels by hand")
def _(t: Toolbox, word_rows: Any) -> None:
    rows = word_rows(_Pieces(), [["unhappy", "film"], ["playgrounds"]], [[3, 0], [2]], 16)
    t.equal(
        [row.ids for row in rows],
        [_ids("[CLS]", "un", "##happy", "film", "[SEP]"),
         _ids("[CLS]", "play", "##ground", "##s", "[SEP]")],
        "the ids",
    )  # fmt: skip
    t.equal(
        [list(row.word_ids) for row in rows],
        [[None, 0, 0, 1, None], [None, 0, 0, 0, None]],
        "word_ids",
    )
    t.equal(
        [list(row.labels) for row in rows],
        [
            [IGNORED, 3, IGNORED, 0, IGNORED],
            [IGNORED, 2, IGNORED, IGNORED, IGNORED],
        ],
        "the labels of the tokens",
        suspects={
            "later pieces of a word must not count: a long word would count twice": [
                [IGNORED, 3, 3, 0, IGNORED],
                [IGNORED, 2, 2, 2, IGNORED],
            ],
        },
    )
    t.equal([row.source for row in rows], [0, 1], "the number of the sentence")


@word_rows.case("a long sentence goes on in the next row, no word is lost or cut")
def _(t: Toolbox, word_rows: Any) -> None:
    words = [t.choice(["a", "unhappy", "playgrounds", "film"]) for _ in range(40)]
    labels = [t.integer(0, 5) for _ in words]
    rows = word_rows(_Pieces(), [words], [labels], 9)
    t.that(all(len(row.ids) <= 9 for row in rows), "a row is longer than max_length")
    firsts: list[tuple[int, int]] = []
    for row in rows:
        inside = list(row.word_ids)[1:-1]
        for before, word, label in zip([None, *inside], inside, list(row.labels)[1:-1]):  # noqa: B905
            if word != before:
                firsts.append((word, label))
    seen = [word for word, _ in firsts]
    t.that(
        set(seen) == set(range(40)),
        f"{40 - len(set(seen))} of 40 words are in no row: what does not fit goes into the next",
    )
    t.that(seen == sorted(set(seen)), "a word was cut in two by the end of a row")
    t.equal([label for _, label in firsts], labels, "the labels of all words in order")


@word_rows.case("labels of another number, and a word longer than a row, are refused")
def _(t: Toolbox, word_rows: Any) -> None:
    t.that(
        refusal(ValueError, word_rows, _Pieces(), [["a", "film"]], [[1]], 16) is not None,
        "two words with one label must be refused with a ValueError",
    )
    t.that(
        refusal(ValueError, word_rows, _Pieces(), [["playgrounds"]], [[1]], 4) is not None,
        "a word of three tokens in a row with room for two must be refused with a ValueError",
    )


read_labels = Check(
    "10.read_labels", "a label for each word, from its first piece", ("read_labels",)
)


@read_labels.case("first pieces over several rows; a dropped word gets 0")
def _(t: Toolbox, read_labels: Any) -> None:
    rows = [
        SimpleNamespace(ids=[2, 8, 9, 6, 3], word_ids=[None, 0, 0, 1, None], source=0),
        SimpleNamespace(ids=[2, 10, 11, 3], word_ids=[None, 3, 3, None], source=0),
        SimpleNamespace(ids=[2, 5, 3], word_ids=[None, 0, None], source=1),
    ]
    best = [[4, 1, 2, 3, 4], [0, 2, 1, 0], [3, 4, 1]]
    scores = [F.one_hot(torch.tensor(row), 5).float() * 3 + t.randn(len(row), 5) for row in best]
    scores = [
        s - 9 * (1 - F.one_hot(torch.tensor(r), 5)) for s, r in zip(scores, best, strict=True)
    ]
    t.equal(
        read_labels(rows, scores, [4, 1]),
        [[1, 3, 0, 2], [4]],
        "the labels of the words (the third one of the first sentence has no token)",
        suspects={
            "read the first piece of a word, not its last": [[2, 3, 0, 1], [4]],
            "the rows of a sentence go on with its words: word_ids says where": [[1, 3, 2], [4]],
        },
    )


# ---- questions --------------------------------------------------------------------------------

token_span = Check("10.token_span", "characters to tokens", ("token_span",))


@token_span.case("tokens that have a part in the characters, first and last")
def _(t: Toolbox, token_span: Any) -> None:
    places = [(0, 3), (4, 9), (9, 11), (12, 15), (15, 16)]
    for (start, end), want in (
        ((4, 9), (1, 1)),
        ((4, 11), (1, 2)),
        ((9, 11), (2, 2)),
        ((0, 16), (0, 4)),
        ((5, 10), (1, 2)),
        ((12, 15), (3, 3)),
    ):
        got = token_span(places, start, end)
        t.equal(
            tuple(int(i) for i in got),
            want,
            f"the tokens of the characters {start} to {end} of {places}",
            suspects={
                "the last token is one too far: the answer's end is not included": (
                    want[0],
                    min(want[1] + 1, 4),
                ),
                "the first token is one too early: it ends where the answer begins": (
                    max(want[0] - 1, 0),
                    want[1],
                ),
            },
        )
    t.that(
        refusal(ValueError, token_span, places, 3, 4) is not None,
        "characters between the tokens have none: raise a ValueError",
    )


answer_windows = Check("10.answer_windows", "parts of a long text", ("answer_windows",))


@answer_windows.case("[CLS] question [SEP] part [SEP], places and answer by hand")
def _(t: Toolbox, answer_windows: Any) -> None:
    text = "the film is unhappy in rome"
    windows = answer_windows(
        _Pieces(), "where is it?", text, (23, 27), max_length=20, stride=8, source=5
    )
    t.equal(len(windows), 1, "the number of windows where all fits into one")
    one = windows[0]
    t.equal(
        one.ids,
        _ids("[CLS]", "where", "is", "it", "?", "[SEP]", "the", "film", "is", "un", "##happy",
             "in", "rome", "[SEP]"),
        "the ids",
    )  # fmt: skip
    t.equal(one.type_ids, [0] * 6 + [1] * 8, "the segments: the question is 0, the text is 1")
    t.equal(
        list(one.offsets),
        [None] * 6 + [(0, 3), (4, 8), (9, 11), (12, 14), (14, 19), (20, 22), (23, 27), None],
        "the places: None for what is not of the text",
    )
    t.equal(
        tuple(one.span),
        (12, 12),
        "the answer's first and last token, counted in the row",
        suspects={
            "counted in the text: a row begins with the question": (6, 6),
            "one too far": (12, 13),
        },
    )
    t.equal(one.source, 5, "source")


@answer_windows.case("windows overlap, hold all of the text, and none is too long")
def _(t: Toolbox, answer_windows: Any) -> None:
    for count in (30, 1, 7, 8, 9, 10, 11, 12, 13):
        text = " ".join(t.choice(["a", "film", "old", "rome"]) for _ in range(count))
        windows = answer_windows(_Pieces(), "where?", text, None, max_length=13, stride=3)
        t.that(all(len(w.ids) <= 13 for w in windows), "a window is longer than max_length")
        starts = [next(p for p in w.offsets if p)[0] for w in windows]
        covered = {p for w in windows for p in w.offsets if p}
        t.equal(len(covered), count, "the tokens of the text that are in some window")
        want = max(1, 1 + math.ceil((count - 8) / 3))
        t.equal(
            len(windows),
            want,
            f"windows for {count} tokens, room for 8, a stride of 3",
            suspects={
                "the stride is from the beginning of one window to that of the next, not the "
                "overlap": max(1, 1 + math.ceil((count - 8) / 5)),
                "windows do not overlap: each begins a stride after the one before": math.ceil(
                    count / 8
                ),
                "a window that ends with the text is the last": math.ceil(count / 3),
            },
        )
        t.that(starts == sorted(starts), "the windows are in the order of the text")


@answer_windows.case("an answer counts in a window that holds all of it, else [CLS]")
def _(t: Toolbox, answer_windows: Any) -> None:
    text = " ".join(["film"] * 6 + ["old", "rome"] + ["film"] * 6)
    start = text.index("old")
    windows = answer_windows(_Pieces(), "where?", text, (start, start + 8), max_length=12, stride=3)
    got = [tuple(w.span) for w in windows]
    want = []
    for w in windows:
        inside = [i for i, p in enumerate(w.offsets) if p and start <= p[0] < start + 8]
        want.append((inside[0], inside[-1]) if len(inside) == 2 else (0, 0))
    t.equal(
        got,
        want,
        "the spans of the windows",
        suspects={
            "half of an answer is no answer: a window that cuts it points to [CLS]": [
                (i[0], i[-1]) if i else (0, 0)
                for i in (
                    [k for k, p in enumerate(w.offsets) if p and start <= p[0] < start + 8]
                    for w in windows
                )
            ],
        },
    )
    t.that(
        all(
            tuple(w.span) == (0, 0)
            for w in answer_windows(_Pieces(), "where?", text, None, max_length=12, stride=3)
        ),
        "without an answer every window points to [CLS]: (0, 0)",
    )


@answer_windows.case("what cannot be is refused")
def _(t: Toolbox, answer_windows: Any) -> None:
    for name, arguments in (
        ("an answer beyond the text", ("where?", "a film", (2, 99), 16, 4)),
        ("an answer without a character", ("where?", "a film", (2, 2), 16, 4)),
        ("a stride that skips tokens", ("where?", "a film", None, 10, 9)),
        ("a question that leaves no room", ("where is it? where is it?", "a film", None, 8, 1)),
        ("an empty text", ("where?", " ", None, 16, 4)),
    ):
        t.that(
            refusal(ValueError, answer_windows, _Pieces(), *arguments) is not None,
            f"{name} must be refused with a ValueError",
        )


best_spans = Check("10.best_spans", "the best answers of one window", ("best_spans",))


def _window(text_tokens: int, asked: int = 4) -> SimpleNamespace:
    places: list[Any] = [None] * asked
    places += [(5 * i, 5 * i + 4) for i in range(text_tokens)] + [None]
    return SimpleNamespace(ids=[7] * len(places), offsets=places)


def _spans(window: Any, scores: Tensor, n_best: int, max_tokens: int, kind: str = "") -> list:
    found = []
    for i, a in enumerate(window.offsets):
        for j, b in enumerate(window.offsets):
            if kind != "question" and (a is None or b is None):
                continue
            a_, b_ = a or (0, 0), b or (0, 0)
            longest = max_tokens + 1 if kind == "long" else max_tokens
            if kind != "order" and not i <= j < i + longest:
                continue
            found.append((float(scores[i, 0] + scores[j, 1]), a_[0], b_[1]))
    return sorted(found, key=lambda one: -one[0])[:n_best]


def _told(found: Sequence[Any]) -> list[tuple[float, int, int]]:
    return [(round(float(a.score), 3), int(a.start), int(a.end)) for a in found]


@best_spans.case("all pairs compared: order, length, no token of the question")
def _(t: Toolbox, best_spans: Any) -> None:
    for _ in range(4):
        window, scores = _window(12), t.randn(17, 2)
        got = _told(best_spans(window, scores, 6, 4))
        round_all = lambda rows: [(round(s, 3), a, b) for s, a, b in rows]  # noqa: E731
        t.equal(
            got,
            round_all(_spans(window, scores, 6, 4)),
            "score, first character and end of the six best",
            suspects={
                "an answer ends before it starts": round_all(_spans(window, scores, 6, 4, "order")),
                "max_tokens is how many an answer may have: yours may have one more": round_all(
                    _spans(window, scores, 6, 4, "long")
                ),
                "tokens of the question, [CLS] and [SEP] are no answers": round_all(
                    _spans(window, scores, 6, 4, "question")
                ),
            },
        )


@best_spans.case("characters: from the first of the first token to the last of the last")
def _(t: Toolbox, best_spans: Any) -> None:
    scores = torch.zeros(17, 2)
    scores[6, 0], scores[8, 1] = 9.0, 9.0
    first = best_spans(_window(12), scores, 3, 10)[0]
    t.equal(
        (first.start, first.end),
        (10, 24),
        "start and end of the best answer, tokens 6 to 8",
        suspects={
            "the end is that of the last token, not its beginning": (10, 20),
            "the last token's successor is not part of the answer": (10, 29),
        },
    )
    t.equal(len(best_spans(_window(2), torch.zeros(7, 2), 20, 5)), 3, "the spans of two tokens")


read_answers = Check("10.read_answers", "one list from all windows", ("read_answers",))


@read_answers.case("the best over all windows, each place once")
def _(t: Toolbox, read_answers: Any) -> None:
    one, two = _window(6), _window(6)
    two.offsets = [None] * 4 + [(15 + 5 * i, 19 + 5 * i) for i in range(6)] + [None]
    for _ in range(3):
        scores = [t.randn(11, 2), t.randn(11, 2)]
        scores[0][7:9] += 5  # the same characters as tokens 4 and 5 of the other window
        scores[1][4:6] += 5
        best: dict[tuple[int, int], float] = {}
        for window, logits in zip((one, two), scores, strict=True):
            for score, start, end in _spans(window, logits, 99, 3):
                best[start, end] = max(best.get((start, end), -math.inf), score)
        want = sorted(best.items(), key=lambda item: -item[1])[:5]
        got = _told(read_answers([one, two], scores, 5, 3))
        places = [(a, b) for _, a, b in got]
        t.that(
            len(set(places)) == len(places),
            "the same characters are there twice: windows overlap, keep the better score",
        )
        t.equal(
            got,
            [(round(score, 3), *place) for place, score in want],
            "the five best over two windows",
            suspects={
                "only the first window was read": [
                    (round(s, 3), a, b) for s, a, b in _spans(one, scores[0], 5, 3)
                ],
                "only the last window was read": [
                    (round(s, 3), a, b) for s, a, b in _spans(two, scores[1], 5, 3)
                ],
            },
        )


@read_answers.case("no answer: [CLS] in the window where it is lowest, less the threshold")
def _(t: Toolbox, read_answers: Any) -> None:
    windows = [_window(3), _window(3)]
    scores = [torch.zeros(8, 2), torch.zeros(8, 2)]
    scores[0][0], scores[1][0] = torch.tensor([4.0, 4.0]), torch.tensor([-1.0, -1.0])
    scores[1][5] = torch.tensor([0.5, 0.5])

    def score_of_none(threshold: float) -> float | None:
        found = read_answers(windows, scores, 20, 5, threshold)
        return next((float(a.score) for a in found if a.start == a.end), None)

    t.that(
        all(a.start < a.end for a in read_answers(windows, scores, 20, 5)),
        "no_answer is None: then 'no answer' is not among the answers",
    )
    for threshold in (0.0, -3.0, 2.0):
        got = score_of_none(threshold)
        t.that(got is not None, "with a threshold, 'no answer' (0, 0) is among the answers")
        t.close(
            got,
            -2.0 - threshold,
            f"the score of 'no answer' with a threshold of {threshold}",
            suspects={
                "a window without the answer says 'none here' loudly: take the lowest, not the "
                "highest": 8.0 - threshold,
                "the threshold is what 'no answer' must be better by: subtract it": -2.0
                + threshold,
                "the score is the sum of start and end of [CLS]": -1.0 - threshold,
            },
        )


# ---- batches ----------------------------------------------------------------------------------

task_batch = Check(
    "10.task_batch", "rows as a model's arguments", ("task_batch", "WordRow", "Window")
)


@task_batch.case("texts, words and windows, padded")
def _(t: Toolbox, task_batch: Any, WordRow: Any, Window: Any) -> None:
    texts = task_batch([_Row([2, 5, 3], [0, 0, 0], 1), _Row([2, 5, 6, 7, 3], [0] * 5, 0)], 0)
    t.equal(texts["input_ids"], torch.tensor([[2, 5, 3, 0, 0], [2, 5, 6, 7, 3]]), "input_ids")
    t.equal(texts["labels"], torch.tensor([1, 0]), "the labels of texts")
    t.equal(texts["attention_mask"].long().sum().item(), 8, "the tokens of the attention mask")
    words = task_batch(
        [
            WordRow([2, 5, 3], [0] * 3, None, [None, 0, None], [IGNORED, 4, IGNORED]),
            WordRow([2, 5, 6, 3], [0] * 4, None, [None, 0, 1, None], [IGNORED, 1, 2, IGNORED]),
        ],
        0,
    )
    t.equal(
        words["labels"],
        torch.tensor([[IGNORED, 4, IGNORED, IGNORED], [IGNORED, 1, 2, IGNORED]]),
        "the labels of words",
        suspects={
            "padding has no label: -100, not 0": torch.tensor(
                [[IGNORED, 4, IGNORED, 0], [IGNORED, 1, 2, IGNORED]]
            )
        },
    )
    spans = task_batch(
        [Window([2, 5, 3, 6, 3], [0, 0, 0, 1, 1], None, [None] * 5, (3, 3)),
         Window([2, 5, 3, 6, 7, 3], [0, 0, 0, 1, 1, 1], None, [None] * 6, (3, 4))],
        0,
    )  # fmt: skip
    t.equal(spans["start_positions"], torch.tensor([3, 3]), "start_positions")
    t.equal(
        spans["end_positions"],
        torch.tensor([3, 4]),
        "end_positions",
        suspects={"these are the first tokens: the ends are the last ones": torch.tensor([3, 3])},
    )
    t.that("labels" not in spans, "windows have positions, no labels")
    full = task_batch([_Row([2, 5, 3], [0, 0, 0], 1)], 0)
    t.that("attention_mask" not in full, "where nothing is padded there is no mask")


class _Recorder(nn.Module):
    """Gives each token its id as a score, one more for each token that is masked out of the row,
    and something else in training."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.sizes, self.modes = kind, [], []  # type: ignore[var-annotated]

    def forward(self, ids: Tensor, segments: Tensor | None = None, mask: Any = None) -> Any:
        self.sizes.append(ids.numel())
        self.modes.append(self.training)
        scores = torch.stack((ids.float(), -ids.float()), dim=-1)
        if self.kind == "text":
            real = torch.ones_like(ids) if mask is None else mask
            scores = (scores * real[:, :, None]).sum(1)
        return SimpleNamespace(logits=scores + (100.0 if self.training else 0.0))


predict = Check("10.predict", "logits in the order of the rows", ("predict",))


def _mixed_rows(t: Toolbox, count: int = 23) -> list[SimpleNamespace]:
    rows = []
    for _ in range(count):
        n = t.integer(2, 30)
        ids = [t.integer(5, 20) for _ in range(n)]
        rows.append(SimpleNamespace(ids=ids, type_ids=[0] * n, label=None))
    return rows


@predict.case("every row once, in the order given, padding cut off")
def _(t: Toolbox, predict: Any) -> None:
    rows = _mixed_rows(t)
    for kind in ("text", "token"):
        model = _Recorder(kind).eval()
        got = predict(model, rows, 0, 4)
        t.equal(len(got), len(rows), "the number of results: as many as rows")
        for row, scores in zip(rows, got, strict=True):
            ids = torch.tensor(row.ids).float()
            want = torch.stack((ids, -ids), dim=-1)
            if kind == "text":
                want = want.sum(0)
            elif scores.shape[0] != len(row.ids):
                t.that(False, "the scores of padding are still there: cut them to the row's length")
            t.close(scores, want, "the logits of a row (are rows and results in one order?)")


@predict.case("evaluation mode, like lengths together, the mode put back")
def _(t: Toolbox, predict: Any) -> None:
    rows = _mixed_rows(t, 40)
    for training in (True, False):
        model = _Recorder("text").train(training)
        predict(model, rows, 0, 8)
        t.that(
            not any(model.modes),
            "dropout is on while predicting: call model.eval() first",
        )
        t.that(model.training is training, "put the model's mode back as it was")
    lengths = sorted(len(row.ids) for row in rows)
    least = sum(max(lengths[i : i + 8]) * len(lengths[i : i + 8]) for i in range(0, 40, 8))
    t.that(
        sum(model.sizes) <= least * 1.2,
        "rows of like lengths belong into one batch: most of what was read is padding",
    )


text_vectors = Check("10.text_vectors", "one vector a text", ("text_vectors",))


@text_vectors.case("the mean over real tokens, or [CLS], in the order of the rows")
def _(t: Toolbox, text_vectors: Any) -> None:
    class Body(nn.Module):
        config = SimpleNamespace(hidden_size=3)

        def forward(self, ids: Tensor, segments: Any = None, mask: Any = None) -> Any:
            place = torch.arange(ids.shape[1]).expand_as(ids)
            states = torch.stack((ids, place, ids * place), dim=-1).float()
            return SimpleNamespace(last_hidden_state=states + (9.0 if self.training else 0.0))

    rows = _mixed_rows(t)
    model = Body().train()
    for pool in ("mean", "cls"):
        got = text_vectors(model, rows, 0, pool, 4)
        want, padded = [], []
        longest = max(len(row.ids) for row in rows)
        for row in rows:
            ids = torch.tensor(row.ids)
            states = Body().eval()(ids[None]).last_hidden_state[0]
            want.append(states.mean(0) if pool == "mean" else states[0])
            padded.append(states.sum(0) / longest)
        t.close(
            got,
            torch.stack(want),
            f"the vectors, pool={pool!r}",
            suspects={
                "padding is in the mean: divide by the real tokens": torch.stack(padded),
                "dropout is on while reading: call model.eval() first": torch.stack(want) + 9.0,
            },
        )
    t.that(model.training, "put the model's mode back as it was")


# ---- rates and weights ------------------------------------------------------------------------

layerwise = Check(
    "10.layerwise_groups", "rates that fall from the head down", ("layerwise_groups",)
)


class _Named(nn.Module):
    """Parameters with BERT's names, three layers."""

    bert: Any

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=3)
        self.bert = nn.Module()
        self.bert.embeddings = nn.Module()
        self.bert.embeddings.word_embeddings = nn.Embedding(4, 2)
        self.bert.embeddings.LayerNorm = nn.LayerNorm(2)
        self.bert.encoder = nn.Module()
        self.bert.encoder.layer = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.bert.pooler = nn.Linear(2, 2)
        self.classifier = nn.Linear(2, 2)


def _scales(groups: list[dict], model: nn.Module) -> dict[str, tuple[float, float]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (float(group.get("scale", 1.0)), float(group["weight_decay"]))
        for group in groups
        for p in group["params"]
    }


@layerwise.case("the full rate for the head, decay times it for each layer below")
def _(t: Toolbox, layerwise: Any) -> None:
    model = _Named()
    got = _scales(layerwise(model, 0.5, 0.01), model)
    t.equal(
        sorted(got),
        sorted(name for name, _ in model.named_parameters()),
        "the parameters, each once",
    )
    for name, scale in (
        ("classifier.weight", 1.0),
        ("bert.pooler.weight", 1.0),
        ("bert.encoder.layer.2.weight", 0.5),
        ("bert.encoder.layer.1.weight", 0.25),
        ("bert.encoder.layer.0.weight", 0.125),
        ("bert.embeddings.word_embeddings.weight", 0.0625),
        ("bert.embeddings.LayerNorm.bias", 0.0625),
    ):
        depth = round(-math.log2(scale))
        t.close(
            got[name][0],
            scale,
            f"the scale of {name} at decay 0.5 with three layers",
            suspects={
                "the decay goes the wrong way: the bottom layers are the slow ones": 0.5
                ** (4 - depth),
                "the top layer already decays once: only pooler and head have the full rate": (
                    2 * scale
                ),
            },
        )


@layerwise.case("weight decay for what has two axes; what is frozen is left out")
def _(t: Toolbox, layerwise: Any) -> None:
    model = _Named()
    for name, (_, shrink) in _scales(layerwise(model, 0.9, 0.02), model).items():
        t.close(
            shrink,
            0.02 if dict(model.named_parameters())[name].dim() >= 2 else 0.0,
            f"the weight decay of {name} (biases and LayerNorm have none)",
        )
    model.bert.requires_grad_(False)
    t.equal(
        sorted(_scales(layerwise(model, 0.9, 0.02), model)),
        ["classifier.bias", "classifier.weight"],
        "the parameters to train where the encoder is frozen",
    )


weights_of_classes = Check("10.class_weights", "every class counts the same", ("class_weights",))


@weights_of_classes.case("n over classes times n_c, as scikit-learn's 'balanced'")
def _(t: Toolbox, class_weights: Any) -> None:
    for labels in ([0] * 6 + [1] * 2, [t.integer(0, 2) for _ in range(40)] + [0, 1, 2]):
        classes = max(labels) + 1
        counts = torch.bincount(torch.tensor(labels), minlength=classes).float()
        t.close(
            class_weights(labels, classes),
            counts.sum() / (classes * counts),
            f"the weights for counts of {counts.int().tolist()}",
            suspects={
                "a frequent class gets a small weight, not a large one": counts
                / counts.sum()
                * classes,
                "this is 1 over the count: times n over classes, so that the mean weight is 1": (
                    1 / counts
                ),
                "divide by the number of classes as well": counts.sum() / counts,
            },
        )


@weights_of_classes.case("a class without an example is refused")
def _(t: Toolbox, class_weights: Any) -> None:
    t.that(
        refusal(ValueError, class_weights, [0, 0, 2], 3) is not None,
        "class 1 has no example: its weight would be infinite, raise a ValueError",
    )


# ---- the loop ---------------------------------------------------------------------------------


class _Tiny(nn.Module):
    """A model with a head: a table, a classifier, and dropout."""

    bert: Any
    modes: Any

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=1)
        self.bert = nn.Module()
        self.bert.embeddings = nn.Embedding(12, 8)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(8, 2)
        self.modes = []

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
    ) -> Any:
        self.modes.append(self.training)
        logits = self.classifier(self.dropout(self.bert.embeddings(input_ids).mean(1)))
        loss = None if labels is None else F.cross_entropy(logits, labels, label_weights)
        return SimpleNamespace(logits=logits, loss=loss)


finetune_step = Check("10.finetune_step", "one step", ("finetune_step",))


def _step_batch(t: Toolbox) -> dict[str, Tensor]:
    return {"input_ids": t.ids(12, 6, 5), "labels": torch.tensor([0, 1, 1, 0, 1, 0])}


@finetune_step.case("the rate times each group's scale; the loss is returned")
def _(t: Toolbox, step: Any) -> None:
    torch.manual_seed(t.seed)
    model, batch = _Tiny(), _step_batch(t)
    optimizer = torch.optim.SGD(
        [
            {"params": model.classifier.parameters(), "scale": 1.0},
            {"params": model.bert.parameters(), "scale": 0.25},
        ],
        lr=7.0,
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    want = model(**batch).loss
    grads = dict(zip(before, torch.autograd.grad(want, list(model.parameters())), strict=True))
    got = step(model, optimizer, batch, 0.1, max_norm=1e9)
    t.close(float(got), want.item(), "the loss that is returned")
    for name, p in model.named_parameters():
        scale = 0.25 if name.startswith("bert") else 1.0
        t.close(
            p.detach(),
            before[name] - 0.1 * scale * grads[name],
            f"{name} after a step at rate 0.1 and scale {scale}",
            suspects={
                "the scale of the group was not used": before[name] - 0.1 * grads[name],
                "the rate of the optimizer was not set": before[name] - 7.0 * grads[name],
                "nothing has moved": before[name],
            },
        )
    t.that(
        all(p.grad is None or not p.grad.any() for p in model.parameters()),
        "the gradients of this step are still there: they would be added to the next",
    )


@finetune_step.case("one limit for all gradients together")
def _(t: Toolbox, step: Any) -> None:
    torch.manual_seed(t.seed)
    model, batch = _Tiny(), _step_batch(t)
    with torch.no_grad():
        model.classifier.weight.mul_(30)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    step(model, optimizer, batch, 1.0, max_norm=0.1)
    moved = torch.cat(
        [(p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]
    )
    t.close(
        moved.norm(),
        0.1,
        "the length of a step at rate 1 with a limit of 0.1",
        atol=1e-4,
        rtol=1e-3,
    )


@finetune_step.case("a loss that is not finite stops before the weights are touched")
def _(t: Toolbox, step: Any) -> None:
    torch.manual_seed(t.seed)
    model, batch = _Tiny(), _step_batch(t)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with torch.no_grad():
        model.classifier.bias[0] = math.nan
    before = model.bert.embeddings.weight.detach().clone()
    said = refusal(RuntimeError, step, model, optimizer, batch, 0.1)
    t.that(said is not None, "the loss is nan and nothing stopped: raise NonFiniteLoss")
    t.that(
        torch.equal(model.bert.embeddings.weight, before),
        "the weights were changed by a gradient that is not finite",
    )


finetune = Check("10.finetune", "the loop", ("finetune",))


def _learnable(count: int = 40) -> list[_Row]:
    """Rows with 5 in them are class 1, rows with 6 class 0."""
    rng, rows = random.Random(3), []
    for i in range(count):
        ids = [2, 5 + i % 2, *(rng.randint(7, 11) for _ in range(rng.randint(1, 6))), 3]
        rows.append(_Row(ids, [0] * len(ids), 1 - i % 2))
    return rows


def _trainable(t: Toolbox, dropout: float = 0.0) -> tuple[Any, list]:
    torch.manual_seed(t.seed)
    return _Tiny(dropout), list(_learnable())


@finetune.case("it learns: steps, losses, and evaluation mode afterwards")
def _(t: Toolbox, finetune: Any) -> None:
    model, rows = _trainable(t, 0.1)
    history = finetune(model, rows, 0, random.Random(0), epochs=10, size=8, rate=0.05)
    t.equal(len(history.losses), 50, "the steps of 10 epochs with 40 rows in batches of 8")
    t.that(all(model.modes), "training went on without dropout: call model.train()")
    t.that(
        sum(history.losses[-5:]) / 5 < 0.5 * history.losses[0],
        f"the loss does not fall: {history.losses[0]:.2f} to {history.losses[-1]:.2f}",
    )
    t.that(not model.training, "the model is left in training mode: dropout would stay on")
    few = finetune(_trainable(t)[0], rows[:3], 0, random.Random(0), epochs=2, size=8, rate=0.01)
    t.that(
        len(few.losses) == 2,
        "three rows do not fill a batch of 8 and nothing was trained: make the batch smaller",
    )
    t.that(
        refusal(ValueError, finetune, model, [], 0, random.Random(0)) is not None,
        "without rows there is nothing to train on: raise a ValueError",
    )


@finetune.case("the rate rises, then falls to zero at the end of all epochs")
def _(t: Toolbox, finetune: Any) -> None:
    model, rows = _trainable(t)
    seen: list[float] = []
    original = torch.optim.AdamW.step

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(max(group["lr"] for group in self.param_groups))
        return original(self, *args, **kwargs)

    torch.optim.AdamW.step = spy  # type: ignore[method-assign]
    try:
        finetune(
            model,
            rows,
            0,
            random.Random(0),
            epochs=4,
            size=8,
            rate=0.01,
            warmup=0.25,
            layer_decay=1.0,
        )
    finally:
        torch.optim.AdamW.step = original  # type: ignore[method-assign]
    want = [0.01 * (i + 1) / 5 for i in range(5)] + [0.01 * (20 - i) / 15 for i in range(5, 20)]
    t.that(
        len(seen) < 2 or seen[0] < max(seen) / 2,
        "the first step is taken at the full rate: warm up",
    )
    t.close(torch.tensor(seen), torch.tensor(want), "the rate of each step", atol=1e-7)


@finetune.case("the weights of the best epoch are kept, and patience ends the run")
def _(t: Toolbox, finetune: Any) -> None:
    model, rows = _trainable(t)
    scores, states = iter([0.5, 0.8, 0.7, 0.8, 0.9]), []

    def evaluate(m: nn.Module) -> float:
        states.append({name: x.clone() for name, x in m.state_dict().items()})
        return next(scores)

    history = finetune(
        model, rows, 0, random.Random(0), epochs=5, size=8, rate=0.05, evaluate=evaluate, patience=2
    )
    t.that(
        list(history.scores) != [0.5, 0.8, 0.7],
        "it stopped after one epoch that was no better: patience is 2",
    )
    t.equal(
        list(history.scores),
        [0.5, 0.8, 0.7, 0.8],
        "the scores until two epochs in a row were not better than the best",
    )
    t.equal(history.best, 2, "the best epoch, counted from 1")
    now = model.state_dict()
    if all(torch.equal(now[name], states[-1][name]) for name in now):
        t.that(False, "these are the last weights: keep a copy of the best epoch's")
    t.that(
        all(torch.equal(now[name], states[1][name]) for name in now),
        "the weights are not those of the best epoch: was a copy kept, or a reference?",
    )


# ---- the exercises ----------------------------------------------------------------------------

windows_question = Check(
    "10.seams",
    "how many windows, and which answers they may lose",
    ("seams",),
    kind="predict",
    difficulty=2,
    minutes=15,
    hides=("finetuning.answer_windows",),
    reminder="The worst answer begins one token before the next window does.",
)


def _seams(tokens: int, room: int, stride: int) -> tuple[int, int]:
    starts = [0]
    while starts[-1] + room < tokens:
        starts.append(starts[-1] + stride)
    longest = 0
    for size in range(1, tokens + 1):
        if all(
            any(s <= a and a + size <= min(s + room, tokens) for s in starts)
            for a in range(tokens - size + 1)
        ):
            longest = size
        else:
            break
    return len(starts), longest


def _judge_seams(t: Toolbox, seams: Any, given: tuple[int, int, int]) -> None:
    tokens, room, stride = given
    want = _seams(*given)
    got = seams(*given)
    t.equal(
        list(got) if isinstance(got, (list, tuple)) else got,
        list(want),
        f"windows and longest safe answer for {tokens} tokens, room {room}, stride {stride}",
        suspects={
            "the stride is from start to start, it is not the overlap": [
                max(1, 1 + math.ceil((tokens - room) / max(room - stride, 1))),
                want[1],
            ],
            "a window that ends with the text is the last: you made some that hold nothing new": [
                math.ceil(tokens / stride),
                want[1],
            ],
            "an answer may be one token longer than the overlap": [want[0], room - stride],
            "two windows share room - stride tokens, but an answer may be one longer": [
                want[0],
                min(room - stride, tokens),
            ],
            "an answer as long as a window is cut at most places": [want[0], min(room, tokens)],
            "where all fits into one window, any answer is safe": [want[0], room - stride + 1],
        },
    )


@windows_question.case("all in one window", points=1)
def _(t: Toolbox, seams: Any) -> None:
    _judge_seams(t, seams, (5, 8, 3))
    _judge_seams(t, seams, (8, 8, 3))


@windows_question.case("several windows, any sizes", points=2)
def _(t: Toolbox, seams: Any) -> None:
    _judge_seams(t, seams, (20, 8, 3))
    for _ in range(6):
        room = t.integer(4, 12)
        _judge_seams(t, seams, (t.integer(room + 1, 40), room, t.integer(1, room)))


spread_question = Check(
    "10.spread_labels",
    "a label for every piece",
    ("spread_labels",),
    kind="implement",
    difficulty=2,
    minutes=15,
    hides=("finetuning.align_labels",),
    reminder="A name that begins at its first piece does not begin again at the second.",
)
_TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def _spread(tags: list[str], word_ids: list[int], kind: str = "") -> list[str]:
    found, last = [], None
    for word in word_ids:
        if word == -1:
            found.append("O" if kind == "special" else "")
        else:
            tag = tags[word]
            if word == last and kind != "begin":
                tag = "" if kind == "ignore" else "I-" + tag[2:] if tag[0] in "BI" else tag
                if kind == "outside":
                    tag = "O"
            found.append(tag)
        last = word
    return found


@spread_question.case(
    "B at the first piece, I at the later ones, nothing at [CLS] and [SEP]", points=2
)
def _(t: Toolbox, spread_labels: Any) -> None:
    for _ in range(5):
        words = t.integer(3, 7)
        tags = ["B-PER", "I-PER", "O", *(t.choice(_TAGS) for _ in range(words - 3))]
        word_ids = [-1, *(i for i in range(words) for _ in range(t.integer(1, 3))), -1]
        word_ids[1:2] = [0, 0]
        t.equal(
            list(spread_labels(tags, word_ids)),
            _spread(tags, word_ids),
            f"the tags of the pieces of {tags} with words {word_ids}",
            suspects={
                "a later piece of B-PER continues the name: I-PER, not B-PER": (
                    _spread(tags, word_ids, "begin")
                ),
                "[CLS] and [SEP] get the empty tag, not O": _spread(tags, word_ids, "special"),
                "here later pieces have a tag of their own": _spread(tags, word_ids, "ignore"),
                "a later piece is part of the name: it is not O": _spread(
                    tags, word_ids, "outside"
                ),
            },
        )


@spread_question.case("two words in a row with the same tag are still two words", points=1)
def _(t: Toolbox, spread_labels: Any) -> None:
    t.equal(
        list(spread_labels(["B-LOC", "B-LOC"], [-1, 0, 0, 1, 1, -1])),
        ["", "B-LOC", "I-LOC", "B-LOC", "I-LOC", ""],
        "the tags of two places in a row",
    )


path_question = Check(
    "10.best_path",
    "tags that can follow each other",
    ("best_path",),
    kind="implement",
    difficulty=4,
    minutes=35,
    reminder="The best tag at each word is not the best path where some steps are forbidden.",
)


def _path(scores: Tensor, allowed: Tensor, first: Tensor, kind: str = "") -> list[int]:
    """By trying all paths."""
    import itertools

    n, labels = scores.shape
    if kind == "greedy":
        path: list[int] = []
        for i in range(n):
            fits = first if not path else allowed[path[-1]]
            path.append(int(scores[i].masked_fill(~fits, -math.inf).argmax()))
        return path
    best, found = -math.inf, [0] * n
    rows = scores.tolist()
    follows, begins = (allowed.T if kind == "turned" else allowed).tolist(), first.tolist()
    for tried in itertools.product(range(labels), repeat=n):
        if kind != "start" and not begins[tried[0]]:
            continue
        steps = zip(tried, tried[1:], strict=False)
        if not all(follows[a][b] for a, b in steps):
            continue
        total = sum(row[tag] for row, tag in zip(rows, tried, strict=True))
        if total > best:
            best, found = total, list(tried)
    return found


def _judge_path(t: Toolbox, best_path: Any, scores: Tensor, allowed: Tensor, first: Tensor) -> None:
    got = best_path(scores, allowed, first)
    t.equal(
        [int(tag) for tag in (got.tolist() if isinstance(got, Tensor) else got)],
        _path(scores, allowed, first),
        f"the best path through {scores.shape[0]} words",
        suspects={
            "each word's best tag, whatever stands before it": scores.argmax(-1).tolist(),
            "the best allowed next tag at each step is not the best path: look at whole paths": (
                _path(scores, allowed, first, "greedy")
            ),
            "the first tag must be one that may begin a sentence": _path(
                scores, allowed, first, "start"
            ),
            "allowed[a, b] says that b may follow a, not a follow b": _path(
                scores, allowed, first, "turned"
            ),
        },
    )


_ALLOWED = torch.tensor([[True, True, False], [True, True, True], [True, True, True]])
_FIRST = torch.tensor([True, True, False])


@path_question.case("O, B and I by hand", points=1)
def _(t: Toolbox, best_path: Any) -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 3.0], [1.0, 0.0, 0.5]])
    _judge_path(t, best_path, scores, _ALLOWED, _FIRST)
    scores = torch.tensor([[2.0, 1.0, 3.0], [2.0, 0.0, 0.0], [0.5, 0.8, 1.0]])
    _judge_path(t, best_path, scores, _ALLOWED, _FIRST)


@path_question.case("any scores, any rules", points=3)
def _(t: Toolbox, best_path: Any) -> None:
    for _ in range(5):
        _judge_path(t, best_path, t.randn(t.integer(4, 6), 3) * 2, _ALLOWED, _FIRST)
    for _ in range(5):
        allowed = t.randn(4, 4) > 0
        allowed.fill_diagonal_(True)
        first = torch.tensor([True, False, True, False])
        _judge_path(t, best_path, t.randn(5, 4) * 2, allowed, first)


sign_question = Check(
    "10.sign_test",
    "is the better model better?",
    ("sign_test",),
    kind="measure",
    difficulty=3,
    minutes=20,
    reminder="Texts that both models get right, or both wrong, say nothing about which is better.",
)


def _sign(a: Sequence[bool], b: Sequence[bool], kind: str = "") -> float:
    wins = sum(x and not y for x, y in zip(a, b, strict=True))
    losses = sum(y and not x for x, y in zip(a, b, strict=True))
    n = wins + losses
    if kind == "all":
        n = len(a)
    more = max(wins, losses)
    if kind == "direction":
        more = wins
    begin = more + 1 if kind == "beyond" else more
    tail = sum(math.comb(n, k) for k in range(begin, n + 1)) / 2**n
    return tail if kind == "one" else min(1.0, 2 * tail)


def _judge_sign(t: Toolbox, sign_test: Any, a: list[bool], b: list[bool]) -> None:
    t.close(
        sign_test(a, b),
        _sign(a, b),
        "the probability",
        atol=1e-9,
        suspects={
            "this is one side: the other model could have been the lucky one, so take both": _sign(
                a, b, "one"
            ),
            "the same result must come out if the models change places": _sign(a, b, "direction"),
            "texts on which both agree are in your count": _sign(a, b, "all"),
            "as many wins as there were count too: at least, not more than": _sign(a, b, "beyond"),
        },
    )


@sign_question.case("five wins, one loss, by hand", points=1)
def _(t: Toolbox, sign_test: Any) -> None:
    a = [True] * 5 + [False] + [True] * 6 + [False] * 3
    b = [False] * 5 + [True] + [True] * 6 + [False] * 3
    _judge_sign(t, sign_test, a, b)
    _judge_sign(t, sign_test, b, a)


@sign_question.case("any answers; no difference at all", points=2)
def _(t: Toolbox, sign_test: Any) -> None:
    t.close(sign_test([True, False], [True, False]), 1.0, "two models that answer alike")
    for rate in (0.8, 0.85, 0.5):
        a = [t.random.random() < 0.8 for _ in range(300)]
        b = [t.random.random() < rate for _ in range(300)]
        _judge_sign(t, sign_test, a, b)
    t.close(sign_test([True] * 4 + [False] * 4, [False] * 4 + [True] * 4), 1.0, "four against four")


split_question = Check(
    "10.split_groups",
    "a split that does not leak",
    ("split_groups",),
    kind="implement",
    difficulty=3,
    minutes=30,
    reminder="Whatever belongs together goes to one side, all of it.",
)


def _judge_split(
    t: Toolbox, split_groups: Any, texts: list[str], groups: list[str], share: float, seed: int
) -> list[int]:
    got = split_groups(texts, groups, share, seed)
    test = sorted(int(i) for i in got)
    t.that(len(set(test)) == len(test), "a row stands twice in the test")
    t.that(all(0 <= i < len(texts) for i in test), "a number that is no row's")
    train = [i for i in range(len(texts)) if i not in set(test)]
    t.that(test and train, "one side is empty")
    both = {groups[i] for i in test} & {groups[i] for i in train}
    t.that(
        not both,
        f"a group is on both sides ({sorted(both)[:1]}): a model would know the film already",
    )
    plain = [" ".join(text.lower().split()) for text in texts]
    same = {plain[i] for i in test} & {plain[i] for i in train}
    t.that(
        not same,
        "the same text is on both sides, in another group, or with other blanks or capitals: "
        "put these groups together",
    )
    return test


def _grouped(t: Toolbox, rows: int = 120, groups: int = 30) -> tuple[list[str], list[str]]:
    names = [f"g{t.integer(1, groups)}" for _ in range(rows)]
    texts = [f"text {i} of {name}" for i, name in enumerate(names)]
    return texts, names


@split_question.case("no group is on both sides, and the share is about right", points=2)
def _(t: Toolbox, split_groups: Any) -> None:
    texts, groups = _grouped(t)
    for seed in (1, 2):
        test = _judge_split(t, split_groups, texts, groups, 0.25, seed)
        t.that(
            0.12 <= len(test) / len(texts) <= 0.4,
            f"a quarter was asked for, {len(test)} of {len(texts)} rows are in the test",
        )


@split_question.case("the same text in two groups ties them", points=2)
def _(t: Toolbox, split_groups: Any) -> None:
    texts, groups = _grouped(t)
    for i in range(0, 60, 3):
        texts[i + 1] = texts[i].upper().replace(" ", "  ")
    for seed in (1, 2, 3):
        _judge_split(t, split_groups, texts, groups, 0.2, seed)


@split_question.case("the seed decides, and nothing else", points=1)
def _(t: Toolbox, split_groups: Any) -> None:
    texts, groups = _grouped(t)
    first = sorted(int(i) for i in split_groups(texts, groups, 0.25, 1))
    t.that(
        first == sorted(int(i) for i in split_groups(texts, groups, 0.25, 1)),
        "the same seed gave two splits: make a generator of it",
    )
    t.that(
        any(first != sorted(int(i) for i in split_groups(texts, groups, 0.25, s)) for s in (2, 3)),
        "other seeds give the same split",
    )


threshold_question = Check(
    "10.best_threshold",
    "when to say nothing",
    ("best_threshold",),
    kind="implement",
    difficulty=3,
    minutes=25,
    hides=("engine.metrics.best_threshold",),
    reminder="Try every threshold that changes an answer, and one beyond each end.",
)


def _total(gaps: Sequence[float], f1: Sequence[float], has: Sequence[bool], at: float) -> float:
    total = 0.0
    for gap, score, answerable in zip(gaps, f1, has, strict=True):
        silent = gap > at
        total += (0.0 if answerable else 1.0) if silent else (score if answerable else 0.0)
    return total / len(gaps)


def _best(gaps: Sequence[float], f1: Sequence[float], has: Sequence[bool]) -> float:
    return max(_total(gaps, f1, has, at) for at in [-math.inf, *gaps])


@threshold_question.case("the score that comes with it is the best there is", points=2)
def _(t: Toolbox, best_threshold: Any) -> None:
    gaps = [2.0, 3.0, -1.0, 0.5, -4.0, -2.0]
    has = [False, False, True, True, False, True]
    cases = [(gaps, [0.0, 0.0, 1.0, 0.5, 0.0, 0.3], has)]
    for _ in range(4):
        n = t.integer(5, 30)
        gaps = [round(float(x), 3) for x in t.randn(n)]
        has = [t.random.random() < 0.6 for _ in range(n)]
        cases.append((gaps, [round(t.random.random(), 2) if h else 0.0 for h in has], has))
    for gaps, f1, has in cases:
        got = best_threshold(gaps, f1, has)
        t.that(
            isinstance(got, (list, tuple)) and len(got) == 2,
            "return two numbers: the threshold and the score with it",
        )
        best = _best(gaps, f1, has)
        t.close(
            float(got[1]),
            best,
            "the best mean score",
            suspects={
                "this is the score at threshold 0: try the others": _total(gaps, f1, has, 0.0),
                "silence is right where there is no answer, and scores 1 there": max(
                    sum(s for g, s, h in zip(gaps, f1, has, strict=True) if h and g <= at)
                    / len(gaps)
                    for at in [-math.inf, *gaps]
                ),
                "the gap says how much better 'no answer' is: a large gap means silence": max(
                    _total([-g for g in gaps], f1, has, at)
                    for at in [-math.inf, *(-g for g in gaps)]
                ),
            },
        )


@threshold_question.case("the threshold gives that score", points=1)
def _(t: Toolbox, best_threshold: Any) -> None:
    for _ in range(4):
        n = t.integer(5, 30)
        gaps = [round(float(x), 3) for x in t.randn(n)]
        has = [t.random.random() < 0.6 for _ in range(n)]
        f1 = [round(t.random.random(), 2) if h else 0.0 for h in has]
        at, score = best_threshold(gaps, f1, has)
        t.close(
            _total(gaps, f1, has, float(at)),
            float(score),
            "the mean score with your threshold (silent where the gap is above it)",
        )


@threshold_question.case("always speak, or never", points=1)
def _(t: Toolbox, best_threshold: Any) -> None:
    at, score = best_threshold([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [True, True, True])
    t.close(float(score), 1.0, "the score where every question has an answer")
    at, score = best_threshold([-1.0, -2.0], [0.0, 0.0], [False, False])
    t.close(float(score), 1.0, "the score where no question has one: every gap is above it")
    t.close(_total([-1.0, -2.0], [0.0, 0.0], [False, False], float(at)), 1.0, "with its threshold")


thaw_question = Check(
    "10.thawing_rates",
    "thaw from the top",
    ("thawing_rates",),
    kind="predict",
    difficulty=2,
    minutes=15,
    hides=("finetuning.layer_depth", "finetuning.layerwise_groups"),
    reminder="Depth 0 is the embeddings, layers + 1 the head: the head starts at once.",
)


def _thaw(layers: int, step: int, rate: float, decay: float, every: int, kind: str = "") -> list:
    found = []
    for depth in range(layers + 2):
        below = layers + 1 - depth
        begins = (depth if kind == "bottom" else below) * every
        power = depth if kind == "decay" else below
        found.append(0.0 if step < begins else rate * decay**power)
    if kind == "late":
        found = [r if step >= (layers + 2 - d) * every else 0.0 for d, r in enumerate(found)]
    if kind == "frozen":
        found = [rate * decay ** (layers + 1 - d) for d in range(layers + 2)]
    if kind == "flat":
        found = [rate if r else 0.0 for r in found]
    return found


@thaw_question.case("three layers by hand, then any", points=3)
def _(t: Toolbox, thawing_rates: Any) -> None:
    cases = [(3, 25, 1.0, 0.5, 10), (3, 0, 1.0, 0.5, 10), (3, 40, 1.0, 0.5, 10)]
    for _ in range(4):
        cases.append((t.integer(2, 12), t.integer(0, 60), 2e-3, 0.8, t.integer(3, 20)))
    for given in cases:
        layers, step, _, decay, every = given
        got = thawing_rates(*given)
        t.that(
            isinstance(got, (list, tuple)) and len(got) == layers + 2,
            f"one rate for the embeddings, {layers} layers and the head: {layers + 2} in all",
        )
        t.close(
            torch.tensor([float(r) for r in got]).double(),
            torch.tensor(_thaw(*given)).double(),
            f"the rates at step {step} ({layers} layers, decay {decay}, every {every} steps)",
            atol=1e-9,
            suspects={
                name: torch.tensor(_thaw(*given, kind=kind)).double()
                for name, kind in (
                    ("it thaws from the top: the head first, the embeddings last", "bottom"),
                    ("the decay goes the wrong way: the bottom layers are the slow ones", "decay"),
                    ("what has not thawed yet has rate 0", "frozen"),
                    ("the head learns from step 0 on", "late"),
                    ("each layer below learns at decay times the rate of the one above", "flat"),
                )
            },
        )


bug_question = Check(
    "10.loss_bug",
    "bug hunt: a loss of tokens that is never small",
    ("tagging_loss",),
    kind="bug",
    difficulty=3,
    minutes=25,
    hides=("model.classification_loss",),
    reminder="There are three mistakes: in what goes in, in what counts, in what is divided by.",
)


def _tagging(logits: Tensor, labels: Tensor, weights: Tensor, kind: str = "") -> Tensor:
    softened = logits.softmax(-1) if "softmax" in kind else logits
    real = labels != IGNORED
    safe = labels.clamp(min=0)
    each = -softened.log_softmax(-1).gather(-1, safe[..., None])[..., 0]
    if "padding" in kind:
        real = torch.ones_like(real)
    each, heavy = each * weights[safe] * real, weights[safe] * real
    if "count" in kind:
        return each.sum() / real.sum()
    return each.sum() / heavy.sum()


_BUGS = {
    "cross entropy takes logits: the softmax is in it already": "softmax",
    "tokens without a label count as class 0": "padding",
    "divide by the sum of the weights that were used, as torch does": "count",
}


def _judge_bug(t: Toolbox, loss: Any, weights: Tensor, some_ignored: bool) -> None:
    logits, labels = t.randn(3, 6, 4) * 3, t.ids(4, 3, 6)
    if some_ignored:
        labels[:, 0] = IGNORED
        labels[1, 4:] = IGNORED
    given = (logits, labels, weights)
    suspects = {message: _tagging(*given, kind=kind) for message, kind in _BUGS.items()}
    for a, b in (("softmax", "padding"), ("softmax", "count"), ("padding", "count")):
        suspects[f"two of the three mistakes are left ({a} and {b})"] = _tagging(
            *given, kind=f"{a} {b}"
        )
    t.close(loss(*given), _tagging(*given), "the loss", suspects=suspects)


@bug_question.case("every token has a label, all weights are 1", points=1)
def _(t: Toolbox, loss: Any) -> None:
    _judge_bug(t, loss, torch.ones(4), False)


@bug_question.case("some tokens have none", points=1)
def _(t: Toolbox, loss: Any) -> None:
    _judge_bug(t, loss, torch.ones(4), True)


@bug_question.case("classes that weigh more than others", points=2)
def _(t: Toolbox, loss: Any) -> None:
    _judge_bug(t, loss, torch.tensor([0.2, 2.0, 1.0, 3.5]), False)
    _judge_bug(t, loss, torch.tensor([0.2, 2.0, 1.0, 3.5]), True)


choose_setting = Check(
    "10.choose_setting",
    "which setting to keep, after several seeds",
    ("choose_setting",),
    kind="choose",
    difficulty=3,
    minutes=20,
    reminder="Luck has a size: measure it before you pay for a difference.",
)


def _setting(
    scores: dict[str, list[float]], cost: dict[str, float], *, slip: str = ""
) -> tuple[str, dict[str, float]]:
    """The cheapest setting that is as good as the best, up to one standard error."""

    def spread(values: list[float]) -> float:
        mean = sum(values) / len(values)
        dof = len(values) - (0 if slip == "divisor" else 1)
        return math.sqrt(sum((x - mean) ** 2 for x in values) / dof)

    figures = {
        name: max(values) if slip == "luckiest" else sum(values) / len(values)
        for name, values in scores.items()
    }
    best = max(figures, key=lambda name: figures[name])
    size = math.sqrt(len(scores[best]))
    error = spread(scores[best]) / (1 if slip == "deviation" else size)
    figures["error"] = error
    if slip == "dearest":
        return best, figures
    if slip == "cheapest":
        return min(cost, key=lambda name: cost[name]), figures
    within = [name for name in scores if figures[name] >= figures[best] - error]
    if slip == "twice":
        within = [name for name in scores if figures[name] >= figures[best] - 2 * error]
    return min(within, key=lambda name: cost[name]), figures


def _setting_suspects(*given: Any) -> dict[str, Any]:
    return {
        message: _setting(*given, slip=slip)
        for slip, message in {
            "luckiest": "the best of several seeds is luck: the figure is the mean",
            "divisor": "divide by one less than the number of seeds: the mean was taken from them",
            "deviation": "this is how far seeds lie apart: the error of their mean is smaller, by "
            "the root of their number",
            "dearest": "the best mean is not the answer: a cheaper one within its error will do",
            "cheapest": "the cheapest must be as good as the best, up to one standard error",
            "twice": "one standard error below the best mean, not two",
        }.items()
    }


@choose_setting.case("three settings, four seeds, by hand", points=1)
def _(t: Toolbox, choose_setting: Any) -> None:
    for middle in (0.86, 0.84):
        scores = {
            "large": [0.90, 0.86, 0.90, 0.86],  # mean 0.88, error 0.0115
            "middle": [middle + 0.01, middle + 0.02, middle + 0.01, middle],
            "small": [0.80, 0.91, 0.78, 0.79],
        }
        given = (scores, {"large": 4.0, "middle": 2.0, "small": 1.0})
        t.decision(choose_setting(*given), _setting(*given), suspects=_setting_suspects(*given))


@choose_setting.case("any scores", points=2)
def _(t: Toolbox, choose_setting: Any) -> None:
    alike = {"slow": [0.875, 0.875], "quick": [0.75, 0.9375]}  # the best has no error at all
    given = (alike, {"slow": 3.0, "quick": 1.0})
    t.decision(choose_setting(*given), _setting(*given), suspects=_setting_suspects(*given))
    for below in (0.5, 0.9, 1.2, 1.8, 3.0, 0.7):
        seeds = t.integer(3, 8)
        top = [0.8 + 0.04 * t.random.random() for _ in range(seeds)]
        mean = sum(top) / seeds
        error = math.sqrt(sum((x - mean) ** 2 for x in top) / (seeds - 1) / seeds)
        apart = [t.random.random() for _ in range(seeds)]
        shift = mean - below * error - 0.09 * sum(apart) / seeds
        low = [0.5 + 0.02 * t.random.random() for _ in range(seeds - 1)] + [0.97]
        scores = {"slow": top, "quick": [shift + 0.09 * x for x in apart], "tiny": low}
        names = list(scores)
        t.random.shuffle(names)
        given = (
            {name: scores[name] for name in names},
            {"slow": 3.0 + t.random.random(), "quick": 2.0, "tiny": t.random.random()},
        )
        t.decision(choose_setting(*given), _setting(*given), suspects=_setting_suspects(*given))

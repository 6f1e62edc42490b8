"""Project 93, at the end of "how it learns": the learner's head on a trained BERT, fine-tuned."""

from __future__ import annotations

import copy
import math
import random
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.checkpoints.pretrained import find_directory
from bertlearn.checks.core import Check, Failed, Toolbox
from bertlearn.data.sources import SourceError
from bertlearn.data.tasks import Task, load_task
from bertlearn.data.tasks.records import Classified
from bertlearn.engine.fill import tokenizer_of
from bertlearn.finetuning import finetune, predict, text_rows
from bertlearn.model import BertModel
from bertlearn.pretraining import Row
from bertlearn.tokenization import BertTokenizer

TASK, MODEL = "rotten-tomatoes", "minilm"
LEARNED, TESTED, TOKENS = 320, 300, 32
TRAINED_LAYERS, EPOCHS, SIZE, RATE = 2, 2, 16, 3e-4
LEAD = 0.04

pooled_head = Check(
    "93.pooled_head",
    "your own head, fine-tuned on sentences about films",
    ("PooledHead",),
    kind="implement",
    difficulty=4,
    minutes=60,
    seconds=20,
    reminder="Both pools look at real tokens only, each text by itself.",
)


# ---- the piece alone ------------------------------------------------------------------------


def _weights(t: Toolbox, hidden: int, labels: int) -> dict[str, Tensor]:
    return {
        "score.weight": 2 * t.randn(1, hidden) / hidden**0.5,
        "classifier.weight": t.randn(labels, 2 * hidden) / hidden**0.5,
        "classifier.bias": t.randn(labels),
    }


def _made(t: Toolbox, cls: Any, weights: dict[str, Tensor]) -> Any:
    """The answer with these weights, or a sentence about its parameters."""
    labels, double = weights["classifier.weight"].shape
    module = t.module(cls(double // 2, labels))
    shapes = {name: tuple(x.shape) for name, x in module.state_dict().items()}
    wanted = {name: tuple(x.shape) for name, x in weights.items()}
    t.that(
        shapes == wanted,
        "the parameters must be score = nn.Linear(hidden, 1, bias=False) and "
        "classifier = nn.Linear(2 * hidden, labels)",
        expected=", ".join(f"{k} {v}" for k, v in wanted.items() if shapes.get(k) != v),
        got=", ".join(f"{k} {v}" for k, v in shapes.items() if wanted.get(k) != v) or "not there",
    )
    module.load_state_dict(weights)
    return module.eval()


def _logits(w: dict[str, Tensor], states: Tensor, mask: Tensor) -> Tensor:
    """Text by text, without padding, and so without a mask."""
    rows = []
    for text, real in zip(states, mask.bool(), strict=True):
        words = text[real]  # (tokens, hidden)
        shares = (words @ w["score.weight"][0]).softmax(dim=0)
        both = torch.cat([shares @ words, words.max(dim=0).values])
        rows.append(F.linear(both, w["classifier.weight"], w["classifier.bias"]))
    return torch.stack(rows)


def _mistaken(how: str, w: dict[str, Tensor], states: Tensor, mask: Tensor) -> Tensor:
    """The logits of a head that makes one of the well-known mistakes."""
    real = mask.bool()[:, :, None]  # (batch, seq, 1)
    scores = F.linear(states, w["score.weight"])
    if how not in ("padding weighed", "no mask"):
        scores = scores.masked_fill(~real, torch.finfo(states.dtype).min)
    axis = {"over batch": 0, "over hidden": 2}.get(how, 1)
    shares = scores.softmax(axis)
    if how == "after":
        shares = F.linear(states, w["score.weight"]).softmax(1) * real
    if how == "mean":
        shares = real / real.sum(1, keepdim=True)
    if how == "cls":
        shares = torch.zeros_like(scores)
        shares[:, 0] = 1
    seen = states.masked_fill(~real, -math.inf)
    if how in ("padding in the maximum", "no mask"):
        seen = states
    elif how == "zeros":
        seen = states * real
    parts = [(shares * states).sum(1), seen.amax(1)]
    if how == "averaged":
        parts[0] = (shares * states).mean(1)
    if how == "other order":
        parts.reverse()
    logits = F.linear(torch.cat(parts, -1), w["classifier.weight"], w["classifier.bias"])
    return logits.softmax(-1) if how == "probabilities" else logits


MISTAKES = {
    "padding weighed": "padding takes a share of the weights: hide it before softmax",
    "after": "padding is hidden after softmax: what it took is lost, and the shares of the real "
    "tokens sum to less than 1",
    "padding in the maximum": "the maximum looks at padding too",
    "zeros": "padding was set to 0 before the maximum: 0 is larger than every negative number, "
    "set it to the lowest number",
    "no mask": "the mask has no effect: padding is weighed, and seen by the maximum",
    "over batch": "softmax runs over the texts of the batch: over the tokens of a text is dim=1",
    "over hidden": "all shares are 1: softmax runs over an axis of length 1, not over the tokens",
    "mean": "every token has the same share: use the scores of your own query",
    "cls": "the first pool is the [CLS] vector, not the weighted mean of all tokens",
    "averaged": "the weighted vectors are averaged: the shares sum to 1 already, so add them",
    "probabilities": "these are probabilities: return logits, the loss takes its own softmax",
    "other order": "the maximum stands before the weighted mean: the other way round",
}


def _suspects(w: dict[str, Tensor], states: Tensor, mask: Tensor) -> dict[str, Any]:
    return {said: lambda how=how: _mistaken(how, w, states, mask) for how, said in MISTAKES.items()}


def _texts(t: Toolbox, hidden: int) -> tuple[Tensor, Tensor]:
    """Vectors of three texts of different lengths, and which are real. Most numbers are negative
    in one column, as LayerNorm's shifts make them."""
    states = t.randn(3, 7, hidden) - torch.linspace(0, 2, hidden)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:], mask[2, 1:] = False, False
    return states, mask


@pooled_head.case("by hand: three tokens with the shares 1/2, 1/4, 1/4", points=2)
def _(t: Toolbox, cls: Any) -> None:
    weights = {
        "score.weight": torch.tensor([[1.0, 0.0]]),
        "classifier.weight": torch.eye(4),
        "classifier.bias": torch.zeros(4),
    }
    head = _made(t, cls, weights)
    states = torch.tensor([[[math.log(2), 4.0], [0.0, 8.0], [0.0, -4.0], [9.0, 99.0]]])
    mask = torch.tensor([[True, True, True, False]])
    got = head(states, mask)
    want = torch.tensor([[math.log(2) / 2, 2 + 2 - 1, math.log(2), 8.0]])
    t.close(got, want, "the logits", suspects=_suspects(weights, states, mask))


@pooled_head.case("texts of different lengths, each as if it were alone", points=3)
def _(t: Toolbox, cls: Any) -> None:
    for hidden, labels in ((10, 3), (16, 2)):
        weights = _weights(t, hidden, labels)
        head = _made(t, cls, weights)
        states, mask = _texts(t, hidden)
        for real in (mask, mask.long()):
            got = t.tensor(head(states, real), shape=(3, labels), name="the logits")
            want, suspects = _logits(weights, states, mask), _suspects(weights, states, mask)
            t.close(got, want, "the logits", suspects=suspects)
        far = states.masked_fill(~mask[:, :, None], 1e4)
        t.close(head(far, mask), want, "the logits when padding holds large numbers")


@pooled_head.case("gradients: for every parameter and every real token", points=2)
def _(t: Toolbox, cls: Any) -> None:
    weights = _weights(t, 12, 3)
    head, (states, mask) = _made(t, cls, weights), _texts(t, 12)
    upstream = t.randn(3, 3)
    leaves = {name: x.clone().requires_grad_() for name, x in weights.items()}
    below = states.clone().requires_grad_()
    (_logits(leaves, below, mask) * upstream).sum().backward()
    found = t.parameter_vjp(head, states, mask, cotangent=upstream)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        t.close(
            found[name],
            leaf.grad,
            f"the gradient of {name}",
            suspects={
                f"no gradient reaches {name}: is a part detached?": torch.zeros_like(leaf.grad)
            },
        )
    (got,) = t.vjp(lambda x: head(x, mask), states, cotangent=upstream)
    assert below.grad is not None
    t.close(got, below.grad, "the gradient of the token vectors")


# ---- the piece at work ----------------------------------------------------------------------


class Classifier(nn.Module):
    """A trained encoder below an answer's head, as the loop of chapter 10 takes it."""

    def __init__(self, bert: BertModel, head: nn.Module):
        super().__init__()
        self.bert, self.head, self.config = bert, head, bert.config
        self.dropout = nn.Dropout(0.1)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SimpleNamespace:
        """Logits ``(batch, labels)``, and their loss if labels are given."""
        states = self.bert(input_ids, token_type_ids, attention_mask).last_hidden_state
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        logits = self.head(self.dropout(states), real.bool())
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)


@cache
def _films() -> tuple[Task, BertTokenizer, BertModel]:
    """The task, the tokenizer, the model with its lower layers frozen."""
    try:
        task, model = load_task(TASK), BertModel.from_pretrained(MODEL)
    except (SourceError, FileNotFoundError) as error:
        raise Failed(
            f"text or weights are not on this machine: bertlearn data fetch {TASK} {MODEL} "
            f"({error})"
        ) from None
    layers = len(model.encoder.layer)
    model.requires_grad_(False)
    for layer in model.encoder.layer[layers - TRAINED_LAYERS :]:
        layer.requires_grad_(True)
    return task, tokenizer_of(find_directory(MODEL)), model


def _rows(records: list[Classified], task: Task, tokenizer: BertTokenizer) -> list[Row]:
    numbers = [task.labels.index(record.label) for record in records]
    return text_rows(tokenizer, [record.text for record in records], numbers, 512)


def _drawn(t: Toolbox) -> tuple[list[Row], list[Row]]:
    """Sentences to learn from, and some on other films: short ones, fresh each time."""
    task, tokenizer, _ = _films()
    found = []
    for records, count in ((task.train, LEARNED), (task.test, TESTED)):
        texts = [record for record in records if isinstance(record, Classified)]
        mixed = t.random.sample(texts, len(texts))
        rows = _rows([r for r in mixed if len(r.text) < 4 * TOKENS][: 2 * count], task, tokenizer)
        found.append([row for row in rows if len(row.ids) <= TOKENS][:count])
    return found[0], found[1]


def _counted_words(learned: list[Row], tested: list[Row], vocab: int) -> float:
    """The baseline: naive Bayes on the same pieces, with one added to each count."""
    counts = torch.ones(2, vocab, dtype=torch.float64)
    for row in learned:
        counts[row.label] += torch.bincount(torch.tensor(row.ids[1:-1]), minlength=vocab)
    logs = (counts / counts.sum(dim=1, keepdim=True)).log()
    right = [int(logs[:, row.ids[1:-1]].sum(1).argmax()) == row.label for row in tested]
    return sum(right) / len(right)


def _first_the_piece(t: Toolbox, cls: Any) -> None:
    """A head that is not right yet is not worth the time of training."""
    for case in pooled_head.cases[:-1]:
        try:
            case.function(Toolbox(t.seed), cls)
        except Failed as failure:
            raise Failed(f"not trained yet: first, {failure}") from None


@pooled_head.case(
    "fine-tuned on 320 sentences it beats counted words on films never seen", points=3
)
def _(t: Toolbox, cls: Any) -> None:
    _first_the_piece(t, cls)
    _, tokenizer, trained = _films()
    learned, tested = _drawn(t)
    torch.manual_seed(t.integer(0, 1 << 30))
    head = t.module(cls(trained.config.hidden_size, 2))
    model = Classifier(copy.deepcopy(trained), head)
    shuffle = random.Random(t.integer(0, 1 << 30))
    finetune(model, learned, 0, shuffle, epochs=EPOCHS, size=SIZE, rate=RATE)
    guesses = torch.stack(predict(model, tested, 0)).argmax(dim=-1)
    truth = torch.tensor([row.label for row in tested])
    accuracy = float((guesses == truth).float().mean())
    most = float(truth.bincount().max()) / len(truth)
    base = max(most, _counted_words(learned, tested, tokenizer.vocab_size))
    t.that(
        accuracy >= base + LEAD,
        "after fine-tuning the model is hardly better than counted words, or than the more "
        "frequent answer: how does your head start? Its first weights may be much too large",
        expected=f"at least {base + LEAD:.1%}, {LEAD:.0%} above the baseline's {base:.1%}",
        got=f"{accuracy:.1%} of {len(tested)} sentences",
    )

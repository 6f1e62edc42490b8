"""What blanks and the head that fills them must do (chapter 06), and the exercises' questions."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn.checks.core import Check, Toolbox
from bertlearn.config import BertConfig

IGNORED = -100
PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = [PAD, UNK, CLS, SEP, MASK]
VOCAB = 55  # five special ids, fifty ordinary ones


def _texts(t: Toolbox, rows: int = 400, seq: int = 42) -> Tensor:
    """Random texts [CLS] ... [SEP], the last third padded."""
    ids = t.ids(VOCAB, rows, seq, low=len(SPECIAL))
    ids[:, 0], ids[:, 9] = CLS, UNK
    ids[:, -1] = SEP
    ids[2 * rows // 3 :, 31] = SEP
    ids[2 * rows // 3 :, 32:] = PAD
    return ids


def _allowed(ids: Tensor) -> Tensor:
    return ids > MASK


def _rng(t: Toolbox) -> torch.Generator:
    return torch.Generator().manual_seed(t.integer(0, 10**6))


def _near(share: float, want: float, draws: int) -> bool:
    """Within five standard deviations of what chance allows."""
    return abs(share - want) <= 5 * math.sqrt(max(want * (1 - want), 1e-4) / draws)


# ---- definitions: which tokens --------------------------------------------------------------

tokens = Check("06.choose_tokens", "the tokens to ask for", ("choose_tokens",))


@tokens.case("only where it is allowed, round(0.15 n) in each row, at least one")
def _(t: Toolbox, choose: Any) -> None:
    allowed = _allowed(_texts(t))
    chosen = t.tensor(choose(allowed, _rng(t)), shape=allowed.shape, dtype=torch.bool)
    t.that(
        not bool((chosen & ~allowed).any()),
        "special tokens or padding are asked for: choose among the allowed places only",
    )
    size = allowed.sum(1)
    want = torch.tensor([max(1, round(0.15 * n)) for n in size.tolist()])
    t.equal(
        chosen.sum(1),
        want,
        "the number of targets in each row",
        suspects={
            "you count padding and special tokens in the length: 15 percent of what is allowed": (
                torch.full_like(want, max(1, round(0.15 * allowed.shape[1])))
            ),
        },
    )
    short = choose(torch.tensor([[False, True, False], [False] * 3]), _rng(t))
    t.equal(short.sum(1), torch.tensor([1, 0]), "the number of targets of a one-word and no text")


@tokens.case("every place is as likely as any other, and each call draws anew")
def _(t: Toolbox, choose: Any) -> None:
    allowed, rng = torch.ones(1500, 20, dtype=torch.bool), _rng(t)
    first, second = choose(allowed, rng), choose(allowed, rng)
    t.that(not torch.equal(first, second), "two calls give the same blanks: draw from rng")
    share = first.double().mean(0)
    t.that(
        all(_near(s, 0.15, 1500) for s in share.tolist()),
        "some places are asked for more often than others: put the places into a random order",
    )


@tokens.case("exact=False draws for each token on its own")
def _(t: Toolbox, choose: Any) -> None:
    allowed = torch.ones(1500, 20, dtype=torch.bool)
    chosen = choose(allowed, _rng(t), 0.3, exact=False)
    count = chosen.sum(1).double()
    t.that(_near(chosen.double().mean().item(), 0.3, 30_000), "exact=False misses the rate")
    t.that(
        abs(count.var().item() - 20 * 0.3 * 0.7) < 0.8,
        "with exact=False the number of targets in a row must vary as that of independent draws",
    )


words = Check("06.choose_words", "whole words to ask for", ("choose_words",))


def _words(t: Toolbox, rows: int, seq: int) -> Tensor:
    """Words of one to four tokens."""
    lengths = t.ids(5, rows, seq, low=1)
    return torch.stack([torch.arange(seq).repeat_interleave(one)[:seq] for one in lengths])


@words.case("all pieces of a word or none, within the budget, where it is allowed")
def _(t: Toolbox, choose: Any) -> None:
    allowed = _allowed(_texts(t, 60))
    number = _words(t, *allowed.shape)
    chosen = t.tensor(choose(allowed, number, _rng(t)), shape=allowed.shape, dtype=torch.bool)
    t.that(not bool((chosen & ~allowed).any()), "special tokens or padding are asked for")
    halves = over = 0
    for row, may, of in zip(chosen, allowed, number, strict=True):
        over += int(row.sum()) > max(1, round(0.15 * int(may.sum())))
        for word in of[may].unique():
            pieces = row[may & (of == word)]
            halves += bool(pieces.any()) and not bool(pieces.all())
    t.that(halves == 0, "a word is hidden in part: its other pieces give it away")
    t.that(over == 0, "a word that exceeds the budget must be passed over, not cut and not taken")
    t.that(bool(chosen.any()), "nothing is chosen")


@words.case("words of one token use the budget up")
def _(t: Toolbox, choose: Any) -> None:
    allowed = torch.ones(60, 40, dtype=torch.bool)
    chosen = choose(allowed, torch.arange(40).expand(60, 40), _rng(t))
    t.equal(chosen.sum(1), torch.full((60,), 6), "the number of targets")


@words.case("exact=False draws for each word on its own")
def _(t: Toolbox, choose: Any) -> None:
    number = (torch.arange(30) // 3).expand(600, 30)
    chosen = choose(torch.ones(600, 30, dtype=torch.bool), number, _rng(t), 0.3, exact=False)
    t.that(
        _near(chosen.double().mean().item(), 0.3, 6_000),
        "exact=False misses the rate: it is the share of words that are drawn",
    )


replace = Check("06.replace_tokens", "what stands in a blank", ("replace_tokens",))


def _replaced(t: Toolbox, function: Any, mix: tuple[float, float, float]) -> list[float]:
    """Shares of [MASK], another word and the same word among the chosen."""
    ids, ordinary = t.ids(VOCAB, 400, 30, low=5), torch.arange(5, VOCAB)
    before = ids.clone()
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen[:, ::2] = True
    got = t.tensor(function(ids, chosen, _rng(t), MASK, ordinary, mix), shape=ids.shape)
    t.that(torch.equal(ids, before), "the ids that were given are changed: return a new tensor")
    t.that(torch.equal(got[~chosen], ids[~chosen]), "tokens that were not chosen are changed")
    blank, true = got[chosen], ids[chosen]
    masked, same = blank == MASK, blank == true
    return [one.double().mean().item() for one in (masked, ~masked & ~same, same)]


@replace.case("80 percent [MASK], 10 percent a random word, 10 percent as it was")
def _(t: Toolbox, function: Any) -> None:
    got = _replaced(t, function, (0.8, 0.1, 0.1))
    want = [0.8, 0.1 * 49 / 50, 0.1 + 0.1 / 50]
    t.that(
        not (_near(got[0], 0.8, 6000) and _near(got[1], 0.02, 6000)),
        "the mixture is 80/2/18: the second draw is made among what the first left over, and 10 "
        "percent of all are half of that rest",
    )
    t.that(
        not (_near(got[0], 0.9, 6000) and _near(got[1], 0.05, 6000)),
        "the mixture is 90/5/5: half of the remaining tenth, but a fifth must remain",
    )
    shown = "/".join(f"{100 * share:.1f}" for share in got)
    t.that(
        all(_near(g, w, 6000) for g, w in zip(got, want, strict=True)),
        f"the mixture is {shown}: draw once for each place and cut the draw at 0.8 and 0.9",
        expected="80/9.8/10.2 (one random word in fifty is the true one)",
        got=shown,
    )


@replace.case("another mixture")
def _(t: Toolbox, function: Any) -> None:
    got = _replaced(t, function, (0.2, 0.5, 0.3))
    want = [0.2, 0.5 * 49 / 50, 0.3 + 0.5 / 50]
    t.that(
        all(_near(g, w, 6000) for g, w in zip(got, want, strict=True)),
        "the argument mix does not count",
    )


@replace.case("random words come from the ordinary ids, all alike")
def _(t: Toolbox, function: Any) -> None:
    ids, ordinary = torch.full((200, 30), 7), torch.arange(5, VOCAB)
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    got = function(ids, everywhere, _rng(t), MASK, ordinary, (0.0, 1.0, 0.0))
    t.that(
        bool((got > MASK).all()),
        "a random word is a special token: draw from the ordinary ids, not from all of them",
    )
    share = torch.bincount(got.flatten(), minlength=VOCAB)[5:].double() / got.numel()
    t.that(
        all(_near(s, 1 / 50, 6000) for s in share.tolist()),
        "some random words come more often than others: draw uniformly from the ordinary ids",
    )


mask = Check("06.mask_tokens", "blanks in a batch, and their labels", ("mask_tokens",))


def _masked(t: Toolbox, function: Any, ids: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    given = {"vocab_size": VOCAB, "mask_id": MASK, "special_ids": SPECIAL, **more}
    rng = given.pop("rng", None) or _rng(t)
    blanks, labels = function(ids, rng, **given)
    t.tensor(blanks, shape=ids.shape, dtype=ids.dtype, name="the ids with blanks")
    t.tensor(labels, shape=ids.shape, dtype=ids.dtype, name="the labels")
    return blanks, labels


@mask.case("labels are the true ids where one is asked for, -100 elsewhere")
def _(t: Toolbox, function: Any) -> None:
    ids = _texts(t)
    blanks, labels = _masked(t, function, ids)
    t.that(
        bool((labels == IGNORED).any()),
        "every token is asked for, or the label elsewhere is not -100",
        expected="-100 where no word is asked for",
        got=f"the label {int(labels[0, 0])} at [CLS]",
    )
    asked = labels != IGNORED
    t.that(bool(asked.any()), "nothing is asked for")
    t.that(
        not bool((asked & ~_allowed(ids)).any()),
        "special tokens or padding are asked for: they are no words",
    )
    t.that(
        not torch.equal(labels[asked], blanks[asked]),
        "the labels are what stands in the blank: take them before the blanks are made",
    )
    shifted = asked.roll(1, 1) & (ids.roll(1, 1) == labels)
    t.that(
        torch.equal(labels[asked], ids[asked]),
        "the labels are shifted: a blank asks for the word in its own place"
        if bool(shifted.sum() > asked.sum() / 2) or bool((labels == ids.roll(-1, 1))[asked].all())
        else "the labels are not the true ids",
    )
    t.that(torch.equal(blanks[~asked], ids[~asked]), "a token is changed that is not asked for")
    count = asked.sum(1)
    want = torch.tensor([max(1, round(0.15 * int(n))) for n in _allowed(ids).sum(1)])
    t.equal(count, want, "the number of targets in each row")


@mask.case("most targets are [MASK], some another ordinary word, some themselves")
def _(t: Toolbox, function: Any) -> None:
    ids = _texts(t)
    blanks, labels = _masked(t, function, ids)
    asked = labels != IGNORED
    new, draws = blanks[asked], int(asked.sum())
    t.that(
        not bool(torch.isin(new[new != MASK], torch.tensor([PAD, UNK, CLS, SEP])).any()),
        "a random word is a special token",
    )
    shares = [(new == MASK), (new != MASK) & (new != ids[asked]), (new == ids[asked])]
    got = [one.double().mean().item() for one in shares]
    shown = "/".join(f"{100 * one:.1f}" for one in got)
    want = (0.8, 0.098, 0.102)
    t.that(
        all(_near(g, w, draws) for g, w in zip(got, want, strict=True)),
        f"the mixture is {shown}, it must be near 80/10/10",
    )


@mask.case("each call asks for other words, the same generator for the same")
def _(t: Toolbox, function: Any) -> None:
    ids, seed = _texts(t), t.integer(0, 10**6)
    rng = torch.Generator().manual_seed(seed)
    first, second = _masked(t, function, ids, rng=rng), _masked(t, function, ids, rng=rng)
    t.that(
        not torch.equal(first[1], second[1]),
        "two calls ask for the same words: that is static masking, draw from rng at each call",
    )
    again = _masked(t, function, ids, rng=torch.Generator().manual_seed(seed))
    t.that(
        torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]),
        "the same generator gives other blanks: draw from rng and from nothing else",
    )


@mask.case("whole words, and arguments that make no sense")
def _(t: Toolbox, function: Any) -> None:
    ids = _texts(t, 60)
    number = (torch.arange(ids.shape[1]) // 2).expand_as(ids)
    _, labels = _masked(t, function, ids, words=number)
    whole = (labels != IGNORED) | ~_allowed(ids)
    pairs = (labels != IGNORED).unfold(1, 2, 2).any(-1)
    t.that(
        bool(whole.unfold(1, 2, 2).all(-1)[pairs].all()),
        "with words given, a word is hidden in part",
    )
    for wrong in ({"rate": 0.0}, {"rate": 15}, {"mix": (0.8, 0.1, 0.2)}, {"mask_id": VOCAB}):
        try:
            _masked(t, function, ids, **wrong)
        except ValueError:
            continue
        t.that(False, f"{wrong} must raise ValueError")


numbers = Check("06.word_numbers", "which word a token belongs to", ("word_numbers",))


@numbers.case("tokens of one word share a number, neighbors do not")
def _(t: Toolbox, word_numbers: Any) -> None:
    #          [CLS]   我      喜      欢      ber     ##t     。     [SEP]
    offsets = [(0, 0), (0, 1), (1, 2), (2, 3), (4, 7), (7, 8), (8, 9), (0, 0)]
    got = word_numbers(offsets, [(0, 1), (1, 3), (4, 8), (8, 9)])
    t.that(isinstance(got, list) and len(got) == 8, "one number for each token is wanted")
    t.that(got[2] == got[3], "喜欢 is one word: its two characters share a number")
    t.that(got[4] == got[5], "the pieces of one word share a number")
    neighbors = [(0, 1), (1, 2), (3, 4), (5, 6), (6, 7)]
    t.that(
        all(got[i] != got[j] for i, j in neighbors),
        "neighbors that are no word together have the same number",
    )


@numbers.case("special tokens and what no word covers stand alone")
def _(t: Toolbox, word_numbers: Any) -> None:
    got = word_numbers([(0, 0), (0, 2), (2, 3), (3, 4), (0, 0), (0, 0)], [(0, 2)])
    t.that(
        len(set(got)) == 6,
        "special tokens, and tokens outside of all words, need numbers of their own",
    )


# ---- definitions: the head ------------------------------------------------------------------

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def _config(**changes: Any) -> BertConfig:
    return BertConfig(**{**SIZES, **changes})


def _transform_weights(t: Toolbox, hidden: int) -> dict[str, Tensor]:
    return {
        "dense.weight": t.randn(hidden, hidden) / hidden**0.5,
        "dense.bias": t.randn(hidden) / 4,
        "LayerNorm.weight": 1 + t.randn(hidden) / 4,
        "LayerNorm.bias": t.randn(hidden) / 4,
    }


def _transformed(w: dict[str, Tensor], x: Tensor, *, act: Any = F.gelu, last: str = "") -> Tensor:
    x = F.linear(x, w["dense.weight"], w["dense.bias"])
    norm = (x.shape[-1:], w["LayerNorm.weight"], w["LayerNorm.bias"], 1e-12)
    if last == "none":
        return act(x)
    return act(F.layer_norm(x, *norm)) if last == "act" else F.layer_norm(act(x), *norm)


transform = Check(
    "06.BertPredictionHeadTransform",
    "a token's vector, made ready for the comparison",
    ("BertPredictionHeadTransform",),
)


@transform.case("dense, activation, LayerNorm, in this order")
def _(t: Toolbox, cls: Any) -> None:
    weights, x = _transform_weights(t, 24), t.randn(2, 5, 24)
    module = cls(_config())
    module.load_state_dict(weights)
    with torch.no_grad():
        got = module(x)
    t.close(
        got,
        _transformed(weights, x),
        "the transformed vectors",
        suspects={
            "LayerNorm comes last, after the activation": _transformed(weights, x, last="act"),
            "LayerNorm is missing": _transformed(weights, x, last="none"),
            "the activation is missing": _transformed(weights, x, act=lambda y: y),
            "the activation is not the configured one": _transformed(weights, x, act=torch.tanh),
        },
    )


lm_head = Check("06.BertLMPredictionHead", "a score for each word", ("BertLMPredictionHead",))


@lm_head.case("the transformed vector times the table, plus a bias: logits")
def _(t: Toolbox, cls: Any) -> None:
    inner, x = _transform_weights(t, 24), t.randn(2, 5, 24)
    table, bias = t.randn(40, 24), t.randn(40)
    head = cls(_config())
    state = {f"transform.{name}": value for name, value in inner.items()}
    names = {*state, "decoder.weight", "decoder.bias", "bias"}
    t.equal(sorted(head.state_dict()), sorted(names), "the names of the parameters")
    head.load_state_dict({**state, "decoder.weight": table, "decoder.bias": bias, "bias": bias})
    with torch.no_grad():
        got = head(x)
    want = _transformed(inner, x) @ table.T + bias
    t.close(
        got,
        want,
        "the scores",
        suspects={
            "these are probabilities: cross entropy takes the softmax itself": want.softmax(-1),
            "these are log-probabilities: give the scores as they are": want.log_softmax(-1),
            "the bias is missing: it holds how frequent each word is": want - bias,
            "the transform is missing": x @ table.T + bias,
        },
    )


@lm_head.case("tie_weights shares one table and one bias")
def _(t: Toolbox, cls: Any) -> None:
    head, table = cls(_config()), torch.nn.Embedding(40, 24)
    head.tie_weights(table)
    t.that(
        head.decoder.weight is table.weight,
        "the decoder has a matrix of its own: it must be the table itself, not a copy",
    )
    t.that(head.decoder.bias is head.bias, "the bias must be one parameter under its two names")


loss = Check("06.masked_lm_loss", "a loss over the targets only", ("masked_lm_loss",))


class _Head(torch.nn.Module):
    """A linear map that writes down how many vectors it was given."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(weight), 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x[..., 0].numel()
        return x @ self.weight


def _labels(t: Toolbox, batch: int, seq: int, vocab: int) -> Tensor:
    labels = t.ids(vocab, batch, seq, low=1)
    labels[:, ::2] = IGNORED
    labels[0, 1] = 0  # an id like any other
    return labels


@loss.case("the mean over the targets, each counted once")
def _(t: Toolbox, masked_lm_loss: Any) -> None:
    head, x = _Head(t.randn(12, 9)), t.randn(3, 7, 12)
    labels = _labels(t, 3, 7, 9)
    labels[1, 3:] = IGNORED  # rows with different numbers of targets
    _, got = masked_lm_loss(head, x, labels)
    nll = -(x @ head.weight).log_softmax(-1)
    asked = labels != IGNORED
    each = nll.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * asked
    without_zero = asked & (labels != 0)
    double = -(x @ head.weight).softmax(-1).log_softmax(-1)
    rows = (each.sum(1) / asked.sum(1)).mean()
    t.close(
        got,
        (each.sum() / asked.sum()).detach(),
        "the loss",
        suspects={
            "this is the mean over all tokens: padding and visible words do not count": (
                each.mean().detach()
            ),
            "every token is a target here: only the places with a label are": (
                nll.gather(-1, labels.clamp(min=0)[..., None]).mean().detach()
            ),
            "the id 0 is left out: ignore_index must be -100, 0 is an id": (
                ((each * without_zero).sum() / without_zero.sum()).detach()
            ),
            "this is the sum: divide by the number of targets": each.sum().detach(),
            "this is the mean of the rows' means: each target counts once": rows.detach(),
            "softmax is taken twice: cross entropy takes it itself": (
                (
                    (double.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * asked).sum()
                    / asked.sum()
                ).detach()
            ),
        },
    )


@loss.case("scores are computed at the targets only")
def _(t: Toolbox, masked_lm_loss: Any) -> None:
    head, x = _Head(t.randn(12, 9)), t.randn(3, 7, 12)
    labels = _labels(t, 3, 7, 9)
    asked = labels != IGNORED
    logits, _ = masked_lm_loss(head, x, labels)
    t.that(
        head.seen == int(asked.sum()),
        f"the head saw {head.seen} vectors for {int(asked.sum())} targets: pick the targets first",
    )
    t.close(logits, (x @ head.weight)[asked].detach(), "the scores at the targets")


@loss.case("without labels all scores and no loss; without a target a loss of 0")
def _(t: Toolbox, masked_lm_loss: Any) -> None:
    head, x = _Head(t.randn(12, 9)), t.randn(3, 7, 12)
    logits, none = masked_lm_loss(head, x, None)
    t.that(none is None, "without labels the loss must be None")
    t.close(logits, (x @ head.weight).detach(), "the scores without labels")
    _, zero = masked_lm_loss(head, x, torch.full((3, 7), IGNORED))
    t.that(bool(torch.isfinite(zero)), "a batch without a target gives nan: 0 targets, loss 0")
    t.close(zero, 0.0, "the loss without a target")


model = Check("06.BertForMaskedLM", "BERT that fills blanks", ("BertForMaskedLM",))


def _model(t: Toolbox, cls: Any, **changes: Any) -> Any:
    """A model with random weights that are not small."""
    one = cls(_config(**changes)).eval()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.copy_(t.randn(*parameter.shape) / 4)
    return one


@model.case("decoder and token embeddings are one table")
def _(t: Toolbox, cls: Any) -> None:
    one = cls(_config())
    t.that(
        one.cls.predictions.decoder.weight is one.bert.embeddings.word_embeddings.weight,
        "the decoder's matrix is not the table of token embeddings: tie them",
    )
    t.that(
        "bert.pooler.dense.weight" not in one.state_dict(),
        "no pooler is wanted here: nothing reads it",
    )


@model.case("fresh weights know nothing: a loss of about ln V")
def _(t: Toolbox, cls: Any) -> None:
    torch.manual_seed(t.integer(0, 1000))
    one = cls(_config(vocab_size=500)).eval()
    ids = t.ids(500, 8, 12, low=5)
    with torch.no_grad():
        got = one(ids, labels=ids).loss.item()
    t.that(
        abs(got - math.log(500)) < 0.2,
        f"a fresh model has a loss of {got:.2f}, a guess has ln 500 = 6.21: are the head's "
        "weights drawn with init_weights?",
    )


@model.case("scores at the targets, the mean loss, padding left out")
def _(t: Toolbox, cls: Any) -> None:
    one = _model(t, cls)
    ids, real = t.ids(40, 3, 9, low=5), torch.ones(3, 9, dtype=torch.int64)
    real[1, 5:] = 0
    labels = torch.full_like(ids, IGNORED)
    labels[:, 1:4] = ids[:, 1:4]
    types = t.ids(2, 3, 9)
    with torch.no_grad():
        everywhere = one(ids, types, real).logits
        out = one(ids, types, real, labels=labels)
        other = one(ids.where(real == 1, 7), types, real, labels=labels)
    t.tensor(everywhere, shape=(3, 9, 40), name="the logits without labels")
    want = everywhere[labels != IGNORED]
    t.close(out.logits, want, "the logits at the targets", atol=1e-4)
    t.close(
        out.loss,
        F.cross_entropy(want, labels[labels != IGNORED]).item(),
        "the loss",
        atol=1e-4,
        suspects={
            "every token is a target here": F.cross_entropy(
                everywhere.flatten(0, 1), ids.flatten()
            ).item(),
            "the mask is ignored": math.nan,
        },
    )
    t.close(other.loss, out.loss.item(), "the loss with other words in the padding", atol=1e-4)


@model.case("a blank hears both sides")
def _(t: Toolbox, cls: Any) -> None:
    one = _model(t, cls)
    ids = t.ids(40, 1, 9, low=5)
    with torch.no_grad():
        before = one(ids).logits[0, 4]
        moved = []
        for place in (1, 7):
            other = ids.clone()
            other[0, place] = (ids[0, place] - 5 + 1) % 35 + 5
            moved.append(not torch.allclose(one(other).logits[0, 4], before, atol=1e-4))
    t.that(moved[0], "a word to the left does not change the scores of a blank")
    t.that(moved[1], "a word to the right does not change the scores of a blank")


# ---- questions ------------------------------------------------------------------------------

spans = Check(
    "06.choose_spans",
    "blanks of several neighbors",
    ("choose_spans",),
    kind="implement",
    difficulty=4,
    minutes=30,
    reminder="Draw a start and a length, walk to the right, stop at whatever is not allowed.",
)


def _runs(chosen: Tensor) -> list[int]:
    """Lengths of the runs of True."""
    text = "".join("x" if one else "." for one in chosen.tolist())
    return [len(run) for run in text.split(".") if run]


def _spans(t: Toolbox, choose: Any, allowed: Tensor, **given: Any) -> Tensor:
    got = choose(allowed, _rng(t), **given)
    return t.tensor(got, shape=allowed.shape, dtype=torch.bool, name="choose_spans(...)")


@spans.case("as many tokens as the rate asks for, and only allowed ones", points=1)
def _(t: Toolbox, choose: Any) -> None:
    for _ in range(10):
        allowed = torch.ones(t.integer(20, 90), dtype=torch.bool)
        allowed[[0, 7, 8, -1]] = False
        got = _spans(t, choose, allowed, rate=0.3, shares=(0.4, 0.3, 0.2, 0.1))
        t.that(not bool((got & ~allowed).any()), "a token is chosen that is not allowed")
        want = max(1, round(0.3 * int(allowed.sum())))
        t.that(
            int(got.sum()) <= want,
            "more tokens are chosen than the rate asks for: cut the last span to what is left",
        )
        t.that(
            int(got.sum()) == want,
            "fewer tokens are chosen than the rate asks for: go on until the budget is used up",
        )
    for n in (3, 40):
        got = _spans(t, choose, torch.ones(n, dtype=torch.bool))
        want = max(1, round(0.15 * n))
        t.equal(int(got.sum()), want, f"the number of chosen tokens of {n}, if no rate is given")


@spans.case("all chance comes from the generator", points=1)
def _(t: Toolbox, choose: Any) -> None:
    allowed, seed, found = torch.ones(80, dtype=torch.bool), t.integer(0, 10**6), []
    for elsewhere in (1, 2, 3):
        torch.manual_seed(elsewhere)
        found.append(choose(allowed, torch.Generator().manual_seed(seed), rate=0.3))
    for other in found[1:]:
        t.that(
            torch.equal(t.tensor(other), t.tensor(found[0])),
            "the same generator gives other spans: pass generator=rng to each draw",
        )


@spans.case("a span ends where something is not allowed", points=1)
def _(t: Toolbox, choose: Any) -> None:
    allowed = torch.ones(60, dtype=torch.bool)
    allowed[::3] = False
    for _ in range(5):
        got = _spans(t, choose, allowed, rate=0.3, shares=(0.0, 0.0, 0.0, 1.0))
        t.that(not bool((got & ~allowed).any()), "a span runs across a token that is not allowed")
        t.that(int(got.sum()) == 12, "the number of chosen tokens must be round(0.3 * 40) = 12")


@spans.case("lengths come in the shares that are asked for, starts anywhere", points=1)
def _(t: Toolbox, choose: Any) -> None:
    allowed = torch.ones(400, dtype=torch.bool)
    counts, places = {1: 0, 2: 0, 3: 0, 4: 0}, torch.zeros(4)
    for _ in range(150):
        got = _spans(t, choose, allowed, rate=0.01, shares=(0.0, 0.0, 0.0, 1.0))
        run = _runs(got)
        places += got.view(4, 100).sum(1) / 4
        t.that(
            run == [4] or (sum(run) == 4 and len(run) <= 2),
            "with shares (0, 0, 0, 1) and a budget of four, the four tokens are neighbors",
        )
        counts[len(run)] += 1
    t.that(counts[1] >= 140, "spans of four are cut although the budget holds them")
    t.that(float(places.min()) > 15, "spans start in one part of the text: draw among all places")
    lengths = []
    for _ in range(60):
        got = _spans(t, choose, allowed, rate=0.02, shares=(0.5, 0.0, 0.0, 0.5))
        lengths += _runs(got)
    ones, fours = lengths.count(1) / len(lengths), lengths.count(4) / len(lengths)
    t.that(
        ones > 0.3 and fours > 0.2,
        "half of the spans must have one token and half of them four: shares[0] is for length 1",
        expected="about half and half",
        got=f"{ones:.0%} of length 1, {fours:.0%} of length 4",
    )


covered = Check(
    "06.coverage",
    "how many tokens are ever asked for",
    ("coverage",),
    kind="predict",
    difficulty=2,
    minutes=10,
    reminder="What is the chance that one token is never asked for, in all masks there are?",
)


@covered.case("dynamic: a new mask in each epoch", points=1)
def _(t: Toolbox, coverage: Any) -> None:
    rate, epochs = t.choice([0.1, 0.15, 0.2, 0.4]), t.integer(3, 9)
    t.close(
        coverage(rate, epochs, None),
        1 - (1 - rate) ** epochs,
        f"coverage({rate}, {epochs}, None)",
        suspects={
            "rates do not add up: a token may be drawn twice": min(1.0, rate * epochs),
            "this is the share that is never asked for": (1 - rate) ** epochs,
            "this is the share that is asked for every time": rate**epochs,
            "this is one epoch": rate,
        },
    )


@covered.case("static: some masks, made beforehand", points=1)
def _(t: Toolbox, coverage: Any) -> None:
    rate, copies = t.choice([0.1, 0.15, 0.2]), t.integer(2, 10)
    for epochs in (copies + t.integer(5, 30), copies - 1):
        t.close(
            coverage(rate, epochs, copies),
            1 - (1 - rate) ** min(copies, epochs),
            f"coverage({rate}, {epochs}, {copies})",
            suspects={
                "copies are used again: a second pass over the same masks asks for nothing new": (
                    1 - (1 - rate) ** epochs
                ),
                "with fewer epochs than copies, some copies are never read": (
                    1 - (1 - rate) ** copies
                ),
                "epochs and copies do not multiply": 1 - (1 - rate) ** (copies * epochs),
            },
        )


groups = Check(
    "06.word_groups",
    "whole words for Chinese, from a segmentation",
    ("word_groups",),
    kind="implement",
    difficulty=3,
    minutes=20,
    reminder="Walk through both lists at once. How many characters has each token?",
)


@groups.case("Chinese words", points=1)
def _(t: Toolbox, word_groups: Any) -> None:
    words = t.choice([["我", "喜欢", "图书馆", "。"], ["人民法院", "独立", "行使", "审判权"]])
    tokens, want, place = list("".join(words)), [], 0
    for word in words:
        want.append(list(range(place, place + len(word))))
        place += len(word)
    t.equal(
        word_groups(tokens, words),
        want,
        "word_groups(tokens, words)",
        suspects={
            "each character is a word of its own here: use the segmentation": (
                [[i] for i in range(len(tokens))]
            ),
            "these are ends, not places: give the number of every token of the word": (
                [[group[0], group[-1] + 1] for group in want]
            ),
            "these are the tokens: give their places": [list(word) for word in words],
        },
    )


@groups.case("pieces, and words that mix scripts", points=2)
def _(t: Toolbox, word_groups: Any) -> None:
    tokens = ["他", "用", "be", "##r", "##t", "做", "t", "恤", "的"]
    tokens += ["un", "##aff", "##able", "分", "类"]
    words = ["他", "用", "bert", "做", "t恤", "的", "unaffable", "分类"]
    want = [[0], [1], [2, 3, 4], [5], [6, 7], [8], [9, 10, 11], [12, 13]]
    t.equal(
        word_groups(tokens, words),
        want,
        "word_groups(tokens, words)",
        suspects={
            "the two characters of ## are no characters of the text": (
                [[0], [1], [2, 3], [4], [5, 6], [7], [8, 9, 10, 11], [12, 13]]
            ),
            "only pieces are joined here: the segmentation must decide": (
                [[0], [1], [2, 3, 4], [5], [6], [7], [8], [9, 10, 11], [12], [13]]
            ),
        },
    )


pseudo = Check(
    "06.pseudo_log_likelihood",
    "how likely is a sentence?",
    ("one_blank_each", "pseudo_log_likelihood"),
    kind="implement",
    difficulty=3,
    minutes=25,
    reminder="One copy of the sentence for each token. In copy i, only token i is hidden.",
)


def _sentence(t: Toolbox) -> Tensor:
    n = t.integer(4, 9)
    inner = t.ids(VOCAB, n, low=5)
    inner[n // 2] = UNK
    return torch.cat([torch.tensor([CLS]), inner, torch.tensor([SEP])])


@pseudo.case("one copy for each word, each with one blank", points=2)
def _(t: Toolbox, one_blank_each: Any, score: Any) -> None:
    ids = _sentence(t)
    places = [i for i, one in enumerate(ids.tolist()) if one > MASK]
    want = torch.stack([ids.clone() for _ in places])
    for row, place in enumerate(places):
        want[row, place] = MASK
    before = ids.clone()
    got = t.tensor(one_blank_each(ids, MASK, SPECIAL), name="one_blank_each(...)")
    t.that(torch.equal(ids, before), "the ids that were given are changed: copy them")
    every = torch.stack([ids.clone() for _ in ids])
    every.fill_diagonal_(MASK)
    left = want.clone()
    for row in range(1, len(places)):
        left[row, places[:row]] = MASK
    t.equal(
        got,
        want,
        "one_blank_each(...)",
        suspects={
            "special tokens are hidden, too: they are no words": every,
            "all words are hidden at once: hide one in each copy": (
                ids.masked_fill(ids > MASK, MASK).expand_as(want).contiguous()
            ),
            "blanks stay from copy to copy: each copy has one": left,
        },
    )


@pseudo.case("the sum of the true words' log-probabilities", points=2)
def _(t: Toolbox, one_blank_each: Any, score: Any) -> None:
    ids = _sentence(t)
    places = (ids > MASK).nonzero()[:, 0]
    logits = 2 * t.randn(len(places), len(ids), VOCAB)
    rows = torch.arange(len(places))
    log_p = logits.log_softmax(-1)
    picked = log_p[rows, places, ids[places]]
    t.close(
        score(logits, ids, SPECIAL),
        picked.sum().item(),
        "pseudo_log_likelihood(...)",
        atol=1e-3,
        suspects={
            "this is the mean: add up": picked.mean().item(),
            "these are probabilities: take logarithms": picked.exp().sum().item(),
            "the sign is turned: this is the loss": -picked.sum().item(),
            "these are logits: softmax is missing": logits[rows, places, ids[places]].sum().item(),
            "row i belongs to the i-th word, not to the i-th token: [CLS] has no row": (
                log_p[rows, rows, ids[rows]].sum().item()
            ),
            "all places of all copies are added: in copy i only its blank counts": (
                log_p[:, places].gather(-1, ids[places].expand(len(places), -1)[..., None]).sum()
            ),
        },
    )


baseline = Check(
    "06.unigram_loss",
    "the loss of knowing frequencies only",
    ("unigram_loss",),
    kind="measure",
    difficulty=2,
    minutes=15,
    reminder="Count in one text, be judged on the other. What does an unseen word cost?",
)


def _unigram(train: Tensor, test: Tensor, add: float, *, special: bool = False) -> float:
    counts = torch.bincount(train.flatten(), minlength=VOCAB).double() + add
    if not special:
        counts[:5] = 0
    words = test.flatten()
    words = words if special else words[words > MASK]
    return -(counts / counts.sum())[words].log().mean().item()


@baseline.case("counted in one text, judged on another", points=2)
def _(t: Toolbox, unigram_loss: Any) -> None:
    # The last ten ids are in the vocabulary and in neither text.
    skewed = torch.minimum(t.ids(VOCAB - 10, 30, 20, low=5), t.ids(VOCAB - 10, 30, 20, low=5))
    train, test = skewed[:20], skewed[20:]
    want = _unigram(train, test, 1.0)
    t.close(
        unigram_loss(train, test, VOCAB, SPECIAL),
        want,
        "unigram_loss(...)",
        suspects={
            "you count in the text that you judge: frequencies come from train": (
                _unigram(test, test, 1.0)
            ),
            "this is the entropy of train: the mean runs over the words of test": (
                _unigram(train, train, 1.0)
            ),
            "this is in bits: use natural logarithms": want / math.log(2),
            "special tokens take a share: they are never asked for": (
                _unigram(train, test, 1.0, special=True)
            ),
            "this is ln V: a guess that knows no frequencies": math.log(50),
            "nothing is added to the counts": lambda: _unigram(train, test, 1e-12),
        },
    )


@baseline.case("special tokens count nowhere, unseen words cost something finite", points=1)
def _(t: Toolbox, unigram_loss: Any) -> None:
    train, test = _texts(t, 3), _texts(t, 6)[3:]
    train = train.where(train != 7, 8)
    test[0, 1] = 7
    got = unigram_loss(train, test, VOCAB, SPECIAL)
    t.that(
        math.isfinite(float(got)),
        "a word of test that train does not hold costs infinitely much: add 1 to each count",
    )
    t.close(
        got,
        _unigram(train, test, 1.0),
        "unigram_loss(...)",
        suspects={
            "special tokens and padding count: leave them out of both texts": (
                _unigram(train, test, 1.0, special=True)
            ),
        },
    )


even = Check(
    "06.break_even_vocab",
    "when the head costs as much as the encoder",
    ("break_even_vocab",),
    kind="predict",
    difficulty=3,
    minutes=20,
    reminder="Write both costs for one token, set them equal, solve for the vocabulary.",
)


def _encoder_cost(hidden: int, layers: int, wide: int, seq: int) -> float:
    return layers * (8 * hidden**2 + 4 * hidden * wide + 4 * seq * hidden)


@even.case("scores at every place", points=1)
def _(t: Toolbox, break_even: Any) -> None:
    hidden, layers, seq = 64 * t.integer(2, 12), t.integer(2, 12), t.choice([64, 128, 512])
    cost = _encoder_cost(hidden, layers, 4 * hidden, seq)
    t.close(
        break_even(hidden, layers, 4 * hidden, seq, 1.0),
        (cost - 2 * hidden**2) / (2 * hidden),
        f"break_even_vocab({hidden}, {layers}, {4 * hidden}, {seq}, 1.0)",
        rtol=1e-6,
        suspects={
            "the head's dense layer is missing: 2 h^2 for each target": cost / (2 * hidden),
            "a product costs a multiplication and an addition: 2 h V": (cost - 2 * hidden**2)
            / hidden,
            "one layer only: the encoder has several": (cost / layers - 2 * hidden**2)
            / (2 * hidden),
        },
    )


@even.case("scores at the targets only", points=2)
def _(t: Toolbox, break_even: Any) -> None:
    hidden, layers, rate = 64 * t.integer(2, 12), t.integer(2, 12), t.choice([0.1, 0.15, 0.4])
    cost = _encoder_cost(hidden, layers, 4 * hidden, 128)
    t.close(
        break_even(hidden, layers, 4 * hidden, 128, rate),
        (cost / rate - 2 * hidden**2) / (2 * hidden),
        f"break_even_vocab({hidden}, {layers}, {4 * hidden}, 128, {rate})",
        rtol=1e-6,
        suspects={
            "the rate does not count: only targets pass through the head": (
                (cost - 2 * hidden**2) / (2 * hidden)
            ),
            "the rate makes the head cheaper, so the vocabulary may be larger": (
                (cost * rate - 2 * hidden**2) / (2 * hidden)
            ),
            "the dense layer works on the targets only, too": (
                (cost - 2 * hidden**2) / (2 * hidden * rate)
            ),
        },
    )


hunt = Check(
    "06.masked_loss_bug",
    "bug hunt: a loss that shrinks by itself",
    ("masked_loss",),
    kind="bug",
    difficulty=2,
    minutes=15,
    hides=("model.masked_lm_loss",),
    reminder="Work the loss out by hand for one target in four places.",
)


def _hunted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each place (0 where none is asked for), and where one is asked for."""
    asked = labels != IGNORED
    nll = -logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return nll * asked, asked


@hunt.case("padding does not make the loss smaller", points=1)
def _(t: Toolbox, masked_loss: Any) -> None:
    logits, labels = t.randn(3, 8, 9), t.ids(9, 3, 8, low=1)
    labels[:, 2:] = IGNORED
    each, asked = _hunted(logits, labels)
    t.close(
        masked_loss(logits, labels),
        each.sum() / asked.sum(),
        "the loss",
        suspects={
            "the bug is still there: the sum is divided by all places, targets or not": each.mean(),
            "the mean of the rows' means: with different numbers of targets a row counts more": (
                (each.sum(1) / asked.sum(1)).mean()
            ),
            "this is the sum": each.sum(),
        },
    )


@hunt.case("the word with the id 0 is a word", points=1)
def _(t: Toolbox, masked_loss: Any) -> None:
    logits, labels = t.randn(3, 8, 9), t.ids(9, 3, 8, low=1)
    labels[:, 3:] = IGNORED
    labels[0, :2] = 0
    each, asked = _hunted(logits, labels)
    other = asked & (labels != 0)
    t.close(
        masked_loss(logits, labels),
        each.sum() / asked.sum(),
        "the loss",
        suspects={
            "the bug is still there: targets with the id 0 are ignored": (
                (each * other).sum() / other.sum()
            ),
            "targets with the id 0 are ignored, and the sum is divided by all places": (
                (each * other).mean()
            ),
            "targets with the id 0 count in the divisor only": (each * other).sum() / asked.sum(),
            "the sum is divided by all places, targets or not": each.mean(),
        },
    )


@hunt.case("rows with different numbers of targets, and a batch without any", points=1)
def _(t: Toolbox, masked_loss: Any) -> None:
    logits, labels = t.randn(3, 8, 9), t.ids(9, 3, 8, low=1)
    labels[0, 1:] = labels[1, 4:] = IGNORED
    each, asked = _hunted(logits, labels)
    t.close(
        masked_loss(logits, labels),
        each.sum() / asked.sum(),
        "the loss",
        suspects={
            "the mean of the rows' means: each target counts once": (
                (each.sum(1) / asked.sum(1)).mean()
            ),
        },
    )
    one = torch.full_like(labels, IGNORED)
    one[1, 2] = labels[0, 0]
    t.close(masked_loss(logits, one), _hunted(logits, one)[0].sum(), "the loss of a single target")
    zero = masked_loss(logits, torch.full_like(labels, IGNORED))
    t.that(bool(torch.isfinite(torch.as_tensor(zero)).all()), "without a target the loss is nan")


choose_model = Check(
    "06.choose_model",
    "which model knows the text better",
    ("choose_model",),
    kind="choose",
    difficulty=3,
    minutes=20,
    reminder="A loss per token is a price per piece: ask how large the pieces are.",
)

Runs = dict[str, tuple[list[str], list[float]]]


def _better(text: str, runs: Runs, *, slip: str = "") -> tuple[str, dict[str, float]]:
    """The model with the smallest loss per letter, and each one's."""
    letters = len(text) if slip == "blanks" else sum(not sign.isspace() for sign in text)
    figures = {}
    for name, (tokens, losses) in runs.items():
        size = letters
        if slip == "tokens":
            size = len(tokens)
        elif slip == "marks":
            size = sum(map(len, tokens))
        figures[name] = sum(losses) / size / (math.log(2) if slip == "bits" else 1)
        if "[UNK]" in tokens and slip != "unknown":
            figures[name] = math.inf
    if slip == "means":
        means = {name: sum(losses) / len(losses) for name, (_, losses) in runs.items()}
        return min(means, key=lambda name: means[name]), figures
    if slip == "most":
        return max(figures, key=lambda name: figures[name]), figures
    return min(figures, key=lambda name: figures[name]), figures


def _better_suspects(*given: Any) -> dict[str, Any]:
    return {
        message: _better(*given, slip=slip)
        for slip, message in {
            "tokens": "this is the loss per token: small pieces are cheap, and there are more",
            "marks": "you counted the tokens' signs: ## and [UNK] do not stand in the text",
            "blanks": "blanks are no letters: no token stands for them",
            "unknown": "[UNK] is easy to predict and says nothing of the word: such a model has "
            "not given the text",
            "bits": "the losses are in nats: leave them in nats",
            "means": "you chose by the loss per token: small pieces are cheap, and there are more",
            "most": "the largest loss is the worst",
        }.items()
    }


def _three_runs(t: Toolbox, words: list[str], *, unknown: bool) -> Runs:
    """Three tokenizers' tokens of a text, with losses."""
    runs: Runs = {}
    for name, size, price in (("letters", 1, 0.6), ("pairs", 2, 1.3), ("words", 99, 4.0)):
        tokens = [
            part if i == 0 else "##" + part
            for word in words
            for i, part in enumerate(word[j : j + size] for j in range(0, len(word), size))
        ]
        if unknown and name == "words":
            tokens[t.integer(0, len(tokens) - 1)] = "[UNK]"
        losses = [price * (0.4 + t.random.random()) for _ in tokens]
        runs[name] = (tokens, losses if name != "words" or not unknown else [x / 9 for x in losses])
    return runs


@choose_model.case("nine letters in two ways, by hand", points=1)
def _(t: Toolbox, choose_model: Any) -> None:
    pieces = (["ri", "##ver", "ba", "##nk"], [1.0, 0.5, 1.0, 0.5])
    for whole in ([1.0, 1.5], [2.0, 2.5]):
        given = ("river bank", {"pieces": pieces, "words": (["river", "bank"], whole)})
        t.decision(choose_model(*given), _better(*given), suspects=_better_suspects(*given))


@choose_model.case("three models, any text", points=2)
def _(t: Toolbox, choose_model: Any) -> None:
    for unknown in (False, True, False, True):
        words = ["".join(t.choice("abcdefg") for _ in range(t.integer(2, 8))) for _ in range(12)]
        given = (" ".join(words), _three_runs(t, words, unknown=unknown))
        t.decision(choose_model(*given), _better(*given), suspects=_better_suspects(*given))

"""Wrong answers to the checks of chapter 06."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.masking import choose_tokens, choose_words, mask_tokens, replace_tokens, word_numbers
from bertlearn.model import (
    BertForMaskedLM,
    BertLMPredictionHead,
    BertPredictionHeadTransform,
    masked_lm_loss,
)
from tests.known_wrong import Wrong

IGNORED = -100


# ---- which tokens -----------------------------------------------------------------------------


def tokens_anywhere(allowed: Tensor, rng: Any, rate: float = 0.15, exact: bool = True) -> Tensor:
    return choose_tokens(torch.ones_like(allowed), rng, rate, exact)


def tokens_of_padded_length(
    allowed: Tensor, rng: Any, rate: float = 0.15, exact: Any = 1
) -> Tensor:
    order = (
        torch.rand(allowed.shape, generator=rng).masked_fill(~allowed, 2).argsort(-1).argsort(-1)
    )
    count = max(1, round(rate * allowed.shape[1]))
    return allowed & (order < count)


def tokens_from_the_left(allowed: Tensor, rng: Any, rate: float = 0.15, exact: Any = 1) -> Tensor:
    size = allowed.sum(1, keepdim=True)
    count = (rate * size).round().clamp(min=1)
    torch.rand(1, generator=rng)
    return allowed & (allowed.cumsum(1) <= count)


def tokens_always_the_same(allowed: Tensor, rng: Any, rate: float = 0.15, exact: Any = 1) -> Tensor:
    return choose_tokens(allowed, torch.Generator().manual_seed(0), rate, bool(exact))


def tokens_always_exact(allowed: Tensor, rng: Any, rate: float = 0.15, exact: Any = 1) -> Tensor:
    return choose_tokens(allowed, rng, rate, True)


def words_by_pieces(
    allowed: Tensor, words: Tensor, rng: Any, rate: float = 0.15, exact: Any = 1
) -> Tensor:
    return choose_tokens(allowed, rng, rate, bool(exact))


def words_over_budget(
    allowed: Tensor, words: Tensor, rng: Any, rate: float = 0.15, exact: Any = 1
) -> Tensor:
    """Whole words around the tokens that were drawn."""
    chosen = choose_tokens(allowed, rng, rate, bool(exact))
    for row in range(len(chosen)):
        hit = words[row][chosen[row]].unique()
        chosen[row] = allowed[row] & torch.isin(words[row], hit)
    return chosen


def words_with_specials(
    allowed: Tensor, words: Tensor, rng: Any, rate: float = 0.15, exact: Any = 1
) -> Tensor:
    return choose_words(torch.ones_like(allowed), words, rng, rate, bool(exact))


# ---- what stands there ------------------------------------------------------------------------


def replaced(
    ids: Tensor,
    chosen: Tensor,
    rng: Any,
    mask_id: int,
    ordinary: Tensor,
    mix: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    second: str = "",
    words: str = "",
    in_place: bool = False,
    fixed: bool = False,
) -> Tensor:
    """The right thing, with a switch for each way to get it wrong."""
    mix = (0.8, 0.1, 0.1) if fixed else mix
    draw = torch.rand(ids.shape, generator=rng)
    masked = chosen & (draw < mix[0])
    random = chosen & (draw >= mix[0]) & (draw < mix[0] + mix[1])
    if second:  # a second draw among the rest
        again = torch.rand(ids.shape, generator=rng)
        random = chosen & ~masked & (again < mix[1])
    pool = torch.arange(int(ordinary.max()) + 1) if words == "all" else ordinary
    pick = pool[torch.randint(len(pool), ids.shape, generator=rng)]
    if words == "skewed":
        pick = torch.minimum(pick, pool[torch.randint(len(pool), ids.shape, generator=rng)])
    got = ids if in_place else ids.clone()
    got[masked] = mask_id
    got[random] = pick[random]
    return got


def _replaced(**switches: Any) -> Any:
    return lambda *given: replaced(*given, **switches)


def masked(
    ids: Tensor,
    rng: Any,
    *,
    labels: str = "",
    specials: bool = False,
    static: bool = False,
    torch_rng: bool = False,
    mix: Any = None,
    wholes: bool = True,
    checked: bool = True,
    random_specials: bool = False,
    **given: Any,
) -> tuple[Tensor, Tensor]:
    if specials:
        given["special_ids"] = []
    if static:
        rng = torch.Generator().manual_seed(1)
    if torch_rng:
        rng = torch.default_generator
    if not wholes:
        given["words"] = None
    if not checked:
        given["rate"] = min(max(given.get("rate", 0.15), 0.01), 1.0)
    more = {"mix": mix} if mix else {}
    if random_specials:
        mask_tokens(ids, rng, **given)
        allowed = ~torch.isin(ids, torch.tensor(list(given["special_ids"])))
        chosen = choose_tokens(allowed, rng, given.get("rate", 0.15))
        every = torch.arange(given["vocab_size"])
        blanks = replace_tokens(ids, chosen, rng, given["mask_id"], every)
        return blanks, ids.masked_fill(~chosen, IGNORED)
    blanks, truth = mask_tokens(ids, rng, **{**given, **more})
    asked = truth != IGNORED
    truth = {
        "": truth,
        "zero": truth.masked_fill(~asked, 0),
        "all": ids.clone(),
        "blank": blanks.masked_fill(~asked, IGNORED),
        "next": ids.roll(-1, 1).masked_fill(~asked, IGNORED),
    }[labels]
    return blanks, truth


def _masked(**switches: Any) -> Any:
    return lambda ids, rng, **given: masked(ids, rng, **switches, **given)


def numbers_of_tokens(offsets: Any, spans: Any) -> list[int]:
    return list(range(len(offsets)))


def numbers_of_touching(offsets: Any, spans: Any) -> list[int]:
    got, last = [], None
    for number, (start, end) in enumerate(offsets):
        got.append(got[-1] if last == start and end > start and got else number)
        last = end
    return got


def numbers_with_one_rest(offsets: Any, spans: Any) -> list[int]:
    alone = len(spans)
    return [min(n, alone) for n in word_numbers(offsets, spans)]


# ---- the head ---------------------------------------------------------------------------------


class NormFirst(BertPredictionHeadTransform):
    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.LayerNorm(self.dense(x)))


class NoNorm(BertPredictionHeadTransform):
    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.dense(x))


class NoActivation(BertPredictionHeadTransform):
    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x))


class DoubleSoftmax(BertLMPredictionHead):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(-1)


class LogSoftmax(BertLMPredictionHead):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).log_softmax(-1)


class NoBias(BertLMPredictionHead):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - self.bias


class NoTransform(BertLMPredictionHead):
    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x)


class CopiedTable(BertLMPredictionHead):
    def tie_weights(self, word_embeddings: nn.Embedding) -> None:
        self.decoder.weight = nn.Parameter(word_embeddings.weight.detach().clone())
        self.decoder.bias = self.bias


class TwoBiases(BertLMPredictionHead):
    def tie_weights(self, word_embeddings: nn.Embedding) -> None:
        self.decoder.weight = word_embeddings.weight
        self.bias = nn.Parameter(self.decoder.bias.detach().clone())


def lm_loss(head: Any, hidden: Tensor, labels: Tensor | None, *, kind: str = "") -> Any:
    """The loss over targets, with a switch for each way to get it wrong."""
    if labels is None:
        return head(hidden), None
    asked = labels != IGNORED
    logits = head(hidden[asked])
    if kind == "double":
        return logits, F.cross_entropy(logits.softmax(-1), labels[asked])
    if kind == "zero":
        return logits, F.cross_entropy(logits, labels[asked], ignore_index=0)
    if kind == "nan":
        return logits, F.cross_entropy(logits, labels[asked])
    every = head(hidden).transpose(1, 2)
    each = F.cross_entropy(every, labels, reduction="none")
    if kind == "mean":
        return logits, each.mean()
    if kind == "all":
        return logits, F.cross_entropy(every, labels.clamp(min=0))
    if kind == "sum":
        return logits, each.sum()
    if kind == "rows":
        return logits, (each.sum(1) / asked.sum(1)).mean()
    return every.transpose(1, 2)[asked], each.sum() / asked.sum().clamp(min=1)  # "everywhere"


def _lm_loss(kind: str) -> Any:
    return lambda head, hidden, labels: lm_loss(head, hidden, labels, kind=kind)


class Untied(BertForMaskedLM):
    def __init__(self, config: Any):
        super().__init__(config)
        decoder = self.cls.predictions.decoder
        decoder.weight = nn.Parameter(decoder.weight.detach().clone())


class TorchsOwnStart(BertForMaskedLM):
    """The head's table as nn.Linear draws it, not tied to small embeddings."""

    def __init__(self, config: Any):
        super().__init__(config)
        with torch.no_grad():
            self.bert.embeddings.word_embeddings.weight.normal_()


class EveryTokenIsATarget(BertForMaskedLM):
    def forward(self, ids: Any, types: Any = None, mask: Any = None, labels: Any = None) -> Any:
        out = super().forward(ids, types, mask, labels)
        if labels is not None:
            logits = super().forward(ids, types, mask).logits
            out.loss = F.cross_entropy(logits.flatten(0, 1), ids.flatten())
        return out


class HearsPadding(BertForMaskedLM):
    def forward(self, ids: Any, types: Any = None, mask: Any = None, labels: Any = None) -> Any:
        return super().forward(ids, types, None, labels)


class LeftOnly(BertForMaskedLM):
    def forward(self, ids: Any, types: Any = None, mask: Any = None, labels: Any = None) -> Any:
        seq = ids.shape[1]
        causal = torch.ones(seq, seq, dtype=torch.bool).tril()[None, None]
        if mask is not None:
            causal = causal & mask.bool()[:, None, None]
        states = self.bert.encoder(self.bert.embeddings(ids, types), causal).last_hidden_state
        out = super().forward(ids, types, mask, labels)
        out.logits, out.loss = masked_lm_loss(self.cls.predictions, states, labels)
        return out


# ---- questions --------------------------------------------------------------------------------


def spans(
    allowed: Tensor,
    rng: Any,
    rate: float = 0.15,
    shares: Sequence[float] = (0.4, 0.3, 0.2, 0.1),
    *,
    over: bool = False,
    under: bool = False,
    across: bool = False,
    single: bool = False,
    first: bool = False,
) -> Tensor:
    chosen = torch.zeros_like(allowed)
    size = int(allowed.sum())
    left = max(1, round(rate * size))
    if across:
        allowed = torch.ones_like(allowed)
    while left > 0:
        free = (allowed & ~chosen).nonzero()[:, 0]
        start = int(free[0 if first else int(torch.randint(len(free), (1,), generator=rng))])
        length = 1 + int(torch.multinomial(torch.tensor(shares), 1, generator=rng))
        length = 1 if single else length
        if under and length > left:
            break
        for place in range(
            start, min(start + (length if over else min(length, left)), len(allowed))
        ):
            if not allowed[place] or chosen[place]:
                break
            chosen[place] = True
            left -= 1
    return chosen


def _spans(**switches: Any) -> Any:
    return lambda allowed, rng, **given: spans(allowed, rng, **given, **switches)


def grouped(tokens: list[str], words: list[str], *, marks: int = 2) -> list[list[int]]:
    found, place = [], 0
    for word in words:
        group, length = [], 0
        while length < len(word) and place < len(tokens):
            token = tokens[place]
            length += len(token[marks:] if token.startswith("##") else token)
            group.append(place)
            place += 1
        found.append(group)
    return found


def group_pieces(tokens: list[str], words: list[str]) -> list[list[int]]:
    found: list[list[int]] = []
    for place, token in enumerate(tokens):
        if token.startswith("##"):
            found[-1].append(place)
        else:
            found.append([place])
    return found


def group_tokens(tokens: list[str], words: list[str]) -> list[list[str]]:
    return [[tokens[i] for i in group] for group in grouped(tokens, words)]


def group_ends(tokens: list[str], words: list[str]) -> list[list[int]]:
    return [[group[0], group[-1] + 1] for group in grouped(tokens, words)]


def blanks_each(ids: Tensor, mask_id: int, special: Sequence[int], *, kind: str = "") -> Tensor:
    places = [i for i, one in enumerate(ids.tolist()) if kind == "all" or one not in special]
    rows = torch.stack([ids.clone() for _ in places])
    for row, place in enumerate(places):
        hidden = places if kind == "once" else places[: row + 1] if kind == "stay" else [place]
        rows[row, hidden] = mask_id
    return rows


def pll(logits: Tensor, ids: Tensor, special: Sequence[int], *, kind: str = "") -> float:
    places = torch.tensor([i for i, one in enumerate(ids.tolist()) if one not in special])
    rows = torch.arange(len(places))
    at = rows if kind == "rows" else places
    scores = logits if kind == "logits" else logits.log_softmax(-1)
    each = scores[rows, at, ids[at]]
    if kind == "probabilities":
        each = each.exp()
    total = each.mean() if kind == "mean" else each.sum()
    return -total.item() if kind == "sign" else total.item()


def _pll(blanks: str = "", score: str = "") -> tuple[Any, Any]:
    return (
        lambda ids, mask_id, special: blanks_each(ids, mask_id, special, kind=blanks),
        lambda logits, ids, special: pll(logits, ids, special, kind=score),
    )


def unigram(
    train: Tensor, test: Tensor, vocab: int, special: Sequence[int], *, kind: str = ""
) -> float:
    keep = torch.tensor([one not in special or kind == "special" for one in range(vocab)])
    counts = torch.bincount((test if kind == "test" else train).flatten(), minlength=vocab)
    smooth = (counts.double() + (0.0 if kind == "zero" else 1.0)) * keep
    words = (train if kind == "train" else test).flatten()
    words = words[keep[words]]
    nats = -(smooth / smooth.sum())[words].log().mean().item()
    return nats / math.log(2) if kind == "bits" else nats


def _unigram(kind: str) -> Any:
    return lambda *given: unigram(*given, kind=kind)


def even(hidden: int, layers: int, wide: int, seq: int, rate: float, *, kind: str = "") -> float:
    count = 1 if kind == "layer" else layers
    cost = count * (8 * hidden**2 + 4 * hidden * wide + 4 * seq * hidden)
    rate = 1.0 if kind == "rate" else 1 / rate if kind == "turned" else rate
    dense = 0 if kind == "dense" else 2 * hidden**2
    return (cost / rate - dense) / ((1 if kind == "once" else 2) * hidden)


def _even(kind: str) -> Any:
    return lambda *given: even(*given, kind=kind)


def hunted(logits: Tensor, labels: Tensor, *, kind: str = "") -> Tensor:
    asked = labels != IGNORED
    each = F.cross_entropy(logits.transpose(1, 2), labels.clamp(min=0), reduction="none") * asked
    if kind == "zero":
        counted = asked & (labels != 0)
        return (each * counted).sum() / counted.sum().clamp(min=1)
    if kind == "places":
        return each.mean()
    if kind == "rows":
        return (each.sum(1) / asked.sum(1).clamp(min=1)).mean()
    if kind == "sum":
        return each.sum()
    return F.cross_entropy(  # as it was given
        logits.transpose(1, 2), labels.clamp(min=0), ignore_index=0, reduction="none"
    ).mean()


def _hunted(kind: str) -> Any:
    return lambda logits, labels: hunted(logits, labels, kind=kind)


WRONG: dict[str, list[Wrong]] = {
    "06.choose_tokens": [
        Wrong("padding and [CLS] asked for", tokens_anywhere, "special tokens or padding"),
        Wrong("15 percent of the padded length", tokens_of_padded_length, "you count padding"),
        Wrong("always the first words", tokens_from_the_left, "two calls give the same"),
        Wrong("the same mask in every epoch", tokens_always_the_same, "two calls give the same"),
        Wrong("exact ignored", tokens_always_exact, "must vary as that of independent draws"),
    ],
    "06.choose_words": [
        Wrong("pieces drawn one by one", words_by_pieces, "hidden in part"),
        Wrong("every word that was hit", words_over_budget, "must be passed over"),
        Wrong("padding hidden", words_with_specials, "special tokens or padding"),
    ],
    "06.replace_tokens": [
        Wrong("two draws: 80/2/18", _replaced(second="rest"), "the second draw is made among"),
        Wrong("random words from all ids", _replaced(words="all"), "a random word is a special"),
        Wrong("random words not uniform", _replaced(words="skewed"), "draw uniformly"),
        Wrong("the mixture built in", _replaced(fixed=True), "mix does not count"),
        Wrong("ids changed in place", _replaced(in_place=True), "return a new tensor"),
    ],
    "06.mask_tokens": [
        Wrong("label 0 elsewhere", _masked(labels="zero"), "elsewhere is not -100"),
        Wrong("every token a target", _masked(labels="all"), "every token is asked for"),
        Wrong("labels taken after the blanks", _masked(labels="blank"), "stands in the blank"),
        Wrong("labels of the next word", _masked(labels="next"), "the labels are shifted"),
        Wrong("padding and specials asked for", _masked(specials=True), "they are no words"),
        Wrong("static masks", _masked(static=True), "static masking"),
        Wrong("the global generator", _masked(torch_rng=True), "draw from rng"),
        Wrong("always [MASK]", _masked(mix=(1.0, 0.0, 0.0)), "near 80/10/10"),
        Wrong("random words may be special", _masked(random_specials=True), "is a special token"),
        Wrong("words ignored", _masked(wholes=False), "hidden in part"),
        Wrong("a rate of 15 accepted", _masked(checked=False), "must raise ValueError"),
    ],
    "06.word_numbers": [
        Wrong("each token a word", numbers_of_tokens, "喜欢 is one word"),
        Wrong("words end at blanks", numbers_of_touching, "no word together"),
        Wrong("one number for all the rest", numbers_with_one_rest, "numbers of their own"),
    ],
    "06.BertPredictionHeadTransform": [
        Wrong("LayerNorm before the activation", NormFirst, "LayerNorm comes last"),
        Wrong("no LayerNorm", NoNorm, "LayerNorm is missing"),
        Wrong("no activation", NoActivation, "the activation is missing"),
    ],
    "06.BertLMPredictionHead": [
        Wrong("softmax in the head", DoubleSoftmax, "these are probabilities"),
        Wrong("log-softmax in the head", LogSoftmax, "log-probabilities"),
        Wrong("no bias", NoBias, "the bias is missing"),
        Wrong("no transform", NoTransform, "the transform is missing"),
        Wrong("a copy of the table", CopiedTable, "not a copy"),
        Wrong("two biases", TwoBiases, "one parameter under its two names"),
    ],
    "06.masked_lm_loss": [
        Wrong("mean over all tokens", _lm_loss("mean"), "the mean over all tokens"),
        Wrong("all tokens are targets", _lm_loss("all"), "every token is a target"),
        Wrong("ignore_index=0", _lm_loss("zero"), "the id 0 is left out"),
        Wrong("softmax twice", _lm_loss("double"), "softmax is taken twice"),
        Wrong("the sum", _lm_loss("sum"), "this is the sum"),
        Wrong("mean of the rows' means", _lm_loss("rows"), "mean of the rows' means"),
        Wrong("scores everywhere", _lm_loss("everywhere"), "pick the targets first"),
        Wrong("nan without a target", _lm_loss("nan"), "0 targets, loss 0"),
    ],
    "06.BertForMaskedLM": [
        Wrong("decoder not tied", Untied, "is not the table"),
        Wrong("large fresh weights", TorchsOwnStart, "a guess has ln 500"),
        Wrong("every token a target", EveryTokenIsATarget, "every token is a target"),
        Wrong("padding is heard", HearsPadding, "other words in the padding"),
        Wrong("a mask that looks left only", LeftOnly, "a word to the right does not change"),
    ],
    "06.choose_spans": [
        Wrong("the last span not cut", _spans(over=True), "cut the last span"),
        Wrong("stops before the budget is used", _spans(under=True), "fewer tokens are chosen"),
        Wrong("spans run across [SEP]", _spans(across=True), "not allowed"),
        Wrong("single tokens", _spans(single=True), "the four tokens are neighbors"),
        Wrong("always from the left", _spans(first=True), "one part of the text"),
    ],
    "06.coverage": [
        Wrong("rates added up", lambda r, e, c: min(1.0, r * (c or e)), "rates do not add up"),
        Wrong("the share never asked for", lambda r, e, c: (1 - r) ** e, "never asked for"),
        Wrong("copies ignored", lambda r, e, c: 1 - (1 - r) ** e, "copies are used again"),
        Wrong("epochs ignored", lambda r, e, c: 1 - (1 - r) ** (c or e), "never read"),
        Wrong("copies times epochs", lambda r, e, c: 1 - (1 - r) ** ((c or 1) * e), "multiply"),
    ],
    "06.word_groups": [
        Wrong("each character a word", lambda t, w: [[i] for i in range(len(t))], "of its own"),
        Wrong("pieces joined, words not", group_pieces, "the segmentation must decide"),
        Wrong("## counted as characters", lambda t, w: grouped(t, w, marks=0), "no characters of"),
        Wrong("tokens for places", group_tokens, "give their places"),
        Wrong("ends for places", group_ends, "these are ends"),
    ],
    "06.pseudo_log_likelihood": [
        Wrong("special tokens hidden", _pll("all"), "special tokens are hidden"),
        Wrong("all words hidden at once", _pll("once"), "hide one in each copy"),
        Wrong("blanks that stay", _pll("stay"), "each copy has one"),
        Wrong("the mean", _pll(score="mean"), "add up"),
        Wrong("probabilities added", _pll(score="probabilities"), "take logarithms"),
        Wrong("the loss", _pll(score="sign"), "the sign is turned"),
        Wrong("no softmax", _pll(score="logits"), "softmax is missing"),
        Wrong("row taken for place", _pll(score="rows"), "[CLS] has no row"),
    ],
    "06.unigram_loss": [
        Wrong("counted in the test text", _unigram("test"), "the text that you judge"),
        Wrong("entropy of the training text", _unigram("train"), "the words of test"),
        Wrong("bits", _unigram("bits"), "natural logarithms"),
        Wrong("special tokens take a share", _unigram("special"), "take a share"),
        Wrong("nothing added to the counts", _unigram("zero"), "add 1 to each count"),
    ],
    "06.break_even_vocab": [
        Wrong("dense layer forgotten", _even("dense"), "dense layer is missing"),
        Wrong("additions forgotten", _even("once"), "a multiplication and an addition"),
        Wrong("one layer", _even("layer"), "one layer only"),
        Wrong("rate ignored", _even("rate"), "the rate does not count"),
        Wrong("rate on the wrong side", _even("turned"), "makes the head cheaper"),
    ],
    "06.masked_loss_bug": [
        Wrong("nothing changed", _hunted("given"), "the bug is still there"),
        Wrong("only the mean mended", _hunted("zero"), "targets with the id 0 are ignored"),
        Wrong("only the id 0 mended", _hunted("places"), "divided by all places"),
        Wrong("mean of the rows' means", _hunted("rows"), "mean of the rows' means"),
        Wrong("the sum", _hunted("sum"), "this is the sum"),
    ],
}

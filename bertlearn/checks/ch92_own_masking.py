"""Project 92, at the end of "what BERT learns": the learner's masking trains the shipped model."""

from __future__ import annotations

import copy
from collections import Counter
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bertlearn.checkpoints.pretrained import find_directory
from bertlearn.checks.core import Check, Failed, Toolbox
from bertlearn.data.sources import SourceError
from bertlearn.data.tasks import load_task
from bertlearn.data.tasks.records import Classified
from bertlearn.engine.fill import tokenizer_of
from bertlearn.masking import IGNORE
from bertlearn.model import BertForPreTraining
from bertlearn.pretraining import Batch, learning_rate, make_optimizer, pack, train_step
from bertlearn.tokenization import BertTokenizer

MODEL = "bertlearn-mini-en"
STEPS, ROWS, LENGTH, RATE = 24, 16, 64, 5e-4
HELD_OUT = 96  # rows
FALL = 0.03  # nats

mask_spans = Check(
    "92.mask_spans",
    "your own masking, and what a trained BERT learns from it in twenty seconds",
    ("mask_spans",),
    kind="implement",
    difficulty=4,
    minutes=60,
    reminder="A span has one fate: draw it once for the span, not once for each of its tokens.",
)


# ---- the piece alone ------------------------------------------------------------------------


def _rng(t: Toolbox) -> torch.Generator:
    return torch.Generator().manual_seed(t.integer(0, 1 << 30))


def _texts(t: Toolbox, batch: int, seq: int, vocab: int = 8000) -> tuple[Tensor, dict[str, Any]]:
    """Rows that begin with [CLS], end with [SEP] and padding, and the keywords of the answer."""
    ids = t.ids(vocab, batch, seq, low=5)
    ids[:, 0], ids[:, -3], ids[:, -2:] = 2, 3, 0
    return ids, {"vocab_size": vocab, "mask_id": 4, "special_ids": [0, 1, 2, 3, 4]}


def _masked(t: Toolbox, mask: Any, ids: Tensor, keywords: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Ids and labels that a model can be trained on, or a sentence about why not."""
    given = ids.clone()
    result = mask(ids, _rng(t), **keywords)
    t.that(torch.equal(ids, given), "your code changes its input in place: work on a copy")
    t.that(
        isinstance(result, tuple) and len(result) == 2,
        "return two tensors: the ids with blanks, and the labels",
    )
    new = t.tensor(result[0], shape=ids.shape, dtype=ids.dtype, name="the ids with blanks")
    labels = t.tensor(result[1], shape=ids.shape, dtype=ids.dtype, name="the labels")
    asked = labels != IGNORE
    special = torch.isin(ids, torch.tensor(keywords["special_ids"]))
    t.that(asked.any(), "no token is asked for: all labels are -100")
    t.that(
        not (asked & special).any(),
        "a label stands at a special token: [CLS], [SEP] and padding are never asked for",
    )
    t.that(
        not torch.equal(asked, ~special) and not asked.all(),
        "every token is asked for: labels are -100 where nothing is hidden, else the model is "
        "rewarded for copying",
    )
    truth = torch.where(asked, labels, ids)
    if not torch.equal(truth, ids):
        t.that(
            not torch.equal(truth, torch.where(asked, new, ids)),
            "the labels hold what was put in, not what was there before: take them from the ids "
            "that you were given",
        )
        raise Failed("a label is not the token that stood there")
    t.that(
        torch.equal(torch.where(asked, ids, new), ids),
        "a token is replaced that is not asked for: its label is -100",
    )
    t.that(
        not torch.isin(new[asked & (new != keywords["mask_id"])], _unfit(keywords)).any(),
        "a special token is drawn as random word: draw among the ordinary ids only",
    )
    t.that(
        int(new.min()) >= 0 and int(new.max()) < keywords["vocab_size"],
        "an id is put in that the vocabulary does not have",
    )
    return new, labels


def _unfit(keywords: dict[str, Any]) -> Tensor:
    return torch.tensor([i for i in keywords["special_ids"] if i != keywords["mask_id"]])


def _runs(asked: Tensor) -> list[list[int]]:
    """The places of each run of neighbors that are asked for."""
    runs: list[list[int]] = []
    for place in asked.nonzero()[:, 0].tolist():
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


@mask_spans.case("labels: the true id where one is asked for, -100 elsewhere", points=2)
def _(t: Toolbox, mask: Any) -> None:
    for seq, vocab in ((40, 8000), (23, 12)):  # a small vocabulary shows which words are drawn
        ids, keywords = _texts(t, 40, seq, vocab)
        _masked(t, mask, ids, keywords)


@mask_spans.case("as many tokens as the rate asks for, in every row", points=1)
def _(t: Toolbox, mask: Any) -> None:
    for rate in (0.4, 0.15):
        ids, keywords = _texts(t, 8, 44)
        ids[2, 20:] = ids[-1, 3:] = 0  # a short text; one of two tokens, of which one is asked for
        _, labels = _masked(t, mask, ids, {**keywords, "rate": rate})
        for row, asked in zip(ids, labels != IGNORE, strict=True):
            n = int((row > 4).sum())
            want, got = max(1, round(rate * n)), int(asked.sum())
            if got == want:
                continue
            t.that(
                got < 1.5 * want,
                "far more tokens are asked for than the rate says: the budget counts tokens, not "
                "spans",
                expected=f"{want} of {n} tokens",
                got=str(got),
            )
            t.that(
                got < want or got - want > 3,
                "a row has a few tokens too many: cut the last span to what is left of the budget",
                expected=f"{want} of {n} tokens",
                got=str(got),
            )
            raise Failed(
                "a row has another number of tokens asked for than max(1, round(rate * n)), where "
                "n counts its ordinary tokens",
                expected=f"{want} of {n}",
                got=str(got),
            )


@mask_spans.case("spans: neighbors, in lengths with the shares that are asked for", points=1)
def _(t: Toolbox, mask: Any) -> None:
    ids, keywords = _texts(t, 60, 31)  # 27 ordinary tokens: 15 percent of them are 4
    _, labels = _masked(t, mask, ids, {**keywords, "shares": (0.0, 0.0, 0.0, 1.0)})
    runs = Counter(len(_runs(row)) for row in labels != IGNORE)
    t.that(
        runs[1] >= 40,
        "with shares (0, 0, 0, 1) and four tokens to hide, they must be neighbors",
        expected="nearly all of 60 rows with one span",
        got=f"{runs[1]} rows",
    )
    wide, keywords = _texts(t, 30, 400)
    _, labels = _masked(t, mask, wide, {**keywords, "rate": 0.03, "shares": (0.5, 0, 0, 0.5)})
    lengths = Counter(len(run) for row in labels != IGNORE for run in _runs(row))
    ones, fours = (lengths[n] / lengths.total() for n in (1, 4))
    t.that(
        ones > 0.3 and fours > 0.2,
        "shares[0] is for spans of one token, shares[3] for spans of four",
        expected="about half and half",
        got=f"{ones:.0%} of length 1, {fours:.0%} of length 4",
    )
    _to_the_right(t, mask)


def _to_the_right(t: Toolbox, mask: Any) -> None:
    """Of twelve tokens the last lies in spans of four that start at any of the last four places,
    the first only in those that start there."""
    ids, keywords = _texts(t, 400, 16)
    shares = {"rate": 1 / 3, "shares": (0.0, 0.0, 0.0, 1.0)}
    _, labels = _masked(t, mask, ids, {**keywords, **shares})
    first, last = ((labels[:, place] != IGNORE).float().mean().item() for place in (1, 12))
    t.that(
        last > first,
        "the spans go to the left: from where it starts, a span takes the tokens to the right",
        expected="the last of 12 tokens is asked for in a third of the texts, the first in a tenth",
        got=f"the last in {last:.0%}, the first in {first:.0%}",
    )


@mask_spans.case("one fate for a span: 80 percent [MASK], 10 percent random, 10 percent kept", 2)
def _(t: Toolbox, mask: Any) -> None:
    fates: Counter[str] = Counter()
    for _ in range(3):
        ids, keywords = _texts(t, 200, 31)
        new, labels = _masked(t, mask, ids, {**keywords, "shares": (0.0, 0.0, 0.0, 1.0)})
        for row, old, asked in zip(new, ids, labels != IGNORE, strict=True):
            for run in _runs(asked):
                if len(run) == 4:
                    hidden, kept = row[run] == keywords["mask_id"], row[run] == old[run]
                    whole = {"mask": hidden.all(), "kept": kept.all(), "mixed": hidden.any()}
                    fate = next((name for name, holds in whole.items() if holds), "random")
                    fates["mixed" if fate == "random" and int(kept.sum()) > 1 else fate] += 1
                    if fate == "random" and len(set(row[run].tolist())) == 1:
                        fates["one word"] += 1
    repeated = fates.pop("one word", 0)
    total = fates.total()
    shares = {name: fates[name] / max(total, 1) for name in ("mask", "random", "kept")}
    got = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    t.that(total > 300, "too few spans of four are four neighbors", got=f"{total} of 600")
    t.that(
        fates["mixed"] < 0.02 * total,
        "the tokens of one span have different fates: draw once for the span, not for each token",
        expected="all four tokens alike",
        got=f"{fates['mixed'] / total:.0%} of the spans are mixed",
    )
    t.that(
        shares["kept"] < 0.9,
        "nothing is hidden: the ids stay as they are, though labels ask for some of them",
        got=got,
    )
    t.that(
        shares["mask"] < 0.97,
        "every span becomes [MASK]: a tenth is replaced by random words, a tenth stays as it is",
        got=got,
    )
    t.that(
        repeated < 0.5 * max(fates["random"], 1),
        "a random span repeats one word: each of its tokens gets a word of its own",
    )
    t.that(
        abs(shares["mask"] - 0.8) < 0.07 and abs(shares["random"] - shares["kept"]) < 0.09,
        "the fates do not come in the shares 80, 10 and 10 percent",
        expected="mask 80%, random 10%, kept 10%",
        got=got,
    )
    _neighbors(t, mask)


def _neighbors(t: Toolbox, mask: Any) -> None:
    """Spans of one token, side by side: each has a fate of its own."""
    ids, keywords = _texts(t, 60, 63)
    new, labels = _masked(t, mask, ids, {**keywords, "rate": 0.5, "shares": (1.0, 0.0, 0.0, 0.0)})
    asked, hidden = labels != IGNORE, new == keywords["mask_id"]
    both = asked[:, 1:] & asked[:, :-1]
    unlike = float((hidden[:, 1:] != hidden[:, :-1])[both].float().mean())
    t.that(
        unlike > 0.15,
        "spans that lie side by side have the same fate: draw it when the span is drawn, not for "
        "each run of chosen tokens",
        expected="about a third of neighboring spans of one token differ",
        got=f"{unlike:.0%}",
    )


@mask_spans.case("all chance comes from rng", points=1)
def _(t: Toolbox, mask: Any) -> None:
    ids, keywords = _texts(t, 8, 60)
    seeds = [1, 1, 2]
    torch.manual_seed(t.integer(0, 1 << 30))
    found = [mask(ids, torch.Generator().manual_seed(seed), **keywords) for seed in seeds]
    pairs = [torch.stack([t.tensor(part) for part in one]) for one in found]
    t.that(
        not torch.equal(pairs[0], pairs[2]),
        "two generators give the same blanks: a text must get new ones each time it is read",
    )
    t.that(
        torch.equal(pairs[0], pairs[1]),
        "the same generator gives other blanks: something is drawn from torch's global generator",
    )


# ---- the piece at work ----------------------------------------------------------------------


@cache
def _reviews() -> tuple[dict[str, list[str]], BertTokenizer, BertForPreTraining]:
    """Sentences by film, none of which the model has read; the tokenizer; the model."""
    try:
        task = load_task("rotten-tomatoes")
    except SourceError as error:
        raise Failed(
            f"the new text is not on this machine: bertlearn data fetch rotten-tomatoes ({error})"
        ) from None
    films: dict[str, list[str]] = {}
    for record in (*task.train, *task.valid, *task.test):
        assert isinstance(record, Classified)
        films.setdefault(record.id.split("/")[0], []).append(record.text)
    model = BertForPreTraining.from_pretrained(MODEL)
    return films, tokenizer_of(find_directory(MODEL)), model.eval()


def _rows(names: list[str], count: int) -> Tensor:
    """``(count, LENGTH)`` ids of what was written on these films; takes names off the list."""
    films, tokenizer, _ = _reviews()
    documents: list[list[list[int]]] = []
    while sum(len(ids) + 1 for film in documents for ids in film) < (count + 1) * LENGTH:
        documents.append([tokenizer.encode(text).ids[1:-1] for text in films[names.pop()]])
    ends = [tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")]
    return torch.tensor([row.ids for row in pack(documents, LENGTH, *ends)[:count]])


@torch.no_grad()
def _held_out_loss(model: BertForPreTraining, ids: Tensor, hidden: Tensor, mask_id: int) -> float:
    """Nats a hidden token."""
    labels = ids.masked_fill(~hidden, IGNORE)
    losses = []
    for rows in torch.arange(len(ids)).split(32):
        output = model(ids[rows].masked_fill(hidden[rows], mask_id), labels=labels[rows])
        assert output.mlm_loss is not None
        losses.append(float(output.mlm_loss) * int(hidden[rows].sum()))
    return sum(losses) / int(hidden.sum())


def _first_the_piece(t: Toolbox, mask: Any) -> None:
    """A masking that is not right yet is not worth twenty seconds."""
    for case in mask_spans.cases[:-1]:
        try:
            case.function(Toolbox(t.seed), mask)
        except Failed as failure:
            raise Failed(f"not trained yet: first, {failure}") from None


@mask_spans.case("the shipped model reads new text through it: its held-out loss falls", points=3)
def _(t: Toolbox, mask: Any) -> None:
    _first_the_piece(t, mask)
    films, tokenizer, shipped = _reviews()
    names = sorted(films)
    t.random.shuffle(names)
    held, train = _rows(names, HELD_OUT), _rows(names, STEPS * ROWS)  # no film in both
    special = [tokenizer.token_to_id(f"[{name}]") for name in ("PAD", "UNK", "CLS", "SEP", "MASK")]
    keywords = {
        "vocab_size": tokenizer.vocab_size,
        "mask_id": special[-1],
        "special_ids": special,
    }
    draw = torch.rand(held.shape, generator=t.generator)
    hidden = (draw < 0.15) & ~torch.isin(held, torch.tensor(special))
    model = copy.deepcopy(shipped)
    before = _held_out_loss(model, held, hidden, special[-1])
    optimizer = make_optimizer(model)
    model.train()
    for step, ids in enumerate(train.split(ROWS)):
        blanks, labels = _masked(t, mask, ids, keywords)
        batch = Batch(blanks, torch.zeros_like(ids), labels)
        train_step(model, optimizer, [batch], learning_rate(step, STEPS, RATE, STEPS // 8))
    after = _held_out_loss(model.eval(), held, hidden, special[-1])
    t.that(
        after < before - FALL,
        f"after {STEPS} steps on {train.numel():,} tokens of film reviews the loss on other films "
        f"has not fallen: what does the model learn from your blanks?",
        expected=f"below {before - FALL:.2f} nats",
        got=f"{after:.2f} nats",
    )

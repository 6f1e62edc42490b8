"""What rows, schedule, optimizer and steps of pre-training must do (chapter 08), and the questions
of its exercises."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.checks.core import Check, Toolbox, refusal
from bertlearn.config import BertConfig

IGNORED = -100

# ---- rows and batches -----------------------------------------------------------------------

pack = Check("08.pack", "rows without padding", ("pack",))


def _packed(documents: list, length: int, *, between: int | None = 2) -> list[list[int]]:
    """Rows of ids, by walking; 1 begins a row, 2 ends it, ``between`` parts documents."""
    rows, row = [], [1]
    for place, document in enumerate(documents):
        ids = [i for sentence in document for i in sentence]
        if place and between is not None:
            ids = [between, *ids]
        for i in ids:
            row.append(i)
            if len(row) == length - 1:
                rows.append([*row, 2])
                row = [1]
    return rows


@pack.case("two documents by hand, in rows of five")
def _(t: Toolbox, pack: Any) -> None:
    documents = [[[10, 11], [12]], [[13, 14, 15]]]
    got = [row.ids for row in pack(documents, 5, 1, 2)]
    t.equal(
        got,
        [[1, 10, 11, 12, 2], [1, 2, 13, 14, 2]],
        "the ids of the rows",
        suspects={
            "nothing stands between two documents: put a [SEP] there": (
                [[1, 10, 11, 12, 2], [1, 13, 14, 15, 2]]
            ),
            "a [SEP] ends a document, not a sentence": [
                [1, 10, 11, 2, 2],
                [1, 12, 2, 13, 2],
                [1, 14, 15, 2, 2],
            ],
            "what does not fill the last row is left out": (
                [[1, 10, 11, 12, 2], [1, 2, 13, 14, 2], [1, 15, 2]]
            ),
            "a row begins with [CLS] and ends with [SEP]": [[10, 11, 12, 2, 13]],
        },
    )


@pack.case("every row is full, nothing is lost or doubled, segments are 0")
def _(t: Toolbox, pack: Any) -> None:
    documents = [
        [[t.integer(10, 99) for _ in range(t.integer(1, 9))] for _ in range(t.integer(1, 5))]
        for _ in range(12)
    ]
    rows = list(pack(documents, 16, 1, 2))
    t.that(all(len(row.ids) == 16 for row in rows), "a row does not have the length asked for")
    t.equal([row.ids for row in rows], _packed(documents, 16), "the rows of twelve documents")
    t.equal(
        [list(row.type_ids) for row in rows],
        [[0] * 16 for _ in rows],
        "type_ids",
        suspects={"a packed row is one segment: 0 everywhere": [[0] + [1] * 15 for _ in rows]},
    )
    t.that(all(row.label is None for row in rows), "a packed row is no pair: its label is None")


pair_row = Check("08.pair_row", "a pair as one row", ("pair_row",))


@pair_row.case("[CLS] A [SEP] B [SEP], the first [SEP] belongs to A")
def _(t: Toolbox, pair_row: Any) -> None:
    for label in (0, 1):
        row = pair_row(SimpleNamespace(first=[10, 11], second=[12], label=label), 1, 2)
        t.equal(
            list(row.ids),
            [1, 10, 11, 2, 12, 2],
            "the ids",
            suspects={
                "the second text must end with a [SEP] too": [1, 10, 11, 2, 12],
                "a [SEP] must stand between the two texts": [1, 10, 11, 12, 2],
            },
        )
        t.equal(
            list(row.type_ids),
            [0, 0, 0, 0, 1, 1],
            "the segments",
            suspects={
                "the [SEP] behind A belongs to A: its segment is 0": [0, 0, 0, 1, 1, 1],
                "the second text has segment 1": [0] * 6,
            },
        )
        t.equal(row.label, label, "the label")


like_lengths = Check("08.like_lengths", "batches of rows of like lengths", ("like_lengths",))


def _rows(lengths: list[int]) -> list[SimpleNamespace]:
    """Rows that can be told apart by their first id."""
    return [
        SimpleNamespace(ids=[100 + i] + [7] * (n - 1), type_ids=[0] * n, label=None)
        for i, n in enumerate(lengths)
    ]


def _names(batches: list) -> list[list[int]]:
    return [[row.ids[0] for row in batch] for batch in batches]


@like_lengths.case("batches of the right size, no row twice")
def _(t: Toolbox, like_lengths: Any) -> None:
    rows = _rows([t.integer(1, 40) for _ in range(50)])
    before = [row.ids[0] for row in rows]
    batches = like_lengths(rows, 8, random.Random(1))
    t.that(
        all(len(batch) == 8 for batch in batches),
        "rows that do not fill a batch are left out: every batch has the same size",
    )
    t.equal(len(batches), 6, "the number of batches of 8 from 50 rows")
    names = [name for batch in _names(batches) for name in batch]
    t.that(len(set(names)) == 48, "a row stands in two batches")
    t.that([row.ids[0] for row in rows] == before, "the rows handed in were put in another order")


@like_lengths.case("rows of a batch have like lengths")
def _(t: Toolbox, like_lengths: Any) -> None:
    rows = _rows(random.Random(t.seed).sample([n for n in range(1, 21) for _ in range(4)], 80))
    for batch in like_lengths(rows, 4, random.Random(2)):
        lengths = {len(row.ids) for row in batch}
        t.that(
            len(lengths) == 1,
            "four rows of each length make batches without padding, but yours mix lengths: sort "
            "by length before you cut",
            got=str(sorted(lengths)),
        )


@like_lengths.case("the order is random: of batches, of rows, and of what is left out")
def _(t: Toolbox, like_lengths: Any) -> None:
    rows = _rows([n for n in range(1, 12) for _ in range(5)])
    drawn = [like_lengths(rows, 4, random.Random(seed)) for seed in range(40)]
    means = [[sum(len(row.ids) for row in batch) for batch in one] for one in drawn]
    t.that(
        any(one != sorted(one) for one in means),
        "your batches come from short to long: put them in a random order",
    )
    t.that(
        len({tuple(sorted(map(tuple, _names(one)))) for one in drawn}) > 20,
        "rows of equal length always come together in the same batches: shuffle before you sort",
    )
    kept = [{name for batch in _names(one) for name in batch} for one in drawn]
    always = set.intersection(*kept)
    left_out = {100 + i for i in range(55)} - always
    t.that(
        len(left_out) > 20,
        "the same rows are left out each time: draw what is left out before you sort",
        got=str(sorted(left_out)[:8]),
    )
    again = like_lengths(rows, 4, random.Random(5))
    t.that(_names(again) == _names(drawn[5]), "the same seed must give the same batches")


collate = Check("08.collate", "rows as tensors", ("collate",))


@collate.case("padded to the longest row, with a mask")
def _(t: Toolbox, collate: Any) -> None:
    rows = [
        SimpleNamespace(ids=[1, 10, 2], type_ids=[0, 0, 0], label=None),
        SimpleNamespace(ids=[1, 10, 2, 12, 2], type_ids=[0, 0, 0, 1, 1], label=None),
    ]
    ids, segments, mask, labels = collate(rows, 9)
    want = torch.tensor([[1, 10, 2, 9, 9], [1, 10, 2, 12, 2]])
    t.equal(
        ids,
        want,
        "the ids",
        suspects={
            "padding has an id of its own, which is handed in: it is not always 0": (
                torch.tensor([[1, 10, 2, 0, 0], [1, 10, 2, 12, 2]])
            )
        },
    )
    t.equal(segments, torch.tensor([[0] * 5, [0, 0, 0, 1, 1]]), "the segments")
    real = want != 9
    t.tensor(mask, name="the mask", shape=(2, 5), dtype=torch.bool)
    t.equal(
        mask,
        real,
        "the mask",
        suspects={"the mask is True for a token and False for padding": ~real},
    )
    t.that(labels is None, "rows that are not pairs have no labels: the fourth result is None")


@collate.case("no mask where nothing is padded, labels where rows are pairs")
def _(t: Toolbox, collate: Any) -> None:
    rows = [SimpleNamespace(ids=[1, 10 + i, 2], type_ids=[0, 0, 0], label=i % 2) for i in range(3)]
    _, _, mask, labels = collate(rows, 0)
    t.that(mask is None, "nothing is padded here: the mask must be None, which saves its work")
    t.equal(labels, torch.tensor([0, 1, 0]), "the labels of the pairs")


batch_check = Check("08.Batch", "what a model is fed", ("Batch",))


def _columns(t: Toolbox, rows: int = 5, seq: int = 6) -> dict[str, Tensor]:
    ids, mask = t.ids(90, rows, seq, low=10), torch.ones(rows, seq, dtype=torch.bool)
    mask[1, 4:] = False
    labels = torch.full((rows, seq), IGNORED)
    labels[0, 1], labels[2, 3], labels[2, 4] = 11, 12, 0
    return {
        "input_ids": ids,
        "token_type_ids": torch.zeros_like(ids),
        "labels": labels,
        "attention_mask": mask,
        "next_sentence_label": t.ids(2, rows),
    }


@batch_check.case("counts tokens without padding, and targets")
def _(t: Toolbox, cls: Any) -> None:
    columns = _columns(t)
    t.equal(
        cls(**columns).tokens,
        28,
        "tokens, of 5 rows of 6 with two places of padding",
        suspects={"padding is not counted": 30},
    )
    plain = cls(columns["input_ids"], columns["token_type_ids"], columns["labels"])
    t.equal(plain.tokens, 30, "tokens where nothing is padded")
    t.equal(
        plain.targets,
        3,
        "targets, one of which is id 0",
        suspects={
            "id 0 can be asked for: a target is every label that is not -100": 2,
            "every place was counted: a target is a label that is not -100": 30,
        },
    )


@batch_check.case("the order of inputs is the model's, and split keeps rows together")
def _(t: Toolbox, cls: Any) -> None:
    columns = _columns(t)
    order = ("input_ids", "token_type_ids", "attention_mask", "labels", "next_sentence_label")
    for place, name in enumerate(order):
        t.that(
            cls(**columns).inputs[place] is columns[name],
            f"input {place} of the model is {name}",
        )
    parts = cls(**columns).split(2)
    t.equal([len(part.input_ids) for part in parts], [2, 2, 1], "rows of the parts")
    for name, column in columns.items():
        t.equal(torch.cat([getattr(p, name) for p in parts]), column, f"{name} of all parts")
    bare = cls(columns["input_ids"], columns["token_type_ids"], columns["labels"]).split(3)
    t.that(all(part.attention_mask is None for part in bare), "a column that is None stays None")


# ---- a start that does not waste steps ------------------------------------------------------

entropy = Check("08.unigram_entropy", "the loss of word counts", ("unigram_entropy",))


def _entropy(counts: Tensor) -> float:
    shares = [c / float(counts.sum()) for c in counts.tolist() if c]
    return -sum(share * math.log(share) for share in shares)


@entropy.case("by hand: counts 2, 1, 1 and 0")
def _(t: Toolbox, unigram_entropy: Any) -> None:
    got = unigram_entropy(torch.tensor([2, 1, 1, 0]))
    t.that(not math.isnan(got), "a word that never occurs gives nan: 0 log 0 counts as 0")
    t.close(
        got,
        1.0397,  # 0.5 * ln 2 + 0.5 * ln 4
        "the entropy",
        atol=1e-4,
        suspects={
            "this is in bits: a loss is in nats, the natural logarithm": 1.5,
            "each word counts by its share, not once": math.log(2) / 4 + math.log(4) / 2,
        },
    )


@entropy.case("equal counts give the logarithm of their number; any counts, exactly")
def _(t: Toolbox, unigram_entropy: Any) -> None:
    t.close(unigram_entropy(torch.full((8192,), 3)), math.log(8192), "8,192 equal counts")
    counts = t.ids(1000, 500)
    t.close(unigram_entropy(counts), _entropy(counts), "500 counts", atol=1e-9, rtol=1e-9)


blind = Check("08.blind_loss", "the loss without context", ("blind_loss",))


def _blind(counts: Tensor, mix: tuple[float, float, float]) -> float:
    """By adding up over every true word and everything that can be seen in its place."""
    p, n = (counts / counts.sum()).double(), len(counts)
    joint = mix[1] / n * p[:, None].expand(n, n) + mix[2] * torch.diag(p)  # (true, seen)
    posterior = joint / joint.sum(0, keepdim=True).clamp(min=1e-30)
    return mix[0] * _entropy(counts) - float(torch.special.xlogy(joint, posterior).sum())


@blind.case("with [MASK] alone it is the entropy of the counts; with all words kept it is 0")
def _(t: Toolbox, blind_loss: Any) -> None:
    counts = t.ids(99, 40, low=1)
    t.close(blind_loss(counts, (1.0, 0.0, 0.0)), _entropy(counts), "all blanks [MASK]", atol=1e-6)
    t.close(
        blind_loss(counts, (0.0, 0.0, 1.0)),
        0.0,
        "all words left as they are",
        atol=1e-6,
        suspects={"a word that is left as it is can be read: it costs nothing": _entropy(counts)},
    )


@blind.case("any mix, against the sum over all true and seen words")
def _(t: Toolbox, blind_loss: Any) -> None:
    counts = t.ids(500, 60)
    counts[:5] = 0
    for mix in ((0.8, 0.1, 0.1), (0.5, 0.2, 0.3), (0.9, 0.1, 0.0)):
        t.close(
            blind_loss(counts, mix),
            _blind(counts, mix),
            f"the loss with {mix}",
            atol=1e-6,
            suspects={
                "a seen word may be one drawn by chance: it cannot be copied for certain": (
                    (mix[0] + mix[1]) * _entropy(counts)
                ),
            },
        )


start = Check(
    "08.start_from_frequencies", "frequencies as output bias", ("start_from_frequencies",)
)


def _headed(vocab: int) -> Any:
    """A stand-in for a model, with an output bias."""
    bias = nn.Parameter(torch.zeros(vocab))
    return SimpleNamespace(cls=SimpleNamespace(predictions=SimpleNamespace(bias=bias)))


@start.case("softmax of the bias gives the shares, each count plus one")
def _(t: Toolbox, start_from_frequencies: Any) -> None:
    counts = torch.tensor([6, 2, 0, 1])
    model = _headed(4)
    bias = model.cls.predictions.bias
    start_from_frequencies(model, counts)
    t.that(model.cls.predictions.bias is bias, "write into the bias that is there: it may be tied")
    got = bias.detach()
    t.that(
        bool(torch.isfinite(got).all()),
        "a word that was never counted has a bias of minus infinity: add one to each count",
    )
    t.close(
        got.softmax(0),
        (counts + 1) / 13,
        "softmax(bias)",
        suspects={
            "these are not logarithms: softmax takes the exponential again": (
                ((counts + 1) / 13).softmax(0)
            ),
        },
    )
    t.close(got.exp().sum(), 1.0, "the sum of exp(bias)", atol=1e-4)


@start.case("the bias still learns")
def _(t: Toolbox, start_from_frequencies: Any) -> None:
    model = _headed(50)
    counts = t.ids(1000, 50)
    start_from_frequencies(model, counts)
    bias = model.cls.predictions.bias
    t.that(bias.requires_grad and bias.grad_fn is None, "the bias must stay a parameter")
    t.close(bias.detach(), torch.log_softmax((counts + 1.0).log(), 0), "the bias", atol=1e-4)


spread = Check("08.spread_positions", "positions that were never used", ("spread_positions",))


@spread.case("the trained vectors again and again, the trained ones untouched")
def _(t: Toolbox, spread_positions: Any) -> None:
    for size, trained in ((10, 4), (8, 4), (6, 6), (5, 3)):
        table = nn.Parameter(t.randn(size, 3))
        before = table.detach().clone()
        embeddings = SimpleNamespace(position_embeddings=SimpleNamespace(weight=table))
        spread_positions(SimpleNamespace(bert=SimpleNamespace(embeddings=embeddings)), trained)
        once = before.clone()
        once[trained : 2 * trained] = before[: len(once[trained : 2 * trained])]
        last = before.clone()
        last[trained:] = before[trained - 1]
        t.close(
            table.detach(),
            before[torch.arange(size) % trained],
            f"{size} positions of which {trained} are trained",
            suspects={
                "the table is as it was: copy into it": before,
                "you copied once: go on to the end of the table": once,
                "the last trained vector is everywhere: positions would all look alike": last,
            },
        )
        t.that(table.requires_grad, "the table must go on learning")


waves_check = Check("08.position_waves", "positions as waves", ("position_waves",))


@waves_check.case("two pairs of columns by hand")
def _(t: Toolbox, position_waves: Any) -> None:
    angles, table = position_waves(3, 4)
    t.close(angles, torch.tensor([2.5, 0.05]), "the angles")
    by_hand = torch.tensor([[p * a for a in (2.5, 0.05)] for p in range(3)])
    sin, cos = by_hand.sin(), by_hand.cos()
    t.close(
        table,
        torch.stack([sin, cos], dim=-1).flatten(1),
        "the table of three positions",
        suspects={
            "sine and cosine of one angle stand side by side": torch.cat([sin, cos], dim=-1),
            "the sine comes first": torch.stack([cos, sin], dim=-1).flatten(1),
            "position 0 has angle 0": torch.stack(
                [(by_hand + by_hand[1]).sin(), (by_hand + by_hand[1]).cos()], dim=-1
            ).flatten(1),
        },
    )


@waves_check.case("how alike two positions are depends on their distance only")
def _(t: Toolbox, position_waves: Any) -> None:
    angles, table = position_waves(40, 24)
    t.close(angles[1:] / angles[:-1], (0.05 / 2.5) ** (1 / 11) * torch.ones(11), "the steps")
    alike = table @ table.T
    t.close(alike[0, :30], alike[9, 9:39], "likeness of positions 0 to 29 apart", atol=1e-3)
    t.that(bool((alike[0, 1:] < alike[0, 0] - 1).all()), "neighbors must differ clearly")


turn_check = Check("08.turning", "moving waves on", ("turning",))


@turn_check.case("one pair by hand, and the next position")
def _(t: Toolbox, turning: Any) -> None:
    sin, cos = math.sin(0.3), math.cos(0.3)
    right = torch.tensor([[cos, sin], [-sin, cos]])
    t.close(
        turning(torch.tensor([0.3])),
        right,
        "turn by 0.3",
        suspects={"this turns back: sin(a + b) = sin a cos b + cos a sin b": right.T},
    )
    angles = torch.tensor([2.0, 0.7, 0.1])
    place = torch.arange(9)[:, None] * angles
    table = torch.stack([place.sin(), place.cos()], dim=-1).flatten(1)
    t.close(table[:-2] @ turning(2 * angles).T, table[2:], "two positions on", atol=1e-5)


neighbors_check = Check("08.look_at_neighbors", "heads begin at neighbors", ("look_at_neighbors",))


def _stack(heads: int, hidden: int, positions: int, std: float = 0.02) -> Any:
    """A stand-in for a fresh model: tables and two layers of queries and keys."""
    config = BertConfig(hidden_size=hidden, num_attention_heads=heads, initializer_range=std)
    tables = {
        "word_embeddings": nn.Embedding(50, hidden),
        "position_embeddings": nn.Embedding(positions, hidden),
        "token_type_embeddings": nn.Embedding(2, hidden),
    }

    def attention() -> Any:
        query, key, value = (nn.Linear(hidden, hidden) for _ in range(3))
        return SimpleNamespace(
            self=SimpleNamespace(num_heads=heads, query=query, key=key, value=value)
        )

    layers = [SimpleNamespace(attention=attention()) for _ in range(2)]
    for table in tables.values():
        nn.init.normal_(table.weight, std=std)
    for layer in layers:
        for name in ("query", "key", "value"):
            linear = getattr(layer.attention.self, name)
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)
    bert = SimpleNamespace(
        embeddings=SimpleNamespace(**tables), encoder=SimpleNamespace(layer=layers)
    )
    return SimpleNamespace(bert=bert, config=config)


def _looks(model: Any, ids: Tensor) -> Tensor:
    """Weights of the first layer's heads, ``(heads, query, key)``, mean over rows."""
    tables, attention = model.bert.embeddings, model.bert.encoder.layer[0].attention.self
    seq, heads = ids.shape[1], attention.num_heads
    x = tables.word_embeddings(ids) + tables.position_embeddings.weight[:seq]
    x = F.layer_norm(x + tables.token_type_embeddings.weight[0], x.shape[-1:])
    query, key = (
        f(x).view(*ids.shape, heads, -1).transpose(1, 2) for f in (attention.query, attention.key)
    )
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    return scores.softmax(-1).mean(0).detach()


@neighbors_check.case("each head looks at its own offset, most of all")
def _(t: Toolbox, look_at_neighbors: Any) -> None:
    for heads, hidden in ((4, 256), (4, 64)):
        offsets = t.choice([(-1, 1, -2, 2), (1, -1, 3, -3), (0, 2, -1, 1)])
        torch.manual_seed(t.integer(0, 10**6))
        model = _stack(heads, hidden, 40)
        look_at_neighbors(model, offsets)
        looks = _looks(model, t.ids(50, 8, 24))
        for head, offset in enumerate(offsets):
            found = {k: float(looks[head].diagonal(k)[6:-6].mean()) for k in range(-4, 5)}
            best = max(found, key=lambda k: found[k])
            t.that(
                best == offset,
                "the head looks to the other side: turn the queries, not the keys, by the offset"
                if best == -offset
                else "a head does not look where its offset says",
                expected=f"most weight at {offset:+d}",
                got=f"most weight at {best:+d} ({found[best]:.2f})",
            )
            t.that(
                found[offset] > 0.3,
                "the head is not sharp: words and positions must not share columns, and queries "
                "and keys need the gain",
                expected="more than 0.3 of the weight",
                got=f"{found[offset]:.2f}",
            )


@neighbors_check.case("heads without an offset, values and other layers stay as they are")
def _(t: Toolbox, look_at_neighbors: Any) -> None:
    model = _stack(4, 64, 20)
    first, second = (layer.attention.self for layer in model.bert.encoder.layer)
    kept = [
        (first.query.weight[32:], "a head without an offset has changed"),
        (first.value.weight, "the values have changed: only queries and keys choose"),
        (second.query.weight, "the second layer has changed: only the first sees bare positions"),
    ]
    before = [weight.detach().clone() for weight, _ in kept]
    look_at_neighbors(model, (-1, 1))
    for (weight, message), old in zip(kept, before, strict=True):
        t.that(torch.equal(weight, old), message)
    weight = model.bert.embeddings.position_embeddings.weight
    t.that(weight.requires_grad and weight.is_leaf, "the table must go on learning")
    said = refusal(ValueError, look_at_neighbors, _stack(2, 64, 20), (-1, 1, -2))
    t.that(said is not None, "three offsets for two heads must be refused with a ValueError")


# ---- schedule and optimizer -----------------------------------------------------------------

rate_check = Check("08.learning_rate", "up in a line, down in a line", ("learning_rate",))


def _rate(step: int, steps: int, peak: float, warmup: int) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / (steps - warmup)


@rate_check.case("ten steps by hand, four of them warm-up")
def _(t: Toolbox, learning_rate: Any) -> None:
    got = torch.tensor([learning_rate(s, 10, 1.0, 4) for s in range(10)])
    google = [(s / 4 if s < 4 else 1 - s / 10) for s in range(10)]
    t.close(
        got,
        torch.tensor([0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 0.5, 2 / 6, 1 / 6]),
        "the rates of steps 0 to 9",
        suspects={
            "step 0 has a rate of 0: it computes a gradient and throws it away": (
                torch.tensor([0, 0.25, 0.5, 0.75, 1.0, 5 / 6, 4 / 6, 0.5, 2 / 6, 1 / 6])
            ),
            "the fall is counted from step 0, so the rate jumps where warm-up ends": (
                torch.tensor(google)
            ),
            "the rate never falls: behind the warm-up it goes down to 0": (
                torch.tensor([0.25, 0.5, 0.75] + [1.0] * 7)
            ),
        },
    )


@rate_check.case("never above the peak, never 0, up and then down")
def _(t: Toolbox, learning_rate: Any) -> None:
    steps, warmup = t.integer(50, 90), t.integer(1, 20)
    got = [learning_rate(s, steps, 3e-4, warmup) for s in range(steps)]
    t.that(max(got) <= 3e-4 * (1 + 1e-9), "the rate exceeds its peak")
    t.that(min(got) > 0, "a step has a rate of 0: it is wasted")
    t.close(
        torch.tensor(got),
        torch.tensor([_rate(s, steps, 3e-4, warmup) for s in range(steps)]),
        "the rates",
        atol=1e-9,
    )


groups_check = Check("08.decay_groups", "what decays", ("decay_groups",))


class _Odd(nn.Module):
    """Norms and biases under names that no list of names expects."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.norm_one = nn.LayerNorm(4)
        self.dense = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 7)
        self.decoder.weight = self.table.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def _in_groups(model: nn.Module, groups: list[dict]) -> dict[str, list[float]]:
    names = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, list[float]] = {}
    for group in groups:
        for p in group["params"]:
            found.setdefault(names.get(id(p), "?"), []).append(group["weight_decay"])
    return found


@groups_check.case("matrices and tables decay, biases and LayerNorms do not")
def _(t: Toolbox, decay_groups: Any) -> None:
    model = _Odd()
    found = _in_groups(model, decay_groups(model, 0.1))
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        got = found.get(name, [])
        t.that(got, f"{name} is in no group: it would never learn")
        t.that(len(got) == 1, f"{name} is in two groups: it would be moved twice")
        t.that(
            got == [0.1] if p.dim() > 1 else got == [0.0],
            f"{name} has {p.dim()} axes, so it must {'' if p.dim() > 1 else 'not '}decay",
        )


@groups_check.case("frozen parameters are left out")
def _(t: Toolbox, decay_groups: Any) -> None:
    model = _Odd()
    found = _in_groups(model, decay_groups(model, 0.1))
    t.that(
        not any(name.startswith("frozen") for name in found),
        "a frozen parameter is in a group: leave out what does not require a gradient",
    )


optimizer_check = Check("08.make_optimizer", "AdamW for this model", ("make_optimizer",))


@optimizer_check.case("decoupled decay, on matrices only, in one fused operator")
def _(t: Toolbox, make_optimizer: Any) -> None:
    optimizer = make_optimizer(_Odd(), (0.8, 0.9), 1e-7, 0.3)
    t.that(
        isinstance(optimizer, torch.optim.AdamW),
        "this must be AdamW: in Adam the decay is a part of the gradient, and is divided away",
    )
    for group in optimizer.param_groups:
        t.that(group["fused"], "ask for the fused operator: fused=True")
        t.that(
            tuple(group["betas"]) == (0.8, 0.9) and group["eps"] == 1e-7,
            "betas and eps are not those that were asked for",
        )
    decays = sorted(group["weight_decay"] for group in optimizer.param_groups)
    t.equal(decays, [0.0, 0.3], "the weight decay of the groups")


@optimizer_check.case("one step by hand: decay shrinks the matrix, not the bias")
def _(t: Toolbox, make_optimizer: Any) -> None:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, 1.0)
    nn.init.constant_(layer.bias, 1.0)
    optimizer = make_optimizer(layer, weight_decay=0.5)
    layer.weight.grad, layer.bias.grad = torch.full((2, 2), 8.0), torch.full((2,), -3.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    # 1 - 0.1 * 0.5 for decay, then 0.1 against the sign of the gradient
    t.close(layer.weight.detach(), torch.full((2, 2), 0.85), "the matrix", atol=1e-4)
    t.close(
        layer.bias.detach(),
        torch.full((2,), 1.1),
        "the bias",
        atol=1e-4,
        suspects={"the bias decays too": torch.full((2,), 1.05)},
    )


# ---- one step -------------------------------------------------------------------------------


@dataclass
class Given:
    """A batch as ``train_step`` and ``evaluate`` need it."""

    input_ids: Tensor
    labels: Tensor
    next_sentence_label: Tensor | None = None
    token_type_ids: Tensor | None = None
    attention_mask: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """As the model takes it."""
        return (
            self.input_ids,
            self.token_type_ids,
            self.attention_mask,
            self.labels,
            self.next_sentence_label,
        )

    @property
    def tokens(self) -> int:
        """Nothing is padded."""
        return self.input_ids.numel()

    @property
    def targets(self) -> int:
        """Labels that are not -100."""
        return int((self.labels != IGNORED).sum())


class Toy(nn.Module):
    """A model with the signature of ``BertForPreTraining``: a table and two linear maps."""

    def __init__(self, seed: int = 0, vocab: int = 12, dropout: float = 0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(vocab, 8, generator=generator))
        self.out = nn.Parameter(torch.randn(8, vocab, generator=generator))
        self.pair = nn.Parameter(torch.randn(8, 2, generator=generator))
        self.dropout = nn.Dropout(dropout)
        self.modes: list[bool] = []

    def forward(
        self, ids: Tensor, types: Any, mask: Any, labels: Tensor, pairs: Tensor | None = None
    ) -> Any:
        """Losses and scores."""
        self.modes.append(self.training)
        hidden = self.dropout(self.table[ids])  # (batch, seq, 8)
        asked = labels != IGNORED
        logits = hidden[asked] @ self.out
        total = F.cross_entropy(logits, labels[asked], reduction="sum")
        mlm = total / asked.sum().clamp(min=1)
        judged = hidden[:, 0] @ self.pair
        pair = None if pairs is None else F.cross_entropy(judged, pairs)
        return SimpleNamespace(
            prediction_logits=logits,
            seq_relationship_logits=judged,
            mlm_loss=mlm,
            pair_loss=pair,
            loss=mlm if pair is None else mlm + pair,
        )


def _given(t: Toolbox, rows: int, targets: int, pairs: bool = False) -> Given:
    """Rows of six tokens of which so many are asked for."""
    ids = t.ids(12, rows, 6)
    labels = torch.full((rows, 6), IGNORED)
    places = torch.randperm(rows * 6, generator=t.generator)[:targets]
    labels.view(-1)[places] = t.ids(12, targets)
    return Given(ids, labels, t.ids(2, rows) if pairs else None)


def _joined(batches: list[Given]) -> Given:
    pairs = batches[0].next_sentence_label is not None
    return Given(
        torch.cat([b.input_ids for b in batches]),
        torch.cat([b.labels for b in batches]),
        torch.cat([b.next_sentence_label for b in batches]) if pairs else None,  # type: ignore[misc]
    )


class _Recorder(torch.optim.SGD):
    """Remembers what it was given at each step."""

    def __init__(self, model: nn.Module):
        super().__init__(model.parameters(), lr=99.0)
        self.seen: list[tuple[float, dict[int, Tensor]]] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Note the rate and the gradients, then step."""
        group = self.param_groups[0]
        grads = {id(p): p.grad.clone() for p in group["params"] if p.grad is not None}
        self.seen.append((group["lr"], grads))
        super().step()


def _stepped(train_step: Any, batches: list[Given], **more: Any) -> tuple[Any, Toy, _Recorder]:
    model = Toy()
    optimizer = _Recorder(model)
    result = train_step(model, optimizer, batches, 0.01, **more)
    return result, model, optimizer


step_check = Check("08.train_step", "one step on several batches", ("train_step",))


@step_check.case("three batches with 1, 4 and 15 targets are as good as one with 20")
def _(t: Toolbox, train_step: Any) -> None:
    for pairs in (False, True):
        batches = [_given(t, r, n, pairs) for r, n in ((1, 1), (2, 4), (5, 15))]
        result, model, optimizer = _stepped(train_step, batches, max_norm=1e9)
        twin = Toy()
        whole = twin(*_joined(batches).inputs)
        whole.loss.backward()
        t.that(
            len(optimizer.seen) == 1,
            "the weights were moved once for each batch: several batches make one step",
        )
        alone = [Toy()(*b.inputs).mlm_loss.item() for b in batches]
        t.close(
            result.mlm_loss,
            whole.mlm_loss.item(),
            "mlm_loss",
            suspects={
                "this is the mean of the batches' means: a batch with one target counts as much "
                "as one with fifteen": sum(alone) / 3,
                "this is the sum of the batches' losses: divide by the targets of the step": (
                    sum(alone)
                ),
            },
        )
        _, grads = optimizer.seen[0]
        for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
            if q.grad is not None:
                t.close(grads[id(p)], q.grad, f"the gradient of {name}", atol=1e-6)
        if pairs:
            t.close(result.pair_loss, whole.pair_loss.item(), "pair_loss")
        else:
            t.that(result.pair_loss is None, "rows that are not pairs: pair_loss is None")


@step_check.case("one limit for the norm of all gradients together")
def _(t: Toolbox, train_step: Any) -> None:
    batches = [_given(t, 4, 12), _given(t, 4, 6)]
    result, model, optimizer = _stepped(train_step, batches, max_norm=0.1)
    twin = Toy()
    twin(*_joined(batches).inputs).loss.backward()
    wanted = [p.grad for p in twin.parameters() if p.grad is not None]
    norm = torch.stack([g.norm() for g in wanted]).norm()
    got = [g for g in optimizer.seen[0][1].values() if bool(g.any())]
    whole = [g * (0.1 / norm) for g in wanted]
    single = [g * (0.1 / g.norm()) for g in wanted]
    for ours, right, wrong in zip(got, whole, single, strict=True):
        t.close(
            ours,
            right,
            "a clipped gradient",
            suspects={"each gradient was clipped on its own, which turns the step": wrong},
        )
    t.close(
        result.grad_norm,
        float(norm),
        "grad_norm",
        suspects={"this is the norm after clipping: the one before says how training goes": 0.1},
    )


@step_check.case("uses the rate it was given, counts tokens, leaves no gradient behind")
def _(t: Toolbox, train_step: Any) -> None:
    batches = [_given(t, 4, 12), _given(t, 3, 6)]
    result, model, optimizer = _stepped(train_step, batches)
    t.close(optimizer.seen[0][0], 0.01, "the optimizer's rate at the step")
    t.equal(result.tokens, 42, "tokens")
    t.that(
        all(p.grad is None or not bool(p.grad.any()) for p in model.parameters()),
        "gradients are left over: the next step would add to them",
    )


@step_check.case("a loss that is not finite stops before the weights are touched")
def _(t: Toolbox, train_step: Any) -> None:
    for bad in (math.nan, math.inf):
        model = Toy()
        with torch.no_grad():
            model.out[0, 0] = bad
        before = copy.deepcopy(model.state_dict())
        optimizer = _Recorder(model)
        raised = False
        try:
            train_step(model, optimizer, [_given(t, 4, 12)], 0.01)
        except RuntimeError:
            raised = True
        after = model.state_dict()
        same = all(torch.equal(before[k].nan_to_num(), after[k].nan_to_num()) for k in before)
        t.that(same and not optimizer.seen, "the weights were moved by a gradient of nan")
        t.that(raised, "a loss of nan or inf must raise NonFiniteLoss")
        left = [p.grad for p in model.parameters() if p.grad is not None]
        t.that(not any(bool(g.isnan().any()) for g in left), "a gradient of nan is left behind")


@step_check.case("over two processes: the mean of their gradients is that of all targets")
def _(t: Toolbox, train_step: Any) -> None:
    shares = [[_given(t, 2, 1)], [_given(t, 4, 11)]]
    everything = torch.tensor([[12.0, 6.0, 36.0]]).squeeze(0)

    def total(here: Tensor) -> Tensor:
        return everything.to(here) if here.numel() == 3 else here

    grads = []
    for mine in shares:
        _, model, optimizer = _stepped(train_step, mine, max_norm=1e9, world=2, total=total)
        seen = optimizer.seen[0][1]
        grads.append([seen[id(p)] for p in model.parameters() if id(p) in seen])
    twin = Toy()
    twin(*_joined([b for mine in shares for b in mine]).inputs).loss.backward()
    wanted = [p.grad for p in twin.parameters() if p.grad is not None]
    for a, b, want in zip(*grads, wanted, strict=True):
        t.close((a + b) / 2, want, "the mean of the two processes' gradients", atol=1e-6)


# ---- how good, how fast ---------------------------------------------------------------------

evaluate_check = Check("08.evaluate", "how good on held-out rows", ("evaluate",))


@evaluate_check.case("means over targets, not over batches")
def _(t: Toolbox, evaluate: Any) -> None:
    model = Toy(dropout=0.5).eval()
    batches = [_given(t, r, n, True) for r, n in ((2, 1), (3, 4), (5, 25))]
    got = evaluate(model, batches)
    with torch.no_grad():
        outs = [model(*b.inputs) for b in batches]
    truth = torch.cat([b.labels[b.labels != IGNORED] for b in batches])
    logits = torch.cat([out.prediction_logits for out in outs])
    want = F.cross_entropy(logits, truth).item()
    t.close(
        got.mlm_loss,
        want,
        "mlm_loss",
        suspects={
            "this is the mean of the batches' means: each target must count the same": (
                sum(out.mlm_loss.item() for out in outs) / 3
            ),
            "this is the perplexity: the loss is asked for": math.exp(want),
        },
    )
    order = logits.argsort(-1, descending=True)
    t.close(got.top1, (order[:, 0] == truth).float().mean().item(), "top1")
    t.close(
        got.top5,
        (order[:, :5] == truth[:, None]).any(-1).float().mean().item(),
        "top5",
        suspects={
            "this is the share of the fifth guess alone": (
                (order[:, 4] == truth).float().mean().item()
            )
        },
    )
    judged = torch.cat([out.seq_relationship_logits for out in outs]).argmax(-1)
    right = torch.cat([b.next_sentence_label for b in batches])  # type: ignore[misc]
    t.close(got.pair_accuracy, (judged == right).float().mean().item(), "pair_accuracy")


@evaluate_check.case("without dropout and gradients; the model's mode is put back")
def _(t: Toolbox, evaluate: Any) -> None:
    for training in (True, False):
        model = Toy(dropout=0.5).train(training)
        got = evaluate(model, [_given(t, 4, 12)])
        t.that(not any(model.modes), "dropout was on: call model.eval() first")
        t.that(
            model.training is training,
            "the model is in another mode than before: a run that goes on would train without "
            "dropout, or test with it",
        )
        t.that(not isinstance(got.mlm_loss, Tensor), "mlm_loss must be a plain number")
        t.that(got.pair_accuracy is None, "without pairs, pair_accuracy is None")


flops_check = Check("08.training_flops", "arithmetic of a token of training", ("training_flops",))


def _flops(size: BertConfig, seq: int, rate: float) -> float:
    h, v, wide = size.hidden_size, size.vocab_size, size.intermediate_size
    layer = 8 * h * h + 4 * h * wide + 4 * seq * h
    return 3 * (size.num_hidden_layers * layer + rate * (2 * h * h + 2 * h * v))


@flops_check.case("a width of 4 by hand")
def _(t: Toolbox, training_flops: Any) -> None:
    size = BertConfig(
        vocab_size=10,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    # layer: 8*16 + 4*4*8 + 4*5*4 = 336; head: 2*16 + 2*40 = 112, at half the tokens
    t.close(
        training_flops(size, 5, 0.5),
        1176.0,
        "training_flops",
        suspects={
            "this is the forward pass alone: the backward pass makes two products for each one": (
                392.0
            ),
            "the word scores are computed where a word is asked for, not everywhere": 1344.0,
            "the word scores are missing": 1008.0,
        },
    )


@flops_check.case("other sizes: layers, width, vocabulary, length and rate each count")
def _(t: Toolbox, training_flops: Any) -> None:
    for _ in range(3):
        width = 64 * t.integer(1, 12)
        size = BertConfig(
            vocab_size=t.integer(1000, 40000),
            hidden_size=width,
            num_hidden_layers=t.integer(1, 12),
            num_attention_heads=1,
            intermediate_size=t.integer(100, 4000),
        )
        seq = t.integer(8, 512)
        t.close(training_flops(size, seq, 0.4), _flops(size, seq, 0.4), "training_flops")
        t.close(training_flops(size, seq), _flops(size, seq, 0.15), "at the usual rate")


# ---- questions ------------------------------------------------------------------------------

schedule = Check(
    "08.inverse_root",
    "a schedule that does not know its end",
    ("inverse_root",),
    kind="implement",
    difficulty=2,
    minutes=15,
    reminder="Compute three values by hand first: the last of the warm-up, step 4 * warmup - 1, "
    "and the first of the cooldown.",
)


def _inverse_root(step: int, peak: float, warmup: int) -> float:
    done = step + 1
    return peak * min(done / warmup, math.sqrt(warmup / done))


@schedule.case("up in a line to the peak", points=1)
def _(t: Toolbox, inverse_root: Any) -> None:
    warmup = t.integer(4, 30)
    for step in range(warmup):
        t.close(
            inverse_root(step, 0.5, warmup),
            0.5 * (step + 1) / warmup,
            f"the rate of step {step}, with a warm-up of {warmup}",
            suspects={
                "step 0 has a rate of 0: the first step counts as 1": 0.5 * step / warmup,
            },
        )


@schedule.case("then down with the root of the step", points=1)
def _(t: Toolbox, inverse_root: Any) -> None:
    for warmup in (10, t.integer(4, 30)):
        for step in (warmup - 1, warmup, 4 * warmup - 1, 100 * warmup - 1):
            done = step + 1
            t.close(
                inverse_root(step, 0.5, warmup),
                _inverse_root(step, 0.5, warmup),
                f"the rate of step {step}, with a warm-up of {warmup}",
                suspects={
                    "the root is missing: at four times the warm-up the rate is half the peak": (
                        0.5 * warmup / done
                    ),
                    "the rate does not start from its peak: the root is of warmup / (step + 1)": (
                        0.5 / math.sqrt(done)
                    ),
                    "the rate stays at its peak": 0.5,
                    "the root is of the step plus one": 0.5 * math.sqrt(warmup / max(step, 1)),
                },
            )


@schedule.case("a cooldown from wherever it is to zero", points=2)
def _(t: Toolbox, inverse_root: Any) -> None:
    warmup = t.integer(5, 20)
    begin = warmup * t.integer(2, 6)
    steps = begin + t.integer(5, 25)
    for step in range(begin - 2, steps):
        want = _inverse_root(step, 0.5, warmup)
        from_peak = want
        if step >= begin:
            left = (steps - step) / (steps - begin)
            want = _inverse_root(begin, 0.5, warmup) * left
            from_peak = 0.5 * left
        t.close(
            inverse_root(step, 0.5, warmup, (begin, steps)),
            want,
            f"the rate of step {step}, with a cooldown from {begin} to {steps}",
            suspects={
                "the cooldown begins at the peak: it must begin at the rate of its first step": (
                    from_peak
                ),
                "there is no cooldown": _inverse_root(step, 0.5, warmup),
                "the root goes on below the cooldown: fall in a line from the rate of its first "
                "step": _inverse_root(step, 0.5, warmup)
                * min(1.0, (steps - step) / (steps - begin)),
            },
        )


adamw = Check(
    "08.adamw_step",
    "AdamW by hand, as Google's BERT has it",
    ("adamw_step",),
    kind="implement",
    difficulty=3,
    minutes=25,
    forbids=("aten::_fused_adam", "torch.optim.Adam"),
    reminder="At the first step with correction, every weight moves by the rate, whatever its "
    "gradient.",
)


def _adamw(
    weight: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    step: int,
    rate: float,
    decay: float,
    correct: bool,
    *,
    kind: str = "",
) -> tuple[Tensor, Tensor, Tensor]:
    b1, b2, eps = 0.9, 0.999, 1e-6
    if kind == "coupled":
        grad = grad + decay * weight
    m, v = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad * grad
    top, root = (m / (1 - b1**step), v / (1 - b2**step)) if correct else (m, v)
    move = top / (root.sqrt() + eps)
    if kind == "inside":
        move = top / (root + eps).sqrt()
    if kind in ("", "inside"):
        move = move + decay * weight
    new = weight - rate * move
    return (new - decay * weight if kind == "unscaled" else new), m, v


def _adamw_suspects(*given: Any) -> dict[str, Tensor]:
    flipped = (*given[:-1], not given[-1])
    return {
        "the decay went into the gradient, where it is divided by the root of v: subtract "
        "rate * decay * weight": _adamw(*given, kind="coupled")[0],
        "the decay is not multiplied by the rate": _adamw(*given, kind="unscaled")[0],
        "there is no decay": _adamw(*given, kind="none")[0],
        "the bias correction is there when it should not be, or the other way round": (
            _adamw(*flipped)[0]
        ),
        "eps stands outside the root: sqrt(v) + eps": _adamw(*given, kind="inside")[0],
    }


@adamw.case("the first step, where the size of the gradient does not matter", points=1)
def _(t: Toolbox, adamw_step: Any) -> None:
    weight, zero = torch.tensor([1.0, 1.0]), torch.zeros(2)
    grad = torch.tensor([100.0, -0.01])
    given = (weight, grad, zero, zero, 1, 0.1, 0.5, True)
    got = adamw_step(*given)
    t.that(isinstance(got, (tuple, list)) and len(got) == 3, "return (weight, m, v)")
    t.close(
        got[0],
        torch.tensor([0.85, 1.05]),  # 1 - 0.1 * 0.5, then 0.1 against the sign
        "the weights after step 1",
        atol=1e-4,
        suspects=_adamw_suspects(*given),
    )
    t.close(got[1], torch.tensor([10.0, -0.001]), "m after step 1")
    t.close(got[2], torch.tensor([10.0, 1e-7]), "v after step 1", atol=1e-9)


def _torchs_adamw(weight: Tensor, grad: Tensor, m: Tensor, v: Tensor, step: Tensor) -> None:
    """A step of torch's AdamW in place, as a function: its class imports a compiler (seconds)."""
    from torch.optim.adamw import adamw

    kinds: dict[str, Any] = dict.fromkeys(
        ("capturable", "differentiable", "foreach", "fused"), False
    )
    sizes: dict[str, Any] = {
        "beta1": 0.9,
        "beta2": 0.999,
        "lr": 0.05,
        "weight_decay": 0.2,
        "eps": 1e-6,
    }
    adamw([weight], [grad], [m], [v], [], [step], **kinds, **sizes, amsgrad=False, maximize=False)


@adamw.case("five steps, against torch's own", points=1)
def _(t: Toolbox, adamw_step: Any) -> None:
    weight = t.randn(3, 4)
    theirs, state = weight.clone(), (torch.zeros(3, 4), torch.zeros(3, 4), torch.tensor(0.0))
    m, v = torch.zeros(3, 4), torch.zeros(3, 4)
    for step in range(1, 6):
        grad = t.randn(3, 4)
        given = (weight, grad, m, v, step, 0.05, 0.2, True)
        _torchs_adamw(theirs, grad, *state)
        weight, m, v = adamw_step(*given)
        t.close(
            weight,
            theirs,
            f"the weights after step {step}",
            suspects=_adamw_suspects(*given),
        )


@adamw.case("faint gradients: epsilon is added to the root", points=1)
def _(t: Toolbox, adamw_step: Any) -> None:
    weight, zero = t.randn(4), torch.zeros(4)
    for grad, root in ((1e-6 * t.randn(4), 1e-6), (torch.zeros(4), 0.0)):
        given = (weight, grad, zero, zero, 1, 0.1, 0.0, True)
        got = adamw_step(*given)[0]
        want = weight - 0.1 * grad / (grad.abs() + 1e-6)
        t.close(got, want, f"the weights after a gradient of about {root:g}", atol=1e-4)


@adamw.case("without bias correction: the first step is about three times as long", points=1)
def _(t: Toolbox, adamw_step: Any) -> None:
    weight, m, v = t.randn(5), torch.zeros(5), torch.zeros(5)
    for step in range(1, 4):
        given = (weight, t.randn(5), m, v, step, 0.05, 0.01, False)
        got, m, v = adamw_step(*given)
        t.close(
            got,
            _adamw(*given)[0],
            f"the weights after step {step}",
            suspects=_adamw_suspects(*given),
        )
        weight = got


weights_check = Check(
    "08.loss_weights",
    "every target counts the same, on every machine",
    ("loss_weights",),
    kind="predict",
    difficulty=3,
    minutes=20,
    reminder="Write down what the averaged gradient is, and what it should be; the weight is "
    "what is between them.",
)


def _weights_of(targets: list[list[int]]) -> list[list[float]]:
    total = sum(map(sum, targets))
    return [[len(targets) * n / max(total, 1) for n in mine] for mine in targets]


def _gradient(weights: Any, targets: list[list[int]], grads: list[list[Tensor]]) -> Tensor:
    """What the processes end up with: the mean of the sums of weighted gradients."""
    sums = [
        sum((w * g for w, g in zip(ws, gs, strict=True)), torch.zeros(3))
        for ws, gs in zip(weights, grads, strict=True)
    ]
    return torch.stack(sums).mean(0)


def _judge_weights(t: Toolbox, loss_weights: Any, targets: list[list[int]]) -> None:
    got = loss_weights(targets)
    t.that(
        isinstance(got, list) and [len(x) for x in got] == [len(x) for x in targets],
        "return one list for each process with one weight for each of its batches",
    )
    total, world = sum(map(sum, targets)), len(targets)
    flat = torch.tensor([float(w) for mine in got for w in mine]).double()

    def spread(weigh: Any) -> Tensor:
        return torch.tensor([weigh(n, mine) for mine in targets for n in mine]).double()

    t.close(
        flat,
        torch.tensor([w for mine in _weights_of(targets) for w in mine]).double(),
        "the weights",
        suspects={
            "every batch weighs the same: this is the mean of means": (
                spread(lambda n, mine: 1 / len(mine))
            ),
            "the processes' gradients are averaged afterwards: multiply by their number": (
                spread(lambda n, mine: n / total)
            ),
            "you divided by the targets of one process: the step has those of all": (
                spread(lambda n, mine: n / max(sum(mine), 1))
            ),
            "you multiplied by the number of batches": (
                spread(lambda n, mine: n / total * len(mine) * world)
            ),
        },
    )
    grads = [[t.randn(3) for _ in mine] for mine in targets]
    want = sum(
        (n * g for ns, gs in zip(targets, grads, strict=True) for n, g in zip(ns, gs, strict=True)),
        torch.zeros(3),
    )
    t.close(_gradient(got, targets, grads), want / max(total, 1), "the gradient of the step")


@weights_check.case("one process, batches with 1 and 9 targets", points=1)
def _(t: Toolbox, loss_weights: Any) -> None:
    _judge_weights(t, loss_weights, [[1, 9]])
    _judge_weights(t, loss_weights, [[1]])


@weights_check.case("several processes with several batches", points=2)
def _(t: Toolbox, loss_weights: Any) -> None:
    _judge_weights(t, loss_weights, [[3, 5], [2, 2]])
    for _ in range(3):
        world = t.integer(2, 4)
        targets = [[t.integer(1, 40) for _ in range(t.integer(1, 4))] for _ in range(world)]
        _judge_weights(t, loss_weights, targets)


@weights_check.case("nothing to predict: weights of 0, no division by 0", points=1)
def _(t: Toolbox, loss_weights: Any) -> None:
    t.equal(
        [[float(w) for w in mine] for mine in loss_weights([[0, 0], [0]])],
        [[0.0, 0.0], [0.0]],
        "the weights where nothing is asked for",
    )
    _judge_weights(t, loss_weights, [[0, 4], [t.integer(1, 9)]])


useful = Check(
    "08.useful_share",
    "how much of a batch is text",
    ("useful_share",),
    kind="measure",
    difficulty=3,
    minutes=20,
    reminder="With a window of one batch nothing is gained: sorting inside a batch does not "
    "change its longest row.",
)


def _share(lengths: list[int], size: int, window: int, *, kind: str = "") -> float:
    rows = list(lengths)
    if kind == "all":
        window = len(rows)
    if kind == "none":
        window = 1
    ordered = [n for i in range(0, len(rows), window) for n in sorted(rows[i : i + window])]
    batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    if kind == "drop":
        batches = [b for b in batches if len(b) == size] or batches
    longest = max(rows)
    slots = [
        (size if kind == "last" else len(b)) * (longest if kind == "longest" else max(b))
        for b in batches
    ]
    if kind == "mean":
        return sum(sum(b) / s for b, s in zip(batches, slots, strict=True)) / len(batches)
    return sum(map(sum, batches)) / sum(slots)


def _share_suspects(*given: Any) -> dict[str, float]:
    return {
        "this is the share of waste: return that of text": 1 - _share(*given),
        "every row was padded to the longest of all: each batch has a longest of its own": (
            _share(*given, kind="longest")
        ),
        "you sorted everything: rows are sorted within each window only": _share(
            *given, kind="all"
        ),
        "the rows were not sorted within their window": _share(*given, kind="none"),
        "the mean of the batches' shares counts a short batch as much as a long one": (
            _share(*given, kind="mean")
        ),
        "the last batch is left out": _share(*given, kind="drop"),
        "the last batch has fewer rows: count those that are there": _share(*given, kind="last"),
    }


@useful.case("four rows by hand, in the order given", points=1)
def _(t: Toolbox, useful_share: Any) -> None:
    given = ([2, 10, 3, 9], 2, 1)
    t.close(
        useful_share(*given),
        24 / 38,
        "the share for rows of 2, 10, 3, 9 in twos",
        suspects=_share_suspects(*given),
    )


@useful.case("sorted within windows, the last ones smaller", points=3)
def _(t: Toolbox, useful_share: Any) -> None:
    t.close(
        useful_share([2, 10, 3, 9], 2, 4),
        24 / 26,
        "the share of 2, 10, 3, 9 in twos, all four sorted",
        suspects=_share_suspects([2, 10, 3, 9], 2, 4),
    )
    for _ in range(3):
        given = ([t.integer(3, 90) for _ in range(t.integer(61, 75))], 8, 8 * t.integer(2, 4))
        t.close(
            useful_share(*given),
            _share(*given),
            f"{len(given[0])} rows in batches of 8, windows of {given[2]}",
            suspects=_share_suspects(*given),
        )


baseline = Check(
    "08.unigram_perplexity",
    "the baseline on text that it has not seen",
    ("unigram_perplexity",),
    kind="measure",
    difficulty=2,
    minutes=15,
    reminder="The model is counted on one text and asked about another.",
)


def _unigram_perplexity(train: Tensor, test: Tensor, alpha: float) -> float:
    shares = (train.double() + alpha) / (train.double() + alpha).sum()
    return float(torch.exp(-(test.double() * shares.log()).sum() / test.sum()))


def _baseline_suspects(train: Tensor, test: Tensor, alpha: float) -> dict[str, Any]:
    smooth = train.double() + alpha
    loose = smooth / train.double().sum()
    loss = math.log(_unigram_perplexity(train, test, alpha))
    return {
        "this is the loss: perplexity is its exponential": loss,
        "the base of the logarithm and that of the power differ": 2**loss,
        "the smoothed shares do not sum to 1: add alpha for each word to the total as well": float(
            torch.exp(-(test.double() * loose.log()).sum() / test.sum())
        ),
        "this is the entropy of the counted text itself: ask about the other one": (
            lambda: _unigram_perplexity(test, test, 1e-9)
        ),
        "each word counted once: weigh it by how often it occurs in the other text": float(
            torch.exp(-(smooth / smooth.sum()).log().mean())
        ),
    }


@baseline.case("three words by hand", points=1)
def _(t: Toolbox, unigram_perplexity: Any) -> None:
    train, test = torch.tensor([2, 1, 0]), torch.tensor([1, 0, 1])
    # shares 3/6, 2/6, 1/6: exp of -(ln 1/2 + ln 1/6) / 2 is the root of 12
    t.close(
        unigram_perplexity(train, test, 1.0),
        math.sqrt(12),
        "counted 2, 1, 0, asked for 1, 0, 1, alpha 1",
        suspects=_baseline_suspects(train, test, 1.0),
    )


@baseline.case("any counts, any alpha", points=2)
def _(t: Toolbox, unigram_perplexity: Any) -> None:
    for alpha in (1.0, 0.1, 2.5):
        train, test = t.ids(50, 400), t.ids(9, 400)
        train[:30] = 0
        t.close(
            unigram_perplexity(train, test, alpha),
            _unigram_perplexity(train, test, alpha),
            f"400 words, alpha {alpha}",
            suspects=_baseline_suspects(train, test, alpha),
        )


days = Check(
    "08.training_days",
    "how long a run will take",
    ("training_days",),
    kind="predict",
    difficulty=3,
    minutes=20,
    hides=("pretraining.training_flops", "accounting.forward_flops_per_token"),
    reminder="Tokens of a phase times operations of a token, over operations a second, over "
    "86,400 seconds a day.",
)

_BASE = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}


def _days(sizes: dict, phases: list, peak: float, share: float, *, kind: str = "") -> float:
    config, total = BertConfig(**sizes), 0.0
    for steps, rows, length in phases:
        each = _flops(config, 128 if kind == "length" else length, 1.0 if kind == "head" else 0.15)
        if kind == "forward":
            each /= 3
        if kind == "six":
            h, wide, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
            each = 6 * (layers * (4 * h * h + 2 * h * wide) + config.vocab_size * h)
        total += steps * rows * (1 if kind == "rows" else length) * each
    return total / (peak * (1 if kind == "peak" else share)) / (3600 if kind == "hours" else 86400)


def _days_suspects(*given: Any) -> dict[str, float]:
    return {
        "this is the forward pass: training costs three times as much": _days(
            *given, kind="forward"
        ),
        "the machine does not reach its peak: multiply it by the share": _days(*given, kind="peak"),
        "these are hours": _days(*given, kind="hours"),
        "this is 6 N: count the products instead": _days(*given, kind="six"),
        "the word scores are computed for the 15 percent that are asked for": _days(
            *given, kind="head"
        ),
        "a row has as many tokens as it is long": _days(*given, kind="rows"),
        "the cost of a token depends on the length of its own phase": _days(*given, kind="length"),
    }


@days.case("one phase", points=2)
def _(t: Toolbox, training_days: Any) -> None:
    given = (_BASE, [(t.integer(100, 999) * 1000, 256, 128)], 1e14, 0.4)
    t.close(
        training_days(*given),
        _days(*given),
        "days for one phase of BERT-base",
        rtol=1e-6,
        suspects=_days_suspects(*given),
    )


@days.case("the paper's two phases, and other sizes", points=2)
def _(t: Toolbox, training_days: Any) -> None:
    small = {
        "vocab_size": t.integer(4, 40) * 1000,
        "hidden_size": 128,
        "num_hidden_layers": t.integer(1, 6),
        "num_attention_heads": 2,
        "intermediate_size": 512,
    }
    for sizes in (_BASE, small):
        given = (sizes, [(900_000, 256, 128), (100_000, 256, 512)], 3e11, 0.3)
        t.close(
            training_days(*given),
            _days(*given),
            "days for two phases",
            suspects=_days_suspects(*given),
        )


hunt = Check(
    "08.accumulation_bug",
    "bug hunt: batches that do not add up",
    ("accumulated_step",),
    kind="bug",
    difficulty=3,
    minutes=25,
    reminder="One step on three small batches must be the same as one step on the three put "
    "together.",
)


def _pieces(t: Toolbox, sizes: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    return [(t.randn(n, 4), t.randn(n)) for n in sizes]


def _whole_step(
    weight: Tensor, pieces: list, rate: float, max_norm: float, kind: str = ""
) -> Tensor:
    grads = [2 * x.T @ (x @ weight - y) / len(x) for x, y in pieces]
    counts = [len(x) for x, _ in pieces]
    total = torch.zeros_like(weight)
    for grad, n in zip(grads, counts, strict=True):
        total = total + grad * (
            1 / len(pieces) if kind == "means" else 1.0 if kind == "sum" else n / sum(counts)
        )
        if kind == "inside":
            total = total * min(1.0, max_norm / float(total.norm()))
    norm = float(total.norm())
    if kind != "inside" and (kind == "always" or norm > max_norm):
        total = total * (max_norm / norm)
    return weight - rate * total


def _hunted(t: Toolbox, step: Any, pieces: list, max_norm: float) -> None:
    weight = t.randn(4)
    given = (weight, pieces, 0.1, max_norm)
    t.close(
        step(weight.clone(), pieces, 0.1, max_norm),
        _whole_step(*given),
        "the weights after the step",
        suspects={
            "a batch with few targets counts as much as one with many: this is the mean of means": (
                _whole_step(*given, "means")
            ),
            "the gradient is clipped before all batches have added to it": (
                _whole_step(*given, "inside")
            ),
            "the batches' mean losses are added up: divide by the targets of the step": (
                _whole_step(*given, "sum")
            ),
            "a gradient that is short enough must stay as it is": _whole_step(*given, "always"),
        },
    )


@hunt.case("batches with 1, 3 and 12 targets, nothing to clip", points=2)
def _(t: Toolbox, step: Any) -> None:
    _hunted(t, step, _pieces(t, (1, 3, 12)), 1e6)


@hunt.case("equal batches, with a limit that is reached", points=2)
def _(t: Toolbox, step: Any) -> None:
    _hunted(t, step, _pieces(t, (5, 5, 5)), 0.05)


diagnose_run = Check(
    "08.diagnose_run",
    "what a run's losses say",
    ("diagnose_run",),
    kind="choose",
    difficulty=2,
    minutes=20,
    reminder="Ask in this order: do the numbers hold, is it better than frequencies, was it better "
    "before?",
)


def _diagnosed(
    train: list[float], held: list[float], baseline: float, last: int, *, slip: str = ""
) -> tuple[str, dict[str, float]]:
    """The first verdict that holds, and the three figures that decide."""
    train, held = ([x if math.isfinite(x) else math.inf for x in run] for run in (train, held))
    if slip == "finite":
        train, held = ([x for x in run if x < math.inf] for run in (train, held))
    end = train[:last] if slip == "first" else train if slip == "all" else train[-last:]
    figures = {"train": sum(end) / len(end), "best": min(held), "now": held[-1]}
    if slip == "point":
        figures["train"] = train[-1]
    if slip == "best":
        figures["best"] = min(train)
    stands = figures["train"] if slip == "stuck" else figures["best"]
    before = figures["train"] * 1.02 if slip == "gap" else figures["best"] * 1.02
    if max(figures.values()) == math.inf or figures["train"] > train[0]:
        return "diverged", figures
    checks = [(stands > 0.98 * baseline, "stuck"), (figures["now"] > before, "overfits")]
    if slip == "order":
        checks.reverse()
    return next((verdict for holds, verdict in checks if holds), "learns"), figures


def _run_suspects(*given: Any) -> dict[str, Any]:
    return {
        message: _diagnosed(*given, slip=slip)
        for slip, message in {
            "finite": "a loss that is not finite is the message, not a gap to be skipped",
            "first": "these are the first steps, not the last",
            "all": "the mean over the whole run says how it began: take the last steps",
            "point": "one step's loss is noise: take the mean of the last",
            "best": "the best loss is that on held-out text: the training loss can fall alone",
            "order": "a run that never beat the frequencies is stuck, whatever it did later",
            "stuck": "a training loss below the baseline can be learned by heart: compare the "
            "best held-out loss",
            "gap": "a gap between training and held-out loss is normal: it overfits when the "
            "held-out loss has risen",
        }.items()
    }


def _same_run(t: Toolbox, answer: Any, given: tuple) -> None:
    t.decision(answer(*given), _diagnosed(*given), suspects=_run_suspects(*given))


@diagnose_run.case("short runs, by hand", points=2)
def _(t: Toolbox, diagnose_run: Any) -> None:
    for train, held in (
        ([9.0, 7.0, 5.0, 3.0], [8.0, 6.0, 4.0]),  # learns
        ([9.0, 7.0, 5.0, 1.0], [8.0, 5.0, 5.5]),  # overfits
        ([9.0, 7.0, 6.8, 6.9], [8.0, 6.95, 6.9]),  # stuck at the frequencies
        ([9.0, 9.0, 9.0, 9.0], [9.0, 9.0, 9.0]),  # stuck where it began
        ([9.0, 7.0, 5.0, 2.0], [8.0, 6.95, 6.9]),  # learned by heart, and nothing else
        ([9.0, 7.0, 5.0, 2.0], [8.0, 6.95, 7.5]),  # the same, and worse every day
        ([9.0, 7.0, 9.5, 9.9], [8.0, 6.0, 9.0]),  # diverged
        ([9.0, 12.0, 9.5, 9.9], [8.0, 6.0, 6.0]),  # diverged, by the training loss alone
        ([9.0, 7.0, math.nan, 5.0], [8.0, 6.0, 5.0]),  # nan
    ):
        _same_run(t, diagnose_run, (train, held, 7.0, 2))


@diagnose_run.case("long, noisy runs, and runs on either side of each limit", points=2)
def _(t: Toolbox, diagnose_run: Any) -> None:
    baseline, last = 6.0 + t.random.random(), t.integer(5, 20)
    for end, best, now in (
        (0.5, 0.70, 0.705),
        (0.3, 0.60, 0.70),
        (0.5, 0.60, 0.611),
        (0.5, 0.60, 0.613),
        (0.2, 0.97, 1.20),
        (0.2, 0.985, 0.99),
        (0.2, 0.985, 1.20),
        (0.99, 0.99, 0.995),
        (1.60, 0.80, 1.50),
    ):
        train = [
            baseline * (1.5 + (end - 1.5) * min(i / 60, 1) + 0.02 * (t.random.random() - 0.5))
            for i in range(100)
        ]
        held = [baseline * (1.4 + (best - 1.4) * i / 8) for i in range(9)] + [baseline * now]
        train[0] = 1.5 * baseline
        _same_run(t, diagnose_run, (train, held, baseline, last))
    train[-t.integer(1, last)] = math.inf
    _same_run(t, diagnose_run, (train, held, baseline, last))

"""Gradients through distance, through depth and from both sides: the trainings behind chapter 11.

Four parts, the first three with small models of English letters. "distance": a recurrent network,
an LSTM and a causal Transformer of equal size learn to predict the next letter; then the gradient
of that prediction is measured at 1 to 512 letters' distance. "depth": twelve layers with LayerNorm
and residuals in different places learn the same. "sides": a masked and a causal model, and the
gradient of one letter's loss at the letters around it. "pairs": the English mini goes on filling
blanks, with no second loss, with that of sentence order, and with that of the next sentence.
Writes 11_gradient_view.json beside this file, which the chapter reads; the log goes to standard
output.

    PYTHONPATH=. python book/records/11_gradient_view.py > book/records/11_gradient_view.log

Takes about 25 minutes on one idle core. The names of parts as arguments run these alone.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn import BertForMaskedLM, BertForPreTraining, BertTokenizer
from bertlearn.checkpoints import find_directory
from bertlearn.config import BertConfig
from bertlearn.data import corpora
from bertlearn.data.corpora import sentences
from bertlearn.data.splits import split_of
from bertlearn.embeddings import sinusoidal_positions
from bertlearn.encoder import BertEncoder
from bertlearn.gradients import RearrangedLayer, gradient_map, hidden_gradients, token_norms
from bertlearn.masking import mask_tokens
from bertlearn.model import init_weights
from bertlearn.pairs import next_sentence_pairs, sentence_order_pairs
from bertlearn.pretraining import Row, collate, pair_row

MINI = "bertlearn-mini-en"
MASK, SPECIALS, VOCAB = 4, 5, 32  # ids 0 to 4 are special
FAR = 512  # the largest distance
LONG = 2400  # steps of the longer runs of that part
WIDTHS = {"RNN": 172, "LSTM": 81, "Transformer": 64}  # two layers of about 100,000 parameters
DISTANCES = sorted({round(2 ** (power / 2)) for power in range(19)})  # 1, 2, 3, 4, 6 ... 512


def sizes(layers: int, positions: int) -> BertConfig:
    """Width 64, with the initial scale that 0.02 is at BERT-base's width of 768."""
    return BertConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=positions,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.07,
    )


def letters() -> Tensor:
    """The English corpus as one line of letters and blanks, in ids."""
    index = {char: i for i, char in enumerate(" abcdefghijklmnopqrstuvwxyz", SPECIALS)}
    ids: list[int] = []
    for document in itertools.islice(corpora.wiki(), 4000):
        ids += [index[char] for char in re.sub(r"[^a-z]+", " ", document.text.lower())]
    return torch.tensor(ids)


def windows(length: int) -> tuple[Tensor, Tensor]:
    """Rows of letters, shuffled: 512 held out, and the rest."""
    rows = STREAM[: len(STREAM) // length * length].view(-1, length)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return rows[:512], rows[512:]


def fit(
    model: nn.Module,
    loss_of: Callable[[], Tensor],
    steps: int,
    rate: float,
    warmup: int = 30,
    each: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """AdamW, warm-up and a linear fall to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / max(1, warmup)) * (1 - step / steps)
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        each(step, loss.item())


# ---- distance -----------------------------------------------------------------------------------


class Reader(nn.Module):
    """Two layers that read from left to right, and a score for the next letter."""

    def __init__(self, kind: str):
        super().__init__()
        self.table = nn.Embedding(VOCAB, 64)
        self.body: nn.Module
        if kind == "Transformer":
            config = sizes(2, FAR)
            self.body = BertEncoder(config)
            init_weights(self.body, config)
        else:
            recurrent = nn.LSTM if kind == "LSTM" else nn.RNN
            self.body = recurrent(64, WIDTHS[kind], num_layers=2, batch_first=True)
        self.head = nn.Linear(WIDTHS[kind], VOCAB)
        self.places = sinusoidal_positions(FAR + 1, 64)

    def states(self, x: Tensor) -> Tensor:
        """(batch, seq, 64) to (batch, seq, width)."""
        if not isinstance(self.body, BertEncoder):
            return self.body(x)[0]
        seq = x.shape[1]
        triangle = torch.ones(seq, seq, dtype=torch.bool).tril()[None, None]
        x = F.layer_norm(x + self.places[:seq].to(x.dtype), (64,))
        return self.body(x, triangle).last_hidden_state

    def loss(self, x: Tensor, ids: Tensor) -> Tensor:
        """Of each next letter, from the letters' vectors."""
        logits = self.head(self.states(x[:, :-1]))
        return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")


def measure_distance(model: Reader, rows: Tensor) -> list[float]:
    """Mean norm of the gradient of the last letter's loss at each of the DISTANCES, in 64 bits:
    32 would show zeros from about 100 letters on."""
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        x = model.table(rows)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(model.loss(x, rows)[:, -1].sum(), x)
    norms = token_norms(gradient).mean(0)  # (seq,); the last letter read stands at seq - 2
    return [norms[-2 - distance].item() for distance in DISTANCES]


def known_from_one_letter() -> float:
    """The loss of who knows only how often each letter follows each, counted on this text."""
    counts = torch.bincount(STREAM[:-1] * VOCAB + STREAM[1:], minlength=VOCAB * VOCAB).double()
    after = counts.view(VOCAB, VOCAB) / counts.view(VOCAB, VOCAB).sum(1, keepdim=True)
    seen = counts > 0
    return -(counts[seen] * after.flatten()[seen].log()).sum().item() / counts.sum().item()


def distance(seeds: int = 3, steps: int = 400) -> dict:
    """Three readers, trained on 513 letters at a time: by several seeds, and two for longer."""
    held, rest = windows(FAR + 2)
    found: dict = {"one letter": round(known_from_one_letter(), 4)}
    found |= {"distances": DISTANCES, "runs": []}
    runs = [(kind, seed, steps) for kind in WIDTHS for seed in range(seeds)]
    for kind, seed, steps in (*runs, ("LSTM", 0, LONG), ("Transformer", 0, LONG)):
        start = time.process_time()
        torch.manual_seed(seed)
        draw = torch.Generator().manual_seed(seed)
        model = Reader(kind)

        def loss_of(model: Reader = model, draw: torch.Generator = draw) -> Tensor:
            ids = rest[torch.randint(len(rest), (8,), generator=draw)]
            return model.loss(model.table(ids), ids).mean()

        before = measure_distance(model, held[:64])
        fit(model, loss_of, steps, 3e-3)
        with torch.no_grad():
            loss = model.loss(model.table(held[:64]), held[:64]).mean().item()
        run = {
            "kind": kind,
            "seed": seed,
            "steps": steps,
            "parameters": sum(p.numel() for p in model.body.parameters()),
            "loss": round(loss, 4),
            "fresh": [float(f"{x:.3e}") for x in before],
            "trained": [float(f"{x:.3e}") for x in measure_distance(model, held[:64])],
        }
        found["runs"].append(run)
        print(json.dumps(run), f"{time.process_time() - start:.0f} s", flush=True)
    return found


# ---- depth --------------------------------------------------------------------------------------

VARIANTS = (  # name, norm, residual, rate, steps of warm-up
    ("post-LN", "post", True, 1e-3, 100),
    ("pre-LN", "pre", True, 1e-3, 100),
    ("no LayerNorm", "none", True, 1e-3, 100),
    ("no residual", "post", False, 1e-3, 100),
    ("post-LN, no warm-up", "post", True, 1e-3, 0),
    ("pre-LN, no warm-up", "pre", True, 1e-3, 0),
    ("post-LN, rate 3e-3", "post", True, 3e-3, 100),
    ("pre-LN, rate 3e-3", "pre", True, 3e-3, 100),
)
TRIANGLE = torch.ones(32, 32, dtype=torch.bool).tril()[None, None]


def deep(norm: str, residual: bool, layers: int = 12) -> BertForMaskedLM:
    """A model whose layers are rearranged; its head has a LayerNorm, which ends any stack."""
    config = sizes(layers, 32)
    model = BertForMaskedLM(config)
    model.bert.encoder.layer = nn.ModuleList(
        RearrangedLayer(config, norm, residual) for _ in range(layers)
    )
    init_weights(model.bert.encoder, config)
    return model


def blanks(rows: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs and labels, every blank a [MASK]."""
    given = {"vocab_size": VOCAB, "mask_id": MASK, "special_ids": range(SPECIALS)}
    return mask_tokens(rows, draw, mix=(1.0, 0.0, 0.0), **given)  # type: ignore[arg-type]


def causal(model: BertForMaskedLM, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """The states of every layer, and the loss of naming each next letter."""
    encoded = model.bert.encoder(model.bert.embeddings(rows), TRIANGLE, output_hidden_states=True)
    logits = model.cls.predictions(encoded.last_hidden_state[:, :-1])
    return encoded.hidden_states, F.cross_entropy(logits.transpose(1, 2), rows[:, 1:])


def by_layer(model: BertForMaskedLM, rows: Tensor) -> tuple[list[float], float]:
    """Norm of the loss's gradient at the states before each layer and after the last; the loss."""
    states, loss = causal(model, rows)
    found = hidden_gradients(loss, states)
    return [float(f"{gradient.norm().item():.3e}") for gradient in found], loss.item()


def depth(steps: int = 400) -> dict:
    """Twelve layers, arranged in several ways, learn to name the next letter."""
    held, rest = windows(32)
    held = held[:128]
    found: dict = {"runs": []}
    for name, norm, residual, rate, warmup in VARIANTS:
        start = time.process_time()
        torch.manual_seed(0)
        draw = torch.Generator().manual_seed(0)
        model = deep(norm, residual)

        def loss_of(model: BertForMaskedLM = model, draw: torch.Generator = draw) -> Tensor:
            ids = rest[torch.randint(len(rest), (32,), generator=draw)]
            return causal(model, ids)[1]

        curve: list[list[float]] = []

        def note(step: int, loss: float, model: BertForMaskedLM = model, curve: list = curve):
            if step % 50 == 49:
                curve.append([step + 1, round(by_layer(model, held)[1], 4)])

        fresh, _ = by_layer(model, held)
        fit(model, loss_of, steps, rate, warmup, note)
        trained, loss = by_layer(model, held)
        run = {"name": name, "rate": rate, "warm-up": warmup, "loss": round(loss, 4)}
        found["runs"].append(run | {"fresh": fresh, "trained": trained, "curve": curve})
        print(json.dumps(found["runs"][-1]), f"{time.process_time() - start:.0f} s", flush=True)
    return found


# ---- sides --------------------------------------------------------------------------------------

PLACE, REACH = 16, 15  # the letter that is asked for, and how far to look


def around(gradient: Tensor) -> list[float]:
    """Mean norm at the offsets -REACH to REACH from PLACE."""
    norms = token_norms(gradient).mean(0)
    return [float(f"{x:.3e}") for x in norms[PLACE - REACH : PLACE + REACH + 1]]


def sides(steps: int = 4000) -> dict:
    """A masked and a causal model of equal size and budget; the gradient around one letter."""
    held, rest = windows(32)
    found: dict = {"offsets": list(range(-REACH, REACH + 1)), "runs": []}
    for kind in ("masked", "causal"):
        start = time.process_time()
        torch.manual_seed(0)
        draw = torch.Generator().manual_seed(0)
        model = BertForMaskedLM(sizes(2, 32))

        def scores(embedded: Tensor, model: BertForMaskedLM = model, kind: str = kind) -> Tensor:
            mask = TRIANGLE if kind == "causal" else None
            return model.bert.encoder(embedded, mask).last_hidden_state

        def loss_of(model: BertForMaskedLM = model, kind: str = kind) -> Tensor:
            ids = rest[torch.randint(len(rest), (64,), generator=draw)]  # noqa: B023
            if kind == "causal":
                logits = model.cls.predictions(scores(model.bert.embeddings(ids))[:, :-1])
                return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:])
            inputs, labels = blanks(ids, draw)  # noqa: B023
            return model(inputs, labels=labels).loss  # type: ignore[return-value]

        def one_letter(model: BertForMaskedLM = model, kind: str = kind) -> tuple[Tensor, Tensor]:
            ids = held.clone()
            if kind == "masked":
                ids[:, PLACE] = MASK
            embedded = model.bert.embeddings(ids).detach().requires_grad_()
            asks = PLACE - 1 if kind == "causal" else PLACE  # the state that must name the letter
            logits = model.cls.predictions(scores(embedded)[:, asks])
            losses = F.cross_entropy(logits, held[:, PLACE], reduction="none")
            (gradient,) = torch.autograd.grad(losses.sum(), embedded)
            return gradient, losses.mean()

        fresh = around(one_letter()[0])
        fit(model, loss_of, steps, 3e-3)
        gradient, loss = one_letter()
        run = {
            "kind": kind,
            "loss": round(loss.item(), 4),
            "fresh": fresh,
            "trained": around(gradient),
        }
        found["runs"].append(run)
        print(json.dumps(run), f"{time.process_time() - start:.0f} s", flush=True)
    return found


# ---- pairs --------------------------------------------------------------------------------------

ROW = 64  # tokens


class Pairs:
    """Rows of English pairs: ``blanks`` and ``next`` read the same ones."""

    def __init__(self) -> None:
        self.tokenizer = BertTokenizer.from_file(find_directory(MINI) / "vocab.txt")
        self.cls_id, self.sep_id, self.mask_id = (
            self.tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]")
        )
        self.documents: dict[str, list[list[list[int]]]] = {"train": [], "test": []}
        for document in corpora.wiki():
            part = split_of("wiki", document.id)
            if part in self.documents:
                ids = [self.tokenizer.encode(s).ids[1:-1] for s in sentences(document.text)]
                self.documents[part].append([sentence for sentence in ids if sentence])
        for part in self.documents:
            self.documents[part] = [document for document in self.documents[part] if document]

    def rows(self, part: str, order: bool, seed: int) -> list[Row]:
        """All pairs of a part in random order."""
        make = sentence_order_pairs if order else next_sentence_pairs
        rng = random.Random(seed)
        found = [
            pair_row(pair, self.cls_id, self.sep_id)
            for pair in make(self.documents[part], rng, max_length=ROW, short=0.0)
        ]
        rng.shuffle(found)
        return found


def two_losses(model: BertForPreTraining, rows: list[Row], given: Pairs, draw: torch.Generator):
    """The states of every layer, the loss of the blanks, and the scores of the pairs."""
    ids, segments, mask, labels = collate(rows, 0)
    inputs, words = mask_tokens(
        ids,
        draw,
        vocab_size=given.tokenizer.vocab_size,
        mask_id=given.mask_id,
        special_ids=range(5),
        mix=(1.0, 0.0, 0.0),
    )
    encoded = model.bert(inputs, segments, mask, output_hidden_states=True)
    asked = words >= 0
    scores = model.cls.predictions(encoded.last_hidden_state[asked])
    verdicts = model.cls.seq_relationship(encoded.pooler_output)
    return encoded.hidden_states, F.cross_entropy(scores, words[asked]), verdicts, labels


def of_layers(model: BertForPreTraining, loss: Tensor) -> list[Tensor]:
    """The gradient in the weights of each layer, as one vector."""
    layers = model.bert.encoder.layer
    return [
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, [*w.parameters()], retain_graph=True)]
        )
        for w in layers
    ]


def measure_pair(model: BertForPreTraining, rows: list[Row], given: Pairs) -> dict:
    """Both losses, the shares of their gradients at [CLS], and how they pull at the weights."""
    states, blank, verdicts, labels = two_losses(
        model, rows[:64], given, torch.Generator().manual_seed(1)
    )
    pair = F.cross_entropy(verdicts, labels)
    shares = []
    for loss in (blank, pair):
        norms = gradient_map(loss, states)  # (layers + 1, batch, seq)
        shares.append([round(x, 4) for x in (norms[..., 0] / norms.sum(-1)).mean(1).tolist()])
    one, two = of_layers(model, blank), of_layers(model, pair)
    cosines = [F.cosine_similarity(a, b, dim=0).item() for a, b in zip(one, two, strict=True)]
    with torch.no_grad():
        right, losses, blanks_ = [], [], []
        for start in range(0, len(rows), 64):
            _, loss, verdicts, labels = two_losses(
                model, rows[start : start + 64], given, torch.Generator().manual_seed(start)
            )
            blanks_.append(loss.item())
            losses.append(F.cross_entropy(verdicts, labels, reduction="none"))
            right.append(verdicts.argmax(-1) == labels)
    return {
        "rows": len(rows),
        "blanks": round(sum(blanks_) / len(blanks_), 4),
        "pair": round(torch.cat(losses).mean().item(), 4),
        "accuracy": round(torch.cat(right).double().mean().item(), 4),
        "share of blanks at [CLS]": shares[0],
        "share of pair at [CLS]": shares[1],
        "norm of blanks": [float(f"{g.norm().item():.3e}") for g in one],
        "norm of pair": [float(f"{g.norm().item():.3e}") for g in two],
        "cosine": [round(x, 4) for x in cosines],
    }


def across(model: BertForPreTraining, rows: list[Row], given: Pairs) -> dict:
    """Of one blank in the middle of A: which share of its gradient stands in B, at true pairs."""
    ids, segments, mask, _ = collate([row for row in rows if row.label == 0][:128], 0)
    places = ((segments == 0) & (ids > 0)).sum(1) // 2
    each = torch.arange(len(ids))
    words = ids[each, places]
    inputs = ids.clone()
    inputs[each, places] = given.mask_id
    embedded = model.bert.embeddings(inputs, segments).detach().requires_grad_()
    allowed = None if mask is None else mask[:, None, None, :]
    states = model.bert.encoder(embedded, allowed).last_hidden_state
    losses = F.cross_entropy(model.cls.predictions(states[each, places]), words, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), embedded)
    norms = token_norms(gradient)
    norms[each, places] = 0
    other = (norms * segments).sum(1)
    return {
        "share in B": round((other / norms.sum(1)).mean().item(), 4),
        "share at [CLS]": round((norms[:, 0] / norms.sum(1)).mean().item(), 4),
        "loss": round(losses.mean().item(), 4),
    }


def pairs(steps: int = 600) -> dict:
    """The English mini, trained on with three second losses: none, order, next sentence."""
    given = Pairs()
    common = given.rows("test", False, 1)[:512]
    untouched = across(BertForPreTraining.from_pretrained(MINI), common, given)
    found: dict = {"start": untouched, "runs": []}
    for kind in ("none", "order", "next"):
        start = time.process_time()
        torch.manual_seed(0)
        order = kind == "order"
        rows, held = given.rows("train", order, 0), given.rows("test", order, 1)[:512]
        draw, pick = torch.Generator().manual_seed(0), random.Random(0)
        model = BertForPreTraining.from_pretrained(MINI)
        if kind == "next":  # its labels are others than those that the mini was trained on
            nn.init.normal_(model.cls.seq_relationship.weight, std=0.02)
        seen: list[list[float]] = []

        def loss_of(model: BertForPreTraining = model, kind: str = kind) -> Tensor:
            _, blank, verdicts, labels = two_losses(
                model,
                pick.sample(rows, 16),  # noqa: B023
                given,
                draw,  # noqa: B023
            )
            pair = F.cross_entropy(verdicts, labels)
            seen.append([blank.item(), pair.item()])  # noqa: B023
            return blank if kind == "none" else blank + pair

        before = measure_pair(model, held, given)
        fit(model, loss_of, steps, 5e-4, 60)
        middle = [sum(pair for _, pair in seen[i : i + 50]) / 50 for i in range(0, steps, 50)]
        run = {
            "kind": kind,
            "steps": steps,
            "before": before,
            "after": measure_pair(model, held, given),
            "one blank": across(model, common, given),
            "pair loss": [round(x, 3) for x in middle],
        }
        found["runs"].append(run)
        print(json.dumps(run), f"{time.process_time() - start:.0f} s", flush=True)
    return found


def main(parts: list[str]) -> None:
    """The parts asked for, or all."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    file = Path(__file__).with_suffix(".json")
    record = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for part in (distance, depth, sides, pairs):
        if not parts or part.__name__ in parts:
            record[part.__name__] = part()
            file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    STREAM = letters()
    main(sys.argv[1:])

"""How many blanks, and what stands in them: the runs behind chapter 06.

Small models of English letters: a masked and a causal one, then masked ones for several mixtures of
[MASK], random and unchanged, and for several masking rates. Writes 06_masking.json beside this
file, which the chapter reads; the log goes to standard output.

    PYTHONPATH=. python book/records/06_masking.py > book/records/06_masking.log

Takes about five minutes on one idle core.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn import BertForMaskedLM
from bertlearn.config import BertConfig
from bertlearn.data import corpora
from bertlearn.masking import mask_tokens

CLS, SEP, MASK, SPECIALS = 2, 3, 4, 5  # ids 0 to 4 are special
LENGTH, PLACE = 8, 5  # letters in a window, and the place that is tested
RATES = (0.03, 0.5, 0.8)
MIXES = ((0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.8, 0.2, 0.0), (0.8, 0.0, 0.2))


def windows() -> tuple[Tensor, int]:
    """Windows [CLS] + eight letters + [SEP] as ids, shuffled; and the size of the vocabulary."""
    alphabet = " abcdefghijklmnopqrstuvwxyz"
    index = {char: number for number, char in enumerate(alphabet, SPECIALS)}
    cut = []
    for document in itertools.islice(corpora.wiki(), 4000):
        ids = [index[char] for char in re.sub(r"[^a-z]+", " ", document.text.lower())]
        cut += [ids[i : i + LENGTH] for i in range(0, len(ids) - LENGTH + 1, LENGTH)]
    order = torch.randperm(len(cut), generator=torch.Generator().manual_seed(0))
    rows = F.pad(torch.tensor(cut)[order], (1, 0), value=CLS)
    return F.pad(rows, (0, 1), value=SEP), SPECIALS + len(alphabet)


def causal_logits(model: BertForMaskedLM, ids: Tensor) -> Tensor:
    """The same model under a mask that looks left only: scores for the next token."""
    seq = ids.shape[1]
    mask = torch.ones(seq, seq, dtype=torch.bool).tril()[None, None]
    states = model.bert.encoder(model.bert.embeddings(ids), mask).last_hidden_state
    return model.cls.predictions(states)


def causal_loss(model: BertForMaskedLM, ids: Tensor) -> Tensor:
    """Each letter from those to its left."""
    logits = causal_logits(model, ids)[:, :-2]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:-1].flatten())


def masked_loss(
    model: BertForMaskedLM, ids: Tensor, draw: torch.Generator, rate: float, mix: tuple[float, ...]
) -> Tensor:
    """Fresh blanks, and the loss of filling them."""
    vocab, special = model.config.vocab_size, range(SPECIALS)
    given = {"vocab_size": vocab, "mask_id": MASK, "special_ids": special, "rate": rate}
    given["exact"] = rate * LENGTH >= 1  # below one blank a window, draw for each letter
    blanks, labels = mask_tokens(ids, draw, mix=mix, **given)  # type: ignore[arg-type]
    return model(blanks, labels=labels).loss  # type: ignore[return-value]


def train(
    rows: Tensor, vocab: int, steps: int, seed: int, rate: float, mix: tuple[float, ...]
) -> BertForMaskedLM:
    """Two layers of width 64, 128 windows a step; causal if the rate is 0."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    config = BertConfig(
        vocab_size=vocab,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    )
    model = BertForMaskedLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1, (step + 1) / 30) * (1 - step / steps)
        ids = rows[torch.randint(len(rows), (128,), generator=draw)]
        loss = masked_loss(model, ids, draw, rate, mix) if rate else causal_loss(model, ids)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def test(model: BertForMaskedLM, rows: Tensor, vocab: int) -> dict[str, float]:
    """One blank in a held-out window, with both sides and with the left alone; visible
    letters; a wrong letter in a window."""
    true = rows[:, PLACE]
    blank, wrong = rows.clone(), rows.clone()
    blank[:, PLACE] = MASK
    draw = torch.Generator().manual_seed(1)
    shift = torch.randint(1, vocab - SPECIALS, true.shape, generator=draw)
    wrong[:, PLACE] = (true - SPECIALS + shift) % (vocab - SPECIALS) + SPECIALS
    filled, named = model(blank).logits[:, PLACE], model(rows).logits[:, 1:-1].argmax(-1)
    left = model(blank[:, : PLACE + 1]).logits[:, PLACE]
    mended = model(wrong).logits[:, PLACE].argmax(-1)
    return {
        "loss": F.cross_entropy(filled, true).item(),
        "filled": (filled.argmax(-1) == true).double().mean().item(),
        "loss, left side only": F.cross_entropy(left, true).item(),
        "visible named": (named == rows[:, 1:-1]).double().mean().item(),
        "wrong mended": (mended == true).double().mean().item(),
        "wrong believed": (mended == wrong[:, PLACE]).double().mean().item(),
    }


@torch.no_grad()
def causal_test(model: BertForMaskedLM, rows: Tensor, vocab: int) -> dict[str, float]:
    """The same letter from its left side."""
    logits, true = causal_logits(model, rows)[:, PLACE - 1], rows[:, PLACE]
    right = (logits.argmax(-1) == true).double().mean().item()
    return {"loss, left side only": F.cross_entropy(logits, true).item(), "filled": right}


def unigram_loss(rest: Tensor, held: Tensor, vocab: int) -> float:
    """What it costs to know frequencies only."""
    counts = torch.bincount(rest[:, 1:-1].flatten(), minlength=vocab).double() + 1
    counts[:SPECIALS] = 0
    true = held[:, PLACE]
    return -(counts / counts.sum())[true].log().mean().item()


RUNS = (  # rate, mixture, steps; a rate of 0 is the causal model
    (0.15, MIXES[0], 800),
    (0.0, MIXES[0], 800),
    *((0.15, mix, 400) for mix in MIXES),
    *((rate, MIXES[0], 400) for rate in RATES),
    *((0.15, mix, 800) for mix in MIXES[1:]),
)


def main() -> None:
    """All runs, one after the other."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # rare letters have tiny moments, which are slow
    rows, vocab = windows()
    held, rest = rows[:4000], rows[4000:]
    record: dict = {"unigram": round(unigram_loss(rest, held, vocab), 4), "runs": []}
    for rate, mix, steps in RUNS:
        start = time.process_time()
        model = train(rest, vocab, steps, 0, rate, mix)
        result = (test if rate else causal_test)(model, held, vocab)
        run = {"rate": rate, "mix": mix, "steps": steps}
        record["runs"].append(run | {name: round(x, 4) for name, x in result.items()})
        print(json.dumps(record["runs"][-1]), f"{time.process_time() - start:.0f} s", flush=True)
        text = json.dumps(record, indent=1) + "\n"
        Path(__file__).with_suffix(".json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()

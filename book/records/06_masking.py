"""How many blanks, and what stands in them: the runs behind chapter 06.

Small masked models of English letters, for several masking rates and several mixtures of [MASK],
random and unchanged, two seeds each; and of Chinese characters, a masked and a causal one. Writes
06_masking.json beside this file, which the chapter reads; the log goes to standard output.

    PYTHONPATH=. python book/records/06_masking.py > book/records/06_masking.log

Takes about five minutes on one core.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn import BertForMaskedLM
from bertlearn.config import BertConfig
from bertlearn.data import corpora
from bertlearn.masking import mask_tokens

CLS, SEP, MASK, SPECIALS = 2, 3, 4, 5  # ids 0 to 4 are special
LENGTH, PLACE = 8, 5  # characters in a window; the place that is tested
RATES = (0.05, 0.4, 0.8)
MIXES = ((0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.8, 0.2, 0.0), (0.8, 0.0, 0.2))
STEPS = {"English": 400, "Chinese": 1500}
SEEDS = (0, 1)


def windows(language: str) -> tuple[Tensor, int]:
    """Windows [CLS] + eight characters + [SEP] as ids, shuffled; and the size of the alphabet."""
    if language == "English":
        texts = [re.sub(r"[^a-z]+", " ", d.text.lower()) for d in corpora.wiki()][:4000]
        size = 27
    else:
        texts = [re.sub(r"\s", "", d.text) for d in corpora.china_law()]
        size = 995
    count = Counter("".join(texts))
    chars = sorted(count, key=lambda char: (-count[char], char))[:size]
    index = {char: number for number, char in enumerate(chars, SPECIALS)}
    ids = [[index.get(char, 1) for char in text] for text in texts]
    cut = [row[i : i + LENGTH] for row in ids for i in range(0, len(row) - LENGTH + 1, LENGTH)]
    order = torch.randperm(len(cut), generator=torch.Generator().manual_seed(0))
    rows = F.pad(torch.tensor(cut)[order], (1, 0), value=CLS)
    return F.pad(rows, (0, 1), value=SEP), SPECIALS + size


def causal_logits(model: BertForMaskedLM, ids: Tensor) -> Tensor:
    """The same model under a mask that looks left only: scores for the next token."""
    seq = ids.shape[1]
    mask = torch.ones(seq, seq, dtype=torch.bool).tril()[None, None]
    states = model.bert.encoder(model.bert.embeddings(ids), mask).last_hidden_state
    return model.cls.predictions(states)


def causal_loss(model: BertForMaskedLM, ids: Tensor) -> Tensor:
    """Each character from those to its left."""
    logits = causal_logits(model, ids)[:, :-2]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:-1].flatten())


def masked_loss(
    model: BertForMaskedLM, ids: Tensor, draw: torch.Generator, rate: float, mix: tuple[float, ...]
) -> Tensor:
    """Fresh blanks, and the loss of filling them."""
    vocab, special = model.config.vocab_size, range(SPECIALS)
    given = {"vocab_size": vocab, "mask_id": MASK, "special_ids": special, "rate": rate}
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
    characters; a wrong character in a window."""
    rows = rows[(rows != 1).all(dim=1)]
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
    """The same character from its left side."""
    rows = rows[(rows != 1).all(dim=1)]
    logits, true = causal_logits(model, rows)[:, PLACE - 1], rows[:, PLACE]
    right = (logits.argmax(-1) == true).double().mean().item()
    return {"loss, left side only": F.cross_entropy(logits, true).item(), "filled": right}


def unigram_loss(rest: Tensor, held: Tensor, vocab: int) -> float:
    """What it costs to know frequencies only."""
    counts = torch.bincount(rest[:, 1:-1].flatten(), minlength=vocab).double() + 1
    counts[:SPECIALS] = 0
    true = held[(held != 1).all(dim=1)][:, PLACE]
    return -(counts / counts.sum())[true].log().mean().item()


def main() -> None:
    """All runs, one after the other."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # rare characters have tiny moments: ten times slower
    english = [(0.15, mix, seed) for mix in MIXES for seed in SEEDS]
    english += [(rate, MIXES[0], seed) for rate in RATES for seed in SEEDS]
    chinese = [(0.15, MIXES[0], 0), (0.0, MIXES[0], 0)]
    found: list[dict] = []
    unigrams = {}
    for language, runs in (("English", english), ("Chinese", chinese)):
        rows, vocab = windows(language)
        held, rest = rows[:4000], rows[4000:]
        unigrams[language] = round(unigram_loss(rest, held, vocab), 4)
        for rate, mix, seed in runs:
            start = time.process_time()
            model = train(rest, vocab, STEPS[language], seed, rate, mix)
            result = (test if rate else causal_test)(model, held, vocab)
            run = {"language": language, "rate": rate, "mix": mix, "seed": seed}
            found.append(run | {name: round(x, 4) for name, x in result.items()})
            print(json.dumps(found[-1]), f"{time.process_time() - start:.0f} s", flush=True)
            record = {"steps": STEPS, "unigram": unigrams, "runs": found}
            text = json.dumps(record, indent=1) + "\n"
            Path(__file__).with_suffix(".json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()

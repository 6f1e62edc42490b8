"""Ten minutes of pre-training: this package beside transformers, on the same text.

    python book/records/08_ten_minutes.py DATA [MINUTES]

DATA is a folder made by `bertlearn data build`. Ours is `bertlearn pretrain --config mini`. Theirs
is `BertForPreTraining` of the same size with the library's defaults: fp32, dropout 0.1, scores at
every token, `DataCollatorForLanguageModeling` on 32 rows of 128 tokens, AdamW, warm-up and linear
decay over the ten minutes; the rate is 5e-4, ten times the Trainer's default, which would be too
low, and low enough not to diverge. Both run at the same time, on one core each, and are judged on
the same held-out rows of 128 tokens; judging theirs does not count as training time, judging ours
does. Writes 08_ten_minutes.json beside this file.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertTokenizerFast,
    DataCollatorForLanguageModeling,
)

from bertlearn.data.shards import CONTINUES, TokenData
from bertlearn.data.stream import Batch, Marks
from bertlearn.engine import recipes
from bertlearn.engine.pretrain import Options, describe_machine, held_out, pretrain
from bertlearn.pretraining import evaluate, pack

RATE, WARMUP, ROWS, LENGTH = 5e-4, 0.05, 32, 128


class Judged(torch.nn.Module):
    """Their model with our interface: scores of the targets only."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids, segments, mask, labels, pair_labels):
        mask = torch.ones_like(ids) if mask is None else mask.long()
        found = self.model(input_ids=ids, token_type_ids=segments, attention_mask=mask)
        chosen = labels != -100
        scores = found.prediction_logits[chosen]
        loss = torch.nn.functional.cross_entropy(scores, labels[chosen])
        return SimpleNamespace(prediction_logits=scores, mlm_loss=loss)


def theirs(data: TokenData, tests: list[Batch], minutes: float) -> list[dict]:
    """Train theirs for so long; the losses on the way."""
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    data.tokenizer().save(folder / "vocab.txt")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    collator = DataCollatorForLanguageModeling(tokenizer)
    marks = Marks.of(data.tokenizer().vocab)
    split = data.split("train")
    count = len(split.document_lengths)
    documents = [[s & ~CONTINUES for s in split.document(i)] for i in range(count)]
    rng = random.Random(0)
    rng.shuffle(documents)
    rows = [row.ids for row in pack(documents, LENGTH, marks.cls, marks.sep)]
    model = BertForPreTraining(
        BertConfig(
            vocab_size=data.vocab_size,
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=1024,
            max_position_embeddings=128,
        )
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    judged, curve, spent, step = Judged(model), [], 0.0, 0
    next_look = 0.0
    while spent < minutes * 60:
        if step % (len(rows) // ROWS) == 0:
            rng.shuffle(rows)
        at = step % (len(rows) // ROWS) * ROWS
        start = time.perf_counter()
        share = spent / (minutes * 60)
        rate = RATE * min(share / WARMUP, (1 - share) / (1 - WARMUP))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = collator([{"input_ids": [int(i) for i in ids]} for ids in rows[at : at + ROWS]])
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=torch.ones_like(batch["input_ids"]),
            labels=batch["labels"],
            next_sentence_label=torch.zeros(ROWS, dtype=torch.long),
        )
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        spent += time.perf_counter() - start
        step += 1
        if spent >= next_look or spent >= minutes * 60:
            found = evaluate(judged, tests)
            curve.append(
                {
                    "minutes": round(spent / 60, 3),
                    "tokens": step * ROWS * LENGTH,
                    "loss": round(found.mlm_loss, 4),
                    "top1": round(found.top1, 4),
                }
            )
            print("transformers", curve[-1], flush=True)
            next_look += 30
    return curve


def ours(data: Path, minutes: float) -> list[dict]:
    """The run of `bertlearn pretrain --config mini --minutes MINUTES`; the losses on the way."""
    out = Path(tempfile.mkdtemp()) / "run"
    recipe = recipes.RECIPES["mini"]
    pretrain(data, out, recipe, name="mini", minutes=minutes, options=Options(progress=False))
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [
        {
            "minutes": round(record["seconds"] / 60, 3),
            "tokens": record["tokens"],
            "loss": record["held_out_loss"],
            "top1": record["held_out_top1"],
        }
        for record in records
        if "held_out_loss" in record
    ]


def side(name: str, folder: str, minutes: float, core: int) -> list[dict]:
    """One of the two, on one core of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    if name == "bertlearn":
        return ours(Path(folder), minutes)
    data = TokenData(folder)
    tests = held_out(data, Marks.of(data.tokenizer().vocab), LENGTH, 128)
    return theirs(data, tests, minutes)


def main(folder: str, minutes: str = "10") -> None:
    """Both at the same time, so that they meet the same machine; write what came out."""
    names = ("transformers", "bertlearn")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(side, name, folder, float(minutes), i) for i, name in enumerate(names)]
        curves = [job.result() for job in jobs]
    found = {
        "minutes": float(minutes),
        "machine": describe_machine(),
        **dict(zip(names, curves, strict=True)),
    }
    level = found["transformers"][-1]["loss"]
    found["ours lower by"] = round(level - found["bertlearn"][-1]["loss"], 4)
    found["ours there after minutes"] = next(
        (point["minutes"] for point in found["bertlearn"] if point["loss"] <= level), None
    )
    target = Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

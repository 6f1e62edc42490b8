"""The search for the recipe of `bertlearn pretrain --config mini`: a table of tries.

    python book/records/08_search.py DATA [NAME ...]

DATA is made by `bertlearn data build --source sotu --source wiki --source encyclopedia
--vocab-size 8192`. Each try trains 4 layers of width 256 with seed 0 on one core (bf16 where the
processor has it) and is judged on held-out rows whose blanks are all [MASK]. Writes the tries
named, or all, into 08_search.json beside this file, with their losses on the way.

The last try of the record ran on two cores, and most were made before this script had its present
form: their points are not evenly spaced. Losses come out the same to a few thousandths, seconds do
not. Two tries whose code did not stay are left out: neighbors in the second layer, too (6.26 after
1.0 M tokens with 15 % targets, worse), and Muon for the matrices (5.79 after as many, 15 % targets,
each step dearer by a fifth or more).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bertlearn.data.shards import TokenData
from bertlearn.data.stream import BatchStream, Marks
from bertlearn.engine.arithmetic import has_fast_bf16
from bertlearn.engine.pretrain import held_out
from bertlearn.engine.recipes import RECIPES
from bertlearn.model import BertForPreTraining
from bertlearn.pretraining import (
    evaluate,
    learning_rate,
    look_at_neighbors,
    make_optimizer,
    start_from_frequencies,
    train_step,
)

# What a try has unless it says otherwise. `tables` is the std of the three embedding tables,
# `std` that of all other matrices; the rate falls to 0 unless `flat`.
PLAIN: dict[str, Any] = {
    "steps": 250, "length": 32, "rows": 128, "rate": 1e-3, "warmup": 0.05, "targets": 0.15,
    "std": 0.05, "tables": 0.02, "neighbors": [-1, 1, -2, 2], "flat": False,
}  # fmt: skip
TRIES: dict[str, dict[str, Any]] = {
    "no neighbors": {"steps": 400, "std": 0.02, "neighbors": []},
    "no neighbors, std 0.05": {"steps": 400, "neighbors": []},
    "neighbors": {"steps": 400},
    "30 % targets": {"targets": 0.3},
    "rate 2e-3": {"rate": 2e-3},
    "std 0.02": {"targets": 0.3, "std": 0.02},
    "tables 0.04": {"targets": 0.3, "tables": 0.04},
    "64 rows": {"targets": 0.3, "steps": 500, "rows": 64},
    "rate 1.5e-3, warm-up 0.3": {"targets": 0.3, "rate": 1.5e-3, "warmup": 0.3},
    "rate 2.5e-3, warm-up 0.3": {"targets": 0.3, "rate": 2.5e-3, "warmup": 0.3},
    "64 rows, rate 1.5e-3, warm-up 0.3": {
        "targets": 0.3, "steps": 500, "rows": 64, "rate": 1.5e-3, "warmup": 0.3,
    },
    "the same, std 0.02": {
        "targets": 0.3, "steps": 500, "rows": 64, "rate": 1.5e-3, "warmup": 0.3, "std": 0.02,
    },
    "32 rows, rate 1.5e-3, warm-up 0.3": {
        "targets": 0.3, "steps": 1000, "rows": 32, "rate": 1.5e-3, "warmup": 0.3,
    },
    "64 rows, rate 3e-3, warm-up 0.5": {
        "targets": 0.3, "steps": 500, "rows": 64, "rate": 3e-3, "warmup": 0.5,
    },
    "16 rows of 128": {
        "targets": 0.3, "steps": 1000, "length": 128, "rows": 16, "rate": 1.5e-3, "warmup": 0.1,
        "std": 0.02, "flat": True,
    },
}  # fmt: skip


def attempt(data: TokenData, change: dict[str, Any]) -> dict[str, Any]:
    """Train and judge; the settings and the losses on the way."""
    s = PLAIN | change
    marks = Marks.of(data.tokenizer().vocab)
    torch.manual_seed(0)
    config = RECIPES["mini"].config(data.vocab_size)
    config = type(config).from_dict({**config.to_dict(), "initializer_range": s["std"]})
    model = BertForPreTraining(config).train()
    start_from_frequencies(model, torch.as_tensor(data.unigram_counts))
    tables = model.bert.embeddings
    with torch.no_grad():
        for table in (
            tables.word_embeddings,
            tables.position_embeddings,
            tables.token_type_embeddings,
        ):
            table.weight.mul_(s["tables"] / s["std"])
    if s["neighbors"]:
        look_at_neighbors(model, s["neighbors"])
        places = tables.position_embeddings.weight
        with torch.no_grad():  # as loud as the other tables
            places[:, :64] *= s["tables"] / s["std"]
    optimizer = make_optimizer(model)
    tests = held_out(data, marks, s["length"], 256 if s["length"] < 128 else 64, mix=(1, 0, 0))
    stream = BatchStream(
        data.split("train"), marks, length=s["length"], rows=s["rows"], rate=s["targets"]
    )
    points, seconds, tokens = [], 0.0, 0
    warmup = max(1, round(s["warmup"] * s["steps"]))
    batches = iter(stream)
    for step in range(s["steps"]):
        start = time.perf_counter()
        rate = learning_rate(step, s["steps"], s["rate"], warmup)
        rate = min(s["rate"], s["rate"] * (step + 1) / warmup) if s["flat"] else rate
        with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16()):
            tokens += train_step(model, optimizer, [next(batches)], rate).tokens
        seconds += time.perf_counter() - start
        if (step + 1) % (s["steps"] // 5) == 0:
            with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16()):
                found = evaluate(model, tests)
            points.append(
                {
                    "step": step + 1,
                    "tokens": tokens,
                    "seconds": round(seconds, 1),
                    "mask_loss": round(found.mlm_loss, 3),
                    "top1": round(found.top1, 3),
                }
            )
    return {"settings": s, "points": points}


def main(folder: str, *names: str) -> None:
    """Make the tries; keep what was made before."""
    target = Path(__file__).with_suffix(".json")
    found = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    for name in names or TRIES:
        found[name] = attempt(TokenData(folder), TRIES[name])
        print(name, found[name]["points"][-1], flush=True)
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    main(*sys.argv[1:])

"""One epoch of Rotten Tomatoes with MiniLM, here and by transformers' Trainer.

Both sides get the same sentences, 32 a batch, at most 128 tokens, a peak rate of 5e-5 with warm-up,
and are scored on the same films. The Trainer is as its documentation has it: batches at random,
padded to their longest row, dropout as in the model's config; in fp32 and, where the processor has
it, in bf16.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch

from bertlearn.data.tasks import Classified, Task, load_task
from bertlearn.engine.answering import Answerer
from bertlearn.engine.finetune import ModelSource, Settings
from bertlearn.finetuning import finetune

__all__ = ["bench_finetune"]

SIZE, LENGTH, RATE, WARMUP = 32, 128, 5e-5, 0.1


def _ours(task: Task, seed: int, dtype: str) -> tuple[float, float]:
    """Seconds of an epoch, and the accuracy after it."""
    settings = Settings(epochs=1, size=SIZE, rate=RATE, warmup=WARMUP, dtype=dtype)
    source = ModelSource("minilm", task, settings)
    torch.manual_seed(seed)
    precision = source.arithmetic.active
    answerer = Answerer(
        source.make(task), source.tokenizer, task.kind, task.labels, LENGTH, 1, False, precision
    )
    start = time.perf_counter()
    finetune(
        answerer.model,
        answerer.rows(task.train),
        answerer.pad_id,
        random.Random(seed),
        epochs=1,
        size=SIZE,
        rate=RATE,
        warmup=WARMUP,
        precision=precision,
    )
    seconds = time.perf_counter() - start
    return seconds, _accuracy(task, answerer.answer(task.test))


def _accuracy(task: Task, given: list[Any]) -> float:
    truth = [record.label for record in cast(list[Classified], task.test)]
    return sum(a == b for a, b in zip(truth, given, strict=True)) / len(truth)


def _theirs(transformers: Any, task: Task, seed: int, half: bool) -> tuple[float, float]:
    from bertlearn.data import sources

    folder = sources.fetch("minilm")
    transformers.set_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertForSequenceClassification.from_pretrained(folder, num_labels=2)
    start = time.perf_counter()
    train = _items(tokenizer, task, "train")
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=scratch,
                num_train_epochs=1,
                per_device_train_batch_size=SIZE,
                per_device_eval_batch_size=64,
                learning_rate=RATE,
                warmup_steps=round(WARMUP * len(train) / SIZE),
                weight_decay=0.01,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                dataloader_pin_memory=False,
                bf16=half,
                seed=seed,
            ),
            train_dataset=train,
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
        )
        trainer.remove_callback(transformers.PrinterCallback)  # it would write on standard output
        trainer.train()
        seconds = time.perf_counter() - start
        scores = trainer.predict(_items(tokenizer, task, "test")).predictions
    return seconds, _accuracy(task, [task.labels[i] for i in scores.argmax(axis=-1)])


def _items(tokenizer: Any, task: Task, split: str) -> list[dict[str, Any]]:
    records = cast(list[Classified], getattr(task, split))
    found = tokenizer([r.text for r in records], truncation=True, max_length=LENGTH)
    columns = [found[name] for name in ("input_ids", "token_type_ids", "attention_mask")]
    return [
        {
            "input_ids": ids,
            "token_type_ids": segments,
            "attention_mask": mask,
            "labels": task.labels.index(record.label),
        }
        for record, ids, segments, mask in zip(records, *columns, strict=True)
    ]


def bench_finetune(
    rounds: int, peer: Callable[[], Any] | None, half: bool, examples: int | None = None
) -> dict[str, Any]:
    """Seconds and accuracy of an epoch; sides take turns, the median counts.

    Args:
        rounds: epochs of each side, each with its own seed.
        peer: imports transformers; None to run alone.
        half: the processor multiplies bf16 fast.
        examples: learn from so many; all if None.
    """
    task = load_task("rotten-tomatoes")
    if examples is not None:
        task = task.with_examples(examples)
    ways: dict[str, Callable[[int], tuple[float, float]]] = {
        "bertlearn": lambda seed: _ours(task, seed, "auto"),
    }
    if peer is not None:
        transformers = peer()
        ways["transformers, fp32"] = lambda seed: _theirs(transformers, task, seed, False)
        if half:
            ways["transformers, bf16"] = lambda seed: _theirs(transformers, task, seed, True)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for seed in range(rounds):
        for name, way in list(ways.items())[:: 1 if seed % 2 else -1]:
            found[name].append(way(seed))
    seconds = {name: statistics.median(s for s, _ in rows) for name, rows in found.items()}
    return {
        "what": f"one epoch, {len(task.train):,} sentences, batch {SIZE}, at most {LENGTH} tokens; "
        f"from text to trained weights",
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "accuracy": {
            name: round(statistics.fmean(a for _, a in rows), 4) for name, rows in found.items()
        },
        "ratios": {
            name: round(seconds[name] / seconds["bertlearn"], 2)
            for name in ways
            if name != "bertlearn"
        },
    }

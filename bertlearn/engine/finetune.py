"""A fine-tuning run from start to end (``bertlearn finetune``).

run.json                        what was asked for, data, versions; the threshold for "no answer"
metrics.jsonl                   losses, the scores after each epoch, and of each seed
result.json                     all scores: mean and spread over seeds, baselines, minutes
config.json, model.safetensors  the model of the seed that is best on validation
vocab.txt, tokenizer.json ...   its vocabulary: the folder is a Hugging Face directory
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

from bertlearn.checkpoints import find_directory, shipped_models
from bertlearn.checkpoints.huggingface import read_json
from bertlearn.config import BertConfig
from bertlearn.data.tasks import Classified, Question, Task, load_task
from bertlearn.engine.answering import HEADS, Answerer
from bertlearn.engine.arithmetic import Arithmetic, has_fast_bf16
from bertlearn.engine.baselines import baselines, baselines_of_draws, score_records
from bertlearn.engine.fill import tokenizer_of
from bertlearn.engine.metrics import MAIN, mean_and_spread
from bertlearn.engine.pretrain import describe_machine
from bertlearn.engine.runs import RunError, RunFolder, write_atomically
from bertlearn.finetuning import class_weights, finetune, freeze
from bertlearn.pretraining import NonFiniteLoss
from bertlearn.tokenization import BertTokenizer

__all__ = ["BASELINES_ONLY", "ModelSource", "Settings", "run_finetuning"]

BASELINES_ONLY = "baselines"  # in a model's place
_LOG_STEPS = 20
_SHORTEST = 8  # tokens of a row


@dataclass(frozen=True)
class Settings:
    """How to fine-tune.

    Attributes:
        epochs: at most so many.
        size: rows of a batch.
        rate: the highest learning rate.
        warmup: the share of the steps until it is reached.
        layer_decay: each layer learns at so many times the rate of the one above it; 1 for the
            same rate everywhere.
        weight_decay: of AdamW, for what has two axes.
        dropout: of hidden states. That of attention is 0: it is slow, and changes little.
        max_length: tokens of a row, at least 8; None for 128, for questions 256, or what the model
            has.
        patience: stop when so many epochs in a row were not better on validation; None for never.
        balance: every class counts the same, however many examples it has.
        frozen: train the head alone.
        dtype: "fp32", "bf16", or "auto": bf16 where the processor multiplies it fast.

    Raises:
        ValueError: for a value that cannot be; says what can.
    """

    epochs: int = 3
    size: int = 32
    rate: float = 5e-5
    warmup: float = 0.1
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    dropout: float = 0.1
    max_length: int | None = None
    patience: int | None = None
    balance: bool = False
    frozen: bool = False
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "size", "rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}")
        for name in ("warmup", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"layer_decay must be more than 0 and at most 1, which is the same rate for all "
                f"layers, not {self.layer_decay}"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be 0 or more, not {self.weight_decay}")
        if self.max_length is not None and self.max_length < _SHORTEST:
            raise ValueError(
                f"max_length must be {_SHORTEST} tokens or more, or None for the usual length, not "
                f"{self.max_length}"
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(
                f"patience must be 1 epoch or more, or None to do all epochs, not {self.patience}"
            )
        if self.dtype not in ("auto", "fp32", "bf16"):
            raise ValueError(f"dtype must be auto, fp32 or bf16, not {self.dtype!r}")

    @property
    def half(self) -> bool:
        """Whether matrices are multiplied in bf16."""
        return self.dtype == "bf16" or (self.dtype == "auto" and has_fast_bf16())


def run_finetuning(
    task: str | Path | Task,
    model: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    seeds: int = 1,
    first_seed: int = 0,
    examples: int | None = None,
    columns: Mapping[str, str] | None = None,
    with_baselines: bool = True,
    resume: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Fine-tune, evaluate, save; see ``bertlearn finetune --help``.

    Args:
        task: as `bertlearn.data.tasks.load_task` takes it, or one.
        model: a shipped model, a source, a folder; "scratch" for fresh weights in the shape of
            the book's mini of the task's language, "scratch:MODEL" in that of another;
            "baselines" for none.
        out: the run's folder.
        settings: how.
        seeds: how many runs, each with other examples (if not all), another head, other batches.
        first_seed: of them.
        examples: records to learn from; all if None.
        columns: of a file, where they have other names.
        with_baselines: also score them, on the same records.
        resume: go on with the run in ``out``: seeds that are done are not done again.
        progress: show a bar.

    Returns:
        what is in result.json.

    Raises:
        RunError: see ``RunFolder``; if the run in ``out`` is of another task or model; if the loss
            is not finite.
        DataError, CheckpointError, ValueError: if task, model or settings cannot be had.
    """
    settings = settings or Settings()
    if not isinstance(task, Task):
        given, task = str(task), load_task(task, columns)
    else:
        given = task.name
    source = ModelSource(str(model), task, settings) if str(model) != BASELINES_ONLY else None
    if examples is not None:
        task.with_examples(examples)  # complains now rather than in the midst
    facts: dict[str, Any] = {
        "task": given,
        "columns": dict(columns or {}),
        "kind": task.kind,
        "labels": list(task.labels),
        "is_pair": task.is_pair,
        "no_answer": any(not r.answers for r in cast(list[Question], task.train))
        if task.kind == "qa"
        else False,
        "model": str(model),
        "examples": examples,
        "settings": dataclasses.asdict(settings),
        "max_length": source.max_length if source else None,
        "stride": source.max_length // 2 if source else None,
        "machine": describe_machine(),
    }
    folder = RunFolder(out, resume)
    torch.set_flush_denormal(True)
    try:
        if resume:
            _check_same(folder, facts)
        else:
            folder.describe(facts)
        run = _Run(task, facts, settings, folder, progress)
        if source:
            for seed in range(first_seed, first_seed + seeds):
                run.seed(seed, source)
        return run.finish(with_baselines, range(first_seed, first_seed + seeds))
    finally:
        torch.set_flush_denormal(False)
        folder.close()
        with suppress(OSError):  # unless something is in it
            (Path(out) / "checkpoints").rmdir()


def _check_same(folder: RunFolder, facts: dict[str, Any]) -> None:
    """Refuse to go on with another task, model or settings than the run was begun with."""
    before = folder.description()
    if "kind" not in before:
        raise RunError(f"{folder.path} is a run of bertlearn pretrain: name another folder")
    for name in ("task", "kind", "labels", "model", "examples", "settings", "max_length"):
        if before.get(name) != facts[name]:
            raise RunError(
                f"{folder.path} was begun with {name} {before.get(name)!r}, not "
                f"{facts[name]!r}: name another folder, or resume with what it was begun with"
            )


# ---- where weights come from --------------------------------------------------------------------


class ModelSource:
    """A model to start from: a folder with weights, or its shape alone.

    Args:
        name: a shipped model, a source or a folder; "scratch" for fresh weights in the shape of the
            book's mini of the task's language, "scratch:MODEL" in that of another.
        task: to learn.
        settings: how: the length of rows, dropout, and in which numbers to multiply.

    Raises:
        RunError: if the book's mini is not here, or the model has not so many positions.
        CheckpointError: if there is no such model, or its config.json is missing or damaged.
        FileNotFoundError: if it has no vocabulary.
        ValueError: if its config.json has a value that cannot be.
    """

    def __init__(self, name: str, task: Task, settings: Settings):
        scratch, _, shape = name.partition(":")
        self.fresh = scratch == "scratch"
        if self.fresh and not shape:
            shape = "bertlearn-mini-zh" if task.language == "zh" else "bertlearn-mini-en"
            if shape not in shipped_models():
                raise RunError(
                    f"scratch takes shape and vocabulary of {shape}, which is not here: name "
                    f"another model, as in scratch:minilm"
                )
        self.folder = find_directory(shape if self.fresh else name)
        self.tokenizer = tokenizer_of(self.folder)
        self.changes: dict[str, Any] = {
            "hidden_dropout_prob": settings.dropout,
            "attention_probs_dropout_prob": 0.0,
        }
        fields = read_json(self.folder / "config.json")
        asked = BertConfig.from_dict({**fields, **self.changes})
        self.arithmetic = Arithmetic(asked, settings.half)
        self.config = self.arithmetic.config
        self.changes["attn_implementation"] = self.config.attn_implementation
        positions = self.config.max_position_embeddings
        usual = 256 if task.kind == "qa" else 128
        self.max_length = settings.max_length or min(usual, positions)
        if not _SHORTEST <= self.max_length <= positions:
            raise RunError(
                f"the model has {positions} positions: max_length must be {_SHORTEST} to "
                f"{positions}, not {self.max_length}"
            )

    def make(self, task: Task) -> Any:
        """The model with a fresh head for the task; torch's generator draws the head.

        Args:
            task: says which head, and how many labels.

        Returns:
            one of `HEADS`, all of it fresh for "scratch", else with the folder's weights below the
            head.

        Raises:
            CheckpointError: if the weights are damaged, or of another shape.
        """
        head = HEADS[task.kind]
        names = {} if task.kind == "qa" else {"id2label": dict(enumerate(task.labels))}
        if self.fresh:
            return head(self.config, **names)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*starts from random values")
            return head.from_pretrained(self.folder, **self.changes, **names)


# ---- one run ------------------------------------------------------------------------------------


class _Run:
    """What the seeds of a run share."""

    def __init__(
        self,
        task: Task,
        facts: dict[str, Any],
        settings: Settings,
        folder: RunFolder,
        progress: bool,
    ):
        self.task, self.facts, self.settings = task, facts, settings
        self.folder, self.progress = folder, progress
        self.main = MAIN[task.kind]

    def done(self) -> dict[int, dict[str, Any]]:
        """The records of the seeds that are finished, in the order in which they were."""
        return {r["seed"]: r for r in self.folder.records() if "test" in r}

    def _kept(self) -> dict[str, Any] | None:
        """The record of the seed whose weights are saved: of all that are finished, whatever
        this command was asked for, the first that is best on validation."""
        records = self.done().values()
        return max(records, key=lambda record: record["valid"][self.main], default=None)

    def seed(self, seed: int, source: ModelSource) -> None:
        """Fine-tune with one seed, unless that is done; keep the model if it is the best yet."""
        if seed in self.done():
            return
        torch.manual_seed(seed)
        task = self.task
        if self.facts["examples"] is not None:
            task = task.with_examples(self.facts["examples"], seed)
        answerer = Answerer(
            source.make(task),
            source.tokenizer,
            task.kind,
            task.labels,
            self.facts["max_length"],
            self.facts["stride"],
            self.facts["no_answer"],
            source.arithmetic.active,
        )
        start = time.perf_counter()
        best = self._train(seed, task, answerer)
        minutes = (time.perf_counter() - start) / 60
        told: dict[str, Any] = {}
        if answerer.no_answer:
            answerer.threshold = answerer.choose_threshold(task.valid)
            told = {"threshold": answerer.threshold}
        valid, test = self._score(answerer, "valid"), self._score(answerer, "test")
        kept = self._kept()
        if kept is None or valid[self.main] > kept["valid"][self.main]:
            self._save(answerer)
        self.folder.log(
            {
                "seed": seed,
                "examples": len(task.train),
                "best_epoch": best,
                "minutes": round(minutes, 4),
                **told,
                "valid": valid,
                "test": test,
            }
        )

    def _train(self, seed: int, task: Task, answerer: Answerer) -> int:
        settings, model = self.settings, answerer.model
        if settings.frozen:
            freeze(model)
        weights = None
        if settings.balance:
            if task.kind != "classification":
                raise RunError(f"balance is for classes; {task.name} is a task of {task.kind}")
            numbers = [task.labels.index(r.label) for r in cast(list[Classified], task.train)]
            weights = class_weights(numbers, len(task.labels))
        bar = tqdm(desc=f"seed {seed}", unit="step", disable=not self.progress)
        losses: list[float] = []

        def watch(step: int, steps: int, loss: float) -> None:
            losses.append(loss)
            bar.total = steps
            bar.update()
            if step % _LOG_STEPS == 0 or step == steps:
                recent = losses[-_LOG_STEPS:]
                mean = round(sum(recent) / len(recent), 5)
                self.folder.log({"seed": seed, "step": step, "loss": mean})

        def evaluate(_: Any) -> float:
            scores = self._score(answerer, "valid")
            self.folder.log({"seed": seed, "step": len(losses), "epoch_valid": scores})
            return scores[self.main]

        try:
            with bar:
                history = finetune(
                    model,
                    answerer.rows(task.train),
                    answerer.pad_id,
                    random.Random(seed),
                    epochs=settings.epochs,
                    size=settings.size,
                    rate=settings.rate,
                    warmup=settings.warmup,
                    layer_decay=settings.layer_decay,
                    weight_decay=settings.weight_decay,
                    label_weights=weights,
                    evaluate=evaluate,
                    patience=settings.patience,
                    precision=answerer.precision,
                    watch=watch,
                )
        except NonFiniteLoss as error:
            raise RunError(
                f"seed {seed}, step {len(losses) + 1}: {error}. Nothing of this seed was saved; a "
                f"lower --rate helps most often"
            ) from None
        return history.best

    def _score(self, answerer: Answerer, split: str) -> dict[str, float]:
        records = getattr(self.task, split)
        scores = score_records(self.task, records, answerer.answer(records))
        return {name: round(value, 4) for name, value in scores.items()}

    def _save(self, answerer: Answerer) -> None:
        """Write the model as a Hugging Face directory, with its vocabulary, and its threshold."""
        path = self.folder.path
        answerer.model.save_pretrained(path)
        save_tokenizer(answerer.tokenizer, path, self.facts["max_length"])
        if answerer.no_answer:
            self.folder.describe(self.folder.description() | {"threshold": answerer.threshold})

    def finish(self, with_baselines: bool, seeds: range) -> dict[str, Any]:
        """Put the scores together, and write them down. Without a model no seed has any."""
        done = self.done()
        records = [done[seed] for seed in seeds if seed in done]
        kept = self._kept()
        result: dict[str, Any] = {
            "task": self.facts["task"],
            "model": self.facts["model"],
            "examples": self.facts["examples"] or len(self.task.train),
            "records": {
                split: len(getattr(self.task, split)) for split in ("train", "valid", "test")
            },
            "seeds": records,
            "kept_seed": kept["seed"] if kept else None,
            "valid": mean_and_spread([r["valid"] for r in records]) if records else {},
            "test": mean_and_spread([r["test"] for r in records]) if records else {},
            "baselines": self._baselines(seeds) if with_baselines else {},
            "settings": self.facts["settings"],
            "minutes": round(sum(record["minutes"] for record in records), 3),
            "machine": describe_machine(),
        }
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.folder.path / "result.json", text.encode())
        return result

    def _baselines(self, seeds: range) -> dict[str, Any]:
        """Their scores; if not all records are used, on the same draws as the model."""
        examples = self.facts["examples"]
        if examples is None:
            return baselines(self.task)
        return baselines_of_draws([self.task.with_examples(examples, seed) for seed in seeds])


def save_tokenizer(tokenizer: BertTokenizer, folder: Path, max_length: int) -> None:
    """Write a vocabulary in the three files that other libraries look for."""
    tokenizer.save(folder / "vocab.txt")
    tokenizer.save(folder / "tokenizer.json")
    fields = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": tokenizer.lowercase,
        "model_max_length": max_length,
    }
    text = json.dumps(fields, indent=2) + "\n"
    write_atomically(folder / "tokenizer_config.json", text.encode())

"""A pre-training run from start to end, whatever happens on the way (``bertlearn pretrain``)."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from bertlearn.checkpoints import find_directory
from bertlearn.checkpoints.huggingface import read_json
from bertlearn.config import BertConfig
from bertlearn.data.shards import TokenData
from bertlearn.data.stream import BatchStream, Marks, Position, seed_of
from bertlearn.engine.arithmetic import Arithmetic, cpuinfo, has_fast_bf16
from bertlearn.engine.fill import tokenizer_of
from bertlearn.engine.processes import Processes
from bertlearn.engine.recipes import Phase, Recipe
from bertlearn.engine.runs import RunError, RunFolder, write_atomically
from bertlearn.model import BertForPreTraining
from bertlearn.pretraining import (
    Batch,
    NonFiniteLoss,
    StepResult,
    blind_loss,
    evaluate,
    learning_rate,
    look_at_neighbors,
    make_optimizer,
    spread_positions,
    start_from_frequencies,
    train_step,
    training_flops,
    unigram_entropy,
)

__all__ = ["Interrupted", "Options", "held_out", "matmul_peak", "pretrain"]


class Interrupted(RunError):
    """The run was asked to stop; it is saved."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be chosen about a run besides its recipe; none of it changes what is learned.

    Attributes:
        save_minutes: between two checkpoints.
        save_steps: the same in steps; 0 counts minutes.
        log_steps: between two lines of the metrics.
        evaluate_steps: between two evaluations; 0 makes twenty of them.
        held_out_rows: rows of held-out text for them.
        dtype: ``"fp32"``, ``"bf16"``, or ``"auto"``: bf16 where the processor multiplies it fast.
        fsdp: shard weights over processes.
        tensorboard: also write events for TensorBoard.
        progress: show a bar.
    """

    save_minutes: float = 5.0
    save_steps: int = 0
    log_steps: int = 10
    evaluate_steps: int = 0
    held_out_rows: int = 128
    dtype: str = "auto"
    fsdp: bool = False
    tensorboard: bool = False
    progress: bool = True


def pretrain(
    data: str | Path,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    name: str = "",
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    start: str | Path | None = None,
    resume: bool = False,
    options: Options | None = None,
) -> Path:
    """Pre-train and save; see ``bertlearn pretrain --help``.

    Args:
        data: a folder made by ``bertlearn data build``.
        out: the run's folder.
        recipe: what to train and how; None when resuming.
        name: of the recipe, for the record.
        steps: how many, or
        minutes: for how long; a probe turns them into steps.
        seed: of everything random.
        start: a model to go on from, instead of random weights: a shipped one, or a folder. Its
            shape counts then, not the recipe's (further pre-training, Gururangan et al., 2020).
        resume: go on with the run in ``out``, to the same result as if it had never stopped.
        options: see there.

    Returns:
        the folder of the model.

    Raises:
        RunError: see ``RunFolder``; if data or recipe are not those of the run; if the data were
            made with other pieces than the model to start from; if the loss is not finite;
            ``Interrupted`` after Ctrl-C, when everything is saved.
        CheckpointError: if there is no such model.
    """
    options = options or Options()
    tokens = TokenData(data)
    if recipe is not None and start is not None:
        recipe = _recipe_from(start, recipe, tokens)
    elif recipe is not None and not recipe.model:
        raise RunError("this recipe has no shape of its own: name a model to go on from (--from)")
    with Processes() as processes:
        folder = None
        if processes.first:
            folder = _attempt(lambda: RunFolder(out, resume), processes)
        else:
            _attempt(None, processes)
        torch.set_flush_denormal(True)
        try:
            facts = _facts(folder, tokens, recipe, name, seed, start, resume, processes)
            if not resume:
                facts["steps"] = _count_steps(tokens, facts, steps, minutes, options, processes)
                if folder:
                    folder.describe(facts)
            run = _Run(tokens, facts, folder, options, processes)
            return run.go(Path(out))
        finally:
            torch.set_flush_denormal(False)
            if folder:
                folder.close()


def _attempt(action: Callable[[], Any] | None, processes: Processes) -> Any:
    """Do something in the first process; if it fails, all of them stop with the same words."""
    result, problem = None, None
    if action is not None:
        try:
            result = action()
        except RunError as error:
            problem = str(error)
    problem = processes.share(problem)
    if problem:
        raise RunError(problem)
    return result


# ---- what the run is ----------------------------------------------------------------------------


def _facts(
    folder: RunFolder | None,
    tokens: TokenData,
    recipe: Recipe | None,
    name: str,
    seed: int,
    start: str | Path | None,
    resume: bool,
    processes: Processes,
) -> dict[str, Any]:
    """What a new run will be, or what a resumed one is, after comparing."""
    if not resume:
        if recipe is None:
            raise RunError("a new run needs a recipe")
        return {
            "name": name,
            "recipe": recipe.to_dict(),
            "seed": seed,
            "from": None if start is None else str(start),
            "data": {"fingerprint": tokens.fingerprint, "vocab_size": tokens.vocab_size},
            "machine": describe_machine(),
        }
    facts = processes.share(folder.description() if folder else None)
    if facts["data"]["fingerprint"] != tokens.fingerprint:
        raise RunError(
            "this run was begun with other data (the fingerprints differ): resume it with the "
            "folder it was begun with, or begin a new run"
        )
    if recipe is not None and recipe != Recipe.from_dict(facts["recipe"]):
        raise RunError(
            f"this run was begun with the recipe {facts['name']!r}, which differs from "
            f"{name!r}: leave --config out to resume, or begin a new run"
        )
    return facts


def _recipe_from(start: str | Path, recipe: Recipe, tokens: TokenData) -> Recipe:
    """The recipe for going on from a model: in the model's shape, from the model's weights."""
    folder = find_directory(start)
    if tokens.tokenizer().vocab != tokenizer_of(folder).vocab:
        raise RunError(
            f"the data are made of other pieces than {start} knows: build them with "
            f"--tokenizer {start}"
        )
    config = BertConfig.from_dict(read_json(folder / "config.json"))
    longest = max(phase.length for phase in recipe.phases)
    if longest > config.max_position_embeddings:
        raise RunError(
            f"{start} has {config.max_position_embeddings} positions, the recipe's rows have "
            f"{longest} tokens: shorten them, as in --set phases.0.length="
            f"{config.max_position_embeddings}"
        )
    shape = config.to_dict()
    del shape["vocab_size"]  # it comes with the data
    return dataclasses.replace(recipe, model=shape, from_frequencies=False, neighbors=())


def describe_machine() -> dict[str, Any]:
    """Processor and versions."""
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo(), re.MULTILINE)
    return {
        "processor": named[1].strip() if named else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def matmul_peak(dtype: torch.dtype = torch.float32, size: int = 1536, repeats: int = 8) -> float:
    """The best rate of a large matrix product on this machine, in floating point operations a
    second."""
    a, b = torch.randn(2, size, size).to(dtype)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def held_out(
    tokens: TokenData,
    marks: Marks,
    length: int,
    rows: int,
    objective: str = "mlm",
    mix: tuple[float, float, float] = (0.8, 0.1, 0.1),
    split: Literal["valid", "test"] = "valid",
) -> list[Batch]:
    """Rows of a split that was not trained on, with blanks that never change."""
    size = min(rows, 32)
    while True:
        try:
            stream = iter(
                BatchStream(
                    tokens.split(split),
                    marks,
                    length=length,
                    rows=size,
                    objective=objective,
                    seed=1,
                    mix=mix,
                )
            )
            return [next(stream) for _ in range(max(1, rows // size))]
        except ValueError:
            if size == 1 or objective != "mlm":
                return []
            size //= 2


def _phase_steps(recipe: Recipe, steps: int) -> list[int]:
    """At which step each phase ends."""
    shares = [phase.share for phase in recipe.phases]
    return [round(sum(shares[: i + 1]) * steps) for i in range(len(shares))]


# ---- minutes to steps ---------------------------------------------------------------------------


def _count_steps(
    tokens: TokenData,
    facts: dict[str, Any],
    steps: int | None,
    minutes: float | None,
    options: Options,
    processes: Processes,
) -> int:
    """Steps as given, or as many as a probe says fit into the minutes."""
    if (steps is None) == (minutes is None):
        raise RunError("say either --steps or --minutes")
    if steps is not None:
        if steps < 1:
            raise RunError(f"steps must be at least 1, not {steps}")
        return steps
    assert minutes is not None
    if minutes <= 0:
        raise RunError(f"minutes must be more than 0, not {minutes}")
    recipe = Recipe.from_dict(facts["recipe"])
    trial = _Run(tokens, {**facts, "steps": 100}, None, options, processes)
    seconds = 0.0
    for index, phase in enumerate(recipe.phases):
        stream = iter(trial.stream(index))
        taken = []
        for _ in range(4):
            start = time.perf_counter()
            trial.step(next(stream), phase, 0.0)
            taken.append(time.perf_counter() - start)
        seconds += phase.share * statistics.median(taken[1:])
    found = max(len(recipe.phases), int(0.97 * minutes * 60 / seconds))  # the rest: evaluation
    return processes.share(found)


# ---- the run ------------------------------------------------------------------------------------


class _Run:
    """The state of a run in one process."""

    def __init__(
        self,
        tokens: TokenData,
        facts: dict[str, Any],
        folder: RunFolder | None,
        options: Options,
        processes: Processes,
    ):
        self.tokens, self.facts, self.folder = tokens, facts, folder
        self.options, self.processes = options, processes
        self.recipe = Recipe.from_dict(facts["recipe"])
        self.steps, self.seed = facts["steps"], facts["seed"]
        self.marks = Marks.of(tokens.tokenizer().vocab)
        self.ends = _phase_steps(self.recipe, self.steps)
        half = options.dtype == "bf16" or (options.dtype == "auto" and has_fast_bf16())
        self.dtype = torch.bfloat16 if half else torch.float32
        config = self.recipe.config(tokens.vocab_size)
        self.arithmetic = Arithmetic(config, half, processes.device.type)
        self.config = self.arithmetic.config
        torch.manual_seed(self.seed)
        self.bare = self._begin().to(processes.device).train()
        if self.recipe.from_frequencies:
            start_from_frequencies(self.bare, torch.as_tensor(tokens.unigram_counts))
        if self.recipe.neighbors:
            look_at_neighbors(self.bare, self.recipe.neighbors)
        idle = any(phase.objective == "mlm" for phase in self.recipe.phases)
        self.sharded = options.fsdp and processes.world > 1
        self.model = processes.wrap(self.bare, options.fsdp, idle)
        r = self.recipe
        self.optimizer = make_optimizer(self.model, r.betas, r.eps, r.weight_decay)
        torch.manual_seed(seed_of(self.seed, "dropout", processes.rank))
        self.done, self.position = 0, Position()
        self.seconds, self.cpu_seconds, self.tokens_read = 0.0, 0.0, 0
        self.pending: list[tuple[float, float | None, float]] = []
        self.saved = -1  # the step of the last checkpoint
        self.stop = False

    def _begin(self) -> BertForPreTraining:
        """A model with fresh weights, or with those that the run goes on from.

        Once there is a checkpoint its weights count, and the model to start from may be gone.
        """
        start = self.facts.get("from")
        saved = self.processes.share(bool(self.folder and self.folder.checkpoints()))
        if start is None or saved:
            return BertForPreTraining(self.config)
        return BertForPreTraining.from_pretrained(
            find_directory(start), **dataclasses.asdict(self.config)
        )

    def stream(self, phase: int) -> BatchStream:
        """The batches of a phase, from its beginning."""
        now = self.recipe.phases[phase]
        return BatchStream(
            self.tokens.split("train"),
            self.marks,
            length=now.length,
            rows=now.rows,
            objective=now.objective,
            seed=seed_of(self.seed, "phase", phase),
            rate=self.recipe.rate,
            whole_words=self.recipe.whole_words,
            mix=self.recipe.mix,
            rank=self.processes.rank,
            world=self.processes.world,
        )

    def step(self, batch: Batch, phase: Phase, rate: float) -> StepResult:
        """One step on a batch, in micro-batches of bounded size."""
        size = max(1, self.recipe.tokens_at_once // phase.length)
        with self.arithmetic.active():
            return train_step(
                self.model,
                self.optimizer,
                [part.to(self.processes.device) for part in batch.split(size)],
                rate,
                self.recipe.max_norm,
                self.processes.world,
                self.processes.total,
            )

    # ---- states

    def state(self) -> dict[str, Any]:
        """All that is needed to go on as if nothing had happened."""
        model, optimizer = self._weights()
        return {
            "step": self.done,
            "model": model,
            "optimizer": optimizer,
            "random": self.processes.gather(torch.get_rng_state()),
            "position": self.position.to_dict(),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "tokens": self.tokens_read,
            "pending": self.pending,
        }

    def _weights(self) -> tuple[dict, dict]:
        if not self.sharded:
            return self.bare.state_dict(), self.optimizer.state_dict()
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_state_dict(self.model, self.optimizer, options=whole)

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state.

        Raises:
            RunError: if it is of another model, or of another number of processes.
        """
        if len(state["random"]) != self.processes.world:
            raise RunError(
                f"this run was saved by {len(state['random'])} processes: resume it with as many"
            )
        try:
            if not self.sharded:
                self.bare.load_state_dict(state["model"])
                self.optimizer.load_state_dict(state["optimizer"])
            else:
                from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

                set_state_dict(
                    self.model,
                    self.optimizer,
                    model_state_dict=state["model"],
                    optim_state_dict=state["optimizer"],
                    options=StateDictOptions(full_state_dict=True),
                )
        except (RuntimeError, ValueError, KeyError) as error:
            raise RunError(
                f"the checkpoint of step {state['step']} is of another config than run.json: "
                f"{str(error).splitlines()[-1].strip()[:200]}"
            ) from None
        torch.set_rng_state(state["random"][self.processes.rank])
        self.done, self.position = state["step"], Position(**state["position"])
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]
        self.tokens_read, self.pending = state["tokens"], list(state["pending"])

    # ---- the loop

    def go(self, out: Path) -> Path:
        """Train to the end, save the model."""
        saved = self.folder.load() if self.folder else None
        saved = self.processes.share(saved)
        if saved is not None:
            self.restore(saved)
        if self.folder:
            self.folder.forget_after(self.done)
        self._tests = self._held_out()
        with _Signals(self), self._bar() as bar, self._board(out) as board:
            self._board_writer = board
            self._train(bar)
        return self._finish(out)

    def _held_out(self) -> dict[str, list[Batch]]:
        last = self.recipe.phases[-1]
        rows = self.options.held_out_rows
        tests = {
            "": held_out(self.tokens, self.marks, last.length, rows),
            # all blanks are [MASK]: a copy of what is seen is worth nothing here
            "mask_": held_out(self.tokens, self.marks, last.length, rows, mix=(1.0, 0.0, 0.0)),
        }
        if last.objective != "mlm":
            tests["pair_"] = held_out(self.tokens, self.marks, last.length, rows, last.objective)
        return {kind: batches for kind, batches in tests.items() if batches}

    def _train(self, bar: tqdm) -> None:
        warmup = max(1, round(self.recipe.warmup * self.steps))
        evaluate_steps = self.options.evaluate_steps or max(1, self.steps // 20)
        begun, cpu = time.perf_counter() - self.seconds, time.process_time() - self.cpu_seconds
        last_saved = time.perf_counter()
        for index, phase in enumerate(self.recipe.phases):
            first = self.ends[index - 1] if index else 0
            if self.done >= self.ends[index]:
                continue
            if self.done == first and index:
                self.position = Position()
                longer = phase.length > self.recipe.phases[index - 1].length
                # waves go on as they are, and a model to start from has all its positions
                if longer and not self.recipe.neighbors and not self.facts.get("from"):
                    self._spread(self.recipe.phases[index - 1].length)
            stream = self.stream(index)
            stream.position = self.position
            batches: Iterator[Batch] = iter(stream)
            while self.done < self.ends[index]:
                batch = next(batches)
                rate = learning_rate(self.done, self.steps, self.recipe.learning_rate, warmup)
                try:
                    result = self.step(batch, phase, rate)
                except NonFiniteLoss as error:
                    self._give_up(batch, error)
                self.done += 1
                self.position = stream.position
                self.tokens_read += result.tokens
                self.seconds = time.perf_counter() - begun
                self.cpu_seconds = time.process_time() - cpu
                self._note(result, rate)
                bar.update(1)
                bar.set_postfix_str(f"loss {result.mlm_loss:.2f}", refresh=False)
                if self.done % evaluate_steps == 0 or self.done == self.steps:
                    self._evaluate()
                    self.seconds = time.perf_counter() - begun
                    self.cpu_seconds = time.process_time() - cpu
                if self.processes.total(torch.tensor(float(self.stop))).item():
                    self._save()
                    raise Interrupted(
                        f"stopped at step {self.done} of {self.steps}, and saved: go on with "
                        f"--resume"
                    )
                if self.options.save_steps:
                    due = self.done % self.options.save_steps == 0
                else:
                    waited = time.perf_counter() - last_saved
                    due = self.processes.share(waited > 60 * self.options.save_minutes)
                if due:
                    self._save()
                    last_saved = time.perf_counter()

    def _spread(self, trained: int) -> None:
        """`spread_positions`, also where no process holds the whole table."""
        if not self.sharded:
            spread_positions(self.bare, trained)
            return
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_model_state_dict,
            set_model_state_dict,
        )

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = self.processes.share(get_model_state_dict(self.model, options=options))
        model = BertForPreTraining(self.config)
        model.load_state_dict(weights)
        spread_positions(model, trained)
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.model, model.state_dict(), options=options)

    def _save(self) -> None:
        if self.saved == self.done:
            return
        state, folder = self.state(), self.folder
        _attempt((lambda: folder.save(self.done, state)) if folder else None, self.processes)
        self.saved = self.done

    def _give_up(self, batch: Batch, error: NonFiniteLoss) -> None:
        """Write the batch that broke the run, and stop."""
        path = Path(self.folder.path if self.folder else ".") / f"bad-batch-{self.done:08d}.pt"
        if self.folder:
            torch.save({"step": self.done, "batch": dataclasses.asdict(batch)}, path)
        raise RunError(
            f"step {self.done}: {error}. The batch is in {path.name}; the last checkpoint is "
            f"sound. A lower learning rate or a longer warm-up helps most often"
        ) from None

    # ---- what is written down

    def _note(self, result: StepResult, rate: float) -> None:
        self.pending.append((result.mlm_loss, result.pair_loss, result.grad_norm))
        if self.done % self.options.log_steps and self.done != self.steps:
            return
        losses, pairs, norms = zip(*self.pending, strict=True)
        judged = [loss for loss in pairs if loss is not None]
        self.pending = []
        self._record(
            {
                "learning_rate": rate,
                "mlm_loss": round(statistics.fmean(losses), 6),
                "pair_loss": round(statistics.fmean(judged), 6) if judged else None,
                "grad_norm": round(statistics.fmean(norms), 4),
            }
        )

    def _evaluate(self) -> None:
        found: dict[str, float] = {}
        for kind, batches in self._tests.items():
            with self.arithmetic.active():
                result = evaluate(
                    self.model if self.sharded else self.bare,
                    [batch.to(self.processes.device) for batch in batches],
                )
            if result.pair_accuracy is not None:
                found["held_out_pair_accuracy"] = round(result.pair_accuracy, 4)
            else:
                found[f"held_out_{kind}loss"] = round(result.mlm_loss, 4)
                found[f"held_out_{kind}top1"] = round(result.top1, 4)
                found[f"held_out_{kind}top5"] = round(result.top5, 4)
        if found:
            self._record(found)

    def _record(self, values: dict[str, Any]) -> None:
        if not self.folder:
            return
        record = {
            "step": self.done,
            "tokens": self.tokens_read,
            "seconds": round(self.seconds, 2),
            "cpu_seconds": round(self.cpu_seconds, 2),
            **{name: value for name, value in values.items() if value is not None},
        }
        self.folder.log(record)
        if self._board_writer is not None:
            for name, value in values.items():
                if value is not None:
                    self._board_writer.add_scalar(name, value, self.done)

    def _bar(self) -> tqdm:
        shown = self.options.progress and self.processes.first
        return tqdm(
            total=self.steps, initial=self.done, desc="pre-training", unit="step", disable=not shown
        )

    def _board(self, out: Path) -> AbstractContextManager:
        if not (self.options.tensorboard and self.processes.first):
            return nullcontext()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise RunError(
                "TensorBoard is not installed: pip install tensorboard, or leave --tensorboard out"
            ) from None
        return SummaryWriter(str(out / "events"))

    def _finish(self, out: Path) -> Path:
        """Save the model with its vocabulary, and say how it went."""
        self._save()
        target = out / "model"
        weights, _ = self._weights()
        if self.folder:
            model = BertForPreTraining(self.config)
            model.load_state_dict(weights)
            model.save_pretrained(target)
            tokenizer = self.tokens.tokenizer()
            tokenizer.save(target / "vocab.txt")
            tokenizer.save(target / "tokenizer.json")
            records = self.folder.records()
            counts = torch.as_tensor(self.tokens.unigram_counts)
            last: dict[str, Any] = next((r for r in reversed(records) if "held_out_loss" in r), {})
            summary = {
                **{name: value for name, value in last.items() if name.startswith("held_out")},
                "steps": self.steps,
                "tokens": self.tokens_read,
                "minutes": round(self.seconds / 60, 2),
                "cpu_minutes": round(self.cpu_seconds / 60, 2),
                "uniform_loss": round(math.log(self.tokens.vocab_size), 4),
                "unigram_loss": round(unigram_entropy(counts), 4),
                "blind_loss": round(blind_loss(counts, self.recipe.mix), 4),
                "tokens_per_second": round(self.tokens_read / self.seconds, 1),
                "share_of_matmul_peak": round(self._speed() / matmul_peak(self.dtype), 3),
            }
            text = json.dumps(summary, indent=2) + "\n"
            write_atomically(out / "result.json", text.encode())
            levels = {"unigram": summary["unigram_loss"], "blind": summary["blind_loss"]}
            draw_losses(records, levels, out / "loss.png")
        return target

    def _speed(self) -> float:
        """Floating point operations a second over the whole run, useful ones."""
        flops = 0.0
        shares = [end - start for start, end in zip([0, *self.ends], self.ends, strict=False)]
        for phase, steps in zip(self.recipe.phases, shares, strict=True):
            tokens = steps * phase.rows * phase.length
            flops += tokens * training_flops(self.config, phase.length, self.recipe.rate)
        return flops / self.seconds


def draw_losses(records: list[dict[str, Any]], levels: dict[str, float], path: Path) -> None:
    """Losses over tokens, in training and held out, with what guessing costs."""
    from bertlearn import plots

    lines = {"training": "mlm_loss", "held out": "held_out_loss"}
    found = {name: [r for r in records if key in r] for name, key in lines.items()}
    found = {name: rows for name, rows in found.items() if rows}
    plots.curves(
        {name: [r["tokens"] for r in rows] for name, rows in found.items()},
        {name: [r[lines[name]] for r in rows] for name, rows in found.items()},
        xlabel="tokens read",
        ylabel="loss (nats)",
        levels=levels,
    ).savefig(path)


class _Signals:
    """While it lasts, Ctrl-C and SIGTERM ask the run to stop after its step."""

    def __init__(self, run: _Run):
        self.run = run
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        import threading

        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.run.stop = True

    def __exit__(self, *problem: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

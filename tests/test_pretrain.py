"""Proves that a pre-training run survives what happens to long runs: it goes on after ``kill -9``
to the same losses, saves at Ctrl-C, loses no checkpoint to a full disk, writes out the batch that
broke it, refuses what does not belong to it, and learns the same in two processes as in one.

    pytest tests/test_pretrain.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bertlearn import BertForPreTraining, BertTokenizer
from bertlearn.data import corpora
from bertlearn.data.shards import TokenData, build
from bertlearn.engine import pretrain as engine
from bertlearn.engine import recipes
from bertlearn.engine.pretrain import Interrupted, Options, pretrain
from bertlearn.engine.recipes import RECIPES, Recipe
from bertlearn.engine.runs import RunError, RunFolder
from bertlearn.pretraining import Batch

STEPS = 40
# fp32, so that runs can be compared closely on processors with and without bf16.
QUIET = Options(
    save_steps=10, log_steps=1, evaluate_steps=20, progress=False, held_out_rows=16, dtype="fp32"
)
LOSSES = ("step", "mlm_loss", "pair_loss", "grad_norm", "learning_rate", "held_out_loss")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token files of 300 summaries."""
    out = tmp_path_factory.mktemp("tokens") / "data"
    build([("summaries", lambda: islice(corpora.wiki(), 300))], out, vocab_size=1000)
    return out


def losses(run: Path) -> list[tuple]:
    """What was measured, times aside."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [tuple(json.loads(line).get(name) for name in LOSSES) for line in lines]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    pretrain(data, out, RECIPES["test"], name="test", steps=STEPS, options=QUIET)
    return out


def command(data: Path, out: Path, *more: str) -> list[str]:
    settings = ("--save-steps", "10", "--log-steps", "1", "--no-progress", "--dtype", "fp32")
    start = (sys.executable, "-m", "bertlearn", "pretrain", "--data", str(data), "--out", str(out))
    return [*start, *settings, *more]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return BertForPreTraining.from_pretrained(run / "model").state_dict()


# ---------------------------------------------------------------- what a run leaves


def test_half_precision_learns_nearly_the_same(whole: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    options = dataclasses.replace(QUIET, dtype="bf16")
    pretrain(data, out, RECIPES["test"], steps=STEPS, options=options)
    rows = zip(losses(whole), losses(out), strict=True)
    pairs = [(a[1], b[1]) for a, b in rows if a[1] is not None]
    assert pairs != [(a, a) for a, _ in pairs], "bf16 was asked for, and rounds"
    assert all(b == pytest.approx(a, abs=0.05) for a, b in pairs)
    config = json.loads((out / "model" / "config.json").read_text())
    assert "attn_implementation" not in config  # a choice at run time


def test_heads_begin_at_neighbors_if_the_recipe_says_so(data: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPES["test"], neighbors=(-1,))
    out = tmp_path / "near"
    pretrain(data, out, recipe, steps=2, options=QUIET)
    assert Recipe.from_dict(json.loads((out / "run.json").read_text())["recipe"]) == recipe
    model = BertForPreTraining.from_pretrained(out / "model")
    key = model.bert.encoder.layer[0].attention.self.key.weight
    corner = key[:16, :16].detach()  # a multiple of the identity, two steps later
    assert corner.diagonal().min() > 5 * (corner - corner.diag().diag()).abs().max()


def test_a_run_goes_on_from_a_model(whole: Path, data: Path, tmp_path: Path) -> None:
    """From its weights, in its shape, not from the recipe's first steps."""
    before = weights(whole)
    pretrain(
        data,
        tmp_path / "run",
        # four layers; the model that it starts from has two
        dataclasses.replace(RECIPES["mini"], phases=RECIPES["test"].phases),
        start=whole / "model",
        steps=1,
        options=QUIET,
    )
    after = weights(tmp_path / "run")
    assert after.keys() == before.keys()
    moved = max((after[name] - before[name]).abs().max().item() for name in before)
    assert 0 < moved < 2e-3  # AdamW moves a number by about the rate in a step
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["from"] == str(whole / "model")
    assert described["recipe"]["model"]["num_hidden_layers"] == 2


@pytest.mark.parametrize("lost", ["the last checkpoint", "all checkpoints"])
def test_going_on_survives_an_interruption(
    whole: Path, data: Path, tmp_path: Path, lost: str
) -> None:
    """Without a checkpoint a resumed run begins from the model again; with one it needs that no
    longer."""
    start = tmp_path / "start"
    shutil.copytree(whole / "model", start)
    runs = [tmp_path / "once", tmp_path / "twice"]
    for run in runs:
        pretrain(data, run, RECIPES["test"], start=start, steps=20, options=QUIET)
    checkpoints = sorted((runs[1] / "checkpoints").glob("*.pt"))
    assert len(checkpoints) == 2
    for checkpoint in checkpoints[-1:] if lost == "the last checkpoint" else checkpoints:
        checkpoint.unlink()
    if lost == "the last checkpoint":
        shutil.rmtree(start)
    pretrain(data, runs[1], resume=True, options=QUIET)
    assert losses(runs[1]) == losses(runs[0])


def test_going_on_needs_the_same_pieces(whole: Path, tmp_path: Path) -> None:
    build([("summaries", lambda: islice(corpora.wiki(), 200))], tmp_path / "other", vocab_size=900)
    with pytest.raises(RunError, match="--tokenizer"):
        pretrain(
            tmp_path / "other",
            tmp_path / "run",
            RECIPES["test"],
            start=whole / "model",
            steps=1,
            options=QUIET,
        )
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_a_shape_needs_a_model(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--from"):
        pretrain(data, tmp_path / "run", RECIPES["adapt"], steps=1)
    assert not (tmp_path / "run").exists()


def test_going_on_needs_rows_that_fit(whole: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"64 positions.*phases\.0\.length=64"):
        pretrain(data, tmp_path / "run", RECIPES["adapt"], start=whole / "model", steps=1)
    assert not (tmp_path / "run").exists()


def test_a_run_learns_and_leaves_everything(whole: Path, data: Path) -> None:
    found = {path.name for path in whole.iterdir()} - {".lock"}
    assert found == {
        "run.json", "metrics.jsonl", "checkpoints", "model", "result.json", "loss.png",
    }  # fmt: skip
    result = json.loads((whole / "result.json").read_text())
    assert result["uniform_loss"] == pytest.approx(6.9078, abs=1e-4)  # ln 1000
    assert result["held_out_loss"] < result["uniform_loss"] - 0.5
    assert result["blind_loss"] < result["unigram_loss"] < result["uniform_loss"]
    assert result["held_out_mask_loss"] > result["held_out_loss"]  # nothing to copy
    assert result["steps"] == STEPS
    assert 0 < result["share_of_matmul_peak"] < 1
    assert len(list((whole / "checkpoints").iterdir())) == 2
    record = json.loads((whole / "run.json").read_text())
    assert record["data"]["fingerprint"] == TokenData(data).fingerprint
    assert [row[0] for row in losses(whole) if row[1] is not None] == list(range(1, STEPS + 1))
    # the second phase judges pairs, the first does not
    pairs = [row[2] is not None for row in losses(whole) if row[1] is not None]
    assert pairs == [False] * (STEPS // 2) + [True] * (STEPS // 2)


def test_transformers_loads_the_result(whole: Path) -> None:
    ours = BertForPreTraining.from_pretrained(whole / "model")
    theirs, report = transformers.BertForPreTraining.from_pretrained(
        whole / "model", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids = torch.randint(5, 1000, (2, 20), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        ours(ids).prediction_logits, theirs.eval()(ids).prediction_logits, atol=1e-5
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(whole / "model")
    text = "The river Rhine, 河流。"
    assert (
        tokenizer(text).input_ids
        == BertTokenizer.from_file(whole / "model/vocab.txt").encode(text).ids
    )


def test_tensorboard_reads_the_curves(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "watched"
    options = dataclasses.replace(QUIET, tensorboard=True)
    pretrain(data, out, RECIPES["test"], steps=6, options=options)
    events = EventAccumulator(str(out / "events"))
    events.Reload()
    shown = [event.value for event in events.Scalars("mlm_loss")]
    noted = [row[1] for row in losses(out) if row[1] is not None]
    assert shown == pytest.approx(noted, abs=1e-5)


# ---------------------------------------------------------------- interruptions


def test_after_kill_9_it_goes_on_to_the_same_losses(
    whole: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(data, out, "--config", "test", "--steps", str(STEPS)), env=ENVIRONMENT
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("checkpoints/step-*.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
        assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    process.wait()
    (out / "checkpoints" / ".step-00000099.pt.half").write_bytes(b"half a checkpoint")
    with (out / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 9')  # half a line
    pretrain(data, out, resume=True, options=QUIET)
    held = len(LOSSES) - 1  # the command evaluates at other steps than the fixture does
    assert [row[:held] for row in losses(out) if row[1] is not None] == [
        row[:held] for row in losses(whole) if row[1] is not None
    ]
    for name, weight in weights(out).items():
        assert torch.equal(weight, weights(whole)[name]), name


def test_ctrl_c_saves_and_says_how_to_go_on(whole: Path, data: Path, tmp_path: Path) -> None:
    class Impatient(engine._Run):
        def step(self, *arguments: Any) -> Any:
            if self.done == 24:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(*arguments)

    out = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_Run", Impatient)
        with pytest.raises(Interrupted, match="step 25 of 40, and saved: go on with --resume"):
            pretrain(data, out, RECIPES["test"], name="test", steps=STEPS, options=QUIET)
    assert (out / "checkpoints" / "step-00000025.pt").is_file()
    pretrain(data, out, resume=True, options=QUIET)
    assert losses(out) == losses(whole)


def test_dropout_too_goes_on_as_it_would_have(data: Path, tmp_path: Path) -> None:
    recipe = recipes.change(RECIPES["test"], ["hidden_dropout_prob=0.1", "whole_words=true"])
    through, halves = tmp_path / "through", tmp_path / "halves"
    pretrain(data, through, recipe, steps=12, options=QUIET)

    class Impatient(engine._Run):
        def step(self, *arguments: Any) -> Any:
            self.stop = self.done == 4
            return super().step(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(engine, "_Run", Impatient)
        pretrain(data, halves, recipe, steps=12, options=QUIET)
    pretrain(data, halves, resume=True, options=QUIET)
    assert losses(halves) == losses(through)


def test_a_full_disk_loses_no_checkpoint(data: Path, tmp_path: Path) -> None:
    """A file may not grow over 1 MB here, which stops a checkpoint half way."""
    out = tmp_path / "full"
    pretrain(data, out, RECIPES["test"], steps=4, options=QUIET)
    kept = sorted(path.name for path in out.glob("checkpoints/*.pt"))
    state = torch.load(out / "checkpoints" / kept[-1], weights_only=True)
    script = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from bertlearn.engine.runs import RunFolder\n"
        "folder = RunFolder(sys.argv[1], resume=True)\n"
        "state = folder.load()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "folder.save(41, state)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert "RunError: no room for step-00000041.pt" in done.stderr
    assert "nothing that was there is lost" in done.stderr.replace("\n", " ")
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == kept
    again = torch.load(out / "checkpoints" / kept[-1], weights_only=True)
    assert torch.equal(again["random"][0], state["random"][0])


def test_a_loss_that_is_not_finite_stops_and_leaves_the_batch(data: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPES["test"], learning_rate=1e30, warmup=0.01)
    out = tmp_path / "broken"
    with pytest.raises(RunError, match=r"The batch is in bad-batch-\d+\.pt"):
        pretrain(data, out, recipe, steps=STEPS, options=QUIET)
    (left,) = out.glob("bad-batch-*.pt")
    batch = Batch(**torch.load(left, weights_only=True)["batch"])
    assert batch.targets > 0
    for path in out.glob("checkpoints/*.pt"):
        state = torch.load(path, weights_only=True)
        assert all(torch.isfinite(weight).all() for weight in state["model"].values())


# ---------------------------------------------------------------- several processes


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(whole: Path, data: Path, tmp_path: Path) -> None:
    """Each reads half of the rows; so one process with the doubled batch is the fixture's run."""
    out = tmp_path / "two"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    asked = command(data, out, "--config", "test", "--steps", str(STEPS))[1:]
    done = subprocess.run(launch + asked, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = ([row for row in losses(run) if row[1] is not None] for run in (whole, out))
    assert len(one) == len(two) == STEPS
    for a, b in zip(one, two, strict=True):
        assert b[1] == pytest.approx(a[1], abs=2e-5)
        assert b[3] == pytest.approx(a[3], rel=2e-3)  # the norm of the gradient
    for name, weight in weights(out).items():
        assert torch.allclose(weight, weights(whole)[name], atol=1e-4), name


@pytest.mark.slow
def test_sharded_weights_learn_the_same(whole: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "sharded"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    asked = command(data, out, "--config", "test", "--steps", str(STEPS), "--fsdp")[1:]
    done = subprocess.run(launch + asked, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = ([row for row in losses(run) if row[1] is not None] for run in (whole, out))
    for a, b in zip(one, two, strict=True):
        assert b[1] == pytest.approx(a[1], abs=1e-4)


# ---------------------------------------------------------------- what does not belong


def test_a_folder_with_a_run_is_not_begun_again(whole: Path, data: Path) -> None:
    with pytest.raises(RunError, match="holds a run already: go on with --resume"):
        pretrain(data, whole, RECIPES["test"], steps=5, options=QUIET)


def test_nothing_to_resume(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run in .* to resume"):
        pretrain(data, tmp_path / "empty", resume=True, options=QUIET)


def test_a_folder_in_use_is_left_alone(data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "busy")
    try:
        script = "import sys; from bertlearn.engine.runs import RunFolder; RunFolder(sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "busy")], capture_output=True, text=True
        )
        assert "in use by another process" in done.stderr
    finally:
        folder.close()


def test_resuming_with_other_data_is_refused(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    build([("others", lambda: islice(corpora.wiki(), 300, 400))], other, vocab_size=1000)
    with pytest.raises(RunError, match="begun with other data"):
        pretrain(other, whole, resume=True, options=QUIET)


def test_resuming_with_another_recipe_is_refused(whole: Path, data: Path) -> None:
    with pytest.raises(RunError, match="begun with the recipe 'test', which differs from 'mini'"):
        pretrain(data, whole, RECIPES["mini"], name="mini", resume=True, options=QUIET)


def test_a_checkpoint_of_another_config_is_refused(whole: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed"
    wider = recipes.change(RECIPES["test"], ["hidden_size=128"])
    pretrain(data, out, wider, steps=4, options=QUIET)
    for path in out.glob("checkpoints/*.pt"):
        path.unlink()
    source = next((whole / "checkpoints").glob("*.pt"))
    (out / "checkpoints" / source.name).write_bytes(source.read_bytes())
    with pytest.raises(RunError, match="of another config than run.json"):
        pretrain(data, out, resume=True, options=QUIET)


def test_a_damaged_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "damaged"
    pretrain(data, out, RECIPES["test"], steps=4, options=QUIET)
    last = sorted((out / "checkpoints").glob("*.pt"))[-1]
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(RunError, match=f"{last.name} is damaged"):
        pretrain(data, out, resume=True, options=QUIET)


def test_a_batch_larger_than_the_corpus_is_refused(data: Path, tmp_path: Path) -> None:
    recipe = recipes.change(RECIPES["test"], ["phases.0.rows=100000"])
    with pytest.raises(ValueError, match="does not fill one batch of 100000 rows"):
        pretrain(data, tmp_path / "greedy", recipe, steps=4, options=QUIET)


# ---------------------------------------------------------------- minutes, recipes


def test_minutes_become_steps_that_are_kept(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "timed"
    pretrain(data, out, RECIPES["test"], minutes=0.02, options=QUIET)
    steps = json.loads((out / "run.json").read_text())["steps"]
    assert steps >= 2
    assert json.loads((out / "result.json").read_text())["steps"] == steps


def test_recipes_survive_the_way_through_json() -> None:
    for recipe in RECIPES.values():
        assert recipes.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_settings_change_recipes_and_nothing_else() -> None:
    changed = recipes.change(
        RECIPES["mini"], ["learning_rate=3e-4", "initializer_range=0.05", "phases.1.rows=64"]
    )
    assert changed.learning_rate == 3e-4
    assert changed.config(100).initializer_range == 0.05
    assert changed.phases[1].rows == 64
    for wrong in ("learning_rat=1", "phases.7.rows=1", "rows", "phases.0.shape=1"):
        with pytest.raises(ValueError, match="changes nothing that a recipe has"):
            recipes.change(RECIPES["mini"], [wrong])
    with pytest.raises(ValueError, match="do not make a recipe"):
        recipes.change(RECIPES["mini"], ["hidden_size=0"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "huge", "--steps", "5"], "there is no recipe 'huge'"),
        (["--config", "test"], "say either --steps or --minutes"),
        (["--steps", "5"], "choose a recipe with --config"),
        (["--resume", "--steps", "5"], "has its steps already"),
        (["--resume", "--from", "bertlearn-mini-en"], "has its weights already"),
        (["--config", "adapt", "--steps", "5"], "name a model to go on from"),
        (["--config", "test", "--steps", "0"], "steps must be at least 1"),
        (["--config", "test", "--minutes", "-1"], "minutes must be more than 0"),
        (["--config", "test", "--steps", "5", "--dtype", "int8"], "--dtype must be"),
    ],
)
def test_the_command_explains_what_is_missing(
    data: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    from typer.testing import CliRunner

    from bertlearn.cli import app

    start = ["pretrain", "--data", str(data), "--out", str(tmp_path / "x"), "--no-progress"]
    result = CliRunner().invoke(app, start + arguments)
    assert result.exit_code != 0
    assert message in " ".join((result.output + str(result.exception)).replace("│", " ").split())

"""The recorded runs of fine-tuning: each is one command, and one file of what came out.

    python book/records/finetuning/make.py                 # lists them, and which are there
    python book/records/finetuning/make.py NAME...         # makes those that are not there

A record is the run's result.json with the log lines that matter: the scores after each epoch, and
twenty losses of each seed. The weights are thrown away. The times are of the machine that the
record names, one thread a run; others ran beside it, so they are upper bounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from sklearn.linear_model import LogisticRegression

from bertlearn import BertModel
from bertlearn.checkpoints import find_directory
from bertlearn.data.tasks import load_task
from bertlearn.engine.fill import tokenizer_of
from bertlearn.finetuning import text_rows, text_vectors

FOLDER = Path(__file__).resolve().parent

_FILMS, _REVIEWS, _NAMES = "--task rotten-tomatoes", "--task reviews-zh", "--task pfr-ner"
_PAIRS, _ASKED = "--task wiki-pairs --examples 2000", "--task wiki-qa --examples 3000"
_MINI_EN, _MINI_ZH = "--model bertlearn-mini-en", "--model bertlearn-mini-zh"
_NEW_EN, _NEW_ZH = "--model scratch:bertlearn-mini-en", "--model scratch:bertlearn-mini-zh"
_MINI, _QUIET = "--rate 2e-4", "--no-baselines"

# By the number of labels: at least 300 steps each, and three seeds, each with its own draw.
_BY_LABELS = {
    "100": "--examples 100 --size 4 --epochs 12",
    "500": "--examples 500 --size 16 --epochs 10",
    "2000": "--examples 2000 --epochs 5",
}
# Better on validation, with all labels, than 5e-5 without decay: see films-minilm-5e-5.
_CHOSEN = "--rate 1e-4 --layer-decay 0.85"
_WHO = {
    "minilm": "--model minilm",
    "mini": f"{_MINI_EN} {_MINI}",
    "scratch": f"{_NEW_EN} {_MINI}",
}

# What is run before the command; TEMP is a folder that is thrown away.
BEFORE: dict[str, tuple[str, ...]] = {
    "reviews-read": (
        "data build --source reviews --tokenizer bertlearn-mini-zh --out TEMP/data",
        "pretrain --data TEMP/data --from bertlearn-mini-zh --config adapt --steps 2500 "
        "--out TEMP/run --no-progress",
    ),
}

COMMANDS: dict[str, str] = {
    **{
        f"films-{who}-{n}": f"{_FILMS} {model} --seeds 3 {how} {_QUIET}"
        for n, how in _BY_LABELS.items()
        for who, model in _WHO.items()
    },
    "films-minilm-all": f"{_FILMS} --model minilm --seeds 3 --epochs 3 {_CHOSEN} {_QUIET}",
    "films-minilm-5e-5": f"{_FILMS} --model minilm --seeds 3",
    "films-mini-all": f"{_FILMS} {_MINI_EN} {_MINI} --epochs 3 {_QUIET}",
    "films-scratch-all": f"{_FILMS} {_NEW_EN} {_MINI} --epochs 3 {_QUIET}",
    **{
        f"films-tfidf-{n}": f"{_FILMS} --model baselines --seeds 3 --examples {n}"
        for n in _BY_LABELS
    },
    "films-tfidf-all": f"{_FILMS} --model baselines",
    # Chinese.
    "reviews-mini": f"{_REVIEWS} {_MINI_ZH} {_MINI} --epochs 4",
    "reviews-scratch": f"{_REVIEWS} {_NEW_ZH} {_MINI} --epochs 2 {_QUIET}",
    # The mini after five more readings of the training reviews, without their labels.
    "reviews-read": f"{_REVIEWS} --model TEMP/run/model {_MINI} --epochs 4 --seeds 2 {_QUIET}",
    # The rate is the best on validation of 2e-4, 5e-4 and 1e-3 (the mini, 3,000 sentences, one
    # seed); scratch was not searched for one.
    "names-mini": f"{_NAMES} {_MINI_ZH} --rate 1e-3",
    "names-scratch": f"{_NAMES} {_NEW_ZH} --rate 1e-3 {_QUIET}",
    "names-mini-3000": f"{_NAMES} {_MINI_ZH} --rate 1e-3 --examples 3000 {_QUIET}",
    "names-scratch-3000": f"{_NAMES} {_NEW_ZH} --rate 1e-3 --examples 3000 {_QUIET}",
    # Pairs and questions.
    "pairs-minilm": f"{_PAIRS} --model minilm",
    "pairs-mini": f"{_PAIRS} {_MINI_EN} {_MINI} {_QUIET}",
    "questions-minilm": f"{_ASKED} --model minilm --rate 1e-4 --epochs 2",
}


VECTORS = "films-vectors"  # a record without a command: see `vectors`


def make(name: str) -> None:
    """Run a command and keep what came out."""
    target = FOLDER / f"{name}.json"
    if target.exists():
        print(f"{name} is there")
        return
    if name == VECTORS:
        target.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as temp:
        for command in BEFORE.get(name, ()):
            _run(command.replace("TEMP", temp))
        out = Path(temp) / name
        _run(f"finetune {COMMANDS[name].replace('TEMP', temp)} --out {out} --no-progress")
        keep(name, out, Path(temp) / "run" / "metrics.jsonl")


def _run(command: str) -> None:
    subprocess.run([sys.executable, "-m", "bertlearn", *command.split()], check=True)


def keep(name: str, out: Path, read: Path) -> None:
    """Write the record of a run that is in a folder, with the losses of reading before it, if it
    has read."""
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    shown = f"bertlearn finetune {COMMANDS[name]} --out RUN"
    record: dict = {"command": shown}
    if name in BEFORE:
        record["before"] = [f"bertlearn {command}" for command in BEFORE[name]]
        result["model"] = "TEMP/run/model"
        fields = ("step", "held_out_loss", "held_out_top1")
        each = [line for line in _lines(read) if "held_out_loss" in line]
        record["read"] = [[line[field] for field in fields] for line in each]
    record |= {**result, "log": thinned(_lines(out / "metrics.jsonl"))}
    rows = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in record.items())
    (FOLDER / f"{name}.json").write_text("{\n" + rows + "\n}\n", encoding="utf-8")


def _lines(path: Path) -> list[dict]:
    """What a run has measured; baselines alone measure nothing on the way."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def vectors() -> dict:
    """MiniLM as it is: the mean of a text's token vectors, and logistic regression on it.

    The draws are those of the runs with as many labels.
    """
    task = load_task("rotten-tomatoes")
    tokenizer = tokenizer_of(find_directory("minilm"))
    model = BertModel.from_pretrained("minilm", attention_probs_dropout_prob=0.0)

    def read(records: list) -> dict:
        rows = text_rows(tokenizer, [record.text for record in records])
        found = text_vectors(model, rows, tokenizer.token_to_id("[PAD]")).numpy()
        return {record.id: vector for record, vector in zip(records, found, strict=True)}

    seen = read([*task.train, *task.valid, *task.test])
    accuracy: dict[str, dict] = {"valid": {}, "test": {}}
    for count in (*map(int, _BY_LABELS), len(task.train)):
        whole = count == len(task.train)
        each: dict[str, list[float]] = {"valid": [], "test": []}
        for seed in range(1 if whole else 3):
            drawn = task.train if whole else task.with_examples(count, seed).train
            head = LogisticRegression(C=1.0, max_iter=1000)
            head.fit([seen[r.id] for r in drawn], [r.label for r in drawn])
            for split, scores in each.items():
                records = getattr(task, split)
                score = head.score([seen[r.id] for r in records], [r.label for r in records])
                scores.append(round(float(score), 4))
        for split, scores in each.items():
            accuracy[split][str(count)] = scores
    return {"command": f"python book/records/finetuning/make.py {VECTORS}", "accuracy": accuracy}


def thinned(log: list[dict]) -> list[dict]:
    """Every score, and about twenty losses of each seed, of its last try if there were two."""
    log = list({(line["seed"], line.get("step"), "loss" in line): line for line in log}.values())
    kept = [line for line in log if "epoch_valid" in line]
    for seed in sorted({line["seed"] for line in log}):
        losses = [line for line in log if "loss" in line and line["seed"] == seed]
        kept += losses[:: max(1, len(losses) // 20)]
    return sorted(kept, key=lambda line: (line["seed"], line["step"]))


if __name__ == "__main__":
    for each in sys.argv[1:]:
        make(each)
    if not sys.argv[1:]:
        shown = {name: f"bertlearn finetune {command}" for name, command in COMMANDS.items()}
        for name, command in {**shown, VECTORS: "(logistic regression, no command)"}.items():
            there = "there" if (FOLDER / f"{name}.json").exists() else "-"
            print(f"{name:<22}{there:<7}{command}")

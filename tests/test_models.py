"""Proves that the models that ship with the package are what their cards say: they load by name and
in transformers, their logs are whole, and they fill blanks better than frequencies do.

    pytest tests/test_models.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bertlearn import BertForPreTraining, BertTokenizer
from bertlearn.checkpoints import find_directory, shipped_models
from bertlearn.cli import app
from bertlearn.engine import shipping
from bertlearn.engine.fill import fill_blanks
from bertlearn.engine.recipes import RECIPES, Recipe

NAMES = ["bertlearn-mini-en", "bertlearn-mini-zh"]


def read(name: str, file: str) -> dict:
    return json.loads((find_directory(name) / file).read_text(encoding="utf-8"))


def test_these_models_ship() -> None:
    assert shipped_models() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_whole_and_small(name: str) -> None:
    folder = find_directory(name)
    found = {path.name for path in folder.iterdir()}
    assert found == {
        "README.md", "config.json", "metrics.jsonl", "model.safetensors", "result.json",
        "run.json", "tokenizer.json", "vocab.txt",
    }  # fmt: skip
    assert (folder / "model.safetensors").stat().st_size < 16e6


@pytest.mark.parametrize("name", NAMES)
def test_the_log_leads_to_the_result(name: str) -> None:
    lines = (find_directory(name) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    run, result = read(name, "run.json"), read(name, "result.json")
    assert records[-1]["step"] == run["steps"] == result["steps"]
    assert [r["step"] for r in records] == sorted(r["step"] for r in records)
    judged = [r for r in records if "held_out_loss" in r]
    assert judged[-1]["held_out_mask_loss"] == result["held_out_mask_loss"]
    assert judged[-1]["tokens"] == result["tokens"]
    assert result["minutes"] <= 60
    assert Recipe.from_dict(run["recipe"]) == RECIPES["mini"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_better_than_frequencies_and_the_card_says_how_much(name: str) -> None:
    result, card = (
        read(name, "result.json"),
        (find_directory(name) / "README.md").read_text("utf-8"),
    )
    assert result["held_out_mask_loss"] < result["unigram_loss"] - 2
    assert result["held_out_mask_top1"] > 0.25
    rows = re.findall(r"\| ([\d.]+) \| ([\d.]+)% \| ([\d.]+)% \|", card)
    (ours, top1, top5), (unigram, first, five) = [[float(x) for x in row] for row in rows]
    assert ours < unigram - 2 and top1 > 3 * first and top5 > 1.5 * five
    for said in ("bertlearn pretrain", "revision", "Seed", "CC BY-SA" if name[-2:] == "en" else ""):
        assert said in card
    assert f"{result['tokens']:,}" in card and f"{result['steps']:,}" in card


@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_it_alike(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = find_directory(name)
    ours = BertForPreTraining.from_pretrained(name)
    theirs, report = transformers.BertForPreTraining.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    text = (
        "The president of the United States." if name[-2:] == "en" else "违反本法规定的，处罚款。"
    )
    ids = torch.tensor([BertTokenizer.from_file(folder / "vocab.txt").encode(text).ids])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer(text).input_ids == ids[0].tolist()
    with torch.no_grad():
        mine, yours = ours(ids), theirs.eval()(ids)
    torch.testing.assert_close(
        mine.prediction_logits, yours.prediction_logits, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        mine.seq_relationship_logits, yours.seq_relationship_logits, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("The president of the United [MASK].", "states"),
        ("It is one [MASK] the largest cities in Europe.", "of"),
        ("违反本法规定的，依法追究刑事责[MASK]。", "任"),
        ("中华人[MASK]共和国", "民"),
    ],
)
def test_blanks_with_one_right_answer(text: str, word: str) -> None:
    assert fill_blanks(text, top=1)[0][0][0] == word


def test_fill_chooses_the_model_by_the_language() -> None:
    done = CliRunner().invoke(app, ["fill", "The [MASK] of the United States", "--top", "3"])
    assert done.exit_code == 0
    assert len(re.findall(r"\w+ 0\.\d{3}", done.stdout)) == 3


def test_shipping_makes_the_folder_again(tmp_path: Path) -> None:
    """From a run to a folder: here from the shipped folder's own files, with other token files."""
    from itertools import islice

    from bertlearn.data import corpora
    from bertlearn.data.shards import build

    source = find_directory("bertlearn-mini-en")
    run = tmp_path / "run"
    BertForPreTraining.from_pretrained(source).save_pretrained(run / "model")
    for file in ("vocab.txt", "tokenizer.json"):
        (run / "model" / file).write_bytes((source / file).read_bytes())
    for file in ("run.json", "result.json", "metrics.jsonl"):
        (run / file).write_bytes((source / file).read_bytes())
    data = tmp_path / "data"
    build([("wiki", lambda: islice(corpora.wiki(), 1500))], data, tokenizer=source / "vocab.txt")
    made = shipping.ship(run, data, "bertlearn-mini-en", "0000000", tmp_path / "made")
    weights = (made / "model.safetensors").read_bytes()
    assert weights == (source / "model.safetensors").read_bytes()
    assert "revision 0000000" in (made / "README.md").read_text("utf-8")

"""Proves that blanks are filled with the words that the model scores highest, as probabilities.

pytest tests/test_fill.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bertlearn import BertConfig, BertForMaskedLM, BertModel, BertTokenizer
from bertlearn.checkpoints import CheckpointError
from bertlearn.cli import app
from bertlearn.engine.fill import fill_blanks

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "river", "bank", "loan", "河", "流"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that, whatever it reads, finds "bank" most probable and [SEP] even more so."""
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
        )
    )
    with torch.no_grad():
        model.cls.predictions.bias[WORDS.index("[SEP]")] = 9.0
        model.cls.predictions.bias[WORDS.index("bank")] = 6.0
        model.cls.predictions.bias[WORDS.index("河")] = 5.0
    out = tmp_path_factory.mktemp("model")
    model.save_pretrained(out)
    BertTokenizer(WORDS).save(out / "vocab.txt")
    return out


def test_each_blank_gets_its_words(folder: Path) -> None:
    found = fill_blanks("the [MASK] of the [MASK]", folder, top=3)
    assert len(found) == 2
    for words in found:
        assert [word for word, _ in words[:2]] == ["bank", "河"]
        shares = [share for _, share in words]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1


def test_special_tokens_are_never_offered_and_all_words_may_be(folder: Path) -> None:
    (words,) = fill_blanks("[MASK]", folder, top=100)
    assert {word for word, _ in words} == set(WORDS[5:])
    assert sum(share for _, share in words) == pytest.approx(1, abs=1e-5)


def test_probabilities_are_those_of_the_model(folder: Path) -> None:
    model = BertForMaskedLM.from_pretrained(folder)
    ids = torch.tensor([[2, WORDS.index("the"), 4, WORDS.index("river"), 3]])
    scores = model(ids).logits[0, 2, 5:].softmax(dim=-1)
    (words,) = fill_blanks("The [MASK] river", folder, top=6)
    for word, share in words:
        assert share == pytest.approx(float(scores[WORDS.index(word) - 5]), abs=1e-6)


def test_the_command(folder: Path) -> None:
    result = CliRunner().invoke(app, ["fill", "the [MASK]", "--model", str(folder), "--top", "2"])
    assert result.exit_code == 0
    assert result.output.split()[0] == "bank"


def test_a_text_without_a_blank_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no \[MASK\]: write it where a word is missing"):
        fill_blanks("the river", folder)


def test_a_model_without_the_head_is_refused(folder: Path, tmp_path: Path) -> None:
    BertModel.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match="cannot fill blanks"):
        fill_blanks("the [MASK]", tmp_path)


def test_a_model_without_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    BertForMaskedLM.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no vocab.txt"):
        fill_blanks("the [MASK]", tmp_path)

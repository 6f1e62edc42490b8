"""Fill blanks with a trained model (``bertlearn fill``)."""

from __future__ import annotations

from pathlib import Path

import torch

from bertlearn.checkpoints import CheckpointError, find_directory, shipped_models
from bertlearn.model import BertForMaskedLM
from bertlearn.tokenization import SPECIALS, BertTokenizer, is_chinese

__all__ = ["fill_blanks", "load_for_filling", "tokenizer_of", "vocabulary_of"]


def load_for_filling(model: str | Path) -> tuple[BertForMaskedLM, BertTokenizer]:
    """A model with its tokenizer.

    Args:
        model: the name of a model that ships with the package, or a folder with weights and a
            ``vocab.txt`` or ``tokenizer.json``.

    Raises:
        CheckpointError: if there is no such model, or it has no head for words.
        FileNotFoundError: if it has no vocabulary.
    """
    folder = find_directory(model)
    found = BertForMaskedLM.from_pretrained(folder)
    report = found.load_report
    if report and any("predictions" in name for name in report.missing):
        raise CheckpointError(
            f"{model} has no head that scores words: it cannot fill blanks. Use a model that was "
            f"pre-trained with one, such as one that `bertlearn pretrain` has written"
        )
    return found, tokenizer_of(folder)


def tokenizer_of(folder: Path) -> BertTokenizer:
    """The tokenizer of a model's folder.

    Raises:
        FileNotFoundError: if it has no vocabulary.
    """
    return BertTokenizer.from_file(vocabulary_of(folder))


def vocabulary_of(folder: Path) -> Path:
    """The file with the vocabulary of a model's folder.

    Raises:
        FileNotFoundError: if it has none.
    """
    for name in ("tokenizer.json", "vocab.txt"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"there is no vocab.txt or tokenizer.json in {folder}")


@torch.no_grad()
def fill_blanks(
    text: str, model: str | Path | None = None, top: int = 5
) -> list[list[tuple[str, float]]]:
    """The most probable words for each [MASK], all blanks at once.

    Args:
        text: one text with one or more ``[MASK]``.
        model: see ``load_for_filling``; None takes the one that ships with
            the package for the language of the text, if there is one.
        top: how many words.

    Returns:
        for each blank its words with their probabilities, the best first. Special tokens are
        left out.

    Raises:
        ValueError: if the text has no [MASK], or more tokens than the model has positions.
    """
    if "[MASK]" not in text:
        raise ValueError("the text has no [MASK]: write it where a word is missing")
    if model is None:
        model = "bertlearn-mini-zh" if any(map(is_chinese, text)) else "bertlearn-mini-en"
        if model not in shipped_models():
            raise ValueError(
                "name a model with --model: a folder that `bertlearn pretrain` has written, "
                "RUN/model, or any Hugging Face directory with a BERT for masked words"
            )
    bert, tokenizer = load_for_filling(model)
    encoding = tokenizer.encode(text)
    ids = torch.tensor([encoding.ids])
    scores = bert(ids).logits[0, [token == "[MASK]" for token in encoding.tokens]]
    special = [tokenizer.vocab[t] for t in SPECIALS]
    scores[:, special] = -torch.inf
    shares, words = scores.softmax(dim=-1).topk(min(top, scores.shape[-1] - len(special)))
    pieces = {index: piece for piece, index in tokenizer.vocab.items()}
    return [
        [(pieces[int(w)], float(p)) for p, w in zip(p_row, w_row, strict=True)]
        for p_row, w_row in zip(shares, words, strict=True)
    ]

"""Recipes: the size of a model and how it is pre-trained, under a name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlearn.config import BertConfig

__all__ = ["RECIPES", "Phase", "Recipe", "change", "find_recipe"]


@dataclass(frozen=True)
class Phase:
    """A stretch of the run with rows of one kind.

    Attributes:
        share: of all steps.
        length: tokens of a row, at most.
        rows: rows of a step, over all processes and micro-batches together.
        objective: ``"mlm"`` (packed rows), ``"nsp"`` or ``"sop"`` (pairs).
    """

    share: float
    length: int
    rows: int
    objective: str = "mlm"


@dataclass(frozen=True)
class Recipe:
    """How to pre-train.

    Attributes:
        model: fields of ``BertConfig``; the vocabulary's size comes with the data. Empty: those of
            the model that the run goes on from.
        phases: one after the other; their shares sum to 1.
        learning_rate: the peak.
        warmup: share of all steps.
        betas, eps, weight_decay: of AdamW.
        max_norm: of all gradients together.
        rate: share of the tokens to ask for.
        mix: shares of [MASK], random word, unchanged.
        whole_words: ask for whole words.
        from_frequencies: start with the logarithms of frequencies as output bias.
        neighbors: offsets at which heads of the first layer begin to look; empty: nowhere.
        tokens_at_once: tokens of a micro-batch; a step with more is accumulated.
    """

    model: dict[str, Any]
    phases: tuple[Phase, ...]
    learning_rate: float = 1e-3
    warmup: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01
    max_norm: float = 1.0
    rate: float = 0.15
    mix: tuple[float, float, float] = (0.8, 0.1, 0.1)
    whole_words: bool = False
    from_frequencies: bool = True
    neighbors: tuple[int, ...] = ()
    tokens_at_once: int = 4096

    def __post_init__(self) -> None:
        if not self.phases or abs(sum(phase.share for phase in self.phases) - 1) > 1e-6:
            raise ValueError("the shares of a recipe's phases must sum to 1")

    def config(self, vocab_size: int) -> BertConfig:
        """The model's config for a vocabulary."""
        return BertConfig(vocab_size=vocab_size, **self.model)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for ``run.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Recipe:
        """The inverse of ``to_dict``."""
        changed: dict[str, Any] = {"phases": tuple(Phase(**phase) for phase in fields["phases"])}
        for name in ("betas", "mix", "neighbors"):  # lists in JSON
            if name in fields:
                changed[name] = tuple(fields[name])
        return cls(**{**fields, **changed})


def _size(layers: int, hidden: int, positions: int = 128, dropout: float = 0.0) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": positions,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


RECIPES: dict[str, Recipe] = {
    # For tests and first steps: seconds.
    "test": Recipe(
        model=_size(2, 64, positions=64),
        phases=(Phase(0.5, 16, 16), Phase(0.5, 32, 8, "nsp")),
    ),
    # The book's own: found by search, see chapter 08.
    "mini": Recipe(
        model=_size(4, 256),
        phases=(Phase(0.6, 128, 16), Phase(0.4, 128, 32, "sop")),
        learning_rate=1.5e-3,
        warmup=0.05,
        rate=0.3,
        neighbors=(-1, 1, -2, 2),
    ),
    # To go on from a model (--from) with texts of a field: that model's shape, blanks alone.
    "adapt": Recipe(model={}, phases=(Phase(1.0, 128, 16),), learning_rate=5e-4, rate=0.3),
    # The paper's, for those who have the machines: 1 M steps, 90 % of them at 128 tokens.
    "base": Recipe(
        model=_size(12, 768, positions=512, dropout=0.1),
        phases=(Phase(0.9, 128, 256, "nsp"), Phase(0.1, 512, 256, "nsp")),
        learning_rate=1e-4,
        warmup=0.01,
        betas=(0.9, 0.999),
        from_frequencies=False,
        tokens_at_once=1 << 15,
    ),
}


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or from a JSON file as ``run.json`` holds it.

    Raises:
        ValueError: if there is no such recipe, or the file is not one.
    """
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"there is no recipe {name!r}: choose {', '.join(RECIPES)}, or a file")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Recipe.from_dict(fields.get("recipe", fields))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{name} is not a recipe: {error}") from None


def change(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """A recipe with fields changed, each as ``name=value`` with the value in JSON.

    A field of the model goes by its own name (``initializer_range=0.05``), one of a phase by its
    number (``phases.0.rows=64``).

    Raises:
        ValueError: for a name that neither recipe nor model has, or a value that does not fit.
    """
    fields = recipe.to_dict()
    model_fields = {field.name for field in dataclasses.fields(BertConfig)}
    for setting in settings:
        name, sign, text = setting.partition("=")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *path, last = name.split(".")
        place: Any = fields
        if not path and last in model_fields:
            place = fields["model"]
        try:
            for step in path:
                place = place[int(step)] if step.isdigit() else place[step]
            known = last in place or place is fields["model"]
        except (KeyError, IndexError, TypeError, ValueError):
            known = False
        if not sign or not known:
            raise ValueError(
                f"{setting!r} changes nothing that a recipe has: write name=value, as in "
                f"learning_rate=1e-3 or phases.0.rows=64"
            )
        place[last] = value
    try:
        changed = Recipe.from_dict(fields)
        changed.config(1 << 15)
        return changed
    except (TypeError, ValueError) as error:
        raise ValueError(f"{', '.join(settings)} do not make a recipe: {error}") from None

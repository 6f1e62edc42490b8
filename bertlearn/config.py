"""The sizes and switches of a BERT, in one immutable object. Built in chapter 03."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

__all__ = ["PRESETS", "BertConfig"]


@dataclass(frozen=True)
class BertConfig:
    """Everything that fixes the shape of a BERT (Devlin et al. 2019, section 3).

    Field names are those of a Hugging Face ``config.json``; the defaults are BERT-base, uncased.
    Sizes count numbers (not bytes), probabilities lie in [0, 1).

    Raises:
        ValueError: at construction, if a size is not a positive whole number, if the heads do not
            divide ``hidden_size``, if a probability is outside [0, 1), or if a name is unknown.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"  # "gelu" (exact, erf), "gelu_new" (tanh), "relu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    position_embedding_type: str = "absolute"  # learned, or "sinusoidal"
    attn_implementation: str = "sdpa"  # torch's fused operator, or "eager"

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} does not divide into "
                f"{self.num_attention_heads} heads: choose num_attention_heads among its divisors"
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)!r}")
        for name in ("layer_norm_eps", "initializer_range"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)!r}")
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id {self.pad_token_id} is not in the vocabulary of {self.vocab_size}"
            )
        for name, known in (
            ("hidden_act", ("gelu", "gelu_new", "relu")),
            ("position_embedding_type", ("absolute", "sinusoidal")),
            ("attn_implementation", ("sdpa", "eager")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, not {getattr(self, name)!r}")

    @property
    def head_size(self) -> int:
        """The width of one attention head, ``hidden_size / num_attention_heads``."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def preset(cls, name: str, **changes: Any) -> BertConfig:
        """A published size by name (see ``PRESETS``), with fields changed on request."""
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}: choose one of {sorted(PRESETS)}")
        return cls(**{**PRESETS[name], **changes})

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> BertConfig:
        """From a parsed ``config.json``; fields that BERT's shape does not need are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dictionary, ready for ``config.json``."""
        return dataclasses.asdict(self)


# The rule of all published sizes: heads of width 64, a feed-forward layer of 4 x hidden.
PRESETS: dict[str, dict[str, Any]] = {
    name: {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
    }
    for name, layers, hidden, vocab in (
        ("tiny", 2, 128, 30522),
        ("mini", 4, 256, 30522),
        ("small", 4, 512, 30522),
        ("medium", 8, 512, 30522),
        ("base", 12, 768, 30522),
        ("large", 24, 1024, 30522),
        ("chinese", 12, 768, 21128),
    )
}

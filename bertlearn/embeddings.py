"""From token ids to vectors: token, position and segment tables. Built in chapter 03."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bertlearn.config import BertConfig

__all__ = ["BertEmbeddings", "check_ids", "sinusoidal_positions"]


def sinusoidal_positions(num_positions: int, hidden_size: int) -> Tensor:
    """The fixed position vectors of the first Transformer (Vaswani et al. 2017, section 3.5).

    Column ``2i`` holds ``sin(pos / 10000^(2i/hidden))`` and column ``2i + 1`` the cosine of the
    same angle, so that two positions ``k`` apart are related by one rotation, wherever they are.

    Returns:
        float32 ``(num_positions, hidden_size)``.

    Raises:
        ValueError: if ``hidden_size`` is odd (a sine would have no cosine).
    """
    if hidden_size % 2:
        raise ValueError(f"hidden_size must be even for sine and cosine pairs, not {hidden_size}")
    position = torch.arange(num_positions, dtype=torch.float64)[:, None]
    exponent = torch.arange(0, hidden_size, 2, dtype=torch.float64) / hidden_size
    angle = position / 10000**exponent  # (num_positions, hidden_size / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()


def check_ids(name: str, ids: Tensor, table_size: int) -> None:
    """Refuse ids that have no row in their table, before torch fails far from the cause.

    Raises:
        TypeError: if ``ids`` is not an integer tensor.
        ValueError: if it is not ``(batch, seq)``, is empty, or holds an id outside
            ``0 .. table_size - 1``.
    """
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{name} must be integer ids, not {ids.dtype}")
    if ids.dim() != 2 or ids.numel() == 0:
        raise ValueError(
            f"{name} must have shape (batch, seq) with at least one token, not {tuple(ids.shape)}"
        )
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= table_size:
        raise ValueError(
            f"{name} holds {low if low < 0 else high}, but its table has {table_size} rows "
            f"(0 to {table_size - 1}): do tokenizer and config belong to the same model?"
        )


class BertEmbeddings(nn.Module):
    """Token + position + segment vector, then LayerNorm, then dropout (Devlin et al. 2019, §3).

    Args:
        config: uses the three table sizes, ``hidden_size``, ``position_embedding_type``,
            ``layer_norm_eps`` and ``hidden_dropout_prob``. Sinusoidal positions are fixed, and
            scaled by ``initializer_range`` so that they do not drown fresh token vectors (the
            first Transformer scales its token vectors up instead: same ratio, section 3.4).
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        hidden = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, hidden, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, hidden)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        if config.position_embedding_type == "sinusoidal":
            table = sinusoidal_positions(config.max_position_embeddings, hidden)
            table *= config.initializer_range  # as small as fresh token vectors
            self.position_embeddings = nn.Embedding.from_pretrained(table, freeze=True)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Look up and add.

        Args:
            input_ids: ``(batch, seq)`` integer token ids.
            token_type_ids: ``(batch, seq)`` integers, 0 for the first sentence and 1 for the
                second; all 0 if None.

        Returns:
            ``(batch, seq, hidden)``.

        Raises:
            TypeError, ValueError: for ids of a wrong type, an empty batch, ids without a row,
                or a sequence longer than the position table.
        """
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        check_ids("input_ids", input_ids, self.word_embeddings.num_embeddings)
        check_ids("token_type_ids", token_type_ids, self.token_type_embeddings.num_embeddings)
        seq = input_ids.shape[1]
        longest = self.position_embeddings.num_embeddings
        if seq > longest:
            raise ValueError(
                f"the sequence has {seq} tokens but there are only {longest} position vectors: "
                f"truncate it, or cut it into windows"
            )
        positions = torch.arange(seq, device=input_ids.device)
        total = (
            self.word_embeddings(input_ids)  # (batch, seq, hidden)
            + self.position_embeddings(positions)  # (seq, hidden), the same for every row
            + self.token_type_embeddings(token_type_ids)  # (batch, seq, hidden)
        )
        return self.dropout(self.LayerNorm(total))

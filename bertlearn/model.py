"""BERT, the encoder with its pooler. Built in chapter 05; the heads come in later chapters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bertlearn.attention import key_mask
from bertlearn.checkpoints import Pretrained
from bertlearn.config import BertConfig
from bertlearn.embeddings import BertEmbeddings
from bertlearn.encoder import BaseModelOutput, BertEncoder

__all__ = ["BaseModelOutputWithPooling", "BertModel", "BertPooler", "init_weights", "mean_pool"]


@dataclass(kw_only=True)
class BaseModelOutputWithPooling(BaseModelOutput):
    """What ``BertModel`` returns: the encoder's output and the pooled [CLS].

    Attributes:
        pooler_output: ``(batch, hidden)``, or None for a model without a pooler.
    """

    pooler_output: Tensor | None = None


class BertPooler(nn.Module):
    """``tanh(W h + b)`` of the first token, [CLS] (google-research/bert, modeling.py)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``(batch, seq, hidden)`` to ``(batch, hidden)``, each number in (-1, 1)."""
        return self.dense(hidden_states[:, 0]).tanh()


def mean_pool(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    """One vector a text: the mean over its real tokens (Reimers & Gurevych 2019, section 3).

    Args:
        hidden_states: ``(batch, seq, hidden)``.
        attention_mask: ``(batch, seq)``, 1 = token, 0 = padding; at least one 1 a row.

    Returns:
        ``(batch, hidden)``.
    """
    real = attention_mask[:, :, None].to(hidden_states.dtype)  # (batch, seq, 1)
    return (hidden_states * real).sum(dim=1) / real.sum(dim=1)


def init_weights(model: nn.Module, config: BertConfig) -> None:
    """Draw fresh weights as the original does: matrices and tables from a normal distribution
    of ``initializer_range``, cut at two standard deviations; biases 0, LayerNorm gains 1.

    Frozen tables (sinusoidal positions) keep their values. Uses torch's global generator: seed
    it with ``torch.manual_seed`` for a repeatable model.
    """
    std = config.initializer_range
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding) and module.weight.requires_grad:
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()


class BertModel(Pretrained, nn.Module):
    """Embeddings, encoder, pooler (Devlin et al. 2019, section 3).

    ``BertModel.from_pretrained(directory)`` and ``.save_pretrained(directory)`` read and write
    Hugging Face directories.

    Args:
        config: all of it.
        add_pooling_layer: leave the pooler out with False.
    """

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True):
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        init_weights(self, config)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BaseModelOutputWithPooling:
        """Encode a batch.

        Args:
            input_ids: ``(batch, seq)`` integer token ids.
            token_type_ids: ``(batch, seq)``, 0 or 1; all 0 if None.
            attention_mask: ``(batch, seq)`` bool or integer, 1 = token, 0 = padding; all 1 if
                None.
            output_hidden_states: also return every layer's states.
            output_attentions: also return every layer's weights (takes the eager path).

        Raises:
            TypeError, ValueError: for bad ids (see ``BertEmbeddings``), a mask that is floating
                point, or a mask or segments that are not of the ids' shape.
        """
        for name, given in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            if given is not None and given.shape != input_ids.shape:
                raise ValueError(
                    f"{name} {tuple(given.shape)} must have the shape of "
                    f"input_ids {tuple(input_ids.shape)}"
                )
        mask = None if attention_mask is None else key_mask(attention_mask)
        embedded = self.embeddings(input_ids, token_type_ids)  # (batch, seq, hidden)
        encoded = self.encoder(embedded, mask, output_hidden_states, output_attentions)
        pooled = None if self.pooler is None else self.pooler(encoded.last_hidden_state)
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.last_hidden_state,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            pooler_output=pooled,
        )

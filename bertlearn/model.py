"""BERT: the encoder with its pooler (chapter 05), the pre-training heads (06 and 07), and those of
fine-tuning (10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.attention import key_mask
from bertlearn.checkpoints import Pretrained
from bertlearn.config import BertConfig
from bertlearn.embeddings import BertEmbeddings
from bertlearn.encoder import ACTIVATIONS, BaseModelOutput, BertEncoder
from bertlearn.masking import IGNORE

__all__ = [
    "BaseModelOutputWithPooling",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForPreTrainingOutput",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertLMPredictionHead",
    "BertModel",
    "BertOnlyMLMHead",
    "BertPooler",
    "BertPreTrainingHeads",
    "BertPredictionHeadTransform",
    "ClassifierOutput",
    "MaskedLMOutput",
    "SpanOutput",
    "classification_loss",
    "init_weights",
    "label_names",
    "masked_lm_loss",
    "mean_pool",
    "span_loss",
]


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


# ---- the blank's head: chapter 06 ---------------------------------------------------------------


class BertPredictionHeadTransform(nn.Module):
    """What happens to a token's vector before it is compared with all words: a dense layer, the
    activation, LayerNorm (google-research/bert, ``get_masked_lm_output``)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``(..., hidden)`` to the same."""
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


class BertLMPredictionHead(nn.Module):
    """A score for each word of the vocabulary: the likeness to its embedding, plus a bias.

    The decoder's matrix *is* the table of token embeddings (Press & Wolf 2017); the model that
    owns both ties them.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.transform = BertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = self.decoder.bias  # the name under which files keep it

    def tie_weights(self, word_embeddings: nn.Embedding) -> None:
        """Share the table of token embeddings, and one bias between its two names."""
        self.decoder.weight = word_embeddings.weight
        self.decoder.bias = self.bias

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``(..., hidden)`` to ``(..., vocab)``."""
        return self.decoder(self.transform(hidden_states))


class BertOnlyMLMHead(nn.Module):
    """The one head of ``BertForMaskedLM``; it exists for the names that files use."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.predictions = BertLMPredictionHead(config)


@dataclass
class MaskedLMOutput:
    """What ``BertForMaskedLM`` returns.

    Attributes:
        logits: ``(batch, seq, vocab)``; with labels ``(targets, vocab)``, only the places asked
            for, row by row.
        loss: the mean over these targets in nats, or None without labels.
    """

    logits: Tensor
    loss: Tensor | None = None


def masked_lm_loss(
    head: BertLMPredictionHead, hidden_states: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Score the vocabulary where a word is asked for, and nowhere else.

    With 15 percent of the tokens asked for, that is about a seventh of the head's work; the loss
    is the same, because the other places do not count in it.

    Args:
        head: from vectors to scores.
        hidden_states: ``(batch, seq, hidden)``.
        labels: ``(batch, seq)``, true ids and ``IGNORE``; None for scores at all places.

    Returns:
        logits ``(targets, vocab)`` and their mean cross entropy (0 if there is no target), or
        logits ``(batch, seq, vocab)`` and None.

    Raises:
        ValueError: for labels that are not of the tokens' shape.
    """
    if labels is None:
        return head(hidden_states), None
    if labels.shape != hidden_states.shape[:-1]:
        raise ValueError(
            f"labels {tuple(labels.shape)} must have the shape "
            f"{tuple(hidden_states.shape[:-1])} of the tokens"
        )
    asked = labels != IGNORE  # (batch, seq)
    logits = head(hidden_states[asked])  # (targets, vocab)
    total = F.cross_entropy(logits, labels[asked], reduction="sum")
    return logits, total / asked.sum().clamp(min=1)


class BertForMaskedLM(Pretrained, nn.Module):
    """BERT that fills blanks (Devlin et al. 2019, section 3.1, task 1).

    Args:
        config: all of it.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        init_weights(self.cls, config)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Use the token embeddings as the decoder's matrix."""
        self.cls.predictions.tie_weights(self.bert.embeddings.word_embeddings)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> MaskedLMOutput:
        """Fill blanks.

        Args:
            input_ids, token_type_ids, attention_mask: as ``BertModel`` takes them.
            labels: ``(batch, seq)``, the true id where one is asked for, else ``IGNORE``. With
                labels, logits are computed for these places only.

        Raises:
            TypeError, ValueError: as ``BertModel`` does, and for labels of another shape.
        """
        hidden = self.bert(input_ids, token_type_ids, attention_mask).last_hidden_state
        logits, loss = masked_lm_loss(self.cls.predictions, hidden, labels)
        return MaskedLMOutput(logits, loss)


# ---- both heads: chapter 07 ---------------------------------------------------------------------


class BertPreTrainingHeads(nn.Module):
    """A score for each word, and one for each answer to "does B follow A?"."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.predictions = BertLMPredictionHead(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)


@dataclass
class BertForPreTrainingOutput:
    """What ``BertForPreTraining`` returns.

    Attributes:
        prediction_logits: of words, as in ``MaskedLMOutput``.
        seq_relationship_logits: ``(batch, 2)``, column 0 for "B follows A".
        loss: the sum of the losses whose labels were given; None without labels.
        mlm_loss, pair_loss: its two parts.
    """

    prediction_logits: Tensor
    seq_relationship_logits: Tensor
    loss: Tensor | None = None
    mlm_loss: Tensor | None = None
    pair_loss: Tensor | None = None


class BertForPreTraining(Pretrained, nn.Module):
    """BERT with the two heads it is pre-trained with (Devlin et al. 2019, section 3.1).

    Args:
        config: all of it.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.bert = BertModel(config)
        self.cls = BertPreTrainingHeads(config)
        init_weights(self.cls, config)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Use the token embeddings as the decoder's matrix."""
        self.cls.predictions.tie_weights(self.bert.embeddings.word_embeddings)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
    ) -> BertForPreTrainingOutput:
        """Fill blanks, and judge whether the second text follows the first.

        Args:
            input_ids, token_type_ids, attention_mask: as ``BertModel`` takes them.
            labels: ``(batch, seq)``, as in ``BertForMaskedLM``.
            next_sentence_label: ``(batch,)``, 0 if B follows A, 1 if it does not.
        """
        encoded = self.bert(input_ids, token_type_ids, attention_mask)
        logits, mlm_loss = masked_lm_loss(self.cls.predictions, encoded.last_hidden_state, labels)
        scores = self.cls.seq_relationship(encoded.pooler_output)  # (batch, 2)
        pair_loss = None
        if next_sentence_label is not None:
            pair_loss = F.cross_entropy(scores, next_sentence_label)
        parts = [loss for loss in (mlm_loss, pair_loss) if loss is not None]
        return BertForPreTrainingOutput(
            prediction_logits=logits,
            seq_relationship_logits=scores,
            loss=sum(parts[1:], parts[0]) if parts else None,
            mlm_loss=mlm_loss,
            pair_loss=pair_loss,
        )


# ---- the heads of fine-tuning: chapter 10 -------------------------------------------------------


def label_names(num_labels: int, id2label: Mapping[int, str] | None) -> dict[int, str]:
    """The name of each label, ``LABEL_0``, ``LABEL_1`` ... unless they are given.

    Raises:
        ValueError: if the names are not those of the labels 0, 1, 2 ..., or are not distinct.
    """
    if id2label is None:
        return {i: f"LABEL_{i}" for i in range(num_labels)}
    names = {int(i): str(name) for i, name in id2label.items()}
    if sorted(names) != list(range(len(names))) or len(set(names.values())) < max(len(names), 1):
        raise ValueError(f"id2label must give 0, 1, 2 ... a name each, all distinct: {id2label}")
    return dict(sorted(names.items()))


def classification_loss(
    logits: Tensor, labels: Tensor, label_weights: Tensor | None = None
) -> Tensor:
    """What a classifier is trained on, in nats, as Hugging Face chooses it from labels and sizes.

    Args:
        logits: ``(batch, labels)``, or ``(batch, seq, labels)`` with a label for each token.
        labels: whole numbers ``(batch,)`` or ``(batch, seq)``, where ``IGNORE`` does not count:
            the cross entropy, averaged over those that count. Numbers, where there is a single
            logit: the squared error. Floating point ``(batch, labels)``: each label yes or no.
        label_weights: ``(labels,)``, for the cross entropy: the sum of the weighted losses,
            divided by the sum of their weights.
    """
    if logits.shape[-1] == 1:
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(
        logits.flatten(0, -2), labels.flatten(), label_weights, ignore_index=IGNORE
    )


@dataclass
class ClassifierOutput:
    """What a classifier of texts or of tokens returns.

    Attributes:
        logits: ``(batch, labels)``, or ``(batch, seq, labels)`` for tokens. No softmax yet.
        loss: see ``classification_loss``; None without labels.
    """

    logits: Tensor
    loss: Tensor | None = None


class BertForSequenceClassification(Pretrained, nn.Module):
    """BERT that puts a text, or a pair, into a class: one linear layer on the pooled [CLS]
    (Devlin et al. 2019, section 4.1).

    Args:
        config: all of it.
        num_labels: how many classes; 1 for a number instead.
        id2label: a name for each; if given, it says how many there are.
        classifier_dropout: before the layer; ``hidden_dropout_prob`` if None.
    """

    def __init__(
        self,
        config: BertConfig,
        num_labels: int = 2,
        id2label: Mapping[int, str] | None = None,
        classifier_dropout: float | None = None,
    ):
        super().__init__()
        self.config = config
        self.id2label = label_names(num_labels, id2label)
        self.classifier_dropout = classifier_dropout
        dropout = config.hidden_dropout_prob if classifier_dropout is None else classifier_dropout
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, len(self.id2label))
        init_weights(self.classifier, config)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
    ) -> ClassifierOutput:
        """Score the classes.

        Args:
            input_ids, token_type_ids, attention_mask: as ``BertModel`` takes them.
            labels, label_weights: as ``classification_loss`` takes them.
        """
        pooled = self.bert(input_ids, token_type_ids, attention_mask).pooler_output
        logits = self.classifier(self.dropout(pooled))  # (batch, labels)
        loss = None if labels is None else classification_loss(logits, labels, label_weights)
        return ClassifierOutput(logits, loss)


class BertForTokenClassification(Pretrained, nn.Module):
    """BERT that labels tokens: one linear layer on each of them (Devlin et al. 2019, section 5.3).

    Args:
        config: all of it.
        num_labels: how many labels there are.
        id2label: a name for each; if given, it says how many there are.
        classifier_dropout: before the layer; ``hidden_dropout_prob`` if None.
    """

    def __init__(
        self,
        config: BertConfig,
        num_labels: int = 2,
        id2label: Mapping[int, str] | None = None,
        classifier_dropout: float | None = None,
    ):
        super().__init__()
        self.config = config
        self.id2label = label_names(num_labels, id2label)
        self.classifier_dropout = classifier_dropout
        dropout = config.hidden_dropout_prob if classifier_dropout is None else classifier_dropout
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, len(self.id2label))
        init_weights(self.classifier, config)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
    ) -> ClassifierOutput:
        """Score the labels of each token.

        Args:
            input_ids, token_type_ids, attention_mask: as ``BertModel`` takes them.
            labels: ``(batch, seq)``, ``IGNORE`` where none is asked for.
            label_weights: as ``classification_loss`` takes them.
        """
        hidden = self.bert(input_ids, token_type_ids, attention_mask).last_hidden_state
        logits = self.classifier(self.dropout(hidden))  # (batch, seq, labels)
        loss = None if labels is None else classification_loss(logits, labels, label_weights)
        return ClassifierOutput(logits, loss)


def span_loss(
    start_logits: Tensor, end_logits: Tensor, start_positions: Tensor, end_positions: Tensor
) -> Tensor:
    """The mean of two cross entropies over the tokens of a row: where does the answer begin, where
    does it end (Devlin et al. 2019, section 4.2)? A position outside of the row does not count.

    Args:
        start_logits, end_logits: ``(batch, seq)``.
        start_positions, end_positions: ``(batch,)``.
    """
    outside = start_logits.shape[1]
    start = F.cross_entropy(start_logits, start_positions.clamp(0, outside), ignore_index=outside)
    end = F.cross_entropy(end_logits, end_positions.clamp(0, outside), ignore_index=outside)
    return (start + end) / 2


@dataclass
class SpanOutput:
    """What ``BertForQuestionAnswering`` returns.

    Attributes:
        start_logits, end_logits: ``(batch, seq)``.
        loss: see ``span_loss``; None without positions.
    """

    start_logits: Tensor
    end_logits: Tensor
    loss: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """Both, ``(batch, seq, 2)``."""
        return torch.stack((self.start_logits, self.end_logits), dim=-1)


class BertForQuestionAnswering(Pretrained, nn.Module):
    """BERT that points at an answer: two scores for each token, "it begins here" and "it ends here"
    (Devlin et al. 2019, section 4.2).

    Args:
        config: all of it.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.bert = BertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        init_weights(self.qa_outputs, config)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
    ) -> SpanOutput:
        """Score each token as the first and as the last of the answer.

        Args:
            input_ids, token_type_ids, attention_mask: as ``BertModel`` takes them.
            start_positions, end_positions: ``(batch,)``, the first and the last token of the
                answer; 0, [CLS], where there is none.
        """
        hidden = self.bert(input_ids, token_type_ids, attention_mask).last_hidden_state
        starts, ends = self.qa_outputs(hidden).unbind(dim=-1)  # (batch, seq) each
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(starts, ends, start_positions, end_positions)
        return SpanOutput(starts, ends, loss)

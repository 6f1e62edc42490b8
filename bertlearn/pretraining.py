"""Pre-training: rows, batches, schedule, optimizer, one step, evaluation. Built in chapter 08.

What a long run needs besides (files, resuming, several processes, logs) is in ``engine/``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from bertlearn.accounting import forward_flops_per_token
from bertlearn.config import BertConfig
from bertlearn.masking import IGNORE
from bertlearn.model import BertForPreTraining
from bertlearn.pairs import TextPair

__all__ = [
    "Batch",
    "Evaluation",
    "NonFiniteLoss",
    "Row",
    "StepResult",
    "blind_loss",
    "collate",
    "decay_groups",
    "evaluate",
    "learning_rate",
    "like_lengths",
    "look_at_neighbors",
    "make_optimizer",
    "pack",
    "pair_row",
    "position_waves",
    "spread_positions",
    "start_from_frequencies",
    "train_step",
    "training_flops",
    "turning",
    "unigram_entropy",
]


# ---- rows and batches ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One row of a batch, before padding and masking.

    Attributes:
        ids: token ids with [CLS] and [SEP].
        type_ids: 0 for the first text, 1 for the second.
        label: 0 or 1 for a pair, else None.
    """

    ids: list[int]
    type_ids: list[int]
    label: int | None = None


@dataclass
class Batch:
    """What ``BertForPreTraining`` takes.

    Attributes:
        input_ids, token_type_ids, labels: int64 ``(batch, seq)``.
        attention_mask: bool ``(batch, seq)``, or None where no row is padded.
        next_sentence_label: int64 ``(batch,)``, or None where rows are not pairs.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    labels: Tensor
    attention_mask: Tensor | None = None
    next_sentence_label: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """All of it in the order in which ``BertForPreTraining`` takes it."""
        return (
            self.input_ids,
            self.token_type_ids,
            self.attention_mask,
            self.labels,
            self.next_sentence_label,
        )

    @property
    def tokens(self) -> int:
        """How many tokens are not padding."""
        mask = self.attention_mask
        return self.input_ids.numel() if mask is None else int(mask.sum())

    @property
    def targets(self) -> int:
        """How many tokens are asked for."""
        return int((self.labels != IGNORE).sum())

    def split(self, size: int) -> list[Batch]:
        """The same rows in batches of at most ``size``."""
        starts = range(0, len(self.input_ids), size)
        return [self._each(itemgetter(slice(start, start + size))) for start in starts]

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return self._each(lambda x: x.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        columns = {name: x if x is None else change(x) for name, x in vars(self).items()}
        return Batch(**columns)  # type: ignore[arg-type]


def pack(
    documents: Iterable[Sequence[Sequence[int]]], length: int, cls_id: int, sep_id: int
) -> list[Row]:
    """Fill rows to the last place, from one document into the next (the FULL-SENTENCES of Liu et
    al. 2019, section 4.2, but a row may begin and end within a sentence).

    Args:
        documents: sentences of token ids.
        length: tokens of a row, [CLS] and [SEP] included.
        cls_id, sep_id: ids of [CLS], which begins a row, and of [SEP], which ends a row and
            stands between two documents.

    Returns:
        rows of exactly ``length`` tokens; what does not fill the last one is left out.
    """
    stream: list[int] = []
    for document in documents:
        if stream:
            stream.append(sep_id)
        for sentence in document:
            stream.extend(sentence)
    room = length - 2
    starts = range(0, len(stream) - room + 1, room)
    return [Row([cls_id, *stream[i : i + room], sep_id], [0] * length) for i in starts]


def pair_row(pair: TextPair, cls_id: int, sep_id: int) -> Row:
    """A pair as one row, ``[CLS] A [SEP] B [SEP]``; its label goes with it."""
    first = [cls_id, *pair.first, sep_id]
    second = [*pair.second, sep_id]
    return Row(first + second, [0] * len(first) + [1] * len(second), pair.label)


def like_lengths(rows: Sequence[Row], size: int, rng: random.Random) -> list[list[Row]]:
    """Batches of ``size`` rows of like lengths, in random order, so that little is padding.

    Rows that do not fill a batch are left out; which ones is a matter of chance.
    """
    order = rng.sample(list(rows), len(rows) // size * size)
    order.sort(key=lambda row: len(row.ids))  # stable: equal lengths stay shuffled
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(batches)
    return batches


def collate(
    rows: Sequence[Row], pad_id: int
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Rows as tensors, padded to the longest.

    Returns:
        ids and segments ``(batch, seq)``; the attention mask ``(batch, seq)``, None if nothing is
        padded; the labels of the pairs ``(batch,)``, None if rows are not pairs.
    """
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad_id)
    segments = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        segments[i, : len(row.ids)] = torch.tensor(row.type_ids)
    sizes = torch.tensor([len(row.ids) for row in rows])
    mask = torch.arange(longest) < sizes[:, None]
    labels = [row.label for row in rows if row.label is not None]
    return (
        ids,
        segments,
        None if bool(mask.all()) else mask,
        torch.tensor(labels) if len(labels) == len(rows) else None,
    )


# ---- a start that does not waste steps ----------------------------------------------------------


def unigram_entropy(counts: Tensor) -> float:
    """The loss, in nats, of a model that knows how frequent each word is and nothing else."""
    shares = counts.double() / counts.sum()
    return float(torch.special.entr(shares).sum())


def blind_loss(counts: Tensor, mix: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> float:
    """The loss, in nats, of a model that sees what stands at the blank and nothing around it.

    A word that was left as it is can be copied, so this lies below the unigram entropy: by half a
    nat with the usual mix. What a model has learned from context begins below this line. It is
    the conditional entropy H(word | seen) = H(word) + H(seen | word) - H(seen).

    Args:
        counts: ``(vocab,)`` how often each word occurs.
        mix: shares of [MASK], random word and unchanged, see ``masking.replace_tokens``.
    """
    masked, random_word, kept = mix
    drawn = random_word / len(counts)  # the share of each word, drawn by chance
    seen = torch.cat([torch.tensor([masked]), kept * counts.double() / counts.sum() + drawn])
    given = torch.full((len(counts) + 1,), drawn, dtype=torch.float64)
    given[0], given[1] = masked, kept + drawn  # [MASK], the word itself, any other
    entropies = torch.special.entr(given).sum() - torch.special.entr(seen).sum()
    return unigram_entropy(counts) + float(entropies)


@torch.no_grad()
def start_from_frequencies(model: BertForPreTraining, counts: Tensor) -> None:
    """Set the output bias to the logarithms of the words' frequencies: the first steps are then
    not spent on learning them.

    Args:
        model: fresh.
        counts: ``(vocab,)`` how often each word occurs; one is added to each.
    """
    smoothed = counts.double() + 1
    model.cls.predictions.bias.copy_((smoothed / smoothed.sum()).log())


def position_waves(positions: int, size: int) -> tuple[Tensor, Tensor]:
    """Sines and cosines of position, from a wave of two and a half tokens to one longer than a
    row: the form of ``embeddings.sinusoidal_positions``, with shorter waves, so that neighbors
    differ.

    Returns:
        the angle ``(size / 2,)`` by which each pair of columns turns from one position to the
        next, and the table ``(positions, size)``, columns sine, cosine, sine, cosine, ...
    """
    angles = torch.logspace(math.log10(2.5), math.log10(0.05), size // 2)
    turned = torch.arange(positions)[:, None] * angles
    return angles, torch.stack([turned.sin(), turned.cos()], dim=-1).flatten(1)


def turning(angles: Tensor) -> Tensor:
    """The matrix ``(size, size)`` that moves a row of ``position_waves`` on: each pair of columns
    by its angle ``(size / 2,)``, since sin(a + b) = sin a cos b + cos a sin b."""
    sin, cos = angles.sin(), angles.cos()
    pairs = torch.stack([cos, sin, -sin, cos], dim=-1).view(-1, 2, 2)
    return torch.block_diag(*pairs)


@torch.no_grad()
def look_at_neighbors(
    model: BertForPreTraining, offsets: Sequence[int], sharpness: float = 9.6
) -> None:
    """Let heads of the first layer begin by looking at a neighbor each, before any training.

    A fresh head looks everywhere alike, and the way to a useful neighbor is long (chapter 08). So
    a quarter of the columns is kept for positions: the position table holds ``position_waves``
    there, the other tables nearly nothing. A head whose keys are these waves, and whose queries
    are the same waves turned by its offset, scores ``sharpness`` times the mean cosine of
    (distance - offset) x angle, which is highest at the offset. All of it is free to change in
    training.

    Args:
        model: fresh.
        offsets: for each head, the first ones first; -1 is the token to the left.
        sharpness: of the scores.

    Raises:
        ValueError: if the first layer has fewer heads than there are offsets.
    """
    embeddings = model.bert.embeddings
    layer: Any = model.bert.encoder.layer[0]
    attention = layer.attention.self
    if len(offsets) > attention.num_heads:
        raise ValueError(f"{len(offsets)} offsets, but a layer has {attention.num_heads} heads")
    places = embeddings.position_embeddings.weight  # (positions, hidden)
    hidden, std = places.shape[1], model.config.initializer_range
    head = hidden // attention.num_heads
    size = min(head, hidden // 4) // 2 * 2
    angles, table = position_waves(len(places), size)
    for weight in (embeddings.word_embeddings.weight, embeddings.token_type_embeddings.weight):
        weight[:, :size] *= 0.1
    places *= 0.1
    places[:, :size] = 2 * std * table
    kept = size / hidden  # LayerNorm divides by the root of: 2 a pair, 1 elsewhere, in std
    loud = 2 / math.sqrt(2 * kept + 1 - kept)  # height of the waves behind it
    gain = math.sqrt(sharpness * math.sqrt(head) / (size / 2)) / loud
    for number, offset in enumerate(offsets):
        rows = slice(number * head, (number + 1) * head)
        for weight, first in (
            (attention.query.weight, turning(offset * angles)),
            (attention.key.weight, torch.eye(size)),
        ):
            weight[rows] *= 0.3
            weight[rows, :size] = 0
            weight[rows.start : rows.start + size, :size] = gain * first


@torch.no_grad()
def spread_positions(model: BertForPreTraining, trained: int) -> None:
    """Copy the first ``trained`` position vectors to all that follow, again and again: positions
    that short rows have never used then start from something that works.

    Args:
        model: after training on rows of ``trained`` tokens.
        trained: how many position vectors have been trained.
    """
    table = model.bert.embeddings.position_embeddings.weight
    for start in range(trained, len(table), trained):
        rest = table[start : start + trained]
        rest.copy_(table[: len(rest)])


# ---- schedule and optimizer ---------------------------------------------------------------------


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Up in a line for ``warmup`` steps, then down in a line to 0 (Devlin et al. 2019, A.2).

    Args:
        step: from 0.
        steps: of the whole run.
        peak: the highest rate.
        warmup: steps until it is reached.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / (steps - warmup)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Decay matrices and tables, not biases and LayerNorms: what has two axes, not what has one."""
    weights = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in weights if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in weights if p.dim() < 2], "weight_decay": 0.0},
    ]


def make_optimizer(
    model: nn.Module,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-6,
    weight_decay: float = 0.01,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) in one fused operator; the rate is set at each step."""
    return torch.optim.AdamW(
        decay_groups(model, weight_decay), lr=0.0, betas=betas, eps=eps, fused=True
    )


# ---- one step -----------------------------------------------------------------------------------


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is not a number, or not finite."""


@dataclass(frozen=True)
class StepResult:
    """What one step did.

    Attributes:
        mlm_loss: nats, the mean over all tokens that were asked for.
        pair_loss: nats, the mean over pairs; None if rows were not pairs.
        grad_norm: of all gradients together, before clipping.
        tokens: how many tokens were read, padding not counted.
    """

    mlm_loss: float
    pair_loss: float | None
    grad_norm: float
    tokens: int


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    rate: float,
    max_norm: float = 1.0,
    world: int = 1,
    total: Callable[[Tensor], Tensor] = lambda here: here,
) -> StepResult:
    """One step of the optimizer on several batches, as if they were one (gradient accumulation).

    Every target counts the same, in whichever batch it is: losses are sums, divided by the number
    of targets of the whole step. The same holds over processes.

    Args:
        model: ``BertForPreTraining``, perhaps wrapped for several processes.
        optimizer: its rate is set here.
        batches: what this process reads in this step.
        rate: the learning rate.
        max_norm: one limit for the norm of all gradients together.
        world: processes, whose gradients the wrapped model averages.
        total: sums a tensor over the processes.

    Raises:
        NonFiniteLoss: before the weights are touched.
    """
    counts = torch.tensor([[b.targets, len(b.input_ids), b.tokens] for b in batches]).sum(dim=0)
    targets, rows, tokens = total(counts.double()).tolist()
    sums = torch.zeros(2, dtype=torch.float64)
    pairs = batches[0].next_sentence_label is not None
    for batch in batches:
        output = model(*batch.inputs)
        loss = output.mlm_loss * (batch.targets / max(targets, 1))
        sums[0] += loss.item()
        if output.pair_loss is not None:
            pair_loss = output.pair_loss * (len(batch.input_ids) / rows)
            loss = loss + pair_loss
            sums[1] += pair_loss.item()
        (loss * world).backward()
    mlm_loss, pair_loss = total(sums).tolist()
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), max_norm))
    if not torch.isfinite(torch.tensor([mlm_loss, pair_loss, norm])).all():
        optimizer.zero_grad()
        raise NonFiniteLoss(f"the loss is {mlm_loss}, the norm of its gradient {norm}")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return StepResult(mlm_loss, pair_loss if pairs else None, norm, int(tokens))


# ---- how good, how fast -------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """How a model does on held-out rows.

    Attributes:
        mlm_loss: nats, the mean over the tokens asked for.
        top1, top5: share of them that is the first guess, or among the first five.
        pair_accuracy: share of pairs judged rightly; None if rows are not pairs.
    """

    mlm_loss: float
    top1: float
    top5: float
    pair_accuracy: float | None = None


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch]) -> Evaluation:
    """Mean over all targets of all batches, without dropout. The model's mode is put back."""
    was_training = model.training
    model.eval()
    loss, top1, top5, targets, right, pairs = 0.0, 0, 0, 0, 0, 0
    for batch in batches:
        output = model(*batch.inputs)
        truth = batch.labels[batch.labels != IGNORE]
        guesses = output.prediction_logits.topk(5).indices  # (targets, 5)
        loss += output.mlm_loss.item() * len(truth)
        top1 += int((guesses[:, 0] == truth).sum())
        top5 += int((guesses == truth[:, None]).sum())
        targets += len(truth)
        if batch.next_sentence_label is not None:
            judged = output.seq_relationship_logits.argmax(dim=-1)
            right += int((judged == batch.next_sentence_label).sum())
            pairs += len(judged)
    model.train(was_training)
    targets = max(targets, 1)
    accuracy = right / pairs if pairs else None
    return Evaluation(loss / targets, top1 / targets, top5 / targets, accuracy)


def training_flops(config: BertConfig, seq: int, rate: float = 0.15) -> float:
    """Floating point operations of matrix products for one token of training: three times those
    of the forward pass, with the word scores at the share ``rate`` of the tokens only."""
    hidden, vocab = config.hidden_size, config.vocab_size
    head = rate * (2 * hidden * hidden + 2 * hidden * vocab)
    return 3 * (forward_flops_per_token(config, seq) + head)

"""Wrong answers to the checks of chapter 08."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bertlearn.config import BertConfig
from bertlearn.pretraining import (
    Batch,
    Evaluation,
    Row,
    StepResult,
    blind_loss,
    collate,
    evaluate,
    like_lengths,
    look_at_neighbors,
    pair_row,
    position_waves,
    training_flops,
    turning,
    unigram_entropy,
)
from tests.known_wrong import Wrong

# ---- rows -------------------------------------------------------------------------------------


def packed(documents: Any, length: int, cls_id: int, sep_id: int, *, kind: str) -> list[Row]:
    """The right thing, with a switch for each way to get it wrong."""
    stream: list[int] = []
    for document in documents:
        if stream and kind not in ("joined", "sentences"):
            stream.append(sep_id)
        for sentence in document:
            stream.extend(sentence)
            if kind == "sentences":
                stream.append(sep_id)
    room = length if kind == "bare" else length - 2
    rows = []
    for i in range(0, len(stream), room):
        part = stream[i : i + room]
        if len(part) == room or kind == "rest":
            ids = part if kind == "bare" else [cls_id, *part, sep_id]
            rows.append(Row(ids, [0] + [1] * (len(ids) - 1) if kind == "types" else [0] * len(ids)))
    return rows


def _packed(kind: str) -> Any:
    return lambda *given: packed(*given, kind=kind)


def paired(pair: Any, cls_id: int, sep_id: int, *, kind: str) -> Row:
    right = pair_row(pair, cls_id, sep_id)
    ids, types = list(right.ids), list(right.type_ids)
    middle = len(pair.first) + 1
    if kind == "no end":
        ids, types = ids[:-1], types[:-1]
    if kind == "no middle":
        del ids[middle], types[middle]
    if kind == "middle is B":
        types[middle] = 1
    if kind == "one segment":
        types = [0] * len(types)
    return Row(ids, types, None if kind == "no label" else pair.label)


def _paired(kind: str) -> Any:
    return lambda *given: paired(*given, kind=kind)


def unsorted_batches(rows: Sequence[Row], size: int, rng: random.Random) -> Any:
    order = rng.sample(list(rows), len(rows) // size * size)
    return [order[i : i + size] for i in range(0, len(order), size)]


def short_to_long(rows: Sequence[Row], size: int, rng: random.Random) -> Any:
    order = rng.sample(list(rows), len(rows) // size * size)
    order.sort(key=lambda row: len(row.ids))
    return [order[i : i + size] for i in range(0, len(order), size)]


def drops_the_longest(rows: Sequence[Row], size: int, rng: random.Random) -> Any:
    order = rng.sample(list(rows), len(rows))
    order.sort(key=lambda row: len(row.ids))
    batches = [order[i : i + size] for i in range(0, len(rows) // size * size, size)]
    rng.shuffle(batches)
    return batches


def same_company(rows: Sequence[Row], size: int, rng: random.Random) -> Any:
    order = sorted(rows, key=lambda row: len(row.ids))[: len(rows) // size * size]
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(batches)
    return batches


def keeps_the_rest(rows: Sequence[Row], size: int, rng: random.Random) -> Any:
    order = sorted(rng.sample(list(rows), len(rows)), key=lambda row: len(row.ids))
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(batches)
    return batches


def sorts_in_place(rows: list[Row], size: int, rng: random.Random) -> Any:
    rows.sort(key=lambda row: len(row.ids))
    return like_lengths(rows, size, rng)


def collated(rows: Sequence[Row], pad_id: int, *, kind: str) -> Any:
    ids, segments, mask, labels = collate(rows, 0 if kind == "zero" else pad_id)
    if kind == "inverted" and mask is not None:
        mask = ~mask
    if kind == "always" and mask is None:
        mask = torch.ones_like(ids, dtype=torch.bool)
    if kind == "integer" and mask is not None:
        mask = mask.long()
    if kind == "labels" and labels is None:
        labels = torch.zeros(len(rows), dtype=torch.long)
    return ids, segments, mask, labels


def _collated(kind: str) -> Any:
    return lambda *given: collated(*given, kind=kind)


class CountsPadding(Batch):
    @property
    def tokens(self) -> int:
        return self.input_ids.numel()


class SkipsZero(Batch):
    @property
    def targets(self) -> int:
        return int((self.labels > 0).sum())


class CountsEverything(Batch):
    @property
    def targets(self) -> int:
        return self.labels.numel()


class OwnOrder(Batch):
    @property
    def inputs(self) -> Any:
        return tuple(vars(self).values())


# ---- start, schedule, optimizer ---------------------------------------------------------------


def entropy_in_bits(counts: Tensor) -> float:
    shares = counts[counts > 0].double() / counts.sum()
    return float(-(shares * shares.log2()).sum())


def entropy_of_nothing(counts: Tensor) -> float:
    shares = counts.double() / counts.sum()
    return float(-(shares * shares.log()).sum())


def entropy_unweighted(counts: Tensor) -> float:
    shares = counts[counts > 0].double() / counts.sum()
    return float(-(shares.log() / len(counts)).sum())


def blind_without_copies(counts: Tensor, mix: Any = (0.8, 0.1, 0.1)) -> float:
    return unigram_entropy(counts)


def blind_copies_for_certain(counts: Tensor, mix: Any = (0.8, 0.1, 0.1)) -> float:
    return (1 - mix[2]) * unigram_entropy(counts)


def blind_in_the_other_order(counts: Tensor, mix: Any = (0.8, 0.1, 0.1)) -> float:
    return blind_loss(counts, (mix[0], mix[2], mix[1]))


@torch.no_grad()
def start_without_smoothing(model: Any, counts: Tensor) -> None:
    model.cls.predictions.bias.copy_((counts / counts.sum()).log())


@torch.no_grad()
def start_with_shares(model: Any, counts: Tensor) -> None:
    smoothed = counts.double() + 1
    model.cls.predictions.bias.copy_(smoothed / smoothed.sum())


def start_with_another_tensor(model: Any, counts: Tensor) -> None:
    smoothed = counts.double() + 1
    model.cls.predictions.bias = nn.Parameter((smoothed / smoothed.sum()).log().float())


@torch.no_grad()
def spread_once(model: Any, trained: int) -> None:
    table = model.bert.embeddings.position_embeddings.weight
    rest = table[trained : 2 * trained]
    rest.copy_(table[: len(rest)])


@torch.no_grad()
def spread_last(model: Any, trained: int) -> None:
    table = model.bert.embeddings.position_embeddings.weight
    table[trained:] = table[trained - 1].clone()


def spread_into_a_copy(model: Any, trained: int) -> None:
    table = model.bert.embeddings.position_embeddings.weight.detach().clone()
    table[trained:] = table[torch.arange(trained, len(table)) % trained]


def waves_apart(positions: int, size: int) -> tuple[Tensor, Tensor]:
    angles, table = position_waves(positions, size)
    return angles, torch.cat([table[:, 0::2], table[:, 1::2]], dim=-1)


def waves_cosine_first(positions: int, size: int) -> tuple[Tensor, Tensor]:
    angles, table = position_waves(positions, size)
    return angles, torch.stack([table[:, 1::2], table[:, 0::2]], dim=-1).flatten(1)


def waves_from_one(positions: int, size: int) -> tuple[Tensor, Tensor]:
    angles, table = position_waves(positions + 1, size)
    return angles, table[1:]


def turn_in_blocks(angles: Tensor) -> Tensor:
    sin, cos = angles.sin().diag(), angles.cos().diag()
    return torch.cat([torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)])


def look_away(model: Any, offsets: Sequence[int]) -> None:
    look_at_neighbors(model, [-offset for offset in offsets])


@torch.no_grad()
def look_through_words(model: Any, offsets: Sequence[int]) -> None:
    words = model.bert.embeddings.word_embeddings.weight
    before = words.clone()
    look_at_neighbors(model, offsets)
    words.copy_(10 * before)


@torch.no_grad()
def look_in_every_layer(model: Any, offsets: Sequence[int]) -> None:
    look_at_neighbors(model, offsets)
    first, second = (layer.attention.self for layer in model.bert.encoder.layer[:2])
    second.query.weight.copy_(first.query.weight)


def look_with_all_heads(model: Any, offsets: Sequence[int]) -> None:
    heads = model.bert.encoder.layer[0].attention.self.num_heads
    look_at_neighbors(model, [*offsets, *([0] * (heads - len(offsets)))])


def rate_wastes_a_step(step: int, steps: int, peak: float, warmup: int) -> float:
    if step < warmup:
        return peak * step / warmup
    return peak * (steps - step) / (steps - warmup)


def rate_jumps(step: int, steps: int, peak: float, warmup: int) -> float:
    return peak * (step / warmup if step < warmup else 1 - step / steps)


def rate_stays(step: int, steps: int, peak: float, warmup: int) -> float:
    return peak * min(1.0, (step + 1) / warmup)


def groups_by_exact_name(model: nn.Module, decay: float) -> list[dict]:
    no_decay = ["bias", "LayerNorm.weight"]
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for n, p in named if n not in no_decay], "weight_decay": decay},
        {"params": [p for n, p in named if n in no_decay], "weight_decay": 0.0},
    ]


def groups_by_expected_name(model: nn.Module, decay: float) -> list[dict]:
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    spared = [("bias" in n or "LayerNorm" in n) for n, _ in named]
    return [
        {"params": [p for (_, p), s in zip(named, spared, strict=True) if s == kind],
         "weight_decay": 0.0 if kind else decay}
        for kind in (False, True)
    ]  # fmt: skip


def groups_forget_the_rest(model: nn.Module, decay: float) -> list[dict]:
    return [{"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": decay}]


def groups_with_frozen(model: nn.Module, decay: float) -> list[dict]:
    return [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]


def _optimizer(cls: Any, everything: bool = False, fused: bool = True) -> Any:
    def make(
        model: nn.Module, betas: Any = (0.9, 0.98), eps: float = 1e-6, weight_decay: float = 0.01
    ) -> Any:
        groups = groups_with_frozen(model, weight_decay)
        if everything:
            groups[1]["weight_decay"] = weight_decay
        return cls(groups, lr=0.0, betas=betas, eps=eps, fused=fused)

    return make


# ---- one step ---------------------------------------------------------------------------------


def stepped(
    model: nn.Module,
    optimizer: Any,
    batches: Any,
    rate: float,
    max_norm: float = 1.0,
    world: int = 1,
    total: Any = lambda here: here,
    *,
    kind: str,
) -> StepResult:
    counts = torch.tensor([[b.targets, len(b.input_ids), b.tokens] for b in batches]).sum(dim=0)
    targets, rows, tokens = total(counts.double()).tolist()
    loss_sum, pair_sum = 0.0, None
    for batch in batches:
        out = model(*batch.inputs)
        share = {"means": 1 / len(batches), "sum": 1.0}.get(kind, batch.targets / targets)
        loss = out.mlm_loss * share
        loss_sum += loss.item()
        if out.pair_loss is not None:
            part = out.pair_loss * len(batch.input_ids) / rows
            loss, pair_sum = loss + part, (pair_sum or 0.0) + part.item()
        (loss * (1 if kind == "one process" else world)).backward()
        if kind == "each batch":
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
    params = [p for p in model.parameters() if p.grad is not None]
    if kind == "each parameter":
        norm = max(float(nn.utils.clip_grad_norm_([p], max_norm)) for p in params)
    else:
        norm = float(nn.utils.clip_grad_norm_(params, max_norm))
    if kind == "norm after":
        norm = min(norm, max_norm)
    if kind != "each batch":
        if kind != "own rate":
            optimizer.param_groups[0]["lr"] = rate
        if kind != "carries on" and not math.isfinite(loss_sum + norm):
            optimizer.zero_grad()
            raise RuntimeError("not finite")
        optimizer.step()
        if kind != "keeps gradients":
            optimizer.zero_grad()
    return StepResult(loss_sum, pair_sum, norm, int(tokens))


def _stepped(kind: str) -> Any:
    return lambda *given, **more: stepped(*given, **more, kind=kind)


def step_then_complain(model: Any, optimizer: Any, *given: Any, **more: Any) -> Any:
    result = stepped(model, optimizer, *given, **more, kind="carries on")
    if not math.isfinite(result.mlm_loss):
        raise RuntimeError("not finite")
    return result


def evaluated(model: nn.Module, batches: Any, *, kind: str) -> Any:
    was_training = model.training
    if kind == "training":
        model.train()
        results = [evaluate_as_it_is(model, [b]) for b in batches]
        model.train(was_training)
        return results[0]
    found = evaluate(model, batches)
    if kind == "means":
        each = [evaluate(model, [b]).mlm_loss for b in batches]
        return Evaluation(sum(each) / len(each), found.top1, found.top5, found.pair_accuracy)
    if kind == "perplexity":
        return Evaluation(math.exp(found.mlm_loss), found.top1, found.top5, found.pair_accuracy)
    if kind == "top1 twice":
        return Evaluation(found.mlm_loss, found.top1, found.top1, found.pair_accuracy)
    model.train(kind == "leaves training")
    return found


@torch.no_grad()
def evaluate_as_it_is(model: nn.Module, batches: Any) -> Evaluation:
    out = model(*batches[0].inputs)
    return Evaluation(out.mlm_loss.item(), 0.0, 0.0)


def _evaluated(kind: str) -> Any:
    return lambda *given: evaluated(*given, kind=kind)


def flops(config: BertConfig, seq: int, rate: float = 0.15, *, kind: str) -> float:
    if kind == "forward":
        return training_flops(config, seq, rate) / 3
    if kind == "everywhere":
        return training_flops(config, seq, 1.0)
    if kind == "no head":
        return training_flops(config, seq, 0.0)
    hidden, wide = config.hidden_size, config.intermediate_size
    layer = 4 * hidden * hidden + 2 * hidden * wide
    return 6.0 * (config.num_hidden_layers * layer + config.vocab_size * hidden)


def _flops(kind: str) -> Any:
    return lambda *given: flops(*given, kind=kind)


# ---- questions --------------------------------------------------------------------------------


def inverse_root(
    step: int,
    peak: float,
    warmup: int,
    cooldown: tuple[int, int] | None = None,
    *,
    kind: str = "",
) -> float:
    done = step if kind == "step 0" else step + 1
    if done <= warmup:
        rate = peak * done / warmup
    elif kind == "constant":
        rate = peak
    elif kind == "no root":
        rate = peak * warmup / done
    elif kind == "from one":
        rate = peak / math.sqrt(done)
    else:
        rate = peak * math.sqrt(warmup / done)
    if cooldown is None or kind == "endless" or step < cooldown[0]:
        return rate
    begin, steps = cooldown
    left = (steps - step) / (steps - begin)
    if kind == "from peak":
        return peak * left
    if kind == "both":
        return rate * left
    return inverse_root(begin, peak, warmup) * left


def _inverse_root(kind: str) -> Any:
    return lambda *given: inverse_root(*given, kind=kind)


def adamw(
    weight: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    step: int,
    rate: float,
    decay: float,
    correct: bool,
    *,
    kind: str,
) -> Any:
    b1, b2 = 0.9, 0.999
    if kind == "coupled":
        grad = grad + decay * weight
    m, v = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad * grad
    if kind == "always":
        correct = True
    if kind == "never":
        correct = False
    top = m / (1 - b1**step) if correct else m
    root = v / (1 - b2**step) if correct else v
    move = top / (root.sqrt() + 1e-6)
    if kind not in ("coupled", "unscaled", "none"):
        move = move + decay * weight
    new = weight - rate * move
    if kind == "unscaled":
        new = new - decay * weight
    return (new, m, v) if kind != "weights only" else new


def _adamw(kind: str) -> Any:
    return lambda *given: adamw(*given, kind=kind)


def weights(targets: list[list[int]], *, kind: str) -> list[list[float]]:
    total, world = sum(map(sum, targets)), len(targets)
    if kind == "divides by zero":
        return [[world * n / total for n in mine] for mine in targets]
    total = max(total, 1)
    return [
        [
            {
                "means": 1 / len(mine),
                "no world": n / total,
                "own targets": n / max(sum(mine), 1),
                "batches": world * n / total * len(mine),
            }[kind]
            for n in mine
        ]
        for mine in targets
    ]


def _weights(kind: str) -> Any:
    return lambda targets: weights(targets, kind=kind)


def share(lengths: list[int], size: int, window: int, *, kind: str) -> float:
    rows = list(lengths)
    if kind != "unsorted":
        width = len(rows) if kind == "everything" else window
        rows = [n for i in range(0, len(rows), width) for n in sorted(rows[i : i + width])]
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    if kind == "longest":
        return sum(rows) / (len(rows) * max(rows))
    if kind == "means":
        return sum(sum(b) / (len(b) * max(b)) for b in batches) / len(batches)
    if kind == "drops":
        batches = [b for b in batches if len(b) == size] or batches
    found = sum(map(sum, batches)) / sum(len(b) * max(b) for b in batches)
    return 1 - found if kind == "waste" else found


def _share(kind: str) -> Any:
    return lambda *given: share(*given, kind=kind)


def perplexity(train: Tensor, test: Tensor, alpha: float, *, kind: str) -> float:
    smooth = train.double() + alpha
    shares = smooth / (train.double().sum() if kind == "no total" else smooth.sum())
    weigh = test.double() / test.sum()
    if kind == "once":
        weigh = torch.ones_like(shares) / len(shares)
    if kind == "itself":
        shares = weigh.clamp(min=1e-300)
    loss = float(-(weigh * shares.log()).sum())
    if kind == "loss":
        return loss
    return 2**loss if kind == "two" else math.exp(loss)


def _perplexity(kind: str) -> Any:
    return lambda *given: perplexity(*given, kind=kind)


def days(sizes: dict, phases: list, peak: float, part: float, *, kind: str) -> float:
    config, total = BertConfig(**sizes), 0.0
    for steps, rows, length in phases:
        each = training_flops(config, 128 if kind == "length" else length)
        if kind in ("forward", "everywhere", "six"):
            each = flops(config, length, kind=kind)
        total += steps * rows * length * each
    return total / (peak * (1 if kind == "peak" else part)) / (3600 if kind == "hours" else 86400)


def _days(kind: str) -> Any:
    return lambda *given: days(*given, kind=kind)


def accumulated(weight: Tensor, pieces: Any, rate: float, max_norm: float, *, kind: str) -> Tensor:
    counts = [len(x) for x, _ in pieces]
    total = torch.zeros_like(weight)
    for (x, y), n in zip(pieces, counts, strict=True):
        mean = 2 * x.T @ (x @ weight - y) / n
        total = total + mean * {"means": 1 / len(pieces), "sum": 1.0}.get(kind, n / sum(counts))
        if kind == "inside":
            total = total * min(1.0, max_norm / float(total.norm()))
    norm = float(total.norm())
    if kind == "always" or (kind != "inside" and norm > max_norm):
        total = total * (max_norm / norm)
    return weight - rate * total


def _accumulated(kind: str) -> Any:
    return lambda *given: accumulated(*given, kind=kind)


# ---- the catalogue ----------------------------------------------------------------------------

WRONG = {
    "08.pack": [
        Wrong("documents run into each other", _packed("joined"), "nothing stands between two"),
        Wrong("a [SEP] behind every sentence", _packed("sentences"), "ends a document, not"),
        Wrong("the rest as a short row", _packed("rest"), "does not fill the last row"),
        Wrong("rows without [CLS] and [SEP]", _packed("bare"), "begins with [CLS]"),
        Wrong("segment 1 behind [CLS]", _packed("types"), "a packed row is one segment"),
    ],
    "08.pair_row": [
        Wrong("no [SEP] at the end", _paired("no end"), "must end with a [SEP] too"),
        Wrong("no [SEP] between the texts", _paired("no middle"), "between the two texts"),
        Wrong("the first [SEP] in segment 1", _paired("middle is B"), "belongs to A"),
        Wrong("one segment for both", _paired("one segment"), "second text has segment 1"),
        Wrong("the label is lost", _paired("no label"), "the label"),
    ],
    "08.like_lengths": [
        Wrong("cut without sorting", unsorted_batches, "sort by length before you cut"),
        Wrong("batches from short to long", short_to_long, "come from short to long"),
        Wrong("the longest rows are always left out", drops_the_longest, "the same rows are left"),
        Wrong("sorted without shuffling", same_company, "always come together"),
        Wrong("the rest as a small batch", keeps_the_rest, "every batch has the same size"),
        Wrong("sorts the caller's list", sorts_in_place, "put in another order"),
    ],
    "08.collate": [
        Wrong("padding is always id 0", _collated("zero"), "it is not always 0"),
        Wrong("a mask that is True for padding", _collated("inverted"), "True for a token"),
        Wrong("a mask where nothing is padded", _collated("always"), "the mask must be None"),
        Wrong("a mask of integers", _collated("integer"), "it must be torch.bool"),
        Wrong("labels for what is no pair", _collated("labels"), "have no labels"),
    ],
    "08.Batch": [
        Wrong("padding counted as text", CountsPadding, "padding is not counted"),
        Wrong("id 0 taken for no target", SkipsZero, "id 0 can be asked for"),
        Wrong("every place counted as a target", CountsEverything, "every place was counted"),
        Wrong("inputs in the order of the fields", OwnOrder, "of the model is attention_mask"),
    ],
    "08.unigram_entropy": [
        Wrong("bits for nats", entropy_in_bits, "this is in bits"),
        Wrong("the logarithm of 0", entropy_of_nothing, "0 log 0 counts as 0"),
        Wrong("every word counted once", entropy_unweighted, "by its share, not once"),
    ],
    "08.blind_loss": [
        Wrong("no word can be copied", blind_without_copies, "it costs nothing"),
        Wrong("every seen word is the right one", blind_copies_for_certain, "for certain"),
        Wrong("the mix in another order", blind_in_the_other_order, "it costs nothing"),
    ],
    "08.start_from_frequencies": [
        Wrong("no smoothing", start_without_smoothing, "minus infinity"),
        Wrong("shares without the logarithm", start_with_shares, "not logarithms"),
        Wrong("another parameter in its place", start_with_another_tensor, "that is there"),
    ],
    "08.spread_positions": [
        Wrong("copied once only", spread_once, "go on to the end"),
        Wrong("the last vector everywhere", spread_last, "would all look alike"),
        Wrong("written into a copy", spread_into_a_copy, "the table is as it was"),
    ],
    "08.position_waves": [
        Wrong("all sines, then all cosines", waves_apart, "side by side"),
        Wrong("cosine before sine", waves_cosine_first, "sine comes first"),
        Wrong("counted from 1", waves_from_one, "position 0"),
    ],
    "08.turning": [
        Wrong("turned back", lambda angles: turning(angles).T, "turns back"),
        Wrong("for columns in blocks", turn_in_blocks, "two positions on"),
        Wrong("not turned at all", lambda angles: turning(0 * angles), "turn by 0.3"),
    ],
    "08.look_at_neighbors": [
        Wrong("the offset with the wrong sign", look_away, "other side"),
        Wrong("words in the columns of positions", look_through_words, "look"),
        Wrong("the second layer, too", look_in_every_layer, "only the first sees"),
        Wrong("heads without an offset, too", look_with_all_heads, "without an offset"),
    ],
    "08.learning_rate": [
        Wrong("a first step of rate 0", rate_wastes_a_step, "throws it away"),
        Wrong("the fall counted from step 0", rate_jumps, "the rate jumps"),
        Wrong("no fall after the warm-up", rate_stays, "never falls"),
    ],
    "08.decay_groups": [
        Wrong("whole names compared with parts of names", groups_by_exact_name, "not decay"),
        Wrong("a list of names that misses one", groups_by_expected_name, "not decay"),
        Wrong("biases in no group", groups_forget_the_rest, "it would never learn"),
        Wrong("frozen parameters kept", groups_with_frozen, "frozen"),
    ],
    "08.make_optimizer": [
        Wrong("Adam with the decay in the gradient", _optimizer(torch.optim.Adam), "be AdamW"),
        Wrong(
            "everything decays",
            _optimizer(torch.optim.AdamW, everything=True),
            "the weight decay of the groups",
        ),
        Wrong("not fused", _optimizer(torch.optim.AdamW, fused=False), "fused=True"),
    ],
    "08.train_step": [
        Wrong("the mean of means", _stepped("means"), "mean of the batches' means"),
        Wrong("the sum of means", _stepped("sum"), "the sum of the batches' losses"),
        Wrong("a step for each batch", _stepped("each batch"), "once for each batch"),
        Wrong("each parameter clipped alone", _stepped("each parameter"), "on its own"),
        Wrong("the norm after clipping", _stepped("norm after"), "the norm after clipping"),
        Wrong("the optimizer's own rate", _stepped("own rate"), "rate at the step"),
        Wrong("gradients left behind", _stepped("keeps gradients"), "gradients are left over"),
        Wrong("steps on nan", _stepped("carries on"), "moved by a gradient of nan"),
        Wrong("complains after the step", step_then_complain, "moved by a gradient of nan"),
        Wrong("forgets the other processes", _stepped("one process"), "two processes"),
    ],
    "08.evaluate": [
        Wrong("the mean of means", _evaluated("means"), "mean of the batches' means"),
        Wrong("perplexity for loss", _evaluated("perplexity"), "this is the perplexity"),
        Wrong("the first guess for the first five", _evaluated("top1 twice"), "top5"),
        Wrong("dropout left on", _evaluated("training"), "dropout was on"),
        Wrong("left in evaluation mode", _evaluated("leaves evaluation"), "another mode"),
    ],
    "08.training_flops": [
        Wrong("the forward pass alone", _flops("forward"), "the forward pass alone"),
        Wrong("scores at every token", _flops("everywhere"), "not everywhere"),
        Wrong("no word scores", _flops("no head"), "word scores are missing"),
        Wrong("six times the parameters", _flops("six"), "training_flops differs"),
    ],
    "08.inverse_root": [
        Wrong("a first step of rate 0", _inverse_root("step 0"), "step 0 has a rate of 0"),
        Wrong("no root", _inverse_root("no root"), "the root is missing"),
        Wrong("the root of the step alone", _inverse_root("from one"), "start from its peak"),
        Wrong("stays at the peak", _inverse_root("constant"), "stays at its peak"),
        Wrong("no cooldown", _inverse_root("endless"), "there is no cooldown"),
        Wrong("cooldown from the peak", _inverse_root("from peak"), "begins at the peak"),
        Wrong("root and cooldown at once", _inverse_root("both"), "goes on below"),
    ],
    "08.adamw_step": [
        Wrong("decay in the gradient", _adamw("coupled"), "the decay went into the gradient"),
        Wrong("decay without the rate", _adamw("unscaled"), "not multiplied by the rate"),
        Wrong("no decay", _adamw("none"), "there is no decay"),
        Wrong("always corrected", _adamw("always"), "bias correction"),
        Wrong("never corrected", _adamw("never"), "bias correction"),
        Wrong("only the weights returned", _adamw("weights only"), "return (weight, m, v)"),
    ],
    "08.loss_weights": [
        Wrong("the mean of means", _weights("means"), "this is the mean of means"),
        Wrong("the average forgotten", _weights("no world"), "averaged afterwards"),
        Wrong("targets of one process", _weights("own targets"), "those of all"),
        Wrong("times the batches", _weights("batches"), "multiplied by the number of batches"),
        Wrong("divided by nothing", _weights("divides by zero"), "ZeroDivisionError"),
    ],
    "08.useful_share": [
        Wrong("waste for use", _share("waste"), "share of waste"),
        Wrong("padded to the longest of all", _share("longest"), "longest of its own"),
        Wrong("everything sorted", _share("everything"), "within each window only"),
        Wrong("nothing sorted", _share("unsorted"), "were not sorted"),
        Wrong("the mean of the batches", _share("means"), "as much as a long one"),
        Wrong("the last batch dropped", _share("drops"), "the last batch is left out"),
    ],
    "08.unigram_perplexity": [
        Wrong("the loss itself", _perplexity("loss"), "this is the loss"),
        Wrong("nats to the power of two", _perplexity("two"), "base of the logarithm"),
        Wrong("shares that exceed 1", _perplexity("no total"), "do not sum to 1"),
        Wrong("asked about itself", _perplexity("itself"), "the counted text itself"),
        Wrong("every word once", _perplexity("once"), "each word counted once"),
    ],
    "08.training_days": [
        Wrong("the forward pass alone", _days("forward"), "the forward pass"),
        Wrong("the peak for the pace", _days("peak"), "does not reach its peak"),
        Wrong("hours", _days("hours"), "these are hours"),
        Wrong("six times the parameters", _days("six"), "this is 6 N"),
        Wrong("scores at every token", _days("everywhere"), "15 percent"),
        Wrong("one length for both phases", _days("length"), "its own phase"),
    ],
    "08.accumulation_bug": [
        Wrong("the mean of means", _accumulated("means"), "this is the mean of means"),
        Wrong("clipped inside the loop", _accumulated("inside"), "before all batches"),
        Wrong("the sum of means", _accumulated("sum"), "added up"),
        Wrong("always clipped", _accumulated("always"), "must stay as it is"),
    ],
}

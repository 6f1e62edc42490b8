"""Proves that a step of pre-training is what it says: rows hold every token once, several small
batches are one large one, the schedule and the decay are the stated ones, a loss that is not finite
harms nothing, and a model learns.

    pytest tests/test_pretraining.py
"""

from __future__ import annotations

import copy
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bertlearn.config import BertConfig
from bertlearn.masking import IGNORE, mask_tokens
from bertlearn.model import BertForPreTraining
from bertlearn.pairs import TextPair
from bertlearn.pretraining import (
    Batch,
    NonFiniteLoss,
    Row,
    blind_loss,
    collate,
    decay_groups,
    evaluate,
    learning_rate,
    like_lengths,
    make_optimizer,
    pack,
    pair_row,
    spread_positions,
    start_from_frequencies,
    train_step,
    training_flops,
    unigram_entropy,
)

CLS, SEP, PAD, MASK = 2, 3, 0, 4
SPECIAL = (0, 1, 2, 3, 4)


def config(**changes) -> BertConfig:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return BertConfig(**{**sizes, **changes})


def model(seed: int = 0, **changes) -> BertForPreTraining:
    torch.manual_seed(seed)
    return BertForPreTraining(config(**changes)).train()


def batch(rows: int, seq: int, seed: int, pairs: bool = False, rate: float = 0.3) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 64, (rows, seq), generator=rng)
    inputs, labels = mask_tokens(
        ids, rng, vocab_size=64, mask_id=MASK, special_ids=SPECIAL, rate=rate
    )
    mask = torch.arange(seq) < torch.randint(3, seq + 1, (rows, 1), generator=rng)
    labels = labels.masked_fill(~mask, IGNORE)
    answers = torch.randint(2, (rows,), generator=rng) if pairs else None
    return Batch(inputs, torch.zeros_like(ids), labels, mask, answers)


def joined(batches: list[Batch]) -> Batch:
    """The same rows as one batch, padded to the longest."""
    seq = max(b.input_ids.shape[1] for b in batches)
    columns = []
    for name, fill in (
        ("input_ids", PAD),
        ("token_type_ids", 0),
        ("labels", IGNORE),
        ("attention_mask", False),
    ):
        parts = [getattr(b, name) for b in batches]
        columns.append(
            torch.cat([nn.functional.pad(p, (0, seq - p.shape[1]), value=fill) for p in parts])
        )
    answers = [b.next_sentence_label for b in batches]
    whole = torch.cat(answers) if answers[0] is not None else None  # type: ignore[arg-type]
    return Batch(*columns, whole)


# ---- rows and batches ---------------------------------------------------------------------------

documents_of_ids = st.lists(
    st.lists(st.lists(st.integers(5, 99), min_size=1, max_size=9), max_size=5), max_size=8
)


@given(documents_of_ids, st.integers(3, 20))
def test_packed_rows_hold_every_token_once_in_order(documents, length):
    rows = pack(documents, length, CLS, SEP)
    assert all(len(row.ids) == len(row.type_ids) == length for row in rows)
    assert all(row.ids[0] == CLS and row.ids[-1] == SEP and row.label is None for row in rows)
    flat = [i for row in rows for i in row.ids[1:-1] if i != SEP]
    given_ids = [i for document in documents for sentence in document for i in sentence]
    assert flat == given_ids[: len(flat)]
    assert len(given_ids) - len(flat) < length - 2


def test_documents_are_parted_once():
    rows = pack([[[7, 8]], [[9]], [[10, 11]]], 9, CLS, SEP)
    assert [row.ids for row in rows] == [[CLS, 7, 8, SEP, 9, SEP, 10, 11, SEP]]


def test_a_pair_is_one_row_of_two_segments():
    row = pair_row(TextPair([7, 8], [9], 1), CLS, SEP)
    assert row == Row([CLS, 7, 8, SEP, 9, SEP], [0, 0, 0, 0, 1, 1], 1)


rows_of_lengths = st.lists(st.integers(2, 30), min_size=1, max_size=60).map(
    lambda lengths: [Row([5 + i] * n, [0] * n) for i, n in enumerate(lengths)]
)


@given(rows_of_lengths, st.integers(1, 9), st.integers(0, 99))
def test_batches_of_like_lengths_leave_out_less_than_a_batch(rows, size, seed):
    batches = like_lengths(rows, size, random.Random(seed))
    names = [row.ids[0] for one in batches for row in one]
    assert all(len(one) == size for one in batches)
    assert len(names) == len(set(names)) == len(rows) // size * size
    spans = sorted((min(ls), max(ls)) for ls in ([len(r.ids) for r in one] for one in batches))
    assert all(low[1] <= high[0] for low, high in zip(spans, spans[1:], strict=False))


@given(rows_of_lengths)
def test_collate_pads_to_the_longest_and_hides_padding(rows):
    ids, segments, mask, labels = collate(rows, PAD)
    lengths = [len(row.ids) for row in rows]
    assert ids.shape == segments.shape == (len(rows), max(lengths)) and labels is None
    assert ids.dtype == segments.dtype == torch.int64
    if mask is None:
        assert len(set(lengths)) == 1
    else:
        assert mask.dtype == torch.bool and mask.sum(1).tolist() == lengths
        assert (ids[~mask] == PAD).all() and (ids[mask] != PAD).all()


def test_a_batch_counts_and_splits():
    whole = batch(7, 10, 0, pairs=True)
    assert whole.tokens == int(whole.attention_mask.sum()) < 70
    assert whole.targets == int((whole.labels != IGNORE).sum())
    parts = whole.split(3)
    assert [len(part.input_ids) for part in parts] == [3, 3, 1]
    for name, column in vars(whole).items():
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), column)
    assert sum(part.targets for part in parts) == whole.targets
    assert all(x is None or x.device.type == "meta" for x in vars(whole.to("meta")).values())


# ---- the start ----------------------------------------------------------------------------------


def test_the_entropy_of_counts_by_hand():
    assert unigram_entropy(torch.tensor([4, 2, 1, 1, 0])) == pytest.approx(
        0.5 * math.log(2) + 0.25 * math.log(4) + 0.25 * math.log(8)
    )


def test_without_context_a_copied_word_still_helps():
    """Against a model of two tables that was given nothing but what stands at the blank."""
    counts = torch.tensor([2000 // (i + 1) for i in range(40)])
    assert blind_loss(counts, (1.0, 0.0, 0.0)) == pytest.approx(unigram_entropy(counts))
    assert unigram_entropy(counts) - blind_loss(counts) > 0.1
    rng = torch.Generator().manual_seed(0)
    true = torch.multinomial(counts.double(), 400_000, True, generator=rng)[None] + 1
    seen, labels = mask_tokens(
        true, rng, vocab_size=41, mask_id=0, special_ids=(0,), rate=1.0, mix=(0.8, 0.1, 0.1)
    )
    joint = torch.zeros(41, 41, dtype=torch.float64)
    joint.index_put_((labels[0], seen[0]), torch.ones(400_000).double(), accumulate=True)
    joint /= joint.sum()
    found = -torch.special.xlogy(joint, joint / joint.sum(0)).nansum().item()
    assert blind_loss(counts) == pytest.approx(found, abs=0.01)


def test_a_fresh_model_loses_the_logarithm_of_the_vocabulary():
    fresh = model(vocab_size=512)
    found = evaluate(fresh, [batch(16, 16, seed) for seed in range(4)])
    assert found.mlm_loss == pytest.approx(math.log(512), abs=0.3)
    fresh = model()
    answers = [fresh(*batch(16, 16, s, pairs=True).inputs).pair_loss.item() for s in range(4)]
    assert sum(answers) / 4 == pytest.approx(math.log(2), abs=0.1)


def test_a_model_that_starts_from_frequencies_loses_their_entropy():
    counts = torch.tensor([2.0 ** (12 - i // 5) for i in range(64)]).long()
    fresh = model()
    start_from_frequencies(fresh, counts)
    rng = torch.Generator().manual_seed(0)
    ids = torch.multinomial(counts.double(), 64 * 16, True, generator=rng).view(64, 16)
    loss = fresh(torch.full_like(ids, MASK), labels=ids).mlm_loss.item()
    assert loss == pytest.approx(unigram_entropy(counts), abs=0.2)


def test_positions_are_spread():
    fresh = model()
    table = fresh.bert.embeddings.position_embeddings.weight
    before = table.detach().clone()
    spread_positions(fresh, 12)
    assert torch.equal(table, before[torch.arange(32) % 12])


# ---- schedule and optimizer ---------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0, 1, 4, 10])
def test_the_rate_rises_to_its_peak_and_falls_to_almost_nothing(warmup):
    rates = [learning_rate(s, 10, 2.0, warmup) for s in range(10)]
    assert max(rates) == 2.0 and min(rates) > 0
    rise = max(warmup, 1)
    assert rates[:rise] == sorted(rates[:rise])
    assert rates[rise:] == sorted(rates[rise:], reverse=True)


def test_rates_by_hand():
    assert [learning_rate(s, 6, 1.0, 2) for s in range(6)] == [0.5, 1, 1, 0.75, 0.5, 0.25]


def test_every_parameter_is_in_one_group_by_its_rank():
    some = model()
    heavy, light = decay_groups(some, 0.1)
    assert (heavy["weight_decay"], light["weight_decay"]) == (0.1, 0.0)
    decays = {id(p) for p in heavy["params"]}
    spared = {id(p) for p in light["params"]}
    assert len(decays) + len(spared) == len(heavy["params"]) + len(light["params"])
    for name, p in some.named_parameters():
        matrix = name.endswith("weight") and "LayerNorm" not in name
        assert (id(p) in decays) == matrix and (id(p) in spared) == (not matrix), name


def test_the_optimizer_is_fused_and_does_not_decay_a_norm():
    some = model()
    optimizer = make_optimizer(some, weight_decay=0.5)
    norm = some.bert.embeddings.LayerNorm.weight
    matrix = some.bert.encoder.layer[0].intermediate.dense.weight
    before = matrix.detach().clone()
    for p in some.parameters():
        p.grad = torch.zeros_like(p)
    for group in optimizer.param_groups:
        assert group["fused"]
        group["lr"] = 0.1
    optimizer.step()
    assert torch.equal(norm, torch.ones_like(norm))
    assert torch.allclose(matrix, before * (1 - 0.1 * 0.5))


# ---- one step -----------------------------------------------------------------------------------


class Watched(torch.optim.SGD):
    """Keeps the gradients of its last step."""

    def step(self, closure=None):
        self.kept = [p.grad.clone() for g in self.param_groups for p in g["params"]]


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.integers(0, 9))
def test_small_batches_are_one_large_one(sizes, pairs, seed):
    batches = [batch(n, 6 + 3 * i, seed + i, pairs) for i, n in enumerate(sizes)]
    kept = []
    for given_batches in (batches, [joined(batches)]):
        some = model().double()
        optimizer = Watched(some.parameters(), lr=1.0)
        for p in some.parameters():
            p.grad = torch.zeros_like(p)
        result = train_step(some, optimizer, given_batches, 1e-3, max_norm=0.5)
        kept.append((optimizer.kept, result))
    for one, other in zip(kept[0][0], kept[1][0], strict=True):
        assert torch.allclose(one, other, atol=1e-6, rtol=0)
    assert kept[0][1].mlm_loss == pytest.approx(kept[1][1].mlm_loss, abs=1e-9)
    assert kept[0][1].tokens == kept[1][1].tokens == sum(b.tokens for b in batches)
    if pairs:
        assert kept[0][1].pair_loss == pytest.approx(kept[1][1].pair_loss, abs=1e-9)


def test_all_gradients_share_one_limit():
    some = model()
    optimizer = Watched(some.parameters(), lr=1.0)
    for p in some.parameters():
        p.grad = torch.zeros_like(p)
    result = train_step(some, optimizer, [batch(8, 12, 0)], 1e-3, max_norm=0.01)
    norm = torch.stack([g.norm() for g in optimizer.kept]).norm().item()
    assert norm == pytest.approx(0.01, rel=1e-3) and result.grad_norm > 0.1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(bad):
    some = model()
    optimizer = make_optimizer(some)
    train_step(some, optimizer, [batch(4, 8, 1)], 1e-3)
    with torch.no_grad():
        some.cls.predictions.bias[7] = bad
    weights = copy.deepcopy(some.state_dict())
    moments = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(NonFiniteLoss, match="the loss is"):
        train_step(some, optimizer, [batch(4, 8, 2)], 1e-3)
    for name, value in some.state_dict().items():
        assert torch.equal(value.nan_to_num(), weights[name].nan_to_num()), name
    after = optimizer.state_dict()["state"]
    for key, state in moments["state"].items():
        assert all(torch.equal(state[k], after[key][k]) for k in state)
    assert all(p.grad is None for p in some.parameters())


def test_a_step_without_targets_moves_nothing_by_nan():
    some = model()
    nothing = batch(4, 8, 1)
    nothing.labels.fill_(IGNORE)
    result = train_step(some, make_optimizer(some), [nothing], 1e-3)
    assert result.mlm_loss == 0.0
    assert all(torch.isfinite(p).all() for p in some.parameters())


def test_it_learns_one_batch_by_heart():
    some = model()
    optimizer = make_optimizer(some)
    one = batch(8, 12, 0, pairs=True)
    for _ in range(150):
        result = train_step(some, optimizer, one.split(3), 5e-3)
    assert result.mlm_loss < 0.1 and result.pair_loss < 0.1
    found = evaluate(some, [one])
    assert found.top1 == found.top5 == found.pair_accuracy == 1.0


# ---- how good, how fast -------------------------------------------------------------------------


def test_evaluation_is_a_mean_over_targets_without_dropout():
    some = model(hidden_dropout_prob=0.5)
    batches = [batch(2, 6, 0, True, 0.1), batch(9, 14, 1, True, 0.9)]
    found, again = evaluate(some, batches), evaluate(some, [joined(batches)])
    assert some.training
    for name, value in vars(found).items():
        assert value == pytest.approx(vars(again)[name], abs=1e-5), name
    assert evaluate(some, []).mlm_loss == 0.0 and evaluate(some, []).pair_accuracy is None


@pytest.mark.parametrize("seq", [16, 32])
def test_operations_are_those_that_torch_counts(seq):
    size = config(attn_implementation="eager")
    some = BertForPreTraining(size)
    ids = torch.randint(5, 64, (4, seq))
    labels = torch.full_like(ids, IGNORE)
    labels[:, : seq // 4] = ids[:, : seq // 4]
    with FlopCounterMode(display=False) as counter:
        some(ids, labels=labels).mlm_loss.backward()
    assert counter.get_total_flops() == pytest.approx(
        4 * seq * training_flops(size, seq, 0.25), rel=0.02
    )

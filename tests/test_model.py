"""The package core piece by piece: config, embeddings, attention, encoder, model, accounting,
tokenizer front.

Proved here: bad input gives one sentence that says what was wrong; the fused and the eager path are
equal, rows without a single key included; dropout acts only in training; fresh weights have the
statistics of the original; formulas (sinusoids, attention, LayerNorm, FLOPs, counts) match numbers
worked out by hand or by torch's own operators. What agrees with transformers: test_parity.py.

    pytest tests/test_model.py
"""

import dataclasses
import math
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bertlearn.accounting import count_parameters, forward_flops_per_token, parameter_table
from bertlearn.attention import (
    BertSelfAttention,
    key_mask,
    merge_heads,
    scaled_dot_product_attention,
    split_heads,
)
from bertlearn.config import PRESETS, BertConfig
from bertlearn.embeddings import BertEmbeddings, sinusoidal_positions
from bertlearn.encoder import ACTIVATIONS, AddNorm, BertLayer
from bertlearn.model import BertModel, BertPooler, init_weights, mean_pool
from bertlearn.tokenization import BertTokenizer

TINY = BertConfig(
    vocab_size=31,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=10,
)


def tiny(**changes):
    return dataclasses.replace(TINY, **changes)


def a_model(**changes):
    """Random weights far from zero, in evaluation mode."""
    torch.manual_seed(0)
    model = BertModel(tiny(**changes)).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.4)
    return model


def some_ids(batch=2, seq=6, seed=1):
    return torch.randint(0, 31, (batch, seq), generator=torch.Generator().manual_seed(seed))


def randn(*shape, seed=2, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(got, want, tolerance=1e-6):
    torch.testing.assert_close(got, want, atol=tolerance, rtol=0)


# ---------------------------------------------------------------- config
def test_defaults_are_bert_base():
    config = BertConfig()
    assert config == BertConfig.preset("base")
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (
        768,
        12,
        12,
    )
    assert config.head_size == 64 and config.intermediate_size == 3072


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    config = BertConfig.preset(name)
    assert config.head_size == 64
    assert config.intermediate_size == 4 * config.hidden_size
    assert BertConfig.preset(name, vocab_size=100).vocab_size == 100


def test_an_unknown_preset():
    with pytest.raises(ValueError, match="no preset 'huge': choose one of .*'base'"):
        BertConfig.preset("huge")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size 12 does not divide into 5 heads"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a whole number of at least 1"),
        ({"hidden_size": 0}, "hidden_size must be a whole number of at least 1, not 0"),
        ({"hidden_size": -12}, "hidden_size must be a whole number of at least 1, not -12"),
        ({"hidden_size": 12.0}, "hidden_size must be a whole number of at least 1, not 12.0"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be a whole number"),
        ({"vocab_size": None}, "vocab_size must be a whole number"),
        ({"type_vocab_size": "2"}, "type_vocab_size must be a whole number of at least 1, not '2'"),
        ({"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob must lie in \[0, 1\), not 1.0"),
        ({"attention_probs_dropout_prob": -0.1}, r"attention_probs_dropout_prob must lie in"),
        ({"hidden_dropout_prob": math.nan}, "hidden_dropout_prob must lie in .* not nan"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps must be positive, not 0.0"),
        ({"layer_norm_eps": math.nan}, "layer_norm_eps must be positive, not nan"),
        ({"initializer_range": -1}, "initializer_range must be positive, not -1"),
        ({"pad_token_id": 31}, "pad_token_id 31 is not in the vocabulary of 31"),
        ({"pad_token_id": -1}, "pad_token_id -1 is not in the vocabulary"),
        ({"hidden_act": "swish"}, "hidden_act must be one of .*gelu_new.* not 'swish'"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type must be one of"),
        ({"attn_implementation": "flash"}, "attn_implementation must be one of"),
    ],
)
def test_a_config_that_makes_no_sense(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        tiny(**changes)
    assert "\n" not in str(caught.value)


def test_a_config_is_frozen_and_makes_a_round_trip():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.hidden_size = 24
    assert BertConfig.from_dict(TINY.to_dict()) == TINY
    assert BertConfig.from_dict({**TINY.to_dict(), "architectures": ["X"]}) == TINY
    assert hash(TINY) == hash(tiny())


# ---------------------------------------------------------------- embeddings
def test_embeddings_are_the_normalized_sum_of_three_rows():
    model = a_model().embeddings
    ids, types = torch.tensor([[4, 7, 4]]), torch.tensor([[0, 1, 1]])
    words, places, kinds = (
        getattr(model, f"{name}_embeddings").weight for name in ("word", "position", "token_type")
    )
    for place, (word, kind) in enumerate([(4, 0), (7, 1), (4, 1)]):
        x = words[word] + places[place] + kinds[kind]
        x = (x - x.mean()) / (x.var(unbiased=False) + 1e-12).sqrt()
        want = x * model.LayerNorm.weight + model.LayerNorm.bias
        close(model(ids, types)[0, place], want, 1e-5)
    assert torch.equal(model(ids), model(ids, torch.zeros_like(ids)))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.tensor([[0, 31]]), ValueError, r"input_ids holds 31, but .* 31 rows \(0 to 30\)"),
        (torch.tensor([[0, -1]]), ValueError, "input_ids holds -1"),
        (torch.tensor([[0.0, 1.0]]), TypeError, "input_ids must be integer ids, not torch.float32"),
        (torch.tensor([[True]]), TypeError, "integer ids, not torch.bool"),
        (torch.tensor([[1j]]), TypeError, "integer ids, not torch.complex64"),
        (torch.zeros(0, 5, dtype=torch.long), ValueError, r"at least one token, not \(0, 5\)"),
        (torch.zeros(2, 0, dtype=torch.long), ValueError, r"at least one token, not \(2, 0\)"),
        (torch.tensor([1, 2]), ValueError, r"must have shape \(batch, seq\) .* not \(2,\)"),
        (torch.zeros(1, 1, 1, dtype=torch.long), ValueError, r"not \(1, 1, 1\)"),
        (torch.zeros(1, 11, dtype=torch.long), ValueError, "11 tokens .* only 10 position vectors"),
    ],
)  # fmt: skip
def test_ids_without_a_vector(ids, error, message):
    model = a_model()
    for call in (model, model.embeddings):
        with pytest.raises(error, match=message) as caught:
            call(ids)
        assert "\n" not in str(caught.value)


def test_segments_without_a_vector():
    model, ids = a_model(), some_ids()
    with pytest.raises(ValueError, match="token_type_ids holds 2, but its table has 2 rows"):
        model(ids, torch.full_like(ids, 2))
    with pytest.raises(TypeError, match="token_type_ids must be integer ids"):
        model(ids, torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"token_type_ids \(2, 5\) must have the shape of input"):
        model(ids, torch.zeros(2, 5, dtype=torch.long))


def test_the_longest_sequence_fits():
    model = a_model()
    assert model(some_ids(1, 10)).last_hidden_state.shape == (1, 10, 12)
    assert model(torch.tensor([[30]], dtype=torch.int32)).last_hidden_state.shape == (1, 1, 12)


def test_sinusoids_at_points_worked_out_by_hand():
    table = sinusoidal_positions(200, 8)
    assert table.dtype == torch.float32 and table.shape == (200, 8)
    close(table[0], torch.tensor([0.0, 1.0] * 4))
    # position 1: angles 1, 1/10, 1/100, 1/1000
    first = [0.841471, 0.540302, 0.0998334, 0.9950042, 0.0099998, 0.99995, 0.001, 0.9999995]
    close(table[1], torch.tensor(first))
    # position 100: angles 100, 10, 1, 0.1
    far = [-0.5063656, 0.8623189, -0.5440211, -0.8390715, 0.841471, 0.540302, 0.0998334, 0.9950042]
    close(table[100], torch.tensor(far))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_sinusoids_know_distances_only(positions, half, data):
    table = sinusoidal_positions(positions, 2 * half).double()
    step = data.draw(st.integers(0, positions - 1))
    dots = (table[: positions - step] * table[step:]).sum(dim=-1)
    close(dots, dots[:1].expand_as(dots), 1e-5)
    close(
        table.square().sum(dim=-1), torch.full((positions,), float(half), dtype=torch.double), 1e-5
    )


def test_sinusoids_need_pairs():
    with pytest.raises(ValueError, match="hidden_size must be even .* not 7"):
        sinusoidal_positions(4, 7)


def test_the_sinusoidal_table_is_fixed():
    torch.manual_seed(0)
    model = BertModel(tiny(position_embedding_type="sinusoidal"))
    table = model.embeddings.position_embeddings.weight
    # init_weights left it alone; as small as fresh token vectors
    close(table, TINY.initializer_range * sinusoidal_positions(10, 12), 0)
    assert not table.requires_grad
    before = table.clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(some_ids()).pooler_output.sum().backward()
    optimizer.step()
    assert torch.equal(table, before) and table.grad is None
    assert "embeddings.position_embeddings.weight" in model.state_dict()


# ---------------------------------------------------------------- attention
def test_attention_on_numbers_worked_out_by_hand():
    # scores / sqrt(4): [ln 3, 0]; weights 3/4, 1/4
    query = torch.tensor([[2 * math.log(3), 0.0, 0.0, 0.0]])
    key = torch.tensor([[1.0, 0.0, 5.0, 0.0], [0.0, 7.0, 0.0, 1.0]])
    value = torch.tensor([[8.0, 0.0], [0.0, 4.0]])
    mixed, weights = scaled_dot_product_attention(query, key, value)
    close(weights, torch.tensor([[0.75, 0.25]]))
    close(mixed, torch.tensor([[6.0, 1.0]]), 1e-5)
    mixed, weights = scaled_dot_product_attention(
        query, key, value, mask=torch.tensor([[False, True]])
    )
    assert torch.equal(weights, torch.tensor([[0.0, 1.0]]))
    assert torch.equal(mixed, torch.tensor([[0.0, 4.0]]))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 7), st.integers(1, 6), st.booleans(), st.integers(0, 10**6)
)
def test_attention_is_torchs_own(queries, keys, width, masked, seed):
    query, key = randn(2, 3, queries, width, seed=seed), randn(2, 3, keys, width, seed=seed + 1)
    value = randn(2, 3, keys, width + 1, seed=seed + 2)
    mask = None
    if masked:
        mask = randn(2, 3, queries, keys, seed=seed + 3) > 0
        mask[..., seed % keys] = True  # torch's operator wants a key for each query
    mixed, weights = scaled_dot_product_attention(query, key, value, mask)
    close(mixed, F.scaled_dot_product_attention(query, key, value, mask), 1e-5)
    close(weights.sum(dim=-1), torch.ones(2, 3, queries))
    if masked:
        assert not weights[~mask].any()


def test_a_query_without_keys_attends_evenly():
    mixed, weights = scaled_dot_product_attention(
        randn(1, 2, 4), randn(1, 5, 4), randn(1, 5, 3), mask=torch.zeros(1, 2, 5, dtype=torch.bool)
    )
    close(weights, torch.full((1, 2, 5), 0.2))
    close(mixed, randn(1, 5, 3).mean(dim=1, keepdim=True).expand(1, 2, 3))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_heads_split_and_merge(batch, seq, heads, width):
    x = randn(batch, seq, heads * width)
    split = split_heads(x, heads)
    assert split.shape == (batch, heads, seq, width)
    for head in range(heads):
        assert torch.equal(split[:, head], x[:, :, head * width : (head + 1) * width])
    assert torch.equal(merge_heads(split), x)


def test_key_mask():
    mask = key_mask(torch.tensor([[1, 1, 0], [1, 0, 0]]))
    assert mask.shape == (2, 1, 1, 3) and mask.dtype == torch.bool
    assert mask[:, 0, 0].tolist() == [[True, True, False], [True, False, False]]
    assert torch.equal(mask, key_mask(mask[:, 0, 0]))
    with pytest.raises(TypeError, match="bool or integer .* not torch.float32: compare it first"):
        key_mask(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"shape \(batch, seq\), not \(2, 1, 1, 3\)"):
        key_mask(mask)


def test_masks_of_a_wrong_kind():
    model, ids = a_model(), some_ids()
    with pytest.raises(TypeError, match="attention_mask must be bool or integer"):
        model(ids, attention_mask=torch.ones(2, 6))
    with pytest.raises(
        ValueError, match=r"attention_mask \(2, 5\) must have the shape of input_ids"
    ):
        model(ids, attention_mask=torch.ones(2, 5, dtype=torch.long))
    with pytest.raises(ValueError, match=r"attention_mask \(1, 6\) must have the shape"):
        model(ids, attention_mask=torch.ones(1, 6, dtype=torch.long))


MASKS = {
    "none": None,
    "padding": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]],
    "a row of padding": [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
    "all padding": [[0] * 6, [0] * 6],
    "holes": [[1, 0, 1, 0, 1, 1], [0, 0, 1, 1, 0, 1]],
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("heads", [1, 3, 4])
def test_fused_and_eager_agree(heads, mask):
    """Output everywhere; gradients of any loss that asks nothing of a row that is all padding."""
    mask = None if mask is None else torch.tensor(mask)
    eager = a_model(num_attention_heads=heads, attn_implementation="eager")
    fused = a_model(num_attention_heads=heads, attn_implementation="sdpa")
    assert fused.encoder.layer[0].attention.self.fused
    grads = []
    outs = []
    for model in (eager, fused):
        out = model(some_ids(), attention_mask=mask)
        assert torch.isfinite(out.last_hidden_state).all()
        cotangent = randn(2, 6, 12)
        if mask is not None:
            cotangent[~mask.bool().any(dim=1)] = 0
        (out.last_hidden_state * cotangent).sum().backward()
        grads.append([p.grad for n, p in model.named_parameters() if "pooler" not in n])
        outs.append(out)
    close(outs[1].last_hidden_state, outs[0].last_hidden_state, 1e-5)
    close(outs[1].pooler_output, outs[0].pooler_output, 1e-5)
    for got, want in zip(grads[1], grads[0], strict=True):
        assert torch.isfinite(want).all()
        close(got, want, 1e-5 * max(1.0, want.abs().max().item()))


def test_masks_may_be_bool_or_integer():
    model, mask = a_model(), torch.tensor(MASKS["padding"])
    want = model(some_ids(), attention_mask=mask).last_hidden_state
    for other in (mask.bool(), mask.int(), mask.to(torch.uint8)):
        assert torch.equal(model(some_ids(), attention_mask=other).last_hidden_state, want)
    ones = torch.ones_like(mask)
    close(
        model(some_ids(), attention_mask=ones).last_hidden_state,
        model(some_ids()).last_hidden_state,
    )


def test_asking_for_weights_does_not_change_the_result():
    model = a_model()
    plain = model(some_ids())
    told = model(some_ids(), output_attentions=True, output_hidden_states=True)
    close(told.last_hidden_state, plain.last_hidden_state, 1e-5)
    assert plain.attentions is None and plain.hidden_states is None
    assert len(told.attentions) == 2 and len(told.hidden_states) == 3
    assert told.attentions[0].shape == (2, 3, 6, 6)
    assert told.hidden_states[-1] is told.last_hidden_state
    for weights in told.attentions:
        close(weights.sum(dim=-1), torch.ones(2, 3, 6), 1e-5)


def test_without_positions_attention_sees_a_set():
    """Permuting the tokens permutes the output: order comes from the position table alone."""
    attention = a_model().encoder.layer[0]
    x, order = randn(1, 6, 12), torch.tensor([3, 0, 5, 1, 4, 2])
    close(attention(x[:, order])[0], attention(x)[0][:, order], 1e-5)
    model = a_model()
    ids = torch.tensor([[2, 7, 9, 11, 4, 3]])
    moved = model(ids[:, order]).last_hidden_state
    assert (moved - model(ids).last_hidden_state[:, order]).abs().max() > 0.1


# ---------------------------------------------------------------- encoder
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    want = {
        "gelu": x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
        "gelu_new": x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "relu": x.clamp(min=0),
    }[name]
    close(ACTIVATIONS[name](x), want, 1e-12)


def test_the_two_gelus_differ_by_less_than_a_thousandth():
    x = torch.linspace(-6, 6, 10001, dtype=torch.float64)
    gap = (ACTIVATIONS["gelu"](x) - ACTIVATIONS["gelu_new"](x)).abs().max()
    assert 4.6e-4 < gap < 4.8e-4


def test_norm_comes_after_the_residual():
    block = AddNorm(20, TINY).eval()
    nn.init.normal_(block.dense.weight)
    wide, residual = randn(2, 6, 20), randn(2, 6, 12, seed=3)
    want = F.layer_norm(residual + block.dense(wide), (12,), eps=1e-12)
    close(block(wide, residual), want, 1e-5)
    close(block(wide, residual).mean(dim=-1), torch.zeros(2, 6), 1e-5)


def test_a_layer_is_attention_then_feed_forward():
    layer = a_model().encoder.layer[0]
    x = randn(2, 6, 12)
    context, _ = layer.attention.self(x)
    attended = layer.attention.output.LayerNorm(x + layer.attention.output.dense(context))
    widened = F.gelu(layer.intermediate.dense(attended))
    assert widened.shape == (2, 6, 20)
    want = layer.output.LayerNorm(attended + layer.output.dense(widened))
    close(layer(x)[0], want, 1e-5)


def test_layers_have_weights_of_their_own():
    layers = BertModel(TINY).encoder.layer
    assert len({p.data_ptr() for p in layers.parameters()}) == 2 * len(list(layers[0].parameters()))
    assert not torch.equal(layers[0].output.dense.weight, layers[1].output.dense.weight)


# ---------------------------------------------------------------- model
def test_pooler_sees_cls_only():
    pooler = BertPooler(TINY)
    x = randn(2, 6, 12)
    want = torch.tanh(x[:, 0] @ pooler.dense.weight.T + pooler.dense.bias)
    close(pooler(x), want)
    other = x.clone()
    other[:, 1:] = 0
    assert torch.equal(pooler(other), pooler(x))


def test_a_model_without_pooler():
    model = BertModel(TINY, add_pooling_layer=False)
    assert model(some_ids()).pooler_output is None
    assert not any("pooler" in key for key in model.state_dict())


def test_mean_pool_leaves_padding_out():
    states = randn(2, 4, 3)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    want = torch.stack([states[0].mean(dim=0), states[1, :2].mean(dim=0)])
    for kind in (mask, mask.bool(), mask.float()):
        close(mean_pool(states, kind), want)
    states[1, 2:] = 1e9
    close(mean_pool(states, mask)[1], want[1])


def test_dropout_acts_in_training_only():
    model = a_model(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    ids = some_ids()
    assert torch.equal(model(ids).last_hidden_state, model(ids).last_hidden_state)
    model.train()
    assert not torch.equal(model(ids).last_hidden_state, model(ids).last_hidden_state)
    model.eval()
    still = a_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    assert torch.equal(model(ids).last_hidden_state, still(ids).last_hidden_state)
    still.train()
    assert torch.equal(still(ids).last_hidden_state, still.eval()(ids).last_hidden_state)


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_attention_dropout_drops_whole_weights_and_keeps_the_mean(attn):
    torch.manual_seed(0)
    config = tiny(attention_probs_dropout_prob=0.25, attn_implementation=attn)
    attention = BertSelfAttention(config)
    x = randn(1, 6, 12)
    attention.eval()
    want = attention(x)[0]
    attention.train()
    many = x.expand(4000, 6, 12)
    draws = attention(many)[0][:, None]
    assert draws.std(dim=0).min() > 0
    error = (draws.mean(dim=0) - want) / (draws.std(dim=0) / math.sqrt(4000))
    assert error.abs().max() < 5  # standard errors, over 72 numbers
    if attn == "eager":
        shares = attention(many[:300], output_attentions=True)[1]
        assert abs((shares == 0).double().mean() - 0.25) < 0.01


def test_embedding_and_residual_dropout_have_the_configured_rate():
    embeddings = BertEmbeddings(tiny(hidden_dropout_prob=0.3)).train()
    layer = BertLayer(tiny(hidden_dropout_prob=0.2))
    assert embeddings.dropout.p == 0.3
    assert layer.attention.output.dropout.p == layer.output.dropout.p == 0.2
    torch.manual_seed(0)
    zeros = (embeddings(some_ids(20, 10)) == 0).double().mean()
    assert abs(zeros - 0.3) < 0.05


def test_fresh_weights():
    torch.manual_seed(0)
    model = BertModel(BertConfig.preset("tiny"))
    # a normal distribution cut at two standard deviations has 0.8796 of its spread
    cut = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))
    assert abs(cut - 0.8796) < 1e-4
    matrices = 0
    for name, parameter in model.named_parameters():
        if "LayerNorm.weight" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            matrices += 1
            count = parameter.numel()
            assert parameter.abs().max() <= 0.04 * (1 + 1e-6), name
            error = abs(parameter.std().item() / (0.02 * cut) - 1)
            assert error < max(0.01, 5 / math.sqrt(2 * count)), (name, error)
            assert abs(parameter.mean().item()) < 5 * 0.02 / math.sqrt(count), name
    assert matrices == 3 + 2 * 6 + 1


def test_fresh_weights_repeat_with_the_seed_and_follow_the_range():
    torch.manual_seed(5)
    one = BertModel(TINY)
    torch.manual_seed(5)
    two = BertModel(TINY)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    init_weights(two, tiny(initializer_range=0.5))
    assert 0.3 < two.pooler.dense.weight.std() < 0.6
    assert not torch.equal(one.pooler.dense.weight, two.pooler.dense.weight)


def test_gradient_reaches_every_parameter():
    model = a_model()
    out = model(some_ids(8, 10), attention_mask=torch.ones(8, 10, dtype=torch.long))
    (out.last_hidden_state * randn(8, 10, 12)).sum().backward()
    for name, parameter in model.named_parameters():
        if "pooler" in name:
            assert parameter.grad is None
        elif "self.key.bias" in name:  # adds the same to all scores of a query: softmax ignores it
            assert parameter.grad.abs().max() < 1e-4
        else:
            assert parameter.grad.abs().max() > 1e-3, name


def test_double_precision_and_the_meta_device():
    model = a_model().double()
    assert model(some_ids()).last_hidden_state.dtype == torch.float64
    with torch.device("meta"):
        large = BertModel(BertConfig.preset("large"))
    assert sum(p.numel() for p in large.parameters()) == 335_141_888


def test_bfloat16_stays_finite_under_padding():
    for attn in ("eager", "sdpa"):
        model = a_model(attn_implementation=attn).bfloat16()
        out = model(some_ids(), attention_mask=torch.tensor(MASKS["a row of padding"]))
        assert out.last_hidden_state.dtype == torch.bfloat16
        assert torch.isfinite(out.last_hidden_state).all()


def test_state_dict_names():
    keys = list(a_model().state_dict())
    for key in keys:
        assert re.fullmatch(
            r"embeddings\.((word|position|token_type)_embeddings\.weight|LayerNorm\.(weight|bias))"
            r"|encoder\.layer\.[01]\.(attention\.self\.(query|key|value)|attention\.output\.dense"
            r"|attention\.output\.LayerNorm|intermediate\.dense|output\.dense|output\.LayerNorm)"
            r"\.(weight|bias)|pooler\.dense\.(weight|bias)",
            key,
        ), key
    assert len(keys) == 5 + 2 * 16 + 2
    with torch.device("meta"):
        assert len(BertModel(BertConfig()).state_dict()) == 199


# ---------------------------------------------------------------- accounting
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 50), st.integers(1, 4), st.integers(1, 5), st.integers(0, 3), st.integers(1, 30),
    st.integers(1, 9), st.integers(1, 3), st.booleans(),
)  # fmt: skip
def test_the_table_counts_what_the_model_has(vocab, heads, width, layers, wide, seq, types, pooler):
    config = BertConfig(
        vocab_size=vocab,
        hidden_size=heads * width,
        num_attention_heads=heads,
        num_hidden_layers=layers + 1,
        intermediate_size=wide,
        max_position_embeddings=seq,
        type_vocab_size=types,
    )
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=pooler)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert count_parameters(config, pooler) == sum(sizes.values())
    parts = {
        "token embeddings": "embeddings.word",
        "position embeddings": "embeddings.position",
        "segment embeddings": "embeddings.token_type",
        "embeddings LayerNorm": r"embeddings.LayerNorm",
        "query, key, value": r"attention\.self",
        "attention output": r"attention\.output\.dense",
        "attention LayerNorm": r"attention\.output\.LayerNorm",
        "feed-forward, widen": "intermediate",
        "feed-forward, narrow": r"\d\.output\.dense",
        "feed-forward LayerNorm": r"\d\.output\.LayerNorm",
        "pooler": "pooler",
    }
    table = parameter_table(config, pooler)
    assert set(parts) - set(table) == (set() if pooler else {"pooler"})
    for part, count in table.items():
        assert count == sum(n for name, n in sizes.items() if re.search(parts[part], name)), part


def test_bert_base_part_by_part():
    table = parameter_table(BertConfig())
    assert table["token embeddings"] == 30522 * 768 == 23_440_896
    assert table["query, key, value"] == 12 * 3 * (768 * 768 + 768) == 21_261_312
    assert table["feed-forward, widen"] == 12 * (768 * 3072 + 3072) == 28_348_416
    assert sum(table.values()) == 109_482_240
    assert count_parameters(BertConfig.preset("chinese")) == 102_267_648


def test_flops_of_bert_base():
    # 12 x (8 x 768^2 + 4 x 768 x 3072 + 4 x 128 x 768)
    assert forward_flops_per_token(BertConfig(), seq=128) == 174_587_904
    more = forward_flops_per_token(BertConfig(), seq=129)
    assert more - 174_587_904 == 12 * 4 * 768


def test_flops_are_those_of_the_products_that_run():
    from torch.utils.flop_counter import FlopCounterMode

    for attn in ("eager", "sdpa"):
        model = a_model(attn_implementation=attn)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            embedded = model.embeddings(some_ids(2, 6))
            model.encoder(embedded)
        want = 2 * 6 * forward_flops_per_token(TINY, seq=6)
        if attn == "eager":
            assert counter.get_total_flops() == want
        else:
            assert counter.get_total_flops() <= want


# ---------------------------------------------------------------- tokenizer front
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##able", "the", "A", "a", "河", "!"]


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return path


def test_tokenizer(vocab):
    tokenizer = BertTokenizer.from_file(vocab)
    encoded = tokenizer.encode("Unable, THE 河!", "á")
    assert encoded.tokens == [
        "[CLS]", "un", "##able", "[UNK]", "the", "河", "!", "[SEP]", "a", "[SEP]",
    ]  # fmt: skip
    assert encoded.ids == [2, 5, 6, 1, 7, 10, 11, 3, 9, 3]
    assert encoded.type_ids == [0] * 8 + [1, 1]
    assert encoded.offsets[1:3] == [(0, 2), (2, 6)]
    assert tokenizer.decode(encoded.ids) == "unable the 河! a"
    assert tokenizer.vocab_size == 12
    assert tokenizer.token_to_id("the") == 7 and tokenizer.id_to_token(7) == "the"
    assert BertTokenizer.from_file(vocab, lowercase=False).encode("A").ids == [2, 8, 3]
    with pytest.raises(KeyError, match="'zebra' is not in the vocabulary"):
        tokenizer.token_to_id("zebra")


def test_tokenizer_batches(vocab):
    tokenizer = BertTokenizer.from_file(str(vocab))
    batch = tokenizer.encode_batch(["the the the", "a", ("the", "a")])
    assert [e.ids for e in batch] == [[2, 7, 7, 7, 3], [2, 9, 3, 0, 0], [2, 7, 3, 9, 3]]
    assert batch[1].attention_mask == [1, 1, 1, 0, 0]
    assert batch[1].special_tokens_mask == [1, 0, 1, 1, 1]
    cut = tokenizer.encode_batch(["the the the", ("the a the a", "a")], max_length=5)
    assert [e.ids for e in cut] == [[2, 7, 7, 7, 3], [2, 7, 3, 9, 3]]
    assert tokenizer.encode("the the the the").ids == [2, 7, 7, 7, 7, 3]
    assert tokenizer.encode_batch([]) == []


@pytest.mark.parametrize("length", [2, 1, 0, -1])
def test_a_max_length_without_room(length, vocab):
    tokenizer = BertTokenizer.from_file(vocab)
    with pytest.raises(ValueError, match=f"max_length must be at least 3 .*: {length}"):
        tokenizer.encode_batch(["the"], max_length=length)
    with pytest.raises(ValueError, match="max_length must be at least 5"):
        tokenizer.encode_batch(["the", ("the", "a")], max_length=length + 2)


def test_a_vocabulary_that_is_none(tmp_path, vocab):
    with pytest.raises(FileNotFoundError, match="no vocabulary at .*nowhere"):
        BertTokenizer.from_file(tmp_path / "nowhere.txt")
    with pytest.raises(FileNotFoundError, match="is a folder: name the file in it"):
        BertTokenizer.from_file(tmp_path)
    vocab.write_text("[PAD]\n[UNK]\n[CLS]\n")
    with pytest.raises(ValueError, match=r"has no \[SEP\], \[MASK\]: is it BERT"):
        BertTokenizer.from_file(vocab)
    vocab.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        BertTokenizer.from_file(vocab)


def test_windows_line_ends(vocab):
    vocab.write_bytes("\r\n".join(PIECES).encode())
    assert BertTokenizer.from_file(vocab).encode("unable").ids == [2, 5, 6, 3]


# ---------------------------------------------------------------- the package
def test_imports_are_light():
    """The core loads torch and numpy, and none of what only files, texts or pictures need."""
    code = (
        "import sys, bertlearn; assert 'torch' not in sys.modules, 'torch';"
        "import bertlearn.model, bertlearn.tokenization, bertlearn.accounting;"
        "heavy = {'matplotlib', 'tokenizers', 'safetensors', 'transformers', 'nbformat', 'typer',"
        "'pandas', 'scipy', 'IPython'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_front_door():
    import bertlearn

    assert bertlearn.BertModel is BertModel
    assert bertlearn.BertConfig is BertConfig
    assert bertlearn.BertTokenizer is BertTokenizer
    with pytest.raises(AttributeError, match="no attribute 'BertMotel'"):
        bertlearn.BertMotel  # noqa: B018

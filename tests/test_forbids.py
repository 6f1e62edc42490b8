"""Where the task is to write what torch or another library has, its own is refused.

Each question that forbids something is given answers that copy it, in several ways; none has a
point, and each is told why. That someone who wants to can get around the rule is shown in
test_grading_attacks.py.

    pytest tests/test_forbids.py
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bertlearn import checks
from bertlearn.checks.forbid import YOURSELF, Forbid
from tests.known_wrong.ch91_own_attention import PackagesOwn

COPIES: dict[str, list] = {}


def copies(check_id):
    """Register an answer that copies."""

    def add(function):
        COPIES.setdefault(check_id, []).append(function)
        return function

    return add


@copies("02.bpe_encode")
def _(word, merges):
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    letters = word + "".join(a + b for a, b in merges)
    pieces = dict.fromkeys([*letters, *(a + b for a, b in merges)])
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return Tokenizer(BPE(vocab, list(merges))).encode(word).tokens


@copies("02.best_path")
def _(word, scores):
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram

    return Tokenizer(Unigram(list(scores.items()))).encode(word).tokens


@copies("02.wordpiece_bug")
def _(word, vocab):
    import tokenizers

    numbers = {piece: number for number, piece in enumerate(["[UNK]", *vocab])}
    return tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers)).encode(word).tokens


@copies("03.token_table_gradient")
def _(input_ids, upstream, vocab_size, pad_token_id):
    table = torch.zeros(vocab_size, upstream.shape[-1], requires_grad=True)
    with torch.enable_grad():
        (table[input_ids] * upstream).sum().backward()
    return table.grad


@copies("03.token_table_gradient")
def _(input_ids, upstream, vocab_size, pad_token_id):
    return torch.ops.aten.embedding_dense_backward(
        upstream, input_ids, vocab_size, pad_token_id, False
    )


@copies("03.stretch_positions")
def _(table, n):
    return F.interpolate(table.T[None], size=n, mode="linear", align_corners=True)[0].T


@copies("03.stretch_positions")
def _(table, n):
    places = np.linspace(0, len(table) - 1, n)
    rows = [np.interp(places, np.arange(len(table)), column) for column in table.T.numpy()]
    return torch.tensor(np.stack(rows, 1)).to(table.dtype)


@copies("03.stretch_positions")
def _(table, n):
    places = torch.linspace(-1, 1, n)
    grid = torch.stack([torch.zeros(n), places], -1)[None, :, None]
    return F.grid_sample(table.T[None, :, :, None], grid, align_corners=True)[0, :, :, 0].T


@copies("04.softmax_backward")
def _(weights, upstream):
    return torch._softmax_backward_data(upstream, weights, -1, weights.dtype)


@copies("04.softmax_backward")
def _(weights, upstream):
    with torch.enable_grad():
        scores = weights.log().requires_grad_()
        rows = scores.exp() / scores.exp().sum(-1, keepdim=True)
        return torch.autograd.grad(rows, scores, upstream)[0]


@copies("04.cross_attention")
def _(x, memory, memory_mask, weights, num_heads):
    def split(y):
        return y.unflatten(-1, (num_heads, -1)).transpose(1, 2)

    q, k, v = x @ weights["query"], memory @ weights["key"], memory @ weights["value"]
    mask = memory_mask[:, None, None].bool()
    mixed = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


@copies("04.cross_attention")
def _(x, memory, memory_mask, weights, num_heads):
    layer = nn.MultiheadAttention(x.shape[-1], num_heads, bias=False, batch_first=True)
    return layer(x, memory, memory, key_padding_mask=~memory_mask.bool())[0]


@copies("04.multi_head_bug")
def _(query, key, value, num_heads):
    q, k, v = (y.unflatten(-1, (num_heads, -1)).transpose(1, 2) for y in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@copies("05.pre_norm_layer")
def _(x, weights, num_heads):
    hidden, inner = x.shape[-1], len(weights["widen.bias"])
    layer = nn.TransformerEncoderLayer(
        hidden, num_heads, inner, 0.0, "gelu", 1e-12, batch_first=True, norm_first=True
    )
    return layer(x)


@copies("05.layer_norm_backward")
def _(x, gain, upstream, eps):
    with torch.enable_grad():
        leaves = [x.clone().requires_grad_(), gain.clone().requires_grad_()]
        shift = torch.zeros_like(gain, requires_grad=True)
        y = F.layer_norm(leaves[0], gain.shape, leaves[1], shift, eps)
        return torch.autograd.grad(y, [*leaves, shift], upstream)


@copies("05.layer_norm_backward")
def _(x, gain, upstream, eps):
    def norm(x, gain, shift):
        centered = x - x.mean(-1, keepdim=True)
        return centered * (centered.square().mean(-1, keepdim=True) + eps).rsqrt() * gain + shift

    return torch.func.vjp(norm, x, gain, torch.zeros_like(gain))[1](upstream)


@copies("08.adamw_step")
def _(weight, grad, m, v, step, rate, decay, correct):
    parameter = nn.Parameter(weight.clone())
    parameter.grad = grad
    optimizer = torch.optim.AdamW([parameter], rate, (0.9, 0.999), 1e-6, decay)
    count = torch.tensor(float(step - 1))
    optimizer.state[parameter] = {"exp_avg": m, "exp_avg_sq": v, "step": count}
    optimizer.step()
    return parameter.detach(), m, v


@copies("09.pooler_gradient")
def _(states, weight, bias, direction):
    def score(states):
        return ((states[:, 0] @ weight.T + bias).tanh() @ direction).sum()

    return torch.func.grad(score)(states)


@copies("09.pooler_gradient")
def _(states, weight, bias, direction):
    def score(states):
        return ((states[:, 0] @ weight.T + bias).tanh() @ direction).sum()

    return torch.func.jacfwd(score)(states)


@copies("11.through_time")
def _(recurrent, states, upstream):
    gradients = [upstream]
    for state in reversed(states[1:].unbind()):
        slope = torch.ops.aten.tanh_backward(gradients[0], state)
        gradients.insert(0, slope @ recurrent)
    return torch.stack(gradients)


@copies("11.through_time")
def _(recurrent, states, upstream):
    with torch.enable_grad():
        state = states[0].clone().requires_grad_()
        return torch.autograd.grad((recurrent @ state).tanh(), state, upstream)[0][None]


CASES = [(name, answer) for name, answers in COPIES.items() for answer in answers]


@pytest.mark.parametrize(("name", "answer"), CASES, ids=[name for name, _ in CASES])
def test_copies_are_told(name, answer):
    result = checks.run(checks.find(name), [answer])
    assert not result.points
    assert all(YOURSELF in case.message for case in result.cases), result.text()


def test_a_project_that_copies_is_told():
    result = checks.run(checks.find("91.block_attention"), [PackagesOwn])
    assert not result.points
    assert YOURSELF in result.cases[0].message, result.text()


def test_every_rule_is_tried():
    forbidding = {check.id for check in checks.load().values() if check.points and check.forbids}
    assert forbidding == {*COPIES, "91.block_attention"}


def test_the_rules_end_with_the_call():
    """Also if it raises, and if one is within another."""
    names = ("torch.optim.Adam", "numpy.interp", "autograd", "aten::exp")
    before = (torch.optim.Adam.__init__, np.interp, torch.autograd._engine_run_backward)
    with pytest.raises(AssertionError, match=r"torch\.optim\.Adam: here"), Forbid(names):
        with Forbid(names):
            pass
        torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    assert before == (torch.optim.Adam.__init__, np.interp, torch.autograd._engine_run_backward)
    x = torch.ones(1, requires_grad=True)
    x.exp().backward()
    assert x.grad is not None

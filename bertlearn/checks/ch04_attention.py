"""What attention must do (chapter 04), and the questions of its exercises."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn.checks.core import Check, Toolbox
from bertlearn.config import BertConfig

# ---- definitions of the chapter -------------------------------------------------------------

key_mask = Check("04.key_mask", "a padding mask for the scores", ("key_mask",))


@key_mask.case("one row of keys for all heads and all queries")
def _(t: Toolbox, key_mask: Any) -> None:
    given = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    want = torch.tensor([[True, True, True, False], [True, False, False, False]])
    got = t.tensor(key_mask(given), name="key_mask(mask)", dtype=torch.bool)
    t.equal(
        got,
        want[:, None, None, :],
        "key_mask(mask)",
        suspects={
            "your mask hides queries: padding must be hidden as a key, on the last axis": (
                want[:, None, :, None]
            ),
            "your mask is True where it must be False: True means that a key may be seen": (
                ~want[:, None, None, :]
            ),
        },
    )


@key_mask.case("bool masks pass, floating point masks are refused")
def _(t: Toolbox, key_mask: Any) -> None:
    t.tensor(key_mask(torch.ones(2, 3, dtype=torch.bool)), shape=(2, 1, 1, 3), dtype=torch.bool)
    try:
        key_mask(torch.zeros(2, 3))
    except TypeError:
        return
    t.that(False, "a floating point mask must raise TypeError: 0.0 could mean 'add nothing'")


sdpa = Check(
    "04.scaled_dot_product_attention",
    "scaled dot-product attention",
    ("scaled_dot_product_attention",),
)


def _qkv(t: Toolbox, *batch: int, query: int = 5, key: int = 7, size: int = 12) -> list[Tensor]:
    return [t.randn(*batch, n, size) for n in (query, key, key)]


def _mistakes(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Tensor]:
    """Weights that well-known slips lead to."""
    raw = q @ k.transpose(-2, -1)
    scaled = raw / math.sqrt(q.shape[-1])
    return {
        "your rows do not sum to 1, your columns do: softmax runs over keys, dim=-1": (
            scaled.softmax(-2)
        ),
        "the scores are not scaled: divide them by the square root of head_size": raw.softmax(-1),
        "you divided by head_size: the scale is its square root": (raw / q.shape[-1]).softmax(-1),
        "you divided by the square root of the number of keys: it is head_size that counts": (
            raw / math.sqrt(k.shape[-2])
        ).softmax(-1),
        "these are the scaled scores: softmax is missing": scaled,
    }


@sdpa.case("by hand: three keys, head_size 4")
def _(t: Toolbox, attention: Any) -> None:
    q = torch.tensor([[2.0, 0, 0, 0]])
    k = torch.tensor([[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    v = torch.tensor([[1.0, 0], [0, 1], [0, 0]])
    want = torch.tensor([[0.7870, 0.1065, 0.1065]])  # e^2 : 1 : 1
    out, weights = attention(q, k, v)
    t.close(weights, want, "the weights", atol=1e-4, suspects=_mistakes(q, k, v))
    t.close(out, torch.tensor([[0.7870, 0.1065]]), "the output", atol=1e-4)


@sdpa.case("agrees with torch's own operator, any leading axes")
def _(t: Toolbox, attention: Any) -> None:
    for batch in ((), (3,), (2, 3)):
        q, k, v = _qkv(t, *batch)
        out, weights = attention(q, k, v)
        want = (q @ k.transpose(-2, -1) / math.sqrt(12)).softmax(-1)
        t.close(weights, want, "the weights", suspects=_mistakes(q, k, v))
        t.close(out, F.scaled_dot_product_attention(q, k, v), "the output")


@sdpa.case("a masked key gets weight 0, the others share 1")
def _(t: Toolbox, attention: Any) -> None:
    q, k, v = _qkv(t, 2, 3)
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., 4:] = False
    out, weights = attention(q, k, v, mask)
    late = (q @ k.transpose(-2, -1) / math.sqrt(12)).softmax(-1)
    scores = q @ k.transpose(-2, -1) / math.sqrt(12)
    t.close(
        weights,
        scores.masked_fill(~mask, -torch.inf).softmax(-1),
        "the weights under a mask",
        suspects={
            "you masked after softmax: the weights that remain no longer sum to 1": late * mask,
            "the mask is ignored": late,
            "the mask is the wrong way round: True means that a key may be seen": (
                scores.masked_fill(mask, torch.finfo(scores.dtype).min).softmax(-1)
            ),
            "a masked score of 0 is not masked, e^0 is 1: use the lowest number there is": (
                scores.masked_fill(~mask, 0).softmax(-1)
            ),
        },
    )
    t.close(out, F.scaled_dot_product_attention(q, k, v, mask), "the output under a mask")


@sdpa.case("a query without any key stays finite, with equal weights")
def _(t: Toolbox, attention: Any) -> None:
    q, k, v = _qkv(t, 2, 3)
    mask = torch.zeros(2, 1, 1, 7, dtype=torch.bool)
    _, weights = attention(q, k, v, mask)
    t.that(
        bool(torch.isfinite(weights).all()),
        "a row in which every key is masked gives nan: fill with the lowest finite number",
    )
    t.close(weights, torch.full_like(weights, 1 / 7), "the weights of a row without keys")


@sdpa.case("gradients reach query, key and value")
def _(t: Toolbox, attention: Any) -> None:
    q, k, v = _qkv(t, 2, 3)
    cotangent = t.randn(2, 3, 5, 12)
    got = t.vjp(attention, q, k, v, cotangent=cotangent)
    want = t.vjp(F.scaled_dot_product_attention, q, k, v, cotangent=cotangent)
    for name, ours, theirs in zip(("query", "key", "value"), got, want, strict=True):
        t.close(ours, theirs, f"the gradient of the {name}", atol=1e-4)


split = Check("04.split_heads", "hidden states to heads", ("split_heads",))


@split.case("head h of token s is slice h of that token's vector")
def _(t: Toolbox, split_heads: Any) -> None:
    x = t.randn(2, 5, 12)
    want = torch.stack(x.split(4, dim=-1), dim=1)
    t.close(
        split_heads(x, 3),
        want,
        "split_heads(x, 3)",
        suspects={
            "you viewed straight to (batch, heads, seq, head_size): that mixes tokens; view to "
            "(batch, seq, heads, head_size) and swap two axes": x.reshape(2, 3, 5, 4),
            "the axes are (batch, seq, heads, head_size): swap the middle two": (
                x.view(2, 5, 3, 4)
            ),
            "you interleaved the heads: head h owns a contiguous slice": (
                x.view(2, 5, 4, 3).permute(0, 3, 1, 2)
            ),
        },
    )


merge = Check("04.merge_heads", "heads back to hidden states", ("merge_heads",))


@merge.case("undoes the split")
def _(t: Toolbox, merge_heads: Any) -> None:
    x = t.randn(2, 5, 12)
    heads = torch.stack(x.split(4, dim=-1), dim=1)  # (2, 3, 5, 4)
    t.close(
        merge_heads(heads),
        x,
        "merge_heads(heads)",
        suspects={
            "you reshaped without swapping the axes back: the tokens are mixed": (
                heads.reshape(2, 5, 12)
            ),
            "you added the heads up: they stand side by side": heads.sum(1),
            "you interleaved the heads: head h owns a contiguous slice": (
                heads.permute(0, 2, 3, 1).reshape(2, 5, 12)
            ),
        },
    )


mha = Check("04.BertSelfAttention", "multi-head self-attention", ("BertSelfAttention",))


def _oracle(hidden: int, heads: int, weights: dict[str, Tensor]) -> torch.nn.MultiheadAttention:
    """torch's own multi-head attention with these weights and an identity as output layer."""
    oracle = torch.nn.MultiheadAttention(hidden, heads, batch_first=True)
    names = ("query", "key", "value")
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([weights[f"{n}.weight"] for n in names]))
        oracle.in_proj_bias.copy_(torch.cat([weights[f"{n}.bias"] for n in names]))
        oracle.out_proj.weight.copy_(torch.eye(hidden))
        oracle.out_proj.bias.zero_()
    return oracle


def _module(t: Toolbox, cls: Any, **changes: Any) -> tuple[Any, dict[str, Tensor]]:
    config = BertConfig(
        **{"hidden_size": 36, "num_attention_heads": 3, "hidden_dropout_prob": 0.0, **changes}
    )
    weights = {
        f"{name}.{part}": t.randn(*shape) / 6
        for name in ("query", "key", "value")
        for part, shape in (("weight", (36, 36)), ("bias", (36,)))
    }
    module = cls(config)
    module.load_state_dict(weights)
    module.eval()
    return module, weights


@mha.case("agrees with torch's own multi-head attention, with padding, both paths")
def _(t: Toolbox, cls: Any) -> None:
    for path in ("eager", "sdpa"):
        module, weights = _module(t, cls, attn_implementation=path)
        x = t.randn(2, 7, 36)
        real = torch.ones(2, 7, dtype=torch.bool)
        real[1, 4:] = False
        with torch.no_grad():
            got, none = module(x, real[:, None, None, :])
            oracle = _oracle(36, 3, weights)
            want, _ = oracle(x, x, x, key_padding_mask=~real)
            unmasked, _ = oracle(x, x, x)
            single, _ = _oracle(36, 1, weights)(x, x, x, key_padding_mask=~real)
        t.close(
            got,
            want,
            f"the context ({path})",
            suspects={
                "the mask is ignored: padding is attended to": unmasked,
                "this is what a single head gives: split into heads before the scores": single,
            },
        )
        t.that(none is None, "without output_attentions the second result must be None")


@mha.case("returns the weights of every head on request")
def _(t: Toolbox, cls: Any) -> None:
    module, weights = _module(t, cls)
    x = t.randn(2, 7, 36)
    with torch.no_grad():
        _, got = module(x, output_attentions=True)
        _, want = _oracle(36, 3, weights)(x, x, x, average_attn_weights=False)
    t.close(got, want, "the weights", suspects={"the heads are averaged": want.mean(1)})


@mha.case("dropout acts in training only")
def _(t: Toolbox, cls: Any) -> None:
    module, _ = _module(t, cls, attention_probs_dropout_prob=0.5)
    x = t.randn(2, 7, 36)
    with torch.no_grad():
        calm = [module(x)[0] for _ in range(2)]
        module.train()
        busy = [module(x)[0] for _ in range(2)]
    t.close(calm[0], calm[1], "two runs of model.eval()")
    t.that(not torch.allclose(busy[0], busy[1]), "two runs of model.train() are equal: no dropout")


# ---- questions ------------------------------------------------------------------------------

causal = Check(
    "04.causal_mask",
    "a mask that looks left only",
    ("causal_mask",),
    kind="implement",
    difficulty=2,
    minutes=10,
    reminder="Draw the mask for three tokens on paper first: rows are queries, columns are keys.",
)


def _causal(real: Tensor) -> Tensor:
    seq = real.shape[1]
    return torch.ones(seq, seq).tril().bool()[None, None] & real.bool()[:, None, None, :]


@causal.case("token 3 of 4 sees itself and what is to its left", points=1)
def _(t: Toolbox, causal_mask: Any) -> None:
    real = torch.ones(1, t.integer(3, 6), dtype=torch.int64)
    want = _causal(real)
    got = t.tensor(causal_mask(real), name="causal_mask(ones)", shape=want.shape, dtype=torch.bool)
    t.equal(
        got,
        want,
        "causal_mask(ones)",
        suspects={
            "your tokens see the future: you kept the upper triangle, the past is the lower one": (
                want.transpose(-2, -1)
            ),
            "a token must see itself: the diagonal belongs to the mask": (
                torch.ones_like(want).tril(-1)
            ),
            "the mask is the wrong way round: True means that a key may be seen": ~want,
            "every token sees every other: nothing is hidden": torch.ones_like(want),
        },
    )


@causal.case("padding stays hidden", points=1)
def _(t: Toolbox, causal_mask: Any) -> None:
    real = torch.ones(3, 6, dtype=torch.int64)
    real[1, t.integer(2, 4) :] = 0
    real[2, 1:] = 0
    want = _causal(real)
    got = t.tensor(causal_mask(real), name="causal_mask(mask)", shape=want.shape, dtype=torch.bool)
    triangle = torch.ones(6, 6).tril().bool()[None, None].expand(3, 1, 6, 6)
    t.equal(
        got,
        want,
        "causal_mask(mask)",
        suspects={
            "padding can be seen: combine the triangle with the mask of the keys": triangle,
            "you hid padding as a query: a key is the last axis": (
                triangle & real.bool()[:, None, :, None]
            ),
            "you joined the two masks with 'or': a key must be real and not in the future": (
                triangle | real.bool()[:, None, None, :]
            ),
        },
    )


backward = Check(
    "04.softmax_backward",
    "the gradient through softmax, by hand",
    ("softmax_backward",),
    kind="implement",
    difficulty=3,
    minutes=20,
    forbids=("aten::_softmax_backward", "autograd"),
    reminder="The weights of a row sum to 1, so the gradients of its scores must sum to 0.",
)


def _through_softmax(scores: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    scores = scores.clone().requires_grad_()
    weights = scores.softmax(-1)
    (grad,) = torch.autograd.grad((weights * upstream).sum(), scores)
    return weights.detach(), grad


@backward.case("two scores, where p (1 - p) can be checked by hand", points=1)
def _(t: Toolbox, softmax_backward: Any) -> None:
    weights = torch.tensor([[0.75, 0.25]])
    upstream = torch.tensor([[1.0, 0.0]])
    t.close(
        softmax_backward(weights, upstream),
        torch.tensor([[0.1875, -0.1875]]),
        "the gradient of the scores",
        suspects={
            "you kept only the diagonal, p (1 - p): a score also lowers the other weights": (
                weights * (1 - weights) * upstream
            ),
            "you forgot what every weight loses when another gains: subtract the mean": (
                weights * upstream
            ),
            "the plain average is not it: each upstream gradient counts by its weight": (
                weights * (upstream - upstream.mean(-1, keepdim=True))
            ),
        },
    )


@backward.case("any shape, against torch's own gradient", points=2)
def _(t: Toolbox, softmax_backward: Any) -> None:
    scores, upstream = 2 * t.randn(2, 3, 4, 6), t.randn(2, 3, 4, 6)
    weights, want = _through_softmax(scores, upstream)
    keys = (weights * upstream).sum(-2, keepdim=True)
    heads = (weights * upstream).sum(1, keepdim=True)
    t.close(
        softmax_backward(weights, upstream),
        want,
        "the gradient of the scores",
        suspects={
            "you kept only the diagonal, p (1 - p): a score also lowers the other weights": (
                weights * (1 - weights) * upstream
            ),
            "you forgot what every weight loses when another gains: subtract the mean": (
                weights * upstream
            ),
            "you summed over queries: a row of weights is one softmax, over keys": (
                weights * (upstream - keys)
            ),
            "you summed over axis 1, here the heads: keys are the last axis, dim=-1": (
                weights * (upstream - heads)
            ),
            "the plain average is not it: each upstream gradient counts by its weight": (
                weights * (upstream - upstream.mean(-1, keepdim=True))
            ),
        },
    )


cross = Check(
    "04.cross_attention",
    "attention from one sentence to another",
    ("cross_attention",),
    kind="implement",
    difficulty=3,
    minutes=20,
    forbids=(
        "aten::scaled_dot_product",
        "aten::_scaled_dot_product",
        "torch.nn.functional.scaled_dot_product_attention",
        "torch.nn.MultiheadAttention",
    ),
    reminder="The first sentence asks (query), the second answers (key and value).",
)


def _cross(x: Tensor, memory: Tensor, real: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    def cut(y: Tensor) -> Tensor:
        return torch.stack(y.chunk(heads, -1), 1)

    out = F.scaled_dot_product_attention(
        cut(x @ w["query"]),
        cut(memory @ w["key"]),
        cut(memory @ w["value"]),
        real.bool()[:, None, None, :],
    )
    return torch.cat(out.unbind(1), -1)


def _cross_by_hand(
    x: Tensor, memory: Tensor, real: Tensor, w: dict[str, Tensor], axis: int, hidden: float
) -> Tensor:
    """Cross-attention in three heads with softmax over an axis, a score where padding stands."""
    q, k, v = (
        torch.stack((source @ w[name]).chunk(3, -1), 1)
        for source, name in ((x, "query"), (memory, "key"), (memory, "value"))
    )
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~real.bool()[:, None, None, :], hidden)
    return scores.softmax(axis) @ v


@cross.case("the output has the first sentence's length", points=1)
def _(t: Toolbox, cross_attention: Any) -> None:
    x, memory = t.randn(2, 4, 12), t.randn(2, 7, 12)
    w = {name: t.randn(12, 12) / 3 for name in ("query", "key", "value")}
    got = cross_attention(x, memory, torch.ones(2, 7, dtype=torch.int64), w, 3)
    t.that(
        tuple(getattr(got, "shape", ())) != (2, 7, 12),
        "the output has the second sentence's length: queries come from x, keys from memory",
    )
    t.tensor(got, shape=(2, 4, 12), name="cross_attention(...)")


@cross.case("each head mixes the second sentence's values, padding left out", points=3)
def _(t: Toolbox, cross_attention: Any) -> None:
    x, memory = t.randn(2, 5, 12), t.randn(2, 7, 12)
    w = {name: t.randn(12, 12) / 3 for name in ("query", "key", "value")}
    real = torch.ones(2, 7, dtype=torch.int64)
    real[1, t.integer(2, 5) :] = 0
    want = _cross(x, memory, real, w, 3)
    swapped = {**w, "key": w["value"], "value": w["key"]}
    low = torch.finfo(x.dtype).min
    heads = _cross_by_hand(x, memory, real, w, -1, low)
    t.close(
        cross_attention(x, memory, real, w, 3),
        want,
        "cross_attention(...)",
        suspects={
            "padding of the second sentence is attended to": (
                _cross(x, memory, torch.ones_like(real), w, 3)
            ),
            "this is what a single head gives: cut query, key and value into heads": (
                _cross(x, memory, real, w, 1)
            ),
            "the scale is that of one big head: divide by the square root of head_size": (
                _cross(x / math.sqrt(3), memory, real, w, 3)
            ),
            "key and value are exchanged": _cross(x, memory, real, swapped, 3),
            "softmax runs over keys, the last axis: yours ran over queries": torch.cat(
                _cross_by_hand(x, memory, real, w, -2, low).unbind(1), -1
            ),
            "a masked score of 0 is not masked: it must be very low, so that softmax gives 0": (
                torch.cat(_cross_by_hand(x, memory, real, w, -1, 0.0).unbind(1), -1)
            ),
            "the mask is the wrong way round: you hid the tokens and kept the padding": torch.cat(
                _cross_by_hand(x, memory, 1 - real, w, -1, -1e9).unbind(1), -1
            ),
            "the heads are not merged: swap the axes back before the reshape": heads.reshape(
                x.shape
            ),
        },
    )


hunt = Check(
    "04.multi_head_bug",
    "bug hunt: heads that mix tokens",
    ("multi_head",),
    kind="bug",
    difficulty=2,
    minutes=15,
    hides=("attention.split_heads", "attention.merge_heads"),
    forbids=(
        "aten::scaled_dot_product",
        "aten::_scaled_dot_product",
        "torch.nn.functional.scaled_dot_product_attention",
        "torch.nn.MultiheadAttention",
    ),
    reminder="Change one token of the input. Which outputs may change, in which slices?",
)


def _separate(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Each head on its slice: (batch, heads, seq, head_size)."""
    q, k, v = (torch.stack(x.chunk(heads, -1), 1) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)


def _heads(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    return torch.cat(_separate(q, k, v, heads).unbind(1), -1)


def _mixed(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    batch, seq, hidden = q.shape
    q, k, v = (x.reshape(batch, heads, seq, hidden // heads) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)


@hunt.case("one head: as plain attention")
def _(t: Toolbox, multi_head: Any) -> None:
    q, k, v = (t.randn(2, 5, 12) for _ in range(3))
    t.close(
        multi_head(q, k, v, 1),
        F.scaled_dot_product_attention(q, k, v),
        "multi_head(q, k, v, 1)",
        suspects={"the scores are not scaled": F.scaled_dot_product_attention(q, k, v, scale=1.0)},
    )


@hunt.case("several heads: each on its own slice of every token", points=3)
def _(t: Toolbox, multi_head: Any) -> None:
    q, k, v = (t.randn(2, 5, 12) for _ in range(3))
    mixed = _mixed(q, k, v, 3)
    half = _separate(q, k, v, 3).reshape(2, 5, 12)
    t.close(
        multi_head(q, k, v, 3),
        _heads(q, k, v, 3),
        "multi_head(q, k, v, 3)",
        suspects={
            "the bug is still there: a view to (batch, heads, seq, head_size) cuts across tokens": (
                mixed.reshape(2, 5, 12)
            ),
            "the split is mended, the merge is not: swap the axes back before the reshape": half,
            "the merge swaps axes, the split does not: both must": (
                mixed.transpose(1, 2).reshape(2, 5, 12)
            ),
            "this is what a single head gives: the number of heads must count": (
                _heads(q, k, v, 1)
            ),
        },
    )


cost = Check(
    "04.attention_cost",
    "what a layer of attention costs, as a function of the sizes",
    ("attention_cost",),
    kind="predict",
    difficulty=2,
    minutes=10,
    reminder="Heads cut the width into slices; they add none.",
)


@cost.case("parameters of query, key and value", points=1)
def _(t: Toolbox, attention_cost: Any) -> None:
    hidden = 12 * t.integer(2, 64)
    got = _pair(t, attention_cost(hidden, 12, 128))[0]
    t.equal(
        got,
        3 * (hidden * hidden + hidden),
        f"the number of parameters for hidden_size {hidden}",
        suspects={
            "the biases are missing: each of the three maps adds one number per output": (
                3 * hidden * hidden
            ),
            "you multiplied by the number of heads: heads are slices of one matrix": (
                12 * 3 * (hidden * hidden + hidden)
            ),
            "a head has no matrix of its own: it is a slice of one (hidden, hidden)": (
                12 * 3 * hidden * hidden + 3 * hidden
            ),
            "one map only: there are three, query, key and value": hidden * hidden + hidden,
            "you counted the output layer too: the question is about query, key and value": (
                4 * (hidden * hidden + hidden)
            ),
        },
    )


@cost.case("scores for one sentence", points=1)
def _(t: Toolbox, attention_cost: Any) -> None:
    heads, seq = t.integer(2, 16), t.integer(8, 512)
    got = _pair(t, attention_cost(48 * heads, heads, seq))[1]
    t.equal(
        got,
        heads * seq * seq,
        f"the number of scores for {heads} heads and {seq} tokens",
        suspects={
            "every head has scores of its own": seq * seq,
            "a score is one number, not head_size numbers": 48 * heads * seq * seq,
            "there is one score for each pair of a query and a key, not one for each token": (
                heads * seq
            ),
            "query 1 with key 2 and query 2 with key 1 are two scores, and each has its own": (
                heads * seq * (seq + 1) // 2
            ),
        },
    )


def _pair(t: Toolbox, got: Any) -> tuple:
    t.that(
        isinstance(got, tuple) and len(got) == 2,
        "return two whole numbers, (parameters, scores)",
        got=repr(got)[:60],
    )
    return got


shares = Check(
    "04.relation_shares",
    "measure what a head looks at",
    ("relation_shares",),
    kind="measure",
    difficulty=3,
    minutes=25,
    reminder="Each query belongs to one row of weights, which sums to 1; so do the five shares.",
)
RELATIONS = ("itself", "previous", "next", "special", "other")


def _shares(weights: Tensor, special: Tensor) -> Tensor:
    """Shares by looping over every query and key: slow, and plain to see."""
    heads, seq = weights.shape[0], weights.shape[-1]
    total = torch.zeros(heads, 5)
    asking = [q for q in range(seq) if not special[q]]
    for q in asking:
        for k in range(seq):
            if special[k]:
                place = 3
            else:
                place = {0: 0, -1: 1, 1: 2}.get(k - q, 4)
            total[:, place] += weights[:, q, k]
    return total / len(asking)


@shares.case("four tokens, where the shares can be read off", points=1)
def _(t: Toolbox, relation_shares: Any) -> None:
    weights = torch.tensor([[[1.0, 0, 0, 0], [0, 0.5, 0.25, 0.25], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]])
    special = torch.tensor([True, False, False, True])
    got = relation_shares(weights, special)
    t.close(
        got,
        torch.tensor([[0.5, 0.25, 0.125, 0.125, 0.0]]),
        "relation_shares(weights, special)",
        suspects=_share_mistakes(weights, special),
    )


@shares.case("many heads, any sentence", points=2)
def _(t: Toolbox, relation_shares: Any) -> None:
    weights = t.randn(4, 9, 9).softmax(-1)
    special = torch.zeros(9, dtype=torch.bool)
    special[[0, 8]] = True
    special[t.integer(3, 5)] = True
    t.close(
        relation_shares(weights, special),
        _shares(weights, special),
        "relation_shares(weights, special)",
        suspects=_share_mistakes(weights, special),
    )


def _share_mistakes(weights: Tensor, special: Tensor) -> dict[str, Tensor]:
    all_ask = torch.zeros(len(weights), 5)
    for q in range(len(special)):
        for k in range(len(special)):
            place = 3 if special[k] else {0: 0, -1: 1, 1: 2}.get(k - q, 4)
            all_ask[:, place] += weights[:, q, k] / len(special)
    right = _shares(weights, special)
    return {
        "special tokens ask as well in yours: average over the queries that are not special": (
            all_ask
        ),
        "previous and next are exchanged: weights[h, q, k] is what query q gives key k": (
            right[:, [0, 2, 1, 3, 4]]
        ),
        "you read the columns as queries: weights[h, q, k] is what query q gives key k": (
            _shares(weights.transpose(-2, -1), special)
        ),
        "you summed over queries: a query's weights are a row, sum over keys, dim=-1": (
            _over_queries(weights, special)
        ),
        "these are sums: divide by the number of queries": right * int((~special).sum()),
        "a special neighbor counts as special, not as previous or next": (
            _neighbors_first(weights, special)
        ),
    }


def _over_queries(weights: Tensor, special: Tensor) -> Tensor:
    """What comes out if each key's column is summed, and the mean taken over the real keys."""
    seq = len(special)
    near = torch.arange(seq)[None] - torch.arange(seq)[:, None]
    kinds = [~special[None] & (near == d) for d in (0, -1, 1)]
    kinds += [special[None].expand(seq, seq)]
    kinds += [~(kinds[0] | kinds[1] | kinds[2] | kinds[3])]
    return torch.stack([(weights * one).sum(-2)[:, ~special].mean(-1) for one in kinds], -1)


def _neighbors_first(weights: Tensor, special: Tensor) -> Tensor:
    total = torch.zeros(len(weights), 5)
    asking = [q for q in range(len(special)) if not special[q]]
    for q in asking:
        for k in range(len(special)):
            place = {0: 0, -1: 1, 1: 2}.get(k - q, 3 if special[k] else 4)
            total[:, place] += weights[:, q, k] / len(asking)
    return total


relative = Check(
    "04.relative_attention",
    "attention that knows how far apart two tokens are",
    ("relative_attention",),
    kind="implement",
    difficulty=4,
    minutes=30,
    reminder="The bias for query q and key k stands at index clip(k - q, -reach, reach) + reach.",
)


def _relative(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, sign: int = 1) -> Tensor:
    """The scores, one at a time."""
    reach, seq = (bias.shape[1] - 1) // 2, q.shape[-2]
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    added = torch.zeros(bias.shape[0], seq, seq)
    for i in range(seq):
        for j in range(seq):
            added[:, i, j] = bias[:, max(-reach, min(reach, sign * (j - i))) + reach]
    return (scores + added).softmax(-1) @ v


@relative.case("with a bias of zero: plain attention", points=1)
def _(t: Toolbox, relative_attention: Any) -> None:
    q, k, v = (t.randn(2, 3, 6, 8) for _ in range(3))
    t.close(
        relative_attention(q, k, v, torch.zeros(3, 5)),
        F.scaled_dot_product_attention(q, k, v),
        "relative_attention(q, k, v, zeros)",
        suspects={
            "the scores are not scaled by the square root of head_size": (
                F.scaled_dot_product_attention(q, k, v, scale=1.0)
            ),
            "softmax runs over keys, the last axis: yours ran over queries": (
                (q @ k.transpose(-2, -1) / math.sqrt(8)).softmax(-2) @ v
            ),
        },
    )


@relative.case("near and far tokens get their own bias, far ones share one", points=3)
def _(t: Toolbox, relative_attention: Any) -> None:
    q, k, v = (t.randn(2, 3, 9, 8) for _ in range(3))
    bias = t.randn(3, 5)
    scores = q @ k.transpose(-2, -1) / math.sqrt(8)
    near = torch.zeros(3, 9, 9)
    for i in range(9):
        for j in range(max(0, i - 2), min(9, i + 3)):
            near[:, i, j] = bias[:, j - i + 2]
    distance = (torch.arange(9)[None] - torch.arange(9)[:, None]).clamp(-2, 2) + 2
    scaled_too = (scores + bias[:, distance] / math.sqrt(8)).softmax(-1) @ v
    t.close(
        relative_attention(q, k, v, bias),
        _relative(q, k, v, bias),
        "relative_attention(q, k, v, bias)",
        suspects={
            "left and right are exchanged: the distance is key minus query": (
                _relative(q, k, v, bias, -1)
            ),
            "tokens beyond the reach got no bias: clip the distance, they share the last one": (
                (scores + near).softmax(-1) @ v
            ),
            "the bias was scaled with the scores: add it after the division": scaled_too,
            "the bias does not count": scores.softmax(-1) @ v,
            "distance 0 has the middle of the bias: add the reach to the clipped distance": (
                (scores + bias[:, distance - 2]).softmax(-1) @ v
            ),
        },
    )


diagnose = Check(
    "04.diagnose",
    "what is wrong with these weights",
    ("diagnose",),
    kind="choose",
    difficulty=3,
    minutes=25,
    reminder="Make the weights that each mistake leads to, and see which are those that you hold.",
)

CAUSES = ("right", "not scaled", "over queries", "not masked", "masked after softmax")


def _caused(query: Tensor, key: Tensor, seen: Tensor, cause: str) -> Tensor:
    """The weights that a cause leads to."""
    scores = query @ key.T
    if cause != "not scaled":
        scores = scores / math.sqrt(query.shape[-1])
    if cause not in ("not masked", "masked after softmax"):
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    weights = scores.softmax(0 if cause == "over queries" else 1)
    return weights * seen if cause == "masked after softmax" else weights


def _diagnosis(
    query: Tensor, key: Tensor, seen: Tensor, weights: Tensor, *, slip: str = ""
) -> tuple[str, dict[str, float]]:
    """The cause, and what can be seen of it."""
    gaps = {one: (weights - _caused(query, key, seen, one)).abs().max() for one in CAUSES}
    axis = 0 if slip == "columns" else 1
    off = (weights.sum(axis) - 1).abs()
    leak = (weights * (seen if slip == "seen" else ~seen)).sum(1)
    figures = {
        "hidden": float(leak.mean() if slip == "mean" else leak.max()),
        "sum": float((weights.sum(axis).mean() - 1).abs() if slip == "average" else off.max()),
        "error": float(gaps["right"]),
    }
    choice = min(gaps, key=lambda one: float(gaps[one]))
    if slip == "sums" and choice == "masked after softmax":
        choice = "over queries"
    if slip == "leaks" and figures["hidden"] < 1e-6 and figures["sum"] < 1e-6:
        choice = "right"
    return choice, figures


def _diagnosis_suspects(*given: Any) -> dict[str, Any]:
    return {
        message: _diagnosis(*given, slip=slip)
        for slip, message in {
            "columns": "you summed over the queries: a query's weights are a row",
            "seen": "you summed the weight on keys that may be seen: on the others it must be 0",
            "mean": "the mean over queries hides the worst one",
            "average": "in the mean, rows that are too long and too short cancel out",
            "sums": "rows that do not sum to 1 have two causes: compare with both",
            "leaks": "rows that sum to 1 and hide what they must can be wrong all the same: "
            "compare with the right weights",
        }.items()
    }


def _hurt(t: Toolbox, queries: int, keys: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys, and a mask in which each query sees some keys, and not all."""
    while True:  # until no two causes look alike
        seen = torch.rand(queries, keys, generator=t.generator) < 0.7
        seen[:, 0], seen[:, -1] = True, False
        query, key = 1.5 * t.randn(queries, size), 1.5 * t.randn(keys, size)
        made = [_caused(query, key, seen, cause) for cause in CAUSES]
        if all((a - b).abs().max() > 0.05 for a, b in itertools.combinations(made, 2)):
            return query, key, seen


@diagnose.case("each cause in turn, any numbers of queries and keys", points=2)
def _(t: Toolbox, diagnose: Any) -> None:
    for number, cause in enumerate((*CAUSES, *CAUSES, *CAUSES)):
        few = number >= len(CAUSES)  # queries, and many keys: the two axes are far apart
        queries = t.integer(2, 3) if few else t.integer(5, 9)
        keys = queries + (9 if few else t.choice([-2, 1, 3]))
        query, key, seen = _hurt(t, queries, keys, t.integer(2, 12))
        given = (query, key, seen, _caused(query, key, seen, cause))
        t.decision(
            diagnose(*given), _diagnosis(*given), atol=1e-5, suspects=_diagnosis_suspects(*given)
        )


@diagnose.case("as many queries as keys", points=2)
def _(t: Toolbox, diagnose: Any) -> None:
    for cause in CAUSES:
        query, key, seen = _hurt(t, 6, 6, 4)
        given = (query, key, seen, _caused(query, key, seen, cause))
        t.decision(
            diagnose(*given), _diagnosis(*given), atol=1e-5, suspects=_diagnosis_suspects(*given)
        )

"""Wrong answers to the checks of chapter 04."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bertlearn.attention import BertSelfAttention, merge_heads, split_heads
from tests.known_wrong import Wrong

LOWEST = torch.finfo(torch.float32).min


# ---- definitions ------------------------------------------------------------------------------


def key_mask_of_queries(attention_mask: Tensor) -> Tensor:
    return attention_mask.bool()[:, None, :, None]


def key_mask_inverted(attention_mask: Tensor) -> Tensor:
    return ~attention_mask.bool()[:, None, None, :]


def key_mask_takes_floats(attention_mask: Tensor) -> Tensor:
    return attention_mask.bool()[:, None, None, :]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    dim: int = -1,
    scale: str = "root",
    masked: str = "lowest",
) -> tuple[Tensor, Tensor]:
    """The right thing, with a switch for each way to get it wrong."""
    divide = {
        "root": math.sqrt(query.shape[-1]),
        "none": 1.0,
        "size": query.shape[-1],
        "keys": math.sqrt(key.shape[-2]),
    }[scale]
    scores = query @ key.transpose(-2, -1) / divide
    if mask is not None and masked in ("lowest", "inf", "zero", "inverted"):
        hidden = mask if masked == "inverted" else ~mask
        fill = {"inf": -torch.inf, "zero": 0.0}.get(masked, LOWEST)
        scores = scores.masked_fill(hidden, fill)
    weights = scores.softmax(dim)
    if mask is not None and masked == "after":
        weights = weights * mask
    return weights @ value, weights


def _wrongly(**switches: Any) -> Any:
    return lambda q, k, v, mask=None: attention(q, k, v, mask, **switches)


def attention_detached(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Any:
    out, weights = attention(q, k, v, mask)
    return out.detach(), weights.detach()


def attention_without_softmax(q: Tensor, k: Tensor, v: Tensor, mask: Any = None) -> Any:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return scores @ v, scores


def split_by_view(x: Tensor, heads: int) -> Tensor:
    batch, seq, hidden = x.shape
    return x.view(batch, heads, seq, hidden // heads)


def split_unswapped(x: Tensor, heads: int) -> Tensor:
    batch, seq, hidden = x.shape
    return x.view(batch, seq, heads, hidden // heads)


def split_interleaved(x: Tensor, heads: int) -> Tensor:
    batch, seq, hidden = x.shape
    return x.view(batch, seq, hidden // heads, heads).permute(0, 3, 1, 2)


def merge_by_reshape(x: Tensor) -> Tensor:
    batch, heads, seq, size = x.shape
    return x.reshape(batch, seq, heads * size)


def merge_by_sum(x: Tensor) -> Tensor:
    return x.sum(1)


def merge_interleaved(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(2)


class IgnoresMask(BertSelfAttention):
    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        return super().forward(x, None, output_attentions)


class OneHead(BertSelfAttention):
    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        self.num_heads = 1
        return super().forward(x, mask, output_attentions)


class AveragedWeights(BertSelfAttention):
    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        context, weights = super().forward(x, mask, output_attentions)
        return context, None if weights is None else weights.mean(1)


class NoDropout(BertSelfAttention):
    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        self.dropout = 0.0
        return super().forward(x, mask, output_attentions)


class AlwaysDropout(BertSelfAttention):
    def forward(self, x: Tensor, mask: Any = None, output_attentions: bool = False) -> Any:
        self.training = True
        return super().forward(x, mask, output_attentions)


# ---- questions --------------------------------------------------------------------------------


def causal(real: Tensor, *, part: str = "past", keys: str = "and") -> Tensor:
    seq = real.shape[1]
    ones = torch.ones(seq, seq)
    triangle = {"past": ones.tril(), "future": ones.triu(), "strict": ones.tril(-1), "all": ones}[
        part
    ].bool()[None, None]
    as_keys, as_queries = real.bool()[:, None, None, :], real.bool()[:, None, :, None]
    return {
        "and": triangle & as_keys,
        "or": triangle | as_keys,
        "queries": triangle & as_queries,
        "none": triangle.expand(len(real), 1, seq, seq),
    }[keys]


def backward_diagonal(weights: Tensor, upstream: Tensor) -> Tensor:
    return weights * (1 - weights) * upstream


def backward_product(weights: Tensor, upstream: Tensor) -> Tensor:
    return weights * upstream


def backward_over_queries(weights: Tensor, upstream: Tensor) -> Tensor:
    return weights * (upstream - (weights * upstream).sum(-2, keepdim=True))


def backward_plain_mean(weights: Tensor, upstream: Tensor) -> Tensor:
    return weights * (upstream - upstream.mean(-1, keepdim=True))


def backward_over_axis_1(weights: Tensor, upstream: Tensor) -> Tensor:
    return weights * (upstream - (weights * upstream).sum(1, keepdim=True))


def cross(
    x: Tensor,
    memory: Tensor,
    real: Tensor,
    weights: dict[str, Tensor],
    heads: int,
    *,
    mask: bool = True,
    one_head: bool = False,
    big_scale: bool = False,
    names: tuple[str, str] = ("key", "value"),
    turned: bool = False,
    inverted: bool = False,
    hidden: float = LOWEST,
    dim: int = -1,
    merge: Any = merge_heads,
) -> Tensor:
    if turned:
        x, memory = memory, x
        mask = False
    count = 1 if one_head else heads
    q, k, v = (
        split_heads(source @ weights[name], count)
        for source, name in ((x, "query"), (memory, names[0]), (memory, names[1]))
    )
    size = x.shape[-1] if big_scale else q.shape[-1]
    scores = q @ k.transpose(-2, -1) / math.sqrt(size)
    if mask:
        real = 1 - real if inverted else real
        scores = scores.masked_fill(~real.bool()[:, None, None, :], hidden)
    return merge(scores.softmax(dim) @ v)


def _cross(**switches: Any) -> Any:
    return lambda *given: cross(*given, **switches)


def multi_head(
    q: Tensor, k: Tensor, v: Tensor, heads: int, *, split: Any = split_heads, merge: Any = None
) -> Tensor:
    cut = [split(x, heads) for x in (q, k, v)]
    return (merge or merge_heads)(attention(*cut)[0])


def multi_head_unscaled(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    cut = [split_heads(x, heads) for x in (q, k, v)]
    return merge_heads(attention(*cut, scale="none")[0])


def shares(
    weights: Tensor,
    special: Tensor,
    *,
    all_ask: bool = False,
    swap: bool = False,
    turned: bool = False,
    total: bool = False,
    near_first: bool = False,
) -> Tensor:
    if turned:
        weights = weights.transpose(-2, -1)
    out = torch.zeros(len(weights), 5)
    asking = [q for q in range(len(special)) if all_ask or not special[q]]
    for q in asking:
        for k in range(len(special)):
            place = {0: 0, -1: 1, 1: 2}.get(k - q, 3 if special[k] else 4)
            if special[k] and not near_first:
                place = 3
            if swap:
                place = {1: 2, 2: 1}.get(place, place)
            out[:, place] += weights[:, q, k]
    return out if total else out / len(asking)


def shares_over_queries(weights: Tensor, special: Tensor) -> Tensor:
    places = torch.arange(len(special))
    distance = (places - places[:, None]).masked_fill(special, 2)
    kinds = [distance == 0, distance == -1, distance == 1]
    kinds += [special.expand_as(distance), ((distance.abs() > 1) & ~special)]
    kinds[0:3] = [kind & ~special for kind in kinds[0:3]]
    return torch.stack([(weights * kind).sum(1)[:, ~special].mean(1) for kind in kinds], -1)


def _shares(**switches: Any) -> Any:
    return lambda weights, special: shares(weights, special, **switches)


def relative(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    *,
    sign: int = 1,
    drop_far: bool = False,
    scale_bias: bool = False,
    unscaled: bool = False,
    no_bias: bool = False,
    unshifted: bool = False,
    dim: int = -1,
) -> Tensor:
    reach, seq = bias.shape[1] // 2, q.shape[-2]
    distance = sign * (torch.arange(seq)[None] - torch.arange(seq)[:, None])
    added = bias[:, distance.clamp(-reach, reach) + (0 if unshifted else reach)]
    if drop_far:
        added = added * (distance.abs() <= reach)
    if no_bias:
        added = 0 * added
    scores, root = q @ k.transpose(-2, -1), math.sqrt(q.shape[-1])
    if scale_bias:
        return ((scores + added) / root).softmax(-1) @ v
    return ((scores if unscaled else scores / root) + added).softmax(dim) @ v


def _relative(**switches: Any) -> Any:
    return lambda *given: relative(*given, **switches)


WRONG: dict[str, list[Wrong]] = {
    "04.key_mask": [
        Wrong("padding hidden as a query", key_mask_of_queries, "must be hidden as a key"),
        Wrong("True where padding stands", key_mask_inverted, "True means that a key may be seen"),
        Wrong("an additive mask taken for a boolean one", key_mask_takes_floats, "TypeError"),
    ],
    "04.scaled_dot_product_attention": [
        Wrong("softmax over queries", _wrongly(dim=-2), "softmax runs over keys"),
        Wrong("no square root", _wrongly(scale="none"), "not scaled"),
        Wrong("divided by head_size itself", _wrongly(scale="size"), "its square root"),
        Wrong("divided by the root of the length", _wrongly(scale="keys"), "number of keys"),
        Wrong("no softmax", attention_without_softmax, "softmax is missing"),
        Wrong("mask after softmax", _wrongly(masked="after"), "you masked after softmax"),
        Wrong("mask ignored", _wrongly(masked="ignored"), "the mask is ignored"),
        Wrong("mask the wrong way round", _wrongly(masked="inverted"), "wrong way round"),
        Wrong("masked score of 0", _wrongly(masked="zero"), "a masked score of 0 is not masked"),
        Wrong("minus infinity", _wrongly(masked="inf"), "gives nan"),
        Wrong("detached", attention_detached, "was it detached"),
    ],
    "04.split_heads": [
        Wrong("a view across tokens", split_by_view, "that mixes tokens"),
        Wrong("axes not swapped", split_unswapped, "swap the middle two"),
        Wrong("interleaved heads", split_interleaved, "contiguous slice"),
    ],
    "04.merge_heads": [
        Wrong("a reshape across tokens", merge_by_reshape, "the tokens are mixed"),
        Wrong("heads added up", merge_by_sum, "they stand side by side"),
        Wrong("interleaved heads", merge_interleaved, "contiguous slice"),
    ],
    "04.BertSelfAttention": [
        Wrong("mask ignored", IgnoresMask, "padding is attended to"),
        Wrong("a single head", OneHead, "a single head"),
        Wrong("weights averaged over heads", AveragedWeights, "averaged"),
        Wrong("dropout never acts", NoDropout, "no dropout"),
        Wrong("dropout always acts", AlwaysDropout, "two runs of model.eval()"),
    ],
    "04.causal_mask": [
        Wrong("the upper triangle", lambda m: causal(m, part="future"), "see the future"),
        Wrong("without the diagonal", lambda m: causal(m, part="strict"), "must see itself"),
        Wrong("True where hidden", lambda m: ~causal(m), "wrong way round"),
        Wrong("nothing hidden", lambda m: causal(m, part="all"), "nothing is hidden"),
        Wrong("padding can be seen", lambda m: causal(m, keys="none"), "padding can be seen"),
        Wrong("padding as a query", lambda m: causal(m, keys="queries"), "the last axis"),
        Wrong("joined with or", lambda m: causal(m, keys="or"), "joined the two masks with 'or'"),
    ],
    "04.softmax_backward": [
        Wrong("the diagonal only", backward_diagonal, "only the diagonal"),
        Wrong("weights times gradient", backward_product, "subtract the mean"),
        Wrong("mean over queries", backward_over_queries, "you summed over queries"),
        Wrong("sum over axis 1", backward_over_axis_1, "you summed over axis 1"),
        Wrong("plain mean", backward_plain_mean, "counts by its weight"),
    ],
    "04.cross_attention": [
        Wrong("the second sentence asks", _cross(turned=True), "the second sentence's length"),
        Wrong("padding is heard", _cross(mask=False), "padding of the second sentence"),
        Wrong("one head", _cross(one_head=True), "a single head"),
        Wrong("scale of the full width", _cross(big_scale=True), "one big head"),
        Wrong("key and value exchanged", _cross(names=("value", "key")), "exchanged"),
        Wrong("softmax over queries", _cross(dim=-2), "softmax runs over keys"),
        Wrong("masked score of 0", _cross(hidden=0.0), "a masked score of 0 is not masked"),
        Wrong("mask inverted", _cross(inverted=True, hidden=-1e9), "kept the padding"),
        Wrong("heads not merged", _cross(merge=merge_by_reshape), "the heads are not merged"),
    ],
    "04.multi_head_bug": [
        Wrong(
            "nothing changed",
            lambda q, k, v, n: (
                multi_head(q, k, v, n, split=split_by_view, merge=merge_by_reshape).reshape(q.shape)
                if n == 1
                else attention(*[split_by_view(x, n) for x in (q, k, v)])[0].reshape(q.shape)
            ),
            "the bug is still there",
        ),
        Wrong(
            "only the split mended",
            lambda q, k, v, n: multi_head(q, k, v, n, merge=merge_by_reshape),
            "the merge is not",
        ),
        Wrong(
            "only the merge mended",
            lambda q, k, v, n: multi_head(q, k, v, n, split=split_by_view),
            "the split does not",
        ),
        Wrong("heads given up", lambda q, k, v, n: attention(q, k, v)[0], "a single head"),
        Wrong("the root lost on the way", multi_head_unscaled, "not scaled"),
    ],
    "04.attention_cost": [
        Wrong("no biases", lambda h, n, s: (3 * h * h, n * s * s), "biases are missing"),
        Wrong(
            "parameters times heads",
            lambda h, n, s: (n * 3 * (h * h + h), n * s * s),
            "multiplied by the number of heads",
        ),
        Wrong(
            "a matrix for each head",
            lambda h, n, s: (3 * n * h * h + 3 * h, n * s * s),
            "no matrix of its own",
        ),
        Wrong("one map", lambda h, n, s: (h * h + h, n * s * s), "one map only"),
        Wrong("output layer", lambda h, n, s: (4 * (h * h + h), n * s * s), "output layer too"),
        Wrong("scores of one head", lambda h, n, s: (3 * (h * h + h), s * s), "scores of its own"),
        Wrong("scores times head_size", lambda h, n, s: (3 * (h * h + h), h * s * s), "one number"),
        Wrong(
            "half of the scores",
            lambda h, n, s: (3 * (h * h + h), n * s * (s + 1) // 2),
            "are two scores",
        ),
        Wrong("scores linear", lambda h, n, s: (3 * (h * h + h), n * s), "each pair"),
    ],
    "04.relation_shares": [
        Wrong("special tokens ask", _shares(all_ask=True), "special tokens ask as well"),
        Wrong("previous and next exchanged", _shares(swap=True), "are exchanged"),
        Wrong("columns taken for queries", _shares(turned=True), "columns as queries"),
        Wrong("sums", _shares(total=True), "these are sums"),
        Wrong("summed over queries", shares_over_queries, "you summed over queries"),
        Wrong("special neighbors", _shares(near_first=True), "a special neighbor"),
    ],
    "04.relative_attention": [
        Wrong("left and right exchanged", _relative(sign=-1), "key minus query"),
        Wrong("far tokens without bias", _relative(drop_far=True), "clip the distance"),
        Wrong("bias scaled", _relative(scale_bias=True), "add it after the division"),
        Wrong("scores not scaled", _relative(unscaled=True), "not scaled"),
        Wrong("bias ignored", _relative(no_bias=True), "does not count"),
        Wrong("reach not added", _relative(unshifted=True), "add the reach"),
        Wrong("softmax over queries", _relative(dim=-2), "softmax runs over keys"),
    ],
}

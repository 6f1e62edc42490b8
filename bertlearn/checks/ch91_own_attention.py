"""Project 91, at the end of "what BERT is": the learner's attention in a trained BERT's place."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn.checkpoints.pretrained import find_directory
from bertlearn.checks.core import Check, Failed, Toolbox
from bertlearn.checks.reference import minilm
from bertlearn.config import BertConfig
from bertlearn.data import sources
from bertlearn.engine.fill import tokenizer_of
from bertlearn.model import BertModel
from bertlearn.tokenization import BertTokenizer

MOST_BYTES = 1 << 20
LOWEST = torch.finfo(torch.float32).min
BLOCK = 16  # of the pieces inside a model: its texts take several
TEXTS = {
    "bertlearn-mini-en": (
        "The Congress shall meet in December, and the President will send it a message on the "
        "state of the Union, as every President before him has done since the year 1790.",
        "The Nile is a river in Africa.",
        "She was an American physicist and the first woman who taught at the university.",
        "In the winter the river freezes, and the farmers of the valley cross it on foot.",
    ),
    "bertlearn-mini-zh": (
        "中华人民共和国公民有言论、出版、集会、结社、游行、示威的自由，"
        "任何组织和个人都必须遵守宪法和法律。",
        "这家酒店的服务态度很好，房间也干净。",
        "新华社北京一月三日电",
        "书还没有看完，不过前几章写得很清楚，印刷也不错。",
    ),
}

block_attention = Check(
    "91.block_attention",
    "your own attention, block by block, inside a trained BERT",
    ("BlockAttention",),
    kind="implement",
    difficulty=5,
    minutes=90,
    forbids=(
        *("aten::scaled_dot_product", "aten::_scaled_dot_product", "aten::_softmax"),
        *("aten::softmax", "aten::_log_softmax", f"bytes>{MOST_BYTES}"),
    ),
    seconds=20,
    reminder="For each query keep three things while the blocks pass: the largest score so far, "
    "the sum of the exponentials below it, and the mix of the values.",
)

# ---- oracles: torch's own operators, and the values to which known mistakes lead ------------


def _config(**changes: Any) -> BertConfig:
    sizes = {"vocab_size": 30, "hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1}
    none = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    return BertConfig(**{**sizes, **none, **changes})


def _maps(t: Toolbox, hidden: int, size: float = 1.0) -> dict[str, Tensor]:
    found = {}
    for name in ("query", "key", "value"):
        found[f"{name}.weight"] = size * t.randn(hidden, hidden) / hidden**0.5
        found[f"{name}.bias"] = t.randn(hidden) / 4
    return found


def _heads(x: Tensor, w: dict[str, Tensor], name: str, heads: int) -> Tensor:
    y = F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])
    return y.unflatten(-1, (heads, -1)).transpose(1, 2)  # (batch, heads, seq, head_size)


def _attended(x: Tensor, w: dict[str, Tensor], heads: int, mask: Tensor | None = None) -> Tensor:
    q, k, v = (_heads(x, w, name, heads) for name in ("query", "key", "value"))
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)


def _mistaken(
    how: str, x: Tensor, w: dict[str, Tensor], heads: int, block: int, mask: Tensor | None
) -> Tensor:
    """What comes out of attention over blocks that makes one of the well-known mistakes."""
    q, k, v = (_heads(x, w, name, heads) for name in ("query", "key", "value"))
    if how == "interleaved":
        q, k, v = (y.transpose(1, 2).flatten(2).unflatten(-1, (-1, heads)) for y in (q, k, v))
        q, k, v = (y.permute(0, 3, 1, 2) for y in (q, k, v))
    scores = q @ k.transpose(-2, -1) / (1 if how == "unscaled" else math.sqrt(q.shape[-1]))
    if mask is not None:
        scores = scores.masked_fill(mask if how == "inverted" else ~mask, LOWEST)
    parts = list(zip(scores.split(block, -1), v.split(block, -2), strict=True))
    if how == "last":
        parts = [(s, y) for s, y in parts if s.shape[-1] == block]
    if how == "averaged":
        mixed = torch.stack([s.softmax(-1) @ y for s, y in parts]).mean(0)
    elif how == "summed":
        mixed = torch.stack([s.softmax(-1) @ y for s, y in parts]).sum(0)
    elif how == "kept":
        tops = torch.stack([s.amax(-1, keepdim=True) for s, _ in parts]).cummax(0).values
        below = [((s - top).exp(), y) for (s, y), top in zip(parts, tops, strict=True)]
        mixed = sum(e @ y for e, y in below) / sum(e.sum(-1, keepdim=True) for e, _ in below)
    elif how == "own":  # each block below its own maximum, nothing put on one scale
        below = [((s - s.amax(-1, keepdim=True)).exp(), y) for s, y in parts]
        mixed = sum(e @ y for e, y in below) / sum(e.sum(-1, keepdim=True) for e, _ in below)
    else:
        joined = torch.cat([s for s, _ in parts], -1).softmax(-1)
        mixed = joined @ torch.cat([y for _, y in parts], -2)
    return mixed.transpose(1, 2).flatten(2)


MISTAKES = {
    "averaged": "each block was given a softmax of its own and the blocks were averaged: a block "
    "with large scores must weigh more",
    "summed": "each block was given a softmax of its own and the blocks were added: the weights of "
    "a query then sum to the number of blocks",
    "kept": "when a block raises the largest score, the sum and the mix of the blocks before it "
    "must be multiplied by exp(old - new): yours stay as they were",
    "own": "every block is measured from its own largest score: all must be measured from the "
    "largest of all blocks so far",
    "last": "the last block is left out where it is shorter than the others",
    "inverted": "the mask is upside down: True means that a key may be attended to",
    "unscaled": "the scores are not divided by the root of the head size",
    "interleaved": "the heads are interleaved: head h owns slice h of the hidden size",
}


def _suspects(
    x: Tensor, w: dict[str, Tensor], heads: int, block: int, mask: Tensor | None = None
) -> dict[str, Any]:
    blind = {"the mask has no effect": lambda: _attended(x, w, heads)} if mask is not None else {}
    return blind | {
        said: lambda how=how: _mistaken(how, x, w, heads, block, mask)
        for how, said in MISTAKES.items()
        if (how != "last" or (x.shape[1] > block and x.shape[1] % block))
        and (how != "inverted" or mask is not None)
    }


def _made(t: Toolbox, cls: Any, weights: dict[str, Tensor], config: BertConfig, *block: int) -> Any:
    """The answer with these weights, or a sentence about its parameters' names."""
    module = t.module(cls(config, *block))
    have, want = set(module.state_dict()), set(weights)
    t.that(
        have == want,
        "the parameters must be called as in BERT's checkpoints: query, key and value, each an "
        "nn.Linear",
        expected=", ".join(sorted(want - have)[:3]) or "no others",
        got=", ".join(sorted(have - want)[:3]) or "none of these",
    )
    shapes = {name: tuple(x.shape) for name, x in module.state_dict().items()}
    for name, x in weights.items():
        t.that(
            shapes[name] == tuple(x.shape),
            f"{name} has shape {shapes[name]}, the checkpoint's is {tuple(x.shape)}",
        )
    module.load_state_dict(weights)
    return module.eval()


def _context(t: Toolbox, result: Any, x: Tensor) -> Tensor:
    """The first of the two things that attention returns."""
    t.that(
        isinstance(result, tuple) and len(result) == 2 and result[1] is None,
        "return two things, as the package's attention does: the context, and None for the "
        "weights, which are never there as a whole",
    )
    return t.tensor(result[0], shape=x.shape, dtype=x.dtype, name="the context")


# ---- the piece alone ------------------------------------------------------------------------


@block_attention.case("two tokens by hand, one key a block", points=1)
def _(t: Toolbox, cls: Any) -> None:
    config = _config(hidden_size=4, num_attention_heads=1)
    one, none = torch.eye(4), torch.zeros(4)
    weights = {f"{name}.weight": one for name in ("query", "key", "value")}
    weights |= {f"{name}.bias": none for name in ("query", "key", "value")}
    x = torch.tensor([[[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]]])
    got = _context(t, _made(t, cls, weights, config, 1)(x), x)
    high = 1 / (1 + math.exp(-2))  # scores 4 / 2 and 0
    want = torch.tensor([[[2 * high, 2 - 2 * high, 0, 0], [2 - 2 * high, 2 * high, 0, 0]]])
    suspects = _suspects(x, weights, 1, 1)
    t.close(got, want, "the context", suspects=suspects)


@block_attention.case("agrees with torch's own attention, whatever the block", points=2)
def _(t: Toolbox, cls: Any) -> None:
    config, weights = _config(), _maps(t, 24, 2.0)
    x = t.randn(2, 13, 24)
    want = _attended(x, weights, 3)
    for block in (1, 4, 5, 13, 50):
        got = _context(t, _made(t, cls, weights, config, block)(x), x)
        name = f"the context with blocks of {block}"
        t.close(got, want, name, suspects=_suspects(x, weights, 3, block))
    t.close(
        _context(t, _made(t, cls, weights, config)(x), x),
        want,
        "the context with the block that you chose",
    )


@block_attention.case("scores in the hundreds, rising from block to block", points=1)
def _(t: Toolbox, cls: Any) -> None:
    config, weights = _config(), _maps(t, 24, 12.0)
    x = t.randn(1, 12, 24) * torch.linspace(0.1, 1.5, 12)[:, None]
    want = _attended(x, weights, 3)
    module = _made(t, cls, weights, config, 4)
    for order in (x, x.flip(1)):
        right = want if order is x else want.flip(1)
        got = _context(t, module(order), x)
        t.that(
            torch.isfinite(got).all(),
            "large scores give nan or inf: an exponential of a score overflows above 88, so take "
            "the largest score so far away first",
        )
        t.close(got, right, "the context", atol=1e-4, suspects=_suspects(order, weights, 3, 4))


@block_attention.case("padding, a block of nothing else, and a mask for each query", points=2)
def _(t: Toolbox, cls: Any) -> None:
    config, weights = _config(), _maps(t, 24, 2.0)
    x = t.randn(2, 11, 24)
    tail, front = torch.ones(2, 1, 1, 11, dtype=torch.bool), torch.ones(2, 1, 1, 11).bool()
    tail[1, ..., 5:], front[1, ..., :6] = False, False
    left = torch.ones(11, 11, dtype=torch.bool).tril()[None, None]
    module = _made(t, cls, weights, config, 4)
    for mask, what in (
        (tail, "padding at the end"),
        (front, "padding at the beginning, a whole block of it"),
        (left, "a mask that looks left only"),
    ):
        got = _context(t, module(x, mask), x)
        t.that(
            torch.isfinite(got).all(),
            f"{what}: nan comes out. Where a whole block is hidden its largest score is -inf, and "
            f"-inf - -inf is nan: fill with the lowest finite number instead",
        )
        want, suspects = _attended(x, weights, 3, mask), _suspects(x, weights, 3, 4, mask)
        t.close(got, want, f"the context, {what}", suspects=suspects)


@block_attention.case("a long text: the scores of all keys are never there at once", points=1)
def _(t: Toolbox, cls: Any) -> None:
    config, weights = _config(hidden_size=32, num_attention_heads=4), _maps(t, 32, 2.0)
    x = t.randn(1, 1024, 32)  # all scores: 4 x 1024 x 1024 numbers, 16 MB; a block of 32: 0.5 MB
    got = _context(t, _made(t, cls, weights, config, 32)(x), x)
    t.close(got, _attended(x, weights, 4), "the context", suspects=_suspects(x, weights, 4, 32))


# ---- the piece in the house -----------------------------------------------------------------


@cache
def _trained(name: str) -> tuple[BertModel, BertTokenizer]:
    """A model of the package as it is, and its tokenizer."""
    model = BertModel.from_pretrained(name)
    return model.eval(), tokenizer_of(find_directory(name))


def _house(t: Toolbox, cls: Any, name: str) -> BertModel:
    """The package's model with the learner's attention in each layer, then the trained weights.

    Raises:
        Failed: at once if the piece alone is not right: there is nothing new to learn from here.
    """
    try:
        _alone(Toolbox(t.seed), cls)
    except Exception as error:
        if isinstance(error, NotImplementedError):
            raise
        raise Failed(
            "not put into the model yet: alone it does not agree with torch's attention"
        ) from None
    trained, _ = _trained(name)
    model = copy.deepcopy(trained)
    for layer in model.encoder.layer:
        piece = t.module(cls(trained.config, BLOCK))
        layer.attention.self = piece  # type: ignore[union-attr]
    weights = trained.state_dict()
    have, want = set(model.state_dict()), set(weights)
    t.that(
        have == want,
        "the weights cannot be loaded: parameters are not called as in the checkpoint",
        expected=", ".join(sorted(want - have)[:2]) or "no others",
        got=", ".join(sorted(have - want)[:2]) or "none of these",
    )
    model.load_state_dict(weights)
    return model.eval()


def _alone(t: Toolbox, cls: Any) -> None:
    """The piece on random weights, with and without padding, once."""
    config, weights, x = _config(), _maps(t, 24, 2.0), t.randn(2, 11, 24)
    mask = torch.ones(2, 1, 1, 11, dtype=torch.bool)
    mask[1, ..., 5:] = False
    module = _made(t, cls, weights, config, 4)
    t.close(_context(t, module(x), x), _attended(x, weights, 3))
    t.close(_context(t, module(x, mask), x), _attended(x, weights, 3, mask))


def _batch(t: Toolbox, name: str) -> tuple[Tensor, Tensor]:
    """Texts of the model's language in random order, padded."""
    _, tokenizer = _trained(name)
    rows = [tokenizer.encode(text).ids for text in t.random.sample(TEXTS[name], 3)]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    return ids, mask


def _states(w: dict[str, Tensor], config: BertConfig, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """All states of a BERT with these weights, by torch's own operators."""

    def norm(x: Tensor, name: str) -> Tensor:
        gain, shift = w[f"{name}.LayerNorm.weight"], w[f"{name}.LayerNorm.bias"]
        return F.layer_norm(x, gain.shape, gain, shift, config.layer_norm_eps)

    def dense(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.dense.weight"], w[f"{name}.dense.bias"])

    tables = "embeddings.{}_embeddings.weight".format
    x = w[tables("word")][ids] + w[tables("token_type")][0]
    x = norm(x + w[tables("position")][: ids.shape[1]], "embeddings")
    states, real = [x], mask.bool()[:, None, None, :]
    for i in range(config.num_hidden_layers):
        one = f"encoder.layer.{i}."
        own = {
            k.removeprefix(f"{one}attention.self."): v for k, v in w.items() if k.startswith(one)
        }
        context = _attended(x, own, config.num_attention_heads, real)
        x = norm(x + dense(context, f"{one}attention.output"), f"{one}attention.output")
        wide = F.gelu(dense(x, f"{one}intermediate"))
        x = norm(x + dense(wide, f"{one}output"), f"{one}output")
        states.append(x)
    return states


def _matches(t: Toolbox, cls: Any, name: str) -> None:
    """Alone and padded, layer by layer."""
    model, (trained, _) = _house(t, cls, name), _trained(name)
    weights, config = trained.state_dict(), trained.config
    ids, mask = _batch(t, name)
    with torch.no_grad():
        alone = ids[:1, : int(mask[0].sum())]
        for tokens, real, how in (
            (alone, None, "one text"),
            (ids, mask, "three texts, padded"),
        ):
            got = model(tokens, None, real, output_hidden_states=True).hidden_states
            seen = torch.ones_like(tokens) if real is None else real
            want = _states(weights, config, tokens, seen)
            for i, (mine, right) in enumerate(zip(got or (), want, strict=True)):
                where = f"{how}: the state after layer {i} of {config.num_hidden_layers}"
                t.close(mine[seen.bool()], right[seen.bool()], where, atol=2e-4)


@block_attention.case("inside the English BERT: its weights, one text and a padded batch", points=1)
def _(t: Toolbox, cls: Any) -> None:
    _matches(t, cls, "bertlearn-mini-en")


@block_attention.case("inside the Chinese BERT: its weights, one text and a padded batch", points=1)
def _(t: Toolbox, cls: Any) -> None:
    _matches(t, cls, "bertlearn-mini-zh")


@block_attention.case("inside the English BERT: gradients, down to the embeddings", points=1)
def _(t: Toolbox, cls: Any) -> None:
    name = "bertlearn-mini-en"
    model, (trained, _) = _house(t, cls, name), _trained(name)
    ids, mask = _batch(t, name)
    leaves = {key: x.clone().requires_grad_() for key, x in trained.state_dict().items()}
    want = _states(leaves, trained.config, ids, mask)[-1]
    upstream = t.randn(*want.shape) * mask[:, :, None]
    (want * upstream).sum().backward()
    got = model(ids, None, mask).last_hidden_state
    t.that(got.requires_grad, "no gradient flows through your attention: was it detached?")
    (got * upstream).sum().backward()
    found = dict(model.named_parameters())
    for part in (
        "encoder.layer.3.attention.self.value.weight",
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.0.attention.self.key.weight",
        "embeddings.word_embeddings.weight",
    ):
        mine, right = found[part].grad, leaves[part].grad
        assert right is not None
        if mine is None:
            raise Failed(f"{part} gets no gradient: is a part of your attention detached?")
        scale = float(right.abs().max())
        t.close(
            mine / scale,
            right / scale,
            f"the gradient of {part}, in units of its largest entry",
            atol=1e-3,
            suspects={f"the gradient of {part} is 0: is it detached?": torch.zeros_like(right)},
        )


@block_attention.case("inside MiniLM, if its weights are on this machine: transformers' numbers")
def _(t: Toolbox, cls: Any) -> None:
    if not sources.is_cached("minilm"):
        return
    model, reference = _house(t, cls, "minilm"), minilm()
    for sentence in reference["sentences"]:
        ids, types = (torch.tensor([sentence[key]]) for key in ("ids", "type_ids"))
        with torch.no_grad():
            states = model(ids, types, output_hidden_states=True).hidden_states or ()
        mine = torch.stack([state[0, 0, :8] for state in states])
        right = torch.tensor(sentence["cls"])
        t.close(mine, right, f"[CLS] of {sentence['text'][:30]!r} in each layer", atol=1e-4)

"""What the encoder and the model must do (chapter 05), and the questions of its exercises."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.checks.core import Check, Failed, Toolbox
from bertlearn.config import BertConfig

# ---- weights and oracles --------------------------------------------------------------------

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def _config(**changes: Any) -> BertConfig:
    return BertConfig(**{**SIZES, **changes})


def _linear(t: Toolbox, name: str, out: int, into: int) -> dict[str, Tensor]:
    return {f"{name}.weight": t.randn(out, into) / into**0.5, f"{name}.bias": t.randn(out) / 4}


def _norm(t: Toolbox, name: str, size: int) -> dict[str, Tensor]:
    return {f"{name}.weight": 1 + t.randn(size) / 4, f"{name}.bias": t.randn(size) / 4}


def _under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in weights.items()}


def _inside(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}


def _sublayer_weights(t: Toolbox, into: int, hidden: int) -> dict[str, Tensor]:
    return {**_linear(t, "dense", hidden, into), **_norm(t, "LayerNorm", hidden)}


def _attention_weights(t: Toolbox, hidden: int) -> dict[str, Tensor]:
    maps = [_linear(t, f"self.{name}", hidden, hidden) for name in ("query", "key", "value")]
    return {
        **{name: tensor for one in maps for name, tensor in one.items()},
        **_under("output", _sublayer_weights(t, hidden, hidden)),
    }


def _layer_weights(t: Toolbox, config: BertConfig) -> dict[str, Tensor]:
    hidden, wide = config.hidden_size, config.intermediate_size
    return {
        **_under("attention", _attention_weights(t, hidden)),
        **_linear(t, "intermediate.dense", wide, hidden),
        **_under("output", _sublayer_weights(t, wide, hidden)),
    }


def _encoder_weights(t: Toolbox, config: BertConfig) -> dict[str, Tensor]:
    layers = [
        _under(f"layer.{i}", _layer_weights(t, config)) for i in range(config.num_hidden_layers)
    ]
    return {name: tensor for layer in layers for name, tensor in layer.items()}


def _model_weights(t: Toolbox, config: BertConfig) -> dict[str, Tensor]:
    hidden = config.hidden_size
    return {
        "embeddings.word_embeddings.weight": t.randn(config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": t.randn(config.max_position_embeddings, hidden),
        "embeddings.token_type_embeddings.weight": t.randn(config.type_vocab_size, hidden),
        **_norm(t, "embeddings.LayerNorm", hidden),
        **_under("encoder", _encoder_weights(t, config)),
        **_linear(t, "pooler.dense", hidden, hidden),
    }


def _mha(w: dict[str, Tensor], hidden: int, heads: int) -> nn.MultiheadAttention:
    """torch's own multi-head attention with these weights."""
    oracle = nn.MultiheadAttention(hidden, heads, batch_first=True)
    parts = ("query", "key", "value")
    oracle.load_state_dict(
        {
            "in_proj_weight": torch.cat([w[f"self.{p}.weight"] for p in parts]),
            "in_proj_bias": torch.cat([w[f"self.{p}.bias"] for p in parts]),
            "out_proj.weight": w["output.dense.weight"],
            "out_proj.bias": w["output.dense.bias"],
        }
    )
    return oracle


def _block(config: BertConfig, w: dict[str, Tensor], **changes: Any) -> nn.TransformerEncoderLayer:
    """torch's own block with these weights; it stays in training mode, whose path is plain."""
    hidden, wide = config.hidden_size, config.intermediate_size
    oracle = nn.TransformerEncoderLayer(
        **{
            "d_model": hidden,
            "nhead": config.num_attention_heads,
            "dim_feedforward": wide,
            "dropout": 0.0,
            "activation": F.gelu,
            "layer_norm_eps": config.layer_norm_eps,
            "batch_first": True,
            **changes,
        }
    )
    attention = _mha(_inside("attention", w), hidden, config.num_attention_heads)
    oracle.self_attn.load_state_dict(attention.state_dict())
    for part, name in (
        (oracle.linear1, "intermediate.dense"),
        (oracle.linear2, "output.dense"),
        (oracle.norm1, "attention.output.LayerNorm"),
        (oracle.norm2, "output.LayerNorm"),
    ):
        part.load_state_dict(_inside(name, w))
    return oracle


def _layer_norm(x: Tensor, w: dict[str, Tensor], eps: float = 1e-12) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w["LayerNorm.weight"], w["LayerNorm.bias"], eps)


def _dense(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    return F.linear(x, w["dense.weight"], w["dense.bias"])


def _made(t: Toolbox, cls: Any, weights: dict[str, Tensor], *arguments: Any) -> Any:
    """An implementation with these weights, or a sentence about its parameters' names."""
    module = cls(*arguments)
    have, want = set(module.state_dict()), set(weights)
    t.that(
        have == want,
        "the parameters must be called as in BERT's checkpoints",
        expected=", ".join(sorted(want - have)[:3]) or "no others",
        got=", ".join(sorted(have - want)[:3]) or "none of these",
    )
    module.load_state_dict(weights)
    return module.eval()


def _padding(batch: int = 2, seq: int = 7, real: int = 4) -> Tensor:
    mask = torch.ones(batch, seq, dtype=torch.int64)
    mask[-1, real:] = 0
    return mask


# ---- definitions of the chapter -------------------------------------------------------------

activations = Check("05.ACTIVATIONS", "three activation functions, by name", ("ACTIVATIONS",))


@activations.case("numbers that a table of the normal distribution confirms")
def _(t: Toolbox, table: Any) -> None:
    t.that(
        isinstance(table, dict) and sorted(table) == ["gelu", "gelu_new", "relu"],
        "the table must have exactly the names gelu, gelu_new and relu",
        got=str(sorted(table))[:80] if isinstance(table, dict) else type(table).__name__,
    )
    x = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    t.close(
        table["gelu"](x),
        torch.tensor([-0.15866, 0.0, 0.84134, 1.95450]),
        "gelu",
        atol=1e-5,
        suspects={
            "gelu is x times the normal distribution's area left of x, not times a sigmoid": (
                x * torch.sigmoid(x)
            ),
            "gelu and gelu_new are exchanged: gelu is the exact one, with erf": (
                F.gelu(x, approximate="tanh")
            ),
            "this is the area alone: gelu multiplies it by x": 0.5 * (1 + torch.erf(x / 2**0.5)),
        },
    )
    t.close(
        table["relu"](x),
        torch.tensor([0.0, 0.0, 1.0, 2.0]),
        "relu",
        suspects={"relu gives 0 below 0, nothing leaks": F.leaky_relu(x)},
    )


@activations.case("exact and approximate gelu, each by its own formula")
def _(t: Toolbox, table: Any) -> None:
    x = 3 * t.randn(500, dtype=torch.float64)
    exact = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    near = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    t.close(
        table["gelu"](x),
        exact,
        "gelu",
        atol=1e-9,
        rtol=0,
        suspects={"gelu and gelu_new are exchanged: gelu is the exact one, with erf": near},
    )
    t.close(
        table["gelu_new"](x),
        near,
        "gelu_new",
        atol=1e-9,
        rtol=0,
        suspects={
            "gelu_new is the exact gelu: it must be Google's approximation with tanh": exact,
            "this approximation uses a sigmoid: gelu_new uses tanh": x * torch.sigmoid(1.702 * x),
        },
    )


add_norm = Check("05.AddNorm", "project, add the residual, normalize", ("AddNorm",))


@add_norm.case("by hand: nothing to add, and 2, 4, 4, 10 has mean 5 and deviation 3")
def _(t: Toolbox, cls: Any) -> None:
    weights = {
        "dense.weight": torch.zeros(4, 6),
        "dense.bias": torch.zeros(4),
        "LayerNorm.weight": torch.ones(4),
        "LayerNorm.bias": torch.zeros(4),
    }
    module = _made(t, cls, weights, 6, _config(hidden_size=4, num_attention_heads=1))
    residual = torch.tensor([[[2.0, 4.0, 4.0, 10.0]]])
    centered = residual - 5
    t.close(
        module(t.randn(1, 1, 6), residual),
        centered / 3,
        "the output",
        suspects={
            "the residual is lost: add what came in before the sublayer": torch.zeros_like(
                centered
            ),
            "LayerNorm comes after the sum: you normalized the sublayer and then added": residual,
            "you divided by n - 1: LayerNorm's variance is the mean of the squares": (
                centered / 12**0.5
            ),
        },
    )


@add_norm.case("agrees with torch's own operators")
def _(t: Toolbox, cls: Any) -> None:
    weights = _sublayer_weights(t, 40, 24)
    module = _made(t, cls, weights, 40, _config())
    x, residual = t.randn(2, 5, 40), t.randn(2, 5, 24)
    new = _dense(x, weights)
    t.close(
        module(x, residual),
        _layer_norm(residual + new, weights),
        "the output",
        suspects={
            "the residual is lost: add what came in before the sublayer": _layer_norm(new, weights),
            "LayerNorm comes after the sum: you normalized the sublayer and then added": (
                residual + _layer_norm(new, weights)
            ),
            "the residual was added after LayerNorm of the sublayer's input: that is pre-LN": (
                residual + new
            ),
            "LayerNorm's gain and shift are left out": F.layer_norm(
                residual + new, (24,), eps=1e-12
            ),
            "there is no LayerNorm": residual + new,
        },
    )


@add_norm.case("eps is the config's: a faint vector comes out at full size")
def _(t: Toolbox, cls: Any) -> None:
    weights = _sublayer_weights(t, 24, 24)
    weights["dense.weight"].zero_()
    weights["dense.bias"].zero_()
    residual = 1e-3 * t.randn(2, 5, 24)
    module = _made(t, cls, weights, 24, _config())
    t.close(
        module(t.randn(2, 5, 24), residual),
        _layer_norm(residual, weights),
        "the output",
        atol=1e-3,
        suspects={
            "eps is torch's default, 1e-5: BERT's is config.layer_norm_eps, 1e-12": _layer_norm(
                residual, weights, 1e-5
            )
        },
    )


@add_norm.case("dropout meets the sublayer's output alone, and only in training")
def _(t: Toolbox, cls: Any) -> None:
    weights = _sublayer_weights(t, 24, 24)
    config = _config(hidden_dropout_prob=0.5)
    module = _made(t, cls, weights, 24, config)
    x, residual = t.randn(2, 5, 24), t.randn(2, 5, 24)
    with torch.no_grad():
        t.close(module(x, residual), module(x, residual), "two runs of model.eval()")
        module.train()
        same = torch.allclose(module(x, residual), module(x, residual))
        t.that(not same, "two runs of model.train() are equal: dropout is missing")
        zero = {**weights, "dense.weight": torch.zeros(24, 24), "dense.bias": torch.zeros(24)}
        module.load_state_dict(zero)
        t.that(
            torch.allclose(module(x, residual), _layer_norm(residual, weights), atol=1e-5),
            "dropout touches the residual: drop the sublayer's output before the sum",
        )


attention = Check("05.BertAttention", "attention with its output layer", ("BertAttention",))


def _attended(
    w: dict[str, Tensor], x: Tensor, real: Tensor | None, heads: int = 3
) -> tuple[Tensor, Tensor]:
    """Output of torch's attention and its output layer, and the weights of the heads."""
    hide = None if real is None else ~real.bool()
    return _mha(w, x.shape[-1], heads)(x, x, x, key_padding_mask=hide, average_attn_weights=False)


@attention.case("agrees with torch's own attention, residual and LayerNorm, with padding")
def _(t: Toolbox, cls: Any) -> None:
    weights = _attention_weights(t, 24)
    module = _made(t, cls, weights, _config())
    x, real = t.randn(2, 7, 24), _padding()
    out = _inside("output", weights)
    with torch.no_grad():
        got, none = module(x, real.bool()[:, None, None, :])
        new, _ = _attended(weights, x, real)
        unmasked, _ = _attended(weights, x, None)
        bare = {
            **weights,
            "output.dense.weight": torch.eye(24),
            "output.dense.bias": torch.zeros(24),
        }
        context, _ = _attended(bare, x, real)
    t.close(
        got,
        _layer_norm(x + new, out),
        "the output",
        suspects={
            "the residual is lost: add the block's input": _layer_norm(new, out),
            "you added the attention's own output as residual: add what came in": _layer_norm(
                context + new, out
            ),
            "the mask is ignored: padding is attended to": _layer_norm(x + unmasked, out),
            "the output layer's dense map is left out": _layer_norm(x + context, out),
            "LayerNorm comes after the sum: you normalized attention and then added": (
                x + _layer_norm(new, out)
            ),
        },
    )
    t.that(none is None, "without output_attentions the second result must be None")


@attention.case("hands on the weights of every head on request")
def _(t: Toolbox, cls: Any) -> None:
    weights = _attention_weights(t, 24)
    module = _made(t, cls, weights, _config())
    x = t.randn(2, 7, 24)
    with torch.no_grad():
        result = module(x, None, True)
        _, want = _attended(weights, x, None)
    t.that(isinstance(result, tuple) and len(result) == 2, "return the output and the weights")
    t.close(result[1], want, "the weights", suspects={"the heads are averaged": want.mean(1)})


intermediate = Check("05.BertIntermediate", "the wide half of the FFN", ("BertIntermediate",))


@intermediate.case("a linear map, then the activation that the config names")
def _(t: Toolbox, cls: Any) -> None:
    weights = {name: x.double() for name, x in _linear(t, "dense", 40, 24).items()}
    x = t.randn(2, 5, 24, dtype=torch.float64)
    raw = _dense(x, weights)
    wanted = {"gelu": F.gelu(raw), "gelu_new": F.gelu(raw, approximate="tanh"), "relu": raw.relu()}
    for name, want in wanted.items():
        module = _made(t, cls, _linear(t, "dense", 40, 24), _config(hidden_act=name)).double()
        module.load_state_dict(weights)
        slips = {
            "the activation is missing: without it two linear maps are only one": raw,
            "the activation comes after the map, not before it": _dense(
                F.gelu(x) if name == "gelu" else x.relu(), weights
            ),
            "the activation is always the exact gelu: config.hidden_act names it": wanted["gelu"],
            "this is the tanh approximation: hidden_act says gelu, the exact one": (
                wanted["gelu_new"]
            ),
            "this is relu: hidden_act says something else": wanted["relu"],
        }
        t.close(module(x), want, f"the output for {name}", atol=1e-7, rtol=0, suspects=slips)


@intermediate.case("each position alone: changing one token changes no other")
def _(t: Toolbox, cls: Any) -> None:
    module = _made(t, cls, _linear(t, "dense", 40, 24), _config())
    x = t.randn(2, 5, 24)
    other = x.clone()
    other[:, 2] = t.randn(2, 24)
    moved = (module(x) - module(other)).abs().amax(-1)  # (batch, seq)
    t.that(bool((moved[:, 2] > 1e-3).all()), "the token that changed must come out changed")
    moved[:, 2] = 0
    t.that(not bool((moved > 1e-6).any()), "one token's change reached others: no mixing here")


layer = Check("05.BertLayer", "one block, post-LN", ("BertLayer",))


def _layer_mistakes(config: BertConfig, w: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """What well-known slips in the second half lead to (without padding)."""
    new, _ = _attended(_inside("attention", w), x, None)
    attended = _layer_norm(x + new, _inside("attention.output", w))
    wide = F.gelu(_dense(attended, _inside("intermediate", w)))
    out = _inside("output", w)
    straight = F.gelu(_dense(x, _inside("intermediate", w)))
    return {
        "this is pre-LN: BERT normalizes after each sum, not before each sublayer": (
            _block(config, w, norm_first=True)(x)
        ),
        "the second residual is the block's input: it must be the attention's output": (
            _layer_norm(x + _dense(wide, out), out)
        ),
        "the second residual is lost: add the attention's output": _layer_norm(
            _dense(wide, out), out
        ),
        "the feed-forward network reads the block's input: it must read the attention's output": (
            _layer_norm(attended + _dense(straight, out), out)
        ),
        "this is the attention half alone: the feed-forward network is missing": attended,
    }


@layer.case("agrees with torch's own TransformerEncoderLayer")
def _(t: Toolbox, cls: Any) -> None:
    config = _config()
    weights = _layer_weights(t, config)
    module = _made(t, cls, weights, config)
    x = t.randn(2, 7, 24)
    with torch.no_grad():
        got, none = module(x)
        want = _block(config, weights)(x)
        t.close(got, want, "the output", suspects=_layer_mistakes(config, weights, x))
    t.that(none is None, "without output_attentions the second result must be None")


@layer.case("padding is hidden, weights come on request")
def _(t: Toolbox, cls: Any) -> None:
    config = _config()
    weights = _layer_weights(t, config)
    module = _made(t, cls, weights, config)
    x, real = t.randn(2, 7, 24), _padding()
    with torch.no_grad():
        got, seen = module(x, real.bool()[:, None, None, :], True)
        want = _block(config, weights)(x, src_key_padding_mask=~real.bool())
        open_ = _block(config, weights)(x)
        _, heads = _attended(_inside("attention", weights), x, real)
    t.close(got, want, "the output", suspects={"the mask is ignored": open_})
    t.close(seen, heads, "the weights")


encoder = Check("05.BertEncoder", "a stack of blocks", ("BertEncoder",))


def _stack(config: BertConfig, w: dict[str, Tensor], x: Tensor, real: Tensor) -> list[Tensor]:
    states = [x]
    for i in range(config.num_hidden_layers):
        block = _block(config, _inside(f"layer.{i}", w))
        states.append(block(states[-1], src_key_padding_mask=~real.bool()))
    return states


@encoder.case("every layer has weights of its own and reads the layer below")
def _(t: Toolbox, cls: Any) -> None:
    config = _config()
    weights = _encoder_weights(t, config)
    module = _made(t, cls, weights, config)
    x, real = t.randn(2, 7, 24), _padding()
    last = {name: weights[name.replace(name.split(".")[1], "2", 1)] for name in weights}
    with torch.no_grad():
        got = module(x, real.bool()[:, None, None, :])
        states = _stack(config, weights, x, real)
        t.close(
            got.last_hidden_state,
            states[-1],
            "last_hidden_state",
            suspects={
                "all layers are one module, so they share weights: make a new one each time": (
                    _stack(config, last, x, real)[-1]
                ),
                "every layer reads the input: each must read what the layer below it wrote": (
                    _block(config, _inside("layer.2", weights))(
                        x, src_key_padding_mask=~real.bool()
                    )
                ),
                "the mask is ignored": _stack(config, weights, x, torch.ones_like(real))[-1],
                "the last layer is left out": states[-2],
            },
        )
    t.that(
        got.hidden_states is None and got.attentions is None,
        "hidden_states and attentions are None unless they are asked for",
    )


@encoder.case("on request: the input and every layer's output, every layer's weights")
def _(t: Toolbox, cls: Any) -> None:
    config = _config()
    weights = _encoder_weights(t, config)
    module = _made(t, cls, weights, config)
    x, real = t.randn(2, 7, 24), torch.ones(2, 7, dtype=torch.int64)
    with torch.no_grad():
        got = module(x, None, output_hidden_states=True, output_attentions=True)
        states = _stack(config, weights, x, real)
    t.that(
        isinstance(got.hidden_states, tuple) and isinstance(got.attentions, tuple),
        "hidden_states and attentions must be tuples, one entry a layer",
    )
    t.that(
        len(got.hidden_states) == 4,
        "hidden_states begins with the stack's input: one entry more than there are layers",
        expected="4 for 3 layers",
        got=str(len(got.hidden_states)),
    )
    for i, (ours, theirs) in enumerate(zip(got.hidden_states, states, strict=True)):
        t.close(
            ours,
            theirs,
            f"hidden_states[{i}]",
            suspects={
                "all hidden_states are the last one: the states are changed in place": states[-1]
            },
        )
    t.that(len(got.attentions) == 3, "3 layers give 3 attentions")
    for i, ours in enumerate(got.attentions):
        _, heads = _attended(_inside(f"layer.{i}.attention", weights), states[i], None)
        t.close(ours, heads, f"attentions[{i}]")


output = Check("05.BaseModelOutput", "what a stack returns", ("BaseModelOutput",))


@output.case("three fields; what was not asked for is None")
def _(t: Toolbox, cls: Any) -> None:
    _fields(t, cls, ["last_hidden_state", "hidden_states", "attentions"])
    x = torch.zeros(1)
    t.that(cls(last_hidden_state=x).last_hidden_state is x, "it must keep what it is given")


def _fields(t: Toolbox, cls: Any, want: list[str]) -> None:
    t.that(
        dataclasses.is_dataclass(cls),
        "it must be a dataclass: decorate the class with @dataclass",
    )
    got = [field.name for field in dataclasses.fields(cls)]
    t.that(
        sorted(got) == sorted(want),
        "the fields must have the names that Hugging Face gives them",
        expected=", ".join(want),
        got=", ".join(got),
    )
    t.that(got[0] == "last_hidden_state", "last_hidden_state comes first", got=", ".join(got))
    try:
        made = cls(last_hidden_state=torch.zeros(1))
    except TypeError:
        raise Failed("only last_hidden_state may be required: the others default to None") from None
    t.that(
        all(getattr(made, name) is None for name in want[1:]),
        "what was not asked for must be None",
    )


pooled = Check(
    "05.BaseModelOutputWithPooling", "what the model returns", ("BaseModelOutputWithPooling",)
)


@pooled.case("the stack's three fields and pooler_output")
def _(t: Toolbox, cls: Any) -> None:
    _fields(t, cls, ["last_hidden_state", "hidden_states", "attentions", "pooler_output"])
    x = torch.zeros(1)
    t.that(
        cls(last_hidden_state=x, pooler_output=x).pooler_output is x,
        "pooler_output must be what it is given",
    )


pooler = Check("05.BertPooler", "the first token, through a layer", ("BertPooler",))


@pooler.case("tanh of a linear map of [CLS]")
def _(t: Toolbox, cls: Any) -> None:
    weights = _linear(t, "dense", 24, 24)
    module = _made(t, cls, weights, _config())
    x = t.randn(3, 3, 24)
    t.close(
        module(x),
        torch.tanh(_dense(x[:, 0], weights)),
        "pooler_output",
        suspects={
            "this is the first text's every token: the first token of every text is x[:, 0]": (
                torch.tanh(_dense(x[0], weights))
            ),
            "tanh is missing": _dense(x[:, 0], weights),
            "this is the mean over the tokens: BERT's pooler takes [CLS] alone": torch.tanh(
                _dense(x.mean(1), weights)
            ),
            "this is the last token: [CLS] is the first": torch.tanh(_dense(x[:, -1], weights)),
            "the linear map is left out": torch.tanh(x[:, 0]),
            "every token is pooled: the result has one vector a text": torch.tanh(
                _dense(x, weights)
            ),
        },
    )


mean = Check("05.mean_pool", "the mean over real tokens", ("mean_pool",))


@mean.case("padding does not count, neither above nor below the line")
def _(t: Toolbox, mean_pool: Any) -> None:
    x, real = t.randn(2, 5, 3), _padding(2, 5, 2)
    want = torch.stack([x[0].mean(0), x[1, :2].mean(0)])
    kept = x * real[:, :, None]
    for mask in (real, real.bool()):
        t.close(
            mean_pool(x, mask),
            want,
            "mean_pool(hidden_states, attention_mask)",
            suspects={
                "padding is averaged in: multiply by the mask first": x.mean(1),
                "you divided by the padded length: divide by the number of real tokens": (
                    kept.mean(1)
                ),
                "this is a sum: divide by the number of real tokens": kept.sum(1),
                "you divided by all real tokens of the batch: each text has a count of its own": (
                    kept.sum(1) / real.sum()
                ),
                "this is [CLS] alone": x[:, 0],
            },
        )


@mean.case("one vector a text, of the states' own type")
def _(t: Toolbox, mean_pool: Any) -> None:
    x = t.randn(2, 5, 3)
    t.tensor(mean_pool(x, _padding(2, 5, 2)), shape=(2, 3), dtype=torch.float32)


init = Check("05.init_weights", "fresh weights", ("init_weights",))


class _Mixed(nn.Module):
    """One of each kind of module, nothing at its initial value."""

    def __init__(self, t: Toolbox):
        super().__init__()
        self.table = nn.Embedding(400, 200, 0)
        self.frozen = nn.Embedding.from_pretrained(t.randn(8, 200), freeze=True)
        self.dense = nn.Linear(200, 400)
        self.again = nn.Linear(200, 400)
        self.LayerNorm = nn.LayerNorm(200)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.requires_grad:
                    parameter.copy_(3 + t.randn(*parameter.shape))


def _drawn(t: Toolbox, init_weights: Any, std: float) -> _Mixed:
    model = _Mixed(t)
    torch.manual_seed(t.integer(0, 10**6))
    init_weights(model, _config(initializer_range=std))
    return model


@init.case("matrices and tables: normal, cut at two standard deviations")
def _(t: Toolbox, init_weights: Any) -> None:
    for std in (0.02, 0.1):
        model = _drawn(t, init_weights, std)
        for name in ("dense", "again", "table"):
            w = getattr(model, name).weight.detach().flatten()
            w = w[w != 0]
            t.that(abs(w.mean()) < 0.5, f"{name}.weight was not drawn: it still has its old values")
            largest, real = w.abs().max().item() / std, w.std().item() / std
            t.that(
                not 2.001 < largest < 20 or real > 1.5,
                "the normal distribution is not cut: no weight is beyond 2 initializer_range",
                expected="at most 2",
                got=f"{largest:.2f} times initializer_range",
            )
            t.that(
                0.8 < real < 0.95,
                f"{name}.weight has the wrong spread: initializer_range is the deviation",
                expected="about 0.88 times initializer_range (the tails are cut)",
                got=f"{real:.2f} times",
            )
            middle = (w.abs() < std).double().mean().item()
            t.that(
                0.69 < middle < 0.74,
                "this is not the normal distribution: too few weights are near 0",
                expected="0.72 of them within one initializer_range",
                got=f"{middle:.2f}",
            )
        t.that(
            not torch.equal(model.dense.weight, model.again.weight),
            "two layers start with the same numbers: draw for each of them",
        )


@init.case("biases 0, LayerNorm gains 1, frozen tables untouched")
def _(t: Toolbox, init_weights: Any) -> None:
    model = _Mixed(t)
    before = model.frozen.weight.clone()
    init_weights(model, _config())
    t.close(model.dense.bias.detach(), torch.zeros(400), "the bias of a linear map")
    t.close(
        model.LayerNorm.weight.detach(),
        torch.ones(200),
        "LayerNorm's gain",
        suspects={
            "LayerNorm's gain is 0, which erases everything: it starts at 1": torch.zeros(200)
        },
    )
    t.close(model.LayerNorm.bias.detach(), torch.zeros(200), "LayerNorm's shift")
    t.that(
        torch.equal(before, model.frozen.weight),
        "a frozen table was overwritten: sinusoidal positions must keep their values",
    )


model = Check("05.BertModel", "embeddings, encoder, pooler", ("BertModel",))


def _embedded(w: dict[str, Tensor], ids: Tensor, types: Tensor) -> Tensor:
    e = _inside("embeddings", w)
    total = (
        F.embedding(ids, e["word_embeddings.weight"])
        + e["position_embeddings.weight"][: ids.shape[1]]
        + F.embedding(types, e["token_type_embeddings.weight"])
    )
    return _layer_norm(total, e)


def _run(
    config: BertConfig, w: dict[str, Tensor], ids: Tensor, types: Tensor, real: Tensor
) -> list[Tensor]:
    return _stack(config, _inside("encoder", w), _embedded(w, ids, types), real)


@model.case("agrees with torch's own parts: segments, padding, [CLS]")
def _(t: Toolbox, cls: Any) -> None:
    config = _config()
    w = _model_weights(t, config)
    model = _made(t, cls, w, config)
    ids, types, real = t.ids(50, 2, 7, low=1), t.ids(2, 2, 7), _padding()
    types[:, 0], types[:, 1] = 0, 1
    keep = real.bool()
    with torch.no_grad():
        got = model(ids, types, real)
        states = _run(config, w, ids, types, real)
        t.close(
            got.last_hidden_state[keep],
            states[-1][keep],
            "last_hidden_state at real tokens",
            suspects={
                "segments are ignored": _run(config, w, ids, 0 * types, real)[-1][keep],
                "padding is attended to": _run(config, w, ids, types, 0 * real + 1)[-1][keep],
                "these are the embeddings: the encoder did not run": states[0][keep],
            },
        )
        dense = _inside("pooler", w)
        t.close(
            got.pooler_output,
            torch.tanh(_dense(states[-1][:, 0], dense)),
            "pooler_output",
            suspects={
                "the pooler reads the embeddings: it must read the last layer": torch.tanh(
                    _dense(states[0][:, 0], dense)
                )
            },
        )


@model.case("without mask and segments: all tokens real, one sentence")
def _(t: Toolbox, cls: Any) -> None:
    config = _config()
    w = _model_weights(t, config)
    model = _made(t, cls, w, config)
    ids = t.ids(50, 2, 7)
    ids[0, 5:] = 0  # the padding id alone hides nothing: that is the mask's task
    with torch.no_grad():
        got = model(ids, output_hidden_states=True, output_attentions=True)
        states = _run(config, w, ids, 0 * ids, 0 * ids + 1)
    t.close(
        got.last_hidden_state,
        states[-1],
        "last_hidden_state",
        suspects={
            "you made a mask from the padding id: without attention_mask every token is real": (
                _run(config, w, ids, 0 * ids, (ids != 0).long())[-1]
            )
        },
    )
    t.that(
        got.hidden_states is not None and len(got.hidden_states) == 4,
        "output_hidden_states must reach the encoder: 3 layers give 4 states",
    )
    t.that(
        got.attentions is not None and len(got.attentions) == 3,
        "output_attentions must reach the encoder: 3 layers give 3 tensors of weights",
    )


@model.case("starts from initializer_range; the pooler can be left out")
def _(t: Toolbox, cls: Any) -> None:
    torch.manual_seed(0)
    config = _config(vocab_size=2000, initializer_range=0.05)
    table = cls(config).state_dict()["embeddings.word_embeddings.weight"]
    t.that(
        table.std() < 0.06,
        "the weights are torch's own first values: call init_weights at the end of __init__",
        expected="about 0.044",
        got=f"{table.std():.3f}",
    )
    small = cls(_config(), add_pooling_layer=False).eval()
    t.that(
        not any(name.startswith("pooler") for name in small.state_dict()),
        "with add_pooling_layer=False there must be no pooler",
    )
    with torch.no_grad():
        got = small(t.ids(50, 1, 4))
    t.that(got.pooler_output is None, "without a pooler pooler_output must be None")


@model.case("a mask or segments of another shape are refused in one sentence")
def _(t: Toolbox, cls: Any) -> None:
    model = cls(_config()).eval()
    for name, shape in itertools.product(
        ("attention_mask", "token_type_ids"), ((2, 6), (1, 7), (7,))
    ):
        try:
            model(t.ids(50, 2, 7), **{name: torch.ones(shape, dtype=torch.int64)})
        except ValueError:
            continue
        except Exception as error:
            kind = type(error).__name__
            raise Failed(f"{name} of shape {shape} raises {kind}: raise ValueError") from None
        raise Failed(
            f"{name} of shape {shape} passes for ids of shape (2, 7): it must raise ValueError"
        )


table = Check("05.parameter_table", "parameters, table by table", ("parameter_table",))


def _parts(config: BertConfig, pooler: bool = True) -> dict[str, int]:
    """The same table from torch's own modules, without memory for their weights."""

    def size(*modules: nn.Module) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    hidden, wide, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    with torch.device("meta"):
        square, norm = nn.Linear(hidden, hidden), nn.LayerNorm(hidden)
        parts = {
            "token embeddings": size(nn.Embedding(config.vocab_size, hidden)),
            "position embeddings": size(nn.Embedding(config.max_position_embeddings, hidden)),
            "segment embeddings": size(nn.Embedding(config.type_vocab_size, hidden)),
            "embeddings LayerNorm": size(norm),
            "query, key, value": layers * 3 * size(square),
            "attention output": layers * size(square),
            "attention LayerNorm": layers * size(norm),
            "feed-forward, widen": layers * size(nn.Linear(hidden, wide)),
            "feed-forward, narrow": layers * size(nn.Linear(wide, hidden)),
            "feed-forward LayerNorm": layers * size(norm),
        }
        if pooler:
            parts["pooler"] = size(square)
    return parts


@table.case("each part of BERT-base")
def _(t: Toolbox, parameter_table: Any) -> None:
    want = {
        "token embeddings": 23_440_896,
        "position embeddings": 393_216,
        "segment embeddings": 1_536,
        "embeddings LayerNorm": 1_536,
        "query, key, value": 21_261_312,
        "attention output": 7_087_104,
        "attention LayerNorm": 18_432,
        "feed-forward, widen": 28_348_416,
        "feed-forward, narrow": 28_320_768,
        "feed-forward LayerNorm": 18_432,
        "pooler": 590_592,
    }
    _same_table(t, parameter_table(BertConfig()), want, BertConfig())


@table.case("each part, at any sizes, with and without pooler")
def _(t: Toolbox, parameter_table: Any) -> None:
    for pooler in (True, False):
        config = _config(
            vocab_size=t.integer(30, 90),
            hidden_size=3 * t.integer(4, 30),
            intermediate_size=t.integer(20, 200),
            num_hidden_layers=t.integer(2, 9),
            max_position_embeddings=t.integer(5, 40),
            type_vocab_size=t.integer(1, 4),
        )
        got = parameter_table(config, pooler)
        if not pooler:
            t.that("pooler" not in got, "with pooler=False the table must not have a pooler")
        _same_table(t, got, _parts(config, pooler), config)


def _same_table(t: Toolbox, got: Any, want: dict[str, int], config: BertConfig) -> None:
    t.that(isinstance(got, dict), "return a dictionary: part to number")
    t.equal(list(got), list(want), "the parts, in order")
    hidden, wide, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    maps = {
        "query, key, value": 3 * hidden * hidden,
        "attention output": hidden * hidden,
        "feed-forward, widen": hidden * wide,
        "feed-forward, narrow": hidden * wide,
    }
    for part, number in want.items():
        t.equal(
            got[part],
            number,
            part,
            suspects={
                "this is one layer's: count the part over all layers": number // layers,
                "the biases are missing": layers * maps.get(part, -1),
                "heads are slices of one matrix, they add no parameters": (
                    number * config.num_attention_heads
                ),
                "a LayerNorm has two numbers a dimension, a gain and a shift": number // 2,
                "one of three: query, key and value each have a matrix": number // 3,
            },
        )


count = Check("05.count_parameters", "how many parameters", ("count_parameters",))


@count.case("the published models, to the last one")
def _(t: Toolbox, count_parameters: Any) -> None:
    minilm = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
    known = {
        "base": (BertConfig(), 109_482_240),
        "chinese": (BertConfig.preset("chinese"), 102_267_648),
        "large": (BertConfig.preset("large"), 335_141_888),
        "tiny": (BertConfig.preset("tiny"), 4_385_920),
        "mini": (BertConfig.preset("mini"), 11_170_560),
        "small": (BertConfig.preset("small"), 28_763_648),
        "medium": (BertConfig.preset("medium"), 41_373_184),
        "MiniLM": (minilm, 22_713_216),
    }
    for name, (config, want) in known.items():
        hidden, layers = config.hidden_size, config.num_hidden_layers
        parts = _parts(config)
        biases = layers * (5 * hidden + config.intermediate_size) + hidden
        t.equal(
            count_parameters(config),
            want,
            f"the count of {name}",
            suspects={
                "the pooler is missing": want - parts["pooler"],
                "the biases are missing": want - biases,
                "the embedding tables are missing": sum(list(parts.values())[3:]),
                "one layer only: every layer has weights of its own": sum(
                    n // (layers if 4 <= i < 10 else 1) for i, n in enumerate(parts.values())
                ),
                "the output matrix of masked words was counted: it is the token table again": (
                    want + parts["token embeddings"]
                ),
            },
        )


@count.case("without the pooler")
def _(t: Toolbox, count_parameters: Any) -> None:
    t.equal(
        count_parameters(BertConfig(), pooler=False),
        108_891_648,
        "BERT-base without its pooler",
        suspects={"pooler=False has no effect": 109_482_240},
    )


flops = Check(
    "05.forward_flops_per_token", "arithmetic for one token", ("forward_flops_per_token",)
)


def _counted(config: BertConfig, seq: int) -> float:
    """The operations that torch counts when it multiplies matrices of these shapes."""
    from torch.utils.flop_counter import FlopCounterMode

    hidden, wide = config.hidden_size, config.intermediate_size
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        x, square = torch.empty(seq, hidden), torch.empty(hidden, hidden)
        for _ in range(4):
            x @ square
        cut = torch.empty(config.num_attention_heads, seq, config.head_size)
        scores = cut @ cut.transpose(1, 2)
        scores @ cut
        (x @ torch.empty(hidden, wide)) @ torch.empty(wide, hidden)
    return counter.get_total_flops() * config.num_hidden_layers / seq


@flops.case("BERT-base at 128 tokens: 174.6 million; and what torch's counter says elsewhere")
def _(t: Toolbox, forward_flops_per_token: Any) -> None:
    cases = [(BertConfig(), 128, 174_587_904)]
    for name in ("mini", "large"):
        config = BertConfig.preset(name, intermediate_size=t.integer(100, 5000))
        seq = t.integer(2, 512)
        cases.append((config, seq, round(_counted(config, seq))))
    for config, seq, want in cases:
        hidden, layers = config.hidden_size, config.num_hidden_layers
        quadratic = 4 * seq * hidden * layers
        t.equal(
            forward_flops_per_token(config, seq),
            want,
            f"the operations at {seq} tokens",
            suspects={
                "these are multiplications: each comes with an addition, which counts too": (
                    want // 2
                ),
                "this is the whole sequence: the question is about one token": want * seq,
                "one layer only": want // layers,
                "the mix is missing: weights times values costs as much as the scores": (
                    want - quadratic // 2
                ),
                "scores and mix are missing: they grow with the sequence": want - quadratic,
                "the output layer of attention is missing": want - 2 * hidden * hidden * layers,
                "this is training: forward alone is a third of it": 3 * want,
                "2 for each parameter counts lookups, which cost nothing, and no scores": (
                    2 * sum(_parts(config).values())
                ),
            },
        )


# ---- questions ------------------------------------------------------------------------------

pre_norm = Check(
    "05.pre_norm_layer",
    "a block that normalizes before its sublayers",
    ("pre_norm_layer",),
    kind="implement",
    difficulty=2,
    minutes=15,
    forbids=("aten::_transformer_encoder_layer_fwd", "torch.nn.TransformerEncoderLayer"),
    reminder="Draw the line from x to the output: in pre-LN nothing but sums stands on it.",
)


def _pre_norm_weights(t: Toolbox, hidden: int, wide: int) -> dict[str, Tensor]:
    w: dict[str, Tensor] = {}
    for name in ("query", "key", "value", "output"):
        w |= _linear(t, name, hidden, hidden)
    w |= _norm(t, "norm1", hidden) | _norm(t, "norm2", hidden)
    return w | _linear(t, "widen", wide, hidden) | _linear(t, "narrow", hidden, wide)


def _pre_norm_layer(
    x: Tensor, w: dict[str, Tensor], heads: int, slip: str = "", eps: float = 1e-12
) -> Tensor:
    """The block in torch's operators, or one with a well-known slip."""

    def norm(y: Tensor, name: str) -> Tensor:
        return F.layer_norm(y, y.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def linear(y: Tensor, name: str) -> Tensor:
        return F.linear(y, w[f"{name}.weight"], w[f"{name}.bias"])

    def attend(y: Tensor) -> Tensor:
        q, k, v = (
            torch.stack(linear(y, name).chunk(heads, -1), 1) for name in ("query", "key", "value")
        )
        return linear(torch.cat(F.scaled_dot_product_attention(q, k, v).unbind(1), -1), "output")

    def feed(y: Tensor) -> Tensor:
        return linear(F.gelu(linear(y, "widen")), "narrow")

    if slip == "post":
        x = norm(x + attend(x), "norm1")
        return norm(x + feed(x), "norm2")
    if slip == "stream":
        x = norm(x, "norm1")
        x = norm(x + attend(x), "norm2")
        return x + feed(x)
    if slip == "outside":
        x = x + norm(attend(x), "norm1")
        return x + norm(feed(x), "norm2")
    second = "norm1" if slip == "same" else "norm2"
    x = x + attend(norm(x, "norm1"))
    return x + feed(x if slip == "once" else norm(x, second))


@pre_norm.case("with sublayers that give 0 the input passes through untouched", points=1)
def _(t: Toolbox, pre_norm_layer: Any) -> None:
    w = _pre_norm_weights(t, 12, 20)
    for name in ("output", "narrow"):
        w[f"{name}.weight"].zero_()
        w[f"{name}.bias"].zero_()
    x = t.randn(2, 5, 12)
    t.close(
        pre_norm_layer(x, w, 3),
        x,
        "pre_norm_layer(x, ...)",
        suspects={
            "LayerNorm stands on the residual path: this is post-LN, as in BERT": (
                _pre_norm_layer(x, w, 3, "post")
            ),
            "x itself was normalized: keep x for the sum and hand LayerNorm(x) to the sublayer": (
                _pre_norm_layer(x, w, 3, "stream")
            ),
            "the residual is lost: a sublayer that gives 0 must leave x": torch.zeros_like(x),
            "LayerNorm stands behind the sublayers: it must stand before them": (
                _pre_norm_layer(x, w, 3, "outside")
            ),
        },
    )


@pre_norm.case("agrees with torch's own block, norm_first=True", points=2)
def _(t: Toolbox, pre_norm_layer: Any) -> None:
    heads = t.choice([2, 3])
    w = _pre_norm_weights(t, 12, 20)
    names = {"query": "self.query", "key": "self.key", "value": "self.value"}
    named = {
        "output": "output.dense",
        "norm1": "output.LayerNorm",
        **names,
    }
    bert = {}
    for name, tensor in w.items():
        part, kind = name.split(".")
        home = {
            "widen": "intermediate.dense",
            "narrow": "output.dense",
            "norm2": "output.LayerNorm",
        }
        place = home.get(part) or f"attention.{named[part]}"
        bert[f"{place}.{kind}"] = tensor
    config = _config(hidden_size=12, num_attention_heads=heads, intermediate_size=20)
    x = t.randn(2, 5, 12)
    with torch.no_grad():
        want = _block(config, bert, norm_first=True)(x)
    t.close(
        pre_norm_layer(x, w, heads),
        want,
        "pre_norm_layer(x, ...)",
        suspects={
            "LayerNorm stands on the residual path: this is post-LN, as in BERT": (
                _pre_norm_layer(x, w, heads, "post")
            ),
            "x itself was normalized: keep x for the sum and hand LayerNorm(x) to the sublayer": (
                _pre_norm_layer(x, w, heads, "stream")
            ),
            "LayerNorm stands behind the sublayers: it must stand before them": (
                _pre_norm_layer(x, w, heads, "outside")
            ),
            "the feed-forward network has a LayerNorm of its own, norm2": (
                _pre_norm_layer(x, w, heads, "same")
            ),
            "the feed-forward network reads x as it is: normalize it first, with norm2": (
                _pre_norm_layer(x, w, heads, "once")
            ),
            "this is what a single head gives: cut query, key and value into heads": (
                _pre_norm_layer(x, w, 1)
            ),
        },
    )


norm_backward = Check(
    "05.layer_norm_backward",
    "LayerNorm's gradient, by hand",
    ("layer_norm_backward",),
    kind="implement",
    difficulty=4,
    minutes=30,
    forbids=("aten::native_layer_norm", "autograd"),
    reminder=(
        "LayerNorm ignores a shift and a stretch of x, so the gradient of x must sum to 0 and be "
        "at right angles to the normalized x."
    ),
)


def _three(t: Toolbox, got: Any) -> tuple:
    t.that(
        isinstance(got, tuple) and len(got) == 3,
        "return three tensors: the gradients of x, gain and shift",
        got=repr(got)[:60],
    )
    return got


def _norm_gradients(x: Tensor, gain: Tensor, upstream: Tensor, eps: float) -> list[Tensor]:
    leaves = [x.clone().requires_grad_(), gain.clone().requires_grad_()]
    shift = torch.zeros_like(gain, requires_grad=True)
    out = F.layer_norm(leaves[0], x.shape[-1:], leaves[1], shift, eps)
    return list(torch.autograd.grad((out * upstream).sum(), [*leaves, shift]))


def _norm_slips(x: Tensor, gain: Tensor, upstream: Tensor, eps: float) -> dict[str, Tensor]:
    centered = x - x.mean(-1, keepdim=True)
    std = (centered.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    unit, g = centered / std, upstream * gain
    along = unit * (g * unit).mean(-1, keepdim=True)
    bare = upstream - upstream.mean(-1, keepdim=True)
    bare = bare - unit * (upstream * unit).mean(-1, keepdim=True)
    return {
        "you treat mean and deviation as constants: both change with x": g / std,
        "you treat the deviation as a constant: it changes with x as well": (
            (g - g.mean(-1, keepdim=True)) / std
        ),
        "you treat the mean as a constant: it changes with x as well": (g - along) / std,
        "the gain is left out: multiply the upstream gradient by it first": bare / std,
        "the deviation is left out: divide by it": g - g.mean(-1, keepdim=True) - along,
        "you divided by the variance: by its root": (
            (g - g.mean(-1, keepdim=True) - along) / std**2
        ),
    }


@norm_backward.case("2, 4, 4, 10 and an upstream gradient of 1, 0, 0, 0", points=1)
def _(t: Toolbox, layer_norm_backward: Any) -> None:
    x, upstream = torch.tensor([[2.0, 4, 4, 10]]), torch.tensor([[1.0, 0, 0, 0]])
    got, _, _ = _three(t, layer_norm_backward(x, torch.ones(4), upstream, 1e-12))
    t.close(
        got,
        torch.tensor([[6.0, -4.0, -4.0, 2.0]]) / 36,
        "the gradient of x",
        suspects=_norm_slips(x, torch.ones(4), upstream, 1e-12),
    )


@norm_backward.case("the gradient of x, against torch's own", points=2)
def _(t: Toolbox, layer_norm_backward: Any) -> None:
    x, upstream = 3 * t.randn(2, 4, 6) + 1, t.randn(2, 4, 6)
    gain, eps = 1 + t.randn(6) / 2, 0.1
    got, _, _ = _three(t, layer_norm_backward(x, gain, upstream, eps))
    want, _, _ = _norm_gradients(x, gain, upstream, eps)
    no_eps, _, _ = _norm_gradients(x, gain, upstream, 1e-12)
    t.close(
        got,
        want,
        "the gradient of x",
        suspects={
            **_norm_slips(x, gain, upstream, eps),
            "eps is left out: it stands inside the root, with the variance": no_eps,
        },
    )


@norm_backward.case("the gradients of gain and shift, summed over all tokens", points=1)
def _(t: Toolbox, layer_norm_backward: Any) -> None:
    x, upstream, gain = t.randn(2, 4, 6), t.randn(2, 4, 6), 1 + t.randn(6) / 2
    _, got_gain, got_shift = _three(t, layer_norm_backward(x, gain, upstream, 1e-12))
    _, want_gain, want_shift = _norm_gradients(x, gain, upstream, 1e-12)
    unit = F.layer_norm(x, (6,), eps=1e-12)
    t.close(
        got_gain,
        want_gain,
        "the gradient of the gain",
        suspects={
            "this is one gradient a token: all tokens share the gain, so sum over them": (
                upstream * unit
            ),
            "this sums over dimensions: the gain has one entry a dimension, sum over tokens": (
                (upstream * unit).sum(-1)
            ),
            "this averages over the tokens: gradients of a shared number add up": want_gain / 8,
            "the gain multiplies the normalized x, not x": (upstream * x).sum((0, 1)),
        },
    )
    t.close(
        got_shift,
        want_shift,
        "the gradient of the shift",
        suspects={
            "this averages over the tokens: gradients of a shared number add up": want_shift / 8,
            "this is one gradient a token: all tokens share the shift, so sum over them": upstream,
        },
    )


sublayer_bug = Check(
    "05.add_and_norm_bug",
    "bug hunt: a sublayer's end in the wrong order",
    ("add_and_norm",),
    kind="bug",
    difficulty=2,
    minutes=15,
    hides=("encoder.AddNorm",),
    reminder="BERT's order is dense, dropout, sum, LayerNorm, with eps 1e-12.",
)


def _add_and_norm(x: Tensor, residual: Tensor, w: dict[str, Tensor], eps: float = 1e-12) -> Tensor:
    return _layer_norm(residual + _dense(x, w), w, eps)


def _call_sublayer(
    add_and_norm: Any, x: Tensor, residual: Tensor, w: dict[str, Tensor], p: float, training: bool
) -> Any:
    norm = (w["LayerNorm.weight"], w["LayerNorm.bias"])
    return add_and_norm(x, residual, w["dense.weight"], w["dense.bias"], *norm, p, training)


@sublayer_bug.case("not training: the sum is normalized", points=1)
def _(t: Toolbox, add_and_norm: Any) -> None:
    w = _sublayer_weights(t, 20, 12)
    x, residual = t.randn(2, 5, 20), t.randn(2, 5, 12)
    t.close(
        _call_sublayer(add_and_norm, x, residual, w, 0.5, False),
        _add_and_norm(x, residual, w),
        "add_and_norm(...)",
        suspects={
            "the sum must be normalized: here LayerNorm sees the sublayer's output alone": (
                residual + _layer_norm(_dense(x, w), w)
            ),
            "the residual must be taken before the norm: you normalized it alone": (
                _layer_norm(residual, w) + _dense(x, w)
            ),
            "the residual is lost": _layer_norm(_dense(x, w), w),
        },
    )


@sublayer_bug.case("training: dropout leaves the residual alone", points=1)
def _(t: Toolbox, add_and_norm: Any) -> None:
    w = _sublayer_weights(t, 20, 12)
    x, residual = t.randn(2, 50, 20), t.randn(2, 50, 12)
    silent = {**w, "dense.weight": torch.zeros(12, 20), "dense.bias": torch.zeros(12)}
    got = _call_sublayer(add_and_norm, x, residual, silent, 0.5, True)
    want = _layer_norm(residual, w)
    got = t.tensor(got, shape=want.shape, name="add_and_norm(...)")
    zeros = (got == 0).double().mean()
    t.that(zeros < 0.3, "dropout stands behind LayerNorm: it must stand before the sum")
    t.that(
        torch.allclose(got, want, atol=1e-4) or torch.allclose(got, residual, atol=1e-4),
        "dropout touches the residual: with a silent sublayer there is nothing to drop",
    )
    t.close(got, want, "the output of a silent sublayer, which is LayerNorm(residual)")
    busy = [_call_sublayer(add_and_norm, x, residual, w, 0.5, True) for _ in range(2)]
    calm = _add_and_norm(x, residual, w)
    t.that(
        not torch.allclose(t.tensor(busy[0], shape=want.shape), calm),
        "in training nothing is dropped: the dropout is gone",
    )
    little = t.tensor(_call_sublayer(add_and_norm, x, residual, w, 0.05, True), shape=want.shape)
    t.that(
        torch.isclose(little, calm, atol=0.3).double().mean() > 0.4,
        "a dropout of 0.05 drops nearly everything: p is the share that is dropped",
    )


@sublayer_bug.case("a faint vector comes out at full size", points=1)
def _(t: Toolbox, add_and_norm: Any) -> None:
    w = _sublayer_weights(t, 20, 12)
    x, residual = 1e-3 * t.randn(2, 5, 20), 1e-3 * t.randn(2, 5, 12)
    w["dense.bias"].zero_()
    t.close(
        _call_sublayer(add_and_norm, x, residual, w, 0.0, False),
        _add_and_norm(x, residual, w),
        "add_and_norm(...)",
        atol=1e-3,
        suspects={
            "eps is still torch's default, 1e-5, more than this variance: BERT's is 1e-12": (
                _add_and_norm(x, residual, w, 1e-5)
            )
        },
    )


stack_bug = Check(
    "05.stack_bug",
    "bug hunt: a stack that is not one",
    ("Stack",),
    kind="bug",
    difficulty=3,
    minutes=20,
    reminder="Print len(list(stack.parameters())) and two of the states; change one layer.",
)


def _make_stack(t: Toolbox, stack: Any, layers: int) -> tuple[Any, dict[str, Tensor]]:
    torch.manual_seed(t.integer(0, 10**6))
    made = stack(6, layers)
    state = made.state_dict()
    names = [f"layers.{i}.dense.{part}" for i in range(layers) for part in ("weight", "bias")]
    t.that(
        len(state) > 0,
        "the stack has no parameters: a plain list hides its layers from torch, use nn.ModuleList",
    )
    t.equal(sorted(state), sorted(names), "the names of the parameters")
    return made, dict(state)


@stack_bug.case("every layer is registered and starts from numbers of its own", points=1)
def _(t: Toolbox, stack: Any) -> None:
    layers = t.integer(3, 5)
    made, state = _make_stack(t, stack, layers)
    for i, j in itertools.combinations(range(layers), 2):
        same = torch.equal(state[f"layers.{i}.dense.weight"], state[f"layers.{j}.dense.weight"])
        if not same:
            continue
        made.load_state_dict(
            {k: v + 1 if k.startswith(f"layers.{i}.") else v.clone() for k, v in state.items()}
        )
        after = made.state_dict()
        shared = torch.equal(after[f"layers.{i}.dense.weight"], after[f"layers.{j}.dense.weight"])
        t.that(
            not shared,
            "all layers are one and the same module: [layer] * n repeats the reference",
        )
        t.that(False, "the layers are copies, they start with the same numbers: draw for each one")


@stack_bug.case("each state is its layer's, and the input is left as it was", points=2)
def _(t: Toolbox, stack: Any) -> None:
    layers = t.integer(2, 4)
    made, state = _make_stack(t, stack, layers)
    weights = {name: t.randn(*tensor.shape) / 2 for name, tensor in state.items()}
    made.load_state_dict(weights)
    x = t.randn(2, 5, 6)
    given = x.clone()
    want = [x]
    for i in range(layers):
        w = {
            "weight": weights[f"layers.{i}.dense.weight"],
            "bias": weights[f"layers.{i}.dense.bias"],
        }
        want.append(want[-1] + torch.tanh(F.linear(want[-1], **w)))
    with torch.no_grad():
        got = made(given)
    t.that(isinstance(got, (list, tuple)), "return the list of states")
    t.equal(len(got), layers + 1, "the number of states: the input's and each layer's")
    for i, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        t.close(
            ours,
            theirs,
            f"states[{i}]",
            suspects={
                "all states are the last one: x += ... writes into the tensor that you kept": (
                    want[-1]
                ),
                "every layer reads the input: each must read the state below it": (
                    x + torch.tanh(F.linear(x, **_last(weights, i - 1))) if i else -x
                ),
                "the residual is lost: a layer returns what is to be added": (
                    theirs - want[i - 1] if i else -x
                ),
                "the last layer's weights are used everywhere": (
                    want[i - 1] + torch.tanh(F.linear(want[i - 1], **_last(weights, layers - 1)))
                    if i
                    else -x
                ),
            },
        )


def _last(weights: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    return _inside(f"layers.{max(i, 0)}.dense", weights)


shared = Check(
    "05.shared_stack_parameters",
    "parameters of an encoder that shares its layers, as a function of the sizes",
    ("shared_stack_parameters",),
    kind="predict",
    difficulty=2,
    minutes=15,
    reminder="Which of the sizes must drop out of the answer altogether?",
)


def _shared_parts(
    vocab: int, embedding: int, hidden: int, wide: int, positions: int, segments: int
) -> dict[str, int]:
    block = 4 * (hidden * hidden + hidden) + 4 * hidden
    block += hidden * wide + wide + wide * hidden + hidden
    return {
        "tables": (vocab + positions + segments) * embedding,
        "norm": 2 * embedding,
        "lift": embedding * hidden + hidden,
        "block": block,
        "pooler": hidden * hidden + hidden,
    }


def _count_shared(t: Toolbox, answer: Any, sizes: tuple[int, ...], layers: int) -> None:
    parts = _shared_parts(*sizes)
    vocab, _, hidden, wide, positions, segments = sizes
    full = sum(parts.values())
    hidden_norm = full - parts["norm"] + 2 * hidden
    tables = (vocab + positions + segments) * hidden
    whole = full - parts["tables"] - parts["norm"] - parts["lift"] + tables + 2 * hidden
    t.equal(
        answer(*sizes, layers),
        full,
        f"the count for sizes {sizes} and {layers} layers",
        suspects={
            "all layers share one block: count it once": full + (layers - 1) * parts["block"],
            "the tables are still hidden wide: they are embedding wide": whole,
            "the map from embedding to hidden is missing": full - parts["lift"],
            "the map from embedding to hidden has a bias, too": full - hidden,
            "the pooler is missing": full - parts["pooler"],
            "LayerNorm of the embeddings comes before the map: it is embedding wide": hidden_norm,
            "only the token table is narrow in yours: positions and segments are, too": (
                full + (positions + segments) * (hidden - sizes[1])
            ),
            "the biases of the block are missing": full - 5 * hidden - wide,
        },
    )


@shared.case("ALBERT-base: 11,683,584", points=1)
def _(t: Toolbox, shared_stack_parameters: Any) -> None:
    t.equal(sum(_shared_parts(30_000, 128, 768, 3072, 512, 2).values()), 11_683_584)
    _count_shared(t, shared_stack_parameters, (30_000, 128, 768, 3072, 512, 2), 12)


@shared.case("any sizes", points=1)
def _(t: Toolbox, shared_stack_parameters: Any) -> None:
    for _ in range(3):
        sizes = tuple(t.integer(low, 20 * low) for low in (100, 8, 16, 32, 16, 1))
        _count_shared(t, shared_stack_parameters, sizes, t.integer(2, 24))


longest = Check(
    "05.longest_sequence",
    "how long before attention costs its share, as a function of the sizes",
    ("longest_sequence",),
    kind="predict",
    difficulty=3,
    minutes=15,
    reminder="The total grows with the sequence, too: write share = part / (part + rest).",
)


@longest.case("BERT-base: 15 percent of the arithmetic is reached at 813 tokens", points=1)
def _(t: Toolbox, longest_sequence: Any) -> None:
    _longest(t, longest_sequence, 768, 3072, 0.15)


@longest.case("any sizes, any share", points=2)
def _(t: Toolbox, longest_sequence: Any) -> None:
    asked = 0
    while asked < 4:
        hidden, wide = t.integer(60, 1200), t.integer(120, 6000)
        share = t.choice([0.07, 0.23, 0.41, 0.71])
        exact = share / (1 - share) * (2 * hidden + wide)
        if abs(exact - round(exact)) > 0.01:  # no length at which rounding decides
            _longest(t, longest_sequence, hidden, wide, share)
            asked += 1


def _longest(t: Toolbox, answer: Any, hidden: int, wide: int, share: float) -> None:
    def part(seq: int) -> float:
        quadratic = 4 * seq * hidden
        return quadratic / (8 * hidden * hidden + 4 * hidden * wide + quadratic)

    seq = 1
    while part(2 * seq) <= share:
        seq *= 2
    step = seq
    while step:
        if part(seq + step) <= share:
            seq += step
        step //= 2
    ratio = share / (1 - share)
    t.equal(
        answer(hidden, wide, share),
        seq,
        f"the longest sequence for {hidden}, {wide} and a share of {share}",
        suspects={
            "your share is of the rest: the total contains scores and mix as well": (
                math.floor(share * (2 * hidden + wide))
            ),
            "one token too many: at this length the share is exceeded": seq + 1,
            "the projections are missing: query, key, value and output cost, too": (
                math.floor(ratio * wide)
            ),
            "the feed-forward network is missing": math.floor(ratio * 2 * hidden),
            "only the scores are counted: the mix, weights times values, costs the same": (
                math.floor(ratio * 2 * (2 * hidden + wide))
            ),
        },
    )


similarity = Check(
    "05.token_similarity",
    "measure how alike the tokens of a text are",
    ("token_similarity",),
    kind="measure",
    difficulty=3,
    minutes=20,
    reminder="n real tokens have n (n - 1) pairs of two different ones.",
)


def _similarity(states: Tensor, real: Tensor) -> Tensor:
    """Pair by pair: slow, and plain to see."""
    values = []
    for layer in states:
        texts = []
        for text, mask in zip(layer, real.bool(), strict=True):
            tokens = F.normalize(text[mask], dim=-1)
            pairs = itertools.combinations(range(len(tokens)), 2)
            texts.append(torch.stack([tokens[i] @ tokens[j] for i, j in pairs]).mean())
        values.append(torch.stack(texts).mean())
    return torch.stack(values)


def _similarity_slips(states: Tensor, real: Tensor) -> dict[str, Tensor]:
    unit = F.normalize(states, dim=-1)
    n = real.sum(-1)
    masked = unit * real[:, :, None]
    cosine = masked @ masked.transpose(-2, -1)  # (layers, batch, seq, seq)
    total, diagonal = cosine.sum((-2, -1)), n
    seq = real.shape[1]
    everything = (unit @ unit.transpose(-2, -1)).sum((-2, -1))
    raw = states * real[:, :, None]
    dots = (raw @ raw.transpose(-2, -1)).sum((-2, -1)) - raw.pow(2).sum((-2, -1))
    flat = unit[:, real.bool()]
    across = (flat @ flat.transpose(-2, -1)).sum((-2, -1)) - flat.shape[1]
    return {
        "a token is paired with itself, which gives 1: leave the diagonal out": (total / n**2).mean(
            -1
        ),
        "padding takes part: only pairs of two real tokens count": (
            (everything - seq) / (seq * (seq - 1))
        ).mean(-1),
        "padding still counts below the line: divide by the number of real pairs": (
            (total - diagonal) / (seq * (seq - 1))
        ).mean(-1),
        "these are dot products: divide by both lengths for the cosine": (
            dots / (n * (n - 1))
        ).mean(-1),
        "tokens of different texts are paired: stay within a text": (
            across / (flat.shape[1] * (flat.shape[1] - 1))
        ),
        "you averaged over all pairs at once: average within each text first, then over texts": (
            (total - diagonal).sum(-1) / (n * (n - 1)).sum()
        ),
    }


@similarity.case("three tokens, two of them alike: 1/3", points=1)
def _(t: Toolbox, token_similarity: Any) -> None:
    states = torch.tensor([[[[2.0, 0], [5, 0], [0, 1]]]])
    real = torch.ones(1, 3, dtype=torch.int64)
    slips = _similarity_slips(states, real)
    t.close(token_similarity(states, real), torch.tensor([1 / 3]), "the similarity", suspects=slips)


@similarity.case("texts of different length, padded", points=2)
def _(t: Toolbox, token_similarity: Any) -> None:
    states = t.randn(4, 3, 7, 8) + t.randn(4, 1, 1, 8)
    real = torch.ones(3, 7, dtype=torch.int64)
    real[1, t.integer(4, 5) :] = 0
    real[2, 2:] = 0
    t.close(
        token_similarity(states, real),
        _similarity(states, real),
        "the similarity of each layer",
        suspects=_similarity_slips(states, real),
    )


rename = Check(
    "05.rename_google_keys",
    "old names for new weights",
    ("rename_google_keys",),
    kind="implement",
    difficulty=2,
    minutes=15,
    hides=("checkpoints.names.canonical", "checkpoints.names.match"),
    reminder="Only a whole first or last part of a name counts, between dots.",
)


def _old_and_new(t: Toolbox) -> dict[str, str | None]:
    """Names as they come, and as they must go."""
    i = t.integer(0, 11)
    return {
        f"bert.encoder.layer.{i}.LayerNorm.gamma": f"encoder.layer.{i}.LayerNorm.weight",
        f"bert.encoder.layer.{i}.LayerNorm.beta": f"encoder.layer.{i}.LayerNorm.bias",
        "bert.embeddings.LayerNorm.gamma": "embeddings.LayerNorm.weight",
        "bert.embeddings.LayerNorm.beta": "embeddings.LayerNorm.bias",
        "bert.embeddings.position_ids": None,
        "bert.embeddings.position_embeddings.weight": "embeddings.position_embeddings.weight",
        "bert.pooler.dense.bias": "pooler.dense.bias",
        "encoder.albert.dense.weight": "encoder.albert.dense.weight",
        "encoder.gammatone.weight": "encoder.gammatone.weight",
        "encoder.betamax.bias": "encoder.betamax.bias",
        "cls.predictions.bias": "cls.predictions.bias",
    }


def _renamed(t: Toolbox, rename_google_keys: Any, names: dict[str, str | None]) -> tuple:
    weights = {old: t.randn(3) for old in names}
    got = rename_google_keys(weights)
    t.that(isinstance(got, dict), "return a dictionary: name to tensor", got=type(got).__name__)
    return weights, got


@rename.case("prefix, gamma and beta, position_ids", points=1)
def _(t: Toolbox, rename_google_keys: Any) -> None:
    names = dict(list(_old_and_new(t).items())[:7])
    weights, got = _renamed(t, rename_google_keys, names)
    right = sorted(new for new in names.values() if new)
    stray = "embeddings.position_ids"
    t.equal(
        sorted(got),
        right,
        "the names",
        suspects={
            "position_ids is no parameter: leave it out": sorted([*right, stray]),
            "position_ids is no parameter: leave it out, also behind bert.": sorted(
                [*right, f"bert.{stray}"]
            ),
            "the prefix bert. is still there": sorted(f"bert.{name}" for name in right),
            "gamma is the gain, which torch calls weight, and beta the shift, its bias": sorted(
                old.removeprefix("bert.") for old, new in names.items() if new
            ),
        },
    )
    for old, new in names.items():
        if new:
            swapped = old.replace("gamma", "*").replace("beta", "gamma").replace("*", "beta")
            t.close(
                got[new],
                weights[old],
                f"the tensor called {new}",
                suspects={
                    "gamma and beta are exchanged: gamma is the gain, beta the shift": (
                        weights.get(swapped, torch.zeros(0))
                    )
                },
            )


@rename.case("names that only look alike stay as they are", points=1)
def _(t: Toolbox, rename_google_keys: Any) -> None:
    names = _old_and_new(t)
    weights, got = _renamed(t, rename_google_keys, names)
    for old, new in names.items():
        if new and old == new:
            inside = {
                "encoder.albert.dense.weight": "bert. inside a name was removed: only at its start",
                "encoder.gammatone.weight": "gamma inside a word was replaced: only a whole part",
                "encoder.betamax.bias": "beta inside a word was replaced: only a whole part",
                "cls.predictions.bias": "a name that needs no change was dropped: keep it",
            }
            t.that(new in got, inside[old], expected=new, got=", ".join(sorted(got))[:80])
    t.equal(sorted(got), sorted(new for new in names.values() if new), "the names")
    for old, new in names.items():
        if new:
            t.close(got[new], weights[old], f"the tensor called {new}")


paths = Check(
    "05.path_contributions",
    "an output taken apart by how many layers each part went through",
    ("path_contributions",),
    kind="implement",
    difficulty=5,
    minutes=40,
    reminder="A path decides at each layer: past it, or through it. The contributions sum to x_L.",
)


def _paths(x: Tensor, mixes: Tensor, maps: Tensor) -> Tensor:
    """Every one of the 2^L paths, one after the other."""
    total = torch.zeros(len(mixes) + 1, *x.shape)
    for path in itertools.product((False, True), repeat=len(mixes)):
        part = x
        for through, mix, linear in zip(path, mixes, maps, strict=True):
            part = mix @ part @ linear if through else part
        total[sum(path)] += part
    return total


def _path_slips(x: Tensor, mixes: Tensor, maps: Tensor) -> dict[str, Tensor]:
    right = _paths(x, mixes, maps)
    states, direct = [x], [x]
    for mix, linear in zip(mixes, maps, strict=True):
        states.append(states[-1] + mix @ states[-1] @ linear)
        direct.append(mix @ direct[-1] @ linear)
    steps = [x] + [b - a for a, b in itertools.pairwise(states)]
    return {
        "these are the states after each layer: group by layers passed": (torch.stack(states)),
        "these are the layers' updates: each mixes paths of several lengths, take them apart": (
            torch.stack(steps)
        ),
        "one path a length only: for length k there are as many as ways to choose k layers": (
            torch.stack(direct)
        ),
        "the order is reversed: entry k is for k layers passed through": right.flip(0),
        "the layers are taken in reverse: the first mixes first": (
            _paths(x, mixes.flip(0), maps.flip(0))
        ),
        "the layers were not applied to the parts that already went through one": torch.cat(
            [
                x[None],
                (mixes @ x @ maps).sum(0, keepdim=True),
                torch.zeros(len(mixes) - 1, *x.shape),
            ]
        ),
    }


@paths.case("one layer: what passes by, and what passes through", points=1)
def _(t: Toolbox, path_contributions: Any) -> None:
    x, mixes, maps = t.randn(4, 3), t.randn(1, 4, 4).softmax(-1), t.randn(1, 3, 3)
    t.close(
        path_contributions(x, mixes, maps),
        torch.stack([x, mixes[0] @ x @ maps[0]]),
        "the contributions",
        suspects={
            "these are the states after each layer: group by layers passed": torch.stack(
                [x, x + mixes[0] @ x @ maps[0]]
            ),
            "the order is reversed: entry k is for k layers passed through": torch.stack(
                [mixes[0] @ x @ maps[0], x]
            ),
        },
    )


@paths.case("several layers: all paths of each length", points=3)
def _(t: Toolbox, path_contributions: Any) -> None:
    layers = t.integer(3, 5)
    x = t.randn(5, 4)
    mixes, maps = t.randn(layers, 5, 5).softmax(-1), t.randn(layers, 4, 4) / 2
    t.close(
        path_contributions(x, mixes, maps),
        _paths(x, mixes, maps),
        "the contributions",
        suspects=_path_slips(x, mixes, maps),
    )


choose_saving = Check(
    "05.choose_saving",
    "which change saves most, and of what",
    ("choose_saving",),
    kind="choose",
    difficulty=3,
    minutes=25,
    reminder="Count the model before and after a change: as numbers that are stored, and as "
    "operations that are done.",
)

SHARED = "shared"


def _stored(sizes: dict[str, int], slip: str = "") -> int:
    """Parameters of an encoder, with tables and pooler."""
    h, wide = sizes["hidden"], sizes["wide"]
    tables = (sizes["vocab"] + sizes["positions"] + sizes["segments"]) * h + 2 * h
    block = 4 * (h * h + h) + 2 * h + (h * wide + wide) + (wide * h + h) + 2 * h
    blocks = 1 if sizes.get(SHARED) else sizes["layers"]
    if slip == "layers":
        return blocks * block
    return tables + blocks * block + (0 if slip == "pooler" else h * h + h)


def _done(sizes: dict[str, int], slip: str = "") -> int:
    """Operations on one text, products of matrices only."""
    h, seq = sizes["hidden"], sizes["seq"]
    layer = 8 * h * h + 4 * h * sizes["wide"] + (0 if slip == "linear" else 4 * seq * h)
    layers = 1 if sizes.get(SHARED) and slip == "shared" else sizes["layers"]
    return (1 if slip == "token" else seq) * layers * layer


def _saving(
    sizes: dict[str, int], options: dict[str, dict[str, int]], what: str, *, slip: str = ""
) -> tuple[str, dict[str, float]]:
    """The option that saves the largest share, and the share that each saves."""
    if slip == "same":
        what = {"parameters": "operations", "operations": "parameters"}[what]
    count = _stored if what == "parameters" else _done
    before = count(sizes, slip)
    after = {name: count({**sizes, **change}, slip) for name, change in options.items()}
    saved = {name: 1 - n / before for name, n in after.items()}
    if slip == "left":
        saved = {name: n / before for name, n in after.items()}
    return max(saved, key=lambda name: saved[name]), saved


def _saving_suspects(*given: Any) -> dict[str, Any]:
    return {
        message: _saving(*given, slip=slip)
        for slip, message in {
            "shared": "a shared layer is computed as often as before: it saves no operation",
            "layers": "the tables and the pooler are parameters too: they stay when layers go",
            "pooler": "the pooler's square map and bias are missing",
            "linear": "scores and mix are missing: a shorter text saves more than its share",
            "token": "this is for one token: a shorter text has fewer of them",
            "same": "you counted the other thing: operations where parameters were asked for, or "
            "the reverse",
            "left": "this is the share that is left, not the share that is saved",
        }.items()
    }


def _savings(t: Toolbox) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """An encoder, and changes to it."""
    layers, hidden = 2 * t.integer(2, 8), 64 * t.integer(1, 12)
    sizes = {
        "vocab": t.choice([4_000, 12_000, 40_000, 200_000]),
        "positions": 512,
        "segments": 2,
        "hidden": hidden,
        "wide": t.choice([2, 4]) * hidden,
        "layers": layers,
        "seq": t.choice([64, 256, 512]),
    }
    options = {
        "shared layers": {SHARED: 1},
        "fewer words": {"vocab": sizes["vocab"] // t.choice([2, 4])},
        "fewer layers": {"layers": layers // 2},
        "narrower": {"wide": hidden},
        "shorter texts": {"seq": sizes["seq"] * t.choice([3, 5]) // 8},
    }
    return sizes, options


def _same_saving(t: Toolbox, answer: Any, given: tuple) -> None:
    exact = {"atol": 1e-12, "rtol": 1e-9}  # a LayerNorm is a small share
    t.decision(answer(*given), _saving(*given), **exact, suspects=_saving_suspects(*given))


@choose_saving.case("parameters: what is stored", points=2)
def _(t: Toolbox, choose_saving: Any) -> None:
    for _ in range(5):
        given = (*_savings(t), "parameters")
        _same_saving(t, choose_saving, given)


@choose_saving.case("operations: what is done", points=2)
def _(t: Toolbox, choose_saving: Any) -> None:
    for _ in range(5):
        given = (*_savings(t), "operations")
        _same_saving(t, choose_saving, given)

"""Wrong encoders, models and counts, each from a misconception (chapter 05)."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn import accounting, encoder, model
from bertlearn.config import BertConfig
from bertlearn.embeddings import BertEmbeddings
from tests.known_wrong import Wrong

# ---- ACTIVATIONS ----------------------------------------------------------------------------

TANH = partial(F.gelu, approximate="tanh")


def _activations(**changes: Any) -> dict[str, Any]:
    return {**encoder.ACTIVATIONS, **changes}


# ---- AddNorm --------------------------------------------------------------------------------


class NormBeforeSum(encoder.AddNorm):
    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + self.LayerNorm(self.dropout(self.dense(x)))


class NoResidual(encoder.AddNorm):
    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)))


class UnbiasedNorm(encoder.AddNorm):
    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        y = residual + self.dropout(self.dense(x))
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True) + 1e-12).sqrt()
        return y * self.LayerNorm.weight + self.LayerNorm.bias


class DefaultEps(encoder.AddNorm):
    def __init__(self, in_features: int, config: BertConfig):
        super().__init__(in_features, config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size)


class DroppedResidual(encoder.AddNorm):
    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(residual + self.dense(x)))


class NoDropout(encoder.AddNorm):
    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dense(x))


# ---- BertAttention, BertIntermediate, BertLayer -------------------------------------------------


class AttentionAlone(encoder.BertAttention):
    def forward(
        self, hidden_states: Tensor, mask: Any = None, output_attentions: bool = False
    ) -> Any:
        context, weights = self.self(hidden_states, mask, output_attentions)
        return self.output.LayerNorm(self.output.dense(context)), weights


class ContextAsResidual(encoder.BertAttention):
    def forward(
        self, hidden_states: Tensor, mask: Any = None, output_attentions: bool = False
    ) -> Any:
        context, weights = self.self(hidden_states, mask, output_attentions)
        return self.output(context, residual=context), weights


class MaskForgotten(encoder.BertAttention):
    def forward(
        self, hidden_states: Tensor, mask: Any = None, output_attentions: bool = False
    ) -> Any:
        context, weights = self.self(hidden_states, None, output_attentions)
        return self.output(context, residual=hidden_states), weights


class MeanOfHeads(encoder.BertAttention):
    def forward(
        self, hidden_states: Tensor, mask: Any = None, output_attentions: bool = False
    ) -> Any:
        out, weights = super().forward(hidden_states, mask, output_attentions)
        return out, None if weights is None else weights.mean(1)


class NoActivation(encoder.BertIntermediate):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dense(hidden_states)


class AlwaysGelu(encoder.BertIntermediate):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return F.gelu(self.dense(hidden_states))


class AlwaysTanhGelu(encoder.BertIntermediate):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return TANH(self.dense(hidden_states))


class ActivationFirst(encoder.BertIntermediate):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dense(self.activation(hidden_states))


class PreNorm(encoder.BertLayer):
    def forward(
        self, hidden_states: Tensor, mask: Any = None, output_attentions: bool = False
    ) -> Any:
        first, second = self.attention.output, self.output
        context, weights = self.attention.self(
            first.LayerNorm(hidden_states), mask, output_attentions
        )
        x = hidden_states + first.dense(context)
        return x + second.dense(self.intermediate(second.LayerNorm(x))), weights


class ResidualFromBlockInput(encoder.BertLayer):
    def forward(
        self, hidden_states: Tensor, mask: Any = None, output_attentions: bool = False
    ) -> Any:
        attended, weights = self.attention(hidden_states, mask, output_attentions)
        return self.output(self.intermediate(attended), residual=hidden_states), weights


class ParallelFeedForward(encoder.BertLayer):
    def forward(
        self, hidden_states: Tensor, mask: Any = None, output_attentions: bool = False
    ) -> Any:
        attended, weights = self.attention(hidden_states, mask, output_attentions)
        return self.output(self.intermediate(hidden_states), residual=attended), weights


class NoFeedForward(encoder.BertLayer):
    def forward(
        self, hidden_states: Tensor, mask: Any = None, output_attentions: bool = False
    ) -> Any:
        return self.attention(hidden_states, mask, output_attentions)


class OpenLayer(encoder.BertLayer):
    def forward(
        self, hidden_states: Tensor, mask: Any = None, output_attentions: bool = False
    ) -> Any:
        return super().forward(hidden_states, None, output_attentions)


# ---- BertEncoder ------------------------------------------------------------------------------


class SharedLayers(encoder.BertEncoder):
    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.layer = nn.ModuleList([encoder.BertLayer(config)] * config.num_hidden_layers)


class SideBySide(encoder.BertEncoder):
    def forward(self, hidden_states: Tensor, mask: Any = None, *flags: bool, **named: bool) -> Any:
        for layer in self.layer:
            out, _ = layer(hidden_states, mask)
        return encoder.BaseModelOutput(out)


class OnlyOutputs(encoder.BertEncoder):
    def forward(self, *inputs: Any, **named: Any) -> Any:
        out = super().forward(*inputs, **named)
        if out.hidden_states is not None:
            out.hidden_states = out.hidden_states[1:]
        return out


class Unmasked(encoder.BertEncoder):
    def forward(self, hidden_states: Tensor, mask: Any = None, *flags: bool, **named: bool) -> Any:
        return super().forward(hidden_states, None, *flags, **named)


@dataclass
class AllRequired:
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]


@dataclass
class OtherNames:
    output: Tensor
    states: tuple[Tensor, ...] | None = None
    weights: tuple[Tensor, ...] | None = None


class NoDataclass:
    def __init__(
        self, last_hidden_state: Tensor, hidden_states: Any = None, attentions: Any = None
    ):
        self.last_hidden_state = last_hidden_state


@dataclass
class EmptyTuples:
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = ()
    attentions: tuple[Tensor, ...] | None = ()


@dataclass
class PoolerOnly:
    last_hidden_state: Tensor
    pooler_output: Tensor | None = None


@dataclass(kw_only=True)
class PoolerRequired(encoder.BaseModelOutput):
    pooler_output: Tensor


class PoolerUndecorated(encoder.BaseModelOutput):
    pooler_output: Tensor | None = None


# ---- model -----------------------------------------------------------------------------------


class FirstText(model.BertPooler):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dense(hidden_states[0]).tanh()


class NoTanh(model.BertPooler):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dense(hidden_states[:, 0])


class MeanPooler(model.BertPooler):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dense(hidden_states.mean(1)).tanh()


class EveryToken(model.BertPooler):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dense(hidden_states).tanh()


def plain_mean(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    return hidden_states.mean(1)


def padded_length(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    return (hidden_states * attention_mask[:, :, None]).mean(1)


def batch_count(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    return (hidden_states * attention_mask[:, :, None]).sum(1) / attention_mask.sum()


def masked_sum(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    return (hidden_states * attention_mask[:, :, None]).sum(1)


def uncut_normal(module: nn.Module, config: BertConfig) -> None:
    model.init_weights(module, config)
    for part in module.modules():
        if isinstance(part, nn.Linear) or (
            isinstance(part, nn.Embedding) and part.weight.requires_grad
        ):
            nn.init.normal_(part.weight, std=config.initializer_range)


def uniform(module: nn.Module, config: BertConfig) -> None:
    model.init_weights(module, config)
    reach = 0.88 * 3**0.5 * config.initializer_range
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.uniform_(part.weight, -reach, reach)


def cut_at_std_units(module: nn.Module, config: BertConfig) -> None:
    """trunc_normal_'s a and b are values: -2 and 2 cut nothing when std is 0.02."""
    model.init_weights(module, config)
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=config.initializer_range, a=-2, b=2)


def only_linear(module: nn.Module, config: BertConfig) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            std = config.initializer_range
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(part.bias)


def frozen_too(module: nn.Module, config: BertConfig) -> None:
    model.init_weights(module, config)
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            std = config.initializer_range
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)


def zero_gain(module: nn.Module, config: BertConfig) -> None:
    model.init_weights(module, config)
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            nn.init.zeros_(part.weight)


def same_seed(module: nn.Module, config: BertConfig) -> None:
    model.init_weights(module, config)
    for part in module.modules():
        if isinstance(part, nn.Linear):
            torch.manual_seed(0)
            std = config.initializer_range
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)


class OneSegment(model.BertModel):
    def forward(
        self, input_ids: Tensor, token_type_ids: Any = None, *args: Any, **named: Any
    ) -> Any:
        return super().forward(input_ids, None, *args, **named)


class PaddingSeen(model.BertModel):
    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Any = None,
        attention_mask: Any = None,
        **named: Any,
    ) -> Any:
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise ValueError("wrong shape")
        return super().forward(input_ids, token_type_ids, None, **named)


class MaskFromIds(model.BertModel):
    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Any = None,
        attention_mask: Any = None,
        **named: Any,
    ) -> Any:
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        return super().forward(input_ids, token_type_ids, attention_mask, **named)


class TorchInit(model.BertModel):
    def __init__(self, config: BertConfig, add_pooling_layer: bool = True):
        super().__init__(config, add_pooling_layer)
        self.embeddings = BertEmbeddings(config)


class AnyMask(model.BertModel):
    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Any = None,
        attention_mask: Any = None,
        **named: Any,
    ) -> Any:
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            attention_mask = None
        return super().forward(input_ids, token_type_ids, attention_mask, **named)


class AnySegments(model.BertModel):
    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Any = None,
        attention_mask: Any = None,
        **named: Any,
    ) -> Any:
        if token_type_ids is not None and token_type_ids.shape != input_ids.shape:
            token_type_ids = token_type_ids.reshape(-1)[:1].expand(input_ids.shape)
        return super().forward(input_ids, token_type_ids, attention_mask, **named)


class DeafToRequests(model.BertModel):
    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Any = None,
        attention_mask: Any = None,
        **named: bool,
    ) -> Any:
        return super().forward(input_ids, token_type_ids, attention_mask)


class PoolsEmbeddings(model.BertModel):
    def forward(self, *args: Any, **named: Any) -> Any:
        out = super().forward(*args, **named)
        if out.pooler_output is not None:
            types = args[1] if len(args) > 1 else None
            out.pooler_output = self.pooler(self.embeddings(args[0], types))
        return out


class HomeMadeNames(model.BertModel):
    def __init__(self, config: BertConfig, add_pooling_layer: bool = True):
        super().__init__(config, add_pooling_layer)
        self.stack = self.encoder
        del self.encoder


# ---- accounting ------------------------------------------------------------------------------


def _changed_table(config: BertConfig, pooler: bool = True, **how: Any) -> dict[str, int]:
    table = accounting.parameter_table(config, pooler)
    hidden, wide, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    if how.get("one_layer"):
        names = list(table)[4:10]
        table.update({name: table[name] // layers for name in names})
    if how.get("no_bias"):
        table["query, key, value"] -= layers * 3 * hidden
        table["attention output"] -= layers * hidden
        table["feed-forward, widen"] -= layers * wide
        table["feed-forward, narrow"] -= layers * hidden
    if how.get("heads"):
        table["query, key, value"] *= config.num_attention_heads
    if how.get("half_norm"):
        for name in table:
            if "LayerNorm" in name:
                table[name] //= 2
    return table


def _wrong_table(**how: Any) -> Any:
    return partial(_changed_table, **how)


def count_without_pooler(config: BertConfig, pooler: bool = True) -> int:
    return accounting.count_parameters(config, pooler=False)


def count_without_biases(config: BertConfig, pooler: bool = True) -> int:
    hidden, wide, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    biases = layers * (5 * hidden + wide) + hidden * pooler
    return accounting.count_parameters(config, pooler) - biases


def count_one_layer(config: BertConfig, pooler: bool = True) -> int:
    return sum(_changed_table(config, pooler, one_layer=True).values())


def count_with_decoder(config: BertConfig, pooler: bool = True) -> int:
    decoder = config.vocab_size * config.hidden_size
    return accounting.count_parameters(config, pooler) + decoder


def count_always_with_pooler(config: BertConfig, pooler: bool = True) -> int:
    return accounting.count_parameters(config)


def multiplications(config: BertConfig, seq: int) -> int:
    return accounting.forward_flops_per_token(config, seq) // 2


def whole_sequence(config: BertConfig, seq: int) -> int:
    return seq * accounting.forward_flops_per_token(config, seq)


def two_n(config: BertConfig, seq: int) -> int:
    return 2 * accounting.count_parameters(config)


def scores_without_mix(config: BertConfig, seq: int) -> int:
    half = 2 * seq * config.hidden_size * config.num_hidden_layers
    return accounting.forward_flops_per_token(config, seq) - half


# ---- questions: pre_norm_layer ----------------------------------------------------------------


def _norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)


def _attend(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    parts = []
    for name in ("query", "key", "value"):
        y = F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])
        parts.append(y.view(*y.shape[:2], heads, -1).transpose(1, 2))
    y = F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(x.shape)
    return F.linear(y, w["output.weight"], w["output.bias"])


def _feed(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    wide = F.gelu(F.linear(x, w["widen.weight"], w["widen.bias"]))
    return F.linear(wide, w["narrow.weight"], w["narrow.bias"])


def post_norm(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    x = _norm(x + _attend(x, w, heads), w, "norm1")
    return _norm(x + _feed(x, w), w, "norm2")


def normed_stream(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    x = _norm(x, w, "norm1")
    x = x + _attend(x, w, heads)
    x = _norm(x, w, "norm2")
    return x + _feed(x, w)


def one_norm_twice(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    x = x + _attend(_norm(x, w, "norm1"), w, heads)
    return x + _feed(_norm(x, w, "norm1"), w)


def norm_once(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    x = x + _attend(_norm(x, w, "norm1"), w, heads)
    return x + _feed(x, w)


def norm_behind(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    x = x + _norm(_attend(x, w, heads), w, "norm1")
    return x + _norm(_feed(x, w), w, "norm2")


def pre_norm_one_head(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    x = x + _attend(_norm(x, w, "norm1"), w, 1)
    return x + _feed(_norm(x, w, "norm2"), w)


# ---- layer_norm_backward ------------------------------------------------------------------------


def _backward(x: Tensor, gain: Tensor, upstream: Tensor, eps: float, slip: str = "") -> tuple:
    centered = x - x.mean(-1, keepdim=True)
    std = (centered.pow(2).mean(-1, keepdim=True) + (0 if slip == "eps" else eps)).sqrt()
    unit = centered / std
    g = upstream if slip == "gain" else upstream * gain
    grad = g
    if slip not in ("mean", "both"):
        grad = grad - g.mean(-1, keepdim=True)
    if slip not in ("std", "both"):
        grad = grad - unit * (g * unit).mean(-1, keepdim=True)
    axes = tuple(range(x.dim() - 1))
    gains = (upstream * unit).mean(axes) if slip == "average" else (upstream * unit).sum(axes)
    if slip == "per token":
        gains = upstream * unit
    return grad / std, gains, upstream.sum(axes)


def _wrong_backward(slip: str) -> Any:
    return partial(_backward, slip=slip)


# ---- bug hunts ---------------------------------------------------------------------------------


def _end(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    gain: Tensor,
    shift: Tensor,
    p: float,
    training: bool,
    *,
    order: str = "",
    eps: float = 1e-12,
) -> Tensor:
    out, size = F.linear(x, weight, bias), gain.shape
    if order == "norm inside":
        return residual + F.layer_norm(F.dropout(out, p, training), size, gain, shift, eps)
    if order == "dropout on sum":
        return F.layer_norm(F.dropout(residual + out, p, training), size, gain, shift, eps)
    if order == "dropout last":
        return F.dropout(F.layer_norm(residual + out, size, gain, shift, eps), p, training)
    if order == "no dropout":
        return F.layer_norm(residual + out, size, gain, shift, eps)
    if order == "norm on residual":
        return F.layer_norm(residual, size, gain, shift, eps) + F.dropout(out, p, training)
    return F.layer_norm(residual + F.dropout(out, p, training), size, gain, shift, eps)


class Step(nn.Module):
    """What a layer of the bug hunt adds."""

    def __init__(self, hidden: int):
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dense(x))


class GoodStack(nn.Module):
    def __init__(self, hidden: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(Step(hidden) for _ in range(layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        states = [x]
        for layer in self.layers:
            states.append(states[-1] + layer(states[-1]))
        return states


class PlainList(GoodStack):
    def __init__(self, hidden: int, layers: int):
        nn.Module.__init__(self)
        self.layers = [Step(hidden) for _ in range(layers)]


class SameModule(GoodStack):
    def __init__(self, hidden: int, layers: int):
        nn.Module.__init__(self)
        self.layers = nn.ModuleList([Step(hidden)] * layers)


class Copies(GoodStack):
    def __init__(self, hidden: int, layers: int):
        nn.Module.__init__(self)
        first = Step(hidden)
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(layers))


class InPlace(GoodStack):
    def forward(self, x: Tensor) -> list[Tensor]:
        states = [x]
        for layer in self.layers:
            x += layer(x)
            states.append(x)
        return states


class ReadsInput(GoodStack):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, *(x + layer(x) for layer in self.layers)]


class NoSum(GoodStack):
    def forward(self, x: Tensor) -> list[Tensor]:
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states


# ---- counts as functions ------------------------------------------------------------------------


def _shared(
    vocab: int,
    embedding: int,
    hidden: int,
    wide: int,
    positions: int,
    segments: int,
    layers: int,
    *,
    slip: str = "",
) -> int:
    block = 4 * (hidden * hidden + hidden) + 4 * hidden + 2 * hidden * wide + wide + hidden
    tables = (vocab + positions + segments) * embedding + 2 * embedding
    lift = embedding * hidden + hidden
    if slip == "unshared":
        block *= layers
    if slip == "wide tables":
        tables, lift = (vocab + positions + segments) * hidden + 2 * hidden, 0
    if slip == "no lift":
        lift = 0
    if slip == "lift without bias":
        lift -= hidden
    pooler = 0 if slip == "no pooler" else hidden * hidden + hidden
    return tables + lift + block + pooler


def _wrong_shared(slip: str) -> Any:
    return partial(_shared, slip=slip)


def _longest(hidden: int, wide: int, share: float, *, slip: str = "") -> int:
    ratio = share if slip == "of the rest" else share / (1 - share)
    rest = {"no projections": wide, "no ffn": 2 * hidden}.get(slip, 2 * hidden + wide)
    found = ratio * rest * (2 if slip == "no mix" else 1)
    return math.ceil(found) if slip == "up" else math.floor(found)


def _wrong_longest(slip: str) -> Any:
    return partial(_longest, slip=slip)


# ---- token_similarity ---------------------------------------------------------------------------


def _alike(states: Tensor, mask: Tensor, *, slip: str = "") -> Tensor:
    n = mask.sum(-1).to(states.dtype)
    x = states if slip == "dots" else F.normalize(states, dim=-1)
    if slip != "padding":
        x = x * mask[:, :, None]
    else:
        n = torch.full_like(n, mask.shape[1])
    cosine = x @ x.transpose(-2, -1)
    own = cosine.diagonal(dim1=-2, dim2=-1).sum(-1)
    total = cosine.sum((-2, -1))
    if slip == "itself":
        return (total / n**2).mean(-1)
    if slip == "pooled":
        return (total - own).sum(-1) / (n * (n - 1)).sum()
    return ((total - own) / (n * (n - 1))).mean(-1)


def across_texts(states: Tensor, mask: Tensor) -> Tensor:
    unit = F.normalize(states[:, mask.bool()], dim=-1)
    n = unit.shape[1]
    return ((unit @ unit.transpose(-2, -1)).sum((-2, -1)) - n) / (n * (n - 1))


def _wrong_alike(slip: str) -> Any:
    return partial(_alike, slip=slip)


# ---- rename_google_keys -------------------------------------------------------------------------


def _part(name: str) -> str:
    *front, last = name.split(".")
    return ".".join([*front, {"gamma": "weight", "beta": "bias"}.get(last, last)])


def replace_everywhere(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        k.removeprefix("bert.").replace("gamma", "weight").replace("beta", "bias"): v
        for k, v in weights.items()
        if not k.endswith("position_ids")
    }


def prefix_anywhere(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        _part(k.replace("bert.", "")): v
        for k, v in weights.items()
        if not k.endswith("position_ids")
    }


def prefix_kept(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_part(k): v for k, v in weights.items() if not k.endswith("position_ids")}


def gamma_is_bias(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for k, v in weights.items():
        *front, last = k.removeprefix("bert.").split(".")
        if last != "position_ids":
            out[".".join([*front, {"gamma": "bias", "beta": "weight"}.get(last, last)])] = v
    return out


def ids_kept(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_part(k.removeprefix("bert.")): v for k, v in weights.items()}


# ---- path_contributions -------------------------------------------------------------------------


def states_not_paths(x: Tensor, mixes: Tensor, maps: Tensor) -> Tensor:
    states = [x]
    for mix, linear in zip(mixes, maps, strict=True):
        states.append(states[-1] + mix @ states[-1] @ linear)
    return torch.stack(states)


def updates_not_paths(x: Tensor, mixes: Tensor, maps: Tensor) -> Tensor:
    states = states_not_paths(x, mixes, maps)
    return torch.stack([x, *(b - a for a, b in pairwise(states))])


def straight_through(x: Tensor, mixes: Tensor, maps: Tensor) -> Tensor:
    parts = [x]
    for mix, linear in zip(mixes, maps, strict=True):
        parts.append(mix @ parts[-1] @ linear)
    return torch.stack(parts)


def last_layer_first(x: Tensor, mixes: Tensor, maps: Tensor) -> Tensor:
    total = torch.zeros(len(mixes) + 1, *x.shape)
    total[0] = x
    for mix, linear in zip(mixes.flip(0), maps.flip(0), strict=True):
        total[1:] = total[1:] + mix @ total[:-1] @ linear
    return total


def longest_first(x: Tensor, mixes: Tensor, maps: Tensor) -> Tensor:
    return last_layer_first(x, mixes.flip(0), maps.flip(0)).flip(0)


WRONG = {
    "05.ACTIVATIONS": [
        Wrong("the two gelus exchanged", [_activations(gelu=TANH, gelu_new=F.gelu)], "exchanged"),
        Wrong("gelu_new is gelu", [_activations(gelu_new=F.gelu)], "is the exact gelu"),
        Wrong("gelu by a sigmoid", [_activations(gelu=F.silu)], "not times a sigmoid"),
        Wrong(
            "the area without x",
            [_activations(gelu=lambda x: 0.5 * (1 + torch.erf(x / 2**0.5)))],
            "the area alone",
        ),
        Wrong("leaky relu", [_activations(relu=F.leaky_relu)], "nothing leaks"),
    ],
    "05.AddNorm": [
        Wrong("LayerNorm before the sum", NormBeforeSum, "LayerNorm comes after the sum"),
        Wrong("no residual", NoResidual, "the residual is lost"),
        Wrong("variance with n - 1", UnbiasedNorm, "divided by n - 1"),
        Wrong("torch's default eps", DefaultEps, "eps is torch's default"),
        Wrong("dropout on the sum", DroppedResidual, "dropout touches the residual"),
        Wrong("no dropout", NoDropout, "dropout is missing"),
    ],
    "05.BertAttention": [
        Wrong("no residual", AttentionAlone, "the residual is lost"),
        Wrong("the context as residual", ContextAsResidual, "attention's own output as residual"),
        Wrong("mask not handed on", MaskForgotten, "the mask is ignored"),
        Wrong("weights averaged over heads", MeanOfHeads, "the heads are averaged"),
    ],
    "05.BertIntermediate": [
        Wrong("no activation", NoActivation, "the activation is missing"),
        Wrong("hidden_act ignored", AlwaysGelu, "always the exact gelu"),
        Wrong("tanh gelu for gelu", AlwaysTanhGelu, "tanh approximation"),
        Wrong("activation before the map", ActivationFirst, "after the map"),
    ],
    "05.BertLayer": [
        Wrong("pre-LN", PreNorm, "this is pre-LN"),
        Wrong("second residual from the input", ResidualFromBlockInput, "second residual is the"),
        Wrong("FFN beside attention", ParallelFeedForward, "reads the block's input"),
        Wrong("no FFN", NoFeedForward, "the attention half alone"),
        Wrong("mask not handed on", OpenLayer, "the mask is ignored"),
    ],
    "05.BertEncoder": [
        Wrong("[layer] * n", SharedLayers, "all layers are one module"),
        Wrong("layers side by side", SideBySide, "every layer reads the input"),
        Wrong("hidden_states without the input", OnlyOutputs, "begins with the stack's input"),
        Wrong("mask not handed on", Unmasked, "the mask is ignored"),
    ],
    "05.BaseModelOutput": [
        Wrong("every field required", AllRequired, "only last_hidden_state may be required"),
        Wrong("names of one's own", OtherNames, "the names that Hugging Face gives them"),
        Wrong("a plain class", NoDataclass, "must be a dataclass"),
        Wrong("empty tuples for None", EmptyTuples, "must be None"),
    ],
    "05.BaseModelOutputWithPooling": [
        Wrong("not built on BaseModelOutput", PoolerOnly, "the names that Hugging Face gives"),
        Wrong("pooler_output required", PoolerRequired, "may be required"),
        Wrong("subclass without @dataclass", PoolerUndecorated, "the names that Hugging Face"),
    ],
    "05.BertPooler": [
        Wrong("x[0] for x[:, 0]", FirstText, "x[:, 0]"),
        Wrong("no tanh", NoTanh, "tanh is missing"),
        Wrong("mean of all tokens", MeanPooler, "takes [CLS] alone"),
        Wrong("every token pooled", EveryToken, "one vector a text"),
    ],
    "05.mean_pool": [
        Wrong("padding averaged in", plain_mean, "padding is averaged in"),
        Wrong("divided by the padded length", padded_length, "divided by the padded length"),
        Wrong("divided by the batch's tokens", batch_count, "a count of its own"),
        Wrong("a sum", masked_sum, "this is a sum"),
    ],
    "05.init_weights": [
        Wrong("tails not cut", uncut_normal, "not cut"),
        Wrong("cut at 2, not at 2 std", cut_at_std_units, "not cut"),
        Wrong("uniform numbers", uniform, "not the normal distribution"),
        Wrong("tables forgotten", only_linear, "still has its old values"),
        Wrong("frozen tables overwritten", frozen_too, "a frozen table was overwritten"),
        Wrong("LayerNorm gains 0", zero_gain, "gain is 0"),
        Wrong("one seed for each layer", same_seed, "start with the same numbers"),
    ],
    "05.BertModel": [
        Wrong("segments ignored", OneSegment, "segments are ignored"),
        Wrong("mask ignored", PaddingSeen, "padding is attended to"),
        Wrong("a mask made from the ids", MaskFromIds, "mask from the padding id"),
        Wrong("torch's own first values", TorchInit, "torch's own first values"),
        Wrong("masks of any shape", AnyMask, "attention_mask of shape"),
        Wrong("segments of any shape", AnySegments, "token_type_ids of shape"),
        Wrong("requests not handed on", DeafToRequests, "must reach the encoder"),
        Wrong("pooler on the embeddings", PoolsEmbeddings, "the pooler reads the embeddings"),
        Wrong("names of one's own", HomeMadeNames, "called as in BERT's checkpoints"),
    ],
    "05.parameter_table": [
        Wrong("one layer", _wrong_table(one_layer=True), "this is one layer's"),
        Wrong("no biases", _wrong_table(no_bias=True), "the biases are missing"),
        Wrong("multiplied by heads", _wrong_table(heads=True), "heads are slices"),
        Wrong("LayerNorm with a gain only", _wrong_table(half_norm=True), "a gain and a shift"),
    ],
    "05.count_parameters": [
        Wrong("no pooler", count_without_pooler, "the pooler is missing"),
        Wrong("no biases", count_without_biases, "the biases are missing"),
        Wrong("one layer", count_one_layer, "one layer only"),
        Wrong("the tied output matrix counted", count_with_decoder, "token table again"),
        Wrong("pooler=False ignored", count_always_with_pooler, "has no effect"),
    ],
    "05.forward_flops_per_token": [
        Wrong("multiplications only", multiplications, "comes with an addition"),
        Wrong("the whole sequence", whole_sequence, "about one token"),
        Wrong("2 N", two_n, "counts lookups"),
        Wrong("scores without the mix", scores_without_mix, "the mix is missing"),
    ],
    "05.pre_norm_layer": [
        Wrong("post-LN", post_norm, "this is post-LN"),
        Wrong("LayerNorm on the residual path", normed_stream, "x itself was normalized"),
        Wrong("one LayerNorm used twice", one_norm_twice, "LayerNorm of its own, norm2"),
        Wrong("no LayerNorm before the FFN", norm_once, "normalize it first, with norm2"),
        Wrong("LayerNorm behind the sublayers", norm_behind, "behind the sublayers"),
        Wrong("a single head", pre_norm_one_head, "a single head"),
    ],
    "05.layer_norm_backward": [
        Wrong(
            "mean and deviation constant", _wrong_backward("both"), "mean and deviation as const"
        ),
        Wrong("deviation constant", _wrong_backward("std"), "the deviation as a constant"),
        Wrong("mean constant", _wrong_backward("mean"), "the mean as a constant"),
        Wrong("gain left out", _wrong_backward("gain"), "the gain is left out"),
        Wrong("eps left out", _wrong_backward("eps"), "eps is left out"),
        Wrong("gain's gradient averaged", _wrong_backward("average"), "averages over the tokens"),
        Wrong("gain's gradient a token", _wrong_backward("per token"), "all tokens share the gain"),
    ],
    "05.add_and_norm_bug": [
        Wrong(
            "LayerNorm inside the sum", partial(_end, order="norm inside"), "the sum must be norm"
        ),
        Wrong("dropout on the sum", partial(_end, order="dropout on sum"), "touches the residual"),
        Wrong("dropout last", partial(_end, order="dropout last"), "stands behind LayerNorm"),
        Wrong("no dropout", partial(_end, order="no dropout"), "the dropout is gone"),
        Wrong(
            "residual normalized", partial(_end, order="norm on residual"), "taken before the norm"
        ),
        Wrong("torch's default eps", partial(_end, eps=1e-5), "eps is still torch's default"),
    ],
    "05.stack_bug": [
        Wrong("a plain list", PlainList, "a plain list hides its layers"),
        Wrong("[layer] * n", SameModule, "one and the same module"),
        Wrong("copies of one layer", Copies, "the layers are copies"),
        Wrong("x += writes into the kept state", InPlace, "writes into the tensor that you kept"),
        Wrong("every layer reads the input", ReadsInput, "every layer reads the input"),
        Wrong("no residual", NoSum, "the residual is lost"),
    ],
    "05.shared_stack_parameters": [
        Wrong("every layer counted", _wrong_shared("unshared"), "count it once"),
        Wrong("tables as wide as hidden", _wrong_shared("wide tables"), "still hidden wide"),
        Wrong("no map to hidden", _wrong_shared("no lift"), "is missing"),
        Wrong("map without bias", _wrong_shared("lift without bias"), "has a bias, too"),
        Wrong("no pooler", _wrong_shared("no pooler"), "the pooler is missing"),
    ],
    "05.longest_sequence": [
        Wrong("share of the rest", _wrong_longest("of the rest"), "your share is of the rest"),
        Wrong("rounded up", _wrong_longest("up"), "one token too many"),
        Wrong("without projections", _wrong_longest("no projections"), "projections are missing"),
        Wrong("without the FFN", _wrong_longest("no ffn"), "feed-forward network is missing"),
        Wrong("without the mix", _wrong_longest("no mix"), "only the scores are counted"),
    ],
    "05.token_similarity": [
        Wrong("pairs with itself", _wrong_alike("itself"), "paired with itself"),
        Wrong("padding takes part", _wrong_alike("padding"), "padding takes part"),
        Wrong("dot products", _wrong_alike("dots"), "dot products"),
        Wrong("pairs across texts", across_texts, "tokens of different texts"),
        Wrong("one average over all pairs", _wrong_alike("pooled"), "average within each text"),
    ],
    "05.rename_google_keys": [
        Wrong("replace inside words", replace_everywhere, "inside a word was replaced"),
        Wrong("prefix removed anywhere", prefix_anywhere, "only at its start"),
        Wrong("prefix kept", prefix_kept, "prefix bert. is still there"),
        Wrong("gamma taken for the bias", gamma_is_bias, "gamma and beta are exchanged"),
        Wrong("position_ids kept", ids_kept, "no parameter"),
    ],
    "05.path_contributions": [
        Wrong("states instead of paths", states_not_paths, "the states after each layer"),
        Wrong("updates instead of paths", updates_not_paths, "the layers' updates"),
        Wrong("one path a length", straight_through, "one path a length"),
        Wrong("layers in reverse", last_layer_first, "in reverse"),
        Wrong("longest paths first", longest_first, "the order is reversed"),
    ],
}

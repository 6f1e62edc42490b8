"""Wrong answers to the checks of chapter 09."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.known_wrong import Wrong

# ---- gradients at every layer -------------------------------------------------------------------


def hidden(number: Tensor, states: Sequence[Tensor], *, kind: str) -> Any:
    """The right thing, with a switch for each way to get it wrong."""
    states = list(states)
    if kind == "detached":
        cut = [state.detach().requires_grad_() for state in states]
        number = number + 0 * sum(state.sum() for state in cut)
        return torch.autograd.grad(number, cut, retain_graph=True)
    if kind == "accumulated":
        for state in states:
            state.retain_grad()
        number.backward(retain_graph=True)
        return tuple(state.grad for state in states)
    if kind == "parameters":
        number.backward(retain_graph=True)
    if kind == "sum of states":
        number = states[-1].sum()
    if kind == "no refusal":
        number = number.sum()
        if not number.requires_grad:
            return tuple(torch.zeros_like(state) for state in states)
    else:
        if number.numel() != 1 or not number.requires_grad:
            raise ValueError("one number with a graph")
    found = torch.autograd.grad(number, states, retain_graph=True, allow_unused=True)
    if kind == "none":
        return found
    zeros = [torch.zeros_like(s) if g is None else g for g, s in zip(found, states, strict=True)]
    if kind == "turned":
        zeros.reverse()
    if kind == "no input":
        zeros = zeros[1:]
    return tuple(zeros)


def _hidden(kind: str) -> Any:
    return lambda *given: hidden(*given, kind=kind)


def mapped(number: Tensor, states: Sequence[Tensor], *, kind: str) -> Tensor:
    norms = torch.stack([g.norm(dim=-1) for g in hidden(number, states, kind="")])
    if kind == "turned":
        return norms.flip(0)
    if kind == "no input":
        return norms[1:]
    if kind == "mean":
        return norms.mean(1)
    if kind == "shares":
        return norms / norms.sum(-1, keepdim=True).clamp(min=1e-30)
    return norms + 1e-9  # "epsilon"


def _mapped(kind: str) -> Any:
    return lambda *given: mapped(*given, kind=kind)


# ---- attributions -------------------------------------------------------------------------------


def integrated(
    score: Any, states: Tensor, baseline: Tensor, steps: int = 50, *, kind: str
) -> Tensor:
    if kind != "broadcast" and baseline.shape != states.shape:
        raise ValueError("another shape")
    if kind == "zero":
        baseline = torch.zeros_like(states)
    places = (torch.arange(steps) + 0.5) / steps
    if kind == "left":
        places = torch.arange(steps) / steps
    if kind == "right":
        places = (torch.arange(steps) + 1.0) / steps
    if kind == "end":
        places = torch.ones(1)
    if kind == "start":
        places = torch.zeros(1)
    line = (baseline + places[:, None, None] * (states - baseline)).detach().requires_grad_()
    (slopes,) = torch.autograd.grad(score(line).sum(), line)
    mean = slopes.sum(0) if kind == "sum" else slopes.mean(0)
    if kind == "no way":
        return mean
    if kind == "times states":
        return states * mean
    if kind == "backwards":
        return (baseline - states) * mean
    return (states - baseline) * mean


def _integrated(kind: str) -> Any:
    return lambda *given: integrated(*given, kind=kind)


def gap(attribution: Tensor, score: Any, states: Tensor, baseline: Tensor, *, kind: str) -> float:
    ends = score(torch.stack([states, baseline])).detach()
    rise = ends[0] - ends[1]
    total = attribution.sum()
    if kind == "turned":
        return float(rise - total)
    if kind == "no baseline":
        return float(total - ends[0])
    if kind == "rise":
        return float(rise)
    if kind == "added":
        return float(total - ends.sum())
    if kind == "absolute":
        return float((total - rise).abs())
    return float(attribution.mean() - rise)


def _gap(kind: str) -> Any:
    return lambda *given: gap(*given, kind=kind)


def rolled(attentions: Sequence[Tensor], *, kind: str) -> Tensor:
    stay = torch.eye(attentions[0].shape[-1])
    total = stay.repeat(len(attentions[0]), 1, 1)
    for weights in attentions:
        mean = weights[:, 0] if kind == "first head" else weights.mean(1)
        step = 0.5 * mean + 0.5 * stay
        if kind == "no residual":
            step = mean
        if kind == "not halved":
            step = mean + stay
        total = total @ step if kind == "order" else step @ total
    if kind == "last":
        return attentions[-1].mean(1)
    if kind == "transposed":
        return total.transpose(1, 2)
    return total


def _rolled(kind: str) -> Any:
    return lambda *given: rolled(*given, kind=kind)


# ---- questions ----------------------------------------------------------------------------------


def pooled(states: Tensor, weight: Tensor, bias: Tensor, direction: Tensor, *, kind: str) -> Tensor:
    z = states[:, 0] @ weight.T + bias
    slope = 1 - z.tanh() ** 2
    if kind == "no slope":
        slope = torch.ones_like(z)
    if kind == "no square":
        slope = 1 - z.tanh()
    if kind == "square of z":
        slope = 1 - z**2
    if kind == "slope of state":
        slope = 1 - states[:, 0].tanh() ** 2
    rows = (direction * slope) @ (weight.T if kind == "forwards" else weight)
    found = torch.zeros_like(states)
    if kind == "everywhere":
        found[:] = rows[:, None]
    else:
        found[:, -1 if kind == "last token" else 0] = rows
    return found


def _pooled(kind: str) -> Any:
    return lambda *given: pooled(*given, kind=kind)


def shared(norms: Tensor, mask: Tensor, *, kind: str) -> Tensor:
    power = norms if kind == "plain" else norms**2
    if kind != "padding":
        power = power * mask
    if kind == "ratio":
        return power[:, :, 0].mean(1) / power.sum(-1).mean(1)
    share = power[:, :, 0] / power.sum(-1)
    if kind != "nan":
        share = share.nan_to_num(0.0)
    return share if kind == "texts" else share.mean(1)


def _shared(kind: str) -> Any:
    return lambda *given: shared(*given, kind=kind)


def expected(
    states: Tensor, baselines: Tensor, first: Tensor, second: Tensor, steps: int, *, kind: str
) -> Tensor:
    def slope(points: Tensor) -> Tensor:
        leaf = points.detach().clone().requires_grad_()
        number = ((leaf @ first).tanh().mean(dim=1).pow(2) @ second).sum()
        return torch.autograd.grad(number, leaf)[0]

    if kind == "middle":
        baselines = baselines.mean(0, keepdim=True)
    if kind == "first":
        baselines = baselines[:1]
    if kind == "zero":
        baselines = torch.zeros_like(baselines)
    rows = []
    for baseline in baselines:
        places = (torch.arange(steps) + 0.5) / steps
        if kind == "end":
            places = torch.ones(1)
        slopes = slope(baseline + places[:, None, None] * (states - baseline))
        mean = slopes.sum(0) if kind == "no mean" else slopes.mean(0)
        rows.append((states if kind == "times states" else states - baseline) * mean)
    both = torch.stack(rows)
    return (both.sum(0) if kind == "sum" else both.mean(0)).sum(-1)


def _expected(kind: str) -> Any:
    return lambda *given: expected(*given, kind=kind)


def crossed(
    attentions: Sequence[Tensor], start: int, end: int, keep: float, *, kind: str
) -> Tensor:
    stay = torch.eye(attentions[0].shape[-1])
    if kind == "no residual":
        keep = 0.0
    if kind == "half":
        keep = 0.5
    if kind == "exchanged":
        keep = 1 - keep
    start, end = (0 if kind == "from the first" else start), end + (kind == "one more")
    total = stay.repeat(len(attentions[0]), 1, 1)
    for weights in attentions[start:] if kind == "to the last" else attentions[start:end]:
        step = keep * stay + (1 - keep) * weights.mean(1)
        total = total @ step if kind == "order" else step @ total
    return total


def _crossed(kind: str) -> Any:
    return lambda *given: crossed(*given, kind=kind)


def word_pool(states: Tensor, mask: Tensor, special: Tensor, *, kind: str) -> Tensor:
    keep = mask.bool() & ~special.bool()
    if kind == "padding":
        keep = ~special.bool()
    if kind == "special":
        keep = mask.bool()
    total = (states * keep[:, :, None]).sum(1)
    if kind == "everything":
        return states.mean(1)
    if kind == "row":
        return total / states.shape[1]
    if kind == "real":
        return total / mask.sum(1, keepdim=True)
    if kind == "sum":
        return total
    count = keep.sum(1, keepdim=True)
    return total / (count if kind == "nan" else count.clamp(min=1))


def _word_pool(kind: str) -> Any:
    return lambda *given: word_pool(*given, kind=kind)


def centered(vectors: Tensor, *, kind: str) -> Tensor:
    lengths = vectors.norm(dim=-1, keepdim=True)
    if kind in ("unit first", "unit once"):
        vectors = vectors / lengths
    if kind == "own mean":
        vectors = vectors - vectors.mean(-1, keepdim=True)
    elif kind != "plain":
        vectors = vectors - vectors.mean(0)
    if kind in ("dot", "unit once"):
        return vectors @ vectors.T
    if kind == "old lengths":
        return vectors @ vectors.T / (lengths @ lengths.T)
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit @ unit.T


def _centered(kind: str) -> Any:
    return lambda *given: centered(*given, kind=kind)


def saliency(text: Tensor, first: Tensor, second: Tensor, *, left: Sequence[str]) -> Tensor:
    """The bug hunt's code with these of its mistakes left in."""
    states = text.clone().requires_grad_()
    rows = []
    for label in range(second.shape[1]):
        logits = (states @ first).tanh().mean(dim=0) @ second
        number = logits.max() if "largest" in left else logits[label]
        if "all" in left:
            number = logits.sum()
        if "added" not in left:
            states.grad = None
        number.backward()
        assert states.grad is not None
        rows.append(states.grad.norm(dim=0 if "axis" in left else -1))
    return torch.stack(rows)


def _saliency(*left: str) -> Any:
    return lambda *given: saliency(*given, left=left)


WRONG = {
    "09.hidden_gradients": [
        Wrong("the states are detached first", _hidden("detached"), "cut out of the graph"),
        Wrong(".grad is not cleared", _hidden("accumulated"), "added up"),
        Wrong("backward() instead of grad()", _hidden("parameters"), ".grad now"),
        Wrong("the gradient of the states' sum", _hidden("sum of states"), "sum of the last"),
        Wrong("the layers in reverse", _hidden("turned"), "turned around"),
        Wrong("the embeddings' output left out", _hidden("no input"), "counts, too"),
        Wrong("None where there is no path", _hidden("none"), "zero, not None"),
        Wrong("several numbers are summed in silence", _hidden("no refusal"), "of several"),
    ],
    "09.token_norms": [
        Wrong("the norm over the tokens", lambda g: g.norm(dim=-2), "over the tokens"),
        Wrong("no square root", lambda g: g.pow(2).sum(-1), "square root is missing"),
        Wrong("sums", lambda g: g.sum(-1), "cancel"),
        Wrong("absolute values", lambda g: g.abs().sum(-1), "sum of absolute values"),
        Wrong("one norm for all", lambda g: g.norm(), "shape"),
    ],
    "09.gradient_map": [
        Wrong("the last layer first", _mapped("turned"), "last layer comes first"),
        Wrong("without the embeddings' output", _mapped("no input"), "lacks the embeddings"),
        Wrong("the mean over texts", _mapped("mean"), "keep the axis of the batch"),
        Wrong("each layer scaled to 1", _mapped("shares"), "divided by its sum"),
        Wrong("a small number is added", _mapped("epsilon"), "its gradient above is 0"),
    ],
    "09.gradient_times_input": [
        Wrong("without the sign", lambda g, x: (g * x).sum(-1).abs(), "sign is lost"),
        Wrong("absolute values", lambda g, x: (g * x).abs().sum(-1), "they cancel"),
        Wrong("the product of lengths", lambda g, x: g.norm(dim=-1) * x.norm(dim=-1), "lengths"),
        Wrong("summed over the tokens", lambda g, x: (g * x).sum(-2), "summed over the tokens"),
        Wrong("the mean", lambda g, x: (g * x).mean(-1), "mean is not the sum"),
    ],
    "09.integrated_gradients": [
        Wrong("the baseline is taken as zero", _integrated("zero"), "way from zero"),
        Wrong("not multiplied by the way", _integrated("no way"), "these are mean gradients"),
        Wrong("multiplied by the states", _integrated("times states"), "multiplied by the states"),
        Wrong("a sum instead of a mean", _integrated("sum"), "added, not averaged"),
        Wrong("the gradient at the text alone", _integrated("end"), "end of the way only"),
        Wrong("the gradient at the baseline alone", _integrated("start"), "start of the way only"),
        Wrong("the beginnings of the pieces", _integrated("left"), "take the middles"),
        Wrong("the ends of the pieces", _integrated("right"), "take the middles"),
        Wrong("from the text to the baseline", _integrated("backwards"), "sign is turned"),
        Wrong("a baseline of one vector is broadcast", _integrated("broadcast"), "refuse it"),
    ],
    "09.completeness_gap": [
        Wrong("the sign is turned", _gap("turned"), "sign is turned"),
        Wrong("the baseline's score is forgotten", _gap("no baseline"), "not taken off"),
        Wrong("the rise alone", _gap("rise"), "difference of the scores"),
        Wrong("scores are added", _gap("added"), "scores were added"),
        Wrong("without the sign", _gap("absolute"), "sign is lost"),
        Wrong("the mean of the shares", _gap("mean"), "mean of the shares"),
    ],
    "09.attention_rollout": [
        Wrong("without the residual", _rolled("no residual"), "residual is missing"),
        Wrong("in the wrong order", _rolled("order"), "wrong order"),
        Wrong("residual not halved", _rolled("not halved"), "no longer sum to 1"),
        Wrong("the last layer alone", _rolled("last"), "last layer's weights alone"),
        Wrong("one head", _rolled("first head"), "only the first head"),
        Wrong("transposed", _rolled("transposed"), "transposed"),
    ],
    "09.pooler_gradient": [
        Wrong("without the slope of tanh", _pooled("no slope"), "slope of tanh is missing"),
        Wrong("1 - tanh", _pooled("no square"), "square is missing"),
        Wrong("1 - z squared", _pooled("square of z"), "you squared z itself"),
        Wrong("the slope at the state", _pooled("slope of state"), "taken at the state"),
        Wrong("forwards through the weight", _pooled("forwards"), "must be transposed"),
        Wrong("at every token", _pooled("everywhere"), "reads only the first"),
        Wrong("at the last token", _pooled("last token"), "stands at the last token"),
    ],
    "09.cls_share": [
        Wrong("padding counted", _shared("padding"), "padding is counted"),
        Wrong("norms without squares", _shared("plain"), "their squares do"),
        Wrong("a ratio of means", _shared("ratio"), "ratio of means"),
        Wrong("one number a text", _shared("texts"), "average over the texts"),
        Wrong("0 by 0", _shared("nan"), "0 divided by 0"),
    ],
    "09.expected_gradients": [
        Wrong("the mean of the baselines as one", _expected("middle"), "in the middle of all"),
        Wrong("the first baseline only", _expected("first"), "only the first baseline"),
        Wrong("a baseline of zeros", _expected("zero"), "way from zero"),
        Wrong("baselines added up", _expected("sum"), "added, not averaged"),
        Wrong("the gradient at the text", _expected("end"), "at the text only"),
        Wrong("times the text", _expected("times states"), "multiplied by the text"),
        Wrong("gradients of a way added up", _expected("no mean"), "gradients of a way"),
    ],
    "09.rollout_between": [
        Wrong("without the residual", _crossed("no residual"), "residual is missing"),
        Wrong("keep and mix exchanged", _crossed("exchanged"), "exchanged"),
        Wrong("always half", _crossed("half"), "half is fixed"),
        Wrong("in the wrong order", _crossed("order"), "wrong order"),
        Wrong("from the first layer", _crossed("from the first"), "start after layer"),
        Wrong("up to the last layer", _crossed("to the last"), "stop at layer"),
        Wrong("one layer too many", _crossed("one more"), "too many"),
    ],
    "09.word_pool": [
        Wrong("padding in the mean", _word_pool("padding"), "padding is in the mean"),
        Wrong("special tokens in the mean", _word_pool("special"), "leave special tokens out"),
        Wrong("everything in the mean", _word_pool("everything"), "everything is in the mean"),
        Wrong("divided by the row's length", _word_pool("row"), "length of the row"),
        Wrong("divided by the real tokens", _word_pool("real"), "number of real tokens"),
        Wrong("sums", _word_pool("sum"), "these are sums"),
        Wrong("0 by 0", _word_pool("nan"), "0 divided by 0"),
    ],
    "09.centered_cosine": [
        Wrong("nothing subtracted", _centered("plain"), "plain cosines"),
        Wrong("each vector's own mean", _centered("own mean"), "own numbers"),
        Wrong("unit vectors first", _centered("unit first"), "subtract first"),
        Wrong("unit vectors first, and not again", _centered("unit once"), "no longer of length 1"),
        Wrong("dot products", _centered("dot"), "dot products"),
        Wrong("the old lengths", _centered("old lengths"), "lengths are those before"),
    ],
    "09.saliency_bug": [
        Wrong("untouched", _saliency("largest", "added", "axis"), "nothing is mended yet"),
        Wrong("only the axis mended", _saliency("largest", "added"), "two mistakes are left"),
        Wrong(".grad not cleared", _saliency("added"), "clear it in each round"),
        Wrong("the largest logit", _saliency("largest"), "of the largest logit"),
        Wrong("all logits", _saliency("all"), "all logits together"),
        Wrong("the wrong axis", _saliency("axis"), "norm is over the tokens"),
    ],
}

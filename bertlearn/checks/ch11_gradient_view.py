"""Checks of chapter 11: gradients through distance and depth, probes, co-occurrence.

The oracles are recurrences whose gradient is known, torch's own encoder layer with the norm first
or last, its least squares, and numbers worked out by hand.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.checks.core import Check, Toolbox, refusal
from bertlearn.config import BertConfig

# ---- definitions of the chapter -------------------------------------------------------------

by_distance = Check(
    "11.gradient_by_distance",
    "the gradient at every distance",
    ("gradient_by_distance",),
)


def _halving(x: Tensor) -> Tensor:
    """y_t = x_t + y_(t-1) / 2, then a turn of the axes, which keeps lengths."""
    seq, width = x.shape[1:]
    place = torch.arange(seq)
    weights = (0.5 ** (place[:, None] - place[None, :]).clamp(min=0).to(x.dtype)).tril()
    turn, _ = torch.linalg.qr(torch.arange(1.0, width * width + 1).view(width, width).sin())
    return weights @ x @ turn.to(x.dtype)


@by_distance.case("a memory that halves with each step: 1, 1/2, 1/4 ...")
def _(t: Toolbox, gradient_by_distance: Any) -> None:
    x = t.randn(3, 6, 4)
    got = gradient_by_distance(_halving, x, torch.Generator().manual_seed(t.seed))
    want = (0.5 ** torch.arange(6.0)).expand(3, 6)
    t.close(
        got,
        want,
        "the norms",
        suspects={
            "your distances run from the first input on: index 0 is the last input itself": (
                want.flip(-1)
            ),
            "the distances are off by one: index 0 is the last input itself, not its neighbor": (
                want[:, 1:]
            ),
            "these are squares: the norm is their root": want**2,
            "this is the gradient of every place's output: only the last place's counts": (
                _all_places(x).flip(-1)
            ),
        },
    )


def _all_places(x: Tensor) -> Tensor:
    """Norms when the outputs of all places are asked, along one direction."""
    seq = x.shape[1]
    place = torch.arange(seq)
    weights = (0.5 ** (place[:, None] - place[None, :]).clamp(min=0).float()).tril()
    return weights.sum(0).expand(len(x), seq)


@by_distance.case("a random direction of length 1, one for each row, the same for a seed")
def _(t: Toolbox, gradient_by_distance: Any) -> None:
    def run(x: Tensor) -> Tensor:
        return x * torch.tensor([1.0, 3.0])

    x = t.randn(40, 2, 2)
    one, two = (
        t.tensor(gradient_by_distance(run, x, torch.Generator().manual_seed(1)), shape=(40, 2))
        for _ in range(2)
    )
    t.close(one, two, "two calls with equal generators")
    norms = one[:, 0]
    t.that(
        bool((norms > 0.999).all() and (norms < 3.001).all()),
        "a direction must have length 1: divide the random vector by its norm",
    )
    t.that(bool(norms.std() > 0.1), "every row has the same direction: draw one for each row")


@by_distance.case("a recurrent network, against its Jacobian")
def _(t: Toolbox, gradient_by_distance: Any) -> None:
    rnn = nn.RNN(3, 1, batch_first=True)
    with torch.no_grad():
        for parameter in rnn.parameters():
            parameter.copy_(t.randn(*parameter.shape) / 2)
    x = t.randn(2, 5, 3)
    got = gradient_by_distance(lambda x: rnn(x)[0], x, torch.Generator().manual_seed(t.seed))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rnn(leaf)[0][:, -1].sum(), leaf)
    t.close(
        got,
        gradient.norm(dim=-1).flip(-1),
        "the norms",
        suspects={
            "your norm runs over the batch: a token's norm runs over its vector, dim=-1": (
                gradient.norm(dim=0).flip(0)
            ),
            "this is a sum over the vector, not a norm": gradient.sum(-1).flip(-1),
        },
    )


rearranged = Check("11.RearrangedLayer", "a block with its norm elsewhere", ("RearrangedLayer",))


def _layer(t: Toolbox, cls: Any, *args: Any, **kwargs: Any) -> tuple[Any, nn.Module]:
    """A block and torch's own with the same random weights."""
    config = BertConfig(
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=24,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-5,
    )
    layer = cls(config, *args, **kwargs)
    weights = {name: t.randn(*w.shape) / 3 for name, w in layer.state_dict().items()}
    layer.load_state_dict(weights)
    layer.eval()
    theirs = nn.TransformerEncoderLayer(
        16, 2, 24, dropout=0.0, activation="gelu", batch_first=True, norm_first=False
    )
    both = {
        "self_attn.out_proj": "attention.output.dense",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm1": "attention.output.LayerNorm",
        "norm2": "output.LayerNorm",
    }
    found = {
        f"{theirs_}.{part}": weights[f"{ours}.{part}"]
        for theirs_, ours in both.items()
        for part in ("weight", "bias")
    }
    for part in ("weight", "bias"):
        found[f"self_attn.in_proj_{part}"] = torch.cat(
            [weights[f"attention.self.{name}.{part}"] for name in ("query", "key", "value")]
        )
    theirs.load_state_dict(found)
    theirs.train()  # the plain path; there is no dropout
    return layer, theirs


@rearranged.case("as torch's own encoder layer, the norm last and first, with padding")
def _(t: Toolbox, cls: Any) -> None:
    for norm in ("post", "pre"):
        layer, theirs = _layer(t, cls, norm)
        theirs.norm_first = norm == "pre"  # type: ignore[assignment]
        x, real = t.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
        real[1, 3:] = False
        with torch.no_grad():
            got, none = layer(x, real[:, None, None, :])
            want = theirs(x, src_key_padding_mask=~real)
            theirs.norm_first = norm != "pre"  # type: ignore[assignment]
            other = theirs(x, src_key_padding_mask=~real)
            inside = _residual_inside(theirs, x, ~real)
        t.close(
            got,
            want,
            f'the output with norm="{norm}"',
            atol=1e-4,
            suspects={
                "you normalize after the sum where pre-LN was asked, or before where post-LN was": (
                    other
                ),
                "the residual is normalized too: in pre-LN the way around a branch stays bare": (
                    inside
                ),
            },
        )
        t.that(none is None, "without output_attentions the second result must be None")


def _residual_inside(layer: Any, x: Tensor, padding: Tensor) -> Tensor:
    """x = LN(x); x + f(x)."""
    for norm, branch in ((layer.norm1, "attention"), (layer.norm2, "feed-forward")):
        x = norm(x)
        if branch == "attention":
            x = x + layer.self_attn(x, x, x, key_padding_mask=padding)[0]
        else:
            x = x + layer.linear2(F.gelu(layer.linear1(x)))
    return x


@rearranged.case("a branch of zeros leaves the residual alone, or nothing")
def _(t: Toolbox, cls: Any) -> None:
    x = 3 * t.randn(2, 5, 16)
    for norm, residual in (("none", True), ("pre", True), ("none", False), ("post", False)):
        layer, _ = _layer(t, cls, norm, residual=residual)
        weights = layer.state_dict()
        for name in weights:
            if name.endswith(("output.dense.weight", "output.dense.bias")):
                weights[name] = torch.zeros_like(weights[name])
            if "LayerNorm.weight" in name:
                weights[name] = torch.ones_like(weights[name])
            if "LayerNorm.bias" in name:
                weights[name] = torch.zeros_like(weights[name])
        layer.load_state_dict(weights)
        with torch.no_grad():
            got, _ = layer(x)
        t.close(
            got,
            x if residual else torch.zeros_like(x),
            f'the output of norm="{norm}", residual={residual} with branches of zeros',
            atol=1e-4,
            suspects={
                "the residual is added although residual=False": F.layer_norm(x, (16,)),
                "the residual was normalized on its way": F.layer_norm(x, (16,)),
                "the residual is added although it was not asked for": x,
                "the residual is missing": torch.zeros_like(x),
            },
        )


@rearranged.case("BERT's arrangement by default, its weights' names; others are refused")
def _(t: Toolbox, cls: Any) -> None:
    layer, theirs = _layer(t, cls)
    x = t.randn(2, 5, 16)
    with torch.no_grad():
        t.close(layer(x)[0], theirs(x), "the output without arguments", atol=1e-4)
    said = refusal(ValueError, _layer, t, cls, "before")
    t.that(said is not None, 'norm="before" must raise ValueError: there is no such arrangement')


pmi = Check(
    "11.pointwise_mutual_information",
    "pointwise mutual information",
    ("pointwise_mutual_information",),
)


def _pmi_mistakes(counts: Tensor) -> dict[str, Any]:
    counts = counts.double()
    total, rows, columns = counts.sum(), counts.sum(1, keepdim=True), counts.sum(0, keepdim=True)
    return {
        "the logarithm is missing": counts * total / (rows * columns),
        "you divided by the row's total alone: that is ln p(y given x), which frequent words "
        "always win; divide by both": (counts / rows).log(),
        "you divided by the column's total alone: divide by both": (counts / columns).log(),
        "counts are not shares: multiply by the number of all pairs": (
            (counts / (rows * columns)).log()
        ),
        "this is in bits: take the natural logarithm": (counts * total / (rows * columns)).log2(),
    }


@pmi.case("by hand: four pairs")
def _(t: Toolbox, pointwise_mutual_information: Any) -> None:
    counts = torch.tensor([[2, 0], [1, 1]])
    want = torch.tensor([[4 / 3, 0.0], [2 / 3, 2.0]]).double().log()
    got = t.tensor(pointwise_mutual_information(counts), shape=(2, 2))
    finite = torch.isfinite(want)
    t.close(
        got.double()[finite],
        want[finite],
        "what was seen",
        suspects={said: wrong[finite] for said, wrong in _pmi_mistakes(counts).items()},
    )
    t.that(got[0, 1] == -math.inf, "a pair that was never seen has minus infinity")


@pmi.case("independent words: zero everywhere; any counts")
def _(t: Toolbox, pointwise_mutual_information: Any) -> None:
    independent = torch.outer(t.ids(20, 4, low=1), t.ids(20, 6, low=1))
    got = t.tensor(pointwise_mutual_information(independent), shape=(4, 6))
    t.close(
        got.double(),
        torch.zeros(4, 6).double(),
        "the values of independent words",
        suspects=_pmi_mistakes(independent),
    )
    counts = t.ids(30, 4, 6, low=1)
    share = counts.double() / counts.sum()
    want = (share / torch.outer(share.sum(1), share.sum(0))).log()
    t.close(
        pointwise_mutual_information(counts).double(),
        want,
        "the values",
        suspects=_pmi_mistakes(counts),
    )


fit = Check("11.fit_probe", "a linear probe", ("fit_probe",))


def _ridge(states: Tensor, labels: Tensor, classes: int, penalty: float, free: bool = True) -> Any:
    """The same as a least-squares problem with a row for each weight that is penalized."""
    x = F.pad(states, (0, 1), value=1.0).double()
    pull = torch.eye(x.shape[1]).double() * math.sqrt(penalty)
    if free:
        pull = pull[:-1]
    y = torch.cat([F.one_hot(labels, classes).double(), torch.zeros(len(pull), classes).double()])
    return torch.linalg.lstsq(torch.cat([x, pull]), y).solution.float()


@fit.case("against torch's least squares")
def _(t: Toolbox, fit_probe: Any) -> None:
    states, labels = t.randn(40, 6) + 1, t.ids(4, 40)
    plain = _ridge(states, labels, 4, 1e-12)
    centered = _ridge(states, labels, 4, 5.0, free=False)
    t.close(
        fit_probe(states, labels, 4, 5.0),
        _ridge(states, labels, 4, 5.0),
        "the weights and, in the last row, the biases",
        atol=1e-4,
        suspects={
            "the penalty is left out": plain,
            "the biases are penalized too: they only say how frequent a class is": centered,
            "the biases are missing: add a column of ones": plain[:-1],
            "the biases come last, in row hidden": _ridge(states, labels, 4, 5.0).roll(1, 0),
        },
    )


@fit.case("an enormous penalty leaves the frequencies of the classes")
def _(t: Toolbox, fit_probe: Any) -> None:
    states, labels = t.randn(50, 3), t.ids(3, 50)
    got = t.tensor(fit_probe(states, labels, 3, 1e9), shape=(4, 3))
    shares = torch.bincount(labels, minlength=3) / 50
    t.close(
        got[-1],
        shares,
        "the biases under an enormous penalty",
        atol=1e-4,
        suspects={"the biases are penalized too": torch.zeros(3)},
    )


accuracy = Check("11.probe_accuracy", "what a probe gets right", ("probe_accuracy",))


@accuracy.case("three states by hand, and the biases decide")
def _(t: Toolbox, probe_accuracy: Any) -> None:
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.5]])
    states = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    t.close(
        probe_accuracy(weights, states, torch.tensor([0, 0, 1])),
        2 / 3,
        "the accuracy",
        suspects={
            "the biases are left out: add the last row": 1.0,
            "this is a number of states, not a share": 2.0,
            "this is the share of mistakes": 1 / 3,
        },
    )


# ---- questions ------------------------------------------------------------------------------

through_time = Check(
    "11.through_time",
    "a gradient through time, by hand",
    ("through_time",),
    kind="implement",
    difficulty=3,
    minutes=25,
    forbids=("aten::tanh_backward", "autograd"),
    reminder="One step back: through tanh at the later state, then through the matrix.",
)


def _states(recurrent: Tensor, inputs: Tensor) -> list[Tensor]:
    state, found = torch.zeros(recurrent.shape[0], dtype=inputs.dtype), []
    for x in inputs:
        state = torch.tanh(recurrent @ state + x)
        found.append(state)
    return found


def _back(recurrent: Tensor, states: Tensor, upstream: Tensor, slip: str = "") -> Tensor:
    """Right, or with one well-known slip."""
    gradients = [upstream]
    for step in range(len(states) - 1, 0, -1):
        at = states[step - 1] if slip == "earlier state" else states[step]
        slope = torch.ones_like(at) if slip == "no tanh" else 1 - at**2
        g = slope * gradients[-1]
        if slip == "order":
            gradients.append(slope * (recurrent.T @ gradients[-1]))
        else:
            gradients.append((recurrent if slip == "no transpose" else recurrent.T) @ g)
    if slip == "backward":
        return torch.stack(gradients)
    return torch.stack(gradients[::-1])


def _time_mistakes(recurrent: Tensor, states: Tensor, upstream: Tensor) -> dict[str, Any]:
    said = {
        "no tanh": "the slope of tanh is missing: each step multiplies by 1 - h * h",
        "earlier state": "the slope belongs to the later state of a step: 1 - h_t * h_t on the "
        "way from h_t to its predecessor",
        "no transpose": "the gradient goes back through the transposed matrix",
        "order": "first through tanh, then through the matrix: you did it the other way round",
        "backward": "row t belongs to state t: yours runs from the last state to the first",
    }
    return {
        message: _back(recurrent, states, upstream, slip)  # fmt: skip
        for slip, message in said.items()
    }


@through_time.case("one number a state, by hand", points=1)
def _(t: Toolbox, through_time: Any) -> None:
    recurrent, states = torch.tensor([[0.5]]), torch.tensor([[0.6], [0.8], [0.0]])
    upstream = torch.tensor([1.0])
    t.close(
        through_time(recurrent, states, upstream),
        torch.tensor([[0.09], [0.5], [1.0]]),
        "the gradients",
        suspects=_time_mistakes(recurrent, states, upstream),
    )


@through_time.case("any sizes, against torch's own gradient", points=2)
def _(t: Toolbox, through_time: Any) -> None:
    size, seq = t.integer(3, 5), t.integer(4, 7)
    recurrent, inputs, upstream = t.randn(size, size) / 2, t.randn(seq, size), t.randn(size)
    found = _states(recurrent.requires_grad_(), inputs)
    want = torch.stack(torch.autograd.grad(found[-1] @ upstream, found))
    recurrent, states = recurrent.detach(), torch.stack(found).detach()
    t.close(
        through_time(recurrent, states, upstream),
        want,
        "the gradients",
        suspects=_time_mistakes(recurrent, states, upstream),
    )


half = Check(
    "11.half_distance",
    "measure a memory",
    ("half_distance",),
    kind="measure",
    difficulty=2,
    minutes=15,
    reminder="A gradient that halves every n tokens is a straight line in its logarithm.",
)


def _slope(x: Tensor, y: Tensor) -> float:
    x, y = x.double(), y.double()
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def _half_mistakes(distances: Tensor, norms: Tensor) -> dict[str, float]:
    slope = _slope(distances, norms.double().log())
    return {
        "this is the distance at which it falls to 1/e: for one half multiply by ln 2": -1 / slope,
        "this is what it loses with each token, not the distance": -slope,
        "the sign is wrong: the line falls, the distance is positive": math.log(2) / slope,
        "you fitted a line to the norms themselves: take their logarithm": (
            math.log(2) / -_slope(distances, norms)
        ),
        "you took the logarithm of the distances too: only that of the norms": (
            math.log(2) / -_slope(distances.double().log(), norms.double().log())
        ),
        "this uses the two ends alone: fit a line to all points": (
            math.log(2)
            * float(distances[-1] - distances[0])
            / float(norms[0].double().log() - norms[-1].double().log())
        ),
    }


@half.case("a norm that halves every third token", points=1)
def _(t: Toolbox, half_distance: Any) -> None:
    distances = torch.tensor([1, 4, 7, 10, 19])
    norms = t.integer(2, 9) * 0.5 ** (distances / 3)
    t.close(
        half_distance(distances, norms),
        3.0,
        "the distance",
        rtol=1e-3,
        suspects=_half_mistakes(distances, norms),
    )


@half.case("norms with noise: the line of least squares", points=1)
def _(t: Toolbox, half_distance: Any) -> None:
    distances = torch.arange(1, 60, 3)
    decay = t.choice((0.8, 0.9, 0.95))
    norms = decay**distances * (0.3 * t.randn(len(distances))).exp()
    t.close(
        half_distance(distances, norms),
        math.log(2) / -_slope(distances, norms.double().log()),
        "the distance",
        rtol=1e-3,
        suspects=_half_mistakes(distances, norms),
    )


reach = Check(
    "11.reachable",
    "where a gradient can go",
    ("reachable",),
    kind="predict",
    difficulty=2,
    minutes=15,
    reminder="Draw three tokens and two layers, and follow the arrows back from one output.",
)


def _paths(mask: Tensor, layers: int, residual: bool = True) -> Tensor:
    step = mask.bool()
    if residual:
        step = step | torch.eye(len(step), dtype=torch.bool)
    found = torch.eye(len(step), dtype=torch.bool)
    for _ in range(layers):
        found = (step.double() @ found.double()) > 0
    return found


def _reach_mistakes(mask: Tensor, layers: int) -> dict[str, Any]:
    return {
        "your arrows run the wrong way: row i is the output that is asked, column j the input; a "
        "causal mask keeps the lower triangle": _paths(mask, layers).T,
        "that is what one layer sees: with each further layer a gradient goes one step on": (
            _paths(mask, 1)
        ),
        "a token that may not attend to itself still reaches itself: there is a residual": (
            _paths(mask, layers, residual=False)
        ),
        "everything is reached only if the mask lets it: follow the mask": torch.ones_like(mask),
        "this is one layer too many": _paths(mask, layers + 1),
    }


@reach.case("a causal mask and a window of one neighbor", points=1)
def _(t: Toolbox, reachable: Any) -> None:
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    place = torch.arange(7)
    window = (place[:, None] - place[None, :]).abs() <= 1
    for mask, layers in ((causal, 2), (window, t.integer(2, 3))):
        t.equal(
            reachable(mask, layers),
            _paths(mask, layers),
            "what is reached",
            suspects=_reach_mistakes(mask, layers),
        )


@reach.case("any mask: the residual counts, and no layer reaches nothing new", points=2)
def _(t: Toolbox, reachable: Any) -> None:
    mask = t.randn(8, 8) > 0.9
    mask[0, 0] = False
    for layers in (t.integer(2, 3), 0):
        t.equal(
            reachable(mask, layers),
            _paths(mask, layers),
            f"what is reached through {layers} layers",
            suspects=_reach_mistakes(mask, layers),
        )


pre_norm = Check(
    "11.pre_norm_bug",
    "bug hunt: a bypass that is blocked",
    ("pre_norm_stack",),
    kind="bug",
    difficulty=3,
    minutes=20,
    reminder="Set both matrices to zero: what must come out?",
)


def _stack(x: Tensor, layers: list[dict[str, Tensor]], kind: str = "pre") -> Tensor:
    for layer in layers:
        normed = F.layer_norm(x, x.shape[-1:], layer["gain"], layer["bias"])
        if kind == "pre":
            x = x + F.gelu(normed @ layer["wide"]) @ layer["narrow"]
        elif kind == "inside":
            x = normed + F.gelu(normed @ layer["wide"]) @ layer["narrow"]
        elif kind == "post":
            total = x + F.gelu(x @ layer["wide"]) @ layer["narrow"]
            x = F.layer_norm(total, x.shape[-1:], layer["gain"], layer["bias"])
        elif kind == "no norm":
            x = x + F.gelu(x @ layer["wide"]) @ layer["narrow"]
        else:
            x = F.gelu(normed @ layer["wide"]) @ layer["narrow"]
    return x


def _stack_mistakes(x: Tensor, layers: list[dict[str, Tensor]]) -> dict[str, Any]:
    return {
        "what goes around the branch is still normalized: only the branch reads the norm": (
            _stack(x, layers, "inside")
        ),
        "this is post-LN: here the norm stands at the entrance of the branch": (
            _stack(x, layers, "post")
        ),
        "the norm is gone: the branch must read normalized states": _stack(x, layers, "no norm"),
        "the residual is gone: add what came in": _stack(x, layers, "no residual"),
    }


def _weights(t: Toolbox, count: int, hidden: int, zero: bool = False) -> list[dict[str, Tensor]]:
    scale = 0.0 if zero else 0.4
    return [
        {
            "gain": 1 + 0.2 * t.randn(hidden),
            "bias": 0.2 * t.randn(hidden),
            "wide": scale * t.randn(hidden, 2 * hidden),
            "narrow": scale * t.randn(2 * hidden, hidden),
        }
        for _ in range(count)
    ]


@pre_norm.case("branches of zeros: what goes in comes out", points=1)
def _(t: Toolbox, pre_norm_stack: Any) -> None:
    x, layers = 3 * t.randn(2, 4, 6) + 1, _weights(t, 3, 6, zero=True)
    t.close(
        pre_norm_stack(x, layers),
        x,
        "the output of branches of zeros",
        suspects=_stack_mistakes(x, layers),
    )


@pre_norm.case("three layers, and their gradient", points=2)
def _(t: Toolbox, pre_norm_stack: Any) -> None:
    x, layers = 3 * t.randn(2, 4, 6) + 1, _weights(t, 3, 6)
    t.close(
        pre_norm_stack(x, layers),
        _stack(x, layers),
        "the output",
        atol=1e-4,
        suspects=_stack_mistakes(x, layers),
    )


ppmi = Check(
    "11.smoothed_ppmi",
    "association without the rare-word bias",
    ("smoothed_ppmi",),
    kind="implement",
    difficulty=3,
    minutes=20,
    reminder="With an exponent of 1 nothing is smoothed: then it is the chapter's PMI, cut at 0.",
)


def _ppmi(counts: Tensor, exponent: float, slip: str = "") -> Tensor:
    counts = counts.double()
    words, contexts = counts.sum(1, keepdim=True), counts.sum(0, keepdim=True)
    if slip == "words":
        smoothed_words = words**exponent / (words**exponent).sum()
        ratio = counts / counts.sum() / (smoothed_words * contexts / counts.sum())
    else:
        whole = counts.sum() ** exponent if slip == "denominator" else (contexts**exponent).sum()
        context = contexts / counts.sum() if slip == "plain" else contexts**exponent / whole
        ratio = counts / counts.sum() / (words / counts.sum() * context)
        if slip == "row":
            ratio = counts / words / context.new_ones(1)
    if slip == "no log":
        return ratio
    if slip == "bits":
        return ratio.log2().clamp(min=0)
    return ratio.log() if slip == "no clip" else ratio.log().clamp(min=0)


def _ppmi_mistakes(counts: Tensor, exponent: float) -> dict[str, Any]:
    said = {
        "plain": "the contexts are not smoothed: raise their counts to the exponent",
        "words": "you smoothed the words: it is the contexts' counts that are raised",
        "denominator": "the smoothed shares do not sum to 1: divide by the sum of the raised "
        "counts, not by the raised sum",
        "no clip": "negative values remain: what meets less often than by chance counts as 0",
        "no log": "the logarithm is missing",
        "bits": "this is in bits: take the natural logarithm",
        "row": "you divided by the word's total alone: divide by the context's share too",
    }
    return {message: _ppmi(counts, exponent, slip) for slip, message in said.items()}


@ppmi.case("two words by hand, exponent 1/2", points=1)
def _(t: Toolbox, smoothed_ppmi: Any) -> None:
    counts = torch.tensor([[8, 0], [8, 4]])
    # contexts 16 and 4: roots 4 and 2, shares 2/3 and 1/3; words 8 and 12 of 20
    want = torch.tensor([[math.log(0.4 / (0.4 * 2 / 3)), 0.0], [0.0, 0.0]]).double()
    t.close(
        t.tensor(smoothed_ppmi(counts, 0.5), shape=(2, 2)).double(),
        want,
        "the values",
        suspects=_ppmi_mistakes(counts, 0.5),
    )


@ppmi.case("any counts; a pair that was never seen has 0", points=2)
def _(t: Toolbox, smoothed_ppmi: Any) -> None:
    counts = t.ids(12, 5, 7) * (t.randn(5, 7) > -0.5) + torch.eye(5, 7, dtype=torch.int64)
    counts[0] += 1
    for exponent in (0.75, 1.0):
        got = t.tensor(smoothed_ppmi(counts, exponent), shape=(5, 7)).double()
        t.that(
            bool(torch.isfinite(got).all()),
            "a pair that was never seen must have 0, not minus infinity",
        )
        t.close(
            got,
            _ppmi(counts, exponent),
            f"the values with exponent {exponent}",
            suspects=_ppmi_mistakes(counts, exponent),
        )
    t.close(
        t.tensor(smoothed_ppmi(counts), shape=(5, 7)).double(),
        _ppmi(counts, 0.75),
        "the values if no exponent is given",
    )


offset = Check(
    "11.by_offset",
    "measure both sides of a blank",
    ("by_offset",),
    kind="measure",
    difficulty=3,
    minutes=25,
    reminder="Offset = token's place minus the blank's place: -1 is the word to the left.",
)


def _offsets(
    gradients: Tensor, places: Tensor, counted: Tensor, reach: int, slip: str = ""
) -> Tensor:
    norms = gradients.norm(dim=0).mean(-1).expand(gradients.shape[:2])
    if slip != "batch":
        norms = gradients.abs().sum(-1) if slip == "sum" else gradients.norm(dim=-1)
    batch, seq = norms.shape
    sums, sizes = torch.zeros(2 * reach + 1).double(), torch.zeros(2 * reach + 1).double()
    for row in range(batch):
        for j in range(seq):
            away = j - int(places[row])
            if slip == "mirrored":
                away = -away
            if slip == "off by one":
                away += 1
            if abs(away) <= reach and (slip == "all" or bool(counted[row, j])):
                sums[away + reach] += norms[row, j].double()
                sizes[away + reach] += 1
    if slip == "rows":
        sizes = torch.full_like(sizes, batch)
    return (sums / sizes.clamp(min=1)).float()


def _offset_mistakes(
    gradients: Tensor, places: Tensor, counted: Tensor, reach: int
) -> dict[str, Any]:
    said = {
        "mirrored": "left and right are swapped: offset = the token's place minus the blank's",
        "off by one": "the offsets are off by one: the blank itself has offset 0",
        "all": "tokens that do not count are in your means: use the mask",
        "rows": "you divided by the number of rows: divide by the tokens found at that offset",
        "sum": "this is a sum of absolute values: the norm is the root of the sum of squares",
        "batch": "your norm runs over the batch: a token's norm runs over its vector, dim=-1",
    }
    given = (gradients, places, counted, reach)
    return {message: _offsets(*given, slip) for slip, message in said.items()}


@offset.case("one row, where the norms can be read off", points=1)
def _(t: Toolbox, by_offset: Any) -> None:
    gradients = torch.tensor([[[3.0, 4], [0, 1], [6, 8], [0, 2], [1, 0]]])
    places, counted = torch.tensor([2]), torch.tensor([[True, True, True, True, False]])
    given = (gradients, places, counted, 2)
    t.close(
        by_offset(*given),
        torch.tensor([5.0, 1, 10, 2, 0]),
        "the means",
        suspects=_offset_mistakes(*given),
    )


@offset.case("many rows, blanks at different places, some near the edge", points=2)
def _(t: Toolbox, by_offset: Any) -> None:
    gradients, places = t.randn(6, 9, 4), t.ids(9, 6)
    places[0], places[1] = 0, 8
    counted = t.randn(6, 9) > -0.6
    given = (gradients, places, counted, 4)
    t.close(
        by_offset(*given),
        _offsets(*given),
        "the means",
        suspects=_offset_mistakes(*given),
    )


held_out = Check(
    "11.held_out_accuracy",
    "a probe that has not seen the sentence",
    ("held_out_accuracy",),
    kind="measure",
    difficulty=3,
    minutes=20,
    seconds=20,
    reminder="Two tokens of one sentence are no independent witnesses: they stay together.",
)


def _least_squares_accuracy(
    states: Tensor, labels: Tensor, fitted: Tensor, tested: Tensor, classes: int
) -> float:
    weights = _ridge(states[fitted], labels[fitted], classes, 1.0)
    guess = (states[tested] @ weights[:-1] + weights[-1]).argmax(-1)
    return float((guess == labels[tested]).double().mean())


def _sentences(t: Toolbox, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each sentence has a signature in all its tokens, and a topic that nothing tells."""
    sizes = [t.integer(5, 9) for _ in range(80)]
    sentences = torch.cat([torch.full((size,), i) for i, size in enumerate(sizes)])
    topics = t.ids(classes, 80)
    kinds = t.ids(classes, len(sentences))  # of the token: a weak, honest signal
    labels = torch.where(t.randn(len(sentences)) > -0.3, topics[sentences], kinds)
    states = torch.cat([t.randn(80, 96)[sentences], 0.8 * F.one_hot(kinds, classes).float()], 1)
    states = states + 0.05 * t.randn(*states.shape)
    order = torch.randperm(len(sentences), generator=t.generator)
    return states[order], labels[order], sentences[order]


@held_out.case("whole sentences are held out, those that 5 divides", points=3)
def _(t: Toolbox, held_out_accuracy: Any) -> None:
    states, labels, sentences = _sentences(t, 4)
    every = torch.ones_like(sentences, dtype=torch.bool)
    tested = sentences % 5 == 0
    fifth = torch.arange(len(sentences)) % 5 == 0

    def wrong(fitted: Tensor, asked: Tensor) -> float:
        return _least_squares_accuracy(states, labels, fitted, asked, 4)

    t.close(
        held_out_accuracy(states, labels, sentences, 4),
        wrong(~tested, tested),
        "the accuracy",
        atol=1e-6,
        rtol=0,
        suspects={
            "the probe was tested on the sentences that it was fitted on": wrong(every, every),
            "the tested sentences were among those it was fitted on": wrong(every, tested),
            "this is the accuracy on the sentences that it was fitted on": wrong(~tested, ~tested),
            "you held out every fifth token: its sentence's other tokens give it away": (
                wrong(~fifth, fifth)
            ),
            "you fitted on the fifth and tested on the rest": wrong(tested, ~tested),
        },
    )


what_shrinks = Check(
    "11.what_shrinks",
    "what makes the gradient shrink",
    ("what_shrinks",),
    kind="choose",
    difficulty=3,
    minutes=25,
    reminder="Each step back has two halves: measure the gradient before, between and after.",
)


def _shrinking(
    recurrent: Tensor, states: Tensor, upstream: Tensor, *, slip: str = ""
) -> tuple[str, dict[str, float]]:
    """Which half of the steps takes more from the gradient's logarithm, and how much each."""
    gradient, tanh, matrix = upstream, 0.0, 0.0
    for state in (states if slip == "first" else states[1:]).flip(0):
        slope = 1 - state if slip == "square" else 1 - state**2
        between = slope * gradient
        after = (recurrent if slip == "transposed" else recurrent.T) @ between
        tanh += float((gradient.norm() / between.norm()).log())
        matrix += float((between.norm() / after.norm()).log())
        gradient = after
    if slip == "apart":
        steps = len(states) - 1
        tanh = -float((1 - states[1:] ** 2).mean(1).log().sum())
        matrix = -steps * float(torch.linalg.matrix_norm(recurrent, 2).log())
    if slip == "bits":
        tanh, matrix = tanh / math.log(2), matrix / math.log(2)
    if slip == "sign":
        tanh, matrix = -tanh, -matrix
    choice = "tanh" if tanh > matrix else "matrix"
    if tanh + matrix <= 0 and slip != "always":
        choice = "neither"
    return choice, {"tanh": tanh, "matrix": matrix}


def _shrinking_suspects(*given: Any) -> dict[str, Any]:
    return {
        message: _shrinking(*given, slip=slip)
        for slip, message in {
            "first": "no step leads back from the first state: there is one step less than states",
            "square": "the slope of tanh is one minus the square of its value",
            "transposed": "backwards the matrix is transposed",
            "apart": "the largest singular value and the mean slope are bounds and averages: "
            "measure along the gradient that is really there",
            "bits": "natural logarithms are asked for",
            "sign": "a loss is positive where the gradient shrinks: before over after",
            "always": "this gradient has grown: neither makes it shrink",
        }.items()
    }


def _recurrence(t: Toolbox, scale: float, drive: float) -> tuple[Tensor, Tensor, Tensor]:
    """A recurrent matrix, states that it went through, and a gradient at the last."""
    hidden = t.integer(4, 8)
    recurrent = scale * torch.linalg.qr(t.randn(hidden, hidden, dtype=torch.float64))[0]
    recurrent = recurrent + 0.1 * scale * t.randn(hidden, hidden, dtype=torch.float64)
    state, states = torch.zeros(hidden, dtype=torch.float64), []
    for _ in range(t.integer(4, 9)):
        state = torch.tanh(recurrent @ state + drive * t.randn(hidden, dtype=torch.float64))
        states.append(state)
    return recurrent, torch.stack(states), t.randn(hidden, dtype=torch.float64)


def _same_shrinking(t: Toolbox, answer: Any, given: tuple) -> None:
    t.decision(answer(*given), _shrinking(*given), suspects=_shrinking_suspects(*given))


@what_shrinks.case("one number, two steps, by hand", points=1)
def _(t: Toolbox, what_shrinks: Any) -> None:
    for scale in (0.5, 1.2, 1.6, 3.0):
        states = torch.tensor([[0.9], [0.6], [0.8]])  # slopes 0.64 and 0.36 count
        given = (torch.tensor([[scale]]), states, torch.tensor([2.0]))
        _same_shrinking(t, what_shrinks, given)
    nothing = (torch.eye(1), torch.zeros(3, 1), torch.tensor([2.0]))  # is taken, by either half
    _same_shrinking(t, what_shrinks, nothing)


@what_shrinks.case("networks that saturate, that damp, and that explode", points=2)
def _(t: Toolbox, what_shrinks: Any) -> None:
    for scale, drive in ((0.9, 1.5), (0.4, 0.2), (2.0, 0.1), (1.0, 1.0), (0.7, 0.5)):
        _same_shrinking(t, what_shrinks, _recurrence(t, scale, drive))

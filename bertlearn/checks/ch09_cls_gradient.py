"""What the pieces of chapter 09 must do, and the questions that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bertlearn.checks.core import Check, Failed, Toolbox, refusal

# ---- gradients at every layer -----------------------------------------------------------


def _stack(t: Toolbox, layers: int = 3, width: int = 8) -> nn.ModuleList:
    """Torch's own encoder layers (post-LN, as BERT's), with weights from the toolbox's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(t.seed + 1)
        stack = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, "gelu", batch_first=True)
            for _ in range(layers)
        )
    return stack.eval()


def _run(stack: nn.ModuleList, states: Tensor) -> list[Tensor]:
    """The input and every layer's output, on one graph."""
    found = [states.clone().requires_grad_()]
    for layer in stack:
        found.append(layer(found[-1]))
    return found


def _each(got: Any, count: int, name: str) -> list[Tensor]:
    """A tuple or list of so many tensors."""
    if not isinstance(got, (tuple, list)):
        raise Failed(f"{name} must be one tensor a layer, in a tuple, not {type(got).__name__}")
    if len(got) != count:
        raise Failed(
            f"{name}: there are {len(got)} tensors for {count} states; the embeddings' output "
            f"counts, too",
            expected=str(count),
            got=str(len(got)),
        )
    return list(got)


hidden = Check(
    "09.hidden_gradients", "the gradient of a number at every layer", ("hidden_gradients",)
)


@hidden.case("two tokens by hand: 4, 0 above and 3, 1 below")
def _(t: Toolbox, hidden_gradients: Any) -> None:
    below = torch.tensor([[[2.0], [-1.0]]], requires_grad=True)
    mix = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    above = mix @ below
    got = _each(hidden_gradients(4 * above[0, 0, 0], [below, above]), 2, "the gradients")
    for gradient, want, where in (
        (got[1], [[[4.0], [0.0]]], "above"),
        (got[0], [[[3.0], [1.0]]], "below"),
    ):
        if gradient is None:
            raise Failed(f"the gradient {where} is None: ask for it before you detach anything")
        t.close(
            gradient,
            torch.tensor(want),
            f"the gradient {where}",
            suspects={
                "the order of the layers is turned around: the embeddings' output comes first": (
                    torch.tensor([[[4.0], [0.0]]])
                    if where == "below"
                    else (torch.tensor([[[3.0], [1.0]]]))
                ),
                "this is the gradient of the sum of the last layer's states, not of the number "
                "that was handed in": (torch.ones(1, 2, 1)),
                "the gradient is zero: was the state cut out of the graph (detach) before the "
                "number was computed from it?": torch.zeros(1, 2, 1),
            },
        )


@hidden.case("two numbers one after the other: nothing is left over from the first")
def _(t: Toolbox, hidden_gradients: Any) -> None:
    stack = _stack(t)
    states = _run(stack, t.randn(2, 5, 8))
    first, second = states[-1][0, 0, 0], states[-1][1, 3].pow(2).sum()
    one = _each(hidden_gradients(first, states), 4, "the gradients")
    one = [gradient.clone() for gradient in one]
    two = _each(hidden_gradients(second, states), 4, "the gradients")
    for layer in range(4):
        for number, got, name in ((first, one, "first"), (second, two, "second")):
            (want,) = torch.autograd.grad(number, states[layer], retain_graph=True)
            both = want + torch.autograd.grad(first, states[layer], retain_graph=True)[0]
            t.close(
                got[layer],
                want,
                f"layer {layer}, the gradient of the {name} number",
                atol=1e-6,
                suspects={
                    "the gradients of both numbers are added up: .grad accumulates, and was not "
                    "cleared": both,
                },
            )
    t.that(
        all(p.grad is None for p in stack.parameters()),
        "the parameters have a .grad now: a later step of an optimizer would use it",
    )


@hidden.case("a layer that the number does not depend on has zeros")
def _(t: Toolbox, hidden_gradients: Any) -> None:
    used, unused = t.randn(1, 3, 2).requires_grad_(), t.randn(1, 3, 2).requires_grad_()
    got = _each(hidden_gradients((used**2).sum(), [used, unused]), 2, "the gradients")
    t.that(got[1] is not None, "where there is no path the gradient is zero, not None")
    t.close(got[1], torch.zeros(1, 3, 2), "the gradient where there is no path")
    t.close(got[0], 2 * used.detach(), "the gradient of the sum of squares")


@hidden.case("refuses what is not one number, and what was computed without a graph")
def _(t: Toolbox, hidden_gradients: Any) -> None:
    states = t.randn(2, 3, 4).requires_grad_()
    t.that(
        refusal(ValueError, hidden_gradients, states.sum(-1), [states]),
        "a gradient is that of one number: refuse a tensor of several with a ValueError",
    )
    t.that(
        refusal(ValueError, hidden_gradients, torch.tensor(1.0), [states]),
        "a number from no_grad has no way back: say so in a ValueError, zeros would be a lie",
    )


norms = Check("09.token_norms", "one number for each token's gradient", ("token_norms",))


def _norm_suspects(gradient: Tensor) -> dict[str, Tensor]:
    return {
        "this is the norm over the tokens: take it over the numbers of each vector, dim=-1": (
            gradient.norm(dim=-2)
        ),
        "the square root is missing": gradient.pow(2).sum(-1),
        "these are sums: gradients of opposite sign cancel": gradient.sum(-1),
        "this is the sum of absolute values: the Euclidean norm is the root of the sum of "
        "squares": gradient.abs().sum(-1),
    }


@norms.case("3 and 4 give 5")
def _(t: Toolbox, token_norms: Any) -> None:
    gradient = torch.tensor([[[3.0, 4.0], [0.0, -2.0]]])
    t.close(
        token_norms(gradient),
        torch.tensor([[5.0, 2.0]]),
        "the norms",
        suspects=_norm_suspects(gradient),
    )


@norms.case("(..., seq, hidden) to (..., seq)")
def _(t: Toolbox, token_norms: Any) -> None:
    for shape in ((6, 6), (2, 5, 7), (3, 2, 5, 4)):
        gradient = t.randn(*shape)
        want = gradient.double().pow(2).sum(-1).sqrt().float()
        t.close(token_norms(gradient), want, f"norms of {shape}", suspects=_norm_suspects(gradient))


maps = Check("09.gradient_map", "layer by position", ("gradient_map",))


def _norms_of(number: Tensor, states: Sequence[Tensor]) -> Tensor:
    found = torch.autograd.grad(number, list(states), retain_graph=True, allow_unused=True)
    return torch.stack(
        [
            torch.zeros(s.shape[:-1]) if g is None else g.pow(2).sum(-1).sqrt()
            for g, s in zip(found, states, strict=True)
        ]
    )


@maps.case("norms of every layer, (layers + 1, batch, seq), the input first")
def _(t: Toolbox, gradient_map: Any) -> None:
    states = _run(_stack(t), t.randn(2, 5, 8))
    number = states[-1][:, 2].sum()
    want = _norms_of(number, states)
    t.close(
        gradient_map(number, states),
        want,
        "the map",
        suspects={
            "the last layer comes first: the embeddings' output belongs into row 0": want.flip(0),
            "the map lacks the embeddings' output": want[1:],
            "the texts are averaged: keep the axis of the batch": want.mean(1),
            "each layer is divided by its sum: the sizes of the layers are lost": (
                want / want.sum(-1, keepdim=True).clamp(min=1e-30)
            ),
        },
    )


@maps.case("a loss on words alone: exactly 0 at [CLS] in the last layer, and not below")
def _(t: Toolbox, gradient_map: Any) -> None:
    states = _run(_stack(t), t.randn(2, 6, 8))
    loss = nn.functional.cross_entropy(states[-1][:, 3:5].flatten(0, 1), t.ids(8, 4))
    got = t.tensor(gradient_map(loss, states), shape=(4, 2, 6), name="the map")
    t.that(bool((got[-1, :, 0] == 0).all()), "[CLS] is not asked for: its gradient above is 0")
    t.that(bool((got[:-1, :, 0] > 0).all()), "below the last layer every word reads [CLS]")
    t.close(got, _norms_of(loss, states), "the map of a loss on words", atol=1e-6)


@maps.case("a head on [CLS] alone: exactly 0 everywhere else in the last layer, and not below")
def _(t: Toolbox, gradient_map: Any) -> None:
    states = _run(_stack(t), t.randn(2, 6, 8))
    score = (states[-1][:, 0] @ t.randn(8)).tanh().sum()
    got = t.tensor(gradient_map(score, states), shape=(4, 2, 6), name="the map")
    t.that(bool((got[-1, :, 1:] == 0).all()), "only [CLS] is read: all else is 0 above")
    t.that(bool((got[:-1] > 0).all()), "below the last layer [CLS] reads every word")
    t.close(got, _norms_of(score, states), "the map of a head on [CLS]", atol=1e-6)


# ---- attributions -----------------------------------------------------------------------

times_input = Check(
    "09.gradient_times_input", "the first-order share of a token", ("gradient_times_input",)
)


def _product_suspects(gradient: Tensor, states: Tensor) -> dict[str, Tensor]:
    product = gradient * states
    return {
        "the sign is lost: a token can speak against": product.sum(-1).abs(),
        "absolute values were added: within a token they cancel": product.abs().sum(-1),
        "this is a product of lengths: the directions of the two vectors count": (
            gradient.norm(dim=-1) * states.norm(dim=-1)
        ),
        "this is summed over the tokens: one number for each token, dim=-1": product.sum(-2),
        "the mean is not the sum: shares must add up to the whole": product.mean(-1),
    }


@times_input.case("by hand: 1 times 3 minus 2 times 1 is 1")
def _(t: Toolbox, gradient_times_input: Any) -> None:
    gradient = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    states = torch.tensor([[3.0, 1.0], [4.0, 9.0]])
    t.close(
        gradient_times_input(gradient, states),
        torch.tensor([1.0, 2.0]),
        "the shares",
        suspects=_product_suspects(gradient, states),
    )


@times_input.case("of a linear score the shares are exact")
def _(t: Toolbox, gradient_times_input: Any) -> None:
    weights, states = t.randn(2, 6, 6), t.randn(2, 6, 6)
    got = gradient_times_input(weights, states)  # the gradient of (weights * states).sum()
    t.close(
        got,
        torch.einsum("bsh,bsh->bs", weights, states),
        "the shares",
        suspects=_product_suspects(weights, states),
    )


integrated = Check("09.integrated_gradients", "shares along a way", ("integrated_gradients",))


def _numbers(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """A score with products between tokens: (batch, seq, hidden) to (batch,)."""

    def score(x: Tensor) -> Tensor:
        mixed = (x @ weights).tanh()  # (batch, seq, hidden)
        return (mixed.mean(1) * mixed[:, 0]).sum(-1) + x[:, 1].pow(3).sum(-1)

    return score


def _line(
    score: Callable[[Tensor], Tensor],
    states: Tensor,
    baseline: Tensor,
    places: Sequence[float],
) -> Tensor:
    """Mean gradient at these places of the way from baseline to states."""
    total = torch.zeros_like(states)
    for place in places:
        point = (baseline + place * (states - baseline)).requires_grad_()
        total += torch.autograd.grad(score(point[None])[0], point)[0]
    return total / len(places)


def _integrated(
    score: Callable[[Tensor], Tensor], states: Tensor, baseline: Tensor, steps: int
) -> tuple[Tensor, dict[str, Tensor]]:
    middles = [(i + 0.5) / steps for i in range(steps)]
    zero = torch.zeros_like(states)
    mean = _line(score, states, baseline, middles)
    return (states - baseline) * mean, {
        "these are mean gradients: multiply by the way, states minus baseline": mean,
        "multiplied by the states: the way from the baseline is states minus baseline": (
            states * mean
        ),
        "the baseline is not used: this is the way from zero": (
            states * _line(score, states, zero, middles)
        ),
        "the gradients are added, not averaged": (states - baseline) * mean * steps,
        "this is the gradient at the end of the way only: go along it": (
            (states - baseline) * _line(score, states, baseline, [1.0])
        ),
        "this is the gradient at the start of the way only: go along it": (
            (states - baseline) * _line(score, states, baseline, [0.0])
        ),
        "the points lie at the beginnings of the pieces: take the middles, which err far less": (
            (states - baseline) * _line(score, states, baseline, [i / steps for i in range(steps)])
        ),
        "the points lie at the ends of the pieces: take the middles, which err far less": (
            (states - baseline)
            * _line(score, states, baseline, [(i + 1) / steps for i in range(steps)])
        ),
        "the way is walked from the states to the baseline: its sign is turned": (
            (baseline - states) * mean
        ),
    }


@integrated.case("a product of two numbers, 2 and 3: each gets half of 6")
def _(t: Toolbox, integrated_gradients: Any) -> None:
    def product(x: Tensor) -> Tensor:
        return x[:, 0, 0] * x[:, 1, 0]

    states, baseline = torch.tensor([[2.0], [3.0]]), torch.zeros(2, 1)
    for steps in (1, 10):
        want, suspects = _integrated(product, states, baseline, steps)
        t.close(
            integrated_gradients(product, states, baseline, steps),
            torch.tensor([[3.0], [3.0]]),
            f"the shares of 2 x 3 with {steps} step{'s' * (steps > 1)}",
            suspects=suspects,
        )


@integrated.case("from a baseline that is not zero")
def _(t: Toolbox, integrated_gradients: Any) -> None:
    score = _numbers(t.randn(4, 4))
    states, baseline = t.randn(5, 4), t.randn(5, 4)
    for steps in (3, 20):
        want, suspects = _integrated(score, states, baseline, steps)
        got = t.tensor(
            integrated_gradients(score, states, baseline, steps),
            shape=(5, 4),
            name="the attribution",
        )
        t.close(got.detach(), want, f"the shares with {steps} steps", suspects=suspects)


@integrated.case("complete: the sum is the difference of the scores, the better the more steps")
def _(t: Toolbox, integrated_gradients: Any) -> None:
    score = _numbers(t.randn(4, 4))
    states, baseline = t.randn(5, 4), t.randn(5, 4)
    whole = score(torch.stack([states, baseline]))
    want = whole[0] - whole[1]
    got = integrated_gradients(score, states, baseline, 300).sum()
    t.close(
        got.detach(),
        want,
        "the sum of all shares, with 300 steps",
        atol=2e-3,
        suspects={
            "the shares add up to the score itself: the baseline's score is not taken off": (
                whole[0]
            ),
            "the sum is the negative of the difference: the way runs from baseline to states": (
                -want
            ),
        },
    )


@integrated.case("a baseline of another shape is refused, not broadcast")
def _(t: Toolbox, integrated_gradients: Any) -> None:
    score = _numbers(t.randn(4, 4))
    t.that(
        refusal(ValueError, integrated_gradients, score, t.randn(5, 4), torch.zeros(4)),
        "a baseline (hidden,) for states (seq, hidden) was accepted: refuse it with a ValueError, "
        "each token has a baseline of its own",
    )


gap = Check("09.completeness_gap", "what the shares miss", ("completeness_gap",))


@gap.case("by hand: shares of 4 and 1 for a rise from 3 to 6 are 2 too much")
def _(t: Toolbox, completeness_gap: Any) -> None:
    def total(x: Tensor) -> Tensor:
        return x.sum((1, 2))

    states, baseline = torch.tensor([[5.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    t.close(
        completeness_gap(torch.tensor([4.0, 1.0]), total, states, baseline),
        2.0,
        "the gap",
        suspects={
            "the sign is turned: sum of shares minus difference of scores": -2.0,
            "the baseline's score is not taken off: shares tell states from baseline": -1.0,
            "this is the difference of the scores: take it off the sum of the shares": 3.0,
            "scores were added: the shares make up their difference": -4.0,
        },
    )


@gap.case("0 for exact shares, whatever the shapes and the baseline")
def _(t: Toolbox, completeness_gap: Any) -> None:
    weights = t.randn(5, 4)

    def linear(x: Tensor) -> Tensor:
        return (x * weights).sum((1, 2)) + 3.0

    states, baseline = t.randn(5, 4), t.randn(5, 4)
    exact = (states - baseline) * weights
    spare = t.randn(5)
    score = float((states * weights).sum() + 3.0)
    low = float((baseline * weights).sum() + 3.0)
    spare = spare * (-spare.sum()).sign()  # too little, in sum
    for attribution, want in ((exact, 0.0), (exact.sum(-1) + spare, float(spare.sum()))):
        added = float(attribution.sum())
        t.close(
            completeness_gap(attribution, linear, states, baseline),
            want,
            "the gap",
            atol=1e-4,
            suspects={
                "the sign is lost: a gap can be too little or too much": abs(want),
                "the baseline's score is not taken off: shares tell states from baseline": (
                    added - score
                ),
                "scores were added: the shares make up their difference": added - (score + low),
                "the sign is turned: sum of shares minus difference of scores": (
                    (score - low) - added
                ),
                "this is the mean of the shares, not their sum": (
                    float(attribution.mean()) - (score - low)
                ),
            },
        )


rollout = Check("09.attention_rollout", "attention through all layers", ("attention_rollout",))


def _rolled(attentions: Sequence[Tensor], keep: float = 0.5, turned: bool = False) -> Tensor:
    seq = attentions[0].shape[-1]
    total = torch.eye(seq).repeat(len(attentions[0]), 1, 1)
    for weights in attentions:
        step = (1 - keep) * weights.mean(1) + keep * torch.eye(seq)
        total = total @ step if turned else step @ total
    return total


def _rollout_suspects(attentions: Sequence[Tensor]) -> dict[str, Any]:
    last = attentions[-1]
    return {
        "the residual is missing: half of each token's vector passes by attention, so average the "
        "weights with the identity": _rolled(attentions, keep=0.0),
        "the product is in the wrong order: a later layer mixes what earlier ones have mixed, so "
        "it stands on the left": _rolled(attentions, turned=True),
        "the identity is added but not halved: the rows no longer sum to 1": (
            lambda: _unhalved(attentions)
        ),
        "these are the last layer's weights alone": last.mean(1),
        "only the first head was used: average over the heads": (
            _rolled([weights[:, :1] for weights in attentions])
        ),
        "the matrix is transposed: rows are outputs, columns are inputs": (
            _rolled(attentions).transpose(1, 2)
        ),
        "the layers are averaged: they follow each other, so multiply": (
            torch.stack([0.5 * w.mean(1) + 0.5 * torch.eye(w.shape[-1]) for w in attentions]).mean(
                0
            )
        ),
    }


def _unhalved(attentions: Sequence[Tensor]) -> Tensor:
    total = torch.eye(attentions[0].shape[-1]).repeat(len(attentions[0]), 1, 1)
    for weights in attentions:
        total = (weights.mean(1) + torch.eye(weights.shape[-1])) @ total
    return total


@rollout.case("two layers of two tokens by hand")
def _(t: Toolbox, attention_rollout: Any) -> None:
    first = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])  # both look at token 1
    second = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])  # both look at token 0
    t.close(
        attention_rollout([first, second]),
        torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]),
        "the mixture",
        suspects=_rollout_suspects([first, second]),
    )


@rollout.case("several heads, layers and texts; each row is a mixture with sum 1")
def _(t: Toolbox, attention_rollout: Any) -> None:
    attentions = [t.randn(2, 3, 5, 5).mul(2).softmax(-1) for _ in range(4)]
    got = t.tensor(attention_rollout(attentions), shape=(2, 5, 5), name="the rollout")
    t.close(got, _rolled(attentions), "the rollout", suspects=_rollout_suspects(attentions))


# ---- questions --------------------------------------------------------------------------

pooler = Check(
    "09.pooler_gradient",
    "backwards through the pooler by hand",
    ("pooler_gradient",),
    kind="implement",
    difficulty=3,
    minutes=20,
    forbids=("aten::tanh_backward", "autograd"),
    reminder="score = direction . tanh(weight h + bias), of the first token only.",
)


def _pooler(states: Tensor, weight: Tensor, bias: Tensor, direction: Tensor) -> Tensor:
    leaf = states.detach().clone().requires_grad_()
    pooled = torch.tanh(torch.nn.functional.linear(leaf[:, 0], weight, bias))
    return torch.autograd.grad((pooled @ direction).sum(), leaf)[0]


def _pooler_suspects(states: Tensor, weight: Tensor, bias: Tensor, direction: Tensor) -> dict:
    inner = states[:, 0] @ weight.T + bias
    slope = 1 - inner.tanh() ** 2

    def place(rows: Tensor) -> Tensor:
        found = torch.zeros_like(states)
        found[:, 0] = rows
        return found

    right = (direction * slope) @ weight
    turned = (
        {}
        if weight.shape[0] != weight.shape[1]
        else {
            "the weight must be transposed on the way back: you went forwards through it": place(
                (direction * slope) @ weight.T
            )
        }
    )
    return {
        "the slope of tanh is missing: 1 - tanh(z)^2": place(
            (direction.expand(len(states), -1)) @ weight
        ),
        "the slope of tanh is 1 - tanh(z)^2: the square is missing": place(
            (direction * (1 - inner.tanh())) @ weight
        ),
        "the slope of tanh at z is 1 - tanh(z)^2: you squared z itself": place(
            (direction * (1 - inner**2)) @ weight
        ),
        "the slope is taken at the state: it belongs to what goes into tanh, W h + b": place(
            (direction * (1 - states[:, 0].tanh() ** 2)) @ weight
        ),
        "every token has this gradient: the pooler reads only the first": (
            right[:, None].expand_as(states)
        ),
        "the gradient stands at the last token: [CLS] is the first": (place(right).flip(1)),
        **turned,
    }


@pooler.case("one number a token, by hand", points=1)
def _(t: Toolbox, pooler_gradient: Any) -> None:
    states = torch.tensor([[[0.5], [3.0]]])
    given = (states, torch.tensor([[2.0]]), torch.tensor([-1.0]), torch.tensor([3.0]))
    # z = 2 * 0.5 - 1 = 0, slope 1, so 3 * 1 * 2
    t.close(
        pooler_gradient(*given),
        torch.tensor([[[6.0], [0.0]]]),
        "the gradient for h = 0.5, weight 2, bias -1, direction 3",
        suspects=_pooler_suspects(*given),
    )


@pooler.case("any batch, any width", points=3)
def _(t: Toolbox, pooler_gradient: Any) -> None:
    for batch, seq, width in ((1, 4, 6), (3, 5, 7)):
        given = (t.randn(batch, seq, width), t.randn(width, width), t.randn(width), t.randn(width))
        t.close(
            pooler_gradient(*given),
            _pooler(*given),
            f"the gradient for states {(batch, seq, width)}",
            suspects=_pooler_suspects(*given),
        )


share = Check(
    "09.cls_share",
    "how much of the gradient is at [CLS]",
    ("cls_share",),
    kind="measure",
    difficulty=2,
    minutes=15,
    reminder="Squares of norms add up like lengths of vectors at right angles; shares are taken "
    "text by text, then averaged.",
)


def _share(norms: Tensor, mask: Tensor, kind: str = "") -> Tensor:
    power = norms if kind == "plain" else norms**2
    if kind != "padding":
        power = power * mask
    if kind == "ratio":
        return power[:, :, 0].mean(1) / power.sum(-1).mean(1)
    total = power.sum(-1)
    shares = torch.where(total > 0, power[:, :, 0] / total.clamp(min=1e-30), torch.zeros(()))
    if kind == "texts":
        return shares
    return shares.sum(1) / shares.shape[1]


def _share_suspects(norms: Tensor, mask: Tensor) -> dict[str, Any]:
    return {
        "padding is counted: its norms do not belong to the text": _share(norms, mask, "padding"),
        "norms do not add up, their squares do": _share(norms, mask, "plain"),
        "this is a ratio of means, in which a text with large gradients counts more: take the "
        "share of each text first": _share(norms, mask, "ratio"),
        "average over the texts: one number for each layer": _share(norms, mask, "texts"),
    }


@share.case("norms 3 and 4 by hand: 9 of 25", points=1)
def _(t: Toolbox, cls_share: Any) -> None:
    given = (torch.tensor([[[3.0, 4.0, 7.0]]]), torch.tensor([[1, 1, 0]]))
    t.close(
        cls_share(*given),
        torch.tensor([0.36]),
        "the share with norms 3, 4 and a [PAD]",
        suspects=_share_suspects(*given),
    )


@share.case("several layers, texts of different lengths", points=1)
def _(t: Toolbox, cls_share: Any) -> None:
    for _ in range(2):
        norms = t.randn(4, 3, 6).abs() * torch.tensor([1.0, 5.0, 0.2])[None, :, None]
        lengths = torch.tensor([t.integer(2, 6) for _ in range(3)])
        mask = (torch.arange(6) < lengths[:, None]).long()
        mask[0, -1] = 0
        t.close(
            cls_share(norms, mask),
            _share(norms, mask),
            "the shares of four layers",
            suspects=_share_suspects(norms, mask),
        )


@share.case("a layer without any gradient has a share of 0, not nan", points=1)
def _(t: Toolbox, cls_share: Any) -> None:
    norms = t.randn(2, 2, 4).abs()
    norms[1, 0] = 0
    mask = torch.ones(2, 4, dtype=torch.long)
    got = t.tensor(cls_share(norms, mask), shape=(2,), name="the shares")
    t.that(
        not bool(torch.isnan(got).any()),
        "0 divided by 0 is nan: where no gradient arrives the share is 0",
    )
    t.close(got, _share(norms, mask), "the shares", suspects=_share_suspects(norms, mask))


expected = Check(
    "09.expected_gradients",
    "shares against many baselines",
    ("expected_gradients",),
    kind="implement",
    difficulty=4,
    minutes=30,
    hides=("gradients.integrated_gradients",),
    reminder="The sum of the shares is the score of the text minus the mean score of the "
    "baselines.",
)


def _toy(states: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The score of the question: (batch, seq, hidden) to (batch,)."""
    return (states @ first).tanh().mean(dim=1).pow(2) @ second


def _toy_grad(points: Tensor, first: Tensor, second: Tensor) -> Tensor:
    leaf = points.clone().requires_grad_()
    return torch.autograd.grad(_toy(leaf, first, second).sum(), leaf)[0]


def _expected(
    states: Tensor, baselines: Tensor, first: Tensor, second: Tensor, steps: int
) -> Tensor:
    shares = []
    for baseline in baselines:
        places = [(i + 0.5) / steps for i in range(steps)]
        points = torch.stack([baseline + p * (states - baseline) for p in places])
        shares.append((states - baseline) * _toy_grad(points, first, second).mean(0))
    return torch.stack(shares).mean(0).sum(-1)


def _expected_suspects(
    states: Tensor, baselines: Tensor, first: Tensor, second: Tensor, steps: int
) -> dict[str, Any]:
    def of(chosen: Tensor) -> Tensor:
        return _expected(states, chosen, first, second, steps)

    right = of(baselines)
    end = _toy_grad(states[None], first, second)[0]
    return {
        "one baseline in the middle of all is not the same as the mean over baselines: the way "
        "from each is another one": of(baselines.mean(0, keepdim=True)),
        "only the first baseline was used": of(baselines[:1]),
        "the baselines are not used: this is the way from zero": (
            of(torch.zeros_like(baselines[:1]))
        ),
        "the baselines' shares are added, not averaged": right * len(baselines),
        "the gradient is that at the text only: go along the way from each baseline": (
            ((states - baselines.mean(0)) * end).sum(-1)
        ),
        "the mean gradient is multiplied by the text: multiply by the way, text minus baseline": (
            lambda: _without_baseline(states, baselines, first, second, steps)
        ),
        "the gradients of a way are added, not averaged": right * steps,
    }


def _without_baseline(
    states: Tensor, baselines: Tensor, first: Tensor, second: Tensor, steps: int
) -> Tensor:
    slopes = []
    for baseline in baselines:
        places = [(i + 0.5) / steps for i in range(steps)]
        points = torch.stack([baseline + p * (states - baseline) for p in places])
        slopes.append(_toy_grad(points, first, second).mean(0))
    return (states * torch.stack(slopes).mean(0)).sum(-1)


def _ask_expected(t: Toolbox, answer: Any, count: int, steps: int) -> tuple[Any, tuple]:
    given = (t.randn(5, 4), t.randn(count, 5, 4), t.randn(4, 6), t.randn(6), steps)
    got = t.tensor(answer(*given), shape=(5,), name="the shares")
    return got.detach(), given


@expected.case("one baseline: integrated gradients, one number a token", points=1)
def _(t: Toolbox, expected_gradients: Any) -> None:
    got, given = _ask_expected(t, expected_gradients, 1, 7)
    suspects = _expected_suspects(*given)
    del suspects["only the first baseline was used"]
    middle = next(key for key in suspects if key.startswith("one baseline in the middle"))
    del suspects[middle]
    t.close(got, _expected(*given), "the shares", atol=1e-4, suspects=suspects)


@expected.case("several baselines", points=2)
def _(t: Toolbox, expected_gradients: Any) -> None:
    got, given = _ask_expected(t, expected_gradients, 4, 5)
    t.close(got, _expected(*given), "the shares", atol=1e-4, suspects=_expected_suspects(*given))


@expected.case("complete: they add up to the score minus the mean score of the baselines", points=1)
def _(t: Toolbox, expected_gradients: Any) -> None:
    got, given = _ask_expected(t, expected_gradients, 3, 400)
    states, baselines, first, second, _ = given
    whole = _toy(states[None], first, second)[0]
    low = _toy(baselines, first, second).mean()
    t.close(
        got.sum(),
        whole - low,
        "the sum of the shares",
        atol=2e-3,
        suspects={
            "the sum is the score itself: the baselines' mean is not taken off": whole,
            "the sum misses the score of the mean baseline, not the mean score of the baselines": (
                whole - _toy(baselines.mean(0, keepdim=True), first, second)[0]
            ),
        },
    )


between = Check(
    "09.rollout_between",
    "rollout between two layers",
    ("rollout_between",),
    kind="implement",
    difficulty=3,
    minutes=20,
    hides=("gradients.attention_rollout",),
    reminder="Layer 0 is the embeddings' output; attentions[k] leads from layer k to layer k + 1.",
)


def _between(attentions: Sequence[Tensor], start: int, end: int, keep: float) -> Tensor:
    seq, total = attentions[0].shape[-1], None
    total = torch.eye(seq).repeat(len(attentions[0]), 1, 1)
    for weights in attentions[start:end]:
        total = (keep * torch.eye(seq) + (1 - keep) * weights.mean(1)) @ total
    return total


def _between_suspects(
    attentions: Sequence[Tensor], start: int, end: int, keep: float
) -> dict[str, Any]:
    turned = torch.eye(attentions[0].shape[-1]).repeat(len(attentions[0]), 1, 1)
    for weights in attentions[start:end]:
        turned = turned @ (keep * torch.eye(weights.shape[-1]) + (1 - keep) * weights.mean(1))
    return {
        "the residual is missing": _between(attentions, start, end, 0.0),
        "residual and attention are exchanged: keep is the share of the identity": (
            _between(attentions, start, end, 1 - keep)
        ),
        "half is fixed: the share of the residual is handed in": (
            _between(attentions, start, end, 0.5)
        ),
        "the product is in the wrong order: a later layer stands on the left": turned,
        "all layers from the first on were multiplied: start after layer `start`": (
            _between(attentions, 0, end, keep)
        ),
        "one layer too many: attentions[end] leads beyond layer `end`": (
            _between(attentions, start, end + 1, keep)
        ),
        "all layers up to the last were multiplied: stop at layer `end`": (
            _between(attentions, start, len(attentions), keep)
        ),
        "one layer too few: attentions[start] leads out of layer `start`": (
            _between(attentions, start + 1, end, keep)
        ),
    }


@between.case("two layers of two tokens by hand", points=1)
def _(t: Toolbox, rollout_between: Any) -> None:
    first = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    second = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    given = ([first, second], 0, 2, 0.8)
    # step 1: [[.8, .2], [0, 1]]; step 2: [[1, 0], [.2, .8]]
    t.close(
        rollout_between(*given),
        torch.tensor([[[0.8, 0.2], [0.16, 0.84]]]),
        "from layer 0 to layer 2, keeping 0.8",
        suspects=_between_suspects(*given),
    )


@between.case("from any layer to any later one", points=2)
def _(t: Toolbox, rollout_between: Any) -> None:
    attentions = [t.randn(2, 3, 5, 5).mul(2).softmax(-1) for _ in range(6)]
    for start, end, layers in ((1, 4, 6), (0, 3, 6), (2, 6, 6), (0, 1, 1)):
        given = (attentions[:layers], start, end, 0.7)
        t.close(
            rollout_between(*given),
            _between(*given),
            f"from layer {start} to layer {end}, keeping 0.7",
            suspects=_between_suspects(*given),
        )


@between.case("from a layer to itself nothing moves", points=1)
def _(t: Toolbox, rollout_between: Any) -> None:
    attentions = [t.randn(2, 3, 4, 4).softmax(-1) for _ in range(3)]
    given = (attentions, 2, 2, 0.6)
    t.close(
        rollout_between(*given),
        torch.eye(4).repeat(2, 1, 1),
        "from layer 2 to layer 2",
        suspects=_between_suspects(*given),
    )


words = Check(
    "09.word_pool",
    "one vector from the words alone",
    ("word_pool",),
    kind="implement",
    difficulty=2,
    minutes=15,
    hides=("model.mean_pool",),
    reminder="Special tokens and padding are not words.",
)


def _pool(states: Tensor, mask: Tensor, special: Tensor) -> Tensor:
    keep = (mask.bool() & ~special.bool())[:, :, None].to(states.dtype)
    return (states * keep).sum(1) / keep.sum(1).clamp(min=1)


def _pool_suspects(states: Tensor, mask: Tensor, special: Tensor) -> dict[str, Any]:
    real, ordinary = mask.bool(), ~special.bool()
    keep = (real & ordinary)[:, :, None].to(states.dtype)
    return {
        "padding is in the mean: a [PAD] is no word": _pool(states, torch.ones_like(mask), special),
        "[CLS] and [SEP] are in the mean: leave special tokens out": (
            _pool(states, mask, torch.zeros_like(special))
        ),
        "everything is in the mean, padding and special tokens too": states.mean(1),
        "divided by the length of the row: divide by the number of words": (
            (states * keep).mean(1)
        ),
        "divided by the number of real tokens: divide by the number of words": (
            (states * keep).sum(1) / mask.sum(1, keepdim=True)
        ),
        "these are sums: divide by the number of words": (states * keep).sum(1),
    }


def _rows(t: Toolbox, lengths: Sequence[int], seq: int) -> tuple[Tensor, Tensor, Tensor]:
    states = t.randn(len(lengths), seq, 4)
    mask = (torch.arange(seq) < torch.tensor(lengths)[:, None]).long()
    special = torch.zeros_like(mask)
    special[:, 0] = 1
    for row, length in enumerate(lengths):
        special[row, length - 1] = 1
    return states, mask, special


@words.case("[CLS] 2 4 [SEP] [PAD] by hand: 3", points=1)
def _(t: Toolbox, word_pool: Any) -> None:
    states = torch.tensor([[[50.0], [2.0], [4.0], [9.0], [70.0]]])
    given = (states, torch.tensor([[1, 1, 1, 1, 0]]), torch.tensor([[1, 0, 0, 1, 0]]))
    t.close(word_pool(*given), torch.tensor([[3.0]]), "the mean", suspects=_pool_suspects(*given))


@words.case("a batch of texts of different lengths", points=1)
def _(t: Toolbox, word_pool: Any) -> None:
    given = _rows(t, [7, t.integer(4, 6), 3, 4], 8)
    t.close(word_pool(*given), _pool(*given), "the vectors", suspects=_pool_suspects(*given))


@words.case("a text without a word has a vector of zeros, not nan", points=1)
def _(t: Toolbox, word_pool: Any) -> None:
    given = _rows(t, [2, 5], 6)
    got = t.tensor(word_pool(*given), shape=(2, 4), name="the vectors")
    t.that(
        not bool(torch.isnan(got).any()),
        "0 divided by 0 is nan: a text without a word has a vector of zeros",
    )
    t.close(got, _pool(*given), "the vectors", suspects=_pool_suspects(*given))


centered = Check(
    "09.centered_cosine",
    "likeness without what all texts share",
    ("centered_cosine",),
    kind="implement",
    difficulty=2,
    minutes=15,
    reminder="Subtract one vector, the mean of all texts; then take cosines.",
)


def _cosine(vectors: Tensor) -> Tensor:
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit @ unit.T


def _centered_suspects(vectors: Tensor) -> dict[str, Any]:
    own = vectors - vectors.mean(-1, keepdim=True)
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    middle = vectors - vectors.mean(0)
    return {
        "nothing is subtracted: these are plain cosines": _cosine(vectors),
        "the mean of each vector's own numbers was subtracted: subtract the mean vector, dim=0": (
            _cosine(own)
        ),
        "the vectors were made unit vectors before the mean was taken: subtract first": (
            _cosine(unit - unit.mean(0))
        ),
        "what is left after the mean is subtracted is no longer of length 1: subtract first, then "
        "divide by the lengths": (unit - unit.mean(0)) @ (unit - unit.mean(0)).T,
        "these are dot products: divide by the lengths": middle @ middle.T,
        "dividing by the spread of each dimension is another measure: only the mean goes": (
            _cosine(middle / vectors.std(0))
        ),
        "the lengths are those before the mean was subtracted": (
            (middle @ middle.T) / (vectors.norm(dim=-1)[:, None] * vectors.norm(dim=-1)[None, :])
        ),
    }


@centered.case("three texts by hand: a common direction goes", points=1)
def _(t: Toolbox, centered_cosine: Any) -> None:
    vectors = torch.tensor([[10.0, 1.0], [10.0, -1.0], [10.0, 3.0]])
    # the mean is (10, 1): differences (0, 0), (0, -2), (0, 2); give the first a way of its own
    vectors = torch.cat([vectors[1:], torch.tensor([[13.0, 1.0], [7.0, 1.0]])])
    # now the mean is (10, 1) again: (0, -2), (0, 2), (3, 0), (-3, 0)
    want = torch.tensor(
        [
            [1.0, -1.0, 0.0, 0.0],
            [-1.0, 1.0, 0.0, 0.0],
            [0.0, 0.0, 1.0, -1.0],
            [0.0, 0.0, -1.0, 1.0],
        ]
    )
    t.close(
        centered_cosine(vectors),
        want,
        "the cosines of (10, -1), (10, 3), (13, 1) and (7, 1)",
        suspects=_centered_suspects(vectors),
    )


@centered.case("any texts with a large common part", points=2)
def _(t: Toolbox, centered_cosine: Any) -> None:
    vectors = t.randn(7, 12) * t.randn(7, 1).abs().add(0.5) + 5 * t.randn(12)
    t.close(
        centered_cosine(vectors),
        _cosine(vectors - vectors.mean(0)),
        "the cosines",
        atol=1e-4,
        suspects=_centered_suspects(vectors),
    )


bug = Check(
    "09.saliency_bug",
    "a map that shows something else",
    ("saliency",),
    kind="bug",
    difficulty=3,
    minutes=25,
    reminder="One row a class: the norms, token by token, of the gradient of that class's logit, "
    "and of nothing else.",
)


def _logits(states: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return (states @ first).tanh().mean(dim=0) @ second


def _saliency(text: Tensor, first: Tensor, second: Tensor, kind: str = "") -> Tensor:
    rows, before = [], torch.zeros_like(text)
    for label in range(second.shape[1]):
        leaf = text.clone().requires_grad_()
        logits = _logits(leaf, first, second)
        number = logits[label]
        if "largest" in kind:
            number = logits.max()
        elif "all" in kind:
            number = logits.sum()
        (gradient,) = torch.autograd.grad(number, leaf)
        if "added" in kind:
            before = before + gradient
            gradient = before
        rows.append(gradient.norm(dim=0 if "axis" in kind else -1))
    return torch.stack(rows)


def _saliency_suspects(text: Tensor, first: Tensor, second: Tensor) -> dict[str, Any]:
    def of(kind: str) -> Tensor:
        return _saliency(text, first, second, kind)

    return {
        "two mistakes are left: gradients of earlier classes are still in .grad, and the gradient "
        "is that of the largest logit": of("largest added"),
        "gradients of earlier classes are still in .grad: clear it in each round": of("added"),
        "the gradient is that of the largest logit in every row: take the logit of the row's "
        "class": of("largest"),
        "the gradient is that of all logits together: take the one of the row's class": of("all"),
        "the norm is over the tokens: one number for each token is over dim=-1": of("axis"),
        "the norm is over the tokens, and the gradient is that of the largest logit": (
            of("axis largest")
        ),
        "the norm is over the tokens, and gradients of earlier classes are still in .grad": (
            of("axis added")
        ),
        "nothing is mended yet: look at the number whose gradient is taken, at what is left in "
        ".grad, and at the axis of the norm": of("axis added largest"),
    }


def _judge_saliency(t: Toolbox, answer: Any, seq: int, width: int, classes: int) -> None:
    given = (t.randn(seq, width), t.randn(width, 6), t.randn(6, classes))
    got = t.tensor(answer(*given), name="the norms").detach()
    t.close(got, _saliency(*given), "the norms", suspects=_saliency_suspects(*given))


@bug.case("as many tokens as numbers in a vector, two classes", points=2)
def _(t: Toolbox, saliency: Any) -> None:
    _judge_saliency(t, saliency, 4, 4, 2)


@bug.case("any text, any number of classes", points=2)
def _(t: Toolbox, saliency: Any) -> None:
    for _ in range(2):
        _judge_saliency(t, saliency, t.integer(5, 8), 4, t.integer(3, 5))


most_faithful = Check(
    "09.most_faithful",
    "which map tells the truth",
    ("most_faithful",),
    kind="choose",
    difficulty=3,
    minutes=25,
    reminder="Believe no picture: take away what a map calls important, and look at the score.",
)


def _falls(
    states: Tensor,
    maps: dict[str, Tensor],
    first: Tensor,
    second: Tensor,
    k: int,
    *,
    slip: str = "",
) -> tuple[str, dict[str, float]]:
    """The map whose k highest tokens carry most of the score, and each map's fall."""

    def score(text: Tensor) -> float:
        return _toy(text[None], first, second).item()

    whole, falls, text = score(states), {}, states.clone()
    for name, values in maps.items():
        ranked = values.abs() if slip == "absolute" else values
        top = ranked.topk(k, largest=slip != "lowest").indices
        if slip != "together":
            text = states.clone()
        text[top] = 0
        if slip == "removed":
            keep = torch.ones(len(states), dtype=torch.bool)
            keep[top] = False
            text = states[keep]
        if slip == "kept":
            text = torch.zeros_like(states)
            text[top] = states[top]
        falls[name] = score(text) if slip == "score" else whole - score(text)
    if slip == "size":
        return max(falls, key=lambda name: abs(falls[name])), falls
    if slip == "own":
        return max(maps, key=lambda name: maps[name].topk(k).values.sum()), falls
    return max(falls, key=lambda name: falls[name]), falls


def _falls_suspects(*given: Any) -> dict[str, Any]:
    return {
        message: _falls(*given, slip=slip)
        for slip, message in {
            "absolute": "a negative value says that a token speaks against: the highest are the "
            "largest, not the largest without their sign",
            "lowest": "these are the lowest tokens: take away the highest",
            "together": "the tokens of one map stay away in the next: begin with the whole text "
            "each time",
            "removed": "set the vectors to 0: a shorter text is another text, its mean too",
            "kept": "you kept the highest tokens and took away the rest",
            "score": "this is the score that is left: the fall is what is lost",
            "size": "a score that rises is no fall: the tokens spoke against it",
            "own": "a map's own numbers do not say how true it is: compare the falls",
        }.items()
    }


def _rivals(t: Toolbox, seq: int, width: int) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    """A text, three maps of it, and a score."""
    states, first, second = t.randn(seq, width), t.randn(width, 5), t.randn(5)
    line = states.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(_toy(line[None], first, second).sum(), line)
    product = (slopes * states).sum(-1)
    maps = {"gradient": slopes.norm(dim=-1), "product": product, "noise": 9 * t.randn(seq)}
    return states, maps, first, second


def _same_falls(t: Toolbox, answer: Any, given: tuple) -> None:
    want = _falls(*given)
    t.decision(answer(*given), want, atol=1e-5, rtol=1e-3, suspects=_falls_suspects(*given))


@most_faithful.case("one token is taken away", points=1)
def _(t: Toolbox, most_faithful: Any) -> None:
    _same_falls(t, most_faithful, (*_rivals(t, 5, 4), 1))


@most_faithful.case("several tokens, several texts", points=3)
def _(t: Toolbox, most_faithful: Any) -> None:
    for _ in range(6):
        given = (*_rivals(t, t.integer(6, 12), t.integer(3, 8)), t.integer(2, 4))
        _same_falls(t, most_faithful, given)

"""Where a number comes from: gradients at every layer, and attributions (chapter 09); the way
of a gradient through distance and depth, and what states hold (chapter 11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn.config import BertConfig
from bertlearn.encoder import AddNorm, BertLayer

__all__ = [
    "RearrangedLayer",
    "attention_rollout",
    "completeness_gap",
    "fit_probe",
    "gradient_by_distance",
    "gradient_map",
    "gradient_times_input",
    "hidden_gradients",
    "integrated_gradients",
    "pointwise_mutual_information",
    "probe_accuracy",
    "token_norms",
]


def hidden_gradients(scalar: Tensor, hidden_states: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradient of one number with respect to the states of every layer.

    Args:
        scalar: one number that was computed from the states.
        hidden_states: each ``(batch, seq, hidden)``: the embeddings' output and each layer's, as
            ``output_hidden_states=True`` gives them, not detached.

    Returns:
        as many tensors of the same shapes; zeros where the number does not depend on a layer.
        No parameter's ``.grad`` is touched, and the graph is kept for another number.

    Raises:
        ValueError: if ``scalar`` is not one number, or if nothing that leads to it is recorded.
    """
    if scalar.numel() != 1:
        raise ValueError(
            f"the gradient is that of one number, not of {tuple(scalar.shape)}: choose one entry, "
            f"or sum over the batch"
        )
    if not scalar.requires_grad:
        raise ValueError("no path leads back from this number: was it computed under no_grad?")
    found = torch.autograd.grad(
        scalar.squeeze(), list(hidden_states), retain_graph=True, allow_unused=True
    )
    return tuple(
        torch.zeros_like(states) if gradient is None else gradient
        for states, gradient in zip(hidden_states, found, strict=True)
    )


def token_norms(gradient: Tensor) -> Tensor:
    """How strongly each token's vector acts: ``(..., seq, hidden)`` to ``(..., seq)``, the
    Euclidean norm of its gradient."""
    return gradient.norm(dim=-1)


def gradient_map(scalar: Tensor, hidden_states: Sequence[Tensor]) -> Tensor:
    """Layer by position: the norm of the gradient at every token of every layer.

    Args:
        scalar, hidden_states: as in ``hidden_gradients``.

    Returns:
        ``(layers + 1, batch, seq)``, the embeddings' output first.
    """
    return torch.stack([token_norms(g) for g in hidden_gradients(scalar, hidden_states)])


def gradient_times_input(gradient: Tensor, states: Tensor) -> Tensor:
    """The first-order share of each token: by how much the number would fall, were it linear, if
    the token's vector were 0 (Shrikumar et al. 2016).

    Args:
        gradient, states: ``(..., seq, hidden)``, the gradient with respect to the states.

    Returns:
        ``(..., seq)``, signed.
    """
    return (gradient * states).sum(dim=-1)


def integrated_gradients(
    score: Callable[[Tensor], Tensor], states: Tensor, baseline: Tensor, steps: int = 50
) -> Tensor:
    """The share of each number of the input in the way from a baseline to it (Sundararajan et
    al. 2017, equation 1): ``(x - x') * mean of the gradients on the straight line from x' to x``.

    Args:
        score: from ``(batch, seq, hidden)`` to ``(batch,)``, each row on its own.
        states: ``(seq, hidden)``, the vectors of one text.
        baseline: of the same shape, vectors that stand for "no information".
        steps: points on the line, in the middles of as many equal pieces; at least 1.

    Returns:
        ``(seq, hidden)``. The sum is ``score(states) - score(baseline)`` up to an error that
        falls with ``steps``: see ``completeness_gap``.

    Raises:
        ValueError: if the baseline has another shape, which would be broadcast in silence; for
            ``steps`` below 1.
    """
    if baseline.shape != states.shape:
        raise ValueError(
            f"the baseline {tuple(baseline.shape)} must have the shape {tuple(states.shape)} of "
            f"the states: one vector for each token"
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    states, baseline = states.detach(), baseline.detach()
    places = (torch.arange(steps) + 0.5) / steps  # (steps,) from 0 to 1
    line = baseline + places[:, None, None] * (states - baseline)  # (steps, seq, hidden)
    line.requires_grad_()
    (slopes,) = torch.autograd.grad(score(line).sum(), line)
    return (states - baseline) * slopes.mean(dim=0)


@torch.no_grad()
def completeness_gap(
    attribution: Tensor,
    score: Callable[[Tensor], Tensor],
    states: Tensor,
    baseline: Tensor,
) -> float:
    """By how much the shares miss what they should add up to (Sundararajan et al. 2017,
    proposition 1): ``sum of shares - (score(states) - score(baseline))``.

    Args:
        attribution: of any shape.
        score, states, baseline: as in ``integrated_gradients``.

    Returns:
        the difference, in the unit of the score; 0 if the shares are complete.
    """
    ends = score(torch.stack([states, baseline]))  # (2,)
    return float(attribution.sum() - (ends[0] - ends[1]))


def attention_rollout(attentions: Sequence[Tensor]) -> Tensor:
    """How much of each input token is in each output vector, if attention were all that moves
    information (Abnar & Zuidema 2020).

    Args:
        attentions: each layer's weights ``(batch, heads, query, key)``, the first layer first.

    Returns:
        ``(batch, query, key)``: row i is the mixture of input tokens at position i, with sum 1.
    """
    seq = attentions[0].shape[-1]
    stay = torch.eye(seq).expand(len(attentions[0]), seq, seq)
    rollout = stay
    for weights in attentions:
        step = 0.5 * weights.mean(dim=1) + 0.5 * stay  # half is the residual
        rollout = step @ rollout
    return rollout


# ---- through distance and depth, and what a state holds: chapter 11 ------------------------------


def gradient_by_distance(
    run: Callable[[Tensor], Tensor], inputs: Tensor, rng: torch.Generator
) -> Tensor:
    """How strongly the last place's output depends on the input at each distance.

    Of the output ``y`` at the last place one number is taken, its component ``u . y`` along a
    random direction of length 1, and differentiated: the product of all Jacobians on the way
    (Pascanu et al. 2013, equation 5), seen from one side.

    Args:
        run: from inputs to outputs ``(batch, seq, hidden)``.
        inputs: ``(batch, seq, width)``.
        rng: draws the direction, one for each row.

    Returns:
        ``(batch, seq)``: at index d the norm of the gradient at the input d places before the
        last; index 0 is the last input itself.
    """
    inputs = inputs.detach().requires_grad_()
    last = run(inputs)[:, -1]  # (batch, hidden)
    direction = F.normalize(torch.randn(last.shape, generator=rng), dim=-1)
    (gradient,) = torch.autograd.grad((last * direction).sum(), inputs)
    return token_norms(gradient).flip(-1)


class RearrangedLayer(BertLayer):
    """BERT's block with the same weights, and LayerNorm or the residual elsewhere.

    ``"post"`` is BERT: ``LayerNorm(x + f(x))``. ``"pre"`` is ``x + f(LayerNorm(x))``, as in
    GPT-2 (Xiong et al. 2020, table 1). ``"none"`` is ``x + f(x)``. Without the residual the
    term ``x`` is missing.

    Args:
        config: as ``BertLayer`` takes it.
        norm: ``"post"``, ``"pre"`` or ``"none"``.
        residual: add what came in.

    Raises:
        ValueError: for another name.
    """

    def __init__(self, config: BertConfig, norm: str = "post", residual: bool = True):
        super().__init__(config)
        if norm not in ("post", "pre", "none"):
            raise ValueError(f'norm must be "post", "pre" or "none", not {norm!r}')
        self.norm, self.residual = norm, residual

    def before(self, part: AddNorm, x: Tensor) -> Tensor:
        """What a branch reads: ``(batch, seq, hidden)`` to the same."""
        return part.LayerNorm(x) if self.norm == "pre" else x

    def after(self, part: AddNorm, branch: Tensor, x: Tensor) -> Tensor:
        """What leaves: the branch ``(batch, seq, in_features)`` joined to the residual."""
        total = part.dropout(part.dense(branch))
        if self.residual:
            total = x + total
        return part.LayerNorm(total) if self.norm == "post" else total

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """``(batch, seq, hidden)`` to the same, and the weights or None."""
        first, second = self.attention.output, self.output
        context, weights = self.attention.self(
            self.before(first, hidden_states), mask, output_attentions
        )
        attended = self.after(first, context, hidden_states)
        widened = self.intermediate(self.before(second, attended))
        return self.after(second, widened, attended), weights


def pointwise_mutual_information(counts: Tensor) -> Tensor:
    """How much oftener two things meet than by chance: ``ln p(x, y) / (p(x) p(y))``, in nats
    (Church & Hanks 1990, in bits; Levy & Goldberg 2014 find it in skip-grams).

    Args:
        counts: ``(rows, columns)``, how often each pair was seen.

    Returns:
        float64 ``(rows, columns)``; minus infinity for a pair that was never seen, NaN if a row or
        a column has no counts at all: nothing is known of it.
    """
    counts = counts.double()
    rows, columns = counts.sum(1, keepdim=True), counts.sum(0, keepdim=True)
    return (counts * counts.sum() / (rows * columns)).log()


def fit_probe(states: Tensor, labels: Tensor, classes: int, penalty: float = 1.0) -> Tensor:
    """The linear map from states to classes with the least squared error (ridge regression): a
    probe of what can be read from a layer (Alain & Bengio 2016). That it can be read does not mean
    that the model uses it; compare with a probe of meaningless labels (Hewitt & Liang 2019).

    Args:
        states: ``(tokens, hidden)``.
        labels: int64 ``(tokens,)``, whole numbers below ``classes``.
        classes: how many there are.
        penalty: times the sum of the squared weights, those of the biases left out.

    Returns:
        ``(hidden + 1, classes)``, the last row the biases; of the dtype of the states.

    Raises:
        RuntimeError: for a label that is negative or not below ``classes``; torch's.
    """
    inputs = F.pad(states, (0, 1), value=1.0).double()
    ridge = torch.full((inputs.shape[1],), penalty, dtype=torch.float64)
    ridge[-1] = 0.0
    targets = F.one_hot(labels, classes).double()
    weights = torch.linalg.solve(inputs.T @ inputs + ridge.diag(), inputs.T @ targets)
    return weights.to(states.dtype)


def probe_accuracy(weights: Tensor, states: Tensor, labels: Tensor) -> float:
    """Share of states whose largest score is their label's.

    Args:
        weights: ``(hidden + 1, classes)``, from ``fit_probe``.
        states: ``(tokens, hidden)``, others than it was fitted on.
        labels: int64 ``(tokens,)``.

    Returns:
        from 0 to 1; NaN without states.
    """
    scores = states @ weights[:-1] + weights[-1]  # (tokens, classes)
    return (scores.argmax(dim=-1) == labels).double().mean().item()

"""Where a number comes from: gradients at every layer, and attributions. Built in chapter 09."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "attention_rollout",
    "completeness_gap",
    "gradient_map",
    "gradient_times_input",
    "hidden_gradients",
    "integrated_gradients",
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
        steps: points on the line, in the middles of as many equal pieces.

    Returns:
        ``(seq, hidden)``. The sum is ``score(states) - score(baseline)`` up to an error that
        falls with ``steps``: see ``completeness_gap``.

    Raises:
        ValueError: if the baseline has another shape, which would be broadcast in silence.
    """
    if baseline.shape != states.shape:
        raise ValueError(
            f"the baseline {tuple(baseline.shape)} must have the shape {tuple(states.shape)} of "
            f"the states: one vector for each token"
        )
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

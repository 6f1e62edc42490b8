"""Linear layers by oneDNN where torch would take a slower library for them.

Torch multiplies fp32 matrices on a CPU by MKL, which is made for Intel's processors and takes a
slow way on others: measured on an AMD EPYC with AVX-512, oneDNN, which comes with torch too, is
more than twice as fast. The numbers are the same up to rounding.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn.engine.replacing import Replacing

__all__ = ["OneDnnLinear", "best_linear", "linear"]


class _Linear(torch.autograd.Function):
    """``x @ weight.T + bias`` and its gradients, three products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, weight.shape[0])  # (rows, out)
        flat = x.reshape(-1, x.shape[-1])  # (rows, in)
        wanted = ctx.needs_input_grad
        to_x = _product(gradient, weight.t().contiguous()).view_as(x) if wanted[0] else None
        to_weight = None
        if wanted[1]:
            to_weight = _product(gradient.t().contiguous(), flat.t().contiguous())
        to_bias = gradient.sum(dim=0) if ctx.biased and wanted[2] else None
        return to_x, to_weight, to_bias


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear`` by oneDNN, for fp32 on a CPU; torch's own for all else."""
    plain = x.dtype is weight.dtype is torch.float32 and x.device.type == "cpu" and x.numel() > 0
    if not plain or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class OneDnnLinear(Replacing):
    """While it lasts, ``torch.nn.functional.linear`` is ``linear``, wherever it is called."""

    def __init__(self) -> None:
        super().__init__(F.linear, linear)


def best_linear(cpuinfo: str) -> Any:
    """A context: the mode where it helps, nothing elsewhere. It helps where oneDNN is there and
    the processor is one that MKL is not made for.

    Args:
        cpuinfo: what Linux says of the processor, ``/proc/cpuinfo``.
    """
    helps = "AuthenticAMD" in cpuinfo and torch.backends.mkldnn.is_available()
    return OneDnnLinear() if helps else nullcontext()

"""A learner's module as a part of a model of the judge's.

Model, data, loop and verdict are here; the learner's module is in the worker and does nothing but
compute: values on the way up, gradients on the way down. So it can be put into a model that loads
real weights, and be trained there, and all that comes from the worker is tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bertlearn.checks.core import Failed

__all__ = ["Bridge"]


class Bridge(nn.Module):
    """The module in the worker, with parameters of its own here under the same names.

    What is loaded into these parameters, or learned by them, is sent before the next call.

    Args:
        remote: the stand-in of an ``nn.Module``.

    Raises:
        Failed: if it is no module, or its parameters cannot be had.
    """

    def __init__(self, remote: Any):
        super().__init__()
        self._remote, self._sent = remote, dict[str, Tensor]()
        for name, value in _state(remote).items():
            self._add(name, value)

    def _add(self, name: str, value: Tensor) -> None:
        """Register a tensor under a dotted name: a parameter, or a buffer of whole numbers."""
        *owners, last = name.split(".")
        home: nn.Module = self
        for owner in owners:
            if owner not in home._modules:
                _register(home.add_module, owner, nn.Module())
            home = home._modules[owner]  # type: ignore[assignment]
        if value.is_floating_point():
            _register(home.register_parameter, last, nn.Parameter(value))
        else:
            _register(home.register_buffer, last, value)

    def train(self, mode: bool = True) -> Bridge:
        """Training or evaluation, there too."""
        self._remote.train(mode)
        return super().train(mode)

    def forward(self, *inputs: Any) -> Any:
        """What the module in the worker returns; gradients flow through a tensor, or the first
        entry of a tuple."""
        rest: list[Any] = []
        first = _Across.apply(self, rest, len(inputs), *inputs, *self.parameters())
        return (first, *rest[1:]) if rest else first

    def send(self) -> None:
        """Give the worker the parameters, if they have changed."""
        state = self.state_dict()
        if self._sent and all(torch.equal(x, self._sent[name]) for name, x in state.items()):
            return
        self._remote.load_state_dict(state)
        self._sent = {name: x.clone() for name, x in state.items()}


class _Across(torch.autograd.Function):
    """One call across the line, and its gradients."""

    @staticmethod
    def forward(ctx: Any, bridge: Bridge, rest: list, count: int, *given: Any) -> Tensor:
        inputs = tuple(x.detach() if isinstance(x, Tensor) else x for x in given[:count])
        bridge.send()
        result = bridge._remote(*inputs)
        if isinstance(result, tuple):
            rest += result
            result = result[0] if result else None
        if type(result) is not Tensor or not result.is_floating_point():
            kind = getattr(result, "__bertlearn_kind__", type(result).__name__)
            raise Failed(f"inside the model your module must give a tensor of floats, not {kind}")
        ctx.bridge, ctx.inputs = bridge, inputs
        ctx.names = [name for name, _ in bridge.named_parameters()]
        return result

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (cotangent,) = upstream
        remote = ctx.bridge._remote
        with torch.enable_grad():
            below = list(remote.__bertlearn_vjp__(ctx.inputs, cotangent))
            own = remote.__bertlearn_parameter_vjp__(ctx.inputs, cotangent)
        if not isinstance(own, dict) or not set(ctx.names) <= set(own):
            raise Failed("your module's parameters are not the same any more after it was called")
        floats = [isinstance(x, Tensor) and x.is_floating_point() for x in ctx.inputs]
        if len(below) != sum(floats):
            raise Failed("your module's inputs have no gradients")
        inputs = [below.pop(0) if one else None for one in floats]
        return None, None, None, *inputs, *(own[name] for name in ctx.names)


def _state(remote: Any) -> dict[str, Tensor]:
    """The parameters of the module in the worker, by name."""
    try:
        state = remote.state_dict()
    except AttributeError:
        state = None
    if not isinstance(state, dict) or not all(
        type(name) is str and type(value) is Tensor for name, value in state.items()
    ):
        kind = getattr(remote, "__bertlearn_kind__", type(remote).__name__)
        raise Failed(f"a torch.nn.Module is needed here, not {kind}")
    return state


def _register(register: Any, name: str, value: Any) -> None:
    try:
        register(name, value)
    except (KeyError, TypeError, AttributeError):
        raise Failed(f"a parameter of your module cannot be called {name!r}") from None

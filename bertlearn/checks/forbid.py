"""Operators of torch that an answer may not call, where the task is to write them.

This keeps an honest answer on its way. It is a deterrent, not a wall: code that wants to can get
around anything that runs beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from bertlearn.checks.core import Failed, local_parameter_vjp, local_vjp

__all__ = ["Forbid", "guard", "local_parameter_vjp", "local_vjp"]


class Forbid(TorchDispatchMode):
    """Refuse operators whose name begins so ("aten::_softmax")."""

    def __init__(self, prefixes: Sequence[str]):
        super().__init__()
        self.prefixes = tuple(prefixes)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; torch would import its compiler (seconds) to keep away."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().startswith(self.prefixes):
            raise Failed(
                f"your code calls torch's own {func.name().removeprefix('aten::').lstrip('_')}: "
                f"here the task is to write that yourself"
            )
        return func(*args, **(kwargs or {}))


def guard(implementation: Any, prefixes: Sequence[str]) -> Any:
    """The same function or class, refusing these operators while it (or an instance) is called.

    What lives in another process is returned as it is: there the rule is kept where the code runs.
    """
    if hasattr(implementation, "__bertlearn_vjp__") or not callable(implementation):
        return implementation

    def wrap(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with Forbid(prefixes):
                return function(*args, **kwargs)

        return wrapper

    if isinstance(implementation, type):
        if "__call__" not in dir(implementation):
            return implementation
        call = next(vars(c)["__call__"] for c in implementation.__mro__ if "__call__" in vars(c))
        return type(implementation.__name__, (implementation,), {"__call__": wrap(call)})

    return wrap(implementation)

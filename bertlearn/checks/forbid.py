"""Operators of torch that an answer may not call, where the task is to write them.

This keeps an honest answer on its way. It is a deterrent, not a wall: code that wants to can get
around anything that runs beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bertlearn.checks.core import Failed, local_parameter_vjp, local_vjp

__all__ = ["Forbid", "guard", "local_parameter_vjp", "local_vjp"]


MOST = "bytes>"


class Forbid(TorchDispatchMode):
    """Refuse operators whose name begins so ("aten::_softmax"), and results of more than so many
    bytes ("bytes>1000000")."""

    def __init__(self, prefixes: Sequence[str]):
        super().__init__()
        self.prefixes = tuple(one for one in prefixes if not one.startswith(MOST))
        most = [int(one.removeprefix(MOST)) for one in prefixes if one.startswith(MOST)]
        self.most = min(most, default=None)

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
        result = func(*args, **(kwargs or {}))
        if self.most is not None and isinstance(result, Tensor):
            size = result.untyped_storage().nbytes()  # of a view: what it is a view of
            if size > self.most:
                raise Failed(
                    f"your code makes a tensor {tuple(result.shape)} of {size:,} bytes, in one "
                    f"piece: here no tensor may take more than {self.most:,}"
                )
        return result


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

"""What of torch and its like an answer may not call, where the task is to write that.

This keeps an honest answer on its way. It is a deterrent, not a wall: code that wants to can get
around anything that runs beside it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bertlearn.checks.core import Failed, local_parameter_vjp, local_vjp

__all__ = ["Forbid", "guard", "local_parameter_vjp", "local_vjp"]

YOURSELF = ": here the task is to write that yourself"


# What all ways to a gradient go through: backwards, and forwards.
AUTOGRAD = ("torch.autograd._engine_run_backward", "torch.autograd.forward_ad.make_dual")

MOST = "bytes>"


class Forbid(TorchDispatchMode):
    """Refuse things for the length of a ``with`` block.

    Args:
        names: operators of torch, by the beginning of their names ("aten::_softmax");
            definitions of a library ("torch.optim.Adam", "numpy.interp"); "autograd"; results of
            more than so many bytes ("bytes>1000000").
    """

    def __init__(self, names: Sequence[str]):
        super().__init__()
        self.prefixes = tuple(name for name in names if "::" in name)
        self.definitions = [name for name in names if "." in name]
        self.autograd = "autograd" in names
        sizes = [int(name.removeprefix(MOST)) for name in names if name.startswith(MOST)]
        self.most = min(sizes, default=None)
        self.replaced = contextlib.ExitStack()

    def __enter__(self) -> Forbid:
        for name in self.definitions:
            _replace(self.replaced, name, f"your code calls {name}")
        for name in AUTOGRAD if self.autograd else ():
            _replace(self.replaced, name, "your code calls torch's own autograd")
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.replaced.close()
        super().__exit__(*raised)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; torch would import its compiler (seconds) to keep away."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().startswith(self.prefixes):
            name = func.name().removeprefix("aten::").lstrip("_")
            raise Failed(f"your code calls torch's own {name}{YOURSELF}")
        result = func(*args, **(kwargs or {}))
        if self.most is not None and isinstance(result, Tensor):
            size = result.untyped_storage().nbytes()  # of a view: what it is a view of
            if size > self.most:
                raise Failed(
                    f"your code makes a tensor {tuple(result.shape)} of {size:,} bytes, in one "
                    f"piece: here no tensor may take more than {self.most:,}"
                )
        return result


def _replace(stack: contextlib.ExitStack, name: str, said: str) -> None:
    """Let a definition refuse until the stack is closed. A class is kept and cannot be made, so
    that it makes no difference under which name it was imported."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Failed(f"{said}{YOURSELF}")

    module, _, last = name.rpartition(".")
    owner = importlib.import_module(module)
    if isinstance(getattr(owner, last), type):
        with contextlib.suppress(TypeError):  # of a class that is not written in Python
            _set(stack, getattr(owner, last), "__init__", refuse)
            return
    _set(stack, owner, last, refuse)


def _set(stack: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    before = getattr(owner, name)
    setattr(owner, name, value)
    stack.callback(setattr, owner, name, before)


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

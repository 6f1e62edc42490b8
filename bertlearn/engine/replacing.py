"""One of torch's functions replaced by another, for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

__all__ = ["Replacing"]


class Replacing(TorchFunctionMode):
    """While it lasts, a function of ``torch.nn.functional`` is another, wherever it is called,
    from modules, too.

    Args:
        function: the one that is replaced.
        other: takes its place, with the same arguments.
    """

    def __init__(self, function: Callable, other: Callable):
        super().__init__()
        self.function, self.other = function, other

    def __torch_function__(
        self,
        function: Callable,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        called = self.other if function is self.function else function
        return called(*args, **(kwargs or {}))

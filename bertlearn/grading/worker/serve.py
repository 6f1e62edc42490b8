"""Run the learner's cells, then answer questions about what they defined, until told to stop."""

from __future__ import annotations

import contextlib
import itertools
import linecache
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

from . import wire
from .notebook import new_main

__all__ = ["Server"]

MAX_ITEMS = 10_000
MAX_MESSAGE = 1000


class Server:
    """One notebook's names and the objects that the judge holds by number.

    Args:
        read, write: exactly n bytes in; all bytes out.
        forbids: prefixes of operators that answers may not call.
    """

    def __init__(
        self, read: Callable[[int], bytes], write: Callable[[bytes], Any], forbids: list[str]
    ):
        from bertlearn.checks import forbid  # the scratch copy's

        self.checks = forbid
        self.read, self.write, self.forbids = read, write, forbids
        self.handles: list[Any] = []
        self.main = new_main()
        sys.modules["__main__"] = self.main

    def serve(self) -> None:
        """Answer requests one after the other."""
        while True:
            request, buffers = wire.receive(self.read)
            answer: list[bytes] = []
            try:
                result = getattr(self, "do_" + request["do"])(request, buffers)
                body = {"value": wire.encode(result, answer, self._hold)}
                wire.send(self.write, {"id": request["id"], **body}, answer)
            except BaseException as error:  # also SystemExit: the answer to it is a sentence
                wire.send(
                    self.write,
                    {"id": request["id"], "error": _describe(error, request.get("name"))},
                )

    # ---- what can be asked --------------------------------------------------------------
    def do_run(self, request: dict, buffers: list) -> None:
        """Run a cell."""
        name, source = request["name"], request["source"]
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        exec(compile(source, name, "exec", dont_inherit=True), self.main.__dict__)

    def do_look(self, request: dict, buffers: list) -> list[str]:
        """Which of these names exist."""
        return [name for name in request["names"] if name in self.main.__dict__]

    def do_get(self, request: dict, buffers: list) -> Any:
        """The value of a name."""
        return self.main.__dict__[request["name"]]

    def do_attribute(self, request: dict, buffers: list) -> Any:
        """An attribute of an object."""
        return getattr(self.handles[request["handle"]], request["name"])

    def do_length(self, request: dict, buffers: list) -> int:
        """``len`` of an object."""
        return len(self.handles[request["handle"]])

    def do_item(self, request: dict, buffers: list) -> Any:
        """``object[index]``."""
        index = wire.decode(request["index"], buffers, self._held)
        return self.handles[request["handle"]][index]

    def do_items(self, request: dict, buffers: list) -> list:
        """What iterating over an object gives."""
        items = list(itertools.islice(self.handles[request["handle"]], MAX_ITEMS + 1))
        if len(items) > MAX_ITEMS:
            raise ValueError(f"it yields more than {MAX_ITEMS} items")
        return items

    def do_call(self, request: dict, buffers: list) -> tuple[Any, list[int]]:
        """Call an object; also says which tensors among the arguments it changed in place."""
        args, kwargs = wire.decode(request["args"], buffers, self._held)
        given = [*args, *kwargs.values()]
        before = [x._version if isinstance(x, torch.Tensor) else 0 for x in given]
        with self._rules(request):
            result = self.handles[request["handle"]](*args, **kwargs)
        changed = [
            i
            for i, x in enumerate(given)
            if isinstance(x, torch.Tensor) and x._version != before[i]
        ]
        return result, changed

    def do_vjp(self, request: dict, buffers: list) -> list[torch.Tensor]:
        """Gradients with respect to the inputs, as `Toolbox.vjp`."""
        inputs, cotangent = wire.decode(request["args"], buffers, self._held)
        with self._rules(request):
            return self.checks.local_vjp(self.handles[request["handle"]], inputs, cotangent)

    def do_parameter_vjp(self, request: dict, buffers: list) -> dict[str, torch.Tensor]:
        """Gradients with respect to the parameters, as `Toolbox.parameter_vjp`."""
        inputs, cotangent = wire.decode(request["args"], buffers, self._held)
        with self._rules(request):
            module = self.handles[request["handle"]]
            return self.checks.local_parameter_vjp(module, inputs, cotangent)

    # ---- helpers ------------------------------------------------------------------------
    @contextlib.contextmanager
    def _rules(self, request: dict) -> Any:
        """Torch's generator and gradient mode as the judge has them, forbidden operators
        refused."""
        torch.manual_seed(request["seed"])
        forbid = self.checks.Forbid(self.forbids) if self.forbids else contextlib.nullcontext()
        with torch.set_grad_enabled(request["grad"]), forbid:
            yield

    def _hold(self, value: Any) -> list:
        self.handles.append(value)
        kind = value.__name__ if isinstance(value, type) else type(value).__name__
        return [len(self.handles) - 1, kind[:80]]

    def _held(self, number: int, kind: str) -> Any:
        return self.handles[number]


def _describe(error: BaseException, cell: Any) -> dict[str, Any]:
    """An exception as plain data: its builtin ancestors, what it says, where it happened.

    Args:
        cell: the cell that was run, whose line counts then; else the deepest line of any cell.
    """
    try:
        message = str(error)[:MAX_MESSAGE]
    except BaseException:
        message = "(an exception that cannot be printed)"
    found = {
        "name": type(error).__name__[:80],
        "ancestors": [t.__name__ for t in type(error).__mro__ if t.__module__ == "builtins"],
        "message": message,
        "cell": "",
        "line": 0,
        "code": "",
    }
    if isinstance(error, SyntaxError) and str(error.filename).startswith("cell"):
        found.update(cell=error.filename, line=error.lineno or 0, message=str(error.msg))
        found["code"] = (error.text or "").strip()[:200]
        return found
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("cell ")
    ]
    own = [frame for frame in frames if frame.filename == cell]
    for frame in own[:1] or frames[-1:]:
        found.update(cell=frame.filename, line=frame.lineno or 0, code=(frame.line or "")[:200])
    return found

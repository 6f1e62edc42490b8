"""A learner's notebook seen from the judge: names, and stand-ins for what they hold.

A stand-in is called, indexed, asked for attributes and iterated like the object itself, which
stays in the worker; data comes back as plain values of this process. It has no truth value and is
equal to nothing, so that no comparison can be answered by an object of the learner's.

A case of a check works here as it does in a notebook if it keeps to this: it hands over data
(tensors, numbers, text, lists, dictionaries, `BertConfig`, `torch.Generator`) or what it got from
the answer; it takes gradients with ``t.vjp`` and ``t.parameter_vjp``, since no graph crosses the
line; it sets weights with ``load_state_dict``, since a tensor that it reads is a copy; it puts an
answer's module into a model of its own through ``t.module``.
"""

from __future__ import annotations

import builtins
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bertlearn.checks.core import Failed
from bertlearn.grading.client import Died, Limits, Worker
from bertlearn.grading.errors import GraderError
from bertlearn.grading.notebook import Cell
from bertlearn.grading.worker import wire

__all__ = ["Past", "Session", "StandIn"]

# Exceptions that mean something to Python itself: from an answer they could end a loop of a case
# as if all were well.
NOT_AS_THEY_ARE = (StopIteration, StopAsyncIteration)


@dataclass
class Past:
    """What a notebook's code has done so far, in all of its workers.

    Attributes:
        deadly: cells that have ended a worker, and how.
        seconds: how long its code has run.
    """

    deadly: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0


class Session:
    """The cells of a notebook in a worker; in a fresh one after each death, so often.

    Args:
        cells: the learner's, those that define things.
        hides, forbids: as in `Check`.
        limits: what a worker may use.
        past: what the notebook has done before; shared by its sessions.

    Attributes:
        errors: what went wrong in which cell, by its number, the last time they ran.
        seconds: how long a call may take.
        fault: what went wrong on our side, if anything did.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        hides: tuple[str, ...],
        forbids: tuple[str, ...],
        limits: Limits,
        past: Past,
    ):
        self.cells, self.hides, self.forbids = cells, hides, forbids
        self.limits, self.past = limits, past
        self.errors: dict[int, str] = {}
        self.seconds = 10.0
        self.question_end = self._question_seconds = 0.0
        self.deaths = 0
        self.most_deaths = limits.deaths
        self.fault: GraderError | None = None
        self.generation = 0
        self._worker: Worker | None = None

    # ---- life ---------------------------------------------------------------------------
    def begin(self, seconds: float) -> None:
        """A new question, whose calls may take so long."""
        self.seconds = self.limits.call_seconds or seconds
        self._question_seconds = self.limits.question_seconds or max(60.0, 3 * self.seconds)
        self.question_end = self.past.seconds + self._question_seconds
        self.most_deaths = min(self.limits.deaths, self.deaths + self.limits.deaths_a_question)

    def start(self) -> None:
        """Have a worker in which the cells have run.

        Raises:
            Failed: if no more workers may be used up.
        """
        while self._worker is None or self._worker.reason:
            if self.deaths >= self.most_deaths:
                raise Failed("not tried again: your code has ended its process too often")
            self.generation += 1
            self._worker = Worker(self.hides, self.forbids, self.limits, _libraries(self.cells))
            before = self.past.seconds
            self._run_cells()
            self.question_end += self.past.seconds - before  # cells have limits of their own

    def _run_cells(self) -> None:
        """Run cell after cell; one that ends the worker is left out of the next try."""
        self.errors = dict(self.past.deadly)
        for cell in self.cells:
            if cell.number in self.past.deadly:
                continue
            request = {"do": "run", "name": f"cell {cell.number}", "source": cell.source}
            try:
                self._ask(request, [], self.limits.cell_seconds)
            except Died as death:
                self.past.deadly[cell.number] = str(death)
                self.deaths += 1
                return
            except GraderError:
                raise
            except Exception as error:
                self.errors[cell.number] = _cell_sentence(error)

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()

    @property
    def sandbox(self) -> list[str]:
        """What holds in the worker."""
        return self._worker.sandbox if self._worker is not None else []

    # ---- questions ----------------------------------------------------------------------
    def missing(self, names: Sequence[str]) -> list[str]:
        """Names that the notebook does not define."""
        self.start()
        found = self.ask({"do": "look", "names": list(names)})
        return [name for name in names if not isinstance(found, list) or name not in found]

    def get(self, name: str) -> Any:
        """What a name holds: data, or a stand-in that outlives its worker."""
        self.start()
        value = self.ask({"do": "get", "name": name})
        if isinstance(value, StandIn):
            object.__setattr__(value, "_name", name)
        return value

    def ask(self, request: dict[str, Any], *values: tuple[str, Any], seconds: float = 0) -> Any:
        """Ask the worker.

        Args:
            values: fields of the request that are values, to be encoded.
            seconds: how long to wait, if not as long as a call may take.

        Raises:
            Failed: if the worker dies over it.
            Exception: what the learner's code raised, as a builtin exception with the attribute
                ``where`` ("cell 4, line 3: return x").
        """
        buffers: list[bytes] = []
        try:
            fields = {name: wire.encode(value, buffers, _number) for name, value in values}
        except wire.WireError as error:
            self.fault = GraderError(f"a check hands over what cannot be sent: {error}")
            raise self.fault from error
        seconds, late = seconds or self.seconds, ""
        left = self.question_end - self.past.seconds
        if left < seconds:
            seconds, late = left, f"your code took {self._question_seconds:g} s for this question"
        try:
            return self._ask({**request, **fields}, buffers, seconds, late)
        except Died as death:
            self.deaths += 1
            raise Failed(str(death)) from None

    def _ask(
        self, request: dict[str, Any], buffers: list[bytes], seconds: float, late: str = ""
    ) -> Any:
        assert self._worker is not None
        if self.past.seconds > self.limits.notebook_seconds:
            raise Failed(f"your notebook has run for {self.limits.notebook_seconds:g} s: no more")
        begin = time.monotonic()
        try:
            body, back = self._worker.ask(request, buffers, seconds, late)
        except Died:
            raise
        except Exception as error:  # ours: never to be taken for the learner's
            self.fault = GraderError(f"{type(error).__name__}: {error}")
            raise self.fault from error
        finally:
            self.past.seconds += time.monotonic() - begin
        if "error" in body:
            raise _exception(body["error"])
        try:
            return wire.decode(body.get("value"), back, lambda n, kind: StandIn(self, n, kind))
        except wire.WireError as error:
            raise Failed(f"your code returned {error}") from None


class StandIn:
    """An object in the worker. See the module's docstring for what it can do."""

    def __init__(self, session: Session, number: int, kind: str):
        for name, value in (
            ("_session", session),
            ("_number", number),
            ("_generation", session.generation),
            ("_name", None),
            ("__bertlearn_kind__", kind),
        ):
            object.__setattr__(self, name, value)

    def _ask(self, do: str, *values: tuple[str, Any], **fields: Any) -> Any:
        """Ask about this object, in a fresh worker if it was found by name and its own died."""
        session = self._session
        session.start()
        if self._generation != session.generation:
            if self._name is None:
                raise Failed("not tried: the process that held this object has ended")
            again = session.get(self._name)
            if not isinstance(again, StandIn):
                raise Failed(f"{self._name} is no longer there when the cells run once more")
            object.__setattr__(self, "_number", again._number)
            object.__setattr__(self, "_generation", again._generation)
        return session.ask({"do": do, "handle": self._number, **fields}, *values)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        answer = self._ask("call", ("args", (args, kwargs)), **_mood())
        result, changed = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, [])
        if changed:
            raise Failed("your code changes its input in place: work on a copy (x.clone())")
        return result

    def __bertlearn_vjp__(self, inputs: Sequence[Any], cotangent: Tensor | None) -> Any:
        """`Toolbox.vjp`, in the worker."""
        return self._ask("vjp", ("args", (tuple(inputs), cotangent)), **_mood())

    def __bertlearn_parameter_vjp__(self, inputs: Sequence[Any], cotangent: Tensor | None) -> Any:
        """`Toolbox.parameter_vjp`, in the worker."""
        return self._ask("parameter_vjp", ("args", (tuple(inputs), cotangent)), **_mood())

    def __bertlearn_module__(self) -> Any:
        """`Toolbox.module`: a module of this process that computes in the worker."""
        from bertlearn.grading.bridge import Bridge

        return Bridge(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask("attribute", name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._fault(f"sets the attribute {name} of an answer's object")

    def __len__(self) -> int:
        length = self._ask("length")
        if type(length) is not int:
            raise Failed("the length of what your code returned is not a number")
        return length

    def __getitem__(self, index: Any) -> Any:
        return self._ask("item", ("index", index))

    def __iter__(self) -> Iterator:
        items = self._ask("items")
        return iter(items if isinstance(items, list) else [])

    def _refuse(self, *others: Any) -> Any:
        raise Failed(f"a plain value was expected, not an object of type {self.__bertlearn_kind__}")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _refuse
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{self.__bertlearn_kind__}>"

    def _fault(self, what: str) -> None:
        self._session.fault = GraderError(f"a check {what}, which has no effect from here")
        raise self._session.fault


def _libraries(cells: Sequence[Cell]) -> list[str]:
    """Slow libraries that the cells seem to use."""
    text = "\n".join(cell.text for cell in cells)
    return [
        library
        for library, sign in (
            ("matplotlib.figure", r"\b(plots|matplotlib)\b"),
            ("matplotlib.backends.backend_agg", r"\b(plots|matplotlib)\b"),
            ("matplotlib.pyplot", r"\bpyplot\b"),
            ("tokenizers", r"\b[Tt]okeniz"),
            ("safetensors.torch", r"\bfrom_pretrained\b"),
        )
        if re.search(sign, text)
    ]


def _mood() -> dict[str, Any]:
    """A seed for the worker's torch and whether gradients are on. The seed is drawn from this
    process's generator, so that ``torch.manual_seed`` in a case means what it says."""
    return {"seed": int(torch.randint(1 << 31, ())), "grad": torch.is_grad_enabled()}


def _number(value: Any) -> list:
    if isinstance(value, StandIn):
        return [value._number, value.__bertlearn_kind__]
    raise wire.WireError(f"a {type(value).__name__}")


# ---- errors -----------------------------------------------------------------------------
def _exception(told: Any) -> Exception:
    """The learner's exception as one of ours: its nearest builtin ancestor."""
    told = told if type(told) is dict else {}
    name, message = _text(told, "name"), _text(told, "message")
    where = ""
    if _text(told, "cell"):
        where = f"{_text(told, 'cell')}, line {_text(told, 'line')}: {_text(told, 'code')}"
    kind: type = RuntimeError
    ancestors = told.get("ancestors")
    for ancestor in ancestors if type(ancestors) is list else ():
        found = getattr(builtins, ancestor, None) if type(ancestor) is str else None
        if isinstance(found, type) and issubclass(found, Exception):
            kind = RuntimeError if issubclass(found, NOT_AS_THEY_ARE) else found
            break
    if name == "Failed":
        return Failed(f"{message} ({where})" if where else message)
    if name == "WireError":
        return Failed(f"your code returned {message}")
    if name == "SystemExit":
        return Failed(f"your code calls exit() or sys.exit(): leave that out ({where})")
    if name == "MemoryError" or "can't allocate memory" in message:
        kind, name, message = MemoryError, "MemoryError", "it asks for more memory than it may use"
    try:
        error: Exception = kind(message)
    except TypeError:
        error = RuntimeError(message)
    error.where, error.called = where, name or "an exception"  # type: ignore[attr-defined]
    return error


def _text(told: dict, name: str) -> str:
    value = told.get(name)
    return str(value)[:1000] if type(value) in (str, int) else ""


def _cell_sentence(error: Exception) -> str:
    """As in "SyntaxError, line 3: invalid syntax"."""
    if isinstance(error, Failed):
        return str(error)
    where = getattr(error, "where", "")
    line = f", line {where.split(', line ')[1].split(':')[0]}" if ", line " in where else ""
    name = getattr(error, "called", type(error).__name__)
    said = str(error) or ("not written yet" if name == "NotImplementedError" else "")
    return f"{name}{line}: {said}" if said else f"{name}{line}"

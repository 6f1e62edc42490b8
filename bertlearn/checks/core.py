"""How a piece of code is held to what it must do, and how a failure is told.

A `Check` names a piece ("04.causal_mask"), what it needs from whoever is checked, and a list of
cases. A case is a plain function ``(t, *implementations)`` that raises `Failed` with a sentence
for a learner. ``t`` is a `Toolbox`: seeded inputs, comparisons that look at the shape first, then
at the value, then at the likely cause, and gradients. The implementations handed in are the
package's, a chapter's, a learner's, or a stand-in for a learner's that lives in another process:
a case cannot tell, as long as it touches tensors and numbers only through ``t`` and calls.
"""

from __future__ import annotations

import inspect
import math
import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "KINDS",
    "REGISTRY",
    "Case",
    "CaseResult",
    "Check",
    "CheckFailed",
    "Failed",
    "Result",
    "Toolbox",
    "refusal",
    "run",
]

REGISTRY: dict[str, Check] = {}
UNWRITTEN = "not written yet"
KINDS = ("implement", "predict", "bug", "measure", "choose")


class Failed(AssertionError):
    """A case does not hold. The message is written for the person who wrote the code.

    Attributes:
        expected, got: what to show side by side, where that helps; short text.
        picture: the same two as tensors of one shape, where a picture of them helps.
    """

    def __init__(
        self,
        message: str,
        *,
        expected: str = "",
        got: str = "",
        picture: tuple[Tensor, Tensor] | None = None,
    ):
        super().__init__(message)
        self.expected, self.got, self.picture = expected, got, picture


class CheckFailed(AssertionError):
    """A definition in a chapter does not do what it must."""


@dataclass(frozen=True)
class Case:
    """One thing that must hold."""

    title: str
    points: float
    function: Callable[..., None]


@dataclass
class Check:
    """What one piece must do.

    Attributes:
        id: chapter and name, "04.causal_mask".
        title: a few words for tables.
        needs: names that are looked up in the learner's notebook, in the order of the cases'
            arguments.
        kind: what a question asks for, one of `KINDS`: to write a thing; a shape, a count or an
            expectation as a function of the sizes; a bug found; a measurement; a choice with the
            figures that it rests on. "" for a definition of the package.
        difficulty: 1 to 5; 0 for a definition of the package, which no one is graded on.
        minutes: how long a learner may expect to take.
        hides: definitions of the package ("attention.split_heads") that do not exist while a
            learner's answer is judged.
        forbids: what an answer may not call: torch operators by prefix ("aten::_softmax"),
            definitions of a library ("torch.optim.Adam"), "autograd"; and "bytes>N" where no
            tensor that it makes may take more than N bytes.
        seconds: how long one call of the answer may take.
        reminder: said after any failure of this check.
    """

    id: str
    title: str
    needs: tuple[str, ...]
    kind: str = ""
    difficulty: int = 0
    minutes: int = 0
    hides: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    seconds: float = 10.0
    reminder: str = ""
    cases: list[Case] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.id in REGISTRY:
            raise ValueError(f"two checks are called {self.id}")
        REGISTRY[self.id] = self

    def case(self, title: str, points: float = 0) -> Callable[[Callable], Callable]:
        """Add the decorated function ``(t, *implementations)`` as a case."""

        def add(function: Callable) -> Callable:
            self.cases.append(Case(title, points, function))
            return function

        return add

    @property
    def points(self) -> float:
        """Points for all cases together."""
        return sum(case.points for case in self.cases)


class Toolbox:
    """What a case works with: inputs from a seed, comparisons, gradients."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self.random = random.Random(seed)

    # ---- inputs -------------------------------------------------------------------------
    def randn(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).to(dtype)

    def ids(self, high: int, *shape: int, low: int = 0) -> Tensor:
        """Whole numbers ``low .. high - 1`` (int64)."""
        return torch.randint(low, high, shape, generator=self.generator)

    def integer(self, low: int, high: int) -> int:
        """One whole number, ``low`` and ``high`` included."""
        return self.random.randint(low, high)

    def choice(self, options: Sequence) -> Any:
        """One of several."""
        return self.random.choice(list(options))

    # ---- comparisons --------------------------------------------------------------------
    def that(self, condition: Any, message: str, *, expected: str = "", got: str = "") -> None:
        """Fail with the message unless the condition is true."""
        if not bool(condition):
            raise Failed(message, expected=expected, got=got)

    def tensor(
        self,
        got: Any,
        *,
        shape: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        name: str = "the result",
    ) -> Tensor:
        """A plain tensor of this shape and dtype, or a sentence that says what came instead."""
        if type(got) not in (Tensor, torch.nn.Parameter):
            hint = ": did you forget to return it?" if got is None else ""
            raise Failed(f"{name} must be a torch.Tensor, not {_kind(got)}{hint}")
        if shape is not None and tuple(got.shape) != tuple(shape):
            raise Failed(
                f"{name} has shape {tuple(got.shape)}, it must be {tuple(shape)}",
                expected=str(tuple(shape)),
                got=str(tuple(got.shape)),
            )
        if dtype is not None and got.dtype != dtype:
            raise Failed(f"{name} is {got.dtype}, it must be {dtype}")
        return got

    def close(
        self,
        got: Any,
        want: Tensor | float,
        name: str = "the result",
        *,
        atol: float = 1e-5,
        rtol: float = 1e-4,
        suspects: Mapping[str, Any] | None = None,
    ) -> None:
        """Numbers agree, shape first.

        Args:
            got: what the implementation returned, a tensor or a number.
            want: what is right.
            name: what it is called in messages.
            atol, rtol: tolerance, ``|got - want| <= atol + rtol * |want|``.
            suspects: for each well-known mistake, the sentence to say and the value that it
                leads to (or a function without arguments that computes it).
        """
        if isinstance(want, (int, float)):
            if isinstance(got, Tensor) and type(got) is Tensor and got.numel() == 1:
                got = got.item()
            if isinstance(got, bool) or not isinstance(got, (int, float)):
                raise Failed(f"{name} must be a number, not {_kind(got)}")
            got, want = torch.tensor(float(got)).double(), torch.tensor(float(want)).double()
        got = self.tensor(got, name=name)
        if got.is_complex() and not want.is_complex():
            raise Failed(f"{name} is {got.dtype}, it must be real")
        suspects = suspects or {}
        if got.shape != want.shape:
            for message, wrong in suspects.items():
                wrong = _as_tensor(wrong)
                if wrong.shape == got.shape and _near(got, wrong, atol, rtol):
                    raise Failed(message, expected=_brief(want), got=_brief(got))
            self.tensor(got, shape=want.shape, name=name)
        if _near(got, want, atol, rtol):
            return
        sides = _sides(want, got, atol, rtol)
        sides["picture"] = (want.detach(), got.detach())
        for message, wrong in suspects.items():
            wrong = _as_tensor(wrong)
            if wrong.shape == got.shape and _near(got, wrong, atol, rtol):
                raise Failed(message, **sides)
        if not torch.isfinite(got.double()).all() and torch.isfinite(want.double()).all():
            raise Failed(f"{name} holds nan or inf", **sides)
        gap = (got.double() - want.double()).abs().max().item() if got.numel() else math.nan
        raise Failed(f"{name} differs from what it must be, by up to {gap:.3g}", **sides)

    def equal(
        self,
        got: Any,
        want: Any,
        name: str = "the result",
        *,
        suspects: Mapping[str, Any] | None = None,
    ) -> None:
        """Exactly the same (ids, masks, counts, text, lists of them)."""
        if isinstance(want, Tensor):
            got = self.tensor(got, name=name)
            if got.dtype != want.dtype:
                raise Failed(f"{name} is {got.dtype}, it must be {want.dtype}")
            self.close(got, want, name, atol=0, rtol=0, suspects=suspects)
            return
        if isinstance(got, Tensor) and got.numel() == 1 and isinstance(want, (int, float)):
            got = got.item()
        if type(got) is type(want) and got == want:
            return
        if isinstance(want, (int, float)) and not isinstance(want, bool) and _number(got):
            if got == want:
                return
        elif type(got) is not type(want):
            raise Failed(f"{name} must be a {_kind(want)}, not {_kind(got)}")
        for message, wrong in (suspects or {}).items():
            wrong = wrong() if callable(wrong) else wrong
            if type(wrong) is type(got) and wrong == got:
                raise Failed(message, expected=_brief(want), got=_brief(got))
        raise Failed(
            f"{name} is {_brief(got)}, it must be {_brief(want)}",
            expected=_brief(want),
            got=_brief(got),
        )

    def decision(
        self,
        got: Any,
        want: tuple[str, Mapping[str, float]],
        *,
        atol: float = 1e-6,
        rtol: float = 1e-4,
        suspects: Mapping[str, tuple[str, Mapping[str, float]]] | None = None,
    ) -> None:
        """A choice and the figures that it rests on: the figures first, then what follows.

        Args:
            got: what the implementation returned, ``(choice, {name: number})``.
            want: what is right.
            atol, rtol: tolerance of the figures.
            suspects: for each well-known mistake, the sentence to say and what it leads to.
        """
        choice, figures = _decision(got, want[1])

        def near(other: tuple[str, Mapping[str, float]]) -> bool:
            return choice == other[0] and all(close(name, other[1]) for name in figures)

        def close(name: str, others: Mapping[str, float]) -> bool:
            return math.isclose(figures[name], others[name], rel_tol=rtol, abs_tol=atol)

        if near(want):
            return

        def failed(message: str) -> Failed:
            return Failed(message, expected=_decided(want), got=_decided((choice, figures)))

        for message, wrong in (suspects or {}).items():
            if near(wrong):
                raise failed(message)
        for name in figures:
            if not close(name, want[1]):
                raise failed(
                    f"the figure for {name!r} is {figures[name]:.4g}, "
                    f"it must be {want[1][name]:.4g}"
                )
        raise failed(f"your figures are right, but {choice!r} does not follow from them")

    # ---- gradients ----------------------------------------------------------------------
    def vjp(self, function: Any, *inputs: Any, cotangent: Tensor | None = None) -> list[Tensor]:
        """Gradients of ``(function(*inputs) * cotangent).sum()`` with respect to the inputs that
        are floating point tensors, in their order; zeros where the output does not depend on one.

        Args:
            function: must return one tensor (or a tuple, whose first entry counts).
            cotangent: same shape as the output; ones if None.
        """
        remote = getattr(function, "__bertlearn_vjp__", None)
        if remote is not None:
            return remote(inputs, cotangent)
        return local_vjp(function, inputs, cotangent)

    def parameter_vjp(
        self, module: Any, *inputs: Any, cotangent: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Gradients of ``(module(*inputs) * cotangent).sum()`` with respect to the module's
        parameters, by name; zeros for a parameter that the output does not depend on.

        Args:
            module: an ``nn.Module`` that returns one tensor (or a tuple, whose first entry counts).
            cotangent: same shape as the output; ones if None.
        """
        remote = getattr(module, "__bertlearn_parameter_vjp__", None)
        if remote is not None:
            return remote(inputs, cotangent)
        return local_parameter_vjp(module, inputs, cotangent)

    def module(self, piece: Any) -> Any:
        """An answer's ``nn.Module`` as a part of a model of the case's own: called, loaded and
        trained with it. One that lives in another process is bridged (`bertlearn.grading.bridge`).

        Raises:
            Failed: if it is no module.
        """
        bridge = getattr(piece, "__bertlearn_module__", None)
        if bridge is not None:
            return bridge()
        if not isinstance(piece, torch.nn.Module):
            raise Failed(f"a torch.nn.Module is needed here, not {_kind(piece)}")
        return piece


def local_vjp(function: Any, inputs: Sequence[Any], cotangent: Tensor | None) -> list[Tensor]:
    """`Toolbox.vjp` in this process."""
    leaves = [
        x.detach().clone().requires_grad_()
        if isinstance(x, Tensor) and x.is_floating_point()
        else x
        for x in inputs
    ]
    wanted = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
    return _gradients(function(*leaves), wanted, cotangent)


def local_parameter_vjp(
    module: Any, inputs: Sequence[Any], cotangent: Tensor | None
) -> dict[str, Tensor]:
    """`Toolbox.parameter_vjp` in this process."""
    parameters = dict(module.named_parameters())
    grads = _gradients(module(*inputs), list(parameters.values()), cotangent)
    return dict(zip(parameters, grads, strict=True))


def _gradients(out: Any, wanted: list[Tensor], cotangent: Tensor | None) -> list[Tensor]:
    out = out[0] if isinstance(out, tuple) else out
    if not isinstance(out, Tensor) or not out.requires_grad:
        raise Failed("no gradient flows from the result back to the inputs: was it detached?")
    total = out.sum() if cotangent is None else (out * cotangent).sum()
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, grads, strict=True)]


@dataclass
class CaseResult:
    """How one case went.

    Attributes:
        picture: what was expected and what came, as tensors; no field: it is not written down.
    """

    title: str
    points: float
    max: float
    ok: bool
    message: str = ""
    expected: str = ""
    got: str = ""

    def __post_init__(self) -> None:
        self.picture: tuple[Tensor, Tensor] | None = None


@dataclass
class Result:
    """How a check went: truthy if every case holds; prints as a table, in a notebook with a
    picture of the first case that fails."""

    check: Check
    seed: int
    cases: list[CaseResult]

    def __post_init__(self) -> None:
        self.shown = False  # in a notebook: the last expression of a cell is not shown twice

    @property
    def ok(self) -> bool:
        """Every case holds."""
        return all(case.ok for case in self.cases)

    @property
    def points(self) -> float:
        """Points earned."""
        return float(sum(case.points for case in self.cases))

    @property
    def max(self) -> float:
        """Points to be had."""
        return float(sum(case.max for case in self.cases))

    @property
    def tried(self) -> bool:
        """Whether there was more than a stub that says that it is not written."""
        return any(case.ok or case.message != UNWRITTEN for case in self.cases)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return self.text()

    def _ipython_display_(self) -> None:
        if not self.shown:
            from bertlearn.checks.show import show

            show(self)

    def text(self) -> str:
        """The table as plain text."""
        score = (
            f"{self.points:g} of {self.max:g} points"
            if self.max
            else (f"{sum(c.ok for c in self.cases)} of {len(self.cases)} hold")
        )
        lines = [f"{self.check.id}: {score}"]
        for case in self.cases:
            lines.append(f"  {'ok   ' if case.ok else 'FAILS'} {case.title}")
            if case.message:
                lines.append(f"        {case.message}")
            if case.expected or case.got:
                lines.append(f"        expected  {case.expected}")
                lines.append(f"        got       {case.got}")
        if not self.ok and self.check.reminder:
            lines.append(f"  {self.check.reminder}")
        return "\n".join(lines)


def run(
    check: Check, implementations: Sequence[Any], seed: int = 0, *, stop: bool = False
) -> Result:
    """Run every case of a check on the implementations. Never raises for what they do wrong.

    Each case has a toolbox of its own, seeded from ``seed`` and the case's place.

    Args:
        stop: end with the first case that does not hold and costs points, where it only matters
            whether there are full marks.
    """
    if check.forbids:
        from bertlearn.checks.forbid import guard

        implementations = [guard(one, check.forbids) for one in implementations]
    results = []
    for index, case in enumerate(check.cases):
        row = CaseResult(case.title, 0.0, case.points, False)
        try:
            case.function(Toolbox(seed * 1009 + index), *implementations)
        except Failed as failure:
            row.message, row.expected, row.got = str(failure), failure.expected, failure.got
            row.picture = failure.picture
        except NotImplementedError:
            row.message = UNWRITTEN
        except Exception as error:
            row.message = _told(error)
        else:
            row.ok, row.points = True, case.points
        results.append(row)
        if stop and row.points < row.max:
            break
    return Result(check, seed, results)


def _told(error: Exception) -> str:
    """An exception as one sentence that names the line of the learner's own code."""
    name = getattr(error, "called", type(error).__name__)  # of a stand-in's error: as it was there
    said = f"{name}: {error}".strip().split("\n")[0][:400]
    if where := getattr(error, "where", ""):
        return f"your code raised {said} ({where})"
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "ipykernel" in frame.filename or frame.filename.startswith(("<", "cell "))
    ]
    if own:
        return f"your code raised {said} (line {own[-1].lineno}: {own[-1].line})"
    return f"your code raised {said}"


def _number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _kind(x: Any) -> str:
    """The name of a value's type; a stand-in answers for what it stands for."""
    if x is None:
        return "None"
    return str(getattr(x, "__bertlearn_kind__", type(x).__name__))[:80]


def _as_tensor(x: Any) -> Tensor:
    x = x() if callable(x) and not isinstance(x, Tensor) else x
    return x if isinstance(x, Tensor) else torch.tensor(float(x)).double()


def _near(got: Tensor, want: Tensor, atol: float, rtol: float) -> bool:
    if got.is_floating_point() or want.is_floating_point():
        return torch.allclose(got.detach().double(), want.detach().double(), rtol, atol, True)
    return bool((got == want).all())


def _brief(x: Any) -> str:
    """A value in a few characters: the first numbers of a tensor, rounded."""
    if isinstance(x, Tensor):
        flat = x.detach().flatten()
        shown = ", ".join(
            f"{v:.4g}" if x.is_floating_point() else str(v) for v in flat[:6].tolist()
        )
        more = ", ..." if flat.numel() > 6 else ""
        if x.numel() == 1:
            return shown
        return f"{tuple(x.shape)} [{shown}{more}]"
    text = f"{x:.6g}" if isinstance(x, float) else repr(x)
    return text if len(text) <= 80 else text[:77] + "..."


def _sides(want: Tensor, got: Tensor, atol: float, rtol: float) -> dict[str, Any]:
    """Both in a few characters; if these look the same, the first place where the two differ."""
    expected, came = _brief(want), _brief(got)
    if expected == came:
        a, b = (x.detach().double().flatten() for x in (want, got))
        off = ~torch.isclose(b, a, rtol, atol, True)
        if bool(off.any()):
            first = int(off.int().argmax())
            place = [int(i) for i in torch.unravel_index(torch.tensor(first), want.shape)]
            shown = (x.detach().flatten()[first].item() for x in (want, got))
            expected, came = (
                f"{place} {v:.8g}" if isinstance(v, float) else f"{place} {v}" for v in shown
            )
    return {"expected": expected, "got": came}


def _decision(got: Any, names: Mapping[str, float]) -> tuple[str, dict[str, float]]:
    """A choice and its figures, as text and numbers, or a sentence that says what came instead."""
    if not isinstance(got, tuple) or len(got) != 2:
        raise Failed(f"return a tuple of two, the choice and its figures, not {_kind(got)}")
    choice, figures = got
    if type(choice) is not str:
        raise Failed(f"the choice must be a str, not {_kind(choice)}")
    if type(figures) is not dict or set(figures) != set(names):
        raise Failed(f"the figures must be a dict with a number for each of {', '.join(names)}")
    numbers = {}
    for name, value in figures.items():
        if isinstance(value, Tensor) and type(value) is Tensor and value.numel() == 1:
            value = value.item()
        if not _number(value):
            raise Failed(f"the figure for {name!r} must be a number, not {_kind(value)}")
        numbers[name] = float(value)
    return choice, numbers


def _decided(decision: tuple[str, Mapping[str, float]]) -> str:
    """A choice and its figures in one line."""
    figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(decision[1].items()))
    return f"{decision[0]} ({figures})"


def arity(function: Any) -> int | None:
    """Positional parameters of a callable, or None if it cannot be told."""
    try:
        return len(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def refusal(error: type[Exception], call: Callable, *args: Any, **kwargs: Any) -> str | None:
    """What a call says when it raises this error; None if it returns or raises another."""
    try:
        call(*args, **kwargs)
    except error as raised:
        return str(raised)
    except Exception:
        return None
    return None

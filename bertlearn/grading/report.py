"""What came out of grading a notebook: as text and JSON, and as a page."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlearn.grading.isolation import NO_SANDBOX

if TYPE_CHECKING:  # a report is read where torch is not
    from bertlearn.checks.core import Result

__all__ = ["Question", "Report", "clean", "write"]

FORMAT = 1


@dataclass(frozen=True)
class Question:
    """One question's verdict.

    Attributes:
        id, title: of its check.
        points, max: earned, and to be had.
        reason: why points are missing, if that is the same for all parts.
        parts: title, points, max, message, expected and got of each case.
    """

    id: str
    title: str
    points: float
    max: float
    reason: str = ""
    parts: tuple[dict[str, Any], ...] = ()

    @classmethod
    def from_result(cls, result: Result) -> Question:
        """From what `run` gives."""
        check = result.check
        parts = tuple(asdict(case) for case in result.cases)
        return cls(check.id, check.title, result.points, result.max, parts=parts)

    def text(self) -> str:
        """A line with the points, and why some are missing."""
        first = f"{self.id}: {self.points:g} of {self.max:g} points"
        return clean("\n".join([first, *_losses(self)]))


@dataclass
class Report:
    """A graded notebook.

    Attributes:
        notebook: its file name.
        exercise: its chapter.
        seed: with which the inputs were drawn; grading with it again draws the same.
        questions: in the order of the checks.
        cells: for each cell that did not run to its end, its number and why.
        sandbox: what the worker was denied; empty: nothing.
        seconds: wall time.
    """

    notebook: str
    exercise: str
    seed: int
    questions: list[Question] = field(default_factory=list)
    cells: list[tuple[int, str]] = field(default_factory=list)
    sandbox: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def points(self) -> float:
        """Points earned."""
        return float(sum(question.points for question in self.questions))

    @property
    def max(self) -> float:
        """Points to be had."""
        return float(sum(question.max for question in self.questions))

    @property
    def full(self) -> bool:
        """Every point earned."""
        return self.points == self.max

    @property
    def isolation(self) -> str:
        """A sentence on what held while the notebook ran."""
        if any(measure.startswith(("Landlock", "bubblewrap")) for measure in self.sandbox):
            return f"run in isolation ({', '.join(self.sandbox)})"
        return NO_SANDBOX

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "format": FORMAT,
            "status": "graded",
            "points": self.points,
            "max": self.max,
            **asdict(self),
            "cells": [{"cell": number, "error": said} for number, said in self.cells],
        }

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Report:
        """From what `to_dict` gives."""
        names = ("notebook", "exercise", "seed", "sandbox", "seconds")
        report = cls(**{name: told[name] for name in names})
        for question in told["questions"]:
            report.questions.append(Question(**{**question, "parts": tuple(question["parts"])}))
        report.cells = [(cell["cell"], cell["error"]) for cell in told["cells"]]
        return report

    def text(self) -> str:
        """A table for a terminal."""
        width = max([len(question.id) for question in self.questions] + [8])
        lines = [f"{self.notebook}, exercise {self.exercise}", ""]
        for question in self.questions:
            score = f"{question.points:g} / {question.max:g}"
            lines.append(f"  {question.id:{width}}  {score:>9}  {question.title}")
            lines += _losses(question)
        lines += ["", f"  {'total':{width}}  {f'{self.points:g} / {self.max:g}':>9}", ""]
        if self.cells:
            lines.append("Cells that did not run to their end (counting code cells from 1):")
            lines += [f"  cell {number}: {said}" for number, said in self.cells] + [""]
        lines.append(f"seed {self.seed}, {self.seconds:.1f} s, {self.isolation}")
        return clean("\n".join(lines))

    def html(self) -> str:
        """A page that needs nothing else."""
        from bertlearn.grading.pages import page

        return page(self)


def _losses(question: Question) -> list[str]:
    said = [question.reason] if question.reason else []
    for part in question.parts:
        if part["ok"]:
            continue
        said.append(f"{part['title']}: {part['message']}")
        if part["expected"] or part["got"]:
            said += [f"    expected  {part['expected']}", f"    got       {part['got']}"]
    lines = []
    for line in said:
        indent = " " * (10 if line.startswith("    ") else 6)
        lines += textwrap.wrap(line.strip(), 88, initial_indent=indent, subsequent_indent=indent)
    return lines


def clean(text: str) -> str:
    """Without control characters that a learner's text may hold, and surrogates."""
    kept = "".join(c if c == "\n" or c.isprintable() else "\ufffd" for c in text)
    return kept.encode("utf-8", "replace").decode("utf-8")


# ---- files ------------------------------------------------------------------------------
def write(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path = Path(path)
    descriptor, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def as_json(report: Report) -> str:
    """The report as JSON text."""
    return json.dumps(report.to_dict(), indent=1, ensure_ascii=True) + "\n"

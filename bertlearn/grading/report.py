"""What came out of grading a notebook: as text, JSON and HTML."""

from __future__ import annotations

import contextlib
import html
import json
import os
import tempfile
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bertlearn.checks.core import Result
from bertlearn.grading.isolation import NO_SANDBOX

__all__ = ["Question", "Report", "write"]

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
        return _printable("\n".join(lines))

    def html(self) -> str:
        """A page that needs nothing else."""
        rows = "".join(_row(question) for question in self.questions)
        cells = "".join(f"<li>cell {n}: {_escape(said)}</li>" for n, said in self.cells)
        head = "<h2>Cells that did not run to their end</h2><p>Counting code cells from 1.</p>"
        cells = f"{head}<ul>{cells}</ul>" if cells else ""
        return PAGE.format(
            title=_escape(f"{self.notebook}: {self.points:g} of {self.max:g} points"),
            rows=rows,
            cells=cells,
            foot=_escape(f"Exercise {self.exercise}, seed {self.seed}, {self.isolation}."),
        )


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


def _printable(text: str) -> str:
    """Without control characters that a learner's text may hold, and surrogates."""
    clean = "".join(c if c == "\n" or c.isprintable() else "\ufffd" for c in text)
    return clean.encode("utf-8", "replace").decode("utf-8")


# ---- HTML -------------------------------------------------------------------------------
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8886; --good: #1a7f37; --bad: #b3261e; }}
@media (prefers-color-scheme: dark) {{ :root {{ --good: #57c878; --bad: #ff8a80; }} }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto;
  padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ border-bottom: 1px solid var(--line); padding: .4rem .6rem; text-align: left;
  vertical-align: top; }}
td.points {{ white-space: nowrap; }}
.full {{ color: var(--good); }} .less {{ color: var(--bad); }}
@media (max-width: 38rem) {{
  thead {{ display: none; }}
  tr {{ display: grid; grid-template-columns: 1fr auto; border-bottom: 1px solid var(--line); }}
  td {{ border: 0; }} td:nth-child(3) {{ grid-column: 1 / -1; padding-top: 0; }}
}}
code {{ overflow-wrap: anywhere; }} p.loss {{ margin: .2rem 0; }} footer {{ opacity: .75; }}
</style></head><body><h1>{title}</h1>
<table><thead><tr><th>Question</th><th>Points</th><th>Why</th></tr></thead>
<tbody>{rows}</tbody></table>{cells}<footer><p>{foot}</p></footer></body></html>
"""


def _row(question: Question) -> str:
    said = f'<p class="loss">{_escape(question.reason)}</p>' if question.reason else ""
    for part in question.parts:
        if not part["ok"]:
            said += f'<p class="loss"><em>{_escape(part["title"])}</em>: {_escape(part["message"])}'
            for name in ("expected", "got"):
                if part[name]:
                    said += f"<br>{name} <code>{_escape(part[name])}</code>"
            said += "</p>"
    kind = "full" if question.points == question.max else "less"
    return (
        f"<tr><td>{_escape(question.title)}<br><code>{_escape(question.id)}</code></td>"
        f'<td class="points {kind}">{question.points:g} / {question.max:g}</td>'
        f"<td>{said}</td></tr>"
    )


def _escape(text: str) -> str:
    return html.escape(_printable(text))


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

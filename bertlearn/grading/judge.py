"""Grade a notebook: its code runs in a worker, the verdict is reached here, on data alone."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch

from bertlearn import checks
from bertlearn.checks import Check, Failed
from bertlearn.checks.core import UNWRITTEN
from bertlearn.grading.client import Limits
from bertlearn.grading.errors import NotebookError
from bertlearn.grading.isolation import choose
from bertlearn.grading.notebook import CONFLICT, Notebook, read
from bertlearn.grading.report import Question, Report
from bertlearn.grading.standins import Past, Session

__all__ = ["grade", "questions"]


def questions(exercise: str) -> list[Check]:
    """The checks of a chapter that have points."""
    return [check for check in checks.load(exercise).values() if check.points]


def grade(
    path: str | Path,
    seed: int | None = None,
    limits: Limits | None = None,
    only: Collection[str] | None = None,
) -> Report:
    """Grade one notebook.

    Args:
        path: the learner's notebook.
        seed: for the inputs; a fresh one if None.
        limits: what its code may use.
        only: ids of the questions to judge; all if None.

    Raises:
        NotebookError: if it cannot be read or is no exercise.
        SandboxError: if the limits ask for a sandbox that is not there.
        GraderError: if the grader itself fails.
    """
    limits = limits or Limits()
    choose(limits.sandbox)
    begin = time.monotonic()
    notebook = read(path)
    asked = questions(notebook.exercise) if notebook.exercise else []
    if not asked:
        raise NotebookError(
            f"{path} is not an exercise: it has no cell that calls a check of the book; "
            f"make one with bertlearn start"
        )
    places = {name: place for place, name in enumerate(notebook.calls)}
    asked.sort(key=lambda check: places.get(check.id, len(places)))  # as the learner met them
    if only is not None:
        asked = [check for check in asked if check.id in only] or asked
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    report = Report(notebook.path.name, notebook.exercise, seed)
    sessions: dict[tuple, Session] = {}
    past = Past()
    try:
        for check in asked:
            key = (check.hides, check.forbids)
            if key not in sessions:
                sessions[key] = Session(notebook.cells, *key, limits, past)
            report.questions.append(_judge(check, sessions[key], notebook, seed))
    finally:
        for session in sessions.values():
            session.close()
    first = next(iter(sessions.values()))
    report.cells = sorted(first.errors.items())
    report.sandbox = first.sandbox
    report.seconds = round(time.monotonic() - begin, 2)
    return report


def _judge(check: Check, session: Session, notebook: Notebook, seed: int) -> Question:
    """One question."""
    session.begin(check.seconds)
    try:
        missing = session.missing(check.needs)
        if missing:
            reason = _why_missing(missing[0], notebook, session)
            return Question(check.id, check.title, 0.0, check.points, reason)
        implementations = [session.get(name) for name in check.needs]
    except Failed as failure:
        return Question(check.id, check.title, 0.0, check.points, str(failure))
    torch.manual_seed(seed)
    result = checks.run(check, implementations, seed)
    if session.fault is not None:
        raise session.fault
    return _explain(Question.from_result(result), check, notebook)


def _explain(question: Question, check: Check, notebook: Notebook) -> Question:
    """A stub that stands behind an answer counts, and hides it: say so."""
    if any(part["message"] == UNWRITTEN for part in question.parts):
        for name in check.needs:
            if len(places := notebook.defining(name)) > 1:
                reason = (
                    f"{name} is defined in cells {', '.join(map(str, places))}, and the last one "
                    f"counts, which is not written: delete it"
                )
                return replace(question, reason=reason)
    return question


def _why_missing(name: str, notebook: Notebook, session: Session) -> str:
    """Why a notebook has no such name, as far as can be told."""
    defining = notebook.defining(name)
    conflicts = [c.number for c in notebook.cells if CONFLICT.search(c.text)]
    for number in defining:
        if number in conflicts:
            return (
                f"cell {number} holds merge conflict markers (<<<<<<<): keep one side, and delete "
                f"the markers and the other side"
            )
        if number in session.errors:
            return f"cell {number} did not define {name}: {session.errors[number]}"
    if defining:
        return f"cell {defining[-1]} defines {name}, but a later cell deletes it"
    if any(re.search(rf"^(def|class) {name}\b", text, re.M) for text in notebook.prose):
        return f"the cell that defines {name} is marked as text: make it a code cell (key Y)"
    return f"no cell defines {name}: was its cell deleted, or the name changed?"

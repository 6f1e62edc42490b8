"""A learner's copy of an exercise: made, brought up to date, one stub brought back.

Nothing here loses what a learner wrote: a file that is there is never overwritten by `start`; what
`reset` and `update` replace is kept in my/kept first.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertlearn.grading import notebook
from bertlearn.grading.errors import ExerciseError
from bertlearn.grading.road import (
    Exercise,
    QuestionText,
    defined,
    definitions,
    find_copy,
    find_exercise,
    find_exercises,
    find_question,
    fingerprint,
    source_of,
)
from bertlearn.grading.scripts import to_script

__all__ = ["Update", "answer_of", "is_old", "is_written", "reset", "start", "update"]

OLD_ANSWER = "# Your answer to the older version of this question:"


# ---- start ------------------------------------------------------------------------------
def start(chapter: str, start_from: Path | None = None, script: bool = False) -> tuple[Path, bool]:
    """Copy an exercise into my/, unless it is there already.

    Args:
        chapter: "04", "4" or "04_attention".
        start_from: where to look for exercises/; here if None.
        script: whether to make a script (.py) of the notebook.

    Returns:
        the learner's file, and whether it is new.

    Raises:
        ExerciseError: if there is no such exercise, or the copy cannot be written.
    """
    root = find_exercises(start_from)
    exercise = find_exercise(root, chapter)
    target = root / "my" / exercise.path.with_suffix(".py" if script else ".ipynb").name
    if target.exists():
        return target, False
    text = to_script(exercise.content) if script else exercise.path.read_text(encoding="utf-8")
    try:
        target.parent.mkdir(exist_ok=True)
        return target, _write_new(target, text)
    except OSError as error:
        raise ExerciseError(f"{target} could not be written: {error.strerror}") from None


def _write_new(path: Path, text: str) -> bool:
    """Write a file whole, unless there is one by then; whether it was written."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, 0o644)
        try:
            os.link(name, path)  # fails if there is one, whoever made it
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            if path.exists():
                return False
            os.replace(name, path)
        return True
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


# ---- answers ----------------------------------------------------------------------------
def _places(cells: list[dict[str, Any]], question: QuestionText) -> list[int]:
    """Where a copy answers a question: by the cells' marks, else by the names they define."""
    mark = question.stub["metadata"]["nbgrader"]["grade_id"]
    names = question.names
    found = []
    for place, cell in enumerate(cells):
        grader = notebook.grader(cell)
        if cell.get("cell_type") != "code" or grader.get("grade") and not grader.get("solution"):
            continue
        marked = grader.get("grade_id") == mark or cell.get("id") == question.stub.get("id")
        if marked or names & defined(source_of(cell)):
            found.append(place)
    return found


def answer_of(told: dict[str, Any], question: QuestionText) -> str:
    """The text of the cell that counts as the answer; "" if there is none."""
    places = _places(told["cells"], question)
    return source_of(told["cells"][places[-1]]) if places else ""


def is_written(answer: str, question: QuestionText) -> bool:
    """Whether an answer is more than its stub, comments and layout aside."""
    stub = source_of(question.stub)
    try:
        return bool(answer.strip()) and ast.dump(ast.parse(answer)) != ast.dump(ast.parse(stub))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return fingerprint(answer) != fingerprint(stub)


# ---- reset ------------------------------------------------------------------------------
def reset(name: str, file: Path | None = None) -> tuple[QuestionText, Path, Path | None]:
    """Bring one stub back in a learner's copy.

    Args:
        name: of the question.
        file: the copy; that in my/ if None.

    Returns:
        the question, the file, and where the text is that stood there; None if it was the stub.

    Raises:
        ExerciseError, NotebookError: if the question or the copy cannot be found or read.
    """
    root = find_exercises()
    exercise, question = find_question(root, name)
    path = file or find_copy(root, exercise.number)
    told = notebook.content(path)
    cells = told["cells"]
    places = _places(cells, question)
    if places:
        old = source_of(cells[places[-1]])
        if fingerprint(old) == fingerprint(source_of(question.stub)):
            return question, path, None
        kept: Path | None = _keep(path, f"{question.id}", old, ".py")
        _set_source(cells[places[-1]], question.stub)
    else:
        kept = None
        at = _check_place(cells, question)
        new = [copy.deepcopy(question.stub)]
        cells[at:at] = new if at < len(cells) else [*new, copy.deepcopy(question.check)]
    _save(path, told)
    return question, path, kept


def _check_place(cells: list[dict[str, Any]], question: QuestionText) -> int:
    """Where the copy checks a question; its end if it does not."""
    for place, cell in enumerate(cells):
        if question.id in notebook.CALL.findall(source_of(cell)):
            return place
    return len(cells)


def _set_source(cell: dict[str, Any], given: dict[str, Any]) -> None:
    cell["source"] = copy.deepcopy(given["source"])
    cell["outputs"], cell["execution_count"] = [], None


def _keep(path: Path, stem: str, text: str, suffix: str) -> Path:
    """Write what is about to be replaced into my/kept, under a name that is free."""
    folder = path.parent / "kept"
    folder.mkdir(exist_ok=True)
    number = 1
    while not _write_new(target := folder / f"{stem}-{number}{suffix}", text.rstrip() + "\n"):
        number += 1
    return target


def _save(path: Path, told: dict[str, Any]) -> None:
    from bertlearn.grading.report import write

    if path.suffix == ".py":
        write(path, to_script(told))
        return
    for cell in told["cells"]:
        if isinstance(cell.get("source"), str):
            cell["source"] = cell["source"].splitlines(keepends=True)
    write(path, json.dumps(told, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


# ---- update -----------------------------------------------------------------------------
@dataclass
class Update:
    """What `update` did.

    Attributes:
        path: the copy.
        kept: the copy as it was before; None if nothing was to be done.
        answers: ids of the questions whose answers were taken over.
        changed: those of them whose stub has other arguments now: the answer stands below it as
            a comment.
        new: ids of the questions that the copy did not have.
        own: how many cells of the learner's own were taken over.
    """

    path: Path
    kept: Path | None = None
    answers: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    own: int = 0


def is_old(found: notebook.Notebook, exercise: Exercise) -> bool:
    """Whether a copy was made from another version of its exercise than the one that is here."""
    if found.given:
        return found.given != exercise.given
    asked = {question.id for question in exercise.questions}
    return bool(set(found.calls) - asked)


def update(chapter: str, file: Path | None = None) -> Update:
    """Bring a copy to the exercise's present version: new cells, the learner's answers and cells.

    Raises:
        ExerciseError, NotebookError: if the copy cannot be found or read; nothing has changed then.
    """
    root = find_exercises()
    exercise = find_exercise(root, chapter)
    path = file or find_copy(root, exercise.number)
    told = notebook.content(path)
    done = Update(path)
    given = told.get("metadata", {}).get("bertlearn", {}).get("given", "")
    if given == exercise.given:
        return done
    made = _merged(told, exercise, set(given.split()), done)
    done.kept = _keep(path, path.stem, path.read_text(encoding="utf-8-sig"), path.suffix)
    _save(path, made)
    return done


def _merged(told: dict[str, Any], exercise: Exercise, given: set[str], done: Update) -> dict:
    """The exercise with a copy's answers and own cells in it."""
    cells = copy.deepcopy(exercise.content["cells"])
    ids = {cell["id"]: place for place, cell in enumerate(cells)}
    prints = {fingerprint(source_of(cell)): place for place, cell in enumerate(cells)}
    theirs = dict.fromkeys(range(len(told["cells"])), -1)  # place in the copy -> in the new one
    for question in exercise.questions:
        places = _places(told["cells"], question)
        slot = ids[question.stub["id"]]
        theirs |= dict.fromkeys(places, slot)
        if not places:
            done.new.append(question.id)
            continue
        old = source_of(told["cells"][places[-1]])
        if fingerprint(old) not in given and is_written(old, question):
            done.answers.append(question.id)
            cells[slot]["source"] = _answer(old, question, given, done)
        del theirs[places[-1]]
        for place in places:
            if place in theirs and _is_given(told["cells"][place], given, prints):
                del theirs[place]
    before: dict[int, list[dict]] = {}
    anchor = -1
    for place, cell in enumerate(told["cells"]):
        mark = fingerprint(source_of(cell))
        same = ids.get(cell.get("id", ""), prints.get(mark))
        if place not in theirs:
            anchor = same if same is not None else anchor
        elif theirs[place] >= 0:  # an earlier definition stays before the one that counts
            before.setdefault(theirs[place], []).append(cell)
        elif _is_given(cell, given, prints) or _only_checks(cell):
            anchor = same if same is not None else anchor
        elif same is not None and fingerprint(source_of(cells[same])) in given:
            cells[same]["source"] = cell["source"]  # only the learner has changed it
            anchor, done.own = same, done.own + 1
        elif same is not None and cell.get("cell_type") != "code" and not given:
            anchor = same  # a text that nobody can tell from the old exercise's
        else:
            before.setdefault(anchor + 1, []).append(cell)
    done.own += sum(len(some) for some in before.values())
    return _assembled(told, exercise, cells, before)


def _assembled(
    told: dict, exercise: Exercise, cells: list[dict], before: dict[int, list[dict]]
) -> dict[str, Any]:
    made = []
    for place in range(len(cells) + 1):
        made += before.get(place, [])
        made += cells[place : place + 1]
    taken = {cell["id"] for cell in cells}
    for cell in made:
        if not any(cell is one for one in cells) and cell.get("id") in taken:
            cell["id"] = f"own-{fingerprint(source_of(cell))}-{made.index(cell)}"
    metadata = {**told.get("metadata", {}), "bertlearn": exercise.content["metadata"]["bertlearn"]}
    return {**exercise.content, "cells": made, "metadata": metadata, "head": told.get("head", "")}


def _is_given(cell: dict[str, Any], given: set[str], prints: dict[str, int]) -> bool:
    mark = fingerprint(source_of(cell))
    return mark in given or mark in prints or not source_of(cell).strip()


def _only_checks(cell: dict[str, Any]) -> bool:
    return cell.get("cell_type") == "code" and notebook.is_check(cell)


def _answer(old: str, question: QuestionText, given: set[str], done: Update) -> str:
    """What stands in the answer's cell: the old answer, if it still fits the stub."""
    stub = source_of(question.stub)
    if fingerprint(stub) in given or _same_shape(stub, old):
        return old
    done.changed.append(question.id)
    lines = [f"# {line}".rstrip() for line in old.splitlines()]
    return "\n".join([stub.rstrip(), "", "", OLD_ANSWER, *lines])


def _same_shape(stub: str, answer: str) -> bool:
    """Whether an answer defines all that the stub does, with the same arguments."""
    wanted, found = definitions(stub), definitions(answer)
    if not found:
        return True  # it does not parse: leave it as it is
    return all(name in found and _fits(one, found[name]) for name, one in wanted.items())


def _fits(wanted: ast.AST, found: ast.AST) -> bool:
    if isinstance(wanted, ast.ClassDef) and isinstance(found, ast.ClassDef):
        methods = [
            {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
            for tree in (wanted, found)
        ]
        return all(n in methods[1] and _fits(m, methods[1][n]) for n, m in methods[0].items())
    if isinstance(wanted, ast.FunctionDef) and isinstance(found, ast.FunctionDef):
        given, taken = (
            [a.arg for a in ast.walk(f.args) if isinstance(a, ast.arg)] for f in (wanted, found)
        )
        return given == taken
    return True

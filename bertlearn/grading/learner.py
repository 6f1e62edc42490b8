"""The commands of the learner's road: check, hint, solution, reset, progress."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bertlearn.grading import notebook
from bertlearn.grading.command import BROKEN, FULL, LESS, UNREADABLE, _say, _shown, _tell_notes
from bertlearn.grading.errors import ExerciseError, NotebookError
from bertlearn.grading.road import (
    QuestionText,
    exercises,
    find_copy,
    find_exercise,
    find_exercises,
    find_named,
    find_question,
    newest_copy,
    source_of,
)

if TYPE_CHECKING:
    from bertlearn.grading.report import Question, Report
    from bertlearn.progress import Progress, Record

__all__ = [
    "after_grading",
    "check_command",
    "hint_command",
    "plain_math",
    "progress_command",
    "reset_command",
    "solution_command",
    "tell_version",
]

WIDTH = 88
UNTOUCHED = "the code is still as it was given: find what is wrong with it"


# ---- check ------------------------------------------------------------------------------
def check_command(what: str | None, watch: bool) -> int:
    """Check a copy, or one question of it, and say briefly what came out.

    Args:
        what: a chapter, a question or a file; the copy that was saved last if None.
        watch: whether to check again after each save, until Ctrl-C.

    Returns:
        0 full marks, 1 below, 2 no readable exercise, 3 the grader itself failed.
    """
    from bertlearn.grading.processes import starter

    try:
        path, only = _target(what)
        starter()  # its import of torch and ours run side by side
        if watch:
            return _watch(path, only)
        return _check(path, only)
    except NotebookError as error:
        print(f"bertlearn: {error}", file=sys.stderr)
        return UNREADABLE


def _target(what: str | None) -> tuple[Path, set[str] | None]:
    """The file to check, and which questions: None for all."""
    if what is None:
        return newest_copy(find_exercises()), None
    path = Path(what)
    if path.suffix in (".ipynb", ".py") or path.is_file():
        return path, None
    root = find_exercises()
    if what.isdigit() or find_named(root, what):
        return find_copy(root, find_exercise(root, what).number), None
    exercise, question = find_question(root, what)
    return find_copy(root, exercise.number), {question.id}


def _check(path: Path, only: set[str] | None) -> int:
    from bertlearn.grading.judge import grade

    report = grade(path, seed=0, only=only)
    answers = _answers(path, report.exercise)
    _tell(report.questions, answers)
    _note(path, report, answers)
    _next(path, report)
    return FULL if report.full else LESS


def _answers(path: Path, chapter: str) -> dict[str, tuple[str, bool]]:
    """For each question the answer that counts, and whether it is more than what was given."""
    from bertlearn.grading.copies import answer_of, is_written

    with contextlib.suppress(ExerciseError, NotebookError):
        told = notebook.content(path)
        asked = find_exercise(find_exercises(path.absolute().parent), chapter).questions
        return {q.id: (text := answer_of(told, q), is_written(text, q)) for q in asked}
    return {}


def _tell(questions: Iterable[Question], answers: dict[str, tuple[str, bool]]) -> None:
    """A line for each question, and the first thing that is wrong with it.

    What is wrong with code that nobody has touched is not told: in a bug hunt it is the answer.
    """
    from bertlearn.checks.core import UNWRITTEN

    questions = list(questions)
    width = max(len(question.id) for question in questions)
    for question in questions:
        lost = next((part for part in question.parts if not part["ok"]), None)
        said = question.reason or (lost["message"] if lost else "all points")
        text, written = answers.get(question.id, ("", True))
        if lost and text and not written and not question.reason:
            said = UNWRITTEN if lost["message"] == UNWRITTEN else UNTOUCHED
            lost = None
        score = f"{question.points:g} / {question.max:g}"
        lines = textwrap.wrap(said, max(40, WIDTH - width - 12)) or [""]
        _say(f"{question.id:{width}}  {score:>7}  {lines[0]}")
        lines = lines[1:]
        if lost and not question.reason and (lost["expected"] or lost["got"]):
            lines += [f"expected  {lost['expected']}", f"got       {lost['got']}"]
        for line in lines:
            _say(f"{'':{width}}           {line}")


def _note(path: Path, report: Report, answers: dict[str, tuple[str, bool]]) -> None:
    """Into progress.json, if the file is a learner's copy."""
    from bertlearn.checks.core import UNWRITTEN
    from bertlearn.progress import Progress, ProgressError, Record

    if not _keeps_progress(path):
        return
    progress = Progress(path.absolute().parent)
    try:
        with progress.change() as records:
            for question in report.questions:
                ran = any(p["ok"] or p["message"] != UNWRITTEN for p in question.parts)
                written = answers.get(question.id, ("", True))[1]
                tried = (ran or bool(question.reason)) and written
                record = records.setdefault(question.id, Record())
                record.checked(question.points, question.max, tried)
    except ProgressError as error:
        print(f"bertlearn: {error}", file=sys.stderr)
    _tell_notes(progress)


def _keeps_progress(path: Path) -> bool:
    """Whether a file is in my/ or beside a progress.json."""
    from bertlearn.progress import FILE

    folder = path.absolute().parent
    return folder.name == "my" or (folder / FILE).is_file()


def _next(path: Path, report: Report) -> None:
    """Where one stands, and what to do."""
    shown = shlex.quote(str(_shown(path)))
    if len(report.questions) > 1:
        print(f"\n{report.points:g} of {report.max:g} points in {_shown(path)}")
    missing = [question for question in report.questions if question.points < question.max]
    if missing:
        print(f"Stuck? bertlearn hint {missing[0].id}")
    elif len(report.questions) > 1:
        print(f"All points. On fresh numbers: bertlearn grade {shown}")
    else:
        _tell_following(path)
    tell_version(path)


def tell_version(path: Path) -> None:
    """If a copy is of another version of its exercise: how to bring it up to date."""
    from bertlearn.grading.copies import is_old

    with contextlib.suppress(ExerciseError, NotebookError):
        found = notebook.read(path)
        exercise = find_exercise(find_exercises(path.absolute().parent), found.exercise)
        if is_old(found, exercise):
            print(
                f"bertlearn: {_shown(path)} is an older version of exercise {exercise.number}: "
                f"bertlearn start {exercise.number} --update keeps your answers and brings the "
                f"new cells",
                file=sys.stderr,
            )


def after_grading(path: Path, report: Report) -> None:
    """What `grade` does for a learner's copy beyond its report."""
    _note(path, report, _answers(path, report.exercise))
    if _keeps_progress(path):
        _tell_following(path)
    tell_version(path)


def _tell_following(path: Path) -> None:
    """What comes after this, by what the copy's folder has noted."""
    from bertlearn.progress import Progress, ProgressError

    with contextlib.suppress(ExerciseError, NotebookError, ProgressError):
        root = find_exercises(path.absolute().parent)
        records = Progress(path.absolute().parent).read()
        print(f"Next: {_following(root, records, notebook.read(path).exercise)}")


# ---- check --watch ----------------------------------------------------------------------
def _watch(path: Path, only: set[str] | None) -> int:
    """Check after each save, only what a save can have changed, until Ctrl-C."""
    from bertlearn.grading.judge import grade
    from bertlearn.grading.watch import saves

    known: dict[str, tuple[str, Question]] = {}
    if not path.exists():
        raise NotebookError(f"there is no file {path}: check its name")
    print(f"Watching {_shown(path)}: save it, and it is checked. Ctrl-C ends this.", flush=True)
    try:
        for _ in saves(path):
            try:
                asked = _changed(path, only, known)
                if not asked:
                    print(f"{time.strftime('%H:%M:%S')}  no answer has changed", flush=True)
                    continue
                report = grade(path, seed=0, only=set(asked))
            except NotebookError as error:
                print(f"bertlearn: {error}", file=sys.stderr, flush=True)
                continue
            print(f"{time.strftime('%H:%M:%S')}  {_shown(path)}")
            answers = _answers(path, report.exercise)
            _tell(report.questions, answers)
            _note(path, report, answers)
            known |= {q.id: (asked[q.id], q) for q in report.questions}
            _total(known, path, only)
    except KeyboardInterrupt:
        print("\nStopped. bertlearn progress shows where you are.")
    return FULL


def _changed(
    path: Path, only: set[str] | None, known: dict[str, tuple[str, Question]]
) -> dict[str, str]:
    """The questions whose answers may behave otherwise than when they were judged last."""
    from bertlearn.grading.judge import questions
    from bertlearn.grading.watch import digest

    found = notebook.read(path)
    asked = [q for q in questions(found.exercise) if only is None or q.id in only]
    if not asked:
        raise NotebookError(f"{path} is not an exercise: make one with bertlearn start")
    now = {question.id: digest(found, question.needs) for question in asked}
    return {name: text for name, text in now.items() if known.get(name, ("",))[0] != text}


def _total(known: dict[str, tuple[str, Question]], path: Path, only: set[str] | None) -> None:
    questions = [question for _, question in known.values()]
    points, most = sum(q.points for q in questions), sum(q.max for q in questions)
    print(f"{points:g} of {most:g} points")
    if points == most and only is None:
        shown = shlex.quote(str(_shown(path)))
        print(f"All points. On fresh numbers: Ctrl-C, then bertlearn grade {shown}")
    print(flush=True)


# ---- hint, solution, reset --------------------------------------------------------------
def hint_command(name: str | None, again: bool) -> int:
    """Give the next hint of a question, or those given so far once more."""
    root = find_exercises()
    progress, records = _progress(root)
    exercise = find_named(root, name) if name else None
    if exercise is not None:
        rows = [(q, records.get(q.id)) for q in exercise.questions]
        question = next((q for q, record in rows if not (record and record.done)), rows[0][0])
    elif name is None:
        found = _first_open(root, records)
        if found is None:
            print("Every question of the exercise that you saved last has all its points.")
            print(f"Next: {_following(root, records, notebook.read(newest_copy(root)).exercise)}")
            return FULL
        question = found
    else:
        question = find_question(root, name)[1]
    from bertlearn.progress import Record

    given = records.get(question.id, Record()).hints
    total = len(question.hints)
    if not again and given < total:
        given += 1
        with progress.change() as changed:
            changed.setdefault(question.id, Record()).hints = given
        shown = [given - 1]
    else:
        shown = list(range(given))
    print(f"{question.id}: {question.title}")
    for number in shown:
        title, text = question.hints[number]
        print(f"\n{title} ({number + 1} of {total})")
        _say(textwrap.indent(plain_math(text), "  "))
    if not shown:
        print("\nNo hint has been given yet." if total else "\nThis question has no hints.")
    if given < total:
        print(f"\nThe next one: bertlearn hint {question.id}")
    else:
        print(f"\nThere are no more hints. After a try: bertlearn solution {question.id}")
    return FULL


SIGNS = {"partial": "∂", "delta": "δ", "omega": "ω", "alpha": "α", "sum": "Σ", "infty": "∞"}
SIGNS |= {"cdot": "·", "approx": "≈"}


def plain_math(text: str) -> str:
    """A text whose formulas (``$...$``) are written as one reads them in a terminal."""

    def formula(found: re.Match[str]) -> str:
        told = re.sub(r"\\(begin|end)\{pmatrix\}", lambda m: "[]"[m[1] == "end"], found[1])
        told = told.replace(r"\\", ";").replace(" &", ",").replace(r"\,", " ")
        told = re.sub(r"\\hat ?(\w)", "\\1\N{COMBINING CIRCUMFLEX ACCENT}", told)
        told = re.sub(r"\\tfrac(\d)(\d)", r"\1/\2", told)
        told = re.sub(r"\\sqrt\{([^{}]*)\}", r"√(\1)", told)
        told = re.sub(r"\\text\{([^{}]*)\}", r"\1", told)
        told = re.sub(r"([_^])\{(\w)\}", r"\1\2", re.sub(r"([_^])\{([^{}]*)\}", r"\1(\2)", told))
        return re.sub(r"\\([a-z]+)", lambda m: SIGNS.get(m[1], m[1]), told)

    return re.sub(r"\$([^$\n]+(?:\n[^$\n]+)?)\$", formula, text)


def _first_open(root: Path, records: dict[str, Record]) -> QuestionText | None:
    """The first question, in the copy that was saved last, that lacks points."""
    with contextlib.suppress(ExerciseError, NotebookError):
        chapter = notebook.read(newest_copy(root)).exercise
        for question in find_exercise(root, chapter).questions:
            if question.id not in records or not records[question.id].done:
                return question
        return None
    raise ExerciseError("my/ holds no exercise yet: bertlearn start lists what there is")


def solution_command(name: str, give_up: bool) -> int:
    """Show a solution, after a real attempt or on giving up.

    Returns:
        0 if it was shown, else 1.
    """
    from bertlearn.progress import Record

    root = find_exercises()
    exercise, question = find_question(root, name)
    progress, records = _progress(root)
    record = records.get(question.id, Record())
    if not (give_up or record.done or record.solution or record.tried and _written(root, question)):
        left = len(question.hints) - record.hints
        print(
            f"{question.id}: the solution is shown after a try. Write an answer, save, and run "
            f"bertlearn check {question.id}."
        )
        if left > 0:
            print(f"Or take a hint ({left} left): bertlearn hint {question.id}")
        print(f"To see it all the same: bertlearn solution {question.id} --give-up")
        return LESS
    text = _solution(root, exercise.path.name, question)
    if not record.done and not record.solution:
        with progress.change() as changed:
            told = "after a try" if record.tried and not give_up else "given up"
            changed.setdefault(question.id, Record()).solution = told
    print(
        f"# {question.id}: {question.title}. One good answer; any other that does the same counts."
    )
    print(text)
    return FULL


def _written(root: Path, question: QuestionText) -> bool:
    """Whether the copy holds more than the stub."""
    from bertlearn.grading.copies import answer_of, is_written

    with contextlib.suppress(ExerciseError, NotebookError):
        told = notebook.content(find_copy(root, question.id[:2]))
        return is_written(answer_of(told, question), question)
    return False


def _solution(root: Path, name: str, question: QuestionText) -> str:
    path = root / "solutions" / name
    mark = question.stub["metadata"]["nbgrader"]["grade_id"]
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        cell = next(c for c in cells if c["metadata"].get("nbgrader", {}).get("grade_id") == mark)
    except (OSError, ValueError, KeyError, StopIteration):
        raise ExerciseError(
            f"{path} does not hold the solution of {question.id}: bring it back with "
            f"git checkout solutions"
        ) from None
    lines = source_of(cell).splitlines()
    return "\n".join(line for line in lines if not re.match(r"\s*### (BEGIN|END) SOLUTION", line))


def reset_command(name: str, file: Path | None) -> int:
    """Bring one stub back, and say where the answer is kept."""
    from bertlearn.grading.copies import reset
    from bertlearn.progress import Record

    try:
        question, path, kept = reset(name, file)
    except NotebookError as error:
        print(f"bertlearn: {error}", file=sys.stderr)
        return UNREADABLE
    except OSError as error:
        print(f"bertlearn: nothing was changed: {error.strerror}", file=sys.stderr)
        return BROKEN
    if _keeps_progress(path):
        progress, records = _progress(path.absolute().parent.parent, path.absolute().parent)
        if question.id in records:
            with progress.change() as changed:
                changed.setdefault(question.id, Record()).points = 0.0
    print(f"{question.id} in {_shown(path)} is as it was given.")
    if kept is not None:
        print(f"What stood there is in {_shown(kept)}.")
    print("If the file is open: reload it from the disk before you save it.")
    return FULL


# ---- progress ---------------------------------------------------------------------------
def progress_command() -> int:
    """What is done, the points, and what to do next."""
    root = find_exercises()
    _, records = _progress(root)
    total = [0, 0, 0.0, 0.0]
    for number in exercises(root):
        exercise = find_exercise(root, number)
        rows = [(question, records.get(question.id)) for question in exercise.questions]
        started = any(record for _, record in rows) or _started(root, number)
        done = sum(bool(record and record.done) for _, record in rows)
        points = sum(record.points for _, record in rows if record)
        most = sum(question.points for question, _ in rows)
        topic = exercise.path.stem[3:].replace("_", " ")
        print(
            f"{number}  {topic:<20}{done:>3} of {len(rows):<3}{points:>6g} of "
            + (f"{most:g}" if started else f"{most:<4g}  not started")
        )
        if started:
            _rows(rows)
        total = [a + b for a, b in zip(total, (done, len(rows), points, most), strict=True)]
    print(f"\n{total[0]:g} of {total[1]:g} questions, {total[2]:g} of {total[3]:g} points.")
    print(f"Next: {_following(root, records)}")
    return FULL


def _following(root: Path, records: dict[str, Record], chapter: str = "") -> str:
    """The first question that lacks points, in this chapter, else in those that are started; else
    the first exercise that is not started."""
    numbers = sorted(exercises(root), key=lambda number: number != chapter)
    for number in numbers:
        asked = find_exercise(root, number).questions
        if not any(question.id in records for question in asked) and not _started(root, number):
            continue
        for question in asked:
            if question.id not in records or not records[question.id].done:
                return _advice(question)
    return _unstarted(root, chapter)


def _rows(rows: list[tuple[QuestionText, Record | None]]) -> None:
    for question, record in rows:
        if record is None:
            continue
        said = [f"{record.points:g} of {question.points:g}"]
        said += [f"{record.hints} hint{'s' * (record.hints > 1)}"] * bool(record.hints)
        said += [f"solution shown, {record.solution}"] * bool(record.solution)
        mark = "done" if record.done else "open"
        print(f"      {mark}  {question.id:<28}{', '.join(said)}")


def _advice(question: QuestionText) -> str:
    return (
        f"{question.id}, {question.title} (difficulty {question.difficulty} of 5, about "
        f"{question.minutes} minutes, {question.points:g} points)"
    )


def _started(root: Path, number: str) -> bool:
    with contextlib.suppress(ExerciseError):
        return find_copy(root, number).is_file()
    return False


def _unstarted(root: Path, chapter: str = "") -> str:
    """The next exercise of the book that is not started, first those after this chapter."""
    numbers = list(exercises(root))
    at = numbers.index(chapter) if chapter in numbers else 0
    for number in numbers[at:] + numbers[:at]:
        if not _started(root, number):
            return f"bertlearn start {number}"
    return "nothing is left. Every exercise has all its points"


def _progress(root: Path, folder: Path | None = None) -> tuple[Progress, dict[str, Record]]:
    from bertlearn.progress import Progress

    progress = Progress(folder or root / "my")
    records = progress.read()
    _tell_notes(progress)
    return progress, records

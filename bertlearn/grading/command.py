"""The commands `start`, `grade` and `exercises`, as functions that print and give an exit code."""

from __future__ import annotations

import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from bertlearn.grading.errors import NotebookError, SandboxError, SubmissionsError
from bertlearn.grading.folders import DISK_FULL, disk_full

if TYPE_CHECKING:
    from bertlearn.progress import Progress

__all__ = ["build_command", "course_command", "folder_command", "grade_command", "start_command"]

FULL, LESS, UNREADABLE, BROKEN = 0, 1, 2, 3


def grade_command(
    notebook: Path,
    json_file: Path | None,
    html_file: Path | None,
    seed: int | None,
    sandbox: str = "auto",
) -> int:
    """Grade, print the table, write the files.

    Args:
        sandbox: as in `isolation.choose`.

    Returns:
        0 full marks, 1 below, 2 no readable exercise, 3 the grader itself failed.
    """
    for file in (f for f in (json_file, html_file) if f is not None):
        if not file.absolute().parent.is_dir():
            print(f"bertlearn: there is no folder {file.parent} for the report", file=sys.stderr)
            return UNREADABLE
    try:
        from bertlearn.grading.processes import starter

        kind = _choose(sandbox)
        starter(kind)  # its import of torch and ours run side by side
        from bertlearn.grading.client import Limits
        from bertlearn.grading.judge import grade
        from bertlearn.grading.learner import after_grading
        from bertlearn.grading.report import as_json, write

        report = grade(notebook, seed, Limits(sandbox=kind))
        _say(report.text())
        after_grading(notebook, report)
        if json_file is not None:
            write(json_file, as_json(report))
        if html_file is not None:
            write(html_file, report.html())
    except (NotebookError, SandboxError) as error:
        print(f"bertlearn: {error}", file=sys.stderr)
        return UNREADABLE
    except Exception as error:
        if disk_full(error):
            print(f"bertlearn: {DISK_FULL}", file=sys.stderr)
            return BROKEN
        traceback.print_exc()
        print(f"bertlearn: the grader failed, not your notebook: {error}", file=sys.stderr)
        return BROKEN
    return FULL if report.full else LESS


def folder_command(
    folder: Path,
    csv: Path | None,
    feedback: Path | None,
    jobs: int | None,
    seed: int | None,
    of_one: bool,
    sandbox: str = "auto",
) -> int:
    """Grade a folder of submissions into a table.

    Args:
        of_one: whether a report was asked for that only one notebook has.
        sandbox: as in `isolation.choose`.

    Returns:
        as `batch.grade_folder`; 2 if the folder or the places for the results will not do.
    """
    from bertlearn.grading.batch import grade_folder

    try:
        if csv is None:
            raise SubmissionsError(
                f"{folder} is a folder: give one notebook, or say where the table of all goes, "
                f"as in --csv scores.csv"
            )
        if of_one:
            raise SubmissionsError(
                "--json and --html are for one notebook: --feedback DIR makes a page for each"
            )
        _choose(sandbox)
        limits = {} if sandbox == "auto" else {"sandbox": sandbox}
        return grade_folder(folder, csv, feedback, jobs, seed, limits)
    except (SubmissionsError, SandboxError) as error:
        print(f"bertlearn: {error}", file=sys.stderr)
        return UNREADABLE


def _choose(sandbox: str) -> str:
    """The sandbox to use, as `isolation.choose`; where there is none, that is said."""
    from bertlearn.grading.isolation import NO_SANDBOX, choose

    kind = choose(sandbox)
    if kind == "none":
        print(f"bertlearn: {NO_SANDBOX}", file=sys.stderr)
    return kind


def _say(text: str) -> None:
    """Print, whatever the terminal can show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def start_command(chapter: str | None, script: bool = False, update: bool = False) -> int:
    """Copy an exercise for the learner, bring a copy up to date, or list what there is."""
    from bertlearn.grading.copies import start
    from bertlearn.grading.learner import tell_version
    from bertlearn.grading.road import exercises, find_exercise, find_exercises

    root = find_exercises()
    if chapter is None:
        for number, file in exercises(root).items():
            there = any(
                (root / "my" / file.with_suffix(s).name).exists() for s in (".ipynb", ".py")
            )
            topic = file.stem[3:].replace("_", " ")
            print(f"{number}  {topic}{'  (in my/)' if there else ''}")
        print("Start one with: bertlearn start NUMBER")
        return 0
    if update:
        return _update_command(chapter)
    file, new = start(chapter, script=script)
    asked = find_exercise(root, chapter).questions
    if new:
        _begin_progress(file.parent)
        points, minutes = sum(q.points for q in asked), sum(q.minutes for q in asked)
        many = "questions" if len(asked) > 1 else "question"
        sizes = f"{len(asked)} {many}, {points:g} points, about {minutes} minutes"
        print(f"{_shown(file)} is yours to work on: {sizes}.")
    else:
        print(f"{_shown(file)} is there already: left as it is.")
    other = file.with_suffix(".ipynb" if script else ".py")
    if other.exists():
        print(f"{_shown(other)} is there, too: bertlearn check takes the one that you saved last.")
    _tell_road(file, asked[0].id if asked else "")
    if not new:
        tell_version(file)
    return 0


def _tell_road(file: Path, first: str) -> None:
    """What to type next."""
    shown, number = shlex.quote(str(_shown(file))), file.name[:2]
    where = "your editor" if file.suffix == ".py" else "Jupyter Lab (make lab) or VS Code"
    rows = {
        "open it": f"in {where}",
        "a verdict": f"bertlearn check {number}   (with --watch: after each save)",
        "stuck": f"bertlearn hint {first}".rstrip(),
        "where am I": "bertlearn progress",
        "done": f"bertlearn grade {shown}",
    }
    for what, how in rows.items():
        print(f"  {what:<11} {how}")


def _begin_progress(folder: Path) -> None:
    """An empty progress.json: from then on a notebook's checks are noted in it."""
    from bertlearn.progress import Progress, ProgressError

    progress = Progress(folder)
    try:
        with progress.change():
            pass
    except ProgressError as error:
        print(f"bertlearn: {error}", file=sys.stderr)
    _tell_notes(progress)


def _tell_notes(progress: Progress) -> None:
    """What was found wrong with progress.json, and mended."""
    for said in progress.notes:
        print(f"bertlearn: {said}", file=sys.stderr)


def _update_command(chapter: str) -> int:
    from bertlearn.grading.copies import update

    try:
        done = update(chapter)
    except NotebookError as error:
        print(f"bertlearn: {error}", file=sys.stderr)
        return UNREADABLE
    except OSError as error:
        print(f"bertlearn: nothing was changed: {error.strerror}", file=sys.stderr)
        return BROKEN
    if done.kept is None:
        print(f"{_shown(done.path)} is of the present version: left as it is.")
        return 0
    print(f"{_shown(done.path)} is of the present version now.")
    print(f"  answers kept   {', '.join(done.answers) or 'none was written'}")
    for name in done.changed:
        print(f"  look again     {name}: its arguments have changed; your answer stands below the")
        print("                 new stub, as a comment")
    if done.new:
        print(f"  new questions  {', '.join(done.new)}")
    if done.own:
        print(f"  your own cells {done.own}, kept")
    print(f"  as it was      {_shown(done.kept)}")
    print("If the file is open: reload it from the disk before you save it.")
    return 0


def course_command(target: Path) -> int:
    """Make a course's folder and say what to do in it."""
    import importlib.util

    from bertlearn.grading.course import make

    assignments = make(target)
    print(f"{_shown(target)} has {len(assignments)} assignments: {', '.join(assignments)}")
    if importlib.util.find_spec("nbgrader") is None:
        print('nbgrader is not installed: pip install -e ".[course]" in the repository of the book')
    print(f"There: cd {_shown(target)}; nbgrader generate_assignment {assignments[0]}")
    return 0


def build_command(root: Path, check: bool) -> int:
    """Make the exercises from their masters; with ``check``, only say which differ (exit 1)."""
    from bertlearn.grading.exercises import build, differences

    if not (root / "solutions").is_dir():
        print(f"bertlearn: {root} has no folder solutions/: run this in the repository", flush=True)
        return UNREADABLE
    changed = list(differences(root)) if check else build(root)
    for file in changed:
        print(f"{'differs' if check else 'written'}: {_shown(file)}")
    if check and changed:
        print("Make them again with: make exercises  (or bertlearn exercises build)")
        return LESS
    if not changed:
        print("The exercises are what their masters give.")
    return FULL


def _shown(file: Path) -> Path:
    """Relative to where we are, if it is below."""
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file

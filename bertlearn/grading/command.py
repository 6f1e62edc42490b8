"""The commands `start`, `grade` and `exercises`, as functions that print and give an exit code."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from bertlearn.grading.errors import NotebookError, SandboxError
from bertlearn.grading.folders import DISK_FULL, disk_full

__all__ = ["build_command", "grade_command", "start_command"]

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
        from bertlearn.grading.isolation import NO_SANDBOX, choose
        from bertlearn.grading.processes import starter

        kind = choose(sandbox)
        if kind == "none":
            print(f"bertlearn: {NO_SANDBOX}", file=sys.stderr)
        starter(kind)  # its import of torch and ours run side by side
        from bertlearn.grading.client import Limits
        from bertlearn.grading.judge import grade
        from bertlearn.grading.report import as_json, write

        report = grade(notebook, seed, Limits(sandbox=kind))
        _say(report.text())
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


def _say(text: str) -> None:
    """Print, whatever the terminal can show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def start_command(chapter: str | None) -> int:
    """Copy an exercise for the learner, or list what there is."""
    from bertlearn.grading.exercises import find_exercises, start

    if chapter is None:
        root = find_exercises()
        for file in sorted((root / "exercises").glob("[0-9][0-9]_*.ipynb")):
            there = "  (in my/)" if (root / "my" / file.name).exists() else ""
            print(f"{file.name[:2]}  {file.stem[3:].replace('_', ' ')}{there}")
        print("Start one with: bertlearn start NUMBER")
        return 0
    file, new = start(chapter)
    shown = _shown(file)
    print(f"{shown} is yours to work on." if new else f"{shown} is there already: left as it is.")
    print(f"Open it in Jupyter. Grade it with: bertlearn grade {shown}")
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

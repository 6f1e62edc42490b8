"""The commands `start`, `grade` and `exercises`, as functions that print and give an exit code."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from bertlearn.grading.errors import NotebookError

__all__ = ["grade_command"]

FULL, LESS, UNREADABLE, BROKEN = 0, 1, 2, 3


def grade_command(
    notebook: Path, json_file: Path | None, html_file: Path | None, seed: int | None
) -> int:
    """Grade, print the table, write the files; 0 full marks, 1 below, 2 not a readable exercise,
    3 the grader itself failed."""
    try:
        from bertlearn.grading.judge import grade
        from bertlearn.grading.report import as_json, write

        report = grade(notebook, seed)
        print(report.text())
        for file, text in ((json_file, as_json), (html_file, type(report).html)):
            if file is not None:
                write(file, text(report))
    except NotebookError as error:
        print(f"bertlearn: {error}", file=sys.stderr)
        return UNREADABLE
    except Exception as error:
        traceback.print_exc()
        print(f"bertlearn: the grader failed, not your notebook: {error}", file=sys.stderr)
        return BROKEN
    return FULL if report.full else LESS

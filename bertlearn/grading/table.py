"""Points as a table: one row a question and one for the total, for spreadsheets and platforms."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bertlearn.grading.errors import SubmissionsError
from bertlearn.grading.report import Question, Report, clean

__all__ = ["COLUMNS", "Row", "cell", "is_ours", "rows", "text"]

COLUMNS = ("name", "file", "question", "points", "max", "status", "reason", "seed", "version")
Row = dict[str, Any]
BOM = "\ufeff"  # by which spreadsheets know UTF-8

# What a spreadsheet takes for the beginning of a formula, the wide forms of CJK input included.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def rows(
    name: str, file: str, status: str, reason: str, version: str, report: Report | None
) -> Iterator[Row]:
    """The rows of one submission.

    Args:
        name, file: as in `Submission`.
        status: "graded", or in a word why not.
        reason: the same in a sentence; "" for what was graded.
        version: by which checks.
        report: what was graded; None leaves the total alone, without points.
    """
    common: Row = {"name": name, "file": file, "status": status, "version": version}
    if report is None:
        blank = {"points": "" if status == "waiting" else 0.0, "max": "", "seed": ""}
        yield {**common, **blank, "question": "total", "reason": reason}
        return
    common["seed"] = report.seed
    for question in report.questions:
        points = {"points": question.points, "max": question.max}
        yield {**common, **points, "question": question.id, "reason": why(question)}
    total = {"points": report.points, "max": report.max, "question": "total"}
    yield {**common, **total, "reason": "; ".join(f"cell {n}: {s}" for n, s in report.cells)}


def why(question: Question) -> str:
    """Why points are missing, in one line."""
    lost = [part for part in question.parts if not part["ok"]]
    if not lost:
        return question.reason
    messages: dict[str, list[str]] = {}
    for part in lost:
        messages.setdefault(part["message"], []).append(part["title"])
    if len(messages) == 1 and len(lost) == len(question.parts):
        return next(iter(messages))
    return "; ".join(f"{', '.join(titles)}: {said}" for said, titles in messages.items())


def text(table: Iterable[Row], columns: Sequence[str] = COLUMNS) -> str:
    """The table as CSV, safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(row[column]) for column in columns] for row in table)
    return BOM + out.getvalue()


def cell(value: Any) -> Any:
    """A value that a spreadsheet shows and never runs: text that looks like a formula begins with
    an apostrophe, and nothing has line ends or control characters."""
    if isinstance(value, (int, float)):
        return int(value) if value == int(value) else value
    shown = clean(" ".join(str(value).split()))
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def is_ours(path: Path, columns: Sequence[str] = COLUMNS) -> bool:
    """Whether a file may be replaced by a table: it is not there, is empty, or is such a table.

    Raises:
        SubmissionsError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise SubmissionsError(f"{path} cannot be read: {error.strerror}") from None
    first = head.decode("utf-8-sig", "replace").split("\n")[0]
    return not head.strip() or first == ",".join(f'"{column}"' for column in columns)

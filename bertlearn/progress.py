"""What a learner has done so far, in one small file beside the exercises: my/progress.json.

Written whole or not at all, under a lock, so that two notebooks can be checked at once. A file
that cannot be read is set aside, never overwritten.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["FILE", "Progress", "ProgressError", "Record", "note_check"]

FILE = "progress.json"
FORMAT = 1
PATIENCE = 10.0  # seconds for the lock


class ProgressError(RuntimeError):
    """The file cannot be read or written; the message says what to do. No answer is lost by it."""


@dataclass
class Record:
    """One question.

    Attributes:
        points, max: the most that an answer has had, and what there was to be had then.
        checks: how many times it was checked.
        tried: whether one of these answers was more than the stub.
        hints: how many hints were given.
        solution: "" if it was not shown, else "after a try" or "given up".
        last: when something last happened, "2026-03-01 18:30".
    """

    points: float = 0.0
    max: float = 0.0
    checks: int = 0
    tried: bool = False
    hints: int = 0
    solution: str = ""
    last: str = ""

    @property
    def done(self) -> bool:
        """All points."""
        return 0 < self.max <= self.points

    def checked(self, points: float, most: float, tried: bool) -> None:
        """Note a verdict. Points of a question that has changed since do not count."""
        kept = self.points if self.max == most else 0.0
        self.points, self.max = max(kept, points), most
        self.checks += 1
        self.tried = self.tried or tried
        self.last = time.strftime("%Y-%m-%d %H:%M")


class Progress:
    """The file in a folder.

    Attributes:
        notes: what a person should be told, one sentence each.
    """

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self.notes: list[str] = []

    def read(self) -> dict[str, Record]:
        """The records by the ids of their questions; none if there is no file yet.

        Raises:
            ProgressError: if a newer bertlearn wrote the file, or it cannot be opened.
        """
        try:
            return _records(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            aside = self._set_aside()
            self.notes.append(
                f"{self.path} could not be read: it is kept as {aside.name}, and a new one is "
                f"begun. Your answers are untouched: check them again and it fills up"
            )
            return {}
        except OSError as error:
            raise ProgressError(f"{self.path} cannot be read: {error.strerror}") from None

    @contextlib.contextmanager
    def change(self) -> Iterator[dict[str, Record]]:
        """The records, to be changed; written when the block ends.

        Raises:
            ProgressError: if the file cannot be written; it is then as it was before.
        """
        from filelock import FileLock, Timeout

        try:
            self.path.parent.mkdir(exist_ok=True)
            with FileLock(self.path.with_name(f".{FILE}.lock"), timeout=PATIENCE):
                records = self.read()
                yield records
                told = {name: asdict(one) for name, one in sorted(records.items())}
                text = json.dumps({"format": FORMAT, "questions": told}, indent=1) + "\n"
                _write(self.path, text)
        except Timeout:
            raise ProgressError(
                f"{self.path} is in use by another process: end that one, or try again"
            ) from None
        except OSError as error:
            raise ProgressError(
                f"{self.path} was not written: {error.strerror}. Your answers are untouched; "
                f"what was noted before is still there"
            ) from None

    def _set_aside(self) -> Path:
        """Rename the file to a name that is free."""
        number = 1
        while (aside := self.path.with_name(f"progress-unreadable-{number}.json")).exists():
            number += 1
        os.replace(self.path, aside)
        return aside


def _records(text: str) -> dict[str, Record]:
    told = json.loads(text)
    if isinstance(told["format"], int) and told["format"] > FORMAT:
        raise ProgressError(
            f"{FILE} was written by a newer bertlearn: update this one, or move the file away"
        )
    kinds: dict[str, Any] = {one.name: type(one.default) for one in fields(Record)}
    records = {}
    for name, values in told["questions"].items():
        known = {key: kinds[key](value) for key, value in values.items() if key in kinds}
        records[name] = Record(**known)
    return records


def _write(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


# ---- from a notebook --------------------------------------------------------------------
def note_check(question: str, points: float, most: float, tried: bool, notebook: bool) -> None:
    """Note the verdict of a check cell, if it ran in a learner's copy. Never raises.

    Args:
        question: its id.
        points, most: earned, and to be had.
        tried: whether the answer was more than a stub.
        notebook: whether this process is a notebook's kernel.
    """
    folder = _learners_folder(notebook)
    if folder is None or not most:
        return
    progress = Progress(folder)
    try:
        with progress.change() as records:
            records.setdefault(question, Record()).checked(points, most, tried)
    except ProgressError as error:
        print(error)
    for said in progress.notes:
        print(said)


def _learners_folder(notebook: bool) -> Path | None:
    """Where the notebook or script that runs now keeps its progress; None if it keeps none."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    places: list[Path] = []
    if notebook:
        places = [Path.cwd(), Path.cwd() / "my"]
    elif main:
        places = [Path(main).absolute().parent]
    return next((place for place in places if (place / FILE).is_file()), None)

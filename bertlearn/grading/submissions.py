"""The notebooks that learners have handed in, as they lie in a folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from bertlearn.grading.errors import SubmissionsError

__all__ = ["Submission", "find"]

SUFFIX = ".ipynb"
SCRIPT = ".py"


@dataclass(frozen=True)
class Submission:
    """One notebook or script, or what was found where one was looked for.

    Attributes:
        name: who handed it in: the folder's name, else the file's without its ending.
        file: where it lies, relative to the folder of all, with ``/``.
        path: the same as a path.
        trouble: why it cannot be graded; "" if nothing is known to be wrong.
    """

    name: str
    file: str
    path: Path
    trouble: str = ""


def find(folder: str | Path, skip: Collection[Path] = ()) -> list[Submission]:
    """All notebooks below a folder, in the order of their names.

    Either the notebooks lie in it, one a learner, or it has a folder for each learner, with
    notebooks at any depth (nbgrader's ``submitted/STUDENT/ASSIGNMENT/`` is of this kind).
    Hidden files and folders are passed over. Scripts (``.py``) count like notebooks, except in the
    folder of a learner who has a notebook there: then they go with it. A learner's folder with
    neither is listed with its trouble, so that no one is lost, and so is a link that leads out of
    the folder.

    Args:
        skip: folders that are not learners', such as the one with the results.

    Raises:
        SubmissionsError: if there is no such folder, or nothing in it.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise SubmissionsError(f"{root} {what}: give the folder that holds the submissions")
    real, skipped = root.resolve(), {place.resolve() for place in skip}
    found: list[Submission] = []
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith(".") or path.resolve() in skipped:
            continue
        work = path.suffix.lower() in (SUFFIX, SCRIPT)
        if entry.is_symlink() and (path.is_dir() or work):
            found.append(_linked(root, real, path, _stem(path)))
        elif entry.is_dir():
            found += _of_learner(root, real, path)
        elif work:
            found.append(_submission(root, path, _stem(path)))
    if not found:
        raise SubmissionsError(
            f"there is no notebook in {root}: it should hold files ending in {SUFFIX}, "
            f"or a folder with them for each learner"
        )
    return found


def _of_learner(root: Path, real: Path, folder: Path) -> Iterator[Submission]:
    """The notebooks of one learner, or one entry that says why there is none."""
    others: list[str] = []
    scripts: list[Path] = []
    failures: list[OSError] = []
    count = 0
    for place, folders, files in os.walk(folder, onerror=failures.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted([*folders, *files]):
            path = Path(place, name)
            notebook = path.suffix.lower() == SUFFIX
            if name.startswith("."):
                continue
            if path.is_symlink() and (notebook or path.is_dir()):
                yield _linked(root, real, path, folder.name)
            elif notebook and not path.is_dir():
                yield _submission(root, path, folder.name)
            elif path.suffix.lower() == SCRIPT and path.is_file() and not path.is_symlink():
                scripts.append(path)
                continue
            else:
                others += [name] if name in files else []
                continue
            count += 1
    if not count:
        yield from (_submission(root, path, folder.name) for path in scripts)
        count = len(scripts)
    for failure in failures:
        said = f"its folder cannot be read: {failure.strerror}"
        yield _submission(root, Path(failure.filename), folder.name, said)
    if not count and not failures:
        there = ", ".join(sorted(others)[:3]) + (", ..." if len(others) > 3 else "")
        said = f"there is no notebook ({SUFFIX}) in this folder"
        said += f", only {there}" if others else ": it is empty"
        yield _submission(root, folder, folder.name, said)


def _linked(root: Path, real: Path, path: Path, name: str) -> Submission:
    """A link: what it leads to is graded only if it is a file of this folder."""
    target = path.resolve()
    trouble = ""
    if not target.is_relative_to(real):
        trouble = "it is a link that leads out of the folder: put the file itself here"
    elif not target.exists():
        trouble = "it is a link to a file that is not there"
    elif target.is_dir():
        trouble = "it is a link to a folder: put the folder itself here"
    return _submission(root, path, name, trouble)


def _submission(root: Path, path: Path, name: str, trouble: str = "") -> Submission:
    return Submission(name, path.relative_to(root).as_posix(), path, trouble)


def _stem(path: Path) -> str:
    return path.stem if path.suffix.lower() in (SUFFIX, SCRIPT) else path.name

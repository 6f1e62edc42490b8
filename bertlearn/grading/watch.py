"""Wait for a file to be saved, and know which questions a save can have changed."""

from __future__ import annotations

import ast
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bertlearn.grading.notebook import Notebook
from bertlearn.grading.road import definitions

__all__ = ["digest", "saves"]

PAUSE = 0.3  # seconds between two looks


def saves(
    path: Path, pause: float = PAUSE, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Once now, and then after each save, when the file has not changed for a moment.

    A file that is deleted is waited for: editors write a new one and rename it.
    """
    judged: object = None
    while True:
        before = _state(path)
        if before != judged and before is not None:
            sleep(pause / 3)
            if _state(path) == before:
                judged = before
                yield
                continue
        sleep(pause)


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is saved; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def digest(notebook: Notebook, needs: Sequence[str]) -> str:
    """The text on which an answer depends: the cells that define it, and what they name, and so on.

    A cell that defines nothing (a picture, a trial) does not count.
    """
    defines = {cell.number: _bound(cell.source) for cell in notebook.cells}
    wanted, text = set(needs), {}
    found = True
    while found:
        found = False
        for cell in notebook.cells:
            if cell.number not in text and (wanted & defines[cell.number] or _broken(cell.source)):
                text[cell.number] = cell.source
                wanted |= _named(cell.source)
                found = True
    ordered = "\0".join(cell.source for cell in notebook.cells if cell.number in text)
    return hashlib.sha256(ordered.encode("utf-8", "replace")).hexdigest()


def _bound(source: str) -> set[str]:
    imported = re.findall(r"^(?:from\s+\S+\s+)?import\s+(.*)", source, re.M)
    return set(definitions(source)) | set(re.findall(r"\w+", " ".join(imported)))


def _named(source: str) -> set[str]:
    """Names in a cell's code; all its words if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"\w+", source))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _broken(source: str) -> bool:
    """Whether a cell defines what cannot be told from its text."""
    return bool(re.search(r"^(?:def|class|import|from|@)\b", source, re.M)) and not _bound(source)

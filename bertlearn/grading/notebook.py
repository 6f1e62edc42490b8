"""A notebook as the judge reads it: cells to run, and which exercise it is."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlearn.grading.errors import NotebookError

__all__ = ["Cell", "Notebook", "read"]

MAX_BYTES = 50 << 20
MAX_CELL = 20_000  # characters: what is longer runs as it is, no one looks into it first
MAX_MAGICS = 50
MAGIC = re.compile(r"^[ \t]*[%!?]|\?$|=[ \t]*[%!]", re.M)
CALL = re.compile(r"""\bcheck\(\s*['"](\d\d\.\w+)""")


@dataclass(frozen=True)
class Cell:
    """A code cell that defines something.

    Attributes:
        number: its place among the code cells, from 1.
        text: what the learner wrote.
        source: the same as Python, magics translated.
    """

    number: int
    text: str
    source: str


@dataclass(frozen=True)
class Notebook:
    """What matters of a notebook.

    Attributes:
        path: where it was read.
        exercise: chapter number ("04"), or "" if nothing says which.
        cells: the code cells except those that only call a check.
        calls: ids of the checks that its cells call, in their order.
    """

    path: Path
    exercise: str
    cells: tuple[Cell, ...]
    calls: tuple[str, ...] = ()

    def defining(self, name: str) -> list[int]:
        """Numbers of the cells whose text seems to define a name, even if it does not parse."""
        words = re.compile(
            rf"^[ \t]*(?:def|class|async def)\s+{re.escape(name)}\b|^{re.escape(name)}\s*[:=]", re.M
        )
        return [cell.number for cell in self.cells if words.search(cell.text)]


def read(path: str | Path) -> Notebook:
    """Read a notebook.

    Raises:
        NotebookError: if there is none, or it is not one; says what to do.
    """
    path = Path(path)
    content = _json(path)
    cells = [cell for cell in _cells(content, path) if cell.get("cell_type") == "code"]
    kept = tuple(
        Cell(number, _source(cell), _python(_source(cell)))
        for number, cell in enumerate(cells, start=1)
        if not _is_check(cell)
    )
    calls = [name for cell in cells for name in CALL.findall(_source(cell))]
    return Notebook(path, _exercise(content, cells, path), kept, tuple(dict.fromkeys(calls)))


def _json(path: Path) -> Any:
    if not path.exists():
        raise NotebookError(f"there is no file {path}: check its name")
    if not path.is_file():
        raise NotebookError(f"{path} is a folder: give the notebook (a file ending in .ipynb)")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise NotebookError(
                f"{path} is larger than {MAX_BYTES >> 20} MB: clear its outputs and save it"
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise NotebookError(f"{path} is not a notebook: it is not text") from None
    except OSError as error:
        raise NotebookError(f"{path} cannot be read: {error.strerror}") from None
    if re.search(r"^<{7} ", text, re.M) and re.search(r"^>{7} ", text, re.M):
        raise NotebookError(
            f"{path} holds merge conflict markers (<<<<<<<): settle the conflict first, "
            f"or take one side with git checkout --ours or --theirs"
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        hint = "it is empty" if not text.strip() else f"its text is not JSON{place}"
        raise NotebookError(f"{path} is not a notebook: {hint}; open and save it again") from None


def _cells(content: Any, path: Path) -> list[dict]:
    cells = content.get("cells") if isinstance(content, dict) else None
    if isinstance(content, dict) and "worksheets" in content:
        raise NotebookError(
            f"{path} is of an old format: open it in Jupyter and save it, which renews it"
        )
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise NotebookError(f"{path} is JSON but not a notebook: it has no list of cells")
    return cells


def _source(cell: dict) -> str:
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    return source if isinstance(source, str) else ""


def _python(source: str) -> str:
    """Magics and shell lines become calls, as in Jupyter; plain Python stays as it is."""
    if len(source) > MAX_CELL or len(MAGIC.findall(source)) > MAX_MAGICS:
        return source
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        from IPython.core.inputtransformer2 import TransformerManager

        try:
            return TransformerManager().transform_cell(source)
        except Exception:
            return source
    return source


# ---- which cells, which exercise --------------------------------------------------------
def _grader(cell: dict) -> dict:
    metadata = cell.get("metadata")
    found = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _is_check(cell: dict) -> bool:
    """Whether a cell only asks for a verdict: the judge has its own."""
    if _grader(cell).get("grade") is True and _grader(cell).get("solution") is not True:
        return True
    if len(_source(cell)) > MAX_CELL:
        return False
    try:
        body = ast.parse(_source(cell)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(body) and all(_calls_check(statement) for statement in body)


def _calls_check(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, (ast.Expr, ast.Assign)) else None
    while isinstance(value, ast.Attribute):
        value = value.value
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id in ("check", "verify")
    )


def _exercise(content: dict, cells: list[dict], path: Path) -> str:
    """The chapter number: from the notebook's metadata, else from its graded cells, else from the
    calls of check, else from its file name."""
    metadata = content.get("metadata")
    own = metadata.get("bertlearn") if isinstance(metadata, dict) else None
    told = own.get("exercise") if isinstance(own, dict) else None
    if isinstance(told, str) and re.fullmatch(r"\d\d", told):
        return told
    votes: Counter[str] = Counter()
    for cell in cells:
        grade_id = _grader(cell).get("grade_id")
        if isinstance(grade_id, str) and (found := re.match(r"check_(\d\d)_", grade_id)):
            votes[found[1]] += 1
        votes.update(name[:2] for name in CALL.findall(_source(cell)))
    if votes:
        return votes.most_common(1)[0][0]
    named = re.match(r"(\d\d)(?!\d)", path.name)
    return named[1] if named else ""

"""A notebook, or a script with ``# %%`` cells, as the judge reads it: cells to run, and which
exercise it is."""

from __future__ import annotations

import ast
import builtins
import json
import re
import symtable
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlearn.grading.errors import NotebookError
from bertlearn.grading.scripts import from_script

__all__ = ["Cell", "Notebook", "content", "grader", "is_check", "read"]

MAX_BYTES = 50 << 20
MAX_CELL = 20_000  # characters: what is longer runs as it is, no one looks into it first
MAX_MAGICS = 50
MAX_CELLS = 300  # more of them run in the order in which they stand
MAGIC = re.compile(r"^[ \t]*[%!?]|\?$|=[ \t]*[%!]", re.M)
COMPREHENSIONS = {"listcomp", "setcomp", "dictcomp", "genexpr"}
CONFLICT = re.compile(r"^<{7} .*^>{7} ", re.M | re.S)
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
        cells: the code cells except those that only call a check, in the order in which they run.
        calls: ids of the checks that its cells call, in their order.
        given: fingerprints of the cells as they were handed out, or "" if nothing says that.
        prose: the cells that are no code.
    """

    path: Path
    exercise: str
    cells: tuple[Cell, ...]
    calls: tuple[str, ...] = ()
    given: str = ""
    prose: tuple[str, ...] = ()

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
    told = content(path)
    cells = [cell for cell in told["cells"] if cell.get("cell_type") == "code"]
    kept = [
        Cell(number, _source(cell), _python(_source(cell)))
        for number, cell in enumerate(cells, start=1)
        if not is_check(cell)
    ]
    calls = [name for cell in cells for name in CALL.findall(_source(cell))]
    return Notebook(
        path,
        _exercise(told, cells, path),
        tuple(in_order(kept)),
        tuple(dict.fromkeys(calls)),
        str(_own(told).get("given", "")),
        tuple(_source(cell) for cell in told["cells"] if cell.get("cell_type") != "code"),
    )


def content(path: Path) -> dict[str, Any]:
    """What is in a notebook, or in a script as if it were one; its cells are dictionaries.

    Raises:
        NotebookError: if there is none, or it is not one; says what to do.
    """
    text = _text(path)
    told = from_script(text) if path.suffix == ".py" else _json(text, path)
    _check_cells(told, path)
    return told


def _text(path: Path) -> str:
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
    if CONFLICT.search(text):
        raise NotebookError(
            f"{path} holds merge conflict markers (<<<<<<<): settle the conflict first, "
            f"or take one side with git checkout --ours or --theirs"
        )
    return text


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        hint = "it is empty" if not text.strip() else f"its text is not JSON{place}"
        raise NotebookError(f"{path} is not a notebook: {hint}; open and save it again") from None


def _check_cells(told: Any, path: Path) -> None:
    cells = told.get("cells") if isinstance(told, dict) else None
    if isinstance(told, dict) and "worksheets" in told:
        raise NotebookError(
            f"{path} is of an old format: open it in Jupyter and save it, which renews it"
        )
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise NotebookError(f"{path} is JSON but not a notebook: it has no list of cells")


def _source(cell: dict) -> str:
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    return source.replace("\r\n", "\n") if isinstance(source, str) else ""


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


# ---- the order of cells -----------------------------------------------------------------
def in_order(cells: list[Cell]) -> list[Cell]:
    """The cells so that each finds the names that it needs at once.

    Jupyter lets a learner run a cell of imports that stands last. From top to bottom such a
    notebook fails; here the cell that defines a missing name moves before the one that needs it.
    Otherwise nothing moves, so the last of several definitions stays the last.
    """
    if len(cells) > MAX_CELLS:
        return cells
    waiting, done = list(cells), []
    bound: set[str] = set(dir(builtins))
    facts = {cell.number: _names(cell.source) for cell in cells}
    held: set[tuple[int, int]] = set()
    while waiting:
        cell = waiting[0]
        missing = facts[cell.number][1] - bound
        later = next((c for c in waiting[1:] if missing & facts[c.number][0]), None)
        if later is not None and (pair := (cell.number, later.number)) not in held:
            held.add(pair)
            waiting.remove(later)
            waiting.insert(0, later)
            continue
        done.append(waiting.pop(0))
        bound |= facts[cell.number][0]
    return done


def _names(source: str) -> tuple[set[str], set[str]]:
    """What a cell binds at its top, and what it needs while it runs, function bodies aside."""
    if len(source) > MAX_CELL:
        return set(), set()
    try:
        table = symtable.symtable(source, "cell", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(), set()
    symbols = table.get_symbols()
    binds = {one.get_name() for one in symbols if one.is_assigned() or one.is_imported()}
    needs = {one.get_name() for one in symbols if one.is_referenced()}
    for inner in table.get_children():
        if inner.get_type() == "class" or inner.get_name() in COMPREHENSIONS:
            needs |= {s.get_name() for s in inner.get_symbols() if s.is_global()}
    return binds, needs - binds


# ---- which cells, which exercise --------------------------------------------------------
def grader(cell: dict) -> dict:
    metadata = cell.get("metadata")
    found = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def is_check(cell: dict) -> bool:
    """Whether a cell only asks for a verdict: the judge has its own. An answer that was written
    into such a cell is kept."""
    if len(_source(cell)) > MAX_CELL:
        return False
    try:
        body = ast.parse(_source(cell)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        body = []
    if grader(cell).get("grade") is True and grader(cell).get("solution") is not True:
        return not any(isinstance(one, (ast.FunctionDef, ast.ClassDef)) for one in body)
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


def _own(told: dict) -> dict:
    """Our own metadata of a notebook."""
    metadata = told.get("metadata")
    own = metadata.get("bertlearn") if isinstance(metadata, dict) else None
    return own if isinstance(own, dict) else {}


def _exercise(content: dict, cells: list[dict], path: Path) -> str:
    """The chapter number: from the notebook's metadata, else from its graded cells, else from the
    calls of check, else from its file name."""
    told = _own(content).get("exercise")
    if isinstance(told, str) and re.fullmatch(r"\d\d", told):
        return told
    votes: Counter[str] = Counter()
    for cell in cells:
        grade_id = grader(cell).get("grade_id")
        if isinstance(grade_id, str) and (found := re.match(r"check_(\d\d)_", grade_id)):
            votes[found[1]] += 1
        votes.update(name[:2] for name in CALL.findall(_source(cell)))
    if votes:
        return votes.most_common(1)[0][0]
    named = re.match(r"(\d\d)(?!\d)", path.name)
    return named[1] if named else ""

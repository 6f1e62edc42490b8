"""Exercises from their masters.

A master in solutions/ carries nbgrader's metadata and marks; nbgrader's own preprocessors strip
them. What is ours: a cell may bring its unsolved form along as metadata (``bertlearn.stub``: bug
hunts keep their bug), cells tagged ``solution-only`` are left out, and the result is the same to
the byte each time. Fingerprints of all cells go into the notebook's metadata, so that a copy of it
can tell what a learner changed, and from which version it was made.
"""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from bertlearn.grading.errors import ExerciseError
from bertlearn.grading.road import fingerprint

__all__ = ["build", "differences", "render"]

SOLUTION_ONLY = "solution-only"


# ---- building ---------------------------------------------------------------------------
def render(master: Path) -> str:
    """The text of the exercise that belongs to a master.

    Raises:
        ExerciseError: if nbgrader is missing, or if the master breaks a rule; says which cell.
    """
    from bertlearn.engine.notebooks import normalize, to_text

    try:
        text = master.read_text(encoding="utf-8")
        if not all(cell.get("id") for cell in json.loads(text)["cells"]):
            raise ExerciseError(f"{master} has cells without an id: run make notebooks first")
        notebook = normalize(nbformat.reads(text, as_version=4))
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        if isinstance(error, ExerciseError):
            raise
        raise ExerciseError(f"{master} cannot be read as a notebook: {error}") from None
    notebook.cells = [c for c in notebook.cells if SOLUTION_ONLY not in c.metadata.get("tags", [])]
    notebook.metadata.setdefault("bertlearn", {})["exercise"] = master.name[:2]
    stubs = {cell.id: _take_stub(cell, master) for cell in notebook.cells}
    _strip(notebook, master)
    for cell in notebook.cells:
        cell.source = stubs[cell.id] or cell.source
        if "BEGIN SOLUTION" in cell.source or "END SOLUTION" in cell.source:
            raise ExerciseError(f"{master}, cell {cell.id}: a mark of the solution is left")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata["bertlearn"]["given"] = " ".join(
        fingerprint(c.source) for c in notebook.cells
    )
    return to_text(notebook)


def _take_stub(cell: NotebookNode, master: Path) -> str:
    """The cell's own unsolved form, removed from its metadata; "" if it has none."""
    own = cell.metadata.pop("bertlearn", {})
    grader = cell.metadata.get("nbgrader", {})
    stub = str(own.get("stub", "")).rstrip()
    if grader.get("solution") and cell.cell_type == "code" and not stub:
        if "### BEGIN SOLUTION" not in cell.source:
            raise ExerciseError(
                f"{master}, cell {grader.get('grade_id', cell.id)}: an answer needs "
                f"### BEGIN SOLUTION and ### END SOLUTION, or the metadata bertlearn.stub"
            )
    elif stub and not grader.get("solution"):
        raise ExerciseError(f"{master}, cell {cell.id}: it has a stub but is no answer cell")
    return stub


def _strip(notebook: NotebookNode, master: Path) -> None:
    """What nbgrader does when it makes the learners' version (in place)."""
    try:
        from nbgrader.preprocessors import (
            CheckCellMetadata,
            ClearHiddenTests,
            ClearOutput,
            ClearSolutions,
            LockCells,
        )
    except ImportError:
        raise ExerciseError(
            'building exercises needs nbgrader: pip install -e ".[course]" in the repository'
        ) from None
    steps = (ClearSolutions, ClearHiddenTests, ClearOutput, LockCells, CheckCellMetadata)
    for step in steps:
        try:
            step().preprocess(notebook, {})
        except Exception as error:
            raise ExerciseError(f"{master}: {error}") from None


def differences(root: Path) -> dict[Path, str | None]:
    """What `build` would write: each file that differs, with its text; None for one that has no
    master any more."""
    folder = root / "exercises"
    masters = sorted((root / "solutions").glob("[0-9][0-9]_*.ipynb"))
    wanted = {folder / master.name: render(master) for master in masters}
    found: dict[Path, str | None] = {
        file: None for file in sorted(folder.glob("*.ipynb")) if file not in wanted
    }
    for file, text in wanted.items():
        if not file.is_file() or file.read_bytes() != text.encode():
            found[file] = text
    return found


def build(root: Path) -> list[Path]:
    """Write every exercise that differs from what its master gives, remove those without one.

    Returns:
        the files that were changed.
    """
    from bertlearn.grading.report import write

    changed = differences(root)
    (root / "exercises").mkdir(exist_ok=True)
    for file, text in changed.items():
        if text is None:
            file.unlink()
        else:
            write(file, text)
    return list(changed)

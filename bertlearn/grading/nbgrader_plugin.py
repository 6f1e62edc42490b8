"""nbgrader keeps the course, our judge gives the points.

Release, collection, gradebook, formgrader, feedback and export are nbgrader's. What is replaced is
the run of the notebook in a kernel, in which an answer and the tests share a process, and what
comes before it: honest work whose cells were copied, deleted, renamed or stripped of their metadata
is put right from the gradebook, where nbgrader alone would give it nothing. `configure` says which
steps run; a course's ``nbgrader_config.py`` calls it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import setuptools  # noqa: F401  nbgrader imports it, and it wants to come before distutils does
from nbformat import NotebookNode, write
from nbformat.v4 import new_code_cell, new_output
from nbgrader import preprocessors as steps
from nbgrader import utils
from nbgrader.api import Gradebook, SourceCell

from bertlearn.grading.errors import NotebookError
from bertlearn.grading.report import Question, Report, as_json, clean

__all__ = ["Judge", "Restore", "Unsolve", "configure", "restore_name"]

DEFINITION = re.compile(r"^(?:async def|def|class)\s+(\w+)|^(\w+)\s*[:=]", re.M)


def configure(c: Any) -> None:
    """Set a course up.

    Args:
        c: what ``get_config()`` gives in an ``nbgrader_config.py``.
    """
    bin_folder = str(Path(sys.executable).parent)  # where nbgrader's own helper, alembic, lies
    os.environ["PATH"] = os.pathsep.join([bin_folder, os.environ.get("PATH", "")])
    check = steps.CheckCellMetadata
    c.GenerateAssignment.preprocessors = [
        *(steps.IncludeHeaderFooter, steps.LockCells, steps.ClearSolutions, Unsolve),
        *(steps.ClearOutput, check, steps.ComputeChecksums, steps.SaveCells),
        *(steps.ClearHiddenTests, steps.ClearMarkScheme, steps.ComputeChecksums, check),
    ]
    c.Autograde.pre_convert_hook = restore_name
    c.Autograde.sanitize_preprocessors = [
        *(steps.ClearOutput, Restore, steps.OverwriteKernelspec, steps.OverwriteCells, check)
    ]
    c.Autograde.autograde_preprocessors = [
        *(Judge, steps.SaveAutoGrades, steps.AssignLatePenalties, check)
    ]


class Unsolve(steps.NbGraderPreprocessor):
    """Masters keep what only the solution shows, and bug hunts their bug: as in our own build."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Leave out cells of the solution, put a cell's own stub in place."""
        from bertlearn.grading.exercises import SOLUTION_ONLY

        nb.cells = [c for c in nb.cells if SOLUTION_ONLY not in c.metadata.get("tags", [])]
        for cell in nb.cells:
            stub = str(cell.metadata.pop("bertlearn", {}).get("stub", "")).rstrip()
            if stub and utils.is_solution(cell):
                cell.source = stub
        return nb, resources


# ---- what was handed in, put right ------------------------------------------------------
def restore_name(assignment: str, student: str, notebooks: list[str]) -> None:
    """A single notebook in an assignment's folder is the assignment's, whatever it is called.

    Args:
        notebooks: paths of the notebooks that nbgrader has found; changed in place.
    """
    if len(notebooks) != 1:
        return
    found = Path(notebooks[0])
    wanted = found.with_name(f"{found.parent.name}.ipynb")
    if not wanted.exists():
        shutil.copyfile(found, wanted)
        notebooks[:] = [str(wanted)]


class Restore(steps.NbGraderPreprocessor):
    """Give every cell that the gradebook knows its metadata, once; bring back deleted checks.

    A cell is known by its grade id, else by its id, else by what it says: a check by its text, an
    answer by the name that it defines. Of several the last counts, as it does when they run.
    """

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Put the notebook's metadata right (in place)."""
        names = resources["nbgrader"]
        with Gradebook(names["db_url"]) as gradebook:
            notebook = gradebook.find_notebook(names["notebook"], names["assignment"])
            points = {cell.name: cell.max_score for cell in notebook.grade_cells}
            answers = {cell.name for cell in notebook.solution_cells}
            sources = list(notebook.source_cells)
            places = _places(nb.cells, sources)
            for cell in nb.cells:
                cell.metadata.pop("nbgrader", None)
                if cell.cell_type == "markdown":
                    cell.source = _without_markup(cell.source)
            for source in sources:
                if source.name in places:
                    cell = nb.cells[places[source.name]]
                elif source.name in points:
                    self.log.warning("%s was deleted: brought back at the end", source.name)
                    cell = new_code_cell(source.source)
                    nb.cells.append(cell)
                else:
                    continue
                cell.metadata["nbgrader"] = _metadata(
                    source, points.get(source.name), source.name in answers
                )
        return nb, resources


def _places(cells: Sequence[NotebookNode], sources: Iterable[SourceCell]) -> dict[str, int]:
    """Where each known cell is in a notebook, by its grade id."""
    known = {source.name: source for source in sources}
    taken: dict[str, int] = {}
    for recognize in (_by_grade_id, _by_id, _by_text):
        used = set(taken.values())
        for place, cell in enumerate(cells):
            name = recognize(cell, known)
            if (
                name in known
                and place not in used
                and (name not in taken or taken[name] not in used)
            ):
                taken[name] = place
    return taken


def _by_grade_id(cell: NotebookNode, known: dict[str, SourceCell]) -> str:
    metadata = cell.metadata.get("nbgrader")
    name = metadata.get("grade_id") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def _by_id(cell: NotebookNode, known: dict[str, SourceCell]) -> str:
    return str(cell.get("id", "")).replace("-", "_")


def _by_text(cell: NotebookNode, known: dict[str, SourceCell]) -> str:
    defined = _defined(cell.source)
    for name, source in known.items():
        if source.locked and source.source.strip() == cell.source.strip():
            return name
        if not source.locked and defined & _defined(source.source):
            return name
    return ""


def _defined(source: str) -> set[str]:
    return {name for pair in DEFINITION.findall(source) for name in pair if name}


def _metadata(source: SourceCell, points: float | None, answer: bool) -> dict[str, Any]:
    metadata = {
        "schema_version": 3,
        "grade_id": source.name,
        "grade": points is not None,
        "solution": answer,
        "locked": source.locked,
        "task": False,
        "cell_type": source.cell_type,
    }
    return metadata if points is None else {**metadata, "points": points}


def _without_markup(source: str) -> str:
    """Text in which HTML is shown and not obeyed: it is going to be seen by who grades."""
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", source)


# ---- the judge --------------------------------------------------------------------------
class Judge(steps.NbGraderPreprocessor):
    """Grade with our judge, and write its verdict where nbgrader looks for a kernel's output.

    Which check a cell stands for is read from the grade id, which the gradebook has fixed. Beside
    the notebook goes the report, as ``NOTEBOOK.report.json``.
    """

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Fill the outputs of the checks."""
        checks = {place: _check_id(cell) for place, cell in enumerate(nb.cells)}
        wanted = {place: name for place, name in checks.items() if name}
        name = resources["nbgrader"]["notebook"]
        report = self._grade(nb, f"{name}.ipynb", wanted.values())
        questions = {q.id: q for q in report.questions} if isinstance(report, Report) else {}
        for place, cell in enumerate(nb.cells):
            if cell.cell_type != "code":
                continue
            cell.outputs, cell.execution_count = [], None
            if place in wanted and wanted[place] in questions:
                cell.outputs = _outputs(questions[wanted[place]])
            elif place in wanted:
                said = report if isinstance(report, str) else f"there is no check {wanted[place]}"
                cell.outputs = [new_output("error", ename="NotGraded", evalue=clean(said))]
        if isinstance(report, Report):
            resources.setdefault("outputs", {})[f"{name}.report.json"] = as_json(report).encode()
        return nb, resources

    def _grade(self, nb: NotebookNode, name: str, ids: Iterable[str]) -> Report | str:
        """The report, or why there is none."""
        from bertlearn.grading.judge import grade

        chapters = sorted({check.split(".")[0] for check in ids})
        own = nb.metadata.get("bertlearn")
        known = own if isinstance(own, dict) else {}
        nb.metadata["bertlearn"] = {**known, "exercise": chapters[0] if chapters else ""}
        with tempfile.TemporaryDirectory(prefix="bertlearn-nbgrader-") as folder:
            path = Path(folder, name)
            write(nb, path)
            try:
                return grade(path)
            except NotebookError as error:
                return str(error)


def _check_id(cell: NotebookNode) -> str:
    """ "04.causal_mask" of a cell with the grade id "check_04_causal_mask"; "" of others."""
    if not utils.is_grade(cell):
        return ""
    return re.sub(r"^check_(\d\d)_", r"\1.", cell.metadata.nbgrader.grade_id)


def _outputs(question: Question) -> list[NotebookNode]:
    """The verdict as nbgrader reads it: the last result of a cell is its points."""
    count = {"execution_count": 1}
    points = new_output("execute_result", data={"text/plain": str(question.points)}, **count)
    return [new_output("stream", name="stdout", text=question.text() + "\n"), points]

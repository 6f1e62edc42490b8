"""Run notebooks from top to bottom and save them, outputs and all, in one normal form.

    python -m bertlearn.engine.notebooks                      all chapters and solutions
    python -m bertlearn.engine.notebooks chapters/04_attention.ipynb ...

The normal form makes two runs of the same notebook differ only where an output differs: metadata
that editors and kernels add is dropped, streams are merged, and every cell has an id that stays.
A notebook that raises, times out or loses its kernel is left as it was.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

__all__ = ["NotebookFailed", "execute", "find_notebooks", "main", "normalize", "to_text"]

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("chapters", "solutions")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
NOTEBOOK_METADATA = {"bertlearn", "mystnb"}
CELL_METADATA = {"bertlearn", "mystnb", "nbgrader", "tags"}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookFailed(Exception):
    """A notebook that could not be run to its end; the message says which cell and why."""


# ---------------------------------------------------------------- the normal form


def normalize(notebook: NotebookNode) -> NotebookNode:
    """Bring a notebook into the form in which it is committed (in place; returned for chaining).

    Cell ids that are there and unique stay; missing ones are derived from the cell's source.
    Sources, outputs and the metadata that the book and the grader read are left alone.
    """
    kept = {key: value for key, value in notebook.metadata.items() if key in NOTEBOOK_METADATA}
    kept |= {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}}
    notebook.metadata = nbformat.from_dict(kept)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: set[str] = set()
    for cell in notebook.cells:
        cell.id = _unique_id(cell, seen)
        cell.source = cell.source.rstrip()
        cell.metadata = nbformat.from_dict(
            {key: value for key, value in cell.metadata.items() if key in CELL_METADATA and value}
        )
        if cell.cell_type == "code":
            cell.outputs = list(_merge_streams(cell.outputs))
    return notebook


def _unique_id(cell: NotebookNode, seen: set[str]) -> str:
    """The cell's own id or, where it is missing or taken, one made from its source."""
    wanted = cell.get("id", "")
    copies = 0
    while not wanted or wanted in seen:
        text = f"{cell.cell_type}\n{cell.source}\n{copies}"
        wanted = hashlib.sha256(text.encode()).hexdigest()[:8]
        copies += 1
    seen.add(wanted)
    return wanted


def _merge_streams(outputs: Sequence[NotebookNode]) -> Iterator[NotebookNode]:
    """Join neighboring outputs to the same stream: how a kernel cuts them is chance."""
    pending: NotebookNode | None = None
    for output in outputs:
        same = pending is not None and output.output_type == "stream" == pending.output_type
        if pending is not None and same and output.name == pending.name:
            pending.text += output.text
            continue
        if pending is not None:
            yield pending
        pending = copy.deepcopy(output)
    if pending is not None:
        yield pending


def to_text(notebook: NotebookNode) -> str:
    """The notebook as the text that is written to its file."""
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


# ---------------------------------------------------------------- running


def execute(path: Path, timeout: float = 120) -> NotebookNode:
    """Run all cells of a notebook in a fresh kernel and return it in normal form.

    Args:
        path: the notebook; it is not changed.
        timeout: seconds that one cell may take.

    Raises:
        NotebookFailed: if the file is no notebook, or if a cell raises (and is not tagged
            `raises-exception`), takes too long, or kills its kernel.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:  # not JSON is a ValueError, too
        raise NotebookFailed(f"{path}: not a notebook that can be read: {error}") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(path.resolve().parent)}},
        record_timing=False,
        store_widget_state=False,
    )
    try:
        client.execute()
    except CellTimeoutError as error:
        raise NotebookFailed(f"{path}: a cell took longer than {timeout:g} seconds") from error
    except DeadKernelError as error:
        raise NotebookFailed(f"{path}: the kernel died") from error
    except CellExecutionError as error:
        raise NotebookFailed(f"{path}: a cell raised\n{ANSI.sub('', str(error))}") from error
    return normalize(notebook)


def find_notebooks(root: Path = ROOT) -> list[Path]:
    """The notebooks that are committed with their outputs: chapters and solutions, sorted."""
    return [path for folder in FOLDERS for path in sorted((root / folder).glob("*.ipynb"))]


def _prepare_environment() -> None:
    """Kernels import the package of this checkout and use the threads that tests use."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    os.environ.setdefault("OMP_NUM_THREADS", "2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and save notebooks; return 0 if all ran to their end, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m bertlearn.engine.notebooks",
        description="Run notebooks and save them with their outputs, in one normal form.",
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: chapters and solutions")
    parser.add_argument("--timeout", type=float, default=120, help="seconds a cell (default 120)")
    options = parser.parse_args(arguments)
    _prepare_environment()
    failures = 0
    for path in options.notebooks or find_notebooks():
        start = time.perf_counter()
        try:
            text = to_text(execute(path, options.timeout))
        except NotebookFailed as error:
            print(error, file=sys.stderr)
            failures += 1
            continue
        temporary = path.with_suffix(".ipynb.new")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
        print(f"{time.perf_counter() - start:6.1f} s  {path}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

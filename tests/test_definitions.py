"""Chapters and package are one: what a chapter defines under a name of the package is that
definition, each public definition is built in one chapter, and a wrong one turns a chapter red.

Run with:  pytest tests/test_definitions.py
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests import known_wrong

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))

# The top floor of the package and the chapters that build it. Modules without a chapter yet join
# when their chapter does.
TAUGHT = {
    "tokenization": ["02"],
    "config": ["03"],
    "embeddings": ["03"],
    "attention": ["04"],
    "encoder": ["05"],
    "masking": ["06"],
    "model": ["05", "06", "07", "10"],
    "accounting": ["05"],
    "pairs": ["07"],
    "pretraining": ["08"],
    "gradients": ["09", "11"],
    "finetuning": ["10"],
}


def bare(node: ast.AST) -> str:
    """A definition as a syntax tree, docstrings aside (comments are not in it to begin with)."""
    node = ast.parse(ast.unparse(node))
    for inner in ast.walk(node):
        if isinstance(inner, (ast.FunctionDef, ast.ClassDef)):
            first = inner.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                inner.body = inner.body[1:] or [ast.Pass()]
    return ast.unparse(node)


def name_of(node: ast.stmt) -> str | None:
    """The name that a top-level statement defines, if it is a definition or a constant."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return None


def package_definitions() -> dict[str, tuple[str, str]]:
    """Name to (module, bare source) of every public definition of the top floor."""
    found = {}
    for module in TAUGHT:
        tree = ast.parse((ROOT / "bertlearn" / f"{module}.py").read_text(encoding="utf-8"))
        public = importlib.import_module(f"bertlearn.{module}").__all__
        for node in tree.body:
            if (name := name_of(node)) in public:
                found[name] = (module, bare(node))
        missing = [name for name in public if name not in found]
        assert not missing, f"{module}.__all__ names what it does not define: {missing}"
    return found


def notebook_statements(path: Path) -> list[ast.stmt]:
    """The top-level statements of all code cells, in order."""
    cells = nbformat.read(path, as_version=4).cells
    return [s for c in cells if c.cell_type == "code" for s in ast.parse(c.source).body]


PACKAGE = package_definitions()


@pytest.mark.parametrize("path", CHAPTERS + SOLUTIONS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_same_name_same_definition(path: Path) -> None:
    for node in notebook_statements(path):
        name = name_of(node)
        is_code = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        if name in PACKAGE and (is_code or name.isupper()):
            assert bare(node) == PACKAGE[name][1], f"{name} differs from the package's"


def test_every_public_definition_is_built_in_one_chapter() -> None:
    built: Counter[str] = Counter()
    where: dict[str, str] = {}
    for path in CHAPTERS:
        for node in notebook_statements(path):
            if (name := name_of(node)) in PACKAGE:
                built[name] += 1
                where[name] = path.stem[:2]
    assert {name: built[name] for name in PACKAGE} == dict.fromkeys(PACKAGE, 1)
    strays = {n: where[n] for n, (module, _) in PACKAGE.items() if where[n] not in TAUGHT[module]}
    assert not strays, f"built in another chapter than planned: {strays}"


def verified(statement: ast.stmt) -> tuple[str, list[str]] | None:
    """The id and the names of a ``verify("04.x", x)`` statement."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "verify":
        return call.args[0].value, [ast.unparse(a) for a in call.args[1:]]  # type: ignore[attr-defined]
    return None


def skeleton(path: Path, planted: bool) -> tuple[nbformat.NotebookNode, list[str]]:
    """A copy of a chapter with its imports, definitions and checks, and the ids it verifies; in
    the planted one a wrong implementation takes each definition's place before its check."""
    cells, ids = [], []
    for statement in notebook_statements(path):
        source = ast.unparse(statement)
        if check := verified(statement):
            ids.append(check[0])
            if planted:
                names = ", ".join(check[1])
                cells.append(
                    new_code_cell(
                        "from tests.known_wrong import load\n"
                        f"{names}, = load()[{check[0]!r}][0].all",
                        execution_count=1,
                    )
                )
            cells.append(
                new_code_cell(source, metadata={"tags": ["nbval-ignore-output"]}, execution_count=1)
            )
        elif isinstance(statement, (ast.Import, ast.ImportFrom)) or name_of(statement) in PACKAGE:
            cells.append(new_code_cell(source, execution_count=1))
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return new_notebook(cells=cells, metadata=kernel), ids


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_wrong_definition_turns_the_chapter_red(path: Path, tmp_path: Path) -> None:
    for kind in ("sound", "planted"):
        notebook, ids = skeleton(path, planted=kind == "planted")
        nbformat.write(notebook, tmp_path / f"{kind}.ipynb")
    assert ids, "a chapter verifies what it builds"
    assert set(ids) <= set(known_wrong.load()), "each verified definition has wrong versions"
    checks = {i for i, cell in enumerate(notebook.cells) if cell.source.startswith("verify(")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-cell-timeout=60"]
        + ["-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={tmp_path}", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    failed = re.findall(r"^FAILED \S*?(\w+)\.ipynb::Cell (\d+)", done.stdout, re.MULTILINE)
    assert {(kind, int(cell)) for kind, cell in failed} == {("planted", i) for i in checks}, (
        done.stdout + done.stderr
    )
    assert done.stdout.count("CheckFailed") >= len(checks)

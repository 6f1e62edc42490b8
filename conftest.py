"""Settings shared by all tests and by the notebooks that nbval executes.

Kernels start in the folder of their notebook: PYTHONPATH lets them import the package
of this checkout, installed or not. Two threads keep results and times comparable.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools  # noqa: F401  nbgrader imports it, and it wants to come before distutils does

ROOT = Path(__file__).resolve().parent

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OMP_NUM_THREADS", "2")

# Notebooks inside tests/ are material for tests (broken ones, too), never run by nbval.
collect_ignore_glob = ["tests/**/*.ipynb", "build/**", "my/**"]

# The order of a whole run: what is quick and basic first, what needs all the rest last.
LAST = ("test_notebooks", ".ipynb", "test_exercises", "test_grad", "test_book", "test_browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort test files into the order of a whole run; within a file nothing moves."""

    def stage(item: pytest.Item) -> int:
        name = item.path.name
        return next((i + 1 for i, part in enumerate(LAST) if part in name), 0)

    items.sort(key=stage)


def build_book(target: Path) -> Path:
    """Build the book, warnings as errors, into an empty folder; return the folder of its pages."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "."]
    command += ["--toc", "book/_toc.yml", "--path-output", str(target)]
    run = subprocess.run(
        [*command, "-q", "-W", "-n", "--keep-going"], cwd=ROOT, capture_output=True, text=True
    )
    if run.returncode:
        pytest.fail(f"the book does not build:\n{run.stdout}\n{run.stderr}", pytrace=False)
    return target / "_build" / "html"


@pytest.fixture(scope="session")
def built_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the built book: those that BERTLEARN_BUILT_BOOK names, else built now."""
    given = os.environ.get("BERTLEARN_BUILT_BOOK")
    if not given:
        return build_book(tmp_path_factory.mktemp("book"))
    if not Path(given, "index.html").is_file():
        pytest.fail(f"BERTLEARN_BUILT_BOOK={given}: no built book is there", pytrace=False)
    return Path(given).resolve()

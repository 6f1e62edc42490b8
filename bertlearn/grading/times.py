"""How long a learner waits for a check: every question, on its solution, as in a notebook.

    python -m bertlearn.grading.times [FOLDER]

FOLDER holds solved notebooks; solutions/ of the repository if it is left out.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bertlearn import checks
from bertlearn.grading.errors import NotebookError
from bertlearn.grading.judge import questions
from bertlearn.grading.notebook import read

__all__ = ["measure", "table"]

TURNS = 3
PATIENCE = 1.0  # seconds that a check should take at most


def measure(folder: Path) -> dict[str, float]:
    """Seconds of each check on the answers of a folder's notebooks: the median of three turns.

    The notebooks run in this process: give only ones that you trust.

    Raises:
        NotebookError: if an answer is missing, or the folder has no notebook.
    """
    found: dict[str, float] = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        namespace = _run(path)
        for check in questions(path.name[:2]):
            missing = [name for name in check.needs if name not in namespace]
            if missing:
                raise NotebookError(f"{path} does not define {missing[0]}")
            answers = [namespace[name] for name in check.needs]
            found[check.id] = statistics.median(_time(check, answers) for _ in range(TURNS))
    if not found:
        raise NotebookError(f"there is no solved notebook in {folder}")
    return {name: round(seconds, 4) for name, seconds in found.items()}


def _run(path: Path) -> dict[str, Any]:
    """What a notebook's cells define."""
    import matplotlib

    matplotlib.use("Agg")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in read(path).cells:
        exec(compile(cell.source, f"{path.name}, cell {cell.number}", "exec"), namespace)
    return namespace


def _time(check: checks.Check, answers: list[Any]) -> float:
    begin = time.perf_counter()
    checks.run(check, answers)
    return time.perf_counter() - begin


def table(seconds: dict[str, float]) -> str:
    """The times as text, the slow ones marked."""
    width = max(map(len, seconds))
    lines = [
        f"{name:{width}}  {took:7.3f} s{'  more than a second' if took > PATIENCE else ''}"
        for name, took in seconds.items()
    ]
    median = statistics.median(seconds.values())
    slow = sum(took > PATIENCE for took in seconds.values())
    lines.append(f"{len(seconds)} questions, median {median:.3f} s, {slow} over {PATIENCE:g} s")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "solutions"
    try:
        print(table(measure(given)))
    except NotebookError as error:
        raise SystemExit(f"bertlearn: {error}") from None


if __name__ == "__main__":
    main()

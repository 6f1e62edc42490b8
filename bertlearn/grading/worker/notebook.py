"""What a cell finds where Jupyter would be: nothing to show, no one to ask, no shell."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

__all__ = ["new_main"]


class NoJupyter:
    """Stands for ``get_ipython()``: magics that only time or hide a cell still run it."""

    def __init__(self, names: dict[str, Any]):
        self._names = names

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        """Run the cell under ``%%time`` and the like; ignore other magics."""
        if name in ("time", "timeit", "capture", "prun"):
            where = sys._getframe(1).f_code.co_filename  # the cell, whose first line is the magic
            exec(compile("\n" + cell, where, "exec", dont_inherit=True), self._names)

    def run_line_magic(self, name: str, line: str, **options: Any) -> None:
        """Run the statement after ``%time`` and the like; ignore other magics."""
        if name in ("time", "timeit", "prun"):
            where = sys._getframe(1).f_code.co_filename
            exec(compile(line, where, "exec", dont_inherit=True), self._names)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def _display(*args: Any, **kwargs: Any) -> None:
    """A picture that no one looks at."""


def _input(prompt: str = "") -> str:
    raise EOFError("input() has no one to ask while the notebook is graded: use a constant")


def new_main() -> ModuleType:
    """A fresh ``__main__`` for the cells."""
    main = ModuleType("__main__")
    names = main.__dict__
    jupyter = NoJupyter(names)
    names.update(get_ipython=lambda: jupyter, display=_display, input=_input)
    return main

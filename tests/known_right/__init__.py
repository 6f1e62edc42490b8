"""Right answers written another way than those in solutions/, one module a chapter.

Each module `chNN_topic.py` has a dictionary

    RIGHT = {"04.causal_mask": [Right("from a table of distances", implementation), ...]}

with at least one entry a question. A check that refuses one of them is at fault, not the answer:
`tests/test_checks.py` holds every check to giving each of them full marks, and `make mutants` asks
the judge, who sees only what crosses the line between two processes. So a module here imports
nothing of the package.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Right", "load"]


@dataclass(frozen=True)
class Right:
    """One right answer.

    Attributes:
        name: how it is written, in a few words.
        implementations: what is handed to the check, in the order of its ``needs``; a check that
            needs one thing may be given that thing alone.
    """

    name: str
    implementations: Callable | Sequence[Any]

    @property
    def all(self) -> tuple[Any, ...]:
        """The implementations as a tuple."""
        if isinstance(self.implementations, (list, tuple)):
            return tuple(self.implementations)
        return (self.implementations,)


def load() -> dict[str, list[Right]]:
    """The right answers of all chapters, by the id of the check."""
    found: dict[str, list[Right]] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        for check_id, answers in importlib.import_module(f"{__name__}.{module.name}").RIGHT.items():
            found.setdefault(check_id, []).extend(answers)
    return found

"""Wrong implementations from real misconceptions, one module a chapter.

Each module `chNN_topic.py` has a dictionary

    WRONG = {"04.causal_mask": [Wrong("what was misunderstood", implementation, "fragment"), ...]}

with at least three entries a check. `tests/test_checks.py` holds every check to rejecting each of
them with the message meant for it; `book/common_mistakes.md` is made from them (`make mistakes`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Wrong", "load"]


@dataclass(frozen=True)
class Wrong:
    """One wrong answer.

    Attributes:
        name: the misconception in a few words, for a reader: "softmax over the queries".
        implementations: what is handed to the check, in the order of its ``needs``; a check that
            needs one thing may be given that thing alone.
        fragment: words that the failure's message must contain.
    """

    name: str
    implementations: Callable | Sequence[Any]
    fragment: str

    @property
    def all(self) -> tuple[Any, ...]:
        """The implementations as a tuple."""
        if isinstance(self.implementations, (list, tuple)):
            return tuple(self.implementations)
        return (self.implementations,)


def load() -> dict[str, list[Wrong]]:
    """The wrong answers of all chapters, by the id of the check."""
    found: dict[str, list[Wrong]] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        if module.name.startswith("ch"):
            found.update(importlib.import_module(f"{__name__}.{module.name}").WRONG)
    return found

"""The behavior that each piece must show. `verify` in chapters, `check` in exercises."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

from bertlearn.checks.core import REGISTRY, Check, CheckFailed, Failed, Result, Toolbox, run

__all__ = ["Check", "CheckFailed", "Failed", "Result", "Toolbox", "check", "find", "run", "verify"]

CHAPTERS = {
    "02": "ch02_tokenization",
    "03": "ch03_embeddings",
    "04": "ch04_attention",
    "05": "ch05_encoder",
    "91": "ch91_own_attention",
    "06": "ch06_masked_lm",
    "07": "ch07_sentence_pairs",
    "08": "ch08_pretraining",
    "92": "ch92_own_masking",
    "09": "ch09_cls_gradient",
    "10": "ch10_finetuning",
    "11": "ch11_gradient_view",
    "93": "ch93_own_head",
}

# The projects, one at the end of each part, and the chapter after which each comes.
PROJECTS = {"91": "05", "92": "08", "93": "11"}


def load(chapter: str | None = None) -> dict[str, Check]:
    """The checks of a chapter ("04"), or of all chapters, by id."""
    for number, module in CHAPTERS.items():
        if chapter in (None, number):
            importlib.import_module(f"bertlearn.checks.{module}")
    return {name: one for name, one in REGISTRY.items() if chapter in (None, name.split(".")[0])}


def find(check_id: str) -> Check:
    """The check with this id.

    Raises:
        KeyError: if there is none; says which ids the chapter has.
    """
    chapter = check_id.split(".")[0]
    known = load(chapter) if chapter in CHAPTERS else load()
    if check_id not in known:
        raise KeyError(f"no check {check_id!r}: there are {', '.join(sorted(known))}")
    return known[check_id]


def verify(check_id: str, *implementations: Any) -> None:
    """Hold definitions of a chapter to what they must do, and say what was found to hold.

    Raises:
        CheckFailed: with the table, if a case does not hold.
    """
    result = run(find(check_id), implementations)
    if not result:
        raise CheckFailed("\n" + result.text())
    print(result.text())


def check(check_id: str, *implementations: Any, seed: int = 0) -> Result:
    """Judge an answer at once: shows a table, never raises for what the answer does.

    Returns:
        the `Result`, with ``.points`` and ``.max``.
    """
    from bertlearn.checks.show import in_notebook, show
    from bertlearn.progress import note_check

    with contextlib.redirect_stderr(sys.stdout):  # nbgrader takes all points for a line on stderr
        result = run(find(check_id), implementations, seed)
    show(result)
    note_check(check_id, result.points, result.max, result.tried, in_notebook())
    return result

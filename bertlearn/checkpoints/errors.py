"""The one error of this folder."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["CheckpointError", "few"]


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of another kind of model: one sentence says how."""


def few(names: Sequence[str], shown: int = 3) -> str:
    """The first names, and how many more there are: a message names, it does not list."""
    more = len(names) - shown
    return (", ".join(names[:shown]) or "none") + (f" and {more} more" if more > 0 else "")

"""The one error of this folder."""

from __future__ import annotations

__all__ = ["CheckpointError"]


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not of the model's kind; one sentence says which."""

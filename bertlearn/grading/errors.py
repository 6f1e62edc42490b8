"""What can go wrong in grading that is not the answer's fault."""

from __future__ import annotations

__all__ = ["ExerciseError", "GraderError", "NotebookError", "SandboxError", "SubmissionsError"]


class ExerciseError(ValueError):
    """An exercise cannot be made or found; the message says what to do."""


class NotebookError(Exception):
    """The notebook cannot be read or is not an exercise; the message says what to do."""


class GraderError(Exception):
    """The grader itself failed; no verdict on the notebook."""


class SandboxError(Exception):
    """The sandbox that was asked for is not there; the message says what to do."""


class SubmissionsError(ValueError):
    """A folder of submissions cannot be graded as asked; the message says what to do."""

"""Mutants that survive because they are as right as the answer, each with the reason.

By question, then by the lines that differ (before, after), as `python -m tests.mutation` prints
them.
"""

from __future__ import annotations

EQUIVALENT: dict[str, dict[tuple[str, str], str]] = {}

"""What can go wrong between a corpus and a model's input, as one clear sentence each."""

from __future__ import annotations


class DataError(RuntimeError):
    """Text could not be read, or token files could not be written or read; says what to do."""

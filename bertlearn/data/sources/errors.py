"""What can go wrong with a source, as one clear sentence each."""

from __future__ import annotations


class SourceError(RuntimeError):
    """A source could not be fetched, read or written; the message says what to do about it."""


class UnknownSourceError(SourceError):
    """There is no source of that name."""

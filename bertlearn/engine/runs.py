"""A run's folder: what it is, what it measured, and checkpoints from which it goes on.

    run.json             what was asked for, and with which data and versions
    metrics.jsonl        one line a record
    checkpoints/         complete states, the last two
    model/               the result, a Hugging Face directory

Everything is written beside its place first and then renamed: after a crash, a full disk or a
``kill -9`` at any moment there is the old file or the new one, never half of one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

__all__ = ["RunError", "RunFolder", "write_atomically"]

KEEP = 2  # checkpoints
_CHECKPOINT = re.compile(r"step-(\d{8})\.pt")


class RunError(RuntimeError):
    """A run cannot start, go on or save; the message says why and what to do."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        RunError: if the disk is full or the folder cannot be written; what was there stays.
    """
    with _replacing(path) as name:
        Path(name).write_bytes(content)


@contextmanager
def _replacing(path: Path) -> Iterator[str]:
    """The name of a file to write, which takes its place when it is complete, or is gone."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield name
        with open(name, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(name, path)
    except (OSError, RuntimeError) as error:
        size = Path(name).stat().st_size
        if isinstance(error, RuntimeError):  # torch wraps what its writer met
            free = shutil.disk_usage(path.parent).free
            error = OSError(errno.ENOSPC if free < 1 << 20 or size else errno.EIO, str(error))
        raise _explain(error, path, size) from None
    finally:
        Path(name).unlink(missing_ok=True)


def _explain(error: OSError, path: Path, size: int) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunError(
            f"no room for {path.name} ({size / 1e6:.1f} MB) in {path.parent}: nothing that was "
            f"there is lost. Free some space, then go on with --resume"
        )
    return RunError(f"{path} cannot be written: {error.strerror}")


class RunFolder:
    """One run's files, held by one process at a time.

    Args:
        path: the folder; it is made if it is not there.
        resume: go on with the run that is in it.

    Raises:
        RunError: if another process is using it; if it holds a run already and ``resume`` is
            False; if it holds none and ``resume`` is True.
    """

    def __init__(self, path: str | Path, resume: bool = False):
        self.path = Path(path)
        if self.path.is_file():
            raise RunError(f"{self.path} is a file: name a folder for the run")
        if resume and not (self.path / "run.json").is_file():
            raise RunError(f"there is no run in {self.path} to resume: leave --resume out")
        if not resume and (self.path / "run.json").is_file():
            raise RunError(
                f"{self.path} holds a run already: go on with --resume, or name another folder"
            )
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"{self.path} is in use by another process: wait for it") from None
        for stale in self.path.glob(".*.??????*"):
            stale.unlink()
        for stale in (self.path / "checkpoints").glob(".*"):
            stale.unlink()

    def close(self) -> None:
        """Let others use the folder."""
        self._lock.release()

    # ---- run.json

    def describe(self, facts: dict[str, Any]) -> None:
        """Write what this run is."""
        text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.path / "run.json", text.encode())

    def description(self) -> dict[str, Any]:
        """What this run is."""
        return json.loads((self.path / "run.json").read_text(encoding="utf-8"))

    # ---- metrics.jsonl

    def log(self, record: dict[str, Any]) -> None:
        """Add a line to the metrics."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The lines of the metrics; one that was cut short by a crash is left out."""
        path = self.path / "metrics.jsonl"
        found = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found

    def forget_after(self, step: int) -> None:
        """Drop records of steps that a checkpoint does not know."""
        kept = [record for record in self.records() if record["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomically(self.path / "metrics.jsonl", text.encode())

    # ---- checkpoints

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, the oldest first."""
        found = (self.path / "checkpoints").iterdir()
        return sorted(path for path in found if _CHECKPOINT.fullmatch(path.name))

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write a complete state, then drop the oldest ones.

        Raises:
            RunError: if there is no room; the checkpoints that were there stay.
        """
        path = self.path / "checkpoints" / f"step-{step:08d}.pt"
        with _replacing(path) as name:
            torch.save(state, name)
        for old in self.checkpoints()[:-KEEP]:
            old.unlink()
        return path

    def load(self) -> dict[str, Any] | None:
        """The last complete state; None if there is none yet.

        Raises:
            RunError: if it is damaged.
        """
        found = self.checkpoints()
        if not found:
            return None
        try:
            return torch.load(found[-1], weights_only=True)
        except Exception as error:
            raise RunError(
                f"{found[-1]} is damaged ({type(error).__name__}): delete it to go on from the "
                f"checkpoint before"
            ) from None

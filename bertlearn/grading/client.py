"""One worker, as the judge talks to it: a request, an answer that is data, or why there is none."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlearn.grading.errors import GraderError
from bertlearn.grading.folders import new_folder, remove
from bertlearn.grading.isolation import choose
from bertlearn.grading.package import copy_package, readable
from bertlearn.grading.processes import starter, view
from bertlearn.grading.worker import wire

__all__ = ["Died", "Limits", "Worker"]

GLANCE = 0.2  # seconds between two looks at what a worker uses
MAX_THREADS = 200


@dataclass(frozen=True)
class Limits:
    """What a worker may use.

    Attributes:
        cell_seconds: for one cell.
        call_seconds: for one call; None: as the question says.
        question_seconds: for all calls of a question; None: 60, or three of its longest calls.
        notebook_seconds: for all that a notebook's code does.
        cpu_seconds: processor time of a worker in all.
        memory: bytes beyond what the interpreter with torch needs.
        file_bytes, scratch_bytes: for one file, and for all files together.
        deaths, deaths_a_question: how many workers may be used up.
        sandbox: "auto", "none", "landlock" or "bwrap", see `isolation.choose`.
    """

    cell_seconds: float = 30.0
    call_seconds: float | None = None
    question_seconds: float | None = None
    notebook_seconds: float = 900.0
    cpu_seconds: int = 300
    memory: int = 2 << 30
    file_bytes: int = 64 << 20
    scratch_bytes: int = 256 << 20
    deaths: int = 8
    deaths_a_question: int = 2
    sandbox: str = "auto"


class Died(Exception):
    """The worker is gone, or has been ended because it did not answer."""


class TooMuch(Exception):
    """The worker uses more than it may; the message is for the person whose code it runs."""


# ---- one worker -------------------------------------------------------------------------
class Worker:
    """A process that holds one learner's cells.

    Args:
        hides: definitions of the package that do not exist in it.
        forbids: operators that answers may not call there.
        limits: what it may use.
        preload: libraries that its cells are likely to import.

    Raises:
        GraderError: if it does not come to life, or not in the sandbox that was chosen.
        SandboxError: if a sandbox is asked for that is not there.
    """

    def __init__(
        self,
        hides: Sequence[str] = (),
        forbids: Sequence[str] = (),
        limits: Limits | None = None,
        preload: Sequence[str] = (),
    ):
        self.limits = limits or Limits()
        self.reason = ""  # why it died
        self.kind = choose(self.limits.sandbox)
        self.sandbox: list[str] = []
        self.folder = new_folder()
        self.scratch = self.folder / "scratch"
        self._clean = weakref.finalize(self, remove, self.folder)
        self.starter = starter(self.kind)
        self.channel: socket.socket | None = None
        try:
            settings = self._settings(hides, forbids)
            self.channel, self.number = self.starter.start(preload, settings)
            self.channel.sendall(json.dumps(settings).encode() + b"\n")
            end = time.monotonic() + 60
            ready, _ = wire.receive(lambda count: self._read(count, end))
            self.sandbox = self._held(ready["ready"])
        except BaseException as error:
            if self.channel is not None:
                self.starter.end(self.number, 0)
            self._remove()
            if isinstance(error, (OSError, wire.WireError, KeyError, TypeError)):
                said = f"{error}{self.starter.complaint()}"
                raise GraderError(f"no worker could be started: {said}") from error
            raise

    def _held(self, done: list[str]) -> list[str]:
        """What the worker has done to itself, if that is what was chosen."""
        word = {"landlock": "Landlock", "bwrap": "bubblewrap", "none": ""}[self.kind]
        if not any(measure.startswith(word) for measure in done or [""]):
            raise GraderError(f"a worker could not enter its sandbox ({word})")
        return done

    def _settings(self, hides: Sequence[str], forbids: Sequence[str]) -> dict[str, Any]:
        from bertlearn.data.sources.cache import VARIABLE, cache_dir

        package, scratch = self.folder / "package", self.scratch
        package.mkdir()
        scratch.mkdir()
        copy_package(package, hides)
        cache_folder = str(cache_dir())
        return {
            "package": str(package),
            "scratch": str(scratch),
            "environment": {VARIABLE: cache_folder},
            "read": [*readable(), str(view()), str(package), cache_folder],
            "write": [str(scratch)],
            "forbids": list(forbids),
            "memory": self.limits.memory,
            "cpu_seconds": self.limits.cpu_seconds,
            "file_bytes": self.limits.file_bytes,
            "scratch_bytes": self.limits.scratch_bytes,
            "sandbox": self.kind,
        }

    def ask(
        self, request: dict[str, Any], buffers: list[bytes], seconds: float, late: str = ""
    ) -> Any:
        """Send a request and wait for its answer.

        Args:
            late: what to say if it does not come in time.

        Returns:
            the answer's body and buffers, not yet decoded: ``{"value": ...}`` or
            ``{"error": ...}``.

        Raises:
            Died: if no answer that can be read comes in time.
        """
        if self.reason or self.channel is None:
            raise Died(self.reason)
        number = secrets.token_hex(8)
        end = time.monotonic() + seconds
        try:
            wire.send(lambda raw: self._write(raw, end), {**request, "id": number}, buffers)
            body, back = wire.receive(lambda count: self._read(count, end))
            if type(body) is not dict or body.get("id") != number:
                raise wire.WireError("an answer to another question")
        except TooMuch as excess:
            self._die(str(excess), 0)
        except TimeoutError:
            no_answer = f"your code did not answer within {seconds:g} s: does a loop never end?"
            self._die(late or no_answer, 0)
        except OSError:
            self._die("", 1.0)
        except wire.WireError as error:
            self._die(f"your code's process sent {error}", 0)
        return body, back

    def close(self) -> None:
        """End the process and remove its folder."""
        if not self.reason:
            with contextlib.suppress(Died):
                self._die("ended", 0)

    # ---- helpers ------------------------------------------------------------------------
    def _write(self, raw: bytes, end: float) -> None:
        assert self.channel is not None
        self.channel.settimeout(self._time_left(end))
        self.channel.sendall(raw)

    def _read(self, count: int, end: float) -> bytes:
        assert self.channel is not None
        data = bytearray()
        while len(data) < count:
            left = self._time_left(end)
            self.channel.settimeout(min(left, GLANCE))
            try:
                chunk = self.channel.recv(min(count - len(data), 1 << 20))
            except TimeoutError:
                self._glance()
                continue
            if not chunk:
                raise ConnectionError("the worker has ended")
            data += chunk
        return bytes(data)

    def _time_left(self, end: float) -> float:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _glance(self) -> None:
        """Look at what no limit of the system counts."""
        if "scratch in memory" not in self.sandbox and _size(self.scratch) > (
            most := self.limits.scratch_bytes
        ):
            raise TooMuch(f"your code wrote more than {most >> 20} MB of files")
        if _threads(self.number) > MAX_THREADS:
            raise TooMuch(f"your code started more than {MAX_THREADS} threads")

    def _die(self, reason: str, wait: float) -> None:
        """End the process for this reason, or for the one that its exit status gives."""
        try:
            status = self.starter.end(self.number, wait)
        except (OSError, ValueError) as error:
            raise GraderError(f"a worker could not be ended: {error}") from error
        finally:
            self._remove()
        self.reason = reason or _exit_reason(status, self.limits)
        raise Died(self.reason)

    def _remove(self) -> None:
        if self.channel is not None:
            self.channel.close()
        self._clean()


def _size(folder: Path) -> int:
    """Bytes of the files in a folder. A file counts for at least one block."""
    total, folders = 0, [str(folder)]
    while folders and total < 1 << 40:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    total += max(entry.stat(follow_symlinks=False).st_size, 4096)
    return total


def _threads(process: int) -> int:
    """Threads of a process and of those that it started (Linux); stops counting at too many."""
    count, processes = 0, [str(process)]
    while processes and count <= MAX_THREADS:
        folder = f"/proc/{processes.pop()}/task"
        with contextlib.suppress(OSError):
            for thread in os.listdir(folder)[: MAX_THREADS + 1]:
                count += 1
                processes += Path(folder, thread, "children").read_text().split()
    return count


def _exit_reason(status: int, limits: Limits) -> str:
    """What an exit status means to the person whose code it was."""
    if status == -getattr(signal, "SIGXCPU", 0):
        return f"your code used more than {limits.cpu_seconds} s of processor time"
    if status in (-getattr(signal, "SIGSEGV", 0), -getattr(signal, "SIGABRT", 0)):
        return f"your code crashed its process ({signal.Signals(-status).name})"
    if status < 0:
        return f"your code ended its process ({signal.Signals(-status).name})"
    return f"your code ended its process (exit code {status})"

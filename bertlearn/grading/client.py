"""One worker, as the judge talks to it: a request, an answer that is data, or why there is none."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import socket
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlearn.grading.errors import GraderError
from bertlearn.grading.package import copy_package, readable
from bertlearn.grading.processes import starter, view
from bertlearn.grading.worker import wire

__all__ = ["Died", "Limits", "Worker"]


@dataclass(frozen=True)
class Limits:
    """What a worker may use.

    Attributes:
        cell_seconds: for one cell.
        call_seconds: for one call; None: as the question says.
        cpu_seconds: processor time of a worker in all.
        memory: bytes beyond what the interpreter with torch needs.
        file_bytes: for one file.
        deaths, deaths_a_question: how many workers may be used up.
        sandbox: "auto" or "none".
    """

    cell_seconds: float = 30.0
    call_seconds: float | None = None
    cpu_seconds: int = 300
    memory: int = 2 << 30
    file_bytes: int = 64 << 20
    deaths: int = 8
    deaths_a_question: int = 2
    sandbox: str = "auto"


class Died(Exception):
    """The worker is gone, or has been ended because it did not answer."""


# ---- one worker -------------------------------------------------------------------------
class Worker:
    """A process that holds one learner's cells.

    Args:
        hides: definitions of the package that do not exist in it.
        forbids: operators that answers may not call there.
        limits: what it may use.
        preload: libraries that its cells are likely to import.

    Raises:
        GraderError: if it does not come to life.
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
        self.folder = Path(tempfile.mkdtemp(prefix="bertlearn-grade-"))
        self._clean = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.starter = starter()
        self.channel: socket.socket | None = None
        try:
            settings = json.dumps(self._settings(hides, forbids)).encode()
            self.channel, self.number = self.starter.start(preload)
            self.channel.sendall(settings + b"\n")
            ready, _ = wire.receive(lambda count: self._read(count, time.monotonic() + 60))
            self.sandbox: list[str] = ready["ready"]
        except BaseException as error:
            self._remove()
            if self.channel is not None:
                self.starter.end(self.number, 0)
            if isinstance(error, (OSError, wire.WireError, KeyError, TypeError)):
                said = f"{error}{self.starter.complaint()}"
                raise GraderError(f"no worker could be started: {said}") from error
            raise

    def _settings(self, hides: Sequence[str], forbids: Sequence[str]) -> dict[str, Any]:
        from bertlearn.data.sources.cache import VARIABLE, cache_dir

        package, scratch = self.folder / "package", self.folder / "scratch"
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
            "sandbox": self.limits.sandbox,
        }

    def ask(self, request: dict[str, Any], buffers: list[bytes], seconds: float) -> Any:
        """Send a request and wait for its answer.

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
        except TimeoutError:
            self._die(f"your code did not answer within {seconds:g} s: does a loop never end?", 0)
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
        self._time_left(end)
        self.channel.sendall(raw)

    def _read(self, count: int, end: float) -> bytes:
        assert self.channel is not None
        data = bytearray()
        while len(data) < count:
            self._time_left(end)
            chunk = self.channel.recv(min(count - len(data), 1 << 20))
            if not chunk:
                raise ConnectionError("the worker has ended")
            data += chunk
        return bytes(data)

    def _time_left(self, end: float) -> None:
        assert self.channel is not None
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.channel.settimeout(left)

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


def _exit_reason(status: int, limits: Limits) -> str:
    """What an exit status means to the person whose code it was."""
    if status == -getattr(signal, "SIGXCPU", 0):
        return f"your code used more than {limits.cpu_seconds} s of processor time"
    if status in (-getattr(signal, "SIGSEGV", 0), -getattr(signal, "SIGABRT", 0)):
        return f"your code crashed its process ({signal.Signals(-status).name})"
    if status < 0:
        return f"your code ended its process ({signal.Signals(-status).name})"
    return f"your code ended its process (exit code {status})"

"""Start worker processes and talk to them; what comes back is data or a reason why not.

On Linux one fork server imports torch once and forks workers from then on; elsewhere each worker
is a fresh process. Both run this interpreter isolated (``-I -S``) with a scrubbed environment.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bertlearn.grading.errors import GraderError
from bertlearn.grading.package import copy_package, library_view, readable
from bertlearn.grading.worker import wire

__all__ = ["Died", "Limits", "Worker"]

FOLDER = Path(__file__).resolve().parent / "worker"
BOOT = """
import importlib.util as u, sys
sys.path.append(sys.argv[1])
s = u.spec_from_file_location(
    "bertlearn_worker", sys.argv[2] + "/__init__.py", submodule_search_locations=[sys.argv[2]]
)
sys.modules[s.name] = m = u.module_from_spec(s)
s.loader.exec_module(m)
from bertlearn_worker.start import main
main(sys.argv[3:])
"""


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


def _environment() -> dict[str, str]:
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        **threads,
        "MPLBACKEND": "Agg",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@cache
def _view() -> Path:
    """The folder from which workers import libraries, for the life of this process."""
    folder = Path(tempfile.mkdtemp(prefix="bertlearn-view-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return library_view(folder)


class Interpreter:
    """A worker's interpreter, and what it complains about before a worker has come to life."""

    def __init__(self, *arguments: str, **options: Any):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", BOOT, str(_view()), str(FOLDER), *arguments],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            start_new_session=True,
            **options,
        )

    def complaint(self) -> str:
        """The last line on its error output, for a message; "" if there is none."""
        self.errors.seek(0)
        lines = self.errors.read(1 << 20).decode("utf-8", "replace").strip().splitlines()
        return f" ({lines[-1]})" if lines else ""


# ---- the two ways to start a worker -----------------------------------------------------
class ForkServer:
    """One process that has imported torch and forks workers (Linux)."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        self.control.settimeout(60)
        self.python = Interpreter("fork_server", str(theirs.fileno()), pass_fds=(theirs.fileno(),))
        theirs.close()

    def start(self) -> tuple[socket.socket, int]:
        """A new worker: its channel and its number."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.control, [b"{}"], [theirs.fileno()])
        return ours, self._answer()

    def end(self, number: int, wait: float) -> int:
        """End a worker and all that it started; its exit status."""
        self.control.sendall(json.dumps({"end": number, "wait": wait}).encode())
        return self._answer()

    def _answer(self) -> int:
        data = bytearray()
        while not data.endswith(b"\n"):
            chunk = self.control.recv(64)
            if not chunk:
                raise OSError(f"the process that starts workers ended{self.python.complaint()}")
            data += chunk
        return int(data)


class Single:
    """A fresh process for each worker (macOS, Windows)."""

    def __init__(self) -> None:
        self.running: dict[int, Interpreter] = {}

    def start(self) -> tuple[socket.socket, int]:
        """A new worker: its channel and its number."""
        token = secrets.token_hex(16)
        with socket.create_server(("127.0.0.1", 0)) as door:
            door.settimeout(0.2)
            python = Interpreter("single", str(door.getsockname()[1]), token)
            while python.process.poll() is None:
                with contextlib.suppress(TimeoutError):
                    channel, _ = door.accept()
                    channel.settimeout(10)
                    if channel.makefile("rb").read(len(token)) == token.encode():
                        self.running[python.process.pid] = python
                        return channel, python.process.pid
                    channel.close()
        raise OSError(f"a worker ended before it began{python.complaint()}")

    def end(self, number: int, wait: float) -> int:
        """End a worker and its session; its exit status."""
        process = self.running.pop(number).process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
            os.killpg(number, signal.SIGKILL)
        process.kill()
        return process.wait()


@cache
def _starter(kind: str) -> ForkServer | Single:
    return ForkServer() if kind == "fork" else Single()


def starter() -> ForkServer | Single:
    """How workers start on this system; a fork server that has ended is replaced."""
    kind = "fork" if sys.platform.startswith("linux") else "single"
    found = _starter(kind)
    if isinstance(found, ForkServer) and found.python.process.poll() is not None:
        _starter.cache_clear()
        found = _starter(kind)
    return found


# ---- one worker -------------------------------------------------------------------------
class Worker:
    """A process that holds one learner's cells.

    Args:
        hides: definitions of the package that do not exist in it.
        forbids: operators that answers may not call there.
        limits: what it may use.

    Raises:
        GraderError: if it does not come to life.
    """

    def __init__(self, hides: tuple[str, ...], forbids: tuple[str, ...], limits: Limits):
        self.limits = limits
        self.reason = ""  # why it died
        self.folder = Path(tempfile.mkdtemp(prefix="bertlearn-grade-"))
        self.starter = starter()
        self.channel: socket.socket | None = None
        try:
            settings = json.dumps(self._settings(hides, forbids)).encode()
            self.channel, self.number = self.starter.start()
            self.channel.sendall(settings + b"\n")
            ready, _ = wire.receive(lambda count: self._read(count, time.monotonic() + 60))
            self.sandbox: list[str] = ready["ready"]
        except (OSError, wire.WireError, KeyError, TypeError) as error:
            self._remove()
            raise GraderError(f"no worker could be started: {error}") from error
        except BaseException:
            self._remove()
            raise

    def _settings(self, hides: tuple[str, ...], forbids: tuple[str, ...]) -> dict[str, Any]:
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
            "read": [*readable(), str(_view()), str(package), cache_folder],
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
        shutil.rmtree(self.folder, ignore_errors=True)


def _exit_reason(status: int, limits: Limits) -> str:
    """What an exit status means to the person whose code it was."""
    if status == -getattr(signal, "SIGXCPU", 0):
        return f"your code used more than {limits.cpu_seconds} s of processor time"
    if status in (-getattr(signal, "SIGSEGV", 0), -getattr(signal, "SIGABRT", 0)):
        return f"your code crashed its process ({signal.Signals(-status).name})"
    if status < 0:
        return f"your code ended its process ({signal.Signals(-status).name})"
    return f"your code ended its process (exit code {status})"

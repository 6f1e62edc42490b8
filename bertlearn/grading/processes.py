"""Start and end the processes in which learners' code runs. Imports no torch: it is started early.

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
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bertlearn.grading.package import library_view

__all__ = ["ForkServer", "Single", "starter", "view"]

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


def _environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        **threads,
        "MPLBACKEND": "Agg",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@cache
def view() -> Path:
    """The folder from which workers import libraries, for the life of this process."""
    folder = Path(tempfile.mkdtemp(prefix="bertlearn-view-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return library_view(folder)


class Interpreter:
    """A worker's interpreter, and what it complains about before a worker has come to life."""

    def __init__(self, *arguments: str, **options: Any):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", BOOT, str(view()), str(FOLDER), *arguments],
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

    def start(self, preload: Sequence[str] = ()) -> tuple[socket.socket, int]:
        """A new worker: its channel and its number.

        Args:
            preload: libraries that it will need: imported before the fork, once for all.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            message = json.dumps({"preload": list(preload)}).encode()
            socket.send_fds(self.control, [message], [theirs.fileno()])
        return ours, self._answer()

    def end(self, number: int, wait: float) -> int:
        """End a worker and all that it started; its exit status."""
        self.control.sendall(json.dumps({"end": number, "wait": wait}).encode())
        return self._answer()

    def complaint(self) -> str:
        """What a worker said last before it came to life."""
        return self.python.complaint()

    def _answer(self) -> int:
        data = bytearray()
        while not data.endswith(b"\n"):
            chunk = self.control.recv(64)
            if not chunk:
                raise OSError("the process that starts workers has ended")
            data += chunk
        return int(data)


class Single:
    """A fresh process for each worker (macOS, Windows)."""

    def __init__(self) -> None:
        self.running: dict[int, Interpreter] = {}
        self.last: Interpreter | None = None

    def start(self, preload: Sequence[str] = ()) -> tuple[socket.socket, int]:
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
        self.last = python
        raise OSError("a worker ended before it began")

    def complaint(self) -> str:
        """What a worker said last before it came to life."""
        return self.last.complaint() if self.last is not None else ""

    def end(self, number: int, wait: float) -> int:
        """End a worker and its session; its exit status."""
        self.last = self.running.pop(number)
        process = self.last.process
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
    """How workers start on this system. The first call starts the fork server where there is one;
    one that has ended is replaced."""
    kind = "fork" if sys.platform.startswith("linux") else "single"
    found = _starter(kind)
    if isinstance(found, ForkServer) and found.python.process.poll() is not None:
        _starter.cache_clear()
        found = _starter(kind)
    return found

"""Start and end the processes in which learners' code runs. Imports no torch: it is started early.

On Linux one fork server imports torch once and forks workers from then on; in bubblewrap, and on
other systems, each worker is a fresh process. All run this interpreter isolated (``-I -S``) with a
scrubbed environment.
"""

from __future__ import annotations

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
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bertlearn.grading.folders import workshop
from bertlearn.grading.package import library_view
from bertlearn.grading.worker import landlock

__all__ = ["Bubblewrap", "ForkServer", "Single", "Starter", "starter", "view"]

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


def view() -> Path:
    """The folder from which workers import libraries, for the life of this process."""
    return _view(workshop())


@cache
def _view(place: Path) -> Path:
    folder = place / "libraries"
    folder.mkdir()
    return library_view(folder)


class Interpreter:
    """A worker's interpreter, and what it complains about before a worker has come to life.

    Args:
        arguments: for the worker's ``main``.
        before: a command that runs it.
        options: of `subprocess.Popen`.
    """

    def __init__(self, *arguments: str, before: Sequence[str] = (), **options: Any):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        python = os.path.realpath(sys.executable) if before else sys.executable
        own = [python, "-I", "-S", "-c", BOOT, str(view()), str(FOLDER), *arguments]
        self.process = subprocess.Popen(
            [*before, *own],
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


# ---- the ways to start a worker ---------------------------------------------------------
class Starter:
    """Starts workers and ends them."""

    def start(
        self, preload: Sequence[str] = (), settings: dict[str, Any] | None = None
    ) -> tuple[socket.socket, int]:
        """A new worker: its channel and its number.

        Args:
            preload: libraries that it will need: imported before the fork where there is one.
            settings: the worker's, as in `sandbox.enter`.
        """
        raise NotImplementedError

    def end(self, number: int, wait: float) -> int:
        """End a worker and all that it started; its exit status.

        Args:
            wait: seconds that it may take to go by itself.
        """
        raise NotImplementedError

    def complaint(self) -> str:
        """What a worker said last before it came to life."""
        raise NotImplementedError


class ForkServer(Starter):
    """One process that has imported torch and forks workers (Linux)."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.control, theirs = socket.socketpair()
        self.control.settimeout(60)
        self.python = Interpreter("fork_server", str(theirs.fileno()), pass_fds=(theirs.fileno(),))
        theirs.close()

    def start(
        self, preload: Sequence[str] = (), settings: dict[str, Any] | None = None
    ) -> tuple[socket.socket, int]:
        """See `Starter`."""
        ours, theirs = socket.socketpair()
        with self.turn, theirs:
            message = json.dumps({"preload": list(preload)}).encode()
            socket.send_fds(self.control, [message], [theirs.fileno()])
            return ours, self._answer()

    def end(self, number: int, wait: float) -> int:
        """See `Starter`."""
        with self.turn:
            self.control.sendall(json.dumps({"end": number, "wait": wait}).encode())
            return self._answer()

    def complaint(self) -> str:
        """See `Starter`."""
        return self.python.complaint()

    def _answer(self) -> int:
        data = bytearray()
        while not data.endswith(b"\n"):
            chunk = self.control.recv(64)
            if not chunk:
                raise OSError("the process that starts workers has ended")
            data += chunk
        return int(data)


class Single(Starter):
    """A fresh process for each worker (macOS, Windows)."""

    def __init__(self) -> None:
        self.running: dict[int, Interpreter] = {}
        self.last: Interpreter | None = None

    def start(
        self, preload: Sequence[str] = (), settings: dict[str, Any] | None = None
    ) -> tuple[socket.socket, int]:
        """See `Starter`."""
        token = secrets.token_hex(16)
        with socket.create_server(("127.0.0.1", 0)) as door:
            door.settimeout(0.2)
            python = Interpreter("connect", str(door.getsockname()[1]), token)
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
        """See `Starter`."""
        return self.last.complaint() if self.last is not None else ""

    def end(self, number: int, wait: float) -> int:
        """See `Starter`."""
        self.last = self.running.pop(number)
        process = self.last.process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
            os.killpg(number, signal.SIGKILL)
        process.kill()
        return process.wait()


class Bubblewrap(Single):
    """A fresh process for each worker, in a bubblewrap of its own (Linux)."""

    def start(
        self, preload: Sequence[str] = (), settings: dict[str, Any] | None = None
    ) -> tuple[socket.socket, int]:
        """See `Starter`."""
        assert settings is not None
        ours, theirs = socket.socketpair()
        with theirs:
            python = Interpreter(
                "inherit",
                str(theirs.fileno()),
                before=_bubblewrap(settings),
                pass_fds=(theirs.fileno(),),
            )
        self.running[python.process.pid] = self.last = python
        return ours, python.process.pid

    def end(self, number: int, wait: float) -> int:
        """See `Starter`. Bubblewrap tells of a signal as a shell does: 128 and its number."""
        status = super().end(number, wait)
        return 128 - status if status > 128 else status


def _bubblewrap(settings: dict[str, Any]) -> list[str]:
    """The command before the interpreter's: nothing is there but what a worker may read, and
    nothing can be written but the scratch folder."""
    program = shutil.which("bwrap")
    if program is None:
        raise OSError("bubblewrap is not installed")
    command = [program, "--unshare-all", "--die-with-parent", "--new-session"]
    bound = {os.path.realpath(sys.executable), str(FOLDER), *settings["read"]}
    for place in sorted(bound):
        if not place.startswith(("/proc/", "/sys/")) and os.path.exists(place):
            command += ["--ro-bind", place, place]
    for folder in ("/lib", "/lib64"):  # where programs look for the loader
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        for loader in Path(folder).glob("ld-*.so.*"):
            place = os.path.join(os.path.realpath(folder), loader.name)
            command += ["--ro-bind", os.path.realpath(loader), place]
    for device in landlock.DEVICES:
        command += ["--dev-bind", device, device]
    command += ["--proc", "/proc", "--size", str(settings["scratch_bytes"])]
    return [*command, "--tmpfs", settings["scratch"], "--remount-ro", "/", "--"]


@cache
def _starter(kind: str, process: int) -> Starter:
    return {"fork": ForkServer, "bwrap": Bubblewrap, "single": Single}[kind]()


def starter(sandbox: str = "landlock") -> Starter:
    """How workers start on this system, in this sandbox ("landlock", "bwrap" or "none").

    The first call starts the fork server where there is one; one that has ended is replaced.
    """
    kind = "fork" if sys.platform.startswith("linux") else "single"
    kind = "bwrap" if sandbox == "bwrap" else kind
    found = _starter(kind, os.getpid())
    if isinstance(found, ForkServer) and found.python.process.poll() is not None:
        _starter.cache_clear()
        found = _starter(kind, os.getpid())
    return found

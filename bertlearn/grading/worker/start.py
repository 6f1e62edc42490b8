"""How a worker process comes to life.

`fork_server` (Linux) imports torch once and then forks a worker for each request, which takes
milliseconds; it never runs a line of a learner's itself. Since it adopts orphans, it also ends
what a worker left behind. `inherit` (in bubblewrap) and `connect` (elsewhere) are one process for
one worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from typing import Any

import torch

from . import sandbox, wire
from .serve import Server

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MAX_ROUNDS = 10_000


def main(arguments: list[str]) -> None:
    """Entry: ``fork_server FD``, ``inherit FD`` or ``connect PORT TOKEN``."""
    torch.set_num_threads(1)
    kind, place, *rest = arguments
    if kind == "fork_server":
        _fork_server(socket.socket(fileno=int(place)))
    elif kind == "inherit":
        _work(socket.socket(fileno=int(place)))
    else:
        channel = socket.create_connection(("127.0.0.1", int(place)))
        channel.sendall(rest[0].encode())
        _work(channel)


# ---- one worker -------------------------------------------------------------------------
def _work(channel: socket.socket) -> None:
    """Read the settings, shut the doors, say what holds, serve until the judge hangs up."""
    settings = _read_line(channel)
    os.chdir(settings["scratch"])
    home = dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), settings["scratch"])
    os.environ.update({**home, **settings["environment"]})
    tempfile.tempdir = None
    sys.path.insert(0, settings["package"])
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    done = sandbox.enter(settings)
    if "no processes" in done:
        for name in ("fork", "forkpty"):  # the kernel's refusal, in words
            setattr(os, name, _no_processes)

    def read(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = channel.recv(min(count - len(data), 1 << 20))
            if not chunk:
                os._exit(0)
            data += chunk
        return bytes(data)

    server = Server(read, channel.sendall, settings["forbids"])
    os.dup2(nothing, 2)  # until here complaints reach the judge
    wire.send(channel.sendall, {"ready": done})
    server.serve()


def _no_processes() -> int:
    raise PermissionError("no process can be started while a notebook is graded: do without")


def _read_line(channel: socket.socket) -> dict[str, Any]:
    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = channel.recv(1)
        if not chunk:
            os._exit(0)
        data += chunk
    return json.loads(data)


# ---- many workers -----------------------------------------------------------------------
def _fork_server(control: socket.socket) -> None:
    """Fork a worker for each ``{"preload": libraries}`` that comes with a socket for it; end one,
    with all that it started, on ``{"end": pid, "wait": seconds}``, giving it that long to go by
    itself. Each is answered by one line of JSON, the worker's pid or its exit status."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    workers: set[int] = set()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1 << 12, 1)
        if not data:
            for pid in workers:
                _end(pid, 0, set())
            os._exit(0)
        request = json.loads(data)
        if descriptors:
            for library in request["preload"]:
                with contextlib.suppress(ImportError):
                    importlib.import_module(library)
            answer = _fork(control, descriptors[0])
            workers.add(answer)
        else:
            workers.discard(request["end"])
            answer = _end(request["end"], request["wait"], workers)
        control.sendall(json.dumps(answer).encode() + b"\n")


def _fork(control: socket.socket, descriptor: int) -> int:
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0)))
        os.setsid()
        control.close()
        _work(socket.socket(fileno=descriptor))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


def _end(pid: int, wait: float, alive: set[int]) -> int:
    """Kill a worker, its session, and every orphan that came to us. Returns its exit status as
    `subprocess` counts it (negative: a signal)."""
    deadline = time.monotonic() + wait
    while (status := _reap(pid, os.WNOHANG)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if status is None:
        status = _reap(pid, 0)
    for _ in range(MAX_ROUNDS):
        orphans = _children() - alive
        if not orphans:
            break
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
            _reap(orphan, 0)
    return status or 0


def _reap(pid: int, options: int) -> int | None:
    """The exit status of a child; None if it still runs."""
    try:
        found, status = os.waitpid(pid, options)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


def _children() -> set[int]:
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
            found.update(map(int, file.read().split()))
    return found

"""What a worker denies itself before the learner's first line runs.

Each measure is taken where the system has it and named in what `enter` returns, so that a report
can say what held. Where there is none, the report says so.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from . import landlock, namespaces, seccomp

__all__ = ["enter"]

TASKS = 64
LINUX = sys.platform.startswith("linux")


def enter(settings: dict[str, Any]) -> list[str]:
    """Apply every measure there is.

    Args:
        settings: ``sandbox`` ("landlock", "bwrap": this process is in it already, or "none": no
            more than limits), ``memory`` (bytes beyond what the interpreter has now),
            ``cpu_seconds``, ``file_bytes``, ``scratch`` (a folder), ``scratch_bytes``, ``read``
            and ``write`` (paths).

    Returns:
        what was done, in words: "limits", "no network", "scratch in memory", "Landlock 7",
        "bubblewrap", "no processes".
    """
    kind = settings["sandbox"]
    done: list[str] = []
    if kind == "landlock" and LINUX:
        done = namespaces.leave(settings["scratch"], settings["scratch_bytes"])
    elif kind == "bwrap":
        done = ["bubblewrap", "own user", "no network", "scratch in memory"]
    if _limit(settings, own_count="own user" in done):
        done.insert(0, "limits")
    if not LINUX or kind == "none":
        return done
    namespaces.drop_capabilities()
    if kind == "landlock" and len(os.listdir("/proc/self/task")) == 1:
        version = landlock.restrict(settings["read"], settings["write"])
        done += [f"Landlock {version}"] if version else []
    if seccomp.restrict():
        done += [] if "no network" in done else ["no network"]
        done.append("no processes")
    return [measure for measure in done if measure != "own user"]


# ---- limits of the process --------------------------------------------------------------
def _limit(settings: dict[str, Any], own_count: bool) -> bool:
    """Set what the system itself limits.

    Args:
        own_count: whether the tasks of this user are counted anew in a namespace.
    """
    try:
        import resource
    except ImportError:  # not a POSIX system
        return False
    wanted = {
        "RLIMIT_AS": _address_space() + settings["memory"],
        "RLIMIT_CPU": settings["cpu_seconds"],
        "RLIMIT_FSIZE": settings["file_bytes"],
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
    }
    if LINUX:
        wanted["RLIMIT_NPROC"] = TASKS if own_count else _tasks_of_user() + TASKS
    for name, value in wanted.items():
        last = value + 5 if name == "RLIMIT_CPU" else value  # a signal that tells, then the end
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, name), (value, last))
    return True


def _address_space() -> int:
    """Bytes of address space in use: torch alone maps one to ten gigabytes."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 16 << 30


def _tasks_of_user() -> int:
    """Threads that this user runs now: the limit on processes counts all of them."""
    count = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{process}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{process}/task"))
    return count

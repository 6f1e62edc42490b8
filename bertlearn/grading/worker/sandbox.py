"""What a worker denies itself before the learner's first line runs.

Each measure is taken where the system has it and named in what `enter` returns, so that a report
can say what held: limits of the process (POSIX), no network and no access to files outside a list
(Linux: a network namespace, Landlock). Where there is neither, the report says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["enter", "landlock_version"]

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000

# Landlock's rights on files, by bit: 0 execute, 1 write, 2 read file, 3 read directory,
# 4-12 remove and make, 13 refer (version 2), 14 truncate (3), 15 device ioctl (5).
WRITE, READ_FILE, READ_DIR, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
FILE_RIGHTS = WRITE | READ_FILE | TRUNCATE


def enter(settings: dict[str, Any]) -> list[str]:
    """Apply every measure there is.

    Args:
        settings: ``memory`` (bytes beyond what the interpreter has now), ``cpu_seconds``,
            ``file_bytes``, ``read`` and ``write`` (paths), ``sandbox`` ("auto" or "none").

    Returns:
        what was done, in words: "limits", "no network", "Landlock 7".
    """
    done = ["limits"] if _limit(settings) else []
    if sys.platform.startswith("linux") and settings["sandbox"] != "none":
        if _leave_network():
            done.append("no network")
        version = _landlock(settings["read"], settings["write"])
        if version:
            done.append(f"Landlock {version}")
    return done


# ---- limits of the process --------------------------------------------------------------
def _limit(settings: dict[str, Any]) -> bool:
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
    if sys.platform.startswith("linux"):
        wanted["RLIMIT_NPROC"] = _tasks_of_user() + 64
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


# ---- network ----------------------------------------------------------------------------
def _leave_network() -> bool:
    """Move to a network namespace that has no interface.

    First choice is to make a user namespace with it, which needs no rights and leaves none over
    the machine, even to root; where that is not allowed, root can do without.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return libc.unshare(CLONE_NEWNET) == 0
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return True


# ---- files ------------------------------------------------------------------------------
class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def _syscall(number: int, *arguments: Any) -> int:
    return ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)


def landlock_version() -> int:
    """Which version of Landlock the kernel offers; 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, _syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def _landlock(read: Iterable[str], write: Iterable[str]) -> int:
    """Deny files outside the lists, TCP, and signals to processes outside. Returns the version
    of Landlock in force, 0 if there is none."""
    version = landlock_version()
    if not version:
        return 0
    rights = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        if version >= since:
            rights |= 1 << bit
    rules = _Ruleset(rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _syscall(
        CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    if ruleset < 0:
        return 0
    execute, devices = 1 << 0, 1 << 15
    for path in read:
        _allow(ruleset, path, READ_FILE | READ_DIR)
    for path in write:
        _allow(ruleset, path, rights & ~(execute | devices))
    for path in ("/dev/null", "/dev/zero", "/dev/urandom"):
        _allow(ruleset, path, WRITE | READ_FILE)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    failed = _syscall(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)
    return 0 if failed else version


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= FILE_RIGHTS
    rule = _PathRule(rights, folder)
    _syscall(
        ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(1), ctypes.byref(rule), ctypes.c_uint32(0)
    )
    os.close(folder)

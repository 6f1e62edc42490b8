"""Deny files outside a list, TCP, and signals to processes outside (Linux: Landlock)."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["restrict", "version"]

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
PR_SET_NO_NEW_PRIVS = 38
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")

# Rights on files, by bit: 0 execute, 1 write, 2 read file, 3 read directory,
# 4-12 remove and make, 13 refer (version 2), 14 truncate (3), 15 device ioctl (5).
EXECUTE, WRITE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, DEVICE_CONTROL = 1 << 14, 1 << 15
FILE_RIGHTS = WRITE | READ_FILE | TRUNCATE


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


def version() -> int:
    """Which version of Landlock the kernel offers; 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, _syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def restrict(read: Iterable[str], write: Iterable[str]) -> int:
    """Restrict this process, which must have one thread.

    Args:
        read: files and folders that may be read.
        write: folders in which anything may be done but run programs.

    Returns:
        the version of Landlock in force, 0 if there is none.
    """
    offered = version()
    if not offered:
        return 0
    rights = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        if offered >= since:
            rights |= 1 << bit
    rules = _Ruleset(rights, 3 if offered >= 4 else 0, 3 if offered >= 6 else 0)
    size = 24 if offered >= 6 else 16 if offered >= 4 else 8
    ruleset = _syscall(
        CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    if ruleset < 0:
        return 0
    for path in read:
        _allow(ruleset, path, READ_FILE | READ_DIR)
    for path in write:
        _allow(ruleset, path, rights & ~(EXECUTE | DEVICE_CONTROL))
    for path in DEVICES:
        _allow(ruleset, path, WRITE | READ_FILE)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    failed = _syscall(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)
    return 0 if failed else offered


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


def _syscall(number: int, *arguments: Any) -> int:
    return ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)

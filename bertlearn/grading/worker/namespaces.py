"""A world of its own for a worker (Linux: namespaces): no network, a scratch folder in memory.

The scratch folder becomes a file system of fixed size that exists for this process alone: nothing
that is written to it reaches the disk, or is there when the process has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

__all__ = ["drop_capabilities", "leave"]

NEW_USER, NEW_NETWORK, NEW_MOUNTS, NEW_IPC = 0x10000000, 0x40000000, 0x20000, 0x08000000
NO_SUID, NO_DEVICES, NO_EXECUTE, RECURSIVE, PRIVATE = 2, 4, 8, 0x4000, 0x40000
PR_CAPBSET_DROP = 24
CAPABILITIES_VERSION = 0x20080522
MAX_FILES = 10_000

# From all there is to the little that old or strict kernels allow. Without a user namespace only
# root can have the others.
CHOICES = (
    NEW_USER | NEW_NETWORK | NEW_MOUNTS | NEW_IPC,
    NEW_USER | NEW_NETWORK,
    NEW_NETWORK | NEW_MOUNTS | NEW_IPC,
)


def leave(scratch: str, scratch_bytes: int) -> list[str]:
    """Move to new namespaces, as far as the system allows it.

    Args:
        scratch: the folder to cover with one in memory; the working directory afterwards.
        scratch_bytes: how much it holds.

    Returns:
        what was done: "own user", "no network", "scratch in memory".
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    made = next((flags for flags in CHOICES if libc.unshare(flags) == 0), 0)
    done = []
    if made & NEW_USER:
        _map_to_itself(user, group)
        done.append("own user")
    if made & NEW_NETWORK:
        done.append("no network")
    if made & NEW_MOUNTS and _cover(scratch, scratch_bytes):
        done.append("scratch in memory")
    return done


def _map_to_itself(user: int, group: int) -> None:
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _cover(folder: str, size: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(RECURSIVE | PRIVATE)
    libc.mount(None, b"/", None, flags, None)
    flags = ctypes.c_ulong(NO_SUID | NO_DEVICES | NO_EXECUTE)
    options = f"size={size},nr_inodes={MAX_FILES},mode=700".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options) != 0:
        return False
    os.chdir(folder)
    return True


def drop_capabilities() -> bool:
    """Give up every right that root has over the machine, and that a new user namespace gave."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, *map(ctypes.c_ulong, (capability, 0, 0, 0)))
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    return libc.capset(ctypes.byref(header), ctypes.byref(none)) == 0

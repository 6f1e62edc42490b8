"""Where grading keeps its files while it runs, and how they go away whatever is in them."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import stat
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["DISK_FULL", "disk_full", "new_folder", "remove", "workshop"]

PREFIX = "bertlearn-grade-"
DISK_FULL = (
    "the disk is full: nothing is lost, but grading needs about 10 MB in the folder for temporary "
    "files (TMPDIR names another one) and a little where the report goes"
)


def disk_full(error: BaseException | None) -> bool:
    """Whether a full disk, or a used-up quota, is behind an error."""
    full = (errno.ENOSPC, errno.EDQUOT)
    while error is not None:
        if isinstance(error, OSError) and error.errno in full:
            return True
        error = error.__cause__ or error.__context__
    return False


def workshop() -> Path:
    """This process's folder for files of grading; removed when the process ends.

    What a process that was killed has left there is removed by the next one.
    """
    return _workshop(os.getpid(), tempfile.gettempdir())


@cache
def _workshop(process: int, place: str) -> Path:
    for old in Path(place).glob(PREFIX + "*"):
        if (lock := _lock(old)) is not None:
            remove(old)
            os.close(lock)
    fresh = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=place))
    _lock(fresh)
    folder = fresh.rename(fresh.with_name(fresh.name[1:]))  # not seen by others before it is held
    atexit.register(_remove_own, folder, process)
    return folder


def _remove_own(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not a child that inherited the duty
        remove(folder)


def _lock(folder: Path) -> int | None:
    """Hold the folder until this process ends; None if another one holds it, or if the system has
    no such locks."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (ImportError, OSError):
        return None
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def new_folder() -> Path:
    """A folder in the workshop, of a name that nothing else has."""
    return Path(tempfile.mkdtemp(dir=workshop()))


def remove(folder: Path) -> None:
    """Remove a folder and all that is in it, without following links.

    A folder that denies access is opened first, and a nest is taken apart from above, one level at
    a time, so that no depth and no length of a path is too much. What cannot be removed stays.
    """
    number, failed = 0, 0
    while failed == 0:
        entries = _entries(folder)
        if not entries:
            break
        for entry in entries:
            try:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, stat.S_IRWXU)
                for inner in _entries(entry.path):
                    number += 1
                    os.rename(inner.path, folder / f"up{number}-{os.getpid()}")
                os.rmdir(entry.path)
            except OSError:
                failed += 1
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _entries(folder: Any) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []

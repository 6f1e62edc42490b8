"""The cache folder: where sources live, how they are verified, and how they get in, whole or not.

CACHE/minilm-0.1.0/model.safetensors ...    a source: every file has the pinned hash
CACHE/minilm-0.1.0/.verified.json           when that was last proved, so that it stays cheap
CACHE/.locks/minilm-0.1.0.lock              one writer at a time, over all processes
CACHE/.staging-minilm-0.1.0-xxxx/           work in progress; swept by the next writer
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bertlearn.data.sources.errors import SourceError
from bertlearn.data.sources.registry import File, Source

VARIABLE = "BERTLEARN_CACHE"
STAMP = ".verified.json"
LOCK_SECONDS = 3600
_BLOCK = 1 << 20


def cache_dir() -> Path:
    """The folder that holds the sources: `BERTLEARN_CACHE`, else the platform's cache folder."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("bertlearn", appauthor=False))


def folder_of(source: Source) -> Path:
    """Where that source lives in the cache, whether it is there or not."""
    return cache_dir() / source.folder


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---- verification -------------------------------------------------------------------------------


def problem(source: Source) -> str | None:
    """None if the source is in the cache and intact, else what is the matter with it.

    Cheap when nothing changed since the last proof: sizes and times are compared with the stamp.
    Anything else (a touched file, a copied cache, changed pins) is hashed again.
    """
    folder = folder_of(source)
    if not folder.is_dir():
        return "it is not in the cache"
    times = _times(folder, source)
    if isinstance(times, str):
        return times
    if _read_stamp(folder) == _stamp(source, times):
        return None
    difference = _first_difference(folder, source)
    if difference is None:
        with suppress(OSError):  # a shared, read-only cache works too, with more hashing
            _write_stamp(folder, source)
    return difference


def _times(folder: Path, source: Source) -> dict[str, int] | str:
    """Modification times by name, or a sentence about the first file of a wrong size."""
    times = {}
    for file in source.files:
        try:
            status = (folder / file.name).stat()
        except OSError:
            return f"the file {file.name} is missing from the cache"
        if status.st_size != file.size:
            return f"the file {file.name} has {status.st_size} bytes instead of {file.size}"
        times[file.name] = status.st_mtime_ns
    return times


def _first_difference(folder: Path, source: Source) -> str | None:
    for file in source.files:
        got = sha256_of(folder / file.name)
        if got != file.sha256:
            return f"the file {file.name} has sha256 {got}, expected {file.sha256}"
    return None


def _stamp(source: Source, times: dict[str, int]) -> dict[str, object]:
    return {"pins": source.fingerprint, "modified_ns": times}


def _read_stamp(folder: Path) -> object:
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_stamp(folder: Path, source: Source) -> None:
    times = _times(folder, source)
    if isinstance(times, dict):
        text = json.dumps(_stamp(source, times))
        temporary = folder / f"{STAMP}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / STAMP)


# ---- writing ------------------------------------------------------------------------------------


def write_verified(file: File, stream: IO[bytes], folder: Path, origin: str) -> None:
    """Copy one wanted file into `folder`, hashing on the way.

    Never writes more than the pinned size. SourceError if the bytes are not the pinned ones.
    """
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as out:
        while block := stream.read(_BLOCK):
            size += len(block)
            if size > file.size:
                break
            digest.update(block)
            out.write(block)
    if size != file.size:
        relation = "more than" if size > file.size else f"{size} instead of"
        raise SourceError(
            f"{file.name} from {origin} has {relation} {file.size} bytes, so it is not the file "
            "this book was written with; nothing was kept. Try again, with another mirror if you "
            "use one."
        )
    if digest.hexdigest() != file.sha256:
        raise SourceError(
            f"{file.name} from {origin} has sha256 {digest.hexdigest()}, expected {file.sha256}: "
            "it is not the file this book was written with, and nothing was kept. Try again, with "
            "another mirror if you use one."
        )


def install(source: Source, staged: Path) -> Path:
    """Move a staged, verified folder to its place in one step; an older one is set aside first."""
    _write_stamp(staged, source)
    final = folder_of(source)
    if final.exists():
        os.replace(final, staged.parent / "replaced")
    os.replace(staged, final)
    return final


@contextmanager
def staging(source: Source) -> Iterator[Path]:
    """A scratch folder beside the sources (same file system), gone afterwards whatever happens.

    Call it with the source's lock held: leftovers of a killed process are swept first.
    """
    prefix = f".staging-{source.folder}-"
    for leftover in cache_dir().glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=cache_dir()))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def writing(source: Source) -> Iterator[None]:
    """Hold the source's lock; turn what the file system says into SourceErrors."""
    from filelock import FileLock, Timeout

    with _explained(source):
        locks = cache_dir() / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{source.folder}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Another process is fetching {source.name}; waiting for it.", file=sys.stderr)
            _wait(lock, source)
        try:
            yield
        finally:
            lock.release()


def _wait(lock, source: Source) -> None:
    from filelock import Timeout

    try:
        lock.acquire(timeout=LOCK_SECONDS, poll_interval=0.2)
    except Timeout:
        raise SourceError(
            f"Another process has held the lock {lock.lock_file} for more than "
            f"{LOCK_SECONDS // 60} minutes; end it, then fetch {source.name} again."
        ) from None


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(explain(error, source)) from error


def explain(error: OSError, source: Source) -> str:
    """One sentence for what the file system refused, and what to do."""
    folder = cache_dir()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(source)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return (
            f"The cache folder {folder} cannot be written ({error.strerror}): set {VARIABLE} to a "
            "folder that you can write to."
        )
    return f"{source.name} could not be stored in {folder} ({error}): set {VARIABLE} to another."


def disk_full(source: Source) -> str:
    """The sentence for too little room."""
    need = (2 * source.download_bytes + source.size) / 1e6
    return (
        f"There is not enough room for {source.name} in {cache_dir()}: about {need:.0f} MB are "
        f"needed while it is fetched. Free some, or set {VARIABLE} to a folder on another disk."
    )


def require_room(source: Source) -> None:
    """SourceError if the disk cannot hold the download and what is extracted from it."""
    if shutil.disk_usage(cache_dir()).free < 2 * source.download_bytes + source.size:
        raise SourceError(disk_full(source))

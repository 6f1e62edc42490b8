"""Everything in the cache as one archive, for machines without a network (a classroom)."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from bertlearn.data.sources.cache import (
    folder_of,
    install,
    problem,
    staging,
    write_verified,
    writing,
)
from bertlearn.data.sources.errors import SourceError
from bertlearn.data.sources.registry import SOURCES, File, Source, get

FILE_NAME = "bertlearn-data.tar"
MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class Unbundled:
    """What came of reading a bundle: folders by source name, and what this version cannot use."""

    installed: dict[str, Path]
    skipped: tuple[str, ...]


def bundle(target: str | os.PathLike[str], names: list[str] | None = None) -> Path:
    """Write the cached sources (or those named) as one archive; returns its path.

    The same sources give the same bytes (for .tar).

    Args:
        target: a folder (the archive is then called bertlearn-data.tar), or a file ending in .tar,
            .tar.gz or .tgz.
        names: of the sources; all that are cached if None.

    Raises:
        SourceError: if a named source is not cached, or the archive cannot be written.
    """
    chosen = [get(name) for name in names] if names else list(SOURCES.values())
    troubles = {source.name: problem(source) for source in chosen}
    for name in names or []:
        if troubles[name]:
            raise SourceError(
                f"The source {name} cannot be bundled: {troubles[name]}. Get it with "
                f"`bertlearn data fetch {name}`."
            )
    chosen = [source for source in chosen if not troubles[source.name]]
    if not chosen:
        raise SourceError("There is nothing to bundle: fetch first (`bertlearn data fetch --all`).")
    path = _file_for(Path(target))
    try:
        _write(path, chosen)
    except OSError as error:
        raise SourceError(
            f"The bundle {path} could not be written: {error.strerror or error}."
        ) from error
    return path


def _file_for(target: Path) -> Path:
    named = target.name.endswith((".tar", ".tar.gz", ".tgz")) and not target.is_dir()
    return target if named else target / FILE_NAME


def _write(path: Path, chosen: list[Source]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode: Literal["w", "w:gz"] = "w" if path.suffix == ".tar" else "w:gz"
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream, tarfile.open(fileobj=stream, mode=mode) as tar:
            text = json.dumps(_manifest(chosen), indent=1).encode()
            tar.addfile(_header(MANIFEST, len(text)), io.BytesIO(text))
            for source in chosen:
                for file in source.files:
                    with (folder_of(source) / file.name).open("rb") as content:
                        tar.addfile(_header(_member(source, file), file.size), content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _manifest(chosen: list[Source]) -> dict[str, object]:
    rows = [
        {"name": s.name, "package": s.package, "version": s.version, "pins": s.fingerprint}
        for s in chosen
    ]
    return {"format": 1, "sources": rows}


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header


def _member(source: Source, file: File) -> str:
    return f"{source.folder}/{file.name}"


def unbundle(archive: str | os.PathLike[str]) -> Unbundled:
    """Read a bundle into the cache. Every file is held against the pins of *this* package.

    All or nothing: if one file differs, is missing, or has a path that leaves its folder, no source
    is touched. Sources that this version does not know, or knows with other pins, are skipped.

    Raises:
        SourceError: if the archive cannot be read, or a file in it is not what it must be.
    """
    path = Path(archive)
    try:
        with tarfile.open(path) as tar:
            return _unpack(tar, path)
    except (tarfile.TarError, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} is damaged or not a bundle: get it again, or write one with "
            "`bertlearn data bundle DIR`."
        ) from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from error


def _unpack(tar: tarfile.TarFile, path: Path) -> Unbundled:
    members = {member.name: member for member in tar.getmembers()}
    for name, member in members.items():
        _refuse_escape(name, member, path)
    usable, skipped = _listed(tar, members, path)
    if not usable:
        raise SourceError(
            f"{path} holds nothing that this version of bertlearn uses ({', '.join(skipped)}): "
            "write the bundle with the same version, `bertlearn data bundle DIR`."
        )
    with ExitStack() as stack:
        staged: list[tuple[Source, Path]] = []
        for source in sorted(usable, key=lambda source: source.name):  # one order of locks for all
            stack.enter_context(writing(source))
            folder = stack.enter_context(staging(source)) / "files"
            folder.mkdir()
            for file in source.files:
                _copy(tar, members, source, file, folder, path)
            staged.append((source, folder))
        return Unbundled({s.name: install(s, folder) for s, folder in staged}, tuple(skipped))


def _refuse_escape(name: str, member: tarfile.TarInfo, path: Path) -> None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not member.isreg():
        raise SourceError(
            f"{path} is refused: its entry {name!r} is not a plain file inside the bundle. Nothing "
            "was read; get the bundle again from someone you trust."
        )


def _listed(
    tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], path: Path
) -> tuple[list[Source], list[str]]:
    """The bundle's sources that this package knows with the same pins, and the others by name."""
    try:
        stream = tar.extractfile(members[MANIFEST])
        assert stream is not None
        rows = json.loads(stream.read(1 << 20))["sources"]
        pins = {str(row["name"]): (str(row["version"]), str(row["pins"])) for row in rows}
    except (KeyError, TypeError, ValueError):
        raise SourceError(
            f"{path} is not a bundle: its {MANIFEST} is missing or unreadable. Write one with "
            "`bertlearn data bundle DIR`."
        ) from None
    usable, skipped = [], []
    for name, (version, fingerprint) in pins.items():
        source = SOURCES.get(name)
        if source and (source.version, source.fingerprint) == (version, fingerprint):
            usable.append(source)
        else:
            skipped.append(f"{name} {version}")
    return usable, skipped


def _copy(
    tar: tarfile.TarFile,
    members: dict[str, tarfile.TarInfo],
    source: Source,
    file: File,
    folder: Path,
    path: Path,
) -> None:
    member = members.get(_member(source, file))
    if member is None:
        raise SourceError(
            f"{path} lacks the file {_member(source, file)}; nothing was read. Write the bundle "
            "again with `bertlearn data bundle DIR`."
        )
    stream = tar.extractfile(member)
    assert stream is not None
    with stream:
        write_verified(file, stream, folder, f"the bundle {path.name}")

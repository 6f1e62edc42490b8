"""The sandbox that is asked for is the one that is used; whatever happens to the machine while a
notebook is graded, nothing is lost, left behind or told wrong.

Kinds of sandbox and what is said where there is none; bubblewrap, where it is installed; a full
disk; two gradings at once; a judge that is killed.

    pytest tests/test_grading_isolation.py
"""

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grading_material import COUNT, LAYER, RIGHT, SOFTMAX, exercise, notebook

from bertlearn.cli import main
from bertlearn.grading import GraderError, Limits, client, folders, grade, isolation
from bertlearn.grading.errors import SandboxError
from bertlearn.grading.worker import landlock, namespaces, seccomp

LINUX = sys.platform.startswith("linux")
ROOT = LINUX and os.getuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can mount a small disk")
needs_bubblewrap = pytest.mark.skipif(
    bool(isolation.bubblewrap_problem()), reason=f"NO BUBBLEWRAP: {isolation.bubblewrap_problem()}"
)


@pytest.fixture(autouse=True, scope="module")
def checks():
    with exercise():
        yield


def command(*arguments: object, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


# ---- which sandbox ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "landlock_there", "bubblewrap_there", "chosen"),
    [
        ("auto", True, True, "landlock"),
        ("auto", False, True, "bwrap"),
        ("auto", False, False, "none"),
        ("none", True, True, "none"),
        ("bwrap", True, True, "bwrap"),
        ("landlock", True, False, "landlock"),
        ("landlock", False, True, "this kernel has no Landlock"),
        ("bwrap", True, False, "apt install bubblewrap"),
        ("docker", True, True, "choose one of auto, none, landlock, bwrap"),
    ],
)
def test_what_is_chosen(monkeypatch, wanted, landlock_there, bubblewrap_there, chosen):
    if not LINUX and wanted in ("landlock", "bwrap"):
        pytest.skip("other words on other systems")
    monkeypatch.setattr(landlock, "version", lambda: 7 * landlock_there)
    monkeypatch.setattr(isolation.sys, "platform", "linux")
    isolation.bubblewrap_problem.cache_clear()
    monkeypatch.setattr(isolation.shutil, "which", lambda name: "true" * bubblewrap_there or None)
    try:
        if chosen in isolation.KINDS:
            assert isolation.choose(wanted) == chosen
        else:
            with pytest.raises(SandboxError, match=chosen):
                isolation.choose(wanted)
    finally:
        isolation.bubblewrap_problem.cache_clear()


def test_a_bubblewrap_that_may_do_nothing_is_told(monkeypatch, tmp_path):
    """As in many containers, and on Ubuntu since 23.10."""
    if not LINUX:
        pytest.skip("bubblewrap is for Linux")
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2; exit 1")
    program.chmod(0o755)
    monkeypatch.setattr(isolation.shutil, "which", lambda name: str(program))
    isolation.bubblewrap_problem.cache_clear()
    try:
        with pytest.raises(SandboxError, match="setting up uid map: Permission denied.*sysctl"):
            isolation.choose("bwrap")
    finally:
        isolation.bubblewrap_problem.cache_clear()


def test_the_command_says_that_there_is_no_sandbox(tmp_path, capsys):
    path = notebook(tmp_path / "w.ipynb", *RIGHT)
    code, out, err = command("grade", path, "--sandbox", "none", capsys=capsys)
    assert code == 0 and err == f"bertlearn: {isolation.NO_SANDBOX}\n"
    assert isolation.NO_SANDBOX in out


def test_a_sandbox_that_is_not_there_exits_2(tmp_path, capsys, monkeypatch):
    path = notebook(tmp_path / "w.ipynb", *RIGHT)
    monkeypatch.setattr(landlock, "version", lambda: 0)
    for kind in ("landlock", "chroot"):
        code, out, err = command("grade", path, "--sandbox", kind, capsys=capsys)
        assert code == 2 and err.count("\n") == 1 and not out
    assert "choose one of auto, none, landlock, bwrap" in err


@pytest.mark.skipif(not landlock.version(), reason="NO SANDBOX HERE: no Landlock")
def test_a_worker_outside_its_sandbox_is_not_used(tmp_path, monkeypatch):
    settings = client.Worker._settings
    monkeypatch.setattr(client.Worker, "_settings", lambda *a: {**settings(*a), "sandbox": "none"})
    with pytest.raises(GraderError, match=r"could not enter its sandbox \(Landlock\)"):
        grade(notebook(tmp_path / "w.ipynb", *RIGHT), limits=Limits(sandbox="landlock"))


# ---- bubblewrap -------------------------------------------------------------------------


@needs_bubblewrap
def test_bubblewrap_grades_and_holds(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the answers")
    probe = f"""
import os, socket, torch
done = []
def attempt(name, action):
    try: action(); done.append(name)
    except OSError: pass
for place in ({str(secret)!r}, "/etc/passwd", "/home", "/var", {str(Path(__file__).parent)!r}):
    attempt(place, lambda: os.listdir(place) if os.path.isdir(place) else open(place))
for place in ("/x", "/tmp/x", "/dev/shm/x", torch.__file__, __import__("bertlearn").__file__):
    attempt(place, lambda: open(place, "a"))
attempt("network", lambda: socket.socket())
attempt("fork", os.fork)
attempt("signal", lambda: os.kill({os.getpid()}, 0))
assert len([p for p in os.listdir("/proc") if p.isdigit()]) < 5
open("scratch.txt", "w").write("here it may")
assert not done, done
"""
    kill = "import os\ndef count(hidden): os.kill(os.getpid(), 9)"
    report = grade(
        notebook(tmp_path / "w.ipynb", probe, SOFTMAX, LAYER, kill), limits=Limits(sandbox="bwrap")
    )
    assert not report.cells, report.text()
    assert {q.id: q.points for q in report.questions} == {
        "97.softmax": 2,
        "97.layer": 2,
        "97.count": 0,
    }
    assert "ended its process (SIGKILL)" in report.text()
    assert "run in isolation" in report.isolation and "bubblewrap" in report.isolation
    assert [entry.name for entry in folders.workshop().iterdir()] == ["libraries"]


# ---- users without rights ---------------------------------------------------------------

UNPRIVILEGED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import landlock, namespaces, seccomp
scratch = os.path.join(sys.argv[1], "scratch")
done = namespaces.leave(scratch, 1 << 20)
done += [namespaces.drop_capabilities(), landlock.restrict(["/usr"], [scratch]) > 0]
done += [seccomp.restrict()]
open("mine", "w").close()
for refused in (os.fork, lambda: open("/etc/passwd"), lambda: os.kill(os.getppid(), 0)):
    try: refused(); done.append("allowed")
    except PermissionError: pass
print(os.getuid(), *done)
"""


@needs_root
@pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="needs the system's Python")
def test_the_sandbox_needs_no_rights():
    """The same measures hold for a user who is not root."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for module in (landlock, namespaces, seccomp):
            Path(folder, Path(module.__file__).name).write_text(Path(module.__file__).read_text())
        Path(folder, "scratch").mkdir()
        os.chown(Path(folder, "scratch"), 65534, 65534)
        done = subprocess.run(
            ["/usr/bin/python3", "-I", "-c", UNPRIVILEGED, folder],
            user=65534, group=65534, extra_groups=[], capture_output=True, text=True, cwd="/",
        )  # fmt: skip
        assert not list(Path(folder, "scratch").iterdir()), "it was written to the disk"
    if "no network" not in done.stdout:
        pytest.skip(f"NO USER NAMESPACES HERE: {done.stdout} {done.stderr}")
    said = "65534 own user no network scratch in memory True True True"
    assert done.stdout.strip() == said, done.stderr


def test_the_numbers_of_system_calls_are_the_systems():
    headers = {
        0: "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
        1: "/usr/include/asm-generic/unistd.h",
    }
    tables = [*seccomp.REFUSED.items(), *seccomp.ITSELF.items()]
    tables += [(name, rule[0]) for name, rule in seccomp.NOT_WITH.items()]
    tables += [("clone", seccomp.CLONE), ("clone3", seccomp.CLONE3), ("seccomp", seccomp.SECCOMP)]
    seen = 0
    for column, header in headers.items():
        if os.path.exists(header):
            text = Path(header).read_text()
            known = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", text))
            for name, numbers in tables:
                if name in known:
                    seen += 1
                    assert numbers[column] == int(known[name]), (name, header)
    if not seen:
        pytest.skip("the kernel's headers are not here")


# ---- files ------------------------------------------------------------------------------


def test_any_folder_can_be_removed(tmp_path):
    folder = tmp_path / "folder"
    (folder / "a" / "closed").mkdir(parents=True)
    (folder / "a" / "closed" / "file").write_text("x")
    (folder / "a" / "closed").chmod(0)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    if LINUX:
        (folder / "link").symlink_to(tmp_path / "kept")
        (folder / "loop").symlink_to(folder)
    place = os.open(folder, os.O_RDONLY) if LINUX else None
    for _ in range(1200 if LINUX else 0):  # deeper than Python's stack, longer than any path
        os.mkdir("nest", dir_fd=place)
        deeper = os.open("nest", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = deeper
    if place is not None:
        os.close(place)
    folders.remove(folder)
    assert not folder.exists() and (tmp_path / "kept" / "file").read_text() == "kept"
    folders.remove(folder)  # again: nothing to do


@pytest.mark.skipif(not LINUX, reason="signals and /proc of Linux")
def test_a_judge_that_is_killed_leaves_no_process_and_its_files_go_next_time(tmp_path, monkeypatch):
    place = tmp_path / "tmp"
    place.mkdir()
    loop = notebook(tmp_path / "04_loop.ipynb", "while True: pass", exercise="04")
    judge = subprocess.Popen(
        [sys.executable, "-m", "bertlearn", "grade", str(loop)],
        env={**os.environ, "TMPDIR": str(place)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: len(ours(str(place))) >= 2, "a fork server and a worker")
    judge.send_signal(signal.SIGKILL)
    judge.wait()
    wait_for(lambda: not ours(str(place)), "their end")
    assert list(place.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    new = folders.workshop()
    assert list(place.iterdir()) == [new]
    folders.remove(new)


def ours(part: str) -> list[str]:
    """Processes whose command line has this part in it."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if part.encode() in Path(f"/proc/{process}/cmdline").read_bytes():
                found.append(process)
        except OSError:
            pass
    return found


def wait_for(condition, what: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.1)


# ---- a full disk ------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder])
    if made.returncode:
        pytest.skip("NO SMALL DISK HERE: this root may not mount")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_before_grading(tmp_path, capsys, monkeypatch):
    path = notebook(tmp_path / "w.ipynb", *RIGHT)
    monkeypatch.setattr(client, "copy_package", full)
    code, out, err = command("grade", path, capsys=capsys)
    assert code == 3 and not out
    assert err == f"bertlearn: {folders.DISK_FULL}\n"
    assert [entry.name for entry in folders.workshop().iterdir()] == ["libraries"]
    monkeypatch.undo()
    assert grade(path).full, "it grades as soon as there is space"


@needs_root
def test_a_disk_that_fills_up_while_grading(tmp_path, capsys, monkeypatch, small_disk):
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    code, out, err = command("grade", notebook(tmp_path / "w.ipynb", *RIGHT), capsys=capsys)
    assert code == 3 and not out and err == f"bertlearn: {folders.DISK_FULL}\n"
    assert [e.name for e in folders.workshop().iterdir()] in ([], ["libraries"])
    folders.remove(folders.workshop())


@needs_root
def test_a_report_that_does_not_fit_keeps_the_old_one(tmp_path, capsys, small_disk):
    path = notebook(tmp_path / "w.ipynb", *RIGHT)
    report = small_disk / "report.json"
    report.write_text("the old report")
    with (small_disk / "rest").open("wb", buffering=0) as rest:
        try:
            while rest.write(bytes(1024)):
                pass
        except OSError:
            pass
    code, out, err = command("grade", path, "--json", report, capsys=capsys)
    assert code == 3 and "5 / 5" in out and folders.DISK_FULL in err
    assert report.read_text() == "the old report"
    assert sorted(e.name for e in small_disk.iterdir()) == ["report.json", "rest"]


# ---- two at once ------------------------------------------------------------------------


def test_two_threads_grade_at_once(tmp_path):
    right = notebook(tmp_path / "right.ipynb", *RIGHT)
    wrong = notebook(tmp_path / "wrong.ipynb", *RIGHT[:3], COUNT.replace("+", "-"), "x = 1 / 0")
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(grade, [right, wrong] * 3))
    assert [report.points for report in reports] == [5, 4] * 3
    assert [entry.name for entry in folders.workshop().iterdir()] == ["libraries"]


def test_two_processes_grade_one_notebook_into_one_report(tmp_path):
    path = notebook(tmp_path / "04_two.ipynb", "x = 1", exercise="04")
    report = tmp_path / "report.json"
    two = [
        subprocess.Popen(
            [sys.executable, "-m", "bertlearn", "grade", str(path), "--json", str(report)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for one in two:
        out, err = one.communicate(timeout=300)
        assert one.returncode == 1 and not err and re.search(rb"total +0 / \d\d\n", out), (out, err)
    assert '"points": 0' in report.read_text()
    assert sorted(e.name for e in tmp_path.iterdir()) == ["04_two.ipynb", "report.json"]

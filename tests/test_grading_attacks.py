"""A notebook that cheats has no points, learns nothing and leaves nothing behind.

Each attack takes the place of an answer. None may earn its points, hang, disturb the other
questions, read what it should not, or survive. What only a sandbox prevents is skipped, loudly,
where the system has none.

    pytest tests/test_grading_attacks.py
"""

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import pytest
from grading_material import COUNT, LAYER, RIGHT, exercise, notebook

import bertlearn
from bertlearn.grading import Limits, grade
from bertlearn.grading.worker import landlock

PACKAGE = Path(bertlearn.__file__).resolve().parent
LINUX = sys.platform.startswith("linux")
needs_landlock = pytest.mark.skipif(
    not landlock.version(), reason="NO SANDBOX HERE: this kernel has no Landlock, files are open"
)


@pytest.fixture(autouse=True, scope="module")
def checks():
    with exercise():
        yield


def attack(tmp_path: Path, softmax: str, *before: str, **options: object):
    """Grade a notebook whose other two answers are right."""
    cells = ["import torch", *before, softmax, LAYER, COUNT]
    report = grade(notebook(tmp_path / "work.ipynb", *cells), limits=Limits(call_seconds=5))
    earned = {question.id: question.points for question in report.questions}
    assert earned["97.layer"] == 2 and earned["97.count"] == 1, report.text()
    return earned["97.softmax"], report


# ---- forging the verdict ----------------------------------------------------------------

PATCHES = {
    "comparisons always agree": """
def yes(*args, **kwargs): return True
torch.allclose = torch.equal = torch.Tensor.__eq__ = torch.Tensor.allclose = yes
torch.testing.assert_close = lambda *a, **k: None
""",
    "the reference is what we say": """
torch.softmax = torch.Tensor.softmax = torch.nn.functional.softmax = lambda x, *a, **k: x
""",
    "the toolbox is ours": """
import bertlearn.checks.core as core
core.Toolbox.close = core.Toolbox.tensor = lambda *a, **k: None
core.Failed = type("Failed", (Exception,), {})
core.run = lambda *a, **k: True
core.local_vjp = lambda function, inputs, cotangent: [torch.zeros_like(x) for x in inputs]
""",
    "every module is ours": """
import sys
for module in list(sys.modules.values()):
    for name in ("allclose", "softmax", "equal", "decode", "Failed"):
        try: setattr(module, name, lambda *a, **k: True)
        except BaseException: pass
""",
}
WRONG = "def softmax(x): return x * 0"


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES.keys())
def test_patching_the_worker_changes_no_verdict(tmp_path, patch):
    cells = ["import torch", LAYER, COUNT, patch, WRONG]
    report = grade(notebook(tmp_path / "w.ipynb", *cells))
    assert {q.id: q.points for q in report.questions}["97.softmax"] == 0


LIARS = {
    "a tensor that agrees with all": """
class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return torch.tensor(True)
    shape = property(lambda self: torch.Size([3, 4]))
def softmax(x): return torch.zeros(3, 4).as_subclass(Liar)
""",
    "an object that is equal to all": """
class Liar:
    shape, dtype = (3, 4), torch.float32
    __bertlearn_kind__ = "Tensor"
    def __eq__(self, other): return True
    def __getattr__(self, name): return lambda *a, **k: self
    def __bool__(self): return True
    def __float__(self): return 1.0
def softmax(x): return Liar()
""",
    "a parameter": "def softmax(x): return torch.nn.Parameter(torch.zeros(3, 4))",
    "not a number": "def softmax(x): return x * float('nan')",
    "a right real part": """
def softmax(x):
    e = x.exp()
    return torch.complex(e / e.sum(-1, keepdim=True), x)
""",
    "shapes that broadcast": "def softmax(x): return torch.full((1, 1), 0.25)",
    "its own exception": """
class Failed(BaseException): pass
def softmax(x): raise Failed("all cases hold")
""",
    "what was given": "def softmax(x): return x",
}


@pytest.mark.parametrize("answer", LIARS.values(), ids=LIARS.keys())
def test_values_cannot_lie(tmp_path, answer):
    assert attack(tmp_path, answer)[0] == 0


FORGERS = {
    "noise": "b'\\xff' * 10_000",
    "frames of its own": "frame({'id': '0' * 16, 'value': True}) * 50",
    "an immense header": "struct.pack('<I', 2**32 - 1) + b'x' * 1000",
    "an immense buffer": "frame({'id': 'x'}, [2**27])",
    "deep nesting": "struct.pack('<I', 10**6) + b'[' * 10**6",
}


@pytest.mark.parametrize("forged", FORGERS.values(), ids=FORGERS.keys())
def test_forged_frames_end_the_worker_only(tmp_path, forged):
    answer = f"""
import os, struct, json
def frame(body, sizes=()):
    header = json.dumps({{"body": body, "sizes": list(sizes)}}).encode()
    return struct.pack("<I", len(header)) + header
def softmax(x):
    for descriptor in range(3, 64):
        try: os.write(descriptor, {forged})
        except OSError: pass
    return x
"""
    earned, report = attack(tmp_path, answer)
    assert earned == 0
    assert "process" in report.text() or "did not answer" in report.text(), report.text()


def test_the_judge_is_not_given_the_verdict_by_the_request_number(tmp_path):
    """The worker knows each request's number; all it can answer with is a value."""
    answer = """
import gc
def softmax(x):
    servers = [o for o in gc.get_objects() if type(o).__name__ == "Server"]
    for server in servers:
        server.do_call = lambda request, buffers: ({"ok": True, "points": 2, "max": 2}, [])
        server.do_vjp = lambda request, buffers: True
    return x
"""
    assert attack(tmp_path, answer)[0] == 0


# ---- finding the answer -----------------------------------------------------------------


def test_what_is_hidden_is_nowhere_in_the_worker(tmp_path):
    """The definitions that the question hides; the checks; the grader."""
    probe = """
import inspect
from bertlearn.attention import BertSelfAttention, split_heads
from bertlearn import BertConfig
found = []
try: split_heads(torch.zeros(1, 2, 4), 2); found.append("split_heads runs")
except RuntimeError as error: assert "is hidden" in str(error)
try:
    config = BertConfig(hidden_size=8, num_attention_heads=2)
    BertSelfAttention(config)(torch.zeros(1, 2, 8)); found.append("forward runs")
except RuntimeError as error: assert "is hidden" in str(error)
source = inspect.getsource(inspect.getmodule(split_heads))
if "transpose(1, 2)\\n" in source and "num_heads, hidden // num_heads" in source:
    found.append("source of split_heads")
for name in ("checks.ch04_attention", "grading", "grading.judge", "cli"):
    try: __import__("bertlearn." + name); found.append(name)
    except ImportError: pass
for name in ("transformers", "nbgrader", "IPython", "pytest"):
    try: __import__(name); found.append(name)
    except ImportError: pass
assert not found, found
def softmax(x): return x
"""
    _, report = attack(tmp_path, probe)
    assert not report.cells, report.text()


@needs_landlock
def test_files_cannot_be_read(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the answers")
    places = [
        secret,
        PACKAGE / "attention.py",
        PACKAGE / "checks" / "ch04_attention.py",
        PACKAGE.parent / "solutions",
        PACKAGE.parent / "pyproject.toml",
        "/etc/passwd",
        f"/proc/{os.getpid()}/environ",
        f"/proc/{os.getpid()}/mem",
        "/proc/1/cmdline",
        os.path.expanduser("~"),
    ]
    probe = f"""
import os
found = []
for place in {[str(place) for place in places]!r}:
    try:
        os.listdir(place) if os.path.isdir(place) else open(place, "rb").read(1)
        found.append(place)
    except OSError: pass
for folder, _, files in os.walk("/"):
    if len(found) > 50 or folder.count("/") > 3: break
    found += [os.path.join(folder, f) for f in files if f.endswith(".ipynb")]
assert not found, found
def softmax(x): return x
"""
    _, report = attack(tmp_path, probe)
    assert not report.cells, report.text()


@needs_landlock
def test_nothing_can_be_written_or_run_outside(tmp_path):
    target = tmp_path / "target.txt"
    target.write_text("as it was")
    probe = f"""
import os, socket, subprocess
done = []
def attempt(name, action):
    try: action(); done.append(name)
    except OSError: pass
attempt("write", lambda: open({str(target)!r}, "w"))
attempt("append", lambda: open({str(target)!r}, "a"))
attempt("truncate", lambda: os.truncate({str(target)!r}, 0))
attempt("remove", lambda: os.remove({str(target)!r}))
attempt("rename", lambda: os.rename({str(target)!r}, "mine"))
attempt("link", lambda: os.link({str(target)!r}, "mine"))
attempt("new file", lambda: open({str(tmp_path / "new.txt")!r}, "w"))
attempt("package", lambda: open(torch.__file__, "a"))
attempt("copy of the package", lambda: open(__import__("bertlearn").__file__, "a"))
attempt("shell", lambda: subprocess.run(["/bin/sh", "-c", "true"]))
attempt("kill", lambda: os.kill({os.getpid()}, 0))
attempt("TCP", lambda: socket.create_connection(("127.0.0.1", 22), 1))
attempt("listen", lambda: socket.create_server(("127.0.0.1", 0)))
open("scratch.txt", "w").write("here it may")
assert not done, done
def softmax(x): return x
"""
    _, report = attack(tmp_path, probe)
    assert not report.cells, report.text()
    assert target.read_text() == "as it was" and sorted(os.listdir(tmp_path)) == [
        "target.txt",
        "work.ipynb",
    ]


@needs_landlock
@pytest.mark.skipif(not LINUX or os.getuid() != 0, reason="for those who grade as root")
def test_root_has_no_power_in_the_worker(tmp_path):
    probe = """
import os, time
done = []
def attempt(name, action):
    try: action(); done.append(name)
    except OSError: pass
attempt("clock", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
attempt("host name", lambda: __import__("socket").sethostname("x"))
attempt("priority", lambda: os.nice(-5))
assert not done, done
def softmax(x): return x
"""
    _, report = attack(tmp_path, probe)
    if "no network" not in report.sandbox:
        pytest.skip("NO USER NAMESPACE HERE")
    assert not report.cells, report.text()


@pytest.mark.skipif(not LINUX, reason="NO SANDBOX HERE: the network can be reached")
def test_there_is_no_network(tmp_path):
    probe = """
import socket
names = [name for _, name in socket.if_nameindex()]
assert names in ([], ["lo"]), names
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    try: s.sendto(b"x", ("192.0.2.1", 53)); raise AssertionError("sent")
    except OSError: pass
def softmax(x): return x
"""
    _, report = attack(tmp_path, probe)
    if "no network" not in report.sandbox:
        pytest.skip("NO NETWORK SANDBOX HERE: this user may not make a network namespace")
    assert not report.cells, report.text()


# ---- leaving something behind -----------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="NO SANDBOX HERE: a detached process is not found")
def test_a_detached_process_is_ended(tmp_path):
    answer = """
import os
def detach():
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, str(os.getpid()).encode())
            while True: pass
        os._exit(0)
    raise ValueError("detached " + os.read(read, 20).decode())
def softmax(x): detach()
"""
    _, report = attack(tmp_path, answer)
    told = re.findall(r"detached (\d+)", report.text())
    assert told, report.text()
    assert not [pid for pid in told if Path(f"/proc/{pid}").exists()], "it still runs"


def test_no_file_is_left_behind(tmp_path, monkeypatch):
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    fills = "for i in range(50): open(f'file{i}', 'wb').write(bytes(10**5))"
    attack(tmp_path, "def softmax(x): __import__('os')._exit(1)", fills)
    assert not [p for p in scratch.iterdir() if p.name.startswith("bertlearn-grade-")]


@pytest.mark.skipif(not LINUX, reason="other systems do not enforce it")
def test_a_large_file_is_refused(tmp_path):
    fill = """
with open("large", "wb") as file:
    for _ in range(300): file.write(bytes(2**20))
"""
    _, report = attack(tmp_path, WRONG, fill)
    assert [number for number, _ in report.cells] == [2]


def test_a_fork_bomb_ends_with_its_worker(tmp_path):
    if not LINUX:
        pytest.skip("NO SANDBOX HERE: children that leave their session are not found")
    answer = """
import os, time
def softmax(x):
    for _ in range(50):
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
            os._exit(0)
    return x
"""
    before = time.monotonic()
    assert attack(tmp_path, answer)[0] == 0
    assert time.monotonic() - before < 60
    for process in filter(str.isdigit, os.listdir("/proc")):
        command = Path(f"/proc/{process}/cmdline")
        assert not (command.exists() and b"bertlearn-grade" in command.read_bytes())


def test_the_next_notebook_is_graded_as_if_nothing_had_been(tmp_path):
    grade(notebook(tmp_path / "work.ipynb", "import torch", PATCHES["every module is ours"]))
    assert grade(notebook(tmp_path / "next.ipynb", *RIGHT)).full

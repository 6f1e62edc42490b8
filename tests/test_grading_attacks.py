"""A notebook that cheats has no points, learns nothing and leaves nothing behind.

Each attack takes the place of an answer. None may earn its points, hang, disturb the other
questions, read what it should not, survive in a process or a file, or change how the notebook
after it is graded: `attack` looks at all of that each time. What only a sandbox prevents is
skipped, loudly, where the system has none.

    pytest tests/test_grading_attacks.py
"""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from grading_material import COUNT, LAYER, RIGHT, cell, exercise, notebook

import bertlearn
from bertlearn.checks import Check
from bertlearn.checks.core import REGISTRY
from bertlearn.grading import Limits, grade, processes
from bertlearn.grading.folders import workshop
from bertlearn.grading.worker import landlock

PACKAGE = Path(bertlearn.__file__).resolve().parent
LINUX = sys.platform.startswith("linux")
QUICK = Limits(cell_seconds=4, call_seconds=2)
LONGEST = 120  # seconds, on a machine that has much else to do
needs_landlock = pytest.mark.skipif(
    not landlock.version(), reason="NO SANDBOX HERE: this kernel has no Landlock, files are open"
)
needs_linux = pytest.mark.skipif(not LINUX, reason="NO SANDBOX HERE: this is not Linux")


@pytest.fixture(autouse=True, scope="module")
def checks():
    after = Check("96.after", "what is graded next", ("after",), difficulty=1, minutes=1)

    @after.case("is as it was", points=1)
    def _(t, after):
        n = t.integer(2, 999)
        t.equal(after(n), n + 1)

    with exercise():
        yield
    del REGISTRY["96.after"]


def attack(tmp_path, softmax, *before, limits=QUICK):
    """Grade a notebook whose other two answers are right: points of the attack, and the report."""
    begin = time.monotonic()
    cells = ["import torch", *before, softmax, LAYER, COUNT]
    report = grade(notebook(tmp_path / "work.ipynb", *cells), limits=limits)
    assert time.monotonic() - begin < LONGEST, "it hangs"
    earned = {question.id: question.points for question in report.questions}
    assert earned["97.layer"] == 2 and earned["97.count"] == 1, report.text()
    assert_nothing_is_left()
    after = notebook(tmp_path / "after.ipynb", "def after(n): return n + 1", exercise="96")
    assert grade(after).full, "it disturbs the next notebook"
    return earned["97.softmax"], report


def told(report) -> str:
    """The report's text in one line."""
    return " ".join(report.text().split())


def assert_nothing_is_left() -> None:
    """No file but the libraries' links, no process but the fork server."""
    assert [entry.name for entry in workshop().iterdir()] == ["libraries"]
    if LINUX:
        pid = processes.starter().python.process.pid
        threads = Path(f"/proc/{pid}/task").iterdir()
        assert not [child for t in threads for child in (t / "children").read_text().split()]


def probe(tmp_path, source, **options):
    """Run a cell that asserts what it finds; it may be the worker's last."""
    earned, report = attack(tmp_path, source + "\ndef softmax(x): return x", **options)
    assert earned == 0
    assert not report.cells, report.text()
    return report


# ---- forging the verdict ----------------------------------------------------------------

WRONG = "def softmax(x): return x * 0"
PATCHES = {
    "comparisons always agree": """
def yes(*args, **kwargs): return True
torch.allclose = torch.equal = torch.Tensor.__eq__ = torch.Tensor.allclose = yes
torch.testing.assert_close = lambda *a, **k: None
import numpy.testing
numpy.testing.assert_allclose = numpy.allclose = yes
""",
    "the reference is what we say": """
torch.softmax = torch.Tensor.softmax = torch.nn.functional.softmax = lambda x, *a, **k: x
torch.nn.functional.scaled_dot_product_attention = lambda q, k, v, **o: v
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
    "Jupyter's transformers": """
shell = get_ipython()
class Delete(__import__("ast").NodeTransformer):
    def visit_Assert(self, node): return None
try:
    shell.ast_transformers.append(Delete())
    shell.input_transformers_post.append(lambda lines: [])
    shell.run_code = lambda *a, **k: False
except AttributeError: pass
""",
    "pickle, marshal, json and struct": """
import builtins, json, marshal, pickle, struct
pickle.loads = pickle.load = marshal.loads = lambda *a, **k: True
json.loads = lambda text: {"do": "look", "names": [], "id": "0", "sizes": []}
struct.unpack = lambda *a: (0,)
""",
    "builtins": """
import builtins
builtins.isinstance = builtins.issubclass = lambda *a: True
builtins.len = lambda x: 1
builtins.AssertionError = builtins.Exception = type("E", (BaseException,), {})
""",
}


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES.keys())
def test_patching_the_worker_changes_no_verdict(tmp_path, patch):
    path = notebook(tmp_path / "w.ipynb", "import torch", LAYER, COUNT, patch, WRONG)
    report = grade(path, limits=QUICK)
    assert {q.id: q.points for q in report.questions}["97.softmax"] == 0
    assert_nothing_is_left()


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
    "infinite": "def softmax(x): return x * 0 + float('inf')",
    "subnormal": "def softmax(x): return torch.full_like(x, 1e-45)",
    "minus zero": "def softmax(x): return x * -0.0",
    "bytes of a bool": """
def softmax(x): return torch.full(x.shape, 7, dtype=torch.uint8).view(torch.bool)
""",
    "a right real part": """
def softmax(x):
    e = x.exp()
    return torch.complex(e / e.sum(-1, keepdim=True), x)
""",
    "shapes that broadcast": "def softmax(x): return torch.full((1, 1), 0.25)",
    "an empty tensor": "def softmax(x): return torch.empty(0, 4)",
    "a meta tensor": "def softmax(x): return torch.empty(3, 4, device='meta')",
    "a generator": "def softmax(x): yield from x",
    "its own exception": """
class Failed(BaseException): pass
def softmax(x): raise Failed("all cases hold\\n  97.softmax   2 / 2  softmax by hand")
""",
    "the end of an iteration": "def softmax(x): raise StopIteration",
    "the end of all things": "def softmax(x): raise BaseExceptionGroup('x', [GeneratorExit()])",
    "an exception that cannot be printed": """
class Silent(Exception):
    def __str__(self): raise self
    __repr__ = __str__
def softmax(x): raise Silent
""",
    "a class without a name": """
class Meta(type):
    __name__ = property(lambda cls: 10 ** 6)
class Odd(metaclass=Meta): pass
def softmax(x): return Odd
""",
    "a pickle that would run": """
class Bomb:
    def __reduce__(self): return (exec, ("raise SystemExit(0)",))
    def __getstate__(self): raise SystemExit(0)
def softmax(x): return Bomb()
""",
    "what was given": "def softmax(x): return x",
    "what was given, changed in place": "def softmax(x): x.data.fill_(0.25); return x",
    "what was given, changed as an array": "def softmax(x): x.numpy()[:] = 0; return x",
    "another value each time": """
def softmax(x):
    softmax.n = getattr(softmax, "n", 0) + 1
    return torch.full_like(x, 1 / softmax.n)
""",
    "what was returned before": """
seen = []
def softmax(x):
    seen.append(x.exp())
    return seen[0]
""",
    "a dictionary of its own": """
class D(dict):
    def items(self): return [(D(), D())] * 10 ** 9
def softmax(x): return D(a=1)
""",
    "a number of its own": """
class N(float):
    def __float__(self): return 0.25
    __eq__ = __ge__ = __le__ = lambda self, other: True
def softmax(x): return N()
""",
    "an immense number": """
import sys
sys.set_int_max_str_digits(0)
def softmax(x): return 10 ** 2_000_000
""",
    "an immense text": "def softmax(x): return 'x' * 10 ** 8",
    "an immense tensor": "def softmax(x): return torch.zeros(2 ** 26, dtype=torch.int8)",
    "an immense view": "def softmax(x): return torch.zeros(1).expand(2 ** 40)",
    "names that turn the line": """
class Ü\u4f60\u597d(Exception): pass
def softmax(x): raise Ü\u4f60\u597d("\\u202e\\x1b[2J\\r\\ud800" + "x" * 10 ** 6)
""",
}


@pytest.mark.parametrize("answer", LIARS.values(), ids=LIARS.keys())
def test_values_cannot_lie(tmp_path, answer):
    earned, report = attack(tmp_path, answer)
    assert earned == 0
    rows = [line for line in report.text().splitlines() if line.startswith("  97.softmax ")]
    assert len(rows) == 1 and report.html().count("<code>97.softmax</code>") == 1
    assert len(report.text()) < 8000 and "\x1b" not in report.text()


def test_knowing_the_seeds_gains_nothing(tmp_path):
    """Whoever guesses how inputs are drawn knows the inputs, which are given anyway."""
    answer = """
def softmax(x):
    for seed in range(2000):
        g = torch.Generator().manual_seed(seed)
        drawn = torch.randn(x.shape, generator=g, dtype=torch.float64).float()
        if torch.equal(drawn, x): return drawn
    return torch.randn(x.shape)
"""
    assert attack(tmp_path, answer)[0] == 0


FORGERS = {
    "noise": "b'\\xff' * 10_000",
    "frames of its own": "frame({'id': '0' * 16, 'value': True}) * 50",
    "an immense header": "struct.pack('<I', 2**32 - 1) + b'x' * 1000",
    "an immense buffer": "frame({'id': 'x'}, [2**27])",
    "a million buffers": "frame({'id': 'x'}, [0] * 10**6)",
    "deep nesting": "struct.pack('<I', 10**6) + b'[' * 10**6",
    "the next answer": "frame({'id': find_id(), 'value': {'tuple': [True, {'list': []}]}}) * 3",
}
FORGE = """
import gc, os, struct, json
def frame(body, sizes=()):
    header = json.dumps({{"body": body, "sizes": list(sizes)}}).encode()
    return struct.pack("<I", len(header)) + header
def find_id():
    return [o for o in gc.get_objects() if isinstance(o, dict) and "do" in o and "id" in o][0]["id"]
def softmax(x):
    for descriptor in range(3, 64):
        try: os.write(descriptor, {forged})
        except OSError: pass
    return x
"""


@pytest.mark.parametrize("forged", FORGERS.values(), ids=FORGERS.keys())
def test_forged_frames_end_the_worker_only(tmp_path, forged):
    earned, report = attack(tmp_path, FORGE.format(forged=forged))
    assert earned == 0
    said = ("process", "did not answer", "must be a torch.Tensor")
    assert any(part in report.text() for part in said), report.text()


def test_a_thread_that_writes_all_the_time(tmp_path):
    answer = """
import os, threading
def flood():
    while True:
        for descriptor in range(3, 16):
            try: os.write(descriptor, b"\\x02\\x00\\x00\\x00{}")
            except OSError: pass
def softmax(x):
    threading.Thread(target=flood, daemon=True).start()
    return x
"""
    assert attack(tmp_path, answer)[0] == 0


def test_an_answer_that_comes_byte_by_byte(tmp_path):
    answer = """
import os, time
def softmax(x):
    channel = next(d for d in range(3, 64) if os.path.exists(f"/proc/self/fd/{d}")
                   and os.readlink(f"/proc/self/fd/{d}").startswith("socket"))
    os.write(channel, b"\\xff\\xff\\x00\\x00")
    while True:
        os.write(channel, b" ")
        time.sleep(0.1)
"""
    earned, report = attack(tmp_path, answer)
    assert earned == 0 and "did not answer within 2 s" in told(report)


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

COPIES = {
    "torch's own": "def softmax(x): return torch.softmax(x, -1)",
    "as a layer": "softmax = torch.nn.Softmax(-1)",
    "through the logarithm": "def softmax(x): return torch.nn.functional.log_softmax(x, -1).exp()",
    "found in the frames above": """
import sys
def softmax(x):
    frame = sys._getframe()
    while frame:
        for found in (*frame.f_locals.values(), *frame.f_globals.values()):
            if getattr(found, "__name__", "") == "torch": return found.softmax(x, -1)
        frame = frame.f_back
""",
    "the package's": """
def softmax(x):
    from bertlearn.attention import BertSelfAttention
    from bertlearn.checks.ch04_attention import sdpa
""",
}


@pytest.mark.parametrize("answer", COPIES.values(), ids=COPIES.keys())
def test_copies_are_refused(tmp_path, answer):
    assert attack(tmp_path, answer)[0] == 0


def test_the_rule_against_copies_is_a_deterrent(tmp_path):
    """It holds where it is kept in mind, not against someone who goes around it. The book says so.

    If this test ever fails, the rule has become a wall: then the book is to say that.
    """
    answer = """
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == "Server": thing.forbids.clear()
def softmax(x): return torch.softmax(x, -1)
"""
    assert attack(tmp_path, answer)[0] == 2


def test_what_is_hidden_is_nowhere_in_the_worker(tmp_path):
    """The definitions that the question hides; the checks; the grader. Every question's are looked
    for in test_grading_hides.py."""
    probe(
        tmp_path,
        """
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
for name in ("checks.ch04_attention", "grading", "grading.judge", "cli"):
    try: __import__("bertlearn." + name); found.append(name)
    except ImportError: pass
for name in ("transformers", "nbgrader", "otter", "IPython", "pytest"):
    try: __import__(name); found.append(name)
    except ImportError: pass
assert not found, found
""",
    )


@needs_landlock
def test_files_cannot_be_read(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the answers")
    places = [
        secret,
        PACKAGE / "attention.py",
        PACKAGE / "__pycache__",
        PACKAGE / "checks" / "ch04_attention.py",
        PACKAGE.parent / "solutions",
        PACKAGE.parent / "pyproject.toml",
        "/etc/passwd",
        f"/proc/{os.getpid()}/environ",
        f"/proc/{os.getpid()}/mem",
        f"/proc/{processes.starter().python.process.pid}/mem",
        "/proc/1/cmdline",
        "/proc/self/" + "root/etc/passwd",
        f"/proc/self/cwd/../../../{secret}",
        os.path.expanduser("~"),
    ]
    probe(
        tmp_path,
        f"""
import os
found = []
for number, place in enumerate({[str(place) for place in places]!r}):
    os.symlink(place, f"link{{number}}")
    for name in (place, f"link{{number}}"):
        try:
            os.listdir(name) if os.path.isdir(name) else open(name, "rb").read(1)
            found.append(name)
        except OSError: pass
for folder, _, files in os.walk("/"):
    if len(found) > 50 or folder.count("/") > 3: break
    found += [os.path.join(folder, f) for f in files if f.endswith(".ipynb")]
assert not found, found
""",
    )


# ---- reaching out -----------------------------------------------------------------------


@needs_landlock
def test_nothing_can_be_written_or_run_outside(tmp_path):
    target = tmp_path / "target.txt"
    target.write_text("as it was")
    probe(
        tmp_path,
        f"""
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
os.symlink({str(target)!r}, "pointer")
attempt("through a link", lambda: open("pointer", "w"))
attempt("new file", lambda: open({str(tmp_path / "new.txt")!r}, "w"))
attempt("package", lambda: open(torch.__file__, "a"))
attempt("copy of the package", lambda: open(__import__("bertlearn").__file__, "a"))
attempt("shared memory", lambda: open("/dev/shm/x", "w"))
attempt("shell", lambda: subprocess.run(["/bin/sh", "-c", "true"]))
attempt("program", lambda: os.execv("/bin/true", ["true"]))
attempt("TCP", lambda: socket.create_connection(("127.0.0.1", 22), 1))
attempt("listen", lambda: socket.create_server(("127.0.0.1", 0)))
attempt("UDP", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(
    b"x", ("192.0.2.1", 53)))
attempt("local socket", lambda: socket.socket(socket.AF_UNIX).bind("\\0bertlearn"))
open("scratch.txt", "w").write("here it may")
assert not done, done
""",
    )
    assert target.read_text() == "as it was"
    assert sorted(os.listdir(tmp_path)) == ["after.ipynb", "target.txt", "work.ipynb"]


@needs_landlock
def test_other_processes_cannot_be_touched(tmp_path):
    """Neither the judge nor the fork server: no signal, no limit, no look, no order of theirs."""
    probe(
        tmp_path,
        f"""
import ctypes, fcntl, os, resource, signal
libc = ctypes.CDLL(None, use_errno=True)
done = []
def attempt(name, action):
    try: action(); done.append(name)
    except (OSError, ValueError): pass
def call(name, number, *arguments):
    if libc.syscall(number, *map(ctypes.c_long, arguments)) >= 0: done.append(name)
for pid in ({os.getpid()}, os.getppid()):
    attempt("signal", lambda: os.kill(pid, 0))
    attempt("limits", lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)))
    attempt("processors", lambda: os.sched_setaffinity(pid, {{0}}))
    attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
    attempt("scheduler", lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)))
    attempt("SIGIO", lambda: fcntl.fcntl(0, fcntl.F_SETOWN, pid))
    attempt("a handle", lambda: os.pidfd_open(pid))
    for file in ("mem", "maps", "environ", "fd", "cwd", "root", "oom_score_adj"):
        attempt(file, lambda: os.listdir(f"/proc/{{pid}}/{{file}}"))
        attempt(file, lambda: open(f"/proc/{{pid}}/{{file}}", "r+b"))
    if os.uname().machine == "x86_64":
        call("ptrace", 101, 16, pid, 0, 0)
        call("read memory", 310, pid, 0, 0, 0, 0, 0)
attempt("all signals", lambda: os.kill(-1, 0))
assert not done, done
""",
    )


@needs_linux
def test_processes_and_programs_cannot_be_started(tmp_path):
    report = probe(
        tmp_path,
        """
import ctypes, os, multiprocessing, threading
done = []
def attempt(name, action):
    try: action(); done.append(name)
    except OSError: pass
attempt("fork", os.fork)
attempt("spawn", lambda: os.posix_spawn("/bin/true", ["true"], {}))
attempt("multiprocessing", lambda: multiprocessing.get_context("fork").Process().start())
attempt("loader", lambda: next(iter(torch.utils.data.DataLoader([1], num_workers=1))))
attempt("program in memory", lambda: os.memfd_create("x"))
libc = ctypes.CDLL(None)
if libc.fork() != -1: done.append("fork of the C library")
if libc.vfork is None: done.append("vfork")
thread = threading.Thread(target=lambda: done.append(0)); thread.start(); thread.join()
assert done == [0], done
""",
    )
    assert "no processes" in report.sandbox


@needs_linux
@pytest.mark.skipif(not LINUX or os.getuid() != 0, reason="for those who grade as root")
def test_root_has_no_power_in_the_worker(tmp_path):
    probe(
        tmp_path,
        """
import ctypes, os, resource, time
done = []
def attempt(name, action):
    try: action(); done.append(name)
    except (OSError, ValueError): pass
libc = ctypes.CDLL(None)
attempt("clock", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
attempt("host name", lambda: __import__("socket").sethostname("x"))
attempt("priority", lambda: os.nice(-5))
attempt("another user", lambda: os.setuid(65534))
attempt("root folder", lambda: os.chroot("."))
attempt("device", lambda: os.mknod("disk", 0o60600, os.makedev(8, 0)))
attempt("limits", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)))
if libc.unshare(0x10000000) == 0: done.append("namespace")
if libc.mount(b"x", b".", b"tmpfs", 0, 0) == 0: done.append("mount")
if libc.umount2(os.getcwd().encode(), 2) == 0: done.append("unmount")
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
assert set(status["CapEff"].strip() + status["CapBnd"].strip()) == {"0"}, status
assert not done, done
""",
    )


@needs_linux
def test_there_is_no_network(tmp_path):
    report = grade(notebook(tmp_path / "w.ipynb", "import socket\nsocket.socket()", *RIGHT))
    assert "no network" in report.sandbox
    assert report.cells == [(1, "PermissionError, line 2: [Errno 1] Operation not permitted")]


@needs_linux
def test_the_fork_server_shares_no_memory_that_can_be_written(tmp_path):
    """What a worker writes into its copy stays in its copy."""
    grade(notebook(tmp_path / "w.ipynb", *RIGHT))
    maps = Path(f"/proc/{processes.starter().python.process.pid}/maps").read_text()
    shared = [line for line in maps.splitlines() if line.split()[1].startswith("rw-s")]
    assert not shared


# ---- breaking down ----------------------------------------------------------------------

BREAKS = {
    "a loop without end": "def softmax(x):\n  while True: pass",
    "a loop that cannot be interrupted": """
def softmax(x):
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
    "a sleep that ignores signals": """
import ctypes, signal
def softmax(x):
    for number in range(1, 32):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    ctypes.CDLL(None).sleep(60)
""",
    "exit": "import sys\ndef softmax(x): sys.exit()",
    "a hard exit": "import os\ndef softmax(x): os._exit(0)",
    "a signal": "import os\ndef softmax(x): os.kill(os.getpid(), 9)",
    "a signal of its own": """
import os, signal
def raised(*a): raise SystemExit(0)
signal.signal(signal.SIGALRM, raised)
def softmax(x):
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    return x
""",
    "too much memory": "def softmax(x): return bytearray(3 << 30)",
    "too much memory of torch": "def softmax(x): return torch.ones(3 << 28)",
    "a gigabyte of text": "def softmax(x):\n  for _ in range(1000): print('x' * 10 ** 6)",
    "zeros over the C library": """
import ctypes
def softmax(x):
    libc = ctypes.CDLL(None)
    ctypes.memset(ctypes.cast(libc.malloc, ctypes.c_void_p).value & ~4095, 0, 4096)
""",
    "zeros over Python": "import ctypes\ndef softmax(x): ctypes.memset(id(None), 0, 64)",
    "the stack": """
import sys
sys.setrecursionlimit(10 ** 9)
def softmax(x): return softmax(x)
""",
    "closed files": "import os\ndef softmax(x): os.closerange(0, 256); return x",
    "a tracer": """
import sys
def tracer(frame, event, argument):
    frame.f_trace_opcodes = True
    raise SystemExit(0)
def softmax(x): sys.settrace(tracer); return x
""",
    "an audit hook": """
import sys
def hook(event, arguments): raise SystemExit(0)
def softmax(x): sys.addaudithook(hook); return x
""",
    "something at the exit": """
import atexit, os, weakref
class Sticky:
    def __del__(self):
        while True: pass
keep = Sticky()
atexit.register(lambda: os.write(1, b"x") and time.sleep(60))
def softmax(x): raise SystemExit
""",
    "a garbage collector of its own": """
import gc
gc.callbacks.append(lambda *a: 1 / 0)
gc.set_threshold(1)
def softmax(x): return x
""",
    "deep data": "def softmax(x):\n  y = []\n  for _ in range(10 ** 5): y = [y]\n  return y",
    "wide data": "def softmax(x): return [0] * 10 ** 7",
    "data in itself": "def softmax(x): y = {}; y[0] = y; return y",
    "items without end": "import itertools\ndef softmax(x): return itertools.count()",
    "compressed zeros": """
import zlib
bomb = zlib.compress(bytes(2 ** 26), 1)
def softmax(x): return b"".join(zlib.decompress(bomb) for _ in range(40))
""",
}


@pytest.mark.parametrize("answer", BREAKS.values(), ids=BREAKS.keys())
def test_what_breaks_the_worker_breaks_nothing_else(tmp_path, answer):
    assert attack(tmp_path, answer)[0] == 0


@needs_linux
def test_a_thread_bomb(tmp_path):
    answer = """
import threading, time
threading.stack_size(2 ** 16)
def softmax(x):
    while True:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""
    earned, report = attack(tmp_path, answer, limits=Limits(call_seconds=10))
    assert earned == 0
    assert "threads" in report.text() or "can't start new thread" in report.text(), report.text()


def test_slowness_adds_up(tmp_path):
    """Each call is in time, all together are not."""
    slow = "import time\ndef softmax(x): time.sleep(0.6); return x"
    earned, report = attack(tmp_path, slow, limits=Limits(question_seconds=0.5))
    assert earned == 0 and "your code took 0.5 s for this question" in told(report)
    cells = ["import time\ntime.sleep(0.4)"] * 5
    report = grade(notebook(tmp_path / "w.ipynb", *cells), limits=Limits(notebook_seconds=1))
    assert [number for number, _ in report.cells] == [4, 5]
    assert "your notebook has run for 1 s: no more" in told(report)


# ---- leaving something behind -----------------------------------------------------------

DETACH = """
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


@needs_linux
def test_a_detached_process_is_ended(tmp_path):
    """Without a sandbox a process can leave its session; in one it cannot start."""
    _, report = attack(tmp_path, DETACH, limits=Limits(sandbox="none"))
    pids = re.findall(r"detached (\d+)", report.text())
    assert pids, report.text()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()], "it still runs"
    _, report = attack(tmp_path, DETACH)
    assert "no process can be started while a notebook is graded" in told(report)


@needs_linux
@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_a_fork_bomb_ends_with_its_worker(tmp_path, sandbox):
    bomb = """
import os, time
for _ in range(50):
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
"""
    earned, _ = attack(tmp_path, WRONG, bomb, limits=Limits(sandbox=sandbox))
    assert earned == 0


@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_no_file_is_left_behind(tmp_path, sandbox):
    """Many files, a nest too deep for its path, folders that deny access, links to elsewhere."""
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "file").write_text("as it was")
    litter = f"""
import os
for i in range(50): open(f"file{{i}}", "wb").write(bytes(10 ** 5))
os.symlink({str(target)!r}, "link")
home = os.getcwd()
for i in range(30):
    os.mkdir("nest" * 50); os.chdir("nest" * 50)
os.chdir(home)
os.makedirs("closed/inner"); open("closed/inner/file", "w").close()
os.chmod("closed/inner", 0); os.chmod("closed", 0); os.chmod(".", 0o500)
"""
    _, report = attack(tmp_path, WRONG, litter, limits=Limits(sandbox=sandbox))
    assert not report.cells, report.text()
    assert (target / "file").read_text() == "as it was"


@pytest.mark.skipif(not LINUX, reason="other systems do not enforce it")
@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_too_much_is_not_written(tmp_path, sandbox):
    limits = Limits(sandbox=sandbox, scratch_bytes=8 << 20, file_bytes=4 << 20)
    large = """
with open("large", "wb") as file:
    for _ in range(300): file.write(bytes(2**20))
"""
    many = """
import time
for i in range(6):
    open(f"file{i}", "wb").write(bytes(3 * 2**20))
time.sleep(1)
"""
    _, report = attack(tmp_path, WRONG, large, many, limits=limits)
    (first, second) = report.cells
    assert first == (2, "OSError, line 3: [Errno 27] File too large")
    assert second[0] == 3 and re.search("No space left|more than 8 MB of files", second[1])


@needs_linux
def test_nothing_of_system_v_is_left(tmp_path):
    """Shared memory that would outlive its process."""
    before = Path("/proc/sysvipc/shm").read_text()
    answer = """
import ctypes
def softmax(x):
    assert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) == -1
    return x
"""
    _, report = attack(tmp_path, answer)
    assert "AssertionError" not in report.text()
    assert Path("/proc/sysvipc/shm").read_text() == before


# ---- the notebook itself ----------------------------------------------------------------

DEEP = "(" * 50_000
BOMBS = {
    "parentheses": DEEP + ")" * 50_000,
    "signs": "x = " + "-" * 500_000 + "1",
    "sums": "x = 1" + " + 1" * 200_000,
    "an open text": "x = '''" + "y" * 1_000_000,
    "a long number": "x = " + "9" * 100_000,
    "empty lines": "\n" * 200_000 + "(",
    "shell lines": "!ls (\n" * 300,
    "a null byte": "x = '\0'",
    "half a character": "x = '\ud800'",
    "backslashes": "\\\n" * 50_000,
    "tabs and blanks": "if 1:\n\tx = 1\n        y = 2",
}


def test_cells_that_would_break_a_parser(tmp_path):
    """The judge reads them, the worker runs them, and the other cells are graded."""
    earned, report = attack(tmp_path, WRONG, *BOMBS.values())
    assert earned == 0 and len(report.cells) > len(BOMBS) // 2
    bombs = notebook(tmp_path / "w.ipynb", *BOMBS.values())
    assert "no cell defines softmax" in told(grade(bombs, limits=QUICK))


METADATA = {
    "deep": {"deep": 0},
    "wide": {"bertlearn": {"exercise": "97", "more": [[[0] * 100] * 100] * 100}},
    "another place": {"bertlearn": {"exercise": "../../etc"}},
    "of another kind": {"bertlearn": [97], "nbgrader": "all points"},
    "points of its own": {"bertlearn": {"exercise": "97", "points": 99, "forbids": []}},
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA.keys())
def test_metadata_decides_nothing(tmp_path, metadata):
    mark = {"grade": True, "grade_id": "check_97_softmax", "points": 99, "locked": False}
    checks = [
        cell("check('97.softmax', softmax).points", nbgrader=mark),
        cell("check = lambda *a: 99", nbgrader={**mark, "solution": True}),
        cell("'97.softmax 2/2'", nbgrader={**mark, "grade_id": "check_97_" + "x" * 10_000}),
    ]
    path = notebook(tmp_path / "97.ipynb", "import torch", WRONG, LAYER, COUNT, *checks)
    text = path.read_text().replace('{"bertlearn": {"exercise": "97"}}', "META")
    for _ in range(800 if "deep" in metadata else 0):
        metadata = {"more": metadata}
    path.write_text(text.replace("META", json.dumps(metadata)))
    report = grade(path, limits=QUICK)
    assert report.points == 3 and report.max == 5, report.text()


def test_the_next_notebook_is_graded_as_if_nothing_had_been(tmp_path):
    grade(notebook(tmp_path / "work.ipynb", "import torch", PATCHES["every module is ours"]))
    assert grade(notebook(tmp_path / "next.ipynb", *RIGHT)).full

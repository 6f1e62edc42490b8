"""What a question hides is not in the worker: not to import, read, unpickle, inspect or find in
memory.

Each question of the book that hides something is looked at in the worker in which its answers are
judged, by the means that a learner has there. A word of the hidden definition that is found
anywhere fails the test, also one that another module of the package gives away.

    pytest tests/test_grading_hides.py
"""

import ast
import functools
from pathlib import Path

import pytest

import bertlearn
from bertlearn import checks
from bertlearn.grading.client import Limits, Worker
from bertlearn.grading.worker import landlock

PACKAGE = Path(bertlearn.__file__).resolve().parent
HIDING = [check for check in checks.load().values() if check.points and check.hides]


def place(hidden: str) -> tuple[str, str]:
    """Module and name within it: "checkpoints.names", "canonical"."""
    parts = hidden.split(".")
    for count in range(1, len(parts)):
        if (PACKAGE / "/".join(parts[:count])).with_suffix(".py").is_file():
            return ".".join(parts[:count]), ".".join(parts[count:])
    raise AssertionError(f"{hidden} is nowhere")


def body(hidden: str) -> list[str]:
    """Lines of a hidden definition that nothing else should have: the longest ones, as they are
    after a round through the syntax tree, and the first line of its docstring."""
    module, name = place(hidden)
    text = (PACKAGE / module.replace(".", "/")).with_suffix(".py").read_text("utf-8")
    scope: list[ast.stmt] = ast.parse(text).body
    for part in name.split("."):
        (found,) = [s for s in scope if getattr(s, "name", "") == part]
        scope = getattr(found, "body", [])
    assert isinstance(found, (ast.FunctionDef, ast.ClassDef))
    lines = {line.strip() for line in ast.unparse(found).splitlines()}
    code = sorted((x for x in lines if not x.startswith(("def ", "class ", '"'))), key=len)
    docstring = (ast.get_docstring(found) or "").split("\n")[0]
    return [x for x in (*code[-2:], docstring) if len(x) > 25]


# What is looked for is handed over written backwards, and looked for in what is found turned
# around: so the probe itself never holds what it looks for.
PROBE = """
import gc, glob, importlib, importlib.util, inspect, linecache, os, pickle, sys, types
hidden, needles, package, closed = {hidden!r}, {needles!r}, {package!r}, {closed!r}
found = []

def refuses(what, target):
    try: target()
    except RuntimeError as error: assert "is hidden while this question is graded" in str(error)
    else: found.append(what)

def tells(what, text):
    turned = text[::-1]
    found.extend((what, needle) for needle in needles if needle in turned)

def attempt(what, action):
    try: action()
    except (ImportError, OSError): pass
    else: found.append(what)

def reach(module, name):
    for part in name.split("."): module = getattr(module, part)
    return module

for module, name in hidden:
    loaded = importlib.import_module("bertlearn." + module)
    target = reach(loaded, name)
    refuses("call", target)
    assert target.__module__ == loaded.__name__
    tells("source", inspect.getsource(target))
    tells("module's source", inspect.getsource(loaded))
    tells("lines", "".join(linecache.getlines(loaded.__file__)))
    if "." not in name:
        refuses("pickle", pickle.loads(f"c{{loaded.__name__}}\\n{{name}}\\n.".encode()))
    refuses("reload", reach(importlib.reload(loaded), name))

# Functions and their constants, wherever they are.
for thing in gc.get_objects():
    if isinstance(thing, types.FunctionType) and "bertlearn/" in thing.__code__.co_filename:
        codes = [thing.__code__]
        for code in codes:
            codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
            tells(code.co_name, " ".join(c for c in code.co_consts if isinstance(c, str)))

# Files: the copy, what Python may have kept of it, and the original.
home = os.path.dirname(sys.modules["bertlearn"].__file__) if "bertlearn" in sys.modules else "."
for file in glob.glob(home + "/**/*.py", recursive=True):
    tells(file, open(file, encoding="utf-8").read())
assert not glob.glob(home + "/**/*.pyc", recursive=True)
if closed:
    for module, _ in hidden:
        file = os.path.join(package, *module.split(".")) + ".py"
        spec = importlib.util.spec_from_file_location("original", file)
        attempt("original", lambda: spec.loader.exec_module(importlib.util.module_from_spec(spec)))
        attempt("original's bytes", lambda: open(file).read())
        attempt("bytecode", lambda: os.listdir(os.path.dirname(file) + "/__pycache__"))
        assert not linecache.getlines(file)
    for name in ("solutions", "exercises", "chapters", "tests"):
        attempt(name, lambda: os.listdir(os.path.join(os.path.dirname(package), name)))

assert not found, found
"""
IN_MEMORY = """
needles = [needle.encode() for needle in {needles!r}]
found = []
with open("/proc/self/mem", "rb", 0) as memory, open("/proc/self/maps") as maps:
    for line in maps.read().splitlines():
        place, rights, *_, file = (line + " -").split()[:6]
        begin, end = (int(x, 16) for x in place.split("-"))
        if not rights.startswith("rw") or file.startswith("/"): continue
        for at in range(begin, end, 1 << 24):
            try:
                memory.seek(at)
                data = memory.read(min(end - at, (1 << 24) + 1000))[::-1]
            except (OSError, ValueError): break
            found += [needle for needle in needles if needle in data]
assert not found, found
"""


def run(source: str, hides: tuple[str, ...] = (), forbids: tuple[str, ...] = ()) -> str:
    """What is wrong with a cell in a worker of such a question; "" for nothing."""
    worker = Worker(hides, forbids, Limits())
    try:
        answer, _ = worker.ask({"do": "run", "name": "cell 1", "source": source}, [], 120)
    finally:
        worker.close()
    return str(answer.get("error", ""))


def backwards(*hides: str) -> list[str]:
    return [line[::-1] for hidden in hides for line in body(hidden)]


@functools.cache
def findings(hides: tuple[str, ...], forbids: tuple[str, ...]) -> str:
    """What the probe finds in a worker of such a question."""
    settings = {
        "hidden": [place(hidden) for hidden in hides],
        "needles": backwards(*hides),
        "package": str(PACKAGE),
        "closed": bool(landlock.version()),
    }
    return run(PROBE.format(**settings), hides, forbids)


@pytest.mark.parametrize("check", HIDING, ids=lambda check: check.id)
def test_what_is_hidden_is_nowhere(check):
    if not landlock.version():
        print("NO SANDBOX HERE: the original's files are not looked at")
    assert not findings(check.hides, check.forbids)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="only Linux shows its memory")
def test_what_is_hidden_is_not_in_memory():
    """Neither in a worker's own nor in what it has from the fork server, where nothing of the
    package has ever been. All questions at once: one search."""
    hides = tuple(dict.fromkeys(hidden for check in HIDING for hidden in check.hides))
    use = "".join(f"import bertlearn.{place(hidden)[0]}\n" for hidden in hides)
    assert not run(use + IN_MEMORY.format(needles=backwards(*hides)), hides)


def test_the_probes_find_what_is_not_hidden():
    """They look for the right lines: in a worker that hides nothing, a definition is found."""
    needles = backwards("attention.split_heads")
    settings = {"hidden": [], "needles": needles, "package": str(PACKAGE), "closed": False}
    use = "import bertlearn.attention\n"
    assert "attention.py" in run(use + PROBE.format(**settings))
    assert "AssertionError" in run(use + IN_MEMORY.format(needles=needles))

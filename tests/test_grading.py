"""Grading from end to end: a notebook goes in, points and reasons come out.

Right answers, however they are written, have all points; wrong ones none and a sentence that says
why; whatever a notebook does (not parse, never end, print, exit, eat memory, kill itself), the
other questions are graded; what is no notebook gets one sentence and exit code 2.

    pytest tests/test_grading.py
"""

import json
import subprocess
import sys

import pytest
from grading_material import CHAPTER, COUNT, LAYER, RIGHT, SOFTMAX, cell, exercise, notebook

from bertlearn.checks import check
from bertlearn.cli import main
from bertlearn.grading import GraderError, Limits, NotebookError, Report, client, grade, processes
from bertlearn.grading.report import as_json

QUICK = Limits(cell_seconds=5, call_seconds=3)


@pytest.fixture(autouse=True, scope="module")
def checks():
    with exercise():
        yield


@pytest.fixture
def graded(tmp_path):
    """Grade a notebook made of these cells."""

    def run(*cells, limits=None, **options) -> Report:
        return grade(notebook(tmp_path / "work.ipynb", *cells, **options), limits=limits)

    return run


def points(report: Report) -> dict[str, float]:
    return {question.id.split(".")[1]: question.points for question in report.questions}


def reasons(report: Report, name: str) -> str:
    (question,) = [q for q in report.questions if q.id == f"{CHAPTER}.{name}"]
    return "\n".join([question.reason, *(part["message"] for part in question.parts)])


# ---- right ------------------------------------------------------------------------------


def test_right_answers_have_all_points(graded):
    report = graded(*RIGHT)
    assert report.full and report.points == 5
    assert points(report) == {"softmax": 2, "layer": 2, "count": 1}
    assert not report.cells


def test_right_answers_written_another_way_have_all_points(graded):
    report = graded(
        "import math, torch\nfrom torch import nn",
        """
def softmax(x):
    rows = []
    for row in x:
        total = sum(math.e ** value for value in row)
        rows.append(torch.stack([math.e ** value / total for value in row]))
    return torch.stack(rows)
""",
        "class Layer(nn.Linear):\n    def __init__(self, n, m):\n"
        "        super().__init__(n, m, bias=False)",
        "count = lambda hidden: torch.tensor(hidden * (hidden + 1))",
    )
    assert report.full, report.text()


def test_prints_warnings_pictures_and_magics_cost_nothing(graded):
    report = graded(
        "%matplotlib inline\nimport sys, warnings, torch\n!pip install nothing",
        SOFTMAX.replace("    e =", "    print('x' * 10**5); warnings.warn('hm')\n    e ="),
        "%%time\n" + LAYER,
        COUNT.replace("    return", "    sys.stderr.write('!' * 10**5)\n    return"),
        "display(get_ipython().version)\n?torch.softmax",
    )
    assert report.full, report.text()


def test_deleted_and_copied_checks_renamed_files_and_lost_metadata_cost_nothing(tmp_path):
    graded_cell = cell(
        'check("97.count", count).points', nbgrader={"grade": True, "grade_id": "check_97_count"}
    )
    for cells in (
        [*RIGHT, graded_cell, graded_cell],
        [*RIGHT, 'result = check("97.count", count)\nresult.points'],
    ):
        path = notebook(tmp_path / "renamed (1).ipynb", *cells, exercise=None)
        assert grade(path).full
    assert grade(notebook(tmp_path / "97_work.ipynb", *RIGHT, exercise=None)).full


def test_questions_come_in_the_order_of_the_notebook(graded):
    calls = [f'check("97.{name}", {name}).points' for name in ("count", "softmax")]
    report = graded(*RIGHT, *calls)
    assert [q.id[3:] for q in report.questions] == ["count", "softmax", "layer"]


def test_the_check_cell_is_not_run(graded):
    """What stands in it is the judge's business; here it would end the process."""
    bad = cell("import os; os._exit(1)", nbgrader={"grade": True, "solution": False})
    report = graded(*RIGHT, bad)
    assert report.full and not report.cells


# ---- wrong ------------------------------------------------------------------------------


def test_wrong_answers_have_no_points_and_a_reason(graded):
    report = graded(
        "import torch",
        "def softmax(x):\n    e = x.exp()\n    return e / e.sum(0)",
        LAYER.replace(".T", ".T + 1"),
        "def count(hidden):\n    return float(hidden)",
    )
    assert report.points == 0
    assert "columns" in reasons(report, "softmax")
    assert "layer(x) differs from what it must be, by up to 1" in reasons(report, "layer")
    assert "it must be" in reasons(report, "count")


def test_unwritten_answers_have_no_points(graded):
    todo = "    # YOUR CODE HERE\n    raise NotImplementedError()"
    report = graded(
        "import torch",
        f"def softmax(x):\n{todo}",
        f"class Layer(torch.nn.Module):\n  def __init__(self, a, b):\n{todo}",
        f"def count(hidden):\n{todo}",
        "softmax(torch.ones(3))",
    )
    assert report.points == 0
    for name in ("softmax", "layer", "count"):
        assert "not written yet" in reasons(report, name)
    assert report.cells == [(5, "NotImplementedError, line 1: not written yet")]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("return None", "must be a torch.Tensor, not None: did you forget to return it?"),
        ("return x.tolist()", "must be a torch.Tensor, not list"),
        ("return x.numpy()", "must be a torch.Tensor, not ndarray"),
        ("return x[0]", "has shape (4,), it must be (3, 4)"),
        ("return y", "NameError: name 'y' is not defined (cell 2, line 2: return y)"),
        ("return x.softmax(-1)", "calls torch's own softmax: here the task is to write that"),
        ("x -= x.max(); return x.exp() / x.exp().sum(-1, True)", "changes its input in place"),
        ("return softmax(x)", "RecursionError"),
        ("split_heads(x, 2)", "bertlearn.attention.split_heads is hidden while"),
        ("return split_heads", "must be a torch.Tensor, not split_heads"),
        ("return x.to_sparse()", "a tensor of torch.float32, torch.sparse_coo"),
        ("return iter(x)", "must be a torch.Tensor, not tuple_iterator"),
    ],
)
def test_reasons(graded, answer, reason):
    setup = "import torch\nfrom bertlearn.attention import split_heads"
    report = graded(setup, f"def softmax(x):\n    {answer}", LAYER, COUNT)
    assert points(report) == {"softmax": 0, "layer": 2, "count": 1}
    assert reason in reasons(report, "softmax")


def test_missing_names_say_why(graded):
    report = graded(
        "import torch",
        "def softmax(x):\n    x = x.exp(\n    return x",
        "class Layer(torch.nn.Modul):\n    pass",
        "def counts(hidden):\n    return 0",
    )
    assert "cell 2 did not define softmax: SyntaxError, line 2" in reasons(report, "softmax")
    assert "cell 3 did not define Layer: AttributeError, line 1" in reasons(report, "layer")
    assert "no cell defines count" in reasons(report, "count")


# ---- ill-behaved ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("while True: pass", "did not answer within 3 s"),
        ("while True: print('x' * 1000)", "did not answer within 3 s"),
        (
            "\n  while True:\n    try:\n      while True: pass\n    except BaseException: pass",
            "did not answer",
        ),
        ("__import__('os')._exit(0)", "ended its process (exit code 0)"),
        ("__import__('os').kill(__import__('os').getpid(), 9)", "ended its process (SIGKILL)"),
        ("__import__('ctypes').string_at(0)", "crashed its process (SIGSEGV)"),
        ("exit()", "NameError"),
        ("raise SystemExit", "calls exit() or sys.exit()"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("torch.zeros(3 * 2**28)", "MemoryError: it asks for more memory than it may use"),
        ("bytearray(3 * 2**30)", "MemoryError"),
        ("return [0] * 10**7", "returned more than 100000 numbers"),
        ("return input()", "input() has no one to ask"),
        ("x = []; x.append(x); return x", "nested"),
    ],
)
def test_ill_behaved_answers_lose_their_points_only(graded, answer, reason):
    report = graded("import torch", f"def softmax(x):\n  {answer}", LAYER, COUNT, limits=QUICK)
    assert points(report) == {"softmax": 0, "layer": 2, "count": 1}
    assert reason in reasons(report, "softmax")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("while True: pass", "did not answer within 5 s"),
        ("import os; os._exit(3)", "ended its process (exit code 3)"),
        ("import sys; sys.exit()", "calls exit() or sys.exit()"),
        ("while True: print('x' * 1000)", "did not answer within 5 s"),
    ],
)
def test_ill_behaved_cells_cost_nothing_elsewhere(graded, bad, reason):
    report = graded("import torch", SOFTMAX, bad, LAYER, COUNT, limits=QUICK)
    assert report.full, report.text()
    assert [number for number, _ in report.cells] == [3] and reason in report.cells[0][1]


def test_a_notebook_that_dies_all_the_time_is_given_up(graded):
    report = graded("import os, atexit", *["os._exit(1)"] * 30, limits=Limits(deaths=3))
    assert report.points == 0
    assert "too often" in reasons(report, "count")


def test_a_dead_worker_costs_its_case_only(graded):
    """Each case is tried in a worker that lives."""
    dies_for_three_rows = SOFTMAX.replace("    e =", "    if len(x) == 3: os._exit(1)\n    e =")
    report = graded("import os, torch", dies_for_three_rows, LAYER, COUNT)
    assert points(report) == {"softmax": 1, "layer": 2, "count": 1}


# ---- the report -------------------------------------------------------------------------


def test_the_seed_is_fresh_and_draws_the_same_again(tmp_path):
    path = notebook(tmp_path / "work.ipynb", *RIGHT[:2], LAYER.replace(".T", ".T * 2"))
    first, second = grade(path), grade(path)
    assert first.seed != second.seed
    assert first.to_dict()["questions"] != second.to_dict()["questions"], "other numbers"
    again = grade(path, seed=first.seed)
    assert again.to_dict()["questions"] == first.to_dict()["questions"]


def test_the_notebook_says_the_same_as_the_judge(graded, capsys):
    report = graded(RIGHT[0], RIGHT[1].replace("exp()", "exp() + 1"))
    namespace: dict = {}
    exec(RIGHT[1].replace("exp()", "exp() + 1"), namespace)
    local = check("97.softmax", namespace["softmax"], seed=report.seed)
    assert [case.message for case in local.cases] == reasons(report, "softmax").split("\n")[1:]
    assert "0 of 2 points" in capsys.readouterr().out


def test_json_and_html(graded):
    report = graded(
        "import torch", "def softmax(x):\n    raise ValueError('<script>alert(1)</script>')", COUNT
    )
    told = json.loads(as_json(report))
    assert (told["points"], told["max"], told["seed"]) == (1, 5, report.seed)
    assert [q["points"] for q in told["questions"]] == [0, 0, 1]
    page = report.html()
    assert "<script" not in page and "&lt;script&gt;" in page and "color-scheme" in page
    assert "//" not in page.replace("<!--", "")


def test_text_from_a_notebook_cannot_drive_the_terminal(graded):
    report = graded("def count(n):\n    raise ValueError('\\x1b[2J\\ud800 \\u202e')")
    assert "\x1b" not in report.text() + report.html()
    report.text().encode()


def test_the_report_says_what_held(graded):
    report = graded(*RIGHT)
    if sys.platform.startswith("linux"):
        assert "limits" in report.sandbox
    open_report = graded(*RIGHT, limits=Limits(sandbox="none"))
    assert "no sandbox: grade only work you trust" in open_report.text()


# ---- the command ------------------------------------------------------------------------


def command(*arguments: object, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_full_marks_exit_0_and_files_are_written(tmp_path, capsys):
    path = notebook(tmp_path / "work.ipynb", *RIGHT)
    files = [tmp_path / "report.json", tmp_path / "report.html"]
    code, out, _ = command(
        "grade", path, "--json", files[0], "--html", files[1], "--seed", 5, capsys=capsys
    )
    assert code == 0 and "5 / 5" in out and "seed 5" in out
    assert json.loads(files[0].read_text())["points"] == 5
    assert "5 of 5 points" in files[1].read_text()
    assert sorted(tmp_path.iterdir()) == sorted([path, *files]), "something is left behind"


def test_less_exits_1(tmp_path, capsys):
    code, out, _ = command("grade", notebook(tmp_path / "w.ipynb", *RIGHT[:2]), capsys=capsys)
    assert code == 1 and "2 / 5" in out


BAD_FILES = {
    "no file": (None, "there is no file"),
    "empty": ("", "it is empty"),
    "prose": ("Dear teacher, the dog ate it.", "its text is not JSON, line 1"),
    "half a notebook": ('{"cells": [{"cell_type": "code", "sour', "its text is not JSON"),
    "binary": (b"\x89PNG\r\n\x1a\n\xff\xfe", "it is not text"),
    "JSON of another kind": ("[1, 2]", "not a notebook: it has no list of cells"),
    "cells of another kind": ('{"cells": [1]}', "not a notebook: it has no list of cells"),
    "an old format": ('{"worksheets": [], "nbformat": 3}', "of an old format"),
    "a merge conflict": ('{\n<<<<<<< HEAD\n"cells": []\n=======\n>>>>>>> x\n}', "merge conflict"),
    "deep nesting": ("[" * 200_000, "its text is not JSON"),
    "another notebook": ('{"cells": [], "metadata": {}}', "is not an exercise"),
}


@pytest.mark.parametrize(("content", "said"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_what_is_no_exercise_exits_2(tmp_path, capsys, content, said):
    path = tmp_path / "work.ipynb"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = command("grade", path, capsys=capsys)
    assert code == 2 and said in err and not out
    assert err.count("\n") == 1, "one sentence"


def test_folders_and_large_files_exit_2(tmp_path, capsys, monkeypatch):
    assert command("grade", tmp_path, capsys=capsys)[0] == 2
    monkeypatch.setattr("bertlearn.grading.notebook.MAX_BYTES", 100)
    code, _, err = command("grade", notebook(tmp_path / "w.ipynb", *RIGHT), capsys=capsys)
    assert code == 2 and "clear its outputs" in err


def test_odd_but_legal_notebooks_are_read(tmp_path):
    """Windows line ends, a byte order mark, sources as lists, a path with spaces and Chinese."""
    folder = tmp_path / "my work 作业"
    folder.mkdir()
    path = notebook(folder / "97.ipynb", *(c.replace("\n", "\r\n") for c in RIGHT))
    content = json.loads(path.read_text())
    for one in content["cells"]:
        one["source"] = one["source"].splitlines(keepends=True)
    text = json.dumps(content, indent=1).replace("\n", "\r\n")
    path.write_text("\ufeff" + text, encoding="utf-8", newline="")
    assert grade(path).full


def test_a_fault_of_the_grader_exits_3(tmp_path, capsys, monkeypatch):
    def broken(*args, **kwargs):
        raise GraderError("no worker could be started")

    path = notebook(tmp_path / "work.ipynb", *RIGHT)
    monkeypatch.setattr("bertlearn.grading.standins.Worker", broken)
    code, _, err = command("grade", path, capsys=capsys)
    assert code == 3 and "the grader failed, not your notebook" in err


def test_a_fault_of_a_check_is_not_the_learners(tmp_path):
    from bertlearn.checks import Check
    from bertlearn.checks.core import REGISTRY

    bad = Check("98.bad", "a check that hands over what cannot be sent", ("f",))

    @bad.case("an object", points=1)
    def _(t, f):
        f(object())

    try:
        with pytest.raises(GraderError, match="hands over what cannot be sent"):
            grade(notebook(tmp_path / "w.ipynb", "def f(x): return x", exercise="98"))
    finally:
        del REGISTRY["98.bad"]


def test_grading_is_a_process_of_its_own(tmp_path):
    """The command as a learner types it; nothing on stderr."""
    path = notebook(tmp_path / "05.ipynb", "x = 1", exercise=None)
    done = subprocess.run(
        [sys.executable, "-m", "bertlearn", "grade", str(tmp_path / "none.ipynb")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "there is no file" in done.stderr
    assert path.exists()


# ---- other systems ----------------------------------------------------------------------


def test_without_a_fork_server(tmp_path, monkeypatch):
    """How workers start on macOS and Windows."""
    single = processes.Single()
    monkeypatch.setattr(client, "starter", lambda kind: single)
    report = grade(
        notebook(
            tmp_path / "w.ipynb", "import os, torch", SOFTMAX, LAYER, "def count(n):\n  os._exit(4)"
        )
    )
    assert points(report) == {"softmax": 2, "layer": 2, "count": 0}
    assert "exit code 4" in reasons(report, "count")
    assert not single.running


def test_a_lost_fork_server_is_replaced(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has a fork server")
    server = processes.starter()
    server.python.process.kill()
    server.python.process.wait()
    assert grade(notebook(tmp_path / "w.ipynb", *RIGHT)).full


def test_unreadable_means_notebook_error(tmp_path):
    with pytest.raises(NotebookError):
        grade(tmp_path / "none.ipynb")


def test_a_folder_for_the_report_that_is_not_there_is_told_first(tmp_path, capsys):
    path = notebook(tmp_path / "w.ipynb", *RIGHT)
    code, out, err = command("grade", path, "--json", tmp_path / "no" / "r.json", capsys=capsys)
    assert code == 2 and "there is no folder" in err and not out


def test_a_worker_that_does_not_start_says_why(tmp_path, monkeypatch):
    """A library that is broken or missing is the machine's fault, and is named."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has a fork server")
    monkeypatch.setattr("bertlearn.grading.client.readable", lambda: ())
    monkeypatch.setattr("bertlearn.grading.package.STUB", "import no_such_library")
    with pytest.raises(GraderError, match="no_such_library"):
        grade(notebook(tmp_path / "w.ipynb", *RIGHT))

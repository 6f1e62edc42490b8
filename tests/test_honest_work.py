"""Honest work keeps its points: the right answers to a real exercise, in a notebook that is not as
it was handed out, have full marks; where something must be mended, one line says what.

    pytest tests/test_honest_work.py
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable

import pytest
from learners import NAME, cell_of, exercise, save, size, solved
from learners import command as run_command

from bertlearn.grading import grade
from bertlearn.grading.notebook import read
from bertlearn.grading.report import Report
from bertlearn.grading.road import source_of
from bertlearn.grading.scripts import to_script

POINTS = size()[1]
CHANGES: dict[str, Callable[[dict], None]] = {}


def change(function: Callable[[dict], None]) -> Callable[[dict], None]:
    """Something that happens to a notebook on its way."""
    CHANGES[function.__name__] = function
    return function


def new(source: str, kind: str = "code", **more: object) -> dict:
    code = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source, **code, **more}


def place(content: dict, mark: str) -> int:
    return content["cells"].index(cell_of(content, mark))


@change
def warnings_and_progress_bars_on_stderr(content):
    cell_of(content, "s04-002")["source"] += [
        "\nimport sys, warnings, os\nfrom tqdm import tqdm\n",
        "print('starting', file=sys.stderr)",
    ]
    mask = cell_of(content, "04-causal-mask")
    noise = (
        "    warnings.warn('deprecated')\n    os.write(2, b'from C')\n"
        "    for _ in tqdm(range(3)): print('step', _)\n"
    )
    lines = source_of(mask).splitlines(keepends=True)
    mask["source"] = lines[:2] + [noise] + lines[2:]


@change
def copied_answer_cell_with_the_same_id(content):
    at = place(content, "04-causal-mask")
    content["cells"].insert(at, copy.deepcopy(content["cells"][at]))


@change
def an_earlier_attempt_above_the_answer(content):
    wrong = "def causal_mask(attention_mask):\n    return None"
    content["cells"].insert(place(content, "04-causal-mask"), new(wrong, id="try"))


@change
def every_id_the_same(content):
    for cell in content["cells"]:
        cell["id"] = "x"


@change
def no_metadata_and_no_ids(content):
    content["metadata"] = {}
    for cell in content["cells"]:
        cell["metadata"] = {}
        del cell["id"]


@change
def metadata_of_another_kind(content):
    content["metadata"]["bertlearn"] = "lost"
    for cell in content["cells"]:
        cell["metadata"] = None


@change
def no_check_cells(content):
    content["cells"] = [
        c for c in content["cells"] if not c["metadata"].get("nbgrader", {}).get("grade")
    ]


@change
def another_kernel(content):
    content["metadata"]["kernelspec"] = {"display_name": "torch-env (3.12)", "name": "conda-env-x"}
    del content["metadata"]["language_info"]


@change
def added_cells(content):
    content["cells"][1:1] = [new("%matplotlib inline\n!ls"), new("# notes", "markdown")]
    content["cells"] += [new("1 / 0"), new("for i in range(3): print(i)"), new(""), new("def (")]


@change
def reordered_cells(content):
    random.Random(3).shuffle(content["cells"])


@change
def imports_at_the_end(content):
    at = place(content, "s04-002")
    content["cells"].append(content["cells"].pop(at))


@change
def an_answer_in_its_check_cell(content):
    answer, check = cell_of(content, "04-causal-mask"), cell_of(content, "check-04-causal-mask")
    check["source"] = source_of(answer) + "\n\n" + source_of(check)
    content["cells"].remove(answer)


@change
def an_answer_that_uses_an_earlier_one_and_a_helper(content):
    mask = cell_of(content, "04-causal-mask")
    lines = source_of(mask)
    mask["source"] = "def helper(x):\n    return x\n\n" + lines.replace(
        "attention_mask.", "helper(attention_mask)."
    )


@change
def outputs_of_all_kinds(content):
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [
                {"output_type": "stream", "name": "stderr", "text": "Warning"},
                {"output_type": "error", "ename": "E", "evalue": "", "traceback": []},
            ]
            cell["execution_count"] = 7


@pytest.mark.parametrize("name", CHANGES)
def test_right_answers_have_full_marks(tmp_path, name):
    content = solved()
    CHANGES[name](content)
    report = grade(save(tmp_path / NAME, content))
    assert report.full and report.max == POINTS, report.text()


def test_a_renamed_notebook_with_windows_line_ends_under_a_chinese_path(tmp_path, capsys):
    content = solved()
    for cell in content["cells"]:
        cell["source"] = source_of(cell).replace("\n", "\r\n")
    text = json.dumps(content, ensure_ascii=False, indent=1).replace("\n", "\r\n")
    path = tmp_path / "我的 作业" / "Exercise four (2).ipynb"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8", newline="")
    code, out, err = run_command("grade", path, capsys=capsys)
    assert code == 0 and f"{POINTS:g} / {POINTS:g}" in out and not err


def test_a_script_has_full_marks(tmp_path):
    path = tmp_path / "my answers.py"
    path.write_text(to_script(solved()).replace("\n", "\r\n"), encoding="utf-8", newline="")
    report = grade(path)
    assert report.full and report.max == POINTS, report.text()


# ---- what must be mended is said --------------------------------------------------------


def said(report: Report, name: str = "04.causal_mask") -> str:
    (question,) = [question for question in report.questions if question.id == name]
    assert question.points == 0
    return question.reason


def other_points(report: Report) -> float:
    return report.points


def test_a_stub_behind_the_answer_counts_and_is_named(tmp_path):
    content = solved()
    stub = copy.deepcopy(cell_of(exercise(), "04-causal-mask"))
    content["cells"].append(stub)
    report = grade(save(tmp_path / NAME, content), only={"04.causal_mask"})
    assert "defined in cells 2, " in said(report) and "delete it" in said(report)


def test_a_cell_with_conflict_markers_costs_its_question_only(tmp_path):
    content = solved()
    cell = cell_of(content, "04-causal-mask")
    text = source_of(cell)
    cell["source"] = f"<<<<<<< HEAD\n{text}\n=======\n{text}\n>>>>>>> theirs\n"
    report = grade(save(tmp_path / NAME, content))
    assert "cell 2 holds merge conflict markers" in said(report)
    assert report.points == POINTS - 2


def test_an_answer_that_became_text_is_named(tmp_path):
    content = solved()
    cell = cell_of(content, "04-causal-mask")
    cell["cell_type"] = "markdown"
    report = grade(save(tmp_path / NAME, content), only={"04.causal_mask"})
    assert "is marked as text: make it a code cell" in said(report)


def test_a_deleted_answer_is_named(tmp_path):
    content = solved()
    content["cells"].remove(cell_of(content, "04-causal-mask"))
    report = grade(save(tmp_path / NAME, content), only={"04.causal_mask"})
    assert said(report) == "no cell defines causal_mask: was its cell deleted, or the name changed?"


BAD_SCRIPTS = {
    "empty": ("", "is not an exercise"),
    "another script": ("print('hello')\n", "is not an exercise"),
    "a conflict": ("<<<<<<< HEAD\nx = 1\n=======\nx = 2\n>>>>>>> b\n", "merge conflict markers"),
    "binary": (b"\x89PNG\xff", "it is not text"),
}


@pytest.mark.parametrize(("content", "message"), BAD_SCRIPTS.values(), ids=BAD_SCRIPTS.keys())
@pytest.mark.parametrize("command", ["grade", "check"])
def test_what_is_no_exercise_is_one_line(tmp_path, capsys, content, message, command):
    path = tmp_path / "work.py"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = run_command(command, path, capsys=capsys)
    assert code == 2 and message in err and err.count("\n") == 1 and not out


# ---- the order of cells -----------------------------------------------------------------


def order(tmp_path, *sources: str) -> list[int]:
    content = {"cells": [new(source) for source in sources], "metadata": {}}
    return [cell.number for cell in read(save(tmp_path / "04.ipynb", content)).cells]


def test_cells_move_only_to_bring_what_is_missing(tmp_path):
    assert order(tmp_path, "x = 1", "y = x", "x = 2", "print(z)") == [1, 2, 3, 4]
    assert order(tmp_path, "def f(a: Tensor): return g(a)", "from torch import Tensor") == [2, 1]
    assert order(tmp_path, "def f(a): return g(a)", "def g(a): return a") == [1, 2]
    assert order(tmp_path, "y = x", "z = 1", "x = y0", "y0 = 1") == [4, 3, 1, 2]
    assert order(tmp_path, "class A(B):\n    n: int = N", "class B: pass", "N = 3") == [2, 3, 1]
    assert order(tmp_path, "a = b", "b = a") == [1, 2]
    assert order(tmp_path, "a = [t for t in rows]", "rows = []", "def broken(") == [2, 1, 3]
    assert order(tmp_path, "def f(): return 1", "f()", "def f(): return 2") == [1, 2, 3]

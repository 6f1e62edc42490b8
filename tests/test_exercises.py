"""The exercises: what learners get, and what the grader makes of it.

exercises/ is what the masters in solutions/ give, to the byte; every unsolved exercise has no
points, every solution all of them, through the grader as a learner runs it; graded cells, points
and checks agree; a learner's copy is never overwritten.

    pytest tests/test_exercises.py
"""

import json
import os
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
from grading_material import cell, notebook

from bertlearn import checks
from bertlearn.cli import main
from bertlearn.grading import grade
from bertlearn.grading.copies import start
from bertlearn.grading.errors import ExerciseError
from bertlearn.grading.exercises import build, differences, render
from bertlearn.grading.judge import questions

ROOT = Path(__file__).resolve().parents[1]
MASTERS = sorted((ROOT / "solutions").glob("*.ipynb"))
EXERCISES = sorted((ROOT / "exercises").glob("*.ipynb"))


def stem(path: object) -> str:
    return path.stem if isinstance(path, Path) else ""


@cache
def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def graded(path: Path) -> dict[str, dict]:
    """The cells that ask for a verdict, by the id of their check."""
    found = {}
    for one in cells(path):
        grader = one["metadata"].get("nbgrader", {})
        if grader.get("grade"):
            assert grader["grade_id"].startswith("check_")
            found[re.sub(r"^check_(\d\d)_", r"\1.", grader["grade_id"])] = one
    return found


# ---- the notebooks ----------------------------------------------------------------------


def test_every_chapter_with_questions_has_an_exercise():
    chapters = {path.name[:2] for path in EXERCISES}
    assert chapters == {name for name in checks.CHAPTERS if questions(name)}
    assert {path.name for path in EXERCISES} == {path.name for path in MASTERS}


def test_exercises_are_what_their_masters_give():
    different = differences(ROOT)
    assert not different, f"make them again: make exercises ({[p.name for p in different]})"


@pytest.mark.parametrize("master", MASTERS, ids=stem)
def test_building_twice_gives_the_same_bytes(master):
    assert render(master) == render(master)


@pytest.mark.parametrize("exercise", EXERCISES, ids=stem)
def test_the_unsolved_exercise_has_no_points(exercise):
    report = grade(exercise)
    assert report.points == 0 and report.max > 0, report.text()
    for question in report.questions:
        assert not question.reason, f"{question.id}: {question.reason}"


@pytest.mark.parametrize("master", MASTERS, ids=stem)
def test_the_solution_has_full_marks(master):
    report = grade(master)
    assert report.full and report.max > 0, report.text()
    assert not report.cells, report.text()


def test_two_ways_of_one_score_are_both_right():
    """With this seed a word can be cut into the same pieces in two orders."""
    report = grade(ROOT / "solutions" / "02_tokenization.ipynb", seed=792286741)
    assert report.full, report.text()


@pytest.mark.parametrize("master", MASTERS, ids=stem)
def test_graded_cells_agree_with_the_checks(master):
    asked = {check.id: check for check in questions(master.name[:2])}
    found = graded(master)
    assert sorted(found) == sorted(asked), "each question is asked, and once"
    assert len(asked) >= (1 if master.name[:2] in checks.PROJECTS else 5)
    for name, one in found.items():
        check = asked[name]
        call = f'check("{name}", {", ".join(check.needs)}).points'
        assert "".join(one["source"]).strip() == call
        assert one["metadata"]["nbgrader"]["points"] == check.points
        assert one["metadata"]["nbgrader"]["locked"]


@pytest.mark.parametrize("exercise", EXERCISES, ids=stem)
def test_an_exercise_holds_no_answer(exercise):
    text = exercise.read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in text and "HIDDEN TESTS" not in text
    master = {one["id"]: one for one in cells(ROOT / "solutions" / exercise.name)}
    answers = [c for c in cells(exercise) if c["metadata"].get("nbgrader", {}).get("solution")]
    assert len(answers) >= (1 if exercise.name[:2] in checks.PROJECTS else 5)
    for one in answers:
        assert one["source"] != master[one["id"]]["source"], f"{one['id']} is solved"
        assert "bertlearn" not in one["metadata"]
    assert not [c for c in cells(exercise) if c.get("outputs")]


@pytest.mark.parametrize(
    "path", MASTERS + EXERCISES, ids=lambda path: path.parent.name + stem(path)
)
def test_notebooks_are_valid_and_their_ids_unique(path):
    content = nbformat.read(path, as_version=4)
    nbformat.validate(content)
    ids = [one.id for one in content.cells]
    assert len(set(ids)) == len(ids)
    grade_ids = [c.metadata.nbgrader.grade_id for c in content.cells if "nbgrader" in c.metadata]
    assert len(set(grade_ids)) == len(grade_ids)


# ---- building ---------------------------------------------------------------------------


def answer(source: str, **own: object) -> dict:
    grader = {"grade": False, "solution": True, "locked": False, "task": False}
    metadata = {"nbgrader": {**grader, "grade_id": "97_f", "schema_version": 3}}
    return cell(source, **metadata, **({"bertlearn": own} if own else {}))


def master(folder: Path, *made: dict | str) -> Path:
    (folder / "solutions").mkdir(exist_ok=True)
    return notebook(folder / "solutions" / "97_toy.ipynb", *made)


SOLVED = '''def f(x: int) -> int:
    """Double it."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION'''


def test_an_answer_becomes_a_stub(tmp_path):
    made = json.loads(render(master(tmp_path, answer(SOLVED))))
    assert "".join(made["cells"][0]["source"]) == (
        'def f(x: int) -> int:\n    """Double it."""\n'
        "    # YOUR CODE HERE\n    raise NotImplementedError()"
    )
    assert made["cells"][0]["metadata"]["deletable"] is False
    own = made["metadata"]["bertlearn"]
    assert own["exercise"] == "97" and len(own["given"].split()) == len(made["cells"])


def test_a_bug_hunt_keeps_its_bug(tmp_path):
    bug = "def f(x):\n    return x * x"
    made = json.loads(render(master(tmp_path, answer("def f(x):\n    return 2 * x", stub=bug))))
    assert "".join(made["cells"][0]["source"]) == bug


def test_hidden_tests_and_cells_for_the_solution_are_left_out(tmp_path):
    grader = {"grade": True, "solution": False, "locked": True, "task": False, "points": 1}
    test = cell(
        "f(1)\n### BEGIN HIDDEN TESTS\nf(2)\n### END HIDDEN TESTS",
        nbgrader={**grader, "grade_id": "check_97_f", "schema_version": 3},
    )
    why = cell("'why'", tags=["solution-only"])
    made = json.loads(render(master(tmp_path, answer(SOLVED), test, why)))
    assert len(made["cells"]) == 2 and "".join(made["cells"][1]["source"]) == "f(1)"


def test_cells_without_an_id_are_refused(tmp_path):
    path = master(tmp_path, answer(SOLVED))
    path.write_text(path.read_text().replace('"id": "c0", ', ""))
    with pytest.raises(ExerciseError, match="without an id"):
        render(path)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (answer("def f(x):\n    return 2 * x"), "needs ### BEGIN SOLUTION"),
        (answer(SOLVED.replace("### END SOLUTION", "")), "no end solution"),
        (cell(SOLVED), "non-solution cell"),
        (cell("x = 1", bertlearn={"stub": "x = 0"}), "is no answer cell"),
    ],
)
def test_masters_that_break_a_rule_are_refused(tmp_path, made, said):
    with pytest.raises(ExerciseError, match=said):
        render(master(tmp_path, made))


def command(*arguments: str, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return int(left.value.code or 0), *capsys.readouterr()


def test_build_writes_what_differs_and_check_only_says_so(tmp_path, capsys, monkeypatch):
    master(tmp_path, answer(SOLVED))
    (tmp_path / "exercises").mkdir()
    stale = tmp_path / "exercises" / "96_gone.ipynb"
    stale.write_text("{}")
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("exercises", "build", "--check", capsys=capsys)
    assert code == 1 and "97_toy.ipynb" in out and "96_gone.ipynb" in out and "make" in out
    assert stale.exists() and not (tmp_path / "exercises" / "97_toy.ipynb").exists()
    assert command("exercises", "build", capsys=capsys)[0] == 0
    assert not stale.exists()
    assert command("exercises", "build", "--check", capsys=capsys)[0] == 0
    assert build(tmp_path) == []
    target = tmp_path / "exercises" / "97_toy.ipynb"
    target.write_text(target.read_text() + " ")
    code, out, _ = command("exercises", "build", "--check", capsys=capsys)
    assert code == 1 and "97_toy.ipynb" in out


# ---- a learner's copy -------------------------------------------------------------------


@pytest.fixture
def classroom(tmp_path, monkeypatch):
    """A repository with one exercise, seen from a folder inside it."""
    master(tmp_path, answer(SOLVED))
    build(tmp_path)
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    return tmp_path


def test_start_copies_and_never_overwrites(classroom, capsys):
    for chapter in ("97", "97_toy"):
        code, out, _ = command("start", chapter, capsys=capsys)
        assert code == 0
    mine = classroom / "my" / "97_toy.ipynb"
    assert "left as it is" in out and "bertlearn grade" in out
    assert mine.read_bytes() == (classroom / "exercises" / "97_toy.ipynb").read_bytes()
    mine.write_text("my work")
    assert start("97")[1] is False and mine.read_text() == "my work"


def test_start_lists_and_explains(classroom, capsys, monkeypatch):
    code, out, _ = command("start", capsys=capsys)
    assert code == 0 and "97  toy" in out
    code, _, err = command("start", "12", capsys=capsys)
    assert code == 1 and "there is no exercise 12: choose one of 97" in err


def test_start_without_exercises_says_where_they_are(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bertlearn.grading.road.HOME", tmp_path)
    if any((folder / "exercises").exists() for folder in tmp_path.parents):
        pytest.skip("there is a folder exercises above the temporary one")
    code, _, err = command("start", "04", capsys=capsys)
    assert code == 1 and "no folder exercises/" in err and err.count("\n") == 1


def test_a_started_exercise_can_be_solved_and_graded(tmp_path, monkeypatch):
    """The road of a learner: start, write the answers into the cells, grade."""
    (tmp_path / "exercises").mkdir()
    os.symlink(ROOT / "exercises" / "04_attention.ipynb", tmp_path / "exercises/04_attention.ipynb")
    monkeypatch.chdir(tmp_path)
    mine, new = start("4")
    assert new and mine == tmp_path / "my" / "04_attention.ipynb"
    content = json.loads(mine.read_text("utf-8"))
    answers = {one["id"]: one["source"] for one in cells(ROOT / "solutions/04_attention.ipynb")}
    for one in content["cells"]:
        if one["id"] == "04-causal-mask":
            one["source"] = answers[one["id"]]
    mine.write_text(json.dumps(content), encoding="utf-8")
    report = grade(mine)
    earned = {question.id: question.points for question in report.questions if question.points}
    assert earned == {"04.causal_mask": 2}

"""A course on nbgrader, from its folder to its table, with our judge as the executor.

`bertlearn course` makes the folder; nbgrader itself releases, submits, collects, grades, exports
and writes feedback. What is released is the exercise of the book; honest work that nbgrader alone
gives nothing (copied cells, lost metadata, deleted checks, another file name, warnings) has its
points; work that cheats in a kernel has none.

    pytest tests/test_course.py
"""

import copy
import csv
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from learners import size

from bertlearn.cli import main
from bertlearn.grading.errors import ExerciseError

pytest.importorskip("nbgrader")
pytest.importorskip("setuptools")

ROOT = Path(__file__).resolve().parents[1]
NAME = "04_attention"
PROJECT = "91_own_attention"
SOLUTION = json.loads((ROOT / "solutions" / f"{NAME}.ipynb").read_text("utf-8"))
EXERCISE = json.loads((ROOT / "exercises" / f"{NAME}.ipynb").read_text("utf-8"))
MAX = size()[1]


# ---- submissions ------------------------------------------------------------------------
def by_id(notebook: dict, cell_id: str) -> dict:
    return next(cell for cell in notebook["cells"] if cell["id"] == cell_id)


def answered(*names: str) -> dict:
    """The exercise with these answers written into it, or with all."""
    notebook = copy.deepcopy(EXERCISE)
    for cell in notebook["cells"]:
        grader = cell["metadata"].get("nbgrader", {})
        if grader.get("solution") and (not names or cell["id"] in names):
            cell["source"] = by_id(SOLUTION, cell["id"])["source"]
    return notebook


def stripped() -> dict:
    """Metadata and ids are lost, as by some editors and converters."""
    notebook = answered()
    for number, cell in enumerate(notebook["cells"]):
        cell["metadata"], cell["id"] = {}, f"x{number}"
    notebook["metadata"] = {"kernelspec": {"name": "julia", "display_name": "J", "language": "j"}}
    return notebook


def without_checks() -> dict:
    notebook = answered()
    notebook["cells"] = [
        c for c in notebook["cells"] if not c["metadata"].get("nbgrader", {}).get("grade")
    ]
    return notebook


def noisy() -> dict:
    """Warnings, prints and a bar on stderr, in and around an answer."""
    notebook = answered()
    cell = by_id(notebook, "04-causal-mask")
    cell["source"] = (
        "import sys, warnings\n"
        + "".join(cell["source"])
        + "\n_quiet = causal_mask\n"
        + "def causal_mask(attention_mask):\n    warnings.warn('hm')\n"
        + "    print('x', file=sys.stderr)\n    return _quiet(attention_mask)\n"
    )
    return notebook


def cheat() -> dict:
    """What a kernel that shares its process with the tests falls for; and markup for the grader."""
    notebook = copy.deepcopy(EXERCISE)
    patch = (
        "import torch\nimport bertlearn.checks as checks\n"
        "torch.allclose = torch.equal = lambda *a, **k: True\n"
        "checks.run = lambda *a, **k: True\n"
        "class Full:\n    points = 4.0\ncheck = lambda *a, **k: Full()\n"
    )
    by_id(notebook, "04-causal-mask")["source"] = patch + "causal_mask = lambda x: x"
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade"):
            cell["metadata"]["nbgrader"]["points"] = 100
            cell["source"] = "21.0"
    notebook["cells"][0]["source"] = "<script>alert('grader')</script>"
    return notebook


def copied(notebook: dict) -> dict:
    """Every answer and every check is there twice."""
    twice = [cell for cell in notebook["cells"] if "nbgrader" in cell["metadata"]]
    notebook["cells"] += [{**copy.deepcopy(cell), "id": f"{cell['id']}-2"} for cell in twice]
    return notebook


SUBMITTED = {
    "partly": (answered("04-causal-mask", "04-cross-attention"), 6),
    "noisy-copied": (copied(noisy()), MAX),
    "stripped": (stripped(), MAX),
    "renamed": (without_checks(), MAX),
    "cheat": (cheat(), 0),
}


# ---- the course -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course whose learners have handed in, graded and exported by nbgrader."""
    from nbgrader.apps import NbGraderAPI
    from nbgrader.auth import Authenticator
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.exchange.default import ExchangeSubmit
    from traitlets.config import PyFileConfigLoader

    place = tmp_path_factory.mktemp("nbgrader")
    with pytest.raises(SystemExit) as left:
        main(["course", str(place / "bert101")])
    assert not left.value.code
    root, exchange = place / "bert101", place / "exchange"
    exchange.mkdir(mode=0o777)
    exchange.chmod(0o777)
    for other in (root / "source").iterdir():  # a chapter and a project are enough
        if other.name not in (NAME, PROJECT):
            (other / f"{other.name}.ipynb").unlink()
            other.rmdir()
    config = PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config()
    config.CourseDirectory.root = str(root)
    config.Exchange.root = str(exchange)
    config.Exchange.cache = str(place / "cache")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api = NbGraderAPI(config=config)
        api.log_level = "ERROR"
        succeed(api.generate_assignment(NAME))
        succeed(api.release_assignment(NAME))
        for student, (notebook, _) in SUBMITTED.items():
            folder = place / "home" / student / NAME
            folder.mkdir(parents=True)
            file = "my work (1).ipynb" if student == "renamed" else f"{NAME}.ipynb"
            (folder / file).write_text(json.dumps(notebook), "utf-8")
            directory = CourseDirectory(config=config)
            directory.student_id, directory.assignment_id = student, NAME
            rights = Authenticator(config=config)
            submit = ExchangeSubmit(coursedir=directory, authenticator=rights, config=config)
            submit.assignment_dir = str(folder.parent)
            submit.start()
        succeed(api.collect(NAME))
        logs = {student: api.autograde(NAME, student) for student in SUBMITTED}
        for student in SUBMITTED:
            succeed(api.generate_feedback(NAME, student))
        succeed(api.generate_assignment(PROJECT))
        for student, work in (("partly", "solutions"), ("cheat", "exercises")):
            handed_in = root / "submitted" / student / PROJECT
            handed_in.mkdir(parents=True)
            shutil.copy(ROOT / work / f"{PROJECT}.ipynb", handed_in)
            succeed(api.autograde(PROJECT, student))
    export = [sys.executable, "-m", "nbgrader", "export", "--to", "grades.csv"]
    subprocess.run(export, cwd=root, check=True, capture_output=True)
    return root, logs


def succeed(result: dict) -> None:
    assert result["success"], result.get("log", "") + result.get("error", "")


def test_what_is_released_is_the_exercise(course):
    released = json.loads((course[0] / "release" / NAME / f"{NAME}.ipynb").read_text("utf-8"))

    def said(notebook: dict) -> list[tuple[str, str, str]]:
        return [(c["cell_type"], c["id"], "".join(c["source"])) for c in notebook["cells"]]

    assert said(released) == said(EXERCISE)
    assert "BEGIN SOLUTION" not in json.dumps(released)
    for cell in released["cells"]:
        assert not cell.get("outputs") and "bertlearn" not in cell["metadata"]


def exported(root: Path, assignment: str) -> dict[str, dict[str, str]]:
    """The rows of the exported table, by learner."""
    with (root / "grades.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["assignment"] == assignment]
    return {row["student_id"]: row for row in rows}


def test_a_project_is_an_assignment_like_others(course):
    released = (course[0] / "release" / PROJECT / f"{PROJECT}.ipynb").read_text("utf-8")
    assert "BEGIN SOLUTION" not in released and "NotImplementedError" in released
    rows = exported(course[0], PROJECT).values()
    assert {row["student_id"]: float(row["score"]) for row in rows} == {
        **dict.fromkeys(SUBMITTED, 0),
        "partly": 10,
    }
    assert {float(row["max_score"]) for row in rows} == {10}


def test_every_submission_has_the_points_that_it_deserves(course):
    root, logs = course
    for student, log in logs.items():
        assert log["success"], f"{student}: {log.get('log')}\n{log.get('error')}"
    rows = exported(root, NAME)
    found = {student: float(row["score"]) for student, row in rows.items()}
    assert found == {student: points for student, (_, points) in SUBMITTED.items()}
    assert {float(row["max_score"]) for row in rows.values()} == {MAX}


def test_feedback_says_why_and_runs_nothing(course):
    page = (course[0] / "feedback" / "cheat" / NAME / f"{NAME}.html").read_text("utf-8")
    assert "04.causal_mask: 0 of 2 points" in page
    assert "alert('grader')" in page and "<script>alert" not in page
    partly = (course[0] / "feedback" / "partly" / NAME / f"{NAME}.html").read_text("utf-8")
    assert "04.causal_mask: 2 of 2 points" in partly and "not written yet" in partly


def test_the_report_lies_beside_the_graded_notebook(course):
    file = course[0] / "autograded" / "partly" / NAME / f"{NAME}.report.json"
    report = json.loads(file.read_text("utf-8"))
    assert (report["points"], report["max"]) == (6, MAX) and report["seed"]


def test_nothing_waits_for_a_person(course):
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course[0]}/gradebook.db") as gradebook:
        for submission in gradebook.assignment_submissions(NAME):
            assert not submission.needs_manual_grade, submission.student.id


# ---- its folder -------------------------------------------------------------------------
def test_a_course_is_not_made_over_something(tmp_path):
    from bertlearn.grading.course import make

    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "work.txt").write_text("mine")
    for name, said in (
        ("there", "is there already"),
        ("none/bert", "there is no folder"),
        ("bert 101", "cannot be called"),
        ("课程", "cannot be called"),
    ):
        with pytest.raises(ExerciseError, match=said):
            make(tmp_path / name)
    assert os.listdir(tmp_path) == ["there"] and os.listdir(tmp_path / "there") == ["work.txt"]
    assert NAME in make(tmp_path / "bert101")
    assert sorted(os.listdir(tmp_path / "bert101")) == ["nbgrader_config.py", "source"]

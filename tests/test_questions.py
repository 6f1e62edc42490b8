"""The graded questions as a course sees them: enough in every chapter, of different kinds, each
with its points, difficulty, minutes and graduated hints, the same in the check and on the page.

Also: the record of mutants (book/records/mutation.json, `make mutation`) is that of the answers and
checks there are, and every survivor in it is explained.

    pytest tests/test_questions.py
"""

import json
import re
from functools import cache
from pathlib import Path

import pytest

from bertlearn import checks
from bertlearn.checks.core import KINDS, Check
from tests import mutation
from tests.equivalent_mutants import EQUIVALENT

ROOT = Path(__file__).resolve().parents[1]
CHECKS = checks.load()
QUESTIONS = [one for one in CHECKS.values() if one.points]
CHAPTERS = [one for one in checks.CHAPTERS if one not in checks.PROJECTS]


def name(value: object) -> str:
    return value.id if isinstance(value, Check) else str(value)


@cache
def prompts(chapter: str) -> dict[str, str]:
    """All prose before each question's answer cell, since the question before it."""
    (path,) = (ROOT / "solutions").glob(f"{chapter}_*.ipynb")
    found, prose = {}, ""
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        grader = cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] == "markdown":
            prose += "".join(cell["source"]) + "\n"
        elif grader.get("grade"):
            found[re.sub(r"^check_(\d\d)_", r"\1.", grader["grade_id"])] = prose
            prose = ""
    return found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_asks_enough_questions_of_different_kinds(chapter):
    kinds = [one.kind for one in QUESTIONS if one.id.startswith(chapter)]
    assert len(kinds) >= 5
    assert len(set(kinds)) >= 4 and {"implement", "bug", "choose"} <= set(kinds), kinds


@pytest.mark.parametrize("project", checks.PROJECTS)
def test_a_project_asks_for_one_thing_to_be_written(project):
    assert [one.kind for one in QUESTIONS if one.id.startswith(project)] == ["implement"]


@pytest.mark.parametrize("check", CHECKS.values(), ids=name)
def test_a_question_says_of_what_kind_it_is(check):
    assert check.kind in KINDS if check.points else check.kind == ""


@pytest.mark.parametrize("check", QUESTIONS, ids=name)
def test_a_question_tells_what_it_costs_and_how_to_begin(check):
    prose = prompts(check.id[:2])[check.id]
    cost = (
        f"*Difficulty {check.difficulty} of 5, about {check.minutes} minutes, "
        f"{check.points:g} points.*"
    )
    assert cost in " ".join(prose.split()), f"{check.id} must say {cost}"
    hints = re.findall(r":::\{dropdown\} (\w+)\n(.+?)\n:::", prose, re.DOTALL)
    assert [title for title, _ in hints][:2] == ["Hint", "Pseudocode"], f"{check.id}: {hints}"
    assert all(len(text) > 40 for _, text in hints)
    assert check.reminder or check.kind != "choose"


@pytest.mark.parametrize("chapter", checks.CHAPTERS)
def test_an_exercise_shows_what_is_to_come_out(chapter):
    """At least one expected picture between the questions; in a project a picture, or figures that
    are worked out by hand."""
    (path,) = (ROOT / "solutions").glob(f"{chapter}_*.ipynb")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    shown = [c for c in cells if c["metadata"].get("mystnb", {}).get("image", {}).get("alt")]
    if chapter in checks.PROJECTS:
        prose = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
        shown += [text for text in prose if re.match(r"By hand[:,].*\d", text)]
    assert shown, f"{path.name} shows nothing of what is to come out"


# ---- mutants of the answers -------------------------------------------------------------


def test_the_record_of_mutants_is_that_of_these_answers():
    stale = mutation.stale(mutation.read())
    assert not stale, f"judge the mutants again: make mutation (changed: {', '.join(stale)})"


def test_nearly_all_mutants_are_killed_and_the_others_explained():
    record = mutation.read()
    sums = mutation.figures(record)
    assert sums["kill_rate"] >= mutation.LEAST and sums["open"] == 0, sums
    assert all(one["mutants"] for one in record.values())


def test_explanations_belong_to_survivors():
    record = mutation.read()
    for question, reasons in EQUIVALENT.items():
        survivors = {(one["was"], one["now"]) for one in record[question]["survivors"]}
        assert reasons.keys() <= survivors, f"{question}: {reasons.keys() - survivors}"
        assert all(len(reason) > 20 for reason in reasons.values())

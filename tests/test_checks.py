"""The checks themselves: right code passes, wrong code is told what is wrong with it.

For every check in bertlearn/checks: what should pass passes over three seeds (the package's own
definitions; for questions, the answers in solutions/), the unsolved stub does not, each known-wrong
implementation in tests/known_wrong is refused over two seeds with the message that was written for
it, and each right answer in tests/known_right has full marks. The judge, who sees them across the
line between two processes, says the same. Also: the page of common mistakes is what the wrong ones
give.

    pytest tests/test_checks.py
"""

import importlib
import json
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import bertlearn
from bertlearn import checks
from bertlearn.checks.core import Check, Result
from bertlearn.grading.package import copy_package
from tests import mutants
from tests.known_right import Right
from tests.known_right import load as load_right
from tests.known_wrong import Wrong, load
from tests.known_wrong.__main__ import PAGE, render

ROOT = Path(__file__).resolve().parents[1]
WRONG = load()
RIGHT = load_right()
CHECKS = checks.load()
QUESTIONS = [one for one in CHECKS.values() if one.points]
DEFINITIONS = [one for one in CHECKS.values() if not one.points]


def name(value: object) -> str:
    return value.id if isinstance(value, Check) else str(value)


def run(check: Check, implementations: tuple, seed: int) -> Result:
    return checks.run(check, implementations, seed)


told = mutants.told


# ---- what is right ----------------------------------------------------------------------


@cache
def package_modules() -> list[ModuleType]:
    """The top floor: where the definitions of the chapters are."""
    found = pkgutil.iter_modules(bertlearn.__path__)
    taught = [m.name for m in found if not m.ispkg and m.name not in ("cli", "doctor", "__main__")]
    return [importlib.import_module(f"bertlearn.{module}") for module in taught]


def from_package(check: Check) -> tuple:
    """The package's definitions under the names that a check needs."""
    found = []
    for needed in check.needs:
        owners = [
            module
            for module in package_modules()
            if getattr(getattr(module, needed, None), "__module__", module.__name__)
            == module.__name__
            and hasattr(module, needed)
        ]
        assert owners, f"{check.id} needs {needed}, which no module of bertlearn defines"
        found.append(getattr(owners[0], needed))
    return tuple(found)


@cache
def namespace(folder: str, chapter: str) -> dict:
    """What the answer cells of a chapter's notebook in this folder define."""
    (path,) = (ROOT / folder).glob(f"{chapter}_*.ipynb")
    names: dict = {"__name__": "answers"}
    for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"], 1):
        if cell["cell_type"] != "code":
            continue
        if cell["metadata"].get("nbgrader", {}).get("grade"):
            continue
        source = "".join(cell["source"])
        try:
            exec(compile(source, f"{path.name}, cell {number}", "exec"), names)
        except Exception:
            if folder == "solutions":
                raise
    return names


def from_notebook(folder: str, check: Check) -> tuple:
    names = namespace(folder, check.id[:2])
    return tuple(names[needed] for needed in check.needs)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("check", DEFINITIONS, ids=name)
def test_the_package_passes(check, seed):
    result = run(check, from_package(check), seed)
    assert result.ok, result.text()


# A project trains for a while: once here, once more through the judge (test_exercises.py).
@pytest.mark.parametrize(
    ("check", "seed"),
    [(c, s) for c in QUESTIONS for s in (0, 1, 2) if s == 0 or c.id[:2] not in checks.PROJECTS],
    ids=name,
)
def test_the_solution_passes(check, seed):
    result = run(check, from_notebook("solutions", check), seed)
    assert result.ok, result.text()


# ---- what is not ------------------------------------------------------------------------


@pytest.mark.parametrize("check", QUESTIONS, ids=name)
def test_the_stub_earns_nothing(check):
    result = run(check, from_notebook("exercises", check), 0)
    assert result.points == 0 and not result.ok, result.text()


def stub(*args: object, **kwargs: object) -> None:
    raise NotImplementedError


@pytest.mark.parametrize("check", CHECKS.values(), ids=name)
def test_what_is_not_written_fails(check):
    result = run(check, tuple(stub for _ in check.needs), 0)
    assert not result.ok
    if check.points:
        assert result.points == 0
        assert any(case.message == "not written yet" for case in result.cases), result.text()


@pytest.mark.parametrize("check", CHECKS.values(), ids=name)
def test_each_check_has_enough_wrong_answers(check):
    entries, least = WRONG.get(check.id, []), 4 if check.points else 3
    assert len(entries) >= least, f"{check.id} has {len(entries)} known-wrong implementations"
    assert len({wrong.name for wrong in entries}) == len(entries), "two have the same name"


def test_wrong_answers_belong_to_checks():
    assert set(WRONG) <= set(CHECKS)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("check_id", "wrong"),
    [pytest.param(i, w, id=f"{i}: {w.name}") for i, entries in WRONG.items() for w in entries],
)
def test_wrong_answers_are_refused_with_their_message(check_id: str, wrong: Wrong, seed: int):
    result = run(CHECKS[check_id], wrong.all, seed)
    assert not result.ok, f"{check_id} accepts {wrong.name}"
    assert result.points < result.max or not result.max, f"{check_id} gives {wrong.name} all points"
    assert wrong.fragment in told(result), f"{wrong.name} is told:\n{result.text()}"


@pytest.mark.parametrize("check", QUESTIONS, ids=name)
def test_each_question_has_right_answers_written_another_way(check):
    entries = RIGHT.get(check.id, [])
    assert entries, f"{check.id} has no other right answer"
    assert len({right.name for right in entries}) == len(entries), "two have the same name"


def test_right_answers_belong_to_questions():
    assert set(RIGHT) <= {check.id for check in QUESTIONS}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("check_id", "right"),
    [pytest.param(i, r, id=f"{i}: {r.name}") for i, entries in RIGHT.items() for r in entries],
)
def test_right_answers_have_full_marks(check_id: str, right: Right, seed: int):
    result = run(CHECKS[check_id], right.all, seed)
    assert result.ok, f"{right.name} is refused:\n{result.text()}"


@pytest.mark.parametrize("chapter", checks.CHAPTERS)
def test_the_judge_says_the_same(chapter):
    """Wrong and right answers to questions, judged as a learner's are: on what a worker sends."""
    faults = [one for one in mutants.answers(chapter) if one.fault]
    assert not faults, "\n".join(f"{one.question}, {one.name}: {one.fault}" for one in faults)


# ---- form -------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS.values(), ids=name)
def test_form(check):
    assert check.cases, "a check without cases"
    assert check.id.count(".") == 1 and check.id[:2].isdigit()
    if check.points:
        assert all(case.points >= 0 for case in check.cases)
        assert 1 <= check.difficulty <= 5 and check.minutes > 0


@pytest.mark.parametrize("check", [c for c in CHECKS.values() if c.hides], ids=name)
def test_what_is_hidden_exists(check, tmp_path):
    copy_package(tmp_path, check.hides)


def test_the_page_of_common_mistakes_is_up_to_date():
    assert PAGE.read_text("utf-8") == render(), "make it again with: make mistakes"

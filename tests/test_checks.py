"""The checks themselves: right code passes, wrong code is told what is wrong with it.

For every check in bertlearn/checks: what should pass passes over three seeds (the package's own
definitions; for questions, the answers in solutions/), the unsolved stub does not, and each
known-wrong implementation in tests/known_wrong is refused over two seeds with the message that was
written for it. Also: the page of common mistakes is what those implementations give.

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
from bertlearn.grading import Limits
from bertlearn.grading.notebook import Cell
from bertlearn.grading.package import copy_package
from bertlearn.grading.standins import Session
from tests.known_wrong import Wrong, load
from tests.known_wrong.__main__ import PAGE, render

ROOT = Path(__file__).resolve().parents[1]
WRONG = load()
CHECKS = checks.load()
QUESTIONS = [one for one in CHECKS.values() if one.points]
DEFINITIONS = [one for one in CHECKS.values() if not one.points]


def name(value: object) -> str:
    return value.id if isinstance(value, Check) else str(value)


def run(check: Check, implementations: tuple, seed: int) -> Result:
    return checks.run(check, implementations, seed)


def told(result: Result) -> str:
    return "\n".join(f"{case.message} {case.expected} {case.got}" for case in result.cases)


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
def test_each_check_has_three_wrong_answers(check):
    entries = WRONG.get(check.id, [])
    assert len(entries) >= 3, f"{check.id} has {len(entries)} known-wrong implementations"
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
    assert wrong.fragment in told(result), f"{wrong.name} is told:\n{result.text()}"


# The wrong answers of a module, as cells of a notebook: without the tests' own folder.
FOREIGN = """
import sys, types
class Wrong:
    def __init__(self, name, implementations, fragment):
        several = isinstance(implementations, (list, tuple))
        self.all = tuple(implementations) if several else (implementations,)
sys.modules["tests"] = tests = types.ModuleType("tests")
sys.modules["tests.known_wrong"] = tests.known_wrong = types.ModuleType("known_wrong")
tests.known_wrong.Wrong = Wrong
"""


@pytest.mark.parametrize("chapter", checks.CHAPTERS)
def test_the_judge_refuses_them_too(chapter):
    """Wrong answers to questions, judged as a learner's are: in a worker, on what it sends."""
    (module,) = (ROOT / "tests" / "known_wrong").glob(f"ch{chapter}_*.py")
    cells = [Cell(1, "", FOREIGN), Cell(2, "", module.read_text("utf-8"))]
    sessions: dict[tuple, Session] = {}
    try:
        for asked in (one for one in QUESTIONS if one.id.startswith(chapter)):
            if asked.forbids not in sessions:
                sessions[asked.forbids] = Session(cells, (), asked.forbids, Limits(), {})
            session = sessions[asked.forbids]
            session.begin(asked.seconds)
            session.start()
            assert not session.errors
            for wrong, there in zip(WRONG[asked.id], session.get("WRONG")[asked.id], strict=True):
                result = run(asked, there.all, 0)
                assert session.fault is None and not result.ok, f"{asked.id} accepts {wrong.name}"
                said = told(result)
                assert wrong.fragment in said or "changes its input in place" in said, (
                    f"{asked.id}: {wrong.name} is told:\n{result.text()}"
                )
    finally:
        for session in sessions.values():
            session.close()


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

"""The proof that grading means something, as a table: python -m tests.mutants (make mutants)

For every question: the known-wrong answers (tests/known_wrong), each of which must be refused with
the message meant for it; the right answers written another way (tests/known_right), each of which
must get full marks; the unsolved exercise, which must get nothing; and the solution, which must get
everything. All of it is asked of the judge: the code runs in a worker, values cross the line, and
the verdict is reached on this side.

A line a question; what is wrong is told in full below. Exit code 1 if there is a false pass or a
false fail. `--messages` prints what every wrong answer is told. All of it is kept in
build/mutants.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from bertlearn import checks
from bertlearn.checks.core import Check, Result
from bertlearn.grading import Limits, grade
from bertlearn.grading.judge import questions
from bertlearn.grading.notebook import Cell
from bertlearn.grading.standins import Past, Session
from tests import known_right, known_wrong

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "build" / "mutants.json"
IN_PLACE = "changes its input in place"  # said by the judge alone, whatever else is wrong
SEED = 0

# The answers of a module, as cells of a notebook: without the tests' own folder.
FOREIGN = """
import sys, types
class Answer:
    def __init__(self, name, implementations, fragment=""):
        several = isinstance(implementations, (list, tuple))
        self.all = tuple(implementations) if several else (implementations,)
sys.modules["tests"] = types.ModuleType("tests")
for name, kind in (("known_wrong", "Wrong"), ("known_right", "Right")):
    module = sys.modules["tests." + name] = types.ModuleType(name)
    setattr(sys.modules["tests"], name, module)
    setattr(module, kind, Answer)
ANSWERS = {"wrong": {}, "right": {}}
"""
COLLECT = """
ANSWERS["{kind}"].update({name})
"""


@dataclass
class Verdict:
    """What became of one answer to one question.

    Attributes:
        kind: "wrong", "right", "unsolved" or "solution".
        name: how it is wrong, or how it is written.
        told: what the check says; "" if nothing.
        fault: "" if the verdict is as it must be, else what is at fault.
    """

    question: str
    kind: str
    name: str
    points: float
    max: float
    told: str = ""
    fault: str = ""


def told(result: Result) -> str:
    """All that a result says, in one text."""
    return "\n".join(f"{case.message} {case.expected} {case.got}" for case in result.cases)


@cache
def _wrong() -> dict[str, list[known_wrong.Wrong]]:
    return known_wrong.load()


@cache
def _right() -> dict[str, list[known_right.Right]]:
    return known_right.load()


def _cells(chapter: str) -> list[Cell]:
    """The answers of a chapter as a notebook would bring them."""
    texts = [FOREIGN]
    for kind, package in (("wrong", known_wrong), ("right", known_right)):
        for path in sorted(Path(package.__path__[0]).glob("ch*.py")):
            if path.stem == "choices" or path.stem.startswith(f"ch{chapter}_"):
                texts.append(path.read_text("utf-8"))
                texts.append(COLLECT.format(kind=kind, name=kind.upper()))
    return [Cell(number, "", text) for number, text in enumerate(texts, 1)]


def answers(chapter: str) -> Iterator[Verdict]:
    """The wrong and the other right answers of a chapter, judged as a learner's are."""
    cells = _cells(chapter)
    sessions: dict[tuple, Session] = {}
    try:
        for check in questions(chapter):
            if check.forbids not in sessions:
                sessions[check.forbids] = Session(cells, (), check.forbids, Limits(), Past())
            session = sessions[check.forbids]
            session.begin(check.seconds)
            session.start()
            assert not session.errors, session.errors
            there = session.get("ANSWERS")
            yield from _judged(check, session, there)
    finally:
        for session in sessions.values():
            session.close()


def _judged(check: Check, session: Session, there: dict) -> Iterator[Verdict]:
    for wrong, remote in zip(_wrong()[check.id], there["wrong"][check.id], strict=True):
        result = checks.run(check, remote.all, SEED)
        said, fault = told(result), ""
        if session.fault is not None:
            fault = f"the judge is at fault: {session.fault}"
        elif result.points == result.max:
            fault = "false pass: a wrong answer has full marks"
        elif wrong.fragment not in said and IN_PLACE not in said:
            fault = f"not told what is wrong ({wrong.fragment!r}), but: {said.strip()}"
        message = next((c.message for c in result.cases if wrong.fragment in c.message), said)
        yield Verdict(check.id, "wrong", wrong.name, result.points, result.max, message, fault)
    for right, remote in zip(_right()[check.id], there["right"][check.id], strict=True):
        result = checks.run(check, remote.all, SEED)
        said = "" if result.ok else told(result).strip()
        fault = "" if result.ok else f"false fail: a right answer is refused: {said}"
        if session.fault is not None:
            fault = f"the judge is at fault: {session.fault}"
        yield Verdict(check.id, "right", right.name, result.points, result.max, said, fault)


def notebooks(chapter: str) -> Iterator[Verdict]:
    """The unsolved exercise and the solution of a chapter, graded."""
    for kind, folder in (("unsolved", "exercises"), ("solution", "solutions")):
        (path,) = (ROOT / folder).glob(f"{chapter}_*.ipynb")
        for one in grade(path, SEED).questions:
            good = one.points == (0 if kind == "unsolved" else one.max)
            what = "false pass: the unsolved stub" if kind == "unsolved" else "false fail: it"
            fault = "" if good else f"{what} has {one.points:g} of {one.max:g} points"
            yield Verdict(one.id, kind, path.name, one.points, one.max, one.reason, fault)


def chapter(number: str) -> list[Verdict]:
    """All verdicts of a chapter."""
    return [*answers(number), *notebooks(number)]


# ---- the table --------------------------------------------------------------------------
def table(verdicts: Sequence[Verdict]) -> str:
    """A line for each question."""
    by: dict[str, list[Verdict]] = {}
    for one in verdicts:
        by.setdefault(one.question, []).append(one)
    lines = [
        f"{'question':28s}{'kind':>10s}{'points':>8s}{'wrong refused':>15s}"
        f"{'right accepted':>16s}{'unsolved':>10s}{'solution':>10s}"
    ]
    for question, found in by.items():

        def share(kind: str, found: list[Verdict] = found) -> str:
            mine = [one for one in found if one.kind == kind]
            return f"{sum(not one.fault for one in mine)} of {len(mine)}"

        points = {one.kind: f"{one.points:g}" for one in found}
        lines.append(
            f"{question:28s}{checks.find(question).kind:>10s}{found[0].max:>8g}{share('wrong'):>15s}"
            f"{share('right'):>16s}{points['unsolved']:>10s}{points['solution']:>10s}"
        )
    return "\n".join(lines)


def summary(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """The figures of the whole table."""
    return {
        "questions": len({one.question for one in verdicts}),
        "wrong_answers": sum(one.kind == "wrong" for one in verdicts),
        "other_right_answers": sum(one.kind == "right" for one in verdicts),
        "false_passes": sum(one.fault.startswith("false pass") for one in verdicts),
        "false_fails": sum(one.fault.startswith("false fail") for one in verdicts),
        "other_faults": sum(
            bool(one.fault) and not one.fault.startswith("false") for one in verdicts
        ),
    }


def main() -> int:
    """Judge, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("chapters", nargs="*", help="two digits each; all, if none is named")
    parser.add_argument("--messages", action="store_true", help="print what each answer is told")
    parser.add_argument("--jobs", type=int, default=2, help="chapters at a time (2)")
    given = parser.parse_args()
    if unknown := [one for one in given.chapters if one not in checks.CHAPTERS]:
        raise SystemExit(f"no chapter {unknown[0]}: choose from {', '.join(checks.CHAPTERS)}")
    begin = time.monotonic()
    with ProcessPoolExecutor(given.jobs) as pool:
        found = list(pool.map(chapter, given.chapters or list(checks.CHAPTERS)))
    verdicts = [one for each in found for one in each]
    print(table(verdicts))
    if given.messages:
        for one in verdicts:
            if one.kind == "wrong":
                print(f"\n{one.question}: {one.name}\n    {one.told}")
    for one in verdicts:
        if one.fault:
            print(f"\n{one.question}, {one.kind}, {one.name}\n    {one.fault}")
    sums = summary(verdicts)
    RECORD.parent.mkdir(exist_ok=True)
    record = {"command": "make mutants", "seed": SEED, **sums}
    record["answers"] = [asdict(one) for one in verdicts]
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(
        f"\n{sums['questions']} questions, {sums['wrong_answers']} wrong answers, "
        f"{sums['other_right_answers']} other right answers: {sums['false_passes']} false passes, "
        f"{sums['false_fails']} false fails, {sums['other_faults']} other faults "
        f"({time.monotonic() - begin:.0f} s, {RECORD.relative_to(ROOT)})"
    )
    return int(any(one.fault for one in verdicts))


if __name__ == "__main__":
    sys.exit(main())

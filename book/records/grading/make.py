"""The graders side by side, and the mark of ours: what book/instructors.md reports.

    python book/records/grading/make.py compare --otter PYTHON    # writes compare.json
    python book/records/grading/make.py sixty                     # writes sixty.json
    python book/records/grading/make.py checks                    # writes checks.json

PYTHON is that of an environment with ``otter-grader[grading]==7.0.0`` and torch; nbgrader is taken
from the environment which runs this. One thread each. ``compare`` hands the same work to all, in
turns: right, wrong, attacks, honest work with an accident. Each is graded by the command that a
person would type, in a process of its own. Seconds are of the wall and of the processors, the
latter with all that a command has started. Each record holds the load of the machine before and
after: where it was above the number of processors before we began, others worked on it too, and
seconds of the wall are longer than they need be; what counts are the ratios within one run.
``sixty`` grades sixty submissions of exercise 04 with two judges. ``checks``
times every check of the book on its solution, as it runs in a learner's notebook.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(ROOT)]

from material import (  # noqa: E402
    ATTACKS,
    FULL,
    HONEST,
    HONEST_WORK,
    NAME,
    POINTS,
    RIGHT,
    UNARMED,
    WRONG,
    for_nbgrader,
    for_otter,
    hand_in,
)

KEPT = Path(tempfile.gettempdir(), "bertlearn-compare-rows.json")  # delete it to begin anew
LIMIT = 120.0  # seconds after which a command is called hung
TURNS = 3  # of right work, for the times
ENVIRONMENT = {
    **os.environ,
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "ignore",
}


def machine(before: float) -> dict[str, Any]:
    """Processors and load: of the last minute before we began, of the last five of the run."""
    return {
        "processors": os.cpu_count(),
        "load before": round(before, 1),
        "load at the end": round(os.getloadavg()[1], 1),
    }


# ---- running a command ------------------------------------------------------------------
def run(command: list[str], cwd: Path) -> dict[str, Any]:
    """Run a command; seconds, exit code, output, and whether something of it is left running."""
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ["PATH"]])
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**ENVIRONMENT, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            code: int | None = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            code = None
            process.kill()
            process.wait()
        wall = time.monotonic() - begin
        left = _reap(hung=code is None)
        out.seek(0)
        said = out.read()[-4000:].decode("utf-8", "replace")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"code": code, "wall": wall, "cpu": used, "said": said, "left": left}


def _reap(hung: bool) -> bool:
    """Wait for what the command has left to us; end what stays. True if something did."""
    end = time.monotonic() + (0 if hung else 5)
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not pid:
            if time.monotonic() > end:
                break
            time.sleep(0.05)
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return not hung


# ---- the graders ------------------------------------------------------------------------
class Ours:
    """``bertlearn grade``."""

    name = "bertlearn"

    def __init__(self, place: Path, _: str):
        self.place = place
        self.released = json.loads((ROOT / "exercises" / f"{NAME}.ipynb").read_text("utf-8"))

    def grade(self, work: dict[str, Any], who: str, file: str) -> dict[str, Any]:
        folder = self.place / who
        folder.mkdir()
        (folder / file).write_text(json.dumps(work), "utf-8")
        done = run([sys.executable, "-m", "bertlearn", "grade", file, "--json", "r.json"], folder)
        questions = []
        if (folder / "r.json").exists():
            report = json.loads((folder / "r.json").read_text("utf-8"))
            questions = [q for q in report["questions"] if q["id"].split(".")[1] in POINTS]
        read = [p for q in questions for p in q["parts"] if not p["ok"]]
        done["points"] = sum(q["points"] for q in questions) if questions else None
        done["read"] = "\n".join(
            f"{p['title']}: {p['message']}\nexpected {p['expected']}\ngot {p['got']}"
            for p in read[:1]
        )
        return done


class Nbgrader:
    """``nbgrader autograde`` as it comes."""

    name = "nbgrader"

    def __init__(self, place: Path, _: str):
        self.place = place
        source = place / "source" / NAME / f"{NAME}.ipynb"
        source.parent.mkdir(parents=True)
        source.write_text(json.dumps(for_nbgrader()), "utf-8")
        (place / "nbgrader_config.py").write_text('c.CourseDirectory.course_id = "x"\n')
        made = run([sys.executable, "-m", "nbgrader", "generate_assignment", NAME], place)
        assert made["code"] == 0, made["said"]
        released = place / "release" / NAME / f"{NAME}.ipynb"
        self.released = json.loads(released.read_text("utf-8"))

    def grade(self, work: dict[str, Any], who: str, file: str) -> dict[str, Any]:
        folder = self.place / "submitted" / who / NAME
        folder.mkdir(parents=True)
        (folder / file).write_text(json.dumps(work), "utf-8")
        command = [sys.executable, "-m", "nbgrader", "autograde", NAME, "--student", who]
        done = run(command, self.place)
        done["points"] = self._points(who)
        graded = self.place / "autograded" / who / NAME / f"{NAME}.ipynb"
        done["read"] = _traceback(graded) if graded.exists() else ""
        return done

    def _points(self, who: str) -> float | None:
        """As its export counts them: 0 where there is no grade."""
        query = (
            "SELECT SUM(COALESCE(g.manual_score, g.auto_score, 0)) FROM grade g "
            "JOIN submitted_notebook n ON g.notebook_id = n.id "
            "JOIN submitted_assignment a ON n.assignment_id = a.id WHERE a.student_id = ?"
        )
        with sqlite3.connect(self.place / "gradebook.db") as database:
            (found,) = database.execute(query, (who,)).fetchone()
        return float(found or 0)


def without_libraries(text: str) -> str:
    """A traceback without the source lines of libraries, and without where they are installed."""
    kept, foreign = [], False
    for line in text.split("\n"):
        if re.match(r"\s*File ", line):
            foreign = "site-packages" in line or "/lib/python" in line
        if not (foreign and re.match(r"(-+>)?\s*\d+( |$)", line)):
            kept.append(line)
    return re.sub(r"/[^\s\"']*/(site-packages|lib/python[\d.]+)/", r"\1/", "\n".join(kept))


def _traceback(file: Path) -> str:
    """The end of the first error in a graded notebook, without colors."""
    for cell in json.loads(file.read_text("utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                text = "\n".join(output["traceback"])
                return without_libraries(re.sub(r"\x1b\[[\d;]*m", "", text))
    return ""


class Otter:
    """``otter run`` in this process's place, without its container."""

    name = "otter"

    def __init__(self, place: Path, python: str):
        self.place, self.python = place, python
        (place / f"{NAME}.ipynb").write_text(json.dumps(for_otter()), "utf-8")
        made = run([python, "-m", "otter", "assign", f"{NAME}.ipynb", "dist"], place)
        zips = list((place / "dist" / "autograder").glob("*.zip"))
        assert zips, made["said"]
        self.zip = zips[0]
        released = place / "dist" / "student" / f"{NAME}.ipynb"
        self.released = json.loads(released.read_text("utf-8"))

    def grade(self, work: dict[str, Any], who: str, file: str) -> dict[str, Any]:
        folder = self.place / "work" / who
        (folder / "out").mkdir(parents=True)
        (folder / file).write_text(json.dumps(work), "utf-8")
        command = [self.python, "-m", "otter", "run", "-a", str(self.zip), file, "-o", "out"]
        done = run(command, folder)
        results = folder / "out" / "results.json"
        tests = []
        if results.exists():
            tests = json.loads(results.read_text("utf-8")).get("tests", [])
            tests = [test for test in tests if test.get("name") in POINTS]
        done["points"] = sum(test["score"] for test in tests) if tests else None
        failed = [test for test in tests if test["score"] < test["max_score"]]
        done["read"] = failed[0]["output"] if failed else ""
        return done


# ---- compare ----------------------------------------------------------------------------
def compare(otter: str) -> dict[str, Any]:
    """All work through all graders; kept as it goes, the same command goes on from there."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # adopt what a command leaves behind
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else []
    done_before = {(row["work"], row["grader"]) for row in rows}
    with tempfile.TemporaryDirectory(prefix="graders-") as temporary:
        graders = []
        for kind in (Ours, Nbgrader, Otter):
            place = Path(temporary, kind.name)
            place.mkdir()
            graders.append(kind(place, otter))
        for what, answers, kind_of, want in _work():
            for grader in graders:
                if (what, grader.name) in done_before:
                    continue
                file = "04_attention (1).ipynb" if what == "the file renamed" else f"{NAME}.ipynb"
                work = hand_in(grader.released, answers, what)
                done = grader.grade(work, f"s{len(rows)}", file)
                row = {"work": what, "kind": kind_of, "grader": grader.name, "want": want, **done}
                row["said"] = row["said"][-600:] if row["points"] is None else ""
                row["read"] = row["read"][-1500:]
                rows.append(row)
                KEPT.write_text(json.dumps(rows), encoding="utf-8")
                print(
                    f"{grader.name:10} {row['points']} of {FULL}, "
                    f"{row['wall']:.1f} s, {row['cpu']:.1f} s cpu  {what}",
                    flush=True,
                )
    _judge(rows)
    return {
        "versions": _versions(otter),
        "machine": machine(load),
        "full": FULL,
        "summary": _summary(rows),
        "rows": rows,
    }


def _work() -> list[tuple[str, dict[str, str], str, float]]:
    turns = [(f"right, turn {turn + 1}", RIGHT, "right", float(FULL)) for turn in range(TURNS)]
    wrong = []
    for (what, answers), name in zip(WRONG.items(), POINTS, strict=True):
        wrong.append((what, answers, "wrong", float(FULL - POINTS[name])))
    attacks = [(what, answers, "attack", float(HONEST)) for what, answers in ATTACKS.items()]
    unarmed = [("no attack", UNARMED, "unarmed", float(HONEST))]
    honest = [(what, answers, "honest", float(FULL)) for what, answers in HONEST_WORK.items()]
    return turns + wrong + honest + unarmed + attacks


def _judge(rows: list[dict[str, Any]]) -> None:
    """Say of each row what its points mean.

    A wrong answer may earn a part of its question, by the grader's own rules, but not all of it. An
    attack that brings no answers of its own may earn what they earn without it.
    """
    unarmed = {row["grader"]: row["points"] for row in rows if row["kind"] == "unarmed"}
    for row in rows:
        most = row["want"]
        if row["kind"] == "unarmed":
            most = row["points"]
        elif row["kind"] == "wrong":
            most = FULL - 0.5
        elif row["kind"] == "attack" and _brings_nothing(ATTACKS[row["work"]]):
            most = unarmed[row["grader"]]
        row["outcome"] = _outcome(row, most)


def _brings_nothing(answers: dict[str, str]) -> bool:
    return answers["cross_attention"] == UNARMED["cross_attention"]


def _outcome(row: dict[str, Any], most: float) -> str:
    points = row["points"]
    if row["code"] is None:
        return "hangs"
    if points is not None and points > most:
        return "false pass"
    if points is None or points < row["want"]:
        return "honest points lost"
    return "leaves a process" if row["left"] else "as it should be"


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for grader in dict.fromkeys(row["grader"] for row in rows):
        mine = [row for row in rows if row["grader"] == grader]
        right = [row for row in mine if row["kind"] == "right"]
        found[grader] = {
            "wall": round(statistics.median(row["wall"] for row in right), 2),
            "cpu": round(statistics.median(row["cpu"] for row in right), 2),
        }
        for kind in ("wrong", "attack", "honest"):
            of = [row for row in mine if row["kind"] == kind]
            held = sum(row["outcome"] == "as it should be" for row in of)
            found[grader][kind] = {"held": held, "of": len(of)}
            for outcome in sorted({row["outcome"] for row in of} - {"as it should be"}):
                found[grader][kind][outcome] = sum(row["outcome"] == outcome for row in of)
    return found


def _versions(otter: str) -> dict[str, str]:
    from importlib.metadata import version

    code = "from importlib.metadata import version as v; print(v('otter-grader'), v('torch'))"
    told = subprocess.run([otter, "-c", code], capture_output=True, text=True, check=True)
    grader, torch = told.stdout.split()
    return {
        "nbgrader": version("nbgrader"),
        "otter-grader": grader,
        "torch": f"{version('torch')}, otter's {torch}",
        "python": sys.version.split()[0],
    }


# ---- sixty submissions ------------------------------------------------------------------
def sixty() -> dict[str, Any]:
    """Sixty submissions of exercise 04, all kinds, two judges."""
    from bertlearn.grading import batch
    from bertlearn.grading.crew import Crew

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # to count what workers use
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="sixty-") as temporary:
        folder = Path(temporary, "submitted")
        folder.mkdir()
        kinds = _class(folder)
        made = batch.Batch(folder, Path(temporary, "scores.csv"))
        made.store.mkdir()
        requests = [{"path": str(one.path), **made.asked} for one in made.submissions]
        begin, seconds, ends = time.monotonic(), [], []
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with Crew(2) as crew:
            for place, verdict in crew.grade(requests):
                made.accept(place, verdict)
                ends.append(time.monotonic() - begin)
                report = made.entries[place].report
                seconds.append(report.seconds if report else 0.0)
                print(f"{len(ends)}: {made.entries[place].file}  {made.entries[place].said}")
        wall = time.monotonic() - begin
        _reap(hung=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        points = {e.name: e.report.points if e.report else e.status for e in made.entries}
    own = sorted(seconds[2:])
    gaps = sorted(2 * (b - a) for a, b in zip(ends[1:], ends[2:], strict=False))
    return {
        "submissions": len(kinds),
        "judges": 2,
        "kinds": {kind: list(kinds.values()).count(kind) for kind in dict.fromkeys(kinds.values())},
        "wall": round(wall, 1),
        "processor seconds in all": round(used, 1),
        "seconds each, after the first of each judge": {
            "median": round(statistics.median(own), 2),
            "nine in ten under": round(own[int(0.9 * len(own))], 2),
            "longest": round(own[-1], 2),
        },
        "seconds from one verdict to the next, times two": round(statistics.median(gaps), 2),
        "machine": machine(load),
        "points": points,
    }


def _class(folder: Path) -> dict[str, str]:
    """Write sixty notebooks; their kinds by name."""
    released = json.loads((ROOT / "exercises" / f"{NAME}.ipynb").read_text("utf-8"))
    full = json.loads((ROOT / "solutions" / f"{NAME}.ipynb").read_text("utf-8"))
    sources = {cell["id"]: cell["source"] for cell in full["cells"]}
    answers = [
        c["id"] for c in released["cells"] if c["metadata"].get("nbgrader", {}).get("solution")
    ]
    kinds: dict[str, str] = {}

    def put(kind: str, work: dict[str, Any]) -> None:
        name = f"learner{len(kinds):02}"
        kinds[name] = kind
        (folder / f"{name}.ipynb").write_text(json.dumps(work), "utf-8")

    def solved(count: int) -> dict[str, Any]:
        work = json.loads(json.dumps(released))
        for cell in work["cells"]:
            if cell["id"] in answers[:count]:
                cell["source"] = sources[cell["id"]]
        return work

    for count in range(4 * (len(answers) + 1)):
        put("some answered", solved(count % (len(answers) + 1)))
    for what in list(WRONG) * 4:
        put("a wrong answer", hand_in(solved(len(answers)), WRONG[what], what))
    for what in list(HONEST_WORK)[:6]:
        put("honest, with an accident", hand_in(solved(len(answers)), HONEST_WORK[what], what))
    harmless = [what for what in ATTACKS if "loop" not in what]
    for what in harmless[: 58 - len(kinds)]:
        put("an attack", hand_in(solved(len(answers)), ATTACKS[what], what))
    put(
        "a loop that never ends",
        hand_in(solved(len(answers)), ATTACKS["a loop that never ends"], ""),
    )
    (folder / "learner59.ipynb").write_text("Dear teacher")
    kinds["learner59"] = "no notebook"
    assert len(kinds) == 60
    return kinds


# ---- every check ------------------------------------------------------------------------
def checks() -> dict[str, Any]:
    """Seconds of every check on its solution, in the process that holds the answer."""
    times = importlib.import_module("bertlearn.grading.times")
    load = os.getloadavg()[0]
    found = times.measure(ROOT / "solutions")
    return {
        "machine": machine(load),
        "median": statistics.median(found.values()),
        "seconds": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("compare", "sixty", "checks"))
    parser.add_argument("--otter", help="a Python with otter-grader")
    given = parser.parse_args()
    if given.what == "compare":
        if not given.otter or not shutil.which(given.otter):
            parser.error("--otter: a Python that has otter-grader and torch")
        made = compare(given.otter)
    else:
        made = {"sixty": sixty, "checks": checks}[given.what]()
    target = HERE / f"{given.what}.json"
    target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(made.get("summary", made), indent=1))


if __name__ == "__main__":
    main()

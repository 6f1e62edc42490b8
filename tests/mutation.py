"""Every answer in solutions/, changed in every small way that a mutation tool knows, and judged.

A known-wrong answer is a mistake that somebody thought of. A mutant is one that nobody thought of:
a number plus one, an operator exchanged, an argument dropped, a statement left out. Each is judged
by the question's own check on three seeds, and counts as killed only if none of the three gives it
full marks. What survives is a hole in the check, unless tests/equivalent_mutants.py says why it is
as right as the answer.

A project trains with the answer, as its last case. That would cost a minute for each mutant that
comes so far, so there it is left out: what the cases before it let through is a survivor here, even
if it would learn nothing.

    python -m tests.mutation            judge what has changed since the record was written
    python -m tests.mutation 04 07      only these chapters
    python -m tests.mutation --all      judge everything again

The mutants come from mutmut's operators (3.8), with two of our own: a number minus one, and a
statement left out. The record is book/records/mutation.json. Exit code 1 if a survivor is not
explained or less than 95 of 100 are killed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import hashlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from bertlearn import checks
from bertlearn.checks.core import Check
from tests.equivalent_mutants import EQUIVALENT

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "book" / "records" / "mutation.json"
LEAST = 0.95  # of all mutants must be killed
SEEDS = (0, 1, 2)
MEMORY = 2 << 30  # bytes that a mutant may use
SILENT = 900.0  # seconds until a process that says nothing is ended
TRAINS = ("92.mask_spans", "93.pooled_head")  # their last case is left out


# ---- answers ----------------------------------------------------------------------------
@cache
def cells(chapter: str) -> list[dict]:
    """The code cells of a chapter's master that define things."""
    (path,) = (ROOT / "solutions").glob(f"{chapter}_*.ipynb")
    return [
        {"id": cell["id"], "source": "".join(cell["source"]), **cell["metadata"]}
        for cell in json.loads(path.read_text("utf-8"))["cells"]
        if cell["cell_type"] == "code" and not cell["metadata"].get("nbgrader", {}).get("grade")
    ]


def answer(check: Check) -> str:
    """The source of the cell that answers a question."""
    (found,) = (
        cell["source"]
        for cell in cells(check.id[:2])
        if cell.get("nbgrader", {}).get("solution")
        and set(check.needs) <= {getattr(n, "name", "") for n in ast.parse(cell["source"]).body}
    )
    return found


@cache
def _module(chapter: str) -> tuple[dict[str, ast.stmt], dict[str, list[ast.stmt]]]:
    """A module of checks: its definitions by name, and the cases of each check's variable."""
    path = ROOT / "bertlearn" / "checks" / f"{checks.CHAPTERS[chapter]}.py"
    named: dict[str, ast.stmt] = {}
    cases: dict[str, list[ast.stmt]] = {}
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign):
            named |= {one.id: node for one in node.targets if isinstance(one, ast.Name)}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            named[node.name] = node
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and getattr(mark.func, "attr", "") == "case":
                    cases.setdefault(mark.func.value.id, []).append(node)  # type: ignore[attr-defined]
    return named, cases


def fingerprint(check: Check) -> str:
    """Changes when the answer or its check, with all that the check uses of its module, changes in
    what it does."""
    named, cases = _module(check.id[:2])
    variable = next(
        name
        for name, node in named.items()
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and node.value.args
        and getattr(node.value.args[0], "value", None) == check.id
    )
    waiting, used = [named[variable], *cases[variable]], []
    while waiting:
        node = waiting.pop()
        if node not in used:
            used.append(node)
            names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            waiting += [named[name] for name in sorted(names & named.keys() - {"_"})]
    parts = sorted(ast.dump(node) for node in used)
    text = "\n".join([_meaning(answer(check)), *parts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def questions(chapters: Iterable[str] = ()) -> list[Check]:
    """All graded questions, or those of some chapters."""
    wanted = set(chapters)
    return [
        one for one in checks.load().values() if one.points and (not wanted or one.id[:2] in wanted)
    ]


# ---- mutants ----------------------------------------------------------------------------
def mutants(source: str) -> Iterator[tuple[str, str, str]]:
    """Each mutant of a source: (lines as they were, lines as they are, the whole source)."""
    import libcst as cst
    from libcst.metadata import MetadataWrapper
    from mutmut.mutation.file_mutation import MutationVisitor, deep_replace
    from mutmut.mutation.mutators import mutation_operators
    from mutmut.mutation.pragma_handling import IgnoredCode

    def one_less(node: Any) -> Iterator[Any]:
        yield cst.parse_expression(repr(node.evaluated_value - 1))

    def left_out(node: Any) -> Iterator[Any]:
        kept = (cst.Import, cst.ImportFrom, cst.Pass, cst.Return)
        text = isinstance(node.body[0], cst.Expr) and isinstance(
            node.body[0].value, cst.SimpleString | cst.ConcatenatedString
        )
        if not text and not isinstance(node.body[0], kept):
            yield node.with_changes(body=[cst.Pass()])

    ours: list[Any] = [
        (cst.Integer, one_less),
        (cst.Float, one_less),
        (cst.SimpleStatementLine, left_out),
    ]
    wrapper = MetadataWrapper(cst.parse_module(source))
    everything = IgnoredCode(set(), set(), set())
    visitor = MutationVisitor([*mutation_operators, *ours], everything)
    module = wrapper.visit(visitor)
    seen = {_meaning(source)}
    for one in visitor.mutations:
        changed = deep_replace(module, one.original_node, one.mutated_node)
        assert isinstance(changed, cst.Module)
        try:
            tree = _meaning(changed.code)
        except SyntaxError:
            continue
        if tree not in seen:
            seen.add(tree)
            yield (*_difference(source, changed.code), changed.code)


def _meaning(source: str) -> str:
    """A source as its syntax tree, without zip's ``strict``, which only says what holds anyway."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "zip":
            node.keywords = [word for word in node.keywords if word.arg != "strict"]
    return ast.dump(tree)


def _difference(before: str, after: str) -> tuple[str, str]:
    """The lines in which two sources differ, before and after."""
    lines = [
        line
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line[:2] in ("- ", "+ ")
    ]
    was, now = (
        " / ".join(line[2:].strip() for line in lines if line[0] == sign) for sign in ("-", "+")
    )
    return was, now


# ---- the verdict ------------------------------------------------------------------------
@cache
def namespace(chapter: str) -> dict[str, Any]:
    """What the master of a chapter imports and defines, its answers included; what it only shows
    is not run."""
    names: dict[str, Any] = {"__name__": "answers"}
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    for number, cell in enumerate(cells(chapter), 1):
        tree = ast.parse(cell["source"])
        tree.body = [one for one in tree.body if isinstance(one, kept)]
        exec(compile(tree, f"<answers {chapter}, cell {number}>", "exec"), names)
    return names


def passes(check: Check, source: str) -> bool:
    """Whether this answer gets full marks on any of the seeds (in this process)."""
    if check.id in TRAINS:
        check = copy.copy(check)
        check.cases = check.cases[:-1]
    names = dict(namespace(check.id[:2]))
    for name in check.needs:
        del names[name]
    try:
        exec(compile(source, "<mutant>", "exec"), names)
        given = [names[name] for name in check.needs]
    except Exception:
        return False
    results = (checks.run(check, given, seed, stop=True) for seed in SEEDS)
    return any(result.points == check.points for result in results)


class TooLong(BaseException):
    """A mutant that does not come to an end."""


def survives(check: Check, sources: list[str], seconds: float) -> list[bool]:
    """For each source, whether it `passes` within so many seconds of processor time.

    They are judged in a process of their own, and in a fresh one after one that ends it.
    """
    verdicts: list[bool] = []
    while len(verdicts) < len(sources):
        said = _in_a_fork(check, sources[len(verdicts) :], seconds)
        verdicts += [one == ord("1") for one in said]
        if len(verdicts) < len(sources):
            verdicts.append(False)  # this one ended the process
    return verdicts


def _in_a_fork(check: Check, sources: list[str], seconds: float) -> bytes:
    """A byte for each source, as far as the process comes."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reads)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            _judge_all(check, sources, seconds, writes)
        finally:
            os._exit(0)
    os.close(writes)
    said = b""
    while select.select([reads], [], [], SILENT)[0] and (byte := os.read(reads, 1)):
        said += byte
    os.close(reads)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return said


def _judge_all(check: Check, sources: list[str], seconds: float, writes: int) -> None:
    def stop(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGPROF, stop)
    if (pages := Path("/proc/self/statm")).exists():  # on Linux
        used = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for source in sources:
        verdict = b"0"
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
            verdict = b"1" if passes(check, source) else b"0"
            signal.setitimer(signal.ITIMER_PROF, 0)
        except TooLong:
            signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(writes, verdict)


def judge(check: Check) -> dict[str, Any]:
    """What becomes of all mutants of one answer."""
    source = answer(check)
    begin = time.process_time()
    if not passes(check, source):
        raise SystemExit(f"{check.id}: the answer itself does not pass")
    seconds = 0.5 + 6 * (time.process_time() - begin)  # of three seeds, and a little more
    found = list(mutants(source))
    # The answer itself comes last: it must still pass after all that the mutants did.
    *verdicts, still = survives(check, [*(text for _, _, text in found), source], seconds)
    if not still:
        raise SystemExit(f"{check.id}: the answer no longer passes after its mutants were judged")
    survivors = [
        (was, now) for (was, now, _), survived in zip(found, verdicts, strict=True) if survived
    ]
    return {
        "fingerprint": fingerprint(check),
        "mutants": len(found),
        "killed": len(found) - len(survivors),
        "survivors": [
            {"was": was, "now": now, "why": EQUIVALENT.get(check.id, {}).get((was, now), "")}
            for was, now in survivors
        ],
    }


# ---- the record -------------------------------------------------------------------------
def read() -> dict[str, dict[str, Any]]:
    """The record, by question; empty if there is none."""
    return json.loads(RECORD.read_text("utf-8"))["questions"] if RECORD.exists() else {}


def stale(record: dict[str, dict[str, Any]]) -> list[str]:
    """Questions whose answer or check is no longer what was judged."""
    asked = {check.id: check for check in questions()}
    return [
        one
        for one in sorted(asked.keys() | record.keys())
        if one not in asked
        or one not in record
        or record[one]["fingerprint"] != fingerprint(asked[one])
    ]


def figures(record: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The sums over all questions."""
    total = sum(one["mutants"] for one in record.values())
    killed = sum(one["killed"] for one in record.values())
    explained = sum(bool(s["why"]) for one in record.values() for s in one["survivors"])
    return {
        "mutants": total,
        "killed": killed,
        "explained": explained,
        "open": total - killed - explained,
        "kill_rate": round(killed / total, 4) if total else 0.0,
    }


def write(record: dict[str, dict[str, Any]]) -> None:
    """Keep the record, with its sums and what made it."""
    from importlib.metadata import version

    content = {
        "command": "make mutation",
        "operators": f"mutmut {version('mutmut')}; a number minus one; a statement left out",
        "seeds": list(SEEDS),
        **figures(record),
        "questions": dict(sorted(record.items())),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    RECORD.write_text(text, encoding="utf-8", newline="\n")


def main() -> int:
    """Judge, print what survives, write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("chapters", nargs="*", help="two digits each; all, if none is named")
    parser.add_argument("--all", action="store_true", help="also what has not changed")
    given = parser.parse_args()
    if unknown := [one for one in given.chapters if one not in checks.CHAPTERS]:
        raise SystemExit(f"no chapter {unknown[0]}: choose from {', '.join(checks.CHAPTERS)}")
    import torch

    torch.set_num_threads(1)  # the answers are judged in forks of this process
    asked = {check.id for check in questions()}
    for check in questions(given.chapters):
        one = read().get(check.id)
        if given.all or one is None or one["fingerprint"] != fingerprint(check):
            one = judge(check)
        for survivor in one["survivors"]:  # the reasons may have changed
            key = (survivor["was"], survivor["now"])
            survivor["why"] = EQUIVALENT.get(check.id, {}).get(key, "")
        kept = {name: known for name, known in read().items() if name in asked}
        write(kept | {check.id: one})
        print(f"{check.id:28s}{one['killed']:4d} of {one['mutants']:4d} killed", flush=True)
        for survivor in one["survivors"]:
            print(f"      was  {survivor['was']}\n      now  {survivor['now']}")
            print(f"      {'why  ' + survivor['why'] if survivor['why'] else 'OPEN'}")
    record = read()
    sums = figures(record)
    print(
        f"{sums['killed']} of {sums['mutants']} mutants killed ({sums['kill_rate']:.1%}); "
        f"{sums['explained']} survivors explained, {sums['open']} open"
    )
    return int(bool(sums["open"]) or sums["kill_rate"] < LEAST)


if __name__ == "__main__":
    sys.exit(main())

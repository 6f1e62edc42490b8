"""Grade a folder of submissions: a table of points, a page of feedback each, and nothing lost.

What came out of a notebook is kept in a file of its own, beside the table, as soon as it is known;
the table and the pages are made from these files. So a run that was stopped, however, goes on
where it was, and a notebook is graded again only if its bytes, the package or what was asked have
changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import bertlearn
from bertlearn.grading import table
from bertlearn.grading.crew import Crew
from bertlearn.grading.errors import GraderError, SubmissionsError
from bertlearn.grading.pages import page
from bertlearn.grading.report import Report, write
from bertlearn.grading.submissions import Submission, find

__all__ = ["Batch", "Entry", "grade_folder", "version"]

FORMAT = 1
FULL, LESS, UNREADABLE, FAILED, STOPPED = 0, 1, 2, 3, 130
REFRESH = 2.0  # seconds between two writings of the table


@dataclass
class Entry:
    """What is known of one submission.

    Attributes:
        name, file: as in `Submission`.
        sha256: of the notebook's bytes; "" if they cannot be read.
        asked: the seed and the limits that were asked for.
        status: "waiting", "graded", "unreadable" or "failed" (the grader's own fault).
        reason: why it is neither graded nor waiting.
        version: of the package that graded it.
        report: what came out.
    """

    name: str
    file: str
    sha256: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    status: str = "waiting"
    reason: str = ""
    version: str = ""
    report: Report | None = None

    def rows(self) -> Iterable[table.Row]:
        """Its part of the table."""
        reason = self.reason or ("not graded yet" if self.status == "waiting" else "")
        return table.rows(self.name, self.file, self.status, reason, self.version, self.report)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        report = self.report.to_dict() if self.report is not None else None
        return {"format": FORMAT, **vars(self), "report": report}

    @property
    def said(self) -> str:
        """The result in a few words."""
        if self.report is not None:
            return f"{self.report.points:g} of {self.report.max:g} points"
        return f"{self.status}: {self.reason}"


@cache
def version() -> str:
    """The package's version and a digest of its code: what the verdicts depend on."""
    digest = hashlib.sha256()
    folder = Path(bertlearn.__file__).resolve().parent
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return f"{bertlearn.__version__}+{digest.hexdigest()[:12]}"


class Batch:
    """A folder of submissions and where its results go.

    Args:
        folder: with the submissions, see `submissions.find`.
        csv: the table; the results are kept beside it, in a folder called after it.
        feedback: for the pages; None makes none.
        seed: for all inputs; fresh ones for each notebook if None.
        limits: fields of `Limits` that are not to be as they are.

    Raises:
        SubmissionsError: if the folder or the places for the results are not as they must be.
    """

    def __init__(
        self,
        folder: Path,
        csv: Path,
        feedback: Path | None = None,
        seed: int | None = None,
        limits: dict[str, Any] | None = None,
    ):
        self.csv, self.feedback = csv, feedback
        self.asked = {"seed": seed, "limits": limits or {}}
        self.store = csv.with_name(f"{csv.stem}.results")
        _check_places(csv, feedback, self.store)
        skip = [self.store, *([feedback] if feedback is not None else [])]
        self.submissions = find(folder, skip)
        self.pages = _pages(self.submissions)
        self.entries = [self._known(submission) for submission in self.submissions]
        self.kept = sum(entry.status != "waiting" for entry in self.entries)
        self.written = 0.0

    @property
    def waiting(self) -> list[int]:
        """Places of the submissions that are still to be graded."""
        return [i for i, entry in enumerate(self.entries) if entry.status == "waiting"]

    def accept(self, place: int, verdict: dict[str, Any]) -> None:
        """Keep what came out of a submission, and write what follows from it."""
        entry = self.entries[place]
        entry.status, entry.reason = verdict["status"], verdict.get("reason", "")
        entry.version = version()
        entry.reason = entry.reason.replace(f"{self.submissions[place].path} ", "the file ")
        if entry.status == "graded":
            entry.report = Report.from_dict(verdict["report"])
        write(self._file(entry), json.dumps(entry.to_dict(), indent=1) + "\n")
        self._write_page(place)
        if time.monotonic() - self.written > REFRESH:
            self.write_table()

    def write_table(self) -> None:
        """Write the table as it is now, whole."""
        write(self.csv, table.text(row for entry in self.entries for row in entry.rows()))
        self.written = time.monotonic()

    def write_pages(self) -> None:
        """Write the pages of what is known already."""
        for place, entry in enumerate(self.entries):
            if entry.status != "waiting":
                self._write_page(place)

    # ---- helpers ------------------------------------------------------------------------
    def _file(self, entry: Entry) -> Path:
        return self.store / f"{hashlib.sha256(os.fsencode(entry.file)).hexdigest()[:24]}.json"

    def _known(self, submission: Submission) -> Entry:
        """An entry from the results that are kept, if they still hold, else one that waits."""
        fresh = Entry(submission.name, submission.file, asked=self.asked)
        if submission.trouble:
            fresh.status, fresh.reason = "unreadable", submission.trouble
            fresh.version = version()
            return fresh
        try:
            fresh.sha256 = hashlib.sha256(submission.path.read_bytes()).hexdigest()
            kept = json.loads(self._file(fresh).read_text(encoding="utf-8"))
            same = {"sha256": fresh.sha256, "asked": self.asked, "version": version()}
            if kept["status"] == "failed" or any(kept[name] != same[name] for name in same):
                return fresh
            report = kept["report"] and Report.from_dict(kept["report"])
            known = {"status": kept["status"], "reason": kept["reason"], "report": report}
            return Entry(**{**vars(fresh), **known, "version": version()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return fresh

    def _write_page(self, place: int) -> None:
        if self.feedback is None:
            return
        target, entry = self.feedback / self.pages[place], self.entries[place]
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, page(entry.report, entry.name, entry.reason))


def _check_places(csv: Path, feedback: Path | None, store: Path) -> None:
    for place in filter(None, (csv, feedback)):
        if not place.absolute().parent.is_dir():
            raise SubmissionsError(f"there is no folder {place.parent}: make it first")
    if csv.is_dir():
        raise SubmissionsError(f"{csv} is a folder: --csv wants the name of a file")
    if not table.is_ours(csv):
        raise SubmissionsError(
            f"{csv} is there already and is no table of bertlearn's: give another name"
        )
    for place in filter(None, (store, feedback)):
        if place.exists() and not place.is_dir():
            raise SubmissionsError(f"{place} is a file, but a folder of that name is needed")


def _pages(submissions: Sequence[Submission]) -> list[Path]:
    """A page for each, at the place that its notebook has: no two the same."""
    found: list[Path] = []
    for submission in submissions:
        file = Path(submission.file)
        target = file.with_suffix(".html")
        found.append(file.with_name(f"{file.name}.html") if target in found else target)
    return found


# ---- the command ------------------------------------------------------------------------
def grade_folder(
    folder: Path,
    csv: Path,
    feedback: Path | None = None,
    jobs: int | None = None,
    seed: int | None = None,
    limits: dict[str, Any] | None = None,
) -> int:
    """Grade what is not graded yet, and write the table and the pages.

    Progress goes to standard error, a summary to standard output.

    Args:
        jobs: judges at a time; as many as there are processors if None.

    Returns:
        0 if all have full marks, 1 if some have less, 2 if some cannot be read, 3 if the grader
        failed on some; 130 if it was interrupted.

    Raises:
        SubmissionsError: as `Batch`, or if another grading writes the same table.
    """
    from filelock import FileLock, Timeout

    batch = Batch(folder, csv, feedback, seed, limits)
    batch.store.mkdir(exist_ok=True)
    try:
        with FileLock(batch.store / ".lock", timeout=0):
            code = _run(batch, jobs or _processors())
    except Timeout:
        raise SubmissionsError(
            f"another grading writes {csv} at this moment: wait for it, or give another name"
        ) from None
    return code


def _run(batch: Batch, jobs: int) -> int:
    """Grade, say how it goes; keep what is done, whatever happens."""
    stopped = None
    _warn_of_doubles(batch)
    try:
        batch.write_table()
        batch.write_pages()
        if batch.waiting:
            _grade(batch, jobs)
    except (KeyboardInterrupt, GraderError, OSError) as error:
        stopped = error
    try:
        batch.write_table()
    except OSError as error:
        stopped = stopped or error
    if stopped is not None:
        left = f"{len(batch.waiting)} of {len(batch.entries)} are not graded"
        why = "stopped" if isinstance(stopped, KeyboardInterrupt) else f"failed: {stopped}"
        _tell(f"bertlearn: {why}; {left}. The rest is kept: the same command goes on from here.")
        return STOPPED if isinstance(stopped, KeyboardInterrupt) else FAILED
    print(_summary(batch))
    return _code(batch.entries)


def _grade(batch: Batch, jobs: int) -> None:
    waiting = batch.waiting
    requests = [{"path": str(batch.submissions[i].path), **batch.asked} for i in waiting]
    count, kept = len(waiting), f", {batch.kept} kept from before" if batch.kept else ""
    _tell(f"{_notebooks(count)} to grade{kept}, {min(jobs, count)} at a time")
    with Crew(jobs) as crew:
        for done, (place, verdict) in enumerate(crew.grade(requests), start=1):
            batch.accept(waiting[place], verdict)
            entry = batch.entries[waiting[place]]
            _tell(f"{done:>{len(str(count))}}/{count}  {entry.file}  {entry.said}")


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _code(entries: Iterable[Entry]) -> int:
    """The worst of what single notebooks would give."""
    codes = {"unreadable": UNREADABLE, "failed": FAILED}
    return max(
        codes.get(entry.status, FULL if entry.report and entry.report.full else LESS)
        for entry in entries
    )


def _warn_of_doubles(batch: Batch) -> None:
    """Which notebook of a learner counts is not ours to say."""
    seen: dict[tuple[str, str], int] = {}
    for submission in batch.submissions:
        key = submission.name, Path(submission.file).stem
        seen[key] = seen.get(key, 0) + 1
    for (name, stem), times in seen.items():
        if times > 1:
            _tell(f"{name} has handed in {stem} {times} times: each has its rows in the table")


def _notebooks(count: int) -> str:
    return f"{count} notebook{'' if count == 1 else 's'}"


def _tell(line: str) -> None:
    encoding = sys.stderr.encoding or "utf-8"
    print(table.clean(line).encode(encoding, "replace").decode(encoding), file=sys.stderr)


def _summary(batch: Batch) -> str:
    """How the class did, question by question."""
    counts: dict[str, int] = {}
    earned: dict[str, list[tuple[float, float, str]]] = {}
    for entry in batch.entries:
        counts[entry.status] = counts.get(entry.status, 0) + 1
        for question in entry.report.questions if entry.report else ():
            row = (question.points, question.max, table.why(question))
            earned.setdefault(question.id, []).append(row)
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    lines = [f"{_notebooks(len(batch.entries))}: {said}. The table is in {batch.csv}"]
    held = {entry.report.isolation for entry in batch.entries if entry.report}
    lines += [f"Isolation: {sentence}" for sentence in sorted(held)]
    width = max(map(len, earned), default=8)
    if earned:
        lines += ["", f"{'question':{width}}   mean   of  full  none  most often said"]
    for name, rows in sorted(earned.items()):
        points = [row[0] for row in rows]
        full = sum(row[0] == row[1] for row in rows)
        mean, none = sum(points) / len(points), points.count(0)
        figures = f"{mean:6.2f}  {rows[0][1]:3g}  {full:4}  {none:4}"
        lines.append(f"{name:{width}} {figures}  {_most_often(row[2] for row in rows)}")
    return "\n".join(lines)


def _most_often(reasons: Iterable[str]) -> str:
    counts: dict[str, int] = {}
    for reason in filter(None, reasons):
        counts[reason] = counts.get(reason, 0) + 1
    if not counts:
        return ""
    reason = table.clean(max(counts, key=lambda each: counts[each])).replace("\n", " ")
    return reason if len(reason) <= 72 else reason[:69] + "..."

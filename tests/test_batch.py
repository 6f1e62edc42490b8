"""A folder of submissions becomes a table and pages, whatever lies in it and whatever happens.

Who handed in is found in any layout, links that lead elsewhere are not followed, no learner is
lost; the table is safe in a spreadsheet; what is done is kept through a kill, Ctrl-C and a full
disk, and graded again only if something changed; a judge that dies or hangs costs its notebook
only. Most of it runs with a stand-in for the judge's process, which needs no torch; the last tests
are the command itself.

    pytest tests/test_batch.py
"""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertlearn.cli import main
from bertlearn.grading import batch, crew, isolation, table
from bertlearn.grading.batch import Batch, grade_folder
from bertlearn.grading.crew import Crew
from bertlearn.grading.errors import GraderError, SubmissionsError
from bertlearn.grading.pages import page
from bertlearn.grading.report import Question, Report
from bertlearn.grading.submissions import find
from bertlearn.grading.worker import landlock

ROOT = Path(__file__).resolve().parents[1]
LINUX = sys.platform.startswith("linux")


def put(folder: Path, *files: str, text: str = "{}") -> Path:
    for file in files:
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder


def verdict(points: float = 1.0, message: str = "the diagonal belongs to the mask") -> dict:
    """What a judge says of a notebook with one question of two points."""
    part = {"title": "a case", "points": points, "max": 2.0, "ok": points == 2}
    part |= {"message": "" if points == 2 else message, "expected": "1", "got": "2"}
    report = Report("work.ipynb", "04", 7, sandbox=["limits", "Landlock 7"])
    report.questions = [Question("04.mask", "a mask", points, 2.0, parts=(part,))]
    return {"status": "graded", "report": report.to_dict()}


# ---- who handed in ----------------------------------------------------------------------


def found(folder: Path) -> list[tuple[str, str]]:
    return [(one.name, one.file) for one in find(folder) if not one.trouble]


def test_files_folders_and_the_layout_of_nbgrader(tmp_path):
    put(tmp_path, "ann.ipynb", "Bo Li 李.ipynb", "cy/work.IPYNB", "cy/old/work.ipynb")
    put(tmp_path, "di/04_attention/04_attention.ipynb", "di/04_attention/timestamp.txt")
    put(tmp_path, ".hidden.ipynb", "ann/.ipynb_checkpoints/work.ipynb", "ann/work.ipynb", "a.txt")
    assert found(tmp_path) == [
        ("Bo Li 李", "Bo Li 李.ipynb"),
        ("ann", "ann/work.ipynb"),
        ("ann", "ann.ipynb"),
        ("cy", "cy/work.IPYNB"),
        ("cy", "cy/old/work.ipynb"),
        ("di", "di/04_attention/04_attention.ipynb"),
    ]


def test_scripts_count_where_there_is_no_notebook(tmp_path):
    put(tmp_path, "ann.py", "bo/work.py", "cy/work.ipynb", "cy/helper.py", "notes.txt")
    assert found(tmp_path) == [("ann", "ann.py"), ("bo", "bo/work.py"), ("cy", "cy/work.ipynb")]


def test_a_learner_without_a_notebook_is_not_lost(tmp_path):
    put(tmp_path, "ann/essay.pdf", "ann/b.zip")
    (tmp_path / "bo").mkdir()
    troubles = {one.name: one.trouble for one in find(tmp_path)}
    assert troubles["ann"].endswith("in this folder, only b.zip, essay.pdf")
    assert troubles["bo"].endswith("it is empty")


def test_links_that_lead_out_are_not_followed(tmp_path):
    put(tmp_path / "outside", "secret.ipynb", "in/secret.ipynb")
    root = put(tmp_path / "in", "ann/work.ipynb")
    (root / "file.ipynb").symlink_to(tmp_path / "outside" / "secret.ipynb")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "ann" / "deep.ipynb").symlink_to(tmp_path / "outside" / "secret.ipynb")
    (root / "ann" / "home").symlink_to("/")
    (root / "broken.ipynb").symlink_to("nothing.ipynb")
    (root / "again").symlink_to(root / "ann")
    (root / "copy.ipynb").symlink_to(root / "ann" / "work.ipynb")
    troubles = {one.file: one.trouble for one in find(root)}
    out = "it is a link that leads out of the folder: put the file itself here"
    assert troubles == {
        **dict.fromkeys(("ann/deep.ipynb", "ann/home", "file.ipynb", "folder"), out),
        "again": "it is a link to a folder: put the folder itself here",
        "broken.ipynb": "it is a link to a file that is not there",
        **dict.fromkeys(("ann/work.ipynb", "copy.ipynb"), ""),
    }


# ---- the table --------------------------------------------------------------------------


def read(text: str) -> list[dict[str, str]]:
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:])))


@pytest.mark.parametrize(
    "evil",
    ["=HYPERLINK(1)", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", " =1", "\t=1", "\r\n=1", "\uff1d1"],
)
def test_a_spreadsheet_runs_nothing_of_a_learners(tmp_path, evil):
    told = verdict(0, evil)
    made = table.text(
        table.rows(evil, f"{evil}.ipynb", "graded", "", "1", Report.from_dict(told["report"]))
    )
    for row in read(made):
        for column in ("name", "file", "reason"):
            assert not row[column].startswith(table.FORMULA), row
    refused = read(table.text(table.rows("x", "x", "unreadable", evil, "1", None)))
    assert refused[0]["reason"].startswith("'")


def test_text_stays_in_its_cell(tmp_path):
    told = verdict(0, 'a "quote", a; b\nc\x00\x1b[2J \ud800')
    rows = table.rows("李", "李.ipynb", "graded", "", "1", Report.from_dict(told["report"]))
    made = table.text(rows)
    assert made.count("\n") == 3, "a line a row"
    first, total = read(made)
    assert first["reason"].startswith('a "quote", a; b c') and first["name"] == "李"
    assert (total["question"], total["points"], total["max"]) == ("total", "0", "2")
    made.encode()


def test_numbers_are_numbers(tmp_path):
    made = table.text(
        table.rows("a", "a", "graded", "", "1", Report.from_dict(verdict(0.5)["report"]))
    )
    assert '"04.mask",0.5,2,"graded"' in made


# ---- what is kept -----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return put(tmp_path / "in", "ann.ipynb", "bo.ipynb", "cy/work.ipynb")


def rows(tmp_path: Path) -> dict[str, dict[str, str]]:
    """The totals by name."""
    made = read((tmp_path / "scores.csv").read_text("utf-8"))
    return {row["name"]: row for row in made if row["question"] == "total"}


def test_what_is_done_is_kept_and_the_rest_waits(tmp_path, folder):
    first = Batch(folder, tmp_path / "scores.csv", tmp_path / "pages")
    first.store.mkdir()
    first.accept(1, verdict(2))
    first.write_table()
    table_now = rows(tmp_path)
    assert {name: row["status"] for name, row in table_now.items()} == {
        "ann": "waiting",
        "bo": "graded",
        "cy": "waiting",
    }
    assert table_now["ann"]["points"] == "" and table_now["bo"]["points"] == "2"
    (tmp_path / "scores.csv").write_bytes((tmp_path / "scores.csv").read_bytes()[:150])
    again = Batch(folder, tmp_path / "scores.csv")
    assert again.waiting == [0, 2] and again.entries[1].report.points == 2
    again.write_table()
    assert rows(tmp_path) == table_now, "a table that was cut is made again"


def changed_file(folder, monkeypatch):
    put(folder, "bo.ipynb", text="{ }")


def changed_package(folder, monkeypatch):
    monkeypatch.setattr(batch, "version", lambda: "another")


def damaged_result(folder, monkeypatch):
    (result,) = (folder.parent / "scores.results").glob("*.json")
    result.write_text(result.read_text("utf-8")[:100], "utf-8")


@pytest.mark.parametrize("change", [changed_file, changed_package, damaged_result])
def test_what_has_changed_is_graded_again(tmp_path, folder, monkeypatch, change):
    first = Batch(folder, tmp_path / "scores.csv")
    first.store.mkdir()
    first.accept(1, verdict(2))
    os.utime(folder / "bo.ipynb", (1, 1))  # a new date alone is no change
    assert Batch(folder, tmp_path / "scores.csv").waiting == [0, 2]
    change(folder, monkeypatch)
    assert Batch(folder, tmp_path / "scores.csv").waiting == [0, 1, 2]


def test_another_seed_or_a_fault_of_the_grader_is_graded_again(tmp_path, folder):
    first = Batch(folder, tmp_path / "scores.csv")
    first.store.mkdir()
    first.accept(0, {"status": "failed", "reason": "the disk"})
    first.accept(1, {"status": "unreadable", "reason": "it is empty"})
    first.accept(2, verdict())
    assert Batch(folder, tmp_path / "scores.csv").waiting == [0]
    assert Batch(folder, tmp_path / "scores.csv", seed=7).waiting == [0, 1, 2]


def test_pages_lie_where_the_notebooks_do(tmp_path):
    folder = put(tmp_path / "in", "ann.ipynb", "ann/work.ipynb", "bo.ipynb", "bo.IPYNB")
    put(folder, "cy/essay.pdf")
    made = Batch(folder, tmp_path / "scores.csv", tmp_path / "pages")
    made.store.mkdir()
    for place in made.waiting:
        made.accept(place, verdict())
    made.write_pages()
    pages = sorted(p.relative_to(tmp_path / "pages").as_posix() for p in made.feedback.rglob("*.*"))
    assert pages == ["ann.html", "ann/work.html", "bo.html", "bo.ipynb.html", "cy.html"]
    assert "only essay.pdf" in (tmp_path / "pages" / "cy.html").read_text("utf-8")


# ---- places for the results -------------------------------------------------------------


def refused(*arguments: object, capsys) -> str:
    with pytest.raises(SystemExit) as left:
        main(["grade", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert left.value.code == 2 and not out
    return err


def test_bad_places_are_told_first(tmp_path, folder, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.csv").write_text("name,grade\nann,5\n")
    (tmp_path / "taken").write_text("")
    csv_file = tmp_path / "scores.csv"
    cases = [
        ((tmp_path / "no", "--csv", csv_file), "does not exist: give the folder"),
        ((tmp_path / "empty", "--csv", csv_file), "there is no notebook in"),
        ((folder / "ann.ipynb", "--csv", csv_file), "is a file: give the folder"),
        ((folder,), "say where the table of all goes, as in --csv scores.csv"),
        ((folder, "--csv", tmp_path / "no" / "s.csv"), "there is no folder"),
        ((folder, "--csv", tmp_path), "is a folder: --csv wants the name of a file"),
        ((folder, "--csv", tmp_path / "mine.csv"), "is no table of bertlearn's"),
        ((folder, "--csv", csv_file, "--feedback", tmp_path / "taken"), "is a file, but a folder"),
        ((folder, "--csv", csv_file, "--feedback", tmp_path / "no" / "f"), "there is no folder"),
        ((folder, "--csv", csv_file, "--html", tmp_path / "r.html"), "are for one notebook"),
        ((folder / "ann.ipynb", "--jobs", "2"), "go with a folder and --csv"),
    ]
    for arguments, said in cases:
        err = refused(*arguments, capsys=capsys)
        assert said in " ".join(err.replace("│", "").split()), err
    assert (tmp_path / "mine.csv").read_text() == "name,grade\nann,5\n"
    assert sorted(os.listdir(tmp_path)) == ["empty", "in", "mine.csv", "taken"]


def test_two_gradings_do_not_mix(tmp_path, folder, capsys):
    from filelock import FileLock

    (tmp_path / "scores.results").mkdir()
    with FileLock(tmp_path / "scores.results" / ".lock"):
        err = refused(folder, "--csv", tmp_path / "scores.csv", capsys=capsys)
    assert "another grading writes" in err


# ---- judges -----------------------------------------------------------------------------

STAND_IN = """
import json, os, sys, time
for line in sys.stdin:
    request = json.loads(line)
    name = os.path.basename(request.get("path", ""))
    if name.startswith("dies"): os._exit(9)
    if name.startswith("once") and not os.path.exists(request["path"] + ".seen"):
        open(request["path"] + ".seen", "w").close()
        os.kill(os.getpid(), 9)
    if name.startswith("hangs"): time.sleep(600)
    if name.startswith("slow"): time.sleep(1)
    if name.startswith("babbles"): print("not JSON, but a line"); sys.stdout.flush(); continue
    if os.environ.get("NEVER"): sys.exit("no such library")
    verdict = {"status": "graded", "report": VERDICT}
    print(json.dumps({"ready": True} if "ready" in request else verdict))
    sys.stdout.flush()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Judges whose verdicts are known; how they behave is in the notebook's name."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.replace("VERDICT", repr(verdict()["report"])), encoding="utf-8")
    monkeypatch.setattr(crew, "COMMAND", (sys.executable, str(script)))


def asked(*names: str, folder: Path = Path()) -> list[dict]:
    return [{"path": str(folder / name), "seed": None, "limits": {}} for name in names]


def test_a_judge_that_dies_or_hangs_costs_its_notebook_only(tmp_path, stand_in):
    names = ["a", "dies", "b", "once", "hangs", "c", "babbles", "d"]
    before = time.monotonic()
    with Crew(2, seconds=2) as judges:
        told = dict(judges.grade(asked(*names, folder=tmp_path)))
        scratch = judges.scratch
    status = {name: told[place]["status"] for place, name in enumerate(names)}
    assert [name for name in names if status[name] != "graded"] == ["dies", "hangs", "babbles"]
    assert "exit code 9" in told[1]["reason"] and "longer than 2 s" in told[4]["reason"]
    assert not scratch.exists() and time.monotonic() - before < 30


def test_judges_that_cannot_start_are_not_sixty_failures(stand_in, monkeypatch):
    monkeypatch.setenv("NEVER", "1")
    with pytest.raises(GraderError, match="no such library"), Crew(2) as judges:
        list(judges.grade(asked("a", "b")))


def test_the_next_run_goes_on(tmp_path, folder, stand_in, capsys, monkeypatch):
    put(folder, "dies.ipynb")
    assert grade_folder(folder, tmp_path / "scores.csv", jobs=2) == batch.FAILED
    out, err = capsys.readouterr()
    assert "4 notebooks: 1 failed, 3 graded" in out and "4/4" in err
    assert rows(tmp_path)["dies"]["status"] == "failed"
    (folder / "dies.ipynb").rename(folder / "lives.ipynb")
    assert grade_folder(folder, tmp_path / "scores.csv", jobs=2) == batch.LESS
    out, err = capsys.readouterr()
    assert "1 notebook to grade, 3 kept from before" in err and "4 graded" in out
    assert set(rows(tmp_path)) == {"ann", "bo", "cy", "lives"}


def test_a_full_disk_ends_it_with_a_sentence(tmp_path, folder, stand_in, capsys, monkeypatch):
    real, count = batch.write, [0]

    def full(path, text):
        count[0] += 1
        if count[0] > 3:
            raise OSError(28, "No space left on device")
        real(path, text)

    monkeypatch.setattr(batch, "write", full)
    assert grade_folder(folder, tmp_path / "scores.csv", jobs=1) == batch.FAILED
    err = capsys.readouterr().err
    assert "No space left on device" in err and "The rest is kept" in err
    monkeypatch.setattr(batch, "write", real)
    assert grade_folder(folder, tmp_path / "scores.csv", jobs=1) == batch.LESS
    assert "kept from before" in capsys.readouterr().err


def test_what_is_handed_in_twice_is_said(tmp_path, stand_in, capsys):
    folder = put(tmp_path / "in", "ann/04.ipynb", "ann/late/04.ipynb", "bo/04.ipynb")
    grade_folder(folder, tmp_path / "scores.csv", jobs=1)
    assert "ann has handed in 04 2 times" in capsys.readouterr().err
    made = read((tmp_path / "scores.csv").read_text("utf-8"))
    assert [row["file"] for row in made if row["question"] == "total"] == [
        *("ann/04.ipynb", "ann/late/04.ipynb", "bo/04.ipynb")
    ]


RUN = """
import sys
from pathlib import Path
from bertlearn.grading import crew, batch
crew.COMMAND = (sys.executable, sys.argv[1])
sys.exit(batch.grade_folder(Path(sys.argv[2]), Path(sys.argv[3]), jobs=1))
"""


@pytest.mark.skipif(not LINUX, reason="signals as Linux has them")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_kill_lose_nothing(tmp_path, stand_in, how):
    folder = put(tmp_path / "in", "a.ipynb", "b.ipynb", *(f"slow{n}.ipynb" for n in range(9)))
    script, table_file = tmp_path / "stand_in.py", tmp_path / "scores.csv"
    command = [sys.executable, "-c", RUN, str(script), str(folder), str(table_file)]
    (scratch := tmp_path / "scratch").mkdir()
    run = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while "2/11" not in (line := run.stderr.readline()):
        assert line, "it ended by itself"
    os.killpg(run.pid, how)
    rest = run.stderr.read()
    code = run.wait(30)
    if how == signal.SIGINT:
        assert code == batch.STOPPED and "stopped; 9 of 11 are not graded" in rest
        assert rows(tmp_path)["a"]["points"] == "1"
    time.sleep(1.5)
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            said = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        assert str(script).encode() not in said, "a judge outlives the command"
    assert len(Batch(folder, table_file).waiting) in (8, 9)
    if how == signal.SIGKILL:  # the next grading clears up
        again = "from bertlearn.grading.folders import workshop; workshop()"
        environment = {**os.environ, "TMPDIR": str(scratch)}
        subprocess.run([sys.executable, "-c", again], env=environment, check=True)
    assert os.listdir(scratch) == []


# ---- the page ---------------------------------------------------------------------------


def test_a_page_runs_and_loads_nothing():
    evil = "<script>alert(1)</script><img src=//x onerror=1>"
    report = Report.from_dict(verdict(0, evil)["report"])
    report.cells = [(3, evil)]
    for made in (page(report, evil), page(None, evil, evil)):
        assert "<script" not in made and "<img" not in made and "&lt;script&gt;" in made
        assert "default-src 'none'" in made and "prefers-color-scheme: dark" in made
        assert "http:" not in made and "https:" not in made and "src=/" not in made.split("&lt;")[0]
    assert "0 of 2 points" in page(report, "ann")


def test_a_report_can_be_read_back():
    report = Report.from_dict(verdict()["report"])
    report.cells = [(2, "ValueError")]
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))).to_dict() == report.to_dict()


# ---- the command ------------------------------------------------------------------------


def test_the_command_grades_a_class(tmp_path, capsys):
    """Right, unsolved, not a notebook: by the judge itself, and again from what is kept."""
    from bertlearn.grading.judge import questions

    folder = tmp_path / "hand in 作业"
    (folder / "ann").mkdir(parents=True)
    shutil.copy(ROOT / "solutions" / "04_attention.ipynb", folder / "ann")
    shutil.copy(ROOT / "exercises" / "04_attention.ipynb", folder / "bo.ipynb")
    put(folder, "cy.ipynb", text="Dear teacher")
    arguments = ["grade", folder, "--csv", tmp_path / "scores.csv", "--feedback", tmp_path / "f"]
    outputs = []
    for _ in range(2):
        with pytest.raises(SystemExit) as left:
            main([*map(str, arguments), "--jobs", "2"])
        assert left.value.code == 2
        outputs.append((*capsys.readouterr(), (tmp_path / "scores.csv").read_bytes()))
    assert "3 to grade" in outputs[0][1].replace("notebooks ", "") and not outputs[1][1]
    assert outputs[0][2] == outputs[1][2] and outputs[0][0] == outputs[1][0]
    totals = {name: (row["points"], row["max"]) for name, row in rows(tmp_path).items()}
    most = f"{sum(check.points for check in questions('04')):g}"
    assert totals == {"ann": (most, most), "bo": ("0", most), "cy": ("0", "")}
    assert rows(tmp_path)["cy"]["reason"].startswith("the file is not a notebook")
    assert sorted(p.name for p in (tmp_path / "f").rglob("*.html")) == [
        *("04_attention.html", "bo.html", "cy.html")
    ]


def test_a_sandbox_that_is_not_there_is_told_before_anything_is_written(
    tmp_path, folder, capsys, monkeypatch
):
    arguments = (folder, "--csv", tmp_path / "scores.csv", "--sandbox")
    monkeypatch.setattr(isolation, "bubblewrap_problem", lambda: "bubblewrap is not installed: ...")
    monkeypatch.setattr(landlock, "version", lambda: 0)
    for kind, said in (
        ("bwrap", "bubblewrap is not installed: ..."),
        ("landlock", "this kernel has no Landlock: it needs Linux 5.13"),
        ("chroot", "choose one of auto, none, landlock, bwrap"),
    ):
        err = refused(*arguments, kind, capsys=capsys)
        assert said in err and err.count("\n") == 1
    assert os.listdir(tmp_path) == ["in"]


def test_the_sandbox_reaches_the_judges_and_another_one_grades_again(
    tmp_path, folder, stand_in, capsys, monkeypatch
):
    monkeypatch.setattr(isolation, "choose", lambda kind="auto": kind)
    asked_of = []
    real = Crew.grade
    monkeypatch.setattr(
        Crew, "grade", lambda self, requests: asked_of.extend(requests) or real(self, requests)
    )
    common = ["grade", str(folder), "--csv", str(tmp_path / "scores.csv"), "--jobs", "1"]
    for kind in ("bwrap", "bwrap", "auto"):
        with pytest.raises(SystemExit) as left:
            main([*common, "--sandbox", kind])
        assert left.value.code == batch.LESS
    assert [request["limits"] for request in asked_of] == [{"sandbox": "bwrap"}] * 3 + [{}] * 3


def test_the_summary_and_the_pages_say_what_held(tmp_path, capsys):
    """The judges themselves, on one answer: without a sandbox, and in each one that is here."""
    (folder := tmp_path / "in").mkdir()
    solution = json.loads((ROOT / "solutions" / "04_attention.ipynb").read_text("utf-8"))
    ids = [cell["id"] for cell in solution["cells"]]
    del solution["cells"][ids.index("check-04-causal-mask") + 1 :]
    (folder / "ann.ipynb").write_text(json.dumps(solution), encoding="utf-8")
    common = ["grade", folder, "--csv", tmp_path / "scores.csv", "--feedback", tmp_path / "pages"]
    problems = {"landlock": isolation.landlock_problem(), "bwrap": isolation.bubblewrap_problem()}
    words = {"none": "", "landlock": "Landlock", "bwrap": "bubblewrap"}
    for kind in ("none", *(kind for kind, problem in problems.items() if not problem)):
        with pytest.raises(SystemExit) as left:
            main([*map(str, common), "--sandbox", kind])
        assert left.value.code == batch.LESS
        out, err = capsys.readouterr()
        (held,) = (line for line in out.splitlines() if line.startswith("Isolation: "))
        shown = (tmp_path / "pages" / "ann.html").read_text("utf-8")
        assert held.removeprefix("Isolation: ") in shown
        if kind == "none":
            assert held == f"Isolation: {isolation.NO_SANDBOX}" and isolation.NO_SANDBOX in err
        else:
            assert held.startswith("Isolation: run in isolation (") and words[kind] in held
            assert isolation.NO_SANDBOX not in out + err
        assert rows(tmp_path)["ann"]["points"] == "2"


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path):
    with pytest.raises(SubmissionsError):
        find(tmp_path / "none")

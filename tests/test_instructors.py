"""The instructor's page says what is so.

Its weeks are what the checks add up to, its comparison is what the record holds, the commands on
it exist, and the lines that hand the table on to a learning platform run.

    pytest tests/test_instructors.py
"""

import re
import subprocess
import sys

from typer.main import get_command

from bertlearn import checks
from bertlearn.cli import app
from bertlearn.grading import table
from bertlearn.grading.judge import questions
from bertlearn.grading.report import Question, Report
from tests.instructors import EIGHT, FOURTEEN, PAGE, render

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_tables_are_what_checks_and_record_give():
    assert render(TEXT) == TEXT, "make them again: python -m tests.instructors"


def test_the_long_course_has_every_exercise_and_the_short_one_fits():
    graded = [number for number in checks.CHAPTERS if questions(number)]
    assert list(FOURTEEN) == graded and len(FOURTEEN) <= 14
    short = " ".join(EIGHT).split()
    projects = {number for number in graded if number > "90"}
    assert projects <= set(short) <= set(graded) and len(EIGHT) == 8
    for project in projects:  # after the chapters that the long course has before it, less 07, 11
        before = set(graded[: graded.index(project)]) - {"07", "11"}
        assert before <= set(short[: short.index(project) + 1]), project


def test_the_commands_exist_with_their_options():
    commands = get_command(app).commands  # type: ignore[attr-defined]
    shown = re.findall(r"\bbertlearn (\w+)((?:(?!\bbertlearn \w)[^\n`]|\\\n)*)", TEXT)
    assert {name for name, _ in shown} >= {"grade", "course", "start", "data"}
    for name, rest in shown:
        if name not in commands:
            assert name == "bertlearn", f"bertlearn {name} does not exist"
            continue
        command, words = commands[name], rest.split()
        if hasattr(command, "commands"):  # a group, as in bertlearn data fetch
            command = command.commands[words[0]]
        known = {option for one in command.params for option in one.opts}
        assert set(re.findall(r"--[a-z]+", rest)) <= known, f"bertlearn {name}{rest}"


def test_the_lines_for_a_platform_run(tmp_path):
    report = Report("a.ipynb", "04", 1)
    report.questions = [Question("04.mask", "a mask", 2.0, 2.0)]
    rows = [
        *table.rows("李", "a.ipynb", "graded", "", "1", report),
        *table.rows("bo", "bo", "unreadable", "there is no notebook", "1", None),
    ]
    (tmp_path / "scores.csv").write_text(table.text(rows), encoding="utf-8")
    code = re.search(r'python -c "\n(.*?)^"$', TEXT, re.M | re.S)[1]
    run = [sys.executable, "-X", "utf8", "-c", code]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert (done.stdout, done.stderr) == ("李,2\n", "")
    (columns,) = re.findall(r"```text\n(name .*?)```", TEXT, re.S)
    assert tuple(line.split()[0] for line in columns.strip().split("\n")) == table.COLUMNS

"""The file in which a learner's progress is kept: whole or not written, never overwritten when it
cannot be read, right when two processes write at once.

    pytest tests/test_progress.py
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from bertlearn import progress as module
from bertlearn.progress import FILE, Progress, ProgressError, Record, note_check


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_what_is_noted_is_read_again(tmp_path):
    with Progress(tmp_path).change() as records:
        records["04.a"] = Record()
        records["04.a"].checked(1, 2, tried=True)
        records["04.b"] = Record(hints=2, solution="given up")
    found = Progress(tmp_path).read()
    assert found["04.b"] == Record(hints=2, solution="given up")
    assert found["04.a"].points == 1 and found["04.a"].checks == 1 and found["04.a"].tried
    assert json.loads((tmp_path / FILE).read_text())["format"] == 1
    assert names(tmp_path) == [FILE]


def test_no_file_is_no_progress(tmp_path):
    assert Progress(tmp_path).read() == {} and names(tmp_path) == []


def test_the_best_verdict_stays_until_the_question_changes():
    record = Record()
    record.checked(2, 2, tried=True)
    record.checked(0, 2, tried=False)
    assert record.done and record.tried and record.checks == 2
    record.checked(1, 3, tried=True)
    assert record.points == 1 and not record.done


BROKEN = {
    "empty": b"",
    "half": b'{"format": 1, "quest',
    "a list": b"[]",
    "no questions": b'{"format": 1}',
    "a number for a record": b'{"format": 1, "questions": {"04.a": 3}}',
    "a word for points": b'{"format": 1, "questions": {"04.a": {"points": "many"}}}',
    "not text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_set_aside(tmp_path, text):
    (tmp_path / FILE).write_bytes(text)
    (tmp_path / "progress-unreadable-1.json").write_text("of last week")
    progress = Progress(tmp_path)
    with progress.change() as records:
        assert records == {}
        records["04.a"] = Record(points=1)
    assert "kept as progress-unreadable-2.json" in progress.notes[0]
    assert (tmp_path / "progress-unreadable-1.json").read_text() == "of last week"
    assert (tmp_path / "progress-unreadable-2.json").read_bytes() == text
    assert Progress(tmp_path).read() == {"04.a": Record(points=1)}


def test_a_newer_file_is_left_alone(tmp_path):
    text = '{"format": 2, "questions": []}'
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ProgressError, match="newer bertlearn: update"), Progress(tmp_path).change():
        pass
    assert (tmp_path / FILE).read_text() == text


def test_fields_of_another_version_are_passed_over(tmp_path):
    text = '{"format": 1, "questions": {"04.a": {"points": 2, "mood": "good"}}}'
    (tmp_path / FILE).write_text(text)
    assert Progress(tmp_path).read() == {"04.a": Record(points=2)}


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["fdopen", "replace"])
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, step):
    with Progress(tmp_path).change() as records:
        records["04.a"] = Record(points=1)
    before = (tmp_path / FILE).read_bytes()
    monkeypatch.setattr(module.os, step, full)
    with (
        pytest.raises(ProgressError, match="No space left on device. Your answers are untouched"),
        Progress(tmp_path).change() as records,
    ):
        records["04.a"].points = 2
    assert (tmp_path / FILE).read_bytes() == before and names(tmp_path) == [FILE]


def test_a_lock_that_is_not_given_back_is_told(tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(module, "PATIENCE", 0.1)
    with (
        FileLock(tmp_path / f".{FILE}.lock"),
        pytest.raises(ProgressError, match="in use by another process"),
        Progress(tmp_path).change(),
    ):
        pass


def test_two_processes_at_once(tmp_path):
    code = (
        "import sys, pathlib; from bertlearn.progress import Progress, Record\n"
        "for _ in range(20):\n"
        "    with Progress(pathlib.Path(sys.argv[1])).change() as records:\n"
        "        records.setdefault('04.a', Record()).checks += 1\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    assert Progress(tmp_path).read()["04.a"].checks == 40


# ---- from a notebook --------------------------------------------------------------------


def test_a_check_is_noted_where_a_learner_works_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note_check("04.a", 1, 2, True, notebook=True)
    assert names(tmp_path) == [], "no exercise was started here"
    (tmp_path / "my").mkdir()
    with Progress(tmp_path / "my").change():
        pass
    note_check("04.a", 1, 2, True, notebook=True)  # VS Code starts kernels in the workspace
    monkeypatch.chdir(tmp_path / "my")
    note_check("04.a", 2, 2, True, notebook=True)  # Jupyter in the notebook's folder
    note_check("04.a", 2, 2, True, notebook=False)  # a test, or a shell
    assert Progress(tmp_path / "my").read()["04.a"].checks == 2


def test_a_check_that_cannot_be_noted_still_answers(tmp_path, monkeypatch, capsys):
    with Progress(tmp_path).change():
        pass
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "replace", full)
    note_check("04.a", 1, 2, True, notebook=True)
    assert "was not written: No space left on device" in capsys.readouterr().out

"""Material for the tests of the learner's road: a classroom with real exercises, and answers."""

from __future__ import annotations

import copy
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bertlearn.cli import main
from bertlearn.grading.road import source_of

ROOT = Path(__file__).resolve().parents[1]
NAME = "04_attention.ipynb"


def classroom(folder: Path, *names: str) -> Path:
    """A repository with some exercises and their solutions; chapter 04 if none is named."""
    for part in ("exercises", "solutions"):
        (folder / part).mkdir()
        for name in names or (NAME,):
            shutil.copyfile(ROOT / part / name, folder / part / name)
    return folder


@cache
def _read(part: str, name: str) -> str:
    return (ROOT / part / name).read_text(encoding="utf-8")


def exercise(name: str = NAME) -> dict[str, Any]:
    """The content of an unsolved exercise."""
    return json.loads(_read("exercises", name))


def solved(name: str = NAME) -> dict[str, Any]:
    """The exercise as a learner leaves it who has every answer right."""
    content = exercise(name)
    answers = {one["id"]: one for one in json.loads(_read("solutions", name))["cells"]}
    for one in content["cells"]:
        if one["metadata"].get("nbgrader", {}).get("solution"):
            one["source"] = copy.deepcopy(answers[one["id"]]["source"])
    return content


def size(name: str = NAME) -> tuple[int, float]:
    """How many questions an exercise asks, and how many points they give."""
    graders = [one["metadata"].get("nbgrader", {}) for one in exercise(name)["cells"]]
    points = [one["points"] for one in graders if one.get("grade")]
    return len(points), sum(points)


def cell_of(content: dict[str, Any], mark: str) -> dict[str, Any]:
    """The cell with this id, or the one that has this text."""
    for one in content["cells"]:
        if one.get("id") == mark or mark in source_of(one):
            return one
    raise KeyError(mark)


def save(path: Path, content: dict[str, Any]) -> Path:
    """Write a notebook."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def command(*arguments: object, capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
    """Run `bertlearn` here: exit code, what it printed, what it said on stderr."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0), *capsys.readouterr()

"""The learner's road: start, check, hint, solution, reset, progress, and older copies.

No command overwrites what a learner wrote, whatever state the copy is in; each says what to do
next; nothing but `check` needs torch.

    pytest tests/test_learner.py
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from learners import NAME, ROOT, cell_of, classroom, exercise, save, size, solved
from learners import command as run_command

from bertlearn.grading import copies, watch
from bertlearn.grading.errors import ExerciseError
from bertlearn.grading.learner import plain_math
from bertlearn.grading.notebook import read
from bertlearn.grading.road import (
    exercises,
    find_exercise,
    find_question,
    fingerprint,
    source_of,
)
from bertlearn.grading.scripts import from_script, to_script
from bertlearn.progress import Progress, Record

QUESTIONS, POINTS = size()
BUG = source_of(cell_of(exercise(), "04-multi-head-bug"))
EXERCISES = sorted((ROOT / "exercises").glob("*.ipynb"))
ANSWER = 'def causal_mask(attention_mask: Tensor) -> Tensor:\n    """Mine."""\n    return 1\n'


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A repository with one exercise, seen from its folder."""
    monkeypatch.chdir(classroom(tmp_path))
    return tmp_path


@pytest.fixture
def command(capsys):
    def run(*arguments):
        return run_command(*arguments, capsys=capsys)

    return run


@pytest.fixture
def mine(room, command):
    """A started notebook."""
    assert command("start", "04")[0] == 0
    return room / "my" / NAME


def answer(path: Path, mark: str, text: str) -> None:
    content = json.loads(path.read_text("utf-8"))
    cell_of(content, mark)["source"] = text
    save(path, content)


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


# ---- start ------------------------------------------------------------------------------


def test_start_says_what_to_do_next(room, command):
    code, out, _ = command("start", "4")
    assert code == 0 and f"{QUESTIONS} questions, {POINTS:g} points" in out
    for line in ("bertlearn check 04", "bertlearn hint 04.causal_mask", f"grade my/{NAME}"):
        assert line in out
    assert (room / "my" / NAME).read_bytes() == (room / "exercises" / NAME).read_bytes()
    assert (room / "my" / "progress.json").is_file()


def test_the_book_shows_what_start_says(room, command):
    said = command("start", "04")[1]
    assert said.strip() in (ROOT / "book" / "howto.md").read_text("utf-8")


def test_start_never_overwrites(mine, command):
    mine.write_text("my work")
    for name in ("4", "04", "04_attention", "attention", NAME):
        code, out, _ = command("start", name)
        assert code == 0 and "left as it is" in out and mine.read_text() == "my work"


def test_a_copy_made_meanwhile_is_not_overwritten(room, monkeypatch):
    """Two starts at once: the second to write loses."""
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert copies.start("04")[1] is True
    (room / "my" / NAME).write_text("my work")
    assert copies.start("04")[1] is False
    assert (room / "my" / NAME).read_text() == "my work"


@pytest.mark.parametrize("step", ["fdopen", "mkdir"])
def test_start_on_a_full_disk_leaves_nothing(room, command, monkeypatch, step):
    monkeypatch.setattr(os if step == "fdopen" else Path, step, full)
    code, _, err = command("start", "04")
    assert code == 1 and "could not be written: No space left on device" in err
    assert not list(room.glob("my/*"))


def test_an_unknown_exercise_lists_those_that_there_are(room, command):
    for name in ("12", "04_attentoin", "abc"):
        code, _, err = command("start", name)
        assert code == 1 and f"there is no exercise {name}: choose one of 04" in err


def test_a_damaged_exercise_says_how_to_mend_it(room, command):
    (room / "exercises" / NAME).write_text("{}")
    code, _, err = command("start", "04")
    assert code == 1 and "git checkout exercises" in err


# ---- questions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["04.multi_head_bug", "multi_head_bug", "multi_head", "4.multi_head_bug", "04_multi_head_bug"],
)
def test_a_question_is_found_by_its_id_its_name_or_its_function(room, name):
    _, question = find_question(room, name)
    assert question.id == "04.multi_head_bug" and question.points == 3
    assert question.title == "Bug hunt: heads that mix tokens" and question.minutes == 15
    assert [title for title, _ in question.hints] == ["Hint", "Pseudocode"]


def test_a_question_that_is_not_there(room):
    with pytest.raises(ExerciseError, match="no question casual_mask: did you mean 04.causal_mask"):
        find_question(room, "casual_mask")
    with pytest.raises(ExerciseError, match="there are 04.causal_mask, 04.softmax_backward"):
        find_question(room, "xyz")


def test_a_name_that_is_asked_twice_must_be_said_in_full(room):
    content = json.loads((room / "exercises" / NAME).read_text("utf-8"))
    text = json.dumps(content).replace("04_", "05_").replace("04.", "05.")
    (room / "exercises" / "05_again.ipynb").write_text(text)
    with pytest.raises(ExerciseError, match="04.causal_mask or 05.causal_mask"):
        find_question(room, "causal_mask")
    assert find_question(room, "05.causal_mask")[0].number == "05"


# ---- reset ------------------------------------------------------------------------------


def test_reset_brings_the_stub_back_and_keeps_the_answer(mine, command):
    for number in (1, 2):
        answer(mine, "04-causal-mask", ANSWER)
        code, out, _ = command("reset", "causal_mask")
        assert code == 0 and f"my/kept/04.causal_mask-{number}.py" in out
        kept = mine.parent / "kept" / f"04.causal_mask-{number}.py"
        assert kept.read_text() == ANSWER
        assert json.loads(mine.read_text("utf-8")) == exercise()
    code, out, _ = command("reset", "causal_mask")
    assert code == 0 and "as it was given" in out and "kept" not in out
    assert command("reset", "casual_mask")[0] == 1


def test_reset_touches_no_other_cell(mine, command):
    content = solved()
    cell_of(content, "s04-002")["outputs"] = []
    save(mine, content)
    command("reset", "04.softmax_backward")
    after = json.loads(mine.read_text("utf-8"))
    cell_of(content, "04-softmax-backward")["source"] = cell_of(exercise(), "04-softmax-backward")[
        "source"
    ]
    assert [source_of(c) for c in after["cells"]] == [source_of(c) for c in content["cells"]]


def test_reset_brings_a_deleted_cell_back(mine, command):
    content = solved()
    content["cells"].remove(cell_of(content, "04-causal-mask"))
    save(mine, content)
    assert command("reset", "causal_mask")[0] == 0
    after = json.loads(mine.read_text("utf-8"))
    assert [c["id"] for c in after["cells"]] == [c["id"] for c in exercise()["cells"]]


def test_reset_takes_points_back(mine, command):
    with Progress(mine.parent).change() as records:
        records["04.causal_mask"] = Record(points=2, max=2, hints=1)
    answer(mine, "04-causal-mask", ANSWER)
    command("reset", "causal_mask")
    assert Progress(mine.parent).read()["04.causal_mask"] == Record(points=0, max=2, hints=1)


def test_reset_on_a_full_disk_changes_nothing(mine, command, monkeypatch):
    answer(mine, "04-causal-mask", ANSWER)
    before = mine.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", full)
        code, _, err = command("reset", "causal_mask")
    assert code == 3 and "nothing was changed: No space left" in err
    assert mine.read_bytes() == before
    assert [p.name for p in mine.parent.rglob("*causal*")] == []


def test_reset_without_a_copy_says_how_to_get_one(room, command):
    code, _, err = command("reset", "causal_mask")
    assert code == 1 and "my/ holds no exercise 04 yet: bertlearn start 04" in err


# ---- hints, solution, progress ----------------------------------------------------------


def test_hints_come_one_by_one_and_are_remembered(mine, command):
    first, second, third = (command("hint", "causal_mask")[1] for _ in range(3))
    assert "Hint (1 of 2)" in first and "torch.tril" in first and "Pseudocode" not in first
    assert "Pseudocode (2 of 2)" in second and "torch.tril" not in second
    assert "no more hints" in second and "bertlearn solution 04.causal_mask" in second
    assert "Hint (1 of 2)" in third and "Pseudocode (2 of 2)" in third
    assert Progress(mine.parent).read()["04.causal_mask"].hints == 2
    again = command("hint", "softmax_backward", "--again")[1]
    assert "No hint has been given yet" in again


def test_a_hint_without_a_name_is_for_the_first_open_question(mine, command):
    with Progress(mine.parent).change() as records:
        records["04.causal_mask"] = Record(points=2, max=2)
    assert "04.softmax_backward" in command("hint")[1]


def test_the_solution_comes_after_a_try(mine, command):
    code, out, _ = command("solution", "causal_mask")
    assert code == 1 and "tril" not in out and "bertlearn check 04.causal_mask" in out
    assert "--give-up" in out and "2 left" in out
    with Progress(mine.parent).change() as records:
        records["04.causal_mask"] = Record(max=2, checks=1, tried=True)
    assert command("solution", "causal_mask")[0] == 1, "the copy holds the stub"
    answer(mine, "04-causal-mask", ANSWER)
    code, out, _ = command("solution", "causal_mask")
    assert code == 0 and "tril" in out and "### BEGIN" not in out
    assert Progress(mine.parent).read()["04.causal_mask"].solution == "after a try"
    assert "solution shown, after a try" in command("progress")[1]


def test_giving_up_is_said(mine, command):
    code, out, _ = command("solution", "causal_mask", "--give-up")
    assert code == 0 and "tril" in out
    assert "solution shown, given up" in command("progress")[1]
    assert command("solution", "causal_mask")[0] == 0, "it was shown before"


def test_every_solution_can_be_shown_and_has_its_hints():
    for path in EXERCISES:
        found = copies.find_exercise(ROOT, path.name[:2])
        for question in found.questions:
            assert question.hints and question.difficulty and question.names, question.id
            from bertlearn.grading.learner import _solution

            assert "def " in _solution(ROOT, path.name, question)


def test_an_exercise_in_place_of_a_question(tmp_path, monkeypatch, command):
    names = ("02_tokenization.ipynb", NAME, "91_own_attention.ipynb")
    monkeypatch.chdir(classroom(tmp_path, *names))
    assert "1 question, 10 points" in command("start", "91")[1]
    command("start", "04")
    assert "04.causal_mask: A mask" in command("hint", "04")[1]
    with Progress(tmp_path / "my").change() as records:
        records["04.causal_mask"] = Record(points=2, max=2)
    assert "04.softmax_backward: The gradient" in command("hint", "attention")[1]
    assert "91.block_attention: Attention" in command("hint", "91")[1]
    assert "bertlearn check 91.block_attention" in command("solution", "91")[1]
    code, _, err = command("reset", "04")
    assert code == 1 and "04 is an exercise: say which question, one of 04.causal_mask" in err
    code, _, err = command("hint", "zzz")
    assert code == 1 and "name it with its chapter" in err and len(err) < 120


def test_hints_are_readable_in_a_terminal():
    for number in exercises(ROOT):
        for question in find_exercise(ROOT, number).questions:
            for _, text in question.hints:
                assert not set(r"\$") & set(plain_math(text)), question.id
    assert plain_math(r"$\partial p_i / \partial s_j = p_i(\delta_{ij} - p_j)$") == (
        "∂ p_i / ∂ s_j = p_i(δ_(ij) - p_j)"
    )


def test_progress_says_what_is_done_and_what_is_next(room, command):
    code, out, _ = command("progress")
    assert code == 0 and f"0 of {QUESTIONS}" in out and "not started" in out
    assert "Next: bertlearn start 04" in out
    command("start", "04")
    with Progress(room / "my").change() as records:
        records["04.causal_mask"] = Record(points=2, max=2)
    out = command("progress")[1]
    assert f"1 of {QUESTIONS}" in out and f"2 of {POINTS:g}" in out
    assert "done  04.causal_mask" in out
    assert "Next: 04.softmax_backward, The gradient through softmax, by hand" in out
    assert "about 20 minutes, 3 points" in out


def test_a_broken_progress_is_told_and_the_command_goes_on(mine, command):
    (mine.parent / "progress.json").write_text("oops")
    code, out, err = command("progress")
    assert code == 0 and f"0 of {QUESTIONS}" in out and "kept as progress-unreadable-1.json" in err
    assert err.count("\n") == 1


def test_what_only_tells_needs_no_torch(mine):
    code = (
        "import sys; from bertlearn.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    try: main(command.split())\n"
        "    except SystemExit as left: assert not left.code, command\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    commands = ["start", "start 04 --script", "hint", "progress", "solution 04.attention_cost"]
    run = [sys.executable, "-c", code, *commands[:-1], f"{commands[-1]} --give-up"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=mine.parents[1])
    assert done.returncode == 0, done.stderr


# ---- scripts ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)
def test_an_exercise_as_a_script_has_the_same_cells(path):
    content = json.loads(path.read_text("utf-8"))
    text = to_script(content)
    back = from_script(text)
    kinds = [(c["cell_type"], source_of(c).strip("\n")) for c in content["cells"]]
    assert [(c["cell_type"], c["source"]) for c in back["cells"]] == kinds
    assert back["metadata"]["bertlearn"] == content["metadata"]["bertlearn"]
    assert to_script(back) == text
    marks = [
        c["metadata"]["nbgrader"]["grade_id"]
        for c in content["cells"]
        if c["metadata"].get("nbgrader", {}).get("solution")
    ]
    assert [
        c["metadata"]["nbgrader"]["grade_id"] for c in back["cells"] if "nbgrader" in c["metadata"]
    ] == marks


def test_jupytext_reads_the_script_as_the_same_notebook():
    jupytext = pytest.importorskip("jupytext")
    content = exercise()
    told = jupytext.reads(to_script(content), fmt="py:percent")
    assert [c.source for c in told.cells] == [source_of(c) for c in content["cells"]]


def test_a_script_is_started_reset_and_read(room, command):
    code, out, _ = command("start", "04", "--script")
    mine = room / "my" / "04_attention.py"
    assert code == 0 and "grade my/04_attention.py" in out and "too:" not in out
    assert "my/04_attention.py is there, too" in command("start", "04")[1]
    (room / "my" / NAME).unlink()
    text = mine.read_text("utf-8")
    compile(text, "mine", "exec")
    stub = source_of(cell_of(exercise(), "04-causal-mask"))
    written = "# a note of mine\n" + text.replace(stub, ANSWER.rstrip())
    mine.write_text(written.replace("\n", "\r\n"), encoding="utf-8", newline="")
    found = read(mine)
    assert found.exercise == "04" and len(found.calls) == QUESTIONS
    assert ANSWER.rstrip() in [cell.text for cell in found.cells]
    assert command("reset", "causal_mask")[0] == 0
    assert mine.read_text("utf-8") == text.replace("# ---\n# jupyter", "# ---\n# jupyter").replace(
        text, "# a note of mine\n" + text
    )


def test_a_script_without_marks_is_one_cell(tmp_path):
    path = tmp_path / "04.py"
    path.write_text(f"import torch\n{ANSWER}check('04.causal_mask', causal_mask)\n")
    found = read(path)
    assert found.exercise == "04" and len(found.cells) == 1


# ---- older copies -----------------------------------------------------------------------


def older() -> dict:
    """The exercise as it may have been before: a text that has changed, a question that had
    another name, one with other arguments, one that was not there."""
    content = exercise()
    cell_of(content, "s04-003")["source"] = "## A mask\n\nAn older text."
    renamed = cell_of(content, "04-causal-mask")
    renamed["id"] = "04-left-mask"
    renamed["metadata"]["nbgrader"]["grade_id"] = "04_left_mask"
    check = cell_of(content, "check-04-causal-mask")
    check["id"] = "check-04-left-mask"
    check["metadata"]["nbgrader"]["grade_id"] = "check_04_left_mask"
    check["source"] = 'check("04.left_mask", causal_mask).points'
    stub = cell_of(content, "04-attention-cost")
    stub["source"] = source_of(stub).replace("hidden: int, heads: int", "hidden: int")
    for mark in ("s04-011", "04-relative-attention", "check-04-relative-attention"):
        content["cells"].remove(cell_of(content, mark))
    content["metadata"]["bertlearn"]["given"] = " ".join(
        fingerprint(source_of(c)) for c in content["cells"]
    )
    return content


OWN = "def helper(x):\n    return x"
COST = "def attention_cost(hidden: int, seq: int) -> tuple[int, int]:\n    return 1, 2"


def worked_on() -> dict:
    """That copy, with answers and cells of the learner's."""
    content = older()
    cell_of(content, "04-left-mask")["source"] = ANSWER
    cell_of(content, "04-attention-cost")["source"] = COST
    place = content["cells"].index(cell_of(content, "04-softmax-backward"))
    own = {"cell_type": "code", "id": "mine", "metadata": {}, "source": OWN, "outputs": []}
    content["cells"].insert(place, own)
    imports = cell_of(content, "s04-002")
    imports["source"] = source_of(imports) + "\nimport numpy as np"
    return content


@pytest.mark.parametrize("script", [False, True])
def test_an_older_copy_is_brought_up_to_date(room, command, script):
    mine = room / "my" / ("04_attention.py" if script else NAME)
    mine.parent.mkdir()
    if script:
        mine.write_text(to_script(worked_on()), encoding="utf-8")
    else:
        save(mine, worked_on())
    before = mine.read_bytes()
    code, out, err = command("start", "04", "--update")
    assert code == 0 and not err
    assert "answers kept   04.causal_mask, 04.attention_cost" in out
    assert "04.attention_cost: its arguments have changed" in out
    assert "new questions  04.relative_attention" in out
    (kept,) = (mine.parent / "kept").iterdir()
    assert kept.read_bytes().strip() == before.strip() and kept.name in out

    after = copies.notebook.content(mine)
    texts = [source_of(c).strip("\n") for c in after["cells"]]
    assert ANSWER.strip() in texts and OWN in texts
    assert "An older text." not in "\n".join(texts)
    assert texts.index(OWN) < next(i for i, t in enumerate(texts) if "def softmax_backward" in t)
    assert any(t.endswith("import numpy as np") for t in texts)
    given = {source_of(c).strip("\n") for c in exercise()["cells"]}
    left_out = given - set(texts)
    assert len(left_out) == 3 - script, "two answers, and the imports"
    cost = next(t for t in texts if "def attention_cost" in t)
    assert "heads: int" in cost and copies.OLD_ANSWER in cost and "# " + COST.split("\n")[0] in cost
    found = read(mine)
    assert not copies.is_old(found, copies.find_exercise(room, "04"))
    assert "left as it is" in command("start", "04", "--update")[1]


def test_an_update_on_a_full_disk_changes_nothing(room, command, monkeypatch):
    mine = save(room / "my" / NAME, worked_on())
    before = mine.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", full)
        code, _, err = command("start", "04", "--update")
    assert code == 3 and "nothing was changed: No space left" in err and mine.read_bytes() == before


def test_the_last_of_two_answers_is_the_one_that_is_kept(room, command):
    content = older()
    first = cell_of(content, "04-left-mask")
    second = json.loads(json.dumps(first))
    first["source"], second["source"] = ANSWER.replace("1", "0"), ANSWER
    content["cells"].insert(content["cells"].index(first) + 1, second)
    mine = save(room / "my" / NAME, content)
    command("start", "04", "--update")
    texts = [source_of(c) for c in json.loads(mine.read_text("utf-8"))["cells"]]
    assert texts.index(ANSWER.replace("1", "0")) < texts.index(ANSWER)
    ids = [c["id"] for c in json.loads(mine.read_text("utf-8"))["cells"]]
    assert len(set(ids)) == len(ids)


def test_an_update_wants_something_to_update(room, command):
    assert "bertlearn start 04" in command("start", "04", "--update")[2]
    assert command("start", "--update")[0] == 2
    save(room / "my" / NAME, {"cells": [1]})
    code, _, err = command("start", "04", "--update")
    assert code == 2 and "no list of cells" in err and err.count("\n") == 1


# ---- watching ---------------------------------------------------------------------------


def test_a_save_is_seen_once_and_when_it_is_whole(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text("1")
    seen, script = [], []

    def sleep(seconds):
        if not script:
            raise KeyboardInterrupt
        script.pop(0)()

    def nothing():
        pass

    def write(text):
        return lambda: path.write_text(text)

    script += [nothing]  # it is whole: judged
    script += [nothing, nothing]  # no save
    script += [write("22"), write("333"), nothing, nothing]  # in two goes: judged once
    script += [path.unlink, nothing, write("4444"), nothing]  # deleted and made again
    with pytest.raises(KeyboardInterrupt):
        for _ in watch.saves(path, 0, sleep):
            seen.append(path.read_text())
    assert seen == ["1", "333", "4444"]


def cells(tmp_path, **changes):
    content = solved()
    for mark, text in changes.items():
        cell_of(content, mark.replace("_", "-"))["source"] = text
    return read(save(tmp_path / "04.ipynb", content))


def test_only_what_a_save_can_have_changed_is_judged_again(tmp_path):
    def digests(found):
        names = ("causal_mask", "softmax_backward", "cross_attention", "multi_head")
        return [watch.digest(found, (name,)) for name in names]

    before = digests(cells(tmp_path))
    assert digests(cells(tmp_path)) == before
    assert digests(cells(tmp_path, s04_005="1 + 1")) == before, "a picture"
    changed = digests(cells(tmp_path, **{"04_causal_mask": ANSWER}))
    assert changed[0] != before[0] and changed[1:] == before[1:]
    imports = digests(cells(tmp_path, s04_002="import math, torch\nfrom torch import Tensor"))
    assert all(a != b for a, b in zip(imports, before, strict=True))
    uses = "def cross_attention(x):\n    return causal_mask(x)"
    first = digests(cells(tmp_path, **{"04_cross_attention": uses}))
    then = digests(cells(tmp_path, **{"04_cross_attention": uses, "04_causal_mask": ANSWER}))
    assert first[2] != then[2], "it uses what has changed"


# ---- check ------------------------------------------------------------------------------


def test_check_is_brief_and_notes_what_it_found(mine, command):
    content = solved()
    for mark in ("04-softmax-backward", "04-relation-shares", "04-cross-attention"):
        cell_of(content, mark)["source"] = cell_of(exercise(), mark)["source"]
    diagonal = source_of(cell_of(content, "04-causal-mask")).replace("tril()", "tril(-1)")
    assert "-1" in diagonal
    cell_of(content, "04-causal-mask")["source"] = diagonal
    save(mine, content)
    code, out, err = command("check", "04")
    assert code == 1 and not err
    assert re.search(r"04.causal_mask +0 / 2  a token must see itself: the diagonal", out)
    assert re.search(r"04.softmax_backward +0 / 3  not written yet", out)
    assert re.search(r"04.multi_head_bug +3 / 3  all points", out)
    assert f"{POINTS - 12:g} of {POINTS:g} points in my/04_attention.ipynb" in out
    assert "Stuck? bertlearn hint 04.causal_mask" in out
    records = Progress(mine.parent).read()
    assert records["04.multi_head_bug"].done and records["04.causal_mask"].tried
    assert not records["04.softmax_backward"].tried
    assert command("solution", "causal_mask")[0] == 0
    assert command("solution", "softmax_backward")[0] == 1
    code, out, _ = command("check", "multi_head")
    assert code == 0 and out.count("\n") == 2 and "Next: 04.causal_mask" in out


def test_a_bug_that_nobody_touched_is_not_given_away(mine, command):
    out = command("check", "multi_head_bug")[1]
    assert "0 / 3  the code is still as it was given" in out
    assert "cuts across" not in out and "expected" not in out
    answer(mine, "04-multi-head-bug", BUG.replace("mixed.view", "mixed.transpose(1, 2).reshape"))
    out = command("check", "multi_head_bug")[1]
    assert "the merge swaps axes, the split does not" in out and "expected" in out


def test_each_command_says_what_is_next_when_all_is_done(mine, command):
    save(mine, solved())
    assert "Next: 04.softmax_backward" in command("check", "causal_mask")[1]
    assert f"All points. On fresh numbers: bertlearn grade my/{NAME}" in command("check")[1]
    following = "Next: nothing is left"  # the only exercise of this room
    for words in (("hint",), ("progress",), ("grade", mine), ("check", "diagnose")):
        assert following in command(*words)[1], words


def test_the_next_exercise_is_the_one_that_follows_in_the_book(tmp_path, monkeypatch, command):
    names = [f"{n}.ipynb" for n in ("02_tokenization", "04_attention", "05_encoder")]
    monkeypatch.chdir(classroom(tmp_path, *names))
    command("start", "04")
    with Progress(tmp_path / "my").change() as records:
        for one in find_exercise(tmp_path, "04").questions:
            records[one.id] = Record(points=one.points, max=one.points)
    assert "Next: bertlearn start 05" in command("hint")[1]
    assert "Next: bertlearn start 02" in command("progress")[1]


def test_check_without_a_copy_or_a_file(room, command):
    assert "bertlearn start lists what there is" in command("check")[2]
    assert "my/ holds no exercise 04 yet" in command("check", "04")[2]
    assert "there is no question 04.nothing" in command("check", "04.nothing")[2]
    code, _, err = command("check", "no.ipynb")
    assert code == 2 and "there is no file no.ipynb" in err
    code, _, err = command("check", "no.py", "--watch")
    assert code == 2 and "there is no file no.py" in err


def test_check_finds_a_copy_under_another_name(room, command):
    save(room / "my" / "homework (2).ipynb", exercise())
    code, out, _ = command("check", "04.attention_cost")
    assert code == 1 and "not written yet" in out


def test_an_older_copy_is_checked_and_told(room, command):
    save(room / "my" / NAME, worked_on())
    assert "bertlearn start 04 --update keeps" in command("start", "04")[2]
    code, _, err = command("check", "multi_head")
    assert code == 1 and err.count("\n") == 1
    assert "is an older version of exercise 04: bertlearn start 04 --update keeps" in err


def test_watching_judges_what_changed_and_survives_bad_saves(mine, command, monkeypatch):
    from bertlearn.grading import learner

    right = source_of(cell_of(solved(), "04-causal-mask"))

    def saves(path):
        yield
        path.write_text("{ half")
        yield
        save(path, exercise())
        yield
        answer(path, "04-causal-mask", right)
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "saves", saves)
    code, out, err = command("check", "--watch")
    assert code == 0 and "Stopped" in out and learner
    assert out.count("04.softmax_backward") == 1, "it did not change"
    assert "04.causal_mask  2 / 2" in re.sub(" +", " ", out).replace(" 2 / 2", "  2 / 2")
    assert "no answer has changed" in out and f"2 of {POINTS:g} points" in out
    assert "its text is not JSON" in err and err.count("\n") == 1

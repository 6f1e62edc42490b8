"""Proves what running the notebooks does not: that each was run, whole and in order, that what it
shows is fit for the book, that a chapter closes with all that belongs there, and that the tools
which run it notice a dead kernel or a changed output.

nbval runs the chapters and solutions and compares their outputs (a part of `make test`). It does
not see cells that were never run, magics, or a `;` that swallows an output; and it takes a
notebook's word that an output varies. Those rules are here.

    pytest tests/test_notebooks.py                          the rules, and the tools
    pytest --nbval --nbval-current-env --nbval-cell-timeout 120 \\
           --nbval-sanitize-with tests/nbval_sanitize.cfg chapters solutions
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from markdown_it import MarkdownIt
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bertlearn.checks import PROJECTS
from bertlearn.engine import notebooks

ROOT = Path(__file__).resolve().parents[1]
EXECUTED = notebooks.find_notebooks(ROOT)
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
EXERCISES = sorted((ROOT / "exercises").glob("*.ipynb"))
SOURCES = frozenset(
    re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "book" / "references.bib").read_text("utf-8"), re.M)
)
CODE_WIDTH = 80
ALT_TEXT = 15  # letters at least
UNFIT_TYPES = {"image/svg+xml", "application/javascript", "image/jpeg", "image/gif"}
UNSTABLE_TEXT = re.compile(r" at 0x[0-9a-fA-F]{6,}|(?:^|[\s'\"(])/(?:home|root|tmp|Users|work)/")
FOOTNOTE = re.compile(r"\[\^[^\]]+\]")
TITLED_EXERCISE = re.compile(r"^[:`]{3,}\{exercise(?:-start)?\}[ \t]+\S", re.MULTILINE)
CLOSING = ["Expected and measured", "Summary", "Check yourself", "Exercises", "References"]
QUESTION = re.compile(r"^\*\*\d+\. ", re.MULTILINE)
CHOICE = re.compile(r"^:::\{dropdown\} ([^\n]+)\n(.*?)^:::$", re.MULTILINE | re.DOTALL)
ANNOUNCED = re.compile(r"^(\w+) graded questions? ", re.MULTILINE)
NUMBERS = ["Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten"]
CITED = re.compile(r"\{cite:\w+\}`([^`]+)`")
BIBLIOGRAPHY = "```{bibliography}\n:filter: docname in docnames\n"
Rule = Callable[[NotebookNode], Iterator[str]]


def name_of(path: Path) -> str:
    """How a test names a notebook: by its folder and file."""
    return f"{path.parent.name}/{path.name}"


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells with code in them."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def tags(cell: NotebookNode) -> list[str]:
    """A cell's tags."""
    return cell.metadata.get("tags", [])


def texts(cell: NotebookNode) -> Iterator[str]:
    """All text that a cell put out."""
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield from (v for v in output.get("data", {}).values() if isinstance(v, str))


# ---------------------------------------------------------------- the rules


def was_run_in_order(notebook: NotebookNode) -> Iterator[str]:
    """Each code cell ran once, from top to bottom, in one fresh kernel."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}"


def is_plain_python(notebook: NotebookNode) -> Iterator[str]:
    """No magics, shell lines or help marks, and no `;`, which nbval would ignore."""
    transform = TransformerManager().transform_cell
    for cell in code_cells(notebook):
        if transform(cell.source).rstrip("\n") != cell.source.rstrip("\n"):
            yield f"IPython syntax in {cell.source[:60]!r}"
            continue
        found = tokenize.generate_tokens(io.StringIO(cell.source).readline)
        if any(token.type == tokenize.OP and token.string == ";" for token in found):
            yield f"a semicolon in {cell.source[:60]!r}"


def has_no_trouble(notebook: NotebookNode) -> Iterator[str]:
    """No error and no warning is printed, unless the cell is there to raise."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"an error, {output.ename}, in {cell.source[:60]!r}"
            if output.output_type == "stream" and output.name == "stderr":
                yield f"something on stderr: {output.text[:80]!r}"


def shows_what_the_book_can(notebook: NotebookNode) -> Iterator[str]:
    """Pictures are PNG (nbval compares the text of SVG), and nothing runs or loads a script."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            yield from (f"an output of type {kind}" for kind in UNFIT_TYPES & set(data))
            if re.search(r"<script|<link|https?://", data.get("text/html", "")):
                yield "an HTML output that loads something"


def describes_its_pictures(notebook: NotebookNode) -> Iterator[str]:
    """A cell with a picture says what it shows: metadata {"mystnb": {"image": {"alt": "..."}}}."""
    for cell in code_cells(notebook):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            if len(alt) < ALT_TEXT:
                yield f"no text for the picture of {cell.source[:60]!r}"


def asserts_what_varies(notebook: NotebookNode) -> Iterator[str]:
    """A cell whose output is not compared is followed by one that asserts what is said of it."""
    cells = code_cells(notebook)
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if "nbval-skip" in tags(cell):
            yield "a cell is never run: nbval-skip"
        if "nbval-ignore-output" not in tags(cell):
            continue
        tree = ast.parse(following.source) if following else ast.Module([], [])
        if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
            yield f"nothing asserts what varies in {cell.source[:60]!r}"


def prints_the_same_everywhere(notebook: NotebookNode) -> Iterator[str]:
    """No address of an object and no path of the machine that ran it."""
    for cell in code_cells(notebook):
        for text in texts(cell):
            if match := UNSTABLE_TEXT.search(text):
                yield f"the output has {match.group().strip()!r}"


def fits_the_page(notebook: NotebookNode) -> Iterator[str]:
    """Code is at most 80 columns wide, so that it is read without scrolling."""
    for cell in code_cells(notebook):
        for line in cell.source.split("\n"):
            if len(line) > CODE_WIDTH:
                yield f"{len(line)} columns: {line.strip()[:60]!r}"


def can_be_translated(notebook: NotebookNode) -> Iterator[str]:
    """Prose without raw HTML, footnotes and titled exercises: a translation would lose them."""
    parser = MarkdownIt("commonmark")
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for token in parser.parse(cell.source):
            for part in (token, *(token.children or [])):
                if part.type in ("html_block", "html_inline") and not part.content.startswith(
                    "<!--"
                ):
                    yield f"raw HTML: {part.content[:60]!r}"
        if match := FOOTNOTE.search(cell.source) or TITLED_EXERCISE.search(cell.source):
            yield f"a footnote or a titled exercise: {match.group()!r}"


def is_in_normal_form(notebook: NotebookNode) -> Iterator[str]:
    """Valid, and saved as `make notebooks` saves it: ids, metadata, streams."""
    nbformat.validate(notebook)
    before = notebooks.to_text(notebook)
    after = notebooks.to_text(notebooks.normalize(nbformat.reads(before, as_version=4)))
    if before != after:
        yield "not in normal form: make notebooks"


RULES: list[Rule] = [
    was_run_in_order,
    is_plain_python,
    has_no_trouble,
    shows_what_the_book_can,
    describes_its_pictures,
    asserts_what_varies,
    prints_the_same_everywhere,
    fits_the_page,
    can_be_translated,
    is_in_normal_form,
]


@pytest.mark.parametrize("path", EXERCISES, ids=name_of)
def test_exercises_are_untouched(path: Path) -> None:
    """An exercise comes without outputs, and in words that the rules allow."""
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(notebook))
    found = [*is_plain_python(notebook), *fits_the_page(notebook), *can_be_translated(notebook)]
    assert not found, "\n".join(found)


# ---------------------------------------------------------------- how a chapter closes


def prose(notebook: NotebookNode) -> str:
    """All Markdown of a notebook."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def sections(notebook: NotebookNode) -> dict[str, str]:
    """Title to text of each section."""
    _, *parts = re.split(r"^## ", prose(notebook), flags=re.MULTILINE)
    return {title.strip(): text.strip() for title, _, text in (p.partition("\n") for p in parts)}


def graded_questions(notebook: NotebookNode) -> int:
    """How many questions of an exercise give points."""
    return sum(bool(cell.metadata.get("nbgrader", {}).get("grade")) for cell in notebook.cells)


def closes_with_its_sections(notebook: NotebookNode) -> Iterator[str]:
    """What was expected and measured, a summary, a quiz, exercises, references; none is empty."""
    found = sections(notebook)
    if list(found)[-len(CLOSING) :] != CLOSING:
        yield f"the last sections are {list(found)[-len(CLOSING) :]}"
    yield from (
        f"nothing under {title}" for title in CLOSING if title in found and not found[title]
    )


def explains_each_choice(notebook: NotebookNode) -> Iterator[str]:
    """Each question of the quiz has one right choice, and says why it is right or another wrong."""
    _, *questions = QUESTION.split(sections(notebook).get("Check yourself", ""))
    if not questions:
        yield "the quiz asks nothing"
    for question in questions:
        says = [text.split() for _, text in CHOICE.findall(question)]
        right = sum(words[:1] in (["Right."], ["Right,"]) for words in says)
        if len(says) < 2 or right != 1:
            yield f"{right} of {len(says)} choices are right: {question[:60]!r}"
        if any(len(words) < 4 for words in says):
            yield f"a choice without a reason: {question[:60]!r}"


def cites_what_is_known(notebook: NotebookNode) -> Iterator[str]:
    """The bibliography lists what the chapter cites: something, and nothing that is unknown."""
    keys = {key.strip() for keys in CITED.findall(prose(notebook)) for key in keys.split(",")}
    if not keys:
        yield "nothing is cited, so the bibliography is empty"
    yield from (f"{key} is not in references.bib" for key in sorted(keys - SOURCES))
    if BIBLIOGRAPHY not in sections(notebook).get("References", ""):
        yield "no bibliography under References"


CLOSING_RULES: list[Rule] = [closes_with_its_sections, explains_each_choice, cites_what_is_known]


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        pytest.param(path, rule, id=f"{name_of(path)}-{rule.__name__}")
        for paths, rules in ((EXECUTED, RULES), (CHAPTERS, CLOSING_RULES))
        for path in paths
        for rule in rules
    ],
)
def test_rule(path: Path, rule: Rule) -> None:
    """Each chapter and each solution keeps each rule; a chapter also those on its end."""
    found = list(rule(nbformat.read(path, as_version=4)))
    assert not found, "\n".join(f"{name_of(path)}: {fault}" for fault in found)


@pytest.mark.parametrize("path", CHAPTERS, ids=name_of)
def test_a_chapter_counts_its_questions(path: Path) -> None:
    """The word in its paragraph on exercises is the number of questions that are graded."""
    exercise = nbformat.read(ROOT / "exercises" / path.name, as_version=4)
    chapter = nbformat.read(path, as_version=4)
    said = ANNOUNCED.findall(sections(chapter).get("Exercises", ""))
    assert said == [NUMBERS[graded_questions(exercise)]]
    assert prose(exercise).split("\n\n")[1].startswith(f"{said[0]} questions after chapter ")


def test_chapters_exercises_and_solutions_go_together() -> None:
    """Each exercise has its solution; each but the projects belongs to a chapter of its name."""
    names = {f: {p.name for p in (ROOT / f).glob("*.ipynb")} for f in ("chapters", "solutions")}
    assert names["chapters"], "there are no chapters"
    assert {path.name for path in EXERCISES} == names["solutions"]
    projects = {name for name in names["solutions"] if name[:2] in PROJECTS}
    assert names["solutions"] - projects <= names["chapters"]


# ---------------------------------------------------------------- the rules can be broken


def notebook_of(*cells: NotebookNode) -> NotebookNode:
    """A notebook in normal form with these cells, counted as if they had been run."""
    for count, cell in enumerate((c for c in cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
    return notebooks.normalize(new_notebook(cells=list(cells)))


def stream(name: str, text: str) -> NotebookNode:
    """Something printed."""
    return new_output("stream", name=name, text=text)


def shown(kind: str, value: str) -> NotebookNode:
    """Something displayed."""
    return new_output("display_data", data={kind: value})


def tagged(source: str, tag: str) -> NotebookNode:
    """A code cell with a tag."""
    return new_code_cell(source, metadata={"tags": [tag]})


FAULTS: list[tuple[Rule, list[NotebookNode]]] = [
    (is_plain_python, [new_code_cell("%matplotlib inline")]),
    (is_plain_python, [new_code_cell("%%no_such_magic\nraise ValueError")]),
    (is_plain_python, [new_code_cell("!ls")]),
    (is_plain_python, [new_code_cell("x = 1\nx;")]),
    (has_no_trouble, [new_code_cell("1/0", outputs=[new_output("error", ename="ZeroDivision")])]),
    (has_no_trouble, [new_code_cell("x", outputs=[stream("stderr", "UserWarning: glyph")])]),
    (shows_what_the_book_can, [new_code_cell("x", outputs=[shown("image/svg+xml", "<svg/>")])]),
    (shows_what_the_book_can, [new_code_cell("x", outputs=[shown("text/html", "<script>")])]),
    (describes_its_pictures, [new_code_cell("x", outputs=[shown("image/png", "iVBORw0KGgo=")])]),
    (asserts_what_varies, [tagged("time()", "nbval-ignore-output")]),
    (asserts_what_varies, [tagged("time()", "nbval-ignore-output"), new_code_cell("x = 1")]),
    (asserts_what_varies, [tagged("time()", "nbval-skip"), new_code_cell("assert 1")]),
    (
        prints_the_same_everywhere,
        [new_code_cell("x", outputs=[stream("stdout", "<f at 0x7f00aa>")])],
    ),
    (prints_the_same_everywhere, [new_code_cell("x", outputs=[stream("stdout", "/tmp/a")])]),
    (fits_the_page, [new_code_cell("x = '" + "long " * 20 + "'")]),
    (can_be_translated, [new_markdown_cell("a <b>bold</b> word")]),
    (can_be_translated, [new_markdown_cell("a claim[^1]\n\n[^1]: a footnote")]),
    (can_be_translated, [new_markdown_cell(":::{exercise} A title\nText\n:::")]),
]


@pytest.mark.parametrize(("rule", "cells"), FAULTS)
def test_rule_finds_the_fault(rule: Rule, cells: list[NotebookNode]) -> None:
    """Each rule reports the fault that it is there for."""
    assert list(rule(notebook_of(*cells)))


def test_rules_accept_a_good_notebook() -> None:
    """A notebook without a fault is reported by no rule."""
    picture = new_code_cell(
        "plot()",
        metadata={"mystnb": {"image": {"alt": "A straight line that rises from 1 to 3."}}},
        outputs=[shown("image/png", "iVBORw0KGgo=")],
    )
    good = notebook_of(
        new_markdown_cell("# 04 注意力\n\nMath $a<b$ and `<code>`, 12 > 3."),
        picture,
        tagged("seconds = time()", "nbval-ignore-output"),
        new_code_cell("assert seconds < 100", outputs=[stream("stdout", "好\n")]),
    )
    assert [(rule.__name__, list(rule(good))) for rule in RULES if list(rule(good))] == []


def test_cells_never_run_are_found() -> None:
    """nbval passes a cell without an execution count; the rule does not."""
    notebook = notebook_of(new_code_cell("x = 1"), new_code_cell("x"))
    assert not list(was_run_in_order(notebook))
    notebook.cells[1].execution_count = None
    assert list(was_run_in_order(notebook))
    notebook.cells[1].execution_count = 5
    assert list(was_run_in_order(notebook))


def test_normal_form_is_checked() -> None:
    """An editor's own metadata and an output cut in two are not in normal form."""
    good = notebook_of(new_code_cell("x", outputs=[stream("stdout", "a"), stream("stdout", "b")]))
    assert not list(is_in_normal_form(good))
    good.cells[0].metadata["collapsed"] = True
    assert list(is_in_normal_form(good))


def chapter_without(title: str = "", **changed: str) -> NotebookNode:
    """The end of a good chapter, but for a section that is left out or whose text is changed."""
    texts_ = {
        "expected": "We expected two and measured three {cite:p}`devlin2019bert`.",
        "summary": "Three.",
        "quiz": "**1. Two or three?**\n\n:::{dropdown} Two\nNo. That was expected.\n:::\n\n"
        ":::{dropdown} Three\nRight. That was measured.\n:::",
        "exercises": "One graded question builds on this chapter.",
        "references": BIBLIOGRAPHY + "```",
    } | changed
    parts = zip(CLOSING, texts_.values(), strict=True)
    return notebook_of(
        new_markdown_cell("\n\n".join(f"## {t}\n\n{text}" for t, text in parts if t != title))
    )


UNCLOSED: list[tuple[Rule, NotebookNode]] = [
    *((closes_with_its_sections, chapter_without(title)) for title in CLOSING),
    (closes_with_its_sections, chapter_without(summary="")),
    (closes_with_its_sections, chapter_without(references=BIBLIOGRAPHY + "```\n\n## Afterword")),
    (explains_each_choice, chapter_without("Check yourself")),
    (explains_each_choice, chapter_without(quiz="**1. Two?**\n\n:::{dropdown} Yes\nRight.\n:::")),
    (
        explains_each_choice,
        chapter_without(
            quiz="**1. Two or three?**\n\n:::{dropdown} Two\n:::\n\n"
            ":::{dropdown} Three\nRight. That was measured.\n:::"
        ),
    ),
    (cites_what_is_known, chapter_without(expected="We expected two.")),
    (cites_what_is_known, chapter_without(expected="Two {cite:p}`devlin2019bert,nobody1900`.")),
    (cites_what_is_known, chapter_without(references="See above.")),
]


@pytest.mark.parametrize(("rule", "notebook"), UNCLOSED)
def test_closing_rule_finds_the_fault(rule: Rule, notebook: NotebookNode) -> None:
    """Each rule on the end of a chapter reports the fault that it is there for."""
    assert list(rule(notebook))
    assert not list(rule(chapter_without()))


# ---------------------------------------------------------------- the tools notice


def written(path: Path, *cells: NotebookNode) -> Path:
    """A notebook on disk."""
    path.write_text(notebooks.to_text(notebook_of(*cells)), encoding="utf-8")
    return path


def test_nbval_notices(tmp_path: Path) -> None:
    """As it is called by `make test`, nbval passes what is right and fails what is not: another
    Chinese word, and a kernel that dies (which it sees only as a time-out)."""
    right = [new_code_cell("print('注意力')", outputs=[stream("stdout", "注意力\n")])]
    wrong = [new_code_cell("print('注意力')", outputs=[stream("stdout", "注意\n")])]
    dead = [new_code_cell("import os\nos.kill(os.getpid(), 9)"), new_code_cell("x = 1")]
    for name, cells in (("right", right), ("wrong", wrong), ("dead", dead)):
        written(tmp_path / f"{name}.ipynb", *cells)
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-rA", "-q"]
    command += ["--nbval-sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg")]
    command += ["--nbval-cell-timeout", "4", "-p", "no:cacheprovider", "-c", "/dev/null", "."]
    report = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert re.search(r"PASSED .*right\.ipynb::Cell 0", report), report
    assert re.search(r"FAILED .*wrong\.ipynb::Cell 0", report), report
    assert re.search(r"FAILED .*dead\.ipynb::Cell 0", report), report


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os\nos.kill(os.getpid(), 9)", "the kernel died"),
        ("raise ValueError('no such head')", "ValueError: no such head"),
        ("%no_such_magic", "no_such_magic"),
        ("while True:\n    pass", "took longer than 2 seconds"),
    ],
)
def test_make_notebooks_notices(tmp_path: Path, source: str, reason: str, capsys) -> None:
    """`make notebooks` says which notebook failed and why, and leaves its file as it was."""
    path = written(tmp_path / "broken.ipynb", new_code_cell(source))
    before = path.read_bytes()
    assert notebooks.main([str(path), "--timeout", "2"]) == 1
    said = capsys.readouterr().err
    assert str(path) in said
    assert reason in said
    assert path.read_bytes() == before


def test_make_notebooks_is_reproducible(tmp_path: Path) -> None:
    """Two runs write the same bytes, in normal form, with the package importable."""
    cell = new_code_cell("import bertlearn\nprint('头')\nprint(2)\n3")
    path = written(tmp_path / "twice.ipynb", new_markdown_cell("# 标题"), cell)
    assert notebooks.main([str(path)]) == 0
    first = path.read_bytes()
    assert notebooks.main([str(path)]) == 0
    assert path.read_bytes() == first
    saved = nbformat.read(path, as_version=4)
    assert [list(rule(saved)) for rule in RULES] == [[] for _ in RULES]
    assert [o.get("text") for o in saved.cells[1].outputs] == ["头\n2\n", None]


def test_a_file_that_is_no_notebook(tmp_path: Path, capsys) -> None:
    """One sentence, and exit code 1."""
    path = tmp_path / "no.ipynb"
    path.write_text("not JSON", encoding="utf-8")
    assert notebooks.main([str(path)]) == 1
    assert "no.ipynb" in capsys.readouterr().err


def test_ids_stay_and_are_unique() -> None:
    """An id that is there stays; a missing or repeated one is made from the source."""

    def ids() -> list[str]:
        cells = [new_code_cell("x", id=chosen) for chosen in ("kept", "kept", "gone")]
        notebook = new_notebook()
        notebook.cells = cells
        del cells[2]["id"]
        return [cell.id for cell in notebooks.normalize(notebook).cells]

    first, again = ids(), ids()
    assert first[0] == "kept"
    assert len(set(first)) == 3
    assert first == again

"""Proves that the built book is whole and stands alone, without opening a browser.

It builds with every warning an error, from an empty folder. Every internal link, anchor and asset
exists; nothing is loaded from another host; every picture has a text; every notebook can be
downloaded; answers are folded on the solutions' pages and absent from the exercises'.

    pytest tests/test_book.py

BERTLEARN_BUILT_BOOK=build/en/_build/html in the environment names a book that is built already.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from bertlearn.checks import PROJECTS

bs4 = pytest.importorskip("bs4", reason="Beautiful Soup is in .venv-dev")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import book_pages  # noqa: E402
import book_solutions  # noqa: E402

LOADING = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src"}
LOADING |= {"video": "src", "audio": "src", "embed": "src", "object": "data"}
CSS_LOAD = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s]+)""")


# ---------------------------------------------------------------- reading what was built


@cache
def soup(page: Path) -> bs4.BeautifulSoup:
    """A parsed page."""
    return bs4.BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(page: Path) -> frozenset[str]:
    """Everything on a page that an address can point at."""
    ids = {tag["id"] for tag in soup(page).find_all(id=True)}
    return frozenset(ids | {tag["name"] for tag in soup(page).find_all("a", attrs={"name": True})})


def html_pages(book: Path) -> list[Path]:
    """All pages, the theme's own files aside."""
    return [p for p in sorted(book.rglob("*.html")) if "_static" not in p.relative_to(book).parts]


def documents() -> list[str]:
    """The documents that the table of contents names, without suffix."""
    contents = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    parts = [chapter["file"] for part in contents.get("parts", []) for chapter in part["chapters"]]
    return [contents["root"], *parts]


def notebooks(folder: str = "") -> list[str]:
    """Those of them that are notebooks, or those in one folder."""
    return [d for d in documents() if (ROOT / f"{d}.ipynb").exists() and d.startswith(folder)]


# ---------------------------------------------------------------- what can be wrong


def broken_targets(book: Path, pages: list[Path]) -> Iterator[str]:
    """Links, anchors and assets inside the book that do not exist."""
    for page in pages:
        for tag in soup(page).find_all(["a", *LOADING]):
            address = tag.get("href") or tag.get(LOADING.get(tag.name, "href"))
            parts = urlsplit(address or "")
            if not address or parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if target.is_dir():
                target /= "index.html"
            where = f"{page.relative_to(book)}: {address}"
            if not target.is_file():
                yield f"{where} does not exist"
            elif parts.fragment and unquote(parts.fragment) not in anchors(target):
                yield f"{where} has no such anchor"


def external_loads(book: Path, pages: list[Path]) -> Iterator[str]:
    """Whatever a page, a script written into it, or a style sheet would fetch from elsewhere."""
    for page in pages:
        for name, attribute in LOADING.items():
            for tag in soup(page).find_all(name, attrs={attribute: True}):
                parts = urlsplit(tag[attribute])
                if parts.netloc or parts.scheme in ("http", "https"):
                    yield f"{page.relative_to(book)}: <{name}> {tag[attribute]}"
        for tag in soup(page).find_all("script", src=False):
            if re.search(r"https?://", tag.get_text()):
                yield f"{page.relative_to(book)}: a script names {tag.get_text()[:80]!r}"
    for sheet in sorted(book.rglob("*.css")):
        for address in CSS_LOAD.findall(sheet.read_text(encoding="utf-8")):
            if urlsplit(address).netloc:
                yield f"{sheet.relative_to(book)}: {address}"


def missing_texts(book: Path, pages: list[Path]) -> Iterator[str]:
    """Pictures in the text whose alternative text is missing, or only a file's name."""
    for page in pages:
        for image in soup(page).select("article img"):
            text = image.get("alt", "").strip()
            if len(text) < 15 or " " not in text or text.endswith((".png", ".svg", ".jpg")):
                yield f"{page.relative_to(book)}: {image.get('src')} is described as {text!r}"


# ---------------------------------------------------------------- the tests


def test_every_document_became_a_page(built_book: Path) -> None:
    """The build left nothing out, and the front door leads to the cover."""
    assert len(documents()) > 3
    missing = [d for d in documents() if not (built_book / f"{d}.html").is_file()]
    assert not missing
    assert documents()[0] in (built_book / "index.html").read_text(encoding="utf-8")


def test_every_notebook_is_in_the_contents() -> None:
    """A chapter, exercise or solution that nobody can find is not published."""
    there = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for folder in ("chapters", "exercises", "solutions")
        for path in (ROOT / folder).glob("*.ipynb")
    }
    assert there == set(notebooks())


def test_links_anchors_and_assets(built_book: Path) -> None:
    """Everything that a page points at inside the book is there."""
    broken = list(broken_targets(built_book, html_pages(built_book)))
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_elsewhere(built_book: Path) -> None:
    """The book can be read with no network at all."""
    loads = list(external_loads(built_book, html_pages(built_book)))
    assert not loads, "\n".join(loads)


def test_math_is_beside_the_pages(built_book: Path) -> None:
    """MathJax and its fonts were copied into the book, and pages with formulas load that copy."""
    mathjax = built_book / "_static" / "mathjax"
    assert (mathjax / "tex-chtml-full.js").is_file()
    assert list((mathjax / "output/chtml/fonts/woff-v2").glob("*.woff"))
    for page in html_pages(built_book):
        if soup(page).select("span.math, div.math"):
            assert soup(page).select('script[src*="_static/mathjax/tex-chtml-full.js"]'), page


def test_every_picture_has_a_text(built_book: Path) -> None:
    """Whoever cannot see a picture is told what it shows."""
    pages = [built_book / f"{document}.html" for document in documents()]
    missing = list(missing_texts(built_book, pages))
    assert not missing, "\n".join(missing)


def test_every_page_has_one_title(built_book: Path) -> None:
    """One heading of the first level in the text, and no two pages of a folder share it."""
    titles: dict[tuple[str, str], str] = {}
    for document in documents():
        headings = soup(built_book / f"{document}.html").select("article h1")
        assert len(headings) == 1, f"{document}: {len(headings)} headings of the first level"
        key = (document.rpartition("/")[0], headings[0].get_text())
        assert titles.setdefault(key, document) == document, f"{document} and {titles[key]}"


def test_chapter_titles_carry_their_numbers(built_book: Path) -> None:
    """04_attention has 04 in its title, the number of its chapter in the whole book."""
    start = {"chapters": "", "exercises": "Exercises ", "solutions": "Solutions "}
    project = {"exercises": "Project ", "solutions": "Solution of project "}
    for document in notebooks():
        folder, name = document.split("/")
        title = soup(built_book / f"{document}.html").select_one("article h1").get_text()
        first = (project if name[:2] in PROJECTS else start)[folder]
        assert title.startswith(f"{first}{name[:2]}"), f"{document}: {title!r}"


def test_every_notebook_can_be_downloaded(built_book: Path) -> None:
    """The button on its page gives the very file of the repository."""
    for document in notebooks():
        page = built_book / f"{document}.html"
        links = soup(page).select('a[href$=".ipynb"][download]')
        assert len(links) == 1, f"{document}: {len(links)} links to download"
        copied = (page.parent / unquote(links[0]["href"])).resolve().read_bytes()
        assert copied == (ROOT / f"{document}.ipynb").read_bytes(), document


def answer_cells(document: str) -> list[dict]:
    """The cells of a master that hold an answer."""
    notebook = json.loads((ROOT / f"{document}.ipynb").read_text(encoding="utf-8"))
    return [c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("solution")]


def squeezed(text: str) -> str:
    """A text without white space, to find code in highlighted HTML."""
    return re.sub(r"\s+", "", text)


def test_answers_are_folded(built_book: Path) -> None:
    """On a solutions' page each answer stands in a closed fold, and no grading mark is left."""
    for document in notebooks("solutions/"):
        page = soup(built_book / f"{document}.html")
        assert "### BEGIN" not in page.get_text(), document
        assert "### END" not in page.get_text(), document
        folds = [squeezed(fold.get_text()) for fold in page.select("details:not([open])")]
        for cell in answer_cells(document):
            answer = squeezed(book_solutions.clean("".join(cell["source"])))
            assert any(answer in fold for fold in folds), f"{document}: {cell['source'][:2]}"


def test_exercises_do_not_show_answers(built_book: Path) -> None:
    """What stands between the marks of a master is nowhere on the page of its exercise."""
    inside = re.compile(r"### BEGIN SOLUTION[^\n]*\n(.*?)[ \t]*### END SOLUTION", re.DOTALL)
    for document in notebooks("solutions/"):
        name = document.removeprefix("solutions/")
        shown = squeezed(soup(built_book / "exercises" / f"{name}.html").get_text())
        for cell in answer_cells(document):
            for answer in inside.findall("".join(cell["source"])):
                assert squeezed(answer) not in shown, f"exercises/{name} shows: {answer}"


# ---------------------------------------------------------------- the tools themselves


def test_clean_removes_marks_and_hidden_tests() -> None:
    """Answers stay, marks and hidden tests go."""
    source = (
        "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n"
        "### BEGIN HIDDEN TESTS\nassert f() == 1\n### END HIDDEN TESTS\n"
    )
    assert book_solutions.clean(source) == "def f():\n    return 1"


def test_fold_answers_folds_only_answers() -> None:
    """The cell with an answer is tagged once; tests and prose are not."""
    answer = {"cell_type": "code", "metadata": {"nbgrader": {"solution": True}}, "source": "x = 1"}
    check = {"cell_type": "code", "metadata": {"nbgrader": {"solution": False}}, "source": ["x"]}
    prose = {"cell_type": "markdown", "metadata": {}, "source": "# Exercises 04: Attention\n\nText"}
    notebook = {"cells": [answer, check, prose]}
    book_solutions.fold_answers(book_solutions.fold_answers(notebook))
    assert answer["metadata"]["tags"] == ["hide-input"]
    assert answer["metadata"]["mystnb"]["code_prompt_show"] == "Show the answer"
    assert "tags" not in check["metadata"]
    assert prose["source"] == "# Solutions 04: Attention\n\nText"


def test_touch_up() -> None:
    """Hints to preload go, the link to a notebook downloads, all else stays."""
    html = (
        '<link rel="preload" as="font" href="a.woff2" />\n<link rel="stylesheet" href="a.css" />\n'
        '<a href="../_sources/chapters/04_attention.ipynb" target="_blank" class="b">'
    )
    assert book_pages.touch_up(html) == (
        '<link rel="stylesheet" href="a.css" />\n'
        '<a href="../_sources/chapters/04_attention.ipynb" download class="b">'
    )


def test_the_checks_find_faults(tmp_path: Path) -> None:
    """A page with each fault is reported for each: these tests can fail."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<article><a href="gone.html">x</a><a href="#nowhere">x</a><img src="plot.png" alt="a.png">'
        '<script src="https://example.invalid/a.js"></script>'
        "<script>fetch('https://example.invalid')</script></article>",
        encoding="utf-8",
    )
    (tmp_path / "bad.css").write_text('@import "https://example.invalid/a.css";', encoding="utf-8")
    assert len(list(broken_targets(tmp_path, [page]))) == 3
    assert len(list(external_loads(tmp_path, [page]))) == 3
    assert len(list(missing_texts(tmp_path, [page]))) == 1

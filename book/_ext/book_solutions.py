"""Solutions in the book: answers folded, and none of the marks that the grading tools need.

The masters in solutions/ carry nbgrader's marks. On their pages

- `### BEGIN SOLUTION` and `### END SOLUTION` disappear, the answer between them stays;
- what stands between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS` disappears altogether;
- each answer cell is folded: a reader sees it when asking for it;
- the title says "Solutions" where the master, from which the exercise is made, says "Exercises",
  and "Solution of project" where it says "Project".

The files themselves stay as they are; only what Sphinx reads is changed.
"""

from __future__ import annotations

import json
import re

from sphinx.application import Sphinx

FOLDED = "hide-input"
LABELS = {"code_prompt_show": "Show the answer", "code_prompt_hide": "Hide the answer"}
MARK = re.compile(r"^[ \t]*### (?:BEGIN|END) SOLUTION[^\n]*\n?", re.MULTILINE)
TITLES = {"# Exercises ": "# Solutions ", "# Project ": "# Solution of project "}
TITLE = re.compile(f"^(?:{'|'.join(TITLES)})", re.MULTILINE)
HIDDEN = re.compile(
    r"^[ \t]*### BEGIN HIDDEN TESTS.*?^[ \t]*### END HIDDEN TESTS[^\n]*\n?",
    re.MULTILINE | re.DOTALL,
)


def clean(source: str) -> str:
    """The source of one code cell without marks and hidden tests."""
    return MARK.sub("", HIDDEN.sub("", source)).rstrip("\n")


def fold_answers(notebook: dict) -> dict:
    """The notebook as its page shows it (changed in place and returned)."""
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            source = "".join(cell["source"])
            cell["source"] = TITLE.sub(lambda found: TITLES[found[0]], source)
            continue
        cell["source"] = clean("".join(cell["source"]))
        if cell["metadata"].get("nbgrader", {}).get("solution"):
            tags = cell["metadata"].setdefault("tags", [])
            if FOLDED not in tags:
                tags.append(FOLDED)
            cell["metadata"].setdefault("mystnb", {}).update(LABELS)
    return notebook


def on_source_read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Sphinx's `source-read`: change what is parsed, for solutions only."""
    if docname.startswith("solutions/"):
        source[0] = json.dumps(fold_answers(json.loads(source[0])), ensure_ascii=False)


def setup(app: Sphinx) -> dict[str, object]:
    """Register the extension with Sphinx."""
    app.connect("source-read", on_source_read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

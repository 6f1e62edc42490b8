"""An exercise as a plain script: cells begin at ``# %%``, as VS Code, Spyder and jupytext have it.

The metadata of the notebook are comments at the top, in jupytext's form. An answer's cell carries
the id of its question as its title, so that its stub can be brought back.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["from_script", "to_script"]

MARK = re.compile(r"^# ?%%(?!%)[ \t]*(.*)$")
OWN = re.compile(r"^#\s+(exercise|given): *\"?([\w ]*?)\"?\s*$")
TITLE = re.compile(r"^(\d\d)[._](\w+)")


def from_script(text: str) -> dict[str, Any]:
    """The text of a script as a notebook's content."""
    head: list[str] = []
    cells: list[tuple[str, list[str]]] = [("", head)]
    for line in text.splitlines():
        if mark := MARK.match(line):
            cells.append((mark[1], []))
        else:
            cells[-1][1].append(line)
    own = {found[1]: found[2] for line in head if (found := OWN.match(line))}
    comments = all(line.startswith("#") or not line.strip() for line in head)
    made = [_cell(title, lines) for title, lines in cells[comments:]]
    return {
        "cells": [cell for cell in made if cell["source"].strip()],
        "metadata": {"bertlearn": own} if own else {},
        "head": "\n".join(head).strip() if comments else "",
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cell(title: str, lines: list[str]) -> dict[str, Any]:
    text = "\n".join(lines).strip("\n")
    metadata: dict[str, Any] = {"title": title} if title else {}
    if "[markdown]" in title or "[md]" in title or "[raw]" in title:
        kind = "raw" if "[raw]" in title else "markdown"
        text = "\n".join(re.sub(r"^# ?", "", line) for line in text.split("\n"))
        return {"cell_type": kind, "metadata": metadata, "source": text.strip("\n")}
    if found := TITLE.match(title):
        metadata["nbgrader"] = {"grade_id": f"{found[1]}_{found[2]}", "solution": True}
    code = {"cell_type": "code", "metadata": metadata, "source": text.rstrip()}
    return {**code, "outputs": [], "execution_count": None}


def to_script(content: dict[str, Any]) -> str:
    """A notebook's content as the text of a script."""
    own = content.get("metadata", {}).get("bertlearn", {})
    parts = [_head(content.get("head", ""), own)]
    for cell in content["cells"]:
        source = cell["source"]
        text = (source if isinstance(source, str) else "".join(source)).strip("\n")
        if cell["cell_type"] == "code":
            parts.append(f"# %%{_title(cell)}\n{text}")
        else:
            lines = [f"# {line}".rstrip() for line in text.split("\n")]
            parts.append(f"# %%{_title(cell)}\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _head(head: str, own: dict[str, Any]) -> str:
    """The comments at the top: those that were there, or jupytext's, with our metadata."""
    lines = [f"#     {name}: {json.dumps(own[name])}" for name in own]
    kept = [line for line in head.splitlines() if not OWN.match(line)]
    marks = [number for number, line in enumerate(kept) if line.split() == ["#", "bertlearn:"]]
    if marks:
        return "\n".join([*kept[: marks[0] + 1], *lines, *kept[marks[0] + 1 :]])
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    made = ["# ---", "# jupyter:", "#   bertlearn:", *lines, "#   kernelspec:"]
    made += [f"#     {name}: {value}" for name, value in kernel.items()]
    return "\n".join([*made, "# ---", *kept])


def _title(cell: dict[str, Any]) -> str:
    metadata = cell.get("metadata", {})
    grader = metadata.get("nbgrader", {})
    if "title" in metadata:
        return f" {metadata['title']}"
    if cell["cell_type"] != "code":
        return f" [{cell['cell_type']}]"
    if not grader.get("solution"):
        return ""
    return " " + re.sub(r"^(\d\d)_", r"\1.", str(grader.get("grade_id", "")))

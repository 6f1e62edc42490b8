"""Make book/common_mistakes.md from the known-wrong implementations: python -m tests.known_wrong"""

from __future__ import annotations

import re
from pathlib import Path

from bertlearn import checks
from bertlearn.checks.core import Check
from tests.known_wrong import Wrong, load

PAGE = Path(__file__).resolve().parents[2] / "book" / "common_mistakes.md"
HEAD = """# Common mistakes

Wrong answers that the checks of this book know, and what they say to each. Every line is a
program: it is run, is refused, and is told what stands here, each time that the book is tested.
Read a chapter's part after its exercises, or when a message is not clear to you.

% Made from tests/known_wrong by `make mistakes`. Do not edit.
"""


def render() -> str:
    """The page."""
    wrong = load()
    parts = [HEAD]
    for chapter in checks.CHAPTERS:
        known = checks.load(chapter)
        kind = "Project" if chapter in checks.PROJECTS else "Chapter"
        parts.append(f"## {kind} {chapter}\n")
        for check in known.values():
            if entries := wrong.get(check.id):
                title = check.title[0].upper() + check.title[1:]
                parts.append(f"### {title}\n")
                parts.append("".join(_entry(check, one) for one in entries).rstrip() + "\n")
    return "\n".join(parts)


def _entry(check: Check, wrong: Wrong) -> str:
    result = checks.run(check, wrong.all)
    said = next(case.message for case in result.cases if wrong.fragment in case.message)
    for varies in (r"(?<=raised )(\w+): .*", r", by up to \S+"):  # with Python and processor
        said = re.sub(varies, lambda found: found[1] if found.lastindex else "", said)
    return f"{_plain(wrong.name[0].upper() + wrong.name[1:])}\n: \u201c{_plain(said)}\u201d\n\n"


def _plain(text: str) -> str:
    """Text in which nothing is markup."""
    for mark in "\\`*_[]{}<>$|~":
        text = text.replace(mark, f"\\{mark}")
    return text


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8", newline="\n")
    print(PAGE)

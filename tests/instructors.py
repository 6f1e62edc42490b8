"""Make the tables of book/instructors.md again: python -m tests.instructors

The weeks are made from the checks, the comparison of graders from its record. Each table stands
between a line ``% table: NAME`` and a line ``% end``.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

from bertlearn.grading.judge import questions

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "instructors.md"
RECORDS = ROOT / "book" / "records" / "grading"
TABLE = re.compile(r"(?<=^% table: )(?P<name>[\w ]+)\n(?P<body>.*?)(?=^% end$)", re.M | re.S)

# The exercises of each week; those of 91 and above are projects.
EIGHT = ("02", "03", "04", "05", "06 91", "08", "09 92", "10 93")
FOURTEEN = ("02", "03", "04", "05", "91", "06", "07", "08", "92", "09", "10", "11", "93")

OUTCOMES = {
    "false pass": "gave points for nothing",
    "honest points lost": "took honest points away",
    "hangs": "hung",
    "leaves a process": "left a process running",
}


def weeks(plan: tuple[str, ...]) -> str:
    """What is due in which week."""
    lines = [
        "| week | chapter | points | minutes | questions |",
        "|-----:|---------|-------:|--------:|----------:|",
    ]
    sums = [0.0, 0, 0]
    due = [(week, one) for week, numbers in enumerate(plan, start=1) for one in numbers.split()]
    for week, number in due:
        asked = questions(number)
        figures = sum(c.points for c in asked), sum(c.minutes for c in asked), len(asked)
        sums = [total + figure for total, figure in zip(sums, figures, strict=True)]
        cells = [f"{figure:g}" for figure in figures]
        lines.append(f"| {week} | {_links(number)} | {' | '.join(cells)} |")
    lines.append(f"| | **in all** | {' | '.join(f'**{total:g}**' for total in sums)} |")
    return "\n".join(lines) + "\n"


def _links(number: str) -> str:
    """Links to a chapter and to its exercise, or to a project, by what they are called."""
    (exercise,) = (ROOT / "exercises").glob(f"{number}_*.ipynb")
    found = list((ROOT / "chapters").glob(f"{number}_*.ipynb"))
    if not found:
        return f"[{_title(exercise)}](../exercises/{exercise.name})"
    chapter = f"[{_title(found[0])}](../chapters/{found[0].name})"
    return f"{chapter}, [exercise](../exercises/{exercise.name})"


def _title(path: Path) -> str:
    """The first heading of a notebook."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        heading = re.search(r"^# (.+)$", "".join(cell["source"]), re.M)
        if cell["cell_type"] == "markdown" and heading:
            return heading[1].strip()
    raise ValueError(f"{path} has no title")


def graders() -> str:
    """The comparison of graders."""
    record = json.loads((RECORDS / "compare.json").read_text(encoding="utf-8"))
    found, versions = record["summary"], record["versions"]
    names = list(found)
    titles = {
        "bertlearn": "`bertlearn grade`",
        "nbgrader": f"nbgrader {versions['nbgrader']}",
        "otter": f"otter {versions['otter-grader']}",
    }
    lines = [
        "| | " + " | ".join(titles[name] for name in names) + " |",
        "|---|" + "---|" * len(names),
    ]

    def row(title: str, cells: list[str]) -> None:
        lines.append(f"| {title} | {' | '.join(cells)} |")

    row("seconds for one notebook", [f"{found[name]['wall']:.1f}" for name in names])
    row("processor seconds for it", [f"{found[name]['cpu']:.1f}" for name in names])
    for kind, title in (
        ("attack", "attacks held"),
        ("honest", "honest work with an accident, points kept"),
        ("wrong", "wrong answers refused, and only they"),
    ):
        row(title, [f"{found[n][kind]['held']} of {found[n][kind]['of']}" for n in names])
        for outcome, said in OUTCOMES.items():
            counts = [found[name][kind].get(outcome, 0) for name in names]
            if any(counts):
                row(f"... {said}", [str(count) if count else "-" for count in counts])
    return "\n".join(lines) + "\n"


def speed() -> str:
    """What sixty submissions took, in a sentence or two."""
    record = json.loads((RECORDS / "sixty.json").read_text(encoding="utf-8"))
    each, machine = record["seconds each, after the first of each judge"], record["machine"]
    said = (
        f"{record['submissions']} submissions of exercise 04 (partly answered, wrong, attacks, one "
        f"loop that never ends, one that is no notebook) took {record['judges']} judges "
        f"{record['wall']:.0f} seconds on {machine['processors']} processors. One notebook kept "
        f"its judge {each['median']:.1f} seconds, the median after the first of each, and nine in "
        f"ten less than {each['nine in ten under']:.1f}."
    )
    if machine["load before"] > machine["processors"] / 2:
        used = record["processor seconds in all"] / record["submissions"]
        said += (
            f" The machine was busy with other work, its load was {machine['load before']:.1f} "
            f"before the run began; of processor time a notebook took {used:.1f} seconds, the "
            f"start of the judges included."
        )
    return said + "\n"


def messages() -> str:
    """What a learner reads about the same wrong answer."""
    record = json.loads((RECORDS / "compare.json").read_text(encoding="utf-8"))
    rows = [row for row in record["rows"] if row["kind"] == "wrong"]
    first = [row for row in rows if row["work"] == rows[0]["work"]]
    parts = []
    for row in first:
        read = [line.rstrip() for line in row["read"].strip().split("\n")]
        read = [line for line in read if line]
        shown = "\n".join(part for line in read[-8:] for part in _wrapped(line))
        parts.append(f"{row['grader']}:\n\n```text\n{shown}\n```\n")
    return "\n".join(parts)


def _wrapped(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line, 76, subsequent_indent=f"{indent}  ", break_on_hyphens=False)


def tables() -> dict[str, str]:
    """All tables by name."""
    return {
        "eight weeks": weeks(EIGHT),
        "fourteen weeks": weeks(FOURTEEN),
        "graders": graders(),
        "messages": messages(),
        "speed": speed(),
    }


def render(page: str) -> str:
    """The page with its tables made again."""
    made = tables()
    names = [found["name"] for found in TABLE.finditer(page)]
    assert sorted(names) == sorted(made), f"the page has the tables {names}"
    return TABLE.sub(lambda found: f"{found['name']}\n\n{made[found['name']]}\n", page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    print(PAGE)

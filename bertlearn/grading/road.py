"""The exercises as a learner meets them: their questions, and the copies that are worked on.

Everything here reads notebooks as text, without torch, so that the commands that only tell
something answer at once.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlearn.grading.errors import ExerciseError, NotebookError

__all__ = [
    "Exercise",
    "QuestionText",
    "defined",
    "definitions",
    "exercises",
    "find_copy",
    "find_exercise",
    "find_exercises",
    "find_named",
    "find_question",
    "fingerprint",
    "newest_copy",
    "source_of",
]

HOME = Path(__file__).resolve().parents[2]  # the repository, if the package lies in one
HINT = re.compile(r"^:::\{dropdown\} *(.*?)\n(.*?)^:::[ \t]*$", re.M | re.S)
FACTS = re.compile(r"^\*Difficulty (\d) of 5, about (\d+) minutes?, ([\d.]+) points?\.\*", re.M)


@dataclass(frozen=True)
class QuestionText:
    """One question as the exercise asks it.

    Attributes:
        id: of its check, "04.causal_mask".
        title: its heading.
        points, difficulty, minutes: as the exercise says.
        hints: title and text of each, the gentlest first.
        stub: the cell that waits for the answer.
        check: the cell that asks for the verdict.
    """

    id: str
    title: str
    points: float
    difficulty: int
    minutes: int
    hints: tuple[tuple[str, str], ...]
    stub: dict[str, Any]
    check: dict[str, Any]

    @property
    def names(self) -> set[str]:
        """What the stub defines."""
        return defined(source_of(self.stub))


@dataclass(frozen=True)
class Exercise:
    """A chapter's exercise as it is handed out.

    Attributes:
        path: in exercises/.
        number: "04".
        content: the notebook.
        questions: in their order.
    """

    path: Path
    number: str
    content: dict[str, Any]
    questions: tuple[QuestionText, ...]

    @property
    def given(self) -> str:
        """Fingerprints of all cells, which tell this version from another; "" in a draft."""
        return str(self.content["metadata"].get("bertlearn", {}).get("given", ""))


# ---- the exercises ----------------------------------------------------------------------
def find_exercises(start_from: Path | None = None) -> Path:
    """The nearest folder that holds exercises/, here or above, else where the package lies.

    Raises:
        ExerciseError: if there is none.
    """
    here = (start_from or Path.cwd()).resolve()
    places = [here, *here.parents, HOME]
    for place in places:
        if any((place / "exercises").glob("[0-9][0-9]_*.ipynb")):
            return place
    raise ExerciseError(
        "there is no folder exercises/ here or above: run this inside the book's repository, or "
        "download the exercise from its page in the book"
    )


def exercises(root: Path) -> dict[str, Path]:
    """The exercises of a repository by their numbers, in the order of the book."""
    found = {file.name[:2]: file for file in sorted((root / "exercises").glob("[0-9]*.ipynb"))}
    contents = root / "book" / "_toc.yml"
    if contents.is_file():
        told = re.findall(r"\bexercises/(\d\d)_", contents.read_text(encoding="utf-8"))
        found = {number: found[number] for number in [*told, *found] if number in found}
    return found


def find_exercise(root: Path, chapter: str) -> Exercise:
    """One exercise.

    Args:
        chapter: "04", "4", "attention" or "04_attention".

    Raises:
        ExerciseError: if there is none; says which there are.
    """
    found = exercises(root)
    topics = {path.stem[3:]: number for number, path in found.items()}
    wanted = chapter.zfill(2) if re.fullmatch(r"\d{1,2}", chapter) else chapter[:2]
    wanted = topics.get(chapter, wanted)
    stem = found[wanted].stem if wanted in found else ""
    if not stem or Path(chapter).stem not in (wanted, wanted[1:], stem, stem[3:]):
        raise ExerciseError(f"there is no exercise {chapter}: choose one of {', '.join(found)}")
    return _read(found[wanted])


def find_named(root: Path, name: str) -> Exercise | None:
    """The exercise that a name is of, as in `find_exercise`; None if it is of none, as that of a
    question ("04.causal_mask")."""
    if Path(name).suffix not in ("", ".ipynb", ".py"):
        return None
    try:
        return find_exercise(root, name)
    except ExerciseError:
        return None


def _read(path: Path) -> Exercise:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Exercise(path, path.name[:2], content, tuple(_questions(content["cells"])))
    except (KeyError, TypeError, ValueError) as error:
        raise ExerciseError(
            f"{path} is damaged ({error}): bring it back with git checkout exercises"
        ) from None


def _questions(cells: list[dict[str, Any]]) -> list[QuestionText]:
    found = []
    text, stubs = "", []
    for cell in cells:
        grader = cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] == "markdown":
            text += "\n" + source_of(cell)
        elif grader.get("solution"):
            stubs.append(cell)
        elif grader.get("grade") and stubs:
            number = re.sub(r"^check_(\d\d)_", r"\1.", grader["grade_id"])
            found.append(_question(number, text, stubs[-1], cell))
            text, stubs = "", []
    return found


def _question(number: str, text: str, stub: dict[str, Any], check: dict[str, Any]) -> QuestionText:
    headings = re.findall(r"^##? +(.*)$", text, re.M)
    facts = FACTS.search(text)
    return QuestionText(
        number,
        headings[-1] if headings else number,
        check["metadata"]["nbgrader"]["points"],
        int(facts[1]) if facts else 0,
        int(facts[2]) if facts else 0,
        tuple((title.strip(), hint.strip()) for title, hint in HINT.findall(text)),
        stub,
        check,
    )


def find_question(root: Path, name: str) -> tuple[Exercise, QuestionText]:
    """A question by its id, "04.causal_mask", or by its name alone where that is unique, or by its
    exercise ("91") if that has one only.

    Raises:
        ExerciseError: if there is none or more than one; says which may be meant.
    """
    if named := find_named(root, name.strip()):
        if len(named.questions) == 1:
            return named, named.questions[0]
        ids = ", ".join(question.id for question in named.questions)
        raise ExerciseError(f"{name} is an exercise: say which question, one of {ids}")
    wanted = re.sub(r"^(?:check_)?(\d\d)[_.](?=\w)", r"\1.", name.strip())
    if re.match(r"\d\.(?=\w)", wanted):
        wanted = "0" + wanted
    chapters = [wanted[:2]] if re.match(r"\d\d\.", wanted) else list(exercises(root))
    known = {q.id: (e, q) for e in (find_exercise(root, c) for c in chapters) for q in e.questions}
    fits = [one for one in known if wanted in (one, one[3:]) or wanted in known[one][1].names]
    if len(fits) == 1:
        return known[fits[0]]
    if fits:
        raise ExerciseError(f"{name} is asked more than once: say which, {' or '.join(fits)}")
    names = {**{one[3:]: one for one in known}, **{one: one for one in known}}
    close = difflib.get_close_matches(wanted, names, 3, 0.6)
    near = dict.fromkeys(names[one] for one in close)
    if near:
        what = f"did you mean {' or '.join(near)}?"
    elif len(chapters) == 1:
        what = f"there are {', '.join(known)}"
    else:
        what = f"name it with its chapter, as in {next(iter(known), '04.causal_mask')}"
    raise ExerciseError(f"there is no question {name}: {what}")


# ---- cells ------------------------------------------------------------------------------
def source_of(cell: dict[str, Any]) -> str:
    """A cell's text, with the line ends of this program."""
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    return source.replace("\r\n", "\n") if isinstance(source, str) else ""


def defined(source: str) -> set[str]:
    """Names that a cell's text defines at its top; empty if it does not parse."""
    return set(definitions(source))


def definitions(source: str) -> dict[str, ast.AST]:
    """The definitions at the top of a cell's text, by name."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, ast.AST] = {}
    for one in body:
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[one.name] = one
        elif isinstance(one, (ast.Assign, ast.AnnAssign)):
            targets = one.targets if isinstance(one, ast.Assign) else [one.target]
            found |= {target.id: one for target in targets if isinstance(target, ast.Name)}
    return found


def fingerprint(source: str) -> str:
    """Six characters that stand for a cell's text, blanks at the ends of lines aside."""
    text = "\n".join(line.rstrip() for line in source.strip().splitlines())
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:6]


# ---- the copies -------------------------------------------------------------------------
def find_copy(root: Path, chapter: str) -> Path:
    """A learner's copy of an exercise in my/: that which was saved last, whatever its name.

    Raises:
        ExerciseError: if there is none; says how to get one.
    """
    found = [file for file in _files(root / "my") if _chapter_of(file) == chapter]
    if not found:
        raise ExerciseError(f"my/ holds no exercise {chapter} yet: bertlearn start {chapter}")
    return max(found, key=lambda file: file.stat().st_mtime_ns)


def newest_copy(root: Path) -> Path:
    """The exercise in my/ that was saved last.

    Raises:
        ExerciseError: if there is none; says how to get one.
    """
    found = [file for file in _files(root / "my") if _chapter_of(file)]
    if not found:
        raise ExerciseError("my/ holds no exercise yet: bertlearn start lists what there is")
    return max(found, key=lambda file: file.stat().st_mtime_ns)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [f for f in sorted(folder.iterdir()) if f.suffix in (".ipynb", ".py") and f.is_file()]


def _chapter_of(path: Path) -> str:
    """Which exercise a file in my/ is: by its name where that says it, else by what is in it."""
    from bertlearn.grading import notebook

    if named := re.match(r"(\d\d)_", path.name):
        return named[1]
    try:
        return notebook.read(path).exercise
    except NotebookError:
        return ""

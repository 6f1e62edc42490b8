"""A course for nbgrader: its folder, with an assignment for each exercise."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from bertlearn.grading.errors import ExerciseError
from bertlearn.grading.road import find_exercises

__all__ = ["make"]

CONFIG = '''"""Settings of the course {name}. nbgrader reads them when it is run in this folder.

The notebooks in source/ are the book's masters, solutions and all: hand out what
`nbgrader generate_assignment` makes of them, and nothing else.
"""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "{name}"

# Our judge in place of a kernel, and what puts honest work right before it.
from bertlearn.grading.nbgrader_plugin import configure  # noqa: E402

configure(c)

# The folder that learners and instructors share. It must exist, and all must be able to write.
# c.Exchange.root = "/srv/nbgrader/exchange"
'''


def make(target: Path, start_from: Path | None = None) -> list[str]:
    """Make a folder for a course: nbgrader's settings, and the masters as its source.

    Args:
        target: the folder; it must not be there, or be empty. Its name is the course's.

    Returns:
        the names of the assignments.

    Raises:
        ExerciseError: if the name will not do, or there are no masters to be found.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", target.name):
        raise ExerciseError(
            f"a course cannot be called {target.name!r}: nbgrader allows letters, digits, - and _"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExerciseError(f"{target} is there already: give a name that is free")
    if not target.absolute().parent.is_dir():
        raise ExerciseError(f"there is no folder {target.parent}: make it first")
    masters = sorted((find_exercises(start_from) / "solutions").glob("[0-9][0-9]_*.ipynb"))
    if not masters:
        raise ExerciseError(
            "there is no folder solutions/ beside exercises/: the masters are missing"
        )
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".course-") as draft:
        course = Path(draft, target.name)
        for master in masters:
            folder = course / "source" / master.stem
            folder.mkdir(parents=True)
            shutil.copyfile(master, folder / master.name)
        text = CONFIG.format(name=target.name)
        (course / "nbgrader_config.py").write_text(text, encoding="utf-8")
        if target.exists():
            target.rmdir()
        course.rename(target)
    return [master.stem for master in masters]

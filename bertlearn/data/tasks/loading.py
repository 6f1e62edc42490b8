"""Tasks by name, or from a file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path

from bertlearn.data.errors import DataError
from bertlearn.data.tasks import book, files, hub
from bertlearn.data.tasks.records import Task

__all__ = ["BOOK_TASKS", "HUB_TASKS", "load_task"]

BOOK_TASKS: dict[str, Callable[[], Task]] = {
    "rotten-tomatoes": book.rotten_tomatoes,
    "reviews-zh": book.reviews_zh,
    "wiki-pairs": book.wiki_pairs,
    "pfr-ner": book.pfr_ner,
    "wiki-qa": book.wiki_qa,
}
HUB_TASKS = tuple(hub.HUB)


def load_task(what: str | Path, columns: Mapping[str, str] | None = None) -> Task:
    """A task by its name, or from a file or folder of one's own.

    Args:
        what: one of ``BOOK_TASKS`` or ``HUB_TASKS``, or a path (see `bertlearn.data.tasks.files`).
        columns: of a file, where they have other names.

    Raises:
        DataError: if there is no such task, or its data are missing or broken.
        SourceError: if a source of the book cannot be had.
    """
    if what in BOOK_TASKS:
        return BOOK_TASKS[str(what)]()
    if what in HUB_TASKS:
        return hub.load_from_hub(str(what))
    path = Path(what).expanduser()
    if path.is_dir() or path.suffix in files.SUFFIXES:
        return files.load_from_files(path, columns)
    names = (*BOOK_TASKS, *HUB_TASKS)
    near = difflib.get_close_matches(str(what), names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise DataError(
        f"There is no task and no file named {str(what)!r}; the tasks are {', '.join(names)}, or "
        f"a file .csv, .tsv or .jsonl of your own.{hint}"
    )

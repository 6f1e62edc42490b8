"""Tasks to fine-tune on: labeled records in three splits, by name.

    from bertlearn.data.tasks import load_task
    task = load_task("rotten-tomatoes")
    task.train[0].text, task.train[0].label

The book's tasks (`book`) need no network once their source is here; the field's usual ones (`hub`)
come through the library `datasets`; any file of one's own is a task, too (`files`).
"""

from __future__ import annotations

from bertlearn.data.tasks.loading import BOOK_TASKS, HUB_TASKS, load_task
from bertlearn.data.tasks.records import Classified, Question, Record, Tagged, Task

__all__ = [
    "BOOK_TASKS",
    "HUB_TASKS",
    "Classified",
    "Question",
    "Record",
    "Tagged",
    "Task",
    "load_task",
]

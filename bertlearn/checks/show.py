"""A result in a notebook (a small table) or a terminal (plain text)."""

from __future__ import annotations

import html
import sys
from typing import Any

from bertlearn.checks.core import Result

__all__ = ["as_html", "show"]


def show(result: Result) -> None:
    """Display in a notebook, print elsewhere."""
    if "IPython" in sys.modules:
        from IPython import get_ipython

        if getattr(get_ipython(), "kernel", None) is not None:
            from IPython.display import display

            display({"text/plain": result.text(), "text/html": as_html(result)}, raw=True)
            return
    print(result.text())


def as_html(result: Result) -> str:
    """The table; every piece of text in it is escaped, since code under test may have made it."""
    rows = "".join(_row(case) for case in result.cases)
    done = "all points" if result.ok else "not yet"
    score = f"{result.points:g} of {result.max:g} points"
    reminder = ""
    if not result.ok and result.check.reminder:
        reminder = f"<p>{html.escape(result.check.reminder)}</p>"
    return (
        f'<div class="bertlearn-check"><p><strong>{html.escape(result.check.id)}</strong>: '
        f"{score} ({done})</p><table><tbody>{rows}</tbody></table>{reminder}</div>"
    )


def _row(case: Any) -> str:
    cells = [f"<strong>{'ok' if case.ok else 'fails'}</strong>", html.escape(case.title)]
    said = html.escape(case.message)
    if case.expected or case.got:
        said += (
            f"<br>expected <code>{html.escape(case.expected)}</code>"
            f"<br>got <code>{html.escape(case.got)}</code>"
        )
    points = f"{case.points:g} / {case.max:g}" if case.max else ""
    cells += [points, said]
    return "<tr>" + "".join(f'<td style="text-align:left">{c}</td>' for c in cells) + "</tr>"

"""A graded notebook as a page for the person who wrote it: one file that loads nothing.

Whatever a learner's code may have made is escaped, and the page forbids scripts besides.
"""

from __future__ import annotations

import html
from typing import Any

from bertlearn.grading.report import Question, Report, clean

__all__ = ["page"]

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0;
  --paper: #fff; --card: #f6f8fa; --good: #1a7f37; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b1; --line: #3d444d;
  --paper: #0d1117; --card: #151b23; --good: #57c878; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 46rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 0; }
.sum { font-size: 1.15rem; margin: 0 0 .75rem; }
meter { width: 100%; height: .9rem; }
header { margin-bottom: 1.5rem; }
section { border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem;
  margin: .7rem 0; background: var(--card); }
.top { display: flex; gap: 1rem; justify-content: space-between; align-items: baseline; }
.points { white-space: nowrap; font-weight: 600; }
.full { color: var(--good); } .less { color: var(--bad); }
.id, footer, dt { color: var(--soft); } .id { font-size: .85rem; }
ul { list-style: none; margin: .6rem 0 0; padding: 0; }
li { margin: .45rem 0; }
li.part { padding-left: 1.5rem; position: relative; }
li.part > b:first-child { position: absolute; left: 0; }
section p { margin: .4rem 0 .1rem; } li p { margin: .1rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: .3rem 0 0;
  font-size: .9rem; }
dd { margin: 0; } dd, code { font-family: ui-monospace, monospace; }
code { font-size: .9em; }
footer { font-size: .85rem; margin-top: 1.5rem; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>{style}</style></head><body>
<header><h1>{title}</h1>{head}</header>
<main>
{body}
</main>
<footer>{foot}</footer></body></html>
"""


def page(report: Report | None, name: str = "", trouble: str = "") -> str:
    """The page of one notebook.

    Args:
        report: what came out; None if it was not graded.
        name: who handed it in; the notebook's own name if empty.
        trouble: why it was not graded.
    """
    if report is None:
        head = '<p class="sum less">Not graded</p>'
        body = f"<section><p>{_escape(trouble)}</p></section>"
        return _page(name, head, body, "Hand it in again when this is mended.")
    lost = [question for question in report.questions if question.points < question.max]
    score = f"{report.points:g} of {report.max:g} points"
    head = (
        f'<p class="sum">Exercise {_escape(report.exercise)}: <strong>{score}</strong></p>'
        f'<meter min="0" max="{report.max:g}" value="{report.points:g}">{score}</meter>'
    )
    sections = [_section(question) for question in report.questions]
    if report.cells:
        sections.append(_cells(report.cells, bool(lost)))
    foot = (
        f"<p>{_escape(report.notebook)}, seed {report.seed}, {_escape(report.isolation)}.</p>"
        f"<p>The inputs were drawn anew for this grading. "
        f"<code>bertlearn grade NOTEBOOK --seed {report.seed}</code> draws the same again.</p>"
    )
    return _page(name or report.notebook, head, "\n".join(sections), foot)


def _page(title: str, head: str, body: str, foot: str) -> str:
    return PAGE.format(
        policy=POLICY, style=STYLE, title=_escape(title), head=head, body=body, foot=foot
    )


def _section(question: Question) -> str:
    """One question: all of its parts where points are missing, else a line."""
    kind = "full" if question.points == question.max else "less"
    top = (
        f'<div class="top"><h2>{_escape(question.title[:1].upper() + question.title[1:])}</h2>'
        f'<span class="points {kind}">{question.points:g} / {question.max:g}</span></div>'
        f'<div class="id"><code>{_escape(question.id)}</code></div>'
    )
    reason = f"<p>{_escape(question.reason)}</p>" if question.reason else ""
    parts = "" if kind == "full" else "".join(_part(part) for part in question.parts)
    return f"<section>{top}{reason}{f'<ul>{parts}</ul>' if parts else ''}</section>"


def _part(part: dict[str, Any]) -> str:
    if part["ok"]:
        return f'<li class="part"><b class="full">\u2713</b>{_escape(part["title"])}</li>'
    said = f"<strong>{_escape(part['title'])}</strong>"
    said += f"<p>{_escape(part['message'])}</p>" if part["message"] else ""
    pairs = [(name, part[name]) for name in ("expected", "got") if part[name]]
    sides = "".join(f"<dt>{name}</dt><dd>{_escape(value)}</dd>" for name, value in pairs)
    said += f"<dl>{sides}</dl>" if sides else ""
    return f'<li class="part"><b class="less">\u2717</b>{said}</li>'


def _cells(cells: list[tuple[int, str]], lost: bool) -> str:
    hint = "" if lost else " They cost no points."
    rows = "".join(f"<li>cell {number}: {_escape(said)}</li>" for number, said in cells)
    return (
        f"<section><h2>Cells that did not run to their end</h2>"
        f"<p>Counting code cells from 1.{hint}</p><ul>{rows}</ul></section>"
    )


def _escape(text: str) -> str:
    return html.escape(clean(text))

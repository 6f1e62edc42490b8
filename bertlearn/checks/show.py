"""A result in a notebook (a small table, with a picture where that helps) or a terminal (text)."""

from __future__ import annotations

import base64
import html
import sys
from typing import Any

import torch
from torch import Tensor

from bertlearn.checks.core import CaseResult, Result

__all__ = ["as_html", "in_notebook", "show"]

MOST = 24  # rows and columns of a picture


def in_notebook() -> bool:
    """Whether this process is a kernel of Jupyter or VS Code."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def show(result: Result) -> None:
    """Display in a notebook, print elsewhere."""
    if not in_notebook():
        print(result.text())
        return
    from IPython.display import display

    result.shown = True
    display({"text/plain": result.text(), "text/html": as_html(result)}, raw=True)


def as_html(result: Result) -> str:
    """The table; every piece of text in it is escaped, since code under test may have made it."""
    drawn = next((case for case in result.cases if not case.ok and _view(case)), None)
    rows = "".join(_row(case, case is drawn) for case in result.cases)
    done = "all points" if result.ok else "not yet"
    score = f"{result.points:g} of {result.max:g} points"
    reminder = ""
    if not result.ok and result.check.reminder:
        reminder = f"<p>{html.escape(result.check.reminder)}</p>"
    return (
        f'<div class="bertlearn-check"><p><strong>{html.escape(result.check.id)}</strong>: '
        f"{score} ({done})</p><table><tbody>{rows}</tbody></table>{reminder}</div>"
    )


def _row(case: CaseResult, drawn: bool) -> str:
    cells = [f"<strong>{'ok' if case.ok else 'fails'}</strong>", html.escape(case.title)]
    said = html.escape(case.message)
    if case.expected or case.got:
        said += (
            f"<br>expected <code>{html.escape(case.expected)}</code>"
            f"<br>got <code>{html.escape(case.got)}</code>"
        )
    if drawn:
        said += _pictures(case)
    points = f"{case.points:g} / {case.max:g}" if case.max else ""
    cells += [points, said]
    return "<tr>" + "".join(f'<td style="text-align:left">{c}</td>' for c in cells) + "</tr>"


# ---- pictures ---------------------------------------------------------------------------
def _view(case: CaseResult) -> tuple[Tensor, Tensor, str] | None:
    """The matrix in which expected and got differ most, cut to a size that can be seen.

    Returns:
        both, (rows, columns), and where they stand in the whole ("[1, 0]", or ""); None if there
        is nothing to draw.
    """
    if case.picture is None:
        return None
    want, got = (x.double() for x in case.picture)
    if want.shape != got.shape or not 2 <= want.numel() <= 1 << 22:
        return None
    rows, columns = (1, *want.shape)[-2:]
    gaps = (want - got).abs().nan_to_num(torch.inf, torch.inf).view(-1, rows, columns)
    place = int(gaps.amax((1, 2)).argmax())
    row, column = divmod(int(gaps[place].argmax()), columns)
    top = max(0, min(row - MOST // 2, rows - MOST))
    left = max(0, min(column - MOST // 2, columns - MOST))
    window = (place, slice(top, top + MOST), slice(left, left + MOST))
    index: list[int] = []
    for size in reversed(want.shape[:-2]):
        place, at = divmod(place, size)
        index.insert(0, at)
    shown = [str(i) for i in index]
    if rows > MOST or columns > MOST:
        shown += [f"{top}:{top + MOST}" if rows > MOST else ":"] * (want.dim() > 1)
        shown += [f"{left}:{left + MOST}" if columns > MOST else ":"]
    where = f"[{', '.join(shown)}]" if shown else ""
    return want.view_as(gaps)[window], got.view_as(gaps)[window], where


def _pictures(case: CaseResult) -> str:
    """Expected and got as two small maps side by side, on one scale."""
    view = _view(case)
    assert view is not None and case.picture is not None
    from bertlearn import plots

    finite = torch.cat([x[x.isfinite()] for x in view[:2]])
    low, high = (float(x) for x in (finite.min(), finite.max())) if len(finite) else (0.0, 1.0)
    if case.picture[0].dtype == torch.bool:
        low, high = 0.0, 1.0
    elif low < 0:
        low, high = -max(-low, high), max(-low, high)
    told = ""
    for name, matrix in zip(("expected", "got"), view[:2], strict=True):
        shape = " by ".join(str(n) for n in matrix.shape)
        figure = plots.heatmap(
            matrix,
            title=f"{name} {view[2]}".strip(),
            values=matrix.shape[1] <= 6 and case.picture[0].is_floating_point(),
            low=low,
            high=max(high, low + 1e-9),
            hide=~matrix.isfinite(),
            width=3.4,
        )
        png, size = figure._repr_png_()
        alt = f"{name}{view[2] and ' at ' + view[2]}: {shape} numbers as colors, {_range(matrix)}."
        told += (
            f'<img alt="{html.escape(alt)}" width="{size["width"] * 4 // 5}" '
            f'style="display:inline-block;margin:4px" '
            f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        )
    return f'<div style="white-space:nowrap">{told}</div>'


def _range(matrix: Any) -> str:
    """The lowest and highest number in words."""
    finite = matrix[matrix.isfinite()]
    if not len(finite):
        return "none of them finite"
    missing = "" if len(finite) == matrix.numel() else ", some not finite"
    return f"from {finite.min():.3g} to {finite.max():.3g}{missing}"

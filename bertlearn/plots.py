"""Every picture of the book, in one style.

A short guide for authors::

    from bertlearn import plots

    plots.heatmap(matrix, rows, cols, title=...)       a matrix, its numbers in the cells when small
    plots.attention_heads(attentions, tokens, layer)   a grid of small maps, one a head
    plots.attention_arcs(weights, tokens)              one head, as lines between two columns
    plots.similarity_map(matrix)                       position against position
    plots.layer_map(values, tokens, label=)            layer by position, the last layer on top
    plots.curves(x, {"name": y}, xlabel=, ylabel=)     lines, labeled at their ends
    plots.bars(names, values, xlabel=)                 horizontal bars with their values
    plots.histogram({"name": values}, xlabel=)         distributions on common bins
    plots.token_strip(tokens, values)                  colors behind the words of a sentence
    plots.embedding_sum({"word": a, ...}, tokens)      tables as strips, and their sum

* Each function returns a `Figure`. Make it the last expression of a cell and it is shown once, as
  PNG; inside a loop use `display(figure)`. No pyplot: nothing shows twice or is left open.
* Data may be torch tensors (on any device, with or without gradient), numpy arrays or lists.
* Colors: weights (nothing below 0) run from light (0) to dark, signed numbers from blue
  (negative) through white (0) to red. Both survive color blindness.
* Tokens show as they are: `[CLS]`, `##ing`, `$`, `_`, Chinese. Where more tokens come than fit
  (about 30 on a side), the ticks are thinned out. Titles and axis labels may hold `$math$`.
* Words that the pictures themselves add stand in `LABELS`, so that a translation can replace them.
* For a picture of your own: `figure, axes = plots.figure(height=3, columns=2)`, then matplotlib as
  usual; with pyplot, call `plots.use_style()` once before.
* Wrong shapes, and NaN or infinite numbers, raise ValueError. What is meant to be missing (scores
  at minus infinity behind a mask) goes into `heatmap(..., hide=mask)`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import logging
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from cycler import cycler

# The first import on a machine lists its fonts and, if that is slow, says so on stderr:
# not in a notebook.
_font_log = logging.getLogger("matplotlib.font_manager")
_font_log_level = _font_log.level
_font_log.setLevel(logging.ERROR)
import matplotlib as mpl  # noqa: E402
from matplotlib import font_manager  # noqa: E402

_font_log.setLevel(_font_log_level)
from matplotlib import figure as mpl_figure  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_hex, to_rgb  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator  # noqa: E402
from PIL import Image  # noqa: E402

__all__ = [
    "LABELS",
    "PALETTE",
    "Figure",
    "attention_arcs",
    "attention_heads",
    "bars",
    "chinese_font",
    "curves",
    "embedding_sum",
    "figure",
    "heatmap",
    "histogram",
    "layer_map",
    "similarity_map",
    "token_strip",
    "use_style",
]

LABELS = {
    "from": "from (query)",
    "to": "to (key)",
    "weight": "weight",
    "value": "value",
    "layer": "layer",
    "head": "head",
    "position_i": "position i",
    "position_j": "position j",
    "similarity": "cosine",
    "count": "count",
    "density": "density",
    "sum": "sum",
    "dimension": "dimension",
}

INK = "#1f2328"  # text
QUIET = "#57606a"  # text of less weight
LINE = "#8b949e"  # frames and ticks
GRID = "#e3e1da"
PAGE = "#fbfaf7"  # every picture brings its own light page
HIDDEN = "#d9d7d0"  # cells that are masked out

# Okabe and Ito's colors, those first that stand out on a light page; yellow does not: left out.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINESTYLES: tuple[Any, ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

WIDTH = 6.4  # inches; shown 640 pixels wide, and scaled down on a phone
DPI = 150
SMALL = 11  # points, the smallest text

FONT_PACKAGE = "paperang_p2_fonts_cjk"  # carries WenQuanYi Micro Hei (Apache License 2.0)
FONT_FILE = "fonts/wqy-microhei.ttc"
FONT_SHA256 = "2420e8078af796b19a3f6ef13de527a1a91c1e7171eea115926c614ced1009b3"
FONTS = (
    "DejaVu Sans",
    "WenQuanYi Micro Hei",
)  # the second has the Chinese glyphs that the first lacks

STYLE: dict[str, Any] = {
    "font.family": list(FONTS),
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "figure.titlesize": 13,
    "figure.figsize": (WIDTH, 4.0),
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "figure.facecolor": PAGE,
    "axes.facecolor": PAGE,
    "savefig.facecolor": "auto",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.prop_cycle": cycler(color=list(PALETTE)),
    "text.usetex": False,
}

F = TypeVar("F", bound=Callable[..., Any])


# ---- fonts and style ---------------------------------------------------------------------------


@functools.cache
def chinese_font() -> Path:
    """Path of the font file that has the Chinese glyphs.

    It comes from a pinned dependency, whose code is never imported. Raises ModuleNotFoundError
    when that package is missing, ValueError when the file is not the one that the book was made
    with.
    """
    package = importlib.util.find_spec(FONT_PACKAGE)
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            f"The package {FONT_PACKAGE.replace('_', '-')}, which carries the Chinese font, is not "
            "installed: run `pip install -r requirements.txt`."
        )
    path = Path(package.origin).parent / FONT_FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != FONT_SHA256:
        raise ValueError(
            f"The Chinese font {path} is missing or is not the expected file: reinstall the "
            f"package {FONT_PACKAGE.replace('_', '-')} in the version that requirements.txt pins."
        )
    return path


@functools.cache
def _register_fonts() -> None:
    path = str(chinese_font())
    if all(entry.fname != path for entry in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(path)


@functools.cache
def _glyphs() -> tuple[frozenset[int], ...]:
    """The code points that each of the two fonts can draw."""
    latin = font_manager.findfont(FONTS[0], fallback_to_default=False)
    files = (str(latin), str(chinese_font()))
    return tuple(frozenset(font_manager.get_font(file).get_charmap()) for file in files)


def use_style() -> None:
    """Set matplotlib's defaults to the book's style, Chinese font included; twice is once."""
    _register_fonts()
    mpl.rcParams.update(STYLE)  # type: ignore[arg-type]


def _styled(function: F) -> F:
    """Let `function` draw in the book's style and leave matplotlib's defaults as they were."""

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        _register_fonts()
        with mpl.rc_context(STYLE):  # type: ignore[arg-type]
            return function(*args, **kwargs)

    return inner  # type: ignore[return-value]


class Figure(mpl_figure.Figure):
    """A matplotlib figure in the book's style; as the last expression of a cell, it is shown
    once."""

    @_styled
    def draw(self, renderer: Any) -> None:
        super().draw(renderer)

    @_styled
    def savefig(self, fname: Any, **kwargs: Any) -> None:
        super().savefig(fname, **kwargs)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The PNG in 256 colors (a third of the size), and its size on a page in pixels."""
        canvas = FigureCanvasAgg(self)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        file = io.BytesIO()
        few = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
        few.save(file, "PNG", optimize=True)
        width, height = (round(100 * inches) for inches in self.get_size_inches())
        return file.getvalue(), {"width": width, "height": height}


@_styled
def figure(
    height: float = 4.0, *, width: float = WIDTH, rows: int = 1, columns: int = 1, **subplots: Any
) -> tuple[Figure, Any]:
    """An empty `Figure` of the book's style, `height` and `width` in inches, and its Axes.

    The second value is one Axes, or an array of them (rows, columns), squeezed, as
    `matplotlib.pyplot.subplots` gives; `subplots` goes to `Figure.subplots` (`sharex`,
    `width_ratios` ...).
    """
    height = round(height * 50) / 50  # whole pixels
    fig = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, **subplots)


# ---- data at the border ------------------------------------------------------------------------


def _array(
    name: str, data: Any, dimensions: int, *, ignore: np.ndarray | None = None
) -> np.ndarray:
    """`data` as a float array of that many dimensions; ValueError if not, or if empty or not
    finite."""
    if hasattr(data, "detach"):
        data = data.detach().cpu()
        if getattr(data, "is_floating_point", bool)():
            data = data.double()
    try:
        array = np.asarray(data, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be numbers in {dimensions} dimension(s), all rows of one length."
        ) from error
    if array.ndim != dimensions:
        raise ValueError(
            f"{name} must have {dimensions} dimension(s), but its shape is {array.shape}."
        )
    if array.size == 0:
        raise ValueError(f"{name} is empty (shape {array.shape}): there is nothing to draw.")
    bad = ~np.isfinite(array)
    if ignore is not None:
        if ignore.shape != array.shape:
            raise ValueError(f"hide has shape {ignore.shape}, but the matrix {array.shape}.")
        bad &= ~ignore
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} has {int(bad.sum())} value(s) that are NaN or infinite, the first at index "
            f"{where}: a picture needs finite numbers."
        )
    return array


def _same_length(name: str, count: int, other: str, expected: int) -> None:
    if count != expected:
        raise ValueError(
            f"{name} has {count} entries, but {other} has {expected}: they must be as many."
        )


def _printable(token: object) -> str:
    """`token` with what neither font can draw (control characters, some scripts) as escapes."""
    text = str(token)
    if text != text.strip(" "):  # spaces at the ends belong to the token
        text = text.replace(" ", "␣")
    text = "".join(_visible(char) for char in text)
    return text if len(text) <= 22 else text[:21] + "…"


def _visible(char: str) -> str:
    unseen = char != " " and unicodedata.category(char)[0] in "CZ"
    if unseen or not any(ord(char) in font for font in _glyphs()):
        return char.encode("unicode_escape").decode("ascii")
    return char


# ---- color and text ----------------------------------------------------------------------------


def luminance(color: Any) -> float:
    """Relative luminance of a color, 0 (black) to 1 (white), as the WCAG defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: Any, second: Any) -> float:
    """Contrast ratio of two colors, 1 to 21, as the WCAG defines it; text needs 4.5."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _even(name: str) -> ListedColormap:
    """A light-to-dark map of matplotlib's, its steps moved so that lightness falls evenly."""
    fine = np.linspace(0, 1, 1024)
    colors = mpl.colormaps[name](fine)
    lightness = [116 * luminance(color[:3]) ** (1 / 3) - 16 for color in colors]
    even = np.linspace(lightness[0], lightness[-1], 256)
    places = np.interp(-even, -np.array(lightness), fine)
    return ListedColormap(mpl.colormaps[name](places), f"even_{name}")


WEIGHTS = _even("YlGnBu")
SIGNED = mpl.colormaps["RdBu_r"]


def text_on(background: Any) -> str:
    """Black or white, whichever reads better on `background`: at least 4.5 to 1 on any color."""
    return max(("black", "white"), key=lambda color: contrast(color, background))


def readable(color: Any, background: Any = PAGE) -> str:
    """`color`, darkened as far as text in it needs to reach 4.5 to 1 on `background`."""
    rgb = np.array(to_rgb(color))
    while contrast(rgb, background) < 4.5:
        rgb = rgb * 0.95
    return to_hex(tuple(rgb))


def _scale(
    values: np.ndarray,
    low: float | None = None,
    high: float | None = None,
    *,
    signed: bool | None = None,
) -> tuple[Colormap, Normalize]:
    """Color map and scale: light to dark from 0 up; with negative values, white at 0."""
    smallest = float(values.min()) if low is None else low
    largest = float(values.max()) if high is None else high
    if signed is None:
        signed = smallest < -1e-6 * abs(largest)
    if signed:
        reach = max(abs(smallest), abs(largest)) or 1.0
        return SIGNED, Normalize(-reach, reach)
    start = 0.0 if low is None else low
    return WEIGHTS, Normalize(start, largest if largest > start else start + 1)


def _colorbar(fig: Figure, image: Any, axes: Any, label: str) -> None:
    tall = fig.get_size_inches()[1] * 0.8
    bar = fig.colorbar(image, ax=axes, fraction=0.05, pad=0.02, aspect=tall / 0.16)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    if label:
        bar.set_label(label, parse_math=True)


def _token_ticks(
    axis: Any, labels: Sequence[object] | None, inches: float, *, rotate: bool = False
) -> None:
    """Ticks with `labels` (numbers, if None) on an axis, as many as `inches` hold legibly."""
    if labels is None:
        axis.set_major_locator(
            MaxNLocator(min(int(inches * 2) + 1, 10), integer=True, steps=[1, 2, 5, 10])
        )
        return
    room = max(int(inches * 72 / (SMALL * 1.18)), 2)
    step = -(-len(labels) // room)
    positions = list(range(0, len(labels), step))
    texts = [_printable(labels[i]) for i in positions]
    options: dict[str, Any] = {"parse_math": False, "fontsize": SMALL}
    if rotate and max(map(len, texts)) * len(texts) * SMALL * 0.62 > inches * 72:
        options |= {"rotation": 90}
    axis.set_ticks(positions, texts, **options)
    for text in axis.get_ticklabels():
        if len(text.get_text()) == 1:
            text.set_rotation(0)
    axis.set_tick_params(length=0 if step == 1 else 3)


def _frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)


# ---- matrices ----------------------------------------------------------------------------------


@_styled
def heatmap(
    matrix: Any,
    rows: Sequence[object] | None = None,
    cols: Sequence[object] | None = None,
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    label: str = "",
    values: bool | None = None,
    decimals: int = 2,
    low: float | None = None,
    high: float | None = None,
    signed: bool | None = None,
    hide: Any = None,
    width: float = WIDTH,
) -> Figure:
    """A matrix (rows, columns) as colored cells.

    `rows` and `cols` name its rows and columns (numbers from 0 if left out); `label` names what
    the color bar measures, with its unit. Cells show their numbers, to `decimals` places, in small
    matrices (`values` forces it on or off), and then no bar is drawn. `low` and `high` fix the
    ends of the color scale. Cells where the boolean matrix `hide` is true are drawn gray and
    empty, whatever they hold. Raises ValueError if the shapes disagree or a cell that is not
    hidden is NaN or infinite.
    """
    hidden = None if hide is None else _array("hide", hide, 2).astype(bool)
    data = _array("The matrix", matrix, 2, ignore=hidden)
    count_rows, count_cols = data.shape
    if rows is not None:
        _same_length("rows", len(rows), "the matrix's first axis", count_rows)
    if cols is not None:
        _same_length("cols", len(cols), "the matrix's second axis", count_cols)
    shown = data[~hidden] if hidden is not None else data
    cmap, norm = _scale(shown if shown.size else np.zeros(1), low, high, signed=signed)
    if values is None:
        values = count_cols <= 10 and count_rows <= 14
    across = width - 1.9
    cell = min(across / count_cols, 0.62) if values else across / count_cols
    down = float(np.clip(count_rows * (0.34 if values else cell), 0.6, across + 1.6))
    fig, axes = figure(down + 0.55 + 0.35 * bool(title) + 0.3 * bool(xlabel), width=width)
    image = axes.imshow(
        np.ma.array(data, mask=False if hidden is None else hidden),
        cmap=cmap.with_extremes(bad=HIDDEN),
        norm=norm,
        aspect="auto",
        interpolation="nearest",
    )
    _token_ticks(axes.yaxis, rows, down)
    _token_ticks(axes.xaxis, cols, across, rotate=True)
    _frame(axes)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if values:
        _cell_values(axes, data, hidden, cmap, norm, decimals)
    else:
        _colorbar(fig, image, axes, label)
    return fig


def _cell_values(
    axes: Axes,
    data: np.ndarray,
    hidden: np.ndarray | None,
    cmap: Colormap,
    norm: Normalize,
    decimals: int,
) -> None:
    for (row, col), value in np.ndenumerate(data):
        if hidden is not None and hidden[row, col]:
            continue
        text = f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
        color = text_on(cmap(norm(value)))
        axes.text(col, row, text, ha="center", va="center", fontsize=SMALL, color=color)


def _heads(attentions: Any, layer: int) -> np.ndarray:
    """The maps of one layer (heads, query, key), out of whatever a model returns."""
    try:
        one = attentions[layer]
    except IndexError:
        raise ValueError(
            f"There is no layer {layer}: the attentions hold {len(attentions)} layer(s)."
        ) from None
    shape = tuple(np.shape(one.detach().cpu() if hasattr(one, "detach") else one))
    if len(shape) == 4:
        if shape[0] != 1:
            raise ValueError(
                f"The attentions of layer {layer} hold a batch of {shape[0]} sentences: "
                "choose one, for example [a[:1] for a in attentions]."
            )
        one = one[0]
    return _array(f"The attentions of layer {layer}", one, 3)


@_styled
def attention_heads(
    attentions: Any,
    tokens: Sequence[str],
    layer: int,
    heads: Sequence[int] | None = None,
    *,
    keys: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
) -> Figure:
    """The heads of one layer as a grid of small maps on one color scale from 0.

    `attentions`: one entry a layer, each (heads, query, key) or (1, heads, query, key), as a model
    returns them; `layer` and `heads` count from 0. `tokens` name the queries and, unless `keys`
    names others, the keys. Raises ValueError if layer, heads or shapes do not fit.
    """
    maps = _heads(attentions, layer)
    keys = tokens if keys is None else keys
    _same_length("tokens", len(tokens), "the maps' query axis", maps.shape[1])
    _same_length("keys", len(keys), "the maps' key axis", maps.shape[2])
    heads = range(maps.shape[0]) if heads is None else heads
    if len(heads) == 0 or any(not 0 <= head < maps.shape[0] for head in heads):
        raise ValueError(
            f"heads must name one or more of the {maps.shape[0]} heads, 0 to {maps.shape[0] - 1}."
        )
    cmap, norm = _scale(maps[list(heads)])
    longest = max(len(_printable(token)) for token in tokens)
    gutter = 0.75 + 0.095 * longest
    if columns is None:
        fitting = int((WIDTH - gutter - 0.7) / (len(keys) * SMALL * 1.2 / 72 + 0.1))
        columns = min(max(fitting, 2 if len(heads) <= 6 else 3), 4, len(heads))
    lines = -(-len(heads) // columns)
    side = (WIDTH - gutter - 0.7) / columns - 0.1
    tall = side * float(np.clip(len(tokens) / len(keys), 0.4, 1.6))
    below = 0.4 + 0.095 * max(len(_printable(key)) for key in keys)
    fig, grid = figure(
        lines * (tall + 0.34) + below + 0.5, rows=lines, columns=columns, squeeze=False
    )
    for place, axes in enumerate(grid.flat):
        if place >= len(heads):
            axes.set_visible(False)
            continue
        image = axes.imshow(
            maps[heads[place]], cmap=cmap, norm=norm, aspect="auto", interpolation="nearest"
        )
        axes.set_title(f"{LABELS['head']} {heads[place]}", fontsize=SMALL, pad=4)
        _frame(axes)
        _token_ticks(
            axes.yaxis, tokens, tall
        ) if place % columns == 0 else axes.yaxis.set_major_locator(NullLocator())
        lowest = place // columns == lines - 1
        _token_ticks(
            axes.xaxis, keys, side, rotate=True
        ) if lowest else axes.xaxis.set_major_locator(NullLocator())
    fig.suptitle(
        f"{LABELS['layer']} {layer % len(attentions)}" if title is None else title,
        x=0.01,
        ha="left",
    )
    fig.supylabel(LABELS["from"], fontsize=12)
    fig.supxlabel(LABELS["to"], fontsize=12)
    _colorbar(fig, image, grid, LABELS["weight"])
    return fig


@_styled
def layer_map(
    values: Any,
    tokens: Sequence[object],
    *,
    label: str,
    title: str = "",
    low: float | None = None,
    high: float | None = None,
) -> Figure:
    """Layer by position: one row a layer, the last on top, the embeddings' output (0) below.

    `values`: (layers + 1, seq), for example each token's share of a layer's gradient; `label` says
    what they are, with the unit. `low` and `high` fix the ends of the color scale, for pictures
    that are to be compared. Raises ValueError if the tokens are not as many.
    """
    data = _array("The values", values, 2)
    _same_length("tokens", len(tokens), "the values' second axis", data.shape[1])
    cmap, norm = _scale(data, low, high)
    fig, axes = figure(0.34 * len(data) + 1.3 + 0.35 * bool(title))
    image = axes.imshow(
        data, cmap=cmap, norm=norm, aspect="auto", interpolation="nearest", origin="lower"
    )
    _token_ticks(axes.yaxis, list(range(len(data))), 0.34 * len(data))
    _token_ticks(axes.xaxis, tokens, WIDTH - 1.6, rotate=True)
    _frame(axes)
    axes.set(title=title, ylabel=LABELS["layer"])
    _colorbar(fig, image, axes, label)
    return fig


@_styled
def similarity_map(
    matrix: Any,
    labels: Sequence[object] | None = None,
    *,
    title: str = "",
    label: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Figure:
    """A square matrix of position against position (or, with `labels`, of word against word) with
    equal axes.

    `label` names what the color bar measures; cosine if left out. Raises ValueError if the matrix
    is not square, the labels are not as many, or a value is NaN or infinite.
    """
    data = _array("The matrix", matrix, 2)
    if data.shape[0] != data.shape[1]:
        raise ValueError(f"A similarity map needs a square matrix, but its shape is {data.shape}.")
    if labels is not None:
        _same_length("labels", len(labels), "the matrix", len(data))
    cmap, norm = _scale(data, low, high)
    side = 4.5
    fig, axes = figure(side + 0.7 + 0.3 * bool(title))
    image = axes.imshow(data, cmap=cmap, norm=norm, interpolation="nearest")
    if labels is None:
        axes.set_xlabel(LABELS["position_j"] if xlabel is None else xlabel)
        axes.set_ylabel(LABELS["position_i"] if ylabel is None else ylabel)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    else:
        axes.set(xlabel=xlabel or "", ylabel=ylabel or "")
        _token_ticks(axes.yaxis, labels, side)
        _token_ticks(axes.xaxis, labels, side, rotate=True)
    _frame(axes)
    axes.set_title(title)
    _colorbar(fig, image, axes, LABELS["similarity"] if label is None else label)
    return fig


@_styled
def embedding_sum(
    tables: Mapping[str, Any], tokens: Sequence[str], *, dimensions: int = 24, title: str = ""
) -> Figure:
    """Tables of vectors as colored strips, one above the other, and below them their sum.

    `tables`: name to (seq, hidden), for example word, position and segment vectors of one
    sentence; only the first `dimensions` of `hidden` are drawn. Raises ValueError if shapes and
    tokens disagree.
    """
    parts = {name: _array(f"The table {name!r}", table, 2) for name, table in tables.items()}
    if not parts:
        raise ValueError("tables is empty: name at least one table of vectors.")
    if len({part.shape for part in parts.values()}) > 1:
        shapes = ", ".join(f"{name} {part.shape}" for name, part in parts.items())
        raise ValueError(f"Tables that are added must have one shape, but have: {shapes}.")
    _same_length("tokens", len(tokens), "each table", len(next(iter(parts.values()))))
    parts = {name: part[:, :dimensions] for name, part in parts.items()}
    strips = parts | {LABELS["sum"]: np.sum(list(parts.values()), axis=0)}
    cmap, norm = _scale(np.stack(list(strips.values())), signed=True)
    tall = 0.2 * len(tokens)
    fig, grid = figure(
        len(strips) * (tall + 0.36) + 0.6 + 0.3 * bool(title), rows=len(strips), squeeze=False
    )
    for place, (axes, (name, strip)) in enumerate(zip(grid.flat, strips.items(), strict=True)):
        image = axes.imshow(strip, cmap=cmap, norm=norm, aspect="auto", interpolation="nearest")
        sign = "=" if place == len(parts) else "+" if place else ""
        axes.set_title(f"{sign} {name}".strip(), pad=4)
        _token_ticks(axes.yaxis, tokens, tall)
        axes.xaxis.set_major_locator(
            MaxNLocator(6, integer=True) if place == len(parts) else NullLocator()
        )
        _frame(axes)
    grid.flat[-1].set_xlabel(LABELS["dimension"])
    if title:
        fig.suptitle(title, x=0.01, ha="left")
    _colorbar(fig, image, grid, LABELS["value"])
    return fig


# ---- sentences ---------------------------------------------------------------------------------


@_styled
def attention_arcs(
    weights: Any,
    tokens: Sequence[str],
    *,
    keys: Sequence[str] | None = None,
    focus: int | None = None,
    threshold: float = 0.02,
    title: str = "",
) -> Figure:
    """One head as lines from each token (left) to those it attends to (right), wide as the weight.

    `weights`: (query, key). `focus`, a query's index from 0, draws that token's lines in color and
    with their weights, the others gray. Weights below `threshold` are left out. Raises ValueError
    if weights and tokens disagree.
    """
    data = _array("The weights", weights, 2)
    keys = tokens if keys is None else keys
    _same_length("tokens", len(tokens), "the weights' query axis", data.shape[0])
    _same_length("keys", len(keys), "the weights' key axis", data.shape[1])
    if data.min() < 0:
        raise ValueError(
            f"Attention weights cannot be negative, but the smallest is {data.min():.3g}."
        )
    if focus is not None and not 0 <= focus < len(tokens):
        raise ValueError(
            f"focus must be the index of one of the {len(tokens)} tokens, but is {focus}."
        )
    count = max(data.shape)
    fig, axes = figure(max(0.25 * count, 1) + 0.6 + 0.3 * bool(title), width=WIDTH)
    largest = max(float(data.max()), 1e-12)
    for (query, key), weight in sorted(
        np.ndenumerate(data), key=lambda item: (item[0][0] == focus, item[1])
    ):
        if weight < threshold:
            continue
        loud = focus is None or query == focus
        share = weight / largest
        axes.plot(
            [0, 1],
            [query, key],
            color=PALETTE[0] if loud else LINE,
            linewidth=0.3 + 5.2 * share,
            alpha=(0.1 + 0.8 * share) if loud else 0.06 + 0.2 * share,
            solid_capstyle="round",
        )
    for x, names, side in ((-0.03, tokens, "right"), (1.03, keys, "left")):
        for y, name in enumerate(names):
            text = _printable(name)
            if side == "left" and focus is not None and data[focus, y] >= threshold:
                text += f"  {data[focus, y]:.2f}"
            frame = {"boxstyle": "round,pad=0.15", "facecolor": "none", "edgecolor": PALETTE[0]}
            axes.text(
                x,
                y,
                text,
                ha=side,
                va="center",
                parse_math=False,
                fontsize=SMALL,
                bbox=frame if side == "right" and y == focus else None,
            )
    for x, name, side in ((-0.03, LABELS["from"], "right"), (1.03, LABELS["to"], "left")):
        axes.text(x, -1.2, name, ha=side, va="center", color=QUIET, fontsize=SMALL)
    axes.set(xlim=(-0.02, 1.02), ylim=(count - 0.5, -1.5))
    axes.set_axis_off()
    if title:
        fig.suptitle(title, x=0.01, ha="left")
    return fig


@_styled
def token_strip(
    tokens: Sequence[str],
    values: Any,
    *,
    title: str = "",
    label: str = "",
    signed: bool | None = None,
    decimals: int = 2,
    width: float = WIDTH,
) -> Figure:
    """A sentence with a color behind each token and the token's value below it, wrapped as text
    is.

    `values`: (tokens,), for example gradient norms; `label` says below the sentence what they are,
    with the unit. Raises ValueError if they are not as many as the tokens.
    """
    data = _array("The values", values, 1)
    _same_length("tokens", len(tokens), "the values", len(data))
    cmap, norm = _scale(data, signed=signed)
    fig = Figure(figsize=(width, 1), dpi=DPI)
    canvas = FigureCanvasAgg(fig)
    texts = [_printable(token) for token in tokens]
    rounded = [round(float(value), decimals) + 0.0 for value in data]  # no minus before a zero
    numbers = [f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for value in rounded]
    line_height, margin, gap = 0.52, 0.12, 0.06  # inches, like all positions here
    boxes, x, line = [], margin, 0
    for text, number in zip(texts, numbers, strict=True):
        wide = (
            max(_text_inches(fig, canvas, text, 12), _text_inches(fig, canvas, number, SMALL))
            + 0.12
        )
        if x > margin and x + wide > width - margin:
            x, line = margin, line + 1
        boxes.append((x, line, wide))
        x += wide + gap
    top = margin + (0.34 if title else 0)
    height = round((top + (line + 1) * line_height + (0.26 if label else 0)) * 50) / 50
    fig.set_size_inches(width, height)
    axes = fig.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for (x, line, wide), text, number, value in zip(boxes, texts, numbers, data, strict=True):
        color, y = cmap(norm(value)), top + line * line_height
        axes.add_patch(
            Rectangle((x, y), wide, 0.26, facecolor=color, edgecolor=GRID, linewidth=0.6)
        )
        axes.text(
            x + wide / 2,
            y + 0.135,
            text,
            ha="center",
            va="center",
            fontsize=12,
            color=text_on(color),
            parse_math=False,
        )
        axes.text(
            x + wide / 2, y + 0.35, number, ha="center", va="center", fontsize=SMALL, color=QUIET
        )
    if title:
        axes.text(margin, margin + 0.08, title, va="center", fontsize=13)
    if label:
        axes.text(margin, height - 0.15, label, va="center", fontsize=SMALL, color=QUIET)
    return fig


def _text_inches(fig: Figure, canvas: FigureCanvasAgg, text: str, size: float) -> float:
    probe = fig.text(0, 0, text, fontsize=size, parse_math=False)
    wide = probe.get_window_extent(canvas.get_renderer()).width / fig.dpi
    probe.remove()
    return wide


# ---- curves, bars, distributions ---------------------------------------------------------------


@_styled
def curves(
    x: Any,
    series: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    logx: bool = False,
    logy: bool = False,
    bands: Mapping[str, tuple[Any, Any]] | None = None,
    levels: Mapping[str, float] | None = None,
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
    height: float = 3.8,
) -> Figure:
    """Lines over a common `x`, told apart by color, dash and marker, with their names at their
    ends.

    `series`: name to values, as many as `x` (or, where `x` maps names to values, as many as the
    series' own). `bands`: name of a series to (lower, upper), shaded behind it. `levels`: name to
    a height, drawn as a thin dashed line (the loss of a guess, say). `logx`, `logy`: logarithmic
    axes. Units belong into `xlabel` and `ylabel`. Raises ValueError for more than seven series,
    lengths that differ, NaN or infinite values, and values at or below 0 on a logarithmic axis.
    """
    if not 1 <= len(series) <= len(PALETTE):
        raise ValueError(
            f"curves draws 1 to {len(PALETTE)} series, but got {len(series)}: group or split them."
        )
    fig, axes = figure(height)
    axes.grid(True)
    ends, handles = [], []
    for place, (name, values) in enumerate(series.items()):
        xs = _array(
            f"x of {name!r}" if isinstance(x, Mapping) else "x",
            x[name] if isinstance(x, Mapping) else x,
            1,
        )
        ys = _array(f"The series {name!r}", values, 1)
        _same_length(f"The series {name!r}", len(ys), "x", len(xs))
        _positive(f"The series {name!r}", ys, logy)
        _positive("x", xs, logx)
        (handle,) = axes.plot(
            xs,
            ys,
            color=PALETTE[place],
            linestyle=LINESTYLES[place],
            marker=MARKERS[place],
            markevery=0.12 if len(xs) > 12 else 1,
            label=name,
        )
        handles.append(handle)
        ends.append((name, float(xs[-1]), float(ys[-1]), PALETTE[place]))
        if bands and name in bands:
            low, high = (_array(f"The band of {name!r}", edge, 1) for edge in bands[name])
            _same_length(f"The band of {name!r}", min(len(low), len(high)), "its series", len(ys))
            axes.fill_between(xs, low, high, color=PALETTE[place], alpha=0.16, linewidth=0)
    if unknown := set(bands or ()) - set(series):
        raise ValueError(f"bands names {sorted(unknown)}, which are not among the series.")
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.set_xscale("log" if logx else "linear")
    axes.set_yscale("log" if logy else "linear")
    _tidy_numbers(axes.xaxis, logx)
    _tidy_numbers(axes.yaxis, logy)
    for name, level in (levels or {}).items():
        _positive(f"The level {name!r}", _array(f"The level {name!r}", [level], 1), logy)
        axes.axhline(level, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        ends.append((name, None, float(level), QUIET))  # type: ignore[arg-type]
    axes.set(**{key: value for key, value in (("xlim", xlim), ("ylim", ylim)) if value is not None})
    if max(len(name) for name, *_ in ends) <= 16:
        _label_ends(axes, ends, height)
    else:
        fig.legend(handles=handles, loc="outside upper left", ncols=1)
        _label_ends(axes, [end for end in ends if end[1] is None], height)
    return fig


def _tidy_numbers(axis: Any, logarithmic: bool) -> None:
    """Ticks at whole numbers if all data are whole, and "2 M" instead of a power of ten."""
    low, high = axis.get_view_interval()
    if logarithmic:
        return
    if max(abs(low), abs(high)) >= 1e4:
        axis.set_major_formatter(EngFormatter(sep="\N{NO-BREAK SPACE}"))
    whole = all(np.all(line.get_data()[axis.axis_name == "y"] % 1 == 0) for line in axis.axes.lines)
    axis.set_major_locator(
        MaxNLocator(7 if axis.axis_name == "x" else 6, integer=whole, steps=[1, 2, 2.5, 5, 10])
    )


def _positive(name: str, values: np.ndarray, logarithmic: bool) -> None:
    if logarithmic and values.min() <= 0:
        raise ValueError(
            f"{name} holds {values.min():g}: a logarithmic axis shows only numbers above 0."
        )


def _label_ends(axes: Axes, ends: Sequence[tuple[str, Any, float, str]], height: float) -> None:
    """Names right of the axes where the lines end, moved apart where they would overlap."""
    if not ends:
        return
    right = axes.get_xlim()[1]
    ends = [(name, right if x is None else x, y, color) for name, x, y, color in ends]
    to_axes = axes.transScale + axes.transLimits
    wanted = np.array([to_axes.transform((x, y))[1] for _, x, y, _ in ends])
    gap = SMALL * 1.5 / 72 / max(height - 1.1, 0.5)
    order = np.argsort(wanted, kind="stable")
    places = np.clip(wanted, 0, 1)[order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places -= max(0.0, places[-1] - 1.0)
    for i in range(len(places) - 2, -1, -1):
        places[i] = min(places[i], places[i + 1] - gap)
    for place, index in zip(places, order, strict=True):
        name, x, y, color = ends[index]
        axes.annotate(
            name,
            (x, y),
            (1.035, float(place)),
            "data",
            "axes fraction",
            va="center",
            color=readable(color),
            fontsize=SMALL,
            parse_math=False,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.7,
                "shrinkA": 1,
                "shrinkB": 3,
            },
        )


@_styled
def bars(
    names: Sequence[object],
    values: Any,
    *,
    xlabel: str,
    title: str = "",
    errors: Any = None,
    unit: str = "",
    decimals: int | None = None,
    highlight: Sequence[int] = (),
    logx: bool = False,
) -> Figure:
    """Horizontal bars, the first on top, each with its value.

    Values print with `decimals` places (left out: thousands separated, three significant digits)
    and `unit` behind them. `errors`: half widths of intervals. `highlight`: indices of bars in the
    second color. Raises ValueError if names, values and errors are not as many.
    """
    data = _array("The values", values, 1)
    _same_length("names", len(names), "the values", len(data))
    spread = None if errors is None else _array("The errors", errors, 1)
    if spread is not None:
        _same_length("errors", len(spread), "the values", len(data))
    _positive("values", data, logx)
    fig, axes = figure(0.34 * len(data) + 0.75 + 0.3 * bool(title))
    colors = [PALETTE[1] if i in highlight else PALETTE[0] for i in range(len(data))]
    hatches = ["//" if i in highlight else "" for i in range(len(data))]
    axes.barh(
        range(len(data)),
        data,
        height=0.66,
        color=colors,
        hatch=hatches,
        edgecolor=PAGE,
        linewidth=0,
        xerr=spread,
        error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 3},
    )
    labels = [textwrap.shorten(str(name), 32, placeholder="…") for name in names]
    axes.set_yticks(range(len(data)), labels, parse_math=False)
    axes.yaxis.set_tick_params(length=0)
    axes.set_xscale("log" if logx else "linear")
    if np.abs(data).max() >= 1e4 and not logx:
        axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NO-BREAK SPACE}"))
    for place, value in enumerate(data):
        reach = 0.0 if spread is None else float(spread[place])
        left = value < 0
        axes.annotate(
            _number(value, decimals) + unit,
            (value - reach if left else value + reach, place),
            (-4 if left else 4, 0),
            textcoords="offset points",
            va="center",
            ha="right" if left else "left",
            fontsize=SMALL,
            annotation_clip=False,
            parse_math=False,
        )
    axes.grid(True, axis="x")
    axes.axvline(0, color=LINE, linewidth=0.8) if not logx else None
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.14)
    if data.min() >= 0 and not logx:
        axes.set_xlim(left=0)
    axes.set(xlabel=xlabel, title=title, ylim=(len(data) - 0.5, -0.5))
    return fig


def _number(value: float, decimals: int | None) -> str:
    if decimals is None:
        text = f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
    else:
        text = f"{value:,.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}")


@_styled
def histogram(
    series: Any,
    *,
    xlabel: str,
    title: str = "",
    bins: int = 40,
    density: bool = False,
    logy: bool = False,
    height: float = 3.4,
) -> Figure:
    """Distributions on common bins: outlines of different dash over light fill. `series`: values,
    or name to values.

    `density` scales each to area 1 (for samples of different size). Raises ValueError for more
    than seven series, or NaN or infinite values.
    """
    named = series if isinstance(series, Mapping) else {"": series}
    if not 1 <= len(named) <= len(PALETTE):
        raise ValueError(f"histogram draws 1 to {len(PALETTE)} series, but got {len(named)}.")
    data = {name: _array(f"The series {name!r}", values, 1) for name, values in named.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(data.values())), bins)
    fig, axes = figure(height)
    for place, (name, values) in enumerate(data.items()):
        color, style = PALETTE[place], LINESTYLES[place]
        axes.hist(values, edges, density=density, histtype="stepfilled", color=color, alpha=0.16)
        axes.hist(
            values,
            edges,
            density=density,
            histtype="step",
            color=color,
            linestyle=style,
            linewidth=1.8,
            label=name,
        )
    axes.grid(True, axis="y")
    axes.set(xlabel=xlabel, ylabel=LABELS["density" if density else "count"], title=title)
    axes.set_yscale("log" if logy else "linear")
    if any(data):
        handles = [
            Line2D([], [], color=PALETTE[place], linestyle=LINESTYLES[place], label=name)
            for place, name in enumerate(data)
        ]
        fig.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 3))
    return fig

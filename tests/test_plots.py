"""Proves that the book's pictures can be read by everyone and refuse what they cannot draw.

Every function draws tiny data, in English and Chinese, without a warning, on a machine that has no
Chinese font; text stands out at 4.5 to 1; weights are perceptually even; wrong shapes and NaN raise
one sentence; a figure at the end of a notebook cell is shown once, as PNG, with nothing on stderr.

Run: pytest tests/test_plots.py
"""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from bertlearn import plots

ROOT = Path(__file__).resolve().parent.parent
TOKENS = ["[CLS]", "the", "##ing", "$x", "a_b$", "河", "岸", "[SEP]"]
N = len(TOKENS)


def softmax(*shape: int) -> np.ndarray:
    scores = np.exp(np.random.default_rng(0).normal(size=shape))
    return scores / scores.sum(-1, keepdims=True)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape)


DRAWINGS = {
    "heatmap": lambda: plots.heatmap(softmax(N, N), TOKENS, TOKENS, title="权重", xlabel="to"),
    "heatmap_large": lambda: plots.heatmap(numbers(20, 90), label="value"),
    "attention_heads": lambda: plots.attention_heads([softmax(5, N, N)], TOKENS, 0),
    "attention_arcs": lambda: plots.attention_arcs(softmax(N, N), TOKENS, title="head 0"),
    "attention_arcs_focus": lambda: plots.attention_arcs(softmax(N, N), TOKENS, focus=5),
    "similarity_map": lambda: plots.similarity_map(numbers(64, 64)),
    "similarity_words": lambda: plots.similarity_map(softmax(N, N), TOKENS, title="词"),
    "layer_map": lambda: plots.layer_map(softmax(5, N), TOKENS, label="share", title="层"),
    "layer_map_signed": lambda: plots.layer_map(numbers(13, 40), ["字"] * 40, label="value"),
    "curves": lambda: plots.curves(
        [1, 10, 100],
        {"a": [3.0, 2, 1], "随机": [1, 1, 1.0]},
        xlabel="step",
        ylabel="loss [nats]",
        logx=True,
        logy=True,
        bands={"a": ([2, 1, 0.5], [4, 3, 2])},
        levels={"guess": 3},
    ),
    "curves_long_names": lambda: plots.curves(
        range(30),
        {"a name too long for the margin": range(30), "b": range(30)},
        xlabel="step",
        ylabel="value",
    ),
    "bars": lambda: plots.bars(["a_b", "均值", "$x$"], [2e6, 1, 3e3], xlabel="parameters"),
    "bars_signed": lambda: plots.bars(["a", "b"], [-1, 2], xlabel="x", errors=[0.1, 0.1]),
    "histogram": lambda: plots.histogram({"甲": numbers(50), "b": numbers(90)}, xlabel="q·k"),
    "histogram_one": lambda: plots.histogram(numbers(50), xlabel="weight", density=True),
    "token_strip": lambda: plots.token_strip(
        TOKENS * 4, softmax(4 * N), title="梯度", label="norm"
    ),
    "token_strip_signed": lambda: plots.token_strip(TOKENS, numbers(N)),
    "embedding_sum": lambda: plots.embedding_sum(
        {"word": numbers(N, 32), "position": numbers(N, 32)}, TOKENS, title="x"
    ),
}


@functools.cache
def drawn(name: str) -> tuple[plots.Figure, bytes, dict[str, int]]:
    """A drawing, made once for all tests, with every warning an error: figure, PNG, size."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = DRAWINGS[name]()
        return figure, *figure._repr_png_()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def texts(figure: plots.Figure) -> list[mpl.text.Text]:
    return [
        text for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text()
    ]


# ---- every picture -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWINGS)
def test_draws_at_page_width_in_few_bytes_without_a_warning(name: str) -> None:
    figure, png, size = drawn(name)
    image = Image.open(io.BytesIO(png))
    assert image.size[0] == 960 and size["width"] == 640
    assert len(png) < 120_000
    assert repr(figure).startswith(f"<Figure size 960x{image.size[1]} with ")
    assert np.ptp(np.asarray(image.convert("L"))) > 100, "the picture is blank"


@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_is_cut_off_at_the_edges(name: str) -> None:
    """The outermost pixels are page: text or lines that touch the edge would be clipped."""
    picture = pixels(drawn(name)[1])
    page = picture[0, 0]
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert np.abs(edge - page).max() <= 6


@pytest.mark.parametrize("name", DRAWINGS)
def test_text_is_large_and_dark_enough(name: str) -> None:
    for text in texts(drawn(name)[0]):
        assert text.get_fontsize() >= 10, text.get_text()
        if text.get_color() != "white":  # white is only used on dark cells: see text_on below
            assert plots.contrast(text.get_color(), plots.PAGE) >= 4.5, text.get_text()


def test_the_same_data_give_the_same_bytes() -> None:
    for name in ("attention_heads", "curves", "token_strip"):
        assert DRAWINGS[name]()._repr_png_()[0] == drawn(name)[1]


def test_drawing_leaves_the_defaults_of_matplotlib_alone() -> None:
    before = dict(mpl.rcParams)
    for name in ("attention_heads", "curves", "token_strip"):
        DRAWINGS[name]()._repr_png_()
    assert dict(mpl.rcParams) == before


def test_use_style_twice_is_once() -> None:
    with mpl.rc_context():
        plots.use_style()
        once = dict(mpl.rcParams)
        count = len(mpl.font_manager.fontManager.ttflist)
        plots.use_style()
        assert dict(mpl.rcParams) == once
        assert len(mpl.font_manager.fontManager.ttflist) == count
        assert once["font.family"] == list(plots.FONTS)


def test_torch_tensors_of_every_kind_are_drawn() -> None:
    weights = torch.softmax(torch.randn(1, 2, N, N, requires_grad=True), -1)
    plots.attention_heads((weights,), TOKENS, 0, heads=[1])
    plots.heatmap(weights[0, 0].to(torch.bfloat16), TOKENS, TOKENS)
    plots.heatmap(torch.ones(3, 3, dtype=torch.bool))


def test_labels_can_be_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plots.LABELS, "head", "头")
    shown = [text.get_text() for text in texts(DRAWINGS["attention_heads"]())]
    assert "头 0" in shown and not any(text.startswith("head") for text in shown)


# ---- color ---------------------------------------------------------------------------------------


def lightness(colors: np.ndarray) -> np.ndarray:
    return np.array([116 * plots.luminance(color[:3]) ** (1 / 3) - 16 for color in colors])


def test_contrast_agrees_with_known_ratios() -> None:
    assert plots.contrast("white", "black") == pytest.approx(21)
    assert plots.contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)


def test_text_contrast_everywhere() -> None:
    for color in (plots.INK, plots.QUIET, *map(plots.readable, plots.PALETTE)):
        assert plots.contrast(color, plots.PAGE) >= 4.5
    for cmap in (plots.WEIGHTS, plots.SIGNED):
        for background in cmap(np.linspace(0, 1, 256)):
            assert plots.contrast(plots.text_on(background), background) >= 4.5


def test_lines_stand_out_and_differ_without_color() -> None:
    assert all(plots.contrast(color, plots.PAGE) >= 2 for color in plots.PALETTE)
    count = len(plots.PALETTE)
    assert len(set(plots.LINESTYLES)) == len(set(plots.MARKERS)) == count


def test_weights_fall_evenly_in_lightness() -> None:
    light = lightness(plots.WEIGHTS(np.linspace(0, 1, 256)))
    assert light[0] > 95 and light[-1] < 20
    assert np.abs(light - np.linspace(light[0], light[-1], 256)).max() < 1


def test_zero_is_white_and_signs_mirror_in_signed_pictures() -> None:
    cmap, norm = plots._scale(np.array([-1.0, 4.0]))
    assert norm(0.0) == pytest.approx(0.5)
    assert min(cmap(0.5)[:3]) > 0.95


def test_the_same_weight_has_the_same_color_in_every_head() -> None:
    figure = plots.attention_heads([softmax(4, N, N)], TOKENS, 0)
    limits = {image.get_clim() for axes in figure.axes for image in axes.images}
    assert limits == {(0.0, softmax(4, N, N).max())}


# ---- tokens --------------------------------------------------------------------------------------


def test_tokens_show_as_they_are() -> None:
    with mpl.rc_context({"text.parse_math": True}):
        figure = plots.heatmap(softmax(N, N), TOKENS, TOKENS)
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == TOKENS
    assert not any(label.get_parse_math() for label in labels)
    assert not any(
        text.get_parse_math() for text in texts(drawn("token_strip")[0]) if "$" in text.get_text()
    )


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("\n", r"\n"),
        (" the", "␣the"),
        ("two words", "two words"),
        ("\U0001f9ff", r"\U0001f9ff"),
        ("က", r"\u1000"),
        ("", ""),
    ],
)
def test_what_no_font_can_draw_is_escaped(token: str, shown: str) -> None:
    assert plots._printable(token) == shown


def test_many_tokens_get_fewer_ticks() -> None:
    tokens = [f"t{i}" for i in range(120)]
    figure = plots.heatmap(softmax(120, 120), tokens, tokens)
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        places = axis.get_ticklocs()
        assert 5 <= len(places) <= 45
        assert [label.get_text() for label in axis.get_ticklabels()] == [
            f"t{place}" for place in places
        ]


def test_tick_labels_do_not_overlap() -> None:
    tokens = ["[CLS]", *(f"word{i}" for i in range(38)), "[SEP]"]
    figure = plots.heatmap(softmax(40, 40), tokens, tokens)
    figure._repr_png_()
    for axis, side in ((figure.axes[0].xaxis, 0), (figure.axes[0].yaxis, 1)):
        boxes = sorted(
            (box.get_points()[0][side], box.get_points()[1][side])
            for box in (label.get_window_extent() for label in axis.get_ticklabels())
        )
        assert all(left[1] <= right[0] + 1 for left, right in zip(boxes, boxes[1:], strict=False))


def test_hidden_cells_may_hold_anything() -> None:
    scores = numbers(4, 4)
    scores[0, 1:] = -np.inf
    figure = plots.heatmap(scores, hide=np.isinf(scores))
    assert len(figure.axes[0].texts) == 13


# ---- errors at the border ------------------------------------------------------------------------

SERIES = {"xlabel": "x", "ylabel": "y"}
WRONG = {
    "rows": (lambda: plots.heatmap(np.ones((2, 3)), ["a"], ["x", "y", "z"]), "rows has 1 entries"),
    "cols": (lambda: plots.heatmap(np.ones((2, 3)), ["a", "b"], ["x"]), "cols has 1 entries"),
    "dimensions": (lambda: plots.heatmap(np.ones(3)), "must have 2 dimension"),
    "hide": (lambda: plots.heatmap(np.ones((2, 3)), hide=np.ones((3, 2))), "hide has shape"),
    "empty": (lambda: plots.heatmap(np.ones((0, 3))), "is empty"),
    "ragged": (lambda: plots.heatmap([[1, 2], [3]]), "all rows of one length"),
    "words": (lambda: plots.heatmap([["a"]]), "must be numbers"),
    "nan": (lambda: plots.heatmap([[1, np.nan]]), r"NaN or infinite, the first at index \(0, 1\)"),
    "layer": (lambda: plots.attention_heads([np.ones((1, 1, 1))], ["a"], 3), "no layer 3"),
    "head": (lambda: plots.attention_heads([np.ones((2, 1, 1))], ["a"], 0, [2]), "2 heads, 0 to 1"),
    "batch": (lambda: plots.attention_heads([np.ones((2, 2, 1, 1))], ["a"], 0), "batch of 2"),
    "head_tokens": (
        lambda: plots.attention_heads([softmax(2, 3, 3)], ["a"], 0),
        "query axis has 3",
    ),
    "head_keys": (
        lambda: plots.attention_heads([softmax(2, 1, 3)], ["a"], 0),
        "keys has 1 entries",
    ),
    "arcs": (lambda: plots.attention_arcs(softmax(3, 3), ["a", "b"]), "tokens has 2 entries"),
    "arcs_negative": (lambda: plots.attention_arcs([[-1.0]], ["a"]), "cannot be negative"),
    "arcs_focus": (lambda: plots.attention_arcs([[1.0]], ["a"], focus=1), "focus must be"),
    "square": (lambda: plots.similarity_map(np.ones((2, 3))), "square matrix"),
    "similarity": (lambda: plots.similarity_map(np.ones((2, 2)), ["a"]), "labels has 1"),
    "strip": (lambda: plots.token_strip(["a"], [1, 2]), "tokens has 1 entries"),
    "strip_inf": (lambda: plots.token_strip(["a"], [np.inf]), "NaN or infinite"),
    "curve": (lambda: plots.curves([1, 2], {"a": [1]}, **SERIES), "'a' has 1 entries"),
    "curves": (
        lambda: plots.curves([1], {str(i): [1] for i in range(8)}, **SERIES),
        "got 8: group or split",
    ),
    "none": (lambda: plots.curves([1], {}, **SERIES), "got 0"),
    "log": (lambda: plots.curves([1], {"a": [0]}, logy=True, **SERIES), "only numbers above 0"),
    "band": (
        lambda: plots.curves([1], {"a": [0]}, bands={"b": ([0], [1])}, **SERIES),
        r"bands names \['b'\]",
    ),
    "band_length": (
        lambda: plots.curves([1, 2], {"a": [0, 1]}, bands={"a": ([0], [1])}, **SERIES),
        "band of 'a' has 1 entries",
    ),
    "bars": (lambda: plots.bars(["a"], [1, 2], xlabel="x"), "names has 1 entries"),
    "errors": (lambda: plots.bars(["a"], [1], errors=[1, 2], xlabel="x"), "errors has 2 entries"),
    "histogram": (lambda: plots.histogram([np.nan], xlabel="x"), "NaN or infinite"),
    "sum": (
        lambda: plots.embedding_sum({"a": np.ones((1, 2)), "b": np.ones((1, 3))}, ["x"]),
        "must have one shape",
    ),
    "sum_tokens": (lambda: plots.embedding_sum({"a": np.ones((1, 2))}, []), "tokens has 0"),
    "sum_none": (lambda: plots.embedding_sum({}, []), "tables is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_raises_one_sentence(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text


# ---- fonts and notebooks, in processes of their own ----------------------------------------------

BARE_FONTS = """
from matplotlib import font_manager
assert not any("WenQuanYi" in font.name or "CJK" in font.name for font in
               font_manager.fontManager.ttflist), "the font list is not bare"
"""

CHINESE = (
    BARE_FONTS
    + """
import warnings, io
import numpy as np
from PIL import Image
warnings.simplefilter("error")
from bertlearn import plots

def picture(char):
    figure = plots.token_strip([char] * 3, [0.0, 0.0, 0.0], title=char)
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_()[0])).convert("L")).astype(int)

pictures = [picture(char) for char in "河岸银行"]
for i, one in enumerate(pictures):
    for other in pictures[:i]:
        same = one.shape == other.shape and (abs(one - other) > 60).sum() < 30
        assert not same, "two characters look the same: boxes instead of glyphs"

plots.use_style()
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.set_title("注意力 weights −1", fontweight="normal")
figure.savefig(io.BytesIO())
print("drawn")
"""
)


def bare_environment(tmp_path: Path) -> dict[str, str]:
    """A home in which matplotlib finds no font but its own: the machine that a learner may have."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import importlib.abc, importlib.util, sys

            class Finder(importlib.abc.MetaPathFinder):
                def find_spec(self, name, path, target=None):
                    if name != "matplotlib.font_manager":
                        return None
                    sys.meta_path.remove(self)
                    spec = importlib.util.find_spec(name)
                    source = spec.loader.get_source(name).replace(
                        "fontManager = _load_fontmanager()",
                        "findSystemFonts_ = findSystemFonts\\n"
                        "def findSystemFonts(fontpaths=None, fontext='ttf'):\\n"
                        "    return [] if fontpaths is None else "
                        "findSystemFonts_(fontpaths, fontext)\\n"
                        "fontManager = _load_fontmanager()")
                    assert "findSystemFonts_" in source
                    spec.loader.get_code = lambda _: compile(source, spec.origin, "exec")
                    return spec

            sys.meta_path.insert(0, Finder())
            """
        )
    )
    return {
        **os.environ,
        "MPLCONFIGDIR": str(tmp_path / "mpl"),
        "FONTCONFIG_FILE": os.devnull,
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
    }


def test_chinese_is_drawn_where_no_font_has_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHINESE],
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "drawn\n"
    assert done.stderr == ""


def test_without_our_font_the_same_machine_cannot_draw_chinese(tmp_path: Path) -> None:
    """The test above means something: matplotlib alone warns about missing glyphs there."""
    program = BARE_FONTS + textwrap.dedent(
        """
        import io
        from matplotlib.figure import Figure
        figure = Figure()
        figure.text(0, 0, "河")
        figure.savefig(io.BytesIO())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    assert "missing from font" in done.stderr


def test_the_font_covers_simplified_chinese() -> None:
    codes = [bytes([row, cell]) for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF)]
    characters = {code.decode("gb2312", "ignore") for code in codes} - {""}
    assert len(characters) == 6763
    covered = plots._glyphs()[1]
    assert [char for char in characters if ord(char) not in covered] == []


def test_a_missing_or_different_font_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plots.chinese_font.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(plots, "FONT_PACKAGE", "no_such_font_package")
        with pytest.raises(ModuleNotFoundError, match="no-such-font-package.*pip install"):
            plots.chinese_font()
    with monkeypatch.context() as patch:
        patch.setattr(plots, "FONT_SHA256", "0" * 64)
        with pytest.raises(ValueError, match="not the expected file"):
            plots.chinese_font()
    assert plots.chinese_font().is_file()


@pytest.mark.parametrize("first", ["", "import matplotlib.pyplot as plt"], ids=["plain", "pyplot"])
def test_a_notebook_shows_a_figure_once(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    from nbclient import NotebookClient

    for name, value in bare_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    cell = f'{first}\nfrom bertlearn import plots\nplots.heatmap([[1, 2], [3, 4]], ["河", "岸"])'
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "execute_result"
    assert set(output.data) == {"image/png", "text/plain"}
    assert output.data["text/plain"].startswith("<Figure size 960x")

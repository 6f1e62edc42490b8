"""What a check shows in a notebook: the table, and where matrices differ two small maps with text
for readers who cannot see them; nothing of it changes the plain text.

    pytest tests/test_check_pictures.py
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict

import nbformat
import pytest
import torch
from learners import NAME, cell_of, classroom, save, solved
from nbclient import NotebookClient

from bertlearn.checks import Check, find, run
from bertlearn.checks.core import REGISTRY, Failed, Toolbox
from bertlearn.checks.show import as_html
from bertlearn.grading.road import source_of
from bertlearn.progress import Progress


@pytest.fixture
def result():
    """The result of one comparison."""

    def compare(got, want):
        check = Check("97.compare", "two values", ("value",))

        @check.case("the same", points=1)
        def _(t, value):
            t.close(value, want, "the value")

        del REGISTRY["97.compare"]
        return run(check, [got])

    yield compare
    REGISTRY.pop("97.compare", None)


def pictures(html: str) -> list[str]:
    """The texts of the pictures in a page."""
    found = re.findall(r'<img alt="([^"]*)"[^>]*src="data:image/png;base64,\w+', html)
    assert len(found) == html.count("<img")
    return found


def test_a_wrong_mask_is_drawn_beside_the_right_one():
    wrong = run(
        find("04.causal_mask"), [lambda mask: mask.bool()[:, None, None].expand(-1, 1, 6, 6)]
    )
    texts = pictures(as_html(wrong))
    assert len(texts) == 2
    assert texts[0].startswith("expected at [0, 0]: 6 by 6 numbers as colors, from 0 to 1")
    assert texts[1].startswith("got at [0, 0]")


def test_a_right_answer_and_other_failures_have_no_picture(result):
    x = torch.randn(3, 4)
    assert not pictures(as_html(result(x, x)))
    for got in (None, x[0], "text", torch.randn(4, 3)):
        assert not pictures(as_html(result(got, x)))
    assert not pictures(as_html(result(torch.tensor(1.0), torch.tensor(2.0))))


def test_the_matrix_that_differs_most_is_shown(result):
    want = torch.zeros(2, 3, 4, 5)
    got = want.clone()
    got[1, 2, 0, 0] = 1
    got[0, 0] = 0.1
    assert pictures(as_html(result(got, want)))[1].startswith("got at [1, 2]: 4 by 5")


def test_a_large_matrix_is_cut_around_the_difference(result):
    want = torch.zeros(100, 300)
    got = want.clone()
    got[90, 299] = 2
    assert pictures(as_html(result(got, want)))[1].startswith("got at [76:100, 276:300]: 24 by 24")
    row = torch.zeros(70)
    assert "1 by 24" in pictures(as_html(result(row + 1, row)))[0]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_drawn_as_missing(result, bad):
    got = torch.zeros(3, 3)
    got[1, 1] = bad
    assert "some not finite" in pictures(as_html(result(got, torch.ones(3, 3))))[1]
    assert "none of them finite" in pictures(as_html(result(got * bad, torch.ones(3, 3))))[1]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.bfloat16, torch.bool])
def test_every_kind_of_number_is_drawn(result, dtype):
    want = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert len(pictures(as_html(result(1 - want.long(), want)))) == 2


def test_pictures_are_not_written_down(result):
    (case,) = result(torch.zeros(2, 2), torch.ones(2, 2)).cases
    assert case.picture is not None
    assert json.loads(json.dumps(asdict(case)))["expected"]


def test_a_picture_is_quick(result):
    shown = result(torch.zeros(40, 40), torch.ones(40, 40))
    as_html(shown)  # the first one imports matplotlib
    begin = time.process_time()
    as_html(shown)
    assert time.process_time() - begin < 1


# ---- in a kernel ------------------------------------------------------------------------

CODE = """
import time
begin = time.process_time()
points = check("04.causal_mask", lambda m: m.bool()[:, None, None].expand(-1, 1, 6, 6)).points
print(points, time.process_time() - begin < 3)
"""


def test_in_jupyter_the_check_answers_with_a_picture_and_is_noted(tmp_path, monkeypatch, capsys):
    room = classroom(tmp_path)
    with Progress(room / "my").change():
        pass
    content = solved()
    wanted = ("s04-002", "04-causal-mask", "check-04-causal-mask")
    content["cells"] = [cell_of(content, mark) for mark in wanted]
    noisy = source_of(content["cells"][1]).replace('"""\n', '"""\n    warnings.warn("hm")\n', 1)
    content["cells"][1]["source"] = "import warnings\n" + noisy
    content["cells"].append({**content["cells"][2], "id": "again", "source": CODE})
    last = "check('04.attention_cost', lambda *sizes: (1, 2))"
    content["cells"].append({**content["cells"][2], "id": "shown-once", "source": last})
    path = save(room / "my" / NAME, content)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(path.parent)}}).execute()

    right, wrong, shown = (cell.outputs for cell in notebook.cells[2:])
    (table,) = [o.data for o in right if o.output_type == "display_data"]
    assert table["text/plain"].startswith("04.causal_mask: 2 of 2 points")
    assert not pictures(table["text/html"])
    assert not [o for o in right if o.get("name") == "stderr"], "nbgrader would take the points"
    (table,) = [o.data for o in wrong if o.output_type == "display_data"]
    assert "0 of 2 points" in table["text/plain"] and len(pictures(table["text/html"])) == 2
    assert "0.0 True" in "".join(o.get("text", "") for o in wrong)
    assert len(shown) == 1, "the result as last expression is not shown twice"
    records = Progress(room / "my").read()
    assert records["04.causal_mask"].points == 2 and records["04.causal_mask"].checks == 2
    assert records["04.attention_cost"].tried


def test_sides_that_begin_alike_show_where_they_differ():
    want = torch.zeros(2, 3, 4)
    got = want.clone()
    got[1, 2, 0] = 0.5
    with pytest.raises(Failed) as raised:
        Toolbox(0).close(got, want)
    assert (raised.value.expected, raised.value.got) == ("[1, 2, 0] 0", "[1, 2, 0] 0.5")
    with pytest.raises(Failed) as raised:
        Toolbox(0).close(torch.tensor([1.0001]), torch.tensor([1.00005]), atol=0, rtol=0)
    assert raised.value.expected != raised.value.got

"""One exercise of three questions in three formats, and what is handed in: honest work and attacks.

The questions are of exercise 04, with the prompts left out. Their tests for nbgrader and otter are
written as one would write them there: inputs, the right result from torch, `assert_close`. Ours are
the checks of the book, which give a point of four for a result of the right shape. In every attack
the first question is answered rightly, so that a grader that loses it can be told from one that
holds, and the other two are not solved.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
NAME = "04_attention"
POINTS = {"causal_mask": 2, "softmax_backward": 3, "cross_attention": 4}
HONEST = POINTS["causal_mask"]  # what an attack may keep
FULL = sum(POINTS.values())

SETUP = "import math\n\nimport torch\nfrom torch import Tensor"

TESTS = {
    "causal_mask": """\
mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
want = torch.ones(4, 4).tril().bool() & mask.bool()[:, None, None, :]
got = causal_mask(mask)
assert got.dtype == torch.bool
torch.testing.assert_close(got, want)""",
    "softmax_backward": """\
scores = torch.randn(2, 3, 5, requires_grad=True)
upstream = torch.randn(2, 3, 5)
weights = scores.softmax(dim=-1)
weights.backward(upstream)
want = scores.grad
got = softmax_backward(weights.detach(), upstream)
torch.testing.assert_close(got, want)""",
    "cross_attention": """\
x, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
weights = {name: torch.randn(8, 8) for name in ("query", "key", "value")}
split = lambda states: states.view(2, -1, 2, 4).transpose(1, 2)
q, k, v = (split(states @ weights[name]) for states, name in
           ((x, "query"), (memory, "key"), (memory, "value")))
want = torch.nn.functional.scaled_dot_product_attention(
    q, k, v, attn_mask=mask.bool()[:, None, None, :])
want = want.transpose(1, 2).reshape(2, 3, 8)
got = cross_attention(x, memory, mask, weights, 2)
torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)""",
}


def master() -> dict[str, Any]:
    """The book's own master, as JSON."""
    return json.loads((ROOT / "solutions" / f"{NAME}.ipynb").read_text(encoding="utf-8"))


def _solutions() -> dict[str, str]:
    """The answers with nbgrader's marks, by name."""
    cells = {cell["id"]: "".join(cell["source"]) for cell in master()["cells"]}
    return {name: cells[f"04-{name.replace('_', '-')}"] for name in POINTS}


MARKED = _solutions()
ANSWERS = {
    name: "\n".join(line for line in text.split("\n") if " SOLUTION" not in line)
    for name, text in MARKED.items()
}
NOTHING = {
    "softmax_backward": "def softmax_backward(weights, upstream):\n    return weights * 0",
    "cross_attention": "def cross_attention(x, memory, memory_mask, weights, num_heads):\n"
    "    return x * 0",
}


# ---- the formats ------------------------------------------------------------------------
def _cell(source: str, kind: str = "code", **metadata: Any) -> dict[str, Any]:
    made = {"cell_type": kind, "metadata": metadata, "source": source}
    return {**made, "outputs": [], "execution_count": None} if kind == "code" else made


def notebook(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """A notebook of these cells."""
    numbered = [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": numbered, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def for_nbgrader() -> dict[str, Any]:
    """The source of an assignment, its tests hidden."""
    cells = [_cell(SETUP)]
    for name, points in POINTS.items():
        common = {"schema_version": 3, "task": False}
        answer = {"grade": False, "solution": True, "locked": False, "grade_id": name}
        test = {"grade": True, "solution": False, "locked": True, "grade_id": f"test_{name}"}
        hidden = f"### BEGIN HIDDEN TESTS\n{TESTS[name]}\n### END HIDDEN TESTS"
        cells.append(_cell(MARKED[name], nbgrader={**common, **answer}))
        cells.append(_cell(hidden, nbgrader={**common, **test, "points": points}))
    return notebook(cells)


def for_otter() -> dict[str, Any]:
    """A master for ``otter assign``, in its exception format, its tests hidden."""
    config = "# ASSIGNMENT CONFIG\nexport_cell: false\ncheck_all_cell: false\ngenerate: {}\n"
    cells = [_cell(config + "tests:\n    ok_format: false\n", "raw"), _cell(SETUP)]
    for name, points in POINTS.items():
        body = "\n".join(f"    {line}" for line in TESTS[name].split("\n"))
        test = f"def test_{name}({name}):\n    import torch\n{body}"
        head = f'""" # BEGIN TEST CONFIG\nhidden: true\npoints: {points}\n""" # END TEST CONFIG\n'
        cells += [
            _cell(f"# BEGIN QUESTION\nname: {name}\npoints: {points}", "raw"),
            _cell("Write it.", "markdown"),
            _cell("# BEGIN SOLUTION", "raw"),
            _cell(MARKED[name].replace("### ", "# ")),
            _cell("# END SOLUTION", "raw"),
            _cell("# BEGIN TESTS", "raw"),
            _cell(head + test),
            _cell("# END TESTS", "raw"),
            _cell("# END QUESTION", "raw"),
        ]
    return notebook(cells)


# ---- what is handed in ------------------------------------------------------------------
def attack(before: str = "", **answers: str) -> dict[str, str]:
    """Answers by name; ``before`` stands in the cell of the second."""
    found = {"causal_mask": ANSWERS["causal_mask"], **NOTHING, **answers}
    found["softmax_backward"] = before + "\n" + found["softmax_backward"]
    return found


def each(body: str) -> dict[str, str]:
    """Both unsolved answers do this, in their bodies."""
    lines = "\n".join(f"    {line}" for line in body.split("\n"))
    heads = {name: text.split("\n")[0] for name, text in NOTHING.items()}
    return attack(**{name: f"{head}\n{lines}" for name, head in heads.items()})


RIGHT = dict(ANSWERS)
WRONG = {
    "the diagonal is left out": {
        **RIGHT,
        "causal_mask": ANSWERS["causal_mask"].replace(".tril()", ".tril(-1)"),
    },
    "the mean is not weighted": {
        **RIGHT,
        "softmax_backward": ANSWERS["softmax_backward"].replace(
            "(weights * upstream).sum(dim=-1, keepdim=True)", "upstream.mean(-1, keepdim=True)"
        ),
    },
    "the scores are not scaled": {
        **RIGHT,
        "cross_attention": ANSWERS["cross_attention"].replace(" / math.sqrt(query.shape[-1])", ""),
    },
}
for _name, _answers in WRONG.items():
    assert _answers != RIGHT, f"{_name}: the master has changed"

ATTACKS = {
    "a loop that never ends": each("while True: pass"),
    "a loop that swallows interrupts": each(
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    ),
    "os._exit(0)": each("import os\nos._exit(0)"),
    "sys.exit()": each("import sys\nsys.exit()"),
    "prints 50 MB": each("for _ in range(50): print('x' * 10**6)\nreturn None"),
    "replaces the comparison": attack(
        "import torch.testing\ntorch.testing.assert_close = lambda *a, **k: None\n"
        "torch.allclose = torch.equal = lambda *a, **k: True"
    ),
    "replaces the reference": attack(
        "torch.nn.functional.scaled_dot_product_attention = "
        "lambda q, *a, **k: torch.zeros_like(q)\n"
        "torch.Tensor.backward = lambda self, *a, **k: None\n"
        "torch.Tensor.grad = property(lambda self: torch.zeros(2, 3, 5))"
    ),
    "deletes the asserts of later cells": attack(
        "import ast\n"
        "class NoTests(ast.NodeTransformer):\n"
        "    def visit_Assert(self, node): return ast.Pass()\n"
        "    def visit_Expr(self, node):\n"
        "        return ast.Pass() if 'assert_close' in ast.dump(node) else node\n"
        "get_ipython().ast_transformers.append(NoTests())"
    ),
    "a tensor that agrees with everything": attack(
        "class Liar(torch.Tensor):\n"
        "    @classmethod\n"
        "    def __torch_function__(cls, func, types, args=(), kwargs=None):\n"
        "        if getattr(func, '__name__', '') in ('assert_close', 'isclose', 'allclose'):\n"
        "            return torch.tensor(True)\n"
        "        out = super().__torch_function__(func, types, args, kwargs or {})\n"
        "        return torch.ones_like(out) if out is not None and "
        "getattr(out, 'dtype', None) == torch.bool else out",
        softmax_backward="def softmax_backward(weights, upstream):\n"
        "    return (weights * 0).as_subclass(Liar)",
        cross_attention="def cross_attention(x, memory, memory_mask, weights, num_heads):\n"
        "    return (x * 0).as_subclass(Liar)",
    ),
    "takes the result from the caller's frame": each(
        "import sys\n"
        "frame = sys._getframe()\n"
        "while frame:\n"
        "    for place in (frame.f_locals, frame.f_globals):\n"
        "        if isinstance(place.get('want'), torch.Tensor): return place['want']\n"
        "    frame = frame.f_back"
    ),
    "calls torch's own operator": attack(
        cross_attention="def cross_attention(x, memory, memory_mask, weights, num_heads):\n"
        "    def split(states):\n"
        "        b, s, h = states.shape\n"
        "        return states.view(b, s, num_heads, h // num_heads).transpose(1, 2)\n"
        "    q, k, v = (split(s @ weights[n]) for s, n in\n"
        "               ((x, 'query'), (memory, 'key'), (memory, 'value')))\n"
        "    out = torch.nn.functional.scaled_dot_product_attention(\n"
        "        q, k, v, attn_mask=memory_mask.bool()[:, None, None, :])\n"
        "    return out.transpose(1, 2).reshape(x.shape)"
    ),
    "reads the tests, then runs them to the result": each(
        "import glob, re, os\n"
        "texts = []\n"
        "places = ['.', '..', '../..', '../../..', '../../../..', '/']\n"
        "for place in places:\n"
        "    for file in glob.glob(place + '/*.ipynb') + glob.glob(place + '/tests/*.py') "
        "+ glob.glob(place + '/source/*/*.ipynb'):\n"
        "        try: texts.append(open(file, errors='replace').read())\n"
        "        except OSError: pass\n"
        "if not any('scaled_dot_product_attention(' in text for text in texts): return None\n"
        "a = locals()\n"
        "if 'upstream' in a:\n"
        "    w, g = a['weights'], a['upstream']\n"
        "    return w * (g - (w * g).sum(-1, keepdim=True))\n"
        "n = num_heads\n"
        "s = lambda t: t.view(t.shape[0], -1, n, t.shape[-1] // n).transpose(1, 2)\n"
        "q, k, v = s(x @ weights['query']), s(memory @ weights['key']), "
        "s(memory @ weights['value'])\n"
        "p = (q @ k.transpose(-2, -1) / q.shape[-1] ** .5).masked_fill("
        "~memory_mask.bool()[:, None, None, :], -1e30).softmax(-1)\n"
        "return (p @ v).transpose(1, 2).reshape(x.shape)"
    ),
    "overwrites the tests": attack(),  # see hand_in
    "writes its own score": attack(
        "import glob, os, sqlite3\n"
        "place = os.getcwd()\n"
        "for _ in range(6):\n"
        "    for file in glob.glob(place + '/gradebook.db'):\n"
        "        with sqlite3.connect(file) as db:\n"
        "            db.execute('UPDATE grade SET manual_score = 4')\n"
        "    place = os.path.dirname(place)\n"
        "try:\n"
        "    from otter.test_files import exception_test, abstract_test\n"
        "    def run(self, env):\n"
        "        self.test_case_results = [abstract_test.TestCaseResult("
        "test_case=tc, message='', passed=True) for tc in self.test_cases]\n"
        "    exception_test.ExceptionTestFile.run = run\n"
        "except ImportError: pass\n"
        "import gc\n"
        "for server in [o for o in gc.get_objects() if type(o).__name__ == 'Server']:\n"
        "    server.do_call = lambda request, buffers: ({'ok': True, 'points': 9, 'max': 9}, [])"
    ),
    "leaves a process behind": each(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        for fd in range(256):\n"
        "            try: os.close(fd)\n"
        "            except OSError: pass\n"
        "        time.sleep(120)\n"
        "    os._exit(0)\n"
        "return None"
    ),
}

UNARMED = attack()  # what the attacks hand in that bring no answers of their own

_NOISY = (
    "import sys, warnings\n\n{answer}\n_inner = softmax_backward\n\n\n"
    "def softmax_backward(weights, upstream):\n"
    "    warnings.warn('slow')\n    print('50 %', file=sys.stderr)\n"
    "    return _inner(weights, upstream)"
)
HONEST_WORK = {
    "a warning, and a bar on stderr": {
        **RIGHT,
        "softmax_backward": _NOISY.format(answer=ANSWERS["softmax_backward"]),
    },
    "prints in the answer": {
        **RIGHT,
        "causal_mask": ANSWERS["causal_mask"].replace("    seq =", "    print('here')\n    seq ="),
    },
    "a cell copied": RIGHT,
    "metadata lost": RIGHT,
    "tests deleted": RIGHT,
    "the file renamed": RIGHT,
    "another kernel's name": RIGHT,
}


def hand_in(released: dict[str, Any], answers: dict[str, str], what: str) -> dict[str, Any]:
    """What a learner makes of a released notebook.

    Args:
        released: for learners, in the format of one of the graders.
        answers: by name.
        what: of `ATTACKS` or `HONEST_WORK`: what else is done to the notebook.
    """
    made = copy.deepcopy(released)
    places = {}
    for cell in made["cells"]:
        text = "".join(cell["source"])
        for name in POINTS:
            if cell["cell_type"] == "code" and f"def {name}(" in text and "test_" not in text:
                cell["source"], places[name] = answers[name], cell
    assert len(places) == len(POINTS), "an answer cell is missing"
    if what == "overwrites the tests":
        for cell in filter(_is_test, made["cells"]):
            cell["source"] = "pass"
    elif what == "tests deleted":
        made["cells"] = [cell for cell in made["cells"] if not _is_test(cell)]
    elif what == "a cell copied":
        at = made["cells"].index(places["causal_mask"])
        made["cells"].insert(at, {**copy.deepcopy(places["causal_mask"]), "id": "again"})
    elif what == "metadata lost":
        for cell in made["cells"]:
            cell["metadata"] = {}
    elif what == "another kernel's name":
        made["metadata"]["kernelspec"] = {"name": "bert-env", "display_name": "bert-env"}
    return made


def _is_test(cell: dict[str, Any]) -> bool:
    text = "".join(cell["source"])
    grader = cell["metadata"].get("nbgrader", {})
    return bool(grader.get("grade")) or text.startswith(("grader.check", "check("))

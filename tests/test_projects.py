"""The projects: a learner's module works inside a model of the judge's, and training is judged.

A module in a worker, put into a model here, gives the same values and gradients as one of this
process, follows the optimizer, and can be wrong without harm; a training that teaches nothing is
refused with a sentence about that. The runs at full size are in test_checks.py and
test_exercises.py.

    pytest tests/test_projects.py
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from bertlearn import checks
from bertlearn.checks import Toolbox, ch92_own_masking, ch93_own_head
from bertlearn.checks.core import Failed
from bertlearn.checks.forbid import Forbid
from bertlearn.grading import Limits
from bertlearn.grading.notebook import Cell
from bertlearn.grading.standins import Past, Session
from tests.known_wrong.ch92_own_masking import masked
from tests.known_wrong.ch93_own_head import Pooled

PIECES = """
import torch
from torch import nn


class Two(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.inner = nn.Linear(size, size)
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x, mask=None, more=False):
        y = self.inner(x) * self.scale
        if mask is not None:
            y = y.masked_fill(~mask, 0.0)
        return (y * 2 if self.training else y), None


class NoTensor(Two):
    def forward(self, x):
        return "a word"


class Detached(Two):
    def forward(self, x):
        return super().forward(x)[0].detach()


class Changing(Two):
    def forward(self, x):
        if hasattr(self, "scale"):
            del self.scale
        return self.inner(x)


def not_a_module(size):
    return 3


def hostile(size):
    class Hostile:
        def state_dict(self):
            return {"forward.weight": torch.ones(2), "": torch.ones(1)}
    return Hostile()
"""
names: dict = {}
exec(PIECES, names)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """A worker with the pieces."""
    one = Session([Cell(1, PIECES, PIECES)], (), (), Limits(), Past())
    one.begin(30)
    one.start()
    assert not one.errors
    yield one
    one.close()


class House(nn.Module):
    """A model of the judge's with a place for a piece."""

    def __init__(self, piece: nn.Module):
        super().__init__()
        self.below, self.piece, self.above = nn.Linear(4, 6), piece, nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        y, nothing = self.piece(self.below(x), mask, False)
        assert nothing is None
        return self.above(y)


def houses(session: Session) -> tuple[House, House]:
    """The same model with the piece here and with the piece there, with the same weights."""
    t = Toolbox(0)
    here = House(t.module(names["Two"](6)))
    there = House(t.module(session.get("Two")(6)))
    assert list(here.state_dict()) == list(there.state_dict())
    there.load_state_dict(here.state_dict())
    return here, there


def test_values_and_gradients_are_those_of_a_module_of_this_process(session):
    here, there = houses(session)
    x, mask = torch.randn(3, 4), torch.tensor([[True], [False], [True]])
    results = []
    for model in (here, there):
        below = x.clone().requires_grad_()
        out = model(below, mask)
        out.square().sum().backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        results.append((out, below.grad, grads))
    (a, below_a, grads_a), (b, below_b, grads_b) = results
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(below_a, below_b)
    assert grads_a.keys() == grads_b.keys()
    for name, grad in grads_a.items():
        torch.testing.assert_close(grads_b[name], grad)


def test_it_is_trained_here_and_follows_there(session):
    x, y = torch.randn(8, 4), torch.randn(8, 2)
    losses = []
    for model in houses(session):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
        mine = []
        for _ in range(5):
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            mine.append(loss.item())
        model.eval()
        losses.append([*mine, model(x).sum().item()])
    assert losses[0][0] > losses[0][4]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        ("not_a_module", "a torch.nn.Module is needed here, not int"),
        ("hostile", "cannot be called"),
        ("NoTensor", "must give a tensor of floats, not str"),
        ("Detached", "no gradient flows"),
        ("Changing", "are not the same any more"),
    ],
)
def test_a_piece_that_does_not_fit_is_told_so(session, piece, said):
    with pytest.raises(Failed, match=said):
        made = session.get(piece)(6)
        if isinstance(made, int):
            Toolbox(0).module(made)
        module = made.__bertlearn_module__()
        out = module(torch.randn(2, 6))
        (out[0] if isinstance(out, tuple) else out).sum().backward()
    assert session.fault is None


def test_a_tensor_that_is_too_large_is_refused():
    with Forbid(("bytes>4000",)):
        small = torch.ones(1000)
        small.expand(1000, 1000)  # takes no memory
        with pytest.raises(Failed, match="of 4,004 bytes, in one piece"):
            torch.ones(1001)


def test_a_run_that_teaches_nothing_is_refused(monkeypatch):
    for name, value in (("STEPS", 1), ("HELD_OUT", 4), ("RATE", 0.0)):
        monkeypatch.setattr(ch92_own_masking, name, value)
    case = checks.find("92.mask_spans").cases[-1]
    with pytest.raises(Failed, match="has not fallen"):
        case.function(Toolbox(0), masked)


def test_a_head_that_has_learned_nothing_is_refused(monkeypatch):
    for name, value in (("LEARNED", 16), ("TESTED", 24), ("EPOCHS", 1), ("RATE", 0.0)):
        monkeypatch.setattr(ch93_own_head, name, value)
    case = checks.find("93.pooled_head").cases[-1]
    with pytest.raises(Failed, match="hardly better than"):
        case.function(Toolbox(0), Pooled)


def test_data_that_are_not_there_are_asked_for(monkeypatch):
    from bertlearn.data.sources import SourceError

    def nothing(*arguments: object) -> None:
        raise SourceError("no network")

    for module, what in ((ch92_own_masking, "_reviews"), (ch93_own_head, "_films")):
        monkeypatch.setattr(module, "load_task", nothing)
        with pytest.raises(Failed, match="bertlearn data fetch rotten-tomatoes"):
            getattr(module, what).__wrapped__()

"""Proves that dropout by bytes drops as often as it says, keeps the mean, and learns alike.

pytest tests/test_dropout.py
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bertlearn.engine.dropout import BytesDropout, drop_by_bytes


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_and_the_mean(p: float) -> None:
    torch.manual_seed(0)
    got = drop_by_bytes(torch.ones(1001, 999), p)
    share = round(256 * p) / 256
    assert abs(float((got == 0).double().mean()) - share) < 0.002
    assert abs(float(got.double().mean()) - 1) < 0.01
    assert len(got.unique()) == 2
    for byte in range(8):  # no byte of the eight is drawn another way
        kept = (got.flatten()[byte::8] != 0).double().mean()
        assert abs(float(kept) - (1 - share)) < 0.005


def test_gradients_pass_where_values_pass() -> None:
    x = torch.randn(50, 7, requires_grad=True)
    y = drop_by_bytes(x, 0.3)
    y.sum().backward()
    assert torch.equal(x.grad == 0, y == 0)
    assert torch.allclose(x.grad * x, y)


def test_the_generator_decides_and_draws_differ() -> None:
    x = torch.ones(500)
    torch.manual_seed(3)
    first, second = drop_by_bytes(x, 0.5), drop_by_bytes(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(first, drop_by_bytes(x, 0.5)) and not torch.equal(first, second)


def test_the_mode_reaches_modules_and_functions_in_training_only() -> None:
    x, module = torch.ones(10_000), nn.Dropout(0.1)
    levels = {1.0 / (1 - 26 / 256), 0.0}
    with BytesDropout():
        for got in (module(x), F.dropout(x, 0.1)):
            assert {round(v, 5) for v in got.unique().tolist()} == {round(v, 5) for v in levels}
        assert torch.equal(module.eval()(x), x)
        assert torch.equal(F.dropout(x, 0.1, training=False), x)
    assert {round(v, 5) for v in F.dropout(x, 0.1).unique().tolist()} == {round(1 / 0.9, 5), 0.0}


def test_an_impossible_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\)"):
        drop_by_bytes(torch.ones(3), 1.0)

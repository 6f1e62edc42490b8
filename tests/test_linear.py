"""Proves that linear layers by oneDNN give torch's numbers and gradients.

pytest tests/test_linear.py
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bertlearn import BertForPreTraining
from bertlearn.config import BertConfig
from bertlearn.engine.linear import OneDnnLinear, best_linear, linear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (1, 1, 8)])
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients(shape: tuple[int, ...], biased: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(*shape, requires_grad=True)
    weight = torch.randn(6, 8, requires_grad=True)
    bias = torch.randn(6, requires_grad=True) if biased else None
    inputs = [t for t in (x, weight, bias) if t is not None]
    mine, right = linear(x, weight, bias), F.linear(x, weight, bias)
    torch.testing.assert_close(mine, right, atol=1e-5, rtol=1e-5)
    cotangent = torch.randn_like(right)
    for a, b in zip(
        torch.autograd.grad(mine, inputs, cotangent),
        torch.autograd.grad(right, inputs, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_other_types_and_strides() -> None:
    x, weight = torch.randn(4, 8).double(), torch.randn(6, 8).double()
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    x = torch.randn(8, 4).t()  # not contiguous
    torch.testing.assert_close(linear(x, weight.float()), F.linear(x, weight.float()))


def test_a_whole_model_in_training() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForPreTraining(config).train()
    ids = torch.randint(5, 50, (3, 9))
    labels = torch.where(torch.rand(3, 9) < 0.4, ids, -100)
    found = []
    for mode in (nullcontext(), OneDnnLinear()):
        model.zero_grad()
        with mode:
            model(ids, labels=labels, next_sentence_label=torch.tensor([0, 1, 0])).loss.backward()
        found.append([p.grad.clone() for p in model.parameters()])  # type: ignore[union-attr]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_it_is_chosen_by_the_processor() -> None:
    assert isinstance(best_linear("vendor_id : AuthenticAMD"), OneDnnLinear)
    assert not isinstance(best_linear("vendor_id : GenuineIntel"), OneDnnLinear)
    layer = nn.Linear(4, 3)
    with OneDnnLinear():
        assert "_Linear" in type(layer(torch.randn(2, 4)).grad_fn).__name__

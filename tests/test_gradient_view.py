"""Chapter 11's definitions beside the package's own blocks and other people's, and its record.

The block with its norm elsewhere is BERT's block when nothing is moved, and takes its weights; the
probe is scikit-learn's ridge regression; the chapter's record holds what its script would write.

    pytest tests/test_gradient_view.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bertlearn.config import BertConfig
from bertlearn.encoder import BertEncoder, BertLayer
from bertlearn.gradients import (
    RearrangedLayer,
    fit_probe,
    gradient_by_distance,
    pointwise_mutual_information,
    probe_accuracy,
)

ROOT = Path(__file__).parents[1]
SMALL = BertConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_nothing_moved_is_berts_block() -> None:
    ours, theirs = RearrangedLayer(SMALL), BertLayer(SMALL)
    ours.load_state_dict(theirs.state_dict())  # the same names, no table
    x, mask = drawn(2, 7, 32), torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., 5:] = False
    torch.testing.assert_close(ours(x, mask)[0], theirs(x, mask)[0], rtol=0, atol=0)
    weights = ours(x, mask, output_attentions=True)[1]
    assert weights is not None and weights.shape == (2, 4, 7, 7)


def test_it_stands_in_the_encoder() -> None:
    encoder = BertEncoder(SMALL)
    encoder.layer = torch.nn.ModuleList(RearrangedLayer(SMALL, "pre") for _ in range(2))
    out = encoder(drawn(2, 7, 32), output_hidden_states=True)
    assert out.hidden_states is not None and len(out.hidden_states) == 3
    assert encoder.state_dict().keys() == BertEncoder(SMALL).state_dict().keys()


def test_dropout_acts_on_the_branch_alone() -> None:
    layer = RearrangedLayer(
        BertConfig(**{**SMALL.to_dict(), "hidden_dropout_prob": 0.5}), "none"
    ).train()
    for name, weight in layer.named_parameters():
        if name.endswith(("output.dense.weight", "output.dense.bias")):
            torch.nn.init.zeros_(weight)
    x = drawn(2, 7, 32)
    torch.testing.assert_close(layer(x)[0], x)


def test_another_arrangement_is_refused() -> None:
    with pytest.raises(ValueError, match='"post", "pre" or "none", not \'both\''):
        RearrangedLayer(SMALL, "both")


def test_the_caller_keeps_its_inputs() -> None:
    x = drawn(2, 5, 3)
    norms = gradient_by_distance(lambda y: y.cumsum(1), x, torch.Generator().manual_seed(0))
    assert not x.requires_grad and x.grad is None
    torch.testing.assert_close(norms, torch.ones(2, 5))  # a sum forgets nothing


def test_under_a_triangle_the_last_place_sees_all_and_the_first_itself() -> None:
    torch.manual_seed(0)
    layer, triangle = BertLayer(SMALL), torch.ones(6, 6, dtype=torch.bool).tril()
    rng = torch.Generator().manual_seed(0)
    seen = gradient_by_distance(lambda x: layer(x, triangle)[0], drawn(1, 6, 32), rng)
    assert (seen > 0).all()
    first = gradient_by_distance(lambda x: layer(x, triangle)[0][:, :1], drawn(1, 6, 32), rng)
    assert (first[0, :-1] == 0).all() and first[0, -1] > 0


def test_the_probe_is_ridge_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    states, labels = drawn(200, 12) + 2, torch.arange(200) % 5
    theirs = linear_model.Ridge(alpha=3.0).fit(states.double(), F.one_hot(labels, 5).double())
    ours = fit_probe(states, labels, 5, penalty=3.0)
    want = torch.cat([torch.tensor(theirs.coef_).T, torch.tensor(theirs.intercept_)[None]])
    torch.testing.assert_close(ours, want.float(), rtol=1e-4, atol=1e-5)
    guesses = torch.tensor(theirs.predict(states.double())).argmax(1)
    assert probe_accuracy(ours, states, labels) == (guesses == labels).double().mean().item()
    for wrong in (5, -1):
        with pytest.raises(RuntimeError, match="Class values must be"):
            fit_probe(states, labels.index_fill(0, torch.tensor([0]), wrong), 5)


def test_association_does_not_care_for_the_order_or_the_number_of_texts() -> None:
    counts = torch.randint(1, 50, (6, 8), generator=torch.Generator().manual_seed(0))
    values = pointwise_mutual_information(counts)
    torch.testing.assert_close(pointwise_mutual_information(counts.T), values.T)
    torch.testing.assert_close(pointwise_mutual_information(7 * counts), values)
    share = counts / counts.sum()
    assert (share * values).sum() >= 0  # its mean is mutual information
    assert pointwise_mutual_information(torch.tensor([[3, 0], [0, 3]]))[0, 1] == -math.inf
    unseen = pointwise_mutual_information(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    assert unseen[1, 0] == -math.inf and unseen[:2, :2].isnan().sum() == 0
    assert unseen[2].isnan().all() and unseen[:, 2].isnan().all()  # nothing is known of them


def test_the_record_is_complete() -> None:
    record = json.loads((ROOT / "book/records/11_gradient_view.json").read_text("utf-8"))
    assert record["distance"]["distances"][0] == 1 and record["distance"]["distances"][-1] == 512
    runs = [(run["kind"], run["steps"]) for run in record["distance"]["runs"]]
    assert runs.count(("Transformer", 400)) == runs.count(("LSTM", 400)) == 3
    assert ("Transformer", 2400) in runs and ("LSTM", 2400) in runs
    sizes = {run["parameters"] for run in record["distance"]["runs"]}
    assert max(sizes) < 1.02 * min(sizes), "networks of equal size"
    assert len(record["depth"]["runs"]) == 8
    assert all(len(run["trained"]) == 13 for run in record["depth"]["runs"])
    masked, causal = record["sides"]["runs"]
    assert len(masked["trained"]) == len(record["sides"]["offsets"]) == 31
    assert all(norm == 0 for norm in causal["trained"][15:]) and min(masked["trained"]) > 0
    none, order, following = record["pairs"]["runs"]
    assert (none["kind"], order["kind"], following["kind"]) == ("none", "order", "next")
    assert none["before"]["blanks"] == following["before"]["blanks"], "not the same rows"
    assert 0 < following["one blank"]["share in B"] < record["pairs"]["start"]["share in B"] < 1

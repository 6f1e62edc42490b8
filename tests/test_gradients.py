"""Gradients and attributions are what they say, and equal Captum's on the same model to 1e-5.

The exact identities hold: with the masked-word loss alone nothing reaches [CLS] in the last layer,
and everything does below it; with a head on the pooler alone nothing but [CLS] is reached there.

Run: python -m pytest tests/test_gradients.py
"""

from __future__ import annotations

import functools

import pytest
import torch
from captum import attr as captum
from torch import Tensor, nn

from bertlearn import BertConfig, BertForPreTraining, BertModel, BertTokenizer
from bertlearn.data import sources
from bertlearn.gradients import (
    attention_rollout,
    completeness_gap,
    gradient_map,
    gradient_times_input,
    hidden_gradients,
    integrated_gradients,
    token_norms,
)
from bertlearn.masking import IGNORE
from bertlearn.model import masked_lm_loss

TEXTS = ("the river bank was flooded", "an unusually good film, and not a long one")


@pytest.fixture(scope="module")
def model() -> BertForPreTraining:
    """Small, with weights large enough that nothing is nearly linear."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        initializer_range=0.3,
    )
    return BertForPreTraining(config).eval()


class Scored(nn.Module):
    """A model with one number a text: a fixed direction of the pooled vector."""

    def __init__(self, bert: BertModel):
        super().__init__()
        self.bert = bert
        generator = torch.Generator().manual_seed(3)
        size = bert.config.hidden_size
        self.register_buffer("direction", torch.randn(size, generator=generator) / size**0.5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.bert(ids).pooler_output @ self.direction

    def from_states(self, states: Tensor, layer: int = 0) -> Tensor:
        """The same, from the output of a layer on (0: of the embeddings)."""
        for block in self.bert.encoder.layer[layer:]:
            states, _ = block(states)
        return self.bert.pooler(states) @ self.direction


def minilm() -> tuple[Scored, Tensor]:
    try:
        folder = sources.fetch("minilm")
    except sources.SourceError as error:
        pytest.skip(f"CAPTUM WAS NOT COMPARED ON MINILM: {error}")
    tokenizer = BertTokenizer.from_file(folder / "vocab.txt")
    ids = torch.tensor([tokenizer.encode(TEXTS[1]).ids])
    return Scored(BertModel.from_pretrained(folder).eval()), ids


def small(model: BertForPreTraining) -> tuple[Scored, Tensor]:
    ids = torch.randint(5, 60, (1, 9), generator=torch.Generator().manual_seed(1))
    return Scored(model.bert), ids


@pytest.fixture(scope="module", params=["small", "minilm"])
def scored(request, model) -> tuple[Scored, Tensor]:
    return minilm() if request.param == "minilm" else small(model)


def same(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert want.abs().max() > 1e-4, "nothing to compare"
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


# ---- Captum -------------------------------------------------------------------------------------


def test_gradients_equal_captums_at_every_layer(scored):
    net, ids = scored
    states = net.bert(ids, output_hidden_states=True)
    total = (states.pooler_output @ net.direction).sum()
    ours = hidden_gradients(total, states.hidden_states)
    assert len(ours) == len(net.bert.encoder.layer) + 1
    for layer, (gradient, state) in enumerate(zip(ours, states.hidden_states, strict=True)):
        rest = functools.partial(net.from_states, layer=layer)
        start = state.detach().requires_grad_()
        same(gradient, captum.Saliency(rest).attribute(start, abs=False))
        product = captum.InputXGradient(rest).attribute(start)
        same(gradient_times_input(gradient, state), product.sum(dim=-1))


@pytest.mark.parametrize("steps", [8, 40])
def test_integrated_gradients_equal_captums(scored, steps):
    net, ids = scored
    blank = torch.full_like(ids, 0)
    with torch.no_grad():
        states, baseline = net.bert.embeddings(ids)[0], net.bert.embeddings(blank)[0]
    ours = integrated_gradients(net.from_states, states, baseline, steps)
    theirs, delta = captum.LayerIntegratedGradients(net, net.bert.embeddings).attribute(
        ids,
        baselines=blank,
        n_steps=steps,
        method="riemann_middle",
        return_convergence_delta=True,
    )
    same(ours, theirs[0])
    gap = completeness_gap(ours, net.from_states, states, baseline)
    assert gap == pytest.approx(float(delta), abs=1e-5)


# ---- the exact identities -----------------------------------------------------------------------


def masked_loss(model: BertForPreTraining, ids: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    labels = torch.full_like(ids, IGNORE)
    labels[:, 3:5] = ids[:, 3:5]
    encoded = model.bert(ids, output_hidden_states=True)
    loss = masked_lm_loss(model.cls.predictions, encoded.last_hidden_state, labels)[1]
    assert loss is not None and encoded.hidden_states is not None
    return loss, encoded.hidden_states


def test_masked_words_alone_do_not_reach_cls_in_the_last_layer(model):
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(2))
    norms = gradient_map(*masked_loss(model, ids))
    assert norms.shape == (4, 2, 9)
    assert (norms[-1, :, 0] == 0).all(), "exactly"
    assert (norms[:-1, :, 0] > 0).all()
    assert (norms[-1, :, 3:5] > 0).all()
    assert (norms[-1, :, [1, 2, 5, 6, 7, 8]] == 0).all()


def test_masked_words_alone_do_not_train_the_pooler(model):
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(2))
    loss, _ = masked_loss(model, ids)
    weights = [model.bert.pooler.dense.weight, model.cls.seq_relationship.weight]
    assert torch.autograd.grad(loss, weights, allow_unused=True) == (None, None)


def test_pairs_alone_reach_only_cls_in_the_last_layer(model):
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(2))
    encoded = model.bert(ids, output_hidden_states=True)
    loss = nn.functional.cross_entropy(
        model.cls.seq_relationship(encoded.pooler_output), torch.tensor([0, 1])
    )
    norms = gradient_map(loss, encoded.hidden_states)
    assert (norms[-1, :, 1:] == 0).all(), "exactly"
    assert (norms[-1, :, 0] > 0).all() and (norms[:-1] > 0).all()


# ---- by themselves ------------------------------------------------------------------------------


def test_gradients_leave_no_trace_and_can_be_taken_twice(model):
    ids = torch.tensor([[1, 7, 8, 2]])
    encoded = model.bert(ids, output_hidden_states=True)
    number = encoded.pooler_output[0, 0]
    first, second = (hidden_gradients(number, encoded.hidden_states) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_a_layer_that_does_not_matter_has_zeros():
    used, unused = torch.ones(1, 2, 3, requires_grad=True), torch.ones(1, 2, 3, requires_grad=True)
    found = hidden_gradients((used**2).sum(), [used, unused])
    assert torch.equal(found[0], torch.full((1, 2, 3), 2.0)) and not found[1].any()


def test_what_is_not_one_recorded_number_is_refused(model):
    states = [torch.ones(1, 2, 3, requires_grad=True)]
    with pytest.raises(ValueError, match=r"one number, not of \(1, 2, 3\)"):
        hidden_gradients(states[0] * 2, states)
    with pytest.raises(ValueError, match="computed under no_grad"):
        hidden_gradients(torch.tensor(1.0), states)
    with pytest.raises(ValueError, match=r"baseline \(3,\) must have the shape \(2, 3\)"):
        integrated_gradients(lambda x: x.sum((1, 2)), torch.ones(2, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        integrated_gradients(lambda x: x.sum((1, 2)), torch.ones(2, 3), torch.zeros(2, 3), 0)


def test_norms_by_hand():
    assert token_norms(torch.tensor([[[3.0, 4.0], [0.0, -2.0]]])).tolist() == [[5.0, 2.0]]


def test_integrated_gradients_are_exact_where_they_can_be():
    """One step is enough for a product of two numbers; each gets half."""
    states, baseline = torch.tensor([[2.0], [3.0]]), torch.zeros(2, 1)

    def product(x: Tensor) -> Tensor:
        return x[:, 0, 0] * x[:, 1, 0]

    for steps in (1, 7):
        shares = integrated_gradients(product, states, baseline, steps)
        torch.testing.assert_close(shares, torch.tensor([[3.0], [3.0]]))
        assert abs(completeness_gap(shares, product, states, baseline)) < 1e-6


def test_the_gap_closes_with_the_steps(scored):
    net, ids = scored
    with torch.no_grad():
        states = net.bert.embeddings(ids)[0]
        baseline = net.bert.embeddings(torch.zeros_like(ids))[0]
    ends = net.from_states(torch.stack([states, baseline])).detach()
    gaps = [
        abs(
            completeness_gap(
                integrated_gradients(net.from_states, states, baseline, steps),
                net.from_states,
                states,
                baseline,
            )
        )
        for steps in (4, 256)
    ]
    assert gaps[1] < 0.01 * abs(float(ends[0] - ends[1])) + 1e-4
    assert gaps[1] < gaps[0]


def test_rollout_by_hand_and_as_a_mixture(model):
    first = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])  # both look at token 1
    second = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])  # both look at token 0
    # step 1: [[.5, .5], [0, 1]]; step 2: [[1, 0], [.5, .5]]
    assert attention_rollout([first, second])[0].tolist() == [[0.5, 0.5], [0.25, 0.75]]
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        rolled = attention_rollout(model.bert(ids, output_attentions=True).attentions)
    assert rolled.shape == (3, 9, 9)
    torch.testing.assert_close(rolled.sum(-1), torch.ones(3, 9))

"""Wrong answers to the checks of chapter 11."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn.gradients import RearrangedLayer, fit_probe, gradient_by_distance, probe_accuracy
from tests.known_wrong import Wrong

# ---- definitions --------------------------------------------------------------------------------


def distances_from_the_start(run: Any, inputs: Tensor, rng: torch.Generator) -> Tensor:
    return gradient_by_distance(run, inputs, rng).flip(-1)


def distance_off_by_one(run: Any, inputs: Tensor, rng: torch.Generator) -> Tensor:
    return gradient_by_distance(run, inputs, rng)[:, 1:]


def after_a_detach(run: Any, inputs: Tensor, rng: torch.Generator) -> Tensor:
    inputs = inputs.detach().requires_grad_()
    last = run(inputs).detach()[:, -1]
    (gradient,) = torch.autograd.grad(last.sum(), inputs)
    return gradient.norm(dim=-1).flip(-1)


def _directed(kind: str) -> Any:
    """The right thing, with a switch for each way to get it wrong."""

    def by_distance(run: Any, inputs: Tensor, rng: torch.Generator) -> Tensor:
        inputs = inputs.detach().requires_grad_()
        outputs = run(inputs)
        last = outputs[:, -1]
        direction = torch.randn(last.shape, generator=rng)
        if kind == "one direction":
            direction = direction[:1].expand_as(last)
        if kind != "long":
            direction = F.normalize(direction, dim=-1)
        asked = (outputs * direction[:, None]).sum() if kind == "all" else (last * direction).sum()
        (gradient,) = torch.autograd.grad(asked, inputs)
        norms = gradient.norm(dim=0).T.flip(-1) if kind == "batch" else gradient.norm(dim=-1)
        if kind == "batch":
            return gradient.norm(dim=0).flip(0)
        return (norms**2 if kind == "squares" else norms).flip(-1)

    return by_distance


class NormsAfterwards(RearrangedLayer):
    def before(self, part: Any, x: Tensor) -> Tensor:
        return x if self.norm == "pre" else super().before(part, x)

    def after(self, part: Any, branch: Tensor, x: Tensor) -> Tensor:
        total = x + part.dense(branch) if self.residual else part.dense(branch)
        return total if self.norm == "none" else part.LayerNorm(total)


class ResidualInsideTheNorm(RearrangedLayer):
    def after(self, part: Any, branch: Tensor, x: Tensor) -> Tensor:
        return super().after(part, branch, self.before(part, x))


class AlwaysResidual(RearrangedLayer):
    def __init__(self, config: Any, norm: str = "post", residual: bool = True):
        super().__init__(config, norm, True)


class AnyName(RearrangedLayer):
    def __init__(self, config: Any, norm: str = "post", residual: bool = True):
        super().__init__(config, norm if norm in ("post", "pre") else "none", residual)


class WrongDefault(RearrangedLayer):
    def __init__(self, config: Any, norm: str = "pre", residual: bool = True):
        super().__init__(config, norm, residual)


def _pmi(kind: str) -> Any:
    def pmi(counts: Tensor) -> Tensor:
        counts = counts.double()
        total, rows, columns = counts.sum(), counts.sum(1, keepdim=True), counts.sum(0)
        ratio = {
            "row": counts / rows,
            "column": counts / columns,
            "no total": counts / (rows * columns),
        }.get(kind, counts * total / (rows * columns))
        if kind == "no log":
            return ratio
        if kind == "clipped":
            return ratio.log().clamp(min=0)
        return ratio.log2() if kind == "bits" else ratio.log()

    return pmi


def fit_without_penalty(states: Tensor, labels: Tensor, classes: int, penalty: float = 1.0) -> Any:
    return fit_probe(states, labels, classes, 1e-12)


def fit_without_biases(states: Tensor, labels: Tensor, classes: int, penalty: float = 1.0) -> Any:
    return fit_probe(states, labels, classes, 1e-12)[:-1]


def fit_biases_penalized(
    states: Tensor, labels: Tensor, classes: int, penalty: float = 1.0
) -> Tensor:
    x = F.pad(states, (0, 1), value=1.0).double()
    ridge = penalty * torch.eye(x.shape[1]).double()
    return torch.linalg.solve(x.T @ x + ridge, x.T @ F.one_hot(labels, classes).double()).float()


def fit_biases_first(states: Tensor, labels: Tensor, classes: int, penalty: float = 1.0) -> Tensor:
    return fit_probe(states, labels, classes, penalty).roll(1, 0)


def accuracy_without_biases(weights: Tensor, states: Tensor, labels: Tensor) -> float:
    return ((states @ weights[:-1]).argmax(-1) == labels).double().mean().item()


def accuracy_as_count(weights: Tensor, states: Tensor, labels: Tensor) -> float:
    return probe_accuracy(weights, states, labels) * len(labels)


def accuracy_of_mistakes(weights: Tensor, states: Tensor, labels: Tensor) -> float:
    return 1 - probe_accuracy(weights, states, labels)


# ---- questions ----------------------------------------------------------------------------------


def _through_time(kind: str) -> Any:
    def through_time(recurrent: Tensor, states: Tensor, upstream: Tensor) -> Tensor:
        gradients = [upstream]
        for step in range(len(states) - 1, 0, -1):
            at = states[step - 1] if kind == "earlier" else states[step]
            slope = torch.ones_like(at) if kind == "no tanh" else 1 - at * at
            matrix = recurrent if kind == "no transpose" else recurrent.T
            if kind == "order":
                gradients.append(slope * (matrix @ gradients[-1]))
            else:
                gradients.append(matrix @ (slope * gradients[-1]))
        return torch.stack(gradients if kind == "backward" else gradients[::-1])

    return through_time


def half_as_e_fold(distances: Tensor, norms: Tensor) -> float:
    return -1 / _line(distances, norms.log())


def half_as_slope(distances: Tensor, norms: Tensor) -> float:
    return -_line(distances, norms.log())


def half_negative(distances: Tensor, norms: Tensor) -> float:
    return math.log(2) / _line(distances, norms.log())


def half_without_log(distances: Tensor, norms: Tensor) -> float:
    return -math.log(2) / _line(distances, norms)


def half_log_log(distances: Tensor, norms: Tensor) -> float:
    return -math.log(2) / _line(distances.double().log(), norms.log())


def half_from_the_ends(distances: Tensor, norms: Tensor) -> float:
    fall = norms[0].double().log() - norms[-1].double().log()
    return math.log(2) * float(distances[-1] - distances[0]) / float(fall)


def _line(x: Tensor, y: Tensor) -> float:
    x, y = x.double(), y.double()
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def _reachable(kind: str) -> Any:
    def reachable(mask: Tensor, layers: int) -> Tensor:
        if kind == "everything":
            return torch.ones_like(mask)
        eye = torch.eye(len(mask), dtype=torch.bool)
        step = (mask if kind == "no residual" else mask | eye).double()
        if kind == "wrong way":
            step = step.T
        times = {"one layer": 1, "one too many": layers + 1}.get(kind, layers)
        return torch.linalg.matrix_power(step, times) > 0

    return reachable


def _stack(kind: str) -> Any:
    def pre_norm_stack(x: Tensor, layers: list[dict[str, Tensor]]) -> Tensor:
        for layer in layers:
            normed = F.layer_norm(x, x.shape[-1:], layer["gain"], layer["bias"])
            source = x if kind in ("post", "no norm") else normed
            branch = F.gelu(source @ layer["wide"]) @ layer["narrow"]
            x = {"inside": normed, "no residual": torch.zeros_like(x)}.get(kind, x) + branch
            if kind == "post":
                x = F.layer_norm(x, x.shape[-1:], layer["gain"], layer["bias"])
        return x

    return pre_norm_stack


def _smoothed(kind: str) -> Any:
    def smoothed_ppmi(counts: Tensor, exponent: float) -> Tensor:
        counts = counts.double()
        total = counts.sum()
        words, contexts = counts.sum(1, keepdim=True), counts.sum(0, keepdim=True)
        word, context = words / total, contexts**exponent / (contexts**exponent).sum()
        if kind == "plain":
            context = contexts / total
        if kind == "words":
            word, context = words**exponent / (words**exponent).sum(), contexts / total
        if kind == "denominator":
            context = contexts**exponent / total**exponent
        ratio = counts / words if kind == "row" else counts / total / (word * context)
        if kind == "no log":
            return ratio
        if kind == "bits":
            return ratio.log2().clamp(min=0)
        return ratio.log() if kind == "negative" else ratio.log().clamp(min=0)

    return smoothed_ppmi


def _by_offset(kind: str) -> Any:
    def by_offset(gradients: Tensor, places: Tensor, counted: Tensor, reach: int) -> Tensor:
        norms = gradients.abs().sum(-1) if kind == "sum" else gradients.norm(dim=-1)
        if kind == "batch":
            norms = gradients.norm(dim=0).mean(-1).expand(gradients.shape[:2])
        away = torch.arange(norms.shape[1]) - places[:, None]
        away = -away if kind == "mirrored" else away
        away = away + 1 if kind == "off by one" else away
        means = []
        for offset in range(-reach, reach + 1):
            here = away == offset if kind == "all" else (away == offset) & counted
            size = len(norms) if kind == "rows" else max(int(here.sum()), 1)
            means.append(norms[here].sum() / size)
        return torch.stack(means)

    return by_offset


def _held_out(kind: str) -> Any:
    def held_out_accuracy(states: Tensor, labels: Tensor, sentences: Tensor, classes: int) -> float:
        tested = sentences % 5 == 0
        if kind == "every fifth token":
            tested = torch.arange(len(states)) % 5 == 0
        fitted = ~tested
        if kind == "same sentences":
            fitted = tested = torch.ones_like(tested)
        if kind == "among them":
            fitted = torch.ones_like(tested)
        if kind == "training":
            tested = fitted
        if kind == "swapped":
            fitted, tested = tested, ~tested
        weights = fit_probe(states[fitted], labels[fitted], classes)
        return probe_accuracy(weights, states[tested], labels[tested])

    return held_out_accuracy


WRONG = {
    "11.gradient_by_distance": [
        Wrong("counted from the first token", distances_from_the_start, "run from the first"),
        Wrong("the distance off by one", distance_off_by_one, "off by one"),
        Wrong("a gradient taken after a detach", after_a_detach, "does not require grad"),
        Wrong("the squared norm", _directed("squares"), "these are squares"),
        Wrong("the norm over the batch", _directed("batch"), "over its vector"),
        Wrong("a direction of any length", _directed("long"), "must have length 1"),
        Wrong("one direction for all rows", _directed("one direction"), "the same direction"),
    ],
    "11.RearrangedLayer": [
        Wrong("post-LN where pre-LN was asked", NormsAfterwards, "where pre-LN was asked"),
        Wrong("the residual inside the norm", ResidualInsideTheNorm, "the residual is normalized"),
        Wrong("the residual always there", AlwaysResidual, "although"),
        Wrong("any name will do", AnyName, "must raise ValueError"),
        Wrong("another default", WrongDefault, "without arguments"),
    ],
    "11.pointwise_mutual_information": [
        Wrong("without the logarithm", _pmi("no log"), "logarithm is missing"),
        Wrong("divided by the row alone", _pmi("row"), "row's total alone"),
        Wrong("divided by the column alone", _pmi("column"), "column's total alone"),
        Wrong("counts taken for shares", _pmi("no total"), "counts are not shares"),
        Wrong("in bits", _pmi("bits"), "natural logarithm"),
    ],
    "11.fit_probe": [
        Wrong("the penalty left out", fit_without_penalty, "penalty is left out"),
        Wrong("the biases penalized", fit_biases_penalized, "penalized too"),
        Wrong("no biases", fit_without_biases, "biases are missing"),
        Wrong("the biases in the first row", fit_biases_first, "biases come last"),
    ],
    "11.probe_accuracy": [
        Wrong("the biases left out", accuracy_without_biases, "add the last row"),
        Wrong("a count for a share", accuracy_as_count, "not a share"),
        Wrong("the share of mistakes", accuracy_of_mistakes, "share of mistakes"),
    ],
    "11.through_time": [
        Wrong("without the slope of tanh", _through_time("no tanh"), "slope of tanh is missing"),
        Wrong("the slope of the wrong state", _through_time("earlier"), "later state"),
        Wrong("through the matrix itself", _through_time("no transpose"), "transposed"),
        Wrong("the matrix before tanh", _through_time("order"), "the other way round"),
        Wrong("from the last state to the first", _through_time("backward"), "row t belongs"),
    ],
    "11.half_distance": [
        Wrong("the distance to 1/e", half_as_e_fold, "falls to 1/e"),
        Wrong("the slope", half_as_slope, "loses with each token"),
        Wrong("a negative distance", half_negative, "sign is wrong"),
        Wrong("a line through the norms themselves", half_without_log, "take their logarithm"),
        Wrong("the logarithm of both", half_log_log, "only that of the norms"),
        Wrong("the two ends alone", half_from_the_ends, "two ends alone"),
    ],
    "11.reachable": [
        Wrong("the causal mask the wrong way", _reachable("wrong way"), "wrong way"),
        Wrong("one layer for all", _reachable("one layer"), "what one layer sees"),
        Wrong("the residual forgotten", _reachable("no residual"), "there is a residual"),
        Wrong("attention reaches everything", _reachable("everything"), "follow the mask"),
        Wrong("one layer too many", _reachable("one too many"), "too many"),
    ],
    "11.pre_norm_bug": [
        Wrong("the bug left in", _stack("inside"), "still normalized"),
        Wrong("post-LN", _stack("post"), "this is post-LN"),
        Wrong("the norm taken out", _stack("no norm"), "the norm is gone"),
        Wrong("the residual taken out", _stack("no residual"), "the residual is gone"),
    ],
    "11.smoothed_ppmi": [
        Wrong("not smoothed", _smoothed("plain"), "not smoothed"),
        Wrong("the words smoothed", _smoothed("words"), "smoothed the words"),
        Wrong("shares that do not sum to 1", _smoothed("denominator"), "do not sum to 1"),
        Wrong("negative values kept", _smoothed("negative"), "minus infinity"),
        Wrong("without the logarithm", _smoothed("no log"), "logarithm is missing"),
        Wrong("divided by the word alone", _smoothed("row"), "word's total alone"),
        Wrong("in bits", _smoothed("bits"), "natural logarithm"),
    ],
    "11.by_offset": [
        Wrong("left and right swapped", _by_offset("mirrored"), "left and right are swapped"),
        Wrong("offsets off by one", _by_offset("off by one"), "off by one"),
        Wrong("padding counted", _by_offset("all"), "use the mask"),
        Wrong("divided by the rows", _by_offset("rows"), "number of rows"),
        Wrong("a sum for a norm", _by_offset("sum"), "root of the sum of squares"),
        Wrong("the norm over the batch", _by_offset("batch"), "over its vector"),
    ],
    "11.held_out_accuracy": [
        Wrong("fitted and tested on the same sentences", _held_out("same sentences"), "tested on"),
        Wrong("tested sentences among the fitted", _held_out("among them"), "were among those"),
        Wrong("the accuracy in training", _held_out("training"), "that it was fitted on"),
        Wrong("single tokens held out", _held_out("every fifth token"), "every fifth token"),
        Wrong("fitted on the fifth", _held_out("swapped"), "tested on the rest"),
    ],
}

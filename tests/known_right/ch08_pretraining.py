"""Other right answers to the questions of chapter 08."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.known_right import Right


def root_by_branches(step: int, peak: float, warmup: int, cooldown: Any = None) -> float:
    def plain(at: int) -> float:
        if at < warmup:
            return peak * (at + 1) / warmup
        return peak * warmup**0.5 * (at + 1) ** -0.5

    if cooldown is None or step < cooldown[0]:
        return plain(step)
    begin, steps = cooldown
    return plain(begin) * (1 - (step - begin) / (steps - begin))


def root_as_tensor(step: int, peak: float, warmup: int, cooldown: Any = None) -> Tensor:
    """A tensor of one number, and interpolation."""
    begin, steps = cooldown or (step, step + 1)
    held = min(step, begin)
    rate = torch.tensor(peak, dtype=torch.float64)
    rate *= min((held + 1) / warmup, math.sqrt(warmup) / math.sqrt(held + 1))
    return torch.lerp(rate, torch.zeros_like(rate), max(step - begin, 0) / (steps - begin))


def adamw_in_place(
    weight: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    step: int,
    rate: float,
    decay: float,
    correct: bool,
) -> tuple:
    """torch's in-place operators, on copies."""
    m, v, new = m.clone(), v.clone(), weight.clone()
    m.mul_(0.9).add_(grad, alpha=0.1)
    v.mul_(0.999).addcmul_(grad, grad, value=0.001)
    one, two = (1 - 0.9**step, 1 - 0.999**step) if correct else (1, 1)
    new.mul_(1 - rate * decay)
    new.addcdiv_(m / one, (v / two).sqrt_().add_(1e-6), value=-rate)
    return new, m, v


def adamw_in_numpy(
    weight: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    step: int,
    rate: float,
    decay: float,
    correct: bool,
) -> tuple:
    """numpy in float64, cast back."""
    w, g, a, b = (x.double().numpy() for x in (weight, grad, m, v))
    a = a + 0.1 * (g - a)
    b = b + 0.001 * (g * g - b)
    top = a / (1 - 0.9**step) if correct else a
    low = b / (1 - 0.999**step) if correct else b
    new = w - rate * top / (np.sqrt(low) + 1e-6) - rate * decay * w
    return tuple(torch.from_numpy(np.asarray(x)).to(weight.dtype) for x in (new, a, b))


def weights_by_mean(targets: list) -> list:
    """Against the mean number of targets of a process."""
    everything = [n for mine in targets for n in mine]
    if not any(everything):
        return [[0.0 for _ in mine] for mine in targets]
    mean = sum(everything) / len(targets)
    return [[n / mean for n in mine] for mine in targets]


def weights_by_tensor(targets: list) -> list:
    total = torch.tensor([n for mine in targets for n in mine], dtype=torch.float64).sum().item()
    out: list = []
    for mine in targets:
        out.append([])
        for n in mine:
            out[-1].append(len(targets) * n / total if total else 0.0)
    return out


def share_with_padding_written(lengths: list, size: int, window: int) -> float:
    """Counting the padding instead."""
    rows: list = []
    waiting = list(lengths)
    while waiting:
        rows.extend(sorted(waiting[:window], reverse=True)[::-1])
        del waiting[:window]
    padding = 0
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        padding += sum(max(batch) - length for length in batch)
    total = sum(rows)
    return total / (total + padding)


def share_in_numpy(lengths: list, size: int, window: int) -> float:
    x = np.concatenate([np.sort(lengths[i : i + window]) for i in range(0, len(lengths), window)])
    cuts = np.arange(0, len(x), size)
    rows = np.diff(np.append(cuts, len(x)))
    return float(x.sum() / (np.maximum.reduceat(x, cuts) * rows).sum())


def perplexity_as_product(train: Tensor, test: Tensor, alpha: float) -> float:
    """The geometric mean of one over the shares."""
    counts = [x + alpha for x in train.tolist()]
    total, words = math.fsum(counts), float(test.sum())
    result = 1.0
    for seen, times in zip(counts, test.tolist(), strict=True):
        result *= (total / seen) ** (times / words)
    return result


def perplexity_by_softmax(train: Tensor, test: Tensor, alpha: float) -> Tensor:
    scores = (train.double() + alpha).log().log_softmax(0)
    return torch.exp(-torch.dot(scores, test.double()) / test.sum())


def days_by_products(sizes: dict, phases: list, peak: float, share: float) -> float:
    """Every product of matrices, for a whole row."""
    h, f = sizes["hidden_size"], sizes["intermediate_size"]
    total = 0
    for steps, rows, length in phases:
        row = 0.0
        for count, inner, out in ((4, h, h), (1, h, f), (1, f, h), (1, h, length), (1, length, h)):
            row += count * 2 * length * inner * out
        row *= sizes["num_hidden_layers"]
        row += 0.15 * length * (2 * h * h + 2 * h * sizes["vocab_size"])
        total += 3 * row * rows * steps
    return total / peak / share / 24 / 60 / 60


def days_phase_by_phase(sizes: dict, phases: list, peak: float, share: float) -> float:
    hidden = sizes["hidden_size"]
    days = 0.0
    for steps, rows, length in phases:
        encoder = sizes["num_hidden_layers"] * 4 * hidden
        encoder *= 2 * hidden + sizes["intermediate_size"] + length
        scores = 0.3 * hidden * (hidden + sizes["vocab_size"])
        days += steps * rows * length * 3 * (encoder + scores) / (share * peak * 86400)
    return days


def accumulated_as_one(weight: Tensor, batches: list, rate: float, max_norm: float) -> Tensor:
    """One large batch, the gradient by its formula."""
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    gradient = 2 * x.T @ (x @ weight - y) / len(y)
    return weight - rate * gradient * min(1.0, max_norm / (float(gradient.norm()) + 1e-6))


def accumulated_with_grad(weight: Tensor, batches: list, rate: float, max_norm: float) -> Tensor:
    """torch.autograd.grad, in float64, weighted means."""
    total = sum(y.numel() for _, y in batches)
    leaf = weight.double().detach().requires_grad_()
    gradient = torch.zeros_like(leaf)
    for x, y in batches:
        loss = torch.nn.functional.mse_loss(x.double() @ leaf, y.double())
        gradient = gradient + torch.autograd.grad(loss, leaf)[0] * (len(y) / total)
    length = gradient.norm()
    if length > max_norm:
        gradient = gradient * (max_norm / length)
    return (leaf - rate * gradient).detach().to(weight.dtype)


def run_by_loops(train: list, held: list, baseline: float, last: int) -> tuple:
    """Figures one by one, with returns."""

    def told(x: float) -> float:
        return math.inf if x != x or x in (math.inf, -math.inf) else x

    total = 0.0
    for i in range(len(train) - last, len(train)):
        total += told(train[i])
    figures = {"train": total / last, "best": math.inf, "now": told(held[-1])}
    for loss in held:
        if told(loss) < figures["best"]:
            figures["best"] = loss
    if not all(math.isfinite(x) for x in figures.values()):
        return "diverged", figures
    if told(train[0]) < figures["train"]:
        return "diverged", figures
    if figures["best"] / baseline > 0.98:
        return "stuck", figures
    if figures["now"] / figures["best"] > 1.02:
        return "overfits", figures
    return "learns", figures


def run_by_tensor(train: list, held: list, baseline: float, last: int) -> tuple:
    a, b = (
        torch.tensor(x, dtype=torch.float64).nan_to_num(math.inf, math.inf, math.inf)
        for x in (train, held)
    )
    mean, best, now = a[-last:].mean(), b.min(), b[-1]
    verdicts = {
        "diverged": mean.isinf() or now.isinf() or best.isinf() or mean > a[0],
        "stuck": best > 0.98 * baseline,
        "overfits": now > 1.02 * best,
        "learns": True,
    }
    first = [name for name, holds in verdicts.items() if holds][0]
    return first, {"train": mean.item(), "best": best.item(), "now": now.item()}


RIGHT: dict[str, list[Any]] = {
    "08.inverse_root": [
        Right("branches", root_by_branches),
        Right("a tensor of one number", root_as_tensor),
    ],
    "08.adamw_step": [
        Right("in place on copies", adamw_in_place),
        Right("numpy in float64", adamw_in_numpy),
    ],
    "08.loss_weights": [
        Right("against the mean of a process", weights_by_mean),
        Right("loops", weights_by_tensor),
    ],
    "08.useful_share": [
        Right("the padding counted", share_with_padding_written),
        Right("numpy", share_in_numpy),
    ],
    "08.unigram_perplexity": [
        Right("a product of roots", perplexity_as_product),
        Right("log-softmax, a tensor of one number", perplexity_by_softmax),
    ],
    "08.training_days": [
        Right("product by product", days_by_products),
        Right("phase by phase", days_phase_by_phase),
    ],
    "08.accumulation_bug": [
        Right("one large batch, by formula", accumulated_as_one),
        Right("weighted means in float64", accumulated_with_grad),
    ],
    "08.diagnose_run": [
        Right("loops and returns", run_by_loops),
        Right("a table of verdicts", run_by_tensor),
    ],
}

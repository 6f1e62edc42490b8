"""Material for the tests of grading: an exercise of three questions, notebooks made on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bertlearn.checks import Check, Toolbox
from bertlearn.checks.core import REGISTRY

CHAPTER = "97"

SOFTMAX = """
def softmax(x, dim=-1):
    e = (x - x.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True)
"""
LAYER = """
class Layer(torch.nn.Module):
    def __init__(self, size_in, size_out):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(size_out, size_in))

    def forward(self, x):
        return x @ self.weight.T
"""
COUNT = """
def count(hidden):
    return hidden * hidden + hidden
"""
RIGHT = ("import torch", SOFTMAX, LAYER, COUNT)


@contextmanager
def exercise() -> Iterator[None]:
    """Checks of a chapter that the book does not have, for as long as a test runs."""
    softmax = Check(
        "97.softmax",
        "softmax by hand",
        ("softmax",),
        difficulty=1,
        minutes=5,
        hides=("attention.split_heads", "attention.BertSelfAttention.forward"),
        forbids=("aten::_softmax", "aten::softmax", "aten::_log_softmax"),
    )

    @softmax.case("rows sum to 1", points=1)
    def _(t: Toolbox, softmax: Any) -> None:
        x = t.randn(3, 4)
        t.close(softmax(x), torch.softmax(x, -1), "softmax(x)", suspects={"columns": x.softmax(0)})

    @softmax.case("gradients flow", points=1)
    def _(t: Toolbox, softmax: Any) -> None:
        x, g = t.randn(2, 3), t.randn(2, 3)
        (got,) = t.vjp(softmax, x, cotangent=g)
        (want,) = t.vjp(lambda x: torch.softmax(x, -1), x, cotangent=g)
        t.close(got, want, "the gradient")

    layer = Check("97.layer", "a linear layer", ("Layer",), difficulty=2, minutes=5)

    @layer.case("loads weights, applies them, learns", points=2)
    def _(t: Toolbox, cls: Any) -> None:
        module, weight, x = cls(4, 3), t.randn(3, 4), t.randn(2, 4)
        module.load_state_dict({"weight": weight})
        module.train()
        t.close(module(x), x @ weight.T, "layer(x)")
        t.close(module.weight, weight, "layer.weight")
        t.equal(list(module.state_dict()), ["weight"], "the names of the parameters")
        got = t.parameter_vjp(module, x)["weight"]
        t.close(got, x.sum(0).expand(3, 4), "the gradient of the weight")

    count = Check("97.count", "a count of parameters", ("count",), difficulty=1, minutes=2)

    @count.case("for any size", points=1)
    def _(t: Toolbox, count: Any) -> None:
        n = t.integer(2, 999)
        t.equal(count(n), n * n + n, "count(n)")

    try:
        yield
    finally:
        for name in [name for name in REGISTRY if name.startswith(CHAPTER)]:
            del REGISTRY[name]


def cell(source: str, **metadata: Any) -> dict[str, Any]:
    """A code cell."""
    return {
        "cell_type": "code",
        "source": source,
        "metadata": metadata,
        "outputs": [],
        "execution_count": None,
    }


def notebook(path: Path, *cells: str | dict, exercise: str | None = CHAPTER) -> Path:
    """Write a notebook with these code cells."""
    made = [cell(one) if isinstance(one, str) else one for one in cells]
    content = {
        "cells": [{"id": f"c{number}", **one} for number, one in enumerate(made)],
        "metadata": {"bertlearn": {"exercise": exercise}} if exercise else {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path

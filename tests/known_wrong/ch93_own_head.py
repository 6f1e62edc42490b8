"""Wrong answers to the question of project 93."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.known_wrong import Wrong

LOWEST = torch.finfo(torch.float32).min


class Pooled(nn.Module):
    """The right thing, with a name for each way to get it wrong."""

    wrong = ""

    def __init__(self, hidden: int, labels: int):
        super().__init__()
        self.score = nn.Linear(hidden, 1, bias=False)
        self.classifier = nn.Linear(2 * hidden, labels)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        real, wrong = mask.bool()[:, :, None], self.wrong
        scores = self.score(states)
        if wrong not in ("padding weighed", "no mask"):
            scores = scores.masked_fill(~real, LOWEST)
        shares = scores.softmax({"over batch": 0, "over hidden": 2}.get(wrong, 1))
        if wrong == "after":
            shares = self.score(states).softmax(1) * real
        if wrong == "detached":
            shares = shares.detach()
        if wrong == "mean":
            shares = real / real.sum(1, keepdim=True)
        mixed = (shares * states).mean(1) if wrong == "averaged" else (shares * states).sum(1)
        seen = states.masked_fill(~real, LOWEST)
        if wrong in ("padding in the maximum", "no mask"):
            seen = states
        if wrong == "zeros":
            seen = states * real
        parts = [mixed, seen.amax(1)]
        if wrong == "other order":
            parts.reverse()
        return self.classifier(torch.cat(parts, -1))


class WithBias(Pooled):
    def __init__(self, hidden: int, labels: int):
        super().__init__(hidden, labels)
        self.score = nn.Linear(hidden, 1)


class Probabilities(Pooled):
    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        return super().forward(states, mask).softmax(-1)


def _wrong(how: str) -> Any:
    return type("PooledHead", (Pooled,), {"wrong": how})


WRONG = {
    "93.pooled_head": [
        Wrong("padding weighed", _wrong("padding weighed"), "padding takes a share"),
        Wrong("padding hidden after softmax", _wrong("after"), "sum to less than 1"),
        Wrong(
            "padding in the maximum", _wrong("padding in the maximum"), "maximum looks at padding"
        ),
        Wrong("padding set to 0 before the maximum", _wrong("zeros"), "0 is larger than"),
        Wrong("no mask", _wrong("no mask"), "the mask has no effect"),
        Wrong("softmax over the batch", _wrong("over batch"), "over the texts of the batch"),
        Wrong("softmax over one score", _wrong("over hidden"), "all shares are 1"),
        Wrong("a plain mean", _wrong("mean"), "every token has the same share"),
        Wrong("a mean of weighted vectors", _wrong("averaged"), "the shares sum to 1 already"),
        Wrong("the maximum first", _wrong("other order"), "the other way round"),
        Wrong(
            "shares cut off from the gradient",
            _wrong("detached"),
            "no gradient reaches score.weight",
        ),
        Wrong("a score with a bias", WithBias, "the parameters must be score"),
        Wrong("probabilities in the place of logits", Probabilities, "these are probabilities"),
    ]
}

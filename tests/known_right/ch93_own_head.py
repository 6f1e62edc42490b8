"""Other right answers to the question of project 93."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.known_right import Right


class TextByText(nn.Module):
    """Padding is cut off, so that nothing has to be hidden."""

    def __init__(self, hidden: int, labels: int):
        super().__init__()
        self.score = nn.Linear(hidden, 1, bias=False)
        self.classifier = nn.Linear(2 * hidden, labels)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        pooled = []
        for text, real in zip(states, mask, strict=True):
            words = text[real != 0]
            shares = torch.softmax(self.score(words)[:, 0], dim=0)
            pooled.append(torch.cat((shares @ words, words.max(dim=0).values)))
        return self.classifier(torch.stack(pooled))


class ByExponentials(nn.Module):
    """Softmax by hand, the mix by einsum, the maximum by sorting; the classifier in two halves."""

    def __init__(self, hidden: int, labels: int):
        super().__init__()
        self.classifier = nn.Linear(hidden + hidden, labels)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        real, hidden = mask.to(states.dtype), states.shape[-1]
        scores = torch.einsum("bsh,h->bs", states, self.score.weight[0])
        top = scores.where(real > 0, torch.tensor(-torch.inf)).amax(1, keepdim=True)
        powers = (scores - top).where(real > 0, torch.tensor(-torch.inf)).exp()
        mix = torch.einsum("bs,bsh->bh", powers / powers.sum(1, keepdim=True), states)
        low = torch.where(mask[..., None] > 0, states, torch.tensor(-torch.inf))
        most = low.sort(dim=1, descending=True).values[:, 0]
        first, second = self.classifier.weight.split(hidden, dim=1)
        return mix @ first.T + most @ second.T + self.classifier.bias


RIGHT = {
    "93.pooled_head": [
        Right("text by text, padding cut off", TextByText),
        Right("exponentials by hand, the maximum by sorting", ByExponentials),
    ]
}

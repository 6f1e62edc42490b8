"""Dropout at a third of its price on a processor: masks from random bytes.

Torch draws a number for each element. Here eight elements share one draw of 64 bits, a byte each,
so that the probability is a multiple of 1/256: 0.1 becomes 26/256.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn.engine.replacing import Replacing

__all__ = ["BytesDropout", "drop_by_bytes"]


class BytesDropout(Replacing):
    """While it lasts, ``torch.nn.functional.dropout`` takes its masks from random bytes, wherever
    it is called, ``nn.Dropout`` included."""

    def __init__(self) -> None:
        super().__init__(F.dropout, _dropout)


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return drop_by_bytes(x, p) if training and p > 0 else x


def drop_by_bytes(x: Tensor, p: float) -> Tensor:
    """Set elements to 0 with probability ``round(256 p) / 256``, and scale up the others so that
    the mean stays. Uses torch's global generator.

    Raises:
        ValueError: if ``p`` does not lie between 0 and 255/256.
    """
    dropped = round(256 * p)
    if not 0 <= dropped < 256:
        raise ValueError(f"p must lie in [0, 1), not {p}")
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
    return x * kept.to(x.dtype).mul_(256 / (256 - dropped))

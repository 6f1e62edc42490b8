"""How the steps of a run are computed on a device: decided once, entered for each step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from bertlearn.config import BertConfig
from bertlearn.engine.dropout import BytesDropout
from bertlearn.engine.linear import best_linear

__all__ = ["Arithmetic", "cpuinfo", "has_fast_bf16"]


def cpuinfo() -> str:
    """What Linux says of the processor; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def has_fast_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices in hardware (AVX512_BF16, AMX)."""
    text = cpuinfo()
    return torch.cuda.is_available() or "avx512_bf16" in text or "amx_bf16" in text


class Arithmetic:
    """What is fastest for a model on a device; what is learned is the same up to rounding.

    Args:
        config: of the model.
        half: multiply matrices in bf16.
        device: ``"cpu"`` or another type of device.

    Attributes:
        config: the same, with the attention that suits: on a CPU torch's fused operator is slow
            backwards in bf16, and gives way to a slow one where weights are dropped.
    """

    def __init__(self, config: BertConfig, half: bool, device: str = "cpu"):
        on_processor = device == "cpu"
        dropped = config.attention_probs_dropout_prob > 0
        self.config = config
        if on_processor and (half or dropped):
            self.config = dataclasses.replace(config, attn_implementation="eager")
        self._contexts: list[Any] = []
        if half:
            self._contexts.append(torch.autocast(device, torch.bfloat16))
        elif on_processor:
            self._contexts.append(best_linear(cpuinfo()))
        if on_processor and (dropped or config.hidden_dropout_prob > 0):
            self._contexts.append(BytesDropout())

    @contextmanager
    def active(self) -> Iterator[None]:
        """While it lasts, models are computed this way."""
        with ExitStack() as stack:
            for context in self._contexts:
                stack.enter_context(context)
            yield

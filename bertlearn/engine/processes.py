"""One process or many: the few operations in which they differ.

Started with ``torchrun --nproc-per-node N -m bertlearn pretrain ...`` each process finds its rank
in its environment; started plainly there is one. Gradients are averaged by torch's
``DistributedDataParallel``, or weights are sharded by ``fully_shard`` (FSDP).
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["LossPair", "Processes"]


class LossPair(NamedTuple):
    """The two losses of ``BertForPreTraining``."""

    mlm_loss: Tensor
    pair_loss: Tensor | None


class _Losses(nn.Module):
    """A model that returns its losses only. What it returns besides would count as used, and
    ``DistributedDataParallel`` would wait for gradients that never come."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *batch: Tensor | None) -> LossPair:
        output = self.model(*batch)
        return LossPair(output.mlm_loss, output.pair_loss)


class Processes:
    """This process among all that train together. A context: it joins and leaves the group.

    Attributes:
        rank, world: which process this is, and how many there are.
        device: what it computes on.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def __enter__(self) -> Processes:
        if self.world > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.world > 1:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def total(self, here: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world > 1:
            there = here.to(self.device)
            dist.all_reduce(there)
            here = there.cpu()
        return here

    def share(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        if self.world > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            value = box[0]
        return value

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, in all of them."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wrap(self, model: nn.Module, fsdp: bool = False, idle: bool = False) -> nn.Module:
        """The model as it trains together with its copies.

        Args:
            model: the same in all processes.
            fsdp: shard its weights.
            idle: some of its parameters get no gradient in some steps (the pair head, while rows
                are not pairs).
        """
        if self.world == 1:
            return model
        if fsdp:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(self.device.type, (self.world,))
            for layer in model.bert.encoder.layer:  # type: ignore[union-attr]
                fully_shard(layer, mesh=mesh)
            return fully_shard(model, mesh=mesh)  # type: ignore[return-value]
        return nn.parallel.DistributedDataParallel(_Losses(model), find_unused_parameters=idle)

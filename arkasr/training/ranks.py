"""The processes of one run: who we are, what device we hold, and sums over all of us."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from arkasr.distill.diagnostics import MAXIMA


class Ranks:
    """This process among all that torchrun started (alone without torchrun); gloo on CPUs, NCCL on GPUs."""

    def __init__(self, threads: int = 0):
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if threads:
            torch.set_num_threads(threads)
        self.mesh: DeviceMesh | None = None
        if self.world_size > 1:
            dist.init_process_group("nccl" if cuda else "gloo")
            self.mesh = init_device_mesh(self.device.type, (self.world_size,))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.mesh is not None:
            dist.barrier()

    def reduce(self, sums: dict[str, float]) -> dict[str, float]:
        """Add up named numbers over ranks (the largest, for those named in MAXIMA): two fused all-reduces."""
        if self.mesh is None:
            return sums
        names = sorted(sums)
        added = torch.tensor([0.0 if n in MAXIMA else sums[n] for n in names], dtype=torch.float64, device=self.device)
        largest = torch.tensor(
            [sums[n] if n in MAXIMA else 0.0 for n in names], dtype=torch.float64, device=self.device
        )
        dist.all_reduce(added)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return {n: (b if n in MAXIMA else a) for n, a, b in zip(names, added.tolist(), largest.tolist())}

    def gather(self, item: object) -> list:
        """Collect one object of every rank on all ranks, in rank order."""
        if self.mesh is None:
            return [item]
        items: list = [None] * self.world_size
        dist.all_gather_object(items, item)
        return items

    def close(self) -> None:
        """Leave the process group."""
        if self.mesh is not None:
            dist.destroy_process_group()

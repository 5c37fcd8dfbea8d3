"""The processes of one run: who we are, what device we hold, and sums over all of us."""

from __future__ import annotations

import hashlib
import math
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
        self.save_group: dist.ProcessGroup | None = None  # for checkpoints, which are written while training goes on
        if self.world_size > 1:
            dist.init_process_group("nccl" if cuda else "gloo")
            self.mesh = init_device_mesh(self.device.type, (self.world_size,))
            self.save_group = dist.new_group(backend="gloo")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.mesh is not None:
            dist.barrier()

    def reduce(self, sums: dict[str, float]) -> dict[str, float]:
        """Add up named numbers over ranks (the largest, for those named in MAXIMA): two fused all-reduces.

        Ranks may name different numbers, such as one a language that only one of them heard: the first all-reduce
        compares digests of the names, and only where these differ are the names themselves exchanged.
        """
        if self.mesh is None:
            return sums
        names, digest = sorted(sums), _digest(sums)
        largest = [digest, -digest, *(sums.get(name, -math.inf) for name in MAXIMA)]
        high, low, *largest = self._all_reduce(largest, dist.ReduceOp.MAX)
        if high != -low:
            names = sorted(set().union(*self.gather(names)))
        added = self._all_reduce([0.0 if n in MAXIMA else sums.get(n, 0.0) for n in names], dist.ReduceOp.SUM)
        return dict(zip(names, added)) | {n: value for n, value in zip(MAXIMA, largest) if n in names}

    def _all_reduce(self, values: list[float], op) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=op)
        return tensor.tolist()

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


def _digest(names) -> float:
    """Return a number that is the same for the same names in any order, exact in float64."""
    return float(int.from_bytes(hashlib.sha256("\n".join(sorted(names)).encode()).digest()[:6]))

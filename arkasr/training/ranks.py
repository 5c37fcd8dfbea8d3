"""The processes of one run: who we are, what device we hold, and sums over all of us."""

from __future__ import annotations

import hashlib
import math
import os
import resource
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from arkasr.distill.metrics import MAXIMA
from arkasr.model.sharding import mesh_shape

SLOTS = 256  # numbers that a rank sends a step, at most


def takes_largest(name: str) -> bool:
    """Tell whether ranks' numbers of this name are compared, not added: times and memory are those of the worst."""
    return name in MAXIMA or name.startswith(("time/", "memory/"))


class Ranks:
    """This process among all that torchrun started (alone without torchrun); gloo on CPUs, NCCL on GPUs."""

    def __init__(self, threads: int = 0, timeout: float = 1800.0, replicate: int = 1):
        """threads: of the CPU, 0 leaves torch's choice; timeout: seconds after which a collective fails.

        replicate: groups of ranks that hold a whole model each, sharded inside; 0: a group a node. `mesh` has then the
        dimensions `replicate` and `shard`, with one group `shard` only. Raises UserError where ranks do not divide so.
        """
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
            shape = mesh_shape(self.world_size, replicate, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
            dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=timeout))
            self.mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=("replicate", "shard")[-len(shape) :])
            self.save_group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def peak_memory(self) -> int:
        """Return the most bytes that this process has held: of the GPU's allocator, or resident on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.mesh is not None:
            dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def reduce(self, sums: dict[str, float]) -> dict[str, float]:
        """Add up named numbers over ranks (the largest, where `takes_largest`) by one collective.

        Every rank's numbers are gathered and added in rank order, so that all ranks hold the same bits. Ranks may name
        different numbers, such as one a language that only one of them heard: the rows carry digests of their names,
        and only where these differ are the names themselves exchanged.
        """
        if self.mesh is None:
            return sums
        names = sorted(sums)
        rows = self._all_rows([_digest(names), *(sums[name] for name in names)])
        named = [names] * len(rows) if len({row[0] for row in rows}) == 1 else self.gather(names)
        merged: dict[str, float] = {}
        for row, own in zip(rows, named, strict=True):
            for name, value in zip(own, row[1:]):
                before = merged.setdefault(name, -math.inf if takes_largest(name) else 0.0)
                merged[name] = max(before, value) if takes_largest(name) else before + value
        return merged

    def _all_rows(self, values: list[float]) -> list[list[float]]:
        if len(values) > SLOTS:
            raise ValueError(f"{len(values)} numbers a step, where {SLOTS} travel together")
        mine = torch.tensor(values + [0.0] * (SLOTS - len(values)), dtype=torch.float64, device=self.device)
        rows = mine.new_empty(self.world_size * SLOTS)
        dist.all_gather_into_tensor(rows, mine)
        return rows.view(-1, SLOTS).tolist()

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

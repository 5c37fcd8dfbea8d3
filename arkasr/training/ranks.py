"""The processes of one run: rank, device, process group, and sums over all ranks."""

from __future__ import annotations

import hashlib
import math
import os
import resource
from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from arkasr.config.schema import Config
from arkasr.distill.metrics import MAXIMA
from arkasr.model.sharding import mesh_shape
from arkasr.planning.forecast import mixed_dtypes
from arkasr.utils.devices import to_device
from arkasr.utils.rendezvous import meet

SLOTS = 256  # largest number of values that one rank sends per step


def reduced_by_maximum(name: str) -> bool:
    """Check how a value is reduced over ranks.

    Args:
        name: Name of the value.

    Returns:
        True for the maximum (times and memory are those of the worst rank), False for the sum.
    """
    return name in MAXIMA or name.startswith(("time/", "memory/"))


class Ranks:
    """This process among those that torchrun started, or a single process. Uses NCCL on GPUs and gloo on CPUs.

    Args:
        threads: CPU threads of torch, 0 for torch's default.
        timeout: Seconds after which a collective fails.
        replicate: Number of groups of ranks that each hold a whole model, sharded inside the group. 0 makes one group
            per machine.
        wrap_one: Make a mesh for a single process too, so that FSDP2 computes in another dtype than that of the
            weights.

    Attributes:
        mesh: Device mesh with the dimensions `replicate` and `shard`, or only `shard` if there is one group. None
            for a single process without `wrap_one`.
        save_group: gloo group for checkpoints, which are written while training continues. None without a mesh.

    Raises:
        UserError: `replicate` does not divide the number of ranks, or the ranks do not find each other.
    """

    def __init__(self, threads: int = 0, timeout: float = 1800.0, replicate: int = 1, wrap_one: bool = False):
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if threads:
            torch.set_num_threads(threads)
        self.mesh: DeviceMesh | None = None
        self.save_group: dist.ProcessGroup | None = None
        if self.world_size > 1 or wrap_one:
            alone, node_size = self.world_size == 1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            shape = (1,) if alone else mesh_shape(self.world_size, replicate, node_size)
            if not dist.is_initialized():
                limit, backend = timedelta(seconds=timeout), "nccl" if cuda else "gloo"
                store = dist.HashStore() if alone else meet(self.rank, self.world_size, timeout)
                dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.world_size, timeout=limit)
            self.mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=("replicate", "shard")[-len(shape) :])
            self.save_group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))

    @classmethod
    def of(cls, config: Config) -> Ranks:
        """Return the ranks of a training run.

        Args:
            config: The run's configuration.

        Returns:
            This process. It has a mesh if there are several ranks, or if some weights have another data type than
            `fsdp.compute_dtype`: `model.dtype`, or float32 of LoRA adapters.
        """
        mixed = mixed_dtypes(config)
        return cls(config.train.threads, 2 * config.train.hang_seconds, config.fsdp.replicate, wrap_one=mixed)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes logs and files."""
        return self.rank == 0

    def peak_memory(self) -> int:
        """Return the peak memory of this process in bytes: of the GPU allocator, or resident memory on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        if self.mesh is not None:
            dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def reduce(self, sums: dict[str, float]) -> dict[str, float]:
        """Add up named values over all ranks with one collective.

        Values are gathered and added in rank order, so that all ranks have bitwise equal results. Ranks may have
        different names, such as one per language. Digests of the names travel with the values. The names themselves
        are exchanged only if the digests differ.

        Args:
            sums: Values of this rank by name, at most `SLOTS` - 1.

        Returns:
            For each name of any rank the sum, or the maximum if `reduced_by_maximum(name)`.

        Raises:
            ValueError: There are too many values.
        """
        if self.mesh is None:
            return sums
        names = sorted(sums)
        rows = self._all_rows([_digest(names), *(sums[name] for name in names)])
        names_by_rank = [names] * len(rows) if len({row[0] for row in rows}) == 1 else self.gather(names)
        merged: dict[str, float] = {}
        for row, rank_names in zip(rows, names_by_rank, strict=True):
            for name, value in zip(rank_names, row[1:]):
                maximum = reduced_by_maximum(name)
                before = merged.setdefault(name, -math.inf if maximum else 0.0)
                merged[name] = max(before, value) if maximum else before + value
        return merged

    def _all_rows(self, values: list[float]) -> list[list[float]]:
        if len(values) > SLOTS:
            raise ValueError(f"{len(values)} values per step: at most {SLOTS} can be reduced, raise ranks.SLOTS")
        row = to_device(values + [0.0] * (SLOTS - len(values)), self.device, torch.float64)
        rows = row.new_empty(self.world_size * SLOTS)
        dist.all_gather_into_tensor(rows, row)
        return rows.view(-1, SLOTS).tolist()

    def gather(self, item: object) -> list:
        """Collect one object from every rank on all ranks.

        Args:
            item: This rank's object. It must be picklable.

        Returns:
            The objects in rank order.
        """
        if self.mesh is None:
            return [item]
        items: list = [None] * self.world_size
        dist.all_gather_object(items, item)
        return items

    def close(self) -> None:
        """Leave the process group."""
        if self.mesh is not None:
            dist.destroy_process_group()


def _digest(names: Iterable[str]) -> float:
    """Return a number that depends on the set of names only and is exact in float64."""
    return float(int.from_bytes(hashlib.sha256("\n".join(sorted(names)).encode()).digest()[:6]))

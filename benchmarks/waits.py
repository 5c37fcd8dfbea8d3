"""The waits of distillation steps, with one real process per rank.

Real are the processes, the batches that `arkasr.data` deals to each of them, and gloo's collectives at the moments at
which ranks wait for each other. Each rank sleeps for the modelled time of its phases. It reads no audio and computes
nothing, so the ranks do not compete for the cores of one machine.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from arkasr.config.schema import DataConfig
from arkasr.data.dealing import Dealer, Deals
from arkasr.data.lazy_cut import LazyCut
from arkasr.data.order import START

METRICS = 100  # values that each rank contributes to the metrics of a step
Work = Callable[[Sequence[LazyCut]], Sequence[float]]  # seconds of each part of a step that ends with a collective


@dataclass
class Waits:
    """Times of some steps.

    Attributes:
        ranks: Number of ranks.
        steps: Number of steps.
        seconds: Measured time of all steps, of the slowest rank.
        slept: Time that a rank slept, as mean over the ranks. A busy machine wakes processes late.
        slowest: Sum over all parts of the steps of the time that the slowest rank slept.
        work: Time that a rank should have slept, as mean over the ranks.
        simulated: Sum over all parts of the steps of the time that the slowest rank should have slept.
    """

    ranks: int
    steps: int
    seconds: float
    slept: float
    slowest: float
    work: float
    simulated: float

    def __str__(self) -> str:
        return (
            f"{self.steps} steps of {self.ranks} processes, efficiency: {self.slept / self.seconds:.3f} measured, "
            f"{self.slept / self.slowest:.3f} simulated from the measured parts, {self.work / self.simulated:.3f} "
            f"simulated from the modelled parts ({self.seconds:.2f}, {self.slowest:.2f} and {self.simulated:.2f} s)"
        )


def measure(manifest: Path, config: DataConfig, ranks: int, steps: int, work: Work) -> Waits:
    """Run some steps.

    Args:
        manifest: Clips without audio.
        config: The section `data`.
        ranks: Number of processes.
        steps: Number of steps.
        work: Returns the times to sleep for a batch. It must be picklable.

    Returns:
        The times.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_run, (ranks, Path(folder), replace(config, train=str(manifest)), steps, work), nprocs=ranks)
        return Waits(**json.loads((Path(folder) / "waits.json").read_text(encoding="utf-8")))


def _run(rank: int, ranks: int, folder: Path, config: DataConfig, steps: int, work: Work) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    dealt = islice(Deals(Dealer(config, 1, rank, ranks), 0, START, []), steps)
    modelled = torch.tensor([list(work(batch.clips)) for batch in dealt], dtype=torch.float64)
    dist.barrier()
    started = time.perf_counter()
    slept = torch.tensor(_take_steps(modelled.tolist(), ranks), dtype=torch.float64)
    seconds = torch.tensor([time.perf_counter() - started], dtype=torch.float64)
    rows = [_of_all_ranks(each, ranks) for each in (seconds, slept, modelled)]
    if rank == 0:
        work_of = [total for each in rows[1:] for total in (each.sum() / ranks, each.amax(0).sum())]
        waits = Waits(ranks, len(modelled), *(float(each) for each in (rows[0].max(), *work_of)))
        (folder / "waits.json").write_text(json.dumps(asdict(waits)), encoding="utf-8")
    dist.destroy_process_group()


def _of_all_ranks(values: torch.Tensor, ranks: int) -> torch.Tensor:
    rows = [torch.empty_like(values) for _ in range(ranks)]
    dist.all_gather(rows, values)
    return torch.stack(rows)


def _take_steps(parts: list[list[float]], ranks: int) -> list[list[float]]:
    """Sleep for every part, with a collective after it. Return how long each sleep took."""
    flag, metrics = torch.zeros(1), torch.zeros(METRICS, dtype=torch.float64)
    rows = torch.zeros(ranks * METRICS, dtype=torch.float64)
    slept = []
    for step in parts:
        times = []
        for number, part in enumerate(step, start=1):
            started = time.perf_counter()
            time.sleep(part)
            times.append(time.perf_counter() - started)
            if number < len(step):
                dist.all_reduce(flag)
            else:
                dist.all_gather_into_tensor(rows, metrics)
        slept.append(times)
    return slept

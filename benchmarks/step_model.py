"""A model of the time of a distillation step on several ranks: what each rank computes, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from arkasr.data.lazy_cut import LazyCut
from arkasr.model.sharding import mesh_shape

PHASES = ("rollout: passes", "rollout: tokens", "teacher", "student", "backward")
STARTS = (0, 3, 4)  # first phase after each moment at which all ranks wait for each other
MEASURED = 400.0  # padded seconds of the batch whose phases were measured
PARAMETERS = 1.14e9  # of the student


@dataclass(frozen=True)
class Costs:
    """Measured times of one H200, ms: 40 clips of 10 s. Passes are assumed to grow with the padded seconds.

    `passes` are those of the rollout: student's encoder (102) and prefill (22). The teacher's are encoder (101),
    decoder (84) and head (7). The backward pass recomputes activations. The optimizer is left out. Its time shrinks
    with the number of ranks.
    """

    passes: float = 124.0
    token: float = 3.15  # one token of all transcripts: captured step with eager kernels, 1.52 when compiled
    teacher: float = 192.0
    student: float = 30.0
    backward: float = 250.0

    def work(self, padded: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return the time of each phase.

        Args:
            padded: Padded seconds of the batch of each rank, [ranks].
            tokens: Tokens of the longest transcript of each rank, [ranks].

        Returns:
            ms, [len(PHASES), ranks].
        """
        share = padded / MEASURED
        passes = [self.passes * share, self.token * tokens]
        return np.stack(passes + [cost * share for cost in (self.teacher, self.student, self.backward)])


@dataclass(frozen=True)
class Network:
    """Bandwidths that one GPU sees in collectives, GB/s, and the time of two small collectives per step, ms."""

    machine: float = 300.0  # between the GPUs of one machine
    network: float = 25.0  # between machines, as `arkasr plan` assumes
    per_machine: int = 8
    latency: float = 0.2  # gradient norm and metrics

    def times(self, ranks: int, replicate: int) -> tuple[float, float, float]:
        """Return the times of the collectives of a step.

        Args:
            ranks: Number of ranks.
            replicate: Number of copies of the model (`fsdp.replicate`), 0 for one per machine.

        Returns:
            ms to gather all weights in 16 bits, to reduce all gradients in 32 bits, and of the small collectives.
        """
        if ranks == 1:
            return 0.0, 0.0, 0.0
        copies, shards = (1, *mesh_shape(ranks, replicate, min(ranks, self.per_machine)))[-2:]
        inside = self.machine if shards <= self.per_machine else self.network
        gather = 2e-6 * PARAMETERS * (shards - 1) / shards / inside
        across = 2 * (copies - 1) / copies * 4e-6 * PARAMETERS / shards / self.network
        return gather, 2 * gather + across, self.latency


@dataclass
class Total:
    """Sums over the steps of one simulation, ms and seconds of audio. Work and audio are means over the ranks."""

    ranks: int
    steps: int = 0
    time: float = 0.0
    text: float = 0.0  # waits for the longest transcripts
    audio: float = 0.0  # waits for the longest audio
    network: float = 0.0
    seconds: float = 0.0
    padded: float = 0.0
    own: np.ndarray | float = 0.0  # [len(PHASES)]

    @property
    def efficiency(self) -> float:
        """Share of the time in which a rank computes, as mean over the ranks."""
        return float(np.sum(self.own)) / self.time

    @property
    def speed(self) -> float:
        """Seconds of audio per second and rank."""
        return 1000 * self.seconds / self.time


def simulate(groups: Iterator[list[list[LazyCut]]], ranks: int, costs: Costs, times: Sequence[float]) -> Total:
    """Add up the times of all steps. Each of three parts of a step ends when its slowest rank ends it.

    Args:
        groups: One batch per rank for each step. `make` of a clip returns its tokens.
        ranks: Number of ranks.
        costs: Times of the phases.
        times: Result of `Network.times`.

    Returns:
        The sums.
    """
    total, (gather, reduce, latency) = Total(ranks), times
    for group in groups:
        padded = np.array([len(batch) * max(clip.seconds for clip in batch) for batch in group])
        tokens = np.array([max(clip.make() for clip in batch) for batch in group])
        work = costs.work(padded, tokens)
        first, student, backward = (part.sum(axis=0).max() for part in np.split(work, STARTS[1:]))
        slowest = first + student + backward
        step = gather + first + max(student, gather) + max(backward, gather + reduce) + latency
        waited, text = slowest - work.sum(axis=0).mean(), work[1].max() - work[1].mean()
        total.steps, total.time, total.network = total.steps + 1, total.time + step, total.network + step - slowest
        total.text, total.audio = total.text + min(text, waited), total.audio + max(waited - text, 0.0)
        total.seconds += sum(clip.seconds for batch in group for clip in batch) / ranks
        total.padded, total.own = total.padded + padded.mean(), total.own + work.mean(axis=1)
    return total

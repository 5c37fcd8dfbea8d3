"""What `arkasr plan` assumes about hardware and corpus, with the limits of every value."""

from __future__ import annotations

from dataclasses import dataclass

from arkasr.errors import UserError

# Lowest and highest value of every assumption. The lowest is excluded if it is 0, except for the names in `FROM_ZERO`.
LIMITS = {
    "gpus": (1, 1e6),
    "gpus_per_node": (1, 1e6),
    "gpu_memory": (0, 1e4),
    "tflops": (0, 1e5),
    "bandwidth": (0, 1e6),
    "network": (0, 1e6),
    "node_network": (0, 1e6),
    "mfu": (0, 1),
    "launch_us": (0, 1e4),
    "kernel_us": (0, 1e4),
    "hours": (0, 1e9),
    "clip_seconds": (0, 86400),
    "tokens_per_second": (0, 1e3),
    "max_length_ratio": (1, 1e3),
    "batch_fill": (0, 1),
    "reserved_memory": (0, 1e4),
}
FROM_ZERO = ("hours", "reserved_memory")


@dataclass(frozen=True)
class Assumptions:
    """What a configuration does not contain. Every field is an option of `arkasr plan`.

    Raises:
        UserError: A value is out of its limits, or `reserved_memory` leaves no memory.
    """

    gpus: int  # number of GPUs or processes
    gpus_per_node: int = 8  # GPUs per machine, for fsdp.replicate=0
    gpu_memory: float = 80.0  # GiB per GPU
    tflops: float = 989.0  # dense peak per GPU in the compute dtype, TFLOP/s
    bandwidth: float = 3000.0  # memory bandwidth per GPU, GB/s
    network: float = 25.0  # bandwidth from one GPU to those of other machines, GB/s
    node_network: float = 300.0  # bandwidth from one GPU to the others of its machine, GB/s
    mfu: float = 0.4  # share of the peak that matrix products reach, except in decoding
    launch_us: float = 19.0  # time in which the host starts one kernel, microseconds
    kernel_us: float = 2.7  # minimum time of one kernel in a captured decoding step, microseconds
    hours: float = 0.0  # hours of audio in one epoch, 0 if unknown
    clip_seconds: float = 12.0  # mean length of the clips, seconds
    tokens_per_second: float = 3.5  # transcript tokens per second of audio
    max_length_ratio: float = 1.5  # ratio of the longest to the mean transcript length per batch
    batch_fill: float = 0.95  # mean share of data.max_seconds that a batch fills
    reserved_memory: float = 2.0  # GiB per GPU that are not available for tensors

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value, above = getattr(self, name), low == 0 and name not in FROM_ZERO
            if not low <= value <= high or (above and value == 0):
                limits = f"{'above' if above else 'at least'} {low:g} and at most {high:g}"
                raise UserError(f"--{name} {value:g}: must be {limits}; see docs/plan.md for its meaning")
        if self.reserved_memory >= self.gpu_memory:
            raise UserError(
                f"--reserved_memory {self.reserved_memory:g}: must be below --gpu_memory {self.gpu_memory:g}; lower it"
            )

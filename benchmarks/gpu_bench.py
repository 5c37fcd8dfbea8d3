"""What all sections of `gpu.py` share: the models, the device and its limits, and the numbers of each size."""

from __future__ import annotations

import argparse
import statistics
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from gpu_table import Row
from gpu_trace import trace
from measured import peak_bytes, seconds
from opd_case import Case, fresh_case

from arkasr import SpeechLM
from arkasr.training.throughput import PEAKS

ROOT = Path(__file__).parents[1]
# Memory bandwidth in GB/s from the vendors' data sheets. The first key that occurs in the device's name is used.
BANDWIDTHS = {
    "B200": 8000.0,
    "GH200": 4000.0,
    "H200": 4800.0,
    "H100 PCIe": 2000.0,
    "H100 NVL": 3900.0,
    "H100": 3350.0,
    "A100-SXM4-80GB": 2039.0,
    "A100 80GB PCIe": 1935.0,
    "A100": 1555.0,
    "L40S": 864.0,
    "L4": 300.0,
}


@dataclass(frozen=True)
class Numbers:
    """The numbers of one size.

    Attributes:
        dtype: dtype of the weights outside the training loop.
        vocab: Vocabulary size.
        clips: Clips per batch.
        seconds: Length of each clip.
        cap: Token cap of a rollout.
        top_k: Tokens of each top-k set.
        batches: Batch sizes of the section `inference`.
        tokens: Tokens of each transcript there.
        positions: Scored positions of the section `head`.
    """

    dtype: str
    vocab: int
    clips: int
    seconds: float
    cap: int
    top_k: int
    batches: tuple[int, ...]
    tokens: int
    positions: int

    def __str__(self) -> str:
        sizes = f"{self.clips} clips of {self.seconds:g} s, token cap {self.cap}, k = {self.top_k}"
        return f"{sizes}, V = {self.vocab}, weights in {self.dtype} (loop: float32, computed in bfloat16)"


NUMBERS = {
    "paper": Numbers("bfloat16", 151936, 40, 10.0, 64, 32, (1, 16, 64, 128), 40, 2048),
    "mini": Numbers("float32", 600, 4, 1.0, 12, 8, (1, 2), 4, 64),
}


@dataclass(frozen=True)
class Card:
    """The device and its limits.

    Attributes:
        name: Name of the GPU, or "CPU".
        flops: Peak floating-point operations per second in bfloat16, None if unknown.
        bandwidth: Peak memory bandwidth in bytes per second, None if unknown.
    """

    name: str
    flops: float | None = None
    bandwidth: float | None = None

    @classmethod
    def of(cls, device: str) -> Card:
        """Look up a device.

        Args:
            device: Device type.
        """
        if not device.startswith("cuda"):
            return cls("CPU")
        name = torch.cuda.get_device_name()
        flops, bandwidth = (next((v for key, v in known.items() if key in name), None) for known in (PEAKS, BANDWIDTHS))
        return cls(name, flops and flops * 1e12, bandwidth and bandwidth * 1e9)


@dataclass
class Bench:
    """The inputs of all sections.

    Attributes:
        size: Key of `NUMBERS`.
        device: Device type.
        repeats: Number of timed repeats.
        folder: A folder for files of models and clips.
        card: The device and its limits.
        numbers: The numbers of the size.
        case: Models, clips and loss of a step. `build` sets it.
        profiles: What the section `profiles` has to do, after all times are taken.
        ending: Closes what the sections opened.
    """

    size: str
    device: str
    repeats: int
    folder: Path
    card: Card
    numbers: Numbers
    case: Case | None = None
    profiles: list[Callable[[], None]] = field(default_factory=list)
    ending: ExitStack = field(default_factory=ExitStack)

    def build(self) -> None:
        """Make the models and write them into the folder, for the training loop."""
        (self.folder / "teacher").mkdir()
        words = argparse.Namespace(**vars(self.numbers))
        self.case = fresh_case(self.size, self.folder / "teacher", words, self.device)
        self.case.student.save(self.folder / "student")

    @property
    def student(self) -> SpeechLM:
        """The student."""
        return self.inputs.student

    @property
    def inputs(self) -> Case:
        """Models, clips and loss.

        Raises:
            RuntimeError: The section `models` failed or was left out.
        """
        if self.case is None:
            raise RuntimeError("the models were not built")
        return self.case

    def measure(self, work: Callable[[], object], row: Row, graphs: bool = False) -> float:
        """Measure a piece of work: once to warm up, then its memory and its time, and at the end its profile.

        Args:
            work: The work.
            row: The row that gets memory and profile.
            graphs: Whether the work must launch CUDA graphs on a GPU.

        Returns:
            The median time of the repeats in seconds.
        """
        work()
        row.memory, spent = peak_bytes(work, self.device), self.median(work)
        self.profile_later(work, row, spent, graphs)
        return spent

    def profile_later(self, work: Callable[[], object], row: Row, seconds: float, graphs: bool = False) -> None:
        """Let the section `profiles` profile a piece of work.

        Args:
            work: The work.
            row: The row that gets the profile.
            seconds: Time of the work.
            graphs: Whether the work must launch CUDA graphs on a GPU.
        """
        if self.device == "cuda":
            self.profiles.append(lambda: row.add(trace(work), seconds, graphs))

    def median(self, work: Callable[[], object]) -> float:
        """Return the median time of a piece of work in seconds.

        Args:
            work: The work. Run it before.
        """
        return statistics.median(seconds(work, self.device) for _ in range(self.repeats))


def environment(card: Card) -> dict[str, str]:
    """Return device, versions and revision by name.

    Args:
        card: The device.
    """
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    revision = _output("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    return {
        "device": card.name,
        "driver": driver.splitlines()[0] if driver else "-",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "arkasr": revision or "-",
    }


def _output(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""

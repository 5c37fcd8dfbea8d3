"""How long a training step waits for its batch, with a synthetic consumer that computes nothing.

The script writes FLAC files and a manifest that names each of them many times. It then plays rank 0 of several numbers
of ranks: it takes a batch, sleeps for one step, and takes the next. Everything but the sleep is what `arkasr train`
does. To compare with another checkout, run the script with that folder in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

import arkasr
from arkasr.config.schema import DataConfig
from arkasr.data.batches import Batch
from arkasr.data.sampling import TrainingBatches

RATE = 16_000
SPREAD = 2.0  # clips last this many seconds more or less than `--seconds`
TEXT = "the quick brown fox jumps over the lazy dog and then rests in the shade of a tall old tree"
TICK = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """One step: seconds of waiting, of CPU time of this process, and of CPU time of its loader processes."""

    wait: float
    host: float
    loaders: float


def write_corpus(folder: Path, files: int, cuts: int, seconds: float) -> Path:
    """Write audio files and a manifest.

    Args:
        folder: An existing folder.
        files: Number of audio files.
        cuts: Number of cuts in the manifest. They name the files in turn.
        seconds: Mean duration of a file.

    Returns:
        The manifest.
    """
    rng = np.random.default_rng(0)
    lengths = [int(RATE * length) for length in rng.uniform(seconds - SPREAD, seconds + SPREAD, files)]
    for number, length in enumerate(lengths):
        envelope = np.abs(np.sin(np.arange(length) * 8 * np.pi / RATE))  # syllables of noise
        soundfile.write(folder / f"{number}.flac", 0.1 * envelope * rng.standard_normal(length), RATE)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as manifest:
        manifest.writelines(f"{json.dumps(_cut(folder, i, i % files, lengths[i % files]))}\n" for i in range(cuts))
    return folder / "train.jsonl"


def _cut(folder: Path, number: int, file: int, length: int) -> dict[str, object]:
    name, seconds = f"cut-{number:07d}", length / RATE
    audio = {"type": "file", "channels": [0], "source": str(folder / f"{file}.flac")}
    recording = {"id": f"file-{file}", "sources": [audio], "sampling_rate": RATE, "num_samples": length}
    text = {"id": name, "recording_id": f"file-{file}", "start": 0.0, "duration": seconds, "channel": 0, "text": TEXT}
    return {
        "id": name,
        "start": 0.0,
        "duration": seconds,
        "channel": 0,
        "supervisions": [text | {"language": "English", "speaker": f"speaker-{number % 1000}"}],
        "recording": recording | {"duration": seconds, "channel_ids": [0]},
        "type": "MonoCut",
    }


def _cpu_seconds(process: int) -> float:
    """Return the CPU time of another process (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _memory_mib(process: int | str) -> float:
    """Return the memory of a process. Memory of n processes counts 1/n in each (Linux)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _loaders() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid]


def steps(batches: Iterator[Batch], number: int, seconds: float) -> list[Cost]:
    """Consume batches.

    Args:
        batches: The batches of one rank.
        number: Number of steps.
        seconds: Duration of a step without the wait.

    Returns:
        One row per step.
    """
    rows = []
    for _ in range(number):
        host, loaders, started = time.process_time(), sum(map(_cpu_seconds, _loaders())), time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        assert batch.ids and not batch.failures
        time.sleep(max(seconds, 0.0))
        rows.append(Cost(waited, time.process_time() - host, sum(map(_cpu_seconds, _loaders())) - loaders))
    return rows


def _row(manifest: Path, lazy: str, ranks: int, words: argparse.Namespace) -> str:
    config = DataConfig(
        train=str(manifest),
        lazy=lazy,  # type: ignore[arg-type]  # argparse checks the choice
        max_cuts=words.clips,
        max_seconds=words.clips * (words.seconds + SPREAD),
        num_workers=words.workers,
    )
    batches = iter(TrainingBatches(config, 1, 0, ranks, 600.0))
    started = time.perf_counter()
    next(batches)
    first = time.perf_counter() - started
    steps(batches, words.warmup, words.step)
    rows = steps(batches, words.steps, words.step)
    memory = sum(map(_memory_mib, ["self", *_loaders()]))
    waits = sorted(1000 * row.wait for row in rows)
    share = 100 * statistics.mean(waits) / (1000 * words.step + statistics.mean(waits))
    host, loaders = 1000 * statistics.median(r.host for r in rows), 1000 * statistics.mean(r.loaders for r in rows)
    numbers = [statistics.median(waits), waits[min(int(0.99 * len(waits)), len(waits) - 1)], waits[-1], share, host]
    cells = [str(ranks), lazy, *(f"{each:.1f}" for each in numbers), f"{loaders:.0f}", f"{first:.1f}", f"{memory:.0f}"]
    return f"| {' | '.join(cells)} |"


def main(words: list[str] | None = None) -> None:
    """Print one row per number of ranks and per way of reading the manifest.

    Args:
        words: Command line.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 24])
    parser.add_argument("--lazy", nargs="+", choices=["never", "always"], default=["never", "always"])
    parser.add_argument("--cuts", type=int, default=100_000, help="cuts in the manifest")
    parser.add_argument("--files", type=int, default=200, help="audio files they name")
    parser.add_argument("--clips", type=int, default=40, help="clips per batch")
    parser.add_argument("--seconds", type=float, default=12.0, help="mean duration of a clip")
    parser.add_argument("--workers", type=int, default=4, help="loader processes")
    parser.add_argument("--step", type=float, default=0.6, help="seconds of a step without the wait")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=10, help="steps that do not count")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more loaders than cores
    print(f"{Path(arkasr.__file__).parent}, {options.cuts} cuts, {options.workers} loader processes, {options.step} s")
    print(
        "| ranks | lazy | median wait (ms) | 99 % (ms) | longest (ms) | share of step (%) | CPU per step (ms) "
        "| CPU of loaders (ms) | first batch (s) | memory of all processes (MiB) |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_corpus(Path(folder), options.files, options.cuts, options.seconds)
        for lazy in options.lazy:
            for ranks in options.ranks:
                print(_row(manifest, lazy, ranks, options), flush=True)


if __name__ == "__main__":
    main()

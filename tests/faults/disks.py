"""A full disk: a small file system is mounted for the experiment and filled during training."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from attempts import wait_for
from fault_bench import Bench

SPARE = 24 << 10  # bytes left on the disk, less than one checkpoint or the final weights of the tiny model


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 48 MiB. Raises OSError if mounting is not permitted."""
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "faults", str(folder)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise OSError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, spare: int) -> Path:
    """Fill a file system up to `spare` bytes. Return the file to delete afterwards."""
    filler = folder / "filler"
    with (
        filler.open("wb", buffering=0) as file,
        suppress(OSError),
    ):  # the run may fill it first
        while (free := shutil.disk_usage(folder).free) > spare:
            file.write(bytes(min(1 << 20, free - spare)))
    return filler


def _full(bench: Bench, step: int, spare: int, save_every: int) -> dict[str, Any]:
    bench.num_runs += 1
    with ExitStack() as mounted:
        try:
            disk = mounted.enter_context(small_disk(bench.out / f"disk-{bench.ranks}-{bench.num_runs:03d}"))
        except OSError as error:
            return {"skipped": str(error)}
        run = bench.run(save_every, disk / "exp")
        attempt = run.start()
        wait_for(lambda: run.step() >= step)
        filler, filled = fill(disk, spare), time.monotonic()
        status, took = attempt.wait(), time.monotonic() - filled
        reached, saved, kept = run.step(), run.saved(), len(list(run.folder.glob("checkpoints/step-*")))
        filler.unlink()
        end, resumed = bench.to_the_end(run), run.attempts[1].resumed_from()
    # torchrun has another exit status and prints more lines
    one_line = bench.ranks > 1 or (status == 2 and attempt.user_error() != "")
    reported = "no space left" in attempt.text() and one_line
    seen = {"moments": 1, "lost_max": reached - resumed, "end_seconds": took, "status": status, "kept": kept}
    return end | seen | {"message": attempt.user_error(), "ok": end["ok"] and reported and resumed == saved}


def full_in_save(bench: Bench) -> dict[str, Any]:
    """No space for a checkpoint."""
    return _full(bench, 12, SPARE, 1)


def full_for_metrics(bench: Bench) -> dict[str, Any]:
    """No space for the next row of metrics.jsonl."""
    return _full(bench, 12, 0, 10)


def full_for_final(bench: Bench) -> dict[str, Any]:
    """No space for the final weights."""
    return _full(bench, bench.steps - 6, SPARE, 30)

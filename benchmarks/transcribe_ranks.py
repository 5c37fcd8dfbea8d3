"""Time and bytes of `arkasr label` and `arkasr decode` with different numbers of ranks on this machine.

Each number of ranks starts in an empty folder, with links to the finished runs of an experiment. Prints seconds of the
wall clock and of the CPU, start and model loading included, and whether all files of hypotheses are equal.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conf", required=True, help="configuration, for label")
    parser.add_argument("--expdir", required=True, type=Path, help="finished experiment with the run `teacher`")
    parser.add_argument("--datadir", required=True, help="folder of the cuts")
    parser.add_argument("--runs", default="base", help="runs to decode")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="numbers of ranks")
    return parser.parse_args()


def linked(expdir: Path, folder: Path) -> Path:
    """Make an experiment directory that has only the configurations and the weights of the runs."""
    for config in expdir.glob("*/config.yaml"):
        run = folder / config.parent.name
        run.mkdir(parents=True)
        shutil.copy(config, run)
        (run / "final").symlink_to((config.parent / "final").absolute())
    return folder


def timed(words: list[str], ranks: int) -> tuple[float, float]:
    """Run `arkasr` with these words. Return the seconds of the wall clock and of the CPU."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*([*launcher, "--no-python", "--"] if ranks > 1 else []), sys.executable, "-m", "arkasr", *words]
    wall, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    wall, after = time.monotonic() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def digest(expdir: Path) -> str:
    """Return the digest of all hypothesis files."""
    found = hashlib.sha256()
    for path in sorted([*expdir.glob("*.jsonl"), *expdir.glob("*/decode/*.jsonl")]):
        found.update(f"{path.relative_to(expdir)}\n".encode() + path.read_bytes())
    return found.hexdigest()


def main() -> None:
    """Print one row per number of ranks."""
    args = arguments()
    digests = set()
    print("| ranks | label, wall s | label, CPU s | decode, wall s | decode, CPU s |\n|---|---|---|---|---|")
    for ranks in args.ranks:
        with tempfile.TemporaryDirectory() as temporary:
            expdir = linked(args.expdir, Path(temporary) / "exp")
            dirs = ["--expdir", str(expdir), "--datadir", args.datadir]
            labelled = timed(["label", args.conf, *dirs], ranks)
            decoded = timed(["decode", *dirs, "--runs", *args.runs.split()], ranks)
            digests.add(digest(expdir))
        print(f"| {ranks} | " + " | ".join(f"{seconds:.1f}" for seconds in (*labelled, *decoded)) + " |", flush=True)
    print("hypotheses: " + ("the same bytes for all numbers of ranks" if len(digests) == 1 else "DIFFERENT BYTES"))
    raise SystemExit(len(digests) > 1)


if __name__ == "__main__":
    main()

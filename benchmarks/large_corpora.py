"""Time and memory of stage 1 and of dealing batches, for millions of made-up cuts without audio.

The cuts are segments of a few long files of silence, in a Lhotse manifest, so that every check of stage 1 is made but
hardly any audio is read. Each step runs in a process of its own, whose peak memory is measured:

- `import`: the libraries alone, for comparison.
- `write`: the manifest of made-up cuts.
- `prepare`: stage 1 with layout `lhotse`: checks, repeated ids, filter by length, hash order, shares for Base and TD.
- `open`: `open_manifest` line by line, with `data.hours` as a filter.
- `deal`: one epoch: shuffle, buckets, batches for 24 ranks.
- `mix`: one epoch of a mix of `base` and `td` with weights.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

RATE, FILES, HOURS = 16_000, 20, 0.5
RANKS = 24
TEXT = "the quick brown fox jumps over the lazy dog and then rests in the shade of a tall old tree"
YAML = """name: made-up
layout: lhotse
language: English
dev: []
test: []
use: {base: 0.9, td: 0.1, opd: all}
"""


def _write(folder: Path, cuts: int) -> None:
    import numpy as np
    import soundfile

    seconds = int(HOURS * 3600)
    for number in range(FILES):
        soundfile.write(folder / f"{number}.flac", np.zeros(seconds * RATE, np.int16), RATE)
    (folder / "corpus.yaml").write_text(YAML, encoding="utf-8")
    with gzip.open(folder / "cuts_train.jsonl.gz", "wt", compresslevel=1, encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in _cuts(folder, cuts, seconds))


def _cuts(folder: Path, cuts: int, seconds: int) -> Iterator[dict[str, object]]:
    """Yield cuts. 1 in 50 is longer than 30 s, 1 in 1,000 repeats an id, and 1 in 20 has no transcript."""
    rng = random.Random(0)
    for number in range(cuts):
        name = f"clip-{number - (number % 1000 == 999):09d}"
        length = round(rng.uniform(31, 40) if number % 50 == 0 else rng.uniform(1, 20), 2)
        file = number * FILES // cuts
        one = {"id": name, "recording_id": str(file), "start": 0.0, "duration": length, "channel": 0}
        if number % 20:
            one["text"] = " ".join(rng.choices(TEXT.split(), k=max(1, int(length * 2.5))))
        one |= {"language": "English", "speaker": f"speaker-{number % 5000}"}
        source = {"type": "file", "channels": [0], "source": str(folder / f"{file}.flac")}
        recording = {
            "id": str(file),
            "sources": [source],
            "sampling_rate": RATE,
            "num_samples": seconds * RATE,
            "duration": float(seconds),
            "channel_ids": [0],
        }
        start = round(rng.uniform(0, seconds - length), 2)
        yield {
            "id": name,
            "start": start,
            "duration": length,
            "channel": 0,
            "supervisions": [one],
            "recording": recording,
            "type": "MonoCut",
        }


def _prepare(folder: Path, cuts: int) -> None:
    from arkasr.corpora.prepare import prepare

    prepare(str(folder / "corpus.yaml"), "paper", str(folder), str(folder / "data"), os.cpu_count() or 1)


def _open(folder: Path, cuts: int) -> None:
    from arkasr.config.schema import DataConfig
    from arkasr.data.training_cuts import open_manifest

    open_manifest(DataConfig(train=str(folder / "data" / "base.jsonl.gz"), lazy="always", hours=1000.0))


def _deal(folder: Path, cuts: int) -> None:
    _epoch(str(folder / "data" / "base.jsonl.gz"))


def _mix(folder: Path, cuts: int) -> None:
    from arkasr.data.mix import Member, write_mix

    members = [Member("base.jsonl.gz", "base", 0.5), Member("td.jsonl.gz", "td", 0.5)]
    write_mix(folder / "data" / "both.mix.yaml", members)
    _epoch(str(folder / "data" / "both.mix.yaml"))


def _epoch(train: str) -> None:
    from arkasr.config.schema import DataConfig
    from arkasr.data.dealing import Dealer

    dealer = Dealer(DataConfig(train=train, lazy="always", max_seconds=480.0, max_cuts=40), 1, 0, RANKS)
    buckets = dealer.buckets(0, dealer.stream(0))
    batches = clips = 0
    while group := buckets.draw(RANKS):
        batches, clips = batches + len(group), clips + sum(map(len, group))
    print(f"{clips} clips in {batches} batches of {RANKS} ranks")


def _import(folder: Path, cuts: int) -> None:
    import arkasr.corpora.prepare
    import arkasr.data.dealing  # noqa: F401


STEPS: dict[str, Callable[[Path, int], None]] = {
    "import": _import,
    "write": _write,
    "prepare": _prepare,
    "open": _open,
    "deal": _deal,
    "mix": _mix,
}


def measure(step: str, folder: Path, cuts: int) -> dict[str, float]:
    """Run one step in a process of its own.

    Args:
        step: Key of STEPS.
        folder: Where all files are.
        cuts: Number of made-up cuts.

    Returns:
        `seconds` of the step, `cpu_seconds`, and `peak_mib` of memory.
    """
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--cuts", str(cuts)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *lines, last = result.stdout.splitlines()
    for line in lines:
        print(f"    {line}", file=sys.stderr)
    return json.loads(last)


def main() -> None:
    """Measure all steps, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, nargs="+", default=[1_000_000], help="numbers of cuts (default: 1000000)")
    parser.add_argument("--folder", type=Path, help="where files are written (default: a temporary folder)")
    parser.add_argument("--step", choices=STEPS, help="run one step only, in this process")
    args = parser.parse_args()
    if args.step:
        start = time.monotonic()
        STEPS[args.step](args.folder, args.cuts[0])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        print(json.dumps({"seconds": time.monotonic() - start, "cpu_seconds": cpu, "peak_mib": peak}))
        return
    print("| cuts | step | seconds | CPU seconds | peak memory (MiB) |\n|---|---|---|---|---|", flush=True)
    for cuts in args.cuts:
        with tempfile.TemporaryDirectory(dir=args.folder, prefix="large-") as folder:
            for step in STEPS:
                found = measure(step, Path(folder), cuts)
                row = f"{found['seconds']:.0f} | {found['cpu_seconds']:.0f} | {found['peak_mib']:.0f}"
                print(f"| {cuts:,} | {step} | {row} |", flush=True)


if __name__ == "__main__":
    main()

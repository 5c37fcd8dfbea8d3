"""What all faults share: the run that is disturbed, and the result of the undisturbed run."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attempts import Run


@dataclass
class Bench:
    """Settings of a series of faults."""

    conf: Path
    datadir: Path
    out: Path
    ranks: int
    moments: int
    seed: int
    steps: int = 40
    digest: str = ""  # SHA-256 of the final weights of the undisturbed run
    seconds: float = 0.0  # duration of the undisturbed run
    num_runs: int = 0
    random: random.Random = field(init=False)

    def __post_init__(self):
        self.random = random.Random(self.seed)

    def run(self, save_every: int = 1, expdir: Path | None = None) -> Run:
        """Set up the run in a new directory. It evaluates every ten steps and uses data loader processes."""
        self.num_runs += 1
        changes = [f"train.steps={self.steps}", f"train.save_every={save_every}", "train.eval_every=10"]
        changes += ["train.eval_clips=12", "data.dev={datadir}/train.jsonl.gz", "decode.max_new_tokens=60"]
        changes += ["data.num_workers=2", "train.hang_seconds=20", "train.keep=3"]
        folder = expdir or self.out / f"{self.ranks}-{self.num_runs:03d}"
        return Run(self.conf, self.datadir, folder, self.out, self.ranks, changes)

    def undisturbed(self) -> None:
        """Train once without a fault. Raises AssertionError if that fails."""
        run = self.run(save_every=7)
        done = run.finish()
        assert run.digest(), done.text()
        self.digest, self.seconds = run.digest(), time.monotonic() - done.started

    def to_the_end(self, run: Run, *overrides: str) -> dict[str, Any]:
        """Start the same command until the run is finished, and compare the result with the undisturbed run."""
        last = run.finish(*overrides)
        rows = [json.loads(line)["step"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        left = [p.name for p in run.folder.rglob("writing-*")] if last.status == 0 else []
        return {
            "equal": run.digest() == self.digest,
            "ok": last.status == 0
            and run.digest() == self.digest
            and rows == list(range(1, self.steps + 1))
            and not left,
            "note": last.text()[-800:] if last.status else "",
        }

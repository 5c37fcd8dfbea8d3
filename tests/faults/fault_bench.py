"""What all mishaps share: the run that is disturbed, and what it comes to where nothing disturbs it."""

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
    """The settings of a series of mishaps; digest, seconds: of the run that nothing disturbed."""

    conf: Path
    datadir: Path
    out: Path
    ranks: int
    moments: int
    seed: int
    steps: int = 40
    digest: str = ""
    seconds: float = 0.0
    made: int = 0
    random: random.Random = field(init=False)

    def __post_init__(self):
        self.random = random.Random(self.seed)

    def run(self, save_every: int = 1, expdir: Path | None = None) -> Run:
        """Make the run in a new directory; it evaluates at every tenth step and reads by loader processes."""
        self.made += 1
        changes = [f"train.steps={self.steps}", f"train.save_every={save_every}", "train.eval_every=10"]
        changes += ["train.eval_clips=12", "data.dev={datadir}/train.jsonl.gz", "decode.max_new_tokens=60"]
        changes += ["data.num_workers=2", "train.hang_seconds=20", "train.keep=3"]
        folder = expdir or self.out / f"{self.ranks}-{self.made:03d}"
        return Run(self.conf, self.datadir, folder, self.out, self.ranks, changes)

    def undisturbed(self) -> None:
        """Train once in peace; raises AssertionError where that fails."""
        run = self.run(save_every=7)
        done = run.finish()
        assert run.digest(), done.text()
        self.digest, self.seconds = run.digest(), time.monotonic() - done.started

    def to_the_end(self, run: Run, *overrides: str) -> dict[str, Any]:
        """Give the same command until the run is done, and compare: what it said and how long it took to go on."""
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

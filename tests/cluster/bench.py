"""What all scenarios share: the hosts, the run that is disturbed, and the result of the undisturbed run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hosts import Hosts
from job import Experiment, Job

STARTS, ENDS = 600.0, 900.0  # seconds that a launch may take until its first step, and until its end
Row = dict[str, Any]


@dataclass
class Bench:
    """The hosts, the settings of the run that all scenarios disturb, and the result of the undisturbed run."""

    hosts: Hosts
    ranks: int  # per host
    run: str
    conf: Path
    datadir: Path
    out: Path
    start: Path  # an experiment directory whose models the run starts from
    python: str
    steps: int
    save_every: int
    hang_seconds: float
    seed: int
    undisturbed: str = ""  # SHA-256 of the final weights
    losses: tuple[float, ...] = ()
    step_seconds: float = 0.0

    @property
    def world_size(self) -> int:
        return self.hosts.count * self.ranks

    @property
    def middle(self) -> int:
        """The last step before the second save."""
        return 2 * self.save_every - 1

    def experiment(self, name: str, *overrides: str) -> Experiment:
        """Create an experiment directory with links to the models that the run starts from."""
        expdir = self.out / name / "exp"
        expdir.mkdir(parents=True)
        for folder in self.start.iterdir():
            (expdir / folder.name).symlink_to(folder)
        changes = [
            f"train.steps={self.steps}",
            f"train.save_every={self.save_every}",
            f"train.eval_every={self.steps}",
        ]
        changes += [
            "train.eval_clips=4",
            "data.train={datadir}/train.jsonl.gz",
            "data.num_buckets=1",
            "data.max_cuts=1",
        ]
        changes += [
            f"train.hang_seconds={self.hang_seconds:g}",
            "optim.lr=1e-3",
            "distill.diagnose_every=0",
            *overrides,
        ]
        return Experiment(self.conf, self.run, self.datadir, expdir, changes, self.python)

    def launch(self, experiment: Experiment, num_nodes: int = 0, ranks: int = 0, restarts: int = 0) -> Job:
        logs = experiment.expdir.parent / "logs"
        return Job(self.hosts, experiment, logs, num_nodes or self.hosts.count, ranks or self.ranks, restarts)

    def same(self, experiment: Experiment) -> bool:
        """Return whether a run ended with weights bitwise equal to those of the undisturbed run."""
        return bool(self.undisturbed) and experiment.digest() == self.undisturbed

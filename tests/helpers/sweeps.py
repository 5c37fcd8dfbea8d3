"""Sweeps of tiny models whose tasks run in this process."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from arkasr.cli import main
from arkasr.sweeps.tasks import SCORE, Folders, Task

SWEEP = """
conf: CONF
shared: [teacher, base]
runs: [base_opd]
grid: {distill.top_k: [2, 4]}
seeds: [1, 2]
controls: [base, top_k-2]
overrides: {train.eval_every: 0, train.steps: 2, runs.teacher.train.steps: 30, runs.base.train.steps: 30}
"""


class Finished:
    """A task that has run. The status is that of its last command."""

    def __init__(self, status: int):
        self.status = status

    def poll(self) -> int:
        return self.status

    def stop(self, kill: bool) -> None:
        pass


class HereLauncher:
    """Runs the commands of a task in this process, and records the names of the tasks.

    Args:
        expdir: Folder of the sweep.
        datadir: Data directory.
        fails: Names of tasks that fail.
    """

    def __init__(self, expdir: Path, datadir: Path, fails: tuple[str, ...] = ()):
        self.folders, self.fails, self.ran = Folders(expdir, datadir), fails, []

    def __call__(self, task: Task, log: Path, slot: int) -> Finished:
        self.ran.append(task.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
            print("$ arkasr")
            if task.name in self.fails:
                print("arkasr train: error: the disk is full; remove files")
                return Finished(2)
            status = next((status for words in task.commands(self.folders) if (status := main(words))), 0)
        return Finished(status)


class Instant:
    """Tasks that are done at once, or fail at once.

    Args:
        expdir: Folder of the sweep.
        fails: Names of tasks that fail.
    """

    def __init__(self, expdir: Path, fails: tuple[str, ...] = ()):
        self.expdir, self.fails, self.ran, self.status = expdir, fails, [], 0

    def __call__(self, task, log, slot):
        self.ran.append(task.name)
        self.status = 2 if task.name in self.fails else 0
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("$ arkasr\narkasr train: error: the disk is full; remove files\n")
        runs = task.experiment.runs if task.step == SCORE else [task.step]
        for run in runs if self.status == 0 else ():
            if task.step != SCORE or (task.folder(self.expdir) / run / "final/config.json").is_file():
                path = task.folder(self.expdir) / run / ("scores.json" if task.step == SCORE else "final/config.json")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return self

    def poll(self):
        return self.status

    def stop(self, kill):
        pass


def write_sweep(folder: Path, conf: Path, text: str = SWEEP) -> Path:
    """Write a sweep file."""
    path = folder / "top_k.yaml"
    path.write_text(text.replace("CONF", str(conf)))
    return path

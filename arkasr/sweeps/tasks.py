"""The tasks of a sweep: train a run, label audio, and decode and score an experiment. Files show which are done."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from arkasr.errors import UserError
from arkasr.sweeps.experiments import Experiment
from arkasr.sweeps.needs import LABEL

SCORE = "score"
LABEL_FILES = ("td_teacher.jsonl.gz", "td_teacher.jsonl", "td_teacher.json")


@dataclass(frozen=True)
class Folders:
    """Where a sweep works.

    Attributes:
        expdir: Folder of the sweep.
        datadir: Prepared data directory.
    """

    expdir: Path
    datadir: Path


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        experiment: The experiment that it belongs to.
        step: Name of the run to train, `LABEL` or `SCORE`.
        needs: Names of the tasks that must be done before.
        after: Names of the tasks that must be done before, or have failed.
        labels: The experiment whose labelled audio is used, None if none is.
    """

    experiment: Experiment
    step: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    labels: Experiment | None = None

    @property
    def name(self) -> str:
        """Unique name, `<experiment>/<step>`."""
        return f"{self.experiment.name}/{self.step}"

    @property
    def own_runs(self) -> list[str]:
        """Names of the tasks that train the runs of the experiment."""
        return [f"{self.experiment.name}/{run}" for run in self.experiment.runs]

    def folder(self, expdir: Path) -> Path:
        """Return the experiment's folder.

        Args:
            expdir: Folder of the sweep.

        Returns:
            The folder.
        """
        return expdir / self.experiment.name

    def is_done(self, expdir: Path) -> bool:
        """Return whether the results of the task are there.

        Args:
            expdir: Folder of the sweep.

        Returns:
            True for a run with its final model, for labelled audio, and if all trained runs have scores.
        """
        folder = self.folder(expdir)
        if self.step == LABEL:
            return (folder / "td_teacher.jsonl.gz").is_file()
        if self.step != SCORE:
            return is_trained(folder, self.step)
        trained = [run for run in self.experiment.runs if is_trained(folder, run)]
        return bool(trained) and all((folder / run / "scores.json").is_file() for run in trained)

    def commands(self, folders: Folders) -> list[list[str]]:
        """Return what has to be run, one after the other.

        Args:
            folders: Where the sweep works.

        Returns:
            Words after `arkasr`.
        """
        folder, conf = self.folder(folders.expdir), str(self.experiment.sweep.conf)
        places = ["--expdir", str(folder), "--datadir", str(folders.datadir)]
        if self.step == LABEL:
            return [["label", conf, *places, *self.experiment.words("")]]
        if self.step != SCORE:
            return [["train", conf, "--run", self.step, *places, *self.experiment.words(self.step)]]
        runs = [run for run in self.experiment.runs if is_trained(folder, run)] or self.experiment.runs
        return [[verb, *places, "--runs", *runs] for verb in ("decode", "score")]

    def locked_folders(self, expdir: Path) -> list[Path]:
        """Return the folders that the commands of the task lock, as far as they exist.

        Args:
            expdir: Folder of the sweep.

        Returns:
            Folders that a command still holds if its sweep was killed and it saves its work.
        """
        folder = self.folder(expdir)
        decoded = [folder / run / "decode" for run in self.experiment.runs]
        found = {LABEL: [folder], SCORE: [folder, *decoded]}.get(self.step, [folder / self.step])
        return [path for path in found if path.is_dir()]

    def prepare(self, expdir: Path) -> None:
        """Create the folder of the experiment, with its links.

        Args:
            expdir: Folder of the sweep.

        Raises:
            UserError: Something else has the name of a link.
        """
        link_shared(self.experiment, expdir, self.labels)


def is_trained(folder: Path, run: str) -> bool:
    """Return whether a run has its final model.

    Args:
        folder: Experiment folder.
        run: Name of the run.

    Returns:
        True if it is there.
    """
    return (folder / run / "final" / "config.json").is_file()


def link_shared(experiment: Experiment, expdir: Path, labels: Experiment | None) -> None:
    """Create the folder of an experiment with links to the runs of others that it can use.

    Args:
        experiment: The experiment.
        expdir: Folder of the sweep.
        labels: The experiment whose labelled audio is used, None if none is.

    Raises:
        UserError: Something else has the name of a link.
    """
    folder = expdir / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    names = [(each, run) for each in experiment.above for run in each.listed]
    if labels not in (None, experiment):
        names += [(labels, name) for name in LABEL_FILES]
    for owner, name in names:
        link, target = folder / name, os.path.relpath(expdir / owner.name / name, folder)
        with suppress(FileExistsError):  # by an earlier call, or by another process
            link.symlink_to(target)
        if not link.is_symlink() or os.readlink(link) != target:
            raise UserError(f"{link}: is no link to {target}, the shared run; move it away, or use another --expdir")

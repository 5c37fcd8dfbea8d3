"""The tasks of a sweep: train a run, label audio, and decode and score an experiment. Files show which are done."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from arkasr.errors import UserError
from arkasr.sweeps.experiments import (
    LABEL,
    Experiment,
    experiments,
    labels_are_shared,
    link_shared,
    shared_experiment,
)
from arkasr.sweeps.sweep_file import Sweep

SCORE = "score"


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
        shared_labels: Whether the experiment uses the labels of the shared runs.
    """

    experiment: Experiment
    step: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    shared_labels: bool = False

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

    def prepare(self, expdir: Path) -> None:
        """Create the folder of the experiment, with its links.

        Args:
            expdir: Folder of the sweep.

        Raises:
            UserError: Something else has the name of a link.
        """
        link_shared(self.experiment, expdir, self.shared_labels)


def is_trained(folder: Path, run: str) -> bool:
    """Return whether a run has its final model.

    Args:
        folder: Experiment folder.
        run: Name of the run.

    Returns:
        True if it is there.
    """
    return (folder / run / "final" / "config.json").is_file()


@dataclass
class Plan:
    """All tasks of a sweep, by name, in the order in which they start.

    Attributes:
        tasks: The tasks.
    """

    tasks: dict[str, Task] = field(default_factory=dict)

    def needed_by(self, chosen: Iterable[Experiment]) -> list[str]:
        """Return the tasks of experiments, and those that they wait for.

        Args:
            chosen: Experiments of points.

        Returns:
            Names of tasks, in the order of `tasks`.
        """
        own = {each.name for each in chosen}
        found: set[str] = set()
        left = [name for name, task in self.tasks.items() if task.experiment.name in own]
        while left:
            name = left.pop()
            if name not in found and name in self.tasks:
                found.add(name)
                left += [*self.tasks[name].needs, *self.tasks[name].after]
        return [name for name in self.tasks if name in found]

    def blocked(self, failed: Collection[str]) -> dict[str, str]:
        """Return the tasks that cannot run because of tasks that failed, or of runs that are skipped.

        Args:
            failed: Names of tasks.

        Returns:
            Name of the failed or skipped task by name of the task that needs it. Scoring is blocked if all runs are.
        """
        blocked: dict[str, str] = {}

        def lost(name: str) -> bool:
            return name in failed or name in blocked or name not in self.tasks

        for name, task in self.tasks.items():  # a task stands after those that it needs
            causes = [each for each in task.needs if lost(each)]
            if task.step == SCORE and all(map(lost, task.own_runs)):
                causes += task.own_runs
            if causes:
                blocked[name] = blocked.get(causes[0], causes[0])
        return blocked


def make_plan(sweep: Sweep) -> Plan:
    """Make the tasks of a sweep.

    Args:
        sweep: The sweep.

    Returns:
        The plan: per seed the shared runs first, then the runs of each point.

    Raises:
        UserError: A configuration is wrong, or a run needs a run that is not in the sweep.
    """
    plan, points = Plan(), experiments(sweep)
    for point in points:
        shared = shared_experiment(point)
        if sweep.file.shared and f"{shared.name}/{SCORE}" not in plan.tasks:
            _add(plan.tasks, shared, False)
        _add(plan.tasks, point, bool(sweep.file.shared) and _uses_labels(point) and labels_are_shared(point))
    return plan


def _uses_labels(experiment: Experiment) -> bool:
    return any(LABEL in experiment.needs(run) for run in experiment.runs)


def _add(tasks: dict[str, Task], experiment: Experiment, shared_labels: bool) -> None:
    """Add the tasks of one experiment, each after those that it needs."""
    shared = shared_experiment(experiment)
    if shared_labels and f"{shared.name}/{LABEL}" not in tasks:
        _add_with_needs(tasks, shared, LABEL, False)
    for run in experiment.runs:
        _add_with_needs(tasks, experiment, run, shared_labels)
    if not experiment.runs:
        return
    scored = f"{shared.name}/{SCORE}"  # the change from Base is shown if Base is scored
    before = [scored] if experiment.point is not None and scored in tasks else []
    task = Task(experiment, SCORE, shared_labels=shared_labels)
    tasks[task.name] = replace(task, after=(*task.own_runs, *before))


def _add_with_needs(
    tasks: dict[str, Task], experiment: Experiment, step: str, shared_labels: bool, above: tuple[str, ...] = ()
) -> None:
    name = f"{experiment.name}/{step}"
    if name in tasks:
        return
    if name in above:
        raise UserError(
            f"{experiment.sweep.path}: the runs {', '.join(above)} start from each other; correct their paths"
        )
    needs = []
    for other in experiment.needs(step):
        owner = _owner(experiment, other, shared_labels)
        if other == LABEL or other in owner.runs:
            _add_with_needs(tasks, owner, other, shared_labels, (*above, name))
        needs.append(f"{owner.name}/{other}")
    tasks[name] = Task(experiment, step, tuple(needs), shared_labels=shared_labels)


def _owner(experiment: Experiment, step: str, shared_labels: bool) -> Experiment:
    """Return the experiment in which a run is trained, or audio is labelled."""
    is_shared = shared_labels if step == LABEL else step in experiment.sweep.file.shared
    return shared_experiment(experiment) if is_shared else experiment

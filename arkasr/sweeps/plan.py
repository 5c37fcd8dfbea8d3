"""All tasks of a sweep, in an order in which each stands after those that it needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from arkasr.errors import UserError
from arkasr.sweeps.experiments import Experiment, experiments
from arkasr.sweeps.needs import LABEL, labels_of, needs_of
from arkasr.sweeps.sweep_file import Sweep
from arkasr.sweeps.tasks import SCORE, Task


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
        The plan: the runs trained once, then per seed the shared runs and the runs of each point.

    Raises:
        UserError: A configuration is wrong, or a run needs a run that is not in the sweep.
    """
    plan, points = Plan(), experiments(sweep)
    for point in points:
        for experiment in (*point.above, point):
            if f"{experiment.name}/{SCORE}" not in plan.tasks:
                _add(plan.tasks, experiment)
    return plan


def _labels(experiment: Experiment) -> Experiment | None:
    """Return the experiment whose labelled audio the runs of an experiment read, None if they read none."""
    is_read = any(LABEL in needs_of(experiment, run) for run in experiment.runs)
    return labels_of(experiment) if is_read else None


def _add(tasks: dict[str, Task], experiment: Experiment) -> None:
    """Add the tasks of one experiment, each after those that it needs."""
    labels = _labels(experiment)
    if labels not in (None, experiment):
        _add_with_needs(tasks, labels, LABEL)
    for run in experiment.runs:
        _add_with_needs(tasks, experiment, run)
    if not experiment.runs:
        return
    scored = [f"{each.name}/{SCORE}" for each in experiment.above]  # the change from Base is shown if Base is scored
    task = Task(experiment, SCORE, labels=labels)
    tasks[task.name] = replace(task, after=(*task.own_runs, *(name for name in scored if name in tasks)))


def _add_with_needs(tasks: dict[str, Task], experiment: Experiment, step: str, above: tuple[str, ...] = ()) -> None:
    name = f"{experiment.name}/{step}"
    if name in tasks:
        return
    if name in above:
        names = ", ".join(each.rpartition("/")[2] for each in above)
        raise UserError(f"{experiment.sweep.path}: the runs {names} start from each other; correct their paths")
    needs = []
    for other in needs_of(experiment, step):
        owner = _owner(experiment, other)
        if other == LABEL or other in owner.runs:
            _add_with_needs(tasks, owner, other, (*above, name))
        needs.append(f"{owner.name}/{other}")
    tasks[name] = Task(experiment, step, tuple(needs), labels=_labels(experiment))


def _owner(experiment: Experiment, step: str) -> Experiment:
    """Return the experiment in which a run is trained, or audio is labelled."""
    if step == LABEL:
        return labels_of(experiment)
    return next((each for each in experiment.above if step in each.listed), experiment)

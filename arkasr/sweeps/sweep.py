"""`arkasr sweep`: train, decode and score all points and seeds of a sweep file, and write one table and one figure."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from arkasr.errors import UserError
from arkasr.sweeps.experiments import Experiment, experiments
from arkasr.sweeps.plan import Plan, make_plan
from arkasr.sweeps.processes import Process, Running, environment, visible_gpus
from arkasr.sweeps.record import open_record
from arkasr.sweeps.rows import check_controls
from arkasr.sweeps.runner import STATE, Launch, Runner
from arkasr.sweeps.sweep_file import Sweep, read_sweep
from arkasr.sweeps.tasks import Folders, Task
from arkasr.utils.console import log
from arkasr.utils.files import locked, write_text

SHARE = re.compile(r"([1-9]\d*)/([1-9]\d*)")
WAIT_SECONDS = 0.5
MOST_NAMED = 20  # failures in a message


def sweep(
    file: str, expdir: str, datadir: str, jobs: int = 1, share: str = "", dry_run: bool = False,
    launch: Launch | None = None,
) -> None:  # fmt: skip
    """Run a sweep, or what is left of it. Any number of processes may run the same sweep in the same folder.

    Args:
        file: The sweep file.
        expdir: Folder of the sweep. It gets one folder per seed, `once`, SWEEP.md, sweep.csv and sweep.png.
        datadir: Prepared data directory.
        jobs: Number of trainings that run at once in this process. Each gets one GPU, if there are any.
        share: "I/N" runs the I-th of N shares of the points and seeds. Empty: that of the Slurm array, or all.
        dry_run: Print the commands and run nothing.
        launch: Starts a task. None starts a process.

    Raises:
        UserError: The file is wrong or has changed, or tasks have failed. The others were finished before.
    """
    chosen, folders = read_sweep(file), Folders(Path(expdir), Path(datadir))
    check_controls(chosen)
    plan = make_plan(chosen)
    names = plan.needed_by(_share(chosen, share or _slurm_share()))
    if dry_run:
        _print_commands(plan, names, folders)
        return
    if not (folders.datadir / "corpus.json").is_file():
        raise UserError(f"--datadir {datadir}: has no corpus.json; prepare the data with --stage 1 of a recipe")
    with _waiting_lock(folders.expdir / STATE, "starting a sweep"):
        open_record(chosen, folders)
    runner = Runner(plan, names, folders.expdir, jobs, launch or _launcher(folders, jobs))
    runner.run()
    _write_results(chosen, folders)
    if runner.stopped:
        raise KeyboardInterrupt
    _report(runner, plan)


def _share(chosen: Sweep, share: str) -> list[Experiment]:
    every = experiments(chosen)
    if not share:
        return every
    found = SHARE.fullmatch(share)
    if found is None or int(found[1]) > int(found[2]):
        raise UserError(f"--task {share}: must be I/N, with I from 1 to N, such as 2/8")
    index, number = int(found[1]) - 1, int(found[2])
    log(f"share {share}: {len(every[index::number])} of {len(every)} experiments, and the other runs that they need")
    return every[index::number]


def _slurm_share() -> str:
    """Return the share of this job of a Slurm array, empty outside of one."""
    task, count = os.environ.get("SLURM_ARRAY_TASK_ID", ""), os.environ.get("SLURM_ARRAY_TASK_COUNT", "")
    if not (task.isdigit() and count.isdigit()):
        return ""
    first, step = (
        int(os.environ.get(f"SLURM_ARRAY_TASK_{key}", default)) for key, default in (("MIN", 0), ("STEP", 1))
    )
    return f"{(int(task) - first) // step + 1}/{count}"


def _print_commands(plan: Plan, names: Sequence[str], folders: Folders) -> None:
    for name in names:
        for words in plan.tasks[name].commands(folders):
            print(shlex.join(["arkasr", *words]))
    log(f"dry run: {len(names)} tasks, nothing was run")


def _launcher(folders: Folders, jobs: int) -> Launch:
    gpus, command = visible_gpus() if jobs > 1 else [], shlex.join(["arkasr", *sys.argv[1:]])

    def launch(task: Task, path: Path, slot: int) -> Running:
        return Process(task.commands(folders), path, environment(slot, jobs, gpus, command))

    return launch


def _waiting_lock(folder: Path, action: str) -> ExitStack:
    """Hold a lock that others hold for a short time only."""
    held = ExitStack()
    while True:
        try:
            held.enter_context(locked(folder, action))
            return held
        except UserError:
            time.sleep(WAIT_SECONDS)


def _write_results(chosen: Sweep, folders: Folders) -> None:
    from arkasr.sweeps.figure import draw  # these import torch
    from arkasr.sweeps.table import read_table
    from arkasr.sweeps.table_csv import comma_separated
    from arkasr.sweeps.table_markdown import markdown

    with _waiting_lock(folders.expdir / STATE / "results", "writing the results of a sweep"):
        table = read_table(chosen, folders.expdir, folders.datadir)
        drawn, numbers = draw(table, folders.expdir), table.all_numbers()
        texts = {
            "SWEEP.md": markdown(table, numbers, [path.name for path in drawn]),
            "sweep.csv": comma_separated(table, numbers),
        }
        for name, text in texts.items():
            write_text(folders.expdir / name, text)
        for path in [*(folders.expdir / name for name in texts), *drawn]:
            log(f"written: {path}")


def _report(runner: Runner, plan: Plan) -> None:
    """Report what is done, what failed and why, and what was not run.

    Raises:
        UserError: Something failed.
    """
    failed = {name: reason for name, reason in runner.failed.items() if not runner.is_done(name)}
    blocked = {name: by for name, by in plan.blocked(failed).items() if name in runner.names and by in failed}
    done = [name for name in runner.names if runner.is_done(name)]
    log(f"{len(done)} of {len(runner.names)} tasks are done, {len(failed)} failed, {len(blocked)} wait for failed ones")
    for name, reason in failed.items():
        log(f"failed: {name}: {reason}{_waiting(name, blocked)}")
    if failed:
        named = ", ".join([*failed][:MOST_NAMED])
        raise UserError(
            f"{runner.expdir}: {len(failed)} of {len(runner.names)} tasks failed ({named}); correct the causes above "
            "and run the same command again, which tries them again and keeps finished work"
        )


def _waiting(name: str, blocked: Mapping[str, str]) -> str:
    others = [other for other, by in blocked.items() if by == name]
    return f" (not run because of it: {', '.join(others)})" if others else ""

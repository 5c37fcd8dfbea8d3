"""Provenance of a model: the run that trained it and the runs before it, without private paths and secrets."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arkasr.config.load import read_config
from arkasr.evaluation import run_records
from arkasr.export.redact import folders_of, public_command, public_values
from arkasr.utils.hub import is_hub_id
from arkasr.utils.redact import command_without_secrets, values_without_secrets

PLUGIN_KEYS = ("kind", "name", "distribution", "version")


@dataclass(frozen=True)
class Stage:
    """One training run: its configuration and record without private paths, and what it logged up to `step`.

    Attributes:
        run: Name of the run.
        config: Resolved configuration.
        step: Number of optimizer steps of the exported weights.
        hours: Hours of audio trained on, with repetitions, or None if not logged.
        loss: Last logged training loss, or None.
        dev_error: Last logged error rate on the dev clips as a fraction, or None.
        checkpoints: Names of the checkpoints whose mean the final weights are. Empty for the model of the last step.
        recipe: Command line of the recipe, or empty.
        command: Command line of the run, or empty.
        commit: Commit of the code, or empty.
        versions: Package versions by name.
        plugins: Kind, name, distribution and version of each plugin.
        world_size: Number of processes.
        started: Start time, or empty.
    """

    run: str
    config: dict[str, Any]
    step: int
    hours: float | None
    loss: float | None
    dev_error: float | None
    checkpoints: list[str]
    recipe: str
    command: str
    commit: str
    versions: dict[str, str]
    plugins: list[dict[str, str]]
    world_size: int
    started: str

    @property
    def parent(self) -> str:
        """The run of the same experiment that this run started from, or empty."""
        found = re.fullmatch(r"\{expdir\}/([^/]+)/final/?", self.config["model"]["path"])
        return found[1] if found else ""

    @property
    def parts(self) -> list[str]:
        """Hub ids of the pretrained weights that this run started from."""
        model = self.config["model"]
        return [model[key] for key in ("path", "encoder", "decoder") if is_hub_id(model.get(key, ""))]

    @property
    def data(self) -> str:
        """The training set by its name in corpus.json, or the file name if it is not in there."""
        name = Path(self.config["data"]["train"]).name.removesuffix(".jsonl.gz")
        return "td" if name == "td_teacher" else name


def trace(expdir: str, datadir: str, run: str, step: int) -> list[Stage]:
    """Return the runs that produced a model.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        run: Name of the last run.
        step: Optimizer step of the last run's weights.

    Returns:
        The runs, the earliest first. Runs outside the experiment directory are not followed.
    """
    stages = [_read(expdir, datadir, run, step)]
    while (parent := stages[0].parent) and (Path(expdir) / parent / "config.yaml").is_file():
        if parent in (stage.run for stage in stages):
            break
        stages.insert(0, _read(expdir, datadir, parent, None))
    return stages


def _read(expdir: str, datadir: str, run: str, step: int | None) -> Stage:
    record = run_records.read_run(expdir, run)
    folders = folders_of(record.get("command", ""), expdir, datadir)
    rows = [row for row in run_records.read_metrics(expdir, run) if step is None or row["step"] <= step]
    last, errors = rows[-1] if rows else {}, [row["dev_error"] for row in rows if row.get("dev_error") is not None]
    settings = read_config(Path(expdir) / run / "config.yaml")
    config = values_without_secrets(asdict(settings))
    recipe, command = (command_without_secrets(record.get(key, "")) for key in ("recipe", "command"))
    return Stage(
        run=run,
        config=public_values(config, folders),
        step=run_records.last_step(expdir, run, settings) if step is None else step,
        hours=last.get("hours_seen"),
        loss=last.get("loss"),
        dev_error=errors[-1] if errors else None,
        checkpoints=(record.get("final") or {}).get("checkpoints", []),
        recipe=public_command(recipe),
        command=public_command(command),
        commit=record.get("commit", ""),
        versions=record.get("versions", {}),
        plugins=[{key: plugin.get(key, "") for key in PLUGIN_KEYS} for plugin in record.get("plugins", [])],
        world_size=record.get("world_size", 1),
        started=record.get("started", ""),
    )

"""How a model came to be: the run that trained it, the run that this one started from, and so on, fit to be shared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arkasr.evaluation import results_io
from arkasr.export.redact import folders_of, public_command, public_values
from arkasr.model.weight_files import is_hub_id


@dataclass(frozen=True)
class Stage:
    """One run: its resolved config and record without private paths, and what it logged up to `step`.

    hours: of audio, counted as often as it was heard; loss and dev_error: the last that were logged. None: not logged.
    """

    run: str
    config: dict[str, Any]
    step: int
    hours: float | None
    loss: float | None
    dev_error: float | None
    recipe: str
    command: str
    commit: str
    versions: dict[str, str]
    plugins: list[dict[str, str]]
    world_size: int
    started: str

    @property
    def parent(self) -> str:
        """The run of the same experiment that this one started from; empty where it did not."""
        found = re.fullmatch(r"\{expdir\}/([^/]+)/final/?", self.config["model"]["path"])
        return found[1] if found else ""

    @property
    def parts(self) -> list[str]:
        """The Hub ids that it started from."""
        model = self.config["model"]
        return [model[key] for key in ("path", "encoder", "decoder") if is_hub_id(model.get(key, ""))]

    @property
    def data(self) -> str:
        """The set of cuts that it was trained on, as corpus.json calls it; the file's name where it is another."""
        name = Path(self.config["data"]["train"]).name.removesuffix(".jsonl.gz")
        return "td" if name == "td_teacher" else name


def _read(expdir: str, datadir: str, run: str, step: int | None) -> Stage:
    record = results_io.read_run(expdir, run)
    folders = folders_of(record.get("command", ""), expdir, datadir)
    rows = [row for row in results_io.read_metrics(expdir, run) if step is None or row["step"] <= step]
    last, errors = rows[-1] if rows else {}, [row["dev_error"] for row in rows if "dev_error" in row]
    told = ("kind", "name", "distribution", "version")
    config = record["config"]
    return Stage(
        run=run,
        config=public_values(config, folders),
        step=config["train"]["steps"] if step is None else step,
        hours=last.get("hours_seen"),
        loss=last.get("loss"),
        dev_error=errors[-1] if errors else None,
        recipe=public_command(record.get("recipe", "")),
        command=public_command(record.get("command", "")),
        commit=record.get("commit", ""),
        versions=record.get("versions", {}),
        plugins=[{key: plugin.get(key, "") for key in told} for plugin in record.get("plugins", [])],
        world_size=record.get("world_size", 1),
        started=record.get("started", ""),
    )


def trace(expdir: str, datadir: str, run: str, step: int) -> list[Stage]:
    """Return the runs that made a model, the first one first; `step` of the last."""
    stages = [_read(expdir, datadir, run, step)]
    while (parent := stages[0].parent) and (Path(expdir) / parent / "config.yaml").is_file():
        if parent in (stage.run for stage in stages):
            break
        stages.insert(0, _read(expdir, datadir, parent, None))
    return stages

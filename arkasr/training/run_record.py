"""The run's directory: its lock, its settings (config.yaml), and the record of its start (run.json)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from arkasr.config.load import config_differences, dump_config, read_config
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.model.checkpoint_files import complete_checkpoints, step_folders
from arkasr.plugins import registry
from arkasr.training.checkpoint_state import read_state, step_of
from arkasr.training.early_stopping import EarlyStopping
from arkasr.training.final_model import is_finished
from arkasr.training.inputs import changed_inputs, run_inputs
from arkasr.training.ranks import Ranks
from arkasr.utils.console import log
from arkasr.utils.files import locked, read_json, write_text
from arkasr.utils.redact import command_without_secrets, without_secrets

PACKAGES = ("arkasr", "torch", "torchaudio", "transformers", "lhotse", "pluggy", "sentencepiece", "tokenizers", "jiwer")
CHANGEABLE_KEYS = (  # configuration keys that a resumed run may change, because they do not change its results
    "data.num_workers",
    "data.resume",
    "data.max_failed_share",
    "train.steps",  # the length of the run may be raised, see `_check_length`
    "train.epochs",
    "train.hours",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "train.keep_best",
    "train.cache_encoder",
    "train.cache_folder",
    "train.hang_seconds",
    "train.max_skipped",
    "train.spike_factor",
    "train.threads",
    "train.peak_tflops",
    "fsdp",
    "distill.diagnose_every",
    "decode",
)


RESTORE = "restore it, or delete it to resume without a comparison of the inputs"


@contextmanager
def run_directory(folder: Path, config: Config, ranks: Ranks) -> Iterator[bool]:
    """Create and lock the directory of the run, compare it with earlier starts, and write config.yaml and run.json.

    Earlier starts count only if they took steps. The settings of a start that failed before that are replaced, and
    those of a run that is not trained (`objective: none`), whose model is then written again.

    Args:
        folder: The run's directory, `<expdir>/<run>`.
        config: The run's configuration.
        ranks: The processes of the run. Rank 0 holds the lock, the others wait for it.

    Yields:
        Whether the run is finished, so that there is nothing to train, while the lock is held.

    Raises:
        UserError: Another process trains in this directory, the run was started with other settings or inputs, or a
            file of the directory is damaged.
    """
    with ExitStack() as held:
        outcome: bool | str = ""
        if ranks.first:
            try:
                held.enter_context(locked(folder, "training"))
                outcome = RunRecord(folder, config, config.train.accumulate * ranks.world_size).open()
            except UserError as error:
                outcome = str(error)
        outcome = ranks.gather(outcome)[0]  # so that no rank waits for one that was refused
        if isinstance(outcome, str):
            raise UserError(outcome)
        yield outcome


def record_final(path: Path, step: int, checkpoints: list[str]) -> None:
    """Write into run.json which weights `final` holds.

    Args:
        path: The file `run.json`.
        step: The last step of the run.
        checkpoints: Names of the checkpoints whose mean `final` is. Empty if it is the model of the last step.
    """
    record = read_json(path, RESTORE) if path.is_file() else {}
    record["final"] = {"step": step, "checkpoints": checkpoints}
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


class RunRecord:
    """config.yaml and run.json of one run directory.

    Args:
        folder: The run's directory.
        config: The run's configuration.
        batches_per_step: Micro-batches per optimizer step, over ranks and gradient accumulation. If it stays the same,
            `train.accumulate` may change with the number of ranks.
    """

    def __init__(self, folder: Path, config: Config, batches_per_step: int):
        self.folder, self.config, self.batches_per_step = folder, config, batches_per_step
        self.settings, self.record = folder / "config.yaml", folder / "run.json"

    def open(self) -> bool:
        """Compare with earlier starts and write both files.

        Returns:
            Whether the run is finished.

        Raises:
            UserError: See `run_directory`.
        """
        finished, begun = is_finished(self.folder), self._has_begun()
        before = self._settings_before() if begun else None
        if before is not None and before.objective == self.config.objective == "none":
            begun, before = self._is_same_copy(before), None
            finished = finished and begun
        if not begun:
            self._forget_failed_start()
        if before is not None:
            self._check_settings(before)
        extended = before is not None and self.config.train.length > before.train.length
        self._check_inputs(finished and not extended)
        if extended and before is not None:
            self._extend(before)
        dump_config(self.config, self.settings)
        return finished and not extended

    def _has_begun(self) -> bool:
        metrics, checkpoints = self.folder / "metrics.jsonl", self.folder / "checkpoints"
        rows = metrics.is_file() and metrics.stat().st_size > 0
        return rows or bool(step_folders(checkpoints)) or (self.folder / "final").is_dir()

    def _settings_before(self) -> Config | None:
        if not self.settings.is_file():
            return None
        if not self.settings.read_bytes().endswith(b"\n"):
            raise UserError(
                f"{self.settings}: empty or cut short; restore it, or delete it to resume without a comparison of the "
                "settings"
            )
        return read_config(self.settings)

    def _record_before(self) -> dict[str, Any]:
        if not self.record.is_file():
            return {}
        return read_json(self.record, RESTORE)

    def _is_same_copy(self, before: Config) -> bool:
        """Return whether a run without training would write the model that is there. Only `model` decides that."""
        parent = changed_inputs(self._record_before().get("inputs") or {}, run_inputs(self.config))
        return not parent and before.model == self.config.model

    def _forget_failed_start(self) -> None:
        """Remove what an earlier start left that took no step. Its tokenizer may be from other settings or texts."""
        self.record.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "tokenizer", ignore_errors=True)
        shutil.rmtree(self.folder / "final", ignore_errors=True)

    def _check_settings(self, before: Config) -> None:
        record = self._record_before()
        old_name = record.get("batches_a_step")  # runs that were started before the key was renamed
        same = record.get("batches_per_step", old_name) == self.batches_per_step
        changeable = (*CHANGEABLE_KEYS, *(["train.accumulate"] if same else []))
        changed = config_differences(before, self.config, changeable)
        if changed:
            raise UserError(
                f"{self.settings}: this run was started with other settings ({', '.join(changed)}); restore them, "
                f"use another --expdir, or delete {self.folder}"
            )
        self._check_length(*before.train.length)

    def _check_length(self, unit: str, length: float) -> None:
        """Refuse another unit of the length of the run, and a shorter one."""
        unit_now, now = self.config.train.length
        if unit_now != unit:
            raise UserError(
                f"{self.settings}: this run was started with `train.{unit}` {length:g}, and its length cannot be "
                f"changed to `train.{unit_now}` {now:g}; set train.{unit}, or use another --expdir"
            )
        if now < length:
            raise UserError(
                f"{self.settings}: config key `train.{unit}` cannot be lowered from {length:g} to {now:g}; keep or "
                "raise it, or use another --expdir"
            )

    def _check_inputs(self, finished: bool) -> None:
        record, inputs = self._record_before(), run_inputs(self.config, missing_ok=finished)
        if changed := changed_inputs(record.get("inputs") or {}, inputs):
            self._report_changes(", ".join(changed), finished)
        if not record:
            record = self._new_record()
        elif "inputs" not in record:
            log(f"{self.record}: written by an earlier version, so changes of the inputs before now are not noticed")
        if "inputs" not in record and not finished:
            write_text(self.record, json.dumps(record | {"inputs": inputs}, indent=1, ensure_ascii=False) + "\n")

    def _report_changes(self, changed: str, finished: bool) -> None:
        if not finished:
            raise UserError(
                f"{self.folder}: inputs have changed since this run was started: {changed}; restore them, use another "
                f"--expdir, or delete {self.folder} to train from step 0"
            )
        log(
            f"warning: {self.folder}: already trained, but inputs have changed since then: {changed}; delete "
            f"{self.folder} and run the same command again to train on the present ones"
        )

    def _extend(self, before: Config) -> None:
        """Keep the result of a shorter run under another name, so that `final` is always that of the settings."""
        unit, length = before.train.length
        self._check_not_ended(before)
        text, final = f"train.{unit} raised from {length:g} to {self.config.train.length[1]:g}", self.folder / "final"
        if final.is_dir():
            checkpoints = complete_checkpoints(self.folder / "checkpoints")
            if not checkpoints:
                raise UserError(
                    f"{self.folder}: {text}, but there is no checkpoint to continue from; restore one, keep "
                    f"train.{unit}, or delete {self.folder} to train from step 0"
                )
            steps = before.train.steps or int(checkpoints[-1].name.split("-")[1])
            kept = self.folder / f"final-{steps:08d}"
            shutil.rmtree(kept, ignore_errors=True)
            final.rename(kept)
            text += f"; the model of step {steps} is now {kept.name}"
        log(f"{self.folder}: {text}")

    def _check_not_ended(self, before: Config) -> None:
        """Refuse to extend a run that ended before its length was reached."""
        found, stopping = complete_checkpoints(self.folder / "checkpoints"), EarlyStopping(before.train.patience)
        stopping.load_state_dict(read_state(found[-1]).get("stopping", {}) if found else {})
        if stopping.reached:
            unit, length = before.train.length
            raise UserError(
                f"{self.folder}: train.{unit} raised from {length:g}, but this run ended early after step "
                f"{step_of(found[-1])}, because {stopping.reason}; keep train.{unit}, or use another --expdir"
            )

    def _new_record(self) -> dict[str, Any]:
        return {
            "recipe": command_without_secrets(os.environ.get("ARKASR_RECIPE", "")),
            "command": shlex.join(["arkasr", *map(without_secrets, sys.argv[1:])]),
            "commit": _commit(),
            "versions": {p: _version(p) for p in PACKAGES} | {"python": sys.version.split()[0]},
            "plugins": registry.listing(),
            "world_size": int(os.environ.get("WORLD_SIZE", "1")),
            "batches_per_step": self.batches_per_step,
            "started": datetime.now().isoformat(timespec="seconds"),
        }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str:
    """Return the git commit of the source tree, with `+` if it has local changes, or an empty string outside git."""
    where = Path(__file__).parent

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(where), *args], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + "+" if head and git("status", "--porcelain", "-uno") else head
    except OSError:
        return ""

"""Training checkpoints: asynchronous saving, atomic publication, exact resume.

Weights and optimizer state are written with `torch.distributed.checkpoint`, all else as JSON. Of a model with LoRA
adapters, only trained weights are written. A checkpoint is valid
once it holds the file COMPLETE. This file is written last and lists size and SHA-256 digest of every file, so damaged
files are detected later.
"""

from __future__ import annotations

import json
import shutil
import warnings
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from arkasr.errors import UserError
from arkasr.model.checkpoint_files import (
    COMPLETE,
    WEIGHTS,
    complete_checkpoints,
    damage,
    describe,
    saved_options,
    step_folders,
    without_frozen_head,
)
from arkasr.model.checkpoint_reader import read_weights, saved_shapes
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.training import random_state
from arkasr.training.checkpoint_state import dev_error_of, read_state
from arkasr.training.checkpoint_writer import Writer, mark_complete
from arkasr.training.ranks import Ranks
from arkasr.training.selection import Selection
from arkasr.utils.console import log
from arkasr.utils.files import flush

# torch warns about this in every single-process run. A global filter, because the writing thread ignores local ones.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


@dataclass
class _Pending:
    """A save that is still being written."""

    future: Future
    temporary: Path
    final: Path
    state: dict[str, Any]  # content of state.json


class Checkpoints:
    """The checkpoints of one run, and the policy which of them are kept.

    Only one save is written at a time: the next one waits for it. An error of the writing thread (such as a full disk)
    is raised by the next `save`, `poll` or `wait`. Earlier checkpoints are not affected.

    Args:
        folder: Directory of the checkpoints, normally `<expdir>/<run>/checkpoints`.
        ranks: The processes of the run. Rank 0 creates, renames and deletes directories.
        keep: Number of newest checkpoints to keep.
        keep_best: Number of checkpoints with the lowest dev error to keep in addition.
        selection: The rule of the final model, whose checkpoints are kept in addition. None needs no checkpoint.
    """

    def __init__(self, folder: Path, ranks: Ranks, keep: int, keep_best: int = 0, selection: Selection | None = None):
        self.folder, self.ranks, self.keep, self.keep_best = folder, ranks, keep, keep_best
        self.selection = selection
        self.pending: _Pending | None = None

    def complete(self) -> list[Path]:
        """List the complete checkpoints.

        Returns:
            Folders that hold COMPLETE, oldest first.
        """
        return complete_checkpoints(self.folder)

    def save(self, step: int, student: SpeechLM, optimizer: torch.optim.Optimizer, extra: dict[str, Any]) -> None:
        """Copy the training state and start to write it in the background, under a temporary name.

        Args:
            step: Number of optimizer steps taken.
            student: The model. Every rank writes its own shard.
            optimizer: The optimizer, also sharded.
            extra: Further JSON-serialisable values for state.json, such as the state of the data loader.
        """
        self.wait()
        temporary, final = self.folder / f"writing-{step:08d}", self.folder / f"step-{step:08d}"
        if self.ranks.first:
            self._remove_incomplete()
            temporary.mkdir(parents=True)
        self.ranks.barrier()
        if self.ranks.first:
            describe(temporary, student, extra["config"]["model"]["path"])
        random_state.write_generators(temporary / random_state.file_name(self.ranks.rank))
        model, optim = _state(student, optimizer)
        future = dcp.async_save(
            {"model": model, "optim": optim},
            storage_writer=Writer(temporary, self.ranks.rank),
            process_group=self.ranks.save_group,
            async_stager=DefaultStager(StagingOptions(False, False, False, False)),
            no_dist=self.ranks.mesh is None,
        )
        state = {"step": step, "world_size": self.ranks.world_size, **extra}
        # an AsyncSaveResponse is returned only with asynchronous staging
        self.pending = _Pending(cast(Future, future), temporary, final, state)

    def _remove_incomplete(self) -> None:
        """Delete checkpoints that a killed run left partly written or partly deleted."""
        for path in {*self.folder.glob("writing-*"), *step_folders(self.folder)} - set(self.complete()):
            shutil.rmtree(path)

    def poll(self) -> None:
        """Publish the pending checkpoint if it is fully written. Return at once if it is not."""
        if self.pending is not None and self.pending.future.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the pending checkpoint, if there is one, and publish it under its final name."""
        if self.pending is None:
            return
        written, self.pending = self.pending, None
        try:
            written.future.result()  # on rank 0 this returns after every rank has written its shard
            if self.ranks.first:
                self._publish(written)
        except BaseException:
            if self.ranks.first:
                shutil.rmtree(written.temporary, ignore_errors=True)
            raise

    def _publish(self, written: _Pending) -> None:
        folder = written.temporary
        (folder / "state.json").write_text(json.dumps(written.state), encoding="utf-8")
        mark_complete(folder)
        remove(written.final)
        folder.rename(written.final)
        flush([self.folder])
        for old in self._expired(written.final):
            remove(old)

    def _expired(self, newest: Path) -> list[Path]:
        """List the checkpoints to delete after `newest`. Damaged ones do not count towards `keep` and `keep_best`."""
        found = self.complete()
        sound = [p for p in found if not damage(p, contents=False)]
        errors = {p: dev_error_of(p) for p in sound}
        best = sorted((p for p in sound if errors[p] is not None), key=lambda p: (errors[p], p))[: self.keep_best]
        needed = self.selection.choose(sound) if self.selection else []
        return [p for p in found if p < newest and p not in [*sound[-self.keep :], *best, *needed]]

    def load_newest(self, student: SpeechLM, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Restore the newest undamaged checkpoint into model, optimizer and random generators.

        With another number of ranks than at the save, the generators are seeded from the step instead.

        Args:
            student: The model to load into. Its sharding may differ from that of the save.
            optimizer: The optimizer to load into.

        Returns:
            The content of the checkpoint's state.json, or None if there is no checkpoint.

        Raises:
            UserError: Every checkpoint is damaged, or the newest undamaged one holds another model or cannot be read.
        """
        self.wait()
        if self.ranks.first:
            self._remove_incomplete()
        found = self.ranks.gather(self.complete())[0]  # rank 0's list: a shared file system may be stale elsewhere
        for path in reversed(found):
            reason = self.damage(path)
            if not reason:
                return self._load(path, student, optimizer)
            log(f"{path}: {reason}; this checkpoint is skipped, trying the previous one")
        if found:
            raise UserError(
                f"{self.folder}: every checkpoint is damaged; restore one, or delete the folder to start from step 0"
            )
        return None

    def damage(self, path: Path) -> str:
        """Check the contents of a checkpoint on all ranks, which read different files.

        Args:
            path: The checkpoint folder.

        Returns:
            What is wrong, the same on all ranks, or an empty string if nothing is.
        """
        own = damage(path, self.ranks.rank, self.ranks.world_size)
        return next((reason for reason in self.ranks.gather(own) if reason), "")

    def _load(self, path: Path, student: SpeechLM, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        model, optim = _state(student, optimizer)
        _check_same_model(path, model)
        read_weights(path / WEIGHTS, {"model": model, "optim": optim}, no_dist=self.ranks.mesh is None)
        options = saved_options(student)
        set_state_dict(student, optimizer, model_state_dict=model, optim_state_dict=optim, options=options)
        state = read_state(path)
        if state["world_size"] == self.ranks.world_size:
            random_state.read_generators(path / random_state.file_name(self.ranks.rank), state["step"])
        else:  # the saved generators belong to other ranks
            random_state.seed_from_step(state["step"])
        log(f"resuming from {path} (step {state['step']})")
        return state


def _state(student: SpeechLM, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    model, optim = get_state_dict(student, optimizer, options=saved_options(student))
    return without_frozen_head(student, model), optim


def remove(path: Path) -> None:
    """Delete a checkpoint. COMPLETE is deleted first, so an interrupted deletion leaves no valid checkpoint.

    Args:
        path: The checkpoint folder. It need not exist.
    """
    (path / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _check_same_model(path: Path, model: dict[str, Any]) -> None:
    shapes = saved_shapes(path / WEIGHTS)
    saved = {name.removeprefix("model."): shape for name, shape in shapes.items() if name.startswith("model.")}
    current = {name: tuple(value.shape) for name, value in model.items()}
    different = sorted(name for name in saved.keys() | current.keys() if saved.get(name) != current.get(name))
    if different:
        name = different[0]
        in_file, here = saved.get(name, "absent"), current.get(name, "absent")
        raise UserError(
            f"{path}: holds another model ({len(different)} tensors differ; {name} is {in_file} in the checkpoint and "
            f"{here} in this run); use another --expdir, or restore the model's configuration"
        )

"""Training checkpoints (asynchronous saving, atomic publication, exact resume) and the final model folder.

Weights and optimizer state are written with `torch.distributed.checkpoint`. A checkpoint is valid once it holds the
file COMPLETE. This file is written last and lists the size of every file, so truncated files are detected later.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import warnings
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

from arkasr.errors import UserError
from arkasr.model.checkpoint_files import COMPLETE, WEIGHTS, complete_checkpoints, describe
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.training.ranks import Ranks
from arkasr.utils.console import log

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
    """

    def __init__(self, folder: Path, ranks: Ranks, keep: int, keep_best: int = 0):
        self.folder, self.ranks, self.keep, self.keep_best = folder, ranks, keep, keep_best
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
            describe(temporary, student)
        torch.save(_rng_state(), temporary / f"rng-{self.ranks.rank:05d}.pt")
        model, optim = get_state_dict(student, optimizer)
        future = dcp.async_save(
            {"model": model, "optim": optim},
            checkpoint_id=temporary / WEIGHTS,
            process_group=self.ranks.save_group,
            no_dist=self.ranks.mesh is None,
        )
        state = {"step": step, "world_size": self.ranks.world_size, **extra}
        # an AsyncSaveResponse is returned only where an async_stager is passed
        self.pending = _Pending(cast(Future, future), temporary, final, state)

    def _remove_incomplete(self) -> None:
        """Delete checkpoints that a killed run left partly written or partly deleted."""
        for path in {*self.folder.glob("writing-*"), *self.folder.glob("step-*")} - set(self.complete()):
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
        (folder / "state.json").write_text(json.dumps(written.state))
        sizes = {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
        # Flush before COMPLETE is written. Otherwise COMPLETE may survive a power cut that the files did not survive.
        _flush(folder.rglob("*"))
        (folder / COMPLETE).write_text(json.dumps(sizes, indent=1))
        _flush([folder / COMPLETE, folder])
        remove(written.final)
        folder.rename(written.final)
        _flush([self.folder])
        for old in self._expired(written.final):
            remove(old)

    def _expired(self, newest: Path) -> list[Path]:
        """List the checkpoints to delete after `newest`. Damaged ones do not count towards `keep` and `keep_best`."""
        found = self.complete()
        sound = [p for p in found if not damage(p)]
        errors = {p: read_state(p).get("dev_error") for p in sound}
        best = sorted((p for p in sound if errors[p] is not None), key=lambda p: (errors[p], p))[: self.keep_best]
        return [p for p in found if p < newest and p not in [*sound[-self.keep :], *best]]

    def load_newest(self, student: SpeechLM, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Restore the newest undamaged checkpoint into model, optimizer and random generators.

        With another number of ranks than at the save, the generators are seeded from the step instead.

        Args:
            student: The model to load into. Its sharding may differ from that of the save.
            optimizer: The optimizer to load into.

        Returns:
            The content of the checkpoint's state.json, or None if there is no checkpoint.

        Raises:
            UserError: Every checkpoint is damaged, or the newest undamaged one holds another model.
        """
        self.wait()
        if self.ranks.first:
            self._remove_incomplete()
        found = self.ranks.gather(self.complete())[0]  # rank 0's list: a shared file system may be stale elsewhere
        for path in reversed(found):
            reason = self.ranks.gather(damage(path) if self.ranks.first else "")[0]
            if not reason:
                return self._load(path, student, optimizer)
            log(f"{path}: {reason}; this checkpoint is skipped, trying the previous one")
        if found:
            raise UserError(
                f"{self.folder}: every checkpoint is damaged; restore one, or delete the folder to start from step 0"
            )
        return None

    def _load(self, path: Path, student: SpeechLM, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        model, optim = get_state_dict(student, optimizer)
        _check_same_model(path, model)
        dcp.load({"model": model, "optim": optim}, checkpoint_id=path / WEIGHTS, no_dist=self.ranks.mesh is None)
        set_state_dict(student, optimizer, model_state_dict=model, optim_state_dict=optim)
        state = read_state(path)
        if state["world_size"] == self.ranks.world_size:
            _set_rng_state(torch.load(path / f"rng-{self.ranks.rank:05d}.pt", weights_only=False))
        else:  # The saved generators belong to other ranks. This seed is the same each time this step is resumed.
            torch.manual_seed(torch.initial_seed() + state["step"])
        log(f"resuming from {path} (step {state['step']})")
        return state


def save_final(folder: Path, student: SpeechLM, ranks: Ranks) -> None:
    """Write the whole model as a Hugging Face folder (safetensors), under a temporary name that is renamed at the end.

    Transcripts and scores of earlier weights of the same run are deleted. All ranks must call this.

    Args:
        folder: The folder to create, normally `<expdir>/<run>/final`.
        student: The model. Its shards are gathered on rank 0.
        ranks: The processes of the run.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = cast(dict[str, Tensor], get_model_state_dict(student, options=options))  # full and flat: tensors only
    if ranks.first:
        temporary = folder.with_name(f"writing-{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        weights = {k.removeprefix("hf."): v for k, v in state.items() if k.startswith("hf.")}
        for name in student.hf.all_tied_weights_keys:  # gathered from shards they are copies and would be stored twice
            weights.pop(name, None)
        student.save(temporary, weights)
        shutil.rmtree(folder.parent / "decode", ignore_errors=True)
        (folder.parent / "scores.json").unlink(missing_ok=True)
        temporary.rename(folder)
    ranks.barrier()


def read_state(path: Path) -> dict[str, Any]:
    """Read state.json of a checkpoint.

    Args:
        path: The checkpoint folder, `step-*`.

    Returns:
        `step`, `world_size`, and the values that the trainer added.
    """
    return json.loads((path / "state.json").read_text())


def remove(path: Path) -> None:
    """Delete a checkpoint. COMPLETE is deleted first, so an interrupted deletion leaves no valid checkpoint.

    Args:
        path: The checkpoint folder. It need not exist.
    """
    (path / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def damage(path: Path) -> str:
    """Compare the files of a checkpoint with the sizes listed in COMPLETE.

    Args:
        path: A checkpoint folder that holds COMPLETE.

    Returns:
        What is wrong, or an empty string if nothing is.
    """
    try:
        sizes = json.loads((path / COMPLETE).read_text())
    except ValueError:
        return f"its {COMPLETE} cannot be read"
    for name, size in sizes.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, expected {size}"
    return ""


def _check_same_model(path: Path, model: dict[str, Any]) -> None:
    metadata = dcp.FileSystemReader(path / WEIGHTS).read_metadata().state_dict_metadata
    saved = {
        name.removeprefix("model."): tuple(entry.size)
        for name, entry in metadata.items()
        if name.startswith("model.") and isinstance(entry, TensorStorageMetadata)
    }
    current = {name: tuple(value.shape) for name, value in model.items()}
    different = sorted(name for name in saved.keys() | current.keys() if saved.get(name) != current.get(name))
    if different:
        name = different[0]
        in_file, here = (shapes.get(name, "absent") for shapes in (saved, current))
        raise UserError(
            f"{path}: holds another model ({len(different)} tensors differ; {name} is {in_file} in the checkpoint and "
            f"{here} in this run); use another --expdir, or restore the model's configuration"
        )


def _rng_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    numpy = np.random.get_state()  # noqa: NPY002  # libraries draw from the global generator
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate(), "numpy": numpy}


def _set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002


def _flush(paths: Iterable[Path]) -> None:
    """Force files, and the entries of directories, to the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""Checkpoints: written aside while training goes on, renamed when whole, resumed exactly.

PyTorch's distributed checkpoint does the work. A checkpoint counts once it holds COMPLETE, which is written last and
lists every file's size: one that was cut short later is found by it, and the one before is taken.
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
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
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

# Said of every run of one process. By message, for the writing thread does not know this one's filters.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


@dataclass
class _Pending:
    """A save whose writing goes on: where it is written, what it will be called, and what its state.json says."""

    future: Future
    aside: Path
    final: Path
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run in `folder`: the newest `keep`, and the `keep_best` of lowest dev error.

    One save is written at a time: the next waits for it. What a write raises (a full disk) is raised by the next
    `save`, `poll` or `wait`, and the checkpoints before it stay.
    """

    def __init__(self, folder: Path, ranks: Ranks, keep: int, keep_best: int = 0):
        self.folder, self.ranks, self.keep, self.keep_best = folder, ranks, keep, keep_best
        self.pending: _Pending | None = None

    def complete(self) -> list[Path]:
        """List the whole checkpoints, oldest first."""
        return complete_checkpoints(self.folder)

    def save(self, step: int, student: SpeechLM, optimizer: torch.optim.Optimizer, extra: dict[str, Any]) -> None:
        """Copy the state of step `step` and begin to write it, under a temporary name, in the background."""
        self.wait()
        aside, final = self.folder / f"writing-{step:08d}", self.folder / f"step-{step:08d}"
        if self.ranks.first:
            self._clear()
            aside.mkdir(parents=True)
        self.ranks.barrier()
        if self.ranks.first:
            describe(aside, student)
        torch.save(_rng_state(), aside / f"rng-{self.ranks.rank:05d}.pt")
        model, optim = get_state_dict(student, optimizer)
        future = dcp.async_save(
            {"model": model, "optim": optim},
            checkpoint_id=aside / WEIGHTS,
            process_group=self.ranks.save_group,
            no_dist=self.ranks.mesh is None,
        )
        state = {"step": step, "world_size": self.ranks.world_size, **extra}
        self.pending = _Pending(future, aside, final, state)

    def _clear(self) -> None:
        """Delete what a killed run left half written, or half deleted."""
        for left in {*self.folder.glob("writing-*"), *self.folder.glob("step-*")} - set(self.complete()):
            shutil.rmtree(left)

    def poll(self) -> None:
        """Rename the checkpoint in the making if all of it is written; returns at once where it is not."""
        if self.pending is not None and self.pending.future.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint in the making, if there is one, and rename it."""
        if self.pending is None:
            return
        made, self.pending = self.pending, None
        try:
            made.future.result()  # on the first rank this ends after every rank has written its part
            if self.ranks.first:
                self._publish(made)
        except BaseException:
            if self.ranks.first:
                shutil.rmtree(made.aside, ignore_errors=True)
            raise

    def _publish(self, made: _Pending) -> None:
        (made.aside / "state.json").write_text(json.dumps(made.state))
        sizes = {str(p.relative_to(made.aside)): p.stat().st_size for p in made.aside.rglob("*") if p.is_file()}
        # else COMPLETE may stand, after a power cut, beside files that never reached the disk
        _flush(made.aside.rglob("*"))
        (made.aside / COMPLETE).write_text(json.dumps(sizes, indent=1))
        _flush([made.aside / COMPLETE, made.aside])
        remove(made.final)
        made.aside.rename(made.final)
        _flush([self.folder])
        for old in self._superfluous(made.final):
            remove(old)

    def _superfluous(self, newest: Path) -> list[Path]:
        """List what goes now that `newest` is there; damaged ones take no place of those kept, and go as others do."""
        found = self.complete()
        sound = [p for p in found if not damage(p)]
        errors = {p: read_state(p).get("dev_error") for p in sound}
        best = sorted((p for p in sound if errors[p] is not None), key=lambda p: (errors[p], p))[: self.keep_best]
        return [p for p in found if p < newest and p not in [*sound[-self.keep :], *best]]

    def load_newest(self, student: SpeechLM, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Restore the newest undamaged checkpoint and return its state.json; None where there is none.

        Raises UserError where all are damaged, or the newest undamaged one holds another model.
        """
        self.wait()
        if self.ranks.first:
            self._clear()
        found = self.ranks.gather(self.complete())[0]  # the first rank's: file systems may show others a former state
        for path in reversed(found):
            wrong = self.ranks.gather(damage(path) if self.ranks.first else "")[0]
            if not wrong:
                return self._load(path, student, optimizer)
            log(f"{path}: {wrong}: it is left aside, and the checkpoint before it taken")
        if found:
            raise UserError(
                f"{self.folder}: every checkpoint is damaged; restore one, or delete the folder to start over"
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
        else:  # nobody's generators are ours: draw on from a state that is the same whenever this step is resumed
            torch.manual_seed(torch.initial_seed() + state["step"])
        log(f"resuming from {path} (step {state['step']})")
        return state


def _flush(paths: Iterable[Path]) -> None:
    """Have files, and what folders list, written to the disk itself."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_state(path: Path) -> dict[str, Any]:
    """Read what a checkpoint says of itself beside weights: step, world_size, and what the trainer added."""
    return json.loads((path / "state.json").read_text())


def remove(path: Path) -> None:
    """Delete a checkpoint; one deleted half way does not count as whole."""
    (path / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def damage(path: Path) -> str:
    """Say what is wrong with the files of a complete checkpoint, by their sizes; empty where nothing is."""
    try:
        sizes = json.loads((path / COMPLETE).read_text())
    except ValueError:
        return f"its {COMPLETE} cannot be read"
    for name, size in sizes.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, not {size}"
    return ""


def _check_same_model(path: Path, model: dict[str, Any]) -> None:
    stored = dcp.FileSystemReader(path / WEIGHTS).read_metadata().state_dict_metadata
    shapes = {k.removeprefix("model."): tuple(v.size) for k, v in stored.items() if k.startswith("model.")}
    ours = {name: tuple(value.shape) for name, value in model.items()}
    wrong = sorted(name for name in shapes.keys() | ours.keys() if shapes.get(name) != ours.get(name))
    if wrong:
        there, here = (of.get(wrong[0], "absent") for of in (shapes, ours))
        raise UserError(
            f"{path}: holds another model ({len(wrong)} tensors differ, first {wrong[0]}: {there} there, {here} here); "
            "give another --expdir"
        )


def _rng_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate(), "numpy": np.random.get_state()}


def _set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])


def save_final(folder: Path, student: SpeechLM, ranks: Ranks) -> None:
    """Write the whole model as a Hugging Face folder (safetensors), aside first, renamed when whole."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(student, options=options)
    if ranks.first:
        aside = folder.with_name(f"writing-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        weights = {k.removeprefix("hf."): v for k, v in state.items() if k.startswith("hf.")}
        for name in student.hf.all_tied_weights_keys:  # gathered from shards they are copies: written twice
            weights.pop(name, None)
        student.save(aside, weights)
        shutil.rmtree(folder.parent / "decode", ignore_errors=True)  # transcripts by earlier weights, and their scores
        (folder.parent / "scores.json").unlink(missing_ok=True)
        aside.rename(folder)
    ranks.barrier()

"""Checkpoints: written aside, renamed when whole, resumed exactly; PyTorch's distributed checkpoint does the work."""

from __future__ import annotations

import json
import random
import shutil
import warnings
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

from arkasr.model.snapshot import WEIGHTS, describe, whole_checkpoints
from arkasr.model.speech_lm import SpeechLM
from arkasr.terminal import log
from arkasr.training.ranks import Ranks


def _rng_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate(), "numpy": np.random.get_state()}


def _set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])


class Checkpoints:
    """The checkpoints of one run in `folder`, the newest `keep` of them."""

    def __init__(self, folder: Path, ranks: Ranks, keep: int):
        self.folder, self.ranks, self.keep = folder, ranks, keep

    def complete(self) -> list[Path]:
        """List the whole checkpoints, oldest first."""
        return whole_checkpoints(self.folder)

    def save(self, step: int, student: SpeechLM, optimizer: torch.optim.Optimizer, extra: dict[str, Any]) -> None:
        """Write step `step` under a temporary name and rename it once every rank's part is there."""
        aside, final = self.folder / f"writing-{step:08d}", self.folder / f"step-{step:08d}"
        if self.ranks.first:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        self.ranks.barrier()
        model, optim = get_state_dict(student, optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save({"model": model, "optim": optim}, checkpoint_id=aside / WEIGHTS, no_dist=self.ranks.mesh is None)
        torch.save(_rng_state(), aside / f"rng-{self.ranks.rank:05d}.pt")
        self.ranks.barrier()
        if self.ranks.first:
            describe(aside, student)
            (aside / "state.json").write_text(json.dumps({"step": step, **extra}))
            (aside / "COMPLETE").touch()
            shutil.rmtree(final, ignore_errors=True)
            aside.rename(final)
            for old in self.complete()[: -self.keep]:
                shutil.rmtree(old)

    def load_newest(self, student: SpeechLM, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Restore the newest whole checkpoint and return its extra state; None where there is none."""
        found = self.complete()
        if not found:
            return None
        model, optim = get_state_dict(student, optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(
                {"model": model, "optim": optim}, checkpoint_id=found[-1] / WEIGHTS, no_dist=self.ranks.mesh is None
            )
        set_state_dict(student, optimizer, model_state_dict=model, optim_state_dict=optim)
        rng = found[-1] / f"rng-{self.ranks.rank:05d}.pt"
        if rng.is_file():
            _set_rng_state(torch.load(rng, weights_only=False))
        extra = json.loads((found[-1] / "state.json").read_text())
        log(f"resuming from {found[-1]} (step {extra['step']})")
        return extra


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

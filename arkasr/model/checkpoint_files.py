"""A training checkpoint on disk, as far as others than the training loop read it: which are whole, and their model."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer

from arkasr.errors import UserError
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig
from arkasr.model.speech_lm.auto import SpeechLM, wrap

COMPLETE, WEIGHTS, DESCRIPTION = "COMPLETE", "weights", "model"


def whole_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints `step-*` of a folder that were written to the end, oldest first."""
    return sorted(p for p in folder.glob("step-*") if (p / COMPLETE).is_file())


def describe(checkpoint: Path, lm: SpeechLM) -> None:
    """Write what a Hugging Face folder holds beside weights, so that a checkpoint can be read without its run."""
    lm.hf.config.save_pretrained(checkpoint / DESCRIPTION)
    lm.tokenizer.save_pretrained(checkpoint / DESCRIPTION)


def load_checkpoint(checkpoint: Path, dtype: str = "float32") -> SpeechLM:
    """Return the student that a checkpoint of any number of ranks holds, in eval mode on the CPU; in one process.

    dtype: torch's name of one. Raises UserError where the checkpoint does not say what model it holds, or its weights
    cannot be read.
    """
    place = checkpoint / DESCRIPTION
    if not (place / "config.json").is_file():
        raise UserError(f"{place}: no config.json, so that its model is not known: take another checkpoint, or final")
    hf = AutoModelForCausalLM.from_config(ArkasrConfig.from_pretrained(place), dtype=getattr(torch, dtype))
    lm = wrap(hf, AutoTokenizer.from_pretrained(place))
    state = {"model": get_model_state_dict(lm)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(state, checkpoint_id=checkpoint / WEIGHTS, no_dist=True)
    except (dcp.CheckpointException, RuntimeError, OSError, ValueError) as error:
        why = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UserError(f"{checkpoint / WEIGHTS}: cannot be read ({why[0]}); take another checkpoint") from error
    lm.load_state_dict(state["model"])
    return lm.eval()

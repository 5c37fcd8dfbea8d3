"""Read training checkpoints outside the training loop: find the complete ones and load their model."""

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

COMPLETE, WEIGHTS, DESCRIPTION = "COMPLETE", "weights", "model"  # in a checkpoint: a file and two subfolders


def complete_checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of one run.

    Args:
        folder: The run's folder `checkpoints`.

    Returns:
        The subfolders `step-*` that hold the file COMPLETE, oldest first.
    """
    return sorted(p for p in folder.glob("step-*") if (p / COMPLETE).is_file())


def describe(checkpoint: Path, lm: SpeechLM) -> None:
    """Write configuration and tokenizer into a checkpoint, so that it can be loaded without its run.

    Args:
        checkpoint: The checkpoint's folder. The files go to its subfolder `model`.
        lm: The model whose weights the checkpoint holds.
    """
    lm.hf.config.save_pretrained(checkpoint / DESCRIPTION)
    lm.tokenizer.save_pretrained(checkpoint / DESCRIPTION)


def load_checkpoint(checkpoint: Path, dtype: str = "float32") -> SpeechLM:
    """Load the student of a training checkpoint in one process. Any number of ranks may have written it.

    Args:
        checkpoint: The checkpoint's folder `step-*`.
        dtype: Name of a torch dtype, such as "bfloat16".

    Returns:
        The student in evaluation mode on the CPU.

    Raises:
        UserError: The checkpoint has no model configuration, or its weights cannot be read.
    """
    description = checkpoint / DESCRIPTION
    if not (description / "config.json").is_file():
        raise UserError(f"{description}: no config.json, so the model is unknown; use another checkpoint or `final`")
    hf = AutoModelForCausalLM.from_config(ArkasrConfig.from_pretrained(description), dtype=getattr(torch, dtype))
    lm = wrap(hf, AutoTokenizer.from_pretrained(description))
    state = {"model": get_model_state_dict(lm)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(state, checkpoint_id=checkpoint / WEIGHTS, no_dist=True)
    except (dcp.CheckpointException, RuntimeError, OSError, ValueError) as error:
        why = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UserError(f"{checkpoint / WEIGHTS}: cannot be read ({why[0]}); use another checkpoint") from error
    lm.load_state_dict(state["model"])
    return lm.eval()

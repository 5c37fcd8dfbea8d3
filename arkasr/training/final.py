"""The end of a run: the whole model as a Hugging Face folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from arkasr.model.speech_lm import SpeechLM
from arkasr.training.ranks import Ranks


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

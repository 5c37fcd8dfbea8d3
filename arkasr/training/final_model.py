"""The result of a finished run: a Hugging Face folder `final` with the whole model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from arkasr.errors import UserError
from arkasr.model.ctc_head import write_ctc_head
from arkasr.model.generation.merging import has_adapters
from arkasr.model.lora import merged
from arkasr.model.lora_files import ADAPTER, write_adapter
from arkasr.model.reading import check_json_files
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.model.weight_digests import check_digests, digested_files
from arkasr.model.weight_files import weight_files
from arkasr.training.ranks import Ranks
from arkasr.utils.files import publish


def save_final(folder: Path, student: SpeechLM, ranks: Ranks, base: str = "") -> None:
    """Gather the model and write it with `write_final`. All ranks must call this.

    Args:
        folder: The folder to create, normally `<expdir>/<run>/final`.
        student: The model. Its shards are gathered on rank 0.
        ranks: The processes of the run.
        base: Folder or Hub id of the model that the run started from.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = cast(dict[str, Tensor], get_model_state_dict(student, options=options))  # full and flat: tensors only
    if ranks.first:
        write_final(folder, student, state, base)
    ranks.barrier()


def write_final(folder: Path, student: SpeechLM, state: dict[str, Tensor], base: str) -> None:
    """Write the whole model as a Hugging Face folder (safetensors), under a temporary name that is renamed at the end.

    Adapters are merged. The subfolder `adapter` holds them in PEFT's layout. A CTC head has a file of its own.
    Transcripts and scores of earlier weights of the same run are deleted.

    Args:
        folder: The folder to create, normally `<expdir>/<run>/final`.
        student: The model.
        state: Its whole tensors by name.
        base: Folder or Hub id of the model that the run started from.
    """
    temporary = folder.with_name(f"writing-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    weights = {k.removeprefix("hf."): v for k, v in state.items() if k.startswith("hf.")}
    for name in student.hf.all_tied_weights_keys:  # gathered from shards they are copies and would be stored twice
        weights.pop(name, None)
    write_ctc_head(temporary, state, student.ctc_tokenizer)  # first, because `save` writes the digests of all files
    student.save(temporary, merged(weights, student.hf))
    if has_adapters(student.hf):
        write_adapter(temporary / ADAPTER, student, weights, base)
    shutil.rmtree(folder.parent / "decode", ignore_errors=True)
    (folder.parent / "scores.json").unlink(missing_ok=True)
    publish(temporary, folder)


def is_finished(run: Path) -> bool:
    """Check whether a run has its final model.

    Args:
        run: The run's directory.

    Returns:
        True if there is a folder `final`.

    Raises:
        UserError: A file of the folder is missing, empty, cut short or changed.
    """
    final = run / "final"
    if not final.exists():
        return False
    what_to_do = f"delete {final} and run the same command again, which writes it from the last checkpoint"
    if not (final / "config.json").is_file():
        raise UserError(f"{final}: not a whole model (no config.json); {what_to_do}")
    try:
        check_json_files(str(final))
        weights = weight_files(final)
        check_digests([*weights, *digested_files(final)])
    except UserError as error:
        raise UserError(f"{str(error).partition(';')[0]}; {what_to_do}") from error
    for path in weights:
        expected, found = _stated_size(path), path.stat().st_size
        if found != expected:
            raise UserError(f"{path}: has {found} bytes, its header states {expected}; {what_to_do}")
    return True


def _stated_size(path: Path) -> int:
    """Return the size of a safetensors file as its header states it, -1 if the header cannot be read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < path.stat().st_size else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return 8 + length + max(ends)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return -1

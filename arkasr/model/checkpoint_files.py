"""The files of training checkpoints: find the complete ones, check their files, and load their model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import AutoModelForCausalLM

from arkasr.config.schema import LoraConfig, ModelConfig
from arkasr.errors import UserError
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig
from arkasr.model.arkasr.modeling_arkasr import ArkasrForConditionalGeneration
from arkasr.model.build import assemble
from arkasr.model.checkpoint_reader import read_weights, saved_shapes
from arkasr.model.generation.merging import has_adapters
from arkasr.model.loading import load_speech_lm
from arkasr.model.lora import merge_adapters, train_parts
from arkasr.model.lora_files import BASE_RECORD, check_base, write_base
from arkasr.model.reading import check_json_files, load_tokenizer, reading
from arkasr.model.speech_lm.auto import SpeechLM, wrap
from arkasr.utils.files import read_json, sha256

COMPLETE, WEIGHTS, DESCRIPTION = "COMPLETE", "weights", "model"  # in a checkpoint: a file and two subfolders


def complete_checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of one run.

    Args:
        folder: The run's folder `checkpoints`.

    Returns:
        The subfolders `step-<number>` that hold the file COMPLETE, oldest first.
    """
    return sorted(p for p in step_folders(folder) if (p / COMPLETE).is_file())


def step_folders(folder: Path) -> list[Path]:
    """List all checkpoints of one run, complete or not. Other folders, such as copies by hand, are left out.

    Args:
        folder: The run's folder `checkpoints`.

    Returns:
        The subfolders `step-<number>`.
    """
    return [p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdecimal() and p.is_dir()]


def damage(path: Path, part: int = 0, parts: int = 1, contents: bool = True) -> str:
    """Compare the files of a checkpoint with COMPLETE, which lists their sizes and SHA-256 digests.

    Earlier versions listed sizes only. Their checkpoints are compared by size.

    Args:
        path: A checkpoint folder that holds COMPLETE.
        part: Which of the parts to check the contents of, so that several ranks can share the work.
        parts: Number of parts. Sizes are always checked for all files.
        contents: Whether to check digests too, which reads the whole files.

    Returns:
        What is wrong, or an empty string if nothing is.
    """
    try:
        listed = json.loads((path / COMPLETE).read_text(encoding="utf-8"))
        entries = {name: entry if isinstance(entry, dict) else {"bytes": entry} for name, entry in listed.items()}
        sizes = {name: int(entry["bytes"]) for name, entry in entries.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return f"its {COMPLETE} cannot be read"
    if not sizes:
        return f"its {COMPLETE} lists no files"
    for name, size in sizes.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if (found := (path / name).stat().st_size) != size:
            return f"{name} has {found} bytes, expected {size}"
    return _changed_content(path, entries, part, parts) if contents else ""


def _changed_content(path: Path, entries: dict[str, dict[str, Any]], part: int, parts: int) -> str:
    for name in sorted(entries)[part::parts]:
        digest = entries[name].get("sha256")
        try:
            changed = bool(digest) and sha256(path / name) != digest
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if changed:
            return f"{name} was changed after it was written (its SHA-256 digest differs from {COMPLETE})"
    return ""


def describe(checkpoint: Path, lm: SpeechLM, base: str = "") -> None:
    """Write configuration and tokenizer into a checkpoint, so that it can be loaded without its run.

    Args:
        checkpoint: The checkpoint's folder. The files go to its subfolder `model`.
        lm: The model whose weights the checkpoint holds.
        base: Folder or Hub id of the model that adapters were added to.
    """
    lm.hf.config.save_pretrained(checkpoint / DESCRIPTION)
    lm.tokenizer.save_pretrained(checkpoint / DESCRIPTION)
    if has_adapters(lm.hf):
        write_base(checkpoint / DESCRIPTION, base)


def load_checkpoint(checkpoint: Path, dtype: str = "float32") -> SpeechLM:
    """Load the student of a training checkpoint in one process. Any number of ranks may have written it.

    Args:
        checkpoint: The checkpoint's folder `step-*`.
        dtype: Name of a torch dtype, such as "bfloat16".

    Returns:
        The student in evaluation mode on the CPU. Adapters are merged.

    Raises:
        UserError: The checkpoint has no model configuration, its files are damaged or cannot be read, or the base of
            its adapters is absent or has changed.
    """
    if is_adapted(checkpoint):
        lm = merge_adapters(load_adapted(checkpoint))
        for weight in lm.parameters():
            weight.data = weight.data.to(getattr(torch, dtype))
        return lm.eval()
    _check_files(checkpoint)
    description = checkpoint / DESCRIPTION
    with reading(str(description)):
        config = ArkasrConfig.from_pretrained(description, trust_remote_code=False)
        _check_shapes(checkpoint, config)
        hf = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), trust_remote_code=False)
    lm = wrap(hf, load_tokenizer(str(description)))
    state = {"model": get_model_state_dict(lm)}
    read_weights(checkpoint / WEIGHTS, state)
    lm.load_state_dict(state["model"])
    return lm.eval()


def saved_options(lm: SpeechLM) -> StateDictOptions:
    """Return which tensors a checkpoint holds: all, or the trained ones of a model with adapters.

    Args:
        lm: The model.

    Returns:
        Options for torch's functions.
    """
    adapted = has_adapters(lm.hf)
    return StateDictOptions(ignore_frozen_params=adapted, strict=not adapted)


def without_frozen_head(lm: SpeechLM, state: dict[str, Any]) -> dict[str, Any]:
    """Leave out the second name of a frozen table. `ignore_frozen_params` removes one name per tensor.

    Args:
        lm: The model.
        state: Its state dictionary by `saved_options`.

    Returns:
        The state without it. Unchanged for a model without adapters.
    """
    tied = {f"hf.{name}" for name in lm.hf.all_tied_weights_keys} if has_adapters(lm.hf) else set()
    return {name: value for name, value in state.items() if name not in tied}


def saved_state(lm: SpeechLM) -> dict[str, Tensor]:
    """Return the tensors of a model that a checkpoint holds.

    Args:
        lm: The model, sharded or not.

    Returns:
        Its parameters by their names in a checkpoint, not copied.
    """
    state = cast(dict[str, Tensor], get_model_state_dict(lm, options=saved_options(lm)))
    return without_frozen_head(lm, state)


def is_adapted(checkpoint: Path) -> bool:
    """Return whether a checkpoint holds adapters.

    Args:
        checkpoint: The checkpoint's folder.

    Returns:
        True for a run with `model.lora.rank` above 0.
    """
    return (checkpoint / DESCRIPTION / BASE_RECORD).is_file()


def load_adapted(checkpoint: Path) -> SpeechLM:
    """Load the student of a training checkpoint with its adapters, which are not merged.

    Args:
        checkpoint: A checkpoint's folder that `is_adapted`.

    Returns:
        The student in training mode on the CPU, in the data types of the run.

    Raises:
        UserError: See `load_checkpoint`.
    """
    _check_files(checkpoint)
    raw = read_json(checkpoint / "state.json", "use another checkpoint or `final`")["config"]["model"]
    config = ModelConfig(**raw | {"lora": LoraConfig(**raw["lora"])})
    description = checkpoint / DESCRIPTION
    if config.path:
        check_base(description, config.path)
        lm = load_speech_lm(config.path, config.dtype, allow_pickle=config.allow_pickle)
    else:
        lm = assemble(config, load_tokenizer(str(description)))
    train_parts(lm, config)
    state = {"model": saved_state(lm)}
    found = saved_shapes(checkpoint / WEIGHTS)
    for name, tensor in state["model"].items():
        _require_shape(checkpoint, f"model.{name}", found, tuple(tensor.shape), f"its base {config.path}")
    read_weights(checkpoint / WEIGHTS, state)
    lm.load_state_dict(state["model"], strict=False)
    return lm


def _check_files(checkpoint: Path) -> None:
    description = checkpoint / DESCRIPTION
    if not (description / "config.json").is_file():
        raise UserError(f"{description}: no config.json, so the model is unknown; use another checkpoint or `final`")
    if reason := damage(checkpoint):
        raise UserError(f"{checkpoint}: {reason}; use another checkpoint or `final`")
    check_json_files(str(description))


def _check_shapes(checkpoint: Path, config: ArkasrConfig) -> None:
    """Compare the checkpoint's tensors with its configuration before the model of this configuration is allocated."""
    with torch.device("meta"):
        expected = ArkasrForConditionalGeneration(config).state_dict()
    found = saved_shapes(checkpoint / WEIGHTS)
    for name, tensor in expected.items():
        _require_shape(checkpoint, f"model.hf.{name}", found, tuple(tensor.shape), f"{DESCRIPTION}/config.json")


def _require_shape(
    checkpoint: Path, name: str, found: dict[str, tuple[int, ...]], expected: tuple[int, ...], asking: str
) -> None:
    if found.get(name) != expected:
        raise UserError(
            f"{checkpoint}: {name.removeprefix('model.')} has the shape {found.get(name)}, but {asking} asks for "
            f"{expected}; use another checkpoint or `final`"
        )

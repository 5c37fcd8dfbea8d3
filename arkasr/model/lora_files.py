"""Adapters as files in PEFT's layout: `PeftModel.from_pretrained` reads them, and so does `arkasr.model.loading`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from arkasr.errors import UserError
from arkasr.model.lora import A, B, require_peft, unwrapped
from arkasr.model.reading import reading
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.model.weight_digests import check_digests, write_digests
from arkasr.model.weight_files import tensor_shapes
from arkasr.utils.files import read_json, sampled_digest, write_text

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
ADAPTER = "adapter"  # subfolder of a run's final model
BASE_RECORD = "adapter_base.json"  # path and digest of the model that the adapter was trained on
PREFIX = "base_model.model."  # of PEFT's names of tensors
PROJECTOR = "multi_modal_projector"
MAX_SHOWN = 3  # tensors that an error message names


def write_adapter(folder: Path, lm: SpeechLM, state: Mapping[str, Tensor], base: str) -> None:
    """Write the adapters of a model, and the projector if it was trained.

    Args:
        folder: The folder. It is created if it does not exist.
        lm: The model with adapters.
        state: Tensors by their names in `lm.hf`, gathered if the model is sharded.
        base: Folder or Hub id of the model that was adapted. Empty if it was assembled from pretrained parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = str(Path(base).resolve()) if base and Path(base).is_dir() else base
    trained = {unwrapped(name) for name, weight in lm.hf.named_parameters() if weight.requires_grad}
    weights = {PREFIX + _exported(name): state[name].contiguous() for name in sorted(trained)}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    settings: Any = lm.hf.peft_config["default"]
    own: dict[str, Any] = {"base_model_name_or_path": base or None, "inference_mode": True}
    own |= {"modules_to_save": [PROJECTOR] if any(PROJECTOR in name for name in trained) else None}
    table = settings.to_dict() | own | {"target_modules": sorted(settings.target_modules)}
    write_text(folder / CONFIG, json.dumps(table, indent=2, default=list) + "\n")
    write_base(folder, base)
    write_digests(folder)


def write_base(folder: Path, base: str) -> None:
    """Record which model was adapted.

    Args:
        folder: Existing folder.
        base: Folder or Hub id of the model. Empty if it was assembled from pretrained parts.
    """
    record = {"path": base, "weights": sampled_digest(Path(base)) if base else ""}
    write_text(folder / BASE_RECORD, json.dumps(record, indent=1) + "\n")


def check_base(folder: Path, base: str) -> None:
    """Check that a model is the one that was adapted. A Hub id is accepted.

    Args:
        folder: Folder with the record of `write_base`, or without one, which accepts any model.
        base: Folder or Hub id of the model.

    Raises:
        UserError: The model has other weights.
    """
    record = folder / BASE_RECORD
    expected = read_json(record, f"delete {record}").get("weights") if record.is_file() else ""
    if expected and (found := sampled_digest(Path(base))) and found != expected:
        raise UserError(
            f"{folder}: an adapter for another model: {base} has other weights than in its training; restore that model"
        )


def _exported(name: str) -> str:
    return name.replace(A, ".lora_A.weight").replace(B, ".lora_B.weight")


def is_adapter(path: str) -> bool:
    """Return whether a folder holds an adapter and no whole model.

    Args:
        path: A folder or Hub id.

    Returns:
        True if it has adapter_config.json and no config.json.
    """
    folder = Path(path)
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(path: str) -> str:
    """Return the model that an adapter belongs to, after a check that it is still the same.

    Args:
        path: The adapter's folder.

    Returns:
        Folder or Hub id.

    Raises:
        UserError: The adapter is not of kind LoRA, names no base, or its base has other weights than in training.
    """
    settings = read_json(Path(path) / CONFIG, "copy or export the adapter again")
    if settings.get("peft_type") != "LORA":
        raise UserError(
            f"{path}: adapter of type {settings.get('peft_type')!r}; only LORA is supported; merge it first"
        )
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(
            f"{path}/{CONFIG}: base_model_name_or_path is empty; set it to the folder or Hub id of the adapted model"
        )
    if Path(base).is_dir() and Path(base).samefile(path):
        raise UserError(f"{path}/{CONFIG}: base_model_name_or_path is the adapter itself; set it to the adapted model")
    check_base(Path(path), base)
    return base


def merge_files(path: str, hf: PreTrainedModel) -> PreTrainedModel:
    """Merge the adapter of a folder into its base.

    Args:
        path: The adapter's folder.
        hf: The base on the CPU, changed in place.

    Returns:
        The merged model.

    Raises:
        UserError: PEFT is not installed, the files cannot be read, or the adapter belongs to another model.
    """
    require_peft()
    import peft  # takes seconds

    file = Path(path) / WEIGHTS
    if not file.is_file():
        raise UserError(f"{file}: missing; copy or export the adapter again")
    check_digests([file])
    shapes = tensor_shapes([file])
    _check_fit(path, shapes, hf)
    dtypes = {name: weight.dtype for name, weight in hf.named_parameters()}
    with reading(path), catch_warnings():
        simplefilter("ignore")  # PEFT warns of missing tensors, which are an error here
        adapted: Any = peft.PeftModel.from_pretrained(hf, path)
        missing = sorted(peft.get_peft_model_state_dict(adapted).keys() - shapes.keys())
        if missing:
            raise UserError(
                f"{file}: {len(missing)} tensors are missing, such as {missing[0]}; export the adapter again"
            )
        whole = adapted.merge_and_unload()
    for name, weight in whole.named_parameters():
        weight.data = weight.data.to(dtypes[name])
    return whole.requires_grad_(True)


def _check_fit(path: str, shapes: Mapping[str, list[int]], hf: PreTrainedModel) -> None:
    """Compare the adapter's tensors with the layers of the base. PEFT reports other layers as a traceback."""
    own = {name: list(weight.shape) for name, weight in hf.named_parameters(remove_duplicate=False)}
    wrong = []
    for key, shape in shapes.items():
        name, matrix, _ = key.removeprefix(PREFIX).partition(".lora_")
        layer = own.get(f"{name}.weight" if matrix else name)
        expected = None if layer is None else layer
        if layer is not None and matrix:
            is_a = ".lora_A." in key
            expected = [shape[0], layer[1]] if is_a else [layer[0], shape[1]]
        if expected != shape:
            wrong.append(f"{key} has shape {shape}, expected {expected or 'no such tensor'}")
    if wrong:
        more = f"; and {len(wrong) - MAX_SHOWN} more" if len(wrong) > MAX_SHOWN else ""
        raise UserError(
            f"{path}: an adapter for another model: {'; '.join(wrong[:MAX_SHOWN])}{more}; set base_model_name_or_path "
            f"in {CONFIG} to the model that it was trained on"
        )

"""Find weight files and check them: a model is read completely or not at all, and errors name the file and tensor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from arkasr.errors import UserError

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
MAX_SHOWN = 5  # files or tensors that an error message names


def weight_files(folder: Path, allow_pickle: bool = False) -> list[Path]:
    """Return the files from which `from_pretrained` reads the weights of a local folder.

    Args:
        folder: The folder of a model.
        allow_pickle: Accept pytorch_model.bin if there are no safetensors.

    Returns:
        One file, or the shards in alphabetical order.

    Raises:
        UserError: There are no weights, a shard of the index is missing, or the weights are pickled and
            `allow_pickle` is false.
    """
    for name in (SAFETENSORS, PICKLE):
        index = folder / f"{name}.index.json"
        found = [folder / name] if (folder / name).is_file() else _shards(index) if index.is_file() else []
        if found and name == PICKLE and not allow_pickle:
            raise UserError(
                f"{found[0]}: pickled weights can run code when they are loaded; save the model as safetensors, "
                "or, if you trust its source, set model.allow_pickle=true or teacher.options.allow_pickle=true "
                "(in Python: allow_pickle=True)"
            )
        if found:
            return found
    raise UserError(f"{folder}: no weights in this folder; it needs {SAFETENSORS} or {SAFETENSORS}.index.json")


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if wrong := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
            raise ValueError(f"{wrong[0]!r} is not the name of a file in this folder")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index}: cannot be read as an index of weight files ({error}); copy it again") from error
    missing = sorted(name for name in names if not (index.parent / name).is_file())
    if missing:
        raise UserError(f"{index.parent}: {_first(missing)} of {index.name} missing; copy the folder again")
    return [index.parent / name for name in sorted(names)]


def tensor_shapes(files: Iterable[Path | str]) -> dict[str, list[int]]:
    """Open all weight files of a model and return the shapes of their tensors. No tensor is read.

    Args:
        files: The files, safetensors or pickled weights.

    Returns:
        The shapes by name, in the order of the files.

    Raises:
        UserError: A file cannot be read, or two files hold a tensor of the same name, of which one would be ignored.
    """
    found = [shapes for file in files for shapes in _shapes(Path(file)).items()]
    if duplicates := sorted(name for name, count in Counter(name for name, _ in found).items() if count > 1):
        folder = Path(next(iter(files))).parent
        raise UserError(f"{folder}: more than one weight file holds {_first(duplicates)}; copy or export it again")
    return dict(found)


def _shapes(file: Path) -> dict[str, list[int]]:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as weights:
                names = list(weights.keys())
                return {name: weights.get_slice(name).get_shape() for name in names}
        state = torch.load(file, map_location="meta", weights_only=True)
        return {name: list(tensor.shape) for name, tensor in state.items()}
    except Exception as error:  # a broken pickle can raise any exception
        kind = "safetensors" if isinstance(error, SafetensorError) else "weights"
        raise UserError(f"{file}: cannot be read as {kind} ({error}); copy or export the model again") from error


def check_loading_info(path: str, info: dict[str, Any], name: Callable[[str], str] = str) -> None:
    """Check that `from_pretrained` found each weight exactly once and in the right shape.

    Args:
        path: Folder or Hub id, for the error message.
        info: What `from_pretrained(output_loading_info=True)` returns beside the model.
        name: Maps a parameter's name to its name in the files.

    Raises:
        UserError: A weight is missing, unexpected or has another shape, or transformers reports an error.
    """
    shapes = [
        f"{name(key)} (in the file {list(in_file)}, in the model {list(in_model)})"
        for key, in_file, in_model in info["mismatched_keys"]
    ]
    problems = {
        "missing": list(map(name, info["missing_keys"])),
        "unexpected": list(map(name, info["unexpected_keys"])),
        "of another shape": shapes,
        "in error": list(map(str, info["error_msgs"])),
    }
    found = [f"{problem}: {_first(sorted(keys))}" for problem, keys in problems.items() if keys]
    if found:
        raise UserError(f"{path}: the weights do not match config.json; {'; '.join(found)}")


def _first(names: list[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more

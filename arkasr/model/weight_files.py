"""Weights are read whole or not at all: which files hold them, and what is wrong, named."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from arkasr.errors import UserError

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
SHOWN = 5


def is_hub_id(path: str) -> bool:
    """Return whether a model's path is a Hugging Face Hub id: "owner/name", and no file or folder here."""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", path)) and not Path(path).exists()


def weight_files(folder: Path, allow_pickle: bool = False) -> list[Path]:
    """Return the files that `from_pretrained` reads the weights of a local folder from.

    Raises UserError where there are none, a shard that the index names is missing, or all are pickled and that is not
    allowed.
    """
    for name in (SAFE, PICKLED):
        index = folder / f"{name}.index.json"
        found = [folder / name] if (folder / name).is_file() else _shards(index) if index.is_file() else []
        if found and name == PICKLED and not allow_pickle:
            raise UserError(
                f"{found[0]}: pickled weights, which can run code when they are read: save the model as safetensors, "
                "or, if you trust where it came from, set model.allow_pickle=true or teacher.options.allow_pickle=true "
                "(in Python: allow_pickle=True)"
            )
        if found:
            return found
    raise UserError(f"{folder}: no weights here: no {SAFE}, nor {SAFE}.index.json")


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: cannot be read as an index of weight files ({error}); copy it anew") from error
    missing = sorted(name for name in names if not (index.parent / name).is_file())
    if missing:
        raise UserError(f"{index.parent}: missing {_some(missing)}, named in {index.name}: copy the folder anew")
    return [index.parent / name for name in sorted(names)]


def tensor_names(files: Iterable[Path | str]) -> list[str]:
    """Open every file and return the names of its tensors, so that a broken file is named before it is read.

    Raises UserError for a file that cannot be read, and for a tensor in two files, of which one would be dropped.
    """
    names = [name for file in files for name in _names(Path(file))]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise UserError(f"{Path(next(iter(files))).parent}: in more than one weight file: {_some(twice)}")
    return names


def _names(file: Path) -> list[str]:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as weights:
                return list(weights.keys())
        return list(torch.load(file, map_location="meta", weights_only=True))
    except Exception as error:  # a broken pickle raises whatever its bytes lead to
        kind = "safetensors" if isinstance(error, SafetensorError) else "weights"
        raise UserError(f"{file}: cannot be read as {kind} ({error}); copy or export the model anew") from error


def refuse_incomplete(place: str, info: dict[str, Any], name: Callable[[str], str] = str) -> None:
    """Raise UserError unless `info`, which `from_pretrained(output_loading_info=True)` returns, is empty.

    place: the folder or Hub id; name: how a weight is called in its files.
    """
    shapes = [
        f"{name(key)} (in the file {list(theirs)}, in the model {list(ours)})"
        for key, theirs, ours in info["mismatched_keys"]
    ]
    found = {
        "missing": list(map(name, info["missing_keys"])),
        "left over": list(map(name, info["unexpected_keys"])),
        "of another shape": shapes,
        "in error": list(map(str, info["error_msgs"])),
    }
    said = [f"{what}: {_some(sorted(keys))}" for what, keys in found.items() if keys]
    if said:
        raise UserError(f"{place}: not a complete checkpoint of its configuration; {'; '.join(said)}")


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more

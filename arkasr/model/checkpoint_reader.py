"""Read the weights of a training checkpoint without executing anything from its files.

torch describes the tensors of a checkpoint in a pickled file, and pickles may call any function. Here, this file may
name the classes that describe tensors and nothing else. Tensors and numbers are read by torch's own restricted reader.
"""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem

from arkasr.errors import UserError

_DESCRIPTION = "torch.distributed.checkpoint"
_CLASSES = {
    f"{_DESCRIPTION}.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    f"{_DESCRIPTION}.filesystem": {"_StorageInfo", "_StoragePrefix"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "PurePosixPath"},
    "pathlib._local": {"PosixPath", "PurePosixPath"},
}
# What torch and pickle raise for damaged files
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _CLASSES.get(module, ()):
            return super().find_class(module, name)
        found = getattr(torch, name, None) if module == "torch" else None
        if isinstance(found, torch.dtype):
            return found
        raise pickle.UnpicklingError(f"it names {module}.{name}, which does not describe a tensor")


class _Reader(dcp.FileSystemReader):
    """Reads the description of a checkpoint with the restricted unpickler."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = _Unpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(f"it holds a {type(metadata).__name__}, not a description of tensors")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Planner(dcp.DefaultLoadPlanner):
    """Refuses values that are not plain data, such as the settings of an optimizer."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        torch.load(value, weights_only=True)  # raises an error for anything but plain data
        value.seek(0)
        super().load_bytes(read_item, value)


def read_weights(folder: Path, state: dict[str, Any], no_dist: bool = True) -> None:
    """Read a checkpoint's tensors and numbers into a state dictionary, in place.

    Args:
        folder: The checkpoint's subfolder with its weights.
        state: Nested dictionary of tensors to fill.
        no_dist: Read in this process only. Otherwise all ranks must call this.

    Raises:
        UserError: A file cannot be read, or holds more than tensors and numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(state, storage_reader=_Reader(folder), planner=_Planner(), no_dist=no_dist)
    except (dcp.CheckpointException, *_UNREADABLE) as error:
        raise _unreadable(folder, error) from error


def saved_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """List the tensors of a checkpoint.

    Args:
        folder: The checkpoint's subfolder with its weights.

    Returns:
        The shape of each tensor by its name, such as `model.hf.lm_head.weight`.

    Raises:
        UserError: The description cannot be read, or holds more than a description of tensors.
    """
    try:
        entries = _Reader(folder).read_metadata().state_dict_metadata
    except _UNREADABLE as error:
        raise _unreadable(folder, error) from error
    return {name: tuple(entry.size) for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def _unreadable(folder: Path, error: BaseException) -> UserError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    why = lines[-1] if lines else type(error).__name__
    return UserError(f"{folder}: cannot be read ({why}); use another checkpoint")

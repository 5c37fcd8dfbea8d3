"""Where the rows of an encoder cache are: in memory, or in a folder that several runs may use at the same time."""

from __future__ import annotations

import os
from pathlib import Path

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from arkasr.errors import UserError
from arkasr.utils.console import log

SUFFIX = ".safetensors"


class InMemory:
    """Tensors by name.

    Attributes:
        num_bytes: Size of all tensors.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._tensors)

    def get(self, name: str) -> Tensor | None:
        """Return a tensor.

        Args:
            name: Its name.

        Returns:
            None if there is no such tensor.
        """
        return self._tensors.get(name)

    def put(self, name: str, tensor: Tensor) -> None:
        """Keep a tensor.

        Args:
            name: Its name, which is new.
            tensor: A tensor on the host.
        """
        self._tensors[name] = tensor
        self.num_bytes += tensor.nelement() * tensor.element_size()


class InFolder:
    """Tensors by name, each in its own file. A file appears whole or not at all.

    Args:
        folder: The folder. It is created if needed.

    Attributes:
        num_bytes: Size of all files that were there at the start, or that this object wrote.

    Raises:
        UserError: The folder cannot be created or read.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sizes = [file.stat().st_size for file in folder.glob(f"*{SUFFIX}")]
        except OSError as error:
            raise self._unusable(error) from error
        self.num_bytes, self._number = sum(sizes), len(sizes)

    def __len__(self) -> int:
        return self._number

    def get(self, name: str) -> Tensor | None:
        """Return a tensor. A file that is damaged is reported, and counts as absent.

        Args:
            name: Its name.

        Returns:
            None if there is no such file.
        """
        file = self.folder / f"{name}{SUFFIX}"
        try:
            return load_file(file)["rows"]
        except FileNotFoundError:
            return None
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            log(f"warning: {file}: damaged ({error}); it is computed and written again", on_every_rank=True)
            return None

    def put(self, name: str, tensor: Tensor) -> None:
        """Write a tensor.

        Args:
            name: Its name.
            tensor: A tensor on the host.

        Raises:
            UserError: The file cannot be written.
        """
        file, temporary = self.folder / f"{name}{SUFFIX}", self.folder / f"writing-{name}-{os.getpid()}"
        try:
            save_file({"rows": tensor.contiguous()}, temporary)
            temporary.replace(file)
        except (OSError, safetensors.SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise self._unusable(error) from error
        self.num_bytes, self._number = self.num_bytes + file.stat().st_size, self._number + 1

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"config key `train.cache_folder` {self.folder}: cannot be used ({error}); free space, name another "
            "folder, or remove the key to cache in memory"
        )

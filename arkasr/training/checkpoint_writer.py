"""Write a rank's part of a checkpoint in the background, with the SHA-256 digests of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner

from arkasr.model.checkpoint_files import COMPLETE, WEIGHTS
from arkasr.training import random_state
from arkasr.utils.files import flush, sha256

_DIGESTS = "sha256-{:05d}.json"  # of one rank, until they are listed in COMPLETE


class Writer(dcp.FileSystemWriter):
    """torch's writer of weights. It also computes the digests of this rank's files, while they are in memory.

    Rank 0 can rely on the digests of all ranks as soon as its own part is finished, because torch collects the results
    of all ranks on rank 0 before that.

    Args:
        checkpoint: The checkpoint's folder.
        rank: Number of this rank.
    """

    def __init__(self, checkpoint: Path, rank: int):
        super().__init__(checkpoint / WEIGHTS)
        self.checkpoint, self.rank_number = checkpoint, rank

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Any:
        """Write this rank's weights, then the digests. See torch's `StorageWriter`.

        Args:
            plan: What this rank writes.
            planner: Resolves the plan's entries to tensors.

        Returns:
            torch's future of the write results.
        """
        future = super().write_data(plan, planner)
        names = {f"{WEIGHTS}/{result.storage_data.relative_path}" for result in future.wait()}
        names.add(random_state.file_name(self.rank_number))
        digests = {name: sha256(self.checkpoint / name) for name in sorted(names)}
        (self.checkpoint / _DIGESTS.format(self.rank_number)).write_text(json.dumps(digests), encoding="utf-8")
        return future


def mark_complete(folder: Path) -> None:
    """Flush all files of a checkpoint to the disk, then write COMPLETE with their sizes and digests.

    Args:
        folder: The checkpoint's folder, under its temporary name. All ranks have written their files.
    """
    digests: dict[str, str] = {}
    for file in folder.glob(_DIGESTS.format(0).replace("00000", "*")):
        digests |= json.loads(file.read_text(encoding="utf-8"))
        file.unlink()
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    listed = {
        name: {"bytes": path.stat().st_size, "sha256": digests.get(name) or sha256(path)}
        for name, path in files.items()
    }
    # Flush before COMPLETE is written. Otherwise COMPLETE may survive a power cut that the files did not survive.
    flush(folder.rglob("*"))
    (folder / COMPLETE).write_text(json.dumps(listed, indent=1), encoding="utf-8")
    flush([folder / COMPLETE, folder])

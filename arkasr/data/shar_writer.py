"""From a manifest with audio in files to a Shar folder, in parallel, and to a manifest that reads the tar files.

The new manifest has the cuts of the old one in the same order. Every cut names the tar file and the position of its
audio, so that a subset of the manifest needs no own tar files. The folder is also a Shar folder for Lhotse.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from arkasr.data.blocks import BLOCK_LINES, Block, FileBlocks, write_lines
from arkasr.data.lines import entries
from arkasr.data.shar_shard import Job, Shard, placed, write_shard
from arkasr.utils.console import log, track

SHARD_BLOCKS = 16  # blocks of `BLOCK_LINES` cuts per shard, so 1,024 clips: about 200 MB of FLAC


@dataclass
class Written:
    """A Shar folder.

    Attributes:
        tar_bytes: Size of every tar file, in bytes.
        clips: Number of clips.
        failed: The clips that are left out, because their audio cannot be read, see `arkasr.data.shar_shard.Shard`.
    """

    tar_bytes: list[int] = field(default_factory=list)
    clips: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)


def write_shar(manifest: Path, folder: Path, target: Path, num_jobs: int) -> Written:
    """Write the cuts of a manifest and their audio as Shar. Shards of an earlier, interrupted call are kept.

    Args:
        manifest: The cuts, as `arkasr.data.blocks.write_lines` writes them.
        folder: The Shar folder, made if it is missing. Files of other shards in it are deleted.
        target: The manifest to write. It names the folder by its absolute path.
        num_jobs: Number of processes.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = list(_jobs(manifest, folder))
    _delete_others(folder, len(jobs))
    written = Written()
    shards: Iterable[Shard] = _run(jobs, num_jobs)
    clipped = 0

    def lines() -> Iterator[str]:
        nonlocal clipped
        for job, shard in zip(jobs, track(shards, f"Writing {folder.name}", len(jobs), "shards"), strict=True):
            written.tar_bytes.append(shard.tar_bytes)
            written.failed += shard.failed
            clipped += shard.clipped
            for item in _cuts(job, shard):
                written.clips += 1
                yield json.dumps(item, ensure_ascii=False)

    write_lines(target, lines())
    if clipped:
        log(f"{folder}: {clipped} clips exceed full scale and were clipped to it")
    return written


def _jobs(manifest: Path, folder: Path) -> Iterator[Job]:
    blocks = FileBlocks([manifest])
    for number, first in enumerate(range(0, len(blocks), SHARD_BLOCKS)):
        start = blocks[first][1]
        last = first + SHARD_BLOCKS >= len(blocks)
        yield Job(
            manifest, Block(start.offset, start.first, None if last else SHARD_BLOCKS * BLOCK_LINES), folder, number
        )


def _delete_others(folder: Path, count: int) -> None:
    """Delete parts of files, and shards that a former, larger set left."""
    for path in [*folder.iterdir(), *(folder.parent / f".{folder.name}").glob("*.json*")]:
        number = next((word for word in path.name.split(".") if word.isdigit()), "")
        if path.name.endswith(".part") or (number and int(number) >= count):
            path.unlink()


def _run(jobs: list[Job], num_jobs: int) -> Iterator[Shard]:
    if num_jobs <= 1 or len(jobs) == 1:
        yield from map(write_shard, jobs)
        return
    context = multiprocessing.get_context("fork")  # a new interpreter would import torch again
    with ProcessPoolExecutor(min(num_jobs, len(jobs)), context, torch.set_num_threads, (1,)) as pool:
        yield from pool.map(write_shard, jobs)


def _cuts(job: Job, shard: Shard) -> Iterator[dict[str, Any]]:
    if not shard.offsets:
        return
    tar = job.path("recording", ".tar").absolute()
    for number, item in entries(job.path("cuts", ".jsonl.gz")):
        yield placed(item, tar, number, shard.offsets[number])


def select(whole: Path, names: Iterable[str], target: Path) -> None:
    """Write a subset of a rewritten manifest.

    Args:
        whole: The rewritten manifest.
        names: Ids of the subset, in the order of `whole`.
        target: The manifest to write.
    """
    rest = (item for _, item in entries(whole))
    found = (next(item for item in rest if item["id"] == name) for name in names)
    write_lines(target, (json.dumps(item, ensure_ascii=False) for item in found))

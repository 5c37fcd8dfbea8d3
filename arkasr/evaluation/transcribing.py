"""Transcription of batches in one process: audio is read ahead, and a model is loaded for the first batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from lhotse.cut import Cut

from arkasr.config.schema import DataConfig
from arkasr.data.dealing import Dealt
from arkasr.data.lazy_cut import LazyCut
from arkasr.data.loading import loaded
from arkasr.data.order import START
from arkasr.data.reasons import Failure
from arkasr.errors import UserError
from arkasr.evaluation.one_by_one import Transcriber, transcribe_or_fail
from arkasr.evaluation.transcribers import MakeTranscriber


class Result(NamedTuple):
    """What became of the clips of one batch.

    Attributes:
        rows: Hypothesis rows of the transcribed clips.
        unread: Clips that could not be read. They are in the log already.
        failures: Clips that could not be transcribed.
    """

    rows: list[dict[str, Any]]
    unread: list[Failure]
    failures: list[Failure]

    @property
    def num_clips(self) -> int:
        """Number of clips of the batch."""
        return len(self.rows) + len(self.unread) + len(self.failures)


@dataclass
class Transcribing:
    """Transcribes batches on one device.

    Attributes:
        make: Returns the function that transcribes batches, for a device and a dtype.
        data: The section `data`. Its `num_workers` is the number of processes that read audio ahead.
        timeout: Seconds to wait for one batch of these processes.
        device: The device.
    """

    make: MakeTranscriber
    data: DataConfig
    timeout: float
    device: str
    _transcribers: dict[str, Transcriber] = field(default_factory=dict)

    def results(self, batches: Iterable[list[Cut]], dtype: str) -> Iterator[Result]:
        """Transcribe batches in order.

        Args:
            batches: The cuts of each batch.
            dtype: Passed to `make`, which is called once per dtype. It is not called before the first batch with clips
                that can be read, so that no model is loaded without need.

        Yields:
            One result per batch.
        """
        dealt = [Dealt(0, START, [LazyCut.of(cut) for cut in cuts]) for cuts in batches]
        seconds = max((sum(clip.seconds for clip in one.clips) for one in dealt), default=0.0)
        for *_, batch in loaded(dealt, self.data, self.timeout, self.device.startswith("cuda"), seconds):
            rows, failures = transcribe_or_fail(self._transcriber(dtype), batch) if batch.ids else ([], [])
            yield Result(rows, batch.failures, failures)

    def _transcriber(self, dtype: str) -> Transcriber:
        if dtype not in self._transcribers:
            self._transcribers[dtype] = self.make(self.device, dtype)
        return self._transcribers[dtype]


def own_device() -> str:
    """Return the device of this process, and make it the current one.

    Returns:
        "cpu" if there is no GPU, else "cuda:<LOCAL_RANK>".

    Raises:
        UserError: There are fewer GPUs than processes.
    """
    if not torch.cuda.is_available():
        return "cpu"
    index, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= found:
        raise UserError(
            f"--ngpu {os.environ.get('LOCAL_WORLD_SIZE', index + 1)}: this machine has {found} GPUs that are visible; "
            f"use at most {found} processes per machine"
        )
    torch.cuda.set_device(index)
    return f"cuda:{index}"

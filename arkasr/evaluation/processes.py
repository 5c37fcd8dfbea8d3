"""Transcription by several processes of one machine, each on its own GPU, or on the CPU if there is none.

The first process deals whole batches out, collects their rows and is the only one that writes files. So the batches
and the files do not depend on the number of processes, and an interrupted command resumes with any number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any

import torch
from lhotse.cut import Cut

from arkasr.config.schema import DataConfig
from arkasr.errors import UserError
from arkasr.evaluation.transcribers import MakeTranscriber
from arkasr.evaluation.transcribing import Result, Transcribing, deal
from arkasr.evaluation.worker import Worker


class Processes:
    """A context manager of processes that transcribe batches. They start with the first batch.

    One process means the present one.

    Args:
        make: See `Transcribing`. It must be picklable.
        count: Number of processes (`--ngpu`).
        data: See `Transcribing`. Each process has `data.num_workers` processes of its own.
        timeout: See `Transcribing`.

    Raises:
        UserError: There are fewer GPUs than processes.
    """

    def __init__(self, make: MakeTranscriber, count: int, data: DataConfig, timeout: float):
        has_gpus, found = torch.cuda.is_available(), torch.cuda.device_count()
        if has_gpus and count > found:
            raise UserError(f"--ngpu {count}: this machine has {found} GPUs that are visible; use at most {found}")
        self.count = count
        devices = [f"cuda:{index}" if has_gpus else "cpu" for index in range(count)]
        self._parts = [Transcribing(make, data, timeout, device) for device in devices]
        self._started: dict[int, Worker] = {}

    def transcribe(self, batches: Iterable[list[Cut]], dtype: str) -> Iterator[Result]:
        """Transcribe batches.

        Args:
            batches: The cuts of each batch.
            dtype: See `Transcribing.results`.

        Yields:
            One result per batch, in the order in which the processes finish them.

        Raises:
            UserError: A process ended, or an error in it is one that the user can fix.
        """
        if self.count == 1:
            yield from self._parts[0].results(batches, dtype)
            return
        shares = {index: share for index, share in enumerate(deal(batches, self.count)) if share}
        workers = {index: self._worker(index) for index in shares}
        for index, worker in workers.items():
            worker.send(shares[index], dtype)
        busy: dict[Any, Worker] = {worker.connection: worker for worker in workers.values()}
        while busy:
            for ready in wait(list(busy)):
                result = busy[ready].receive()
                if result is None:
                    del busy[ready]
                else:
                    yield result

    def _worker(self, index: int) -> Worker:
        if index not in self._started:
            self._started[index] = Worker(self._parts[index], index, self.count)
        return self._started[index]

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._started.values():
            worker.end(at_once=error is not None)
        for worker in self._started.values():
            worker.join()

"""Transcription by several processes of one machine, each on its own GPU, or on the CPU if there is none.

The first process deals whole batches out, collects their rows and is the only one that writes files. So the batches
and the files do not depend on the number of processes, and an interrupted command resumes with any number.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import torch
from lhotse.cut import Cut

from arkasr.config.schema import DataConfig
from arkasr.errors import UserError, explain
from arkasr.evaluation.transcribers import MakeTranscriber, quiet_transformers
from arkasr.evaluation.transcribing import Result, Transcribing, deal
from arkasr.utils.process import end_with_parent, prepare_process

SECONDS_TO_END = 10.0  # until a process that ignores SIGTERM is killed


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
        self._started: dict[int, _Worker] = {}

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
            worker.send((shares[index], dtype))
        busy: dict[Any, _Worker] = {worker.connection: worker for worker in workers.values()}
        while busy:
            for ready in wait(list(busy)):
                result = busy[ready].receive()
                if result is None:
                    del busy[ready]
                else:
                    yield result

    def _worker(self, index: int) -> _Worker:
        if index not in self._started:
            self._started[index] = _Worker(self._parts[index], index, self.count)
        return self._started[index]

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._started.values():
            worker.end(at_once=error is not None)
        for worker in self._started.values():
            worker.join()


class _Worker:
    """One process, as the first process sees it."""

    def __init__(self, part: Transcribing, index: int, count: int):
        context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
        self.connection, other = context.Pipe()
        self.name = f"process {index + 1} of {count} on {part.device}"
        self.process = context.Process(target=_serve, args=(other, part, index, count, os.getpid()))
        self.process.start()
        other.close()  # so that the end of the process closes the connection

    def send(self, job: Any) -> None:
        try:
            self.connection.send(job)
        except OSError as error:
            raise self._ended() from error

    def receive(self) -> Result | None:
        """Return the next result, or None at the end of the share."""
        try:
            found = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(found, _Error):
            raise found.exception(self.name)
        return found

    def _ended(self) -> UserError:
        self.process.join(SECONDS_TO_END)
        code = self.process.exitcode
        how = f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended ({code})"
        return UserError(
            f"--ngpu: {self.name} {how}; if memory ran out, lower decode.max_seconds; run the same command again: "
            "finished clips are kept"
        )

    def end(self, at_once: bool) -> None:
        if at_once:
            self.process.terminate()
            return
        with suppress(OSError):  # it has ended
            self.connection.send(None)

    def join(self) -> None:
        self.process.join(SECONDS_TO_END)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.connection.close()


class _Error:
    """An error of a process, as it travels to the first process."""

    def __init__(self, error: BaseException):
        self.sentence = explain(error)
        self.text = "".join(traceback.format_exception(error))

    def exception(self, name: str) -> Exception:
        """Return an error to raise: `UserError` if the user can fix it."""
        error = UserError(self.sentence) if self.sentence else RuntimeError(f"{name} failed")
        error.add_note(f"in {name}:\n{self.text}")
        return error


def _serve(connection: Connection, part: Transcribing, index: int, count: int, parent: int) -> None:
    """Transcribe one share after the other, until the first process sends None or ends."""
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    os.environ["RANK"] = str(index)  # for log lines
    prepare_process()
    quiet_transformers()
    try:
        if part.device == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // count))
        else:
            torch.cuda.set_device(part.device)
        while (job := connection.recv()) is not None:
            for result in part.results(*job):
                connection.send(result)
            connection.send(None)
    except BaseException as error:
        if os.getppid() == parent:  # else the connection is closed, which is the error
            connection.send(_Error(error))

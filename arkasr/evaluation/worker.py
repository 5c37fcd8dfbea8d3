"""One process that transcribes for another one: it receives shares of batches and sends results back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection

import torch
from lhotse.cut import Cut

from arkasr.errors import UserError, explain
from arkasr.evaluation.transcribers import quiet_transformers
from arkasr.evaluation.transcribing import Result, Transcribing
from arkasr.utils.process import end_with_parent, prepare_process

SECONDS_TO_END = 10.0  # until a process that ignores SIGTERM is killed


class Worker:
    """One process, as the first process sees it.

    Args:
        part: Transcribes in the new process. It must be picklable.
        index: Number of the process, from 0.
        count: Number of processes.

    Attributes:
        connection: The end of the pipe that becomes ready when the process has sent a result or ended.
    """

    def __init__(self, part: Transcribing, index: int, count: int):
        context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
        self.connection, other = context.Pipe()
        self.name = f"process {index + 1} of {count} on {part.device}"
        self.process = context.Process(target=_serve, args=(other, part, index, count, os.getpid()))
        self.process.start()
        other.close()  # so that the end of the process closes the connection

    def send(self, batches: list[list[Cut]], dtype: str) -> None:
        """Send a share to the process.

        Args:
            batches: The cuts of each batch.
            dtype: See `Transcribing.results`.

        Raises:
            UserError: The process has ended.
            RuntimeError: An error ended it.
        """
        try:
            self.connection.send((batches, dtype))
        except OSError as error:
            self.receive()  # raises what the process has sent before it ended
            raise self._ended() from error

    def receive(self) -> Result | None:
        """Wait for the next result.

        Returns:
            The result of one batch, or None at the end of the share.

        Raises:
            UserError: The process has ended, or an error in it is one that the user can fix.
            RuntimeError: Another error ended it.
        """
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
        """Ask the process to end.

        Args:
            at_once: Stop it in its work.
        """
        if at_once:
            self.process.terminate()
            return
        with suppress(OSError):  # it has ended
            self.connection.send(None)

    def join(self) -> None:
        """Wait until the process has ended. Kill it if that takes long."""
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
        """Make an error to raise in the first process.

        Args:
            name: Name of the process.

        Returns:
            A `UserError` if the user can fix it, else a `RuntimeError`. A note holds the traceback.
        """
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

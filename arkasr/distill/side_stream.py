"""A second CUDA stream, on which the teacher scores while the student's second pass runs on the main one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from arkasr.interfaces import Teacher
from arkasr.model.speech_lm.auto import SpeechLM


class SideStream:
    """Runs work beside that of the main stream. Without a stream, as on a CPU, all work runs in order.

    Why no memory is reused too early:

    - Work on the side reads tensors of the main stream. `beside` keeps them until `join`.
    - The main stream reads results of the side only after `join`. When they are freed, their memory is reused by later
      work on the side only, and `beside` first waits for the main stream.

    Args:
        stream: The stream, or None.
        cuda: The module whose `current_stream` and `stream` are used.
    """

    def __init__(self, stream: Any = None, cuda: Any = torch.cuda):
        self._stream, self._cuda = stream, cuda
        self._kept: tuple[object, ...] = ()

    @contextmanager
    def beside(self, *kept: object) -> Iterator[None]:
        """Put the body's work on the side, after all work that the main stream already has.

        Args:
            *kept: Objects whose tensors the body reads. They are kept until `join`.

        Yields:
            None.
        """
        if self._stream is None:
            yield
            return
        self._kept = kept
        self._stream.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Let later work of the main stream wait for the work on the side. The host does not wait."""
        if self._stream is not None:
            self._cuda.current_stream().wait_stream(self._stream)
        self._kept = ()


def side_stream(teacher: Teacher, student: SpeechLM) -> SideStream:
    """Return a stream for the teacher if it can score beside the student.

    Args:
        teacher: The teacher.
        student: The student.

    Returns:
        A side stream for a whole model (attribute `lm`) on the GPU of the student. Other teachers score in order: one
        in another process does not use this GPU, and a sharded one gathers weights in the same order on all ranks.
    """
    lm = getattr(teacher, "lm", None)
    shared_gpu = student.device.type == "cuda" and isinstance(lm, SpeechLM) and lm.device == student.device
    usable = shared_gpu and not isinstance(lm, FSDPModule)
    return SideStream(_stream(student.device)) if usable else SideStream()


@lru_cache
def _stream(device: torch.device) -> Any:
    """Return one stream per GPU, because the allocator keeps separate memory for each."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # of torch

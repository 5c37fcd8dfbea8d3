"""Transcribe many files: their windows in batches of similar length, their results in the order of the files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace

import torch

from arkasr.errors import UserError
from arkasr.evaluation.one_by_one import is_about_clip, is_out_of_memory
from arkasr.interfaces import SAMPLE_RATE, Transcript
from arkasr.transcription.ahead import ahead
from arkasr.transcription.job import Ended, Job
from arkasr.transcription.pool import Piece, Pool
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.results import Failed, Transcription
from arkasr.transcription.settings import Settings
from arkasr.transcription.source import Source
from arkasr.transcription.stream import Window
from arkasr.transcription.word_times import aligner_for
from arkasr.utils.console import log

AT_ONCE = 2  # batches on a CPU
WAITING = 16  # windows that may be read before they are asked for
AHEAD = 4  # batches of audio that are read before one is taken, so that there are similar lengths to choose from


def transcribe_all(
    recognizer: Recognizer,
    sources: Iterable[Source],
    settings: Settings,
    on_audio: Callable[[float], None] = lambda _seconds: None,
    on_failed: Callable[[Failed], None] = lambda _failed: None,
) -> Iterator[Transcription | Failed]:
    """Transcribe files. At most a few batches of audio are in memory, however long the files are.

    Args:
        recognizer: The model.
        sources: The files. They are opened one after another.
        settings: The options.
        on_audio: Called after each batch with its seconds of audio.
        on_failed: Called at once when a file fails. Its result comes in its turn.

    Yields:
        One result per file, in order, as soon as it is there. A file that fails does not affect the others.

    Raises:
        UserError: The model cannot use the hotwords or find the times of words, or memory ran out for a single window.
        OSError: The model cannot be reached, such as a teacher on a server.
    """
    recognizer.check_hotwords(settings.hotwords, settings.hotword_weight)
    aligner_for(recognizer, settings)
    settings = replace(settings, window_seconds=recognizer.window_seconds(settings.window_seconds))
    yield from _Engine(recognizer, settings, on_audio, on_failed).results(sources)


def _uses_threads(recognizer: Recognizer, settings: Settings) -> bool:
    """Return whether batches are transcribed at once: small models do not use several cores for one batch.

    A plugin may not allow it, and a GPU gains nothing.
    """
    on_cpu = recognizer.lm is not None and recognizer.lm.device.type == "cpu"
    return on_cpu and not settings.hotwords and len(os.sched_getaffinity(0)) >= AT_ONCE


class _Engine:
    def __init__(
        self,
        recognizer: Recognizer,
        settings: Settings,
        on_audio: Callable[[float], None],
        on_failed: Callable[[Failed], None],
    ):
        self._recognizer, self._settings, self._on_audio, self._on_failed = recognizer, settings, on_audio, on_failed
        self._batch_seconds = settings.batch_seconds
        self._pool, self._jobs = Pool(), deque[Job]()
        self._threads = ThreadPoolExecutor(AT_ONCE, "transcribe") if _uses_threads(recognizer, settings) else None

    def results(self, sources: Iterable[Source]) -> Iterator[Transcription | Failed]:
        with self._threads or nullcontext():
            yield from self._in_order(sources)

    def _in_order(self, sources: Iterable[Source]) -> Iterator[Transcription | Failed]:
        for _ in self._read(sources):
            while self._pool.seconds >= AHEAD * self._batch_seconds:
                self._transcribe()
            yield from self._finished()
        while self._pool:
            self._transcribe()
            yield from self._finished()

    def _read(self, sources: Iterable[Source]) -> Iterator[None]:
        """Put windows into the pool. Yields after each one, and at the end of each file."""
        with closing(ahead(self._events(sources), WAITING)) as events:
            for job, number, event in events:
                if number == 0:
                    self._jobs.append(job)
                if isinstance(event, Ended):
                    job.end(event)
                else:
                    self._pool.add(job, number, event)
                yield

    def _events(self, sources: Iterable[Source]) -> Iterator[tuple[Job, int, Window | Ended]]:
        """Read the files one after another. It runs in another thread, and changes nothing."""
        for source in sources:
            job = Job(source, self._recognizer, self._settings, self._on_failed)
            yield from ((job, number, event) for number, event in enumerate(job.read()))

    def _finished(self) -> Iterator[Transcription | Failed]:
        while self._jobs and self._jobs[0].is_done:
            yield self._jobs.popleft().result()

    def _transcribe(self) -> None:
        """Transcribe the next batches."""
        at_once, limit = AT_ONCE if self._threads else 1, self._batch_seconds
        batches = self._pool.take_all(at_once, limit) if at_once > 1 else []
        batches = batches or [self._pool.take(limit) for _ in range(at_once) if self._pool]
        audible = [self._audible(pieces) for pieces in batches]
        texts = [self._texts(audible[0])] if len(batches) == 1 else self._in_threads(audible)
        for pieces, found in zip(audible, texts):
            self._put(pieces, found)
        self._on_audio(sum(piece.samples for pieces in batches for piece in pieces) / SAMPLE_RATE)

    def _in_threads(self, batches: Sequence[Sequence[Piece]]) -> list[list[Transcript] | Exception]:
        assert self._threads is not None
        return list(self._threads.map(self._texts, batches))

    def _audible(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Leave out windows without a sound, which are empty, and those of files that failed."""
        audible = []
        for piece in pieces:
            if not piece.window.waveform.any():
                piece.job.add(piece.number, piece.window, Transcript("", stopped=True, looping=False, num_tokens=0))
            elif not piece.job.is_done:
                audible.append(piece)
        return audible

    def _texts(self, pieces: Sequence[Piece]) -> list[Transcript] | Exception:
        """Run the model. It may run in another thread, and changes nothing."""
        if not pieces:
            return []
        try:
            return self._recognizer.transcribe(
                [piece.window.waveform for piece in pieces],
                [piece.job.language for piece in pieces],
                self._settings.hotwords,
                self._settings.hotword_weight,
            )
        except Exception as error:
            return error

    def _put(self, pieces: Sequence[Piece], texts: list[Transcript] | Exception) -> None:
        """Put texts in their places. If the model failed, run it on each half, until only what fails is left."""
        if not isinstance(texts, Exception):
            for piece, text in zip(pieces, texts, strict=True):
                piece.job.add(piece.number, piece.window, text)
            return
        self._handle(texts, pieces)
        del texts  # its traceback holds the memory of what failed
        if len(pieces) > 1:
            for half in (pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]):
                self._put(half, self._texts(half))

    def _handle(self, error: Exception, pieces: Sequence[Piece]) -> None:
        """Raise what is not about one window, and note what is."""
        seconds = len(pieces) * pieces[0].samples / SAMPLE_RATE
        if is_out_of_memory(error):
            if len(pieces) == 1:
                raise UserError(
                    f"memory ran out for one window of {seconds:.0f} s; use a smaller model, --dtype bfloat16, or "
                    "another --device"
                ) from error
            self._batch_seconds = min(self._batch_seconds, seconds / 2)
            log(f"memory ran out for a batch of {seconds:.0f} s; batches have {self._batch_seconds:.0f} s from now on")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        elif not is_about_clip(error):
            raise error
        elif len(pieces) == 1:
            pieces[0].job.fail(error)

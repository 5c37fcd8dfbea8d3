"""The verb `arkasr transcribe`: files in, texts out, with progress, and with what is done kept for the next call."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NoReturn

from arkasr.evaluation.transcribers import quiet_transformers
from arkasr.transcription.engine import transcribe_all
from arkasr.transcription.journal import Journal
from arkasr.transcription.output import (
    JOURNAL,
    FileOutput,
    FolderOutput,
    Output,
    StreamOutput,
    check_single,
    chosen_format,
    is_folder,
)
from arkasr.transcription.recognizer import Recognizer, place
from arkasr.transcription.results import Failed, Transcription
from arkasr.transcription.settings import Settings
from arkasr.transcription.source import Source
from arkasr.transcription.sources import find_sources
from arkasr.utils.console import Progress, length_text, log
from arkasr.utils.files import sampled_digest

SHOWN = 20  # failures that the summary repeats


def transcribe(
    paths: Sequence[str],
    model: str,
    teacher: str,
    settings: Settings,
    output: str = "",
    kind: str = "",
    device: str = "auto",
    dtype: str = "auto",
) -> int:
    """Transcribe files and write the texts. Progress and messages go to standard error.

    Args:
        paths: See `find_sources`.
        model: Folder or Hub id of a model.
        teacher: A teacher plugin as PLUGIN:PATH, instead of `model`.
        settings: The options.
        output: Folder, which gets one file per source, or file. Empty: standard output.
        kind: Name of the format. Empty: that of the suffix of `output`, else txt.
        device: See `Recognizer.load`.
        dtype: See `Recognizer.load`.

    Returns:
        The number of files that failed.

    Raises:
        UserError: An option is wrong, the model cannot be loaded, or the output belongs to something else.
        SystemExit: A signal ended the command. What is done is kept.
    """
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        kind, sources = chosen_format(kind, output), find_sources(paths, settings.language)
        device, dtype = place(device, dtype)
        made_by = _made_by(model, teacher, dtype, settings)
        with _opened(stdout, output, kind, sources, made_by) as (writer, journal), _signals():
            run = _Run(sources, writer, journal)
            try:
                run.transcribe(lambda: _loaded(model, teacher, device, dtype, settings), settings)
            except KeyboardInterrupt as stop:
                run.stopped(stop, output)
            return run.summary()


def _loaded(model: str, teacher: str, device: str, dtype: str, settings: Settings) -> Recognizer:
    quiet_transformers()
    recognizer = Recognizer.load(model, teacher, device, dtype)
    recognizer.check_hotwords(settings.hotwords, settings.hotword_weight)
    return recognizer


def _made_by(model: str, teacher: str, dtype: str, settings: Settings) -> dict[str, Any]:
    """Return what must be equal for a second call to resume. Batches do not change texts, so they do not count."""
    options = {key: value for key, value in asdict(settings).items() if key != "batch_seconds"}
    path = Path(model or teacher.partition(":")[2])
    weights = sampled_digest(path)[:16] if path.exists() else ""
    return {"model": model, "teacher": teacher, "weights": weights, "dtype": dtype} | {
        key: list(value) if isinstance(value, tuple) else value for key, value in options.items()
    }


@contextmanager
def _opened(
    stdout: IO[str], output: str, kind: str, sources: Sequence[Source], made_by: dict[str, Any]
) -> Iterator[tuple[Output, Journal | None]]:
    if not (output and is_folder(output)):
        check_single(kind, sources)
    if not output:
        writer: Output = StreamOutput(stdout, kind, len(sources) == 1)
        try:
            yield writer, None
        finally:
            writer.close()
        return
    path, folder = Path(output), is_folder(output)
    journal = Journal(path / f".{JOURNAL}" if folder else path.with_name(f".{path.name}.{JOURNAL}"), made_by)
    try:
        if folder:
            writer = FolderOutput(path, kind, sources, journal)
        else:
            writer = FileOutput(path, kind, len(sources) == 1, journal)
        try:
            yield writer, journal
        finally:
            writer.close()
    finally:
        journal.close()


def _report(failed: Failed) -> None:
    log(f"failed: {failed.name}: {failed.reason}")


class _Stop(KeyboardInterrupt):
    """SIGTERM, raised in the main thread."""


@contextmanager
def _signals() -> Iterator[None]:
    """End at SIGTERM as at Ctrl-C: by an exception, so that what is done is written."""

    def stop(*_: Any) -> NoReturn:
        raise _Stop

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Run:
    """The results of one call, counted."""

    def __init__(self, sources: Sequence[Source], writer: Output, journal: Journal | None):
        self._sources, self._writer, self._journal = sources, writer, journal
        self._kept = {} if journal is None else {i: t for i, s in enumerate(sources) if (t := journal.kept(s))}
        self._failed: list[Failed] = []
        self._done, self._seconds, self._started = len(self._kept), 0.0, time.monotonic()

    def transcribe(self, load: Any, settings: Settings) -> None:
        missing = [source for i, source in enumerate(self._sources) if i not in self._kept]
        if self._kept:
            log(f"{len(self._kept)} of {len(self._sources)} files were transcribed by an earlier call and are kept")
        recognizer = load() if missing else None
        self._started = time.monotonic()
        with Progress("transcribe", len(self._sources), "files", len(self._kept)) as bar:

            def heard(seconds: float) -> None:
                self._seconds += seconds
                bar.update(0, self._speed())

            new = transcribe_all(recognizer, missing, settings, heard, _report) if recognizer else iter(())
            for i, source in enumerate(self._sources):
                kept = self._kept.get(i)
                self._take(source, kept or next(new), kept is None)
                bar.update(int(kept is None), self._speed())

    def _take(self, source: Source, result: Transcription | Failed, is_new: bool) -> None:
        if isinstance(result, Failed):
            self._failed.append(result)
        elif is_new:
            self._done += 1
            if self._journal is not None and source.stamp:
                self._journal.add(source, result)
            for note in result.notes:
                log(f"note: {result.name}: {note}")
        self._writer.write(source, result)

    def _speed(self) -> str:
        spent = time.monotonic() - self._started
        factor = f", RTF {spent / self._seconds:.3f}" if self._seconds else ""
        return f"{length_text(self._seconds / 3600)} of audio{factor}"

    def stopped(self, stop: KeyboardInterrupt, output: str) -> NoReturn:
        name, status = ("SIGTERM", 128 + signal.SIGTERM) if isinstance(stop, _Stop) else ("Ctrl-C", 130)
        resume = (
            f"what is done is kept in {output}; run the same command again to resume"
            if output
            else "with --output, a second call resumes"
        )
        log(f"stopped by {name}: {self._done} of {len(self._sources)} files are done; {resume}")
        raise SystemExit(status)

    def summary(self) -> int:
        log(f"{self._done} of {len(self._sources)} files are transcribed, {self._speed()}")
        if self._failed:
            log(f"{len(self._failed)} of {len(self._sources)} files failed:")
        for failed in self._failed[:SHOWN]:
            log(f"  {failed.name}: {failed.reason}")
        if len(self._failed) > SHOWN:
            log(f"  and {len(self._failed) - SHOWN} more, see above")
        return len(self._failed)

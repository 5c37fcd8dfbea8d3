"""Transcription in one line of Python: `arkasr.transcribe(paths, model=...)`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.languages import find_language
from arkasr.scoring.hotwords import read_hotwords
from arkasr.transcription.engine import transcribe_all
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.results import Failed, Transcription
from arkasr.transcription.settings import Settings
from arkasr.transcription.sources import find_sources


class SomeFailedError(UserError):
    """Some files could not be transcribed. The others were.

    Args:
        transcriptions: Those of the files that could be transcribed, in order.
        failed: The others, in order.

    Attributes:
        transcriptions: See above.
        failed: See above.
    """

    def __init__(self, transcriptions: list[Transcription], failed: list[Failed]):
        first = failed[0]
        super().__init__(
            f"{first.name}: {first.reason} ({len(failed)} of {len(failed) + len(transcriptions)} files failed; the "
            "attribute `transcriptions` of this error has the others, `failed` has the reasons)"
        )
        self.transcriptions, self.failed = transcriptions, failed


def make_settings(language: str = "English", batch_seconds: float = 240.0, **options: Any) -> Settings:
    """Check options and build settings.

    Args:
        language: English name or code of the language of the audio.
        batch_seconds: Seconds of audio per batch.
        **options: The other fields of `Settings`. `hotwords` may name files as @FILE, with one hotword per line.

    Returns:
        The settings.

    Raises:
        UserError: The language is unknown, `batch_seconds` is not a number above 0, or a hotword is wrong.
        TypeError: There is no such option.
    """
    if not (math.isfinite(batch_seconds) and batch_seconds > 0):
        raise UserError(f"batch_seconds {batch_seconds:g}: must be a number above 0; 240 is the default")
    words = options.pop("hotwords", ())
    options["hotwords"] = read_hotwords([words] if isinstance(words, str) else words)
    return Settings(find_language(language, "language").name, batch_seconds, **options)


def transcribe(
    paths: str | Path | Sequence[str | Path],
    model: str | Path | Recognizer = "",
    teacher: str = "",
    device: str = "auto",
    dtype: str = "auto",
    **options: Any,
) -> list[Transcription]:
    """Transcribe audio of any format and length.

    Args:
        paths: A file, a folder, a pattern or a manifest, or several of them (see `find_sources`).
        model: Folder or Hub id of a model. Or a `Recognizer`, to load it once for several calls.
        teacher: A teacher plugin as PLUGIN:PATH, instead of `model`.
        device: torch device. `auto` is the GPU if there is one.
        dtype: Name of the weights' torch dtype. `auto` is bfloat16 on a GPU, else float32.
        **options: Fields of `Settings`: `language` (name or code), `batch_seconds`, `word_times`, `segmentation` and
            others.

    Returns:
        One transcription per file, in order, with text, segments and notes.

    Raises:
        SomeFailedError: Files failed. It holds the transcriptions of the others.
        UserError: An option is wrong, or the model cannot be loaded.
        TypeError: There is no such option.
    """
    settings = make_settings(**options)
    named = [paths] if isinstance(paths, str | Path) else list(paths)
    sources = find_sources(named, settings.language)
    loaded = model if isinstance(model, Recognizer) else Recognizer.load(str(model), teacher, device, dtype)
    loaded.check_hotwords(settings.hotwords, settings.hotword_weight)
    results = list(transcribe_all(loaded, sources, settings))
    done = [result for result in results if isinstance(result, Transcription)]
    if failed := [result for result in results if isinstance(result, Failed)]:
        raise SomeFailedError(done, failed)
    return done

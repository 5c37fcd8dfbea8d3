"""Transcription of batches in which single clips may fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from arkasr.data.batches import Batch
from arkasr.data.reasons import Failure
from arkasr.errors import UserError

Transcriber = Callable[[Batch], list[dict[str, Any]]]
NOT_TRANSCRIBED = "not transcribed"  # kind of a `Failure`
# What allocators write: of a CPU, of CUDA and of cuBLAS.
_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


class InvalidTranscriptsError(UserError):
    """A teacher does not return one text per clip. No clip can be transcribed with it."""


def transcribe_or_fail(transcriber: Transcriber, batch: Batch) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Transcribe the batch. If that raises, transcribe its clips one by one.

    Args:
        transcriber: Function from one batch to one row per clip.
        batch: B clips, at least one.

    Returns:
        The rows of the clips that were transcribed, and the clips that raised alone.

    Raises:
        UserError: Memory ran out.
        Exception: Errors that are not about one clip: any OSError, such as a lost connection or a full disk, and
            `InvalidTranscriptsError`.
    """
    try:
        return transcriber(batch), []
    except Exception as error:
        _raise_unless_about_clip(error, batch)
        if len(batch.ids) == 1:
            return [], [_failure(error, batch)]
    single = [transcribe_or_fail(transcriber, batch.select([clip])) for clip in range(len(batch.ids))]
    return [row for rows, _ in single for row in rows], [one for _, failures in single for one in failures]


def _failure(error: Exception, batch: Batch) -> Failure:
    reason = " ".join(str(error).split())[:500]
    detail = reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}"
    return Failure(batch.ids[0], f"{batch.seconds:.2f} s of audio", NOT_TRANSCRIBED, detail)


def _raise_unless_about_clip(error: Exception, batch: Batch) -> None:
    if is_out_of_memory(error):
        raise UserError(
            f"memory ran out for a batch of {len(batch.ids)} clips, {batch.seconds:.0f} s of audio; lower "
            "decode.max_seconds, then run the same command again: finished clips are kept"
        ) from error
    if not is_about_clip(error):
        raise error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out, on the host or on a GPU.

    Args:
        error: What a model raised. Its causes are examined too.

    Returns:
        True if it did.
    """
    return any(
        isinstance(each, (MemoryError, torch.OutOfMemoryError)) or any(text in str(each) for text in _NO_MEMORY)
        for each in _causes(error)
    )


def is_about_clip(error: Exception) -> bool:
    """Return whether an error may be about one clip, so that other clips can be transcribed.

    Args:
        error: What a model raised. Its causes are examined too.

    Returns:
        False for `InvalidTranscriptsError` and any OSError, such as a lost connection or a full disk.
    """
    return not (isinstance(error, InvalidTranscriptsError) or any(isinstance(each, OSError) for each in _causes(error)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def check_transcripts(texts: Any, batch: Batch, teacher: str) -> Sequence[str]:
    """Check that a teacher has returned one text per clip.

    Args:
        texts: Return value of `Teacher.transcribe`.
        batch: The clips.
        teacher: Name of the teacher, for the message.

    Returns:
        The texts.

    Raises:
        InvalidTranscriptsError: It has not.
    """
    if isinstance(texts, (list, tuple)) and len(texts) == len(batch.ids) and all(isinstance(t, str) for t in texts):
        return texts
    types = sorted({type(text).__name__ for text in texts}) if isinstance(texts, (list, tuple)) else []
    found = f"{len(texts)} values of type {', '.join(types)}" if types else repr(texts)[:60]
    raise InvalidTranscriptsError(
        f"teacher {teacher!r}: `transcribe` returned {found} for {len(batch.ids)} clips; it must return a list with "
        "one text per clip; check the plugin with arkasr.testing"
    )

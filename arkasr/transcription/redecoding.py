"""Decode windows again whose transcript loops, or is longer than speech can be, cut in another way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from arkasr.interfaces import SAMPLE_RATE, Transcript
from arkasr.model.generation.stitching import most_units, plain_units, units
from arkasr.transcription.stream import Window
from arkasr.utils.loops import ends_in_loop, has_loop

ROUNDS = 3  # a window is cut into at most 2 ** 3 pieces, so it costs at most three more times
LEAST_SAMPLES = 2 * SAMPLE_RATE  # of a window that is cut
MOST_OVERLAP = 2 * SAMPLE_RATE
LETTERS_PER_SECOND = 35.0  # of very fast speech, in any script
QUIET = SAMPLE_RATE // 10  # samples over which loudness is measured


class Decoded(NamedTuple):
    """A window and its transcript."""

    window: Window
    transcript: Transcript


def is_repeated(text: Transcript) -> bool:
    """Return whether a transcript repeats a phrase too often, at its end (`ends_in_loop`) or anywhere (`has_loop`).

    Args:
        text: The transcript. If the decoder does not report whether it ends in a loop, its words and its letters are
            searched for one.

    Returns:
        True if it does.
    """
    if text.looping or has_loop(plain_units(text)):
        return True
    words = units(text)
    return text.looping is None and (ends_in_loop(words) or ends_in_loop("".join(words)))


def trouble(decoded: Decoded) -> str:
    """Say what is wrong with a transcript, if it should be decoded again.

    Args:
        decoded: A window and its transcript.

    Returns:
        "repeats itself" (see `is_repeated`), "reached the limit of tokens" or "is too long for the audio", which is
        more units per second than speech has (see `stitching.most_units`). Empty: nothing.
    """
    window, text = decoded
    if is_repeated(text):
        return "repeats itself"
    if text.stopped is False:
        return "reached the limit of tokens"
    seconds = window.end - window.start
    letters = sum(char.isalnum() for char in text)
    too_long = len(units(text)) > most_units(seconds) or letters > LETTERS_PER_SECOND * (seconds + 1)
    return "is too long for the audio" if too_long else ""


def decode_again(
    decoded: Decoded, decode: Callable[[Sequence[Tensor]], Sequence[Transcript]]
) -> tuple[list[Decoded], str]:
    """Decode halves of a window, and halves of those that still fail, at most three times.

    Args:
        decoded: A window whose transcript is in `trouble`.
        decode: Transcribes B waveforms [num_samples].

    Returns:
        The pieces in order, and a sentence on what was done.
    """
    pieces, rounds = [decoded], 0
    while rounds < ROUNDS and any(_can_improve(piece) for piece in pieces):
        cut = [_halves(piece.window) if _can_improve(piece) else [] for piece in pieces]
        new = [half for halves in cut for half in halves]
        texts = iter(decode([half.waveform for half in new]))
        pieces = [
            piece
            for old, halves in zip(pieces, cut)
            for piece in ([Decoded(half, next(texts)) for half in halves] or [old])
        ]
        rounds += 1
    return pieces, _note(decoded, pieces)


def _can_improve(piece: Decoded) -> bool:
    return bool(trouble(piece)) and len(piece.window.waveform) >= LEAST_SAMPLES


def _halves(window: Window) -> list[Window]:
    """Cut a window at the quietest place of its middle third. Both halves hold what is around it."""
    samples = window.waveform
    middle = _quietest(samples, len(samples) // 3, 2 * len(samples) // 3)
    around = min(MOST_OVERLAP, len(samples) // 4) // 2
    left, right = samples[: middle + around], samples[middle - around :]
    start = window.start + (middle - around) / SAMPLE_RATE
    return [replace(window, waveform=left), Window(start, right, 2 * around / SAMPLE_RATE)]


def _quietest(samples: Tensor, first: int, last: int) -> int:
    frames = samples[first:last].unfold(0, QUIET, QUIET)
    return first + int(frames.square().mean(-1).argmin()) * QUIET + QUIET // 2


def _note(before: Decoded, pieces: list[Decoded]) -> str:
    window, still = before.window, sum(bool(trouble(piece)) for piece in pieces)
    what = f"{window.start:.2f} to {window.end:.2f} s: the text {trouble(before)}"
    if len(pieces) == 1:
        return f"{what}, and the audio is too short to be cut"
    return f"{what}, so the audio was decoded again in {len(pieces)} pieces ({still} of them still fail)"

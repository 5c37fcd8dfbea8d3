"""Waveforms of clips, or the reason why they cannot be used."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from lhotse import AudioSource, MonoCut
from lhotse.cut import Cut, MixedCut
from torch import Tensor

from arkasr.data.commands import refuse_commands
from arkasr.data.reasons import (
    CHANNELS,
    EMPTY,
    MISSING,
    NO_AUDIO,
    NOT_FINITE,
    SCALE,
    SILENT,
    UNLIKE,
    UNREADABLE,
    Unusable,
)
from arkasr.data.shar import tar_file, with_audio
from arkasr.data.waveforms import MAX_PEAK
from arkasr.interfaces import SAMPLE_RATE

EDGE = 0.001  # seconds of rounding
_DETAIL = re.compile(r"Exception #0 \(.*?\): <class '(?:.*\.)?(\w+)'>: (.*)|Details: <class '(?:.*\.)?(\w+)'>: (.*)")


def read_waveform(clip: Cut, speed: float = 1.0) -> Tensor:
    """Read the clip's audio, at 16 kHz and with its channels mixed into one.

    Args:
        clip: The clip, see `arkasr.data.checks`.
        speed: Factor of its speed. Its sound is resampled, so pitch and formants change too, as with `sox speed`.

    Returns:
        float32 [num_samples] at 16 kHz.

    Raises:
        Unusable: The audio cannot be read, or is not audio of speech.
    """
    if not clip.has_recording:
        raise Unusable(NO_AUDIO, "the cut has no recording; write the manifest with recordings")
    for source in _sources(clip):
        if not isinstance(source.source, str | bytes):  # a decoder would take a number for an open file
            raise Unusable(NO_AUDIO, f"its source is {source.source!r}; write its path")
    _require_start(clip)
    try:
        clip = with_audio(clip)
        refuse_commands(clip)
        clip = clip if clip.sampling_rate == SAMPLE_RATE else clip.resample(SAMPLE_RATE)
        clip = clip if speed == 1 else clip.perturb_speed(speed, affix_id=False)
        channels = torch.from_numpy(clip.load_audio())
    except Unusable:
        raise
    except Exception as error:  # every decoder has its own exceptions
        raise _reason(clip, error) from error
    _require_speech(clip, channels)
    return channels.mean(dim=0) if len(channels) > 1 else channels[0]


def _require_start(clip: Cut) -> None:
    """Refuse a start before the recording, which Lhotse would read as 0."""
    start = getattr(clip, "start", 0.0)
    if isinstance(start, int | float) and start < -EDGE:
        raise Unusable(UNLIKE, f"the cut begins at {start:g} s, before its recording; write the manifest again")


def _require_speech(clip: Cut, channels: Tensor) -> None:
    """Refuse audio that the models cannot take. channels: [num_channels, num_samples]."""
    if isinstance(clip, MonoCut) and len(channels) != 1:
        raise Unusable(CHANNELS, f"the file has {len(channels)}, its manifest says 1; write the manifest again")
    if not channels.numel():
        raise Unusable(EMPTY, "0 samples; record or copy it again")
    if not bool(channels.isfinite().all()):
        raise Unusable(NOT_FINITE, "some samples are NaN or infinite; write it again")
    peak = float(channels.abs().max())
    if peak > MAX_PEAK:
        what_to_do = "divide the samples by the full scale, which is 32768 for 16-bit integers"
        raise Unusable(SCALE, f"the peak is {peak:.6g}, full scale is 1; {what_to_do}")
    if peak == 0:
        raise Unusable(SILENT, "all samples are 0; remove the clip, or choose another channel with data.channels")


def _reason(clip: Cut, error: Exception) -> Unusable:
    """Say in one line why a clip could not be read."""
    for file in _files(clip):
        try:
            file.open("rb").close()
        except FileNotFoundError:
            what_to_do = (
                "put it back; if the corpus was moved, run stage 1 (arkasr prepare) with its new --corpus_dir and the "
                "same --datadir; if the manifest is your own, correct its paths"
            )
            return Unusable(MISSING, f"looked for {file.absolute()}; {what_to_do}")
        except OSError as failed:
            return Unusable(UNREADABLE, f"{failed.strerror}: {file.absolute()}")
    text = str(error)
    if "number of declared samples" in text or "Requested more audio" in text:
        return Unusable(UNLIKE, "its length or sampling rate is not what the manifest says; write the manifest again")
    if found := _DETAIL.search(text):  # the first decoder's error. Lhotse lists those of all decoders
        return Unusable(UNREADABLE, f"{found[1] or found[3]}: {(found[2] or found[4])[:200]}")
    return Unusable(UNREADABLE, f"{type(error).__name__}: {(text.splitlines() or [''])[0][:200]}")


def _files(clip: Cut) -> list[Path]:
    """Return the local files that hold the clip's audio."""
    if tar := tar_file(clip):
        return [tar]
    return [Path(each.source) for each in _sources(clip) if each.type == "file"]


def _sources(clip: Cut) -> list[AudioSource]:
    parts = [track.cut for track in clip.tracks] if isinstance(clip, MixedCut) else [clip]
    recordings = [recording for part in parts if (recording := getattr(part, "recording", None))]
    return [source for recording in recordings for source in recording.sources]

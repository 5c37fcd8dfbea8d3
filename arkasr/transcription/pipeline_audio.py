"""The inputs of transformers' pipeline for speech recognition, as windows of mono audio at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchaudio.functional import resample

from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model.arkasr.conversations import ADDRESSES, download
from arkasr.model.arkasr.feature_extraction_arkasr import as_waveform
from arkasr.model.log_mel import check_waveforms
from arkasr.transcription.audio import open_audio
from arkasr.transcription.settings import Settings
from arkasr.transcription.stream import Span, Stream, Window
from arkasr.transcription.windows import cut

ARRAYS = ("raw", "array")  # keys of a dictionary that holds samples


def as_mono(inputs: Any) -> tuple[Tensor, dict[str, Any]]:
    """Read one input of the pipeline.

    Args:
        inputs: Path or address of a file, its bytes, an array or tensor [n] or [channels, n] at 16 kHz with one or two
            channels, a decoder of torchcodec, or a dictionary with `array` or `raw` and `sampling_rate`, or with
            `path` or `bytes`, as rows of `datasets`.

    Returns:
        Tensor [num_samples], float32, at 16 kHz, and the other keys of the dictionary.

    Raises:
        UserError: The input is of another kind, or cannot be read as audio.
    """
    if hasattr(inputs, "get_all_samples"):
        samples = inputs.get_all_samples()
        inputs = {"array": samples.data, "sampling_rate": samples.sample_rate}
    if not isinstance(inputs, Mapping):
        return _read(inputs), {}
    if "stride" in inputs:
        raise UserError("stride: is for CTC models; leave it out, or cut with chunk_length_s and stride_length_s")
    source = next((inputs[key] for key in (*ARRAYS, "bytes", "path") if inputs.get(key) is not None), None)
    if source is None:
        raise UserError(
            f"input with the keys {sorted(inputs)}: holds no audio; give `array` and `sampling_rate`, `bytes` or `path`"
        )
    extra = {key: inputs[key] for key in inputs.keys() - {*ARRAYS, "bytes", "path", "sampling_rate"}}
    return _read(source, inputs.get("sampling_rate")), extra


def _read(source: Any, rate: int | None = None) -> Tensor:
    if isinstance(source, str) and source.startswith(ADDRESSES):
        return download(source)
    if isinstance(source, str | Path | bytes):
        stream = open_audio(source, "" if not isinstance(source, bytes) else "bytes")
        return torch.cat([*stream])
    waveform = as_waveform(source).detach().cpu()
    if waveform.dim() == 2 and len(waveform) <= 2:
        waveform = waveform.mean(dim=0)
    check_waveforms([waveform], ["input"])
    waveform = waveform.float()
    return waveform if rate in (None, SAMPLE_RATE) else resample(waveform, rate, SAMPLE_RATE)


def windows_of(
    waveform: Tensor,
    seconds: float,
    strides: float | tuple[float, float] | None,
    warn: Callable[[str], Any],
) -> list[Window]:
    """Cut audio into windows.

    Args:
        waveform: Tensor [num_samples] at 16 kHz.
        seconds: Longest window. Shorter audio stays whole. 0 keeps all audio whole.
        strides: Seconds at the left and right of a window that its neighbours share, or None to cut in pauses.
        warn: Receives what the reader should know.

    Returns:
        The windows in order. None for audio without speech that is longer than a window.

    Raises:
        UserError: The windows are too short, or consist of strides.
    """
    if not seconds or len(waveform) <= seconds * SAMPLE_RATE:
        return [Window(0.0, waveform)]
    if strides is not None:
        return _fixed(waveform, seconds, strides)
    windows = cut([waveform], Settings(window_seconds=seconds))
    found = [*windows]
    for note in windows.notes:
        warn(f"automatic-speech-recognition: {note}")
    return found


def _fixed(waveform: Tensor, seconds: float, strides: float | tuple[float, float]) -> list[Window]:
    both = (strides, strides) if isinstance(strides, int | float) else tuple(strides)
    size, overlap = int(seconds * SAMPLE_RATE), int(sum(both) * SAMPLE_RATE)
    if min(both) < 0 or overlap >= size:
        raise UserError(
            f"stride_length_s {strides}: the sum of both sides must be from 0 to below chunk_length_s ({seconds:g})"
        )
    stream = Stream()
    stream.append(waveform)
    starts = range(0, len(waveform) - overlap, size - overlap)
    return [stream.window(Span(at, min(at + size, len(waveform)), overlap if at else 0)) for at in starts]

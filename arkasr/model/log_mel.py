"""Audio files, checks of waveforms, and Whisper's log-mel features for a batch on any device.

Padding does not change the features: those of each clip equal the features of this clip alone.
Shapes: B clips, M mel filters, T mel frames (hop 10 ms).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import soundfile
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.functional import melscale_fbanks, resample

from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE

HOP = 160  # samples, 10 ms
N_FFT = 400  # samples, 25 ms


def check_waveforms(waveforms: Sequence[Tensor], names: Sequence[str] | None = None) -> None:
    """Check that all waveforms are floating-point tensors [num_samples] with at least one sample, all finite.

    Integers are rejected rather than scaled, because their full scale is unknown. Waveforms on a GPU cost one
    synchronisation in total.

    Args:
        waveforms: B tensors at 16 kHz.
        names: B names for error messages. Default: the positions in the batch.

    Raises:
        UserError: A waveform has another shape or dtype, no samples, or NaN or infinite samples.
    """
    names = names or [f"clip {i} of {len(waveforms)}" for i in range(len(waveforms))]
    for name, waveform in zip(names, waveforms):
        if waveform.dim() != 1:
            shape = list(waveform.shape)
            raise UserError(f"{name}: shape {shape}, expected [num_samples]; give one channel, and clips as a list")
        if not waveform.is_floating_point():
            raise UserError(
                f"{name}: {waveform.dtype} samples; convert them to float in [-1, 1] (int16: divide by 32768)"
            )
        if len(waveform) == 0:
            raise UserError(f"{name}: no samples; leave the clip out")
    sums = [waveform.detach().sum(dtype=torch.float32) for waveform in waveforms]  # a sum keeps NaN and infinity
    for name, finite in zip(names, torch.stack(sums).isfinite().tolist() if sums else []):
        if not finite:
            raise UserError(f"{name}: NaN or infinite samples; repair the clip or leave it out")


def check_rate(sampling_rate: int | None) -> None:
    """Check that a sampling rate is 16 kHz.

    Args:
        sampling_rate: Hz. None means unknown and is accepted.

    Raises:
        UserError: The rate is not 16 kHz.
    """
    if sampling_rate not in (None, SAMPLE_RATE):
        raise UserError(
            f"sampling_rate={sampling_rate}: the model expects {SAMPLE_RATE} Hz; resample first, for example with "
            f"torchaudio.functional.resample(waveform, {sampling_rate}, {SAMPLE_RATE})"
        )


def read_audio(path: str | Path) -> Tensor:
    """Read a mono audio file. Rates other than 16 kHz are resampled by windowed sinc interpolation.

    Args:
        path: A file in a format that soundfile reads.

    Returns:
        Tensor [num_samples], float32, at 16 kHz.

    Raises:
        UserError: The file is absent, cannot be read as audio, or has several channels.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: file not found; check the path")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        raise UserError(f"{path}: cannot be read as audio: {error}; convert it to WAV or FLAC") from error
    if samples.shape[1] != 1:
        raise UserError(f"{path}: {samples.shape[1]} channels, expected 1; write one channel or their mean to a file")
    return resample(torch.from_numpy(samples[:, 0]), rate, SAMPLE_RATE)


@lru_cache(maxsize=8)
def _filters(num_mel: int, device: torch.device) -> Tensor:
    return melscale_fbanks(
        N_FFT // 2 + 1, 0.0, SAMPLE_RATE / 2, num_mel, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    ).to(device)


def num_frames(waveform: Tensor) -> int:
    """Count the mel frames of one clip: floor(num_samples / 160), at least 1.

    Clips under 0.1 s are accepted. One frame gives one audio token. A clip under 201 samples is padded with silence
    to 201, which one window needs.

    Args:
        waveform: Tensor [num_samples] at 16 kHz.

    Returns:
        The number of frames.
    """
    return max(waveform.shape[-1] // HOP, 1)


def _with_edges(waveform: Tensor) -> Tensor:
    """Pad half a window at both ends by reflection, as a centred STFT does. Shorter clips get silence first."""
    short = N_FFT // 2 + 1 - waveform.shape[-1]
    waveform = pad(waveform, (0, max(short, 0)))
    return pad(waveform[None, None], (N_FFT // 2, N_FFT // 2), mode="reflect")[0, 0]


@torch.no_grad()
def log_mel(waveforms: Sequence[Tensor], num_mel: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Compute log-mel features of B clips (Radford et al. 2022, arXiv 2212.04356; WhisperFeatureExtractor).

    The features of each clip equal those computed from this clip alone. The window is reflected at the clip's own end,
    and values are limited to 8 below the clip's own maximum (log10 of power). Digital silence gives -1.5 everywhere.

    Args:
        waveforms: B floating-point tensors [num_samples] at 16 kHz. They are not checked (see `check_waveforms`).
        num_mel: Number of mel filters M.
        device: Where the features are computed.

    Returns:
        Features [B, M, T], float32, 0 after the end of each clip, and the numbers of frames [B], int64.
    """
    lengths = torch.tensor([num_frames(w) for w in waveforms])
    edged = [_with_edges(w.to(torch.float32)) for w in waveforms]
    batch = torch.nn.utils.rnn.pad_sequence(edged, batch_first=True).to(device)
    window = torch.hann_window(N_FFT, device=device)
    spectrum = torch.stft(batch, N_FFT, HOP, window=window, center=False, return_complex=True)
    spectrum = spectrum[..., : int(lengths.max())]
    power = spectrum.real.square() + spectrum.imag.square()
    log = (_filters(num_mel, power.device).T @ power).clamp(min=1e-10).log10()
    valid = (torch.arange(log.shape[-1]) < lengths[:, None]).to(device)[:, None]
    peak = log.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
    log = (torch.maximum(log, peak - 8.0) + 4.0) / 4.0
    return log * valid, lengths.to(device)


def mel_and_mask(
    waveforms: Sequence[Tensor], num_mel: int, device: torch.device | str = "cpu", mask_padding: bool = True
) -> tuple[Tensor, Tensor]:
    """Compute log-mel features and their mask (see `log_mel`).

    Args:
        waveforms: B floating-point tensors [num_samples] at 16 kHz.
        num_mel: Number of mel filters M.
        device: Where the features are computed.
        mask_padding: False reproduces the authors' features for a model that attends to padding. Clips are padded with
            silence to the longest clip of the batch before the features are computed. The mask is the same.

    Returns:
        Features [B, M, T], float32, and mask [B, T], int64, 1 in the frames of the clip and 0 in padding.
    """
    mel, _ = log_mel(waveforms if mask_padding else _padded_to_longest(waveforms), num_mel, device)
    lengths = torch.tensor([num_frames(w) for w in waveforms], device=mel.device)
    return mel, (torch.arange(mel.shape[-1], device=mel.device) < lengths[:, None]).long()


def _padded_to_longest(waveforms: Sequence[Tensor]) -> list[Tensor]:
    longest = max((w.shape[-1] for w in waveforms), default=0)
    return [pad(w, (0, longest - w.shape[-1])) for w in waveforms]

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

from arkasr.data.waveforms import Waveforms
from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.utils.devices import to_device

HOP = 160  # samples, 10 ms
N_FFT = 400  # samples, 25 ms


def check_waveforms(waveforms: Sequence[Tensor], names: Sequence[str] | None = None) -> None:
    """Check that all waveforms are floating-point tensors [num_samples] with at least one sample, all finite.

    Integers are rejected rather than scaled, because their full scale is unknown. Waveforms on a GPU cost one
    synchronisation in total. A `Waveforms` object that passed is not checked again.

    Args:
        waveforms: B tensors at 16 kHz.
        names: B names for error messages. Default: the positions in the batch.

    Raises:
        UserError: A waveform has another shape or dtype, no samples, or NaN or infinite samples.
    """
    if isinstance(waveforms, Waveforms):
        waveforms.once("checked", lambda: _check(waveforms, names))
    else:
        _check(waveforms, names)


def _check(waveforms: Sequence[Tensor], names: Sequence[str] | None) -> None:
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
    """Read an audio file, with its channels averaged. Other rates are resampled by windowed sinc interpolation.

    Args:
        path: A file in a format that soundfile reads.

    Returns:
        Tensor [num_samples], float32, at 16 kHz.

    Raises:
        UserError: The file is absent or cannot be read as audio.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: file not found; check the path")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        raise UserError(f"{path}: cannot be read as audio: {error}; convert it to WAV or FLAC") from error
    return resample(torch.from_numpy(samples.mean(axis=1)), rate, SAMPLE_RATE)


@lru_cache(maxsize=8)
def mel_filters(num_mel: int, device: torch.device) -> Tensor:
    """Return Whisper's mel filters (slaney), which are cached.

    Args:
        num_mel: Number of mel filters M.
        device: Device of the filters.

    Returns:
        Tensor [201, M], float32.
    """
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


@torch.no_grad()
def log_mel(
    waveforms: Sequence[Tensor],
    num_mel: int,
    device: torch.device | str = "cpu",
    kept: Sequence[int] | None = None,
    min_samples: int = 0,
) -> tuple[Tensor, Tensor]:
    """Compute log-mel features of B clips (Radford et al. 2022, arXiv 2212.04356; WhisperFeatureExtractor).

    The features of each clip equal those computed from this clip alone. The window is reflected at the clip's own end,
    and values are limited to 8 below the clip's own maximum (log10 of power). Digital silence gives -1.5 everywhere.
    A `Waveforms` object is copied to the device once, and equal features of it are computed once.

    Args:
        waveforms: B floating-point tensors [num_samples] at 16 kHz. They are not checked (see `check_waveforms`).
        num_mel: Number of mel filters M.
        device: Where the features are computed.
        kept: Use the first samples of each clip only: their numbers, length B. None uses all.
        min_samples: Pad shorter clips with silence to this number of samples.

    Returns:
        Features [B, M, T], float32, 0 after the end of each clip, and the numbers of frames [B], int64.
    """
    clips, device = Waveforms.of(waveforms), torch.device(device)
    used = [min(n, k) for n, k in zip(clips.lengths, kept or clips.lengths)]
    totals = [max(n, min_samples, N_FFT // 2 + 1) for n in used]  # one window needs 201 samples
    key = ("log_mel", num_mel, device, tuple(used), tuple(totals))
    return clips.once(key, lambda: _log_mel(clips, num_mel, device, used, totals))


def _log_mel(
    clips: Waveforms, num_mel: int, device: torch.device, used: Sequence[int], totals: Sequence[int]
) -> tuple[Tensor, Tensor]:
    batch, ends = clips.padded(device), to_device([used, totals], device)
    if any(u < min(n, t) for n, u, t in zip(clips.lengths, used, totals)):  # silence where samples are not used
        batch = batch * (torch.arange(batch.shape[-1], device=device) < ends[0, :, None])
    window = torch.hann_window(N_FFT, device=device)
    edged = _with_edges(batch, ends[1], max(totals))
    spectrum = torch.stft(edged, N_FFT, HOP, window=window, center=False, return_complex=True)
    spectrum = spectrum[..., : max(totals) // HOP]
    power = spectrum.real.square() + spectrum.imag.square()
    log = (mel_filters(num_mel, device).T @ power).clamp(min=1e-10).log10()
    lengths = ends[1] // HOP
    valid = (torch.arange(log.shape[-1], device=device) < lengths[:, None])[:, None]
    peak = log.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
    log = (torch.maximum(log, peak - 8.0) + 4.0) / 4.0
    return log * valid, lengths


def _with_edges(batch: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """Pad half a window at both ends of each clip by reflection, as a centred STFT does.

    Later samples keep their values, because no frame of the clip reads them.
    """
    reach = N_FFT // 2
    edged = pad(batch[:, :longest], (reach, reach + max(longest - batch.shape[-1], 0)))
    edged[:, :reach] = edged[:, reach + 1 : 2 * reach + 1].flip(1)
    steps, last = torch.arange(reach, device=batch.device), reach - 1 + lengths[:, None]
    return edged.scatter_(1, last + 1 + steps, edged.gather(1, last - 1 - steps))


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
    clips = Waveforms.of(waveforms)
    longest = 0 if mask_padding else max(clips.lengths, default=0)
    mel, _ = log_mel(clips, num_mel, device, min_samples=longest)
    return mel, frame_mask([num_frames(w) for w in clips], mel)


def frame_mask(frames: Sequence[int], mel: Tensor) -> Tensor:
    """Return the mask of features.

    Args:
        frames: Frames of each clip, length B.
        mel: Tensor [B, M, T].

    Returns:
        Tensor [B, T], int64, 1 in the frames of the clip and 0 in padding.
    """
    ends = to_device(list(frames), mel.device)
    return (torch.arange(mel.shape[-1], device=mel.device) < ends[:, None]).long()

"""Log-mel features on the device: Whisper's definition, computed for a batch as if each clip stood alone."""

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

HOP = 160
N_FFT = 400


def check_waveforms(waveforms: Sequence[Tensor], names: Sequence[str] | None = None) -> None:
    """Raise UserError where a waveform is not float [num_samples], num_samples >= 1, of finite samples.

    names: what the clips are called in the message (their numbers where None). Whole numbers are refused, not scaled:
    their full scale is not known. Waveforms on a GPU cost one synchronisation together.
    """
    names = names or [f"clip {i} of {len(waveforms)}" for i in range(len(waveforms))]
    for name, waveform in zip(names, waveforms):
        if waveform.dim() != 1:
            shape = list(waveform.shape)
            raise UserError(f"{name}: shape {shape}, not [num_samples]: give one channel, and clips as a list")
        if not waveform.is_floating_point():
            raise UserError(
                f"{name}: {waveform.dtype} samples: convert them to float in [-1, 1] (int16: divide by 32768)"
            )
        if len(waveform) == 0:
            raise UserError(f"{name}: no samples: leave the clip out")
    sums = [waveform.detach().sum(dtype=torch.float32) for waveform in waveforms]  # NaN and infinity survive a sum
    for name, finite in zip(names, torch.stack(sums).isfinite().tolist() if sums else []):
        if not finite:
            raise UserError(f"{name}: NaN or infinite samples: repair the clip or leave it out")


def check_rate(sampling_rate: int | None) -> None:
    """Raise UserError where a rate is named that is not 16 kHz."""
    if sampling_rate not in (None, SAMPLE_RATE):
        raise UserError(
            f"sampling_rate={sampling_rate}: the model hears {SAMPLE_RATE} Hz; resample first, for example with "
            f"torchaudio.functional.resample(waveform, {sampling_rate}, {SAMPLE_RATE})"
        )


def read_audio(path: str | Path) -> Tensor:
    """Read a sound file as float32 [num_samples] at 16 kHz; other rates are resampled (windowed sinc).

    Raises UserError where the file is absent, is no sound that soundfile reads, or has several channels: which of
    them to hear is not ours to guess.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: there is no such file")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        raise UserError(f"{path}: cannot be read as audio: {error}") from error
    if samples.shape[1] != 1:
        raise UserError(f"{path}: {samples.shape[1]} channels: write one of them, or their mean, to a file of its own")
    return resample(torch.from_numpy(samples[:, 0]), rate, SAMPLE_RATE)


@lru_cache(maxsize=8)
def _filters(num_mel: int, device: torch.device) -> Tensor:
    return melscale_fbanks(N_FFT // 2 + 1, 0.0, 8000.0, num_mel, SAMPLE_RATE, norm="slaney", mel_scale="slaney").to(
        device
    )


def num_frames(waveform: Tensor) -> int:
    """Count the mel frames of a clip: floor(num_samples / 160), at least 1.

    A clip under 0.1 s is heard as it is, down to one frame and so one audio token; it is completed with silence to
    the 201 samples that a window needs.
    """
    return max(waveform.shape[-1] // HOP, 1)


def _with_edges(waveform: Tensor) -> Tensor:
    """Reflect half a window at both ends, as a centred STFT does; clips shorter than that are padded with silence."""
    short = N_FFT // 2 + 1 - waveform.shape[-1]
    waveform = pad(waveform, (0, max(short, 0)))
    return pad(waveform[None, None], (N_FFT // 2, N_FFT // 2), mode="reflect")[0, 0]


@torch.no_grad()
def log_mel(waveforms: Sequence[Tensor], num_mel: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Compute log-mel features of B clips.

    waveforms: float [num_samples] at 16 kHz. Returns features float32 [B, num_mel, T] (0 past a clip's end) and
    frame counts int64 [B]. Every clip's frames equal those computed from it alone: window edges are reflected at
    its own end and the floor of 8 below the maximum is its own (Radford et al. 2022; WhisperFeatureExtractor).
    Digital silence has no maximum above the floor of the logarithm: all its features are -1.5. Waveforms are taken as
    they are: see check_waveforms.
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
    """Compute log-mel features float32 [B, num_mel, T] and their mask int64 [B, T] (see log_mel).

    With mask_padding False they are the authors' of a batch, for a model that attends to padding: clips are completed
    with silence up to the longest, which then has features too. The mask is the same.
    """
    mel, _ = log_mel(waveforms if mask_padding else _completed(waveforms), num_mel, device)
    lengths = torch.tensor([num_frames(w) for w in waveforms], device=mel.device)
    return mel, (torch.arange(mel.shape[-1], device=mel.device) < lengths[:, None]).long()


def _completed(waveforms: Sequence[Tensor]) -> list[Tensor]:
    longest = max((w.shape[-1] for w in waveforms), default=0)
    return [pad(w, (0, longest - w.shape[-1])) for w in waveforms]

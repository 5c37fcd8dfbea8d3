"""Log-mel features on the device: Whisper's definition, computed for a batch as if each clip stood alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.functional import melscale_fbanks

SAMPLE_RATE = 16000
HOP = 160
N_FFT = 400


@lru_cache(maxsize=8)
def _filters(num_mel: int, device: torch.device) -> Tensor:
    return melscale_fbanks(N_FFT // 2 + 1, 0.0, 8000.0, num_mel, SAMPLE_RATE, norm="slaney", mel_scale="slaney").to(
        device
    )


def num_frames(waveform: Tensor) -> int:
    """Count the mel frames of a clip: floor(num_samples / 160), at least 1."""
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
    """
    lengths = torch.tensor([num_frames(w) for w in waveforms])
    edged = [_with_edges(w.to(torch.float32)) for w in waveforms]
    batch = torch.nn.utils.rnn.pad_sequence(edged, batch_first=True).to(device)
    window = torch.hann_window(N_FFT, device=device)
    power = torch.stft(batch, N_FFT, HOP, window=window, center=False, return_complex=True).abs() ** 2
    power = power[..., : int(lengths.max())]
    log = (_filters(num_mel, power.device).T @ power).clamp(min=1e-10).log10()
    valid = (torch.arange(log.shape[-1]) < lengths[:, None]).to(device)[:, None]
    peak = log.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
    log = (torch.maximum(log, peak - 8.0) + 4.0) / 4.0
    return log * valid, lengths.to(device)

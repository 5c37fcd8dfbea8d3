"""The waveforms of one batch, with their copy on the device and what is computed from it once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar, cast, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arkasr.utils.devices import to_device

MIN_RATE, MAX_RATE = 1000, 768_000  # Hz, of recordings
MAX_PEAK = 10.0  # of floats whose full scale is 1. Decoders and mixtures exceed 1, but not 20 dB

T = TypeVar("T")


class Waveforms(Sequence[Tensor]):
    """B waveforms, each [num_samples], which every user of the batch copies to the device once.

    Student and teacher receive the same object. It keeps the padded copy on each device, and results such as features,
    until the batch is deleted.

    Args:
        clips: B tensors [num_samples] at 16 kHz. Do not change them afterwards.
    """

    def __init__(self, clips: Iterable[Tensor]):
        self._clips = list(clips)
        self._results: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, clips: Sequence[Tensor]) -> Waveforms:
        """Return `clips` itself if it is a `Waveforms` object, else a new one around the tensors.

        Args:
            clips: B tensors [num_samples].

        Returns:
            The object.
        """
        return clips if isinstance(clips, Waveforms) else cls(clips)

    def __len__(self) -> int:
        return len(self._clips)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        return self._clips[index]

    @property
    def lengths(self) -> list[int]:
        """Numbers of samples, length B."""
        return [clip.shape[-1] for clip in self._clips]

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result of a computation on this batch. It runs at the first call with this key only.

        Args:
            key: Names the computation and all its settings.
            compute: The computation.

        Returns:
            The result, which all callers share and none may change.
        """
        if key not in self._results:
            self._results[key] = compute()
        return cast(T, self._results[key])

    def padded(self, device: torch.device) -> Tensor:
        """Return all waveforms as one tensor on a device.

        Waveforms on the host are copied once. On a GPU the copy runs from pinned memory, and the host does not wait.

        Args:
            device: The device.

        Returns:
            float32 [B, longest], 0 after the end of each clip.
        """
        return self.once(("padded", device), lambda: self._copied(device))

    @torch.no_grad()
    def _copied(self, device: torch.device) -> Tensor:
        if any(clip.device.type != "cpu" for clip in self._clips):
            return pad_sequence([clip.float() for clip in self._clips], batch_first=True).to(device)
        shape, on_gpu = (len(self), max(self.lengths, default=0)), device.type == "cuda"
        if on_gpu and all(clip.is_pinned() for clip in self._clips):
            batch = torch.zeros(shape, device=device)
        else:
            batch = torch.zeros(shape, pin_memory=on_gpu)
        for row, clip in zip(batch, self._clips):
            row[: len(clip)].copy_(clip, non_blocking=True)
        return to_device(batch, device)

    def select(self, clips: Sequence[int]) -> Waveforms:
        """Return some of the clips. Copies on devices are reused.

        Args:
            clips: Indices from 0 to B - 1, in the order wanted. An index may occur several times.

        Returns:
            This object if `clips` are all its clips in order, else a new one.
        """
        if list(clips) == list(range(len(self))):
            return self
        selected = Waveforms(self._clips[i] for i in clips)
        for key, result in self._results.items():
            if isinstance(key, tuple) and key[0] == "padded":
                rows = result[to_device(list(clips), result.device, torch.long)]
                selected._results[key] = rows[:, : max(selected.lengths, default=0)]
        return selected

"""Samples of batches in memory that loader processes share with the training process.

A batch of 40 clips of 12 s has 30 MB. Sent through a pipe, it would cost the training process tens of milliseconds per
step. Written into shared memory, it costs a message of a few bytes.

The memory is anonymous, and the processes inherit it. Unlike torch's shared memory it therefore needs no room in
/dev/shm, no file, and no socket in TMPDIR. It is divided into slots for one batch each. A slot is free again when the
training process has dropped all tensors on it. A batch that finds no free slot, or is too large for one, goes through
the pipe.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from itertools import count
from typing import Any
from weakref import WeakValueDictionary, finalize

import numpy as np
import torch
from torch import Tensor

BYTES = 4  # per sample

_numbers = count()
_present: WeakValueDictionary[int, SharedSamples] = WeakValueDictionary()


class SharedSamples:
    """Slots for the samples of batches. To be made before the loader processes are forked.

    Args:
        loaders: Number of loader processes. Each has its own slots, so no two processes write to the same one.
        slots: Slots per loader process.
        size: Samples per slot.

    Raises:
        OSError: There is not enough memory.
    """

    def __init__(self, loaders: int, slots: int, size: int):
        self.slots, self.size, self.number = slots, size, next(_numbers)
        self._memory = mmap.mmap(-1, max(loaders * slots * size * BYTES, 1))  # pages are allocated when first written
        self._used = mmap.mmap(-1, max(loaders * slots, 1))  # one byte per slot
        _present[self.number] = self

    def write(self, loader: int, waveforms: Sequence[Tensor]) -> Any:
        """Write waveforms one after the other into a free slot.

        Args:
            loader: Number of the loader process that calls this.
            waveforms: float32 [num_samples] each.

        Returns:
            An object that becomes a float32 array [total samples] when it is pickled and unpickled in the training
            process. Without a free slot, it is such an array.
        """
        total = sum(map(len, waveforms))
        for slot in range(loader * self.slots, (loader + 1) * self.slots):
            if 0 < total <= self.size and not self._used[slot]:
                self._used[slot] = 1
                torch.cat(tuple(waveforms), out=torch.from_numpy(self._array(slot, total)))
                return _Written(self.number, slot, total)
        return joined(waveforms).numpy()

    def read(self, slot: int, total: int) -> np.ndarray:
        """Return the samples in a slot, without a copy. The slot is free when the array no longer exists.

        Args:
            slot: Number of the slot.
            total: Number of samples.

        Returns:
            float32 [total].
        """
        array = self._array(slot, total)
        finalize(array, self._free, slot).atexit = False
        return array

    def _array(self, slot: int, total: int) -> np.ndarray:
        return np.frombuffer(self._memory, np.float32, total, slot * self.size * BYTES)

    def _free(self, slot: int) -> None:
        self._used[slot] = 0


class _Written:
    """A written slot, as a message."""

    def __init__(self, number: int, slot: int, total: int):
        self.place = number, slot, total

    def __reduce__(self) -> tuple[Any, ...]:
        return _read, self.place


def _read(number: int, slot: int, total: int) -> np.ndarray:
    return _present[number].read(slot, total)


def joined(waveforms: Sequence[Tensor]) -> Tensor:
    """Join waveforms.

    Args:
        waveforms: float32 [num_samples] each. May be none.

    Returns:
        float32 [total samples].
    """
    return torch.cat([torch.zeros(0), *waveforms])

"""Where a recording holds speech, by Silero's detector, which reads frames of 32 ms in order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from arkasr.interfaces import SAMPLE_RATE

FRAME = 512  # samples that the detector reads at once
# Probabilities of speech at which speech begins and ends. The usual threshold is 0.5. Quiet speech that is skipped is
# lost, while noise that is not skipped costs time only.
BEGIN, END = 0.3, 0.15
# The detector misses speech below -55 dB of full scale. Frames are amplified to this level, as far as the loudest frame
# before them, whose weight falls with time, and the limit allow.
LEVEL, MOST_GAIN = 0.05, 100.0
DECAY = 0.5 ** (4 * FRAME / SAMPLE_RATE)  # per frame: half in a quarter of a second

_free: list[Any] = []  # detectors that no recording uses at present. Loading one takes longer than a short recording


class SpeechDetector:
    """Tells for each frame of a recording whether it holds speech."""

    def __init__(self) -> None:
        self._model = _free.pop() if _free else _load()
        self._model.reset_states()
        self._rest = torch.zeros(0)
        self._speaking, self._loudest = False, 0.0

    @torch.inference_mode()
    def advance(self, block: Tensor) -> list[bool]:
        """Read the next samples.

        Args:
            block: float32 [num_samples] at 16 kHz.

        Returns:
            Whether there is speech, per frame that is complete.
        """
        samples = torch.cat([self._rest, block])
        whole = len(samples) // FRAME * FRAME
        self._rest = samples[whole:].clone()
        return [self._speech(frame) for frame in samples[:whole].split(FRAME)] if whole else []

    @torch.inference_mode()
    def finish(self) -> list[bool]:
        """Read the last frame, filled up with silence, and release the detector.

        Returns:
            Whether there is speech, if there is such a frame.
        """
        last = [self._speech(pad(self._rest, (0, FRAME - len(self._rest))))] if len(self._rest) else []
        _free.append(self._model)
        return last

    def _speech(self, frame: Tensor) -> bool:
        self._loudest = max(float(frame.square().mean()) ** 0.5, DECAY * self._loudest)
        gain = min(max(LEVEL / max(self._loudest, 1e-9), 1.0), MOST_GAIN)
        self._speaking = float(self._model(gain * frame, SAMPLE_RATE)) >= (END if self._speaking else BEGIN)
        return self._speaking


def _load() -> Any:
    threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad  # sets the number of threads of the whole process to 1

        return load_silero_vad()
    finally:
        torch.set_num_threads(threads)

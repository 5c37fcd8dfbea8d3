"""Short clips of audio inside the page, of bounded total size."""

from __future__ import annotations

import base64
import io
from collections import Counter

import soundfile
from lhotse.cut import Cut

from arkasr.data.audio import read_waveform
from arkasr.data.reasons import Unusable
from arkasr.interfaces import SAMPLE_RATE

MIB = 2**20
LONGEST_SECONDS = 30.0
BLOCK = SAMPLE_RATE  # samples that are encoded at once


class AudioClips:
    """Encodes clips until a limit is reached. What is left out is counted by its reason.

    Args:
        max_mib: Maximum size of all clips in the page, in MiB. 0: none.

    Attributes:
        used: Bytes of the clips so far, as they are in the page.
        clips: Number of clips in the page.
        left_out: Number of clips that are not, by reason.
    """

    def __init__(self, max_mib: float):
        self.limit, self.max_mib = int(max_mib * MIB), max_mib
        self.used, self.clips = 0, 0
        self.left_out: Counter[str] = Counter()

    def add(self, cut: Cut | None) -> tuple[str, str]:
        """Encode one clip.

        Args:
            cut: The clip. None: it is not in the manifest any more.

        Returns:
            Address for an audio element, and why there is none. One of them is empty.
        """
        address, reason = self._encode(cut)
        if not reason and self.used + len(address) > self.limit:
            address, reason = "", f"beyond the limit of {self.max_mib:g} MiB for all audio of this page"
        if reason:
            self.left_out[reason] += 1
        else:
            self.used, self.clips = self.used + len(address), self.clips + 1
        return address, reason

    def _encode(self, cut: Cut | None) -> tuple[str, str]:
        if self.limit == 0:
            return "", "audio was not asked for (--audio_mib 0)"
        if cut is None:
            return "", "its cut is not in the manifest any more"
        if cut.duration > LONGEST_SECONDS:
            return "", f"longer than {LONGEST_SECONDS:g} s"
        try:
            return data_address(opus(cut)), ""
        except Unusable as unusable:
            return "", unusable.kind

    def summary(self) -> str:
        """Say how much audio is in the page, and what was left out.

        Returns:
            Sentences.
        """
        text = f"{self.clips} clips of audio are in this page ({self.used / MIB:.2f} MiB, Ogg Opus)."
        reasons = "; ".join(f"{number} {reason}" for reason, number in self.left_out.most_common())
        return f"{text} Without audio: {reasons}." if reasons else text


def opus(cut: Cut) -> bytes:
    """Encode a clip.

    Args:
        cut: The clip.

    Returns:
        An Ogg Opus file of one channel at 16 kHz.

    Raises:
        Unusable: The audio cannot be read.
    """
    samples, file = read_waveform(cut).clamp(-1, 1).numpy(), io.BytesIO()
    with soundfile.SoundFile(file, "w", SAMPLE_RATE, 1, format="OGG", subtype="OPUS") as encoder:
        for start in range(0, len(samples), BLOCK):
            encoder.write(samples[start : start + BLOCK])
    return file.getvalue()


def data_address(content: bytes) -> str:
    """Return an address that holds the content itself.

    Args:
        content: An Ogg file.

    Returns:
        A `data:` address.
    """
    return f"data:audio/ogg;base64,{base64.b64encode(content).decode()}"

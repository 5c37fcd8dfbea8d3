"""Times of words, by aligning a transcript with its audio through the CTC head of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model.ctc_head import FILE, TOKENIZER, read_ctc_head, read_ctc_tokenizer
from arkasr.model.loading import load_speech_lm
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.transcription.forced_alignment import align
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.settings import Settings


class Aligner:
    """Aligns the words of transcripts with their audio.

    Args:
        lm: A model with a CTC head.
        own_text: Whether the transcripts are those of this model, so that the head knows their case and punctuation. If
            not, upper and lower case without punctuation are tried too, and the likeliest text is aligned.
    """

    def __init__(self, lm: SpeechLM, own_text: bool):
        self._lm, self._own_text = lm, own_text
        self._tokenizer = lm.ctc_tokenizer or lm.tokenizer.backend_tokenizer

    @torch.no_grad()
    def times(self, waveform: Tensor, parts: Sequence[str], spaced: bool) -> list[tuple[float, float]] | None:
        """Return the times of the units of a transcript.

        Args:
            waveform: float32 [num_samples] at 16 kHz.
            parts: The units (see `stitching.units`).
            spaced: See `stitching.units`.

        Returns:
            Start and end of each unit in seconds from the start of the waveform, in order. None if the text has more
            tokens than the head has frames.
        """
        head = self._lm.ctc_head
        assert head is not None
        scores = head(self._lm.encode_audio([waveform])[0]).float().log_softmax(-1).cpu()
        texts = [list(parts)] if self._own_text else spellings(parts)
        found = [aligned for text in texts if (aligned := align(scores, text, spaced, self._tokenizer))]
        if not found:
            return None
        step = len(waveform) / SAMPLE_RATE / len(scores)
        best = max(found, key=lambda aligned: aligned.score)
        return [(step * start, step * end) for start, end in best.frames]


def spellings(parts: Sequence[str]) -> list[list[str]]:
    """Return ways to write a text.

    Args:
        parts: Its units.

    Returns:
        The units as they are, and letters and numbers in upper and in lower case only.
    """
    plain = ["".join(char for char in part if char.isalnum() or char in "' ") for part in parts]
    ways = [list(parts), [part.upper() for part in plain], [part.lower() for part in plain]]
    return [way for i, way in enumerate(ways) if way not in ways[:i]]


def aligner_for(recognizer: Recognizer, settings: Settings) -> Aligner | None:
    """Return what finds the times of words.

    Args:
        recognizer: The model that transcribes. Its folder may have a CTC head.
        settings: `word_times` and `aligner` are used.

    Returns:
        The aligner. None if no word times are asked for.

    Raises:
        UserError: The aligner cannot be loaded, or neither it nor the model has a CTC head.
    """
    if not settings.word_times:
        return None
    if settings.aligner:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return Aligner(_with_head(settings.aligner, device), own_text=False)
    lm = recognizer.lm
    if lm is not None and (lm.ctc_head is not None or _add_head(lm, recognizer.name)):
        return Aligner(lm, own_text=True)
    raise UserError(
        f"word_times: the model {recognizer.name} has no CTC head ({FILE}), which aligns words with audio; name a "
        "folder that has one with --aligner, such as exp/base/final, or leave --word_times out"
    )


@lru_cache(maxsize=1)
def _with_head(folder: str, device: str) -> SpeechLM:
    lm = load_speech_lm(folder, "float32", device)
    if not _add_head(lm, folder):
        raise UserError(
            f"aligner {folder}: holds no CTC head ({FILE}), which aligns words with audio; name the folder of a model "
            "that was trained with train.ctc_weight, such as exp/base/final"
        )
    return lm


def _add_head(lm: SpeechLM, folder: str) -> bool:
    """Give a model the CTC head of its folder. Return whether the folder has one."""
    if not (Path(folder) / FILE).is_file():
        return False
    lm.add_ctc_head(read_ctc_tokenizer(Path(folder) / TOKENIZER))
    assert lm.ctc_head is not None
    lm.ctc_head.to(lm.device)
    return read_ctc_head(lm, folder)

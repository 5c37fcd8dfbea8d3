"""GLM-ASR as a SpeechLM: its prompt, and 30 s windows that are padded with silence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from arkasr.model.log_mel import HOP, check_waveforms
from arkasr.model.speech_lm.base import SpeechLM

MERGED = 4  # encoder states in an audio token
SHORTEST = 2 * MERGED - 1  # mel frames: halved and rounded up they are the states of one token


class GlmSpeechLM(SpeechLM):
    """GLM-ASR's prompt and features (transformers' GlmAsrProcessor; zai-org/GLM-ASR-Nano-2512).

    Every clip is cut into windows of `2 * max_position_embeddings` mel frames (30 s), the last padded with silence, and
    the encoder hears that silence: GLM-ASR masks nothing and was trained so. As each window is encoded by itself at
    this one length, a clip's tokens do not depend on its batch, at the price of 30 s of encoder work for a short clip.
    Only the tokens of the clip itself enter the prompt; a clip under 70 ms, for which GlmAsrProcessor has none, gets
    one. The prompt names no language. Of the three ids with which GLM-ASR stops, `<|user|>`, which ends a turn in GLM's
    chats, is the one written after a transcript.
    """

    stop_tokens = ("<|user|>", "<|endoftext|>", "<|observation|>")

    @property
    def window(self) -> int:
        """Mel frames that are encoded at one time, a multiple of what one audio token merges."""
        states = self.hf.config.audio_config.max_position_embeddings
        return 2 * MERGED * -(-states // MERGED)

    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Encode B clips into audio tokens [N_i, H] each: those of their windows, joined."""
        check_waveforms(waveforms)
        windows = [self._windows(w) for w in waveforms]
        rows = iter(super().encode_audio([part for parts in windows for part in parts]))
        return [torch.cat([next(rows) for _ in parts]) for parts in windows]

    def _windows(self, waveform: Tensor) -> list[Tensor]:
        """Cut a clip; a rest too short for a token is left out, if it is not the whole clip."""
        first, *others = waveform.split(self.window * HOP)
        return [first, *(part for part in others if -(-len(part) // HOP) >= SHORTEST)]

    def features(self, waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute mel features [W, M, window] of W windows and the mask int64 [W, window] of what is no padding."""
        samples = self.window * HOP
        mel, _ = super().features([pad(w, (0, samples - len(w))) for w in waveforms])
        frames = torch.tensor([max(-(-len(w) // HOP), SHORTEST) for w in waveforms], device=self.device)
        return mel, (torch.arange(mel.shape[-1], device=self.device) < frames[:, None]).long()

    def count_audio_tokens(self, mask: Tensor) -> list[int]:
        """Count each window's audio tokens: frames halved up, merged down."""
        return ((mask.sum(-1) + 1) // 2 // MERGED).tolist()

    def prompt_text(self, language: str) -> tuple[str, str]:
        """Return the chat turns around the audio, which name no language."""
        before, asked = "<|user|>\n<|begin_of_audio|>", "Please transcribe this audio into text"
        return before, f"<|end_of_audio|><|user|>\n{asked}<|assistant|>\n"

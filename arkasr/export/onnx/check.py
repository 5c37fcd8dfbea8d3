"""Compare the ONNX files in onnxruntime with PyTorch, with other sizes than those of the export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from arkasr.errors import UserError
from arkasr.export.onnx.write import cache_names
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model.generation import cache_argument
from arkasr.model.speech_lm.auto import SpeechLM

SECONDS = (1.03, 0.47)  # of the clips that are compared
STEPS = 2  # tokens after the prompt
TOLERANCE = 1e-3  # of the largest value in PyTorch


@dataclass(frozen=True)
class Differences:
    """Largest absolute difference between onnxruntime and PyTorch, divided by the largest value in PyTorch.

    Attributes:
        features: Of the log-mel features.
        encoder: Of the audio embeddings.
        prompt: Of the logits of all prompt positions.
        steps: Of the logits of tokens after the prompt, with the cache.
    """

    features: float
    encoder: float
    prompt: float
    steps: float


class Sessions:
    """The three files in onnxruntime, on the CPU.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self.features, self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
            for name in ("features", "encoder", "decoder")
        )

    def decode(self, ids: Tensor, audio: Tensor, mask: Tensor, at: Sequence[int], past: list[Any]) -> list[Any]:
        """Run the decoder once.

        Args:
            ids: See `DecoderGraph.forward`.
            audio: See `DecoderGraph.forward`.
            mask: See `DecoderGraph.forward`.
            at: See `DecoderGraph.forward`.
            past: Arrays of the present cache, empty for the prompt.

        Returns:
            Logits and new cache, as arrays.
        """
        inputs = {"input_ids": ids.numpy(), "audio_embeds": audio.numpy(), "attention_mask": mask.numpy()}
        shapes = {each.name: each.shape for each in self.decoder.get_inputs() if each.name.startswith("past")}
        nothing = [np.zeros((len(ids), shape[1], 0, shape[3]), np.float32) for shape in shapes.values()]
        names = cache_names("past_key_values", len(shapes) // 2)
        cache = dict(zip(names, past or nothing, strict=True))
        return self.decoder.run(None, inputs | {"logits_at": np.array(at, np.int64)} | cache)


@torch.no_grad()
def compare(lm: SpeechLM, folder: Path) -> Differences:
    """Compare features, audio embeddings, prompt logits and logits of cached steps, for two clips of noise.

    Args:
        lm: The model that was exported, in float32 on the CPU.
        folder: The folder with the files.

    Returns:
        The differences.

    Raises:
        UserError: A difference is above `TOLERANCE`.
    """
    sessions, random = Sessions(folder), torch.Generator().manual_seed(0)
    clips = [0.1 * torch.randn(int(seconds * SAMPLE_RATE), generator=random) for seconds in SECONDS]
    mel, frames = lm.features(clips)
    own = [sessions.features.run(None, {"waveform": clip.numpy()})[0] for clip in clips]
    features = max(_difference(o[0], m[:, :n]) for o, m, n in zip(own, mel, frames.sum(-1).tolist()))
    audio, counts = map(torch.from_numpy, sessions.encoder.run(
        None, {"input_features": mel.numpy(), "input_features_mask": frames.numpy()}
    ))  # fmt: skip
    rows = torch.cat([row[:n] for row, n in zip(audio, counts.tolist())])
    expected = lm.hf.model.get_audio_features(mel, frames).pooler_output
    prompt, steps = _compare_decoder(lm, sessions, mel, frames, audio, counts.tolist())
    found = Differences(features, _difference(rows, expected), prompt, steps)
    for name, value in vars(found).items():
        if not value <= TOLERANCE:
            raise UserError(
                f"{folder.name}: onnxruntime and PyTorch differ by {value:.1e} in {name}, more than {TOLERANCE:g} of "
                "the largest value; use another version of onnxruntime or torch"
            )
    return found


def _compare_decoder(
    lm: SpeechLM, sessions: Sessions, mel: Tensor, frames: Tensor, audio: Tensor, counts: list[int]
) -> tuple[float, float]:
    """Return the differences of the logits of the prompts and of later steps."""
    ids, mask = prompts(lm, counts)
    hf: Any = lm.hf
    expected = hf(
        input_ids=ids, input_features=mel, input_features_mask=frames, attention_mask=mask, use_cache=True
    )  # fmt: skip
    logits, *past = sessions.decode(ids, audio, mask, range(ids.shape[1]), [])
    valid = mask.bool()
    prompt, steps, cache = _difference(logits[valid.numpy()], expected.logits[valid]), 0.0, cache_argument(hf)
    for step in range(STEPS):
        ids, mask = torch.tensor([[5 + step], [7 + step]]), pad(mask, (0, 1), value=1)
        expected = hf(input_ids=ids, attention_mask=mask, use_cache=True, **{cache: expected[cache]})
        logits, *past = sessions.decode(ids, audio[:, :0], mask, [-1], past)
        steps = max(steps, _difference(logits, expected.logits))
    return prompt, steps


def prompts(lm: SpeechLM, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the prompts of B clips, padded on the left.

    Args:
        lm: The model.
        counts: Number of audio tokens of each clip.

    Returns:
        Ids and mask, tensors [B, S], int64.
    """
    before, after = (lm.tokenizer.encode(text, add_special_tokens=False) for text in lm.prompt_text("English"))
    marker = lm.hf.config.audio_token_id
    rows = [torch.tensor([*before, *[marker] * n, *after]) for n in counts]
    ids = pad_sequence(rows, batch_first=True, padding_value=-1, padding_side="left")
    return ids.clamp(min=0), (ids >= 0).long()


def _difference(found: Any, expected: Tensor) -> float:
    return float(np.abs(np.asarray(found) - expected.numpy()).max() / expected.abs().max())

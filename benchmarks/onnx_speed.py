"""Compare an ONNX export in onnxruntime with the same model in PyTorch, one clip at a time, greedily.

    arkasr export --onnx --model DIR --outdir ONNX
    OMP_NUM_THREADS=1 python benchmarks/onnx_speed.py --model DIR --onnx ONNX --clips 20 clip.flac ...

Both read the same features and stop at the same token. The tokens must be equal. `generate` is that of transformers,
with its growing cache. The row `arkasr` is `Recognizer.transcribe` with a preallocated cache. Ratios are times divided
by that of `generate`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arkasr.export.onnx.check import Sessions, prompts
from arkasr.model.arkasr.processing_arkasr import ArkasrProcessor
from arkasr.model.log_mel import read_audio
from arkasr.reporting.markdown import markdown_table
from arkasr.transcription.recognizer import Recognizer

MOST_TOKENS = 256


class Case:
    """A model in both engines.

    Args:
        model: Folder of the model.
        onnx: Folder of its ONNX export.
    """

    def __init__(self, model: str, onnx: str):
        self.recognizer, self.sessions = Recognizer.load(model, device="cpu"), Sessions(Path(onnx))
        lm: Any = self.recognizer.lm
        self.lm = lm
        self.processor = ArkasrProcessor.from_config(lm.hf.config, lm.tokenizer)

    def onnxruntime(self, clip: Tensor) -> list[int]:
        """Transcribe a clip by the three files.

        Args:
            clip: Waveform [num_samples].

        Returns:
            The token ids, without stop id.
        """
        mel = self.sessions.features.run(None, {"waveform": clip.numpy()})[0]
        frames = np.ones((1, mel.shape[2]), np.int64)
        audio, counts = self.sessions.encoder.run(None, {"input_features": mel, "input_features_mask": frames})
        rows, (ids, mask) = torch.from_numpy(audio), prompts(self.lm, counts.tolist())
        found: list[int] = []
        past: list[Any] = []
        while len(found) < MOST_TOKENS:
            logits, *past = self.sessions.decode(ids, rows, mask, [-1], past)
            logits[..., self.lm.suppressed_ids] = -np.inf
            token = int(logits.argmax())
            if token in self.lm.stop_ids:
                break
            found.append(token)
            ids, rows, mask = torch.tensor([[token]]), rows[:, :0], torch.ones(1, mask.shape[1] + 1, dtype=torch.long)
        return found

    @torch.no_grad()
    def generate(self, clip: Tensor) -> list[int]:
        """Transcribe a clip by `generate` of transformers.

        Args:
            clip: Waveform [num_samples].

        Returns:
            The token ids, without stop id.
        """
        inputs = self.processor(clip)
        made = self.lm.hf.generate(**inputs, max_new_tokens=MOST_TOKENS, suppress_tokens=self.lm.suppressed_ids)
        return [i for i in made[0, inputs["input_ids"].shape[1] :].tolist() if i not in self.lm.stop_ids]

    def arkasr(self, clip: Tensor) -> str:
        """Transcribe a clip by `Recognizer.transcribe`.

        Args:
            clip: Waveform [num_samples].

        Returns:
            The text.
        """
        return self.recognizer.transcribe([clip], ["English"])[0]


def measure(way: Callable[[Tensor], Any], clips: Sequence[Tensor]) -> tuple[float, list[Any]]:
    """Transcribe all clips, after a warm-up.

    Args:
        way: A method of `Case`.
        clips: Waveforms.

    Returns:
        Seconds of CPU, and the transcripts.
    """
    way(clips[0])
    start = time.process_time()
    found = [way(clip) for clip in clips]
    return time.process_time() - start, found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", nargs="+", help="audio files")
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--onnx", required=True, help="folder of its ONNX export")
    parser.add_argument("--clips", type=int, default=20, help="number of files to use")
    args = parser.parse_args(argv)
    case, clips = Case(args.model, args.onnx), [read_audio(path) for path in args.audio[: args.clips]]
    ways = {"generate": case.generate, "onnxruntime": case.onnxruntime, "arkasr": case.arkasr}
    results = {name: measure(way, clips) for name, way in ways.items()}
    equal = sum(a == b for a, b in zip(results["generate"][1], results["onnxruntime"][1], strict=True))
    base, seconds = results["generate"][0], sum(map(len, clips)) / 16000
    rows = [[name, f"{spent / base:.2f}", f"{seconds / spent:.1f}"] for name, (spent, _) in results.items()]
    print(f"{len(clips)} clips, {seconds:.0f} s of audio; equal tokens: {equal} of {len(clips)}")
    print(markdown_table(["engine", "CPU time", "audio seconds per CPU second"], rows))


if __name__ == "__main__":
    main()

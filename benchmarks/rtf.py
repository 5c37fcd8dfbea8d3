"""Measure how fast the student transcribes: RTFx, the seconds of audio that it transcribes per second, by batch size.

    python benchmarks/rtf.py --size paper --batch 1 16 64 128      # the published sizes, on one GPU, in bfloat16
    python benchmarks/rtf.py --size mini --batch 1 8 32            # on a CPU, in float32

Weights are random and clips are noise, made before the clock starts. Every transcript ends at its token cap, which
--tokens_per_second of audio sets: 40 tokens for 10 s. Speech has about 4 tokens per second in Qwen2.5's vocabulary.

The time covers all that `arkasr decode` does with one batch: the copy of the audio to the device, features, encoder,
prompt, greedy decoding, and the texts. The real-time factor (RTF) is 1 / RTFx.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import fresh
import torch
from measured import peak_bytes, seconds

from arkasr import SpeechLM
from arkasr.config.schema import DecodeConfig
from arkasr.data.batches import Batch
from arkasr.evaluation.hypotheses import transcribe
from arkasr.evaluation.transcribers import dtype_of


def noise(count: int, length: float, device: str) -> Batch:
    """Make a batch of clips of noise.

    Args:
        count: Number of clips.
        length: Length of each clip in seconds.
        device: Device that transcribes them. For a GPU the clips are pinned, as the loaders of decode deliver them.

    Returns:
        The batch.
    """
    names, clips = [f"clip-{i}" for i in range(count)], fresh.clips(count, length)
    clips = [clip.pin_memory() for clip in clips] if device == "cuda" else clips
    return Batch(names, clips, [""] * count, ["English"] * count)


def check(lm: SpeechLM, clips: Batch, settings: DecodeConfig) -> None:
    """Transcribe a batch, also to load code and capture graphs, and check that all transcripts end at their cap.

    Args:
        lm: The student.
        clips: The batch.
        settings: Settings with the token cap.

    Raises:
        RuntimeError: A transcript is shorter.
    """
    counts = {row["num_tokens"] for row in transcribe(lm, clips, settings)}
    if counts != {settings.max_new_tokens}:
        raise RuntimeError(f"transcripts of {sorted(counts)} tokens, not {settings.max_new_tokens}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all batch sizes and print the table.

    Args:
        argv: Command-line options. Default: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(fresh.STUDENTS), default="mini", help="model sizes")
    parser.add_argument("--vocab", type=int, default=151936, help="vocabulary size (default: %(default)s)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the weights; auto: bfloat16 on a GPU, float32 on a CPU, as `arkasr decode` (default: %(default)s)",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16, 64, 128], help="clips per batch")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each clip (default: %(default)s)")
    parser.add_argument(
        "--tokens_per_second", type=float, default=4.0, help="tokens per second of audio (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = dtype_of(DecodeConfig(dtype=args.dtype))
    lm = fresh.student(args.size, fresh.tokenizer(args.vocab), device, dtype)
    lm.blocked[lm.stop_ids] = True  # no transcript ends before its cap
    cap, weights = max(1, round(args.tokens_per_second * args.seconds)), sum(p.numel() for p in lm.parameters())
    print(f"{weights:,} weights in {dtype}, {args.seconds:g} s and {cap} tokens per clip, {device}\n")
    print("| batch | seconds | RTFx | RTF | peak MiB |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    settings = DecodeConfig(max_new_tokens=cap, tokens_per_second=0.0)
    for count in args.batch:
        clips = noise(count, args.seconds, device)

        def work(clips: Batch = clips) -> None:
            transcribe(lm, clips, settings)

        check(lm, clips, settings)
        memory = peak_bytes(work, device) / 2**20
        spent = statistics.median(seconds(work, device) for _ in range(args.repeats))
        factor = count * args.seconds / spent
        print(f"| {count} | {spent:.3f} | {factor:.1f} | {1 / factor:.5f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()

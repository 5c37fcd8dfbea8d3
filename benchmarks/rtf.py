"""Measure the student's real-time factor, seconds of computing per second of audio, by batch size.

    python benchmarks/rtf.py --size paper --dtype bfloat16 --batch 1 4 16 64      # the published sizes, on one GPU
    python benchmarks/rtf.py --size mini --batch 1 8                              # on a CPU

Weights are random and clips are noise. Every transcript therefore ends at its token cap, which --tokens_per_second of
audio sets. Speech has about 4 tokens per second in Qwen2.5's vocabulary. The time covers features, encoder, prompt and
greedy decoding.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import fresh
import torch
from measured import peak_bytes, seconds

from arkasr import SpeechLM, generate


@torch.no_grad()
def transcribe(lm: SpeechLM, batch: int, length: float, cap: int) -> None:
    """Transcribe clips of noise.

    Args:
        lm: The student.
        batch: Number of clips.
        length: Length of each clip in seconds.
        cap: Number of tokens of each transcript.
    """
    clips = fresh.clips(batch, length)
    generate(lm, lm.embed_prompts(lm.encode_audio(clips), ["English"] * batch), [cap] * batch)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all batch sizes and print the table.

    Args:
        argv: Command-line options. Default: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(fresh.STUDENTS), default="mini", help="model sizes")
    parser.add_argument("--vocab", type=int, default=151936, help="vocabulary size (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], help="clips per batch")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each clip (default: %(default)s)")
    parser.add_argument(
        "--tokens_per_second", type=float, default=4.0, help="tokens per second of audio (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lm = fresh.student(args.size, fresh.tokenizer(args.vocab), device, args.dtype)
    lm.blocked[lm.stop_ids] = True  # no transcript ends before its cap
    cap, weights = max(1, round(args.tokens_per_second * args.seconds)), sum(p.numel() for p in lm.parameters())
    print(f"{weights:,} weights in {args.dtype}, {args.seconds:g} s and {cap} tokens per clip, {device}\n")
    print("| batch | seconds | real-time factor | audio seconds per second | peak MiB |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for batch in args.batch:

        def work(batch: int = batch) -> None:
            transcribe(lm, batch, args.seconds, cap)

        work()  # a warm-up, which includes the loading of code
        memory = peak_bytes(work, device) / 2**20
        spent = statistics.median(seconds(work, device) for _ in range(args.repeats))
        factor = spent / (batch * args.seconds)
        print(f"| {batch} | {spent:.3f} | {factor:.4f} | {1 / factor:.1f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()

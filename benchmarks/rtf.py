"""Real-time factor of the student: seconds of work a second of audio, by batch size.

    python benchmarks/rtf.py --size paper --dtype bfloat16 --batch 1 4 16 64      # the published sizes, on a GPU
    python benchmarks/rtf.py --size mini --batch 1 8                              # on a CPU

Weights are random and clips noise: a transcript then ends at its cap, set here to --tokens_per_second of audio (speech
has about 4 tokens a second in Qwen2.5's vocabulary). Timed are features, encoder, prompt and greedy tokens together.
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
    """Transcribe `batch` clips of `length` seconds into `cap` tokens each."""
    clips = fresh.clips(batch, length)
    generate(lm, lm.embed_prompts(lm.encode_audio(clips), ["English"] * batch), [cap] * batch)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(fresh.STUDENTS), default="mini")
    parser.add_argument("--vocab", type=int, default=151936)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--tokens_per_second", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lm = fresh.student(args.size, fresh.tokenizer(args.vocab), device, args.dtype)
    lm.blocked[lm.stop_ids] = True  # so that every transcript has the length asked for
    cap, weights = max(1, round(args.tokens_per_second * args.seconds)), sum(p.numel() for p in lm.parameters())
    print(f"{weights:,} weights in {args.dtype}, {args.seconds:g} s a clip, {cap} tokens, {device}\n")
    print(
        "| batch | seconds | real-time factor | audio seconds a second | peak MiB |\n| ---: | ---: | ---: | ---: | ---: |"
    )
    for batch in args.batch:

        def work(batch: int = batch) -> None:
            transcribe(lm, batch, args.seconds, cap)

        work()  # the first run pays for loading code
        memory = peak_bytes(work, device) / 2**20
        spent = statistics.median(seconds(work, device) for _ in range(args.repeats))
        factor = spent / (batch * args.seconds)
        print(f"| {batch} | {spent:.3f} | {factor:.4f} | {1 / factor:.1f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()

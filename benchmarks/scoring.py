"""Compare a teacher's scoring with logits at transcript positions only against logits at every position.

    python benchmarks/scoring.py --size paper --dtype bfloat16             # Qwen3-ASR-1.7B's sizes, on one GPU
    python benchmarks/scoring.py --size mini --threads 2                   # small body, the true vocabulary, on a CPU

The teacher has random weights, and the clips are noise. Both methods run the same encoder and decoder over the same
batch. "full" requests the logits of all positions, as transformers does by default, and then selects those of the
transcripts. The log-probabilities of both methods must agree. Time is the median of paired repeats. Memory is the peak
above the memory in use before.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import fresh
import torch
from measured import peak_bytes, seconds
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arkasr import DenseView, SpeechLM

K = 32


def rows_only(lm: SpeechLM, clips: list[Tensor], ids: list[list[int]]) -> Tensor:
    """Score with logits of transcript positions only, as the teacher plugins do.

    Args:
        lm: The teacher.
        clips: Audio, float32 [num_samples] at 16 kHz each.
        ids: Transcripts.

    Returns:
        Log-probabilities of the k best tokens at every position, [P, k].
    """
    prompts = lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(clips))
    return DenseView(lm.transcript_states(prompts, ids) @ lm.head.T).topk(K)[1]


def full(lm: SpeechLM, clips: list[Tensor], ids: list[list[int]]) -> Tensor:
    """Score with logits of every position of prompt and transcript, then select the transcripts' positions.

    Args:
        lm: The teacher.
        clips: Audio, float32 [num_samples] at 16 kHz each.
        ids: Transcripts.

    Returns:
        Log-probabilities of the k best tokens at every position, [P, k].
    """
    prompts = lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(clips))
    embed = lm.hf.get_input_embeddings()
    text = [embed(torch.tensor(row[:-1], device=lm.device)) for row in ids]
    batch = pad_sequence([torch.cat([p, t]) for p, t in zip(prompts, text, strict=True)], batch_first=True)
    logits = lm.hf(inputs_embeds=batch, use_cache=False).logits
    spans = [slice(len(p) - 1, len(p) - 1 + len(row)) for p, row in zip(prompts, ids, strict=True)]
    return DenseView(torch.cat([row[span] for row, span in zip(logits, spans, strict=True)])).topk(K)[1]


WAYS = {"full": full, "rows": rows_only}


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    """Measure both methods and print the table.

    Args:
        argv: Command-line options. Default: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(fresh.TEACHERS), default="mini", help="sizes of the teacher")
    parser.add_argument("--vocab", type=int, default=151936, help="vocabulary size (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights")
    parser.add_argument("--transcripts", type=int, default=32, help="clips per batch (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each clip (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each transcript (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lm = fresh.teacher(args.size, fresh.tokenizer(args.vocab), device, args.dtype)
    clips, generator = fresh.clips(args.transcripts, args.seconds), torch.Generator().manual_seed(1)
    ids = torch.randint(args.vocab // 2, (args.transcripts, args.tokens), generator=generator).tolist()
    print(
        f"{args.transcripts} transcripts of {args.tokens} tokens for {args.seconds:g} s, V = {args.vocab}, {device}\n"
    )
    # This is also the warm-up: no later measurement includes the loading of code.
    logprobs = {name: way(lm, clips, ids) for name, way in WAYS.items()}
    gap = float((logprobs["full"] - logprobs["rows"]).abs().max())
    memory = {name: peak_bytes(lambda w=way: w(lm, clips, ids), device) / 2**20 for name, way in WAYS.items()}
    times = [{n: seconds(lambda w=w: w(lm, clips, ids), device) for n, w in WAYS.items()} for _ in range(args.repeats)]
    print("| method | seconds | x faster | peak MiB | x less |\n| --- | ---: | ---: | ---: | ---: |")
    for name in WAYS:
        faster = statistics.median(row["full"] / row[name] for row in times)
        median, less = statistics.median(row[name] for row in times), memory["full"] / max(memory[name], 1)
        print(f"| {name} | {median:.3f} | {faster:.2f} | {memory[name]:.0f} | {less:.2f} |")
    print(f"\nlargest difference of log-probabilities: {gap:.2g}")


if __name__ == "__main__":
    main()

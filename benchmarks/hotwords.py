"""Measure what hotwords cost: the time to build their tables, and the time of decoding, by number of hotwords.

    python benchmarks/hotwords.py --size mini --hotwords 10 1000 10000     # on a CPU, in float32
    python benchmarks/hotwords.py --size paper --tokenizer DIR             # the published sizes, on one GPU

Hotwords are random names of two to four syllables. Weights are random, and transcripts run to their cap. The ratio is
the decoding time with hotwords over that without, measured in the same run. Encoded audio is made before.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence

import fresh
import torch
from measured import peak_bytes, seconds
from transformers import PreTrainedTokenizerBase

from arkasr import SpeechLM
from arkasr.config.schema import DecodeConfig
from arkasr.evaluation.transcribers import dtype_of
from arkasr.model.generation import generate
from arkasr.model.hotwords import HotwordTables, hotword_tables
from arkasr.model.reading import load_tokenizer
from arkasr.model.tokenization import ARK_TOKENS

SYLLABLES = [first + vowel + last for first in "bdfgklmnprstvz" for vowel in "aeiou" for last in ("", "n", "r", "s")]


def names(count: int) -> list[str]:
    """Make different names.

    Args:
        count: Their number.

    Returns:
        Words with a capital letter.
    """
    draw, found = random.Random(0), dict[str, None]()
    while len(found) < count:
        found["".join(draw.choices(SYLLABLES, k=draw.randint(2, 4))).capitalize()] = None
    return list(found)


def read_tokenizer(path: str, vocab_size: int) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder with the special tokens of the student, or an artificial one.

    Args:
        path: The folder, or "".
        vocab_size: Size of the artificial one.

    Returns:
        The tokenizer.
    """
    if not path:
        return fresh.tokenizer(vocab_size)
    tokenizer = load_tokenizer(path)
    tokenizer.add_special_tokens({"additional_special_tokens": ARK_TOKENS, "eos_token": "<|im_end|>"})
    return tokenizer


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all numbers of hotwords and print the table.

    Args:
        argv: Command-line options. Default: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(fresh.STUDENTS), default="mini", help="model sizes")
    parser.add_argument("--tokenizer", default="", help="folder of a tokenizer; default: an artificial one")
    parser.add_argument("--vocab", type=int, default=151936, help="size of the artificial one (default: %(default)s)")
    parser.add_argument("--hotwords", type=int, nargs="+", default=[10, 1000, 10000], help="numbers of hotwords")
    parser.add_argument("--clips", type=int, default=16, help="clips per batch (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=40, help="tokens per transcript (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = dtype_of(DecodeConfig())
    lm = fresh.student(args.size, read_tokenizer(args.tokenizer, args.vocab), device, dtype).requires_grad_(False)
    lm.blocked[lm.stop_ids] = True  # no transcript ends before its cap
    prompts = lm.embed_prompts(lm.encode_audio(fresh.clips(args.clips, 2.0)), ["English"] * args.clips)
    print(f"{args.size}, {args.clips} clips, {args.tokens} tokens each, V = {len(lm.blocked)}, {dtype}, {device}\n")
    print(
        "| hotwords | build s | states | ms per step | ratio | peak MiB |\n| ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    rows = {count: _tables(lm, names(count)) for count in args.hotwords}
    times: dict[int, list[float]] = {count: [] for count in (0, *rows)}
    for turn in range(args.repeats + 1):  # in turn, so that all see the same machine. The first turn loads and captures
        for count in times:
            spent = _decoding(lm, prompts, args.tokens, rows[count][1] if count else None, device)
            times[count] += [spent] if turn else []
    base = statistics.median(times[0])
    for count, spent in times.items():
        build, tables = rows[count] if count else (0.0, None)
        memory = peak_bytes(lambda t=tables: _decoding(lm, prompts, args.tokens, t, device), device) / 2**20
        step, states = 1000 * statistics.median(spent) / args.tokens, len(tables.root) if tables else 0
        ratio = statistics.median(spent) / base
        print(f"| {count} | {build:.3f} | {states} | {step:.3f} | {ratio:.3f} | {memory:.1f} |", flush=True)


def _tables(lm: SpeechLM, hotwords: list[str]) -> tuple[float, HotwordTables]:
    """Return the seconds of building, and the tables."""
    build = seconds(lambda: hotword_tables(hotwords, lm.tokenizer, len(lm.blocked), 2.0, lm.device), lm.device.type)
    return build, hotword_tables(hotwords, lm.tokenizer, len(lm.blocked), 2.0, lm.device)


def _decoding(
    lm: SpeechLM, prompts: Sequence[torch.Tensor], cap: int, tables: HotwordTables | None, device: str
) -> float:
    return seconds(lambda: generate(lm, prompts, [cap] * len(prompts), hotwords=tables), device)


if __name__ == "__main__":
    main()

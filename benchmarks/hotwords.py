"""Measure what hotwords cost: the time to build their tables, and the time of decoding, by number of hotwords.

    python benchmarks/hotwords.py --size mini --hotwords 10 1000 10000     # on a CPU, in float32
    python benchmarks/hotwords.py --size paper --tokenizer DIR             # the published sizes, on one GPU

Hotwords are random names of two to four syllables. Weights are random, and transcripts run to their cap. The ratio is
the decoding time with hotwords over that without, measured in the same run. Encoded audio is made before.

"changed" counts the transcripts that hotwords change. On a GPU, "eager" is the time without CUDA graphs, and "equal"
counts the transcripts that are the same with and without them.
The second table is about `generate_preferring`, which `arkasr transcribe` uses. It takes back hotwords that it does not
finish. Random weights begin one at almost every token, so its times are far above those of speech.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import fresh
import torch
from measured import peak_bytes, seconds
from transformers import PreTrainedTokenizerBase

from arkasr import SpeechLM
from arkasr.config.schema import DecodeConfig
from arkasr.evaluation.transcribers import dtype_of
from arkasr.model.generation import Generation, generate, generate_preferring
from arkasr.model.generation.step_runner import CAPTURED, StepMode, StepRunner
from arkasr.model.hotwords import HotwordTables, hotword_tables
from arkasr.model.reading import load_tokenizer
from arkasr.model.tokenization import ARK_TOKENS

EAGER, USUAL = StepMode(graphs=False), StepMode()  # the usual mode captures steps on a GPU
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
    parser.add_argument("--weight", type=float, default=2.0, help="bonus per token of a hotword (default: %(default)s)")
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
    case = Case(lm, prompts, args.tokens, device)
    rows = {count: case.tables(names(count), args.weight) for count in args.hotwords}
    _print_steps(case, rows, args.repeats)
    _print_preferring(case, rows, args.repeats)
    if device == "cuda":
        print(f"\ncaptured: {'no, see the warning' if CAPTURED in StepRunner.failed else 'yes'}")


@dataclass
class Case:
    """What is decoded: model, prompts, tokens of each transcript, and device type."""

    lm: SpeechLM
    prompts: Sequence[torch.Tensor]
    tokens: int
    device: str

    @property
    def caps(self) -> list[int]:
        """The token caps."""
        return [self.tokens] * len(self.prompts)

    def tables(self, hotwords: list[str], weight: float) -> tuple[float, HotwordTables]:
        """Return the seconds of building, and the tables."""

        def build() -> HotwordTables:
            return hotword_tables(hotwords, self.lm.tokenizer, len(self.lm.blocked), weight, self.lm.device)

        return seconds(build, self.device), build()

    def plain(self, tables: HotwordTables | None, mode: StepMode) -> Generation:
        """Decode with the bonus of hotwords, whether they are finished or not."""
        return generate(self.lm, self.prompts, self.caps, hotwords=tables, mode=mode)

    def preferring(self, tables: HotwordTables | None, mode: StepMode) -> Generation:
        """Decode as `arkasr transcribe` does."""
        if tables is None:
            return self.plain(None, mode)
        return generate_preferring(self.lm, self.prompts, self.caps, tables, mode)


@dataclass
class Compared:
    """Decoding with one number of hotwords: seconds, seconds without graphs, and numbers of transcripts, as words."""

    spent: float
    eager: float
    equal: str
    changed: str

    def cells(self, base: float, per: float) -> str:
        """Return cells of a row: ms per token or transcript, ratio to `base`, the same without graphs, and counts."""
        eager = "-" if math.isnan(self.eager) else f"{1000 * self.eager / per:.3f}"
        return f"{1000 * self.spent / per:.3f} | {self.spent / base:.3f} | {eager} | {self.equal} | {self.changed}"


Rows = Mapping[int, tuple[float, HotwordTables]]
Decode = Callable[[HotwordTables | None, StepMode], Generation]


def _print_steps(case: Case, rows: Rows, repeats: int) -> None:
    compared = _compare(case, case.plain, rows, repeats)
    print(
        "| hotwords | build s | states | ms per step | ratio | eager | equal | changed | peak MiB |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for count, each in compared.items():
        build, tables = rows[count] if count else (0.0, None)
        memory = peak_bytes(lambda t=tables: case.plain(t, USUAL), case.device) / 2**20
        states, cells = len(tables.root) if tables else 0, each.cells(compared[0].spent, case.tokens)
        print(f"| {count} | {build:.3f} | {states} | {cells} | {memory:.1f} |", flush=True)


def _print_preferring(case: Case, rows: Rows, repeats: int) -> None:
    compared = _compare(case, case.preferring, rows, repeats)
    print("\n| hotwords | ms per clip | ratio | eager | equal | changed |\n| ---: | ---: | ---: | ---: | ---: | ---: |")
    for count, each in compared.items():
        print(f"| {count} | {each.cells(compared[0].spent, len(case.prompts))} |", flush=True)


def _compare(case: Case, decode: Decode, rows: Rows, repeats: int) -> dict[int, Compared]:
    """Decode without hotwords and with each number of them, and on a GPU also without graphs."""
    choices = {0: None, **{count: tables for count, (_, tables) in rows.items()}}
    modes = (USUAL, EAGER) if case.device == "cuda" else (USUAL,)
    times = {(count, mode): list[float]() for count in choices for mode in modes}
    found: dict[tuple[int, StepMode], list[list[int]]] = {}
    for turn in range(repeats + 1):  # in turn, so that all see the same machine. The first turn loads and captures
        for key, spent in times.items():

            def work(key: tuple[int, StepMode] = key) -> None:
                found[key] = decode(choices[key[0]], key[1]).ids

            taken = seconds(work, case.device)
            spent += [taken] if turn else []

    def same(one: tuple[int, StepMode], other: tuple[int, StepMode]) -> int:
        return sum(map(list.__eq__, found[one], found[other]))

    clips = len(case.prompts)
    return {
        count: Compared(
            statistics.median(times[count, USUAL]),
            statistics.median(times[count, EAGER]) if len(modes) > 1 else math.nan,
            f"{same((count, USUAL), (count, EAGER))} of {clips}" if len(modes) > 1 else "-",
            f"{clips - same((count, USUAL), (0, USUAL))} of {clips}",
        )
        for count in choices
    }


if __name__ == "__main__":
    main()

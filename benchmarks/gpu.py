"""Run all benchmarks of a GPU at the published sizes within 5 minutes, and print one table.

    benchmarks/gpu.sh                                      # on a machine with a GPU
    benchmarks/gpu.sh --sections models rollout profiles   # some sections
    benchmarks/gpu.sh --device cpu --size mini             # the same code on a CPU, to test it

Weights are random and clips are noise, which changes neither times nor memory. Sections:

- models: build student and teacher, and write them for the training loop.
- step: one OPD step against the dense reference of `opd_step.py`, by phase. Ratio: reference / arkasr.
- rollout: decoding by the eager step and by a CUDA graph, for the batch and for one clip. Ratio: eager / this path.
- loop: steps of `arkasr train` with egs/conf/paper.yaml, with and without checkpointed activations.
- encoders: features and encoders of student and teacher.
- inference: seconds of audio transcribed per second (RTFx), by batch size, and the agreement with float32.
- head, scoring: as in `head.py` and `scoring.py`. Ratio: dense or full / this way.
- compile: as rollout, with `rollout.compile: on`. Ratio: CUDA graph / this path.
- profiles: extra runs under torch's profiler, which fill in the columns "busy", "launches" and "syncs".

Columns: "of limit" is the share of the data sheet's memory bandwidth (rollout, compile: all decoder and head weights
per token) or of its bfloat16 arithmetic (encoders, loop). "peak GiB" is above the memory in use before. "busy" is the
share of the time in which the device runs anything. "launches" are kernels and CUDA graphs that the host launches,
"syncs" calls by which it waits. "-": not measured.

Exit code: 0 if all paths agree, 1 if losses or transcripts differ or a section failed, 2 without a GPU, 3 if the time
did not suffice for all sections. Transcripts may differ where two tokens are tied (`gpu_check.py` has the tolerances).
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import torch
from gpu_bench import NUMBERS, Bench, Card, environment
from gpu_encoders import encoders
from gpu_loop import loop
from gpu_rollout import compiled, inference, rollout
from gpu_step import heads, scorings, step
from gpu_table import NOT_RUN, Row, exit_code, table, write_json
from transformers.utils import logging as transformers_logging


def models(bench: Bench) -> Iterator[Row]:
    """Build the models.

    Args:
        bench: Gets the models.

    Yields:
        One row per model.
    """
    bench.build()
    for name, lm in (("student", bench.student), ("teacher", bench.inputs.teacher.lm)):
        yield Row("models", name, sum(p.numel() for p in lm.parameters()) / 1e9, "1e9 weights")


def profiles(bench: Bench) -> Iterator[Row]:
    """Profile what the other sections asked for. Their rows get the results.

    Args:
        bench: The inputs.

    Yields:
        One row with the number of profiles.
    """
    number = len(bench.profiles)
    while bench.profiles:
        bench.profiles.pop(0)()
    yield Row("profiles", "extra runs", number, "runs")


# Each section, and the seconds that it may need at the published sizes. The important ones come first.
SECTIONS: dict[str, tuple[Callable[[Bench], Iterator[Row]], float]] = {
    "models": (models, 30),
    "step": (step, 40),
    "rollout": (rollout, 25),
    "loop": (loop, 70),
    "encoders": (encoders, 8),
    "inference": (inference, 15),
    "head": (heads, 10),
    "scoring": (scorings, 8),
    "compile": (compiled, 40),
    "profiles": (profiles, 30),
}


class OutOfTimeError(BaseException):
    """The time is used up. Not an `Exception`, so that no fallback catches it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt the body when its time is used up.

    Args:
        seconds: The time.

    Yields:
        None.

    Raises:
        OutOfTimeError: The time is used up.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(bench: Bench, names: Sequence[str], budget: float, started: float) -> list[Row]:
    """Run sections until the time is used up. A section that fails does not end the others.

    Args:
        bench: The inputs.
        names: Keys of `SECTIONS`.
        budget: Seconds for everything.
        started: `time.perf_counter()` at the start.

    Returns:
        The rows of the table.
    """
    rows: list[Row] = []
    reserved = SECTIONS["profiles"][1] if "profiles" in names and bench.size == "paper" else 0.0
    for name in names:
        section, needed = SECTIONS[name]
        spent = time.perf_counter() - started
        left = budget - spent - (reserved if name != "profiles" else 0.0)
        print(f"{spent:5.0f} s: {name}", file=sys.stderr, flush=True)
        if left < (needed if bench.size == "paper" else 0.0):
            rows.append(Row(name, "-", result=NOT_RUN))
            continue
        try:
            with limited(left):
                rows.extend(section(bench))
        except OutOfTimeError:
            rows.append(Row(name, "-", result=NOT_RUN))
        except Exception as error:
            traceback.print_exc()
            reason = " ".join(str(error).split())[:200]
            rows.append(Row(name, "-", result=f"FAILED: {type(error).__name__}: {reason}"))
        if bench.device == "cuda":
            torch.cuda.empty_cache()
    return rows


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: Command-line options. None: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only with --size mini")
    parser.add_argument("--size", choices=list(NUMBERS), default="paper", help="model sizes (default: %(default)s)")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), help="default: all, without compile on a CPU")
    parser.add_argument("--budget", type=float, default=290.0, help="seconds for everything (default: %(default)s)")
    parser.add_argument("--clips", type=int, help="clips per batch (default: 40, as in the published launcher)")
    parser.add_argument("--seconds", type=float, help="length of each clip (default: 10)")
    parser.add_argument("--cap", type=int, help="token cap of each rollout (default: 64, as in the published launcher)")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's)")
    parser.add_argument("--json", help="also write the results to this file")
    args = parser.parse_args(argv)
    if args.device == "cpu" and args.size != "mini":
        parser.error("--device cpu needs --size mini: the published sizes take hours on a CPU")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; use --device cpu --size mini to test this script without one")
    args.sections = args.sections or [name for name in SECTIONS if args.device == "cuda" or name != "compile"]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections and print the table.

    Args:
        argv: Command-line options. Default: those of the process.

    Returns:
        The exit code.
    """
    started, args = time.perf_counter(), options(argv)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if args.threads:
        torch.set_num_threads(args.threads)
    changes = {name: value for name in ("clips", "seconds", "cap") if (value := getattr(args, name)) is not None}
    card, numbers = Card.of(args.device), replace(NUMBERS[args.size], **changes)
    facts = environment(card) | {"size": args.size, "repeats": str(args.repeats), "step": str(numbers)}
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # the package logs to standard output
        bench = Bench(args.size, args.device, args.repeats, Path(folder), card, numbers)
        with bench.ending:
            rows = run(bench, args.sections, args.budget, started)
    facts["seconds"] = f"{time.perf_counter() - started:.0f}"
    print("\n".join(f"- {name}: {value}" for name, value in facts.items()) + f"\n\n{table(rows)}", flush=True)
    if args.json:
        write_json(args.json, facts, rows)
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())

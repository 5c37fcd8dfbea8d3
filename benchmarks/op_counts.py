"""Count aten operations and host reads of one OPD step, by phase, on a CPU.

    python benchmarks/op_counts.py                              # the published numbers of layers, 40 clips of 10 s
    python benchmarks/op_counts.py --size mini --clips 4

The models have random weights and small widths: the number of operations depends on layers, clips and tokens, not on
widths. "launches" leaves out views, so it is about the number of kernels that a GPU runs without CUDA graphs. A host
read makes the host wait for the device (`arkasr.testing.host_reads`).

The decoding loop is measured by two runs. "prefill" is a run with a token cap of 1: prompt, first token and collection
of the transcripts. "per token" is the difference to the whole run, per further token. The row "rollout" is the whole
phase of the step: encoder, prompt, decoding and policies.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import fresh
import torch
from opd_case import Case, finish, fresh_case

from arkasr import generate
from arkasr.config.schema import DistillConfig, OptimConfig, RolloutConfig, TrainConfig
from arkasr.distill.step import Opd
from arkasr.testing.host_reads import count_host_reads
from arkasr.training.length import RunLength
from arkasr.training.optimizer import make_optimizer
from arkasr.utils.timing import Phases

STEP = ("rollout", "teacher", "student", "backward", "optimizer")


@dataclass(frozen=True)
class Count:
    """Counts of one phase. Those per token may be fractions.

    Attributes:
        ops: aten operations.
        launches: aten operations that are not views.
        reads: Host reads.
    """

    ops: float = 0.0
    launches: float = 0.0
    reads: float = 0.0

    def plus(self, other: Count, weight: float = 1.0) -> Count:
        """Return this count plus `weight` times another one."""
        sums = (a + weight * b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True))
        return Count(*sums)

    def over(self, number: float) -> Count:
        """Return this count divided by a number."""
        return Count(self.ops / number, self.launches / number, self.reads / number)


def count(work: Callable[[], object]) -> Count:
    """Count the operations and host reads of a function.

    Args:
        work: The function.
    """
    with count_host_reads() as reads:
        work()
    return Count(reads.ops, reads.launches, reads.total)


class CountedPhases(Phases):
    """Phases that count instead of measuring time.

    Attributes:
        counts: Count of each phase.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, Count] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the body of one phase. See `Phases.__call__`."""
        with super().__call__(name), count_host_reads() as reads:
            yield
        more = Count(reads.ops, reads.launches, reads.total)
        self.counts[name] = self.counts.get(name, Count()).plus(more)


def decoding(case: Case) -> dict[str, Count]:
    """Count the parts of a rollout.

    Args:
        case: The inputs.

    Returns:
        Counts of the encoder, of a rollout of one token, and of each further token.
    """
    lm, clips = case.student, len(case.batch.ids)
    with torch.no_grad():
        encoder = count(lambda: lm.encode_audio(case.batch.waveforms))
        prompts = lm.embed_prompts(lm.encode_audio(case.batch.waveforms), case.batch.languages)
    first, whole = (count(lambda n=n: generate(lm, prompts, [n] * clips, case.top_k)) for n in (1, case.cap))
    return {"encoder": encoder, "prefill": first, "per token": whole.plus(first, -1).over(case.cap - 1)}


def whole_step(case: Case) -> dict[str, Count]:
    """Count one OPD step.

    Args:
        case: The inputs. The student's weights change.

    Returns:
        Counts of the phases and of the step.
    """
    rollout = RolloutConfig(max_new_tokens=case.cap, tokens_per_second=1e6)
    opd = Opd(case.teacher, case.mapper, case.loss, rollout, DistillConfig(top_k=case.top_k))
    length = RunLength(TrainConfig(steps=1), OptimConfig().warmup_steps)
    optimizer, phases = make_optimizer(OptimConfig(), length, case.student)[0], CountedPhases()
    scored = opd.collect(case.student, case.batch, phases)
    with phases("student"):
        total, number = opd.rescore(case.student, scored)
    finish(total / number, optimizer, phases)
    every = Count()
    for phase in STEP:
        every = every.plus(phases.counts[phase])
    return {phase: phases.counts[phase] for phase in STEP} | {"step": every}


def main(argv: Sequence[str] | None = None) -> None:
    """Count and print the table.

    Args:
        argv: Command-line options. Default: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(fresh.STUDENTS), default="thin", help="layers and widths")
    parser.add_argument("--vocab", type=int, default=2000, help="vocabulary size (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=40, help="clips per batch (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each clip (default: %(default)s)")
    parser.add_argument("--cap", type=int, default=64, help="tokens of each transcript (default: %(default)s)")
    parser.add_argument("--top_k", type=int, default=32, help="tokens of each top-k set (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--json", help="also write the counts to this file")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    with TemporaryDirectory() as folder:
        case = fresh_case(args.size, Path(folder), args, "cpu")
    case.student.blocked[case.student.stop_ids] = True  # no transcript ends before its cap
    counts = decoding(case) | whole_step(case)
    print(f"{args.clips} clips of {args.seconds:g} s, {args.cap} tokens each, k = {args.top_k}, sizes {args.size}\n")
    print("| phase | aten operations | launches | host reads |\n| --- | ---: | ---: | ---: |")
    for phase, found in counts.items():
        print(f"| {phase} | {found.ops:,.0f} | {found.launches:,.0f} | {found.reads:,.2f} |")
    if args.json:
        Path(args.json).write_text(json.dumps({phase: asdict(found) for phase, found in counts.items()}), "utf-8")


if __name__ == "__main__":
    main()

"""Compare one whole OPD step of arkasr against a dense reference implementation of Algorithm 1.

    python benchmarks/opd_step.py --fresh paper --dtype bfloat16                  # the published sizes, on one GPU
    python benchmarks/opd_step.py --fresh mini --clips 8 --cap 32                 # small bodies, the true vocabulary
    python benchmarks/opd_step.py --expdir egs/librispeech/exp/mini --datadir egs/librispeech/data/mini  # after a demo

--fresh gives both models random weights and one vocabulary of --vocab tokens, and uses clips of noise. Every rollout
then ends at its token cap. --expdir uses the models, the clips and the top_k of a demo run.

The reference does what the published trainer does:

- It forms logits of all V tokens at every position of prompt and transcript.
- It pads transcripts to the token cap for scoring.
- It builds supports in Python, position by position.
- It synchronises with the GPU once per token and clip.
- It continues to compute rows that have already ended.

Both implementations use the same models, clips and supports, and start from the same weights at every repeat. Their
losses must agree. Each row of the table is one phase: the median over paired repeats in seconds, and the ratio
reference / arkasr. Peak memory is that above the memory in use before: of torch's allocator on GPUs, of the process's
resident set on CPUs (Linux).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import fresh
import torch
from measured import peak_bytes, wait
from opd_case import Case, finish, fresh_case, trained_case
from opd_reference import reference_step

from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.distill.step import Opd
from arkasr.utils.timing import Phases

Step = Callable[..., float]
PHASES = ("rollout", "teacher", "student", "backward", "optimizer")


def arkasr_step(case: Case, optimizer: torch.optim.Optimizer, phases: Phases) -> float:
    """Run one step of arkasr.

    Args:
        case: The inputs.
        optimizer: Updates the student.
        phases: Collects the times.

    Returns:
        The loss.
    """
    rollout = RolloutConfig(max_new_tokens=case.cap, tokens_per_second=1e6)
    opd = Opd(case.teacher, case.mapper, case.loss, rollout, DistillConfig(top_k=case.top_k))
    scored = opd.collect(case.student, case.batch, phases)
    with phases("student"):
        total, count = opd.rescore(case.student, scored)
    return finish(total / count, optimizer, phases)


WAYS: dict[str, Step] = {"reference": reference_step, "arkasr": arkasr_step}


@dataclass
class Measured:
    """Results of both implementations, by their name.

    Attributes:
        seconds: Times of the phases and of the step, one dictionary per repeat.
        losses: The loss of the first step.
        memory: Peak memory of the first step in bytes.
    """

    seconds: dict[str, list[dict[str, float]]] = field(default_factory=lambda: {name: [] for name in WAYS})
    losses: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)

    def median(self, name: str, phase: str) -> float:
        """Return the median time of a phase in seconds.

        Args:
            name: The implementation.
            phase: One of `PHASES`, or "step".
        """
        return statistics.median(row.get(phase, 0.0) for row in self.seconds[name])

    def ratio(self) -> float:
        """Return the median ratio of paired steps, reference / arkasr."""
        pairs = zip(self.seconds["reference"], self.seconds["arkasr"], strict=True)
        return statistics.median(a["step"] / b["step"] for a, b in pairs)


def measure(case: Case, repeats: int) -> Measured:
    """Run both implementations in turn, each time from the same weights.

    Args:
        case: The inputs.
        repeats: Number of timed repeats after the warm-up.

    Returns:
        Times, losses and memory.
    """
    weights, device = {k: v.clone() for k, v in case.student.state_dict().items()}, case.student.device.type
    found = Measured()
    for repeat in range(repeats + 1):
        for name, step in WAYS.items():
            case.student.load_state_dict(weights)
            optimizer, phases = torch.optim.AdamW(case.student.parameters(), lr=1e-4), Phases(device)

            def work(name: str = name, step: Step = step, optimizer=optimizer, phases=phases) -> None:
                found.losses.setdefault(name, step(case, optimizer, phases))

            if repeat == 0:  # warm-up, which also gives loss and memory
                found.memory[name] = peak_bytes(work, device)
                continue
            wait(device)
            started = time.perf_counter()
            work()
            wait(device)
            spent = time.perf_counter() - started
            found.seconds[name].append({k.removeprefix("time/"): v for k, v in phases.take().items()} | {"step": spent})
    case.student.load_state_dict(weights)
    return found


def report(case: Case, found: Measured) -> None:
    """Print phases, utterances per second, memory and both losses as a Markdown table.

    Args:
        case: The inputs.
        found: The results.
    """
    clips, audio = len(case.batch.ids), case.batch.seconds
    print(f"{clips} clips, {audio:.0f} s of audio, k = {case.top_k}, token cap {case.cap}, {case.student.device}\n")
    print("| phase | reference | arkasr | reference / arkasr |\n| --- | ---: | ---: | ---: |")
    for phase in (*PHASES, "step"):
        dense, sparse = (found.median(name, phase) for name in WAYS)
        print(f"| {phase} (s) | {dense:.3f} | {sparse:.3f} | {dense / max(sparse, 1e-9):.1f} |")
    ratio, rates = found.ratio(), " | ".join(f"{clips / found.median(name, 'step'):.1f}" for name in WAYS)
    print(f"| utterances/s | {rates} | {1 / ratio:.3f} ({ratio:.1f} times as many) |")
    dense, sparse = (found.memory[name] / 2**20 for name in WAYS)
    print(f"| peak memory (MiB) | {dense:.0f} | {sparse:.0f} | {dense / max(sparse, 1):.1f} |")
    print(f"| loss | {found.losses['reference']:.6f} | {found.losses['arkasr']:.6f} | |")


def main(argv: Sequence[str] | None = None) -> None:
    """Make or load the models and measure.

    Args:
        argv: Command-line options. Default: those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--fresh", choices=list(fresh.STUDENTS), help="use random weights of these sizes")
    models.add_argument("--expdir", help="use a demo run: folder with base/final and base_opd/config.yaml")
    parser.add_argument("--datadir", help="data directory of the demo run, required with --expdir")
    sizes = parser.add_argument_group("with --fresh")
    sizes.add_argument("--vocab", type=int, default=151936, help="vocabulary size (default: %(default)s, as Qwen2.5)")
    sizes.add_argument("--seconds", type=float, default=10.0, help="length of each clip (default: %(default)s)")
    sizes.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the weights")
    sizes.add_argument("--top_k", type=int, default=32, help="tokens of each top-k set (default: %(default)s)")
    published = "(default: %(default)s, as in the published launcher)"
    parser.add_argument("--clips", type=int, default=40, help=f"clips per batch {published}")
    parser.add_argument("--cap", type=int, default=64, help=f"token cap of each rollout {published}")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.expdir and not args.datadir:
        parser.error("--expdir requires --datadir, the data directory of the demo run")
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with TemporaryDirectory() as folder:
        case = fresh_case(args.fresh, Path(folder), args, device) if args.fresh else trained_case(args, device)
    report(case, measure(case, args.repeats))


if __name__ == "__main__":
    main()

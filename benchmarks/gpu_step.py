"""Sections `step`, `head` and `scoring` of `gpu.py`: one OPD step, and two of its parts, against dense ways."""

from __future__ import annotations

from collections.abc import Iterator

import head
import opd_step
import scoring
import torch
from gpu_bench import Bench
from gpu_check import same_losses
from gpu_table import Row
from measured import peak_bytes
from opd_case import Case
from opd_reference import reference_loss

from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.distill.step import Opd
from arkasr.utils.timing import Phases

GRADIENTS = 0.01  # largest relative difference of two gradients in bfloat16, as norms
LOGPROBS = {"float32": 1e-4, "bfloat16": 0.1}  # largest difference of two log-probabilities: logits near 8 in 8 bits


def step(bench: Bench) -> Iterator[Row]:
    """Compare one step with the dense reference, phase by phase. The ratio is reference / arkasr.

    Args:
        bench: The inputs.

    Yields:
        The rows.
    """
    case = bench.inputs
    found = opd_step.measure(case, bench.repeats)
    reference = found.median("reference", "step")
    yield Row("step", "dense reference", reference, "s", 1.0, memory=found.memory["reference"])
    for phase in opd_step.PHASES:
        spent = found.median("arkasr", phase)
        yield Row("step", f"arkasr: {phase}", spent, "s", found.median("reference", phase) / max(spent, 1e-9))
    row = Row("step", "arkasr", found.median("arkasr", "step"), "s", found.ratio(), memory=found.memory["arkasr"])
    row.result = "losses of the first steps: reference {reference:.5f}, arkasr {arkasr:.5f}".format(**found.losses)
    optimizer = torch.optim.AdamW(case.student.parameters(), lr=0.0)  # keeps the weights
    work = lambda: opd_step.arkasr_step(case, optimizer, Phases(bench.device))  # noqa: E731
    bench.profile_later(work, row, found.median("arkasr", "step"), graphs=True)
    yield row
    yield Row("step", "loss of the same transcripts", result=same_losses(*both_losses(case), bench.numbers.dtype))


@torch.no_grad()
def both_losses(case: Case) -> tuple[float, float]:
    """Compute the loss of the same rollouts in both ways.

    Args:
        case: The inputs.

    Returns:
        The loss of the dense reference, and that of arkasr.
    """
    rollout = RolloutConfig(max_new_tokens=case.cap, tokens_per_second=1e6)
    opd = Opd(case.teacher, case.mapper, case.loss, rollout, DistillConfig(top_k=case.top_k))
    phases = Phases(case.student.device.type)
    scored = opd.collect(case.student, case.batch, phases)
    total, count = opd.rescore(case.student, scored)
    generation = scored.rollout.generation
    candidates = [part.tolist() for part in generation.topk.split([len(ids) for ids in generation.ids])]
    return float(reference_loss(case, generation.ids, candidates, phases)), mean_loss(total, count)


def mean_loss(total: torch.Tensor, count: torch.Tensor) -> float:
    """Return the mean of a loss over positions.

    Args:
        total: Its sum, a scalar.
        count: Number of positions.
    """
    return float(total.detach() / count)


def heads(bench: Bench) -> Iterator[Row]:
    """Compare losses from rows of the head, or in parts, with dense logits. The ratio is dense / this way.

    A GPU multiplies a bfloat16 head by other kernels, so its losses and gradients are compared too.

    Args:
        bench: The inputs.

    Yields:
        The rows.
    """
    numbers, width = bench.numbers, bench.student.head.shape[1]
    case = head.make_case(numbers.vocab, width, numbers.top_k, numbers.positions, bench.device)
    for names in head.PARTS.values():
        found = head.measure(case, list(names), bench.repeats)
        losses = {name: mean_loss(*head.ways(case)[name]()) for name in names}
        for name in names:
            base, (spent, peak) = names[0], found[name]
            result = "" if name == base else same_losses(losses[base], losses[name], "float32")
            yield Row("head", name, spent, "s", found[base][0] / spent, memory=peak, result=result)
    for weight in ("states", "weight"):
        setattr(case, weight, getattr(case, weight).detach().bfloat16().requires_grad_())
    for base, name in head.PARTS.values():
        yield Row("head", f"{name} with a bfloat16 head", result=same_gradients(case, base, name))


def same_gradients(case: head.Case, base: str, name: str) -> str:
    """Compare loss and gradients of two methods.

    Args:
        case: The inputs.
        base: Name of the reference.
        name: Name of the other method.

    Returns:
        A result for the table.
    """
    losses, gradients = [], []
    for way in (base, name):
        head.step(case, way)
        losses.append(mean_loss(*head.ways(case)[way]()))
        gradients.append((case.states.grad, case.weight.grad))
    case.clear()
    apart = max(float((a - b).float().norm() / a.float().norm()) for a, b in zip(*gradients, strict=True))
    result = same_losses(*losses, "bfloat16")
    verdict = "" if apart <= GRADIENTS or result.startswith("DIFFERS") else "DIFFERS: "
    return f"{verdict}{result}; gradients {apart:.1e} apart, allowed {GRADIENTS:.0e}"


@torch.no_grad()
def scorings(bench: Bench) -> Iterator[Row]:
    """Compare a teacher's logits at transcript positions with those at all positions. The ratio is full / this way.

    Args:
        bench: The inputs.

    Yields:
        The rows.
    """
    case, numbers, scores, times = bench.inputs, bench.numbers, {}, {}
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(numbers.vocab // 2, (numbers.clips, numbers.cap), generator=generator).tolist()
    for name, way in scoring.WAYS.items():
        work = lambda way=way: way(case.teacher.lm, case.batch.waveforms, ids)  # noqa: E731
        scores[name], memory = work(), peak_bytes(work, bench.device)
        times[name] = bench.median(work)
        gap = float((scores["full"] - scores[name]).abs().max())
        verdict = "equal" if gap <= LOGPROBS[numbers.dtype] else "DIFFERS"
        result = "" if name == "full" else f"{verdict}: log-probabilities at most {gap:.1e} apart"
        yield Row("scoring", name, times[name], "s", times["full"] / times[name], memory=memory, result=result)

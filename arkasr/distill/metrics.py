"""The metrics of one OPD step. docs/metrics.md defines every key.

Each micro-batch yields sums and counts, which the trainer adds over micro-batches and ranks (for `MAXIMA` it takes
the maximum). `rates` turns the global sums into the numbers that are logged. The sums come from two passes:

- Every step: `support_sums`, `rollout_sums` and `teacher_sums`.
- Every `distill.diagnose_every` steps: `diagnostic_sums`, which needs the student's full distributions, and
  `arkasr.distill.vuss`.

Notation: p_S and p_T are the next-token distributions of student and teacher at position t, U_t is the union support
and I_t the overlap, the tokens in both top-k sets. Arguments `log_p_s` and `log_p_t` hold log p_S and log p_T at the U
columns of a support, float32 [P, U], in nats. Positions are counted if U_t has at least two valid tokens, as in
equation (1) of the paper (arXiv 2605.28139). "Rethinking OPD" is arXiv 2604.13016.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from arkasr.config.schema import SOURCES
from arkasr.distill.vuss import COUNT, token_deciles
from arkasr.distributions.views import HeadView
from arkasr.interfaces import Alignment, DistributionView, Support
from arkasr.utils.devices import to_device

if TYPE_CHECKING:
    from arkasr.distill.rollout import Rollout  # not imported at run time: it imports the model code

MAXIMA = ("vuss_max", "neg_vuss_min")  # reduced by the maximum, all other sums by addition
Name = TypeVar("Name", bound=Hashable)
CHUNK = 256  # positions whose full student logits are in memory at the same time


# Sums of every step


def support_sums(support: Support, top_k: int) -> dict[str, Tensor]:
    """Sum valid union support sizes and overlap ratios over counted positions.

    The size |U_t| is the VUSS of the paper (section 4.3). The overlap ratio is |I_t| / k (Rethinking OPD, equation 6).

    Args:
        support: The union support of P positions.
        top_k: k, or the smaller vocabulary's size if that is less.

    Returns:
        `positions`, `vuss` and `overlap` (sums), `vuss_max` and `neg_vuss_min` (maxima, -inf without a counted
        position), as float64 scalars on the device of the support.
    """
    sizes, overlap = support.valid.sum(-1).double(), support.num_overlap.double() / top_k
    counted = sizes >= 2
    nothing = sizes.new_full((1,), -torch.inf)  # so that the maximum over no position exists
    return {
        "positions": counted.sum(dtype=torch.double),
        "vuss": sizes.where(counted, 0.0).sum(),
        "overlap": overlap.where(counted, 0.0).sum(),
        "vuss_max": torch.cat([sizes.where(counted, -torch.inf), nothing]).max(),
        "neg_vuss_min": torch.cat([(-sizes).where(counted, -torch.inf), nothing]).max(),
    }


def rollout_sums(rollout: Rollout, alignment: Alignment, num_clips: int) -> dict[str, float]:
    """Count clips, generated transcripts, scored transcripts by source, tokens and aligned positions.

    Args:
        rollout: The transcripts of one micro-batch.
        alignment: Their alignment with the teacher's tokens.
        num_clips: Clips of the micro-batch.

    Returns:
        Numbers. The counts of scored transcripts are 0 if `rollout.scored` is False.
    """
    sources = rollout.sources if rollout.scored else []
    counts = {
        "clips": num_clips,
        "rolled": rollout.num_rolled,
        "stopped": rollout.num_stopped,
        "empty": rollout.num_empty,
        "looping": rollout.num_looping,
        "transcripts": len(sources),
        **{f"from_{source}": sources.count(source) for source in SOURCES},
        "mismatched": alignment.num_mismatched if sources else 0,
        "rollout_tokens": alignment.num_student if sources else 0,
        "teacher_tokens": sum(map(len, alignment.teacher_ids)) if sources else 0,
        "paired": len(alignment.student_rows),
    }
    return {name: float(n) for name, n in counts.items()}


def teacher_sums(view: DistributionView, logprobs: Tensor, support: Support) -> dict[str, Tensor]:
    """Sum the teacher probability that the student cannot receive, and count positions without a distribution.

    Lost is the probability of top-k tokens that have no student token, and what the mapper dropped: the attribute
    `dropped` of the view, float32 [P], if it has one.

    Args:
        view: The teacher's distributions at P positions.
        logprobs: Its top-k log-probabilities, float32 [P, k], in nats. NaN marks a missing distribution.
        support: The union support, whose first k columns are the teacher's top-k tokens.

    Returns:
        `dropped_mass` and its count `dropped_mass#` over positions with a distribution, and `teacher_missing`, the
        number of positions without one, as float64 scalars on the device of `logprobs`.
    """
    missing = logprobs.isnan().any(-1)
    lost = logprobs.exp().masked_fill(support.from_teacher[:, : logprobs.shape[1]], 0.0).sum(-1)
    lost = (lost + getattr(view, "dropped", torch.zeros_like(lost))).where(~missing, 0.0)
    return {
        "dropped_mass": lost.double().sum(),
        "dropped_mass#": (~missing).sum(dtype=torch.double),
        "teacher_missing": missing.sum(dtype=torch.double),
    }


def read_sums(sums: Mapping[Name, Tensor | float]) -> dict[Name, float]:
    """Copy all sums to the host. The host waits for each device once.

    Args:
        sums: Scalars, usually on one device, and numbers, by name.

    Returns:
        The same names with numbers.
    """
    numbers = {name: float(value) for name, value in sums.items() if not isinstance(value, Tensor)}
    tensors = {name: value for name, value in sums.items() if isinstance(value, Tensor)}
    for device in {value.device for value in tensors.values()}:
        scalars = {name: value.detach().double() for name, value in tensors.items() if value.device == device}
        numbers |= zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True)
    return {name: numbers[name] for name in sums}


# Formulas at P positions


def probability_mass(logprobs: Tensor, where: Tensor) -> Tensor:
    """Return the sum of p(v) over the tokens v of a set.

    For I_t these are equations 9 (p_S) and 10 (p_T) of Rethinking OPD.

    Args:
        logprobs: Log-probabilities, float32 [P, U], in nats.
        where: Which columns belong to the set, bool [P, U].

    Returns:
        float32 [P].
    """
    return logprobs.exp().masked_fill(~where, 0.0).sum(-1)


def _renormalise(logprobs: Tensor, where: Tensor) -> Tensor:
    return logprobs.masked_fill(~where, -torch.inf).log_softmax(-1)


def support_kl(log_p_s: Tensor, log_p_t: Tensor, valid: Tensor) -> Tensor:
    """Return KL(p_T || p_S), both renormalised on U_t: equation (1) of the paper at tau = 1.

    Args:
        log_p_s: Student log-probabilities, float32 [P, U], in nats.
        log_p_t: Teacher log-probabilities, float32 [P, U], in nats.
        valid: Which columns belong to U_t, bool [P, U].

    Returns:
        float32 [P], in nats.
    """
    log_p_s, log_p_t = _renormalise(log_p_s, valid), _renormalise(log_p_t, valid)
    return (log_p_t.exp() * (log_p_t - log_p_s)).masked_fill(~valid, 0.0).sum(-1)


def overlap_advantage(log_p_s: Tensor, log_p_t: Tensor, overlap: Tensor) -> Tensor:
    """Return 1 / |I_t| * sum over v in I_t of p_S(v) (log p_T(v) - log p_S(v)), both renormalised on I_t.

    Equation 7 of Rethinking OPD, which equals -KL(p_S || p_T) / |I_t|. It is 0 where both agree, and strongly negative
    where the student is overconfident.

    Args:
        log_p_s: Student log-probabilities, float32 [P, U], in nats.
        log_p_t: Teacher log-probabilities, float32 [P, U], in nats.
        overlap: Which columns belong to I_t, bool [P, U].

    Returns:
        float32 [P], 0 where I_t is empty.
    """
    log_p_s, log_p_t = _renormalise(log_p_s, overlap), _renormalise(log_p_t, overlap)
    terms = (log_p_s.exp() * (log_p_t - log_p_s)).masked_fill(~overlap, 0.0)
    return terms.sum(-1) / overlap.sum(-1).clamp(min=1)


def stop_probability(teacher: DistributionView, stop_ids: Tensor, num_positions: int) -> Tensor:
    """Return the probability that the transcript ends at each position.

    Args:
        teacher: Distributions at P positions.
        stop_ids: Stop tokens in the vocabulary of this view, int64 [S].
        num_positions: P.

    Returns:
        Sum of the stop tokens' probabilities, float32 [P].
    """
    return teacher.logprobs_at(stop_ids.expand(num_positions, -1)).exp().sum(-1)


# Sums every `distill.diagnose_every` steps


@dataclass
class PositionGroups:
    """The groups by which metrics at P positions are split.

    Attributes:
        deciles: Tenth of its transcript that each position is in, int64 [P], 0 to 9.
        languages: Language of each position's clip, P names.
        stops: Whether the transcript has a stop token there, bool [P].
    """

    deciles: Tensor
    languages: list[str]
    stops: Tensor


def position_groups(
    ids: Sequence[Sequence[int]], languages: Sequence[str], rows: Tensor, stop_ids: Sequence[int]
) -> PositionGroups:
    """Return the groups of P positions.

    Token j of a transcript of length L is in decile floor(10 j / L).

    Args:
        ids: Student token ids of B transcripts.
        languages: Language of each transcript, B names.
        rows: The positions, int64 [P], as rows into all tokens of the B transcripts.
        stop_ids: The student's stop tokens.

    Returns:
        The groups, with tensors on the device of `rows`.
    """
    deciles = to_device(token_deciles(ids), rows.device, torch.long)
    stops = to_device([i in stop_ids for row in ids for i in row], rows.device, torch.bool)
    language_of = [language for language, row in zip(languages, ids) for _ in row]
    return PositionGroups(deciles[rows], [language_of[i] for i in rows.tolist()], stops[rows])


def _mean_sums(name: str, values: Tensor, where: Tensor | None = None) -> dict[str, Tensor]:
    """Return the sum `name` of the finite values [P], among those at `where`, and their count `name#`."""
    where = values.isfinite() if where is None else where & values.isfinite()
    return {name: values.where(where, 0.0).double().sum(), name + "#": where.double().sum()}


def _kl_sums(kl: Tensor, correct: Tensor, groups: PositionGroups) -> dict[str, Tensor]:
    """Sum the KL by whether the transcript has the teacher's best token, by decile and by language."""
    sums = _mean_sums("kl/all", kl) | _mean_sums("kl/correct", kl, correct) | _mean_sums("kl/wrong", kl, ~correct)
    for decile in range(10):
        sums |= _mean_sums(f"kl/decile_{decile}", kl, groups.deciles == decile)
    for language in sorted(set(groups.languages)):
        inside = to_device([name == language for name in groups.languages], kl.device, torch.bool)
        sums |= _mean_sums(f"kl/language_{language}", kl, inside)
    return sums


def _stop_sums(probability: Tensor, stops: Tensor) -> dict[str, Tensor]:
    """Sum stops that the teacher gives less than 0.5 (early) and other tokens where it gives a stop 0.5 or more (late).

    The counts are all stops and all other tokens. Positions where the teacher's probability is NaN are in neither.
    """
    unlikely = (probability < 0.5).float().masked_fill(probability.isnan(), torch.nan)
    return _mean_sums("stop/early", unlikely, stops) | _mean_sums("stop/late", 1 - unlikely, ~stops)


def _entropy_sums(student: DistributionView, teacher: DistributionView) -> dict[str, Tensor]:
    """Sum H(p_S), H(p_T) and |H(p_T) - H(p_S)| (Rethinking OPD, equation 8), if both views know their entropy."""
    entropy_s, entropy_t = student.entropy(), teacher.entropy()
    if entropy_s is None or entropy_t is None:
        return {}
    gap = _mean_sums("entropy_gap", (entropy_t - entropy_s).abs())
    return _mean_sums("entropy/student", entropy_s) | _mean_sums("entropy/teacher", entropy_t) | gap


def position_sums(
    student: DistributionView, teacher: DistributionView, support: Support, groups: PositionGroups, stop_ids: Tensor
) -> dict[str, Tensor]:
    """Sum all diagnostics over P >= 1 positions.

    Args:
        student: The student's full distributions.
        teacher: The teacher's distributions, with unknown values as -inf or NaN.
        support: The union support.
        groups: The groups of the positions.
        stop_ids: Stop tokens in the vocabulary of the teacher's view, int64 [S].

    Returns:
        For each metric `name` its sum `name` and its count `name#`, as float64 scalars.
    """
    log_p_s, log_p_t = student.logprobs_at(support.student_ids), teacher.logprobs_at(support.teacher_ids)
    valid = support.valid & (log_p_s > -torch.inf) & (log_p_t > -torch.inf)
    overlap = valid & support.from_teacher & support.from_student
    kl = support_kl(log_p_s, log_p_t, valid).where(valid.sum(-1) >= 2, torch.nan)
    correct = teacher.topk(1)[0][:, 0] == support.visited_teacher
    sums = _kl_sums(kl, correct, groups) | _entropy_sums(student, teacher)
    sums |= _mean_sums("teacher_agreement", correct.float())
    sums |= _mean_sums("overlap_advantage", overlap_advantage(log_p_s, log_p_t, overlap), overlap.any(-1))
    for name, where in (("support", valid), ("overlap", overlap)):
        sums |= _mean_sums(f"mass/student_{name}", probability_mass(log_p_s, where))
        sums |= _mean_sums(f"mass/teacher_{name}", probability_mass(log_p_t, where))
    if len(stop_ids):
        sums |= _stop_sums(stop_probability(teacher, stop_ids, len(log_p_s)), groups.stops)
    return sums


@torch.no_grad()
def diagnostic_sums(
    student: HeadView, teacher: DistributionView, support: Support, groups: PositionGroups, stop_ids: Tensor
) -> dict[str, float]:
    """Sum all diagnostics over the counted positions, with full student logits for `CHUNK` positions at a time.

    Args:
        student: The student's distributions at P positions.
        teacher: The teacher's distributions at these positions.
        support: The union support.
        groups: The groups of the positions.
        stop_ids: Stop tokens in the vocabulary of the teacher's view, int64 [S].

    Returns:
        The sums and counts of `position_sums`, or an empty dict if no position is counted.
    """
    rows = (support.valid.sum(-1) >= 2).nonzero()[:, 0]
    counted, sums = rows.tolist(), dict[str, Tensor]()
    for start, part in enumerate(torch.split(rows, CHUNK) if counted else ()):
        languages = [groups.languages[i] for i in counted[start * CHUNK : (start + 1) * CHUNK]]
        part_groups = PositionGroups(groups.deciles[part], languages, groups.stops[part])
        views = student.at(part).dense(), teacher.at(part)
        for name, value in position_sums(*views, _support_at(support, part), part_groups, stop_ids).items():
            sums[name] = sums[name] + value if name in sums else value
    return dict(zip(sums, torch.stack(list(sums.values())).tolist())) if sums else {}


def _support_at(support: Support, rows: Tensor) -> Support:
    return Support(**{item.name: getattr(support, item.name)[rows] for item in fields(Support)})


# Logged numbers


def rates(sums: dict[str, float]) -> dict[str, float]:
    """Turn the global sums of one step into the numbers that are logged.

    Args:
        sums: Sums over all ranks and micro-batches. A pair `name` and `name#` is a mean's sum and count.

    Returns:
        The metrics that docs/metrics.md defines. Rates and means whose count is 0 are absent.
    """
    rolled, transcripts = sums["rolled"], sums["transcripts"]
    ratios = {
        "vuss": (sums["vuss"], sums["positions"]),
        "overlap": (sums["overlap"], sums["positions"]),
        "stop_rate": (sums["stopped"], rolled),
        "cut_rate": (rolled - sums["stopped"], rolled),
        "empty_rate": (sums["empty"], rolled),
        "loop_rate": (sums["looping"], rolled),
        **{f"share/{source}": (sums[f"from_{source}"], transcripts) for source in SOURCES},
        "mismatch_rate": (sums["mismatched"], transcripts),
        "coverage": (sums["paired"], sums["rollout_tokens"]),
        "teacher_missing_rate": (sums["teacher_missing"], sums["paired"]),
        **{name.removesuffix("#"): (sums[name.removesuffix("#")], sums[name]) for name in sums if name.endswith("#")},
    }
    extremes = {"vuss_min": -sums["neg_vuss_min"], "vuss_max": sums["vuss_max"]} if sums["positions"] > 0 else {}
    counts = {name: value for name, value in sums.items() if name.startswith(COUNT)}
    return {name: value / count for name, (value, count) in ratios.items() if count > 0} | extremes | counts

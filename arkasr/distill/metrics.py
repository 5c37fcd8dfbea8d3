"""What is measured at every OPD step, as sums that add over ranks and micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arkasr.config.schema import SOURCES
from arkasr.distributions.views import HeadView
from arkasr.interfaces import Alignment, DistributionView, Support

if TYPE_CHECKING:  # the tables of results read this file, and are to load no model code for it
    from arkasr.distill.rollout import Rollout


MAXIMA = ("vuss_max", "neg_vuss_min")


def support_sums(support: Support, top_k: int) -> dict[str, Tensor]:
    """Sum valid union support sizes (VUSS; paper, 4.3) and overlap ratios |S_p and S_q| / k (arXiv 2604.13016, eq. 6).

    top_k: k, or what the smaller vocabulary leaves of it.

    Counted are positions with at least two valid tokens, as in equation (1). Minimum and maximum are over positions.
    """
    sizes = support.valid.sum(-1)
    counted = sizes >= 2
    sizes, overlap = sizes[counted].double(), support.num_overlap[counted].double() / top_k
    some = sizes.numel() > 0
    return {
        "positions": torch.tensor(float(sizes.numel())),
        "vuss": sizes.sum().cpu(),
        "overlap": overlap.sum().cpu(),
        "vuss_max": sizes.max().cpu() if some else torch.tensor(-torch.inf),
        "neg_vuss_min": -sizes.min().cpu() if some else torch.tensor(-torch.inf),
    }


def rollout_sums(rollout: Rollout, alignment: Alignment, num_clips: int) -> dict[str, Tensor]:
    """Count clips, what became of rollouts, scored transcripts by source, mismatched ones, and paired positions."""
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
    return {name: torch.tensor(float(n)) for name, n in counts.items()}


def teacher_sums(view: DistributionView, logprobs: Tensor, support: Support) -> dict[str, Tensor]:
    """Sum the teacher's probability that is lost on the student, and count the positions that it did not answer.

    Lost is that of its best tokens (log-probabilities [P, k], the support's first k) without a counterpart, and what
    the mapper could not carry into the view: its attribute `dropped` [P], if any. Not answered is where one is NaN.
    """
    silent = logprobs.isnan().any(-1)
    lost = logprobs.exp().masked_fill(support.from_teacher[:, : logprobs.shape[1]], 0.0).sum(-1)
    lost = (lost + getattr(view, "dropped", torch.zeros_like(lost)))[~silent]
    counts = {"dropped_mass#": lost.numel(), "unanswered": int(silent.sum())}
    return {"dropped_mass": lost.double().sum().cpu()} | {name: torch.tensor(float(n)) for name, n in counts.items()}


def rates(sums: dict[str, float]) -> dict[str, float]:
    """Turn global sums into what is logged; docs/metrics.md says what each means.

    Means (`name` and its count `name#`) are logged where something was counted.
    """
    positions, rolled = max(sums["positions"], 1.0), max(sums["rolled"], 1.0)
    known, scored = sums["positions"] > 0, max(sums["transcripts"], 1.0)
    means = [name.removesuffix("#") for name, count in sums.items() if name.endswith("#") and count > 0]
    return {
        "vuss": sums["vuss"] / positions,
        "vuss_min": -sums["neg_vuss_min"] if known else 0.0,
        "vuss_max": sums["vuss_max"] if known else 0.0,
        "overlap": sums["overlap"] / positions,
        "stop_rate": sums["stopped"] / rolled,
        "cut_rate": (sums["rolled"] - sums["stopped"]) / rolled,
        "empty_rate": sums["empty"] / rolled,
        "loop_rate": sums["looping"] / rolled,
        **{f"share/{source}": sums[f"from_{source}"] / scored for source in SOURCES},
        "mismatch_rate": sums["mismatched"] / scored,
        "coverage": sums["paired"] / max(sums["rollout_tokens"], 1.0),
        "unanswered_rate": sums["unanswered"] / max(sums["paired"], 1.0),
        **{name: sums[name] / sums[name + "#"] for name in means},
    }


CHUNK = 256  # positions whose full student logits are held at once


@dataclass
class Places:
    """Where P positions stand: deciles, int64 [P], tenths of their transcripts; languages, P names; stops, bool [P]:
    whether the transcript stops there.
    """

    deciles: Tensor
    languages: list[str]
    stops: Tensor


def places(ids: Sequence[Sequence[int]], languages: Sequence[str], rows: Tensor, stop_ids: Sequence[int]) -> Places:
    """Place the positions `rows` (int64 [P]) of B transcripts: token j of L stands in decile floor(10 j / L)."""
    deciles = torch.tensor([10 * j // len(row) for row in ids for j in range(len(row))], device=rows.device)
    stops = torch.tensor([i in stop_ids for row in ids for i in row], device=rows.device)
    spoken = [language for language, row in zip(languages, ids) for _ in row]
    return Places(deciles[rows], [spoken[i] for i in rows.tolist()], stops[rows])


def mass(logprobs: Tensor, where: Tensor) -> Tensor:
    """Sum probabilities [P, U] over the tokens `where`: on the overlap equations 9 and 10 of Rethinking OPD."""
    return logprobs.exp().masked_fill(~where, 0.0).sum(-1)


def _renormalised(logprobs: Tensor, where: Tensor) -> Tensor:
    return logprobs.masked_fill(~where, -torch.inf).log_softmax(-1)


def support_kl(p: Tensor, q: Tensor, valid: Tensor) -> Tensor:
    """KL(q' || p') [P], both renormalised on the valid tokens: equation (1) of the paper at tau = 1."""
    ours, theirs = _renormalised(p, valid), _renormalised(q, valid)
    return (theirs.exp() * (theirs - ours)).masked_fill(~valid, 0.0).sum(-1)


def overlap_advantage(p: Tensor, q: Tensor, both: Tensor) -> Tensor:
    """(1 / |I|) * sum over I of p'(v) (log q'(v) - log p'(v)), [P]; p', q' are renormalised on the overlap I.

    Equation 7 of Rethinking OPD: -KL(p' || q') / |I|, 0 where both agree, far below where the student is overconfident.
    """
    ours, theirs = _renormalised(p, both), _renormalised(q, both)
    return (ours.exp() * (theirs - ours)).masked_fill(~both, 0.0).sum(-1) / both.sum(-1).clamp(min=1)


def stop_probability(teacher: DistributionView, stop_ids: Tensor, num_positions: int) -> Tensor:
    """Sum the probabilities [P] that a view gives to the stop ids [S] of its vocabulary."""
    return teacher.logprobs_at(stop_ids.expand(num_positions, -1)).exp().sum(-1)


def _means(name: str, values: Tensor, where: Tensor | None = None) -> dict[str, Tensor]:
    """Sum the finite values [P] among those at `where`, and count them."""
    where = values.isfinite() if where is None else where & values.isfinite()
    return {name: values[where].double().sum(), name + "#": where.double().sum()}


def _groups(kl: Tensor, correct: Tensor, at: Places) -> dict[str, Tensor]:
    """Part the KL: transcript's token is the teacher's best or not, tenths of the transcript, languages."""
    sums = _means("kl/correct", kl, correct) | _means("kl/wrong", kl, ~correct)
    for decile in range(10):
        sums |= _means(f"kl/decile_{decile}", kl, at.deciles == decile)
    for language in sorted(set(at.languages)):
        here = torch.tensor([name == language for name in at.languages], device=kl.device)
        sums |= _means(f"kl/language_{language}", kl, here)
    return sums


def _stops(probability: Tensor, stops: Tensor) -> dict[str, Tensor]:
    """Part positions as early (of the stops, those to which the teacher gives less than 0.5) and late (of the other
    tokens, those where it gives a stop 0.5 or more).
    """
    unsure = (probability < 0.5).float().masked_fill(probability.isnan(), torch.nan)
    return _means("stop/early", unsure, stops) | _means("stop/late", 1 - unsure, ~stops)


def _entropies(student: DistributionView, teacher: DistributionView) -> dict[str, Tensor]:
    """Entropies in nats and their gap |H(q) - H(p)| (equation 8 of Rethinking OPD), where both views know theirs."""
    ours, theirs = student.entropy(), teacher.entropy()
    if ours is None or theirs is None:
        return {}
    gap = _means("entropy_gap", (theirs - ours).abs())
    return _means("entropy/student", ours) | _means("entropy/teacher", theirs) | gap


def position_sums(
    student: DistributionView, teacher: DistributionView, support: Support, at: Places, stop_ids: Tensor
) -> dict[str, Tensor]:
    """Sum every measure over P >= 1 positions; stop_ids: int64 [S], the stops in the teacher view's vocabulary."""
    p, q = student.logprobs_at(support.student_ids), teacher.logprobs_at(support.teacher_ids)
    valid = support.valid & (p > -torch.inf) & (q > -torch.inf)
    both = valid & support.from_teacher & support.from_student
    kl = support_kl(p, q, valid).where(valid.sum(-1) >= 2, torch.nan)
    correct = teacher.topk(1)[0][:, 0] == support.visited_teacher
    sums = _means("kl/all", kl) | _groups(kl, correct, at) | _entropies(student, teacher)
    sums |= _means("teacher_agreement", correct.float())
    sums |= _means("overlap_advantage", overlap_advantage(p, q, both), both.any(-1))
    for name, where in (("support", valid), ("overlap", both)):
        sums |= _means(f"mass/student_{name}", mass(p, where)) | _means(f"mass/teacher_{name}", mass(q, where))
    if len(stop_ids):
        sums |= _stops(stop_probability(teacher, stop_ids, len(p)), at.stops)
    return sums


def _at(support: Support, rows: Tensor) -> Support:
    return Support(**{item.name: getattr(support, item.name)[rows] for item in fields(Support)})


@torch.no_grad()
def measure(
    student: HeadView, teacher: DistributionView, support: Support, at: Places, stop_ids: Tensor
) -> dict[str, float]:
    """Sum every measure over the positions that equation (1) counts; the full student logits are formed in chunks."""
    rows = (support.valid.sum(-1) >= 2).nonzero()[:, 0]
    sums: dict[str, Tensor] = {}
    for part in rows.split(CHUNK) if len(rows) else ():
        here = Places(at.deciles[part], [at.languages[i] for i in part.tolist()], at.stops[part])
        views = student.at(part).dense(), teacher.at(part)
        for name, value in position_sums(*views, _at(support, part), here, stop_ids).items():
            sums[name] = sums[name] + value if name in sums else value
    return dict(zip(sums, torch.stack(list(sums.values())).tolist())) if sums else {}

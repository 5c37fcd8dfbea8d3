"""What is measured at every OPD step, as sums that add over ranks and micro-batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arkasr.interfaces import Alignment, DistributionView, Support
from arkasr.schema import SOURCES

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


def gap_recovery(before: float, after: float, teacher: float) -> float | None:
    """(after - before) / (teacher - before): the share of the gap to the teacher that was closed; None without a gap.

    "Gap recovery rate" of arXiv 2604.13016. Holds for accuracies and for error rates alike, as the signs cancel.
    """
    return None if teacher == before else (after - before) / (teacher - before)


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

"""What is measured at every OPD step, as sums that add over ranks and micro-batches."""

from __future__ import annotations

import torch
from torch import Tensor

from arkasr.interfaces import Alignment, Support
from arkasr.distill.rollout import Rollout

MAXIMA = ("vuss_max", "neg_vuss_min")


def support_sums(support: Support, top_k: int) -> dict[str, Tensor]:
    """Sum valid union support sizes (VUSS; paper, section 4.3) and overlap ratios |S_p and S_q| / k (arXiv 2604.13016, eq. 6).

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
    """Count clips, stops, empty rollouts, retokenisation mismatches, and student positions with and without a pair."""
    counts = {
        "clips": num_clips,
        "stopped": rollout.num_stopped,
        "empty": rollout.num_empty,
        "mismatched": alignment.num_mismatched,
        "rollout_tokens": alignment.num_student,
        "paired": len(alignment.student_rows),
    }
    return {name: torch.tensor(float(n)) for name, n in counts.items()}


def rates(sums: dict[str, float]) -> dict[str, float]:
    """Turn global sums into what is logged; means are over positions, rates over clips."""
    positions, clips = max(sums["positions"], 1.0), max(sums["clips"], 1.0)
    known = sums["positions"] > 0
    return {
        "vuss": sums["vuss"] / positions,
        "vuss_min": -sums["neg_vuss_min"] if known else 0.0,
        "vuss_max": sums["vuss_max"] if known else 0.0,
        "overlap": sums["overlap"] / positions,
        "stop_rate": sums["stopped"] / clips,
        "empty_rate": sums["empty"] / clips,
        "mismatch_rate": sums["mismatched"] / clips,
        "coverage": sums["paired"] / max(sums["rollout_tokens"], 1.0),
    }

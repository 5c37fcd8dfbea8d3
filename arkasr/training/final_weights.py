"""The weights of the final model: the mean of checkpoints.

The mean over checkpoints is that of Vaswani et al. (arXiv:1706.03762, section 6.1). It is computed in float32, group by
group of tensors, so memory does not grow with the number of checkpoints. Every rank reads and averages its own shards.
With LoRA, the mean is that of the trained tensors: of A and of B, not of their product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arkasr.errors import UserError
from arkasr.model.checkpoint_files import WEIGHTS, saved_state
from arkasr.model.checkpoint_reader import read_weights
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.training.checkpoint import Checkpoints
from arkasr.training.selection import Selection
from arkasr.utils.console import log

GROUP = 256 * 2**20  # bytes of float32 shards that one rank averages at a time


def load_final_weights(checkpoints: Checkpoints, selection: Selection, student: SpeechLM, end: int) -> list[str]:
    """Set the weights of the model to the mean of the selected checkpoints. All ranks must call this.

    Args:
        checkpoints: The checkpoints of the run.
        selection: The rule.
        student: The model at the last step, changed in place. It may be sharded.
        end: The last step.

    Returns:
        The names of the checkpoints, oldest first. Empty if the model is that of the last step.

    Raises:
        UserError: No undamaged checkpoint is left, or one cannot be read.
    """
    if selection.is_present_model:
        return []
    chosen = _undamaged(checkpoints, selection, end)
    if not chosen:
        raise UserError(
            f"{checkpoints.folder}: no undamaged checkpoint for train.final={selection.rule}; set train.final=last and "
            "train.average=1 with another --expdir, or restore the checkpoints"
        )
    if len(chosen) < selection.count:
        log(f"final: mean of {len(chosen)} checkpoints, because the run has no more than that for train.final="
            f"{selection.rule} and train.average={selection.count}")  # fmt: skip
    load_mean(student, chosen, no_dist=checkpoints.ranks.mesh is None)
    names = [path.name for path in chosen]
    log(f"final: {'mean of ' if len(names) > 1 else ''}{', '.join(names)} (the {selection.rule} checkpoints)")
    return names


def _undamaged(checkpoints: Checkpoints, selection: Selection, end: int) -> list[Path]:
    """Select checkpoints on rank 0. Damaged ones are replaced by the next ones."""
    ranks, damaged = checkpoints.ranks, set[Path]()
    while True:
        found = [p for p in checkpoints.complete() if p not in damaged] if ranks.first else []
        chosen = ranks.gather(selection.choose(found, end) if ranks.first else [])[0]
        reasons = {path: reason for path in chosen if (reason := checkpoints.damage(path))}
        if not reasons:
            return chosen
        for path, reason in reasons.items():
            log(f"{path}: {reason}; this checkpoint is left out of the final model")
        damaged |= reasons.keys()


@torch.no_grad()
def load_mean(student: SpeechLM, chosen: Sequence[Path], no_dist: bool = True) -> None:
    """Set the weights of a model to the mean of checkpoints.

    Args:
        student: The model, changed in place. If it is sharded, all ranks must call this.
        chosen: The folders of the checkpoints. At least one.
        no_dist: Read in this process only.

    Raises:
        UserError: A checkpoint cannot be read.
    """
    for group in _groups(saved_state(student)):
        means: dict[str, Tensor] = {}
        for number, path in enumerate(chosen, 1):
            read: dict[str, Any] = {name: torch.empty_like(value) for name, value in group.items()}
            read_weights(path / WEIGHTS, {"model": read}, no_dist)
            for name, value in read.items():
                wide = value.float()
                # a running mean, which leaves tensors exactly as they are that are equal in all checkpoints
                means[name] = wide if number == 1 else means[name] + (wide - means[name]) / number
        for name, value in group.items():
            value.copy_(means[name])


def _groups(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Divide a state dictionary into groups of at most `GROUP` bytes of this rank, or of one tensor."""
    group: dict[str, Tensor] = {}
    size = 0
    for name, value in state.items():
        own = 4 * getattr(value, "_local_tensor", value).numel()
        if group and size + own > GROUP:
            yield group
            group, size = {}, 0
        group[name], size = value, size + own
    yield group

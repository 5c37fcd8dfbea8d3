"""Clips of similar length as groups, so that a causal decoder computes little padding."""

from __future__ import annotations

from collections.abc import Sequence

from arkasr.model.packing import group_lengths


def length_groups(lengths: Sequence[int]) -> list[list[int]]:
    """Divide clips into groups that are each padded to the longest clip of the group.

    One more group costs as much as 128 positions, because each group launches all kernels of the model again. A batch
    whose lengths differ little is one group.

    Args:
        lengths: Number of positions per clip, at least 1 each.

    Returns:
        Indices of the clips of each group, in ascending order. The groups have ascending lengths.
    """
    limits = group_lengths(lengths, masked=0.0).tolist()  # causal attention does not look at padding on the right
    below = [0, *limits[:-1]]
    return [[i for i, n in enumerate(lengths) if low < n <= high] for low, high in zip(below, limits)]

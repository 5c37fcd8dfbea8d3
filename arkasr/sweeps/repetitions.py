"""What the runs of a sweep are repeated with: seeds and roundings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from arkasr.sweeps.sweep_file import ONCE, Sweep

T = TypeVar("T")


@dataclass(frozen=True)
class Repetition:
    """One seed with one rounding (see `Config`).

    Attributes:
        seed: The seed.
        rounding: The rounding.
        is_once: Whether it stands for all repetitions: that of the runs that are trained once.
    """

    seed: int
    rounding: int = 0
    is_once: bool = False

    @property
    def name(self) -> str:
        """Name of its folder."""
        if self.is_once:
            return ONCE
        return f"seed-{self.seed}" + (f"-rounding-{self.rounding}" if self.rounding else "")


def repetitions(sweep: Sweep) -> list[Repetition]:
    """Return the repetitions of each point, seed by seed.

    Args:
        sweep: The sweep.

    Returns:
        Each seed with all roundings, or with the first one if it is not among `rounding_seeds`.
    """
    file = sweep.file
    repeated = file.rounding_seeds or file.seeds
    return [
        Repetition(seed, rounding)
        for seed in file.seeds
        for rounding in (file.roundings if seed in repeated else file.roundings[:1])
    ]


def first_roundings(values: Mapping[Repetition, T]) -> dict[Repetition, T]:
    """Return the values of the lowest rounding of each seed, so that each seed counts once.

    Args:
        values: One value per repetition.

    Returns:
        One value per seed.
    """
    ordered = sorted(values, key=lambda each: (each.seed, each.rounding))
    first = {each.seed: each for each in reversed(ordered)}
    return {each: values[each] for each in sorted(first.values(), key=lambda each: each.seed)}

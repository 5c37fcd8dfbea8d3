"""How runs are drawn: colour, dashes and mark. No two of the first runs differ by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Slots of the palettes: the runs of the recipes, then others.
SLOTS = {"teacher": 0, "base": 1, "base_opd": 2, "base_td": 3, "base_td_opd": 4}
OTHER_SLOTS = (5, 6, 3, 2, 4, 1)
# The colours of the slots on light and on dark ground. Pairs of them differ for colour-blind readers too, and each has
# a contrast of at least 3 to 1 to the ground.
LIGHT = ("#1b1f24", "#a38a00", "#0b3fd0", "#0a6b5f", "#b8260f", "#8a1fa8", "#2394c1")
DARK = ("#f2f4f7", "#f0bb40", "#4187e9", "#2acb9d", "#ff6a4c", "#cf6ebd", "#a0d6f3")
DASHES = ("none", "7 3", "2 2", "9 3 2 3", "12 4")
MARKS = ("circle", "square", "triangle", "diamond", "cross")


@dataclass(frozen=True)
class Look:
    """How a run is drawn: its title, slot of the palette, dashes of its line, and its mark."""

    title: str
    slot: int
    dashes: str
    mark: str


def looks(titles: dict[str, str]) -> dict[str, Look]:
    """Choose how runs are drawn, the same in all charts of a page.

    Args:
        titles: Title of each run, by its name.

    Returns:
        Look by run. Runs that share a colour differ in dashes and mark.
    """
    others = [run for run in titles if run not in SLOTS]
    found = {run: Look(titles[run], slot, DASHES[slot], MARKS[slot]) for run, slot in SLOTS.items() if run in titles}
    for index, run in enumerate(others):
        slot = OTHER_SLOTS[index % len(OTHER_SLOTS)]
        found[run] = Look(titles[run], slot, DASHES[index % len(DASHES)], MARKS[(index + 1) % len(MARKS)])
    return found


def styles(palette: Sequence[str]) -> str:
    """Write a palette as CSS.

    Args:
        palette: Colours of the slots.

    Returns:
        Custom properties `--run-0` and so on.
    """
    return " ".join(f"--run-{slot}: {color};" for slot, color in enumerate(palette))

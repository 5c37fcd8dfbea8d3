"""Colours and marks of runs: contrast, readers with colour blindness, and runs that share a colour."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from arkasr.reporting.page.looks import DARK, LIGHT, looks, styles
from arkasr.reporting.page.page import TEMPLATES

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
WHITE = np.array([0.95047, 1.0, 1.08883])
CSS = (TEMPLATES / "page.css").read_text()


def linear(color: str) -> np.ndarray:
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    ratio = np.array(TO_XYZ) @ rgb.clip(0, 1) / WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    low, high = sorted(float((np.array(TO_XYZ) @ linear(color))[1]) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_differ_for_colour_blind_readers(palette, vision):
    seen = {color: lab(np.array(VISION[vision]) @ linear(color)) for color in palette}
    nearest = min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in combinations(palette, 2))
    assert nearest[0] > 15, nearest


@pytest.mark.parametrize(("palette", "ground"), [(LIGHT, "#ffffff"), (DARK, "#15181d")], ids=["light", "dark"])
def test_colours_have_contrast_to_the_ground(palette, ground):
    assert f"--ground: {ground};" in CSS
    assert min(contrast(color, ground) for color in palette) >= 3
    assert styles(palette).count("--run-") == len(palette)


def test_runs_of_the_recipes_keep_their_colour_whatever_else_is_shown():
    few = looks({"base": "Base", "base_opd": "Base+OPD"})
    many = looks({name: name for name in ("teacher", "base", "sweep_1", "base_td", "base_opd", "base_td_opd")})
    assert all((few[run].slot, few[run].mark) == (many[run].slot, many[run].mark) for run in few)


def test_twelve_runs_all_look_different_without_colour_or_with_it():
    names = ["teacher", "base", "base_opd", "base_td", "base_td_opd", *(f"run {i}" for i in range(7))]
    found = looks({name: name for name in names})
    assert len({(look.slot, look.dashes, look.mark) for look in found.values()}) == len(names)
    first = [found[name] for name in names[:5]]
    assert len({look.dashes for look in first}) == len({look.mark for look in first}) == 5

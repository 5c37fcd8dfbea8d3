"""VUSS by group of positions, against a slow reference over lists."""

from __future__ import annotations

import random

import pytest
import torch

from arkasr.distill.metrics import rates
from arkasr.distill.rollout import Rollout
from arkasr.distill.rollout_words import GROUPS
from arkasr.distill.vuss import VussGroups, token_deciles, vuss_sums
from arkasr.interfaces import Support
from arkasr.model.generation import Generation
from arkasr.testing.host_reads import count_host_reads


def union(sizes):
    valid = torch.arange(8) < torch.tensor(sizes).reshape(-1, 1)
    ids = torch.zeros(len(sizes), 8, dtype=torch.long)
    return Support(ids, ids, valid, valid, valid, ids[:, 0], ids[:, 0])


def reference_vuss(sizes, deciles, words):
    """Return the means and counts by plain loops."""
    found = {}
    for d in range(10):
        inside = [size for size, decile in zip(sizes, deciles) if decile == d and size >= 2]
        if inside:
            found[f"vuss/decile_{d}"] = sum(inside) / len(inside)
    for index, name in enumerate(GROUPS):
        inside = [size for size, word in zip(sizes, words) if word == index and size >= 2]
        found[f"positions/{name}"] = len(inside)
        if inside and index < 2:
            found[f"vuss/{name}"] = sum(inside) / len(inside)
    return found


OTHER_SUMS = """rolled stopped empty looping transcripts mismatched paired rollout_tokens vuss overlap positions
teacher_missing from_student from_teacher from_reference"""
NOTHING = dict.fromkeys(OTHER_SUMS.split(), 0.0)


@pytest.mark.parametrize("positions", [0, 1, 7, 300])
def test_vuss_sums_agree_with_loops(positions):
    draw = random.Random(positions)
    sizes, deciles, words = ([draw.randrange(n) for _ in range(positions)] for n in (9, 10, 4))
    sums = vuss_sums(union(sizes), torch.tensor(deciles, dtype=torch.long), torch.tensor(words, dtype=torch.long))
    logged = rates(NOTHING | {name: float(value) for name, value in sums.items()})
    assert logged == pytest.approx(reference_vuss(sizes, deciles, words))
    assert sum(value for name, value in logged.items() if name[:10] == "positions/") == sum(s >= 2 for s in sizes)


def test_token_deciles_on_worked_example():
    assert token_deciles([[7] * 4, [], [7]]) == [0, 2, 5, 7, 0]


def test_vuss_groups_of_rollout():
    """Position 2 has one valid token. The third transcript is a provided text, and the fourth clip has no reference."""
    table = [b"a", b" b", b" c", None]
    ids = [[0, 1, 3], [0, 2, 3], [0, 3], [0, 9]]
    rollout = Rollout(
        [0, 1, 2, 3], Generation(ids, [True] * 4, torch.zeros(10, 3)), 0, 4, sources=["student", "student"]
    )
    rollout.sources += ["reference", "student"]
    rows, sizes = torch.arange(10), [4, 6, 1, 4, 7, 2, 3, 3, 5, 5]
    references = ["a b", "a b", "a", ""]
    support = union(sizes)
    with count_host_reads() as reads:
        sums = VussGroups(table).sums(rollout, references, ["English"] * 4, rows, support)
    assert not reads.by_place
    logged = rates(NOTHING | {name: float(value) for name, value in sums.items()})
    assert (logged["vuss/correct_word"], logged["vuss/wrong_word"]) == (pytest.approx(14 / 3), 7)
    counts = [logged[f"positions/{name}"] for name in GROUPS]
    assert counts == [3, 1, 3, 2]
    assert logged["vuss/decile_0"] == pytest.approx((4 + 4 + 3 + 5) / 4)
    unknown = VussGroups(None).sums(rollout, references, ["English"] * 4, rows, union(sizes))
    assert unknown["positions/no_word"] == 9 and unknown["vuss/correct_word#"] == 0

"""The random generators: seeded together, restored exactly, and written without pickles."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from arkasr.training.random_state import file_name, read_generators, seed_generators, write_generators


@pytest.fixture(autouse=True)
def _restore():
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002
    torch.set_rng_state(before[2])


def drawn() -> list[float]:
    return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002


def test_seed_determines_all_generators():
    draws = []
    for seed, rank in ((1, 0), (1, 0), (2, 0), (1, 1)):
        seed_generators(seed, rank)
        draws.append(drawn())
    assert draws[0] == draws[1]
    for other in draws[2:]:
        assert all(a != b for a, b in zip(draws[0], other, strict=True))


@pytest.mark.parametrize("seed", [0, 2**40, 10**18])
def test_large_seeds_are_accepted(seed):
    seed_generators(seed, 3)


def test_written_state_continues_all_generators(tmp_path):
    seed_generators(7)
    drawn()  # gauss() keeps a second number, which belongs to the state
    write_generators(tmp_path / "rng.json")
    expected = drawn()
    seed_generators(8)
    read_generators(tmp_path / "rng.json", 5)
    assert drawn() == expected


def test_pickled_state_of_an_earlier_version_is_not_read(tmp_path, capsys):
    torch.save({"torch": torch.get_rng_state()}, tmp_path / "rng-00000.pt")
    draws = []
    for step in (5, 5, 6):
        torch.manual_seed(1)
        read_generators(tmp_path / file_name(0), step)
        draws.append(drawn())
    assert draws[0] == draws[1] != draws[2]
    assert "random generators are seeded from step 5" in capsys.readouterr().out

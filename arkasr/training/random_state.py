"""The random generators of one rank: torch on CPU and GPU, Python's `random`, and numpy's global generator."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arkasr.utils.console import log

RANK_OFFSET = 1_000_003  # between the seeds of two ranks


def seed_generators(seed: int, rank: int = 0) -> None:
    """Seed all generators. torch seeds those of the GPUs too.

    Args:
        seed: The run's seed, at least 0.
        rank: Number of the rank. Each rank gets other random numbers.
    """
    value = seed + RANK_OFFSET * rank
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % 2**32)  # noqa: NPY002  # libraries draw from the global generator


def file_name(rank: int) -> str:
    """Return the name of a rank's file in a checkpoint.

    Args:
        rank: Number of the rank.

    Returns:
        A file name, such as "rng-00000.json".
    """
    return f"rng-{rank:05d}.json"


def write_generators(path: Path) -> None:
    """Write the state of all generators as JSON.

    Args:
        path: File to write.
    """
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    state = {
        "torch": _hex(torch.get_rng_state()),
        "cuda": _hex(torch.cuda.get_rng_state()) if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
    }
    path.write_text(json.dumps(state), encoding="utf-8")


def read_generators(path: Path, step: int) -> None:
    """Restore the state that `write_generators` wrote.

    Earlier versions wrote a pickle, which may run any code, so it is not read. The generators are then seeded from the
    step.

    Args:
        path: The file.
        step: Number of optimizer steps taken.
    """
    if not path.is_file():
        log(f"{path}: absent, as in checkpoints of earlier versions; random generators are seeded from step {step}")
        return seed_from_step(step)
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    torch.set_rng_state(_tensor(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(state["cuda"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    return None


def seed_from_step(step: int) -> None:
    """Seed all generators from this rank's seed and the step: the same each time this step is resumed.

    Args:
        step: Number of optimizer steps taken.
    """
    seed_generators(torch.initial_seed() + step)


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)

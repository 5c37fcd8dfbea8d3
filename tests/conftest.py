"""Fixtures for several test files, the order of the files, and the number of threads of each process."""

from __future__ import annotations

import gc
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_warnings import OwnWarnings

# The models are too small for more threads, which would wait for each other's processor. Torch reads it when imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
SECONDS = {"e2e": 60.0, "distributed": 10.0, "slow": 4.0}  # of a test with this marker, about
FAST_SECONDS = 0.04

gc.disable()  # until all tests are imported: nothing of what torch and transformers allocate then is garbage


def pytest_collection_finish() -> None:
    """Do not search the imported packages for garbage."""
    gc.freeze()
    gc.enable()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: the header of gzip holds the time, but all workers must see the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the workers of pytest-xdist begin with the longest files, so that none has a long file to itself at the end.

    The option --no-loadscope-reorder keeps this order.
    """
    if not hasattr(config, "workerinput"):
        return
    seconds: Counter[Path] = Counter()
    for item in items:
        seconds[item.path] += (
            max((SECONDS.get(each.name, 0.0) for each in item.iter_markers()), default=0.0) or FAST_SECONDS
        )
    items.sort(key=lambda item: -seconds[item.path])


@pytest.fixture(scope="session")
def datadir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data directory with short tones. Tests must not write into it."""
    from corpus_fixture import write_corpus

    return write_corpus(tmp_path_factory.mktemp("tones") / "data")


@pytest.fixture(scope="session")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of tiny models with the runs of the recipe."""
    from corpus_fixture import CONF

    path = tmp_path_factory.mktemp("conf") / "tiny.yaml"
    path.write_text(CONF)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, conf: Path, datadir: Path) -> Path:
    """An experiment directory with a teacher and a base that output some words. Tests must not write into it."""
    from corpus_fixture import LONGER

    from arkasr.training.train import train

    expdir = tmp_path_factory.mktemp("trained")
    for run in ("teacher", "base"):
        train(str(conf), run, str(expdir), str(datadir), LONGER)
    return expdir


@pytest.fixture
def own_warnings(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnWarnings]:
    """The warnings that calls in arkasr cause during the test."""
    own = OwnWarnings()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", own)
        yield own

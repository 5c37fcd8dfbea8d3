"""Fixtures for several test files: a prepared corpus, a configuration of tiny models, and trained runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_warnings import OwnWarnings


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

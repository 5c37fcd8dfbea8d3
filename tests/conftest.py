"""What several test files share: a prepared corpus, a configuration of tiny models, and runs trained with it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def datadir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data directory of short tones; not to be written into."""
    from corpus_fixture import write_corpus

    return write_corpus(tmp_path_factory.mktemp("tones") / "data")


@pytest.fixture(scope="session")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of tiny models with the recipe's runs."""
    from corpus_fixture import CONF

    path = tmp_path_factory.mktemp("conf") / "tiny.yaml"
    path.write_text(CONF)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, conf: Path, datadir: Path) -> Path:
    """An experiment directory with a teacher and a base that say some words; not to be written into."""
    from corpus_fixture import LONGER

    from arkasr.training.train import train

    expdir = tmp_path_factory.mktemp("trained")
    for run in ("teacher", "base"):
        train(str(conf), run, str(expdir), str(datadir), LONGER)
    return expdir

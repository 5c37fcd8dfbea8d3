"""Fixtures of the tests of exports: a trained and distilled experiment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from arkasr.evaluation.decode import decode
from arkasr.reporting.score import score
from arkasr.training.train import train


@pytest.fixture(scope="session")
def distilled(conf, trained, datadir, tmp_path_factory):
    """An experiment with `base` (scored) and `base_opd`, distilled from it with checkpoints at steps 1 to 3."""
    expdir = tmp_path_factory.mktemp("distilled")
    for run in ("teacher", "base"):
        shutil.copytree(trained / run, expdir / run)
    changes = ["train.steps=4", "train.save_every=1", "train.eval_every=1", "train.keep=3"]
    train(str(conf), "base_opd", str(expdir), str(datadir), changes)
    for path in expdir.glob("*/run.json"):  # these runs have no command line
        command = (
            f"arkasr train c.yaml --expdir {trained if path.parent.name == 'base' else expdir} --datadir={datadir}"
        )
        path.write_text(json.dumps(json.loads(path.read_text()) | {"command": command}))
    decode(str(expdir), str(datadir), ["base"])
    score(str(expdir), str(datadir), ["base"])
    return expdir


@pytest.fixture
def expdir(distilled, tmp_path):
    """A writable copy of that experiment."""
    return Path(shutil.copytree(distilled, tmp_path / "exp"))

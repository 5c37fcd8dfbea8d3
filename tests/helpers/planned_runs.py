"""Plans of the paper's runs and of a test's configuration, for tests of the numbers in a plan."""

from __future__ import annotations

from pathlib import Path

from arkasr.config.load import load_config
from arkasr.planning.assumptions import Assumptions
from arkasr.planning.plan import forecast

PAPER = str(Path(__file__).parents[2] / "egs/librispeech/conf/paper.yaml")


def planned(run: str = "base_opd", overrides: tuple[str, ...] = (), conf: str = PAPER, **assumptions) -> dict:
    config = load_config(conf, run, "{expdir}", "{datadir}", overrides)
    return forecast(conf, config, Assumptions(**{"gpus": 24} | assumptions))

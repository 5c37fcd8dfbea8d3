"""A finished run tells how long the clips were that it was trained on."""

from __future__ import annotations

import json
import shutil

import pytest
from corpus_fixture import make_trainer
from lhotse import CutSet

from arkasr.model.loading import load_speech_lm
from arkasr.training.train import _trained_seconds


def longest(datadir, name: str) -> float:
    return max(cut.duration for cut in CutSet.from_file(datadir / f"{name}.jsonl.gz"))


@pytest.mark.parametrize(("run", "manifest"), [("teacher", "train"), ("base", "base")])
def test_final_model_knows_the_longest_clip_also_after_it_is_written_again(trained, datadir, tmp_path, run, manifest):
    lm = load_speech_lm(str(trained / run / "final"))
    assert lm.trained_seconds == pytest.approx(longest(datadir, manifest), abs=1e-3)
    lm.save(tmp_path / "copy")
    assert load_speech_lm(str(tmp_path / "copy")).trained_seconds == lm.trained_seconds


def test_a_run_that_continues_another_knows_the_longest_clip_of_both(trained, conf, datadir, tmp_path):
    start = shutil.copytree(trained / "base" / "final", tmp_path / "start")

    def seconds(manifest: str) -> float | None:
        overrides = f"model.path={start}", f"data.train={datadir}/{manifest}.jsonl.gz"
        return _trained_seconds(make_trainer(conf, "base_td", tmp_path / manifest, datadir, *overrides))

    whole = longest(datadir, "base")
    assert seconds("td") == pytest.approx(max(whole, longest(datadir, "td")), abs=1e-3)
    settings = json.loads((start / "generation_config.json").read_text())
    (start / "generation_config.json").write_text(json.dumps(settings | {"trained_seconds": 9.5}))
    assert seconds("dev") == 9.5
    del settings["trained_seconds"]
    (start / "generation_config.json").write_text(json.dumps(settings))
    assert seconds("test-a") is None  # trained elsewhere, on clips that are not known

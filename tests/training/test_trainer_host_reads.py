"""How often a step of the trainer makes the host wait for the device."""

from __future__ import annotations

import pytest
from corpus_fixture import clips, make_trainer

from arkasr.testing.host_reads import count_host_reads

OWN = ("arkasr/training/", "arkasr/distill/", "arkasr/builtin/", "arkasr/distributions/")


@pytest.mark.parametrize(("run", "accumulate"), [("base", 1), ("base_opd", 1), ("base_opd", 3)])
def test_trainer_reads_once_per_step(conf, trained, datadir, tmp_path, run, accumulate):
    paths = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    settings = [*(paths if run == "base_opd" else []), f"train.accumulate={accumulate}", "distill.diagnose_every=0"]
    trainer = make_trainer(conf, run, tmp_path, datadir, *settings)
    manifest = datadir / "train.jsonl.gz"
    parts = [clips(manifest, [i, i + 1, i + 2]) for i in range(2 * accumulate)]
    trainer.take_step(iter(parts[:accumulate]))  # the optimizer's state and tables of ids are created once
    with count_host_reads() as reads:
        row = trainer.take_step(iter(parts[accumulate:]))
    assert row["gradient_norm"] > 0 and row["tokens"] > 0
    own = {place: count for place, count in reads.by_place.items() if place.startswith(OWN)}
    assert sum(own.values()) == 1, own  # losses, counts, metrics and the gradient's norm, of all micro-batches
    others = sum(count for place, count in reads.by_place.items() if "late_flags" not in place) - 1
    assert others <= 10 * accumulate - 1, reads.by_place

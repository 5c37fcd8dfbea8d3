"""Clips of manifests: what is left out or cannot be used is counted once, in memory and line by line alike."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import re

import pytest
from lhotse import CutSet
from shard_files import NUM_CLIPS, settings, shards  # noqa: F401

from arkasr.data import clips
from arkasr.data.clips import in_share
from arkasr.data.manifests import read_cuts
from arkasr.data.sampling import TrainingBatches
from arkasr.data.training_cuts import open_manifest
from arkasr.errors import UserError

LONG = {"min_clip_seconds": 4.0, "max_clip_seconds": 6.0}


def read_all(manifest) -> list[str]:
    return [clip.cut().id for shard in range(manifest.num_shards) for _, clip in manifest.read(shard, 0)]


@pytest.mark.parametrize("lazy", ["always", "never"])
def test_clips_left_out_by_length_are_counted(shards, capsys, lazy):
    outside = sum(not 4 <= cut.duration <= 6 for cut in read_cuts(str(shards)))
    for _ in range(2):
        manifest = open_manifest(settings(shards, lazy=lazy, **LONG))
        assert len(read_all(manifest)) == len(read_all(manifest)) == NUM_CLIPS - outside
    text = f"{outside} of {NUM_CLIPS} cuts left out, because they do not last between 4 and 6 s"
    assert capsys.readouterr().out.count(f"{shards}: {text} (data.min_clip_seconds, data.max_clip_seconds)") == 1


@pytest.mark.parametrize("lazy", ["always", "never"])
def test_clips_left_out_by_hours_are_counted(shards, capsys, lazy):
    inside = [cut for cut in read_cuts(str(shards)) if 4 <= cut.duration <= 6]
    hours = sum(cut.duration for cut in inside) / 2 / 3600
    kept = read_all(open_manifest(settings(shards, lazy=lazy, hours=hours, **LONG)))
    assert 0 < len(kept) < len(inside)
    left_out = len(inside) - len(kept)
    total = NUM_CLIPS if lazy == "always" else len(inside)
    assert f"{left_out} of {total} cuts left out by data.hours={hours:g}" in capsys.readouterr().out


@pytest.mark.parametrize("lazy", ["always", "never"])
def test_training_counts_before_the_first_batch(shards, capsys, lazy):
    next(iter(TrainingBatches(settings(shards, lazy=lazy, **LONG), 1)))
    assert re.search(rf"[1-9]\d* of {NUM_CLIPS} cuts left out, because", capsys.readouterr().out)


def test_large_manifests_report_while_they_are_read(shards, capsys, monkeypatch):
    monkeypatch.setattr(clips, "FIRST_REPORT", 10)
    manifest = open_manifest(settings(shards, **LONG))
    for shard in range(manifest.num_shards):
        list(manifest.read(shard, 3))
        list(manifest.read(shard, 0))
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    totals = [int(re.search(r" of (\d+) cuts", line)[1]) for line in lines]
    assert totals == sorted(totals) and len(totals) >= 3 and totals[-1] <= NUM_CLIPS
    assert all("so far" in line for line in lines[:-1]) and "so far" not in lines[-1]


@pytest.mark.parametrize("names", [["a", "a", "b"], ["a", "b", "a"]])
def test_repeated_ids_are_refused_in_memory(shards, tmp_path, names):
    cut = next(iter(read_cuts(str(shards))))
    CutSet([cut.with_id(name) for name in names]).to_file(tmp_path / "cuts.jsonl.gz")
    line = 1 + max(i for i, name in enumerate(names) if name == "a")
    message = (
        rf"cuts.jsonl.gz: 1 cuts repeat the id of another cut, the first is a in .*cuts.jsonl.gz, line {line}; give"
    )
    for read in (lambda p: open_manifest(settings(p, lazy="never")), lambda p: list(read_cuts(str(p)))):
        with pytest.raises(UserError, match=message):
            read(tmp_path / "cuts.jsonl.gz")


def test_file_named_twice_is_refused(shards):
    (shards / "train.copy.jsonl.gz").write_bytes((shards / "train.000.jsonl.gz").read_bytes())
    with pytest.raises(UserError, match=r"10 cuts repeat the id of another cut, .*name no file twice"):
        open_manifest(settings(shards, lazy="never"))


def test_shares_are_nested_and_about_as_large_as_asked():
    names = [f"clip-{i}" for i in range(4000)]
    kept = {share: {name for name in names if in_share(name, share)} for share in (0.0, 0.2, 0.5, 1.0)}
    assert kept[0.0] == set() and kept[1.0] == set(names) and kept[0.2] < kept[0.5]
    assert 700 < len(kept[0.2]) < 900 and 1880 < len(kept[0.5]) < 2120

"""Training cuts: one file or many shards, in memory or line by line, give the same clips."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import islice

import pytest
from lhotse import CutSet
from lhotse.cut import MixedCut
from shard_files import NUM_CLIPS, counted, epoch, settings, shards  # noqa: F401

from arkasr.data import training_cuts
from arkasr.data.checks import Rules
from arkasr.data.manifests import read_cuts
from arkasr.data.reasons import refusal
from arkasr.data.sampling import TrainingBatches
from arkasr.data.training_cuts import InMemory, OnDisk, open_manifest
from arkasr.errors import UserError


def clips(manifest) -> list[str]:
    return [clip.cut().id for shard in range(manifest.num_shards) for _, clip in manifest.read(shard, 0)]


@pytest.mark.parametrize("lazy", ["always", "never"])
def test_folder_pattern_and_single_file_give_the_same_cuts(shards, tmp_path, lazy):
    whole = tmp_path / "whole.jsonl"
    CutSet.from_cuts(list(read_cuts(str(shards)))).to_file(whole)
    (shards / "notes.txt").write_text("not a shard")
    names = [clips(open_manifest(settings(p, lazy=lazy))) for p in (shards, shards / "train.*.jsonl.gz", whole)]
    assert names[0] == names[1] == names[2] == [f"clip-{s}-{i}" for s in range(6) for i in range(NUM_CLIPS // 6)]
    assert clips(open_manifest(settings(shards / "train.00[12]*", lazy=lazy)))[:1] == ["clip-1-0"]


def test_on_disk_manifest_reads_identical_cuts(shards):
    manifest = open_manifest(settings(shards))
    found = [clip.cut() for shard in range(6) for _, clip in manifest.read(shard, 0)]
    assert found == list(read_cuts(str(shards)))
    assert [(number, clip.cut().id) for number, clip in manifest.read(2, 7)] == [(n, f"clip-2-{n}") for n in (7, 8, 9)]


def test_epoch_has_every_clip_once_and_shuffles_the_shards(shards):
    orders = []
    for number in (0, 1):
        batches = TrainingBatches(settings(shards), 1)
        batches.epoch = number
        names = epoch(batches)
        assert len(names) == len(set(names)) == NUM_CLIPS
        orders.append(list(dict.fromkeys(name.split("-")[1] for name in names)))
    assert orders[0] != orders[1]


def test_sampler_reads_ahead_at_most_the_buffer(shards, counted):
    batches, seen = TrainingBatches(settings(shards), 1), 0
    counted.clear()
    for batch in islice(batches, 12):
        seen += len(batch.ids)
        assert len(counted) <= seen + 9
    assert seen < NUM_CLIPS


def test_clips_of_other_lengths_are_left_out_line_by_line(shards):
    long = [cut.id for cut in read_cuts(str(shards)) if 4 <= cut.duration <= 6]
    kept = [clips(open_manifest(settings(shards, lazy=lazy, **LONG))) for lazy in ("always", "never")]
    assert 0 < len(long) < NUM_CLIPS and kept == [long, long]
    names = epoch(TrainingBatches(settings(shards, **LONG), 1))
    assert sorted(names) == sorted(long)


LONG = {"min_clip_seconds": 4.0, "max_clip_seconds": 6.0}


def test_hours_on_disk_are_approximate_and_nested(shards):
    seconds = {cut.id: cut.duration for cut in read_cuts(str(shards))}
    total = sum(seconds.values())
    half, repeated, most = (clips(open_manifest(settings(shards, hours=total * s / 3600))) for s in (0.5, 0.5, 0.8))
    assert half == repeated and set(half) < set(most) < set(seconds)
    assert 0.25 * total < sum(seconds[name] for name in half) < 0.75 * total
    assert len(Counter(name.split("-")[1] for name in half)) == 6  # of all shards
    assert len(clips(open_manifest(settings(shards, hours=100.0)))) == NUM_CLIPS


def test_large_manifests_are_read_line_by_line_by_default(shards, monkeypatch):
    assert isinstance(open_manifest(settings(shards, lazy="auto")), InMemory)
    size = sum(path.stat().st_size for path in shards.iterdir())
    monkeypatch.setattr(training_cuts, "LARGE", size)
    assert isinstance(open_manifest(settings(shards, lazy="auto")), OnDisk)
    assert isinstance(open_manifest(settings(shards, lazy="never")), InMemory)
    monkeypatch.setattr(training_cuts, "LARGE", size + 1)
    assert isinstance(open_manifest(settings(shards, lazy="auto")), InMemory)


def test_on_disk_manifest_reads_mixed_cuts(shards, tmp_path):
    first, second = islice(read_cuts(str(shards)), 4, 6)
    assert (first.duration, second.duration) == (4.0, 7.0)
    noise = second.truncate(duration=4.0).drop_supervisions()
    mixed = first.mix(noise, offset_other_by=0.0, snr=10)
    assert isinstance(mixed, MixedCut)
    CutSet.from_cuts([mixed]).to_file(tmp_path / "mixed.jsonl.gz")
    ((_, found),) = open_manifest(settings(tmp_path / "mixed.jsonl.gz", **LONG)).read(0, 0)
    found = found.cut()
    assert (found.id, found.duration, found.supervisions) == (mixed.id, 4.0, first.supervisions)


def test_manifest_errors_name_the_file(shards, tmp_path):
    with pytest.raises(UserError, match=r"no cut lasts between 50 and 60 s \(data.min_clip_seconds"):
        TrainingBatches(settings(shards, min_clip_seconds=50.0, max_clip_seconds=60.0), 1)
    with pytest.raises(UserError, match="empty: holds no .jsonl or .jsonl.gz files; run the recipe"):
        (tmp_path / "empty").mkdir()
        TrainingBatches(settings(tmp_path / "empty"), 1)
    CutSet.from_cuts(list(read_cuts(str(shards)))).to_file(tmp_path / "cuts.json")
    with pytest.raises(UserError, match=r"cuts.json: only .jsonl and .jsonl.gz can be read line by line"):
        TrainingBatches(settings(tmp_path / "cuts.json"), 1)
    assert isinstance(open_manifest(settings(tmp_path / "cuts.json", lazy="auto")), InMemory)
    shard = shards / "train.003.jsonl.gz"
    lines = gzip.decompress(shard.read_bytes()).splitlines()
    for broken in (b'{"id": "half', b"[]", json.dumps({"id": "a", "duration": 2.0, "type": "Song"}).encode()):
        shard.write_bytes(gzip.compress(b"\n".join([lines[0], broken, *lines[2:]])))
        with pytest.raises(UserError, match="train.003.jsonl.gz: line 2 is not a cut"):
            epoch(TrainingBatches(settings(shards), 1))
    shard.write_bytes(gzip.compress(b"\n".join(lines))[:-20])
    with pytest.raises(UserError, match="train.003.jsonl.gz: the file is truncated"):
        epoch(TrainingBatches(settings(shards), 1))


@pytest.mark.parametrize("lazy", ["always", "never"])
def test_clips_without_transcript_are_read_only_if_the_run_needs_no_text(shards, lazy):
    files = sorted(shards.glob("train.*.jsonl.gz"))
    for file in files[:2]:  # a third of the clips
        with gzip.open(file, "rt") as lines:
            cuts = [json.loads(line) for line in lines]
        for cut in cuts:
            del cut["supervisions"][0]["text"]
        with gzip.open(file, "wt") as lines:
            lines.writelines(json.dumps(cut) + "\n" for cut in cuts)
    config = settings(shards, lazy=lazy)
    manifest = open_manifest(config, needs_text=False)
    found = [clip.cut() for shard in range(manifest.num_shards) for _, clip in manifest.read(shard, 0)]
    assert not any(map(refusal, found)) and found == list(read_cuts(str(shards), Rules(needs_text=False)))
    assert [cut.supervisions[0].text for cut in found].count(None) == NUM_CLIPS // 3
    assert sorted(epoch(TrainingBatches(config, 1, needs_text=False))) == sorted(cut.id for cut in found)
    if lazy == "always":  # stage 1 has counted them
        described = {"sets": {"shards": {"cuts": NUM_CLIPS, "untranscribed": NUM_CLIPS // 3}}}
        (shards.parent / "corpus.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=rf"{NUM_CLIPS // 3} of {NUM_CLIPS} cuts have no transcript.*with objective"):
        open_manifest(config)
    accepted = open_manifest(settings(shards, lazy=lazy, max_failed_share=0.5))
    assert accepted.num_shards == manifest.num_shards

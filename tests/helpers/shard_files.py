"""Shards of cuts without audio, and helpers to draw whole epochs from them."""

from __future__ import annotations

import pytest
from lhotse import AudioSource, CutSet, MonoCut, Recording, SupervisionSegment

from arkasr.config.schema import DataConfig
from arkasr.data import clips, loading
from arkasr.data.batches import Batch
from arkasr.data.sampling import TrainingBatches

NUM_CLIPS = 60


def silent_cut(name: str, seconds: float, text: str = "one two") -> MonoCut:
    """Return a cut of a file that does not exist."""
    recording = Recording(
        name, [AudioSource("file", [0], f"/nowhere/{name}.wav")], 16000, int(16000 * seconds), seconds
    )
    supervision = SupervisionSegment(name, name, 0.0, seconds, text=text, language="English")
    return MonoCut(name, 0.0, seconds, 0, [supervision], recording=recording)


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Return a folder with six shards of clips of 1 to 9 s, and replace the reading of audio."""
    monkeypatch.setattr(loading, "load_batch", lambda cuts, speeds: Batch([cut.id for cut in cuts], [], [], []))
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(6):
        cuts = []
        for i in range(NUM_CLIPS // 6):
            name, seconds = f"clip-{shard}-{i}", 1.0 + (7 * shard + 3 * i) % 9
            cuts.append(silent_cut(name, seconds))
        CutSet.from_cuts(cuts).to_file(folder / f"train.{shard:03d}.jsonl.gz")
    return folder


def settings(folder, **changes) -> DataConfig:
    fixed = {"max_seconds": 20.0, "max_cuts": 3, "num_buckets": 3, "lazy": "always", "buffer_clips": 9}
    return DataConfig(**{"train": str(folder)} | fixed | changes)


def epoch(batches: TrainingBatches) -> list[str]:
    """Return the clip ids of the rest of the current epoch."""
    names, number = [], batches.epoch
    for batch in batches:
        if batches.epoch != number:
            return names
        names += batch.ids
    raise AssertionError("training batches came to an end")


@pytest.fixture
def counted(monkeypatch):
    """Return a list that gets the id of every cut read from now on."""
    read = []
    check = clips.check
    monkeypatch.setattr(clips, "check", lambda item, *rest: read.append(item["id"]) or check(item, *rest))
    return read

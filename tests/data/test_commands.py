"""Manifests whose audio is a shell command: no command runs, and the clip is counted with its reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from arkasr.data.batches import load_batch
from arkasr.data.manifests import read_cuts
from arkasr.data.reasons import COMMAND

RATE, SECONDS = 16000, 0.5


def cut(name: str, kind: str, source: str, transforms: list | None = None) -> dict:
    """Return a cut whose recording has one source."""
    one = {"id": name, "recording_id": name, "start": 0, "duration": SECONDS, "channel": 0}
    recording = {
        "id": name,
        "sources": [{"type": kind, "channels": [0], "source": source}],
        "sampling_rate": RATE,
        "num_samples": int(RATE * SECONDS),
        "duration": SECONDS,
        "channel_ids": [0],
    }
    return {
        "id": name,
        "type": "MonoCut",
        "start": 0,
        "duration": SECONDS,
        "channel": 0,
        "supervisions": [one | {"text": "one", "language": "English"}],
        "recording": recording | ({"transforms": transforms} if transforms else {}),
    }


def mixed(first: dict, second: dict) -> dict:
    tracks = [{"cut": first, "offset": 0.0, "type": "MonoCut"}]
    tracks.append({"cut": second | {"supervisions": []}, "offset": 0.1, "type": "MonoCut"})
    return {"id": "mixed", "type": "MixedCut", "tracks": tracks}


@pytest.fixture
def audio(tmp_path):
    path = tmp_path / "audio.flac"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, int(RATE * SECONDS)), RATE)
    return path


@pytest.mark.parametrize("case", ["command", "pipe", "sph", "standard input", "reverberation", "track"])
def test_no_command_of_a_manifest_runs(case, audio, tmp_path):
    mark = tmp_path / "ran"
    command = f"touch {mark}; cat {audio}"
    response = cut("r", "command", command)["recording"]
    reverberation = {"rir": response, "normalize_output": True, "early_only": False, "rir_channels": [0]}
    cases = {
        "command": cut("a", "command", command),
        "pipe": cut("a", "url", f"pipe:{command}"),
        "sph": cut("a", "file", f"x;touch {mark};.sph"),
        "standard input": cut("a", "url", "-"),
        "reverberation": cut("a", "file", str(audio), [{"name": "ReverbWithImpulseResponse", "kwargs": reverberation}]),
        "track": mixed(cut("a", "file", str(audio)), cut("b", "command", command)),
    }
    manifest = tmp_path / "cuts.jsonl"
    manifest.write_text(json.dumps(cases[case]) + "\n", encoding="utf-8")
    batch = load_batch(list(read_cuts(str(manifest))))
    assert not batch.ids
    assert [failure.kind for failure in batch.failures] == [COMMAND]
    assert not mark.exists()


def test_files_and_mixtures_of_files_are_read(audio, tmp_path):
    manifest = tmp_path / "cuts.jsonl"
    cuts = [cut("a", "file", str(audio)), mixed(cut("b", "file", str(audio)), cut("c", "file", str(audio)))]
    manifest.write_text("".join(json.dumps(each) + "\n" for each in cuts), encoding="utf-8")
    batch = load_batch(list(read_cuts(str(manifest))))
    assert batch.ids == ["a", "mixed"]
    assert not batch.failures

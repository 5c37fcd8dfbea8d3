"""Test sets of --test_sets whose audio stands in the training cuts of the experiment."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from decoded import ENGLISH, cut, write_data
from json_lines import write_lines

from arkasr.corpora import prepared_leaks
from arkasr.errors import UserError
from arkasr.evaluation.chosen_sets import chosen_sets
from arkasr.evaluation.unseen import require_unseen


def write_cut(path, name, seed):
    """Write a manifest of one clip of noise."""
    samples = np.random.default_rng(seed).integers(-9000, 9000, 16000, dtype=np.int16)
    soundfile.write(path.with_name(f"{name}.wav"), samples, 16000, subtype="PCM_16")
    item = cut(name, "a dog", "English")
    item["recording"]["sources"] = [{"type": "file", "channels": [0], "source": str(path.with_name(f"{name}.wav"))}]
    write_lines(path, [item])


def test_audio_of_the_training_cuts_is_refused_and_other_audio_is_compared_once(tmp_path, monkeypatch):
    data, exp = write_data(tmp_path / "data", "own", {"test": {"t": "a"}}, ENGLISH), tmp_path / "exp"
    write_cut(data / "train.jsonl", "a", 1)
    (data / "train.jsonl").rename(data / "train.jsonl.gz")  # compression is recognised by content
    for name, seed in (("copy", 1), ("new", 2)):
        write_cut(tmp_path / f"{name}.jsonl", name, seed)
    new, copy = (chosen_sets(str(exp), str(data), [f"calls={tmp_path / name}.jsonl"]) for name in ("new", "copy"))
    with pytest.raises(UserError, match=r"--test_sets calls=.*copy.jsonl: 1 cuts of calls also stand in .*a.wav"):
        require_unseen(str(exp), str(data), copy)
    require_unseen(str(exp), str(data), new)
    monkeypatch.setattr(prepared_leaks, "rows", None)
    require_unseen(str(exp), str(data), new)
    with pytest.raises(TypeError):
        require_unseen(str(exp), str(data), copy)  # a finding is not noted as compared


def test_nothing_is_compared_without_training_cuts(tmp_path):
    data = write_data(tmp_path / "data", "own", {"test": {"t": "a"}}, ENGLISH)
    require_unseen(str(tmp_path / "exp"), str(data), chosen_sets(str(tmp_path / "exp"), str(data), []))
    assert not (tmp_path / "exp").exists()

"""The synthetic corpora: layouts and seeds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from synthetic_corpus import SIZES, contents, tiny

from arkasr.corpora.download import download


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_corpus_bytes_depend_on_the_seed_only(tmp_path, name):
    pytest.importorskip("espeakng_loader")
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        download(tiny(tmp_path, name, seed), "mini", str(tmp_path / folder))
    one, two, other = (contents(tmp_path / folder) for folder in "abc")
    assert one == two
    assert one.keys() == other.keys()
    audio = [path for path in one if path.endswith((".flac", ".wav", ".opus"))]
    assert audio and all(one[path] != other[path] for path in audio)
    for path in audio:
        samples, rate = soundfile.read(tmp_path / "a" / path)
        assert rate == 16000 and samples.ndim == 1
        assert np.sqrt(np.mean(samples**2)) > 0.005 and np.abs(samples).max() < 1


@pytest.mark.slow
def test_wenetspeech_subsets_are_nested_and_complete(tmp_path):
    pytest.importorskip("espeakng_loader")
    download(tiny(tmp_path, "wenetspeech"), "mini", str(tmp_path / "c"))
    audios = json.loads((tmp_path / "c" / "WenetSpeech.json").read_text())["audios"]
    subsets = [set(segment["subsets"]) for audio in audios for segment in audio["segments"]]
    count = {name: sum(name in each for each in subsets) for name in ("L", "M", "S", "DEV", "TEST_NET", "TEST_MEETING")}
    assert count == {"L": 8, "M": 4, "S": 2, "DEV": 2, "TEST_NET": 2, "TEST_MEETING": 2}
    assert all("M" in each for each in subsets if "S" in each) and all("L" in each for each in subsets if "M" in each)
    for audio in audios:
        assert soundfile.info(tmp_path / "c" / audio["path"]).frames == round(audio["duration"] * 16000)
        ends = [0.0] + [s["end_time"] for s in audio["segments"]]
        assert all(s["begin_time"] > end for s, end in zip(audio["segments"], ends))
        assert ends[-1] <= audio["duration"]

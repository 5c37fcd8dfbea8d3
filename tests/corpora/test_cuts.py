"""The cuts of stage 1: equal to those of Lhotse's recipes, and with the text case and the channels of corpus.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora_on_disk import CASES, MAKERS, case, cuts, cuts_by_id, librispeech, recipe, run, tone, wenetspeech
from lhotse import CutSet
from lhotse.recipes import prepare_aishell, prepare_librispeech, prepare_wenet_speech

from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.data_dir import LINK
from arkasr.data.batches import load_batch
from arkasr.scoring.profiles import find_profile

RECIPES = {"librispeech": prepare_librispeech, "aishell": prepare_aishell, "wenetspeech": prepare_wenet_speech}
PARTS = {
    "librispeech": {"train": ["train-clean-5"], "dev": ["dev-clean-2"], "test-clean": ["test-clean"]},
    "aishell": {"train": ["train"], "dev": ["dev"], "test": ["test"]},
    "wenetspeech": {"train": ["L"], "dev": ["DEV"], "test-net": ["TEST_NET"], "test-meeting": ["TEST_MEETING"]},
}


def reference_cuts(name: str, root: Path, parts: list[str]) -> Iterator[dict]:
    """Run Lhotse's recipe, and cut its recordings at their supervisions."""
    options = {} if name == "aishell" else {"dataset_parts": parts}
    manifests = RECIPES[name](root, **options)
    for part in parts:
        for cut in CutSet.from_manifests(**manifests[part]).trim_to_supervisions(keep_overlapping=False):
            cut = cut.map_supervisions(lambda s: s.transform_text(lambda text: " ".join(text.split())))
            cut = cut.with_id(cut.supervisions[0].id)
            yield (cut if cut.sampling_rate == 16000 else cut.resample(16000)).to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name, rate", [*((name, 16000) for name in MAKERS), ("librispeech", 8000)])
def test_cuts_equal_those_of_lhotses_recipe(tmp_path, name, rate):
    root = librispeech(tmp_path / "c", rate=rate) if rate != 16000 else MAKERS[name](tmp_path / "c")
    if name == "aishell":  # Lhotse unifies these letters
        transcript = next(root.rglob("*.txt"))
        transcript.write_text(transcript.read_text().replace("看书", "ａ b Ｔ t书"), encoding="utf-8")  # noqa: RUF001
    run(name, root, tmp_path / "data")
    for each, parts in PARTS[name].items():
        written = [cut.to_dict() for cut in cuts_by_id(tmp_path / "data", each)]
        for cut in written:
            source = cut["recording"]["sources"][0]
            source["source"] = str(root / Path(source["source"]).relative_to(tmp_path / "data" / LINK))
        expected = sorted(reference_cuts(name, root, parts), key=lambda cut: cut["id"])
        assert written == expected and len(written) >= 3


@pytest.mark.slow
def test_segments_of_one_recording_end_with_it(tmp_path):
    root = wenetspeech(tmp_path / "c")
    run("wenetspeech", root, tmp_path / "data")
    for cut in cuts(tmp_path / "data", "train"):
        assert cut.recording_id == "YL" and cut.duration == 0.75 and cut.load_audio().shape == (1, 12000)


@pytest.mark.parametrize("policy, text", [("keep", "Red DOGS"), ("lower", "red dogs"), ("upper", "RED DOGS")])
def test_text_case_is_applied_to_all_sets_and_recorded(tmp_path, policy, text):
    root = librispeech(tmp_path / "c")
    for transcript in root.rglob("*.txt"):
        transcript.write_text(transcript.read_text().replace("RED", "Red"))
    yaml = recipe(tmp_path, "librispeech", ("text_case: keep", f"text_case: {policy}"))
    facts = run("librispeech", root, tmp_path / "data", yaml)
    assert facts["text_case"] == policy
    for name in ("train", "dev", "test-clean"):
        assert text in {cut.supervisions[0].text for cut in cuts(tmp_path / "data", name)}
    profile = find_profile(facts["profiles"][0])
    assert profile.normalize(text, "English") == profile.normalize(
        "RED DOGS", "English"
    )  # scores do not depend on the case


def test_librispeech_is_lower_case_at_paper_scale_only():
    scales = read_corpus_yaml(Path(__file__).parents[2] / "egs" / "librispeech" / "corpus.yaml").scales
    assert (scales.mini.text_case, scales.paper.text_case) == ("keep", "lower")


def stereo(root: Path) -> Path:
    """Write LibriSpeech's layout. One training file has a silent left and a loud right channel."""
    librispeech(root)
    path = sorted((root / "train-clean-5").rglob("*.flac"))[0]
    soundfile.write(path, np.stack([np.zeros(8000), tone(0.5)], axis=1), 16000)
    return root


@pytest.mark.parametrize("policy, channel", [("mix", [0, 1]), (0, 0), (1, 1)])
def test_channels_select_or_mix_the_channels_of_stereo_audio(tmp_path, capsys, policy, channel):
    yaml = recipe(tmp_path, "librispeech", ("channels: mix", f"channels: {policy}"))
    facts = run("librispeech", stereo(tmp_path / "c"), tmp_path / "data", yaml)
    assert facts["channels"] == {"policy": policy, "files": 1}
    assert "1 audio files have several channels: " in capsys.readouterr().out
    first, second = cuts_by_id(tmp_path / "data", "train")[:2]
    assert (first.channel, second.channel) == (channel, 0)
    samples = first.load_audio().mean(axis=0)
    expected = {"mix": tone(0.5) / 2, 0: np.zeros(8000), 1: tone(0.5)}[policy]
    assert np.allclose(samples, expected, atol=1e-4)


def test_stereo_audio_is_refused_with_a_count(tmp_path):
    yaml = recipe(tmp_path, "librispeech", ("channels: mix", "channels: refuse"))
    facts = run("librispeech", stereo(tmp_path / "c"), tmp_path / "data", yaml)
    assert facts["sets"]["train"]["dropped"] == {"audio has several channels": 1}
    yaml = recipe(tmp_path, "librispeech", ("channels: mix", "channels: 2"))
    facts = run("librispeech", tmp_path / "c", tmp_path / "data", yaml)
    assert facts["sets"]["train"]["dropped"] == {"audio has no channel 2": 1}


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases at {CASES}")
def test_case_08_reaches_training_with_sound(tmp_path):
    run("librispeech", case(tmp_path / "c", "08-stereo"), tmp_path / "data")
    batch = load_batch(cuts(tmp_path / "data", "train"))
    assert batch.num_failed == 0 and all(waveform.abs().max() > 0.01 for waveform in batch.waveforms)

"""Channels: which of them a clip uses under each policy, measured on audio whose channels differ."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from corpus_fixture import write_cuts
from lhotse import MonoCut, MultiCut, Recording, SupervisionSegment

from arkasr.config.schema import DataConfig
from arkasr.data.batches import load_batch
from arkasr.data.checks import Rules
from arkasr.data.manifests import read_cuts
from arkasr.data.training_cuts import InMemory, OnDisk
from arkasr.errors import UserError

RATE = 16000


@pytest.fixture
def stereo(tmp_path):
    """Return 2 s of audio [2, 32000] and the recording that holds it."""
    audio = np.random.default_rng(7).uniform(-0.5, 0.5, (2, 2 * RATE)).astype(np.float32)
    soundfile.write(tmp_path / "two.wav", audio.T, RATE, subtype="FLOAT")
    return audio, Recording.from_file(tmp_path / "two.wav")


def supervision(start=0.0, duration=2.0, channel=0, text="one") -> SupervisionSegment:
    return SupervisionSegment(text, "two", start, duration, channel, text=text, language="English")


def cut_on(recording: Recording, channel: int | list[int], *supervisions: SupervisionSegment):
    kind = MonoCut if isinstance(channel, int) else MultiCut
    return kind("a", 0.0, recording.duration, channel, list(supervisions or [supervision()]), recording=recording)


def loaded(tmp_path, cut, policy):
    """Load a cut through every reader and return their equal batches as one."""
    path = write_cuts(tmp_path / f"{policy}.jsonl.gz", [cut])
    config = DataConfig(train=path, channels=policy)
    clips = [clip.cut() for shard in range(OnDisk(config).num_shards) for _, clip in OnDisk(config).read(shard, 0)]
    batches = [load_batch(cuts) for cuts in (InMemory(config).cuts, clips, read_cuts(path, Rules.of(config)))]
    for batch in batches[1:]:
        assert (batch.ids, batch.failures) == (batches[0].ids, batches[0].failures)
        assert all(map(np.array_equal, batch.waveforms, batches[0].waveforms))
    return batches[0]


@pytest.mark.parametrize("policy", ["auto", "mix", "0", 1])
@pytest.mark.parametrize("channel", [0, 1, [0, 1]])
def test_policy_chooses_the_channels(stereo, tmp_path, capsys, policy, channel):
    audio, recording = stereo
    expected = {"mix": audio.mean(axis=0), "0": audio[0], 1: audio[1]}
    expected["auto"] = audio[channel] if isinstance(channel, int) else audio.mean(axis=0)
    batch = loaded(tmp_path, cut_on(recording, channel), policy)
    np.testing.assert_allclose(batch.waveforms[0], expected[policy], atol=1e-7)
    mixed = "have several channels, which are mixed into one (data.channels)"
    note = {"mix": mixed, "0": "use channel 0 (data.channels)", 1: "use channel 1 (data.channels)"}
    note["auto"] = mixed if isinstance(channel, list) else "use one channel of several, because the manifest selects it"
    assert capsys.readouterr().out.count(f"{tmp_path}/{policy}.jsonl.gz: 1 of 1 cuts {note[policy]}") == 1


@pytest.mark.parametrize("channel", [0, [0, 1]])
@pytest.mark.parametrize("policy", ["refuse", "2"])
def test_policy_refuses_cuts(stereo, tmp_path, policy, channel):
    good = Recording.from_file(tmp_path / "two.wav").to_cut().to_mono()[0]
    soundfile.write(tmp_path / "one.wav", stereo[0][0], RATE)
    good = MonoCut("good", 0.0, 2.0, 0, [supervision()], recording=Recording.from_file(tmp_path / "one.wav"))
    path = write_cuts(tmp_path / "a.jsonl.gz", [cut_on(stereo[1], channel), good])
    batch = load_batch(read_cuts(path, Rules(policy)))
    (failure,) = batch.failures
    detail = {"refuse": "2 channels, and data.channels=refuse", "2": "no channel 2, only 0, 1; correct data.channels"}
    assert (batch.ids, failure.id, failure.kind, failure.detail) == (["good"], "a", "several channels", detail[policy])


def test_speakers_on_their_own_channels_are_kept_apart(stereo, tmp_path, capsys):
    audio, recording = stereo
    call = cut_on(recording, [0, 1], supervision(0.0, 1.5, 0, "hello"), supervision(1.0, 1.0, 1, "yes"))
    batch = loaded(tmp_path, call, "auto")
    assert batch.texts == ["hello", "yes"]
    np.testing.assert_array_equal(batch.waveforms[0], audio[0, :24000])
    np.testing.assert_array_equal(batch.waveforms[1], audio[1, 16000:])
    output = capsys.readouterr().out
    assert "2 of 2 cuts use one channel of several" in output and "overlap" not in output
    np.testing.assert_allclose(loaded(tmp_path, call, "mix").waveforms[1], audio.mean(axis=0)[16000:], atol=1e-7)


def test_supervisions_of_one_channel_do_not_select_it(stereo, tmp_path):
    """Lhotse's recipes put every supervision on channel 0, so this is no choice."""
    audio, recording = stereo
    parts = supervision(0.0, 1.0, 0, "hello"), supervision(1.0, 1.0, 0, "yes")
    batch = loaded(tmp_path, cut_on(recording, [0, 1], *parts), "auto")
    np.testing.assert_allclose(batch.waveforms[1], audio.mean(axis=0)[16000:], atol=1e-7)


def test_mixtures_of_several_channels_follow_the_policy(stereo, tmp_path):
    audio, recording = stereo
    path = write_cuts(tmp_path / "a.jsonl.gz", [cut_on(recording, [0, 1]).pad(duration=3.0)])
    batch = load_batch(read_cuts(path))
    np.testing.assert_allclose(batch.waveforms[0], audio.mean(axis=0), atol=1e-6)
    assert [one.kind for one in load_batch(read_cuts(path, Rules("refuse"))).failures] == ["several channels"]


def test_silent_left_channel_does_not_silence_the_clip(stereo, tmp_path):
    audio, recording = stereo
    audio[0] = 0
    soundfile.write(tmp_path / "two.wav", audio.T, RATE, subtype="FLOAT")
    np.testing.assert_allclose(
        loaded(tmp_path, cut_on(recording, [0, 1]), "auto").waveforms[0], audio[1] / 2, atol=1e-7
    )
    kinds = [one.kind for one in load_batch([cut_on(recording, 0)]).failures]
    assert kinds == ["silent audio"]  # a manifest that selects the silent channel


@pytest.mark.parametrize("value", ["left", -1, 1.5, True, None, ""])
def test_channels_of_the_configuration_are_checked(value):
    with pytest.raises(ValueError, match="channels must be auto, mix, refuse or a channel number, got"):
        DataConfig(channels=value)
    assert DataConfig(channels=1).channels == DataConfig(channels="1").channels == "1"


def test_all_refused_is_an_error(stereo, tmp_path):
    path = write_cuts(tmp_path / "a.jsonl.gz", [cut_on(stereo[1], [0, 1])])
    with pytest.raises(UserError, match="no cut can be used: 1 several channels; the first is a, .*line 1"):
        InMemory(DataConfig(train=path, channels="refuse"))

"""Cuts of own audio in tables: formats, rates, channels, segments of long recordings, and audio that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora_on_disk import cuts, dropped, tone
from own_audio import FORMATS, clips

from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.layouts.registry import require_layout
from arkasr.corpora.prepare import prepare
from arkasr.errors import UserError

TRAIN = {"train": ["train"], "dev": [], "test": {}, "min_seconds": 0, "max_seconds": 100}


def read(root: Path, *rows: dict, channels: str | int = "mix") -> tuple[list, list[tuple[str, str]], dict]:
    """Prepare one training part. Return its cuts in the order of the rows, the dropped rows, and corpus.json."""
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yaml = root / "corpus.yaml"
    yaml.write_text(
        json.dumps({"name": "own", "layout": "jsonl", "language": "English", "channels": channels, **TRAIN})
    )
    prepare(str(yaml), "paper", str(root), str(root / "data"), 1)
    order = {entry.id: number for number, entry in enumerate(scan(yaml, root))}
    made = sorted(cuts(root / "data", "train"), key=lambda cut: order[cut.id])
    found = [(name, reason) for _, name, reason in dropped(root / "data")]
    return made, found, json.loads((root / "data" / "corpus.json").read_text())


def scan(yaml: Path, root: Path) -> list[Entry]:
    return list(require_layout(read_corpus_yaml(yaml), root).scan(["train"]))


FILES = [("a.wav", 8000, 1, {}), ("b.flac", 48000, 2, {}), ("c.ogg", 44100, 1, {}), ("d.mp3", 22050, 2, {}),
         ("e.opus", 24000, 1, {"format": "OGG", "subtype": "OPUS"}), ("f.aiff", 11025, 3, {}),
         ("g.wav", 16000, 1, {"subtype": "FLOAT"}), ("h.au", 16000, 1, {})]  # fmt: skip


def test_cuts_of_any_format_rate_and_channels_have_16_khz(tmp_path):
    for name, rate, channels, options in FILES:
        soundfile.write(tmp_path / name, tone(1.0, rate, channels), rate, **options)
    made, out, facts = read(tmp_path, *({"audio": name, "text": "hi"} for name, *_ in FILES))
    assert out == [] and facts["channels"] == {"policy": "mix", "files": 3}
    for cut, (_, _, channels, _) in zip(made, FILES, strict=True):
        audio = cut.load_audio()
        assert audio.shape[0] == channels and abs(audio.shape[1] - 16000) < 500  # MP3 pads
        assert 0.05 < np.abs(audio).max() < 0.2


@pytest.mark.parametrize("length", ["end", "duration"])
def test_segments_of_a_long_recording_are_its_samples(tmp_path, length):
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 20 * 16000).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", samples, 16000, subtype="FLOAT")
    spans = [(0.0, 1.5), (1.5, 2.25), (7.125, 20.0)]
    rows = [{"audio": "long.wav", "start": a, length: b - (a if length == "duration" else 0)} for a, b in spans]
    made, out, _ = read(tmp_path, *rows, {"audio": "long.wav", "start": 19.0}, {"audio": "long.wav"})
    assert out == [] and len({cut.id for cut in made}) == 5
    for cut, (begin, end) in zip(made, [*spans, (19.0, 20.0), (0.0, 20.0)], strict=True):
        np.testing.assert_array_equal(cut.load_audio()[0], samples[round(begin * 16000) : round(end * 16000)])
        assert cut.supervisions[0].text is None


def test_a_segment_may_end_a_little_after_its_recording(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2.0), 16000)
    rows = [{"audio": "a.wav", "start": 1.0, "end": end} for end in (2.05, 2.2)]
    made, out, _ = read(tmp_path, *rows)
    assert [cut.duration for cut in made] == [1.0]
    assert [reason for _, reason in out] == ["ends after its recording"]


def test_audio_that_cannot_be_used_is_dropped_with_a_reason(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0), 16000)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "folder.wav").mkdir()
    rows = {
        "audio file is missing": [{"audio": "none.wav"}, {"audio": "folder.wav"}],
        "audio is empty": [{"audio": "empty.wav"}],
        "audio cannot be read": [{"audio": "text.wav"}],
        "path of the audio is not UTF-8": [{"audio": "\ud800.wav"}],
        "ends after its recording": [{"audio": "a.wav", "end": 3}, {"audio": "a.wav", "start": 2}],
        "ends before it begins": [{"audio": "a.wav", "start": 0.5, "end": 0.5}],
        "begins before its recording": [{"audio": "a.wav", "start": -0.5, "end": 0.5}],
        "shorter than one sample": [{"audio": "a.wav", "start": 0.5, "end": 0.50001}],
        "a time is not a finite number": [{"audio": "a.wav", "start": float("nan")}],
        "repeated id": [{"audio": "a.wav"}, {"audio": "a.wav", "start": 0.1, "end": 0.2, "id": "x"}],
    }
    good = [{"audio": "a.wav"}, {"audio": "a.wav", "start": 0.2, "end": 0.4, "id": "x"}]
    made, out, facts = read(tmp_path, *good, *(row for each in rows.values() for row in each))
    assert len(made) == 2
    assert facts["sets"]["train"]["dropped"] == {reason: len(each) for reason, each in rows.items()}
    assert sorted(reason for _, reason in out) == sorted(why for why, each in rows.items() for _ in each)
    assert ("train.jsonl:13", "a time is not a finite number") in out


@pytest.mark.parametrize("channels, reason", [("refuse", "audio has several channels"), (1, ""), ("mix", "")])
def test_the_key_channels_holds_for_tables(tmp_path, channels, reason):
    soundfile.write(tmp_path / "one.wav", tone(0.5), 16000)
    two = np.stack([tone(0.5), 0.5 * tone(0.5)], axis=1)
    soundfile.write(tmp_path / "two.wav", two, 16000, subtype="FLOAT")
    made, out, _ = read(tmp_path, {"audio": "one.wav"}, {"audio": "two.wav"}, channels=channels)
    assert [why for _, why in out] == ([reason] if reason else [])
    assert len(made) == 2 - bool(reason)
    if channels == 1:
        np.testing.assert_allclose(made[1].load_audio()[0], two[:, 1], atol=1e-6)


def test_language_speaker_and_missing_transcript_are_in_the_supervision(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    rows = [{"audio": "a.wav", "id": "1", "language": "de", "speaker": "s1", "text": "Guten Tag"},
            {"audio": "a.wav", "id": "2", "text": ""}]  # fmt: skip
    one, other = (cut.supervisions[0] for cut in read(tmp_path, *rows)[0])
    assert (one.language, one.speaker, one.text) == ("German", "s1", "Guten Tag")
    assert (other.language, other.speaker, other.text) == ("English", None, None)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_prepares_the_same_sets(tmp_path, name):
    write, layout = FORMATS[name]
    root, yaml, data = write(tmp_path / "c", untranscribed=2), tmp_path / "corpus.yaml", tmp_path / "data"
    yaml.write_text(f"name: own\nlayout: {layout}\nlanguage: en\n")
    prepare(str(yaml), "paper", str(root), str(data), 1)
    expected = clips(untranscribed=2)
    for each in ("train", "dev", "test"):
        mine = sorted((clip.text or None, clip.seconds) for clip in expected if clip.part == each and clip.text)
        found = [(cut.supervisions[0].text, cut.duration) for cut in cuts(data, each)]
        assert sorted(pair for pair in found if pair[0]) == mine
        assert len(found) == {"train": 6, "dev": 2, "test": 2}[each]
    facts = json.loads((data / "corpus.json").read_text())["sets"]
    assert [facts[each]["untranscribed"] for each in ("train", "base", "opd")] == [2, 0, 2]
    assert {cut.supervisions[0].language for cut in cuts(data, "train")} == {"English"} and dropped(data) == []


def test_a_part_without_a_usable_row_names_the_place_of_the_first(tmp_path):
    with pytest.raises(UserError, match=r"none of its 2 .*the first, train.jsonl:1: transcript is not text: .*a\.wav"):
        read(tmp_path, {"audio": "a.wav", "text": 7}, {"audio": "none.wav"})


@pytest.mark.parametrize("place", ["", "train.jsonl"])
def test_prepare_runs_again_only_if_a_table_changes(tmp_path, capsys, place):
    root = FORMATS["jsonl"][0](tmp_path / "c")
    yaml, data = tmp_path / "corpus.yaml", tmp_path / "data"
    yaml.write_text("name: own\nlayout: jsonl\nlanguage: en\n")

    def log_of_prepare(folder: Path) -> str:
        prepare(str(yaml), "paper", str(folder / place), str(data), 1)
        return capsys.readouterr().out

    assert "train: 6 cuts" in log_of_prepare(root)
    assert "already prepared" in log_of_prepare(root)
    with (root / "train.jsonl").open("a") as file:
        file.write('{"audio": "wavs/clip_00.wav", "start": 0.1}\n')
    assert "train: 7 cuts" in log_of_prepare(root)
    before = [cut.id for cut in cuts(data, "train")]
    root.rename(tmp_path / "moved")
    assert "the cuts now lead there" in log_of_prepare(tmp_path / "moved")
    assert [cut.id for cut in cuts(data, "train")] == before
    assert cuts(data, "train")[0].load_audio().shape[1] > 0

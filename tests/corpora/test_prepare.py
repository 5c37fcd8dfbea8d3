"""Stage 1 on small corpora in the three layouts, intact and damaged, and on real recordings."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora_on_disk import EGS, MAKERS, aishell, cuts, dropped, edit_json, librispeech, run, tone, wenetspeech

from arkasr.data.blocks import order_hash
from arkasr.errors import UserError

DIGITS = Path(__file__).parents[3] / "shared" / "speech" / "spoken-digits" / "LibriSpeech"


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_prepare_writes_ordered_16_khz_cuts_that_load(tmp_path, name):
    corpus = run(name, MAKERS[name](tmp_path / "c"), tmp_path / "data")
    assert corpus["test_sets"] == list(corpus["paper"])
    field = "leaderboard-2026-08" if name == "librispeech" else "wenet"
    assert corpus["profiles"] == ["unicode", "paper", field]
    for each in ("train", "base", "td", "dev", *corpus["test_sets"]):
        written = cuts(tmp_path / "data", each)
        assert corpus["sets"][each]["cuts"] == len(written) > 0
        ordered = sorted(written, key=lambda cut: cut.id)
        assert written == (
            sorted(ordered, key=lambda cut: order_hash(cut.id)) if each in ("train", "base", "td") else ordered
        )
        assert sum(cut.duration for cut in written) / 3600 == pytest.approx(corpus["sets"][each]["hours"], abs=1e-4)
        for cut in written:
            assert cut.load_audio().shape == (1, cut.num_samples) and cut.sampling_rate == 16000
            assert cut.id == cut.supervisions[0].id and os.path.isabs(cut.recording.sources[0].source)
            assert cut.supervisions[0].text in ("RED DOGS", "BLUE CATS", "老师看书", "小猫喝水")
    assert dropped(tmp_path / "data") == []


def test_base_and_td_are_disjoint_exact_and_reproducible(tmp_path):
    librispeech(tmp_path / "c")
    picks = []
    for data in ("one", "two"):
        run("librispeech", tmp_path / "c", tmp_path / data)
        picks.append([[cut.id for cut in cuts(tmp_path / data, each)] for each in ("train", "base", "td")])
    train, base, td = picks[0]
    assert picks[0] == picks[1]
    assert len(base) == len(td) == round(0.3 * len(train)) and not set(base) & set(td) and {*base, *td} <= set(train)


@pytest.mark.parametrize("rate, channels", [(8000, 1), (44100, 1), (16000, 2)])
def test_prepare_converts_other_rates_to_16_khz_and_keeps_all_channels_for_mixing(tmp_path, rate, channels):
    root = librispeech(tmp_path / "c")
    for path in root.rglob("*.flac"):
        soundfile.write(path, tone(0.5, rate, channels), rate)
    run("librispeech", root, tmp_path / "data")
    for cut in cuts(tmp_path / "data", "train"):
        samples = cut.load_audio()
        assert samples.shape == (channels, 8000) and cut.sampling_rate == 16000
        assert cut.channel == (0 if channels == 1 else [0, 1])


@pytest.mark.slow
def test_wenetspeech_rate_is_taken_from_the_header(tmp_path):
    run("wenetspeech", wenetspeech(tmp_path / "c", 48000), tmp_path / "data")
    for cut in cuts(tmp_path / "data", "test-net"):
        assert cut.load_audio().shape == (1, 12000) and cut.sampling_rate == 16000


def test_librispeech_drops_bad_input_with_its_reason(tmp_path):
    root = librispeech(tmp_path / "c")
    home = root / "train-clean-5" / "131" / "7"
    good = (home / "131-7-0000.flac").read_bytes()
    text = "".join(f"131-7-{i:04d} WORD\n" for i in (0, 1, 2, 3, 4, 6))
    text += "\n131-7-0007\n131-7-0000 AGAIN\n131-7-0008 MISSING\n"
    (home / "131-7.trans.txt").write_bytes(text.encode() + b"131-7-0009 \xff\xfe\n")
    soundfile.write(home / "131-7-0002.flac", np.zeros(0), 16000)
    (home / "131-7-0003.flac").write_bytes(b"")
    (home / "131-7-0004.flac").write_text("not audio at all")
    (home / "131-7-0006.flac").write_bytes(good[: len(good) // 2])
    for index in (5, 7, 9):
        (home / f"131-7-{index:04d}.flac").write_bytes(good)
    corpus = run("librispeech", root, tmp_path / "data")
    assert dropped(tmp_path / "data") == [
        ("train", "131-7-0000", "repeated id"),
        ("train", "131-7-0002", "audio is empty"),
        ("train", "131-7-0003", "audio is empty"),
        ("train", "131-7-0004", "audio cannot be read"),
        ("train", "131-7-0005", "audio without transcript"),
        ("train", "131-7-0006", "audio cannot be read"),
        ("train", "131-7-0007", "no text"),
        ("train", "131-7-0008", "audio file is missing"),
        ("train", "131-7-0009", "text is not UTF-8"),
    ]
    kept = sorted(cut.id for cut in cuts(tmp_path / "data", "train"))
    assert kept == ["131-7-0000", "131-7-0001", "132-7-0000", "132-7-0001"]
    assert sum(corpus["sets"]["train"]["dropped"].values()) == 9
    for cut in cuts(tmp_path / "data", "train"):
        source = Path(cut.recording.sources[0].source)
        assert source.is_relative_to(tmp_path / "data" / "corpus") and source.resolve().is_relative_to(root)
        assert cut.load_audio().size


def test_aishell_drops_bad_input_with_its_reason(tmp_path):
    root = aishell(tmp_path / "c")
    transcript = root / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt"
    wav = root / "data_aishell" / "wav"
    with transcript.open("a", encoding="utf-8") as file:
        file.write("\nBAC009S0002W0009 喝 水\nBAC009S0724W0007\nBAC009S0764W0008 喝 水\n")
    for part, name in (("dev/S0724", "S0724W0007"), ("test/S0764", "S0764W0008"), ("test/S0764", "S0764W0009")):
        soundfile.write(wav / part / f"BAC009{name}.wav", tone(0.5), 16000)
    (wav / "test/S0764/BAC009S0764W0008.wav").write_bytes(b"RIFF")
    run("aishell", root, tmp_path / "data")
    assert dropped(tmp_path / "data") == [
        ("dev", "BAC009S0724W0007", "no text"),
        ("test", "BAC009S0764W0008", "audio cannot be read"),
        ("test", "BAC009S0764W0009", "audio without transcript"),
        ("train", "BAC009S0002W0009", "audio file is missing"),
    ]
    assert len(cuts(tmp_path / "data", "test")) == 3


@pytest.mark.slow
def test_wenetspeech_drops_bad_input_with_its_reason(tmp_path):
    root = wenetspeech(tmp_path / "c")

    def damage(audios: list[dict]) -> None:
        template = audios[0]["segments"][0]
        changes = [
            {"text": " "}, {"text": "<MUSIC>"}, {"end_time": 9.0}, {"begin_time": 3.0, "end_time": 2.0},
            {"text": "喝水<PERIOD>"}, {"end_time": 4.05, "begin_time": 3.0},
        ]  # fmt: skip
        audios[0]["segments"] += [{**template, **change, "sid": f"bad{i}"} for i, change in enumerate(changes)]
        audios[0]["segments"].append({"sid": "bad6", "subsets": ["L"], "text": "喝水"})
        gone = {**audios[0], "aid": "gone", "path": "audio/gone.opus"}
        audios.append({**gone, "segments": [{**template, "sid": "bad7"}]})

    edit_json(root, damage)
    run("wenetspeech", root, tmp_path / "data")
    assert dropped(tmp_path / "data") == [
        ("train", "bad0", "no text"),
        ("train", "bad1", "no text"),
        ("train", "bad2", "ends after its recording"),
        ("train", "bad3", "ends before it begins"),
        ("train", "bad6", "a field is missing in the transcript"),
        ("train", "bad7", "audio file is missing"),
    ]
    kept = {cut.id: cut for cut in cuts(tmp_path / "data", "train")}
    assert kept["bad4"].supervisions[0].text == "喝水"
    assert kept["bad5"].end == pytest.approx(4.0) and kept["bad5"].load_audio().shape == (1, 16000)


def test_ids_are_unique_within_one_set_only(tmp_path):
    root = librispeech(tmp_path / "c")
    for part in ("train-clean-100", "test-clean"):
        home = root / part / "131" / "7"
        home.mkdir(parents=True)
        soundfile.write(home / "131-7-0000.flac", tone(0.9), 16000)
        soundfile.write(home / "131-7-0009.flac", tone(0.5) * (0.5 if part == "test-clean" else 1.0), 16000)
        (home / "131-7.trans.txt").write_text("131-7-0000 RED DOGS\n131-7-0009 RED DOGS\n")
    run("librispeech", root, tmp_path / "data")
    assert dropped(tmp_path / "data") == [("train", "131-7-0000", "repeated id")]
    train = {cut.id: cut for cut in cuts(tmp_path / "data", "train")}
    assert len(train) == 5 and train["131-7-0000"].duration == 0.5
    assert len(cuts(tmp_path / "data", "test-clean")) == 6


def test_only_training_cuts_are_dropped_by_length(tmp_path):
    root = librispeech(tmp_path / "c")
    for part in ("train-clean-5", "test-clean"):
        path = next((root / part).rglob("*0000.flac"))
        soundfile.write(path, tone(0.1), 16000)
    soundfile.write(next((root / "train-clean-5").rglob("*0001.flac")), tone(21), 16000)
    corpus = run("librispeech", root, tmp_path / "data")
    assert corpus["sets"]["train"]["dropped"] == {"shorter than 0.3 s": 1, "longer than 20 s": 1}
    assert corpus["sets"]["test-clean"]["cuts"] == 4


def test_prepare_warns_when_many_utterances_are_dropped(tmp_path, capsys):
    root = librispeech(tmp_path / "c")
    next((root / "dev-clean-2").rglob("*.flac")).write_bytes(b"")
    run("librispeech", root, tmp_path / "data")
    out = capsys.readouterr().out
    assert "warning: dev: 1 of 4 utterances were dropped" in out
    assert re.search(r"dev: 3 cuts, \d+ s, 2 speakers; dropped 1: 1 audio is empty", out)


def test_prepare_does_nothing_until_an_input_changes(tmp_path, capsys):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    broken = next((root / "train-clean-5").rglob("*.flac"))
    good = broken.read_bytes()
    broken.write_bytes(b"")
    run("librispeech", root, data)

    def redone() -> bool:
        before = (data / "train.jsonl.gz").stat().st_mtime_ns
        run("librispeech", root, data)
        changed = (data / "train.jsonl.gz").stat().st_mtime_ns != before
        assert changed != ("is already prepared" in capsys.readouterr().out)
        return changed

    capsys.readouterr()
    assert not redone()
    broken.write_bytes(good)  # repair the damaged file
    assert redone()
    assert dropped(data) == [] and not redone()
    transcript = next((root / "dev-clean-2").rglob("*.trans.txt"))
    transcript.write_text(transcript.read_text().replace("RED", "GREEN"))
    assert redone() and "GREEN DOGS" in {cut.supervisions[0].text for cut in cuts(data, "dev")}
    librispeech(root, parts=("test-other",))
    assert redone() and len(cuts(data, "test-other")) == 4
    (data / "base.jsonl.gz").unlink()
    assert redone() and (data / "base.jsonl.gz").exists()


def test_interrupted_prepare_leaves_no_marker_and_can_be_repeated(tmp_path, monkeypatch):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    real, calls = os.replace, []

    def full_disk(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run("librispeech", root, data)
    assert not (data / "corpus.json").exists()
    monkeypatch.undo()
    assert run("librispeech", root, data)["sets"]["train"]["cuts"] == 4


def test_prepare_refuses_a_data_directory_of_another_corpus(tmp_path):
    run("librispeech", librispeech(tmp_path / "one"), tmp_path / "data")
    before = (tmp_path / "data" / "corpus.json").read_text()
    with pytest.raises(UserError, match=r"holds librispeech at .* from .*one, not .*two; use another --datadir"):
        run("librispeech", librispeech(tmp_path / "two"), tmp_path / "data")
    with pytest.raises(UserError, match="not aishell at scale mini"):
        run("aishell", aishell(tmp_path / "three"), tmp_path / "data")
    assert (tmp_path / "data" / "corpus.json").read_text() == before


def test_missing_directory_and_other_layout_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file or folder; run stage 0 .*--corpus_dir"):
        run("aishell", tmp_path / "nowhere", tmp_path / "data")
    with pytest.raises(UserError, match="not the aishell corpus.*layout librispeech, so set `layout` or use"):
        run("aishell", librispeech(tmp_path / "c"), tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="name the directory that holds it"):
        run("wenetspeech", tmp_path / "empty", tmp_path / "data")


def test_prepare_finds_the_subfolder_of_lhotses_download(tmp_path):
    librispeech(tmp_path / "c" / "LibriSpeech")
    aishell(tmp_path / "d" / "aishell")
    assert run("librispeech", tmp_path / "c", tmp_path / "data")["corpus_dir"] == str(tmp_path / "c")
    assert run("aishell", tmp_path / "d", tmp_path / "data2")["sets"]["dev"]["cuts"] == 3


def test_prepare_uses_the_parts_on_disk_and_names_missing_ones(tmp_path):
    own = librispeech(tmp_path / "own", parts=("train-clean-100", "train-clean-360", "dev-clean", "test-other"))
    text = (EGS / "librispeech" / "corpus.yaml").read_text()
    (tmp_path / "corpus.yaml").write_text(text.replace("train-", "x-").replace("dev-", "x-dev-").replace("test-", "y-"))
    with pytest.raises(UserError, match="of the parts of the keys `train` .*`dev` .*`test` .*; it has dev-clean, test"):
        run("librispeech", own, tmp_path / "data", str(tmp_path / "corpus.yaml"))
    corpus = run("librispeech", own, tmp_path / "data2")
    assert corpus["sets"]["train"]["cuts"] == 8 and corpus["sets"]["train"]["speakers"] == 4
    assert corpus["test_sets"] == ["test-other"] and corpus["paper"] == {"test-other": None}


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_part_without_usable_utterance_is_an_error_with_the_first_reason(tmp_path, name):
    root = MAKERS[name](tmp_path / "c")
    part = {"librispeech": "dev-clean-2", "aishell": "data_aishell/wav/dev", "wenetspeech": "audio/dev"}[name]
    for path in (root / part).rglob("*.*"):
        if path.suffix in (".flac", ".wav", ".opus"):
            path.write_bytes(b"")
    with pytest.raises(UserError, match=r"(?i)dev.*: none of its \d utterances .*; the first, .*: audio is empty: /"):
        run(name, root, tmp_path / "data")
    assert not (tmp_path / "data" / "corpus.json").exists()


@pytest.mark.slow
def test_invalid_wenetspeech_json_is_named(tmp_path):
    root = wenetspeech(tmp_path / "c")
    (root / "WenetSpeech.json").write_text('{"audios": [')
    with pytest.raises(UserError, match="WenetSpeech.json: not JSON"):
        run("wenetspeech", root, tmp_path / "data")


@pytest.mark.slow
@pytest.mark.skipif(not DIGITS.is_dir(), reason=f"no real recordings at {DIGITS}")
def test_prepare_resamples_real_recordings_at_8_khz(tmp_path):
    corpus = run("librispeech", DIGITS, tmp_path / "data")
    assert {name: counts["cuts"] for name, counts in corpus["sets"].items()} == {
        "train": 1200, "base": 360, "td": 360, "opd": 360, "dev": 80, "test-clean": 200,
    }  # fmt: skip
    assert corpus["sets"]["train"]["speakers"] == 4 and corpus["test_sets"] == ["test-clean"]
    for cut in cuts(tmp_path / "data", "dev")[:5]:
        samples = cut.load_audio()
        assert samples.shape == (1, cut.num_samples) and np.sqrt(np.mean(samples**2)) > 0.01

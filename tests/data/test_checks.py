"""Checks of cuts: each supervision becomes one clip with its audio, text and language, or is refused and counted."""

from __future__ import annotations

import copy
import functools
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from corpus_fixture import cut_of, evaluation_batches, write_cuts
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from arkasr.config.schema import DataConfig
from arkasr.data.batches import Batch, load_batch
from arkasr.data.checks import Rules
from arkasr.data.manifests import read_cuts
from arkasr.data.training_cuts import InMemory, OnDisk
from arkasr.errors import UserError

RATE = 16000
AUDIO = np.random.default_rng(5).uniform(-0.5, 0.5, 4 * RATE).astype(np.float32)  # 4 s


def segment(start: float, duration: float, text: str | None = "one", **facts) -> SupervisionSegment:
    values = {"language": "English", "speaker": "s1"} | facts
    return SupervisionSegment(f"s-{start:g}-{text}", "long", start, duration, text=text, **values)


def manifest(folder: Path, *supervisions: SupervisionSegment, name: str = "cuts.jsonl.gz") -> str:
    """Write a manifest with one cut of 4 s that has these supervisions."""
    cut = cut_of(folder / "long.wav", AUDIO, "")
    cut.supervisions = list(supervisions)
    return write_cuts(folder / name, [cut])


def config(path: str, **changes) -> DataConfig:
    return DataConfig(**{"train": path, "min_clip_seconds": 0.1, "max_clip_seconds": 30.0} | changes)


def every_reader(path: str, **changes) -> list[Batch]:
    """Read a manifest in every way and load the audio of all clips as one batch each."""
    settings = config(path, **changes)
    on_disk = OnDisk(settings)
    clips = [clip.cut() for shard in range(on_disk.num_shards) for _, clip in on_disk.read(shard, 0)]
    return [load_batch(cuts) for cuts in (InMemory(settings).cuts, clips, read_cuts(path, Rules.of(settings)))]


def test_supervisions_become_clips_of_their_audio(tmp_path, capsys):
    parts = [segment(0.0, 1.25, "one"), segment(1.25, 1.0, "two"), segment(3.0, 1.0, "three")]
    path = manifest(tmp_path, *parts)
    for batch in every_reader(path):
        assert (batch.ids, batch.texts) == (["long-0", "long-1", "long-2"], ["one", "two", "three"])
        for waveform, part in zip(batch.waveforms, parts):
            np.testing.assert_array_equal(waveform, AUDIO[round(part.start * RATE) : round(part.end * RATE)])
    (batch,) = evaluation_batches(path, 100.0)
    assert sorted(zip(batch.texts, map(len, batch.waveforms))) == [("one", 20000), ("three", 16000), ("two", 16000)]
    output = capsys.readouterr().out
    assert f"{path}: 3 of 3 cuts come from cuts with several supervisions, which become one clip each" in output
    assert "overlap" not in output and output.count("several supervisions") == 1  # logged once per process


def test_overlapping_supervisions_are_counted(tmp_path, capsys):
    for batch in every_reader(manifest(tmp_path, segment(0.0, 2.0, "one"), segment(1.5, 2.5, "two"))):
        assert batch.texts == ["one", "two"] and [len(w) for w in batch.waveforms] == [2 * RATE, 2.5 * RATE]
    assert "2 of 2 cuts overlap with another supervision" in capsys.readouterr().out


def test_partial_supervision_trims_the_cut(tmp_path, capsys):
    for batch in every_reader(manifest(tmp_path, segment(1.0, 2.0))):
        assert batch.ids == ["long"] and batch.num_failed == 0
        np.testing.assert_array_equal(batch.waveforms[0], AUDIO[RATE : 3 * RATE])
    assert "1 of 1 cuts are trimmed to their supervision" in capsys.readouterr().out


def test_rounded_supervisions_leave_the_cut_as_it_is(tmp_path, capsys):
    cut = cut_of(tmp_path / "a.wav", AUDIO, "one")
    for start, duration in ((0.0, 4.0), (0.004, 3.99), (0.0, 4.009)):
        cut.supervisions = [segment(start, duration)]
        path = write_cuts(tmp_path / "a.jsonl.gz", [cut])
        assert list(read_cuts(path)) == InMemory(config(path)).cuts == [cut]
    assert capsys.readouterr().out == ""


REFUSED = {
    "no text": segment(0.0, 4.0, None),
    "empty text": segment(0.0, 4.0, " \t"),
    "text outside of the audio": segment(3.0, 2.0),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_unusable_supervisions_are_refused_and_counted(tmp_path, capsys, reason):
    cut, good = cut_of(tmp_path / "long.wav", AUDIO, ""), cut_of(tmp_path / "good.wav", AUDIO, "one")
    cut.supervisions = [REFUSED[reason]]
    path = write_cuts(tmp_path / "cuts.jsonl.gz", [cut, good])
    for batch in every_reader(path):
        assert (batch.ids, batch.texts) == (["good"], ["one"])
        assert [(one.id, one.source, one.kind) for one in batch.failures] == [("long", f"{tmp_path}/long.wav", reason)]
    output = capsys.readouterr().out
    place = f"the first is long, {path}: line 1: {reason}"
    assert f"{path}: 1 of 2 cuts cannot be used and count as failed: 1 {reason}; {place}" in output
    assert f"dropped long ({tmp_path}/long.wav): {reason}" in output


@pytest.mark.parametrize("part", [(-0.5, 2.0), (-2.0, 1.0), (5.0, 1.0), (1.0, 0.0), (2.0, -1.0), (0.0, 4.2)])
def test_text_outside_of_the_audio_is_refused(tmp_path, part):
    (batch,) = evaluation_batches(manifest(tmp_path, segment(*part)), 100.0)
    assert [one.kind for one in batch.failures] == ["text outside of the audio"]


def test_slack_of_annotators_is_cut_off(tmp_path):
    (batch,) = evaluation_batches(manifest(tmp_path, segment(3.0, 1.09)), 100.0)
    np.testing.assert_array_equal(batch.waveforms[0], AUDIO[3 * RATE :])


def test_cuts_without_supervision_or_recording_are_refused(tmp_path):
    recording = cut_of(tmp_path / "a.wav", AUDIO, "").recording
    bare = recording.to_cut()
    lost = MonoCut("lost", 0.0, 2.0, 0, supervisions=[segment(0.0, 2.0)])
    pad = MonoCut("pad", 0.0, 2.0, 0, supervisions=[]).to_dict() | {"type": "PaddingCut", "num_samples": 32000}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(c) + "\n" for c in (bare.to_dict(), lost.to_dict(), pad)))
    (batch,) = evaluation_batches(str(tmp_path / "a.jsonl"), 100.0)
    kinds = Counter(one.kind for one in batch.failures)
    assert batch.ids == [] and kinds == {"no text": 1, "no audio in the manifest": 2}


def test_manifest_without_usable_cuts_is_an_error(tmp_path):
    path = manifest(tmp_path, segment(0.0, 2.0, None), segment(2.0, 2.0, ""))
    for kind in (InMemory, OnDisk):
        with pytest.raises(
            UserError, match="no cut can be used: 1 no text, 1 empty text; the first is long-0, .*line 1"
        ):
            kind(config(path))


def test_texts_are_optional_if_the_reader_says_so(tmp_path):
    supervisions = [segment(0.0, 1.0, None), segment(1.0, 1.0, ""), segment(2.0, 1.0, "two")]
    path = manifest(tmp_path, *supervisions)
    (batch,) = evaluation_batches(path, 100.0, rules=Rules(needs_text=False))
    assert sorted(batch.texts) == ["", "", "two"] and batch.num_failed == 0
    (batch,) = evaluation_batches(path, 100.0, rules=Rules(empty_text=True))  # references of a test set
    assert sorted(batch.texts) == ["", "two"] and [one.kind for one in batch.failures] == ["no text"]
    bare = write_cuts(tmp_path / "bare.jsonl", [Recording.from_file(tmp_path / "long.wav").to_cut()])
    (batch,) = evaluation_batches(bare, 100.0, rules=Rules(needs_text=False, language="Chinese"))
    assert (batch.ids, batch.texts, batch.languages) == (["long"], [""], ["Chinese"])


def test_language_comes_from_the_corpus_or_the_configuration(tmp_path, capsys):
    path = manifest(tmp_path, segment(0.0, 2.0, language=None), segment(2.0, 2.0, language="French"))
    for read in (lambda: InMemory(config(path)), lambda: OnDisk(config(path)), lambda: list(read_cuts(path))):
        with pytest.raises(UserError, match=r"cuts.jsonl.gz: line 1: clip long names no language, .*set data.language"):
            read()
    for batch in every_reader(path, language="German"):
        assert batch.languages == ["German", "French"]
    assert "1 of 2 cuts name no language, German is used (data.language)" in capsys.readouterr().out
    (tmp_path / "corpus.json").write_text(json.dumps({"name": "own", "language": "Chinese"}))
    for batch in every_reader(path, language="German"):  # the corpus describes its own manifest
        assert batch.languages == ["Chinese", "French"]
    assert f"1 of 2 cuts name no language, Chinese is used ({tmp_path}/corpus.json)" in capsys.readouterr().out
    (tmp_path / "shards").mkdir()
    Path(path).rename(tmp_path / "shards" / "train.000.jsonl.gz")
    assert every_reader(str(tmp_path / "shards"))[0].languages == ["Chinese", "French"]
    with pytest.raises(UserError, match="names no language"):  # the file alone is no part of that corpus
        list(read_cuts(str(tmp_path / "shards" / "train.000.jsonl.gz")))
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(UserError, match="corpus.json: not valid JSON"):
        read_cuts(str(tmp_path / "shards"))


def test_mixed_cuts_are_split_and_trimmed_too(tmp_path, capsys):
    first, second = (cut_of(tmp_path / f"{n}.wav", AUDIO[:RATE] * (i + 1), f"text {n}") for i, n in enumerate("ab"))
    padded, joined = first.pad(duration=3.0), first.append(second)
    path = tmp_path / "cuts.jsonl.gz"
    CutSet.from_cuts([padded.with_id("padded"), joined.with_id("joined")]).to_file(path)
    for batch in every_reader(str(path)):
        assert batch.ids == ["padded", "joined-0", "joined-1"] and batch.texts == ["text a", "text a", "text b"]
        for waveform, scale in zip(batch.waveforms, (1, 1, 2)):
            np.testing.assert_allclose(waveform, AUDIO[:RATE] * scale, atol=1e-6)
    assert "overlap" not in capsys.readouterr().out


def test_mixed_cut_with_equal_ids_is_refused(tmp_path):
    cut = cut_of(tmp_path / "a.wav", AUDIO, "one")
    path = tmp_path / "cuts.jsonl.gz"
    CutSet.from_cuts([cut.mix(cut, offset_other_by=2.0)]).to_file(path)
    (batch,) = evaluation_batches(str(path), 100.0)
    assert Counter(one.kind for one in batch.failures) == {"supervisions with equal ids": 2}


def test_text_that_is_a_number_is_refused(tmp_path):
    (batch,) = evaluation_batches(manifest(tmp_path, segment(0.0, 4.0, 35)), 100.0)  # type: ignore[arg-type]
    assert str(batch.failures[0]) == f"long ({tmp_path}/long.wav): no text: the text is 35, not text; put it in quotes"


def test_cuts_that_lhotse_cannot_read_name_their_line(tmp_path):
    path = Path(manifest(tmp_path, segment(0.0, 4.0), name="cuts.jsonl"))
    item = json.loads(path.read_text())
    odd = [item | {"supervisions": [{"id": "a"}]}, item | {"recording": {"id": "x"}}, item | {"supervisions": 3}]
    for each in odd:
        path.write_text(json.dumps(item) + "\n" + json.dumps(each) + "\n")
        for read in (InMemory, lambda c: list(OnDisk(c).read(0, 0)), lambda c: list(read_cuts(c.train))):
            with pytest.raises(UserError, match="cuts.jsonl: line 2 is not a cut: "):
                read(config(str(path)))


ODD = [None, 0, -1, 1.5, "", "x", [], {}, [1], True, float("nan"), 1e308, "é\n", 10**30]


def keys_of(value, path=()):
    """Yield the path of every value inside nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from keys_of(inner, (*path, key))


@pytest.mark.slow
def test_odd_values_in_cuts_never_give_a_traceback(tmp_path):
    one = cut_of(tmp_path / "a.wav", AUDIO[:RATE], "one")
    joined = one.append(cut_of(tmp_path / "b.wav", AUDIO[RATE:], "two"))
    good = [cut.to_dict() for cut in (one, joined, one.pad(duration=2.0))]
    rng, path, kinds = random.Random(1), tmp_path / "odd.jsonl", Counter()
    for _ in range(120):
        item = copy.deepcopy(rng.choice(good))
        *outer, last = rng.choice(list(keys_of(item)))
        holder = functools.reduce(lambda value, key: value[key], outer, item)
        if rng.random() < 0.3:
            del holder[last]
        else:
            holder[last] = rng.choice(ODD)
        path.write_text(json.dumps(item) + "\n")
        try:
            (batch,) = evaluation_batches(str(path), 1e9)
            kinds["failed" if batch.failures else "read"] += 1
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            kinds["refused"] += 1
    assert min(kinds[kind] for kind in ("failed", "read", "refused")) > 5


@pytest.mark.parametrize("rate", [True, 0, 1, 999, 16000.5, "16000", 10**30, -16000])
def test_sampling_rate_that_no_audio_has_is_refused(tmp_path, rate):
    """Resampling from 1 Hz, as which `true` counts, would not end."""
    item = cut_of(tmp_path / "a.wav", AUDIO, "one").to_dict()
    item["recording"]["sampling_rate"] = rate
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps(item) + "\n")
    try:
        (batch,) = evaluation_batches(str(path), 1e9)
        assert batch.ids == [] and batch.num_failed == 1
    except UserError as error:
        assert str(path) in str(error)


def test_number_as_source_is_not_an_open_file(tmp_path):
    cut = cut_of(tmp_path / "a.wav", AUDIO, "one")
    with open(tmp_path / "a.wav", "rb") as file:
        cut.recording.sources[0].source = file.fileno()
        (failure,) = load_batch([cut]).failures
        assert (failure.kind, failure.source) == ("no audio in the manifest", "audio in memory")
        assert len(file.read(4)) == 4  # still open


def test_codes_become_names_and_unknown_languages_are_refused_and_counted(tmp_path, capsys):
    names = ["de", "German", "zh_CN", "Germn"]
    parts = [segment(float(i), 1.0, str(i), language=name) for i, name in enumerate(names)]
    cuts = [cut_of(tmp_path / f"{i}.wav", AUDIO[:RATE], str(i)) for i in range(2)]
    for cut, name in zip(cuts, ("de", "Klingon"), strict=True):  # cuts that need no other change
        cut.supervisions[0].language = name
    for path, expected in (
        (manifest(tmp_path, *parts), ["German", "German", "Chinese"]),
        (write_cuts(tmp_path / "whole.jsonl.gz", cuts), ["German"]),
    ):
        for batch in every_reader(path):
            assert batch.languages == expected
            assert [failure.kind for failure in batch.failures] == ["unknown language"]
    assert "did you mean German?" in str(every_reader(manifest(tmp_path, *parts))[0].failures[0])
    assert "1 unknown language" in capsys.readouterr().out


def test_an_unknown_language_of_the_configuration_is_an_error():
    with pytest.raises(UserError, match=r"`data.language` 'Germn'.*did you mean German"):
        Rules.of(config("x", language="Germn"))
    assert Rules.of(config("x", language="de")).language == "German"

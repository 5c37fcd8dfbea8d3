"""Layout `lhotse`: cut manifests, Shar folders, and recordings with supervisions give the same utterances."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import own_audio
import pytest
import soundfile
from corpus_fixture import write_cuts
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet

from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.cuts import deserialize
from arkasr.corpora.layouts.audio import Headers, check_audio
from arkasr.corpora.layouts.lhotse import Lhotse
from arkasr.corpora.layouts.lhotse_files import find_parts
from arkasr.corpora.layouts.registry import require_layout
from arkasr.corpora.prepare import prepare
from arkasr.data.audio import read_waveform
from arkasr.data.manifests import read_cuts
from arkasr.errors import UserError

SHAR_CASE = Path(__file__).parents[3] / "shared" / "cases" / "21-shar"


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    own_audio.write_audio(folder, own_audio.clips())
    return folder


def cuts_of(audio: Path, part: str, text: bool = True) -> list:
    found = []
    for clip in (clip for clip in own_audio.clips() if clip.part == part):
        cut = Recording.from_file(audio / f"{clip.name}.wav").to_cut().with_id(clip.name)
        words = clip.text if text else None
        one = SupervisionSegment(clip.name, clip.name, 0.0, cut.duration, 0, words, "English", clip.speaker)
        cut.supervisions = [one]
        found.append(cut)
    return found


def write_cut_manifests(root: Path, audio: Path, pattern: str = "cuts_{}.jsonl.gz") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for part in ("train", "dev", "test"):
        CutSet.from_cuts(cuts_of(audio, part)).to_file(root / pattern.format(part))
    return root


def write_shar(root: Path, audio: Path) -> Path:
    for part in ("train", "dev", "test"):
        (root / part).mkdir(parents=True)
        CutSet.from_cuts(cuts_of(audio, part)).to_shar(str(root / part), fields={"recording": "wav"}, shard_size=4)
    return root


def write_recordings(root: Path, audio: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for part in ("train", "dev", "test"):
        cuts = cuts_of(audio, part)
        RecordingSet.from_recordings(c.recording for c in cuts).to_file(root / f"own_recordings_{part}.jsonl.gz")
        supervisions = [one for cut in reversed(cuts) for one in cut.supervisions]
        SupervisionSet.from_segments(supervisions).to_file(root / f"own_supervisions_{part}.jsonl.gz")
    return root


WRITERS = {
    "cuts_x": write_cut_manifests,
    "x": lambda root, audio: write_cut_manifests(root, audio, "{}.jsonl"),
    "corpus_cuts_x": lambda root, audio: write_cut_manifests(root, audio, "own_cuts_{}.jsonl.gz"),
    "shar": write_shar,
    "recordings": write_recordings,
}


def layout(root: Path, keys: str = "language: English\n") -> Lhotse:
    path = root.parent / "corpus.yaml"
    path.write_text(f"name: own\nlayout: lhotse\n{keys}")
    found = require_layout(read_corpus_yaml(path), root)
    assert isinstance(found, Lhotse)
    return found


def scanned(root: Path, parts=("train", "dev", "test"), keys: str = "language: English\n") -> list:
    entries = list(layout(root, keys).scan(list(parts)))
    check_audio(entries, Headers(1))
    return entries


def reasons(root: Path, *parts: str) -> dict[str, str]:
    return {entry.id: entry.reason for entry in scanned(root, parts or ("train",)) if entry.reason}


def edit(path: Path, change) -> None:
    """Change the rows of a manifest."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    result = change(rows)
    rows = result if isinstance(result, list) else rows
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_manifest_gives_the_same_utterances(tmp_path, audio, kind):
    root = WRITERS[kind](tmp_path / "root", audio)
    assert layout(root).parts() == ["dev", "test", "train"]
    found = {entry.id: entry for entry in scanned(root)}
    assert len(found) == 10
    for number, clip in enumerate(own_audio.clips()):
        entry = found[clip.name]
        described = (entry.part, entry.text, entry.speaker, entry.reason, entry.language)
        assert described == (clip.part, clip.text, clip.speaker, "", "English")
        assert entry.cut["duration"] == clip.seconds, number
        expected, _ = soundfile.read(audio / f"{clip.name}.wav", dtype="float32")
        np.testing.assert_array_equal(read_waveform(deserialize(entry.cut)).numpy(), expected)


def test_names_of_files_give_parts(tmp_path):
    names = {
        "cuts_train-clean-100.jsonl.gz": ("train-clean-100", "cuts"),
        "librispeech_cuts_dev.jsonl": ("dev", "cuts"),
        "some_set.jsonl": ("some_set", "cuts"),
        "aishell_recordings_test.jsonl.gz": ("test", "recordings"),
        "aishell_supervisions_test.jsonl.gz": ("test", "supervisions"),
        "cuts.jsonl.gz": ("all", "cuts"),
        "own_cuts.jsonl.gz": ("own", "cuts"),
    }
    for name in (*names, "features_train.jsonl.gz", ".hidden.jsonl", "notes.txt"):
        (tmp_path / name).write_text("")
    found = find_parts(tmp_path)
    assert {(part, kind) for part, kind in names.values()} == {
        (part, kind) for part, each in found.items() for kind in vars(each) if getattr(each, kind)
    }


@pytest.mark.skipif(not SHAR_CASE.is_dir(), reason="needs the made-up Shar folder in ../shared/cases")
def test_shar_folder_itself_is_one_part_with_its_name():
    entries = list(Lhotse(SHAR_CASE / "shar", read_yaml_like("English")).scan(["shar"]))
    assert entries and not [entry for entry in entries if entry.reason]
    assert all(len(read_waveform(deserialize(entry.cut))) for entry in entries)


def read_yaml_like(language: str):
    from types import SimpleNamespace

    return SimpleNamespace(channels="mix", language=language, options={})


def test_folder_of_cut_files_is_a_part(tmp_path, audio):
    folder = tmp_path / "root" / "train"
    folder.mkdir(parents=True)
    cuts = cuts_of(audio, "train")
    for number in range(3):
        write_cuts(folder / f"cuts.{number}.jsonl.gz", cuts[number::3])
    # files that Lhotse's split-lazy numbers look like Shar, but their audio is in files
    assert {entry.id for entry in scanned(tmp_path / "root", ["train"])} == {cut.id for cut in cuts}


def test_long_recordings_are_cut_by_their_supervisions(tmp_path, audio):
    root = tmp_path / "root"
    root.mkdir()
    recording = Recording.from_file(audio / "clip_09.wav")
    times = [(0.0, 0.5), (0.5, 0.4), (0.9, 0.6)]
    supervisions = [SupervisionSegment(f"s{i}", "clip_09", *time, text=f"word {i}") for i, time in enumerate(times)]
    RecordingSet.from_recordings([recording]).to_file(root / "recordings_train.jsonl.gz")
    SupervisionSet.from_segments(supervisions).to_file(root / "supervisions_train.jsonl.gz")
    found = scanned(root, ["train"])
    assert [(entry.id, entry.text, entry.cut["start"], entry.cut["duration"]) for entry in found] == [
        (f"s{i}", f"word {i}", *time) for i, time in enumerate(times)
    ]
    cut = recording.to_cut()
    cut.supervisions = supervisions
    shutil.rmtree(root)
    root.mkdir()
    write_cuts(root / "train.jsonl.gz", [cut])
    assert [entry.id for entry in scanned(root, ["train"])] == [f"{cut.id}-{i}" for i in range(3)]


def test_cuts_without_text_or_supervision_have_no_transcript(tmp_path, audio):
    root = tmp_path / "root"
    root.mkdir()
    cuts = cuts_of(audio, "train", text=False)
    cuts[0].supervisions = []
    cuts[1].supervisions[0].text = "  "
    write_cuts(root / "train.jsonl.gz", cuts)
    found = scanned(root, ["train"])
    assert [(entry.text, entry.reason) for entry in found] == [(None, "")] * 6
    RecordingSet.from_recordings(cut.recording for cut in cuts).to_file(root / "recordings_more.jsonl.gz")
    assert [(entry.text, entry.reason) for entry in scanned(root, ["more"])] == [(None, "")] * 6


def test_recordings_that_no_supervision_names_have_no_transcript(tmp_path, audio):
    root = write_recordings(tmp_path / "root", audio)
    edit(root / "own_supervisions_train.jsonl.gz", lambda rows: rows[1:])
    found = scanned(root, ["train"])
    assert sorted(entry.id for entry in found if entry.text is None) == ["clip_05"] and len(found) == 6


def test_relative_paths_begin_at_the_manifest_or_above_it(tmp_path, audio):
    root = tmp_path / "data" / "manifests"
    write_cut_manifests(root, audio)

    def shorten(rows):
        for row in rows:
            source = row["recording"]["sources"][0]
            source["source"] = f"downloads/{Path(source['source']).name}"

    edit(root / "cuts_train.jsonl.gz", shorten)
    assert set(reasons(root).values()) and len(reasons(root)) == 6  # not there yet
    for place in (tmp_path / "downloads", root / "downloads"):
        shutil.copytree(audio, place)
        assert reasons(root) == {}
        assert all(entry.audio.parent == place for entry in scanned(root, ["train"]))


def test_languages_come_from_the_supervision_by_name_or_code(tmp_path, audio):
    root = write_cut_manifests(tmp_path / "root", audio)

    def speak(rows):
        for row, language in zip(rows, ["de", "German", "zh-CN", None, "", "klingon"], strict=True):
            row["supervisions"][0]["language"] = language

    edit(root / "cuts_train.jsonl.gz", speak)
    found = scanned(root, ["train"], "language: French\n")
    assert [entry.language for entry in found[:5]] == ["German", "German", "Chinese", "", ""]
    assert found[5].reason.startswith("unknown language 'klingon'")


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda row: row["recording"]["sources"][0].update(source="/nowhere/x.wav"), "missing"),
        (lambda row: row["recording"].update(num_samples=16000, duration=1.0), "audio unlike its manifest"),
        (lambda row: row["recording"].update(sampling_rate=8000, num_samples=4000), "audio unlike its manifest"),
        (lambda row: row.pop("recording"), "no audio in the manifest"),
        (lambda row: row["supervisions"][0].update(text=5), "no text"),
        (lambda row: row["supervisions"][0].update(start=0.2, duration=9.0), "text outside of the audio"),
        (lambda row: row["supervisions"][0].update(start=0.3, duration=-0.2), "text outside of the audio"),
        (lambda row: row["recording"]["sources"][0].update(type="command", source="touch x"), "audio from a command"),
        (lambda row: row["recording"]["sources"][0].update(channels=[0, 1]), "audio unlike its manifest"),
        (lambda row: row.update(channel=3), "audio has no such channel"),
        (lambda row: row.update(start=-0.2), "begins before its recording"),
        (lambda row: row.update(start=float("nan")), "a time is not a finite number"),
        (lambda row: row.update(start="0"), "a time is not a finite number"),
        (lambda row: row.update(start=0.5), "ends after its recording"),
        (lambda row: (row.update(duration=9.0), row["supervisions"][0].update(duration=9.0)), "ends after its record"),
    ],
)
def test_one_bad_cut_is_dropped_with_its_reason_and_the_others_stay(tmp_path, audio, change, reason):
    root = write_cut_manifests(tmp_path / "root", audio)
    edit(root / "cuts_train.jsonl.gz", lambda rows: change(rows[0]))
    found = scanned(root, ["train"])
    bad = [entry for entry in found if entry.reason]
    assert len(found) == 6 and len(bad) == 1 and reason in bad[0].reason


def test_ids_that_cannot_be_file_names_are_replaced(tmp_path, audio):
    root = write_cut_manifests(tmp_path / "root", audio)
    edit(root / "cuts_train.jsonl.gz", lambda rows: rows[0].update(id="../a b/c") or rows[1].update(id="../a_b/c"))
    found = scanned(root, ["train"])
    names = {entry.id for entry in found}
    assert len(names) == 6 and not [name for name in names if "/" in name or " " in name]
    assert [entry.cut["id"] for entry in found] == [entry.id for entry in found]


def test_supervision_without_its_recording_is_dropped(tmp_path, audio):
    root = write_recordings(tmp_path / "root", audio)
    edit(root / "own_recordings_train.jsonl.gz", lambda rows: rows[1:])
    assert reasons(root) == {"clip_00": "no audio in the manifest"}


def _remove(*names):
    return lambda root: [(root / name).unlink() for name in names]


@pytest.mark.parametrize(
    "kind, damage, message",
    [
        ("recordings", _remove("own_recordings_train.jsonl.gz"), "there is no file of recordings for it; copy own_rec"),
        ("cuts_x", lambda root: (root / "train.jsonl").write_text("{}"), "part train is also in cuts_train.jsonl.gz"),
        ("shar", _remove("train/recording.000001.tar"), "its audio recording.000001.tar is not in this folder"),
        ("shar", _remove("train/recording.000000.tar", "train/recording.000001.tar"), "its audio recording.000000.tar"),
        ("cuts_x", lambda root: (root / "cuts_train.jsonl.gz").write_bytes(b""), "the file is empty"),
        ("x", lambda root: (root / "train.jsonl").write_text("not JSON\n"), "line 1 is not a cut: not JSON"),
        ("x", lambda root: (root / "train.jsonl").write_text('{"audio": "a.wav"}\n'), "line 1 is not a cut"),
        (
            "recordings",
            lambda root: edit(root / "own_supervisions_train.jsonl.gz", lambda rows: rows[0].pop("recording_id")),
            "line 1 is not a supervision: its recording_id must be text",
        ),
        (
            "recordings",
            lambda root: edit(root / "own_recordings_train.jsonl.gz", lambda rows: rows + rows[:1]),
            "has the id of an earlier one",
        ),
    ],
)
def test_damaged_manifests_are_named(tmp_path, audio, kind, damage, message):
    root = WRITERS[kind](tmp_path / "root", audio)
    damage(root)
    with pytest.raises(UserError, match=message):
        scanned(root)


def test_folder_without_manifests_is_refused(tmp_path):
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError, match="expects cuts such as cuts_train.jsonl.gz"):
        layout(tmp_path / "root")


def test_fingerprint_changes_with_a_tar_file(tmp_path, audio):
    root = write_shar(tmp_path / "root", audio)
    before = layout(root).fingerprint()
    with (root / "train" / "recording.000000.tar").open("ab") as file:
        file.write(b"\0" * 512)
    assert layout(root).fingerprint() != before


@pytest.mark.parametrize("kind", ["cuts_x", "shar", "recordings"])
def test_prepared_data_are_up_to_date_and_follow_a_moved_folder(tmp_path, audio, capsys, kind):
    root, data = tmp_path / "root", tmp_path / "data"
    shutil.copytree(audio, root / "wavs")
    WRITERS[kind](root, root / "wavs")
    yaml = tmp_path / "corpus.yaml"
    yaml.write_text("name: own\nlayout: lhotse\nlanguage: de\n")
    prepare(str(yaml), "mini", str(root), str(data), 1)
    before = {path.name: path.read_bytes() for path in data.glob("*.jsonl.gz")}
    prepare(str(yaml), "mini", str(root), str(data), 1)
    assert "is already prepared" in capsys.readouterr().out
    root.rename(tmp_path / "moved")
    prepare(str(yaml), "mini", str(tmp_path / "moved"), str(data), 1)
    assert {path.name: path.read_bytes() for path in data.glob("*.jsonl.gz")} == before
    found = list(read_cuts(str(data / "train.jsonl.gz")))
    assert len(found) == 6 and all(len(read_waveform(cut)) == cut.num_samples for cut in found)

"""Layout `hf`: data sets saved to disk, Parquet files, audio folders, and the Hub, without torchcodec."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import own_audio
import pytest
import soundfile

from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.layouts.hf import HuggingFace
from arkasr.corpora.layouts.registry import require_layout
from arkasr.corpora.prepare import prepare
from arkasr.data.audio import read_waveform
from arkasr.data.manifests import read_cuts
from arkasr.errors import UserError

datasets = pytest.importorskip("datasets", reason="needs the extra hf")


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    own_audio.write_audio(folder, own_audio.clips())
    return folder


def rows_of(audio: Path, part: str) -> dict[str, list]:
    """Return the columns of one part, with the bytes of the audio as `datasets` stores them."""
    clips = [clip for clip in own_audio.clips() if clip.part == part]
    cells = [{"bytes": (audio / f"{clip.name}.wav").read_bytes(), "path": f"{clip.name}.wav"} for clip in clips]
    return {"audio": cells, "sentence": [clip.text for clip in clips], "speaker": [clip.speaker for clip in clips]}


def with_audio(columns: dict[str, list]):
    """Return a data set whose column `audio` has the feature Audio. Its encoder would need torchcodec."""
    data = datasets.Dataset.from_dict(columns)
    features = data.features.copy()
    features["audio"] = datasets.Audio(decode=False)
    return datasets.Dataset(data.data, info=datasets.DatasetInfo(features=features))


def saved(root: Path, audio: Path) -> Path:
    parts = {part: with_audio(rows_of(audio, part)) for part in ("train", "dev", "test")}
    datasets.DatasetDict(parts).save_to_disk(root)
    return root


def parquet(root: Path, audio: Path) -> Path:
    for part, name in (("train", "train"), ("dev", "validation"), ("test", "test")):
        (root / "data").mkdir(parents=True, exist_ok=True)
        with_audio(rows_of(audio, part)).to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
    return root


def audio_folder(root: Path, audio: Path) -> Path:
    for part, name in (("train", "train"), ("dev", "validation"), ("test", "test")):
        (root / name).mkdir(parents=True)
        lines = []
        for clip in (clip for clip in own_audio.clips() if clip.part == part):
            shutil.copy(audio / f"{clip.name}.wav", root / name)
            lines.append(json.dumps({"file_name": f"{clip.name}.wav", "text": clip.text, "speaker": clip.speaker}))
        (root / name / "metadata.jsonl").write_text("\n".join(lines))
    return root


WRITERS = {"saved": saved, "parquet": parquet, "audiofolder": audio_folder}


def layout(root: Path, keys: str = "") -> HuggingFace:
    path = root.parent / "corpus.yaml"
    path.write_text(f"name: own\nlayout: hf\nlanguage: English\n{keys}")
    found = require_layout(read_corpus_yaml(path), root)
    assert isinstance(found, HuggingFace)
    found.audio_dir = root.parent / "store"
    return found


def scanned(root: Path, keys: str = "", parts=None) -> list:
    found = layout(root, keys)
    return list(found.scan(found.parts() if parts is None else parts))


def saved_rows(root: Path, columns: dict[str, list]) -> Path:
    with_audio(columns).save_to_disk(root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_data_set_gives_the_same_utterances(tmp_path, audio, kind):
    root = WRITERS[kind](tmp_path / "root", audio)
    validation = "dev" if kind == "saved" else "validation"
    assert layout(root).parts() == sorted(["train", validation, "test"])
    found = {entry.id.rpartition("-")[0]: entry for entry in scanned(root)}
    assert len(found) == 10
    for clip in own_audio.clips():
        entry = found[clip.name]
        part = validation if clip.part == "dev" else clip.part
        assert (entry.part, entry.text, entry.speaker, entry.reason) == (part, clip.text, clip.speaker, "")
        assert entry.audio.read_bytes() == (audio / f"{clip.name}.wav").read_bytes()


def test_audio_of_cells_is_written_once_under_hashed_names(tmp_path, audio, capsys):
    root = saved(tmp_path / "root", audio)
    first = scanned(root)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.wav")}
    assert len(files) == 10 and "10 audio files written, 0 were there already" in capsys.readouterr().out
    cut = next(iter(files))
    cut.write_bytes(cut.read_bytes()[:100])  # as a killed call on a full disk could leave it
    assert [(entry.id, entry.audio) for entry in scanned(root)] == [(entry.id, entry.audio) for entry in first]
    assert "1 audio files written, 9 were there already" in capsys.readouterr().out
    changed = {path for path, time in files.items() if path.stat().st_mtime_ns != time}
    assert changed == {cut} and soundfile.info(cut).frames > 1000


def test_other_columns_are_mapped_and_classes_become_names(tmp_path, audio):
    columns = rows_of(audio, "train")
    data = with_audio(
        {
            "audio": columns["audio"],
            "words": columns["sentence"],
            "lang": [0, 1] * 3,
            "id": [7] * 6,  # numbers of sentences, as in FLEURS
            "notes": ["x"] * 6,
        }
    )
    data = data.cast_column("lang", datasets.ClassLabel(names=["de", "en"])).rename_column("audio", "sound")
    data.save_to_disk(tmp_path / "root")
    found = scanned(tmp_path / "root", "columns: {audio: sound, text: words}\n")
    assert [entry.language for entry in found] == ["German", "English"] * 3
    assert [entry.text for entry in found] == columns["sentence"] and not [e for e in found if e.reason]
    assert len({entry.id for entry in found}) == 6
    by_id = scanned(tmp_path / "root", "columns: {audio: sound, text: words, id: id}\n")
    assert [entry.id for entry in by_id] == ["7"] * 6  # stage 1 drops the repeated ones with a count


def test_rows_without_text_column_have_no_transcript(tmp_path, audio):
    root = saved_rows(tmp_path / "root", {"audio": rows_of(audio, "train")["audio"]})
    assert [(entry.text, entry.reason) for entry in scanned(root)] == [(None, "")] * 6


def test_samples_with_a_rate_become_flac(tmp_path):
    samples = np.sin(np.arange(800) / 7) * 0.5
    cells = [{"array": samples.tolist(), "sampling_rate": 8000}] * 2
    data = datasets.Dataset.from_dict({"audio": cells, "text": ["a", "b"]})
    data.save_to_disk(tmp_path / "root")
    found = scanned(tmp_path / "root")
    assert {entry.audio.suffix for entry in found} == {".flac"}
    written, rate = soundfile.read(found[0].audio)
    np.testing.assert_allclose(written, samples, atol=2**-22)
    assert rate == 8000


def test_bad_cells_are_dropped_with_their_reasons(tmp_path, audio):
    good = rows_of(audio, "train")["audio"]
    cells = [
        good[0],
        {"bytes": b"not audio", "path": "x.wav"},
        {"bytes": b"", "path": "x.wav"},
        {"bytes": None, "path": "/nowhere/x.wav"},
        {"bytes": None, "path": None},
        None,
    ]
    datasets.Dataset.from_dict({"audio": cells, "text": ["a"] * 6}).save_to_disk(tmp_path / "root")
    reasons = [entry.reason for entry in scanned(tmp_path / "root")]
    expected = ["", "audio cannot be read", "audio is empty", "audio file is missing", "row names no audio"]
    assert reasons == [*expected, "row names no audio"]


def test_text_of_another_type_and_unknown_languages_are_dropped(tmp_path, audio):
    cells = rows_of(audio, "train")["audio"]
    root = saved_rows(tmp_path / "root", {"audio": cells, "text": [1, 2, 3, 4, 5, 6]})
    assert {entry.reason for entry in scanned(root)} == {"transcript is not text"}
    root = saved_rows(tmp_path / "two", {"audio": cells, "text": ["a"] * 6, "language": ["Germn"] + ["de"] * 5})
    assert [bool(entry.reason) for entry in scanned(root)] == [True] + [False] * 5
    assert "unknown language 'Germn', did you mean German?" in scanned(root)[0].reason


def test_missing_column_names_those_there_are(tmp_path, audio):
    columns = rows_of(audio, "train")
    root = saved_rows(tmp_path / "root", columns)
    with pytest.raises(UserError, match="columns.text 'sentense': .*did you mean 'sentence'"):
        scanned(root, "columns: {text: sentense}\n")
    with pytest.raises(UserError, match="has no column for the audio; found 'audio', 'sentence', 'speaker'.*'clip'"):
        scanned(root, "columns: {audio: clip}\n")


def test_missing_split_names_those_there_are(tmp_path, audio):
    root = saved(tmp_path / "root", audio)
    with pytest.raises(UserError, match="has no split eval; it has dev, test, train"):
        scanned(root, parts=["eval"])
    with pytest.raises(UserError, match="columns.split 'part': not for the layout hf"):
        scanned(root, "columns: {split: part}\n")


def test_empty_data_set_has_no_utterances(tmp_path):
    root = saved_rows(tmp_path / "root", {"audio": [{"bytes": b"x", "path": "x"}], "text": ["a"]})
    datasets.load_from_disk(str(root)).select([]).save_to_disk(tmp_path / "none")
    assert scanned(tmp_path / "none") == []
    datasets.DatasetDict(train=datasets.load_from_disk(str(root))).save_to_disk(tmp_path / "two")
    shutil.copytree(tmp_path / "none", tmp_path / "two" / "test")
    (tmp_path / "two" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert [entry.part for entry in scanned(tmp_path / "two")] == ["train"]


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_hub_id_without_network_is_named(tmp_path, monkeypatch, streaming):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    keys = f"options: {{hub: org/none-such, config: de, revision: abc, streaming: {streaming}}}\n"
    found = layout(tmp_path / "missing", keys)
    assert found.fingerprint() == "org/none-such de revision abc"  # needs no network
    with pytest.raises(UserError, match="org/none-such de revision abc: the Hugging Face Hub cannot be reached"):
        found.parts()


def test_unknown_option_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="revison.*revision"):
        layout(tmp_path / "x", "options: {hub: org/name, revison: main}\n")


def test_without_datasets_the_extra_is_named(tmp_path, audio, monkeypatch):
    root = saved(tmp_path / "root", audio)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'arkasr\[hf\]'"):
        layout(root).parts()


def test_damaged_data_set_is_named(tmp_path, audio):
    root = saved(tmp_path / "root", audio)
    next((root / "train").glob("*.arrow")).write_bytes(b"damaged")
    with pytest.raises(UserError, match="root: cannot be read by datasets .*; correct the files in --corpus_dir"):
        scanned(root)


def test_fingerprint_changes_with_a_file(tmp_path, audio):
    root = parquet(tmp_path / "root", audio)
    before = layout(root).fingerprint()
    with_audio(rows_of(audio, "dev")).to_parquet(root / "data" / "train-00001-of-00002.parquet")
    assert layout(root).fingerprint() != before
    before = layout(audio).fingerprint()
    shutil.copytree(audio, tmp_path / "audio")
    (tmp_path / "audio" / "clip_00.wav").unlink()
    assert layout(tmp_path / "audio").fingerprint() != before


def test_formats_that_libsndfile_reads_are_kept(tmp_path):
    cells = []
    for kind in ("FLAC", "OGG", "MP3"):
        encoded = io.BytesIO()
        soundfile.write(encoded, np.random.default_rng(0).normal(0, 0.1, 4000), 16000, format=kind)
        cells.append({"bytes": encoded.getvalue(), "path": "x"})
    found = scanned(saved_rows(tmp_path / "root", {"audio": cells, "text": ["a"] * 3}))
    assert [entry.audio.suffix for entry in found] == [".flac", ".ogg", ".mp3"]
    assert [entry.audio.read_bytes() for entry in found] == [cell["bytes"] for cell in cells]


def test_audio_at_an_address_is_read_and_stored(tmp_path, audio):
    from arkasr.corpora.layouts.hf_audio import AudioStore, Unstored

    store = AudioStore(tmp_path / "store", tmp_path)
    shutil.make_archive(str(tmp_path / "all"), "zip", audio)
    path, _ = store.path({"bytes": None, "path": f"zip://clip_00.wav::{tmp_path}/all.zip"})
    assert path.read_bytes() == (audio / "clip_00.wav").read_bytes() and path.is_relative_to(tmp_path / "store")
    with pytest.raises(Unstored, match="audio file is missing"):
        store.path(f"zip://clip_00.wav::{tmp_path}/none.zip")


def test_prepared_data_are_up_to_date_and_need_no_second_extraction(tmp_path, audio, capsys):
    root, data = saved(tmp_path / "root", audio), tmp_path / "data"
    yaml = tmp_path / "corpus.yaml"
    yaml.write_text("name: own\nlayout: hf\nlanguage: de\n")
    prepare(str(yaml), "mini", str(root), str(data), 1)
    prepare(str(yaml), "mini", str(root), str(data), 1)
    assert "is already prepared" in capsys.readouterr().out
    facts = json.loads((data / "corpus.json").read_text())
    assert {name: each["cuts"] for name, each in facts["sets"].items()} == {
        "train": 6, "base": 6, "td": 6, "opd": 6, "dev": 2, "test": 2,
    }  # fmt: skip
    found = list(read_cuts(str(data / "train.jsonl.gz")))
    assert all(Path(cut.recording.sources[0].source).is_relative_to(data / "audio") for cut in found)
    assert all(len(read_waveform(cut)) == cut.num_samples for cut in found)

"""Own audio in tables: the ten clips in every format, and what happens to bad tables."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from own_audio import FORMATS, clips, write_csv, write_jsonl

from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.layouts.registry import LAYOUTS, require_layout
from arkasr.corpora.layouts.table import NO_PART, Tables
from arkasr.corpora.layouts.table_rows import HEADER_AGAIN, NOT_JSON
from arkasr.errors import UserError

USED = "train: [train]\ndev: [dev, validation]\ntest: {test: null}\n"


def corpus(folder: Path, layout: str, more: str = ""):
    path = folder / f"{layout}.yaml"
    path.write_text(f"name: own\nlayout: {layout}\nlanguage: English\n{USED}{more}")
    return read_corpus_yaml(path)


def tables(place: Path, layout: str = "jsonl", more: str = "") -> Tables:
    found = require_layout(corpus(place if place.is_dir() else place.parent, layout, more), place)
    assert isinstance(found, Tables)
    return found


def scan(place: Path, *parts: str, layout: str = "jsonl", more: str = "") -> list[Entry]:
    return list(tables(place, layout, more).scan(list(parts)))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_ten_clips(tmp_path, name):
    write, layout = FORMATS[name]
    found = tables(write(tmp_path / "c", untranscribed=2), layout)
    parts = found.parts()
    assert sorted("dev" if part == "validation" else part for part in parts) == ["dev", "test", "train"]
    entries = sorted(found.scan(parts), key=lambda entry: entry.audio.name)
    assert [entry.audio.stem for entry in entries] == [clip.name for clip in clips()]
    for entry, clip in zip(entries, clips(untranscribed=2), strict=True):
        assert entry.part == ("validation" if name == "audiofolder" and clip.part == "dev" else clip.part)
        assert (entry.text, entry.reason, entry.audio.is_file()) == (clip.text or None, "", True)
        assert entry.begin == 0 and entry.end == (clip.seconds if name == "nemo" else None)
        assert entry.language == ("English" if name == "qwen3" and clip.name != "clip_05" else "")
    assert len({entry.id for entry in entries}) == 10


@pytest.mark.parametrize("name", FORMATS)
def test_ids_stay_when_the_corpus_moves_and_rows_are_added(tmp_path, name):
    write, layout = FORMATS[name]
    ids = []
    for place in ("one", "two"):
        root = write(tmp_path / place)
        if place == "two" and name == "jsonl":
            path = root / "train.jsonl"
            path.write_text('{"audio": "wavs/new.wav"}\n' + path.read_text())
        ids.append([entry.id for entry in scan(root, *tables(root, layout).parts(), layout=layout)])
    assert set(ids[0]) <= set(ids[1]) and len(ids[1]) == 10 + (name == "jsonl")


def test_one_table_is_a_corpus(tmp_path):
    root = FORMATS["jsonl"][0](tmp_path / "c")
    found = tables(root / "train.jsonl")
    assert (found.root, found.parts(), len(list(found.scan(["train"])))) == (root, ["train"], 6)
    assert found.transcripts(["train"]) == [root / "train.jsonl"]


@pytest.mark.slow  # imports the library datasets
def test_tables_are_not_searched_for_other_layouts(tmp_path):
    root = FORMATS["csv"][0](tmp_path / "c")
    with pytest.raises(UserError, match="expects <part>.jsonl .*has the layout csv"):
        tables(root, "jsonl")
    with pytest.raises(UserError, match="all.csv: not the own corpus"):
        tables(root / "all.csv", "jsonl")
    with pytest.raises(UserError, match="none.jsonl: no such file or folder"):
        tables(root / "none.jsonl", "jsonl")


def test_two_tables_of_one_part_are_refused(tmp_path):
    write_csv(tmp_path / "train.csv", [{"audio": "a.wav"}])
    write_csv(tmp_path / "train.tsv", [{"audio": "a.wav"}])
    with pytest.raises(UserError, match="are both the part train"):
        tables(tmp_path, "csv").parts()


def test_several_tables_may_share_parts_by_their_split_columns(tmp_path):
    for name in ("a", "b"):
        rows = [{"audio": f"{name}{number}.wav", "split": split} for number, split in enumerate(["train", "dev"])]
        write_csv(tmp_path / f"{name}.csv", rows)
    assert [entry.audio.name for entry in scan(tmp_path, "train", layout="csv")] == ["a0.wav", "b0.wav"]


def test_fingerprint_changes_with_the_tables_only(tmp_path):
    root = FORMATS["audiofolder"][0](tmp_path / "c")
    before = tables(root, "csv").fingerprint()
    (root / "notes.txt").write_text("x")
    assert tables(root, "csv").fingerprint() == before
    path = root / "train" / "metadata.csv"
    path.write_text(path.read_text() + "new.wav,text\n")
    assert tables(root, "csv").fingerprint() != before


def test_rows_with_faults_are_counted_with_their_part(tmp_path, capsys):
    rows = [{"audio": "a.wav", "split": "train"}, {"audio": "b.wav", "split": "other"}, {"audio": "c.wav"}]
    path = write_jsonl(tmp_path / "all.jsonl", rows)
    path.write_text(path.read_text() + "{oops\n")
    found = [(entry.part, entry.id, entry.reason) for entry in scan(tmp_path, "train")]
    assert found[1:] == [("train", "all.jsonl:3", NO_PART), ("train", "all.jsonl:4", NOT_JSON)]
    assert len(found) == 3 and found[0][2] == ""
    assert "1 rows belong to parts that corpus.yaml does not use: other (1)" in capsys.readouterr().out


def test_headers_of_joined_tables_are_counted(tmp_path):
    (tmp_path / "train.csv").write_text("audio,text\na.wav,one\naudio,text\nb.wav,two\n")
    assert [entry.reason for entry in scan(tmp_path, "train", layout="csv")] == ["", HEADER_AGAIN, ""]


def test_rows_in_several_languages_are_counted(tmp_path, capsys):
    languages = ["de", "German", "zh", None, "Kligon"]
    write_jsonl(tmp_path / "train.jsonl", [{"audio": f"{n}.wav", "lang": each} for n, each in enumerate(languages)])
    entries = scan(tmp_path, "train")
    assert [entry.language for entry in entries] == ["German", "German", "Chinese", "", ""]
    assert entries[4].reason.startswith("unknown language 'Kligon'")
    assert "several languages: Chinese (1), English (1), German (2)" in capsys.readouterr().out


def test_column_of_corpus_yaml_that_no_row_has_is_refused(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [{"audio": "a.wav", "beginning": 1.0}])
    with pytest.raises(UserError, match=r"columns\.start 'begining'.*did you mean 'beginning'\?"):
        scan(tmp_path, "train", more="columns: {start: begining}\n")
    assert scan(tmp_path, "train", more="columns: {start: beginning}\n")[0].begin == 1.0


def peak_bytes_of_scan(folder: Path, num_rows: int) -> int:
    rows = [{"audio": f"{number}.wav", "text": "x" * 5000} for number in range(num_rows)]
    write_jsonl(folder / "train.jsonl", rows)
    found = tables(folder)
    assert found.parts() == ["train"]
    tracemalloc.start()
    try:
        assert sum(1 for _ in found.scan(["train"])) == num_rows
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_scan_needs_no_more_memory_for_more_rows(tmp_path):
    few, many = (peak_bytes_of_scan(tmp_path, num_rows) for num_rows in (600, 2400))
    assert many < few + 1e6  # 9 MB more of transcripts


def test_both_layouts_are_registered():
    assert issubclass(LAYOUTS["jsonl"], Tables) and issubclass(LAYOUTS["csv"], Tables)

from __future__ import annotations

import io
import json

import pytest

from arkasr.errors import UserError
from arkasr.transcription.formats import record
from arkasr.transcription.journal import Journal
from arkasr.transcription.output import (
    FileOutput,
    FolderOutput,
    StreamOutput,
    check_single,
    chosen_format,
    file_names,
    is_folder,
)
from arkasr.transcription.results import Failed, Segment, Transcription
from arkasr.transcription.source import Source, audio_file


def result(name, text="hello"):
    return Transcription(name, text, (Segment(text, 0.0, 1.0),), 1.0, "English", "m")


def written(kind, *results, is_single=None, row=None):
    file = io.StringIO()
    output = StreamOutput(file, kind, len(results) == 1 if is_single is None else is_single)
    for each in results:
        output.write(Source(each.name, lambda: None, "x", row=row), each)
    output.close()
    return file.getvalue()


def test_one_source_is_written_without_its_name():
    assert written("txt", result("a.wav")) == "hello\n"
    assert json.loads(written("json", result("a.wav"))) == record(result("a.wav"))


def test_several_sources_have_names():
    both = result("a.wav"), result("b.wav", "x\ny")
    assert written("txt", *both) == "a.wav\thello\nb.wav\tx y\n"
    assert [json.loads(line)["name"] for line in written("jsonl", *both).splitlines()] == ["a.wav", "b.wav"]
    assert json.loads(written("json", *both)) == [record(each) for each in both]
    assert written("tsv", *both).splitlines()[1:] == ["a.wav\t0.000\t1.000\thello", "b.wav\t0.000\t1.000\tx y"]


def test_json_is_valid_without_any_result():
    assert json.loads(written("json", is_single=False)) == []


def test_failed_files_stay_in_json_and_are_left_out_of_texts():
    results = result("a.wav"), Failed("b.wav", "no such file")
    assert json.loads(written("json", *results))[1] == {"name": "b.wav", "error": "no such file"}
    assert written("txt", *results) == "a.wav\thello\n"


def test_published_rows_keep_their_fields():
    row = {"audio": "a.wav", "text": "ref", "speaker": 3}
    line = written("jsonl", result("a.wav", ", hello"), is_single=False, row=row)
    assert json.loads(line) == {**row, "pred_text": "hello", "pred_text_raw": ", hello"}


def test_a_terminal_gets_no_control_characters(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    file = Terminal()
    output = StreamOutput(file, "txt", False)
    output.write(audio_file("x"), result("\x1b[2Ja.wav", "the password=secret \u4f60\u597d"))
    assert file.getvalue() == "\\x1b[2Ja.wav\tthe password=secret \u4f60\u597d\n"


def test_names_of_files_are_distinct():
    paths = ["x/a.wav", "x/a.flac", "x/b.wav", "y/b.wav", "y/c.wav", "y/c.wav"]
    assert file_names([audio_file(path) for path in paths]) == [
        "a.wav",
        "a.flac",
        "x/b.wav",
        "y/b.wav",
        "y/c.wav",
        "y/c.wav-2",
    ]
    assert file_names([audio_file("x/a.wav")]) == ["a"]


def test_a_folder_gets_one_file_per_source(tmp_path):
    journal = Journal(tmp_path / "out" / ".arkasr.jsonl", {})
    sources = [audio_file("a.wav", "sub/a"), audio_file("b.wav")]
    output = FolderOutput(tmp_path / "out", "srt", sources, journal)
    output.write(sources[0], result("a.wav"))
    output.write(sources[1], Failed("b.wav", "no"))
    output.close()
    journal.close()
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.srt")] == ["out/sub/a.srt"]


def test_files_of_others_are_refused_before_anything_is_transcribed(tmp_path):
    journal = Journal(tmp_path / ".arkasr.jsonl", {})
    (tmp_path / "b.txt").write_text("my own notes")
    with pytest.raises(UserError, match=r"b\.txt: exists, and was not written by"):
        FolderOutput(tmp_path, "txt", [audio_file("a.wav"), audio_file("b.wav")], journal)
    with pytest.raises(UserError, match=r"b\.txt: exists, and was not written by"):
        FileOutput(tmp_path / "b.txt", "txt", True, journal)
    journal.close()
    assert (tmp_path / "b.txt").read_text() == "my own notes"


@pytest.mark.parametrize(
    ("kind", "output", "chosen"),
    [("", "", "txt"), ("", "a.srt", "srt"), ("", "a.JSONL", "jsonl"), ("vtt", "a.srt", "vtt"), ("", "out", "txt"),
     ("", "a.out", "txt")],
)  # fmt: skip
def test_the_format_is_named_or_that_of_the_suffix(kind, output, chosen):
    assert chosen_format(kind, output) == chosen


def test_an_unknown_format_is_an_error():
    with pytest.raises(UserError, match="--format docx: is not a format; use one of txt, json"):
        chosen_format("docx", "")


def test_folders_exist_or_have_no_suffix(tmp_path):
    (tmp_path / "v1.2").mkdir()
    (tmp_path / "file").touch()
    folders = {"new": True, "new.d/": True, "v1.2": True, "a.txt": False, "file": False}
    assert {name: is_folder(f"{tmp_path}/{name}") for name in folders} == folders


def test_subtitles_of_several_files_need_a_folder():
    with pytest.raises(UserError, match=r"--format srt: .* got 2; name a folder with --output"):
        check_single("srt", [audio_file("a.wav"), audio_file("b.wav")])
    check_single("srt", [audio_file("a.wav")])
    check_single("txt", [audio_file("a.wav"), audio_file("b.wav")])

"""Transcript files with byte order marks, odd white space, other encodings and dangerous ids."""

from __future__ import annotations

import codecs

import pytest

from arkasr.corpora.layouts.entries import BAD_ID, BAD_TEXT, NO_TEXT, NOT_UTF8
from arkasr.corpora.layouts.transcripts import clean, id_fault, read_lines, text_fault
from arkasr.errors import UserError


@pytest.mark.parametrize(
    "data",
    [
        b"1-2 RED DOGS\n1-3 CATS\n",
        codecs.BOM_UTF8 + b"1-2 RED DOGS\n1-3 CATS\n",
        codecs.BOM_UTF8 + b"1-2 RED DOGS\n" + codecs.BOM_UTF8 + b"1-3 CATS\n",  # two files, joined
        b"1-2 RED DOGS\r\n1-3 CATS\r\n",
        b"1-2 RED DOGS\r1-3 CATS",
        b"\n  1-2\tRED \t DOGS  \n\n \t\n1-3  CATS",
        "\u30001-2\u3000RED\u00a0DOGS\u2028\n1-3\u200bCATS\x0c\n".encode(),
    ],
)
def test_read_lines_ignores_marks_line_ends_and_kinds_of_blanks(tmp_path, data):
    (tmp_path / "t.txt").write_bytes(data)
    assert read_lines(tmp_path / "t.txt") == [("1-2", "RED DOGS", ""), ("1-3", "CATS", "")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_read_lines_refuses_utf_16_with_the_remedy(tmp_path, encoding):
    (tmp_path / "t.txt").write_bytes("1-2 RED DOGS\n1-3 CATS\n".encode(encoding))
    with pytest.raises(UserError, match=r"t.txt: must be UTF-8 text, found UTF-16 .*iconv -t UTF-8"):
        read_lines(tmp_path / "t.txt")


def test_read_lines_gives_each_bad_line_its_reason(tmp_path):
    lines = [b"1-2", b"1-3 \xff\xfe", b"1-4 \x00", b"../1-5 UP", b"1-6 \x1b[2J", b"1-7 FINE"]
    (tmp_path / "t.txt").write_bytes(b"\n".join(lines))
    assert [reason for _, _, reason in read_lines(tmp_path / "t.txt")] == [
        NO_TEXT, NOT_UTF8, BAD_TEXT, BAD_ID, BAD_TEXT, "",
    ]  # fmt: skip


def test_read_lines_names_a_missing_or_unreadable_file(tmp_path):
    with pytest.raises(UserError, match=r"t.txt: cannot be read \(No such file or directory\); make it readable"):
        read_lines(tmp_path / "t.txt")


@pytest.mark.parametrize(
    "name",
    ["", "..", "-rf", ".hidden", "a/b", "/a", "../a", "a-..-b", "a-.", "a\\b", "a\0b", "a\nb", "a b", "a\u3000b",
     "\ud800", "a\x7f", "x" * 201, "界" * 67],
)  # fmt: skip
def test_id_fault_refuses_ids_that_are_no_file_names(name):
    assert id_fault(name) == BAD_ID


@pytest.mark.parametrize("name", ["84-121123-0001", "BAC009S0002W0122", "Y0000000000_--5llN02F84_S0", "é.1", "x" * 200])
def test_id_fault_accepts_ids_of_corpora(name):
    assert id_fault(name) == ""


def test_clean_and_text_fault():
    assert clean("\ufeff RED\u200bDOGS \t") == "RED DOGS" and text_fault("RED DOGS") == ""
    assert text_fault(clean("\ufeff\u200b \n")) == NO_TEXT
    assert [text_fault(text) for text in ("a\x00b", "\ud800", "a\x9fb")] == [BAD_TEXT] * 3

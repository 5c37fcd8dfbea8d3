"""Several models on the same files: columns, error rates, and what a terminal shows."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.errors import UserError
from arkasr.scoring.alignment import align
from arkasr.scoring.significance import compare as paired
from arkasr.scoring.tally import count, summary
from arkasr.scoring.utterances import Utterance
from arkasr.transcription.comparison.columns import columns
from arkasr.transcription.comparison.compare import System, comparison
from arkasr.transcription.comparison.names import named_models
from arkasr.transcription.comparison.page import columns_wide
from arkasr.transcription.comparison.references import References
from arkasr.transcription.comparison.side_by_side import side_by_side
from arkasr.transcription.results import Failed, Transcription

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
REFERENCES = ["The cat sat on the mat.", "a dog", None, "hello there you"]
FIRST = ["the cat sat on mat", "a dog", "good day", "hello here you"]
SECOND = ["a the cat sat on the mat", "a dog", "good days", "hello there you"]
words = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8).map(" ".join)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def transcription(name, text, language="English"):
    return Transcription(name, text, (), 2.5, language, "m")


def compared(references, *texts, languages=("English",) * 10):
    names = ["base", "opd"][: len(texts)]
    systems = {name: System(f"exp/{name}/final") for name in names}
    results = {
        name: [
            text if isinstance(text, Failed) else transcription(f"{i}.wav", text, languages[i])
            for i, text in enumerate(own)
        ]
        for name, own in zip(names, texts)
    }
    utterances = tuple(
        None if text is None else Utterance(text, speaker=f"s{i % 3}") for i, text in enumerate(references)
    )
    return comparison(systems, results, References(utterances))


@settings(max_examples=40, deadline=None)
@given(words, st.lists(words, min_size=1, max_size=3))
def test_columns_hold_each_text_once_and_mark_its_errors(first, others):
    found = columns([align(first, other, "wer") for other in others])
    rows = list(zip(*found)) if found else [()] * (1 + len(others))
    assert [cell.token for cell in rows[0] if cell.token] == first.split()
    for row, other in zip(rows[1:], others):
        assert [cell.token for cell in row if cell.token] == other.split()
        tally = count([first], [other], "wer")
        for kind, number in (
            ("substitute", tally.substitutions), ("delete", tally.deletions), ("insert", tally.insertions)
        ):  # fmt: skip
            assert sum(cell.kind == kind for cell in row) == number.sum()


def test_error_rates_are_those_of_scoring():
    found = compared(REFERENCES, FIRST, SECOND)
    expected = ["the cat sat on the mat", "a dog", "hello there you"]
    speakers = ["s0", "s1", "s0"]
    tallies = [count(expected, [own[i] for i in (0, 1, 3)], "wer") for own in (FIRST, SECOND)]
    assert [entry["score"] for entry in found["models"].values()] == [summary(tally, speakers) for tally in tallies]
    (change,) = found["comparisons"]
    assert paired(tallies[1], tallies[0], speakers).items() <= change.items()
    assert (change["system"], change["from"], change["different_files"]) == ("opd", "base", 3)
    assert change["disagreement_percent"] == pytest.approx(100 * 4 / 12, abs=1e-3)
    assert [entry["errors"] for entry in found["files"]] == [
        {"base": 1, "opd": 1}, {"base": 0, "opd": 0}, None, {"base": 1, "opd": 0}
    ]  # fmt: skip
    assert found["without_reference"] == ["2.wav"] and found["failed"] == []


def test_terminal_shows_marks_rates_and_what_is_missing():
    out = side_by_side(compared(REFERENCES, FIRST, SECOND), io.StringIO())
    assert "\x1b" not in out
    lines = [line.split() for line in out.splitlines()]
    assert ["reference", "the", "cat", "sat", "on", "the", "mat"] in lines
    assert ["base", "the", "cat", "sat", "on", "-", "mat"] in lines
    assert ["opd", "+a", "the", "cat", "sat", "on", "the", "mat"] in lines
    assert ["opd", "good", "*days"] in lines and ["base", "hello", "*here", "you"] in lines
    assert "0.wav (2.5 s): errors in 6 words: base 1, opd 1" in out
    assert "errors in 2 words: base 0, opd 0, all texts are equal\n  a dog" in out
    assert "1 of 4 files have no reference and are not scored: 2.wav." in out
    assert ["base", "18.18"] in [line[:2] for line in lines] and "opd against base: -9.09 points" in out


def test_columns_of_a_block_begin_below_each_other():
    rows = side_by_side(compared(REFERENCES, FIRST, SECOND), io.StringIO()).splitlines()
    start = next(i for i, row in enumerate(rows) if row.startswith("  reference"))
    block = rows[start : start + 3]
    assert [row.rindex("mat") for row in block] == [block[0].rindex("mat")] * 3


@pytest.mark.parametrize("width", [40, 60, 100])
def test_lines_fit_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    long = " ".join(["several words of a long text"] * 6)
    found = compared([long, "x"], [long.replace("a", "another"), "x"], [long.upper(), "y"])
    found["models"] = {"a_very_long_name_of_a_model_" * 2 + key: value for key, value in found["models"].items()}
    for entry in found["files"]:
        for key in ("texts", "errors", "alignments"):
            entry[key] = dict(zip(found["models"], entry[key].values()))
    for each in found["comparisons"]:
        each |= dict(zip(("from", "system"), found["models"]))
    for file in (io.StringIO(), Terminal()):
        lines = ESCAPE.sub("", side_by_side(found, file)).splitlines()
        assert max(map(columns_wide, lines[2:])) <= width
        assert len({line.split()[0] for line in lines if "*another" in line}) == 1


def test_characters_are_aligned_in_languages_without_spaces():
    found = compared(["方舟语音"], ["方周语音"], ["方舟语音吗"], languages=("Chinese",))
    lines = [line.split() for line in side_by_side(found, io.StringIO()).splitlines()]
    assert ["base", "方", "*周", "语", "音"] in lines and ["opd", "方", "舟", "语", "音", "+吗"] in lines
    assert found["metric"] == "cer" and columns_wide("方舟") == 4


def test_colours_are_used_on_terminals_only_and_respect_no_color(monkeypatch):
    found = compared(REFERENCES, FIRST, SECOND)
    plain = side_by_side(found, io.StringIO())
    coloured = side_by_side(found, Terminal())
    assert ESCAPE.search(coloured) and ESCAPE.sub("", coloured) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert side_by_side(found, Terminal()) == plain


def test_without_references_models_are_compared_with_the_first():
    found = compared([None] * 4, FIRST, SECOND)
    out = side_by_side(found, io.StringIO())
    lines = [line.split() for line in out.splitlines()]
    assert ["base", "hello", "here", "you"] in lines and ["opd", "hello", "*there", "you"] in lines
    assert "WER" not in out and "no reference" not in out
    assert "opd against base: Texts differ in 3 of 4 files, 33.33 edits per 100 words." in out
    assert found["models"]["base"]["score"] is None and "p_bootstrap" not in found["comparisons"][0]


def test_files_that_fail_with_one_model_are_named_and_not_compared():
    found = compared(REFERENCES, [Failed("0.wav", "is no audio"), *FIRST[1:]], SECOND)
    assert [entry["name"] for entry in found["files"]] == ["1.wav", "2.wav", "3.wav"]
    assert found["failed"] == [{"name": "0.wav", "model": "base", "reason": "is no audio"}]
    out = side_by_side(found, io.StringIO())
    assert "1 of 4 files failed and are not compared:\n0.wav (base): is no audio" in out


def test_terminal_escapes_in_texts_are_shown():
    found = compared(["a"], ["a \x1b[31mb"], ["a"])
    out = side_by_side(found, io.StringIO())
    assert "\x1b" not in out


def test_everything_may_fail_or_be_empty():
    found = compared(["a"], [Failed("0.wav", "gone")], [Failed("0.wav", "gone")])
    assert found["files"] == [] and "1 of 1 files failed" in side_by_side(found, io.StringIO())
    out = side_by_side(compared(["", None], ["", ""], ["", "x"]), io.StringIO())
    assert "0.wav" in out and "+x" in out


def test_languages_with_other_units_are_refused():
    with pytest.raises(UserError, match="files in English, Chinese: are counted in different units"):
        compared(["a", "b"], ["a", "b"], languages=("English", "Chinese"))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["exp/base/final", "exp/base_opd/final"], ["base", "base_opd"]),
        (["x/base/final", "y/base/final"], ["x/base", "y/base"]),
        (["Owner/Model-A", "mine=exp/a/final"], ["Model-A", "mine"]),
        (["/a/final"], ["a"]),
        (["final", "./other"], ["final", "other"]),
    ],
)
def test_models_get_short_names(values, names):
    assert list(named_models(values)) == names
    assert list(named_models(values).values()) == [value.removeprefix("mine=") for value in values]


@pytest.mark.parametrize("values", [["a", "a"], ["x=a", "x=b"]])
def test_models_and_names_are_different(values):
    with pytest.raises(UserError, match="--model"):
        named_models(values)

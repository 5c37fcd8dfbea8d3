"""Hypotheses are paired by id, line or time. sclite pairs words and segments alike."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from arkasr.errors import UserError
from arkasr.scoring.pairing import pair
from arkasr.scoring.tally import count
from arkasr.scoring.transcript_file import read_transcripts

STM = """\
f 1 anna 0 2 <o> hello world
f 1 ben 3 5 <o> good morning
f 1 anna 5 6 <o> IGNORE_TIME_SEGMENT_IN_SCORING
f 1 ben 7 8 <o>
g 1 ben 0 1 <o> yes
"""


@pytest.fixture
def paired(tmp_path):
    """Return a function that writes references and hypotheses, named by format, and pairs them."""

    def write_and_pair(references, hypotheses):
        read = []
        for side, (name, text) in (("ref", references), ("hyp", hypotheses)):
            path = tmp_path / f"{side}.{name}"
            path.write_text(text)
            read.append(read_transcripts(str(path), side == "ref", "kaldi" if name == "kaldi" else ""))
        return pair(*read)

    return write_and_pair


def test_pair_by_id_keeps_the_order_of_references_and_names_missing(paired):
    found = paired(("kaldi", "a one\nb two\nc three\n"), ("trn", "3 (c)\n1 (a)\n"))
    assert found.texts == {"a": "1", "b": "", "c": "3"} and found.missing == ["b"]


def test_pair_by_line(paired):
    found = paired(("txt", "one\n\nthree\n"), ("txt", "1\n2\n\n"))
    assert found.texts == {"1": "1", "2": "2", "3": ""} and found.missing == []


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        (("txt", "a\nb\n"), ("txt", "a\n"), "hyp.txt: holds 1 texts, but .*ref.txt holds 2"),
        (("txt", "a\n"), ("txt", "a\nb\n"), "hyp.txt: holds 2 texts, but .*ref.txt holds 1"),
        (("txt", "a\n"), ("trn", "a (u)\n"), "ref.txt: has no ids, but .*hyp.trn has ids"),
        (("trn", "a (u)\n"), ("txt", "a\n"), "hyp.txt: has no ids"),
        (("trn", "a (u)\nb (v)\n"), ("trn", "a (u)\nb (w)\n"), "1 of 2 utterances are not in .*such as w .known: u, v"),
        (("trn", "a (u)\n"), ("trn", "a (U)\n"), "none of its utterances are in .*such as U"),
        (("stm", STM), ("ctm", "h 1 0 1 a\n"), "recording and channel h 1 are not in .*known: f 1, g 1"),
        (("stm", STM), ("trn", "a (u)\n"), "none of its utterances are in"),
    ],
)
def test_files_that_do_not_belong_together_are_errors(paired, references, hypotheses, message):
    with pytest.raises(UserError, match=message):
        paired(references, hypotheses)


def test_pair_by_time_gives_each_word_to_a_segment(paired):
    words = [(0.1, "hello"), (1.9, "word"), (2.4, "gap"), (3.1, "good"), (5.2, "ignored"), (7.2, "noise"), (9, "after")]
    found = paired(("stm", STM), ("ctm", "".join(f"f 1 {begin} 0.2 {word}\n" for begin, word in words)))
    assert found.texts == {"f-1-0-2": "hello word", "f-1-3-5": "gap good", "f-1-7-8": "noise after", "g-1-0-1": ""}
    assert found.ignored_words == 1 and found.missing == ["g-1-0-1"]


@pytest.mark.skipif(shutil.which("sclite") is None, reason="sclite (Debian package sctk) is not installed")
def test_pair_by_time_agrees_with_sclite(tmp_path, paired):
    draw, lines, words = random.Random(0), [], []
    for index in range(40):
        begin = 3 * index + draw.random()
        text = " ".join(draw.choices("abcdefgh", k=draw.randint(0, 5)))
        text = "IGNORE_TIME_SEGMENT_IN_SCORING" if index % 7 == 3 else text
        lines.append(f"f 1 spk{index:02} {begin:.2f} {begin + draw.uniform(0.5, 1.8):.2f} <o> {text}\n")
    words = sorted(draw.uniform(0, 124) for _ in range(150))
    ctm = "".join(f"f 1 {begin:.2f} 0.10 {draw.choice('abcdefgh')}\n" for begin in words)
    found = paired(("stm", "".join(lines)), ("ctm", ctm))
    references = read_transcripts(str(tmp_path / "ref.stm"), True).utterances
    tally = count([each.text for each in references.values()], list(found.texts.values()), "wer")
    files = ["-r", str(tmp_path / "ref.stm"), "stm", "-h", str(tmp_path / "hyp.ctm"), "ctm"]
    command = [shutil.which("sclite"), *files, "-o", "pralign", "stdout"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    scores = [tuple(map(int, line.split(")")[-1].split())) for line in shown.splitlines() if line.startswith("Scores:")]
    assert [s + d + i for _, s, d, i in scores] == tally.errors.tolist() and len(scores) == len(references)
    assert found.ignored_words > 0

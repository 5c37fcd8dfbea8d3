"""Tokens per metric, and alignments: complete on both sides, with the fewest edits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.scoring.alignment import Edit, align, align_all, tokens
from arkasr.scoring.tally import count

TEXT = st.text("ab 你好é", max_size=10)


@pytest.mark.parametrize(
    ("text", "metric", "expected"),
    [
        ("打开app now", "wer", ["打开app", "now"]),
        ("a\tb\u3000c \n", "wer", ["a", "b", "c"]),
        ("打 开app", "cer", ["打", "开", "a", "p", "p"]),
        ("我用machine learning做分析", "mer", ["我", "用", "machine", "learning", "做", "分", "析"]),
        ("我用 machine learning 做分析", "mer", ["我", "用", "machine", "learning", "做", "分", "析"]),
        ("don't 走café3.5元", "mer", ["don't", "走", "café3.5", "元"]),
        ("\u304b\u3099x", "mer", ["\u304b\u3099", "x"]),  # a mark belongs to the letter before it
        ("\u3099x", "mer", ["\u3099x"]),
        ("", "wer", []),
        (" ", "cer", []),
        ("", "mer", []),
    ],
)
def test_tokens(text, metric, expected):
    assert tokens(text, metric) == expected


def test_align_shows_each_edit():
    got = align("the cat sat on mats", "a cat on mats today", "wer")
    assert got == [
        Edit("substitute", "the", "a"),
        Edit("equal", "cat", "cat"),
        Edit("delete", "sat", ""),
        Edit("equal", "on", "on"),
        Edit("equal", "mats", "mats"),
        Edit("insert", "", "today"),
    ]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "kinds"),
    [("", "", []), ("", "a b", ["insert"] * 2), ("a b", "", ["delete"] * 2), ("a", "a", ["equal"])],
)
def test_align_of_empty_texts(reference, hypothesis, kinds):
    assert [edit.kind for edit in align(reference, hypothesis, "wer")] == kinds


@settings(max_examples=200, deadline=None)
@given(TEXT, TEXT, st.sampled_from(["wer", "cer", "mer"]))
def test_align_rebuilds_both_texts_and_agrees_with_counts(reference, hypothesis, metric):
    edits = align(reference, hypothesis, metric)
    assert [edit.reference for edit in edits if edit.kind != "insert"] == tokens(reference, metric)
    assert [edit.hypothesis for edit in edits if edit.kind != "delete"] == tokens(hypothesis, metric)
    assert all((edit.reference == edit.hypothesis) == (edit.kind == "equal") for edit in edits)
    tally, kinds = count([reference], [hypothesis], metric), Counter(edit.kind for edit in edits)
    expected = [tally.hits[0], tally.substitutions[0], tally.deletions[0], tally.insertions[0]]
    assert [kinds[kind] for kind in ("equal", "substitute", "delete", "insert")] == expected


def test_align_all_of_nothing_is_empty():
    assert align_all([], [], "wer") == []

"""Alignments as pieces of text: they hold both texts, and their number of errors is that of the scores."""

from __future__ import annotations

import pytest

from arkasr.reporting.page.alignments import Piece, joined, pieces
from arkasr.scoring.tally import count

PAIRS = [
    ("the cat sat on the mat", "the bat sat the mat again and again"),
    ("", "thank you"),
    ("a b c", ""),
    ("one two three four", "two three five four"),
]


@pytest.mark.parametrize(("reference", "hypothesis"), PAIRS)
def test_pieces_of_words_hold_both_texts_and_all_errors(reference, hypothesis):
    found = pieces(reference, hypothesis, "wer")
    assert " ".join(each.reference for each in found if each.reference) == reference
    assert " ".join(each.hypothesis for each in found if each.hypothesis) == hypothesis
    wrong = sum(max(len(p.reference.split()), len(p.hypothesis.split())) for p in found if p.kind != "equal")
    assert wrong == count([reference], [hypothesis], "wer").errors[0]


def test_pieces_join_equal_missing_and_added_tokens_but_not_substituted_ones():
    assert pieces("a b c d e f g h i j k", "a b x y e f i j k l m", "wer") == [
        Piece("equal", "a b", "a b"),
        Piece("substitute", "c", "x"),
        Piece("substitute", "d", "y"),
        Piece("equal", "e f", "e f"),
        Piece("delete", "g h", ""),
        Piece("equal", "i j k", "i j k"),
        Piece("insert", "", "l m"),
    ]


def test_pieces_of_characters_have_no_spaces():
    assert pieces("今天老师在公园", "今天老王在", "cer") == [
        Piece("equal", "今天老", "今天老"),
        Piece("substitute", "师", "王"),
        Piece("equal", "在", "在"),
        Piece("delete", "公园", ""),
    ]


@pytest.mark.parametrize(("metric", "text"), [("wer", "打 开 app now"), ("cer", "打开appnow"), ("mer", "打开 app now")])
def test_joined_separates_tokens_as_the_text_does(metric, text):
    tokens = ["打", "开", *(["app", "now"] if metric != "cer" else "appnow")]
    assert joined(tokens, metric) == text

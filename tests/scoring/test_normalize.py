"""What the rules of the scoring profile `unicode` keep."""

# ruff: noqa: RUF001  (full-width punctuation and letters are test data)

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.scoring.normalize import characters, raw, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DON'T  stop", "don't stop"),
        ("don\u2019t", "don't"),
        ("don\u00b4t", "don't"),
        ("don`t", "don't"),
        ("the boys' 'quoted' word", "the boys quoted word"),
        ("rock 'n' roll", "rock n roll"),
        ("we're", "we're"),
        ("well-known", "well known"),
        ("3.14 costs $25", "3 14 costs 25"),
        ("Mr. Quilter is here.", "mr quilter is here"),
        ("\uff21\uff22\uff23\u3000x", "abc x"),
        ("so\u00adft zero\u200bwidth", "soft zerowidth"),
        ("caf\u0065\u0301", "caf\u00e9"),
        ("a\tb\nc\u00a0d", "a b c d"),
        ("wait\u2026 \u201cwhat\u201d \u2014 no", "wait what no"),
        ("'", ""),
        ("", ""),
        ("I \u2764\ufe0f it", "i it"),
        ("press 1\ufe0f\u20e3 now", "press 1 now"),
        ("it\ufe01 is\U000e0100", "it is"),
        ("wow \U0001f44d\U0001f3fd\u200d!", "wow"),
        ("a\u3164 \u115fb", "a b"),
        ("\u0301 a !\u0308 b\u00a8c", "a b c"),  # marks on nothing
        ("1,000 of 12,345,678", "1000 of 12345678"),
        ("1,00,000.5", "100000 5"),
        ("1,000, about,2,000. 1,000-2,000", "1000 about 2000 1000 2000"),
        ("1,2 or 1999,2000 or 1,0000", "1 2 or 1999 2000 or 1 0000"),
        ("\uff11\uff0c\uff10\uff10\uff10", "1000"),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天 天气 很 好", "今天天气很好"),
        ("打开 APP 登录", "打开app登录"),
        ("machine learning", "machinelearning"),
        ("他说：“走吧”；然后走了", "他说走吧然后走了"),
        ("ＡＢＣ１２", "abc12"),
        ("臺灣", "臺灣"),
        ("，。？", ""),
        ("我\u2764\ufe0f你", "我你"),
        ("按1\ufe0f\u20e3键", "按1键"),
        ("葛\U000e0100城", "葛城"),
        ("3.5米，3 5", "3.5米35"),
        ("\uff13\uff0e\uff15", "3.5"),
        ("10:30 1/2 3-2 3\u20132", "10:301/23-23-2"),
        ("1,000元", "1000元"),
        ("第3.下一个-5.", "第3下一个5"),
        ("!\u0301好", "好"),
    ],
)
def test_characters(text, expected):
    assert characters(text) == expected


def test_raw_only_reduces_white_space():
    assert raw(" A\tB,  c’s ") == "A B, c’s"


# Digits with separators, marks, variation selectors, characters that NFKC takes apart, and any others.
SIGNS = "0123aé今.,:/-'\u2044\u2013 \u0301\u0308\u00a8\u00b4\ufe0f\u20e3\U000e0100\u00bd\u00b2"
TEXTS = st.text(SIGNS, max_size=20) | st.text(max_size=30)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([words, characters, raw]), TEXTS)
def test_rules_is_idempotent(normalize, text):
    assert normalize(normalize(text)) == normalize(text)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([words, characters]), TEXTS, st.integers(0, 30))
def test_rules_ignores_variation_selectors_and_keycaps(normalize, text, place):
    visible = text.translate(dict.fromkeys([0xFE0F, 0x20E3, 0xE0100]))
    for invisible in "\ufe0e\ufe0f\u20e3\U000e0101":
        assert normalize(visible[:place] + invisible + visible[place:]) == normalize(visible)


def reference_version_1(text, space):
    """The rules before version 2, for texts without compatibility forms and apostrophes."""
    kept = "".join(char if unicodedata.category(char)[0] in "LNM" else space for char in text.lower())
    return " ".join(kept.split())


@settings(max_examples=300, deadline=None)
@given(st.text("abcDEé 今天好,.;:!?()-。，、？", max_size=40) | st.text("ab 0123", max_size=20))
def test_rules_keeps_rules_for_ordinary_texts(text):
    assert words(text) == reference_version_1(text, " ")
    assert characters(text) == reference_version_1(text, "").replace(" ", "")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**12))
def test_words_reads_commas_of_thousands(number):
    assert words(f"{number:,}") == str(number)


@given(st.text(max_size=30))
def test_words_keeps_only_letters_numbers_marks_and_inner_apostrophes(text):
    for word in words(text).split(" "):
        assert not word.startswith("'") and not word.endswith("'")
        assert all(unicodedata.category(char)[0] in "LNM" or char == "'" for char in word)

"""What the scoring normalisers keep, and error counts of pairs that scoring tools treat differently."""

# ruff: noqa: RUF001  (full-width punctuation and letters are test data)

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.errors import UserError
from arkasr.evaluation.normalize import NORMALIZERS, normalizer
from arkasr.evaluation.score import count


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
    ],
)
def test_normalizer_english(text, expected):
    assert normalizer("english")(text) == expected


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
    ],
)
def test_normalizer_mandarin(text, expected):
    assert normalizer("mandarin")(text) == expected


def test_normalizer_raw_only_reduces_white_space():
    assert normalizer("raw")(" A\tB,  c’s ") == "A B, c’s"


PAIRS = [
    ("mandarin", "今天天气很好", "今天天气很好", 0, 6),
    ("mandarin", "今天 天气 很 好", "今天天气很好", 0, 6),
    ("mandarin", "打开APP登录", "打开app登录", 0, 7),
    ("mandarin", "我用machine learning做分析", "我用machine run in做分析", 5, 20),
    ("mandarin", "二零二四年三月", "2024年3月", 5, 7),
    ("mandarin", "臺灣學習軟體", "台湾学习软体", 6, 6),
    ("mandarin", "嗯那个我们开始吧", "那个我们开始吧", 1, 8),
    ("mandarin", "", "谢谢观看", 4, 0),
    ("mandarin", "他说：“走吧”；然后走了", "他说走吧然后走了", 0, 8),
    ("english", "DON'T STOP", "don\u2019t stop", 0, 2),
    ("english", "a well known fact", "a well-known fact", 0, 4),
    ("english", "mister quilter is here", "Mr. Quilter is here.", 1, 4),
    ("english", "uh i i think so", "i think so", 2, 5),
    ("english", "hello world", "", 2, 2),
    ("english", "caf\u00e9 na\u00efve", "cafe\u0301 nai\u0308ve", 0, 2),
]


@pytest.mark.parametrize(("name", "reference", "hypothesis", "errors", "length"), PAIRS)
def test_normalizer_and_count_on_difficult_pairs(name, reference, hypothesis, errors, length):
    normalize = normalizer(name)
    tally = count([normalize(reference)], [normalize(hypothesis)], "cer" if name == "mandarin" else "wer")
    assert (tally.errors.sum(), tally.lengths.sum()) == (errors, length)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(NORMALIZERS)), st.text(max_size=30))
def test_normalizer_is_idempotent(name, text):
    normalize = normalizer(name)
    assert normalize(normalize(text)) == normalize(text)


@given(st.text(max_size=30))
def test_normalizer_english_keeps_only_letters_numbers_marks_and_inner_apostrophes(text):
    for word in normalizer("english")(text).split(" "):
        assert not word.startswith("'") and not word.endswith("'")
        assert all(unicodedata.category(char)[0] in "LNM" or char == "'" for char in word)


def test_normalizer_has_version_and_rejects_unknown_name():
    assert all(normalizer(name).version for name in NORMALIZERS)
    with pytest.raises(UserError, match="'english2'.*english, mandarin, raw"):
        normalizer("english2")

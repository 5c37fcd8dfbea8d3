"""Scoring profiles: one row per rule, with the errors of each profile. The rows hold the pairs that scorers dispute."""

# ruff: noqa: RUF001  (full-width punctuation and letters are test data)

from __future__ import annotations

import json
from importlib import metadata, resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from arkasr.errors import UserError
from arkasr.scoring import library_rules, profiles
from arkasr.scoring.alignment import align, tokens
from arkasr.scoring.paper_rules import paper
from arkasr.scoring.profiles import PROFILES, default_profiles, find_profile
from arkasr.scoring.wenet_rules import wenet

ENGLISH = ("unicode", "paper", "leaderboard-2026-08", "wenet", "raw")
CHINESE = ("unicode", "paper", "wenet", "zh_tn", "raw")
# Rule, reference, hypothesis, and errors / reference length by each profile of the language, in the order above.
# The columns wenet and leaderboard-2026-08 (with the exception of compounds) are those that WeNet's and Whisper's own
# scripts gave for these pairs.
IN_ENGLISH = [
    ("case", "GOOD Morning", "good morning", "0/2 0/2 0/2 0/2 2/2"),
    ("substitution", "a b c", "a x c", "1/3 1/3 1/3 1/3 1/3"),
    ("deletion", "hello world", "", "2/2 2/2 2/2 2/2 2/2"),
    ("empty reference", "", "thank you", "2/0 2/0 2/0 2/0 2/0"),
    ("both empty", "", "", "0/0 0/0 0/0 0/0 0/0"),
    ("typographic apostrophe", "DON'T STOP", "don\u2019t stop", "0/2 0/2 2/3 2/2 2/2"),
    ("apostrophe in a word", "we're here", "were here", "1/2 1/2 2/3 1/2 1/2"),
    ("quotes", "he said go", "he said 'go'", "0/3 0/3 0/3 1/3 1/3"),
    ("hyphen", "a well known fact", "a well-known fact", "0/4 0/4 0/4 2/4 2/4"),
    ("hyphen joined", "wellknown", "well-known", "2/1 2/1 0/1 1/1 1/1"),
    ("compound", "white paper", "whitepaper", "2/2 2/2 0/2 2/2 2/2"),
    ("title", "mister quilter is here", "Mr. Quilter is here.", "1/4 1/4 0/4 2/4 3/4"),
    ("filler", "uh i i think so", "i think so", "2/5 2/5 1/4 2/5 2/5"),
    ("contraction", "i am here", "i'm here", "2/3 2/3 0/3 2/3 2/3"),
    ("number", "twenty five", "25", "2/2 2/2 0/1 2/2 2/2"),
    ("decimal point", "3.14", "314", "2/2 1/1 1/1 1/1 1/1"),
    ("commas of thousands", "1,000", "1000", "0/1 0/1 0/1 1/1 1/1"),
    ("spelling", "colour", "color", "1/1 1/1 0/1 1/1 1/1"),
    ("initials", "U.S. troops", "us troops", "2/3 0/2 0/3 1/2 1/2"),
    ("punctuation without space", "yes,no", "yes no", "0/2 0/2 0/2 2/1 2/1"),
    ("symbol", "\u20ac5", "5", "0/1 1/1 1/1 1/1 1/1"),
    ("accents, composed or not", "caf\u00e9 na\u00efve", "cafe\u0301 nai\u0308ve", "0/2 0/2 0/2 4/4 2/2"),
    ("accents", "caf\u00e9", "cafe", "1/1 1/1 0/1 2/2 1/1"),
    ("full-width letters", "\uff21\uff22\uff23", "abc", "0/1 0/1 0/1 3/3 1/1"),
    ("brackets", "so [laughs] yes", "so yes", "1/3 1/3 0/2 1/3 1/3"),
    ("tags", "so <noise> yes", "so yes", "1/3 1/3 0/2 0/2 1/3"),
    ("white space", "a\tb", "a  b", "0/2 0/2 0/2 0/2 0/2"),
]
IN_CHINESE = [
    ("equal", "今天天气很好", "今天天气很好", "0/6 0/6 0/6 0/6 0/6"),
    ("spaces", "今天 天气 很 好", "今天天气很好", "0/6 0/6 0/6 0/6 0/6"),
    ("case", "打开APP登录", "打开app登录", "0/7 0/7 0/5 0/7 3/7"),
    ("Latin words", "我用machine learning做分析", "我用machine run in做分析", "5/20 5/20 2/7 5/20 5/20"),
    ("numerals", "二零二四年三月", "2024年3月", "5/7 5/7 5/7 0/7 5/7"),
    ("numerals with units", "三点五米", "3.5米", "3/4 3/4 3/4 0/4 3/4"),
    ("width of digits", "２个苹果", "2个苹果", "0/4 0/4 1/4 0/4 1/4"),
    ("width of letters", "ＡＢＣ卡", "abc卡", "0/4 0/4 3/4 0/4 3/4"),
    ("traditional characters", "臺灣學習軟體", "台湾学习软体", "6/6 6/6 6/6 6/6 6/6"),
    ("filler", "嗯那个我们开始吧", "那个我们开始吧", "1/8 1/8 1/8 1/8 1/8"),
    ("erhua", "在哪儿", "在哪", "1/3 1/3 1/3 1/3 1/3"),
    ("empty reference", "", "谢谢观看", "4/0 4/0 4/0 4/0 4/0"),
    ("punctuation", "他说：“走吧”；然后走了", "他说走吧然后走了", "0/8 0/8 2/10 0/8 4/12"),
    ("brackets", "「好」", "好", "0/1 0/1 0/1 0/1 2/3"),
    ("decimal point", "3.5", "35", "1/3 1/3 1/1 1/3 1/3"),
    ("tags", "好<noise>的", "好的", "5/7 5/7 0/2 5/7 7/9"),
    ("symbol", "5℃", "5", "1/2 2/3 1/2 3/4 1/2"),
]
ROWS = [
    *(("English", ENGLISH, *row) for row in IN_ENGLISH),
    *(("Chinese", CHINESE, *row) for row in IN_CHINESE),
]


@pytest.mark.parametrize(("language", "names", "rule", "reference", "hypothesis", "expected"), ROWS)
def test_each_profile_has_its_rules(language, names, rule, reference, hypothesis, expected):
    found = []
    for name in names:
        profile = find_profile(name)
        texts = [profile.normalize(text, language) for text in (reference, hypothesis)]
        tally = profile.count([texts[0]], [texts[1]], language)
        found.append(f"{tally.errors.sum()}/{tally.lengths.sum()}")
        if profile.counter is None:  # the shown alignment agrees with the counts
            edits = [edit for edit in align(*texts, profile.metric(language)) if edit.kind != "equal"]
            assert len(edits) == tally.errors.sum()
    assert " ".join(found) == expected, rule


def test_every_profile_and_metric_is_in_the_table():
    assert {*ENGLISH, *CHINESE, "unicode-cer"} == set(PROFILES)
    metrics = {(name, language): find_profile(name).metric(language) for name in ("unicode", "paper", "raw", "wenet")
               for language in ("English", "zh", "Japanese", "Korean", "")}  # fmt: skip
    expected = {"English": "wer", "zh": "cer", "Japanese": "cer", "Korean": "wer", "": "wer"}
    assert metrics == {(n, each): "mer" if n == "wenet" else expected[each] for n, each in metrics}
    assert find_profile("zh_tn").metric("yue") == "cer" and find_profile("leaderboard-2026-08").metric("en") == "wer"


def test_characters_of_every_language_are_counted_by_unicode_cer():
    profile = find_profile("unicode-cer")
    texts = [profile.normalize(text, "Korean") for text in ("안녕 하세요", "안녕하세오!")]
    tally = profile.count([texts[0]], [texts[1]], "Korean")
    assert (tally.errors.sum(), tally.lengths.sum(), profile.metric("Korean")) == (1, 5, "cer")


# The published script's errors of the same pairs, which the profile `paper` does not have: fractions of characters,
# dropped references, and joined words.
@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "errors"),
    [
        ("我用 machine 做", "我用machine做", "Chinese", 0),  # 1.83 there
        ("", "谢谢观看", "Chinese", 4),  # 0 there
        ("a well known fact", "a well-known fact", "English", 0),  # 2 there
        ("3.14", "314", "English", 1),  # 0 there
        ("we're", "were", "English", 1),  # 0 there
        ("\u201cgo\u201d\uff1b", "go", "English", 0),  # 1 there
    ],
)
def test_profile_paper_has_no_defect_of_the_published_script(reference, hypothesis, language, errors):
    profile = find_profile("paper")
    texts = [[profile.normalize(text, language)] for text in (reference, hypothesis)]
    assert profile.count(*texts, language).errors.sum() == errors


def test_profile_of_the_leaderboard_is_the_normaliser_of_transformers():
    path = resources.files("whisper_normalizer") / "normalizers" / "english.json"
    reference_normalizer = EnglishTextNormalizer(json.loads(path.read_text()))
    texts = [text for _, *pair, _ in IN_ENGLISH for text in pair]
    texts += ["it's one oh one, $20 million and 3rd", "the honourable Dr. O'Neil won't", "two and a half per cent"]
    for text in texts:
        assert library_rules.leaderboard(text) == " ".join(reference_normalizer(text).split()), text


def reference_wenet_tokens(text: str) -> list[str]:
    """Read characters one at a time, as WeNet's description of `--char=1` says. For texts without tags."""
    found, open_run = [], False
    for char in text:
        if char in "，。" or char.isspace() or (char in "!,?" and not open_run):
            open_run = open_run and char in "!,?"
        elif "\u4e00" <= char <= "\u9fff":
            found.append(char)
            open_run = False
        elif char.isascii() and open_run:
            found[-1] += char.upper()
        else:
            found.append(char.upper())
            open_run = True
    return found


@settings(max_examples=300, deadline=None)
@given(st.text("aZ9é今天，。!?,.-' \t\u201c", max_size=25))
def test_tokens_of_wenet_are_those_of_a_reading_by_character(text):
    assert tokens(wenet(text), "mer") == reference_wenet_tokens(text)


@settings(max_examples=200, deadline=None)
@given(st.text("ab3今.,:/-'\u2019 €%$\u0301\u00bd", max_size=20), st.sampled_from(["wer", "cer"]))
def test_rules_of_profile_paper_are_idempotent(text, metric):
    assert paper(paper(text, metric), metric) == paper(text, metric)


# Bad input


def test_unknown_profile_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"scoring profile 'wennet': is unknown \(did you mean wenet\?\); use one of"):
        find_profile("wennet")


@pytest.mark.parametrize(
    ("name", "language", "message"),
    [
        ("unicode", "Klingon", "scoring profile unicode: language 'Klingon': is not a language that is known here"),
        (
            "zh_tn",
            "English",
            "scoring profile zh_tn: has no rules for English; it is for Chinese and Cantonese; ",
        ),
        ("leaderboard-2026-08", "", "leaderboard-2026-08: has no rules for an unknown language; it is for English"),
    ],
)
def test_profile_refuses_languages_that_it_is_not_for(name, language, message):
    for use in (find_profile(name).metric, lambda each: find_profile(name).normalize("a", each)):
        with pytest.raises(UserError, match=message):
            use(language)


@pytest.mark.parametrize("name", [name for name, profile in PROFILES.items() if profile.needs])
def test_absent_package_is_named_with_the_extra_that_installs_it(name, monkeypatch):
    def version(package):
        raise metadata.PackageNotFoundError(package)

    profile = find_profile(name)
    assert all(number.count(".") == 2 for number in profile.packages.values())
    monkeypatch.setattr(profiles, "_version", version)
    what = f"{name}: needs the package {profile.needs[0]}, which is not installed"
    message = rf"{what}; run pip install 'arkasr\[{profile.extra}\]'"
    for use in (profile.facts, lambda: profile.normalize("a", profile.languages[0])):
        with pytest.raises(UserError, match=message):
            use()


def test_defaults_need_no_package_in_the_first_place():
    assert default_profiles("English") == ("unicode", "paper", "leaderboard-2026-08")
    assert default_profiles("Chinese") == ("unicode", "paper", "wenet") and default_profiles("") == ("unicode", "paper")
    assert not any(find_profile(default_profiles(each)[0]).needs for each in ("", "English", "Chinese", "German"))

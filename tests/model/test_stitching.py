from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st

from arkasr.model.generation.stitching import joined, most_units, seam, stitch, units

DISTINCT = [f"w{i}" for i in range(60)]
WORDS = st.lists(st.sampled_from("abcd"), max_size=20)
CHARACTERS = [chr(0x4E00 + i) for i in range(60)]


@st.composite
def windows(draw, least=0):
    """Two windows over a number of distinct units: (number of units, start of the second, end of the first)."""
    total = draw(st.integers(max(least, 1), 60))
    start = draw(st.integers(0, total - least))
    return total, start, draw(st.integers(start + least, total))


@given(st.lists(st.sampled_from("abc"), max_size=30), st.data())
@rules(max_examples=60, deadline=None)
def test_stitch_restores_any_text_if_the_overlap_is_known(words, data):
    start = data.draw(st.integers(0, len(words)))
    end = data.draw(st.integers(start, len(words)))
    assert stitch(" ".join(words[:end]), " ".join(words[start:]), end - start) == " ".join(words)


@given(windows(), st.integers(0, 70), st.booleans())
@rules(max_examples=60, deadline=None)
def test_stitch_restores_a_text_without_repeated_units_whatever_the_limit(window, more, spaced):
    (total, start, end), text = window, DISTINCT if spaced else CHARACTERS
    glue = " " if spaced else ""
    result = stitch(glue.join(text[:end]), glue.join(text[start:total]), end - start + more, spaced)
    assert result == glue.join(text[:total])


@given(windows(least=4), st.integers(0, 20))
@rules(max_examples=60, deadline=None)
def test_stitch_takes_words_that_a_window_cuts_from_the_other_window(window, more):
    total, start, end = window
    left, right = [*DISTINCT[: end - 1], "half"], ["rest", *DISTINCT[start + 1 : total]]
    assert stitch(" ".join(left), " ".join(right), end - start + more) == " ".join(DISTINCT[:total])


@given(windows(least=8), st.integers(0, 20), st.data())
@rules(max_examples=60, deadline=None)
def test_stitch_keeps_the_count_of_words_where_the_windows_disagree_on_one(window, more, data):
    total, start, end = window
    other = DISTINCT[:total]
    wrong = data.draw(st.integers(start, end - 1))
    other[wrong] = "wrong"
    result = stitch(" ".join(DISTINCT[:end]), " ".join(other[start:]), end - start + more).split()
    assert result in (DISTINCT[:total], other)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [  # the first two are what Whisper tiny.en wrote of the same audio
        (
            "I need to talk about all calls and I am nice.",
            "I need to kill Kebo, cause I am my son. And we",
            "I need to kill Kebo, cause I am my son. And we",
        ),
        ("this will be a right right to live finish.", "This were mere alright right to live in this.", None),
        ("thirteen fourteen fifteen sixteen", "seventeen eighteen nineteen", "all"),
        ("on Monday Tuesday Wednesday", "Thursday Friday", "all"),
    ],
)
def test_seam_finds_what_two_readings_of_one_audio_share(left, right, expected):
    result = stitch(left, right, 25)
    if expected == "all":
        assert result == f"{left} {right}"
    elif expected:
        assert result == expected
    else:
        assert result.split().count("live") == 1 and len(result.split()) < len(f"{left} {right}".split()) - 4


@given(
    st.lists(st.sampled_from("abcd"), max_size=20), st.lists(st.sampled_from("abcd"), max_size=20), st.integers(0, 9)
)
def test_seam_changes_nothing_outside_of_the_shared_units(left, right, limit):
    keep, skip = seam(left, right, limit)
    assert max(len(left) - limit, 0) <= keep <= len(left)
    assert 0 <= skip <= min(limit, len(right))
    if limit == 0:
        assert (keep, skip) == (len(left), 0)


@given(st.integers(1, 8), st.integers(1, 8))
@rules(max_examples=60, deadline=None)
def test_stitch_of_windows_in_order_restores_the_text(step, overlap):
    size = step + overlap
    text = " ".join(DISTINCT[:size])
    for start in range(step, len(DISTINCT), step):
        text = stitch(text, " ".join(DISTINCT[start : start + size]), overlap)
    assert text == " ".join(DISTINCT)


@pytest.mark.parametrize(
    "left, right, spaced, expected",
    [
        ("I went home.", "Went home and slept", True, "I went home and slept"),
        ("one two three", "Three, four", True, "one two three four"),
        ("one two", "three four", True, "one two three four"),
        ("a b the c", "x the y z", True, "a b the c x the y z"),  # one word in common by chance, and two that differ
        ("", "one", True, "one"),
        ("one", "", True, "one"),
        ("", "", True, ""),
        ("我们去北京看天。", "北京看天安门。", False, "我们去北京看天安门。"),
        ("打开 app", "app now 吧", False, "打开 app now 吧"),
        ("我用 app", "now 好", False, "我用 app now 好"),  # no overlap: letters of Latin words stay apart
        ("สวัสดีครับ", "ดีครับผม", False, "สวัสดีครับผม"),
    ],
)
def test_stitch_examples(left, right, spaced, expected):
    assert stitch(left, right, 8, spaced) == expected


def test_units_of_mixed_text_keep_words_marks_and_punctuation_together():
    found = units("打开 app now吧。“你好”3.5个", spaced=False)
    assert found == ["打", "开", " app", " now", "吧。", "“你", "好”", "3.5", "个"]


@given(st.text(alphabet="打开吧。，“”（） ab3ーパき\u0e14\u0e31", max_size=30))  # noqa: RUF001
@rules(max_examples=60, deadline=None)
def test_units_without_spaces_restore_the_text(text):
    assert "".join(units(text, spaced=False)).strip() == text.strip()
    assert joined(units(text, spaced=False), spaced=False) == text.strip()


def test_most_units_grows_with_time_and_is_0_without_overlap():
    assert most_units(0) == most_units(0, spaced=False) == 0
    assert most_units(2) == 13
    assert most_units(2, spaced=False) == 25

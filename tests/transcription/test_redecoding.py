"""Which transcripts are decoded again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st
from spoken_numbers import NumberReader, recording

from arkasr import Transcript
from arkasr.transcription.assembly import Assembly, whole_text
from arkasr.transcription.redecoding import Decoded, is_repeated, trouble
from arkasr.transcription.settings import Settings
from arkasr.transcription.stream import Window
from arkasr.utils.loops import least_times

WINDOW = Window(0.0, recording(range(112)))  # 28 s
WORDS = st.lists(st.sampled_from(["the", "Thé", "boat", "goes", "3", "é"]), min_size=1, max_size=12)


def reported(text):
    """A text of a decoder that reports loops at the end, and found none."""
    return Transcript(text, stopped=True, looping=False)


@given(WORDS, st.integers(0, 9), st.sampled_from([" ", ", ", ". ", "\n"]))
@rules(max_examples=100, deadline=None)
def test_a_phrase_that_is_repeated_in_the_middle_is_trouble(phrase, more, gap):
    """Case and punctuation do not count."""
    times = [phrase if i % 2 else [word.upper() for word in phrase] for i in range(least_times(len(phrase)) + more)]
    text = gap.join(["so it began", *(" ".join(each) for each in times), "and then it ended"])
    assert trouble(Decoded(WINDOW, reported(text))) == "repeats itself"


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("谢谢大家" * 5 + "再见", True),
        ("谢谢大家。" * 5 + "再见", True),
        ("谢谢大家" * 4 + "再见", False),
        ("零" * 16 + "再见", False),
        ("ありがとう" * 6 + "では", True),
        ("see you " * 9 + "there", True),
        ("No, no, no, no! I said no.", False),
        ("my number is three three three three oh one", False),
        ("", False),
    ],
)
def test_texts_with_and_without_spaces_are_searched(text, repeated):
    assert is_repeated(reported(text)) is repeated


def test_a_text_that_loops_in_its_middle_is_decoded_again_like_one_that_loops_at_its_end():
    window = Window(4.0, recording(range(96)))
    texts = {"middle": "n0 " + "n1 n2 " * 9 + "n3 n4", "end": "n0 n3 n4 " + "n1 n2 " * 9}
    results = {}
    for place, text in texts.items():
        assembly = Assembly(reader := NumberReader(), Settings(), "English")
        assembly.add(window, Transcript(text, stopped=True, looping=place == "end"))
        results[place] = (*assembly.finish(), reader.calls)
    segments, notes, calls = results["middle"]
    assert results["middle"] == results["end"] and len(calls) == 1
    assert whole_text(segments, "English").split() == [f"n{number}" for number in range(96)]
    assert notes == [
        "4.00 to 28.00 s: the text repeats itself, so the audio was decoded again in 2 pieces (0 of them still fail)"
    ]


@pytest.mark.parametrize("keep", [False, True])
def test_a_segment_that_still_loops_says_so(keep):
    reader = NumberReader()
    assembly = Assembly(reader, Settings(), "English", keep=keep)
    assembly.add(Window(0.0, recording(range(7))), reported("see you " * 9 + "there"))
    (segment,), notes = assembly.finish()
    end = "is kept as it is" if keep else "the audio is too short to be cut"
    assert segment.looping and segment.text.endswith("there") and reader.calls == []
    assert notes == [f"0.00 to 1.75 s: the text repeats itself, and {end}"]


def test_texts_are_kept_whole_where_the_caller_says_so():
    reader = NumberReader()
    assembly = Assembly(reader, Settings(), "English", keep=True)
    assembly.add(WINDOW, Transcript("n0 n1", stopped=False, looping=False))
    assembly.add(Window(28.0, recording(range(4))), reported("word " * 12))
    segments, notes = assembly.finish()
    assert [segment.text for segment in segments] == ["n0 n1", "word " * 11 + "word"] and reader.calls == []
    assert [note.partition(": ")[2] for note in notes] == [
        "the text reached the limit of tokens, and is kept as it is",
        "the text is too long for the audio, and is kept as it is",
    ]

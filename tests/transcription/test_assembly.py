from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st
from spoken_numbers import SILENCE, NumberDetector, NumberReader, recording

from arkasr.interfaces import SAMPLE_RATE, Transcript
from arkasr.transcription.assembly import Assembly, whole_text
from arkasr.transcription.pauses import PauseCutter
from arkasr.transcription.settings import Settings
from arkasr.transcription.stream import Window
from arkasr.transcription.windows import Windows, cut

FIXED = Settings(segmentation="fixed")


def assembled(found, reader, language="English"):
    assembly = Assembly(reader, Settings(), language)
    for window in found:
        assembly.add(window, reader.transcribe([window.waveform], [language])[0])
    return assembly.finish()


def check_places(segments):
    """Each number is in the segment in whose time it is spoken, give or take two at the ends."""
    for segment in segments:
        numbers = [int(word[1:]) for word in segment.text.split()]
        assert segment.start - 0.5 <= numbers[0] / 4
        assert (numbers[-1] + 1) / 4 <= segment.end + 0.5


@given(st.integers(1, 240), st.floats(6, 30), st.sampled_from(["English", "Chinese"]))
@rules(max_examples=40, deadline=None)
def test_fixed_windows_give_each_word_once(count, size, language):
    samples, reader = recording(range(count)), NumberReader()
    found = cut([samples], Settings(segmentation="fixed", window_seconds=size))
    segments, _ = assembled(found, reader, language)
    assert whole_text(segments, language) == reader.transcribe([samples], [language])[0]


@given(st.integers(10, 240), st.floats(6, 30))
@rules(max_examples=20, deadline=None)
def test_segments_hold_the_times_of_their_words(count, size):
    found = cut([recording(range(count))], Settings(segmentation="fixed", window_seconds=size))
    segments, _ = assembled(found, NumberReader())
    assert segments[0].start == 0
    assert segments[-1].end == count / 4
    assert all(before.end == after.start for before, after in pairwise(segments))
    check_places(segments)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20)), min_size=1, max_size=6),
    st.integers(4, 20),
    st.integers(1000, 60000),
)
@rules(max_examples=40, deadline=None)
def test_windows_cut_at_pauses_give_each_word_once(parts, size, block):
    numbers = []
    for count, silence in parts:
        numbers += [*range(len(numbers), len(numbers) + count), *[SILENCE] * silence]
    found = Windows(recording(numbers).split(block), PauseCutter(size * SAMPLE_RATE, NumberDetector()))
    segments, _ = assembled(found, NumberReader())
    assert whole_text(segments, "English").split() == [f"n{number}" for number in numbers if number != SILENCE]
    check_places(segments)


@pytest.mark.parametrize("report", [True, False])
def test_a_window_that_loops_is_decoded_again_in_pieces(report):
    reader = NumberReader(loops_from=10, report=report)
    segments, notes = assembled(cut([recording(range(96))], FIXED), reader)
    assert whole_text(segments, "English").split() == [f"n{number}" for number in range(96)]
    assert notes == [
        "0.00 to 24.00 s: the text repeats itself, so the audio was decoded again in 4 pieces (0 of them still fail)"
    ]
    assert not any(segment.looping for segment in segments)


def test_the_number_of_times_that_a_window_is_decoded_again_is_bounded():
    reader = NumberReader(loops_from=0)
    segments, notes = assembled(cut([recording(range(96))], FIXED), reader)
    assert len(reader.calls) == 1 + 3
    assert [len(call) for call in reader.calls] == [1, 2, 4, 8]
    assert all(segment.looping for segment in segments)
    assert notes[0].endswith("again in 8 pieces (8 of them still fail)")


def test_a_short_window_that_loops_is_kept_with_a_note():
    reader = NumberReader(loops_from=0)
    segments, notes = assembled([Window(5.0, recording([7], SAMPLE_RATE))], reader)
    assert segments[0].text.startswith("n7 three")
    assert notes == ["5.00 to 6.00 s: the text repeats itself, and the audio is too short to be cut"]


def test_a_text_that_the_limit_of_tokens_cuts_is_decoded_again():
    assembly = Assembly(NumberReader(), Settings(), "English")
    assembly.add(Window(0.0, recording(range(80))), Transcript("n0 n1", stopped=False, looping=False))
    segments, notes = assembly.finish()
    assert whole_text(segments, "English").split() == [f"n{number}" for number in range(80)]
    assert notes[0].startswith("0.00 to 20.00 s: the text reached the limit of tokens, so the audio was decoded again")


@pytest.mark.parametrize("text", ["yes " * 9 + "no " * 9, "antidisestablishmentarianism and " * 4])
def test_a_text_that_is_longer_than_speech_can_be_is_decoded_again(text):
    assembly = Assembly(NumberReader(), Settings(), "English")
    assembly.add(Window(0.0, recording(range(9))), Transcript(text, stopped=True, looping=False))
    segments, notes = assembly.finish()
    assert whole_text(segments, "English").split() == [f"n{number}" for number in range(9)]
    assert notes[0].startswith("0.00 to 2.25 s: the text is too long for the audio, so the audio was decoded again")


def test_fast_speech_is_not_decoded_again():
    reader, assembly = NumberReader(), Assembly(NumberReader(), Settings(), "English")
    assembly.add(Window(0.0, recording(range(12))), Transcript("words " * 15, stopped=True, looping=False))
    assert (assembly.finish()[1], reader.calls) == ([], [])


def test_pieces_of_a_window_keep_its_overlap_with_the_one_before():
    reader, found = (
        NumberReader(loops_from=8),
        cut([recording(range(160))], Settings(window_seconds=12, segmentation="fixed")),
    )
    segments, _ = assembled(found, reader)
    assert whole_text(segments, "English").split() == [f"n{number}" for number in range(160)]


@pytest.mark.parametrize("loops_from, again", [(7, 5), (1e9, 0)])
def test_many_windows_that_are_decoded_again_have_one_note_on_their_length(loops_from, again):
    found = cut([recording(range(160))], Settings(window_seconds=10, segmentation="fixed"))
    _, notes = assembled(found, NumberReader(loops_from))
    assert sum("again in" in note for note in notes) == again
    advice = (
        f"{again} of 5 windows were decoded again; if the model was trained on shorter clips, lower --window_seconds"
    )
    assert [note for note in notes if note.startswith(advice)] == notes[again:]
    assert len(notes) == again + (again > 0)


def test_windows_without_text_are_counted():
    segments, notes = assembled([Window(0.0, recording([SILENCE] * 12)), Window(3.0, recording([1]))], NumberReader())
    assert [segment.text for segment in segments] == ["n1"]
    assert notes == ["the model wrote nothing for 1 window, 3.0 s in total"]


def test_segments_report_how_their_text_ended():
    assembly = Assembly(NumberReader(), Settings(), "English")
    assembly.add(Window(0.0, torch.zeros(SAMPLE_RATE)), Transcript("one"))
    assembly.add(Window(1.0, torch.zeros(SAMPLE_RATE)), Transcript("two", stopped=True, looping=False))
    segments, _ = assembly.finish()
    assert [(segment.stopped, segment.looping) for segment in segments] == [(None, None), (True, False)]


def test_settled_segments_do_not_change():
    reader, assembly, settled = NumberReader(), Assembly(NumberReader(), Settings(), "English"), []
    for window in cut([recording(range(160))], Settings(window_seconds=8, segmentation="fixed")):
        assembly.add(window, reader.transcribe([window.waveform], ["English"])[0])
        settled += assembly.settled(overlaps=True)
    assert settled and assembly.finish()[0][: len(settled)] == settled

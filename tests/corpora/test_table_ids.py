"""Ids of table rows: made of paths and times, or of ids with any characters."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.corpora.layouts.table_ids import allowed_id, make_id
from arkasr.corpora.layouts.transcripts import id_fault

PROPERTY = settings(max_examples=100, deadline=None)
SECONDS = st.floats(0, 1e5, allow_nan=False)


def test_made_ids_differ_by_folder_suffix_and_times():
    places = ["a/b.wav", "a_b.wav", "c/b.wav", "a/b.flac", "a-b.wav"]
    spans = [(0.0, None), (0.0, 1.0), (0.001, 1.0), (0.0, 1.001), (1.0, None)]
    made = [make_id(place, *span) for place in places for span in spans]
    assert len(set(made)) == len(made) == 25
    assert make_id("x/call 17.wav", 12.5, 15.25).startswith("call_17-12.50-15.25-")


@PROPERTY
@given(st.text(min_size=1), SECONDS, st.none() | SECONDS)
def test_made_ids_are_allowed_and_stable(audio, start, end):
    made = make_id(audio, start, end)
    assert id_fault(made) == "" and made == make_id(audio, start, end)


@PROPERTY
@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_with_any_characters_become_allowed_and_stay_different(one, other):
    assert id_fault(allowed_id(one)) == ""
    assert (allowed_id(one) == allowed_id(other)) == (one == other)


def test_allowed_ids_are_kept():
    assert allowed_id("84-121123-0001") == "84-121123-0001"
    assert allowed_id("speaker 1/utt 2").startswith("speaker_1_utt_2-")

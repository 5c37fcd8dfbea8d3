"""Windows of long clips: number, boundaries at quiet places, and joined transcripts."""

from __future__ import annotations

import pytest
import torch
from tiny import waveform

from arkasr.builtin.teachers.windows import join_transcripts, split_at_quiet
from arkasr.interfaces import Transcript

LONGEST = 32000


@pytest.mark.parametrize("size", [1, LONGEST, LONGEST + 1, 2 * LONGEST, 2 * LONGEST + 1, 7 * LONGEST - 3])
def test_split_gives_windows_that_make_up_the_clip(size):
    clip = waveform(size, 4)
    windows = split_at_quiet(clip, LONGEST)
    assert -(-size // LONGEST) <= len(windows) <= max(1, 2 * size // LONGEST)
    assert all(len(window) <= LONGEST for window in windows)
    assert len(windows) == 1 or min(map(len, windows)) >= LONGEST // 3  # none is so short that it has no context
    assert torch.equal(torch.cat(windows), clip)


@pytest.mark.parametrize("quiet", [23000, 25000, 27500])
def test_split_cuts_at_quietest_place(quiet):
    clip = torch.ones(50000)
    clip[quiet - 2400 : quiet + 2400] = 0.01
    clip[21500:22000] = 0.0  # silence within a word
    first, _ = split_at_quiet(clip, LONGEST)
    assert abs(len(first) - quiet) <= 1600


@pytest.mark.parametrize(("language", "text"), [("English", "one two three"), ("Chinese", "onetwo three")])
def test_joined_transcript_reports_cut_and_looping_parts(language, text):
    parts = [Transcript("one", True, False, 2), Transcript("", True, True, 1), Transcript("two three", False, False, 4)]
    joined = join_transcripts(parts, language)
    assert joined == text and isinstance(joined, Transcript)
    assert (joined.stopped, joined.looping, joined.num_tokens) == (False, True, 7)
    [alone] = [join_transcripts(parts[:1], language)]
    assert alone == "one" and (alone.stopped, alone.looping, alone.num_tokens) == (True, False, 2)

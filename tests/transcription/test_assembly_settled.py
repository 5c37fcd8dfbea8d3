"""Text that is sent before the end: it never changes afterwards."""

from __future__ import annotations

import weakref

import pytest
import torch
from scripted_recognizer import ScriptedRecognizer

from arkasr import Transcript
from arkasr.transcription.assembly import Assembly, whole_text
from arkasr.transcription.settings import Settings
from arkasr.transcription.stream import Window

TEXTS = [("one two three", 0.0), ("three four", 2.0), ("five six", 0.0), ("", 0.0), ("seven", 0.0)]


@pytest.mark.parametrize(("texts", "language", "expected"), [("ab", "English", "a b"), ("你好", "Chinese", "你好")])
def test_whole_text_has_spaces_where_the_language_has_them(texts, language, expected):
    assembly = Assembly(ScriptedRecognizer(), Settings(), language)
    for start, text in enumerate(texts):
        assembly.add(Window(float(start), torch.ones(16000)), Transcript(text, True, False, 1))
    assert whole_text(assembly.finish()[0], language) == expected


def test_assembly_does_not_keep_the_audio_of_windows():
    """A recording of hours would fill the memory."""
    assembly = Assembly(ScriptedRecognizer(), Settings(), "English")
    windows = [Window(float(start), torch.ones(16000)) for start in range(2)]
    waveforms = [weakref.ref(window.waveform) for window in windows]
    for window, text in zip(windows, ("", "one"), strict=True):
        assembly.add(window, Transcript(text, True, False, 1))
    del windows, window
    assert [waveform() for waveform in waveforms] == [None, None] and assembly.finish()[0][0].text == "one"


def test_settled_text_is_the_start_of_the_whole_text():
    assembly, sent = Assembly(ScriptedRecognizer(), Settings(), "English"), []
    for number, (text, overlap) in enumerate(TEXTS):
        assembly.add(Window(8.0 * number, torch.ones(160000), overlap), Transcript(text, True, False, 1))
        following = TEXTS[number + 1][1] if number + 1 < len(TEXTS) else 0.0
        sent.append(whole_text(assembly.settled(following > 0), "English"))
    whole = whole_text(assembly.finish()[0], "English")
    assert whole == "one two three four five six seven"
    assert all(whole.startswith(text) for text in sent) and sent[0] == "" and sent[-1] == whole

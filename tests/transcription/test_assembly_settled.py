"""Text that is sent before the end: it never changes afterwards."""

from __future__ import annotations

import weakref

import pytest
import torch
from scripted_recognizer import ScriptedRecognizer

from arkasr import Transcript
from arkasr.model.generation.stitching import joined
from arkasr.transcription import assembly as module
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


@pytest.mark.parametrize("language", ["English", "Chinese"])
def test_settled_texts_are_the_whole_text_in_parts(language):
    assembly, sent = Assembly(ScriptedRecognizer(), Settings(), language), [""]
    for number, (text, overlap) in enumerate(TEXTS):
        assembly.add(Window(8.0 * number, torch.ones(160000), overlap), Transcript(text, True, False, 1))
        following = TEXTS[number + 1][1] if number + 1 < len(TEXTS) else 0.0
        sent.append(whole_text(assembly.settled(following > 0), language, "".join(sent)))
    segments, _ = assembly.finish()
    assert "".join(sent) == whole_text(segments, language) == "one two three four five six seven"
    assert sent == ["", "", "one two three four", " five six", "", " seven"]


def joined_parts(monkeypatch, count, overlap):
    """Return how many parts are joined to texts, if the text is sent after each of `count` windows."""
    parts = []
    monkeypatch.setattr(module, "joined", lambda texts, spaced: parts.extend(texts) or joined(texts, spaced))
    assembly, sent, segments = Assembly(ScriptedRecognizer(), Settings(), "English"), "", 0
    for number in range(count):
        text = Transcript(f"w{number} w{number + 1}", True, False, 1)
        assembly.add(Window(2.0 * number, torch.ones(64000), overlap), text)
        new = assembly.settled(overlap > 0)
        sent, segments = sent + whole_text(new, "English", sent), segments + len(new)
    whole, _ = assembly.finish()
    assert sent + whole_text(whole[segments:], "English", sent) == " ".join(segment.text for segment in whole)
    assert len(whole) == count
    return len(parts)


@pytest.mark.parametrize("overlap", [0.0, 1.0])
def test_the_work_per_window_does_not_grow_with_the_recording(monkeypatch, overlap):
    few, many = (joined_parts(monkeypatch, count, overlap) for count in (50, 500))
    assert few <= 6 * 50 and many - 10 * few <= 10  # linear but for a constant

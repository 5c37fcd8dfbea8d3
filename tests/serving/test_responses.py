"""Results as OpenAI's clients read them."""

from __future__ import annotations

import json

from arkasr.serving.job import Delta
from arkasr.serving.responses import delta_event, done_event, response_of
from arkasr.transcription.results import Segment, Transcription, Word

SEGMENTS = (
    Segment("你好 a\nb", 0.0, 1.23456, (Word("你", 0.1, 0.2), Word("好", 0.2, 0.31)), True, False),
    Segment("end", 2.0, 3.0),
)
RESULT = Transcription("a.wav", "你好 a\nb end", SEGMENTS, 3.5, "Chinese", "m", ("the audio ends early: 声",))


def test_json_has_text_length_and_notes():
    body = json.loads(response_of(RESULT, "json", False).body)
    usage = {"type": "duration", "seconds": 3.5}
    assert body == {"text": RESULT.text, "usage": usage, "notes": list(RESULT.notes)}


def test_verbose_json_has_segments_and_the_words_that_were_asked_for():
    body = json.loads(response_of(RESULT, "verbose_json", True).body)
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "chinese", 3.5)
    assert body["segments"][0] == {"id": 0, "start": 0.0, "end": 1.235, "text": "你好 a\nb"}
    assert body["words"] == [{"word": "你", "start": 0.1, "end": 0.2}, {"word": "好", "start": 0.2, "end": 0.31}]
    assert "words" not in json.loads(response_of(RESULT, "verbose_json", False).body)


def test_other_formats_have_their_notes_in_a_header():
    for name, kind in [("text", "text/plain"), ("srt", "application/x-subrip"), ("vtt", "text/vtt")]:
        response = response_of(RESULT, name, False)
        assert json.loads(response.headers["arkasr-notes"]) == list(RESULT.notes)
        assert response.headers["content-type"] == f"{kind}; charset=utf-8" and "你好" in response.body.decode()
    assert "arkasr-notes" not in response_of(Transcription("a", "", (), 1.0, "English", "m"), "srt", False).headers


def test_events_are_one_line_each_whatever_the_text_holds():
    events = [delta_event(Delta("a\nb\r\n\n", 1.23456)), done_event(RESULT, "json", False)]
    for event in events:
        line, *rest = event.decode().split("\n")
        assert rest == ["", ""] and "\r" not in line and line.startswith("data: {")
    assert json.loads(events[0][6:]) == {"type": "transcript.text.delta", "delta": "a\nb\r\n\n", "seconds": 1.235}
    assert json.loads(events[1][6:])["text"] == RESULT.text

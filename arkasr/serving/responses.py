"""Results as OpenAI's clients read them."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from arkasr.languages import find_language
from arkasr.serving.job import Delta
from arkasr.transcription.formats import FORMATS
from arkasr.transcription.results import Transcription

NOTES = "arkasr-notes"  # header
KEEP_ALIVE = b": keep-alive\n\n"  # a comment of a stream of server-sent events, which clients ignore
MEDIA_TYPES = {"text": "text/plain", "srt": "application/x-subrip; charset=utf-8", "vtt": "text/vtt"}


def response_of(result: Transcription, response_format: str, words: bool) -> Response:
    """Return the answer to a request.

    Notes on the result, such as audio that ends early, are in the field `notes` of JSON, and in the header
    `Arkasr-Notes` of other formats, as JSON in ASCII.

    Args:
        result: The result.
        response_format: json, text, srt, verbose_json or vtt.
        words: Whether times of words were asked for.

    Returns:
        The answer.
    """
    if response_format not in MEDIA_TYPES:
        return JSONResponse(fields(result, response_format, words))
    headers = {NOTES: json.dumps(result.notes)} if result.notes else {}
    text = FORMATS["txt" if response_format == "text" else response_format](result)
    return PlainTextResponse(text, headers=headers, media_type=MEDIA_TYPES[response_format])


def fields(result: Transcription, response_format: str, words: bool) -> dict[str, Any]:
    """Return the fields of a result in JSON.

    Args:
        result: The result.
        response_format: json or verbose_json.
        words: Whether times of words were asked for.

    Returns:
        `text` and `usage`, and for verbose_json also times. `notes` only if there are any.
    """
    known: dict[str, Any] = {"text": result.text, "usage": {"type": "duration", "seconds": round(result.seconds, 3)}}
    if response_format == "verbose_json":
        known |= {
            "task": "transcribe",
            "language": find_language(result.language).name.lower(),
            "duration": round(result.seconds, 3),
            "segments": [
                {"id": number, "start": round(each.start, 3), "end": round(each.end, 3), "text": each.text}
                for number, each in enumerate(result.segments)
            ],
        }
        if words:
            known["words"] = [
                {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
                for each in result.segments
                for word in each.words
            ]
    return known | ({"notes": list(result.notes)} if result.notes else {})


def sse(data: dict[str, Any]) -> bytes:
    """Format one server-sent event.

    Args:
        data: Its content.

    Returns:
        Bytes to send.
    """
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def delta_event(delta: Delta) -> bytes:
    """Return the event with the next part of the text.

    Args:
        delta: The part.

    Returns:
        Bytes to send.
    """
    return sse({"type": "transcript.text.delta", "delta": delta.text, "seconds": round(delta.seconds, 3)})


def done_event(result: Transcription, response_format: str, words: bool) -> bytes:
    """Return the last event of a stream: the whole result. With verbose_json it also has subtitles (`srt`).

    Args:
        result: The result.
        response_format: json or verbose_json.
        words: Whether times of words were asked for.

    Returns:
        Bytes to send.
    """
    known = fields(result, response_format, words)
    if response_format == "verbose_json":
        known["srt"] = FORMATS["srt"](result)  # for the page, which offers it without a second request
    return sse({"type": "transcript.text.done", **known})

"""The page that the service shows in a browser: routes.py serves the files of static/.

The page talks to the service as any client does. It sends `POST v1/audio/transcriptions` with `stream=true`,
`response_format=verbose_json`, `timestamp_granularities[]` `segment` (and `word` if `PageSettings.word_times`), the ISO
code of `language`, and the header `Authorization: Bearer KEY` once a key was entered. It asks `GET v1/models` at the
start, and shows the field for the key if the status is 401. It reads these server-sent events. It ignores others, and
comments:

- `{"type": "transcript.text.delta", "delta": TEXT, "seconds": SECONDS}`: text that follows the text so far, and how
  much of the audio that covers.
- `{"type": "transcript.text.done", "text": TEXT, "segments": [{"start", "end", "text"}], "words": [{"word", "start",
  "end"}], "duration": SECONDS, "srt": SUBTITLES, "notes": [TEXT]}`: the result, which replaces the text so far. All but
  `text` may be absent.
- `{"error": {"message": TEXT}}`: the request failed after the stream began.

Of an answer that is not 200 it shows `error.message`, and what to do by the status.

May import the subpackages that `serving` may import.
"""

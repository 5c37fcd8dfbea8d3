"""The fields of `POST /v1/audio/transcriptions`, checked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from starlette.datastructures import FormData, UploadFile

from arkasr.errors import UserError
from arkasr.languages import find_language
from arkasr.serving.errors import ApiError, refuse
from arkasr.serving.languages import ModelLanguages
from arkasr.transcription.settings import Settings
from arkasr.utils.console import printable

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
SUBTITLES = ("srt", "vtt")  # divided at words, if these have times
STREAMED = ("json", "verbose_json")
GRANULARITIES = ("segment", "word")
MAX_SHOWN = 50  # characters of a wrong value in messages
MAX_HOTWORDS = 4096  # characters of all hotwords: tables of longer ones would take the model from other requests
LISTS = ("timestamp_granularities", "include")  # clients send them with and without [] behind the name
FIELDS = (
    "file", "model", "language", "prompt", "response_format", "temperature", "timestamp_granularities", "stream",
    "include", "chunking_strategy", "hotwords",
)  # fmt: skip


class Served(NamedTuple):
    """What the service offers.

    Attributes:
        name: Id of its model.
        settings: Settings of requests that do not ask for others.
        word_times: Whether the model finds the times of words.
        languages: Those of the model.
    """

    name: str
    settings: Settings
    word_times: bool
    languages: ModelLanguages = ModelLanguages()


@dataclass(frozen=True)
class Parameters:
    """One request.

    Attributes:
        file: The audio.
        settings: How it is transcribed.
        response_format: One of `FORMATS`.
        stream: Whether the text is sent as it is recognised.
    """

    file: UploadFile
    settings: Settings
    response_format: str
    stream: bool


def read_parameters(form: FormData, served: Served) -> Parameters:
    """Check the fields of a form.

    Args:
        form: The fields.
        served: What the service offers.

    Returns:
        The request.

    Raises:
        ApiError: A field is missing, unknown or wrong.
    """
    values = _values(form)
    _check_model(values.pop("model", [served.name])[-1], served.name)
    _refuse_unsupported(values)
    response_format = _one_of("response_format", values.get("response_format", ["json"])[-1], FORMATS)
    stream = _one_of("stream", values.get("stream", ["false"])[-1].lower(), ("true", "false")) == "true"
    if stream and response_format not in STREAMED:
        refuse("stream", f"needs a response_format of {_listed(STREAMED)}, got {response_format!r}; change one of them")
    settings = replace(
        served.settings,
        language=_language(values.get("language", [""])[-1], served),
        word_times=_word_times(values.get("timestamp_granularities", []), response_format, served),
        hotwords=_hotwords(values.get("hotwords", [])) or served.settings.hotwords,
    )
    return Parameters(_file(form), settings, response_format, stream)


def _values(form: FormData) -> dict[str, list[str]]:
    """Return the texts of each field but the file. Names of lists lose their []."""
    values: dict[str, list[str]] = {}
    for key, value in form.multi_items():
        name = key.removesuffix("[]") if key.removesuffix("[]") in LISTS else key
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            refuse(
                printable(name[:MAX_SHOWN]), f"is not a field of this request{hint}; leave it out", "unknown_parameter"
            )
        if name == "file":
            continue
        if not isinstance(value, str):
            refuse(name, "must be text, got a file; send the text itself")
        if value:
            values.setdefault(name, []).append(value)
        if len(values.get(name, [])) > 1 and name not in (*LISTS, "hotwords"):
            refuse(name, "is sent twice; send it once")
    return values


def _file(form: FormData) -> UploadFile:
    files = form.getlist("file")
    if not files:
        refuse("file", "is missing; send the audio in the field `file`", "missing_file")
    if len(files) > 1:
        refuse("file", "is sent twice; send it once")
    (file,) = files
    if isinstance(file, str):
        refuse("file", "must be a file, got text; with curl, write file=@NAME", "missing_file")
    if file.size == 0:
        refuse("file", "is empty (0 bytes); send audio", "invalid_audio")
    return file


def _check_model(name: str, served: str) -> None:
    if name != served:
        message = f"model {name[:100]!r} is not served here; use {served!r}, or leave the field out"
        raise ApiError(404, "model_not_found", message, "model")


def _refuse_unsupported(values: dict[str, list[str]]) -> None:
    temperature = values.get("temperature", ["0"])[-1]
    if not re.fullmatch(r"0+(\.0*)?", temperature):
        refuse("temperature", f"must be 0, because decoding is greedy, got {temperature[:20]!r}; leave it out")
    if "prompt" in values:
        refuse("prompt", "is not supported: the models take no text beside the audio; use `hotwords` for rare words")
    if "include" in values:
        refuse("include", f"{values['include'][0][:20]!r} is not supported; leave it out")
    if values.get("chunking_strategy", ["auto"]) != ["auto"]:
        refuse("chunking_strategy", "must be auto, which is what the service always does; leave it out")


def _one_of(param: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        refuse(param, f"must be {_listed(allowed)}, got {value[:MAX_SHOWN]!r}")
    return value


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _language(text: str, served: Served) -> str:
    if not text.strip():
        return served.settings.language
    try:
        name = find_language(text[:MAX_SHOWN], "language").name
    except UserError as error:
        raise ApiError(400, "unknown_language", str(error), "language") from error
    if name not in served.languages.accepted:
        known = ", ".join(served.languages.accepted)
        refuse("language", f"{name} is not one that {served.name} transcribes; use {known}", "unsupported_language")
    return name


def _word_times(granularities: Sequence[str], response_format: str, served: Served) -> bool:
    param = "timestamp_granularities"
    for value in granularities:
        _one_of(param, value, GRANULARITIES)
    if granularities and response_format != "verbose_json":
        refuse(param, f"need response_format verbose_json, got {response_format!r}; change one of them")
    if "word" in granularities and not served.word_times:
        refuse(param, "cannot have word: this model has no CTC head, which finds the times of words; ask for segment")
    return "word" in granularities or (response_format in SUBTITLES and served.word_times)


def _hotwords(values: Sequence[str]) -> tuple[str, ...]:
    """Split hotwords at commas and line ends, each one once."""
    if (length := sum(map(len, values))) > MAX_HOTWORDS:
        refuse("hotwords", f"may have {MAX_HOTWORDS} characters, got {length}; leave some out")
    words = (word.strip() for value in values for word in re.split(r"[,\n]", value))
    return tuple(dict.fromkeys(word for word in words if word))

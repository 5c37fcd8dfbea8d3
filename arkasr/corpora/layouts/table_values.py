"""The values of one row: path, transcript, language, task and names, each with the reason why it cannot be used."""

from __future__ import annotations

import re
from typing import Any

from arkasr.corpora.layouts.entries import NOT_UTF8
from arkasr.corpora.layouts.transcripts import clean, text_fault
from arkasr.errors import UserError
from arkasr.languages import find_language, known_language

NO_PATH = "row names no audio"
BAD_AUDIO = "field of the audio is not a path"
ADDRESS = "audio is an address of the internet, not a file"
NOT_TEXT = "transcript is not text"
NOT_A_NAME = "name of the speaker is not text"
NOT_AN_ID = "id is neither text nor a whole number"
NOT_A_LANGUAGE = "language is not text"
TWO_LANGUAGES = "language of the row and language in its transcript differ"
OTHER_TASK = "task is not asr"

_TASKS = ("asr", "transcribe")
_NO_LANGUAGE = ("", "none", "null")
_PREFIX = re.compile(r"language ([^<>]*)<asr_text>")
_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8
_MOST_LANGUAGES = 20  # different unknown languages that are named in reasons


def audio_fault(value: Any) -> str:
    """Check the path of the audio.

    Args:
        value: Any value of a table.

    Returns:
        Why it cannot be used, or "".
    """
    if value is None or value == "":
        return NO_PATH
    if not isinstance(value, str) or "\0" in value:
        return BAD_AUDIO
    return ADDRESS if "://" in value else ""


def transcript(value: Any) -> tuple[str | None, str, str]:
    """Read a transcript, which may begin with Qwen3-ASR's `language English<asr_text>`.

    Args:
        value: Any value of a table.

    Returns:
        The text with single spaces, or None if the row has no transcript. The language of the prefix, or "". The
        reason why the row cannot be used, or "".
    """
    if value is None:
        return None, "", ""
    if not isinstance(value, str):
        return None, "", NOT_TEXT
    language = ""
    if value.startswith("language ") and (prefix := _PREFIX.match(value)):
        language, value = prefix[1], value[prefix.end() :]
    text = clean(value)
    if not text:
        return None, language, ""
    return text, language, NOT_UTF8 if _ESCAPED.search(text) else text_fault(text)


class Languages:
    """Reads languages, and remembers the unknown ones so that reasons stay countable."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}
        self._num_unknown = 0

    def read(self, value: Any, prefix: str) -> tuple[str, str]:
        """Read the language of a row.

        Args:
            value: Value of its column, or None.
            prefix: Language in its transcript, or "".

        Returns:
            English name, or "" if the row names no language. The reason why the row cannot be used, or "".
        """
        if value is not None and not isinstance(value, str):
            return "", NOT_A_LANGUAGE
        (name, fault), (other, other_fault) = self._name(value or ""), self._name(prefix)
        if name and other and name != other:
            return "", TWO_LANGUAGES
        return name or other, fault or other_fault

    def _name(self, text: str) -> tuple[str, str]:
        known = self._known.get(text)
        if known is None:
            known = self._look_up(text)
            if not known[1]:
                self._known[text] = known
        return known

    def _look_up(self, text: str) -> tuple[str, str]:
        if text.strip().lower() in _NO_LANGUAGE:
            return "", ""
        language = known_language(text)
        if language is not None:
            return language.name, ""
        self._num_unknown += 1
        if self._num_unknown > _MOST_LANGUAGES:
            return "", "unknown language"
        known = self._known[text] = "", _unknown(text)
        return known


def _unknown(text: str) -> str:
    """Return a short reason with the nearest language, which the error of `find_language` names."""
    try:
        find_language(text)
    except UserError as error:
        near = re.search(r"did you mean [^?]*\?", str(error))
        return f"unknown language {text[:40]!r}" + (f", {near[0]}" if near else "")
    return ""


def task_fault(value: Any) -> str:
    """Check the task of a row. Transcripts of other tasks, such as translation, do not say what is spoken.

    Args:
        value: Value of its column, or None.

    Returns:
        Why the row cannot be used, or "".
    """
    return "" if value is None or value == "" or str(value).strip().lower() in _TASKS else OTHER_TASK


def name(value: Any, fault: str) -> tuple[str, str]:
    """Read a name or an id, which may be a whole number.

    Args:
        value: Value of its column, or None.
        fault: The reason to return for other values.

    Returns:
        The name, or "" if there is none. The reason why the row cannot be used, or "".
    """
    if value is None:
        return "", ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return "", fault
    text = clean(str(value))
    return text, fault if text and text_fault(text) else ""

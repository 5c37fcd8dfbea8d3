"""Checks of the fields of WenetSpeech.json. Every fault has a reason, so that a recording or segment can be dropped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from arkasr.corpora.layouts.entries import INCOMPLETE
from arkasr.corpora.layouts.transcripts import id_fault

NOT_A_RECORDING = "a recording is not a JSON object"
NOT_A_SEGMENT = "a segment is not a JSON object"


def number(value: Any) -> float | None:
    """Convert a JSON value.

    Args:
        value: Any JSON value.

    Returns:
        A finite number as float. None for everything else, also for true and for numbers beyond a float.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def subsets(segment: Any) -> list[str]:
    """Return the subsets that a segment names.

    Args:
        segment: Item of the list `segments`.

    Returns:
        The names without repetitions. Empty if the segment or its field `subsets` is not what it must be.
    """
    names = segment.get("subsets") if isinstance(segment, dict) else None
    if not isinstance(names, list):
        return []
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def homes(segment: Any, parts: list[str]) -> list[str]:
    """Return the parts that a segment is counted with.

    Args:
        segment: Item of the list `segments`.
        parts: The parts that are read.

    Returns:
        Those of `parts` that it names. The first of `parts` if its field `subsets` is not what it must be.
    """
    named = [name for name in subsets(segment) if name in parts]
    if named or (isinstance(segment, dict) and _are_names(segment.get("subsets"))):
        return named
    return parts[:1]


def audio_fault(audio: Any) -> str:
    """Check one recording.

    Args:
        audio: Item of the list `audios`.

    Returns:
        Why none of its segments can be used, or "".
    """
    if not isinstance(audio, dict):
        return NOT_A_RECORDING
    return _fault(audio, _AUDIO) or id_fault(audio["aid"])


def segment_fault(segment: Any) -> str:
    """Check the fields of one segment. Its times are compared with the recording later.

    Args:
        segment: Item of the list `segments`.

    Returns:
        Why it cannot be used, or "".
    """
    if not isinstance(segment, dict):
        return NOT_A_SEGMENT
    return _fault(segment, _SEGMENT) or id_fault(segment["sid"])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_number(value: Any) -> bool:
    return number(value) is not None


def _is_duration(value: Any) -> bool:
    return (number(value) or 0) > 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


_Rules = dict[str, tuple[Callable[[Any], bool], str]]
_AUDIO: _Rules = {
    "aid": (_is_text, "text"),
    "path": (_is_path, "a path"),
    "duration": (_is_duration, "a number above 0"),
    "segments": (_is_list, "a list"),
}
_SEGMENT: _Rules = {
    "subsets": (_are_names, "a list of names"),
    "sid": (_is_text, "text"),
    "begin_time": (_is_number, "a finite number"),
    "end_time": (_is_number, "a finite number"),
    "text": (_is_text, "text"),
}


def _fault(item: dict[str, Any], rules: _Rules) -> str:
    for name, (valid, kind) in rules.items():
        if name in item and not valid(item[name]):
            return f"field {name} is not {kind}"
    return INCOMPLETE if any(name not in item for name in rules) else ""

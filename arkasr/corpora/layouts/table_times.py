"""The times of one row, in the spellings of all formats."""

from __future__ import annotations

from typing import Any, NamedTuple

from arkasr.corpora.layouts.entries import BACKWARDS, BEFORE_BEGIN
from arkasr.corpora.layouts.segments import number

NOT_A_TIME = "a time is not a finite number"
END_AND_DURATION = "end and duration disagree"

WHOLE = -1.0  # the published repository writes this for "not cut"
_SAME_S = 0.01  # rounding of an end and a duration in one row


class Times(NamedTuple):
    """The times of a row in seconds. `end` is None for the end of the file."""

    start: float = 0.0
    end: float | None = None
    fault: str = ""


def times(start: Any, end: Any, duration: Any) -> Times:
    """Read the times of a row.

    A duration counts only together with a start. Alone it describes the file, and is often rounded.

    Args:
        start: Start in seconds, as number or text. None, "" and -1 (with an end of -1) mean the whole file.
        end: End in seconds. None, "" and -1 mean the end of the file.
        duration: Length in seconds. None, "" and -1 mean the end of the file.

    Returns:
        The times.
    """
    values = [_seconds(value) for value in (start, end, duration)]
    if NOT_A_TIME in values:
        return Times(fault=NOT_A_TIME)
    begin, last, length = (value if isinstance(value, float) else None for value in values)
    last = None if last == WHOLE else last
    if begin is None or (begin == WHOLE and last is None):
        begin, length = 0.0, None
    if begin < 0:
        return Times(fault=BEFORE_BEGIN)
    if length is not None and length != WHOLE:
        if last is not None and abs(begin + length - last) > _SAME_S:
            return Times(fault=END_AND_DURATION)
        last = begin + length if last is None else last
    return Times(begin, last, BACKWARDS if last is not None and last <= begin else "")


def _seconds(value: Any) -> float | str | None:
    """Return seconds, None for no value, or NOT_A_TIME."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = float(value) if "_" not in value else None
        except ValueError:
            return NOT_A_TIME
    seconds = number(value)
    return NOT_A_TIME if seconds is None else seconds

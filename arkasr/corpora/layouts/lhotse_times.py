"""The times of Lhotse's cuts, compared with their recordings. Lhotse itself reads a negative start as 0."""

from __future__ import annotations

from typing import Any

from arkasr.corpora.layouts.audio import END_TOLERANCE_S
from arkasr.corpora.layouts.entries import BEFORE_BEGIN, PAST_END
from arkasr.corpora.layouts.segments import number
from arkasr.corpora.layouts.table_times import NOT_A_TIME

_ROUNDING_S = 0.001


def time_fault(item: dict[str, Any]) -> str:
    """Check the times of a cut, of a mixed cut those of its tracks.

    Args:
        item: The cut as a dictionary, with a checked duration.

    Returns:
        Why it cannot be used, or "".
    """
    if "tracks" in item:
        return next((fault for track in item["tracks"] if (fault := time_fault(track["cut"]))), "")
    recording = item.get("recording")
    if not recording:
        return ""
    begin, length = number(item.get("start", 0)), number(recording.get("duration"))
    if begin is None or length is None:
        return NOT_A_TIME
    if begin < -_ROUNDING_S:
        return BEFORE_BEGIN
    return PAST_END if begin >= length or begin + item["duration"] > length + END_TOLERANCE_S else ""

"""Which windows of which requests form the next batch."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

MIN_FILL = 0.6  # of a batch that may be audio; the rest is padding of shorter windows


def choose(waiting: Sequence[Sequence[float]], batch_seconds: float) -> list[int]:
    """Choose the windows of the next batch.

    1. The first window of the first request is in the batch, even if it is longer than a batch.
    2. Others join in order of their difference in length to it. Of equal ones, those of requests with fewer windows in
       the batch are first, then those that waited longer.
    3. A window joins if the batch, padded to its longest window, has at most `batch_seconds` and at least `MIN_FILL` of
       it is audio.

    Windows of one request are taken in order. Example: of requests with [2], [9, 9, 9] and [3] s, a batch of 12 s takes
    the 2 s and the 3 s. The next one takes one window of 9 s.

    Args:
        waiting: Per request, seconds of its waiting windows in order, at least one. The request that was served least
            recently is first.
        batch_seconds: Seconds of a batch, padding included.

    Returns:
        Number of windows to take from the front of each request.
    """
    taken = [0] * len(waiting)
    anchor = waiting[0][0]
    longest, total, count = 0.0, 0.0, 0
    heads = [(abs(seconds[0] - anchor), 0, order) for order, seconds in enumerate(waiting)]
    heads[0] = (-1.0, 0, 0)  # the first window of all
    heapq.heapify(heads)
    while heads:
        _, _, order = heapq.heappop(heads)
        seconds = waiting[order][taken[order]]
        padded = (count + 1) * max(longest, seconds)
        if count and (padded > batch_seconds or total + seconds < MIN_FILL * padded):
            continue  # its later windows must wait for it
        longest, total, count = max(longest, seconds), total + seconds, count + 1
        taken[order] += 1
        if taken[order] < len(waiting[order]):
            following = waiting[order][taken[order]]
            heapq.heappush(heads, (abs(following - anchor), taken[order], order))
    return taken

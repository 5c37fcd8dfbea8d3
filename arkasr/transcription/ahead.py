"""Iterate in a thread, so that files are read and decoded while the model works."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
LOOK_S = 0.1  # seconds after which a full queue is tried again


class _Ended:
    """The last entry of the queue.

    Args:
        error: What ended the iteration, or None.
    """

    def __init__(self, error: BaseException | None):
        self.error = error


def ahead(items: Iterator[T], count: int) -> Generator[T, None, None]:
    """Yield the items of an iterator that a thread advances.

    Args:
        items: The iterator. Only the thread uses it. It is left alone once the returned iterator is closed.
        count: Number of items that may wait.

    Yields:
        The items in order. An error of `items` is raised behind them.
    """
    waiting: Queue[T | _Ended] = Queue(count)
    stop = Event()

    def put(item: T | _Ended) -> None:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=LOOK_S)
                return
            except Full:
                pass

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
        except BaseException as raised:  # told to the other thread
            error = raised
        put(_Ended(error))

    # A daemon, because the command must be able to end while the thread waits for standard input.
    Thread(target=work, name="read audio", daemon=True).start()
    try:
        while not isinstance(item := waiting.get(), _Ended):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()

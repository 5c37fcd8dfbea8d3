from __future__ import annotations

import threading
from contextlib import closing
from itertools import count

import pytest

from arkasr.transcription.ahead import ahead


def test_items_come_in_order_from_another_thread():
    threads = set()

    def items():
        for i in range(100):
            threads.add(threading.get_ident())
            yield i

    assert list(ahead(items(), 3)) == list(range(100))
    assert threads.isdisjoint({threading.get_ident()}) and len(threads) == 1


def test_an_error_is_raised_behind_the_items():
    def items():
        yield 1
        raise ZeroDivisionError("x")

    found = ahead(items(), 3)
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_at_most_some_items_wait_and_the_thread_ends_with_the_iterator():
    made, ended = [], threading.Event()

    def items():
        try:
            for i in count():
                made.append(i)
                yield i
        finally:
            ended.set()

    with closing(ahead(items(), 3)) as found:
        assert [next(found) for _ in range(5)] == list(range(5))
    assert ended.wait(30) and len(made) <= 5 + 3 + 1

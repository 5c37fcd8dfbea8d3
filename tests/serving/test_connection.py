"""Clients that leave, do not read, or still send while they are answered."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import JSONResponse

from arkasr.serving import connection
from arkasr.serving.connection import answer_early, patient, while_connected
from arkasr.serving.errors import ClientGoneError

GONE = {"type": "http.disconnect"}


def receiver(*messages: dict):
    """Return a function that returns these messages, then waits."""
    left = list(messages)

    async def receive() -> dict:
        if not left:
            await asyncio.sleep(60)
        return left.pop(0)

    return receive


def test_work_ends_when_the_client_leaves():
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(ClientGoneError):
        asyncio.run(while_connected(receiver({"type": "http.request"}, GONE), work()))
    assert ended == [True]


def test_work_ends_by_itself_and_its_error_is_raised():
    done = []

    async def work() -> None:
        done.append(True)

    async def fail() -> None:
        raise ValueError("no")

    asyncio.run(while_connected(receiver(), work()))
    with pytest.raises(ValueError, match="no"):
        asyncio.run(while_connected(receiver(), fail()))
    assert done == [True]


def test_a_client_that_does_not_read_is_given_up():
    async def send(_message: dict) -> None:
        await asyncio.sleep(60)

    with pytest.raises(ClientGoneError):
        asyncio.run(patient(send, 0.05)({}))


@pytest.mark.parametrize("end", [GONE, {"type": "http.request", "body": b"", "more_body": False}, None])
def test_an_early_answer_is_whole_before_the_rest_of_the_request_is_read(monkeypatch, end):
    """The client may send for some time, so that it can read the answer before the connection is closed."""
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)
    more, log = {"type": "http.request", "body": b"x", "more_body": True}, []
    receive = receiver(more, more, *([end] if end else []))

    async def logged_receive() -> dict:
        message = await receive()
        log.append(message["type"])
        return message

    async def send(message: dict) -> None:
        log.append(message)

    asyncio.run(answer_early(JSONResponse({"a": 1}, 413), logged_receive, send))
    start, body, *read, last = log
    assert (start["status"], body["body"], body["more_body"]) == (413, b'{"a":1}', True)
    assert (b"connection", b"close") in start["headers"] and (b"content-length", b"7") in start["headers"]
    assert len(read) == (3 if end else 2) and last == {"type": "http.response.body", "body": b""}

"""What a client may do while it is answered: leave, read slowly, or still send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine

from starlette.responses import Response
from starlette.types import Message, Receive, Send

from arkasr.serving.errors import ClientGoneError

LINGER_SECONDS = 2.0


async def while_connected(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Run a coroutine until it ends or the client closes its connection, which cancels it.

    Args:
        receive: Returns the next message of the client, whose request was read.
        work: The coroutine.

    Raises:
        ClientGoneError: The client has closed its connection.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        await working
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def patient(send: Send, seconds: float) -> Send:
    """Limit the time for which a client may not read.

    Args:
        send: Sends a message to the client.
        seconds: Longest time of one call.

    Returns:
        A function like `send`. It raises `ClientGoneError` when the time is over.
    """

    async def limited(message: Message) -> None:
        try:
            await asyncio.wait_for(send(message), seconds)
        except TimeoutError as error:
            raise ClientGoneError from error

    return limited


async def answer_early(response: Response, receive: Receive, send: Send) -> None:
    """Send an answer to a client that may still send its request, then close the connection.

    If the connection were closed at once, the rest of the request would reset it, and many clients would report that
    instead of the answer. So what comes in the next seconds is read and thrown away.

    Args:
        response: The answer.
        receive: Returns the next message of the client.
        send: Sends a message to the client.
    """
    response.headers["connection"] = "close"
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(_until_read(receive), LINGER_SECONDS)
    await send({"type": "http.response.body", "body": b""})


async def _until_read(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return

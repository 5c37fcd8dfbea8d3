"""`POST /v1/audio/transcriptions`."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from starlette.datastructures import FormData
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from arkasr.errors import UserError
from arkasr.serving.answer import Answer
from arkasr.serving.connection import patient, while_connected
from arkasr.serving.errors import ApiError, ClientGoneError, as_api_error, busy
from arkasr.serving.job import Delta
from arkasr.serving.keys import check_key
from arkasr.serving.parameters import Parameters, read_parameters
from arkasr.serving.responses import KEEP_ALIVE, delta_event, done_event, response_of
from arkasr.serving.service import Service
from arkasr.serving.upload import read_form
from arkasr.utils.console import printable

MAX_NAME = 100  # characters of a file's name in messages


class Transcriptions:
    """The endpoint, as an ASGI application.

    A request holds a place from its first byte until its answer was sent or the client has left.

    Args:
        service: The model, its queue and its clients.
        key: The API key, or an empty string if none is needed.
    """

    def __init__(self, service: Service, key: str):
        self._service, self._key = service, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI describes it."""
        answer = Answer(receive, patient(send, self._service.limits.client_timeout))
        try:
            try:
                check_key(HTTPConnection(scope), self._key)
                with self._service.place():
                    await self._run(answer, scope, receive)
            except ClientGoneError:
                raise
            except Exception as error:  # any: the client gets an answer, and the operator a line in the log
                await answer.refuse(as_api_error(error))
        except ClientGoneError:
            answer.gone()
        finally:
            answer.count(self._service.metrics)

    async def _run(self, answer: Answer, scope: Scope, receive: Receive) -> None:
        form = await self._form(scope, receive)
        answer.read = True
        try:
            request = read_parameters(form, self._service.served)
        except ApiError:
            await form.close()
            raise
        await while_connected(receive, self._transcribe(answer, request))

    async def _form(self, scope: Scope, receive: Receive) -> FormData:
        limits, uploads = self._service.limits, self._service.uploads
        try:
            await asyncio.wait_for(uploads.acquire(), limits.client_timeout)
        except TimeoutError as error:
            message = f"all {limits.max_uploads} places for uploads are taken (--max_uploads); try again soon"
            raise busy(message, "busy") from error
        try:
            return await read_form(scope, receive, limits, self._service.upload_time_left)
        finally:
            uploads.release()

    async def _transcribe(self, answer: Answer, request: Parameters) -> None:
        words = request.settings.word_times
        async with aclosing(self._service.events(request, _name(request))) as events:
            async for event in events:
                if isinstance(event, UserError):  # what is wrong with the audio
                    raise ApiError(400, "invalid_audio", str(event), "file") from event
                if isinstance(event, Exception):
                    raise event
                if event is None or isinstance(event, Delta):
                    if request.stream:
                        await answer.part(delta_event(event) if event else KEEP_ALIVE)
                    continue
                answer.seconds = event.seconds
                if request.stream:
                    await answer.part(done_event(event, request.response_format, words), last=True)
                else:
                    await answer.respond(response_of(event, request.response_format, words))
                return


def _name(request: Parameters) -> str:
    """Return the client's name of the file, which is for messages only."""
    return printable(request.file.filename or "file").replace("\n", " ")[-MAX_NAME:]

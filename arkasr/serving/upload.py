"""Reading of uploads. Nothing is trusted: size, speed and form are checked while the bytes arrive."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive, Scope

from arkasr.errors import is_disk_full
from arkasr.serving.errors import ApiError, ClientGoneError
from arkasr.serving.limits import MIN_BYTES_PER_SECOND, Limits
from arkasr.utils.console import log

MAX_FIELDS = 32
MAX_FIELD_BYTES = 64 * 2**10
# What is wrong with a form, by the beginning of the message of its parser.
FAULTS = {
    "Too many files": "it has more than one file; send one file per request",
    "Too many fields": f"it has more than {MAX_FIELDS} fields; leave some out",
    "Part exceeded": f"a field has more than {MAX_FIELD_BYTES // 2**10} KiB; only the file may be longer",
    "Missing boundary": "its Content-Type names no boundary; let your HTTP library write this header",
    "The Content-Disposition": "a field has no name; let your HTTP library write the form",
    "": "it cannot be read; let your HTTP library write the form and its Content-Type, and shorten long names of files",
}


class _WholeForm(MultiPartParser):
    """A parser that refuses a form without its last boundary. Fields behind the cut would otherwise be lost."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], **limits: int):
        super().__init__(headers, self._checked(stream), **limits)
        self._is_whole = False

    def on_end(self) -> None:
        """Note that the last boundary was read."""
        self._is_whole = True

    async def _checked(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._is_whole:
            raise ApiError(400, "invalid_form", "the form is wrong: it ends before its last boundary; send it again")


async def read_form(
    scope: Scope, receive: Receive, limits: Limits, time_left: Callable[[], float] = lambda: math.inf
) -> FormData:
    """Read a form with at most one file.

    A file of more than 1 MiB is kept on the disk, in a temporary file without a name. The name that the client sends is
    not used for it.

    Args:
        scope: The request, as ASGI describes it.
        receive: Returns the next message of the client.
        limits: Limits of bytes and time.
        time_left: Returns the seconds that the service allows for all uploads from now on.

    Returns:
        The fields. Close them at the end.

    Raises:
        ApiError: The request is not a whole form with one file (400), too large (413), or too slow (408), or it cannot
            be kept (507).
        ClientGoneError: The client has closed its connection.
    """
    headers = Headers(scope=scope)
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.max_bytes:
        raise _too_large(limits)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        message = "the request must be a form (multipart/form-data) with the field `file`; see docs/serving.md"
        raise ApiError(400, "invalid_form", message)
    bounds = {"max_files": 1, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES}
    try:
        return await _WholeForm(headers, _body(receive, limits, time_left), **bounds).parse()
    except (MultiPartException, FormParserError, KeyError, UnicodeDecodeError) as error:
        fault = next(words for start, words in FAULTS.items() if getattr(error, "message", "").startswith(start))
        raise ApiError(400, "invalid_form", f"the form is wrong: {fault}") from error
    except OSError as error:
        if is_disk_full(error):
            raise
        log(f"error: an upload cannot be kept ({error}); create its folder, or restart the service with another TMPDIR")
        raise ApiError(507, "no_upload_folder", "the service has no folder for uploads; tell its operator") from error


async def _body(receive: Receive, limits: Limits, time_left: Callable[[], float]) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a request, as long as the client is fast enough and sends no more than allowed."""
    size, started = 0, time.monotonic()
    while True:
        allowed = min(limits.client_timeout + size / MIN_BYTES_PER_SECOND, limits.request_timeout)
        left = started + allowed - time.monotonic()
        try:
            message = await asyncio.wait_for(receive(), min(left, limits.client_timeout, time_left()))
        except TimeoutError as error:
            slow = f"the upload is too slow: nothing for {limits.client_timeout:g} s, fewer than "
            slow += f"{MIN_BYTES_PER_SECOND} bytes/s, more than {limits.request_timeout:g} s in total, or the service "
            slow += "ends; send it again, faster"
            raise ApiError(408, "slow_upload", slow, headers={"Connection": "close"}) from error
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        size += len(message.get("body", b""))
        if size > limits.max_bytes:
            raise _too_large(limits)
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


def _too_large(limits: Limits) -> ApiError:
    message = f"the request is larger than {limits.max_mib:g} MiB (--max_mib); send a compressed file, such as mp3 or "
    message += "opus, or cut it"
    return ApiError(413, "file_too_large", message, "file", {"Connection": "close"})

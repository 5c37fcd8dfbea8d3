"""Errors of requests, in the shape of OpenAI's: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from arkasr.errors import is_disk_full
from arkasr.utils.console import log, printable

PATHS = "clients of OpenAI's API use the base address with /v1 at its end, browsers the address /"
MAX_PATH, MAX_METHOD = 100, 20  # characters in messages
RETRY_SECONDS = 2  # when a client that was refused for lack of room should try again


class ApiError(Exception):
    """An error that the client is told.

    Args:
        status: Status code of HTTP.
        code: Name of the error, for programs.
        message: What is wrong, what is allowed, and what to do.
        param: Field of the request that is wrong.
        headers: Further headers of the answer.

    Attributes:
        status: Status code of HTTP.
        code: Name of the error.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ):
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, dict(headers or {})

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """The error as JSON objects."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": printable(str(self)), "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> Response:
        """The answer to the client."""
        return JSONResponse(self.body, self.status, self.headers)


class ClientGoneError(Exception):
    """The client has closed its connection. Nobody reads an answer."""


def refuse(param: str, message: str, code: str = "invalid_value") -> NoReturn:
    """Raise the error of a request with a wrong field.

    Args:
        param: The field.
        message: What is wrong, what is allowed, and what to do, without the name of the field.
        code: Name of the error.

    Raises:
        ApiError: Always, with status 400.
    """
    raise ApiError(400, code, f"{param} {message}", param)


def busy(message: str, code: str) -> ApiError:
    """Return the error of a service that has no room now.

    Args:
        message: What is wrong.
        code: Name of the error.

    Returns:
        An error with status 503 and the header `Retry-After`.
    """
    return ApiError(503, code, message, headers={"Retry-After": str(RETRY_SECONDS)})


def as_api_error(error: BaseException) -> ApiError:
    """Convert any error to one that the client is told. What is not the client's fault is logged.

    Args:
        error: The error.

    Returns:
        The error itself if it is one already. Otherwise one with status 507 for a full disk, or 500.
    """
    if isinstance(error, ApiError):
        return error
    log(f"error: {type(error).__name__}: {' '.join(str(error).split())[:500]}")
    if os.environ.get("ARKASR_TRACEBACK"):
        traceback.print_exception(error)
    if is_disk_full(error):
        return ApiError(507, "disk_full", "the service has no space left for uploads; tell its operator")
    return ApiError(500, "internal_error", "the service failed on this request; its log has the reason")


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Answer with the error of a path or method that does not exist.

    Args:
        request: The request.
        error: An HTTPException of Starlette.

    Returns:
        The answer.
    """
    assert isinstance(error, HTTPException)
    path, allowed = printable(request.url.path[:MAX_PATH]), (error.headers or {}).get("Allow", "")
    known = {
        404: ("unknown_path", f"{path} is not a path of this service; {PATHS}"),
        405: ("method_not_allowed", f"{path} does not answer {request.method[:MAX_METHOD]}; use {allowed}"),
    }
    code, message = known.get(error.status_code, ("http_error", error.detail))
    return ApiError(error.status_code, code, message, headers=error.headers).response


async def answer_api_error(_request: Request, error: Exception) -> Response:
    """Answer with an `ApiError`.

    Args:
        error: The error.

    Returns:
        The answer.
    """
    return as_api_error(error).response

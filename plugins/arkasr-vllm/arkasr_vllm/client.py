"""HTTP client of one vLLM server: JSON requests with time-outs, retries, and errors that name the address."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import httpx2
import tenacity

import arkasr

RETRIED_BELOW_500 = (408, 425, 429)  # statuses 4xx that a later attempt may change
FINAL_FROM_500 = (501, 505)  # statuses 5xx that no later attempt changes
MAX_QUOTED = 300  # characters of a response that a message quotes


class Refused(arkasr.UserError):
    """The server refused a request, and a retry would not change its answer.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, status: int):
        """Store the message and the status.

        Args:
            message: The text of the error.
            status: The HTTP status of the response.
        """
        super().__init__(message)
        self.status = status


class _TransientError(Exception):
    """A failure that a retry can fix."""


@dataclass
class Server:
    """A server that receives and sends JSON objects. It may be used from several threads."""

    url: str  # the address, without a slash at the end
    key: str = field(default="", repr=False)  # bearer token; empty: none is sent
    timeout: float = 60.0  # seconds without a received byte after which an attempt fails
    retries: int = 4  # attempts after the first
    wait: float = 1.0  # seconds before the second attempt; the wait doubles before each further one
    _client: httpx2.Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._client = _open_client(self.key)

    def get(self, path: str) -> dict[str, Any]:
        """Send a GET request.

        Args:
            path: Path of the endpoint, with a slash at the start.

        Returns:
            The JSON object of the response.

        Raises:
            Refused: As for `post`.
            UserError: As for `post`.
        """
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a JSON object by a POST request.

        Failed connections, time-outs and the statuses 5xx, 408, 425 and 429 are retried, except 501 and 505.

        Args:
            path: Path of the endpoint, with a slash at the start.
            body: The object to send.

        Returns:
            The JSON object of the response.

        Raises:
            Refused: The server answered with another status of 300 or more. The message quotes the server.
            UserError: All attempts failed, or the response is not a JSON object.
        """
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        url, timeout = self.url + path, httpx2.Timeout(self.timeout, pool=None)
        try:
            request = self._client.build_request(method, url, json=body, timeout=timeout)
        except httpx2.InvalidURL as error:
            raise arkasr.UserError(f"{url}: is not a valid address ({error}); set teacher.options.url") from error
        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.retries + 1),
            wait=tenacity.wait_exponential(multiplier=self.wait),
            retry=tenacity.retry_if_exception_type(_TransientError),
            retry_error_callback=partial(_give_up, url),
        )
        return attempts(self._attempt, request, url)

    def _attempt(self, request: httpx2.Request, url: str) -> dict[str, Any]:
        try:
            response = self._client.send(request)
        except httpx2.TooManyRedirects as error:
            raise arkasr.UserError(f"{url}: redirects without end; set teacher.options.url to the server") from error
        except httpx2.RequestError as error:
            raise _TransientError(_cause(error, self.timeout)) from error
        status = response.status_code
        if status in RETRIED_BELOW_500 or (status >= 500 and status not in FINAL_FROM_500):
            raise _TransientError(f"status {status}: {_error_text(response.content)}")
        if status >= 300:
            raise Refused(f"{url}: refused with status {status}: {_error_text(response.content)}", status)
        return _parse_object(response.content, url)


def _open_client(key: str) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx2.Limits(max_connections=None)  # the scorer's thread pool limits them
    try:
        return httpx2.Client(headers=headers, limits=limits, follow_redirects=True)
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise arkasr.UserError(
            f"the environment names a proxy that cannot be used: {error}; correct http_proxy, https_proxy or all_proxy"
        ) from error


def _give_up(url: str, state: tenacity.RetryCallState) -> NoReturn:
    error = state.outcome.exception() if state.outcome else None
    raise arkasr.UserError(
        f"{url}: no valid response after {state.attempt_number} attempts in {state.seconds_since_start or 0:.1f} s; "
        f"last failure: {error}; check that the server runs, that teacher.options.url is its address, and its log"
    ) from error


def _cause(error: httpx2.RequestError, timeout: float) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return f"nothing was received for {timeout:g} s (teacher.options.timeout)"
    return str(error) or type(error).__name__


def _error_text(content: bytes) -> str:
    """Return the message in the body of an error response: FastAPI's and OpenAI's forms, else the body's beginning."""
    value = _parse(content)
    while isinstance(value, dict):
        value = next((value[key] for key in ("error", "message", "detail") if key in value), str(value))
    return " ".join((value if isinstance(value, str) else content.decode(errors="replace")).split())[:MAX_QUOTED]


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _parse_object(content: bytes, url: str) -> dict[str, Any]:
    value = _parse(content)
    if not isinstance(value, dict):
        raise arkasr.UserError(
            f"{url}: the response is {_error_text(content)!r}, not a JSON object; "
            "check that teacher.options.url is the address of a vLLM server"
        )
    return value

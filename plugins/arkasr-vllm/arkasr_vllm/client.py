"""HTTP client of one vLLM server: JSON requests with limits of time and size, retries, and errors with the address."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import httpx2
import tenacity

import arkasr

RETRIED_BELOW_500 = (408, 425, 429)  # statuses 4xx that a later attempt may change
FINAL_FROM_500 = (501, 505)  # statuses 5xx that no later attempt changes
MAX_QUOTED = 300  # characters of a response that a message quotes
SMALL = 2**20  # bytes that any response may have, such as an error or the list of models
ECHOES = 4  # times the bytes of the request that a response may have in addition: the render endpoint returns the clip


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
    deadline: float = 600.0  # seconds after which an attempt fails, also if the server sends byte after byte
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
        return self._call("GET", path, None, 0)

    def post(self, path: str, body: dict[str, Any], expected: int = 0) -> dict[str, Any]:
        """Send a JSON object by a POST request.

        Failed connections, time-outs and the statuses 5xx, 408, 425 and 429 are retried, except 501 and 505. Redirects
        are refused, because the key and the audio would go to an address that nobody configured.

        Args:
            path: Path of the endpoint, with a slash at the start.
            body: The object to send.
            expected: Bytes of the largest response to this request. 1 MiB and four times the bytes of the request are
                allowed in addition.

        Returns:
            The JSON object of the response.

        Raises:
            Refused: The server answered with another status of 300 or more. The message quotes the server.
            UserError: All attempts failed, or the response is too large or not a JSON object.
        """
        return self._call("POST", path, body, expected)

    def _call(self, method: str, path: str, body: dict[str, Any] | None, expected: int) -> dict[str, Any]:
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
        limit = SMALL + ECHOES * len(request.content) + expected
        return attempts(self._attempt, request, url, limit)

    def _attempt(self, request: httpx2.Request, url: str, limit: int) -> dict[str, Any]:
        try:
            status, content, location = _within(self.deadline, lambda: self._exchange(request, url, limit))
        except httpx2.RequestError as error:
            raise _TransientError(_cause(error, self.timeout)) from error
        if status in RETRIED_BELOW_500 or (status >= 500 and status not in FINAL_FROM_500):
            raise _TransientError(f"status {status}: {_error_text(content)}")
        if location:
            raise Refused(
                f"{url}: redirects to {_clean(location)}; set teacher.options.url to the server itself", status
            )
        if status >= 300:
            raise Refused(f"{url}: refused with status {status}: {_error_text(content)}", status)
        return _parse_object(content, url)

    def _exchange(self, request: httpx2.Request, url: str, limit: int) -> tuple[int, bytes, str]:
        """Return status, content and address of a redirect."""
        response = self._client.send(request, stream=True)
        try:
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > limit:
                    raise arkasr.UserError(
                        f"{url}: the response has more than {limit} bytes, the most that this request needs; check "
                        "that teacher.options.url is the address of a vLLM server"
                    )
            location = response.headers.get("location", "") if response.is_redirect else ""
            return response.status_code, bytes(content), location
        finally:
            response.close()


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """Return what `work` returns, or fail after some seconds. The thread of a late `work` is left to its time-out."""
    outcome: dict[str, Any] = {}

    def call() -> None:
        try:
            outcome["value"] = work()
        except BaseException as error:  # raised again in the caller's thread
            outcome["error"] = error

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if "error" in outcome:
        raise outcome["error"]
    if "value" not in outcome:
        raise _TransientError(f"the response was not complete after {seconds:g} s (teacher.options.deadline)")
    return outcome["value"]


def _open_client(key: str) -> httpx2.Client:
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
    limits = httpx2.Limits(max_connections=None)  # the scorer's thread pool limits them
    try:
        return httpx2.Client(headers=headers, limits=limits, follow_redirects=False)
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
    return _clean(value if isinstance(value, str) else content[: 4 * MAX_QUOTED].decode(errors="replace"))


def _clean(text: str) -> str:
    """Return the beginning of a server's text in one line, without control characters (terminal escapes)."""
    words = " ".join(text[: 10 * MAX_QUOTED].split())[:MAX_QUOTED]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # RecursionError: nested too deeply
        return None


def _parse_object(content: bytes, url: str) -> dict[str, Any]:
    value = _parse(content)
    if not isinstance(value, dict):
        raise arkasr.UserError(
            f"{url}: the response is '{_error_text(content)}', not a JSON object; "
            "check that teacher.options.url is the address of a vLLM server"
        )
    return value

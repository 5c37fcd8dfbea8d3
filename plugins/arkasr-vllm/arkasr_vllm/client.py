"""One server spoken to in JSON: time-outs, retries with growing waits, and errors that name the address."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import arkasr

PASSING = (408, 425, 429)  # of the 4xx those that another try may mend
FINAL = (501, 505)  # of the 5xx those that none will
SHOWN = 300  # characters of an answer that a message quotes


class Refused(arkasr.UserError):
    """The server answered that it will not do this; trying again changes nothing. status: the HTTP status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class _Passing(Exception):
    """What may be over at the next try."""


@dataclass
class Server:
    """A server at `url`.

    key: sent as a bearer token, if not empty; timeout: seconds without a byte; retries: tries after the first; wait:
    seconds before the second try, doubled before each further one.
    """

    url: str
    key: str = ""
    timeout: float = 60.0
    retries: int = 4
    wait: float = 1.0

    def get(self, path: str) -> dict[str, Any]:
        """Return what the server answers to GET `url` + path; raises UserError as `post` does."""
        return self._call(urllib.request.Request(self.url + path, headers=self._headers()))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON object that the server answers to a JSON object.

        Connections that fail, time-outs and statuses 5xx, 408, 425 and 429 are tried again. Raises Refused for other
        statuses, with the server's own words, and UserError where no try was answered or the answer is no JSON object.
        """
        data = json.dumps(body).encode()
        return self._call(urllib.request.Request(self.url + path, data, self._headers()))

    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def _call(self, request: urllib.request.Request) -> dict[str, Any]:
        started, causes = time.monotonic(), []
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.wait * 2 ** (attempt - 1))
            try:
                return self._once(request)
            except _Passing as error:
                causes.append(str(error))
        raise arkasr.UserError(
            f"{request.full_url}: no good answer in {len(causes)} tries and {time.monotonic() - started:.1f} s: {causes[-1]}; "
            "see that the server runs, that teacher.options.url is its address, and what its log says"
        )

    def _once(self, request: urllib.request.Request) -> dict[str, Any]:
        try:
            status, text = _answer(request, self.timeout)
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(_cause(error, self.timeout)) from error
        if status in PASSING or (status >= 500 and status not in FINAL):
            raise _Passing(f"status {status}: {_said(text)}")
        if status >= 300:
            raise Refused(f"{request.full_url}: refused with status {status}: {_said(text)}", status)
        return _object(text, request.full_url)


def _answer(request: urllib.request.Request, timeout: float) -> tuple[int, bytes]:
    """Return status and body, of errors too."""
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def _cause(error: BaseException, timeout: float) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"nothing came within {timeout:g} s (teacher.options.timeout)"
    return str(reason) or type(reason).__name__


def _said(text: bytes) -> str:
    """Return the message of an error's body: FastAPI's and OpenAI's forms, else its beginning."""
    found = _json(text)
    while isinstance(found, dict):
        found = next((found[key] for key in ("error", "message", "detail") if key in found), str(found))
    return " ".join((found if isinstance(found, str) else text.decode(errors="replace")).split())[:SHOWN]


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _object(text: bytes, where: str) -> dict[str, Any]:
    found = _json(text)
    if not isinstance(found, dict):
        raise arkasr.UserError(f"{where}: the answer is no JSON object but {_said(text)!r}: is this a vLLM server?")
    return found

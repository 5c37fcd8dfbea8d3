"""The API key that clients must send, if the operator has set one."""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from starlette.requests import HTTPConnection

from arkasr.errors import UserError
from arkasr.serving.errors import ApiError

VARIABLE = "ARKASR_API_KEY"


def read_key(file: str) -> str:
    """Read the API key. It is never an argument, because other users of the machine see the arguments of a process.

    Args:
        file: File that holds it, or an empty string for the environment variable `ARKASR_API_KEY`.

    Returns:
        The key, or an empty string if there is none.

    Raises:
        UserError: The file cannot be read, or the key is not one word of printable ASCII characters.
    """
    where = f"--api_key_file {file}" if file else f"the environment variable {VARIABLE}"
    if file:
        try:
            key = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not text"
            raise UserError(f"{where}: {reason}; name a text file that holds the key") from error
    elif (key := os.environ.get(VARIABLE, "").strip()) == "":
        return ""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"{where} must hold one word of printable ASCII characters, without spaces; correct it")
    return key


def check_key(connection: HTTPConnection, key: str) -> None:
    """Check the header `Authorization: Bearer KEY` of a request.

    The comparison takes the same time wherever the keys differ.

    Args:
        connection: The request.
        key: The key, or an empty string if none is needed.

    Raises:
        ApiError: The key is missing or wrong, with status 401.
    """
    if not key:
        return
    scheme, _, sent = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode("latin-1"), key.encode()):
        return
    what = "is wrong" if sent else "is missing"
    message = f"the API key {what}; send the header `Authorization: Bearer KEY` with the key of this service"
    raise ApiError(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})

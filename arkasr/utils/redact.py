"""Find and remove passwords and keys, so that no configuration, log line or result shows them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "***"
# Names of values that are secrets. `stop_token` and `api_key_env` are none.
_SECRET_NAME = r"(?:api[-_]?key|passw(?:or)?d|secret|(?:access|auth|bearer|hf|security)[-_]?token|signature|sig)"
_NAMED = re.compile(rf"(?:^|[-_.]){_SECRET_NAME}$", re.IGNORECASE)
# user:password@ or token@ of an address. The password may hold any character but a slash and white space.
_LOGIN = re.compile(r"(?<=://)[^/\s?#]*@")
_QUERY = re.compile(rf"([?&;#](?:[\w.-]*[-_.])?(?:{_SECRET_NAME}|key|token|auth|password)=)[^&;#\s'\"]+", re.IGNORECASE)
_ASSIGNED = re.compile(rf"((?:^|[-_.]){_SECRET_NAME}=)(?!$).+$", re.IGNORECASE | re.DOTALL)
_MAPPED = re.compile(rf"((?:^|[-_.\s{{,'\"]){_SECRET_NAME}['\"]?:\s*)[^,}}\s][^,}}]*", re.IGNORECASE)  # {api_key: ...}


def without_secrets(text: str) -> str:
    """Replace the secrets in a text by `***`.

    Args:
        text: Any text, such as an address, or the word `section.key=value` of a command.

    Returns:
        The text without logins of addresses (`user:password@`), keys in their queries, and values that are assigned
        to names such as `api_key` or `password`, also in mappings (`{api_key: ...}`).
    """
    text = _LOGIN.sub(f"{HIDDEN}@", text)
    for named in (_QUERY, _MAPPED, _ASSIGNED):
        text = named.sub(rf"\1{HIDDEN}", text)
    return text


def command_without_secrets(command: str) -> str:
    """Remove passwords and keys from a command line.

    Args:
        command: Command line in shell syntax.

    Returns:
        The command line. Only words that hold a secret are changed.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return without_secrets(command)
    clean = [without_secrets(word) for word in words]
    return command if clean == words else shlex.join(clean)


def values_without_secrets(value: Any, name: str = "") -> Any:
    """Replace the secrets in nested lists and mappings by `***`.

    Args:
        value: Configuration as read from YAML.
        name: Key of the value in its mapping.

    Returns:
        A copy of the value.
    """
    if isinstance(value, Mapping):
        return {key: values_without_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [values_without_secrets(item, name) for item in value]
    if not isinstance(value, str) or not value:
        return value
    return HIDDEN if _NAMED.search(name) else without_secrets(value)


def secrets_in_addresses(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Find addresses that hold a login or a key.

    Args:
        value: Configuration as read from YAML.
        where: Dotted key of the value.

    Yields:
        Dotted key, and the address without its secret.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in_addresses(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from secrets_in_addresses(item, where)
    elif isinstance(value, str) and "://" in value and (clean := without_secrets(value)) != value:
        yield where, clean

"""Check the types of what is read from files, so that a damaged file gives one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arkasr.errors import UserError

TYPE_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    dict: "a mapping",
    list: "a list",
    bool: "true or false",
}


def has_type(value: Any, kind: type) -> bool:
    """Return whether a value of a JSON file has a type. Booleans are no numbers, and whole numbers are numbers.

    Args:
        value: The value.
        kind: str, bool, int, float, dict or list.

    Returns:
        True if it has. Numbers must be finite.
    """
    if kind in (int, float):
        number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        return number and is_finite(value)
    return isinstance(value, kind)


def is_finite(value: float) -> bool:
    """Return whether a number of a JSON file is finite as a float. JSON can hold larger whole numbers.

    Args:
        value: The number.

    Returns:
        False for NaN, infinity, and whole numbers beyond the largest float.
    """
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_types(where: str, values: Any, kinds: Mapping[str, type], what_to_do: str, needed: bool = False) -> None:
    """Check the values of a mapping.

    Args:
        where: File, and key or line if there is one, for the message.
        values: The mapping.
        kinds: Type of the value by key. Other keys are not checked.
        what_to_do: End of the message.
        needed: Every key must be there, and no value may be null.

    Raises:
        UserError: `values` is no mapping, a value has another type, or a needed key is missing.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: must be a mapping, got {_shown(values)}; {what_to_do}")
    for key, kind in kinds.items():
        value = values.get(key)
        if needed and value is None:
            raise UserError(f"{where}: key {key!r} is missing; {what_to_do}")
        if value is not None and not has_type(value, kind):
            raise UserError(f"{where}: key {key!r} must be {TYPE_NAMES[kind]}, got {_shown(value)}; {what_to_do}")


def json_lines(path: Path, size: int | None = None) -> Iterator[tuple[int, Any]]:
    """Read a file of JSON lines.

    Args:
        path: The file.
        size: Number of bytes after which reading ends, at the end of a line. None reads all.

    Yields:
        Number of the line, from 1, and its value. The value of a line that is not JSON in UTF-8 is a ValueError.
    """
    with path.open("rb") as file:
        read = 0
        for number, line in enumerate(file, 1):
            if size is not None and (read := read + len(line)) > size:
                return
            try:
                yield number, json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                yield number, ValueError(str(error))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

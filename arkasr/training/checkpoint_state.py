"""What a training checkpoint says about itself: its step, its dev error rate and its state.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.utils.files import read_json


def step_of(path: Path) -> int:
    """Return the step of a checkpoint.

    Args:
        path: The checkpoint folder, `step-*`.

    Returns:
        The number in its name.
    """
    return int(path.name.removeprefix("step-"))


def read_state(path: Path) -> dict[str, Any]:
    """Read state.json of a checkpoint.

    Args:
        path: The checkpoint folder, `step-*`.

    Returns:
        `step`, `world_size`, and the values that the trainer added.

    Raises:
        UserError: The file is missing or not a JSON object.
    """
    return read_json(path / "state.json", f"delete {path} to resume from an earlier checkpoint")


def dev_error_of(path: Path) -> float | None:
    """Return the dev error rate of a checkpoint.

    Args:
        path: The checkpoint folder.

    Returns:
        The rate, None if it was not measured or cannot be read.
    """
    try:
        return read_state(path).get("dev_error")
    except (UserError, OSError):
        return None

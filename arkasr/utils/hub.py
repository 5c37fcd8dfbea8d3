"""Ids of the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path


def is_hub_id(path: str) -> bool:
    """Return whether a model's path is a Hugging Face Hub id.

    Args:
        path: A path or an id.

    Returns:
        True for "owner/name" if there is no local file or folder of this name.
    """
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", path)) and not Path(path).exists()

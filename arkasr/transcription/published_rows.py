"""Rows of the published repository's JSONL with what was recognised."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from arkasr.transcription.results import Failed, Transcription

# Marks of the next turn, at which the published code cuts a text, and signs that it removes at the start.
_NEXT_TURN = re.compile(r"<\|(?:user|assistant|im_end)\|>")
_LEADING = re.compile(r"^[\s,.;:!?-]+")


def filled(row: Mapping[str, Any], result: Transcription | Failed) -> dict[str, Any]:
    """Add what was recognised to a row.

    Args:
        row: The row. All of its fields are kept.
        result: What became of its audio.

    Returns:
        The row with `pred_text` (see `cleaned`) and `pred_text_raw` (the text of the model, without control tokens).
        If it failed, with `error` instead.
    """
    kept = {key: value for key, value in row.items() if key not in ("pred_text", "pred_text_raw", "error")}
    if isinstance(result, Failed):
        return {**kept, "error": result.reason}
    return {**kept, "pred_text": cleaned(result.text), "pred_text_raw": result.text}


def cleaned(text: str) -> str:
    """Clean a text as the published inference script does.

    Args:
        text: Text of the model.

    Returns:
        What is before the next turn, with single spaces, without punctuation at its start.
    """
    return _LEADING.sub("", " ".join(_NEXT_TURN.split(text, maxsplit=1)[0].split()))

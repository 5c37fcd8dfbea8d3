"""Rows of the published repository's JSONL with what was recognised."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from arkasr.transcription.results import Failed, Transcription

# The published code cuts a text at the next turn, and keeps what is behind the mark of its text. It removes other marks
# of tokens, and signs at the start.
_NEXT_TURN = re.compile(r"<\|(?:user|assistant|im_end)\|>")
_TEXT = "<|text|>"
_MARK = re.compile(r"<\|\w+\|>")
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
        What is before the next turn, without marks of tokens, with single spaces, without punctuation at its start.
    """
    turn = _NEXT_TURN.split(text, maxsplit=1)[0]
    spoken = _MARK.sub("", turn.split(_TEXT, maxsplit=1)[-1])
    return _LEADING.sub("", " ".join(spoken.split()))

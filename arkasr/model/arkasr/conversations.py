"""The clips of conversations in the form of transformers' chat templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model import log_mel
from arkasr.model.arkasr.feature_extraction_arkasr import as_waveform

Conversation = Sequence[Mapping[str, Any]]
ROLES = ("system", "user", "assistant")
ADDRESSES = ("http://", "https://")
SOURCES = ("audio", "path", "url")  # keys of an audio part, the first one counts


class Clips(list[Tensor]):
    """Waveforms with names for error messages.

    Args:
        waveforms: B tensors [num_samples].
        names: Their names. None names them by their position.

    Attributes:
        names: The names, or None.
    """

    def __init__(self, waveforms: Sequence[Tensor], names: Sequence[str] | None = None):
        super().__init__(waveforms)
        self.names = names


def check_conversations(conversations: Sequence[Conversation]) -> None:
    """Check that conversations fit Ark-ASR's prompt, which holds one clip.

    Args:
        conversations: B conversations.

    Raises:
        UserError: A role is unknown, a conversation has several clips, or only some of them have one.
    """
    if not conversations:
        raise UserError("no clips; give a conversation or a list of conversations")
    for message in (message for conversation in conversations for message in conversation):
        if message.get("role") not in ROLES:
            allowed = ", ".join(ROLES)
            raise UserError(f"role must be one of {allowed} in Ark-ASR's prompt, got {message.get('role')!r}")
    counts = [len(_audio_parts(conversation)) for conversation in conversations]
    if max(counts) > 1 or len(set(counts)) > 1:
        count = next(count for count in counts if count != 1)
        raise UserError(f"{count} audio parts in one conversation; give one clip per conversation, or none in all")


def clips_of(conversations: Sequence[Conversation]) -> Clips:
    """Read the clips of conversations.

    Args:
        conversations: Conversations that passed `check_conversations`.

    Returns:
        Their waveforms, with the files or positions as names.

    Raises:
        UserError: An audio part has no source, or a file cannot be read.
    """
    sources = [_source(part) for conversation in conversations for part in _audio_parts(conversation)]
    names = [str(s) if isinstance(s, str | Path) else f"clip {i} of {len(sources)}" for i, s in enumerate(sources)]
    return Clips([_read(source) for source in sources], names)


def _audio_parts(conversation: Conversation) -> list[Mapping[str, Any]]:
    contents = [message.get("content") or () for message in conversation]
    parts = [part for content in contents if not isinstance(content, str) for part in content]
    return [part for part in parts if part.get("type") == "audio"]


def _source(part: Mapping[str, Any]) -> Any:
    source = next((part[key] for key in SOURCES if part.get(key) is not None), None)
    if source is None:
        raise UserError(
            f"audio part with the keys {sorted(part)}; give `path` or `url` (a file) or `audio` (a file or waveform)"
        )
    return source


def _read(source: Any) -> Tensor:
    if not isinstance(source, str | Path):
        return as_waveform(source)
    return download(str(source)) if str(source).startswith(ADDRESSES) else log_mel.read_audio(source)


def download(address: str) -> Tensor:
    """Download and read a sound, by transformers' own reader.

    Args:
        address: Its address, with http or https.

    Returns:
        Tensor [num_samples], float32, at 16 kHz.

    Raises:
        UserError: The address cannot be reached, or it is not audio.
    """
    from transformers.audio_utils import load_audio

    try:
        return torch.from_numpy(load_audio(address, sampling_rate=SAMPLE_RATE)).float()
    except Exception as error:  # the network, the decoder and the format have errors of their own
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{address}: cannot be read as audio: {cause}; download it and give its path") from error

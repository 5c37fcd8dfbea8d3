"""Why clips cannot be used: kinds of reasons, which are counted, and details of each clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from lhotse import MonoCut, SupervisionSegment
from lhotse.cut import Cut, MixedCut

REFUSED = "arkasr_refused"  # custom field of a clip that cannot be used: kind and detail of the reason

# Kinds that the manifest shows.
NO_TEXT, EMPTY_TEXT, NO_AUDIO = "no text", "empty text", "no audio in the manifest"
OUTSIDE, AMBIGUOUS, CHANNELS = "text outside of the audio", "supervisions with equal ids", "several channels"
LANGUAGE = "unknown language"
WITHOUT_TEXT = (  # what to do about clips without transcript, for messages
    "use them with objective: opd, let the teacher transcribe them (arkasr label), or leave them out of this manifest"
)
# Kinds that show when the audio is read.
MISSING, UNREADABLE, UNLIKE = "missing audio file", "unreadable audio", "audio unlike its manifest"
EMPTY, NOT_FINITE, SILENT = "empty audio", "audio that is not finite", "silent audio"
SCALE, COMMAND = "audio at the scale of integers", "audio from a command"


class Unusable(Exception):  # noqa: N818 (the name of a state, like StopIteration)
    """A clip cannot be used.

    Args:
        kind: Kind of the reason, one of the constants of this module.
        detail: What is wrong with this clip, and what to do. May be empty.
    """

    def __init__(self, kind: str, detail: str = ""):
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


class Failure(NamedTuple):
    """A clip that cannot be used.

    Attributes:
        id: Id of the clip.
        source: Where its audio is, such as the path of a file.
        kind: Kind of the reason, one of the constants of this module. `counts` counts them.
        detail: What is wrong with this clip, and what to do. May be empty.
    """

    id: str
    source: str
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.id} ({self.source}): {self.kind}{f': {self.detail}' if self.detail else ''}"


def counts(kinds: Iterable[str]) -> str:
    """Count kinds of reasons.

    Args:
        kinds: One kind per clip, or a `Counter` of kinds.

    Returns:
        The most frequent first, such as "8 missing audio file, 4 several channels". Empty without clips.
    """
    found = kinds if isinstance(kinds, Counter) else Counter(kinds)
    return ", ".join(f"{number} {kind}" for kind, number in found.most_common() if number)


def refuse(name: str, cut: Cut, supervision: SupervisionSegment, reason: Unusable) -> Cut:
    """Make a clip without audio that carries the reason why it cannot be used.

    Args:
        name: Id of the clip.
        cut: The cut it comes from.
        supervision: Its supervision. The text is not kept.
        reason: Why it cannot be used.

    Returns:
        A clip for which `refusal` returns the reason, and whose text is empty.
    """
    seconds = min(max(supervision.duration, 0.1), cut.duration)
    empty = SupervisionSegment(name, name, 0.0, seconds, text="", speaker=supervision.speaker)
    custom = {REFUSED: [source_of(cut), reason.kind, reason.detail]}
    return MonoCut(name, 0.0, seconds, 0, supervisions=[empty], custom=custom)


def refusal(cut: Cut) -> Failure | None:
    """Look up why a clip cannot be used.

    Args:
        cut: Any cut.

    Returns:
        The reason that `refuse` has noted, None for other cuts.
    """
    marked = custom_value(cut, REFUSED)
    return Failure(cut.id, *marked) if marked else None


def custom_value(cut: Cut, name: str) -> list[Any]:
    """Read a custom field of three values that arkasr has written.

    Args:
        cut: Any cut.
        name: Name of the field.

    Returns:
        The values. Empty if the cut has no such field, or a manifest has another value under this name.
    """
    custom = getattr(cut, "custom", None)
    value = custom.get(name) if isinstance(custom, dict) else None
    return value if isinstance(value, list) and len(value) == 3 else []


def source_of(cut: Cut) -> str:
    """Find out where the audio of a cut is, for messages.

    Args:
        cut: Any cut.

    Returns:
        For example the path of a file.
    """
    parts = [track.cut for track in cut.tracks] if isinstance(cut, MixedCut) else [cut]
    recordings = [recording for part in parts if (recording := getattr(part, "recording", None))]
    sources = [source.source for recording in recordings for source in recording.sources]
    if not sources:
        return "no recording"
    return sources[0] if isinstance(sources[0], str) else "audio in memory"

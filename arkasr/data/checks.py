"""The checks of cuts that every reader shares: training, dev set, decoding, labelling and tokenizer text.

The cuts of manifests become clips: cuts with exactly one supervision, which covers the cut, with a text and a
language. Clips that cannot be used stay in the data, marked with the reason, so that `load_batch` counts them as failed
clips and `data.max_failed_share` limits their share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lhotse import MonoCut, SupervisionSegment
from lhotse.cut import Cut, MultiCut
from lhotse.serialization import deserialize_item
from lhotse.utils import fastcopy

from arkasr.config.schema import DataConfig
from arkasr.data.channels import choose_channels
from arkasr.data.lines import WRITE_AGAIN
from arkasr.data.reasons import AMBIGUOUS, EMPTY_TEXT, LANGUAGE, NO_AUDIO, NO_TEXT, OUTSIDE, UNLIKE, Unusable, refuse
from arkasr.data.waveforms import MAX_RATE, MIN_RATE
from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.languages import find_language, known_language

EDGE = 0.01  # seconds that a supervision may leave uncovered at either end, which is rounding
BEYOND = 0.1  # seconds that a supervision may reach beyond the audio, which is careless annotation
ODD = (LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError)  # Lhotse, on odd values
SPLIT = "come from cuts with several supervisions, which become one clip each"
OVERLAP = "overlap with another supervision of the same channel, so that several texts are spoken at once"
TRIMMED = "are trimmed to their supervision, which covers a part of the cut"


@dataclass(frozen=True)
class Rules:
    """How cuts are read that leave something open.

    Attributes:
        channels: See `DataConfig.channels`.
        language: Language of cuts that name none. Empty: such cuts are an error.
        language_from: Where `language` comes from, for messages.
        needs_text: Refuse clips without text. If False, their text is empty.
        any_language: Accept languages that `arkasr.languages` does not know.
        empty_text: Accept texts without a word. A reference without a word counts the words of a hypothesis as errors,
            a missing reference (`needs_text`) does not.
        prefix: Put before the ids of all clips, for the members of a mix (see `arkasr.data.mix`).
    """

    channels: str = "auto"
    language: str = ""
    language_from: str = ""
    needs_text: bool = True
    empty_text: bool = False
    any_language: bool = False
    prefix: str = ""

    @classmethod
    def of(cls, config: DataConfig, needs_text: bool = True, empty_text: bool = False) -> Rules:
        """Return the rules that a configuration sets.

        Args:
            config: The section `data`.
            needs_text: See the attribute.
            empty_text: See the attribute.

        Returns:
            The rules, before `corpus.json` is read.

        Raises:
            UserError: `data.language` is unknown.
        """
        language = find_language(config.language, "config key `data.language`").name if config.language else ""
        return cls(config.channels, language, "data.language", needs_text, empty_text)


class Place(NamedTuple):
    """Where a cut is in a manifest, for messages.

    Attributes:
        file: The file.
        number: Number of the line, from 0.
    """

    file: Path
    number: int

    def __str__(self) -> str:
        return f"{self.file}: line {self.number + 1}"


@dataclass
class Checked:
    """The clips of one cut.

    Attributes:
        clips: The clips, at least one. A dictionary is a cut that needs no change and is not deserialized yet.
        notes: What was done to clips, as ends of a sentence "<number> clips <note>", one per clip.
    """

    clips: list[Cut | dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(item: dict[str, Any], rules: Rules, place: Place) -> Checked:
    """Make clips of one cut. See the module docstring.

    Args:
        item: The cut as a dictionary, as `arkasr.data.lines.entries` yields it. It may be changed.
        rules: How to read it.
        place: Where the cut is.

    Returns:
        The clips.

    Raises:
        UserError: The cut cannot be deserialized, or it names no language and the rules have none.
    """
    if rules.prefix:
        item["id"] = f"{rules.prefix}{item['id']}"
    try:
        if _is_clip(item, rules):
            return Checked([item])
        return _check(_deserialized(item), rules, place)
    except UserError:
        raise
    except ODD as error:
        raise not_a_cut(place, error) from error


def not_a_cut(place: Place, error: Exception) -> UserError:
    """Explain why Lhotse cannot deserialize an entry.

    Args:
        place: Where the cut is.
        error: Lhotse's error.

    Returns:
        The error to raise.
    """
    reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    return UserError(f"{place} is not a cut: {reason}; {WRITE_AGAIN}")


def _is_clip(item: dict[str, Any], rules: Rules) -> bool:
    """Return whether a cut is a clip as it is. Most are, and need not be deserialized to know."""
    supervisions, recording = item.get("supervisions"), item.get("recording")
    if item["type"] != "MonoCut" or not recording or not supervisions or len(supervisions) != 1:
        return False
    (one,), sources = supervisions, recording["sources"]
    return bool(
        _is_named(one)
        and (_is_text(one.get("text")) or (one.get("text") is None and not rules.needs_text))
        and abs(one["start"]) <= EDGE
        and abs(one["start"] + one["duration"] - item["duration"]) <= EDGE
        and len(sources) == 1
        and len(sources[0]["channels"]) == 1
        and recording["sampling_rate"] == SAMPLE_RATE
    )


def _is_named(supervision: dict[str, Any]) -> bool:
    """Return whether a supervision names a known language. A code is replaced by the name."""
    language = supervision.get("language")
    found = known_language(language) if isinstance(language, str) else None
    if found:
        supervision["language"] = found.name
    return found is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _deserialized(item: dict[str, Any]) -> Cut:
    if item["type"] == "PaddingCut":  # Lhotse does not read it alone
        return MonoCut(item["id"], 0.0, item["duration"], 0)
    return deserialize_item(item)


def _check(cut: Cut, rules: Rules, place: Place) -> Checked:
    found, supervisions = Checked(), cut.supervisions or [SupervisionSegment(cut.id, cut.id, 0.0, cut.duration)]
    several = len(supervisions) > 1
    for index, one in enumerate(supervisions):
        name, notes = f"{cut.id}-{index}" if several else cut.id, [SPLIT] if several else []
        if any(_overlap(one, other) for other in supervisions[:index] + supervisions[index + 1 :]):
            notes.append(OVERLAP)
        try:
            found.clips.append(_clip(cut, one, rules, notes, place).with_id(name))
        except Unusable as reason:
            found.clips.append(refuse(name, cut, one, reason))
            notes = notes[:1] if several else []
        found.notes += notes
    return found


def _overlap(one: SupervisionSegment, other: SupervisionSegment) -> bool:
    return one.channel == other.channel and min(other.end, one.end) - max(other.start, one.start) > EDGE


def _clip(cut: Cut, supervision: SupervisionSegment, rules: Rules, notes: list[str], place: Place) -> Cut:
    """Make the clip of one supervision, and note what was done. Raises Unusable."""
    if not cut.has_recording:
        raise Unusable(NO_AUDIO, "the cut has no recording; write the manifest with recordings")
    _require_text(supervision, rules)
    clip = _trimmed(choose_channels(cut, supervision, rules.channels, notes), supervision, notes)
    if not _is_text(supervision.language):
        clip = _with_language(clip, rules, notes, place)
    elif not rules.any_language:
        clip = _in_language(clip, _known_name(supervision.language))
    _require_rate(clip.sampling_rate)
    if clip.sampling_rate != SAMPLE_RATE:
        notes.append(f"are resampled from {clip.sampling_rate} to {SAMPLE_RATE} Hz")
    return clip


def _require_text(supervision: SupervisionSegment, rules: Rules) -> None:
    text = supervision.text
    if text is not None and not isinstance(text, str):
        raise Unusable(NO_TEXT, f"the text is {text!r}, not text; put it in quotes")
    if rules.needs_text and text is None:
        raise Unusable(NO_TEXT)
    if rules.needs_text and not rules.empty_text and not _is_text(text):
        raise Unusable(EMPTY_TEXT)


def _require_rate(rate: Any) -> None:
    """Refuse rates that no audio has. Resampling from 1 Hz, for example, would not end."""
    if isinstance(rate, bool) or not isinstance(rate, int) or not MIN_RATE <= rate <= MAX_RATE:
        raise Unusable(UNLIKE, f"its sampling rate is {rate!r}, allowed are {MIN_RATE} to {MAX_RATE} Hz")


def _trimmed(cut: Cut, supervision: SupervisionSegment, notes: list[str]) -> Cut:
    """Return the part of the cut that the supervision covers, with this supervision only."""
    start, end, seconds = supervision.start, supervision.end, cut.duration
    begin, stop = max(0.0, start), min(end, seconds)
    if start < -BEYOND or end > seconds + BEYOND or not stop - begin > EDGE:  # also refuses NaN
        raise Unusable(OUTSIDE, f"it lasts from {start:g} to {end:g} s, the cut from 0 to {seconds:g} s")
    whole = begin <= EDGE and seconds - stop <= EDGE
    if not whole:
        cut = cut.truncate(offset=begin, duration=stop - begin, preserve_id=True)
        notes += [TRIMMED] if SPLIT not in notes else []
    if isinstance(cut, MonoCut | MultiCut):
        own = supervision if whole else fastcopy(supervision, start=0.0, duration=cut.duration)
        return fastcopy(cut, supervisions=[own])
    only = cut.filter_supervisions(lambda each: each.id == supervision.id)
    if len(only.supervisions) != 1:
        raise Unusable(AMBIGUOUS, f"{len(only.supervisions)} supervisions of a mixed cut have the id {supervision.id}")
    return only


def _with_language(clip: Cut, rules: Rules, notes: list[str], place: Place) -> Cut:
    if not rules.language:
        raise UserError(
            f"{place}: clip {clip.id} names no language, and there is no corpus.json beside the manifest that names "
            "one; set data.language, such as data.language=English"
        )
    notes.append(f"name no language, {rules.language} is used ({rules.language_from})")
    return _in_language(clip, rules.language)


def _in_language(clip: Cut, name: str) -> Cut:
    return clip.map_supervisions(lambda each: fastcopy(each, language=name))


def _known_name(language: str) -> str:
    try:
        return find_language(language).name
    except UserError as error:
        raise Unusable(LANGUAGE, str(error)) from error

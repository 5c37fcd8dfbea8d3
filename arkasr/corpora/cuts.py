"""From a corpus to Lhotse cuts: one 16 kHz cut per utterance, and the dropped utterances with their reasons.

The cuts of an undamaged corpus equal those of Lhotse's own recipes, except that audio with several channels follows the
key `channels`. Lhotse's recipes are not called, because they skip folders behind links and stop at odd transcripts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from arkasr.corpora.layouts.audio import Header, check_audio
from arkasr.corpora.layouts.entries import NO_LANGUAGE, SEVERAL_CHANNELS, UNTRANSCRIBED, Entry, mark_repeated
from arkasr.corpora.layouts.lhotse_audio import through_link
from arkasr.corpora.layouts.registry import CorpusLayout
from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE

if TYPE_CHECKING:
    from lhotse import Recording
    from lhotse.cut import Cut

_CASES: dict[str, Callable[[str], str]] = {"keep": str, "lower": str.lower, "upper": str.upper}


@dataclass(frozen=True)
class CutRules:
    """How cuts are made from utterances.

    Attributes:
        audio_root: Folder that stands for the corpus's folder in the paths of the cuts.
        language: Language of utterances that name none.
        text_case: Key `text_case` of corpus.yaml.
        channels: Key `channels` of corpus.yaml.
        num_jobs: Number of threads that read audio headers.
    """

    audio_root: Path
    language: str
    text_case: str
    channels: str | int
    num_jobs: int


@dataclass
class PartCuts:
    """One corpus part after reading.

    Attributes:
        cuts: The usable cuts.
        dropped: The entries without a usable cut, each with its reason.
        num_files_with_channels: Number of used audio files with several channels.
    """

    cuts: list[Cut] = field(default_factory=list)
    dropped: list[Entry] = field(default_factory=list)
    num_files_with_channels: int = 0


def read_parts(layout: CorpusLayout, train: list[str], scored: list[list[str]], rules: CutRules) -> dict[str, PartCuts]:
    """Scan a corpus, check its audio, and make one cut per usable utterance.

    Args:
        layout: The corpus on disk.
        train: Training parts. Their utterances need no transcript.
        scored: Lists of parts for dev and test sets. The parts of one list become one set. Within it, and within
            `train`, every id must be unique.
        rules: How cuts are made.

    Returns:
        The cuts and the dropped entries by part.

    Raises:
        UserError: If a part has no usable utterance.
    """
    groups = [train, *scored]
    parts = list(dict.fromkeys(part for group in groups for part in group))
    entries = list(layout.scan(parts))
    mark_repeated(entries, groups)
    for entry in entries:
        entry.reason = entry.reason or _fault(entry, train, rules)
    headers = check_audio(entries, rules.num_jobs)
    for entry in entries:
        if not entry.reason and entry.cut is None:
            entry.reason = _channel_fault(headers[entry.audio], rules.channels)
    usable = [entry for entry in entries if not entry.reason]
    maker = _CutMaker(layout.root, headers, rules)
    result = {}
    for part in parts:
        require_usable(part, usable, entries)
        mine = [entry for entry in usable if entry.part == part]
        several = len({entry.audio for entry in mine if entry.cut is None and headers[entry.audio].channels > 1})
        dropped = [entry for entry in entries if entry.part == part and entry.reason]
        result[part] = PartCuts([maker.cut(entry) for entry in mine], dropped, several)
    return result


def _fault(entry: Entry, train: list[str], rules: CutRules) -> str:
    """Return why an entry cannot be used in its part, before its audio is looked at. Empty if it can."""
    if entry.text is None and entry.part not in train:
        return UNTRANSCRIBED
    return "" if entry.language or rules.language else NO_LANGUAGE


def _channel_fault(header: Header, channels: str | int) -> str:
    if header.channels == 1 or channels == "mix":
        return ""
    if channels == "refuse":
        return SEVERAL_CHANNELS
    return "" if int(channels) < header.channels else f"audio has no channel {channels}"


class _CutMaker:
    """Makes the cuts of one corpus. Segments of one recording share its description."""

    def __init__(self, root: Path, headers: dict[Path, Header], rules: CutRules):
        self.root, self.headers, self.rules = root, headers, rules
        self.recordings: dict[tuple[str, Path], Recording] = {}

    def cut(self, entry: Entry) -> Cut:
        from lhotse import SupervisionSegment
        from lhotse.cut import MonoCut, MultiCut
        from lhotse.utils import add_durations, fastcopy

        if entry.cut is not None:
            return self._described(entry)
        recording = self._recording(entry)
        channel = self._channel(recording.num_channels)
        segment = SupervisionSegment(
            id=entry.id,
            recording_id=recording.id,
            start=entry.begin,
            duration=recording.duration
            if entry.end is None
            else add_durations(entry.end, -entry.begin, sampling_rate=SAMPLE_RATE),
            channel=channel,
            text=self._text(entry.text),
            language=entry.language or self.rules.language,
            speaker=entry.speaker,
        ).trim(recording.duration)
        kind = MonoCut if isinstance(channel, int) else MultiCut
        inside = [fastcopy(segment, start=0.0)]
        cut = kind(entry.id, segment.start, segment.duration, channel, supervisions=inside, recording=recording)
        return cut if recording.sampling_rate == SAMPLE_RATE else cut.resample(SAMPLE_RATE)

    def _described(self, entry: Entry) -> Cut:
        """Return the entry's own cut, with its transcript and language."""
        from lhotse.utils import fastcopy

        assert entry.cut is not None
        language = entry.language or self.rules.language
        cut = entry.cut.map_supervisions(
            lambda each: fastcopy(each, text=self._text(entry.text), language=language, speaker=entry.speaker)
        )
        return through_link(cut, self.root, self.rules.audio_root)

    def _text(self, text: str | None) -> str | None:
        return None if text is None else _CASES[self.rules.text_case](text)

    def _channel(self, count: int) -> int | list[int]:
        if count == 1:
            return 0
        return list(range(count)) if self.rules.channels == "mix" else int(self.rules.channels)

    def _recording(self, entry: Entry) -> Recording:
        """Describe an audio file by its header. WenetSpeech.json rounds lengths, and names no sampling rates."""
        from lhotse import AudioSource, Recording

        key = (entry.recording or entry.id, entry.audio)
        if key in self.recordings:
            return self.recordings[key]
        header, path = self.headers[entry.audio], entry.audio
        if path.is_relative_to(self.root):
            path = self.rules.audio_root / path.relative_to(self.root)
        source = AudioSource("file", list(range(header.channels)), str(path))
        recording = Recording(key[0], [source], header.rate, header.frames, header.frames / header.rate)
        if entry.recording:
            self.recordings[key] = recording
        return recording


def require_usable(part: str, usable: Iterable[Entry], entries: list[Entry]) -> None:
    """Check that a part has at least one usable utterance.

    Args:
        part: Name of the part.
        usable: Usable entries of all parts.
        entries: All entries of all parts.

    Raises:
        UserError: If it has none. The message gives the first entry's reason.
    """
    if any(entry.part == part for entry in usable):
        return
    bad = [entry for entry in entries if entry.part == part]
    if not bad:
        raise UserError(f"corpus part {part} holds no utterances; check --corpus_dir")
    raise UserError(
        f"corpus part {part}: none of its {len(bad)} utterances can be used; the first: {bad[0].reason}: "
        f"{bad[0].audio}; repair the files, or check --corpus_dir"
    )

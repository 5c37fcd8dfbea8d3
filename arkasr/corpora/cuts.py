"""From a corpus to Lhotse cuts: one 16 kHz cut per utterance, and the dropped utterances with their reasons.

The cuts of an undamaged corpus equal those of Lhotse's own recipes, except that audio with several channels follows the
key `channels`. Lhotse's recipes are not called, because they skip folders behind links and stop at odd transcripts.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arkasr.corpora.layouts.audio import Header, Headers, check_audio
from arkasr.corpora.layouts.entries import NO_LANGUAGE, SEVERAL_CHANNELS, UNTRANSCRIBED, Entry
from arkasr.corpora.layouts.lhotse_audio import through_link
from arkasr.corpora.layouts.registry import CorpusLayout
from arkasr.corpora.left_out import LeftOut
from arkasr.corpora.set_rows import PartCounts, Row, Scanned, SetRows
from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.utils.console import Progress

if TYPE_CHECKING:
    from lhotse import Recording
    from lhotse.cut import Cut

_WINDOW = 4096  # utterances whose audio is checked at once
_CASES: dict[str, Callable[[str], str]] = {"keep": str, "lower": str.lower, "upper": str.upper}


@dataclass(frozen=True)
class CutRules:
    """How cuts are made from utterances.

    Attributes:
        audio_root: Folder that replaces the corpus's folder in the paths of the cuts.
        language: Language of utterances that name none.
        text_case: Key `text_case` of corpus.yaml.
        channels: Key `channels` of corpus.yaml.
        num_jobs: Number of threads that read audio headers.
        left_out: Key `left_out` of corpus.yaml.
    """

    audio_root: Path
    language: str
    text_case: str
    channels: str | int
    num_jobs: int
    left_out: LeftOut = field(default_factory=lambda: LeftOut({}))


def read_sets(layout: CorpusLayout, train: list[str], sets: Mapping[str, SetRows], rules: CutRules) -> int:
    """Scan a corpus, check its audio, and make one cut per usable utterance. Memory does not grow with the corpus.

    Args:
        layout: The corpus on disk.
        train: Training parts. Their utterances need no transcript.
        sets: Takes the utterances. A part may belong to several sets.
        rules: How cuts are made.

    Returns:
        Number of used audio files with several channels.

    Raises:
        UserError: If a part has no usable utterance.
    """
    parts = list(dict.fromkeys(part for each in sets.values() for part in each.parts))
    numbers, entries = count(), iter(layout.scan(parts))
    headers = Headers(rules.num_jobs)
    maker = _CutMaker(layout.root, rules)
    with Progress("Reading", None, "utterances") as progress:
        while window := list(islice(entries, _WINDOW)):
            for scanned in _scanned(window, numbers, train, headers, maker):
                for name, each in sets.items():
                    if scanned.entry.part in each.parts and (placed := rules.left_out.place(name, scanned)):
                        each.add(placed)
            progress.update(len(window))
    headers.close()
    for each in (each for name, each in sets.items() if name not in rules.left_out.sets):
        for part in each.parts:
            require_usable(part, each.totals.parts[part])
    return headers.num_files_with_channels


def _scanned(
    window: list[Entry], numbers: Iterator[int], train: list[str], headers: Headers, maker: _CutMaker
) -> Iterator[Scanned]:
    listed = [not entry.reason for entry in window]
    for entry in window:
        entry.reason = entry.reason or _fault(entry, train, maker.rules)
    found = check_audio(window, headers)
    for number, entry, is_listed in zip(numbers, window, listed):
        if not entry.reason and entry.cut is None:
            entry.reason = _channel_fault(found[entry.audio], maker.rules.channels)
        row = None
        if not entry.reason:
            if entry.cut is None:
                headers.count_channels(entry.audio, found[entry.audio])
            row = maker.row(entry, found.get(entry.audio))
        yield Scanned(number, replace(entry, cut=None, text=None), row, is_listed)


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

    def __init__(self, root: Path, rules: CutRules):
        self.root, self.rules = root, rules
        self._shared: dict[tuple[str, Path], Recording] = {}

    def row(self, entry: Entry, header: Header | None) -> Row:
        """Make the row of a usable utterance. header: of its audio file, None for some of Lhotse's cuts."""
        if entry.cut is not None:
            item = self._described(entry)
        else:
            assert header is not None
            item = self._cut(entry, header).to_dict()
        recording = item.get("recording") or {}
        sources = recording.get("sources", ())
        own_file = len(sources) == 1 and sources[0]["type"] == "file"
        return Row(
            entry.id,
            entry.part,
            item["duration"] if "duration" in item else deserialize(item).duration,
            entry.speaker,
            entry.language or self.rules.language,
            entry.text is not None,
            sources[0]["source"] if own_file else "",
            item.get("start", 0.0),
            recording.get("duration", 0.0),
            json.dumps(item, ensure_ascii=False),
        )

    def _cut(self, entry: Entry, header: Header) -> Cut:
        from lhotse import SupervisionSegment
        from lhotse.cut import MonoCut, MultiCut
        from lhotse.utils import add_durations, fastcopy

        recording = self._recording(entry, header)
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

    def _described(self, entry: Entry) -> dict[str, Any]:
        """Return the entry's own cut, with its transcript and language, and at 16 kHz."""
        from lhotse.utils import fastcopy

        item = entry.cut
        assert item is not None
        through_link(item, self.root, self.rules.audio_root)
        values = {
            "text": self._text(entry.text),
            "language": entry.language or self.rules.language,
            "speaker": entry.speaker,
        }
        if item["type"] != "MonoCut" or item["recording"]["sampling_rate"] != SAMPLE_RATE:
            cut = deserialize(item).map_supervisions(lambda each: fastcopy(each, **values))
            return (cut if cut.sampling_rate == SAMPLE_RATE else cut.resample(SAMPLE_RATE)).to_dict()
        kept = {key: value for key, value in item["supervisions"][0].items() if key not in values}
        item["supervisions"] = [kept | {key: value for key, value in values.items() if value is not None}]
        return item

    def _text(self, text: str | None) -> str | None:
        return None if text is None else _CASES[self.rules.text_case](text)

    def _channel(self, count: int) -> int | list[int]:
        if count == 1:
            return 0
        return list(range(count)) if self.rules.channels == "mix" else int(self.rules.channels)

    def _recording(self, entry: Entry, header: Header) -> Recording:
        """Describe an audio file by its header. WenetSpeech.json rounds lengths, and names no sampling rates."""
        from lhotse import AudioSource, Recording

        key = (entry.recording or entry.id, entry.audio)
        if key in self._shared:
            return self._shared[key]
        path = entry.audio
        if path.is_relative_to(self.root):
            path = self.rules.audio_root / path.relative_to(self.root)
        source = AudioSource("file", list(range(header.channels)), str(path))
        recording = Recording(key[0], [source], header.rate, header.frames, header.frames / header.rate)
        if entry.recording:
            self._shared = {key: recording}  # the segments of a recording are mostly neighbours
        return recording


def deserialize(item: dict[str, Any]) -> Cut:
    """Make a cut of a dictionary, which stays as it is.

    Args:
        item: The dictionary.

    Returns:
        The cut.
    """
    from lhotse.serialization import deserialize_item

    return deserialize_item(copy.deepcopy(item))


def require_usable(part: str, counts: PartCounts) -> None:
    """Check that a part has at least one usable utterance.

    Args:
        part: Name of the part.
        counts: Its counts.

    Raises:
        UserError: If it has none. The message gives the reason of the first one.
    """
    if counts.cuts:
        return
    if counts.first_bad is None:
        raise UserError(f"corpus part {part} holds no utterances; check --corpus_dir")
    first = counts.first_bad
    raise UserError(
        f"corpus part {part}: none of its {counts.entries} utterances can be used; the first, {first.id}: "
        f"{first.reason}: {first.audio}; repair the files, or check --corpus_dir"
    )

"""From a corpus to Lhotse cuts: one 16 kHz cut per utterance, and the dropped utterances with their reasons."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arkasr.corpora.corpus import Scale
from arkasr.corpora.layouts.entries import LEFT_OUT, Entry, Header, check_audio, mark_repeated
from arkasr.corpora.layouts.registry import CorpusLayout
from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE

if TYPE_CHECKING:
    from lhotse.cut import Cut


@dataclass
class PartCuts:
    """One corpus part after reading.

    Attributes:
        cuts: The usable cuts.
        dropped: The entries without a usable cut, each with its reason.
    """

    cuts: list[Cut] = field(default_factory=list)
    dropped: list[Entry] = field(default_factory=list)


def read_parts(layout: CorpusLayout, groups: list[list[str]], work_dir: Path, num_jobs: int) -> dict[str, PartCuts]:
    """Scan a corpus, run Lhotse's recipe on its usable utterances, and make one cut per utterance.

    Args:
        layout: The corpus on disk.
        groups: Lists of parts. The parts of one list become one set, in which every id must be unique.
        work_dir: Empty folder for Lhotse's manifests.
        num_jobs: Number of threads or processes.

    Returns:
        The cuts and the dropped entries by part.

    Raises:
        UserError: If a part has no usable utterance.
    """
    parts = list(dict.fromkeys(part for group in groups for part in group))
    scan = layout.scan(parts)
    mark_repeated(scan.entries, groups)
    headers = check_audio(scan.entries, num_jobs)
    usable = [entry for entry in scan.entries if not entry.reason]
    for part in parts:
        require_usable(part, usable, scan.entries)
    root = layout.root
    if scan.needs_mirror(layout.skipped_by_lhotse):
        root = work_dir / "mirror"
        layout.mirror(root, usable)
    with _quiet():
        manifests = layout.manifests(root, parts, work_dir, num_jobs)
    result = {}
    for part in parts:
        wanted = {entry.id for entry in usable if entry.part == part}
        cuts = [cut for cut in _cuts(manifests[part], layout, root, headers) if cut.id in wanted]
        cut_ids = {cut.id for cut in cuts}
        dropped = [entry for entry in scan.entries if entry.part == part and (entry.reason or entry.id not in cut_ids)]
        for entry in dropped:
            entry.reason = entry.reason or LEFT_OUT
        result[part] = PartCuts(cuts, dropped)
    return result


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Lhotse's warnings, which stage 1 reports itself, and its progress bars where stderr is no terminal."""
    handlers, level = logging.root.handlers[:], logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
        logging.root.handlers[:] = handlers  # logging.warning() adds a handler on the redirected stream


def _cuts(manifests: dict[str, Any], layout: CorpusLayout, root: Path, headers: dict[Path, Header]) -> Iterator[Cut]:
    from lhotse import CutSet, RecordingSet, SupervisionSet
    from lhotse.cut import MonoCut

    recordings = RecordingSet.from_recordings(
        _correct_recording(recording, layout, root, headers) for recording in manifests["recordings"]
    )
    ends = {recording.id: recording.duration for recording in recordings}
    supervisions = SupervisionSet.from_segments(s.trim(ends[s.recording_id]) for s in manifests["supervisions"])
    whole = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    for cut in whole.trim_to_supervisions(keep_overlapping=False):
        cut = cut if isinstance(cut, MonoCut) else cut.to_mono()[0]
        cut = cut.map_supervisions(lambda s: s.transform_text(layout.clean))
        cut = cut.with_id(cut.supervisions[0].id)
        yield cut if cut.sampling_rate == SAMPLE_RATE else cut.resample(SAMPLE_RATE)


def _correct_recording(recording: Any, layout: CorpusLayout, root: Path, headers: dict[Path, Header]) -> Any:
    """Point a recording to the corpus instead of the mirror, with length and rate from the file's header.

    Lhotse's prepare_wenet_speech takes the length from the JSON and assumes 16 kHz.
    """
    from lhotse.utils import fastcopy

    source = recording.sources[0]
    path = Path(source.source)
    if path.is_relative_to(root):
        path = layout.root / path.relative_to(root)
    header = headers[path]
    return fastcopy(
        recording,
        sources=[fastcopy(source, source=str(path))],
        sampling_rate=header.rate,
        num_samples=header.frames,
        duration=header.frames / header.rate,
    )


def drop_by_length(cuts: list[Cut], scale: Scale, part: str) -> tuple[list[Cut], list[Entry]]:
    """Drop training cuts outside of `scale.min_seconds` to `scale.max_seconds`.

    Args:
        cuts: Cuts of one part.
        scale: Holds the two limits in seconds, both inclusive.
        part: Name of the part, for the entries.

    Returns:
        The kept cuts, and one entry with its reason for every dropped cut.
    """
    kept, dropped = [], []
    for cut in cuts:
        if scale.min_seconds <= cut.duration <= scale.max_seconds:
            kept.append(cut)
            continue
        short = cut.duration < scale.min_seconds
        reason = f"shorter than {scale.min_seconds:g} s" if short else f"longer than {scale.max_seconds:g} s"
        dropped.append(Entry(part, cut.id, Path(cut.recording.sources[0].source), reason=reason))
    return kept, dropped


def split_base_td(cuts: list[Cut], scale: Scale) -> tuple[list[Cut], list[Cut]]:
    """Draw the disjoint shares `base` and `td` of the training cuts.

    1. Sort the cuts by a seeded hash of their ids.
    2. Take `scale.base` of them from the start for `base`, and `scale.td` from the end for `td`. Each gets at least
       one cut. One share can therefore grow without changing the other.

    Args:
        cuts: All training cuts.
        scale: Holds `base`, `td` and `split_seed`.

    Returns:
        The cuts of `base` and of `td`, each sorted by id.

    Raises:
        UserError: If there are fewer than two cuts.
    """
    if len(cuts) < 2:
        raise UserError(
            f"the corpus has {len(cuts)} training utterance; base and td need at least 2: use a larger corpus"
        )

    def order(cut: Cut) -> bytes:
        return hashlib.sha256(f"{scale.split_seed}/{cut.id}".encode()).digest()

    ranked = sorted(cuts, key=order)
    num_base = min(max(1, round(scale.base * len(cuts))), len(cuts) - 1)
    num_td = min(max(1, round(scale.td * len(cuts))), len(cuts) - num_base)
    by_id = lambda cut: cut.id  # noqa: E731
    return sorted(ranked[:num_base], key=by_id), sorted(ranked[len(cuts) - num_td :], key=by_id)

"""Layout `lhotse`: cut manifests, Shar folders, and recordings with supervisions, as Lhotse writes them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.layouts.entries import BAD_PATH, Entry
from arkasr.corpora.layouts.lhotse_audio import Sources, channel_fault, recordings_of
from arkasr.corpora.layouts.lhotse_files import SUFFIXES, find_parts, require_part
from arkasr.corpora.layouts.lhotse_items import read_items
from arkasr.corpora.layouts.lhotse_times import time_fault
from arkasr.corpora.layouts.table_ids import allowed_id
from arkasr.corpora.layouts.table_values import Languages, transcript

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from arkasr.data.checks import Place, Rules

_KNOWN_PATHS = 1024
_NO_LANGUAGE = "?"  # replaces the language of supervisions that name none. Stage 1 puts that of corpus.yaml there

_TAG = re.compile(r"<[A-Z]+>")


@dataclass
class LhotseOptions:
    """The section `options` of corpus.yaml for the layout `lhotse`.

    Attributes:
        own_channels: Of recordings with several channels, use those that the supervision or the cut names, such as the
            headset of the speaker. Otherwise the key `channels` decides.
        remove_tags: Remove tags of upper-case letters from transcripts, such as `<COMMA>` and `<MUSIC>` of GigaSpeech.
            A clip whose transcript holds nothing else has no transcript.
    """

    own_channels: bool = False
    remove_tags: bool = False


class Lhotse:
    """A folder of Lhotse manifests, see `arkasr.corpora.layouts.registry.CorpusLayout`.

    `arkasr.corpora.layouts.lhotse_files.find_parts` describes the parts. A cut with several supervisions gives one
    utterance per supervision, as `arkasr.data.checks` describes. Cuts without a supervision, and texts that are missing
    or blank, have no transcript. Audio stays where the cuts say that it is, also in the tar files of a Shar folder.

    Args:
        root: The folder.
        corpus: The corpus.yaml. `language` holds for supervisions that name none, `channels` for recordings with
            several channels, and `options` are those of `LhotseOptions`.
    """

    expected: ClassVar[str] = (
        "cuts such as cuts_train.jsonl.gz, a Shar folder per part, or recordings_train.jsonl.gz with "
        "supervisions_train.jsonl.gz"
    )
    subfolders: ClassVar[tuple[str, ...]] = ("",)
    options: ClassVar[type[Any]] = LhotseOptions
    source_option: ClassVar[str] = ""

    def __init__(self, root: Path, corpus: Corpus):
        self.root, self.corpus = root, corpus
        self.chosen = LhotseOptions(**corpus.options)

    @staticmethod
    def matches(folder: Path, corpus: Corpus) -> bool:
        """See `CorpusLayout.matches`."""
        return folder.is_dir() and bool(find_parts(folder))

    def parts(self) -> list[str]:
        """See `CorpusLayout.parts`."""
        return list(find_parts(self.root))

    def fingerprint(self) -> str:
        """See `CorpusLayout.fingerprint`. It holds the parts, and names and sizes of tar files."""
        parts = find_parts(self.root)
        tars = [tar for part in parts.values() for path in part.cuts if path.is_dir() for tar in path.glob("*.tar")]
        sizes = [f"{tar.relative_to(self.root)} {tar.stat().st_size}" for tar in sorted(tars) if tar.exists()]
        return "\n".join([" ".join(parts), *sizes])

    def transcripts(self, parts: list[str]) -> list[Path]:
        """See `CorpusLayout.transcripts`. They are the manifests."""
        found = find_parts(self.root)
        paths = [path for part in parts for path in found[part].files()]
        inside = [file for path in paths if path.is_dir() for file in path.iterdir() if file.name.endswith(SUFFIXES)]
        return sorted([*inside, *(path for path in paths if not path.is_dir())])

    def scan(self, parts: list[str]) -> Iterator[Entry]:
        """See `CorpusLayout.scan`.

        Yields:
            The utterances, file after file.

        Raises:
            UserError: A manifest is damaged or is not one of Lhotse's, or a tar file of a Shar folder is missing.
        """
        for part in parts:
            yield from self._part(part)

    def _part(self, name: str) -> Iterator[Entry]:
        from arkasr.data.checks import Rules

        part = require_part(name, find_parts(self.root)[name])
        channels = "auto" if self.chosen.own_channels else str(self.corpus.channels)
        rules = Rules(channels, _NO_LANGUAGE, needs_text=False, any_language=True)
        manifest = part.files()[0]
        sources, languages = Sources(manifest, self.root), Languages()
        for place, item in read_items(part):
            for clip in _clips(item, rules, place, sources):
                yield _entry(name, clip, languages, manifest, self.chosen.remove_tags)


def _clips(item: dict[str, Any], rules: Rules, place: Place, sources: Sources) -> list[Cut | dict[str, Any]]:
    """Return the clips of a cut, with absolute paths. Clips that need no change are dictionaries."""
    from arkasr.data.checks import check

    sources.resolve(item, place)
    return check(item, rules, place).clips


def _entry(part: str, clip: Cut | dict[str, Any], languages: Languages, manifest: Path, without_tags: bool) -> Entry:
    from arkasr.data.reasons import refusal
    from arkasr.data.shar import PLACE

    failure = None if isinstance(clip, dict) else refusal(clip)
    item = clip if isinstance(clip, dict) else clip.to_dict()
    name, tar = allowed_id(item["id"]), (item.get("custom") or {}).get(PLACE)
    source = next((one["source"] for one in _sources(item) if one["type"] == "file"), tar[0] if tar else None)
    path = _path(source) if source else manifest
    if failure:
        return Entry(part, name, path, None, failure.kind)
    supervision = _supervision(item)
    written = supervision.get("text")
    written = _TAG.sub("", written) if without_tags and isinstance(written, str) else written
    text, prefix, fault = transcript(written)
    named = supervision.get("language")
    language, unknown = languages.read(None if named == _NO_LANGUAGE else named, prefix)
    item["id"] = name
    reason = fault or unknown or time_fault(item) or channel_fault(item) or _source_fault(item)
    speaker = supervision.get("speaker")
    return Entry(
        part, name, path, text, reason, speaker if isinstance(speaker, str) else None, language=language, cut=item
    )


_path = lru_cache(_KNOWN_PATHS)(Path)  # making a path takes longer than the rest of an entry


def _sources(item: dict[str, Any]) -> list[dict[str, Any]]:
    return [source for recording in recordings_of(item) for source in recording["sources"]]


def _supervision(item: dict[str, Any]) -> dict[str, Any]:
    """Return the only supervision. Those of a mixed cut are in its tracks."""
    cuts = [track["cut"] for track in item["tracks"]] if "tracks" in item else [item]
    return next((one for cut in cuts for one in cut.get("supervisions") or ()), {})


def _source_fault(item: dict[str, Any]) -> str:
    from lhotse.serialization import deserialize_item

    from arkasr.data.commands import refuse_commands
    from arkasr.data.reasons import Unusable

    try:
        for source in _sources(item):
            str(source["source"]).encode()
            plain = source["type"] in ("file", "shar") and not str(source["source"]).lower().endswith(".sph")
            if not plain:
                refuse_commands(deserialize_item(copy.deepcopy(item)))
    except UnicodeEncodeError:
        return BAD_PATH
    except Unusable as unusable:
        return unusable.kind
    return ""

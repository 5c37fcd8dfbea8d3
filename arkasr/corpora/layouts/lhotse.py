"""Layout `lhotse`: cut manifests, Shar folders, and recordings with supervisions, as Lhotse writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.layouts.entries import BAD_PATH, Entry, NoOptions
from arkasr.corpora.layouts.lhotse_audio import AudioCheck, Sources, recordings_of
from arkasr.corpora.layouts.lhotse_files import SUFFIXES, find_parts, require_part
from arkasr.corpora.layouts.lhotse_items import read_items
from arkasr.corpora.layouts.table_values import Languages, transcript
from arkasr.corpora.layouts.transcripts import id_fault
from arkasr.interfaces import SAMPLE_RATE

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from arkasr.data.checks import Place, Rules

_NO_LANGUAGE = "?"  # stands for the language of supervisions that name none. Stage 1 puts that of corpus.yaml there


class Lhotse:
    """A folder of Lhotse manifests, see `arkasr.corpora.layouts.registry.CorpusLayout`.

    `arkasr.corpora.layouts.lhotse_files.find_parts` describes the parts. A cut with several supervisions gives one
    utterance per supervision, as `arkasr.data.checks` describes. Cuts without a supervision, and texts that are missing
    or blank, have no transcript. Audio stays where the cuts say that it is, also in the tar files of a Shar folder.

    Args:
        root: The folder.
        corpus: The corpus.yaml. `language` holds for supervisions that name none, `channels` for recordings with
            several channels.
    """

    expected: ClassVar[str] = (
        "cuts such as cuts_train.jsonl.gz, a Shar folder per part, or recordings_train.jsonl.gz with "
        "supervisions_train.jsonl.gz"
    )
    subfolders: ClassVar[tuple[str, ...]] = ("",)
    options: ClassVar[type[Any]] = NoOptions
    source_option: ClassVar[str] = ""

    def __init__(self, root: Path, corpus: Corpus):
        self.root, self.corpus = root, corpus

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
        check = AudioCheck()
        for part in parts:
            for entry in check.checked(self._part(part)):
                if entry.cut is not None and entry.cut.sampling_rate != SAMPLE_RATE:
                    entry.cut = entry.cut.resample(SAMPLE_RATE)
                yield entry

    def _part(self, name: str) -> Iterator[Entry]:
        from arkasr.data.checks import Rules

        part = require_part(name, find_parts(self.root)[name])
        rules = Rules(str(self.corpus.channels), _NO_LANGUAGE, needs_text=False, any_language=True)
        manifest = part.files()[0]
        sources, languages = Sources(manifest, self.root), Languages()
        for place, item in read_items(part):
            for clip in _clips(item, rules, place, sources):
                yield _entry(name, clip, languages, manifest)


def _clips(item: dict[str, Any], rules: Rules, place: Place, sources: Sources) -> Iterator[Cut]:
    """Yield the clips of a cut, with absolute paths."""
    from lhotse.serialization import deserialize_item

    from arkasr.data.checks import ODD, check, not_a_cut

    sources.resolve(item, place)
    for clip in check(item, rules, place).clips:
        try:
            yield deserialize_item(clip) if isinstance(clip, dict) else clip
        except ODD as error:
            raise not_a_cut(place, error) from error


def _entry(part: str, clip: Cut, languages: Languages, manifest: Path) -> Entry:
    from arkasr.data.commands import refuse_commands
    from arkasr.data.reasons import Unusable, refusal
    from arkasr.data.shar import tar_file

    path = Path(_path(clip) or tar_file(clip) or manifest)
    if failure := refusal(clip):
        return Entry(part, clip.id, path, None, failure.kind)
    supervision = clip.supervisions[0]
    text, prefix, fault = transcript(supervision.text)
    named = None if supervision.language == _NO_LANGUAGE else supervision.language
    language, unknown = languages.read(named, prefix)
    reason = id_fault(clip.id) or fault or unknown
    try:
        refuse_commands(clip)
        str(path).encode()
    except Unusable as unusable:
        reason = unusable.kind
    except UnicodeEncodeError:
        reason = BAD_PATH
    speaker = supervision.speaker if isinstance(supervision.speaker, str) else None
    return Entry(part, clip.id, path, text, reason, speaker, language=language, cut=clip)


def _path(clip: Cut) -> str | None:
    """Return the path of the first file that holds the clip's audio."""
    sources = [source for recording in recordings_of(clip) for source in recording.sources]
    return next((source.source for source in sources if source.type == "file"), None)

"""The reference of each file: from a file of transcripts, or from a text file per audio file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from arkasr.errors import UserError
from arkasr.scoring.transcript_file import read_transcripts
from arkasr.scoring.transcripts import Transcripts, read_lines
from arkasr.scoring.utterances import Utterance
from arkasr.transcription.sources import SUFFIXES, Source

TEXT = ".txt"


@dataclass(frozen=True)
class References:
    """References of N files.

    Attributes:
        utterances: Reference per file, None for those without one.
        unused: Ids of references that belong to no file.
    """

    utterances: tuple[Utterance | None, ...]
    unused: tuple[str, ...] = ()


def read_references(values: Sequence[str], sources: Sequence[Source]) -> References:
    """Read the references of files.

    Args:
        values: One file of transcripts (see `arkasr.scoring.transcript_file`), or one folder or several files with one
            text file per audio file, which have the same name but for the suffix. Empty: there are none.
        sources: The N files.

    Returns:
        The references. The id of a reference is the name of a file, or its path, with or without suffix. In stm and
        ctm files, it is that of the recording. Without ids, line i belongs to file i.

    Raises:
        UserError: A file is broken, or no reference belongs to a file, or one belongs to several.
    """
    if not values:
        return References((None,) * len(sources))
    if len(values) > 1 or Path(values[0]).is_dir():
        found = _texts(_text_files(values), sources)
    elif len(sources) == 1 and _is_text(values[0]) and not _ids_match(values[0], sources):
        return References((_whole(values[0]),))
    else:
        read = _read(values[0], sources)
        if read.numbered:
            return _by_line(read, sources)
        found = _by_recording(read)
    return _matched(values, found, sources)


def _is_text(path: str) -> bool:
    return path.removesuffix(".gz").endswith(TEXT)


def _whole(path: str | Path) -> Utterance:
    return Utterance(" ".join(" ".join(read_lines(str(path))).split()))


def _read(path: str, sources: Sequence[Source]) -> Transcripts:
    """Read a file of transcripts. Lines of a text file begin with ids if these are names of the audio."""
    form = "text" if _is_text(path) and not _ids_match(path, sources) else "kaldi"
    return read_transcripts(path, True, form)


def _ids_match(path: str, sources: Sequence[Source]) -> bool:
    known = {key for source in sources for key in _keys(source.name)}
    firsts = [line.split(maxsplit=1)[0] for line in read_lines(path) if line.strip()]
    return any(key in known for first in firsts for key in _keys(first))


def _by_line(read: Transcripts, sources: Sequence[Source]) -> References:
    if len(read.utterances) != len(sources):
        raise UserError(
            f"--reference {read.path}: holds {len(read.utterances)} texts for {len(sources)} audio files; without ids, "
            "line N belongs to file N; write an empty line for an empty text, or begin each line with the file's name"
        )
    return References(tuple(read.utterances.values()))


def _by_recording(read: Transcripts) -> dict[str, Utterance]:
    """Return the references by id. The segments of a recording are one reference, in the order of their ends."""
    found = dict(read.utterances)
    recordings: dict[str, list[Utterance]] = {}
    for segment in read.segments:
        if segment.id:
            recordings.setdefault(segment.recording[0], []).append(found.pop(segment.id))
    for name, parts in recordings.items():
        speakers = "+".join(dict.fromkeys(part.speaker for part in parts if part.speaker))
        found[name] = Utterance(" ".join(part.text for part in parts), speaker=speakers)
    return found


def _text_files(values: Sequence[str]) -> list[Path]:
    files = [file for value in values for file in (_in_folder(value) if Path(value).is_dir() else [Path(value)])]
    for file in files:
        if not _is_text(str(file)):
            raise UserError(
                f"--reference {file}: is not a {TEXT} file; name one file of transcripts, or one {TEXT} file per audio "
                "file"
            )
    return files


def _in_folder(folder: str) -> list[Path]:
    files = sorted(Path(folder).rglob(f"*{TEXT}"))
    if not files:
        raise UserError(f"--reference {folder}: holds no {TEXT} file; each must be named as its audio file")
    return files


def _texts(files: Sequence[Path], sources: Sequence[Source]) -> dict[str, Utterance]:
    """Read the text files, of which those with a name of no source are not opened."""
    known = {key for source in sources for key in (*_keys(source.name), *_keys(source.place))}
    return {str(file): _whole(file) if known.intersection(_keys(str(file))) else Utterance("") for file in files}


def _matched(values: Sequence[str], found: Mapping[str, Utterance], sources: Sequence[Source]) -> References:
    where = f"--reference {' '.join(values[:3])}"
    places: dict[str, list[str]] = {}
    for known in found:
        for key in _keys(known):
            places.setdefault(key, []).append(known)
    chosen = [_match(where, source, places) for source in sources]
    users: dict[str, str] = {}
    for source, identity in zip(sources, chosen, strict=True):
        if identity is not None and users.setdefault(identity, source.name) != source.name:
            raise UserError(
                f"{where}: {identity} belongs to both {users[identity]} and {source.name}; give references ids that "
                "name the whole path"
            )
    if not users:
        examples = ", ".join(list(found)[:3])
        raise UserError(
            f"{where}: has no reference of an audio file such as {sources[0].name} (known: {examples}); ids must be "
            "names of the audio files, with or without folder and suffix"
        )
    texts = tuple(None if identity is None else found[identity] for identity in chosen)
    return References(texts, tuple(identity for identity in found if identity not in users))


def _match(where: str, source: Source, places: Mapping[str, Sequence[str]]) -> str | None:
    """Return the id of a source's reference: of the most exact key that is known."""
    for key in (*_keys(source.name), *_keys(source.place)):
        if identities := places.get(key):
            if len(identities) > 1:
                raise UserError(
                    f"{where}: {identities[0]} and {identities[1]} both belong to {source.name}; give them ids that "
                    "name the whole path"
                )
            return identities[0]
    return None


def _keys(name: str) -> Iterator[str]:
    """Yield what can name a file: the path, the path without suffix, the name, and the name without suffix."""
    path = PurePath(name)
    bare = path.with_suffix("") if path.suffix.lower() in (*SUFFIXES, TEXT) and path.stem else path
    yield from dict.fromkeys([name, str(bare), path.name, bare.name])

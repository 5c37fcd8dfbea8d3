"""Whether a data directory is up to date with its corpus, or the corpus was moved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arkasr.corpora import data_dir
from arkasr.corpora.corpus import Corpus
from arkasr.corpora.layouts.audio import read_header
from arkasr.corpora.layouts.registry import CorpusLayout
from arkasr.errors import UserError
from arkasr.utils.console import log
from arkasr.utils.files import sha256

# Increase this number whenever the same corpus would give other cuts. Data directories of another version are
# prepared again.
VERSION = 3
MOVED = "the link to the corpus leads elsewhere"


@dataclass(frozen=True)
class Inputs:
    """What a data directory is prepared from.

    Attributes:
        corpus: The corpus.yaml.
        scale: `mini`, `study` or `paper`.
        folder: The folder that the user named, absolute.
        record: Version of the cuts, digest of corpus.yaml, and fingerprint of the corpus.
    """

    corpus: Corpus
    scale: str
    folder: Path
    record: dict[str, Any]

    @classmethod
    def of(cls, corpus: Corpus, scale: str, folder: Path, layout: CorpusLayout, shar: bool = False) -> Inputs:
        """Describe the inputs.

        Args:
            corpus: The corpus.yaml.
            scale: `mini`, `study` or `paper`.
            folder: The folder that the user named, absolute.
            layout: The corpus on disk.
            shar: Whether the audio is written as Shar.

        Returns:
            The description.
        """
        record = {"version": VERSION, "corpus_yaml": sha256(corpus.path), "found": layout.fingerprint()}
        record |= {"shar": True} if shar else {}
        return cls(corpus, scale, folder, record)

    @property
    def identity(self) -> dict[str, str]:
        """What must not change in a data directory, as in corpus.json."""
        return {"corpus": self.corpus.name, "scale": self.scale, "corpus_dir": str(self.folder)}


def reason_to_prepare(data: Path, layout: CorpusLayout, inputs: Inputs) -> str | None:
    """Decide whether to prepare. Nothing is written.

    Args:
        data: The data directory.
        layout: The corpus on disk.
        inputs: What the user named.

    Returns:
        The reason to prepare again, MOVED if a new link is enough (see `relink`), "" for the first time, or None if
        the data are up to date.

    Raises:
        UserError: If the directory holds another corpus.
    """
    try:
        old = data_dir.read_facts(data)
    except UserError as error:
        return str(error).rpartition(";")[0]
    if old is None:
        return ""
    moved = _check_identity(data, old, layout, inputs)
    if {**old["inputs"], "found": ""} != {**inputs.record, "found": ""}:
        return "corpus.yaml, --shar or this program changed"
    if name := data_dir.changed_set(data, old):
        return f"{name} is missing or changed"
    if old.get("audio_root") not in (str(data / data_dir.LINK), str(layout.root)):
        return "the data directory or the corpus was moved"
    if moved:
        _require_same_audio(data, old, layout.root)
        return MOVED
    return _change(data, old, layout, inputs)


def _check_identity(data: Path, old: dict[str, Any], layout: CorpusLayout, inputs: Inputs) -> bool:
    """Return whether the same corpus is at another place. Raise UserError for another corpus or scale."""
    found = {"corpus": old.get("corpus", old["name"]), "scale": old["scale"], "corpus_dir": old["corpus_dir"]}
    if found == inputs.identity:
        return False
    same = {**found, "corpus_dir": ""} == {**inputs.identity, "corpus_dir": ""} and _same_transcripts(old, layout)
    if same and not _exists(Path(old["corpus_dir"]), layout, inputs.corpus):
        return True
    template = "{corpus} at scale {scale} from {corpus_dir}"
    has, wanted = template.format(**found), template.format(**inputs.identity)
    hint = ", or move the former copy of the corpus away, so that the data can lead to the new one" if same else ""
    raise UserError(f"{data}: holds {has}, not {wanted}; use another --datadir and --expdir{hint}")


def _exists(folder: Path, layout: CorpusLayout, corpus: Corpus) -> bool:
    """Return whether a folder has a corpus of the same layout."""
    try:
        return any(layout.matches(folder / subfolder, corpus) for subfolder in layout.subfolders)
    except OSError:  # a server that is gone
        return False


def _parts(old: dict[str, Any]) -> list[str]:
    return [part for use in old["parts"].values() for part in use]


def _same_transcripts(old: dict[str, Any], layout: CorpusLayout) -> bool:
    known = (old.get("transcripts") or {}).get("sha256")
    try:
        return bool(known) and data_dir.transcripts_digest(layout.root, layout.transcripts(_parts(old))) == known
    except UserError:  # one of the parts is missing
        return False


def _require_same_audio(data: Path, old: dict[str, Any], root: Path) -> None:
    """Check that the audio of the first cut of every set is at the new place, with the length that it had."""
    for name in old["sets"]:
        recording = data_dir.first_recording(data, name)
        if recording is None or recording["sources"][0]["type"] != "file":
            continue  # names and sizes of tar files are compared with the corpus's fingerprint
        path = Path(recording["sources"][0]["source"])
        if path.is_relative_to(old["audio_root"]):
            path = root / path.relative_to(old["audio_root"])
        header = read_header(path)
        if header.reason or abs(header.frames / header.rate - recording["duration"]) > 1e-3:
            raise UserError(
                f"{path}: missing or another length than when {data} was prepared from {old['corpus_dir']}; complete "
                "the moved corpus, or use another --datadir and --expdir"
            )


def relink(data: Path, layout: CorpusLayout, inputs: Inputs) -> bool:
    """Let the data lead to a moved corpus. The cuts do not change, so that trainings can resume.

    Args:
        data: The data directory.
        layout: The corpus on disk.
        inputs: What the user named.

    Returns:
        Whether the file system has links. Otherwise the corpus must be prepared again.
    """
    old = data_dir.read_facts(data)
    if old is None or data_dir.link_corpus(data, layout.root) != data / data_dir.LINK:
        return False
    data_dir.write_facts(data, old | inputs.identity | {"inputs": inputs.record})
    log(f"{data}: the corpus was in {old['corpus_dir']} and is in {inputs.folder}; the cuts now lead there")
    return True


def _change(data: Path, old: dict[str, Any], layout: CorpusLayout, inputs: Inputs) -> str | None:
    """Return what changed in the corpus, or None."""
    if old["inputs"] != inputs.record:
        return "the parts on disk changed"
    transcripts = layout.transcripts(_parts(old))
    since = (data / data_dir.CORPUS_JSON).stat().st_mtime
    # A repaired file of a dropped utterance changed after corpus.json was written.
    states = [os.stat(path) for path in {*transcripts, *data_dir.dropped_files(data)} if os.path.exists(path)]
    touched = any(max(state.st_mtime, state.st_ctime) >= since for state in states)
    if touched or len(transcripts) != (old.get("transcripts") or {}).get("files"):
        return "files of the corpus changed"
    root = old["audio_root"]
    if not layout.root.exists():  # the data set is not in a folder
        return None
    return None if os.path.exists(root) and os.path.samefile(root, layout.root) else MOVED

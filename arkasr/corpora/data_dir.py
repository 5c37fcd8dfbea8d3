"""The data directory of stage 1: whose it is, whether it is up to date, and how its files are written.

| file | contents |
|---|---|
| `train.jsonl.gz` | all training cuts, with or without transcript |
| `base.jsonl.gz`, `td.jsonl.gz`, `opd.jsonl.gz` | training cuts of each use, see the key `use` of corpus.yaml |
| `dev.jsonl.gz`, `<test set>.jsonl.gz` | development cuts, and the cuts of every test part |
| `dropped.jsonl` | one dropped utterance per line: set, id, reason, path of the audio |
| `corpus.json` | language, scoring profiles, sets with their counts, uses, and what they were prepared from |
| `corpus` | link to the corpus. The paths of cuts lead through it, so that a moved corpus needs only a new link |
| `audio` | audio of corpora that hold it inside other files, such as Parquet |
| `shar` | audio of each set in the format Lhotse Shar, with `--shar` |
| `.arkasr_data` | marks the directory as written by stage 1 |
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.set_rows import Totals
from arkasr.errors import UserError
from arkasr.utils.console import length_text, log
from arkasr.utils.files import LOCK, flush, publish, read_json, sha256, write_text

CORPUS_JSON, DROPPED, OWNER = "corpus.json", "dropped.jsonl", ".arkasr_data"
LINK, AUDIO, SHAR = "corpus", "audio", "shar"
_KEYS = {"name": str, "scale": str, "corpus_dir": str, "sets": dict, "parts": dict, "inputs": dict}
_NEWER_KEYS = {"corpus": str, "audio_root": str, "transcripts": dict}  # not in version 1


class ManifestSet(Protocol):
    """One set of the data directory.

    Attributes:
        failed: Clips that were left out when the manifest was written, see `arkasr.data.shar_shard.Shard`.
        tar_bytes: Sizes of its tar files, in bytes. Empty if it has none.
    """

    failed: Sequence[dict[str, Any]]
    tar_bytes: Sequence[int]

    @property
    def totals(self) -> Totals:
        """Its counts, with clips that were left out when the manifest was written."""
        ...

    def write(self, path: Path) -> None:
        """Write the manifest.

        Args:
            path: The file.
        """
        ...

    def dropped(self) -> Iterator[Entry]:
        """Yield the utterances that were dropped, with their reasons."""
        ...


def require_own(data: Path) -> None:
    """Check that stage 1 may write into a folder. Nothing is written.

    Args:
        data: The data directory.

    Raises:
        UserError: It holds files that stage 1 did not write, or is not a folder.
    """
    if not os.path.lexists(data):
        return
    try:
        names = sorted(set(os.listdir(data)) - {LOCK, f"{OWNER}.part"})
    except OSError as error:
        raise UserError(f"--datadir {data}: {error.strerror or error}; name a folder that can be written") from error
    if names and OWNER not in names and not _written_here(data):
        raise UserError(
            f"--datadir {data}: holds files that stage 1 did not write ({', '.join(names[:3])}); "
            "use an empty or a new folder"
        )


def _written_here(data: Path) -> bool:
    """Return whether the folder has a corpus.json of stage 1. Version 1 wrote no other mark."""
    return read_facts(data, "use another --datadir, or delete the folder and run the recipe from --stage 1") is not None


def read_facts(data: Path, what_to_do: str = "delete it and run the recipe from --stage 1") -> dict[str, Any] | None:
    """Read corpus.json.

    Args:
        data: The data directory.
        what_to_do: End of an error message.

    Returns:
        Its content, or None if there is no such file.

    Raises:
        UserError: It is damaged, or not a file of stage 1.
    """
    path = data / CORPUS_JSON
    if not path.is_file():
        return None
    facts = read_json(path, what_to_do)
    wrong = [key for key, kind in _KEYS.items() if not isinstance(facts.get(key), kind)]
    wrong += [key for key, kind in _NEWER_KEYS.items() if not isinstance(facts.get(key, kind()), kind)]
    rules = (("sets", _is_set), ("parts", _are_names))
    wrong = wrong or [key for key, valid in rules if not all(map(valid, facts[key].values()))]
    if wrong:
        raise UserError(f"{path}: key {wrong[0]!r} is missing or wrong, so stage 1 did not write it; {what_to_do}")
    return facts


def holds_shar(data: Path) -> bool:
    """Return whether a data directory holds its audio as Shar.

    Args:
        data: The data directory.

    Returns:
        False also for a directory that is missing or damaged.
    """
    try:
        facts = read_facts(data)
    except UserError:
        return False
    return facts is not None and facts["inputs"].get("shar") is True


def _is_set(value: Any) -> bool:
    return isinstance(value, dict)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name.isprintable() for name in value)


def changed_set(data: Path, facts: dict[str, Any]) -> str:
    """Compare the sets with their recorded digests.

    Args:
        data: The data directory.
        facts: Content of corpus.json.

    Returns:
        Name of the first file that is missing or differs. Empty if there is none.
    """
    digests = {f"{name}.jsonl.gz": each.get("sha256") for name, each in facts["sets"].items()}
    for name, digest in (digests | {DROPPED: facts.get("dropped_sha256")}).items():
        if not (data / name).is_file() or sha256(data / name) != digest:
            return name
    for name, each in facts["sets"].items():
        for number, size in enumerate(each.get("tar_bytes", ())):
            tar = data / SHAR / name / f"recording.{number:06d}.tar"
            if not tar.is_file() or tar.stat().st_size != size:
                return str(tar.relative_to(data))
    return ""


def claim(data: Path) -> None:
    """Mark a folder as written by stage 1, before anything else is written.

    Args:
        data: The data directory.
    """
    if not (data / OWNER).exists():
        write_text(data / OWNER, "Stage 1 (arkasr prepare) wrote the files in this folder, and may replace them.\n")


def link_corpus(data: Path, root: Path) -> Path:
    """Let the link `corpus` lead to the corpus.

    Args:
        data: The data directory.
        root: Folder of the corpus.

    Returns:
        The path of the link, or `root` if the file system has no links. Cuts begin with this path.
    """
    link, part = data / LINK, data / f".{LINK}"
    if link.is_symlink() and os.readlink(link) == str(root):
        return link
    try:
        part.unlink(missing_ok=True)
        part.symlink_to(root)
        part.replace(link)
        flush([data])
    except OSError as error:
        log(f"{link}: cannot be linked ({error.strerror or error}), so a moved corpus must be prepared again")
        return root
    return link


def write(data: Path, sets: Mapping[str, ManifestSet], description: dict[str, Any], root: Path) -> None:
    """Write every file durably under a temporary name and rename it. corpus.json is last: it marks the data complete.

    Args:
        data: The data directory.
        sets: The sets by name.
        description: Content of corpus.json. The digests of the sets are added.
        root: Folder of the corpus. Paths below it are written as paths below the key `audio_root`.
    """
    (data / CORPUS_JSON).unlink(missing_ok=True)
    flush([data])
    written: dict[bytes, str] = {}
    for name, each in sets.items():
        path, temporary, ids = data / f"{name}.jsonl.gz", data / f".{name}.jsonl.gz", each.totals.ids.digest()
        if same := written.get(ids) if name in description["train"] else None:
            _copy(data / f"{same}.jsonl.gz", temporary)
            each.failed = sets[same].failed
        else:
            each.write(temporary)
        publish(temporary, path)
        written.setdefault(ids, name)
        description["sets"][name] |= {"sha256": sha256(path)}
        if each.tar_bytes:
            description["sets"][name]["tar_bytes"] = list(each.tar_bytes)
        _take_out(description, name, each)
    _write_dropped(data, sets, Path(description["audio_root"]), root)
    write_facts(data, description | {"dropped_sha256": sha256(data / DROPPED)})


def _take_out(description: dict[str, Any], name: str, each: ManifestSet) -> None:
    """Correct the counts of a set by the clips whose audio could not be read."""
    if not each.failed:
        return
    cuts = each.totals.cuts - len(each.failed)
    hours = round((each.totals.seconds - sum(clip["seconds"] for clip in each.failed)) / 3600, 4)
    facts = description["sets"][name]
    facts |= {"cuts": cuts, "hours": hours}
    facts["untranscribed"] -= sum(not clip["has_text"] for clip in each.failed)
    if name in description["uses"]:
        description["uses"][name] |= {"cuts": cuts, "hours": hours}
    else:
        facts["dropped"] |= Counter(facts["dropped"]) + Counter(clip["reason"] for clip in each.failed)
    left = f"{cuts} cuts, {length_text(hours)}"
    log(f"{name}: {len(each.failed)} clips left out, because their audio cannot be read; {left}")


def _write_dropped(data: Path, sets: Mapping[str, ManifestSet], audio_root: Path, root: Path) -> None:
    part = data / f".{DROPPED}"
    with part.open("w", encoding="utf-8") as file:
        for name, each in sets.items():
            for entry in each.dropped():
                path = _below(audio_root, root, entry.audio)
                file.write(_json({"set": name, "id": entry.id, "reason": entry.reason, "path": path}) + "\n")
    publish(part, data / DROPPED)


def _copy(source: Path, target: Path) -> None:
    """Give a file a second name, so that it takes no more space. Copy it where the file system has no such links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _below(audio_root: Path, root: Path, path: Path) -> str:
    return str(audio_root / path.relative_to(root) if path.is_relative_to(root) else path)


def write_facts(data: Path, facts: dict[str, Any]) -> None:
    """Write corpus.json.

    Args:
        data: The data directory.
        facts: Its content.
    """
    write_text(data / CORPUS_JSON, _json(facts, indent=1) + "\n")


def _json(value: Any, indent: int | None = None) -> str:
    """Write JSON. Bytes of names that are not UTF-8 become JSON's own escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace").decode()


def dropped_files(data: Path) -> set[Path]:
    """Return the audio files of dropped utterances.

    Args:
        data: The data directory.

    Returns:
        Their paths.
    """
    lines = (data / DROPPED).read_text(encoding="utf-8").splitlines()
    return {Path(json.loads(line)["path"]) for line in lines}


def first_recording(data: Path, name: str) -> dict[str, Any] | None:
    """Return the recording of the first cut of a set.

    Args:
        data: The data directory.
        name: Name of the set.

    Returns:
        Lhotse's recording as a dictionary, or None for an empty set.
    """
    with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        line = next(lines, "")
    return json.loads(line)["recording"] if line else None


def transcripts_digest(root: Path, transcripts: Iterable[Path]) -> str:
    """Return a digest of transcripts, which distinguishes a moved corpus from another one.

    Args:
        root: Folder of the corpus.
        transcripts: Its transcript files.

    Returns:
        SHA-256 digest over their names and contents, 64 hexadecimal digits.
    """
    total = hashlib.sha256()
    for path in transcripts:
        total.update(f"{os.path.relpath(path, root)} {sha256(path)}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()

"""The parts of a folder with Lhotse manifests: which files and folders belong to which part."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from arkasr.corpora.layouts.walk import list_folder
from arkasr.errors import UserError

SUFFIXES = (".jsonl.gz", ".jsonl")
_NAME = re.compile(
    r"(?:(?P<corpus>.+?)_)?(?P<kind>cuts|recordings|supervisions|features|feats)(?:_(?P<part>.+))?", re.DOTALL
)
WITHOUT_PART = "all"  # the part of files such as `cuts.jsonl.gz`, whose name holds nothing else


@dataclass
class LhotsePart:
    """The files of one part.

    Attributes:
        cuts: A file of cuts, a folder of such files, or a Shar folder. At most one.
        recordings: A file of recordings. At most one.
        supervisions: A file of supervisions. At most one.
    """

    cuts: list[Path] = field(default_factory=list)
    recordings: list[Path] = field(default_factory=list)
    supervisions: list[Path] = field(default_factory=list)

    def files(self) -> list[Path]:
        """Return all files of this part, without those in folders."""
        return [*self.cuts, *self.recordings, *self.supervisions]


def find_parts(root: Path) -> dict[str, LhotsePart]:
    """List the parts of a folder.

    | in the folder | is |
    |---|---|
    | `cuts_train.jsonl.gz`, `<corpus>_cuts_train.jsonl.gz` | the cuts of part `train` |
    | `train.jsonl.gz`, or any other `.jsonl(.gz)` | the cuts of part `train` |
    | `<corpus>_recordings_train.jsonl.gz`, `<corpus>_supervisions_train.jsonl.gz` | part `train` |
    | a folder `train` with files of cuts, or in the format Lhotse Shar | the cuts of part `train` |
    | a name without a part, such as `cuts.jsonl.gz` | part `<corpus>`, or `all` |
    | `features_*.jsonl.gz`, `feats_*.jsonl.gz`, hidden files | ignored |

    A folder that is itself in the format Lhotse Shar is one part with the name of the folder.

    Args:
        root: The folder.

    Returns:
        The parts by name, sorted.

    Raises:
        UserError: The folder cannot be read.
    """
    if _is_shar(root):
        return {root.name: LhotsePart(cuts=[root])}
    parts: dict[str, LhotsePart] = {}
    for entry in list_folder(root):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if path.is_dir():
            if _holds_manifests(path):
                parts.setdefault(entry.name, LhotsePart()).cuts.append(path)
        elif (found := _kind_and_part(entry.name)) is not None:
            kind, name = found
            getattr(parts.setdefault(name, LhotsePart()), kind).append(path)
    return dict(sorted(parts.items()))


def _kind_and_part(name: str) -> tuple[str, str] | None:
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        return None
    stem = name.removesuffix(suffix)
    found = _NAME.fullmatch(stem)
    if found is None:
        return "cuts", stem
    if found["kind"] in ("features", "feats"):
        return None
    return found["kind"], found["part"] or found["corpus"] or WITHOUT_PART


def _is_shar(folder: Path) -> bool:
    from arkasr.data.shar import CUTS_FILE

    names = [entry.name for entry in list_folder(folder)]
    tars = any(name.startswith("recording.") and name.endswith(".tar") for name in names)
    numbered = any(name != "cuts.jsonl" and name != "cuts.jsonl.gz" and CUTS_FILE.fullmatch(name) for name in names)
    return numbered or (tars and any(CUTS_FILE.fullmatch(name) for name in names))


def _holds_manifests(folder: Path) -> bool:
    return any(entry.name.endswith(SUFFIXES) and not entry.name.startswith(".") for entry in list_folder(folder))


def require_part(name: str, part: LhotsePart) -> LhotsePart:
    """Check that the files of a part belong together.

    Args:
        name: Name of the part.
        part: Its files.

    Returns:
        The same part.

    Raises:
        UserError: Two files or folders claim the same part, cuts are beside recordings, or supervisions have no
            recordings.
    """
    for paths in (part.cuts, part.recordings, part.supervisions):
        if len(paths) > 1:
            raise UserError(f"{paths[1]}: part {name} is also in {paths[0].name}; rename or remove one of them")
    if part.cuts and part.recordings:
        raise UserError(
            f"{part.cuts[0]}: part {name} is also in {part.recordings[0].name}; move either the cuts or the recordings "
            "with their supervisions to another folder"
        )
    if not part.cuts and not part.recordings:
        file = part.supervisions[0]
        raise UserError(
            f"{file}: there is no file of recordings for it; copy {file.name.replace('supervisions', 'recordings')} "
            "there, or make cuts with `lhotse cut simple`"
        )
    return part

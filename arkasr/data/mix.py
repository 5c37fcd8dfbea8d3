"""Mix files: several manifests as one, each with its share of the audio.

A file named `<name>.mix.yaml` can be given wherever a manifest can. Paths are relative to the file:

    members:
      - {name: librispeech, path: ../librispeech/base.jsonl.gz, weight: 0.3}
      - {name: aishell, path: ../aishell/base.jsonl.gz, weight: 0.7}

Nothing is copied. The ids of clips begin with the name of their member, such as `aishell/BAC009S0002W0122`. The
language, metric and normaliser of each member come from the `corpus.json` beside its own manifest. Weights count in
training only, see `arkasr.data.mixing`. Everything else reads each clip once. A member may be a mix without weights.
"""

from __future__ import annotations

import glob
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from arkasr.config.validate import build_dataclass, check_values
from arkasr.config.yaml_io import read_yaml
from arkasr.errors import UserError
from arkasr.utils.files import write_text

SUFFIX = ".mix.yaml"
MOST_LEVELS = 5  # of mixes in mixes. More is a mix that holds itself
_NAME = re.compile(r"\w[\w.-]{0,99}")


@dataclass
class Member:
    """One member of a mix file.

    Attributes:
        path: The manifest, see `arkasr.data.manifests.shards`, or a mix without weights. Relative to the mix file.
        name: Put before the ids of its clips. Letters, digits, `_`, `.` and `-`. Empty: the name of the file.
        weight: Share of the audio of an epoch, relative to the other weights. Above 0. Either all members have a weight
            or none. Without weights, an epoch reads each clip once.
    """

    path: str
    name: str = ""
    weight: float | None = None

    def __post_init__(self) -> None:
        self.name = self.name or Path(self.path).name.partition(".")[0]
        if not self.path.strip():
            raise ValueError("path must not be empty")
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name must be at most 100 letters, digits, `_`, `.` and `-`, got {self.name!r}; set it")
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise ValueError(f"weight must be above 0 and finite, got {self.weight:g}; delete a member to leave it out")


@dataclass
class _MixFile:
    members: list[Any]


class Leaf(NamedTuple):
    """One manifest to read, after mixes in mixes are resolved.

    Attributes:
        path: The manifest.
        prefix: Put before ids, such as `librispeech/`. Empty for a manifest that is no mix.
        member: Name of the member of the outermost mix. Empty for a manifest that is no mix.
    """

    path: str
    prefix: str = ""
    member: str = ""


def is_mix(path: str | Path) -> bool:
    """Return whether a path names a mix file.

    Args:
        path: Any path.

    Returns:
        True if its name ends with `.mix.yaml`.
    """
    return str(path).endswith(SUFFIX)


def read_mix(path: str | Path) -> list[Member]:
    """Read a mix file.

    Args:
        path: The file.

    Returns:
        Its members, with paths that can be opened.

    Raises:
        UserError: The file is missing or wrong, names no member, one member twice, or a member that does
            not exist.
    """
    where = str(path)
    values = build_dataclass(_MixFile, check_values(_MixFile, read_yaml(path), "", where), "", where)
    members = [_member(value, f"members[{index}]", where) for index, value in enumerate(values.members)]
    if not members:
        raise UserError(f"{where}: a mix needs at least one member; add one to the key members")
    for key in ("name", "path"):
        found = [_resolved(path, member.path) if key == "path" else member.name for member in members]
        if twice := [value for value in found if found.count(value) > 1]:
            raise UserError(f"{where}: two members have the {key} {twice[0]}; give each member its own {key}")
    if any(member.weight for member in members) and not all(member.weight for member in members):
        without = next(member.name for member in members if not member.weight)
        raise UserError(f"{where}: member {without} has no weight, but others have; give each member one, or none")
    for member in members:
        member.path = _resolved(path, member.path)
        if not (Path(member.path).exists() or glob.glob(member.path)):
            raise UserError(
                f"{where}: member {member.name} {member.path}: is not prepared (no such manifest); run the recipe of "
                "this member and then that of the mix from --stage 1, or correct the path"
            )
    return members


def _member(value: Any, key: str, where: str) -> Member:
    return build_dataclass(Member, check_values(Member, value, key, where), key, where)


def _resolved(mix: str | Path, path: str) -> str:
    return os.path.normpath(Path(mix).resolve().parent / path)  # the folder may be a link


def write_mix(path: Path, members: Sequence[Member]) -> None:
    """Write a mix file. Equal members give equal bytes.

    Args:
        path: The file. Its name must end with `.mix.yaml`.
        members: The members. Their paths are written relative to the file if they are not absolute.

    Raises:
        ValueError: The name has another ending.
    """
    if not is_mix(path):
        raise ValueError(f"{path}: the name of a mix must end with {SUFFIX}")
    write_text(path, mix_text(members))


def mix_text(members: Sequence[Member]) -> str:
    """Return the content of a mix file.

    Args:
        members: The members.

    Returns:
        YAML. Equal members give equal texts.
    """
    rows = [{key: value for key, value in asdict(member).items() if value is not None} for member in members]
    return "members:\n" + "".join(f"  - {json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def leaves(path: str | Path) -> list[Leaf]:
    """List the manifests to read.

    Args:
        path: A manifest, see `arkasr.data.manifests.shards`, or a mix.

    Returns:
        The manifest itself, or the manifests of a mix, in the order of the file.

    Raises:
        UserError: See `read_mix`, or a mix inside a mix has weights.
    """
    return _leaves(str(path), 0) if is_mix(path) else [Leaf(str(path))]


def _leaves(path: str, level: int) -> list[Leaf]:
    members = read_mix(path)
    if level and any(member.weight for member in members):
        raise UserError(f"{path}: a mix inside a mix must have no weights; delete them, or name its members directly")
    if level >= MOST_LEVELS:
        raise UserError(f"{path}: more than {MOST_LEVELS} mixes inside each other; check that no mix names itself")
    found = []
    for member in members:
        inner = _leaves(member.path, level + 1) if is_mix(member.path) else [Leaf(member.path)]
        found += [leaf._replace(prefix=f"{member.name}/{leaf.prefix}", member=member.name) for leaf in inner]
    return found


def mix_files(path: str | Path) -> list[Path]:
    """List the mix files behind a path.

    Args:
        path: A manifest or a mix.

    Returns:
        The mix and the mixes inside it. Nothing for other manifests.

    Raises:
        UserError: See `read_mix`.
    """
    if not is_mix(path):
        return []
    leaves(path)  # checks all of it
    return [Path(path), *(file for member in read_mix(path) for file in mix_files(member.path))]

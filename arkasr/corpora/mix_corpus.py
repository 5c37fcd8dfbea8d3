"""The schema of a corpus.yaml with `layout: mix`, which names other corpora, and its strict reader."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from arkasr.config.validate import build_dataclass, check_values
from arkasr.config.yaml_io import read_yaml
from arkasr.errors import UserError

_NAME = re.compile(r"\w[\w.-]{0,99}")


@dataclass
class MixScale:
    """The section `scales.mini` or `scales.paper` of a mix: the shares of the members.

    Attributes:
        power: From 0 to 1. The share of a member is in proportion to its hours to this power: 1 reads every clip once
            per epoch, 0 gives all members the same share.
        weights: Instead of `power`: the weight of each member, above 0. Shares are in proportion to the weights.
    """

    power: float | None = None
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.power is not None and self.weights:
            raise ValueError("power must not be set together with weights; remove one of them")
        if not self.weights:
            self.power = 1.0 if self.power is None else self.power
            if not 0 <= self.power <= 1:
                raise ValueError(f"power must be from 0 to 1, got {self.power:g}")
        for name, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise ValueError(
                    f"weights.{name} must be above 0 and finite, got {weight:g}; to leave a member out, remove it from "
                    "`members`"
                )

    def weights_for(self, hours: Mapping[str, float]) -> dict[str, float | None]:
        """Compute the weights of one set.

        Args:
            hours: Hours of each member in this set, above 0.

        Returns:
            The weights by member, to 6 digits. None: each clip is read once.
        """
        if self.power == 1.0:
            return dict.fromkeys(hours)
        found = {
            name: self.weights[name] if self.weights else own ** (self.power or 0.0) for name, own in hours.items()
        }
        total = math.fsum(found.values())
        return {name: float(f"{weight / total:.6g}") for name, weight in found.items()}


@dataclass
class MixScales:
    """The section `scales` of a mix.

    Attributes:
        mini: See `MixScale`.
        paper: See `MixScale`.
    """

    mini: MixScale = field(default_factory=MixScale)
    paper: MixScale = field(default_factory=MixScale)


@dataclass
class MixCorpus:
    """The contents of a corpus.yaml with `layout: mix`.

    Attributes:
        name: Name of the mix in messages and results.
        layout: `mix`.
        members: At least two: name of the member, and the corpus.yaml of its recipe, relative to this file. Ids of
            clips and names of test sets begin with the name.
        scales: The shares of the members for each value of `--scale`.
        path: Absolute path of the file itself. Not a key.
    """

    name: str
    layout: Literal["mix"]
    members: dict[str, str]
    scales: MixScales = field(default_factory=MixScales)
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        if not (self.name.strip() and self.name.isprintable() and len(self.name) <= 100):
            raise ValueError(f"name must be one line of 1 to 100 characters, got {self.name[:100]!r}")
        if len(self.members) < 2:
            raise ValueError(f"members must name at least two corpora, got {len(self.members)}")
        for name in self.members:
            if not _NAME.fullmatch(name):
                raise ValueError(f"members must have names of letters, digits, `_`, `.` and `-`, got {name!r}")
        for scale in fields(MixScales):
            self._check_weights(scale.name, getattr(self.scales, scale.name).weights)

    def _check_weights(self, scale: str, weights: Mapping[str, float]) -> None:
        if weights and set(weights) != set(self.members):
            raise ValueError(
                f"scales.{scale}.weights must name exactly the members {', '.join(self.members)}, got "
                f"{', '.join(weights)}"
            )

    def scale(self, name: str) -> MixScale:
        """Return the section of one scale.

        Args:
            name: `mini` or `paper`.

        Returns:
            The checked section.

        Raises:
            UserError: If there is no scale of this name.
        """
        names = [item.name for item in fields(MixScales)]
        if name not in names:
            raise UserError(f"--scale {name}: must be one of {', '.join(names)}")
        return getattr(self.scales, name)


def is_mix_corpus(path: str | Path) -> bool:
    """Return whether a corpus.yaml has `layout: mix`.

    Args:
        path: The file.

    Returns:
        True if it has.

    Raises:
        UserError: The file cannot be read.
    """
    return read_yaml(path).get("layout") == "mix"


def read_mix_corpus(path: str | Path) -> MixCorpus:
    """Read a corpus.yaml with `layout: mix` strictly.

    Args:
        path: The file.

    Returns:
        The checked contents. The paths of the members are absolute.

    Raises:
        UserError: The file is missing, or has a missing, unknown or invalid key, or two members have one corpus.yaml.
    """
    where = str(path)
    mix = build_dataclass(MixCorpus, check_values(MixCorpus, read_yaml(path), "", where), "", where)
    mix.path = Path(path).resolve()
    mix.members = {name: str((mix.path.parent / member).resolve()) for name, member in mix.members.items()}
    for name, member in mix.members.items():
        if not Path(member).is_file():
            raise UserError(f"{where}: members.{name} {member}: no such file; name the corpus.yaml of a recipe")
        if list(mix.members.values()).count(member) > 1:
            raise UserError(f"{where}: members.{name} {member}: two members have this corpus.yaml; name each once")
        if is_mix_corpus(member):
            raise UserError(f"{where}: members.{name} {member}: is a mix itself; name its members here instead")
    return mix

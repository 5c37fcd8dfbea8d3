"""The facts of a corpus, read strictly from its corpus.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from arkasr.config.validate import build_dataclass, check_values
from arkasr.config.yaml_io import read_yaml
from arkasr.errors import UserError

# Names of the files that a data directory holds beside the test sets.
RESERVED = ("train", "base", "td", "dev")


def set_name(part: str) -> str:
    """Return the name on disk of a corpus part: TEST_NET becomes test-net."""
    return part.lower().replace("_", "-")


@dataclass
class Scale:
    """Which parts are used, and how training is split. Part lists are candidates: those present on disk count."""

    train: list[str]
    dev: list[str]
    test: dict[str, str | None]  # part: its column in the paper's Table 1, or null
    base: float  # share of the training cuts that Base and OPD see
    td: float  # share held aside for teacher data, disjoint from base
    split_seed: int
    min_seconds: float  # of training cuts; dev and test sets are never filtered by length
    max_seconds: float

    def __post_init__(self) -> None:
        for key in ("train", "dev", "test"):
            if not getattr(self, key):
                raise ValueError(f"{key} must name at least one part")
        if not (self.base > 0 and self.td > 0 and self.base + self.td <= 1):
            raise ValueError(f"base ({self.base}) and td ({self.td}) must be above 0 and at most 1 together")
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ValueError(f"min_seconds ({self.min_seconds}) must be below max_seconds ({self.max_seconds})")
        for part in self.test:
            if set_name(part) in RESERVED:
                raise ValueError(f"test set {part} would overwrite {set_name(part)}.jsonl.gz; name another part")


@dataclass
class Scales:
    """The two sizes of every recipe."""

    mini: Scale
    paper: Scale


@dataclass
class Miniature:
    """The spoken miniature: its seed, and how many sentences each part holds."""

    seed: int
    sizes: dict[str, int]


@dataclass
class Corpus:
    """A corpus.yaml. `path` is the file itself."""

    name: str
    recipe: Literal["librispeech", "aishell", "wenet_speech"]  # Lhotse's own prepare function
    language: Literal["English", "Chinese"]
    metric: Literal["wer", "cer"]
    normalizer: str
    obtain: str  # how to get the corpus at paper scale, one sentence with its address
    miniature: Miniature
    scales: Scales
    path: Path = field(init=False)

    def scale(self, name: str) -> Scale:
        """Return the facts of a scale. Raises UserError for an unknown one."""
        names = [item.name for item in fields(Scales)]
        if name not in names:
            raise UserError(f"--scale {name}: must be one of {', '.join(names)}")
        return getattr(self.scales, name)


def read_corpus_yaml(path: str | Path) -> Corpus:
    """Read a corpus.yaml. Raises UserError naming file, key and the nearest valid key."""
    where = str(path)
    corpus = build_dataclass(Corpus, check_values(Corpus, read_yaml(path), "", where), "", where)
    corpus.path = Path(path).resolve()
    return corpus

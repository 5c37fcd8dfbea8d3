"""The schema of corpus.yaml, which describes one corpus, and its strict reader."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from arkasr.config.validate import build_dataclass, check_values
from arkasr.config.yaml_io import read_yaml
from arkasr.errors import UserError

# Sets that every data directory holds. No test set may have one of these names.
RESERVED = ("train", "base", "td", "dev")
# Columns of the paper's Table 1.
PaperColumn = Literal["AISHELL-1", "Wenet meeting", "Wenet net", "Libri clean", "Libri other"]
_PART = re.compile(r"\w[\w.-]{0,99}")
_MOST_SENTENCES = 1_000_000  # of a synthetic part, about 2 months of synthesis


def set_name(part: str) -> str:
    """Return the file name of a corpus part in the data directory, without suffix.

    Args:
        part: Name of the part in the corpus, for example `TEST_NET`.

    Returns:
        The name in lower case with dashes, for example `test-net`.
    """
    return part.lower().replace("_", "-")


@dataclass
class Scale:
    """The section `scales.mini` or `scales.paper`: the parts in use, and the split of the training data.

    The three part lists name candidates. Candidates that are missing on disk are ignored, but at least one part of
    each list must be present.

    Attributes:
        train: Training parts. At least one.
        dev: Development parts, merged into one set. At least one.
        test: Test parts, at least one. Each becomes one set. A mapping from the part to its column in the paper's
            Table 1, or to null if the paper has none.
        base: Share of the training cuts for Base and OPD. Above 0, and `base + td` at most 1.
        td: Share of the training cuts that the teacher labels. Disjoint from `base`. Above 0.
        split_seed: Seed of the split into `base` and `td`. Any whole number.
        min_seconds: Shortest training cut, in seconds. At least 0 and below `max_seconds`.
        max_seconds: Longest training cut, in seconds. Dev and test cuts are never filtered by length.
        text_case: What happens to the letters of all transcripts: `keep`, `lower` or `upper`. The student learns to
            write like this. LibriSpeech is upper case, which no teacher writes.
    """

    train: list[str]
    dev: list[str]
    test: dict[str, PaperColumn | None]
    base: float
    td: float
    split_seed: int
    min_seconds: float
    max_seconds: float
    text_case: Literal["keep", "lower", "upper"] = "keep"

    def __post_init__(self) -> None:
        for key in ("train", "dev", "test"):
            _check_parts(key, list(getattr(self, key)))
        if not (self.base > 0 and self.td > 0 and self.base + self.td <= 1):
            raise ValueError(
                f"base and td must be above 0 and their sum at most 1, got base={self.base} and td={self.td}"
            )
        if not 0 <= self.min_seconds < self.max_seconds < math.inf:
            raise ValueError(
                f"min_seconds must be at least 0 and below max_seconds={self.max_seconds}, got {self.min_seconds}; "
                "both must be finite"
            )
        names = list(RESERVED)
        for part in self.test:
            if set_name(part) in names:
                raise ValueError(f"test set {part} would overwrite {set_name(part)}.jsonl.gz; name another part")
            names.append(set_name(part))


def _check_parts(key: str, parts: list[str]) -> None:
    """Refuse missing, repeated and dangerous names. Parts are folders of the corpus, and name files of the data."""
    if not parts:
        raise ValueError(f"{key} must name at least one part")
    for part in parts:
        if not _PART.fullmatch(part):
            raise ValueError(f"{key} must name parts of at most 100 letters, digits, `_`, `.` and `-`, got {part!r}")
        if parts.count(part) > 1:
            raise ValueError(f"{key} must name each part once, got {part} twice")


@dataclass
class Scales:
    """The section `scales`: one section for each value of `--scale`.

    Attributes:
        mini: The miniature experiment on a CPU, on the synthetic corpus or on your own in the same layout.
        paper: The published experiment, on the corpus itself.
    """

    mini: Scale
    paper: Scale


@dataclass
class Miniature:
    """The section `miniature`: the synthetic corpus that stage 0 writes at `--scale mini`.

    Attributes:
        seed: Seed of sentences, voices and acoustics, from 0 to 2^63 - 1. The same seed gives the same files.
        sizes: Number of sentences of every part, from 1 to 1,000,000 each. WenetSpeech needs L >= M >= S.
    """

    seed: int
    sizes: dict[str, int]

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        for part, size in self.sizes.items():
            if not 1 <= size <= _MOST_SENTENCES:
                raise ValueError(f"sizes.{part} must be from 1 to {_MOST_SENTENCES}, got {size}")


@dataclass
class Corpus:
    """The contents of a corpus.yaml.

    Attributes:
        name: Name of the corpus in messages and results. Another corpus in the layout of a published one gets
            a distinct name, see `arkasr.corpora.published`.
        recipe: Layout on disk: `librispeech`, `aishell` or `wenet_speech`.
        language: Language of all utterances: `English` or `Chinese`.
        metric: Error rate: `wer` (over words) or `cer` (over characters).
        normalizer: Text normalisation before scoring: `english`, `mandarin` or `raw`, see
            `arkasr.evaluation.normalize`.
        obtain: How to get the corpus at paper scale. One sentence with size and address.
        miniature: The synthetic corpus, see `Miniature`.
        scales: The two scales, see `Scale`.
        channels: What happens to audio with several channels: `mix` (mean of all channels), `refuse` (dropped and
            counted), or the number of a channel, from 0. Audio with one channel is used as it is.
        path: Absolute path of the file itself. Not a key.
    """

    name: str
    recipe: Literal["librispeech", "aishell", "wenet_speech"]
    language: Literal["English", "Chinese"]
    metric: Literal["wer", "cer"]
    normalizer: Literal["english", "mandarin", "raw"]
    obtain: str
    miniature: Miniature
    scales: Scales
    channels: Any = "mix"
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        if not (self.name.strip() and self.name.isprintable() and len(self.name) <= 100):
            raise ValueError(f"name must be one line of 1 to 100 characters, got {self.name[:100]!r}")
        if self.channels not in ("mix", "refuse") and not (type(self.channels) is int and 0 <= self.channels < 1000):
            raise ValueError(f"channels must be mix, refuse, or the number of a channel from 0, got {self.channels}")

    def scale(self, name: str) -> Scale:
        """Return the section of one scale.

        Args:
            name: `mini` or `paper`.

        Returns:
            The checked section.

        Raises:
            UserError: If there is no scale of this name.
        """
        names = [item.name for item in fields(Scales)]
        if name not in names:
            raise UserError(f"--scale {name}: must be one of {', '.join(names)}")
        return getattr(self.scales, name)


def read_corpus_yaml(path: str | Path) -> Corpus:
    """Read a corpus.yaml strictly.

    Args:
        path: The file.

    Returns:
        The checked contents.

    Raises:
        UserError: If the file is missing, or has a missing, unknown or invalid key. The message names the file, the
            key and the nearest valid key.
    """
    where = str(path)
    corpus = build_dataclass(Corpus, check_values(Corpus, read_yaml(path), "", where), "", where)
    corpus.path = Path(path).resolve()
    return corpus

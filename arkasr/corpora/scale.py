"""The part of corpus.yaml that depends on `--scale`: which parts are in use, and what each training cut is used for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from arkasr.corpora.miniature import Miniature

# Sets that every data directory holds. No test set may have one of these names.
RESERVED = ("train", "base", "td", "opd", "teacher", "dev")
# Columns of the paper's Table 1, then those that only the model card's tables have.
PaperColumn = Literal[
    "AISHELL-1", "Wenet meeting", "Wenet net", "Libri clean", "Libri other",
    "AMI", "Earnings22", "GigaSpeech", "SPGISpeech", "VoxPopuli",
]  # fmt: skip
# Values of the keys of `use` that are neither a share nor a list of parts.
WORDS = {
    "base": ("labelled", "none"),
    "td": ("labelled", "unlabelled", "all", "none"),
    "opd": ("labelled", "unlabelled", "all", "none", "base", "td", "base+td"),
    "teacher": ("labelled", "none"),
}
_PART = re.compile(r"\w[\w.-]{0,99}")


def set_name(part: str) -> str:
    """Return the file name of a corpus part in the data directory, without suffix.

    Args:
        part: Name of the part in the corpus, for example `TEST_NET`.

    Returns:
        The name in lower case with dashes, for example `test-net`.
    """
    return part.lower().replace("_", "-")


@dataclass
class Use:
    """The section `use`: what the training cuts are used for.

    The value of each key is one of these:

    - `labelled`, `unlabelled` or `all`: the cuts with a transcript, those without, or both.
    - `none`: no cuts.
    - A share, above 0 and at most 1, of the cuts with a transcript. `base` is drawn from the start and `td` from the
      end of one random order, so that two shares with a sum of at most 1 have no cut in common.
    - A list of training parts, such as `[calls, meetings]`.
    - Only for `opd`: `base`, `td` or `base+td`, which are the cuts of these sets.

    Attributes:
        base: Cuts of supervised training (Base). Cuts without transcript are left out and counted, so that `unlabelled`
            and `all` are not allowed.
        td: Cuts that the teacher transcribes in stage 2.
        opd: Cuts of on-policy distillation, which needs no transcripts.
        teacher: Cuts that a teacher is trained on, as the set `teacher`. Cuts without transcript are left out and
            counted. `none` (default) writes no such set. A share is not allowed.
    """

    base: Any = "labelled"
    td: Any = "all"
    opd: Any = "all"
    teacher: Any = "none"

    def __post_init__(self) -> None:
        for key, words in WORDS.items():
            _check_use(key, getattr(self, key), words)
        shares = [value for value in (self.base, self.td) if is_share(value)]
        if len(shares) == 2 and sum(shares) > 1:
            raise ValueError(f"base and td must have a sum of at most 1, got base={self.base} and td={self.td}")


def is_share(value: Any) -> bool:
    """Return whether a value of `use` is a share of the transcribed cuts.

    Args:
        value: Value of a key of `Use`.

    Returns:
        True for numbers.
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_use(key: str, value: Any, words: tuple[str, ...]) -> None:
    may_be_share = key != "teacher"
    if may_be_share and is_share(value) and 0 < value <= 1:
        return
    if isinstance(value, list):
        check_parts(key, value, needed=True)
    elif value not in words:
        share = "a share above 0 and at most 1, " if may_be_share else ""
        raise ValueError(f"{key} must be one of {', '.join(words)}, {share}or a list of training parts, got {value}")


@dataclass
class Scale:
    """A section of `scales`: the parts in use, and what the training cuts are used for.

    Every key may also be at the top level of corpus.yaml. It then holds for all scales, unless a section sets it.

    The three part lists name candidates. Candidates that are missing on disk are ignored. A list of which no part is
    there leaves its set empty, which is logged.

    Attributes:
        train: Training parts.
        dev: Development parts, merged into one set.
        test: Test parts. Each becomes one set. A list, or a mapping from the part to its column in the paper's Table 1,
            or to null if the paper has none.
        left_out: Further test sets, each with the names of speakers that no model is trained on, such as
            `{new-voices: [s1, s2]}`. It holds their utterances of the training parts. Their utterances of dev and test
            parts are dropped and counted.
        use: What the training cuts are used for, see `Use`.
        split_seed: Seed of the shares in `use`. Any whole number.
        min_seconds: Shortest training cut, in seconds. At least 0 and below `max_seconds`.
        max_seconds: Longest training cut, in seconds. Dev and test cuts are never filtered by length.
        text_case: What happens to the letters of all transcripts: `keep`, `lower` or `upper`. The student learns to
            write like this. LibriSpeech is upper case, which no teacher writes.
        miniature: The synthetic corpus that stage 0 makes, see `Miniature`. Scale `paper` does not use it.
    """

    train: list[str] = field(default_factory=lambda: ["train"])
    dev: list[str] = field(default_factory=lambda: ["dev", "validation", "valid"])
    test: dict[str, PaperColumn | None] = field(default_factory=lambda: {"test": None})
    left_out: dict[str, Any] = field(default_factory=dict)
    use: Use = field(default_factory=Use, metadata={"formerly": "base"})
    split_seed: int = 1
    min_seconds: float = 0.3
    max_seconds: float = 30.0
    text_case: Literal["keep", "lower", "upper"] = "keep"
    miniature: Miniature | None = None

    def __post_init__(self) -> None:
        for key in ("train", "dev", "test"):
            check_parts(key, list(getattr(self, key)))
            both = [part for part in getattr(self, key) if key != "train" and part in self.train]
            if both:
                raise ValueError(f"{both[0]} must not be in both `train` and `{key}`; remove it from one")
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
        self._check_left_out(names)
        self._check_use()

    def _check_left_out(self, names: list[str]) -> None:
        check_parts("left_out", list(self.left_out))
        seen: dict[str, str] = {}
        for name, speakers in self.left_out.items():
            if set_name(name) != name or name in names:
                raise ValueError(
                    f"left_out.{name} must be a name of its own for a test set, in lower case with dashes; it must be "
                    f"none of {', '.join(names)}"
                )
            if not isinstance(speakers, list) or not speakers:
                raise ValueError(f"left_out.{name} must be a list of speakers, got {speakers}")
            self.left_out[name] = [str(speaker) for speaker in speakers]
            for speaker in self.left_out[name]:
                if speaker in seen:
                    raise ValueError(f"left_out.{name} names speaker {speaker}, which {seen[speaker]} names too")
                seen[speaker] = name

    def _check_use(self) -> None:
        for key in WORDS:
            value = getattr(self.use, key)
            unknown = [part for part in value if part not in self.train] if isinstance(value, list) else []
            if unknown:
                raise ValueError(
                    f"use.{key} must name parts of the key `train` ({', '.join(self.train)}), got {unknown[0]}"
                )


def check_parts(key: str, parts: list[Any], needed: bool = False) -> None:
    """Refuse repeated and dangerous names of parts. Parts are folders or files, and name files of the data.

    Args:
        key: The key that holds them, for messages.
        parts: The names.
        needed: Refuse an empty list.

    Raises:
        ValueError: A name is not allowed or comes twice.
    """
    if needed and not parts:
        raise ValueError(f"{key} must name at least one part")
    for part in parts:
        if not isinstance(part, str) or not _PART.fullmatch(part):
            raise ValueError(f"{key} must name parts of at most 100 letters, digits, `_`, `.` and `-`, got {part!r}")
        if parts.count(part) > 1:
            raise ValueError(f"{key} must name each part once, got {part} twice")

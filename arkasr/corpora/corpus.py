"""The schema of corpus.yaml, which describes one corpus, and its strict reader.

The shortest file for your own audio names a corpus, its layout and its language:

    name: calls
    layout: jsonl
    language: German
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from arkasr.config.validate import build_dataclass, check_values, kinds_of
from arkasr.config.yaml_io import read_yaml
from arkasr.corpora.scale import Scale, check_parts
from arkasr.errors import UserError
from arkasr.languages import find_language
from arkasr.scoring.profiles import default_profiles, find_profile
from arkasr.utils.console import log

# Layouts of published corpora. All their rows are in the language of corpus.yaml, and stage 0 can make a miniature.
PUBLISHED = ("librispeech", "aishell", "wenet_speech")
REPLACED = ("metric", "normalizer")  # keys of older versions


@dataclass
class Scales:
    """The section `scales`: one section for each value of `--scale`. Without it, all scales have the default values.

    Attributes:
        mini: The miniature experiment on a CPU, on the synthetic corpus or on your own in the same layout.
        study: A larger experiment on a CPU with controls, on the synthetic corpus or on your own in the same layout.
        paper: The published experiment, on the corpus itself.
    """

    mini: Scale | None = None
    study: Scale | None = None
    paper: Scale | None = None


@dataclass
class Columns:
    """The section `columns`: names of the columns (or JSON fields) of your table. Null means the default names.

    Each layout documents its default names, for example `audio`, `audio_filepath`, `path` or `file_name` for the audio.

    Attributes:
        audio: Path of the audio file, relative to the table.
        text: Transcript. Without this column, or with an empty value, the row has no transcript.
        language: Language of the row, by name or code.
        speaker: Name of the speaker.
        start: Start in the audio file, in seconds.
        end: End in the audio file, in seconds.
        split: Name of the part that the row belongs to. Without it, each table is one part.
        id: Name of the row, unique in its set.
    """

    audio: str | None = None
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    start: str | None = None
    end: str | None = None
    split: str | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        for key, name in vars(self).items():
            if name is not None and not name.strip():
                raise ValueError(f"{key} must be the name of a column, got {name!r}")


@dataclass
class Corpus:
    """The contents of a corpus.yaml.

    The keys of a scale (`train`, `dev`, `test`, `use`, `min_seconds` and others, see `arkasr.corpora.scale.Scale`) may
    be beside these keys. They then hold for all scales that do not set them.

    Attributes:
        name: Name of the corpus in messages and results. Another corpus in the layout of a published one gets
            a distinct name, see `arkasr.corpora.published`.
        layout: Layout on disk: `librispeech`, `aishell`, `wenet_speech`, `jsonl`, `csv`, `hf`, `lhotse` or `mix`.
        language: Language of all rows that name none, by English name or code. Empty if every row names its language.
        profiles: Names of scoring profiles, see `arkasr.scoring.profiles`. The first is the one that tables show, dev
            errors and selections use. It must be for all languages of the corpus. Default: `unicode`, `paper`, and for
            English and Chinese the one of the field.
        obtain: How to get the corpus at paper scale. One sentence with size and address.
        columns: Names of columns, see `Columns`. For `jsonl`, `csv` and `hf`.
        options: Options of the layout, see the layout.
        scales: The scales, see `Scale`.
        channels: What happens to audio with several channels: `mix` (mean of all channels), `refuse` (dropped and
            counted), or the number of a channel, from 0. Audio with one channel is used as it is.
        path: Absolute path of the file itself. Not a key.
    """

    name: str
    layout: Literal["librispeech", "aishell", "wenet_speech", "jsonl", "csv", "hf", "lhotse", "mix"] = field(
        metadata={"formerly": "recipe"}
    )
    language: str = ""
    profiles: list[str] | None = None
    obtain: str = ""
    columns: Columns = field(default_factory=Columns)
    options: dict[str, Any] = field(default_factory=dict)
    scales: Scales = field(default_factory=Scales)
    channels: Any = "mix"
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        if not (self.name.strip() and self.name.isprintable() and len(self.name) <= 100):
            raise ValueError(f"name must be one line of 1 to 100 characters, got {self.name[:100]!r}")
        if self.profiles is not None:
            _check_profiles(self.profiles)
        if self.channels not in ("mix", "refuse") and not (type(self.channels) is int and 0 <= self.channels < 1000):
            raise ValueError(f"channels must be mix, refuse, or the number of a channel from 0, got {self.channels}")
        if not self.language and self.layout in PUBLISHED:
            raise ValueError(f"language must be set for the layout {self.layout}, such as English")
        if self.language:
            try:
                self.language = find_language(self.language, "language").name
            except UserError as error:
                raise ValueError(str(error)) from error

    def scoring(self, languages: Sequence[str]) -> dict[str, Any]:
        """Return how cuts in some languages are scored.

        Args:
            languages: English names. Empty: no cuts.

        Returns:
            `language` (empty if there are several), `profiles` (those that are for all languages), and for several
            languages `scored_as`: one of them, whose rules are those of all.

        Raises:
            ValueError: The first profile is not for these languages, or counts different units in them.
        """
        language = languages[0] if len(languages) == 1 else ""
        names = list(self.profiles or default_profiles(language))
        usable = [name for name in names if find_profile(name).fits(languages)]
        if names[0] not in usable:
            raise ValueError(
                f"has cuts in {', '.join(languages)}, which the scoring profile {names[0]} does not score in one way; "
                "make a part of each language, or begin `profiles` with another one, such as unicode-cer"
            )
        if left_out := [name for name in names if name not in usable]:
            log(f"scoring profile {', '.join(left_out)}: left out for cuts in {', '.join(languages)}")
        found: dict[str, Any] = {"language": language, "profiles": usable}
        return found | ({"scored_as": languages[0]} if len(languages) > 1 else {})

    def scale(self, name: str) -> Scale:
        """Return the section of one scale.

        Args:
            name: `mini`, `study` or `paper`.

        Returns:
            The checked section.

        Raises:
            UserError: If there is no scale of this name.
        """
        names = [item.name for item in fields(Scales)]
        if name not in names:
            raise UserError(f"--scale {name}: must be one of {', '.join(names)}")
        scale = getattr(self.scales, name)
        if not isinstance(scale, Scale):
            raise UserError(f"--scale {name}: {self.path} has no section scales.{name}; add it, or use another --scale")
        return scale


def _check_profiles(names: list[str]) -> None:
    if not names or len(set(names)) < len(names):
        raise ValueError(f"profiles must be different names of scoring profiles, at least one, got {names}")
    try:
        for name in names:
            find_profile(name)
    except UserError as error:
        raise ValueError(f"profiles: {error}") from error


@dataclass
class _File(Scale, Corpus):  # used as a schema only, and never made
    """The keys of a corpus.yaml: those of the corpus, and those of a scale, which then hold for all scales."""


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
    values = read_yaml(path)
    for key in (key for key in REPLACED if key in values):
        raise UserError(
            f"{where}: key {key} was replaced by profiles; remove it, or write `profiles: [unicode]` (the default of "
            "most languages), [unicode-cer] (per character) or [raw] (no normalisation); docs/scoring.md lists all"
        )
    try:
        values = _with_test_columns(values)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    values = check_values(_File, values, "", where)
    shared = {key: values.pop(key) for key in kinds_of(Scale) if key in values}
    build_dataclass(Scale, shared, "", where)  # so that messages name the key at the top level
    sections = values.get("scales", {item.name: {} for item in fields(Scales)})
    scales = {name: None if section is None else {**shared, **section} for name, section in sections.items()}
    corpus = build_dataclass(Corpus, values | {"scales": scales}, "", where)
    corpus.path = Path(path).resolve()
    return corpus


def _with_test_columns(values: dict[str, Any]) -> dict[str, Any]:
    """Write lists of test parts as mappings to no column of the paper."""
    values = dict(values)
    parts = values.get("test")
    if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
        check_parts("test", parts)
        values["test"] = dict.fromkeys(parts)
    if isinstance(values.get("scales"), dict):
        sections = values["scales"].items()
        values["scales"] = {n: _with_test_columns(each) if isinstance(each, dict) else each for n, each in sections}
    return values

"""Read and check corpus.json, and how its test sets are scored. Types of the record of decoding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation.checks import check_types
from arkasr.scoring.older import with_profiles
from arkasr.scoring.profiles import Profile, find_profile
from arkasr.utils.files import read_json

SET_NAME = re.compile(r"[^/\\\x00-\x1f]*[^/\\\x00-\x1f.][^/\\\x00-\x1f]*")  # names a file in the data directory
CORPUS_TYPES = {
    "name": str,
    "profiles": list,
    "scored_as": str,
    "test_sets": list,
    "language": str,
    "scale": str,
    "dev": str,
    "corpus_dir": str,
    "paper": dict,
    "sets": dict,
}
SET_TYPES = {
    "cuts": int,
    "hours": float,
    "speakers": int,
    "dropped": dict,
    "untranscribed": int,
    "profiles": list,
    "scored_as": str,
    "language": str,
    "corpus": str,
    "manifest": str,
    "scale": str,
}
RECORD_TYPES = {
    "manifest": str,
    "source": str,
    "weights": str,
    "teacher": dict,
    "settings": dict,
    "clips": int,
    "failed": int,
    "failed_examples": list,
    "agreement": dict,
}
TEACHER_TYPES = {"name": str, "options": dict, "path": str, "weights": str}


@dataclass(frozen=True)
class TestSet:
    """One test set, and how it is scored.

    Attributes:
        name: Name of the set, of its hypothesis files and of its column in the tables.
        manifest: Manifest of its clips.
        metric: `wer`, `cer` or `mer`: that of the first profile.
        profiles: Names of its scoring profiles, at least one. Error rates are those of the first one.
        language: English name of its language, empty if unknown, or if there are several.
        corpus: Name of the corpus that it is from.
        column: Column of the paper's Table 1, empty if it is not in the paper.
        scale: Scale of its corpus, `mini`, `study` or `paper`, empty if unknown.
        datadir: Data directory that it is from.
        spec: The value of --test_sets that named it. Empty for a set of a data directory.
        scored_as: English name of one of several languages, whose rules are those of all. Empty for one language.
    """

    __test__ = False  # no class of tests

    name: str
    manifest: Path
    metric: str
    profiles: tuple[str, ...]
    language: str = ""
    corpus: str = ""
    column: str = ""
    scale: str = ""
    datadir: str = ""
    spec: str = ""
    scored_as: str = ""

    @property
    def rules(self) -> str:
        """English name of the language whose rules hold. Empty: any that is written with spaces between words."""
        return self.scored_as or self.language

    @property
    def profile(self) -> Profile:
        """The first of its profiles."""
        return find_profile(self.profiles[0])


def test_set(corpus: Mapping[str, Any], name: str, datadir: str | Path) -> TestSet:
    """Return one test set of a data directory. Keys that its entry under `sets` lacks are those of the corpus.

    Args:
        corpus: Return value of `read_corpus_facts`.
        name: Name of the test set.
        datadir: Data directory.

    Returns:
        The test set. A relative path of its manifest starts at the data directory.
    """
    own = (corpus.get("sets") or {}).get(name) or {}

    def fact(key: str, of_corpus: str = "") -> Any:
        return own.get(key) or corpus.get(of_corpus or key) or ""

    scored_as = own.get("scored_as") or ("" if own.get("language") else fact("scored_as"))
    profiles = tuple(fact("profiles"))
    return TestSet(
        name,
        Path(datadir) / (own.get("manifest") or f"{name}.jsonl.gz"),
        find_profile(profiles[0]).metric(scored_as or fact("language")),
        profiles,
        fact("language"),
        fact("corpus", "name"),
        (corpus.get("paper") or {}).get(name) or "",
        fact("scale"),
        str(datadir),
        scored_as=scored_as,
    )


test_set.__test__ = False  # type: ignore[attr-defined]  # no test, although its name begins like one


def led_by(tested: TestSet, profile: str) -> TestSet:
    """Put a scoring profile in the first place.

    Args:
        tested: The test set.
        profile: Name of the profile.

    Returns:
        The test set with the metric of the profile. Its other profiles follow.

    Raises:
        UserError: The profile is unknown, or not for the language of the test set.
    """
    names = (profile, *(name for name in tested.profiles if name != profile))
    try:
        return replace(tested, profiles=names, metric=find_profile(profile).metric(tested.rules))
    except UserError as error:
        raise UserError(f"--profile {profile}, test set {tested.name}: {error}") from error


def read_corpus_facts(datadir: str | Path) -> dict[str, Any]:
    """Read `corpus.json`.

    Args:
        datadir: Prepared data directory.

    Returns:
        Its content. It has a `name` and the list `test_sets`, which may be empty. Each test set has profiles (see
        `test_set`). Those of older versions follow from their normaliser.

    Raises:
        UserError: The file is missing or broken, or a profile is unknown or not for the language.
    """
    path = Path(datadir) / "corpus.json"
    again = "delete the file and run the recipe from --stage 1"
    corpus = read_json(path, again if path.is_file() else "run the recipe from --stage 1")
    check_types(str(path), corpus, CORPUS_TYPES, again)
    for key in ("name", "test_sets"):
        if corpus.get(key) in (None, ""):
            raise UserError(f"{path}: key {key!r} is missing; {again}")
    _check_sets(path, corpus, again)
    corpus = _with_profiles(corpus)
    try:
        for name in corpus["test_sets"]:
            _check_profiles(path, corpus | ((corpus.get("sets") or {}).get(name) or {}), again)
            test_set(corpus, name, datadir)
        if not corpus["test_sets"]:
            _check_profiles(path, corpus, again)
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error
    return corpus


def _with_profiles(corpus: dict[str, Any]) -> dict[str, Any]:
    """Name the profiles of a corpus, its sets and its members that older versions prepared."""
    groups = {key: corpus[key] for key in ("sets", "members") if isinstance(corpus.get(key), dict)}
    lifted = {
        key: {name: with_profiles(facts) if isinstance(facts, dict) else facts for name, facts in group.items()}
        for key, group in groups.items()
    }
    return with_profiles(corpus) | lifted


def _check_sets(path: Path, corpus: dict[str, Any], again: str) -> None:
    names = corpus["test_sets"]
    if not all(isinstance(name, str) and SET_NAME.fullmatch(name) for name in names) or len(set(names)) < len(names):
        raise UserError(f"{path}: key 'test_sets' must be different names of manifests, got {names!r}; {again}")
    check_types(f"{path}, paper", corpus.get("paper") or {}, dict.fromkeys(names, str), again)
    for name, facts in (corpus.get("sets") or {}).items():
        check_types(f"{path}, set {name}", facts, SET_TYPES, again)


def _check_profiles(path: Path, facts: dict[str, Any], again: str) -> None:
    names = facts.get("profiles")
    if not names and facts.get("normalizer"):
        raise UserError(
            f"{path}: no scoring profile has the metric {facts.get('metric')!r} with the normaliser "
            f"{facts['normalizer']!r}; set `profiles` in corpus.yaml and run the recipe from --stage 1"
        )
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: key 'profiles' is missing or not a list of names; {again}")
    for name in names:
        find_profile(name)


def hypothesis_file(expdir: str | Path, run: str, test_set: str) -> Path:
    """Return the path of a hypothesis file. Its record has the same name with the suffix `.json`.

    Args:
        expdir: Experiment directory.
        run: Name of the run.
        test_set: Name of the test set.

    Returns:
        `<expdir>/<run>/decode/<test_set>.jsonl`.
    """
    return Path(expdir) / run / "decode" / f"{test_set}.jsonl"

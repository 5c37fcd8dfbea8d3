"""The test sets that a command works on: those of the data directory, or those that --test_sets names.

A value of --test_sets is `NAME=PATH` or `NAME:LANGUAGE=PATH`. PATH is one of

- a prepared data directory: all its test sets, with the names `NAME-<set>` if there are several
- a Lhotse manifest, a folder of manifests or a Shar folder, which is read as it is
- a table (.jsonl, .json, .csv, .tsv), or a folder of tables, which stage 1 prepares in `<expdir>/test_sets/NAME`

The language gives the scoring profiles. Without LANGUAGE it is that of the clips or of corpus.json beside the
manifest, or else that of the data directory of the command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from arkasr.data.checks import Rules
from arkasr.data.manifests import read_cuts
from arkasr.data.mix import is_mix
from arkasr.errors import UserError
from arkasr.evaluation.prepared_tables import is_cuts, prepare_table
from arkasr.evaluation.results_io import TestSet, read_corpus_facts, test_set
from arkasr.languages import Language, find_language
from arkasr.scoring.profiles import default_profiles, find_profile
from arkasr.utils.console import log

NAME = re.compile(r"\w[\w.-]{0,99}")
FORMS = "give NAME=PATH or NAME:LANGUAGE=PATH, such as calls:German=/data/calls/test.jsonl"


def chosen_sets(expdir: str, datadir: str, values: Sequence[str]) -> list[TestSet]:
    """Return the test sets to decode or to score. Tables are prepared.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        values: Values of --test_sets.

    Returns:
        The test sets of the data directory if there are no values, or else only those that the values name.

    Raises:
        UserError: There is no test set, a value names none or cannot be used, or two have the same name.
    """
    if not values:
        return sets_of(datadir)
    found: dict[str, TestSet] = {}
    for value in values:
        for tested in _named(value, expdir, datadir):
            if tested.name in found:
                raise UserError(
                    f"--test_sets {value}: another value has the name {tested.name}; give each its own name"
                )
            found[tested.name] = replace(tested, spec=value)
    return list(found.values())


def sets_of(datadir: str | Path) -> list[TestSet]:
    """Return the test sets of a data directory.

    Args:
        datadir: Data directory.

    Returns:
        The test sets.

    Raises:
        UserError: It has none, or its corpus.json is damaged.
    """
    corpus = read_corpus_facts(datadir)
    if not corpus["test_sets"]:
        raise UserError(
            f"{datadir}: has no test set; add one to `test` in corpus.yaml and run the recipe from --stage 1, or name "
            "others with --test_sets NAME=PATH"
        )
    return [test_set(corpus, name, datadir) for name in corpus["test_sets"]]


def _named(value: str, expdir: str, datadir: str) -> list[TestSet]:
    """Return the test sets of one value."""
    head, equals, text = value.partition("=")
    name, colon, spoken = head.partition(":")
    if not equals or not text.strip() or (colon and not spoken.strip()):
        raise UserError(f"--test_sets {value}: is not complete; {FORMS}")
    if not NAME.fullmatch(name):
        raise UserError(f"--test_sets {value}: {name!r} cannot be a name; use letters, digits, _, - and .; {FORMS}")
    language = find_language(spoken, f"--test_sets {value}: language") if spoken else None
    path = Path(text).expanduser()
    if not path.exists():
        raise UserError(f"--test_sets {value}: {path} does not exist; name a manifest, a table or a data directory")
    if (path / "corpus.json").is_file():
        return _renamed(name, sets_of(path), language)
    if is_mix(path) or is_cuts(path):
        return [_manifest(name, path, language, datadir, value)]
    default = language.name if language else _language_of(datadir)
    return _renamed(name, sets_of(prepare_table(name, path, default, Path(expdir) / "test_sets" / name, value)), None)


def _renamed(name: str, sets: Sequence[TestSet], language: Language | None) -> list[TestSet]:
    return [
        _in_language(replace(each, name=name if len(sets) == 1 else f"{name}-{each.name}"), language) for each in sets
    ]


def _in_language(tested: TestSet, language: Language | None) -> TestSet:
    if language is None:
        return tested
    profiles = default_profiles(language.name)
    metric = find_profile(profiles[0]).metric(language.name)
    return replace(tested, metric=metric, profiles=profiles, language=language.name, scored_as="")


def _manifest(name: str, path: Path, language: Language | None, datadir: str, value: str) -> TestSet:
    """Return a manifest of cuts as a test set."""
    folder, stem = path.parent, path.name.removesuffix(".gz").removesuffix(".jsonl")
    if language is None and (folder / "corpus.json").is_file() and not is_mix(path):
        tested = test_set(read_corpus_facts(folder), stem, folder)
        return replace(tested, name=name, manifest=path)
    language = language or _spoken(path, datadir, value)
    return _in_language(TestSet(name, path, "", (), corpus=name, scale="paper"), language)


def _spoken(path: Path, datadir: str, value: str) -> Language:
    """Return the language of the clips of a manifest."""
    default, rules = _language_of(datadir), Rules(language="unknown", needs_text=False, any_language=True)
    found = {clip.supervisions[0].language for clip in read_cuts(str(path), rules)}
    names = {name if name != "unknown" else default for name in found if name} or {default}
    if names == {""}:
        raise UserError(f"--test_sets {value}: its clips name no language; {FORMS}")
    if len(names) > 1:
        raise UserError(
            f"--test_sets {value}: the clips are in {', '.join(sorted(names))}, but a test set has one metric; write a "
            f"manifest per language, or name the language that it is scored in; {FORMS}"
        )
    if found == {"unknown"}:
        log(f"{path}: its clips name no language; {default} is used, as in {datadir}")
    return find_language(names.pop(), f"--test_sets {value}: language")


def _language_of(datadir: str) -> str:
    """Return the language of a data directory, empty if there is none."""
    if not (Path(datadir) / "corpus.json").is_file():
        return ""
    return read_corpus_facts(datadir).get("language") or ""

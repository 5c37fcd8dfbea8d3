"""The scores of several experiments by test set, and the checks that scores in one column are comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from arkasr.errors import UserError
from arkasr.evaluation import paper_numbers
from arkasr.evaluation.checks import check_types
from arkasr.evaluation.run_records import AGAIN_5
from arkasr.reporting.combined.experiments import Experiment
from arkasr.reporting.tables import doubts

_SPELLING = {column.lower(): column for column in (*paper_numbers.COLUMNS, *paper_numbers.CARD_COLUMNS)}
_PROFILE_TYPES = {"version": str, "packages": dict, "metric": str}
_NUMBER_TYPES = {"rate_percent": float, "interval_percent": list}


class Row(NamedTuple):
    """A row of combined tables.

    Attributes:
        name: Name of its experiments, see `Experiment.name`.
        run: Name of the run.
    """

    name: str
    run: str

    @property
    def title(self) -> str:
        """The title of the row."""
        return f"{self.name}: {paper_numbers.title(self.run)}" if self.name else paper_numbers.title(self.run)


class Score(NamedTuple):
    """One run on one test set.

    Attributes:
        experiment: Its experiment.
        run: Name of the run.
        test_set: Name of the test set.
        entry: Its entry in scores.json.
    """

    experiment: Experiment
    run: str
    test_set: str
    entry: Mapping[str, Any]

    @property
    def content(self) -> Mapping[str, Any]:
        """Content of scores.json of the run."""
        return self.experiment.scores[self.run]

    @property
    def where(self) -> str:
        """What names this score in messages."""
        return f"{self.experiment.folder}/{self.run}/scores.json, set {self.test_set}"

    @property
    def default_profile(self) -> str:
        """Name of the profile whose numbers the entry itself holds."""
        return str(self.entry["profile"]["name"])

    @property
    def warnings(self) -> list[str]:
        """What makes this score doubtful."""
        return [*(self.content.get("warnings") or ()), *doubts(self.entry)]

    def check(self) -> None:
        """Check the numbers of all profiles.

        Raises:
            UserError: The file is damaged.
        """
        for name, found in (self.entry.get("profiles") or {}).items():
            where = f"{self.where}, profile {name}"
            check_types(where, found, _PROFILE_TYPES, AGAIN_5, needed=True)
            check_types(where, found, _NUMBER_TYPES, AGAIN_5)

    def by_profile(self, profile: str) -> Mapping[str, Any] | None:
        """Return the numbers of one scoring profile.

        Args:
            profile: Its name.

        Returns:
            Value of `profiles` in scores.json, or None if the run was not scored with it. Older versions wrote the
            numbers of one profile only.
        """
        own = {**self.entry, **self.entry["profile"]} if profile == self.default_profile else None
        return (self.entry.get("profiles") or {}).get(profile) or own


Columns = Mapping[str, Mapping[Row, Score]]


def by_column(experiments: Sequence[Experiment]) -> dict[str, dict[Row, Score]]:
    """Sort all scores by test set.

    Args:
        experiments: The experiments.

    Returns:
        Scores by row, by column: a column of the published tables, or corpus and name of another test set.

    Raises:
        UserError: Two scores have the same row and column, or the scores of a column are of different test sets.
    """
    columns: dict[str, dict[Row, Score]] = {}
    for experiment in experiments:
        for run, content in experiment.scores.items():
            for test_set, entry in content["sets"].items():
                score = Score(experiment, run, test_set, entry)
                score.check()
                name = entry.get("column") or ""
                column = _SPELLING.get(name.lower(), "") or f"{entry.get('corpus') or ''} {test_set}".strip()
                earlier = columns.setdefault(column, {}).setdefault(Row(experiment.name, run), score)
                if earlier is not score:
                    raise UserError(_doubled(column, earlier, score))
    for column, scores in columns.items():
        _require_one_test_set(column, list(scores.values()))
    return columns


def in_order(columns: Columns) -> dict[Row, Score]:
    """Sort the rows of a table.

    Args:
        columns: Scores by column and row.

    Returns:
        All rows, with any of their scores: rows without a name first, then by name, and runs as in the recipes.
    """
    found = {row: score for scores in columns.values() for row, score in scores.items()}
    names = list(dict.fromkeys(["", *(row.name for row in found)]))
    order = sorted(found, key=lambda row: (names.index(row.name), paper_numbers.row_number(row.run)))
    return {row: found[row] for row in order}


def _doubled(column: str, one: Score, other: Score) -> str:
    if one.experiment is other.experiment:
        return (
            f"{other.where}: is in the column {column}, and so is {one.test_set}; correct `test` in corpus.yaml "
            "and run the recipe from --stage 1 with another --expdir"
        )
    return (
        f"{other.where}: {one.experiment.folder} has a score of {one.run} on {column} too; give one experiment a name, "
        f"such as second={other.experiment.folder}, or show several seeds with `arkasr sweep`"
    )


def _require_one_test_set(column: str, scores: Sequence[Score]) -> None:
    first = scores[0]
    for other in scores[1:]:
        for key, what in (("scale", "scale"), ("utterances", "number of clips")):
            values = [score.entry.get(key) for score in (first, other)]
            if values[0] != values[1]:
                raise UserError(
                    f"{other.where}: {what} {values[1]} is not {values[0]} as in {first.where}, so that the scores in "
                    f"the column {column} are of different audio; make separate tables"
                )


def require_one_profile(column: str, profile: str, scores: Sequence[Score]) -> None:
    """Check that the scores of a column are of one version of a profile.

    Args:
        column: Name of the column.
        profile: Name of the profile.
        scores: The scores. Those without this profile are not compared.

    Raises:
        UserError: Version, packages or metric differ.
    """
    facts = [(score, found) for score in scores if (found := score.by_profile(profile)) is not None]
    for other, found in facts[1:]:
        first, expected = facts[0]
        for key in _PROFILE_TYPES:
            if found.get(key) != expected.get(key):
                raise UserError(
                    f"{other.where}: scored with {describe_profile(profile, found)}, but {first.where} with "
                    f"{describe_profile(profile, expected)}; scores of different profiles are not comparable in the "
                    f"column {column}; run --stage 5 of both experiments again"
                )


def describe_profile(name: str, found: Mapping[str, Any]) -> str:
    """Describe a scoring profile.

    Args:
        name: Its name.
        found: Its numbers in scores.json, with `version`, `packages` and `metric`.

    Returns:
        Such as "paper 1 (WER)" or "leaderboard-2026-08 1 (WER, whisper-normalizer 0.1.15)".
    """
    packages = [f"{package} {version}" for package, version in sorted((found.get("packages") or {}).items())]
    return f"{name} {found.get('version')} ({', '.join([str(found.get('metric')).upper(), *packages])})"

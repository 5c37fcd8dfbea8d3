"""Error rates of one test set by all its scoring profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation.results_io import TestSet
from arkasr.scoring.profiles import Profile, find_profile
from arkasr.scoring.significance import compare
from arkasr.scoring.tally import Tally, summary

SHOWN = ("errors", "reference_length", "rate_percent", "interval_percent")


def absent(profile: Profile) -> str:
    """Say why a profile cannot be used.

    Args:
        profile: The profile.

    Returns:
        The message of a package that is not installed, or an empty text.
    """
    try:
        profile.packages  # noqa: B018  (raises)
    except UserError as error:
        return str(error)
    return ""


def count_by_profile(tested: TestSet, references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, Tally]:
    """Count the errors by each profile of a test set.

    Args:
        tested: The test set.
        references: N references.
        hypotheses: N hypotheses.

    Returns:
        Counts by name of the profile, the first profile first. Others whose packages are not installed are left out
        (see `profile_entries`).

    Raises:
        UserError: A package of the first profile is not installed.
    """
    tallies = {}
    for name in tested.profiles:
        profile = find_profile(name)
        if name == tested.profiles[0] or not absent(profile):
            expected, found = (profile.normalize_all(each, tested.rules) for each in (references, hypotheses))
            tallies[name] = profile.count(expected, found, tested.rules)
    return tallies


def profile_entries(tested: TestSet, tallies: Mapping[str, Tally]) -> dict[str, dict[str, Any]]:
    """Return the entry `profiles` of scores.json.

    Args:
        tested: The test set.
        tallies: Return value of `count_by_profile`. Empty if nothing was decoded.

    Returns:
        By name of the profile: `version`, `packages`, `metric`, `errors`, `reference_length`, `rate_percent` and
        `interval_percent`. Counts are None where nothing was measured. `not_scored` has the reason if a package is not
        installed.
    """
    return {name: _entry(find_profile(name), tested, tallies.get(name)) for name in tested.profiles}


def _entry(profile: Profile, tested: TestSet, tally: Tally | None) -> dict[str, Any]:
    reason = absent(profile)
    found = dict.fromkeys(SHOWN) if tally is None else {key: summary(tally)[key] for key in SHOWN}
    head = {"version": profile.version, "packages": {} if reason else profile.packages}
    return head | {"metric": profile.metric(tested.rules), **found} | ({"not_scored": reason} if reason else {})


def compare_by_profile(
    entry: dict[str, Any],
    tallies: Mapping[str, Tally],
    base: Mapping[str, Tally],
    speakers: Sequence[str],
    hypotheses: str,
) -> None:
    """Add the change from Base to an entry, and to that of each of its profiles.

    Args:
        entry: Entry of a run and a test set in scores.json. The keys `against_base` are added.
        tallies: Counts of the run by profile.
        base: Counts of Base by profile.
        speakers: Speaker per utterance.
        hypotheses: Digest of the hypotheses of Base.
    """
    for name in (name for name in tallies if name in base):
        change = compare(tallies[name], base[name], speakers) | {"hypotheses": hypotheses}
        entry["profiles"][name]["against_base"] = change
        if name == entry["profile"]["name"]:
            entry["against_base"] = change


def not_scored(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List the reasons for which profiles were not used.

    Args:
        scores: Content of scores.json by run.

    Returns:
        Different messages, in order.
    """
    entries = [entry for content in scores.values() for entry in content["sets"].values()]
    found = [each.get("not_scored") for entry in entries for each in (entry.get("profiles") or {}).values()]
    return [*dict.fromkeys(reason for reason in found if reason)]

"""One scoring profile per column: what was scored by other rules is not shown beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arkasr.evaluation.earlier_scores import AGAIN
from arkasr.scoring.tally import NO_COUNTS

MEASURED = ("against_base", "breakdown", "hallucination", "profiles")  # besides counts


def rules_of(profile: Mapping[str, Any]) -> str:
    """Name the rules of a profile. Error rates can be compared if this text is equal.

    Args:
        profile: `name`, `version` and perhaps `packages`, as in scores.json.

    Returns:
        Such as "zh_tn version 1 (wetext 0.1.8)".
    """
    packages = ", ".join(f"{name} {version}" for name, version in sorted((profile.get("packages") or {}).items()))
    return f"{profile['name']} version {profile['version']}" + (f" ({packages})" if packages else "")


def with_one_profile(
    scores: Mapping[str, dict[str, Any]], fresh: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """Take out of the tables what was scored by other rules than the rest of its column.

    Args:
        scores: Content of scores.json by run.
        fresh: Entries by run and test set that were scored now. Their rules are those of the column. Of test sets that
            were not scored now, the rules are those of the first run.

    Returns:
        The content to show. Entries with other rules have no error rate and a warning.
    """
    columns: dict[str, Mapping[str, Any]] = {}
    for sets in (*fresh.values(), *(content["sets"] for content in scores.values())):
        for name, entry in sets.items():
            columns.setdefault(name, entry)
    return {
        run: content | {"sets": {name: _shown(entry, columns[name]) for name, entry in content["sets"].items()}}
        for run, content in scores.items()
    }


def _shown(entry: dict[str, Any], column: Mapping[str, Any]) -> dict[str, Any]:
    own, other = rules_of(entry["profile"]), rules_of(column["profile"])
    if own != other:
        clause = f"not shown, because it was scored by profile {own} and its column by {other}; {AGAIN}"
        kept = {key: value for key, value in entry.items() if key not in MEASURED} | NO_COUNTS
        kept |= {key: entry[key] for key in ("utterances", "empty_references") if key in entry}
        kept |= {key: column[key] for key in ("profile", "metric") if key in column}  # those of the column
        return kept | {"warnings": [*(entry.get("warnings") or ()), clause]}
    if not entry.get("profiles"):
        return entry
    expected = column.get("profiles") or {}
    profiles = {name: _one(name, each, expected.get(name)) for name, each in entry["profiles"].items()}
    return entry | {"profiles": profiles}


def _one(name: str, measured: dict[str, Any], column: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what was measured by one of the other profiles, without the error rate if the rules differ."""
    if column is None or measured.get("not_scored") or column.get("not_scored"):
        return measured
    own, other = (rules_of({"name": name} | dict(each)) for each in (measured, column))
    if own == other:
        return measured
    reason = f"profile {name}: not shown where it was scored by {own}, because its column has {other}; {AGAIN}"
    return measured | {"rate_percent": None, "interval_percent": None, "not_scored": reason}

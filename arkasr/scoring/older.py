"""Scoring facts of older versions, which named a normaliser and a metric in place of scoring profiles."""

from __future__ import annotations

from typing import Any

from arkasr.languages import known_language
from arkasr.scoring.profiles import PROFILES, default_profiles

# Normalisers whose rules the profile `unicode` has now, with their last versions.
_SAME_RULES = {"english": "2", "words": "1", "mandarin": "2", "characters": "1"}


def with_profiles(facts: dict[str, Any]) -> dict[str, Any]:
    """Name the profiles of a corpus or a test set that was prepared by an older version.

    Args:
        facts: Content of corpus.json, or of one of its sets or members, perhaps with the keys `normalizer` and
            `metric`.

    Returns:
        The facts with `profiles`, and with `scored_as` if the language is not known. Their first profile has the
        metric and the rules of the old facts. Unchanged if no profile has these.
    """
    name, metric = facts.get("normalizer"), facts.get("metric")
    if facts.get("profiles") or not isinstance(name, str) or not isinstance(metric, str):
        return facts
    known = known_language(facts.get("language") or "")
    language = known.name if known else "Chinese" if metric == "cer" else ""
    first = "raw" if name == "raw" else "unicode"
    if first == "unicode" and metric == "cer" and PROFILES[first].metric(language) != metric:
        first = "unicode-cer"
    if (name != "raw" and name not in _SAME_RULES) or PROFILES[first].metric(language) != metric:
        return facts
    others = [each for each in default_profiles(known.name if known else "") if each not in (first, "unicode")]
    own = {key: value for key, value in facts.items() if key not in ("metric", "normalizer")}
    return own | {"profiles": [first, *others]} | ({} if known or not language else {"scored_as": language})


def profile_of(scorer: dict[str, Any]) -> dict[str, Any]:
    """Return the profile that has the rules of a normaliser.

    Args:
        scorer: `name` and `version` of the normaliser, as older versions wrote them to scores.json.

    Returns:
        `name`, `version` and `packages` of the profile. Former versions of its rules have the version "<normaliser>
        <version>".
    """
    name, version = scorer["name"], scorer["version"]
    if name in _SAME_RULES:
        name, version = "unicode", "1" if _SAME_RULES[name] == version else f"{name} {version}"
    return {"name": name, "version": version, "packages": {}}

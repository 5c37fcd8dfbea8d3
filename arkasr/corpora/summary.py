"""The content of corpus.json: counts, hours, languages and uses of the sets of a data directory. All are logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.left_out import LEFT_OUT
from arkasr.corpora.scale import Scale
from arkasr.corpora.set_rows import Totals
from arkasr.corpora.splits import WITH_TEXT, uses_of
from arkasr.errors import UserError
from arkasr.scoring.profiles import default_profiles
from arkasr.utils.console import length_text, log

TRAINING = ("train", "base", "td", "opd", "teacher")  # sets that may hold cuts without transcript
_WARN_DROPPED_SHARE = 0.2


def describe_sets(corpus: Corpus, facts: Scale, sets: Mapping[str, Totals]) -> dict[str, Any]:
    """Describe the sets.

    Args:
        corpus: The corpus.yaml.
        facts: The scale.
        sets: Counts of the sets by name, with those of `TRAINING` in use and `dev`.

    Returns:
        The keys `language`, `profiles`, `sets` and `uses` of corpus.json. `language` is empty if the cuts
        are in several languages. Test sets and `dev` have their own profiles and language.

    Raises:
        UserError: The languages of one test set or of `dev` are scored in different ways.
    """
    spoken = {name: sorted(each.languages) for name, each in sets.items()}
    described = {name: _summary(name, each) for name, each in sets.items()}
    for name in (name for name in sets if name not in TRAINING and sets[name].speakers):
        described[name] |= _known_speakers(name, sets[name], sets["train"], facts.left_out)
    for name in (name for name in sets if name not in TRAINING and sets[name].cuts):
        described[name] |= _scoring(corpus, spoken[name], f"set {name}")
    return {**_of_all(corpus, spoken), "sets": described, "uses": _uses(facts, sets)}


def _scoring(corpus: Corpus, languages: list[str], what: str) -> dict[str, Any]:
    """Return language and profiles of cuts in these languages."""
    try:
        return corpus.scoring(languages)
    except ValueError as error:
        raise UserError(f"{corpus.path}: {what} {error}") from error


def _of_all(corpus: Corpus, spoken: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return what holds for cuts that no set describes: the facts of corpus.yaml, or else of all cuts."""
    if corpus.language:
        return corpus.scoring([corpus.language])
    languages = sorted({language for found in spoken.values() for language in found})
    try:
        return corpus.scoring(languages)
    except ValueError:
        log(f"cuts in {', '.join(languages)}: each test set is scored by the rules of its language")
        return {"language": "", "profiles": list(corpus.profiles or default_profiles(""))}


def _summary(name: str, each: Totals) -> dict[str, Any]:
    """Describe one set, log the counts, and warn if much of it was dropped."""
    hours, num_dropped = each.seconds / 3600, sum(each.dropped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in each.dropped.items())
    suffix = f", {each.untranscribed} without transcript" if each.untranscribed else ""
    suffix += f"; dropped {num_dropped}: {reasons}" if num_dropped else ""
    size = f", {length_text(hours)}, {len(each.speakers) or 'unnamed'} speakers" if each.cuts else ""
    log(f"{name}: {each.cuts} cuts{size}{suffix}")
    if num_dropped - each.dropped.get(LEFT_OUT, 0) > _WARN_DROPPED_SHARE * (num_dropped + each.cuts):
        log(f"warning: {name}: {num_dropped} of {num_dropped + each.cuts} utterances were dropped; see dropped.jsonl")
    counts = {"cuts": each.cuts, "hours": round(hours, 4), "speakers": len(each.speakers), "dropped": each.dropped}
    return counts | {"untranscribed": each.untranscribed}


def _known_speakers(name: str, each: Totals, train: Totals, left_out: Mapping[str, Any]) -> dict[str, int]:
    """Count the speakers of a dev or test set who are also in the training set, and log them."""
    known = each.speakers & train.speakers
    if known:
        hint = "" if left_out else "; to test on other speakers, set left_out in corpus.yaml"
        log(f"{name}: {len(known)} of {len(each.speakers)} speakers are also in the training set{hint}")
    return {"speakers_in_training": len(known)}


def _uses(facts: Scale, sets: Mapping[str, Totals]) -> dict[str, Any]:
    """Describe what the training cuts are used for."""
    uses = {}
    for key in uses_of(facts.use):
        each, value = sets[key], getattr(facts.use, key)
        uses[key] = {"from": value, "cuts": each.cuts, "hours": round(each.seconds / 3600, 4)}
    for key in (key for key in WITH_TEXT if key in uses):
        named = value if isinstance(value := getattr(facts.use, key), list) else []
        if left_out := sum(sets["train"].by_part[part] for part in named):
            uses[key]["left_out"] = left_out
            what = f"{left_out} cuts of use.{key} left out, because they have no transcript"
            log(f"{key}: {what}; td and opd can use them")
    return uses


def describe_channels(corpus: Corpus, count: int) -> dict[str, Any]:
    """Log what happens to files with several channels.

    Args:
        corpus: The corpus.yaml.
        count: Number of used audio files with several channels.

    Returns:
        The key `channels` of corpus.json.
    """
    if count:
        what = "the mean of their channels" if corpus.channels == "mix" else f"channel {corpus.channels}"
        log(f"{count} audio files have several channels: {what} is used (key channels of corpus.yaml)")
    return {"policy": corpus.channels, "files": count}

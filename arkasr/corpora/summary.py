"""The content of corpus.json: counts, hours, languages and uses of the sets of a data directory. All are logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.cuts import PartCuts
from arkasr.corpora.data_dir import PreparedSet
from arkasr.corpora.scale import Scale
from arkasr.corpora.splits import has_text
from arkasr.errors import UserError
from arkasr.utils.console import log

if TYPE_CHECKING:
    from lhotse.cut import Cut

TRAINING = ("train", "base", "td", "opd")  # sets that may hold cuts without transcript
_WARN_DROPPED_SHARE = 0.2


def describe_sets(corpus: Corpus, facts: Scale, sets: Mapping[str, PreparedSet], left_out: int) -> dict[str, Any]:
    """Describe the sets.

    Args:
        corpus: The corpus.yaml.
        facts: The scale.
        sets: The sets by name, with all of `TRAINING` and `dev`.
        left_out: Cuts of the parts of `use.base` that have no transcript.

    Returns:
        The keys `language`, `metric`, `normalizer`, `sets` and `uses` of corpus.json. `language` is empty if the cuts
        are in several languages. Test sets and `dev` have their own metric, normaliser and language.

    Raises:
        UserError: The languages of one test set or of `dev` are scored by different metrics or normalisers.
    """
    spoken = {name: sorted({cut.supervisions[0].language for cut in each.cuts}) for name, each in sets.items()}
    described = {name: _summary(name, each) for name, each in sets.items()}
    for name in (name for name in sets if name not in TRAINING and sets[name].cuts):
        described[name] |= _scoring(corpus, spoken[name], f"set {name}")
    return {**_of_all(corpus, spoken), "sets": described, "uses": _uses(facts, sets, left_out)}


def _scoring(corpus: Corpus, languages: list[str], what: str) -> dict[str, str]:
    """Return language, metric and normaliser of cuts in these languages."""
    try:
        return corpus.scoring(languages)
    except ValueError as error:
        raise UserError(f"{corpus.path}: {what} {error}") from error


def _of_all(corpus: Corpus, spoken: Mapping[str, list[str]]) -> dict[str, str]:
    """Return what holds for cuts that no set describes: the facts of corpus.yaml, or else of all cuts."""
    if corpus.language:
        return corpus.scoring([corpus.language])
    languages = sorted({language for found in spoken.values() for language in found})
    try:
        return corpus.scoring(languages)
    except ValueError:
        log(f"cuts in {', '.join(languages)}: each test set has the metric and the normaliser of its language")
        return {"language": "", "metric": "wer", "normalizer": "words"}


def _summary(name: str, each: PreparedSet) -> dict[str, Any]:
    """Count one set, log the counts, and warn if much of it was dropped."""
    dropped = dict(Counter(entry.reason for entry in each.dropped))
    hours = _hours(each.cuts)
    speakers = len({cut.supervisions[0].speaker for cut in each.cuts} - {None})
    untranscribed = sum(not has_text(cut) for cut in each.cuts)
    num_dropped, total = len(each.dropped), len(each.dropped) + len(each.cuts)
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
    suffix = f", {untranscribed} without transcript" if untranscribed else ""
    suffix += f"; dropped {num_dropped}: {reasons}" if num_dropped else ""
    log(f"{name}: {len(each.cuts)} cuts, {hours:.2f} h, {speakers or 'unnamed'} speakers{suffix}")
    if num_dropped > _WARN_DROPPED_SHARE * total:
        log(f"warning: {name}: {num_dropped} of {total} utterances were dropped; see dropped.jsonl")
    counts = {"cuts": len(each.cuts), "hours": round(hours, 4), "speakers": speakers, "dropped": dropped}
    return counts | {"untranscribed": untranscribed}


def _uses(facts: Scale, sets: Mapping[str, PreparedSet], left_out: int) -> dict[str, Any]:
    """Describe what the training cuts are used for."""
    uses = {}
    for key in ("base", "td", "opd"):
        cuts, value = sets[key].cuts, getattr(facts.use, key)
        uses[key] = {"from": value, "cuts": len(cuts), "hours": round(_hours(cuts), 4)}
    if left_out:
        uses["base"]["left_out"] = left_out
        log(f"base: {left_out} cuts of use.base left out, because they have no transcript; td and opd can use them")
    return uses


def _hours(cuts: list[Cut]) -> float:
    return sum(cut.duration for cut in cuts) / 3600


def describe_channels(corpus: Corpus, read: Mapping[str, PartCuts]) -> dict[str, Any]:
    """Count the used files with several channels, and log what happens to them.

    Args:
        corpus: The corpus.yaml.
        read: The parts in use.

    Returns:
        The key `channels` of corpus.json.
    """
    count = sum(part.num_files_with_channels for part in read.values())
    if count:
        what = "the mean of their channels" if corpus.channels == "mix" else f"channel {corpus.channels}"
        log(f"{count} audio files have several channels: {what} is used (key channels of corpus.yaml)")
    return {"policy": corpus.channels, "files": count}

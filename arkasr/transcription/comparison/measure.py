"""Error rates and differences of several models on the same files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from arkasr.errors import UserError
from arkasr.languages import known_language
from arkasr.scoring.alignment import Edit, align, tokens
from arkasr.scoring.profiles import Profile, default_profiles, find_profile
from arkasr.scoring.significance import compare
from arkasr.scoring.tally import Tally, count, percent, summary
from arkasr.scoring.utterances import Utterance


@dataclass(frozen=True)
class File:
    """One file that all models have transcribed.

    Attributes:
        name: Its name.
        seconds: Length of its audio.
        texts: Text by name of the model.
        reference: Its reference, or None.
    """

    name: str
    seconds: float
    texts: Mapping[str, str]
    reference: Utterance | None = None


class Rules:
    """How texts are normalised and split.

    Args:
        languages: English names of the languages of the files.

    Attributes:
        language: Language by whose rules all files are scored.
        profile: Scoring profile.
        metric: `wer`, `cer` or `mer`.

    Raises:
        UserError: The languages are counted in different units.
    """

    def __init__(self, languages: Sequence[str]):
        names = list(dict.fromkeys(languages))
        found: dict[str, str] = {}
        for name in names:
            found.setdefault(_metric(name), name)
        if len(found) > 1:
            raise UserError(
                f"files in {', '.join(found.values())}: are counted in different units, so they have no common error "
                "rate; compare the files of one language per call"
            )
        self.language = known.name if (known := known_language(names[0])) else ""
        self.profile: Profile = find_profile(default_profiles(self.language)[0])
        self.metric = self.profile.metric(self.language)

    def normalised(self, texts: Sequence[str]) -> list[str]:
        """Normalise texts.

        Args:
            texts: N texts.

        Returns:
            N texts.
        """
        return self.profile.normalize_all(texts, self.language)

    def aligned(self, first: str, others: Sequence[str]) -> list[list[Edit]]:
        """Align texts with a first one.

        Args:
            first: A text, such as a reference.
            others: R texts.

        Returns:
            R alignments of the normalised texts.
        """
        base, *texts = self.normalised([first, *others])
        return [align(base, text, self.metric) for text in texts]


def _metric(language: str) -> str:
    known = known_language(language)
    return known.metric if known else "wer"


def measures(files: Sequence[File], names: Sequence[str], rules: Rules) -> dict[str, Any]:
    """Score models on the files with references, and compare each two of them on all files.

    Args:
        files: The files.
        names: Names of the models.
        rules: How texts are scored.

    Returns:
        `models`: by name the entries of `arkasr.scoring.tally.summary`, None without references. `comparisons`: per
        two models `system`, `from`, `different_files`, `disagreement_percent` (edits from the first to the second
        text, per token of the first) and, with references, the entries of `arkasr.scoring.significance.compare`.
        `errors`: by name the errors per file, in the order of the files, None for files without a reference.
    """
    scored = [file for file in files if file.reference is not None]
    speakers = [file.reference.speaker for file in scored if file.reference is not None]
    tallies = {name: _tally(scored, name, rules) for name in names}
    return {
        "models": {name: summary(tally, speakers) if scored else None for name, tally in tallies.items()},
        "comparisons": [
            {"system": other, "from": first, **_disagreement(files, first, other, rules)}
            | (compare(tallies[other], tallies[first], speakers) if scored else {})
            for first, other in combinations(names, 2)
        ],
        "errors": {name: _per_file(files, tally) for name, tally in tallies.items()},
    }


def _tally(scored: Sequence[File], name: str, rules: Rules) -> Tally:
    references = [file.reference.text for file in scored if file.reference is not None]
    texts = rules.normalised([file.texts[name] for file in scored])
    return rules.profile.count(rules.normalised(references), texts, rules.language)


def _per_file(files: Sequence[File], tally: Tally) -> list[int | None]:
    errors = iter(tally.errors.tolist())
    return [None if file.reference is None else next(errors) for file in files]


def _disagreement(files: Sequence[File], first: str, other: str, rules: Rules) -> dict[str, Any]:
    before, after = (rules.normalised([file.texts[name] for file in files]) for name in (first, other))
    tally = count(before, after, rules.metric)
    length = sum(len(tokens(text, rules.metric)) for text in before)
    return {
        "different_files": int((tally.errors > 0).sum()),
        "disagreement_percent": percent(tally.errors.sum() / length) if length else None,
    }

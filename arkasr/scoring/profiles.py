"""Scoring profiles: named and versioned rules that turn texts into error rates.

A profile fixes how reference and hypothesis are normalised and which units are counted. Scores are comparable only if
profile and version are equal. Change the version when you change a rule. docs/scoring.md describes the rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from arkasr.errors import UserError
from arkasr.languages import find_language
from arkasr.scoring import library_rules
from arkasr.scoring.normalize import characters, raw, words
from arkasr.scoring.paper_rules import paper
from arkasr.scoring.tally import Tally, count
from arkasr.scoring.wenet_rules import wenet

CHINESE = ("Chinese", "Cantonese")


@cache
def _version(package: str) -> str:
    return metadata.version(package)


@dataclass(frozen=True)
class Profile:
    """The rules of one scoring profile.

    Attributes:
        name: Name in corpus.yaml and in scores.json.
        version: Version of the rules.
        rules: Function of a text and its metric to the normalised text.
        fixed_metric: Metric of all languages. Empty: that of the language.
        languages: English names of the languages that it is for. Empty: all.
        needs: Packages that implement the rules, by their names on PyPI.
        extra: Extra of arkasr that installs them.
        counter: Function of references and hypotheses to counts. None: `arkasr.scoring.tally.count`.
    """

    name: str
    version: str
    rules: Callable[[str, str], str]
    fixed_metric: str = ""
    languages: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    extra: str = ""
    counter: Callable[[Sequence[str], Sequence[str]], Tally] | None = None

    @property
    def packages(self) -> dict[str, str]:
        """Versions of the packages that implement the rules, by name.

        Raises:
            UserError: One is not installed.
        """
        try:
            return {name: _version(name) for name in self.needs}
        except metadata.PackageNotFoundError as error:
            raise UserError(
                f"scoring profile {self.name}: needs the package {error.name}, which is not installed; run "
                f"pip install 'arkasr[{self.extra}]', or leave the profile out of `profiles` in corpus.yaml"
            ) from error

    def metric(self, language: str) -> str:
        """Return the metric of a language.

        Args:
            language: English name or code. Empty: any language that is written with spaces between words.

        Returns:
            "wer" (words), "cer" (characters) or "mer" (Chinese characters and other words).

        Raises:
            UserError: The language is unknown, or the profile is not for it.
        """
        known = find_language(language, f"scoring profile {self.name}: language") if language else None
        if self.languages and (known is None or known.name not in self.languages):
            raise UserError(
                f"scoring profile {self.name}: has no rules for {known.name if known else 'an unknown language'}; it "
                f"is for {' and '.join(self.languages)}; choose another one, such as unicode"
            )
        return self.fixed_metric or (known.metric if known else "wer")

    def fits(self, languages: Sequence[str]) -> bool:
        """Return whether texts in several languages can be scored as one test set.

        Args:
            languages: English names. Empty: no texts.

        Returns:
            True if the profile is for all of them and has the same metric for all.
        """
        if self.languages and not set(languages).issubset(self.languages):
            return False
        return len({self.metric(language) for language in languages}) <= 1

    def normalize(self, text: str, language: str) -> str:
        """Normalise a text.

        Args:
            text: Reference or hypothesis. It may be empty.
            language: See `metric`.

        Returns:
            The normalised text, which `arkasr.scoring.alignment` splits into the units of the metric.

        Raises:
            UserError: See `metric`, or a package is not installed.
        """
        metric, _ = self.metric(language), self.packages
        return self.rules(text, metric)

    def normalize_all(self, texts: Sequence[str], language: str) -> list[str]:
        """Normalise N texts, see `normalize`.

        Args:
            texts: N texts.
            language: See `metric`.

        Returns:
            N normalised texts.
        """
        metric, _ = self.metric(language), self.packages
        return [self.rules(text, metric) for text in texts]

    def count(self, references: Sequence[str], hypotheses: Sequence[str], language: str) -> Tally:
        """Count the errors of normalised hypotheses.

        Args:
            references: N normalised references.
            hypotheses: N normalised hypotheses.
            language: See `metric`.

        Returns:
            Counts per utterance.
        """
        if self.counter is not None:
            return self.counter(references, hypotheses)
        return count(references, hypotheses, self.metric(language))

    def facts(self) -> dict[str, Any]:
        """Return what scores.json records of the profile.

        Returns:
            `name`, `version` and `packages` (version by name).
        """
        return {"name": self.name, "version": self.version, "packages": self.packages}


PROFILES = {
    profile.name: profile
    for profile in (
        # Letters, numbers and their marks, without case, and apostrophes in words.
        Profile("unicode", "1", lambda text, metric: characters(text) if metric == "cer" else words(text)),
        # The same for characters of every language, such as Korean.
        Profile("unicode-cer", "1", lambda text, _: characters(text), fixed_metric="cer"),
        Profile("paper", "1", paper),
        Profile(
            "leaderboard-2026-08",
            "1",
            lambda text, _: library_rules.leaderboard(text),
            fixed_metric="wer",
            languages=("English",),
            needs=("whisper-normalizer", "kaldialign"),
            extra="leaderboard",
            counter=library_rules.count_compounds,
        ),
        Profile("wenet", "1", lambda text, _: wenet(text), fixed_metric="mer"),
        Profile(
            "zh_tn",
            "1",
            lambda text, _: library_rules.zh_tn(text),
            fixed_metric="cer",
            languages=CHINESE,
            needs=("wetext",),
            extra="zh_tn",
        ),
        # The text as it is. White space is reduced to single spaces.
        Profile("raw", "1", lambda text, _: raw(text)),
    )
}
_FIELD = {"English": "leaderboard-2026-08", **dict.fromkeys(CHINESE, "wenet")}


def find_profile(name: str) -> Profile:
    """Look up a profile.

    Args:
        name: Its name.

    Returns:
        The profile.

    Raises:
        UserError: There is no such profile. The message lists all.
    """
    if name in PROFILES:
        return PROFILES[name]
    near = difflib.get_close_matches(name, PROFILES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(f"scoring profile {name!r}: is unknown{hint}; use one of: {', '.join(PROFILES)}")


def default_profiles(language: str) -> tuple[str, ...]:
    """Return the profiles of a corpus that names none.

    Args:
        language: English name, or an empty text for several languages.

    Returns:
        Names of profiles: `unicode`, `paper`, and the one of the field for English and Chinese.
    """
    return ("unicode", "paper", *([_FIELD[language]] if language in _FIELD else []))

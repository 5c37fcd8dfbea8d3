"""`arkasr score --ref REF --hyp HYP`: score the transcripts of any systems, without an experiment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from arkasr.errors import UserError
from arkasr.languages import find_language
from arkasr.reporting.file_tables import table
from arkasr.scoring import bootstrap
from arkasr.scoring.alignment import tokens
from arkasr.scoring.breakdown import measured
from arkasr.scoring.collapse import collapsed
from arkasr.scoring.hotwords import count_hotwords, hotword_summary, read_hotwords
from arkasr.scoring.pairing import EXAMPLES, Pairing, pair
from arkasr.scoring.profiles import Profile, default_profiles, find_profile
from arkasr.scoring.significance import compare
from arkasr.scoring.tally import Tally
from arkasr.scoring.transcript_counts import transcript_counts
from arkasr.scoring.transcript_file import read_kaldi, read_transcripts
from arkasr.scoring.transcripts import Transcripts
from arkasr.utils.console import printable
from arkasr.utils.loops import ends_in_loop

# Letters of scripts that are written without spaces: Chinese, Japanese, Thai, Lao, Tibetan, Burmese and Khmer.
WITHOUT_SPACES = re.compile("[\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff\u0e00-\u109f\u1780-\u17ff]")


class Scoring(NamedTuple):
    """How texts are scored.

    Attributes:
        profile: The scoring profile.
        language: English name of the language, or empty.
        hotwords: Normalised hotwords. Empty: none are scored.
    """

    profile: Profile
    language: str
    hotwords: tuple[str, ...] = ()


def score_files(
    references: str,
    hypotheses: Sequence[str],
    profile: str = "",
    language: str = "",
    form: str = "",
    utt2spk: str = "",
    as_json: bool = False,
    hotwords: str = "",
) -> None:
    """Score transcripts against references, and compare each two systems. Print a table, or JSON.

    Args:
        references: File of references (see `arkasr.scoring.transcript_file`).
        hypotheses: Files of hypotheses, as `NAME=PATH` or `PATH`, one per system.
        profile: Name of a scoring profile. Empty: that of the language.
        language: Name or code of the language. Empty: a language that is written with spaces between words.
        form: Format of files whose suffix does not name it.
        utt2spk: File with an utterance id and a speaker per line. Empty: as the references say.
        as_json: Print JSON.
        hotwords: File with a hotword per line, whose recall and leak are measured. Empty: none.

    Raises:
        UserError: A file is broken, or the files do not belong together, or no reference has a word.
    """
    if not references:
        raise UserError("--ref is missing; name the file of references, such as --ref ref.txt")
    read = read_transcripts(references, True, form)
    if utt2spk:
        read = _with_speakers(read, utt2spk)
    systems = [(name, read_transcripts(path, False, form)) for name, path in _named(hypotheses)]
    scoring = _scoring(read, profile, language)
    scoring = scoring._replace(hotwords=_normalised(hotwords, scoring)) if hotwords else scoring
    found = scores(read, dict(systems), scoring)
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else printable(table(found)))


def _named(values: Sequence[str]) -> list[tuple[str, str]]:
    """Return name and path of each system. The default name is that of the file, or the path if that is not unique."""
    if not values:
        raise UserError("--hyp is missing; name the hypotheses of at least one system, such as --hyp hyp.txt")
    pairs = [value.partition("=")[::2] if re.match(r"[^=/\\]+=.", value) else ("", value) for value in values]
    names = [name or Path(path.removesuffix(".gz")).stem for name, path in pairs]
    names = [
        path if names.count(name) > 1 and not given else name for name, (given, path) in zip(names, pairs, strict=True)
    ]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"--hyp {repeated}: names two systems; give each a name of its own, as NAME=PATH")
    return [(name, path) for name, (_, path) in zip(names, pairs, strict=True)]


def _with_speakers(references: Transcripts, path: str) -> Transcripts:
    speakers, utterances = read_kaldi(path).utterances, references.utterances
    missing = [identity for identity in utterances if identity not in speakers or not speakers[identity].text.strip()]
    if missing:
        raise UserError(
            f"{path}: has no speaker for {len(missing)} of {len(utterances)} utterances, such as {missing[0]}; each "
            "line must hold an utterance id and its speaker"
        )
    found = {identity: each._replace(speaker=speakers[identity].text.strip()) for identity, each in utterances.items()}
    return Transcripts(**{**vars(references), "utterances": found})


def _scoring(references: Transcripts, profile: str, language: str) -> Scoring:
    name = find_language(language, "--language").name if language else ""
    found = find_profile(profile or default_profiles(name)[0])
    name = name or (found.languages[0] if len(found.languages) == 1 else "")
    if not name and found.metric("") == "wer":
        for identity, utterance in references.utterances.items():
            if letter := WITHOUT_SPACES.search(utterance.text):
                raise UserError(
                    f"{references.path}: utterance {identity} has letters of a script without spaces between words "
                    f"({letter[0]}), which are not counted in words; name the language, such as --language Chinese"
                )
    found.metric(name)  # a profile that is not for the language is an error
    return Scoring(found, name)


def _normalised(file: str, scoring: Scoring) -> tuple[str, ...]:
    hotwords = read_hotwords([f"@{file.removeprefix('@')}"])
    texts = scoring.profile.normalize_all(hotwords, scoring.language)
    empty = [hotword for hotword, text in zip(hotwords, texts, strict=True) if not text.strip()]
    if empty:
        raise UserError(
            f"{file}: nothing is left of hotword {empty[0]!r} after normalisation; each must have a letter or a digit; "
            "correct or remove it"
        )
    return tuple(texts)


def scores(references: Transcripts, systems: Mapping[str, Transcripts], scoring: Scoring) -> dict[str, Any]:
    """Score systems, and compare each two of them.

    Args:
        references: The references.
        systems: Hypotheses by name of the system.
        scoring: How texts are scored.

    Returns:
        `references` (path), `utterances` (number), `language`, `profile`, `metric`, `jiwer`, `bootstrap`, `systems`:
        per system the entries of `arkasr.scoring.breakdown.measured`, counts of transcripts, `warnings`, and `hotwords`
        (see `arkasr.scoring.hotwords.hotword_summary`, None without hotwords), and
        `comparisons`: one per pair of systems (see `arkasr.scoring.significance.compare`).

    Raises:
        UserError: The files do not belong together, or no reference has a word.
    """
    profile, utterances = scoring.profile, list(references.utterances.values())
    expected = profile.normalize_all([utterance.text for utterance in utterances], scoring.language)
    if not any(expected):
        raise UserError(f"{references.path}: no reference has a word after normalisation; name the file of references")
    entries, tallies, speakers = {}, {}, [utterance.speaker for utterance in utterances]
    for name, hypotheses in systems.items():
        found = pair(references, hypotheses)
        texts = profile.normalize_all(list(found.texts.values()), scoring.language)
        tallies[name] = profile.count(expected, texts, scoring.language)
        counts = _transcripts(hypotheses, found, texts, profile.metric(scoring.language))
        doubts = _doubts(counts, found, expected, texts)
        facts = {"hypotheses": hypotheses.path, **measured(tallies[name], utterances), **counts}
        entries[name] = facts | {"warnings": doubts, "hotwords": _hotwords(scoring, expected, texts, speakers)}
    return {
        "references": references.path,
        "utterances": len(utterances),
        "language": scoring.language,
        "profile": profile.facts(),
        "metric": profile.metric(scoring.language),
        "jiwer": version("jiwer"),
        "bootstrap": {"resamples": bootstrap.NUM_RESAMPLES, "seed": bootstrap.SEED, "level": bootstrap.LEVEL},
        "systems": entries,
        "comparisons": _comparisons(tallies, speakers),
    }


def _hotwords(
    scoring: Scoring, expected: Sequence[str], texts: Sequence[str], speakers: Sequence[str]
) -> dict[str, Any] | None:
    if not scoring.hotwords:
        return None
    metric = scoring.profile.metric(scoring.language)
    return hotword_summary(count_hotwords(scoring.hotwords, expected, texts, metric), speakers)


def _transcripts(hypotheses: Transcripts, found: Pairing, texts: Sequence[str], metric: str) -> dict[str, Any]:
    """Count transcripts, without those that are missing. None: not reported."""
    missing = set(found.missing)
    present = {identity: text for identity, text in zip(found.texts, texts, strict=True) if identity not in missing}
    stopped = [hypotheses.stopped.get(identity) for identity in present]
    looping = [ends_in_loop(tokens(text, metric)) for text in present.values()]
    return {
        **transcript_counts(list(present.values()), stopped, looping),
        "missing_hypotheses": len(missing),
        "missing_examples": found.missing[:EXAMPLES],
        "ignored_words": found.ignored_words,
    }


def _doubts(counts: Mapping[str, Any], found: Pairing, expected: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Return what the error rate does not show, one clause each."""
    doubts, missing = [], set(found.missing)
    if missing:
        examples = ", ".join(counts["missing_examples"])
        doubts.append(
            f"{len(missing)} of {len(texts)} utterances have no hypothesis, such as {examples}; their words count as "
            "deletions"
        )
    if counts["ignored_words"]:
        doubts.append(f"{counts['ignored_words']} words are in segments that are not scored")
    kept = [(t, r) for i, t, r in zip(found.texts, texts, expected, strict=True) if i not in missing]
    if repeated := collapsed([text for text, _ in kept], [reference for _, reference in kept]):
        doubts.append(f"transcripts hardly depend on the audio: {repeated}")
    return doubts


def _comparisons(tallies: Mapping[str, Tally], speakers: Sequence[str]) -> list[dict[str, Any]]:
    """Compare each two systems. The difference is that of the later one from the earlier one."""
    return [
        {"system": other, "from": name, **compare(tallies[other], tallies[name], speakers)}
        for name, other in combinations(tallies, 2)
    ]

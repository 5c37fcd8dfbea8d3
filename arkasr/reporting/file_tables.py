"""The tables of `arkasr score --ref REF --hyp HYP`, for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from arkasr.reporting.markdown import aligned, format_number
from arkasr.reporting.uncertainty import FEW_SPEAKERS, format_p

WIDTH = 80
UNITS = {"wer": "words", "cer": "characters", "mer": "characters and words"}


def table(found: Mapping[str, Any]) -> str:
    """Format the scores of systems.

    Args:
        found: Return value of `arkasr.reporting.file_scores.scores`.

    Returns:
        A title, then tables of error rates, counts, comparisons, hotwords, durations, conditions and clips without
        speech, as far as there are some, then notes.
    """
    systems = found["systems"]
    parts = [
        _title(found),
        _rates(found),
        _counts(found),
        _comparisons(found["comparisons"]),
        _hotwords(systems),
        *(_classes(systems, kind) for kind in ("duration", "condition")),
        _silence(systems),
        _notes(systems),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _title(found: Mapping[str, Any]) -> list[str]:
    profile, first = found["profile"], next(iter(found["systems"].values()))
    sizes = f"{found['utterances']} utterances, {first['reference_length']} {UNITS[found['metric']]}"
    speakers = f", {first['speakers']} speakers" if first["speakers"] else ""
    language = f", {found['language']}" if found["language"] else ""
    packages = "".join(f", {name} {version}" for name, version in profile["packages"].items())
    text = (
        f"{found['references']}: {sizes}{speakers}{language}. Profile {profile['name']} {profile['version']}{packages}."
    )
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _pair(pair: Sequence[float] | None, sign: str = "") -> str:
    return "-" if pair is None else " to ".join(format_number(value, sign=sign) for value in pair)


def _rates(found: Mapping[str, Any]) -> list[str]:
    lines = [["", f"{found['metric'].upper()} %", "95 % by utterance", "95 % by speaker", "wrong utt. %"]]
    for name, entry in found["systems"].items():
        pairs = [_pair(entry[key]) for key in ("interval_percent", "interval_by_speaker_percent")]
        wrong = format_number(entry["utterance_error_percent"], 1)
        lines.append([name, format_number(entry["rate_percent"]), *pairs, wrong])
    return aligned(lines, 1)


def _counts(found: Mapping[str, Any]) -> list[str]:
    lines = [["", "sub %", "del %", "ins %", "empty", "looping", "cut", "missing"]]
    for name, entry in found["systems"].items():
        keys = ("substitutions", "deletions", "insertions")
        shares = [format_number(100 * entry[key] / entry["reference_length"]) for key in keys]
        numbers = [entry[key] for key in ("empty_hypotheses", "looping", "not_stopped", "missing_hypotheses")]
        lines.append([name, *shares, *("-" if number is None else str(number) for number in numbers)])
    return aligned(lines, 1)


def _comparisons(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the differences of the systems, with p values of matched pairs and of the bootstrap."""
    lines = [["", "points", "95 % by utterance", "95 % by speaker", "p pairs", "p boot."]]
    for each in comparisons:
        pairs = [_pair(each[key], "+") for key in ("interval_percent", "interval_by_speaker_percent")]
        tests = [format_p(each[key]) for key in ("p_matched_pairs", "p_bootstrap")]
        points = format_number(each["difference_percent"], sign="+")
        lines.append([f"{each['system']} - {each['from']}", points, *pairs, *tests])
    return aligned(lines, 1) if comparisons else []


def _hotwords(systems: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [["hotwords", "spoken", "recall %", "95 %", "leaks", "leak %", "95 %"]]
    for name, entry in systems.items():
        if found := entry["hotwords"]:
            lines.append([name, str(found["spoken"]), *_with_interval(found, "recall")])
            lines[-1] += [str(found["utterances_with_leak"]), *_with_interval(found, "leak")]
    return aligned(lines, 1) if len(lines) > 1 else []


def _hotword_examples(found: Mapping[str, Any] | None) -> str:
    """Return which hotwords were added or missed most often."""
    kinds = {"added hotwords": "most_leaked", "missed": "most_missed"}
    lists = [(kind, found[key]) for kind, key in kinds.items() if found[key]] if found else []
    texts = [f"{kind}: {', '.join(f'{word} ({number})' for word, number in words.items())}." for kind, words in lists]
    return " ".join([*texts[:1], *(text[0].upper() + text[1:] for text in texts[1:])])


def _with_interval(found: Mapping[str, Any], share: str) -> list[str]:
    return [format_number(found[f"{share}_percent"]), _pair(found[f"{share}_interval_percent"])]


def _classes(systems: Mapping[str, Mapping[str, Any]], kind: str) -> list[str]:
    """Return the error rates of the classes of a breakdown, one column per system."""
    rows = [{row["label"]: row for row in entry["breakdown"].get(kind, ())} for entry in systems.values()]
    if not rows[0]:
        return []
    lines = [[kind, "utterances", *(f"{name} %" for name in systems)]]
    for label, row in rows[0].items():
        lines.append([label, str(row["utterances"]), *(format_number(each[label]["rate_percent"]) for each in rows)])
    return aligned(lines, 1)


def _silence(systems: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [["empty references", "clips", "with words", "words", "per minute"]]
    for name, entry in systems.items():
        if found := entry["hallucination"]:
            numbers = [str(found[key]) for key in ("clips", "clips_with_words", "words")]
            lines.append([name, *numbers, format_number(found["words_per_minute"], 1)])
    return aligned(lines, 1) if len(lines) > 1 else []


def _notes(systems: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = [f"! {name}: {clause}." for name, entry in systems.items() for clause in entry["warnings"]]
    notes += [f"{name}: {text}" for name, entry in systems.items() if (text := _hotword_examples(entry["hotwords"]))]
    speakers = next(iter(systems.values()))["speakers"]
    if speakers and speakers < FEW_SPEAKERS:
        notes.append(f"Few speakers ({speakers}): intervals by speaker are too narrow, or missing with one speaker.")
    elif not speakers:
        notes.append("Not all speakers are known, so there is no interval by speaker (see --utt2spk).")
    return [textwrap.fill(note, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for note in notes]

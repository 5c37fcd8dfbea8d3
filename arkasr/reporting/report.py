"""RESULTS.md: the tables of results, with what is needed to read and to reproduce them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting import breakdown_tables, changes, report_facts, tables, uncertainty, vuss_table
from arkasr.reporting.profile_scores import not_scored
from arkasr.reporting.profile_table import by_profile
from arkasr.reporting.report_commands import commands
from arkasr.reporting.report_facts import Metrics, RunRecords
from arkasr.reporting.report_sets import corpora, test_sets
from arkasr.reporting.shown_sets import is_miniature, title
from arkasr.reporting.tables import Scores

UNITS = {"wer": "words", "cer": "characters", "mer": "words and Chinese characters"}
MINI = """\
**Miniature scale.** Small models, little data and small test sets, with the same recipe as at paper scale. The error
rates are not comparable to the paper's."""
MINI_COLUMNS = "The columns marked `paper` are shown to compare the pattern."
PAPER_COLUMNS = """\
The columns marked `paper` hold the paper's published numbers. The paper does not fully describe its normaliser."""
OWN_CORPUS = "This corpus is not in the paper, so there are no columns with the paper's numbers."
WARNINGS = """\
Error rates marked (!) in the tables below are doubtful:"""
READING = """\
Error rates in percent (lower is better): all errors of a test set divided by all its reference {units}. Brackets hold
the 95 % bootstrap interval over the utterances of the test set. It does not include variation between seeds."""
PROFILES = """\
The same transcripts under the rules of each scoring profile. The first profile of a test set is the one of all other
tables. `paper` has the rules of the published script without its defects. docs/scoring.md describes all profiles.
Figures of different profiles cannot be compared."""
CHANGE = """\
Relative change of the error rate. In parentheses: the difference in points with its paired 95 % bootstrap interval
(both runs on the same resampled utterances). An interval that excludes 0 indicates a real difference on such speech.
Gap recovery: the share of the gap between Base and the teacher that the run closed. It is shown only where the
interval of the teacher's difference from Base is below 0."""
UNCERTAINTY = """\
95 % bootstrap intervals: by utterance, which assumes that utterances are independent, and by speaker, which draws whole
speakers and therefore covers other speakers too."""
SIGNIFICANCE = """\
Difference from Base in points, on the same utterances or speakers. p: probability of a difference at least as large if
both systems were equally good, two-sided, by matched pairs (Gillick and Cox, the segments are the utterances) and by
the paired bootstrap (at least 0.002). A series of tests finds one in twenty by chance at p < 0.05."""
SILENCE = """\
Clips with an empty reference hold silence or noise. All that is recognised in them is an error."""
VUSS = """\
Valid union support size: the number of valid tokens in the union of the teacher's and the student's top k, at most 2k.
Smaller means more overlap. Each logged step is the mean over its positions. Mean, min and max are over the steps."""
VUSS_PLACES = """\
By tenth of the transcript, and at the words of the student's own transcripts that are correct and wrong when they are
aligned with the reference. Clips without a reference are in neither of these two. docs/metrics.md defines them."""
COUNTS = """\
Corr to Err: percentages of the reference {units} ({unit}). S.Err: percentage of utterances (Snt) with an error. The
split of the errors into substitutions, deletions and insertions depends on the aligner. jiwer, kaldialign and sclite
split some utterances differently, but nearly always agree on the total. Utterances with an empty reference: {empty}.
What is recognised in them counts as insertions."""
TRANSCRIPTS = """\
Not decoded: clips without a transcript, whose words count as deletions. Cut off: no stop token within the token cap.
Looping: the transcript ends in a pattern of at most 24 tokens that is repeated four times or more. Distinct: different
transcripts after normalisation. Most frequent: clips with the most frequent transcript. A dash: not reported."""
AGREEMENT = """\
Equal in float32: a sample of clips of runs that were decoded in bfloat16 was decoded again in float32, with the same
weights. The column shows how many transcripts are equal."""


def _figures(expdir: str, drawn: Sequence[Path]) -> str:
    return "\n\n".join(f"![{path.stem.replace('_', ' ')}]({os.path.relpath(path, expdir)})" for path in drawn)


def sections(
    expdir: str,
    datadir: str,
    sets: Sequence[TestSet],
    scores: Scores,
    metrics: Metrics,
    records: RunRecords,
    drawn: Sequence[Path],
) -> list[list[str]]:
    """Build the sections of RESULTS.md. `report.html` shows the same ones.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        sets: The test sets, in the order of the tables.
        scores: Content of scores.json by run.
        metrics: Training rows by run.
        records: Content of run.json by run, with the configuration under "config".
        drawn: Paths of the figures, in `expdir`.

    Returns:
        Markdown parts of each section, the first of which is its heading. A section without content is left out.
    """
    mini, paper = is_miniature(sets), bool(paper_numbers.columns(sets))
    units = _in_words(sets)
    change = [changes.changes(sets, scores), *changes.gap_notes(sets, scores)]
    top_k = {
        run: report_facts.setting(record.get("config"), report_facts.SETTINGS["top-k"])
        for run, record in records.items()
    }
    agreement = [AGREEMENT] if tables.has_agreement(scores) else []
    seeds = {run: [rows] for run, rows in metrics.items()}
    vuss, places = vuss_table.overall(seeds, top_k, paper), vuss_table.by_place(seeds)
    counts = COUNTS.format(units=units, unit=tables.units(sets), empty=_empty_references(sets, scores))
    data = corpora(datadir, sets)
    found = [
        (f"# Results: {title(sets)}{', miniature' if mini else ''}", *_introduction(mini, paper)),
        ("## Environment", report_facts.environment(scores, records)),
        ("## Warnings", WARNINGS, warnings) if (warnings := _warnings(scores)) else (),
        ("## Table 1: error rates", READING.format(units=units), tables.error_rates(sets, scores)),
        ("### Scoring profiles", PROFILES, profiles) if (profiles := _profiles(sets, scores)) else (),
        ("### Test sets", test_sets(sets, scores)),
        ("### Change from Base", CHANGE, *change) if change[0] else (),
        *_uncertainty(sets, scores),
        ("## Table 2: VUSS during distillation", VUSS, vuss) if vuss else (),
        ("### VUSS by place", VUSS_PLACES, places) if places else (),
        ("## Figures", _figures(expdir, drawn)) if drawn else (),
        ("## Counts", counts, tables.counts(sets, scores)),
        ("### Transcripts", TRANSCRIPTS, *agreement, tables.transcripts(sets, scores)),
        *_parts(sets, scores),
        ("## Corpus", *data) if data else (),
        ("## Runs", report_facts.training_facts(metrics, records), commands(expdir, datadir, sets, scores, records)),
    ]
    return [list(section) for section in found if section]


def _uncertainty(sets: Sequence[TestSet], scores: Scores) -> list[tuple[str, ...]]:
    """Return the sections about intervals and significance."""
    notes = [*uncertainty.few_speakers(sets, scores), *uncertainty.unknown_speakers(sets, scores)]
    found = [("### Intervals by utterance and by speaker", UNCERTAINTY, *notes, uncertainty.intervals(sets, scores))]
    found.append(("### Significance of the change from Base", SIGNIFICANCE, uncertainty.significance(sets, scores)))
    return [section for section in found if section[-1]]


def _parts(sets: Sequence[TestSet], scores: Scores) -> list[tuple[str, ...]]:
    """Return the sections about parts of the test sets."""
    length = f"Clips and length ({_in_words(sets)}) of each class, then the error rate in percent per model."
    found = [
        ("### Silence and noise", SILENCE, breakdown_tables.on_silence(sets, scores)),
        ("### By duration", length, breakdown_tables.by_class(sets, scores, "duration")),
        ("### By condition", length, breakdown_tables.by_class(sets, scores, "condition")),
        ("### By speaker", breakdown_tables.by_speaker(sets, scores)),
    ]
    return [section for section in found if section[-1]]


def markdown(parts: Sequence[Sequence[str]]) -> str:
    """Join sections to the text of RESULTS.md.

    Args:
        parts: Return value of `sections`.

    Returns:
        The Markdown text.
    """
    return "\n\n".join(part for section in parts for part in section) + "\n"


def _in_words(sets: Sequence[TestSet]) -> str:
    metrics = sorted({each.metric for each in sets}, reverse=True)
    if len(metrics) == 1:
        return UNITS[metrics[0]]
    return " or ".join(f"{UNITS[metric]} ({metric.upper()})" for metric in metrics)


def _empty_references(sets: Sequence[TestSet], scores: Scores) -> str:
    entries = {each.name: [c["sets"][each.name] for c in scores.values() if each.name in c["sets"]] for each in sets}
    return ", ".join(f"{name} {found[0]['empty_references']}" for name, found in entries.items())


def _profiles(sets: Sequence[TestSet], scores: Scores) -> str:
    notes = [f"- {reason}." for reason in not_scored(scores)]
    return "\n\n".join(filter(None, [by_profile(sets, scores), "\n".join(notes)]))


def _introduction(mini: bool, paper: bool) -> list[str]:
    if not paper:
        return [MINI, OWN_CORPUS] if mini else [OWN_CORPUS]
    return [f"{MINI} {MINI_COLUMNS}"] if mini else [PAPER_COLUMNS]


def _warnings(scores: Scores) -> str:
    return "\n".join(f"- {where}: {clause}." for where, clause in tables.warnings(scores))

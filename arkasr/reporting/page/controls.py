"""Distilled runs against the controls: runs that were trained on without distillation."""

from __future__ import annotations

from collections.abc import Sequence

from arkasr.reporting.markdown import format_interval
from arkasr.reporting.page.blocks import Paragraph, Section, spans, table
from arkasr.reporting.page.decoded import DecodedSet
from arkasr.reporting.page.experiment import Experiment
from arkasr.reporting.page.rates import verdict
from arkasr.reporting.uncertainty import format_p
from arkasr.scoring.significance import compare

READING = """\
Difference of the error rate from the control in points, with its paired 95 % interval over utterances, the one over
speakers, and the p value of the matched-pairs test. Words and signs are those of the table against Base."""


def section(decoded: Sequence[DecodedSet], experiment: Experiment) -> Section | str:
    """Build the section of the controls.

    Args:
        decoded: The transcripts of each test set.
        experiment: The experiment.

    Returns:
        The section, or why there is none.
    """
    distilled, controls, looks = experiment.distilled, experiment.controls, experiment.looks
    if not distilled or not controls:
        return "it needs a distilled run, and a run other than Base that was trained without distillation"
    rows = [
        [looks[run].title, looks[control].title, *(_cell(each, run, control) for each in decoded)]
        for run in distilled
        for control in controls
    ]
    header = ["Run", "Control", *(f"{each.tested.name} ({each.tested.metric.upper()})" for each in decoded)]
    text = Paragraph(spans(" ".join(READING.split())))
    return Section("Comparison with controls", 3, [text, table(header, rows, [False] * len(header))])


def _cell(decoded: DecodedSet, run: str, control: str) -> str:
    if run not in decoded.tallies or control not in decoded.tallies:
        return "-"
    change = compare(decoded.tallies[run], decoded.tallies[control], decoded.speakers)
    if change["interval_by_speaker_percent"]:
        speakers = f", by speaker{format_interval(change['interval_by_speaker_percent'], sign='+')}"
    else:
        speakers = ""
    return f"{verdict(change)}{speakers}, p {format_p(change['p_matched_pairs'])}"

"""The order of the page: its own sections among those of RESULTS.md, and why some are absent."""

from __future__ import annotations

from collections.abc import Sequence

from arkasr.reporting.page import controls, curves, facts, rates, utterances
from arkasr.reporting.page.audio import AudioClips
from arkasr.reporting.page.blocks import Items, Section, blocks, spans
from arkasr.reporting.page.decoded import read_all
from arkasr.reporting.page.experiment import Experiment

ENVIRONMENT, FIGURES = "Environment", "## Figures"
AFTER_RATES, AFTER_TRAINING = ("Table 2", "Counts"), ("Counts",)  # beginnings of titles of RESULTS.md


def sections(experiment: Experiment, parts: Sequence[Sequence[str]], audio_mib: float) -> tuple[Section, list[Section]]:
    """Build all sections of the page.

    Args:
        experiment: The experiment.
        parts: The sections of RESULTS.md. That of the figures is left out, because the page has charts.
        audio_mib: Maximum size of the audio, in MiB.

    Returns:
        The introduction, and the sections in their order.
    """
    introduction, *found = [_section(part) for part in parts if part[0] != FIGURES]
    decoded, problems = read_all(experiment)
    clips, absent = AudioClips(audio_mib), []
    own: list[tuple[str, Section | str, tuple[str, ...]]] = [
        ("Comparison with controls", controls.section(decoded, experiment), AFTER_RATES),
        ("Error rate by duration, condition and speaker", rates.breakdown(experiment), AFTER_RATES),
        ("Utterances", utterances.section(decoded, problems, experiment, clips), AFTER_RATES),
        ("Training curves", curves.section(experiment.metrics, experiment.looks), AFTER_TRAINING),
        ("Settings", facts.settings(experiment.records), ()),
        ("Cost", facts.cost(experiment.metrics, experiment.records), ()),
    ]
    for name, made, before in own:
        if isinstance(made, str):
            absent.append(f"{name}: {made}.")
        else:
            found.insert(_place(found, before), made)
    found.sort(key=lambda section: section.title == ENVIRONMENT)  # stable: it becomes the last one
    if absent:
        found.append(Section("Not in this page", blocks=[Items([spans(line) for line in absent])]))
    return introduction, [*rates.overview(experiment), *found]


def _section(part: Sequence[str]) -> Section:
    """Read a section of RESULTS.md."""
    marks, _, title = part[0].partition(" ")
    return Section(title, len(marks), list(blocks("\n\n".join(part[1:]))))


def _place(found: Sequence[Section], before: tuple[str, ...]) -> int:
    """Return the index of the first section whose title begins with one of some texts, or the end."""
    places = (index for index, section in enumerate(found) if before and section.title.startswith(before))
    return next(places, len(found))

"""`report.html`: the sections of RESULTS.md with charts, utterances, settings and cost, in one file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from arkasr import __version__
from arkasr.reporting.page.arrange import sections
from arkasr.reporting.page.experiment import Experiment
from arkasr.reporting.page.looks import DARK, LIGHT, styles
from arkasr.utils.files import write_text

NAME = "report.html"
AUDIO_MIB = 8.0  # of all clips in one page
TEMPLATES = Path(__file__).parent / "templates"
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def render(experiment: Experiment, parts: Sequence[Sequence[str]], audio_mib: float = AUDIO_MIB) -> str:
    """Build the page.

    Args:
        experiment: The experiment.
        parts: The sections of RESULTS.md (see `arkasr.reporting.report.sections`).
        audio_mib: Maximum size of the audio in the page, in MiB. 0: none.

    Returns:
        The text of the page. It holds no script, its policy forbids all requests, and texts are escaped.
    """
    introduction, found = sections(experiment, parts, audio_mib)
    template = _environment().get_template("page.html.jinja")
    return template.render(
        introduction=introduction,
        sections=found,
        version=__version__,
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        light=styles(LIGHT),
        dark=styles(DARK),
        slots=len(LIGHT),
    )


def write(experiment: Experiment, parts: Sequence[Sequence[str]], audio_mib: float = AUDIO_MIB) -> Path:
    """Write the page into the experiment directory.

    Args:
        experiment: The experiment.
        parts: See `render`.
        audio_mib: See `render`.

    Returns:
        The path, `<expdir>/report.html`.
    """
    path = Path(experiment.expdir) / NAME
    write_text(path, render(experiment, parts, audio_mib))
    return path


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )


def _clean(value: Any) -> Any:
    """Replace characters that no page may hold: control characters, and halves of surrogate pairs."""
    if not isinstance(value, str) or hasattr(value, "__html__"):  # what macros return
        return value
    return _CONTROLS.sub("\ufffd", value)

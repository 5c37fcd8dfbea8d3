"""Facts in RESULTS.md about the test sets and the corpora: where each set is from, hours, and what was dropped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation.results_io import TestSet, read_corpus_facts
from arkasr.reporting.markdown import format_number, markdown_table
from arkasr.reporting.tables import Scores
from arkasr.utils.console import log

FAR = os.path.join("..", "..")  # from the working directory
USES = {
    "base": "supervised training (Base)",
    "td": "teacher transcripts (TD)",
    "opd": "on-policy distillation (OPD)",
    "teacher": "training of the teacher",
}


def test_sets(sets: Sequence[TestSet], scores: Scores) -> str:
    """Format the table of test sets: language, metric, scoring profile and manifest of each.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Markdown table.
    """
    rows = []
    for each in sets:
        entry = next(content["sets"][each.name] for content in scores.values() if each.name in content["sets"])
        scorer, manifest = entry["profile"], _shown(each.manifest) if entry.get("manifest") else "not recorded"
        cells = [each.corpus or "-", each.language or "-", each.metric.upper()]
        rows.append([each.name, *cells, f"`{scorer['name']}` {scorer['version']}", str(entry["utterances"]), manifest])
    return markdown_table(["Set", "Corpus", "Language", "Metric", "Profile", "Clips", "Manifest"], rows)


def _shown(path: Path) -> str:
    """Return a path relative to the working directory, unless it is far from it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(FAR) else relative


test_sets.__test__ = False  # type: ignore[attr-defined]  # no test, although its name begins like one


def corpora(datadir: str, sets: Sequence[TestSet]) -> list[str]:
    """Describe the data directories of an experiment.

    Args:
        datadir: The present data directory.
        sets: The test sets. Those of --test_sets have no section here.

    Returns:
        Markdown parts: for each directory that is still there, its sets and what the training sets are used for. The
        directory is named if there are several.
    """
    folders = [datadir, *(each.datadir for each in sets if each.datadir and not each.spec)]
    found: dict[Path, str] = {}
    for folder in folders:
        if (Path(folder) / "corpus.json").is_file():
            found.setdefault(Path(folder).absolute(), folder)
    parts = []
    for path, folder in found.items():
        try:
            corpus = read_corpus_facts(path)
        except UserError as error:
            log(f"warning: {error} (left out of RESULTS.md)")
            continue
        if corpus.get("sets"):
            parts += [f"### {corpus['name']}, `{folder}`"] if len(found) > 1 else []
            parts += [corpus_facts(corpus), *([uses] if (uses := _uses(corpus)) else ())]
    return parts


def corpus_facts(corpus: dict[str, Any]) -> str:
    """Format the corpus table: cuts, hours and speakers of each set, and what was dropped and why.

    Args:
        corpus: Content of corpus.json.

    Returns:
        Markdown table. If some set has cuts without a transcript, they have a column.
    """
    sets = corpus.get("sets") or {}
    unknown = any(facts.get("untranscribed") for facts in sets.values())
    rows = []
    for name, facts in sets.items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in sorted((facts.get("dropped") or {}).items()))
        cells = [str(facts.get("cuts", "-")), format_number(facts.get("hours"), 3), _speakers(facts)]
        cells += [str(facts.get("untranscribed") or 0)] if unknown else []
        rows.append([name, *cells, dropped or "none"])
    header = ["Set", "Cuts", "Hours", "Speakers", *(["Without transcript"] if unknown else []), "Dropped"]
    return markdown_table(header, rows)


def _speakers(facts: dict[str, Any]) -> str:
    """Format the number of speakers of a set, with those of a dev or test set who are also in the training set."""
    if not (count := facts.get("speakers")):
        return "-"
    known = facts.get("speakers_in_training")
    return str(count) if known is None else f"{count} ({known} in training)"


def _member(item: tuple[str, dict[str, Any]]) -> str:
    name, facts = item
    return f"{name} {100 * facts['share']:.1f} %" if facts.get("share") else name


def _uses(corpus: dict[str, Any]) -> str:
    """Format what the training cuts are used for. Empty for a corpus that does not say so."""
    uses, sets, rows = corpus.get("uses") or {}, corpus.get("sets") or {}, []
    for use, title in USES.items():
        facts, members = sets.get(use) or {}, (sets.get(use) or {}).get("members")
        if not facts.get("cuts") or not (use in uses or members):
            continue
        source = ", ".join(map(_member, members.items())) if members else _share(uses[use].get("from"))
        counts = [str(facts["cuts"]), str(facts.get("untranscribed") or 0)]
        rows.append([title, use, source, format_number(facts.get("hours"), 3), *counts])
    header = ["Used for", "Set", "From", "Hours", "Cuts", "Without transcript"]
    return markdown_table(header, rows) if rows else ""


def _share(value: Any) -> str:
    """Describe a value of the section `use` of corpus.yaml."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{100 * value:g} % of the transcribed cuts" if isinstance(value, int | float) else str(value or "-")

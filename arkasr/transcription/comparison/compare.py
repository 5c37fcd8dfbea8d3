"""`arkasr transcribe FILE ... --model A --model B --reference REF`: several models on the same files."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation.transcribers import quiet_transformers
from arkasr.transcription.comparison.measure import File, Rules, measures
from arkasr.transcription.comparison.names import named_models
from arkasr.transcription.comparison.references import References, read_references
from arkasr.transcription.comparison.side_by_side import side_by_side
from arkasr.transcription.engine import transcribe_all
from arkasr.transcription.recognizer import Recognizer, place
from arkasr.transcription.results import Failed, Transcription
from arkasr.transcription.settings import Settings
from arkasr.transcription.sources import STDIN, Source, find_sources
from arkasr.utils.console import Progress, printable

Results = Mapping[str, Sequence[Transcription | Failed]]


@dataclass(frozen=True)
class System:
    """What transcribes: a model, or a teacher plugin.

    Attributes:
        model: Folder or Hub id, or "".
        teacher: PLUGIN:PATH, or "".
    """

    model: str = ""
    teacher: str = ""


def named_systems(models: Sequence[str], teachers: Sequence[str]) -> dict[str, System]:
    """Name models and teacher plugins.

    Args:
        models: Folders or Hub ids, each as NAME=MODEL or MODEL.
        teachers: Teacher plugins, each as NAME=PLUGIN:PATH or PLUGIN:PATH.

    Returns:
        The systems by name (see `named_models`).

    Raises:
        UserError: A model or a name comes twice.
    """
    named = list(named_models([*models, *teachers]).items())
    systems = {name: System(model=model) for name, model in named[: len(models)]}
    return systems | {name: System(teacher=teacher) for name, teacher in named[len(models) :]}


def compare(
    paths: Sequence[str],
    systems: Mapping[str, System],
    references: Sequence[str],
    settings: Settings,
    as_json: bool = False,
    device: str = "auto",
    dtype: str = "auto",
) -> int:
    """Transcribe files with several models, one after another, and print their texts below each other.

    Args:
        paths: See `find_sources`.
        systems: The models by name.
        references: See `read_references`.
        settings: The options.
        as_json: Print JSON.
        device: See `Recognizer.load`.
        dtype: See `Recognizer.load`.

    Returns:
        The number of files that failed with at least one model.

    Raises:
        UserError: An option is wrong, a model cannot be loaded, or the references do not belong to the files.
    """
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        sources = find_sources(paths, settings.language)
        if len(systems) > 1 and any(source.name == STDIN for source in sources):
            raise UserError(f"{STDIN}: standard input can be read once, but there are several models; name a file")
        read = read_references(references, sources)
        device, dtype = place(device, dtype)
        loaded = {name: _loaded(system, settings, device, dtype) for name, system in systems.items()}
        results = {name: _results(name, recognizer, sources, settings) for name, recognizer in loaded.items()}
        found = comparison(systems, results, read)
    text = json.dumps(found, indent=2, ensure_ascii=False) if as_json else side_by_side(found, stdout)
    print(printable(text) if as_json and stdout.isatty() else text)
    return len({each["name"] for each in found["failed"]})


def _loaded(system: System, settings: Settings, device: str, dtype: str) -> Recognizer:
    """Load a model. All are loaded before the first one transcribes, so that a wrong one wastes no work."""
    quiet_transformers()
    recognizer = Recognizer.load(system.model, system.teacher, device, dtype)
    recognizer.check_hotwords(settings.hotwords, settings.hotword_weight)
    return recognizer


def _results(
    name: str, recognizer: Recognizer, sources: Sequence[Source], settings: Settings
) -> list[Transcription | Failed]:
    found = []
    with Progress(name, len(sources), "files") as bar:
        for result in transcribe_all(recognizer, sources, settings):
            found.append(result)
            bar.update()
    return found


def comparison(systems: Mapping[str, System], results: Results, references: References) -> dict[str, Any]:
    """Compare the results of models on N files.

    Args:
        systems: The models by name.
        results: N results by name of the model.
        references: N references.

    Returns:
        What `--format json` prints: `models` (by name its `model` and its error rate, see `measures`), `comparisons`,
        `language`, `profile`, `metric`, `files` (of those that all models transcribed), `without_reference` (names),
        `unused_references` (ids), and `failed` (name, model and reason).
    """
    files, failed = [], []
    for utterance, *each in zip(references.utterances, *results.values(), strict=True):
        named = dict(zip(results, each))
        failures = {name: result for name, result in named.items() if isinstance(result, Failed)}
        wrong = [{"name": each.name, "model": name, "reason": each.reason} for name, each in failures.items()]
        failed += wrong
        if not wrong:
            files.append(File(each[0].name, each[0].seconds, {name: r.text for name, r in named.items()}, utterance))
    done = [r for r in next(iter(results.values())) if isinstance(r, Transcription)]
    rules = Rules([result.language for result in done] or [""])
    measured = measures(files, list(systems), rules)
    return {
        "models": {
            name: {"model": system.model or system.teacher, "score": measured["models"][name]}
            for name, system in systems.items()
        },
        "comparisons": measured["comparisons"],
        "language": rules.language,
        "profile": rules.profile.facts(),
        "metric": rules.metric,
        "files": [_entry(file, i, measured, rules) for i, file in enumerate(files)],
        "without_reference": [file.name for file in files if file.reference is None],
        "unused_references": list(references.unused),
        "failed": failed,
    }


def _entry(file: File, index: int, measured: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """Return what is known of one file. Its alignments are those with the reference, or with the first model."""
    has_reference = file.reference is not None
    first = file.reference.text if file.reference is not None else next(iter(file.texts.values()))
    others = list(file.texts) if has_reference else list(file.texts)[1:]
    alignments = dict(zip(others, rules.aligned(first, [file.texts[name] for name in others])))
    return {
        "name": file.name,
        "seconds": round(file.seconds, 3),
        "reference": file.reference.text if file.reference is not None else None,
        "texts": dict(file.texts),
        "errors": {name: errors[index] for name, errors in measured["errors"].items()} if has_reference else None,
        "alignments": {name: [list(edit) for edit in edits] for name, edits in alignments.items()},
    }

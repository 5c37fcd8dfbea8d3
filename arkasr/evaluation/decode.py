"""`arkasr decode`: transcribe test sets with trained runs and with the teacher."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from arkasr.config.load import read_config
from arkasr.config.schema import Config
from arkasr.data.batches import Batch, evaluation_batches
from arkasr.data.manifests import read_cuts
from arkasr.errors import UserError
from arkasr.evaluation.hypotheses import row, transcribe
from arkasr.evaluation.results_io import read_corpus_facts
from arkasr.model.loading import load_speech_lm
from arkasr.plugins import registry
from arkasr.utils.console import Progress, log

Transcriber = Callable[[Batch], list[dict[str, Any]]]


def decode(expdir: str, datadir: str, runs: list[str]) -> None:
    """Transcribe every test set with every run and write `<expdir>/<run>/decode/<set>.jsonl`.

    Existing files are kept. A partial file is resumed.

    Args:
        expdir: Experiment directory with one folder per run.
        datadir: Prepared data directory with `corpus.json` and one manifest per test set.
        runs: Names of the runs. The name `teacher` selects the teacher plugin of a distilled run in `expdir`.

    Raises:
        UserError: A run does not exist or is not trained, or no run names a teacher.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for run in runs:
        folder = Path(expdir) / run
        if run == "teacher":
            config = _config_with_teacher(Path(expdir))
        elif (folder / "config.yaml").is_file():
            config = read_config(folder / "config.yaml")
        else:
            raise UserError(f"{folder}: no such run (no config.yaml); train it with --stage 3")
        create = partial(teacher_transcriber, config) if run == "teacher" else partial(_run_transcriber, folder, config)
        transcriber = cache(create)
        for name in read_corpus_facts(datadir)["test_sets"]:
            manifest, target = Path(datadir) / f"{name}.jsonl.gz", folder / "decode" / f"{name}.jsonl"
            write_hypotheses(manifest, target, transcriber, config.decode.max_seconds, f"decode {run} {name}")


def teacher_transcriber(config: Config) -> Transcriber:
    """Create the teacher plugin and return a function that transcribes batches with it.

    Args:
        config: Run configuration. Its `teacher` section names the plugin and its options.

    Returns:
        Function from one batch to its hypothesis rows (see `row`). `num_tokens`, `stopped` and `looping` are None.
    """
    teacher = registry.create("teacher", config.teacher.name, config.teacher.options, device=_device())

    def transcriber(batch: Batch) -> list[dict[str, Any]]:
        texts = teacher.transcribe(batch.waveforms, batch.languages)
        return [row(batch, i, text) for i, text in enumerate(texts)]

    return transcriber


def write_hypotheses(
    manifest: Path, target: Path, transcriber: Callable[[], Transcriber], max_seconds: float, name: str
) -> None:
    """Transcribe a manifest into a hypothesis file, one JSON row per clip.

    Rows are written to `<target>.part` first. An interrupted call resumes from the rows in that file.

    Args:
        manifest: Manifest of cuts.
        target: Hypothesis file to write. If it exists, nothing is done.
        transcriber: Returns the function that transcribes batches. It is not called before the first batch with clips,
            so that no model is loaded without need.
        max_seconds: Maximum audio seconds per batch, padding included.
        name: Label of the progress line.
    """
    if target.is_file():
        log(f"{target}: already exists")
        return
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    finished = _finished_ids(part)
    total = sum(1 for _ in read_cuts(str(manifest)))
    with part.open("a", encoding="utf-8") as file, Progress(name, total, "clips", initial=len(finished)) as progress:
        for batch in evaluation_batches(str(manifest), max_seconds, finished):
            for hypothesis in transcriber()(batch) if batch.ids else []:
                file.write(json.dumps(hypothesis, ensure_ascii=False) + "\n")
            file.flush()
            progress.update(len(batch.ids) + batch.num_failed)
    os.replace(part, target)
    _log_counts(target)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _run_transcriber(folder: Path, config: Config) -> Transcriber:
    if not (folder / "final" / "config.json").is_file():
        raise UserError(f"{folder / 'final'}: no trained model here; run the recipe with --stage 3 first")
    lm, settings = load_speech_lm(str(folder / "final"), device=_device()), config.decode
    return lambda batch: transcribe(lm, batch, settings)


def _config_with_teacher(expdir: Path) -> Config:
    for saved in sorted(expdir.glob("*/config.yaml")):
        config = read_config(saved)
        if config.objective == "opd":
            return config
    raise UserError(
        f"{expdir}: no distilled run names a teacher to decode with; train base_opd, or remove `teacher` from --runs"
    )


def _finished_ids(part: Path) -> set[str]:
    """Return the ids in a partial hypothesis file and remove an incomplete last line from it."""
    if not part.is_file():
        return set()
    lines = [line for line in part.read_text(encoding="utf-8").split("\n") if line.endswith("}")]
    part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {json.loads(line)["id"] for line in lines}


def _log_counts(path: Path) -> None:
    """Log how many transcripts are looping or cut at the token cap, if the transcriber reports it."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    looping, stopped = ([row.get(key) for row in rows] for key in ("looping", "stopped"))
    if None not in (*looping, *stopped):
        log(f"{path}: {len(rows)} clips, {looping.count(True)} looping, {stopped.count(False)} cut at the token cap")

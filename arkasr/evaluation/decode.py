"""Transcribe test sets with trained runs and with the teacher, and the teacher-data subset for adaptation."""

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
from arkasr.config.schema import Config, DecodeConfig
from arkasr.data.batches import Batch, evaluation_batches
from arkasr.data.manifests import read_cuts
from arkasr.errors import UserError
from arkasr.evaluation.hypotheses import row, transcribe
from arkasr.evaluation.results_io import read_corpus_facts
from arkasr.model.loading import load_speech_lm
from arkasr.plugins import registry
from arkasr.utils.console import Progress, log

Transcriber = Callable[[Batch], list[dict[str, Any]]]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def by_teacher(config: Config) -> Transcriber:
    teacher = registry.create("teacher", config.teacher.name, config.teacher.options, device=_device())

    def transcriber(batch: Batch) -> list[dict[str, Any]]:
        texts = teacher.transcribe(batch.waveforms, batch.languages)
        return [row(batch, i, text) for i, text in enumerate(texts)]

    return transcriber


def _by_run(folder: Path, decode: DecodeConfig) -> Transcriber:
    if not (folder / "final" / "config.json").is_file():
        raise UserError(f"{folder / 'final'}: no trained model here; run the recipe with --stage 3 first")
    lm = load_speech_lm(str(folder / "final"), device=_device())
    return lambda batch: transcribe(lm, batch, decode)


def write_hypotheses(
    manifest: Path, target: Path, transcriber: Callable[[], Transcriber], max_seconds: float, name: str
) -> None:
    """Transcribe a manifest into `target`, clip by clip; what an interrupted call wrote is kept and carried on.

    transcriber: called for every batch that has clips, so that no model is loaded for none.
    """
    if target.is_file():
        log(f"{target}: already there")
        return
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    done = _finished(part)
    total = sum(1 for _ in read_cuts(str(manifest)))
    with part.open("a", encoding="utf-8") as file, Progress(name, total, "clips", initial=len(done)) as progress:
        for batch in evaluation_batches(str(manifest), max_seconds, done):
            for made in transcriber()(batch) if batch.ids else []:
                file.write(json.dumps(made, ensure_ascii=False) + "\n")
            file.flush()
            progress.update(len(batch.ids) + batch.num_failed)
    os.replace(part, target)
    _tell(target)


def _tell(path: Path) -> None:
    """Log how many transcripts of a hypothesis file are odd, where the transcriber tells."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    looping, stopped = ([row.get(key) for row in rows] for key in ("looping", "stopped"))
    if None not in (*looping, *stopped):
        log(f"{path}: {len(rows)} clips, {looping.count(True)} looping, {stopped.count(False)} cut at the cap")


def _finished(part: Path) -> set[str]:
    """Return the ids in a partial file, dropping a last line cut short by a kill."""
    if not part.is_file():
        return set()
    lines = [line for line in part.read_text(encoding="utf-8").split("\n") if line.endswith("}")]
    part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {json.loads(line)["id"] for line in lines}


def _config_with_teacher(expdir: Path) -> Config:
    for saved in sorted(expdir.glob("*/config.yaml")):
        config = read_config(saved)
        if config.objective == "opd":
            return config
    raise UserError(
        f"{expdir}: no distilled run names a teacher to decode with: train base_opd, or leave teacher out of --runs"
    )


def decode(expdir: str, datadir: str, runs: list[str]) -> None:
    """Transcribe every test set with every run in `<expdir>/<run>/decode/`; the run `teacher` is the teacher plugin."""
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
        making = partial(by_teacher, config) if run == "teacher" else partial(_by_run, folder, config.decode)
        transcriber = cache(making)
        for name in read_corpus_facts(datadir)["test_sets"]:
            manifest, target = Path(datadir) / f"{name}.jsonl.gz", folder / "decode" / f"{name}.jsonl"
            write_hypotheses(manifest, target, transcriber, config.decode.max_seconds, f"decode {run} {name}")

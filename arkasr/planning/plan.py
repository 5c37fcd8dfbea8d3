"""What a run will need before it is started; docs/plan.md explains the model. No weights are read or downloaded."""

from __future__ import annotations

import json
import re
import textwrap
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

from transformers.utils import logging as transformers_logging

from arkasr.config.load import load_config
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.model.build import fresh_config, student_sizes
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS
from arkasr.planning import flops
from arkasr.planning.forecast import (
    TERA,
    Assumptions,
    Known,
    batch_of,
    compares_all,
    load_of,
    memory_of,
    seconds_of,
    work_of,
)
from arkasr.planning.model_sizes import bare, config_folder, count, read_outline
from arkasr.plugins import registry

EXPDIR, DATADIR = "{expdir}", "{datadir}"  # stay as they are: which folders a run uses makes no difference here


def _known(config: Any, source: str) -> Known:
    return Known(config, count(bare(config)), source)


def _vocab_size(config: Config) -> int:
    """Ids of the tokenizer of a fresh model; a decoder brings its own, whose rows suffice."""
    settings = config.tokenizer
    if settings.path and not config.model.decoder and "vocab_size" not in config.model.sizes.get("text", {}):
        raise UserError(f"tokenizer.path {settings.path}: give model.sizes.text.vocab_size, its number of tokens")
    if config.model.decoder:
        return 0
    pieces = 257 + settings.vocab_size + len(ARK_TOKENS)
    return pieces if settings.kind == "sentencepiece" else settings.vocab_size + len(QWEN_TOKENS)


def _at(conf: str, path: str) -> Known:
    """Outline the model at a path: a folder, a Hub id, or what another run of the same conf will write there."""
    if run := re.fullmatch(r"\{expdir\}/([^/]+)/final/?", path):
        found = student_of(conf, load_config(conf, run[1], EXPDIR, DATADIR))
        return replace(found, source=f"run {run[1]}: {found.source}")
    return _known(*read_outline(path))


def student_of(conf: str, config: Config) -> Known:
    """Outline the model that a run of `conf` trains."""
    if config.model.path:
        return _at(conf, config.model.path)
    folders, sources = {}, []
    with ExitStack() as stack:
        for part in ("encoder", "decoder"):
            if path := getattr(config.model, part):
                folders[part], source = stack.enter_context(config_folder(path))
                sources.append(f"{path}: {source}")
        sizes = student_sizes(replace(config.model, **folders), _vocab_size(config))
    made = fresh_config(config.model.type, sizes, _vocab_size(config))
    return _known(made, "; ".join(sources) or "model.sizes")


def _with_ctc_head(student: Known, weight: float) -> Known:
    """Add the auxiliary head, which a run trains beside the adapter and does not export."""
    text, counts = student.config.text_config, student.counts
    more = (text.vocab_size + 1) * (text.hidden_size + 1) if weight else 0
    return replace(student, counts=replace(counts, adapter=counts.adapter + more, outside=counts.outside + more))


def teacher_of(conf: str, config: Config) -> Known | None:
    """Outline the teacher, if its plugin has an option `path`; another computes elsewhere, as far as is known here."""
    if config.objective == "sft":
        return None
    path = getattr(registry.check_plugin("teacher", config.teacher.name, config.teacher.options), "path", "")
    return _at(conf, path) if path else None


def forecast(conf: str, config: Config, given: Assumptions) -> dict[str, Any]:
    """Return all numbers of a plan by name; bytes in GiB a GPU, work in TFLOP of one GPU, times in seconds."""
    student, teacher = _with_ctc_head(student_of(conf, config), config.train.ctc_weight), teacher_of(conf, config)
    kinds = student.config.model_type, teacher.config.model_type if teacher else ""
    batch = batch_of(config, given, cap=False)
    prompts = flops.PROMPT[kinds[0]], flops.PROMPT.get(kinds[1], 0)
    load = load_of(batch, config.train.accumulate, prompts, config.objective == "opd")
    work = work_of(config, student.config, teacher.config if teacher else None, load, compares_all(config))
    seconds = seconds_of(config, given, student, work)
    step, hours = sum(seconds.values()), load.seconds * given.gpus / 3600
    corpus = given.hours or config.data.hours
    return {
        "run": config.run,
        "objective": config.objective,
        "assumptions": asdict(given),
        "student": {"source": student.source, "parameters": asdict(student.counts) | {"total": student.counts.total}},
        "teacher": teacher and {"source": teacher.source, "parameters": {"total": teacher.counts.total}},
        "memory_gib": memory_of(config, given, student, teacher),
        "tflop": {name: flops / TERA for name, flops in work.items()},
        "seconds": seconds,
        "step": {
            "seconds": step,
            "clips": load.clips * given.gpus,
            "audio_seconds": load.seconds * given.gpus,
            "tokens": load.tokens * given.gpus,
            "mfu": sum(work.values()) / (step * given.tflops * TERA),
        },
        "all": {
            "steps": config.train.steps,
            "hours": config.train.steps * step / 3600,
            "gpu_hours": config.train.steps * step / 3600 * given.gpus,
            "audio_hours": config.train.steps * hours,
            "tokens": config.train.steps * load.tokens * given.gpus,
            "steps_an_epoch": corpus / hours if corpus else None,
            "epochs": config.train.steps * hours / corpus if corpus else None,
        },
    }


def plan(conf: str, run: str, overrides: list[str], assumptions: dict[str, float], as_json: bool) -> None:
    """Print what a run will need. Raises UserError for a configuration that is wrong or models that are not known."""
    transformers_logging.set_verbosity_error()
    config = load_config(conf, run, EXPDIR, DATADIR, overrides)
    made = forecast(conf, config, Assumptions(**assumptions))
    print(json.dumps(made, indent=1) if as_json else "\n".join(table(made)))


def table(made: dict[str, Any]) -> list[str]:
    """Return a plan as lines of at most 80 columns."""
    given, whole = made["assumptions"], made["all"]
    lines = [f"run {made['run']} ({made['objective']}), {given['gpus']} GPUs or processes", ""]
    for name in ("student", "teacher"):
        if made[name]:
            size = made[name]["parameters"]["total"] / 1e6
            lines += _wrapped(f"{name}: {size:,.1f} M parameters; {made[name]['source']}")
    lines += ["", *_memory_lines(made), "", *_step_lines(made), ""]
    said = f"{whole['steps']:,} steps: {whole['hours']:,.1f} h, {whole['gpu_hours']:,.0f} GPU hours"
    lines += [f"{said}; {whole['audio_hours']:,.0f} h of audio, {whole['tokens'] / 1e6:,.0f} M tokens"]
    if whole["epochs"] is not None:
        lines += [f"{whole['steps_an_epoch']:,.0f} steps an epoch, {whole['epochs']:.2f} epochs"]
    lines += ["(without loading, evaluation and saving)", ""]
    return lines + _wrapped("assumed: " + ", ".join(f"{name} {value:g}" for name, value in given.items()))


def _memory_lines(made: dict[str, Any]) -> list[str]:
    given, items, peaks = made["assumptions"], made["memory_gib"]["items"], made["memory_gib"]["peaks"]
    worst, room = max(peaks, key=peaks.get), given["gpu_memory"] - given["reserve"]
    factor, unit = (1, "GiB") if peaks[worst] >= 1 else (1024, "MiB")
    lines = [f"{'memory of a GPU: a full batch, transcripts at their caps':<60}{unit:>10}"]
    lines += [f"  {name:<58}{factor * size:>10.2f}" for name, size in items.items() if size]
    lines += [f"  {'peak in ' + name:<58}{factor * size:>10.2f}" for name, size in peaks.items()]
    fits = "fits" if peaks[worst] <= room else "DOES NOT FIT"
    return [*lines, f"  {fits}: {peaks[worst]:.1f} GiB of {given['gpu_memory']:g} less {given['reserve']:g}"]


def _step_lines(made: dict[str, Any]) -> list[str]:
    work, step = made["tflop"], made["step"]
    factor, unit = (1, "TFLOP") if sum(work.values()) >= 1 else (1000, "GFLOP")
    lines = [f"{'a step: a mean batch':<44}{unit + ' a GPU':>13}{'seconds':>13}"]
    rows = [(name, work[name], took) for name, took in made["seconds"].items()]
    rows += [("all", sum(work.values()), step["seconds"])]
    lines += [f"  {name:<42}{factor * flops:>13.1f}{took:>13.3f}" for name, flops, took in rows]
    said = f"{step['clips']:,.0f} clips, {step['audio_seconds']:,.0f} s of audio, {step['tokens']:,.0f} tokens"
    return [*lines, f"  on all GPUs: {said}; MFU {100 * step['mfu']:.2g} %"]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 80, subsequent_indent="  ", break_long_words=False)

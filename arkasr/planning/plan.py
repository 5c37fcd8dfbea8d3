"""The `plan` verb: predict memory, operations and time of one run. docs/plan.md describes the model.

No weights are read or downloaded.
"""

from __future__ import annotations

import json
import re
import textwrap
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from transformers.utils import logging as transformers_logging

from arkasr.config.load import load_config
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.model.build import fresh_config, student_sizes
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS
from arkasr.planning import flops
from arkasr.planning.assumptions import Assumptions
from arkasr.planning.forecast import (
    TERA,
    ModelOutline,
    batch_shape,
    memory_gib,
    needs_full_distribution,
    phase_seconds,
    step_flops,
    workload,
)
from arkasr.planning.model_sizes import config_folder, count_parameters, meta_model, read_model_config
from arkasr.planning.teacher_size import teacher_size

EXPDIR, DATADIR = "{expdir}", "{datadir}"  # placeholders stay in paths: a plan does not depend on directories


def plan(conf: str, run: str, overrides: list[str], assumptions: dict[str, Any], as_json: bool) -> None:
    """Print the prediction for one run.

    Args:
        conf: Path of the configuration (YAML).
        run: Name of the run in the configuration.
        overrides: Words `section.key=value` that override the configuration.
        assumptions: Fields of `Assumptions` by name.
        as_json: Print JSON instead of a table.

    Raises:
        UserError: The configuration is invalid, or the size of a model cannot be found.
    """
    transformers_logging.set_verbosity_error()
    config = load_config(conf, run, EXPDIR, DATADIR, overrides)
    result = forecast(conf, config, Assumptions(**assumptions))
    print(json.dumps(result, indent=1) if as_json else "\n".join(table(result)))


def forecast(conf: str, config: Config, assumptions: Assumptions) -> dict[str, Any]:
    """Compute all numbers of a plan.

    Args:
        conf: Path of the configuration, for models that other runs of it write.
        config: The run's configuration.
        assumptions: Assumptions about hardware and corpus.

    Returns:
        A JSON-serialisable dictionary. `memory_gib` is in GiB per GPU, `tflop` in TFLOP per GPU and step, `seconds` in
        seconds per step. `step` and `all` hold totals over GPUs, and over the whole run.

    Raises:
        UserError: The configuration is invalid, or the size of a model cannot be found.
    """
    student = _with_ctc_head(student_outline(conf, config), config.train.ctc_weight)
    teacher = teacher_size(config, partial(_outline_at, conf))
    batch = batch_shape(config, assumptions, largest=False)
    prompts = float(flops.PROMPT[student.config.model_type]), 0.0
    load = workload(batch, config.train.accumulate, prompts, config.objective == "opd")
    dense = needs_full_distribution(config)
    teachers = [(model.config, float(flops.PROMPT[model.config.model_type])) for model in teacher.models]
    work = step_flops(config, student.config, teachers, load, dense)
    seconds = phase_seconds(config, assumptions, student, work)
    gpus, steps = assumptions.gpus, config.train.steps
    step_seconds, step_hours = sum(seconds.values()), load.seconds * gpus / 3600
    corpus_hours = assumptions.hours or config.data.hours
    return {
        "run": config.run,
        "objective": config.objective,
        "assumptions": asdict(assumptions),
        "student": {"source": student.source, "parameters": asdict(student.counts) | {"total": student.counts.total}},
        "teacher": teacher.describe(),
        "memory_gib": memory_gib(config, assumptions, student, teacher.models, teacher.memory_gib or 0.0),
        "tflop": {name: operations / TERA for name, operations in work.items()},
        "seconds": seconds,
        "step": {
            "seconds": step_seconds,
            "clips": load.clips * gpus,
            "audio_seconds": load.seconds * gpus,
            "tokens": load.tokens * gpus,
            "mfu": sum(work.values()) / (step_seconds * assumptions.tflops * TERA),
        },
        "all": {
            "steps": steps,
            "hours": steps * step_seconds / 3600,
            "gpu_hours": steps * step_seconds / 3600 * gpus,
            "audio_hours": steps * step_hours,
            "tokens": steps * load.tokens * gpus,
            "steps_per_epoch": corpus_hours / step_hours if corpus_hours else None,
            "epochs": steps * step_hours / corpus_hours if corpus_hours else None,
        },
    }


def student_outline(conf: str, config: Config) -> ModelOutline:
    """Return the outline of the model that a run trains.

    Args:
        conf: Path of the configuration.
        config: The run's configuration.

    Returns:
        Configuration, parameter counts and their source.

    Raises:
        UserError: The size of the model cannot be found.
    """
    if config.model.path:
        return _outline_at(conf, config.model.path)
    folders = {"encoder": config.model.encoder, "decoder": config.model.decoder}
    sources = []
    with ExitStack() as stack:
        for part, path in list(folders.items()):
            if path:
                folders[part], source = stack.enter_context(config_folder(path))
                sources.append(f"{path}: {source}")
        model = replace(config.model, encoder=folders["encoder"], decoder=folders["decoder"])
        sizes = student_sizes(model, _vocab_size(config))
    model_config = fresh_config(config.model.type, sizes, _vocab_size(config))
    return _outline(model_config, "; ".join(sources) or "model.sizes")


def _outline_at(conf: str, path: str) -> ModelOutline:
    """Outline the model at a folder or Hub id, or the model that another run of the configuration will write there."""
    if run := re.fullmatch(r"\{expdir\}/([^/]+)/final/?", path):
        found = student_outline(conf, load_config(conf, run[1], EXPDIR, DATADIR))
        return replace(found, source=f"run {run[1]}: {found.source}")
    return _outline(*read_model_config(path))


def _outline(config: Any, source: str) -> ModelOutline:
    return ModelOutline(config, count_parameters(meta_model(config)), source)


def _vocab_size(config: Config) -> int:
    """Vocabulary size of the tokenizer of a fresh model, 0 if the decoder has its own tokenizer."""
    settings = config.tokenizer
    if settings.path and not config.model.decoder and "vocab_size" not in config.model.sizes.get("text", {}):
        raise UserError(
            f"config key `model.sizes.text.vocab_size` is missing: set it to the number of tokens of tokenizer.path "
            f"{settings.path}"
        )
    if config.model.decoder:
        return 0
    pieces = 257 + settings.vocab_size + len(ARK_TOKENS)
    return pieces if settings.kind == "sentencepiece" else settings.vocab_size + len(QWEN_TOKENS)


def _with_ctc_head(student: ModelOutline, weight: float) -> ModelOutline:
    """Add the auxiliary CTC head, which is trained with the adapter and not exported."""
    text, counts = student.config.text_config, student.counts
    more = (text.vocab_size + 1) * (text.hidden_size + 1) if weight else 0
    return replace(student, counts=replace(counts, adapter=counts.adapter + more, outside=counts.outside + more))


def table(result: dict[str, Any]) -> list[str]:
    """Format a plan as text.

    Args:
        result: Return value of `forecast`.

    Returns:
        Lines of at most 80 columns.
    """
    assumptions, total = result["assumptions"], result["all"]
    lines = [f"run {result['run']} ({result['objective']}), GPUs or processes: {assumptions['gpus']}", ""]
    lines += _wrapped("student: " + _parameters(result["student"]))
    if result["teacher"]:
        lines += _wrapped(f"teacher {result['teacher']['name']}: " + _parameters(result["teacher"]))
    lines += ["", *_memory_lines(result), "", *_step_lines(result), ""]
    time = f"{total['steps']:,} steps: {total['hours']:,.1f} h, {total['gpu_hours']:,.0f} GPU hours"
    lines += [f"{time}; {total['audio_hours']:,.0f} h of audio, {total['tokens'] / 1e6:,.0f} M tokens"]
    if total["epochs"] is not None:
        lines += [f"{total['steps_per_epoch']:,.0f} steps per epoch, {total['epochs']:.2f} epochs"]
    lines += ["(data loading, evaluation and checkpoints are not included)", ""]
    return lines + _wrapped("assumed: " + ", ".join(f"{name} {value:g}" for name, value in assumptions.items()))


def _parameters(model: dict[str, Any]) -> str:
    if model["parameters"]:
        return f"{model['parameters']['total'] / 1e6:,.1f} M parameters; {model['source']}"
    if not model["known"]:
        return f"memory and time not known and not included ({model['source']})"
    if model["memory_gib"]:
        return f"{model['memory_gib']:g} GiB by its own account; time not included"
    return "computes in another process; time not included"


def _memory_lines(result: dict[str, Any]) -> list[str]:
    assumptions, items, peaks = result["assumptions"], result["memory_gib"]["items"], result["memory_gib"]["peaks"]
    total, reserved = assumptions["gpu_memory"], assumptions["reserved_memory"]
    largest = max(peaks.values())
    factor, unit = (1, "GiB") if largest >= 1 else (1024, "MiB")
    lines = [f"{'memory per GPU: full batch, transcripts of maximum length':<60}{unit:>10}"]
    lines += [f"  {name:<58}{factor * size:>10.2f}" for name, size in items.items() if size]
    lines += [f"  {'peak in ' + name:<58}{factor * size:>10.2f}" for name, size in peaks.items()]
    fits = "fits" if largest <= total - reserved else "DOES NOT FIT"
    teacher = result["teacher"]
    if teacher and not teacher["known"] and fits == "fits":
        fits = "fits without the teacher, whose memory is not known"
    room = f"{largest:.1f} GiB of {total - reserved:g} GiB ({total:g} minus {reserved:g} reserved)"
    return [*lines, *("  " + line for line in textwrap.wrap(f"{fits}: {room}", 78))]


def _step_lines(result: dict[str, Any]) -> list[str]:
    work, step = result["tflop"], result["step"]
    factor, unit = (1, "TFLOP") if sum(work.values()) >= 1 else (1000, "GFLOP")
    lines = [f"{'one step: mean batch':<44}{unit + ' per GPU':>13}{'seconds':>13}"]
    rows = [(name, work[name], seconds) for name, seconds in result["seconds"].items()]
    rows += [("all", sum(work.values()), step["seconds"])]
    lines += [f"  {name:<42}{factor * operations:>13.1f}{seconds:>13.3f}" for name, operations, seconds in rows]
    counts = f"{step['clips']:,.0f} clips, {step['audio_seconds']:,.0f} s of audio, {step['tokens']:,.0f} tokens"
    return [*lines, f"  on all GPUs: {counts}; MFU {100 * step['mfu']:.2g} %"]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 80, subsequent_indent="  ", break_long_words=False)

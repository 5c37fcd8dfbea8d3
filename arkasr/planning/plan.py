"""The `plan` verb: predict memory, operations and time of one run. docs/plan.md describes the model.

No weights are read or downloaded.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from transformers.utils import logging as transformers_logging

from arkasr.config.load import load_config
from arkasr.config.schema import Config, ModelConfig, TrainConfig
from arkasr.errors import UserError
from arkasr.model.build import fresh_config, student_sizes
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS
from arkasr.planning.assumptions import Assumptions
from arkasr.planning.forecast import TERA, ModelOutline, with_adapters
from arkasr.planning.model_sizes import config_folder, count_parameters, ctc_tokens, meta_model, read_model_config
from arkasr.planning.predict import predict
from arkasr.planning.proposals import fits, proposals
from arkasr.planning.table import table
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
        seconds per step. `step` and `all` hold totals over GPUs, and over the whole run. Totals of a run in epochs are
        None if the hours of an epoch are not known.

    Raises:
        UserError: The configuration is invalid, or the size of a model cannot be found.
    """
    if config.objective == "none":
        raise UserError(f"--run {config.run}: has `objective: none`, so there is no training to plan; plan another run")
    student = _with_ctc_head(student_outline(conf, config), config.train)
    sizes = student, teacher_size(config, partial(_outline_at, conf, config.model))
    made, counts = predict(config, assumptions, *sizes), with_adapters(student, config).counts
    other = _with_other_checkpointing(config)
    opposite = predict(other, assumptions, *sizes)
    gpus, corpus_hours, load = assumptions.gpus, assumptions.hours or config.data.hours, made.load
    step_seconds, step_hours = made.step_seconds, load.seconds * gpus / 3600
    steps = run_steps(config, step_hours, corpus_hours)
    return {
        "run": config.run,
        "objective": config.objective,
        "assumptions": asdict(assumptions),
        "student": {"source": student.source, "parameters": asdict(counts) | {"total": counts.total}},
        "teacher": sizes[1].describe(),
        "memory_gib": made.memory,
        "proposals": [] if fits(made, assumptions) else proposals(config, assumptions, *sizes),
        "activation_checkpointing": {
            "chosen": config.fsdp.activation_checkpointing,
            "other": other.fsdp.activation_checkpointing,
            "peak_gib": opposite.peak_gib,
            "step_seconds": opposite.step_seconds,
        },
        "tflop": {name: operations / TERA for name, operations in made.work.items()},
        "seconds": made.seconds,
        "step": {
            "seconds": step_seconds,
            "clips": load.clips * gpus,
            "audio_seconds": load.seconds * gpus,
            "tokens": load.tokens * gpus,
            "mfu": sum(made.work.values()) / (step_seconds * assumptions.tflops * TERA),
        },
        "all": {
            "length": {"unit": config.train.length[0], "total": config.train.length[1]},
            "steps": steps,
            "hours": steps and steps * step_seconds / 3600,
            "gpu_hours": steps and steps * step_seconds / 3600 * gpus,
            "audio_hours": steps and steps * step_hours,
            "tokens": steps and steps * load.tokens * gpus,
            "steps_per_epoch": corpus_hours / step_hours if corpus_hours else None,
            "epochs": steps * step_hours / corpus_hours if steps and corpus_hours else None,
        },
    }


def run_steps(config: Config, step_hours: float, corpus_hours: float) -> int | None:
    """Return the optimizer steps of a run.

    Args:
        config: The run's configuration.
        step_hours: Hours of audio in one step, over all GPUs.
        corpus_hours: Hours of one epoch, 0 if they are not known.

    Returns:
        `train.steps`, or the steps in which `train.epochs` or `train.hours` are read. None if the hours of an epoch are
        needed and not known.
    """
    unit, length = config.train.length
    if unit == "steps":
        return int(length)
    if unit == "epochs" and not corpus_hours:
        return None
    return math.ceil(length * (corpus_hours if unit == "epochs" else 1) / step_hours)


def _with_other_checkpointing(config: Config) -> Config:
    fsdp = config.fsdp
    if fsdp.activation_checkpointing == "blocks":
        return replace(config, fsdp=replace(fsdp, activation_checkpointing="none"))
    return replace(config, fsdp=replace(fsdp, activation_checkpointing="blocks"))


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
        return _outline_at(conf, config.model, config.model.path)
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


def _outline_at(conf: str, named: ModelConfig, path: str) -> ModelOutline:
    """Outline the model at a folder or Hub id, or the model that another run of the configuration will write there.

    The other run has the pretrained parts that `named` has, because words of a recipe's command hold for all its runs.
    """
    if run := re.fullmatch(r"\{expdir\}/([^/]+)/final/?", path):
        other = load_config(conf, run[1], EXPDIR, DATADIR)
        parts = {key: getattr(named, key) for key in ("encoder", "decoder") if getattr(other.model, key)}
        found = student_outline(conf, replace(other, model=replace(other.model, **parts)))
        return replace(found, source=f"run {run[1]}: {found.source}")
    return _outline(*read_model_config(path))


def _outline(config: Any, source: str) -> ModelOutline:
    hf = meta_model(config)
    return ModelOutline(config, count_parameters(hf), source, hf)


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


def _with_ctc_head(student: ModelOutline, train: TrainConfig) -> ModelOutline:
    """Add the auxiliary CTC head, which is trained with the adapter and not exported."""
    text, counts = student.config.text_config, student.counts
    tokens = ctc_tokens(train) or text.vocab_size
    more = (tokens + 1) * (text.hidden_size + 1) if train.ctc_weight else 0
    return replace(student, counts=replace(counts, adapter=counts.adapter + more, outside=counts.outside + more))

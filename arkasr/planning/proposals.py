"""Changes of a configuration with which a run fits the memory of its GPUs, in the order of their time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.planning.assumptions import Assumptions
from arkasr.planning.forecast import ModelOutline
from arkasr.planning.predict import Prediction, predict
from arkasr.planning.teacher_size import TeacherSize

Change = Mapping[str, Any]  # values by dotted key
PARTS_OF_BATCH = (2, 4, 8, 16)  # divisors of the batch, with as many more batches per step
MORE_GPUS = (2, 4, 8, 16, 24, 32, 64)
LORA_RANK = 16
MAX_SHOWN = 6


def proposals(
    config: Config, assumptions: Assumptions, student: ModelOutline, teacher: TeacherSize
) -> list[dict[str, Any]]:
    """Find the changes of keys that make a run fit.

    All combinations are tried. One is left out if a part of it is enough. The number of GPUs is not changed together
    with keys.

    Args:
        config: The run's configuration, which does not fit.
        assumptions: Assumptions about hardware and corpus.
        student: The model that is trained, without LoRA adapters.
        teacher: Size of the teacher.

    Returns:
        At most 6 of them, with `overrides` (words for the command line), `gpus`, `peak_gib` and `step_seconds`, the
        shortest step first. Empty if none is enough.
    """
    found = [
        _described(words, assumptions.gpus, made) for words, made in _enough(config, assumptions, student, teacher)
    ]
    found += _with_more_gpus(config, assumptions, student, teacher)
    return sorted(found, key=lambda row: (row["step_seconds"], len(row["overrides"])))[:MAX_SHOWN]


def _described(overrides: list[str], gpus: int, made: Prediction) -> dict[str, Any]:
    return {"overrides": overrides, "gpus": gpus, "peak_gib": made.peak_gib, "step_seconds": made.step_seconds}


def fits(prediction: Prediction, assumptions: Assumptions) -> bool:
    """Return whether a step fits the memory of a GPU.

    Args:
        prediction: The prediction.
        assumptions: Its assumptions.

    Returns:
        True if the largest peak is within `gpu_memory` less `reserved_memory`.
    """
    return prediction.peak_gib <= assumptions.gpu_memory - assumptions.reserved_memory


def _enough(
    config: Config, assumptions: Assumptions, student: ModelOutline, teacher: TeacherSize
) -> Iterator[tuple[list[str], Prediction]]:
    """Yield minimal combinations. A level of a choice is a larger change than the levels before it."""
    choices = list(_choices(config, assumptions))
    minimal: list[tuple[int, ...]] = []
    levels = sorted(product(*(range(len(choice) + 1) for choice in choices)), key=sum)
    for combination in levels:
        if any(all(a <= b for a, b in zip(known, combination)) for known in minimal):
            continue
        change: dict[str, Any] = {}
        for level, choice in zip(combination, choices):
            change |= choice[level - 1] if level else {}
        try:
            made = predict(_changed(config, change), assumptions, student, teacher)
        except (UserError, ValueError):  # keys that exclude each other
            continue
        if fits(made, assumptions):
            minimal.append(combination)
            yield [f"{key}={_written(value)}" for key, value in change.items()], made


def _choices(config: Config, assumptions: Assumptions) -> Iterator[list[Change]]:
    """Yield independent choices, each with its levels."""
    model, data, fsdp, distils = config.model, config.data, config.fsdp, config.objective == "opd"
    if fsdp.activation_checkpointing == "none":
        yield [{"fsdp.activation_checkpointing": "blocks"}]
    if not model.lora.rank:
        yield [{"model.lora.rank": LORA_RANK}]
    if "encoder" not in model.freeze:
        yield [{"model.freeze": [*model.freeze, "encoder"]}]
    if half := _half_precision(config):
        yield half
    longest = data.max_clip_seconds if data.max_clip_seconds < float("inf") else assumptions.clip_seconds
    parts = [part for part in PARTS_OF_BATCH if data.max_seconds / part >= longest]
    if parts:
        yield [_split(config, part) for part in parts]
    if config.train.eval_every and config.decode.max_seconds > 2 * assumptions.clip_seconds:
        yield [{"decode.max_seconds": config.decode.max_seconds / part} for part in (2, 4, 8)]
    if distils and config.distill.diagnose_every:
        yield [{"distill.diagnose_every": 0}]
    if distils and assumptions.gpus > 1 and fsdp.teacher == "replicate":
        yield [{"fsdp.teacher": "shard"}]
    if not fsdp.reshard_after_forward:
        yield [{"fsdp.reshard_after_forward": True}]


def _split(config: Config, parts: int) -> Change:
    """Split each batch. A step keeps its audio."""
    return {
        "data.max_seconds": config.data.max_seconds / parts,
        "data.max_cuts": math.ceil(config.data.max_cuts / parts),
        "train.accumulate": config.train.accumulate * parts,
    }


def _half_precision(config: Config) -> list[Change]:
    computes: Change = {"fsdp.compute_dtype": "bfloat16"}
    stored: Change = {"model.dtype": "bfloat16"}
    if config.model.dtype == "bfloat16":
        return []
    return [stored] if config.fsdp.compute_dtype == "bfloat16" else [computes, {**computes, **stored}]


def _with_more_gpus(
    config: Config, assumptions: Assumptions, student: ModelOutline, teacher: TeacherSize
) -> list[dict[str, Any]]:
    """Return the smallest number of GPUs with which the run fits as it is."""
    for gpus in (number for number in MORE_GPUS if number > assumptions.gpus):
        more = replace(assumptions, gpus=gpus)
        try:
            made = predict(config, more, student, teacher)
        except UserError:  # the GPUs do not divide into groups
            continue
        if fits(made, more):
            return [_described([], gpus, made)]
    return []


def _changed(config: Any, change: Change) -> Any:
    """Return the configuration with other values of dotted keys."""
    own = {key: value for key, value in change.items() if "." not in key}
    for section in {key.partition(".")[0] for key in change if "." in key}:
        inner = {key.partition(".")[2]: value for key, value in change.items() if key.startswith(section + ".")}
        own[section] = _changed(getattr(config, section), inner)
    return replace(config, **own)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(value)}]"
    return f"{value:.10g}" if isinstance(value, float) else str(value)

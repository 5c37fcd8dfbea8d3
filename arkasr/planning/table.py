"""The text of a plan."""

from __future__ import annotations

import shlex
import textwrap
from typing import Any


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
    if total["steps"] is None:
        lines += [f"train.epochs {total['length']['total']:g}: add --hours for the steps and the time of the run"]
    else:
        gpu_hours = f"{total['gpu_hours']:,.{1 if total['gpu_hours'] < 10 else 0}f}"
        time = f"{total['steps']:,} steps: {total['hours']:,.1f} h, {gpu_hours} GPU hours"
        audio = f"{total['audio_hours']:,.0f} h of audio, {total['tokens'] / 1e6:,.0f} M tokens"
        lines += _wrapped(f"{time}; {audio}")
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
    notes = [f"{fits}: {room}", _checkpointing_note(result, total - reserved)]
    lines += ["  " + line for note in notes for line in textwrap.wrap(note, 78, subsequent_indent="  ")]
    return [*lines, *(_proposal_lines(result) if fits == "DOES NOT FIT" else [])]


def _proposal_lines(result: dict[str, Any]) -> list[str]:
    """List the changes that make the run fit."""
    if not result["proposals"]:
        return _wrapped("  no change of keys that plan knows makes it fit; use larger GPUs or a smaller model")
    lines = [f"  {'changes that make it fit, the shortest step first':<60}{'GiB':>6}{'s per step':>12}"]
    for row in result["proposals"]:
        words = [shlex.quote(word) for word in row["overrides"]] or [f"--gpus {row['gpus']}"]
        first, *rest = textwrap.wrap(" ".join(words), 56, break_long_words=False, break_on_hyphens=False)
        lines.append(f"    {first:<58}{row['peak_gib']:>6.1f}{row['step_seconds']:>12.3f}")
        lines += [f"      {line}" for line in rest]
    return lines


def _checkpointing_note(result: dict[str, Any], room: float) -> str:
    """Say which activations are kept, and what the other choice would cost."""
    choice = result["activation_checkpointing"]
    fits = "fits" if choice["peak_gib"] <= room else "does not fit"
    seconds = choice["step_seconds"] - result["step"]["seconds"]
    chosen = f"activation checkpointing: {choice['chosen']} (fsdp.activation_checkpointing)"
    time = f"a step {abs(seconds):.3f} s {'longer' if seconds > 0 else 'shorter'}"
    return f"{chosen}; {choice['other']} would make the peak {choice['peak_gib']:.1f} GiB, which {fits}, and {time}"


def _step_lines(result: dict[str, Any]) -> list[str]:
    work, step = result["tflop"], result["step"]
    factor, unit = (1, "TFLOP") if sum(work.values()) >= 1 else (1000, "GFLOP")
    lines = [f"{'one step: mean batch':<44}{unit + ' per GPU':>13}{'seconds':>13}"]
    rows = [(name, work.get(name, 0.0), seconds) for name, seconds in result["seconds"].items()]
    rows += [("all", sum(work.values()), step["seconds"])]
    lines += [f"  {name:<42}{factor * operations:>13.1f}{seconds:>13.3f}" for name, operations, seconds in rows]
    counts = f"{step['clips']:,.0f} clips, {step['audio_seconds']:,.0f} s of audio, {step['tokens']:,.0f} tokens"
    return [*lines, f"  on all GPUs: {counts}; MFU {100 * step['mfu']:.2g} %"]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 80, subsequent_indent="  ", break_long_words=False)

"""Inputs of benchmarks of a whole OPD step: models, clips, token mapper and loss."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import fresh
import torch
from torch import Tensor

from arkasr import Loss, SpeechLM, Teacher, TokenMapper, load_speech_lm
from arkasr.config.load import read_config
from arkasr.data.batches import Batch, load_batch
from arkasr.data.manifests import read_cuts
from arkasr.plugins import registry
from arkasr.utils.timing import Phases


@dataclass
class Case:
    """The inputs of both implementations.

    Attributes:
        student: The student, whose weights change.
        teacher: The frozen teacher.
        mapper: The token mapper between their vocabularies.
        loss: The loss.
        batch: The clips.
        top_k: Tokens of each top-k set.
        cap: Largest number of tokens of a rollout.
        counterparts: Teacher id of each student id that has one. Computed.
        names: Student id of each teacher id that has one. Computed.
    """

    student: SpeechLM
    teacher: Teacher
    mapper: TokenMapper
    loss: Loss
    batch: Batch
    top_k: int
    cap: int

    def __post_init__(self):
        student_ids = torch.arange(len(self.student.blocked))
        teacher_ids = torch.arange(len(self.teacher.tokenizer))
        self.counterparts, self.names = (
            {i: j for i, j in zip(ids.tolist(), mapped.tolist()) if j >= 0}
            for ids, mapped in (
                (student_ids, self.mapper.to_teacher(student_ids)),
                (teacher_ids, self.mapper.to_student(teacher_ids)),
            )
        )


def finish(loss: Tensor, optimizer: torch.optim.Optimizer, phases: Phases) -> float:
    """Run the backward pass and update the student.

    Args:
        loss: The loss.
        optimizer: Updates the student.
        phases: Collects the times.

    Returns:
        The loss as a number.
    """
    with phases("backward"):
        loss.backward()
    with phases("optimizer"):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def fresh_case(size: str, folder: Path, args: argparse.Namespace, device: str) -> Case:
    """Make models with random weights over one vocabulary, and clips of noise.

    Args:
        size: Key of `fresh.STUDENTS`.
        folder: An empty folder for the teacher's files. They are not needed afterwards.
        args: Numbers `vocab`, `clips`, `seconds`, `top_k` and `cap`, and optionally `dtype`.
        device: Where the models are.
    """
    dtype, tokens = getattr(args, "dtype", "float32"), fresh.tokenizer(args.vocab)
    student = fresh.student(size, tokens, device, dtype)
    fresh.teacher(size, tokens, device, dtype).save(folder)  # the teacher plugin loads its model from a folder
    teacher = registry.create("teacher", "qwen3_asr", {"path": str(folder), "dtype": dtype}, device=device)
    clips = fresh.clips(args.clips, args.seconds)
    clips = [clip.pin_memory() for clip in clips] if device == "cuda" else clips  # as the loaders deliver them
    batch = Batch([f"clip-{i}" for i in range(len(clips))], clips, [""] * len(clips), ["English"] * len(clips))
    mapper = registry.create("token_mapper", "identity", {}, student=student, teacher=teacher)
    return Case(student, teacher, mapper, registry.create("loss", "union_topk_kl", {}), batch, args.top_k, args.cap)


def trained_case(args: argparse.Namespace, device: str) -> Case:
    """Load the Base model, the teacher and the clips of a demo run.

    Args:
        args: Command-line options.
        device: Where the models are.
    """
    config = read_config(Path(args.expdir) / "base_opd" / "config.yaml")
    student = load_speech_lm(str(Path(args.expdir) / "base" / "final"), device=device)
    trained = Path(args.expdir) / "teacher" / "final"  # the path in the configuration may be relative to the recipe
    options = config.teacher.options | ({"path": str(trained)} if trained.is_dir() else {})
    teacher = registry.create("teacher", config.teacher.name, options, device=device)
    models = {"student": student, "teacher": teacher}
    mapper = registry.create("token_mapper", config.mapper.name, config.mapper.options, **models)
    loss = registry.create("loss", config.loss.name, config.loss.options)
    batch = load_batch(list(read_cuts(str(Path(args.datadir) / "base.jsonl.gz")))[: args.clips])
    return Case(student, teacher, mapper, loss, batch, config.distill.top_k, args.cap)

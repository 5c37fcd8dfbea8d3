"""Hardware utilisation: the operations of each step, counted from the lengths that it logs, divided by its time."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from arkasr.config.schema import Config
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.planning import flops
from arkasr.planning.forecast import TERA, needs_full_distribution, step_flops
from arkasr.planning.model_sizes import count_adapters, meta_model
from arkasr.utils.console import log

# Dense bfloat16 TFLOP/s from the vendors' data sheets. The first key that occurs in the device's name is used.
PEAKS = {
    "B200": 2250.0,
    "GH200": 989.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H800": 989.0,
    "H20": 148.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "A10G": 70.0,
    "L4": 121.0,
}


def peak_tflops(config: Config, device: torch.device) -> float:
    """Return the peak throughput of one worker, the denominator of MFU.

    Args:
        config: The run's configuration. `train.peak_tflops` has precedence if it is not 0.
        device: The worker's device.

    Returns:
        Dense TFLOP/s, from `PEAKS` for known GPUs with `fsdp.compute_dtype: bfloat16`, 0 if unknown.
    """
    if config.train.peak_tflops or device.type != "cuda" or config.fsdp.compute_dtype != "bfloat16":
        return config.train.peak_tflops
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAKS.items() if known in name), 0.0)


def local_model(plugin: Any) -> PreTrainedModel | None:
    """Find the transformers model that a teacher plugin holds in one of its attributes.

    Args:
        plugin: The teacher.

    Returns:
        The model, or None if the teacher computes in another process.
    """
    values = [getattr(value, "hf", value) for value in vars(plugin).values()]
    return next((model for model in values if isinstance(model, PreTrainedModel)), None)


def _prompt_tokens(lm: SpeechLM) -> int:
    return sum(len(lm.tokenizer.encode(text, add_special_tokens=False)) for text in lm.prompt_text("English"))


class Throughput:
    """Compute TFLOP/s and MFU of each step. docs/plan.md lists what is counted.

    Args:
        config: The run's configuration.
        student: The model that is trained.
        teacher: The teacher plugin of a distillation run, None otherwise.
        workers: Number of ranks that share the step.

    Attributes:
        total: Operations of all steps since the run began, over all ranks. None if they are unknown.
    """

    def __init__(self, config: Config, student: SpeechLM, teacher: Any | None, workers: int):
        self.config, self.student, self.workers = config, student.hf.config, workers
        self.lora = count_adapters(meta_model(self.student), config.model) if config.model.adapted else {}
        teacher_model = local_model(teacher) if teacher is not None else None
        self.peak = peak_tflops(config, student.device)
        self.teacher = teacher_model.config if teacher_model is not None else None
        self.dense = needs_full_distribution(config)
        teacher_lm = getattr(teacher, "lm", None)
        kind = getattr(self.teacher, "model_type", "")
        self.known = self.teacher is None or kind in flops.PROMPT
        if not self.known:
            log(
                f"the operations of a teacher of type {kind!r} are unknown: teraflops_per_second and mfu are not logged"
            )
        self.total: float | None = 0.0 if self.known else None
        published = flops.PROMPT.get(kind, 0)
        teacher_prompt = _prompt_tokens(teacher_lm) if isinstance(teacher_lm, SpeechLM) else published
        self.prompts = _prompt_tokens(student), teacher_prompt

    def flops(self, sums: dict[str, float]) -> float:
        """Return the operations of one step over all workers.

        Args:
            sums: The step's values, added up over ranks and micro-batches.

        Returns:
            FLOPs, 0 if nothing was scored.
        """
        transcripts = sums.get("transcripts", sums["num_clips"])
        if not (transcripts and sums["num_clips"]):
            return 0.0
        tokens = sums.get("rollout_tokens", sums["count"])
        rollout_tokens = min(tokens, tokens * sums.get("rolled", 0.0) / transcripts)
        workload = flops.Workload(
            clips=sums["num_clips"],
            seconds=sums["seconds"],
            transcripts=transcripts,
            tokens=tokens,
            rollout_tokens=rollout_tokens,
            teacher_tokens=sums.get("teacher_tokens", 0.0),
            prompts=self.prompts,
        )
        teachers = [(self.teacher, self.prompts[1])] if self.teacher is not None else []
        work = step_flops(self.config, self.student, teachers, workload, self.dense, self.lora)
        return sum(work.values())

    def __call__(self, sums: dict[str, float]) -> dict[str, float]:
        """Count one step into `total`, and return its utilisation metrics.

        Args:
            sums: The step's values, added up over ranks and micro-batches, with `time/step` in seconds.

        Returns:
            `teraflops_per_second` of one worker and, if the peak is known, `mfu`. Empty if the step was not timed, or
            if the teacher's model is of a kind whose operations are unknown.
        """
        work = self.flops(sums) if self.known else 0.0
        self.total = None if self.total is None else self.total + work
        if not (self.known and sums.get("time/step")):
            return {}
        reached = work / TERA / sums["time/step"] / self.workers
        return {"teraflops_per_second": reached} | ({"mfu": reached / self.peak} if self.peak else {})

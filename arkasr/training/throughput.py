"""How much of the hardware a step used: its operations, counted from the lengths that it logs, by its seconds."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from arkasr.config.schema import Config
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.planning import flops
from arkasr.planning.forecast import TERA, compares_all, work_of

# Dense bfloat16 TFLOP/s, as the vendor's data sheets have them; the first name that is part of the device's counts.
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
    """Return the dense peak of a worker: `train.peak_tflops`, or that of a known GPU in bfloat16; 0: not known."""
    if config.train.peak_tflops or device.type != "cuda" or config.fsdp.compute_dtype != "bfloat16":
        return config.train.peak_tflops
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAKS.items() if known in name), 0.0)


def model_in(plugin: Any) -> PreTrainedModel | None:
    """Return the transformers model that a teacher holds in one of its attributes; None: it computes elsewhere."""
    held = [getattr(value, "hf", value) for value in vars(plugin).values()]
    return next((model for model in held if isinstance(model, PreTrainedModel)), None)


def _prompt(lm: SpeechLM) -> int:
    return sum(len(lm.tokenizer.encode(text, add_special_tokens=False)) for text in lm.prompt_text("English"))


class Throughput:
    """Counts a step's operations from its sums over ranks and micro-batches; docs/metrics.md says what is counted."""

    def __init__(self, config: Config, student: SpeechLM, teacher: Any | None, workers: int):
        """teacher: the plugin of a distillation; workers: how many share the step."""
        self.config, self.student, self.workers = config, student.hf.config, workers
        found, self.peak = model_in(teacher) if teacher is not None else None, peak_tflops(config, student.device)
        self.teacher, self.dense = found.config if found is not None else None, compares_all(config)
        theirs = getattr(teacher, "lm", None)
        other = flops.PROMPT.get(getattr(self.teacher, "model_type", ""), 0)
        self.prompts = _prompt(student), _prompt(theirs) if isinstance(theirs, SpeechLM) else other

    def flops(self, sums: dict[str, float]) -> float:
        """Return the operations of a step, over all workers."""
        transcripts = sums.get("transcripts", sums["num_clips"])
        if not (transcripts and sums["num_clips"]):
            return 0.0
        tokens = sums.get("rollout_tokens", sums["count"])
        rolled = min(tokens, tokens * sums.get("rolled", 0.0) / transcripts)
        read = sums.get("teacher_tokens", 0.0)
        load = flops.Load(sums["num_clips"], sums["seconds"], transcripts, tokens, rolled, read, self.prompts)
        return sum(work_of(self.config, self.student, self.teacher, load, self.dense).values())

    def __call__(self, sums: dict[str, float]) -> dict[str, float]:
        """Return `teraflops_per_second` of a worker and, where the peak is known, `mfu`; nothing for a step untimed."""
        if not sums.get("time/step"):
            return {}
        reached = self.flops(sums) / TERA / sums["time/step"] / self.workers
        return {"teraflops_per_second": reached} | ({"mfu": reached / self.peak} if self.peak else {})

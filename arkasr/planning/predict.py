"""Memory, operations and time of one step, for models of known size."""

from __future__ import annotations

from dataclasses import dataclass

from arkasr.config.schema import Config
from arkasr.planning import flops
from arkasr.planning.assumptions import Assumptions
from arkasr.planning.forecast import (
    ModelOutline,
    batch_shape,
    memory_gib,
    needs_full_distribution,
    step_flops,
    with_adapters,
    workload,
)
from arkasr.planning.teacher_size import TeacherSize
from arkasr.planning.timing import phase_seconds


@dataclass(frozen=True)
class Prediction:
    """What one step needs.

    Attributes:
        memory: GiB per GPU, see `memory_gib`.
        load: What the step of one GPU processes.
        work: FLOPs of one GPU by phase.
        seconds: Seconds by phase.
    """

    memory: dict[str, dict[str, float]]
    load: flops.Workload
    work: dict[str, float]
    seconds: dict[str, float]

    @property
    def peak_gib(self) -> float:
        """GiB per GPU in the phase that needs most."""
        return max(self.memory["peaks"].values())

    @property
    def step_seconds(self) -> float:
        """Seconds per step."""
        return sum(self.seconds.values())


def predict(config: Config, assumptions: Assumptions, student: ModelOutline, teacher: TeacherSize) -> Prediction:
    """Predict one step.

    Args:
        config: The run's configuration.
        assumptions: Assumptions about hardware and corpus.
        student: The model that is trained. Its LoRA adapters are counted here.
        teacher: Size of the teacher.

    Returns:
        The prediction.

    Raises:
        UserError: The configuration does not fit the model or the number of GPUs.
    """
    student = with_adapters(student, config)
    batch = batch_shape(config, assumptions, largest=False)
    prompts = float(flops.PROMPT[student.config.model_type]), 0.0
    load = workload(batch, config.train.accumulate, prompts, config.objective == "opd")
    dense = needs_full_distribution(config)
    teachers = [(model.config, float(flops.PROMPT[model.config.model_type])) for model in teacher.models]
    work = step_flops(config, student.config, teachers, load, dense, student.counts.lora)
    memory = memory_gib(config, assumptions, student, teacher.models, teacher.memory_gib or 0.0)
    return Prediction(memory, load, work, phase_seconds(config, assumptions, student, teacher.models, work))

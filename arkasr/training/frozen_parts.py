"""Parts of the model that are not trained in the first steps of a run (`train.frozen_steps`).

A frozen part has no gradients. The optimizer then leaves out its parameters, so that neither its moments nor weight
decay change it, and its first update is that of a new optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

from torch import nn

from arkasr.config.schema import Config
from arkasr.model.build import part_parameters
from arkasr.model.sharding import gathered
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.utils.console import log


class FrozenParts:
    """Freezes parts of the model by step.

    Args:
        config: The run's configuration.
        lm: The model. It may be sharded. Parameters that are frozen already stay so, and so does a CTC head that is
            trained.

    Attributes:
        frozen: The parts that are frozen now, beside those of `model.freeze`.
    """

    def __init__(self, config: Config, lm: SpeechLM):
        self.config, self.lm, self.frozen = config, lm, tuple[str, ...]()
        self.steps = {part: steps for part, steps in config.train.frozen_steps.items() if steps}
        head = set(lm.ctc_head.parameters()) if lm.ctc_head is not None else set[nn.Parameter]()
        found = part_parameters(lm) if self.steps else {}
        self.params = {part: [p for p in found[part] if p.requires_grad and p not in head] for part in self.steps}

    def begin_step(self, step: int) -> None:
        """Freeze the parts of a step, and train all others. All ranks must call this.

        Args:
            step: Number of the step, counted from 1.
        """
        before, self.frozen = self.frozen, tuple(part for part, last in self.steps.items() if step <= last)
        for part, params in self.params.items():
            for p in params:
                p.requires_grad_(part not in self.frozen)
        if self.frozen != before:  # FSDP2 notes the dtype of gradients when it gathers weights, if they are trained
            with gathered(self.lm):
                pass
        for part in before:
            if part not in self.frozen:
                log(f"the {part} is trained from step {step} on (train.frozen_steps)")

    @contextmanager
    def released(self) -> Iterator[None]:
        """Mark all parts as trained inside the context, so that checkpoints hold them and their optimizer state."""
        before = [p for params in self.params.values() for p in params if not p.requires_grad]
        for p in before:
            p.requires_grad_(True)
        try:
            yield
        finally:
            for p in before:
                p.requires_grad_(False)

    @property
    def present_config(self) -> Config:
        """The configuration with the parts that are frozen now in `model.freeze`, to count operations."""
        if not self.frozen:
            return self.config
        config = copy(self.config)
        config.model = copy(self.config.model)
        config.model.freeze = [*config.model.freeze, *self.frozen]
        return config

    def report(self, steps: int) -> None:
        """Warn about parts that were frozen until the end of the run.

        Args:
            steps: Number of steps of the run.
        """
        for part, last in self.steps.items():
            if steps <= last:
                why = f"train.frozen_steps.{part} is {last}, and the run has {steps} steps"
                log(f"warning: the {part} was never trained: {why}")

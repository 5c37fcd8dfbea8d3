"""The decoding step of one shape: run eagerly, put through torch.compile, or captured in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from arkasr.model.generation.choosing import Choice
from arkasr.model.generation.graph_pool import GraphPool
from arkasr.model.generation.state import DecodingState
from arkasr.utils.console import log

WARM_UP = 2  # steps that run before a capture: libraries allocate their workspaces in them
COMPILED, CAPTURED = "torch.compile", "a CUDA graph"
MOST_SHAPES = 256  # that torch.compile may compile for
COMPILE_AFTER = 20_000  # replays of a shape. By then the eager kernels have cost as much more as compiling takes


@dataclass(frozen=True)
class StepMode:
    """How steps run.

    Attributes:
        compiled: `on` puts them through torch.compile, `auto` does so on a GPU after `COMPILE_AFTER` steps of a shape.
        graphs: Capture them in CUDA graphs, on a GPU.
    """

    compiled: Literal["auto", "on", "off"] = "off"
    graphs: bool = True


class StepRunner:
    """Runs the step of one state, number of slots to read, and choice of tokens.

    On a GPU, the first steps run eagerly. Then the step is captured once and replayed. A capture executes nothing, so
    the state and the random draws do not depend on when it happens.

    Args:
        state: The state. Its tensors keep their addresses.
        span: Number of slots that attention reads.
        choice: How tokens are chosen.
        mode: How the step runs.
        pool: Captures the steps of this model. None if nothing can be captured.

    Attributes:
        failed: Ways to run the step that raised an error in this process: `COMPILED`, `CAPTURED`.
    """

    failed: set[str] = set()

    def __init__(self, state: DecodingState, span: int, choice: Choice, mode: StepMode, pool: GraphPool | None):
        self.state, self.span, self.choice, self.pool = state, span, choice, pool
        self.graphs = mode.graphs and pool is not None
        self.compile_at = {"on": 0, "off": None, "auto": COMPILE_AFTER if self.graphs else None}[mode.compiled]
        self.compiled: Callable[[], Tensor] | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.steps = self.warm = 0

    def __call__(self) -> None:
        """Decode one token per row."""
        if self.compile_at is not None and self.steps >= self.compile_at:
            self._compile()
        if self.graphs and self.graph is None and self.warm >= WARM_UP:
            self._capture()
        self.steps, self.warm = self.steps + 1, self.warm + 1
        if self.graph is not None:
            self.graph.replay()
        else:
            self._step()

    def _step(self) -> None:
        self.state.advance(self.span)
        self.state.choose(self._logits(), self.choice)

    def _logits(self) -> Tensor:
        """Compute the logits. If the compiled step fails, the eager one writes the same slots again."""
        if self.compiled is not None:
            try:
                with torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
                    return self.compiled()
            except Exception as error:
                self.compiled = None
                self._give_up(COMPILED, error)
        return self.state.logits()

    def _compile(self) -> None:
        """Put the step through torch.compile. The first call compiles, so it must not be captured."""
        self.compile_at, self.graph, self.warm = None, None, 0
        if COMPILED not in self.failed:
            self.compiled = torch.compile(self.state.logits, dynamic=False, fullgraph=True)

    def _capture(self) -> None:
        if CAPTURED in self.failed or self.pool is None:
            self.graphs = False
            return
        try:
            self.graph = self.pool.capture(self._step, self.choice.generator)
        except RuntimeError as error:
            self.graphs = False
            self._give_up(CAPTURED, error)

    def _give_up(self, way: str, error: Exception) -> None:
        """Log that a way does not work, once per process. The step then runs without it, with the same result."""
        if way not in self.failed:
            self.failed.add(way)
            reason = " ".join(str(error).split())[:300]
            log(f"warning: decoding without {way}, which failed: {type(error).__name__}: {reason}")

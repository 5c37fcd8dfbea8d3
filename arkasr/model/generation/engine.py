"""The memory and the captured steps of one model, which later calls use again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

import torch

from arkasr.errors import UserError
from arkasr.model.generation.choosing import Choice
from arkasr.model.generation.graph_pool import GraphPool
from arkasr.model.generation.state import DecodingState
from arkasr.model.generation.step_runner import StepMode, StepRunner
from arkasr.model.generation.weights import DecoderWeights
from arkasr.model.hotwords import HotwordTables
from arkasr.model.speech_lm.auto import SpeechLM

MOST_STATES = 48  # shapes that are kept with their captured steps, on a GPU

_engines: WeakKeyDictionary[SpeechLM, Engine] = WeakKeyDictionary()


class Engine:
    """Provides states of any shape in one block of memory, and runs their steps.

    The block grows to the largest shape. Then all states are made again, since their addresses change.

    Args:
        weights: Decoder and head.
        most_states: Number of states that are kept. Each has memory for its tokens and their top k.
    """

    def __init__(self, weights: DecoderWeights, most_states: int = MOST_STATES):
        self.most_states = most_states
        on_gpu, device = weights.head.is_cuda and weights.is_fixed, weights.head.device
        self.pool = GraphPool(device) if on_gpu else None
        self.weights, self.addresses = weights, weights.addresses() if on_gpu else ()
        self.block = torch.empty(0, dtype=weights.dtype, device=weights.head.device)
        self.states: OrderedDict[tuple[int, int, int], DecodingState] = OrderedDict()
        self.runners: dict[tuple[int, int, int], dict[Any, StepRunner]] = {}
        self._hotwords: dict[tuple[int, ...], HotwordTables] = {}

    def hotwords(self, tables: HotwordTables | None) -> HotwordTables | None:
        """Return hotwords for the steps. Those of captured steps have fixed addresses, one copy per shape.

        Args:
            tables: The hotwords on the device of the model, or None.

        Returns:
            The hotwords. On a GPU, the next call with tables of this shape overwrites them.
        """
        if tables is None or self.pool is None:
            return tables
        if tables.shape not in self._hotwords:
            self._hotwords[tables.shape] = tables.clone()
        self._hotwords[tables.shape].copy_(tables)
        return self._hotwords[tables.shape]

    def state(self, rows: int, length: int, top_k: int) -> DecodingState:
        """Return a state, whose values are those of its last use or zero.

        Args:
            rows: Rows of the batch.
            length: Slots per row.
            top_k: Top-k tokens to keep per step.

        Returns:
            The state. Its memory starts where that of all others does.
        """
        key = (rows, length, top_k)
        shape = _memory_shape(self.weights, rows, length)
        size = torch.Size(shape).numel()
        if size > len(self.block):
            self.states.clear()
            self.runners.clear()
            self.block = torch.empty(0, dtype=self.block.dtype, device=self.block.device)  # frees before it allocates
            self.block = torch.zeros(size, dtype=self.block.dtype, device=self.block.device)
        if key not in self.states:
            self.states[key] = DecodingState(self.weights, self.block[:size].view(shape), top_k)
            self.runners[key] = {}
        self.states.move_to_end(key)
        while len(self.states) > self.most_states:
            self.runners.pop(self.states.popitem(last=False)[0])
        return self.states[key]

    def step(self, state: DecodingState, span: int, choice: Choice, mode: StepMode, full: bool = False) -> None:
        """Decode one token per row.

        Args:
            state: A state of this engine.
            span: Number of slots that attention reads.
            choice: How tokens are chosen.
            mode: How the step runs.
            full: Whether every row has a token in each slot of the span. An eager step then needs no mask.
        """
        if self.pool is None and mode.compiled != "on":
            state.advance(span, full)
            state.choose(state.logits(), choice)
            return
        runners = self.runners[state.rows, state.length, state.topk.shape[-1]]
        key = (span, choice, mode)
        if key not in runners:
            runners[key] = StepRunner(state, span, choice, mode, self.pool)
        runners[key]()


def engine_of(lm: SpeechLM, weights: DecoderWeights, keep: bool) -> Engine:
    """Return the engine of a model.

    Args:
        lm: The model.
        weights: Its present decoder and head.
        keep: Use the engine of earlier calls, if the weights are still where they were. Otherwise a new one is made.

    Returns:
        The engine.
    """
    if not keep:
        return Engine(weights, most_states=1)
    engine = _engines.get(lm)
    if engine is None or engine.addresses != weights.addresses() or engine.block.dtype != weights.dtype:
        engine = _engines[lm] = Engine(weights)
    return engine


def _memory_shape(weights: DecoderWeights, rows: int, length: int) -> tuple[int, ...]:
    """Return the shape [layers, 2, B, h, L, d] of keys and values."""
    config: Any = weights.decoder.config
    other = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    if other:
        raise UserError(
            f"decoder with layers of type {', '.join(sorted(other))}: cannot generate with preallocated caches; only "
            "full_attention is supported; use a decoder without sliding windows"
        )
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, 2, rows, config.num_key_value_heads, length, size

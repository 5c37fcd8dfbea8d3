"""Captures of CUDA graphs that share memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import torch


class GraphPool:
    """Captures the decoding steps of one engine. The graphs run one after the other, so all use the same memory.

    All are captured on a stream of their own. CUDA's libraries have one workspace per stream, which lies in the memory
    of the graphs, and which torch frees with any graph of this stream.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device)
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        self._handle: Any = None

    def capture(self, step: Callable[[], None], generator: torch.Generator | None) -> torch.cuda.CUDAGraph:
        """Capture a step, without running it.

        Args:
            step: The work. Its tensors must keep their addresses.
            generator: Source of its random draws. None means torch's global generator.

        Returns:
            The graph.

        Raises:
            RuntimeError: The work cannot be captured.
        """
        if not self._graphs:  # torch refuses memory that all its graphs have left
            self._handle = torch.cuda.graph_pool_handle()
        graph, outside = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        if generator is not None:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, self._handle, self._stream, capture_error_mode="thread_local"):
                step()
        except BaseException:
            torch.cuda.set_stream(outside)
            with suppress(RuntimeError):  # the capture has ended. If its end fails, torch leaves its allocator in it
                torch._C._cuda_endAllocateToPool(self._stream.device_index, self._handle)
            raise
        self._graphs.add(graph)
        return graph

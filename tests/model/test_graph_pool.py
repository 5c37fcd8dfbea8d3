"""Captures that share memory, with fakes of torch's captures: this test needs no GPU."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from arkasr.model.generation.graph_pool import GraphPool


class Graph:
    def register_generator_state(self, generator):
        self.generator = generator


class Cuda:
    """The parts of torch.cuda that a capture uses."""

    CUDAGraph = Graph

    def __init__(self, fails_at_end=False):
        self.fails_at_end, self.handles, self.streams = fails_at_end, 0, ["main"]
        self.ended, self.captures = [], []

    def Stream(self, device):  # torch's name
        return SimpleNamespace(device_index=device.index, name=object())

    def current_stream(self):
        return self.streams[-1]

    def set_stream(self, stream):
        self.streams.append(stream)

    def graph_pool_handle(self):
        self.handles += 1
        return (0, self.handles)

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        self.captures.append((pool, stream))
        self.streams.append(stream)
        error = None
        try:
            yield
        except RuntimeError as failure:
            error = failure
        if error is not None and self.fails_at_end:  # torch then leaves everything as it is
            raise error
        self.streams.append("main")
        self.ended.append(pool)
        if error is not None:
            raise error

    def end(self, device, handle):
        if handle in self.ended:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.ended.append(handle)


@pytest.fixture
def make(monkeypatch):
    def make(**options):
        cuda = Cuda(**options)
        for name in ("CUDAGraph", "Stream", "current_stream", "set_stream", "graph_pool_handle", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", cuda.end)
        return cuda, GraphPool(torch.device("cuda", 0))

    return make


def test_graphs_share_memory_as_long_as_one_of_them_exists(make):
    cuda, pool = make()
    graphs = [pool.capture(lambda: None, None) for _ in range(2)]
    del graphs[0]
    gc.collect()
    graphs.append(pool.capture(lambda: None, None))
    assert cuda.handles == 1
    graphs.clear()
    gc.collect()
    graphs.append(pool.capture(lambda: None, None))
    assert cuda.handles == 2  # torch refuses the memory of graphs that are all gone
    assert len({id(stream) for _, stream in cuda.captures}) == 1


def test_pools_capture_on_streams_of_their_own(make):
    cuda, first = make()
    second = GraphPool(torch.device("cuda", 0))
    graphs = [pool.capture(lambda: None, None) for pool in (first, second)]
    (handle, stream), (other_handle, other_stream) = cuda.captures
    assert len(graphs) == 2 and handle != other_handle and stream is not other_stream


@pytest.mark.parametrize("fails_at_end", [False, True])
def test_a_failed_capture_leaves_stream_and_allocator_as_they_were(fails_at_end, make):
    cuda, pool = make(fails_at_end=fails_at_end)

    def step():
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        pool.capture(step, None)
    assert cuda.current_stream() == "main" and cuda.ended == [(0, 1)]


def test_generators_of_the_draws_are_registered(make):
    _, pool = make()
    generator = torch.Generator()
    assert pool.capture(lambda: None, generator).generator is generator
    assert not hasattr(pool.capture(lambda: None, None), "generator")  # torch registers its global one itself

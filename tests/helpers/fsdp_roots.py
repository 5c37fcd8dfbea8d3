"""A module that FSDP2 can shard."""

from __future__ import annotations

import torch


class Root(torch.nn.Module):
    """A model that runs a given function on itself, as `SpeechLM` does. Embedding and head share one weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())

    def forward(self, work):
        return work(self)

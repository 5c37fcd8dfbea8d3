"""A module that FSDP2 can shard."""

from __future__ import annotations

import torch


class Root(torch.nn.Module):
    """A model whose work is handed to it, as SpeechLM's is: embedding and head are one weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())

    def forward(self, work):
        """Run it."""
        return work(self)

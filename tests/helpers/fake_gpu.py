"""A GPU without values: operations check devices, dtypes and shapes as on a GPU, and compute nothing."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

DEVICE = torch.device("cuda", 0)


@contextmanager
def fake_gpu():
    """Let `cuda:0` exist in the body. Reading a value of a tensor raises, and so does an operation over two devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor)
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            yield


def on_gpu(module, dtype=torch.bfloat16):
    """Move a module to the GPU, inside of `fake_gpu`."""
    for each in module.modules():
        for name, value in each.named_parameters(recurse=False):
            each._parameters[name] = nn.Parameter(torch.empty(value.shape, dtype=dtype, device=DEVICE), False)
        for name, value in each.named_buffers(recurse=False):
            each._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=DEVICE)
    return module

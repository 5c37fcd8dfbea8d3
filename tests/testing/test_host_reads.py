"""count_host_reads: every kind of host read is counted once, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arkasr.testing.host_reads import count_host_reads, forbid_host_reads

READS = {
    "item": lambda x: x[0, 0].item(),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "numpy": lambda x: x.numpy(),
    "bool": lambda x: bool(x[0, 0]),
    "int": lambda x: int(x[0, 0]),
    "float": lambda x: float(x[0, 0]),
    "format": lambda x: f"{x[0, 0]:.2f}",
    "index of a list": lambda x: [1, 2, 3][x[0].argmax() * 0],
    "contains": lambda x: 1e9 in x,
    "nonzero": lambda x: (x > 0).nonzero(),
    "where": lambda x: torch.where(x > 0),
    "boolean index": lambda x: x[x > 0],
    "boolean assignment": lambda x: x.clone().__setitem__(x > -9, x.flatten()),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "unique_consecutive": lambda x: torch.unique_consecutive(x),
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "repeat_interleave": lambda x: x.repeat_interleave((x[:, 0] > 9).long() + 1, 0),
    "tensor on the device": lambda x: torch.tensor([1.0], device=x.device),
    "as_tensor on the device": lambda x: torch.as_tensor([1.0], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0, 2.0]),
    "copy to the device": lambda x: torch.arange(3).to(x.device),
    "copy_ from the host": lambda x: torch.zeros(3, device="cpu").copy_(torch.arange(3.0)),
    "copy_ to the host": lambda x: torch.zeros(4).copy_(x[0]),
    "list as index": lambda x: x[[0, 1]],
    "index on the host": lambda x: x[torch.tensor([0, 1])],
}
FREE = {
    "arithmetic": lambda x: (x + 1).exp().sum(),
    "assignment of one value to a mask": lambda x: x.clone().__setitem__(x > 0, 0.0),
    "where of three": lambda x: torch.where(x > 0, x, 0.0),
    "repeat_interleave with output_size": lambda x: x.repeat_interleave((x[:, 0] > 9).long() + 1, 0, output_size=3),
    "values of the host": lambda x: (torch.tensor([1, 2]) + 1).tolist(),
    "unique on the host": lambda x: torch.tensor([1, 2]).unique().tolist(),
    "asynchronous copy": lambda x: torch.tensor([1, 2]).to(x.device, non_blocking=True),
    "factory on the device": lambda x: torch.arange(3, device=x.device),
    "dtype": lambda x: torch.tensor([1, 2]).to(torch.float32),
    "index on the device": lambda x: x[torch.arange(2, device=x.device)],
    "slice": lambda x: x[1:, None],
}


def example() -> Tensor:
    return torch.arange(12.0).view(3, 4) - 5


@pytest.mark.parametrize("name", READS)
def test_each_kind_of_host_read_counts_once(name):
    x = example()
    with count_host_reads() as reads:
        READS[name](x)
    assert reads.total == 1, reads.by_place
    with pytest.raises(AssertionError, match=r"host read at test_host_reads\.py:\d+"), forbid_host_reads():
        READS[name](x)


@pytest.mark.parametrize("name", FREE)
def test_device_work_and_host_tensors_count_nothing(name):
    x = example()
    with count_host_reads() as reads:
        FREE[name](x)
    assert reads.total == 0, reads.by_place
    with forbid_host_reads():
        FREE[name](x)


def test_value_that_was_read_is_free_afterwards():
    x = example()
    with count_host_reads() as reads:
        host = x.cpu()
        assert [float(v) for v in host[0]] == host[0].tolist()
        host.to(x.device, non_blocking=True).tolist()
    assert reads.total == 2, reads.by_place  # cpu() and the last tolist()


def test_place_is_innermost_line_of_arkasr():
    from arkasr.distill.rollout import draw_sources
    from arkasr.distributions.views import DenseView

    view = DenseView(example())
    with count_host_reads() as reads:
        draw_sources({"student": 1.0}, 3)
        view.topk(2)[0].tolist()
    (place,) = reads.by_place
    assert place.startswith("test_host_reads.py:") and place.endswith("(tolist)")


def test_operations_and_launches_are_counted():
    x = example().requires_grad_()
    with count_host_reads() as reads:
        (x.view(-1) * 2).sum().backward()
    assert reads.launches >= 3 and reads.ops > reads.launches  # product, sum and the gradient; views launch nothing


def test_host_read_in_backward_counts():
    class Reading(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            grad.tolist()
            return grad

    x = example().requires_grad_()
    with count_host_reads() as reads:
        Reading.apply(x).sum().backward()
    assert reads.total == 1


def test_operation_on_both_devices_is_reported():
    x = example()
    with count_host_reads() as reads:
        x + torch.ones(4)
        x + torch.tensor(1.0)  # a scalar of the host is allowed
    assert sum(reads.mixed.values()) == 1


def test_nested_contexts_both_count():
    x = example()
    with count_host_reads() as outer:
        x.tolist()
        with count_host_reads() as inner:
            x.tolist()
    assert (outer.total, inner.total) == (2, 1)

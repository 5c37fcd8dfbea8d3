"""to_device: values and dtypes of the copies, and no wait for the device."""

from __future__ import annotations

import pytest
import torch

from arkasr.testing.host_reads import count_host_reads
from arkasr.utils.devices import to_device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 2, 3], None, torch.tensor([1, 2, 3])),
        ([], torch.long, torch.zeros(0, dtype=torch.long)),
        ([True, False], torch.bool, torch.tensor([True, False])),
        (range(3), torch.float64, torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)),
        (torch.tensor([1.5]), None, torch.tensor([1.5])),
    ],
)
def test_values_are_copied_without_waiting(values, dtype, expected):
    with count_host_reads() as reads:
        found = to_device(values, CPU, dtype)
        index = torch.zeros(9, device=CPU)[to_device([0, 2], CPU, torch.long)]
    assert found.dtype == expected.dtype and torch.equal(found, expected) and len(index) == 2
    assert reads.total == 0, reads.by_place

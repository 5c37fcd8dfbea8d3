"""Shared samples: arrays arrive equal, and no slot is written again while a tensor on it exists."""

from __future__ import annotations

import pickle

import pytest
import torch

from arkasr.data.shared_samples import SharedSamples, joined


def waveforms(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randn(length, generator=generator) for length in lengths]


def sent(shared: SharedSamples, loader: int, clips: list[torch.Tensor]) -> torch.Tensor:
    """Write waveforms and receive them as the training process does."""
    return torch.from_numpy(pickle.loads(pickle.dumps(shared.write(loader, clips))))


@pytest.mark.parametrize("lengths", [(), (0,), (5,), (3, 0, 4), (60, 40), (60, 41)])
def test_samples_arrive_equal_whether_they_fit_a_slot_or_not(lengths):
    shared = SharedSamples(2, 3, 100)
    clips = waveforms(*lengths)
    for loader in (0, 1):
        received = sent(shared, loader, clips)
        assert received.dtype == torch.float32
        torch.testing.assert_close(received, joined(clips), rtol=0, atol=0)


def test_message_of_a_written_slot_is_small():
    shared = SharedSamples(1, 1, 10**6)
    written = shared.write(0, waveforms(10**6))
    assert len(pickle.dumps(written)) < 200
    assert len(pickle.dumps(shared.write(0, waveforms(1000)))) > 4000  # no free slot: the samples themselves


def test_slot_is_written_again_only_after_its_tensors_are_dropped():
    shared = SharedSamples(1, 2, 100)
    first, second = (sent(shared, 0, waveforms(n)) for n in (90, 91))
    part = first.split([40, 50])[1]
    expected = part.clone()
    del first
    third = sent(shared, 0, waveforms(92))  # both slots are in use
    assert third.data_ptr() not in (part.data_ptr() - 160, second.data_ptr())
    torch.testing.assert_close(part, expected, rtol=0, atol=0)
    place = part.data_ptr() - 160
    del part
    assert sent(shared, 0, waveforms(93)).data_ptr() == place


def test_loaders_have_slots_of_their_own():
    shared = SharedSamples(3, 2, 50)
    held = [sent(shared, loader, waveforms(10 + loader)) for loader in (0, 1, 2, 0, 1, 2)]
    assert len({each.data_ptr() for each in held}) == 6
    for loader, each in zip((0, 1, 2, 0, 1, 2), held, strict=True):
        torch.testing.assert_close(each, waveforms(10 + loader)[0], rtol=0, atol=0)


def test_tensors_outlive_the_object_that_made_the_memory():
    shared = SharedSamples(1, 1, 50)
    received = sent(shared, 0, waveforms(20))
    del shared
    torch.testing.assert_close(received, waveforms(20)[0], rtol=0, atol=0)

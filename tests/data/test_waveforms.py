"""Waveforms of one batch: padded copies, results that are computed once, and selections of clips."""

from __future__ import annotations

import pytest
import torch
from tiny import batch, waveform
from torch.nn.utils.rnn import pad_sequence

from arkasr.data.waveforms import Waveforms

CPU = torch.device("cpu")
LENGTHS = [300, 1000, 1, 470]


def clips():
    return [waveform(n, seed) for seed, n in enumerate(LENGTHS)]


def test_waveforms_are_a_sequence_of_the_clips():
    given = clips()
    waveforms = Waveforms.of(given)
    assert len(waveforms) == 4 and all(a is b for a, b in zip(waveforms, given)) and waveforms[-1] is given[3]
    assert waveforms.lengths == LENGTHS and [len(clip) for clip in waveforms[1:3]] == LENGTHS[1:3]
    assert Waveforms.of(waveforms) is waveforms


def test_padded_holds_each_clip_and_then_zeros():
    assert torch.equal(Waveforms(clips()).padded(CPU), pad_sequence(clips(), batch_first=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_padded_is_float32_without_gradient(dtype):
    padded = Waveforms([clip.to(dtype).requires_grad_() for clip in clips()]).padded(CPU)
    expected = pad_sequence([clip.to(dtype).float() for clip in clips()], batch_first=True)
    assert torch.equal(padded, expected) and padded.dtype == torch.float32 and not padded.requires_grad


def test_padded_copies_once_per_device():
    waveforms = Waveforms(clips())
    assert waveforms.padded(CPU) is waveforms.padded(CPU)
    assert waveforms.padded(torch.device("meta")).device.type == "meta"


def test_once_computes_each_key_once():
    waveforms, calls = Waveforms(clips()), []
    results = [waveforms.once(key, lambda key=key: calls.append(key) or len(calls)) for key in "abab"]
    assert results == [1, 2, 1, 2] and calls == ["a", "b"]


@pytest.mark.parametrize("chosen", [[2], [3, 0], [0, 0, 3, 3], [1, 0, 2, 3], []])
def test_select_reuses_the_padded_copy(chosen):
    waveforms = Waveforms(clips())
    waveforms.padded(CPU)
    selected = waveforms.select(chosen)
    expected = [clips()[i] for i in chosen]
    assert all(map(torch.equal, selected, expected)) and selected.lengths == [LENGTHS[i] for i in chosen]
    assert selected._results and all(map(torch.equal, selected._results.values(), [Waveforms(expected).padded(CPU)]))


def test_select_of_all_clips_keeps_the_object():
    waveforms = Waveforms(clips())
    assert waveforms.select([0, 1, 2, 3]) is waveforms


def test_batch_select_keeps_what_the_batch_has_copied():
    whole = batch(LENGTHS)
    whole.waveforms = Waveforms.of(whole.waveforms)
    assert whole.select([0, 1, 2, 3]).waveforms is whole.waveforms
    assert [len(w) for w in whole.select([3, 1]).waveforms] == [470, 1000]

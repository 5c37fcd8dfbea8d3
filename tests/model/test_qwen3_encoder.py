"""The encoder of Qwen3-ASR against transformers' own forward, and the host reads of both."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import teacher, waveform

from arkasr.data.waveforms import Waveforms
from arkasr.model.speech_lm.qwen3_encoder import encode
from arkasr.testing.host_reads import count_host_reads, forbid_host_reads

SMALL_WINDOWS = {"n_window_infer": 200}  # 2 s, so that clips of 10 s have several


@lru_cache
def model(**audio):
    return teacher(7, **audio)


def features(lengths):
    """Random features of clips with these numbers of frames, and their mask. Values in the padding are large."""
    longest = -(-max(lengths) // 100) * 100
    mel = torch.randn(len(lengths), 16, longest, generator=torch.Generator().manual_seed(sum(lengths)))
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    return mel * mask[:, None], mask


def reference_states(tower, mel, mask):
    with torch.no_grad():
        return tower(mel, mask).last_hidden_state


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 1700), min_size=1, max_size=6), st.sampled_from([{}, SMALL_WINDOWS]))
@example([100, 100, 300], {})  # whole chunks
@example([800, 1600, 800], {})  # whole windows
@example([3, 99, 8, 97], {})  # under 1 s
@example([1000] * 5, {})  # equal clips
@example([801, 1601, 100, 799], SMALL_WINDOWS)
def test_encode_equals_the_encoder_of_transformers(lengths, audio):
    tower = model(**audio).hf.model.audio_tower
    mel, mask = features([*lengths, 100])  # transformers computes the window from the longest chunk
    expected = reference_states(tower, mel, mask)
    with torch.no_grad():
        found = encode(tower, mel, [*lengths, 100])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_encode_gives_every_weight_the_gradient_of_transformers():
    lengths, gradients = [900, 130, 100, 77], []
    mel, mask = features(lengths)
    for compute in (lambda tower: encode(tower, mel, lengths), lambda tower: tower(mel, mask).last_hidden_state):
        tower = teacher(7).hf.model.audio_tower
        compute(tower).square().sum().backward()
        gradients.append({name: p.grad for name, p in tower.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, found in gradients[0].items():
        torch.testing.assert_close(found, gradients[1][name], atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize("sizes", [[16000] * 3, [3000, 160000, 47111, 159, 16000]])
def test_encode_audio_has_no_host_read(sizes):
    clips = [waveform(n, seed) for seed, n in enumerate(sizes)]
    model().encode_audio(clips)  # mel filters are copied once per process
    with torch.no_grad(), forbid_host_reads():
        model().encode_audio(host(clips))


def host(clips):
    """Return clips that count as tensors on the host: `count_host_reads` counts others as on the device."""
    for clip in clips:
        clip._counts_as_host = True
    return Waveforms(clips)


def test_number_of_operations_does_not_grow_with_the_number_of_windows():
    """Three and thirty windows of 8 s need the same number of kernels. transformers' forward needs more for more."""
    tower, ours, theirs = model().hf.model.audio_tower, [], []
    for clips in (3, 30):
        mel, mask = features([800] * clips)
        for counts, compute in (
            (ours, lambda m=mel, c=clips: encode(tower, m, [800] * c)),
            (theirs, lambda m=mel, k=mask: tower(m, k)),
        ):
            with torch.no_grad(), count_host_reads() as reads:
                compute()
            counts.append(reads.launches)
    assert ours[0] == ours[1] and theirs[1] > 2 * theirs[0]

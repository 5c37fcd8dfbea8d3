"""The student's encoder on packed rows against its forward on padded batches, and its host reads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import ARK_SIZES, student, student_tokenizer, waveform

from arkasr.data.waveforms import Waveforms
from arkasr.errors import ClipTooLongError
from arkasr.model.build import build_fresh
from arkasr.model.sharding import checkpoint_blocks
from arkasr.testing.host_reads import count_host_reads, forbid_host_reads

FRAMES = st.lists(st.integers(1, 500), min_size=1, max_size=6)
LM = student(3)


def features(lengths):
    """Random features of clips with these numbers of frames, 0 after their ends, and their mask."""
    mel = torch.randn(len(lengths), 16, max(lengths), generator=torch.Generator().manual_seed(sum(lengths)))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return mel * mask[:, None], mask


@pytest.mark.parametrize("mask_padding", [True, False])
@settings(max_examples=20, deadline=None)
@given(lengths=FRAMES)
@example(lengths=[1, 2, 7, 8, 9])  # under one audio token, and just above
@example(lengths=[100] * 4)
@example(lengths=[3])
def test_audio_rows_equal_get_audio_features(mask_padding, lengths):
    model, (mel, mask) = LM.hf.model, features(lengths)
    LM.hf.config.mask_padding = mask_padding
    with torch.no_grad():
        found, expected = model.audio_rows(mel, lengths), model.get_audio_features(mel, mask).pooler_output
    LM.hf.config.mask_padding = True
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def learned():
    """A student whose encoder has 60 learned positions."""
    sizes = ARK_SIZES | {"audio": ARK_SIZES["audio"] | {"positions": "learned", "max_position_embeddings": 60}}
    return build_fresh("arkasr", sizes, student_tokenizer()).eval()


@torch.no_grad()
def test_audio_rows_with_learned_positions():
    """The limit is that of the longest clip, not of all packed rows."""
    model, lengths = learned().hf.model, [120, 30, 119, 7]
    mel, mask = features(lengths)
    expected = model.get_audio_features(mel, mask).pooler_output
    torch.testing.assert_close(model.audio_rows(mel, lengths), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ClipTooLongError, match="audio of 61 encoder states"):
        model.audio_rows(*features([121, 7])[:1], [121, 7])


def gradients(lm, compute):
    compute(lm.hf.model).square().sum().backward()
    named = lm.hf.model.named_parameters()
    return {name.replace("_checkpoint_wrapped_module.", ""): p.grad for name, p in named if p.grad is not None}


@pytest.mark.parametrize("prepare", [lambda lm: lm, checkpoint_blocks])
def test_audio_rows_give_every_weight_the_same_gradient(prepare):
    lengths = [300, 41, 300, 2]
    mel, mask = features(lengths)
    expected = gradients(student(3), lambda model: model.get_audio_features(mel, mask).pooler_output)
    found = gradients(prepare(student(3)), lambda model: model.audio_rows(mel, lengths))
    assert found.keys() == expected.keys() and len(found) > 20
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("sizes", [[16000] * 3, [3000, 160000, 47111, 159, 16000]])
@pytest.mark.parametrize("grad", [False, True])
def test_encode_audio_has_no_host_read(sizes, grad):
    clips = [waveform(n, seed) for seed, n in enumerate(sizes)]
    LM.encode_audio(clips)  # mel filters are copied once per process
    for clip in clips:
        clip._counts_as_host = True  # as `count_host_reads` marks tensors on the host
    with torch.set_grad_enabled(grad), forbid_host_reads():
        LM.encode_audio(Waveforms(clips))


def test_layers_compute_on_contiguous_states():
    """Transposed states would make each norm copy and each sum read across memory."""
    seen = []
    layer = LM.hf.model.audio_tower.layers[-1]
    hook = layer.register_forward_pre_hook(lambda _, states: seen.append(states[0].is_contiguous()))
    with torch.no_grad():
        LM.encode_audio([waveform(8000), waveform(8000, 1)])
        LM.encode_audio([waveform(8000), waveform(16000, 1)])
        LM.hf.model.audio_tower(torch.randn(2, 16, 40))
    hook.remove()
    assert seen == [True] * 3


@torch.no_grad()
def test_number_of_operations_does_not_grow_with_the_number_of_equal_clips():
    launches = []
    for clips in (4, 12):
        mel, _ = features([100] * clips)
        with count_host_reads() as counts:
            LM.hf.model.audio_rows(mel, [100] * clips)
        launches.append(counts.launches)
    assert launches[0] == launches[1] < 120

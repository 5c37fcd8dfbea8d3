"""Dropout of the student: where it applies, when it is off, and that saved models have none."""

from __future__ import annotations

import pytest
import torch
from tiny import student, teacher, waveform
from tiny_teachers import glm
from torch.nn.functional import dropout

from arkasr.model.dropout import NAME, add_dropout, drops_audio, without_dropout

RATE = 0.3
MODELS = {"arkasr": student, "qwen3_asr": teacher, "glmasr": glm}


def audio_of(lm) -> torch.Tensor:
    torch.manual_seed(7)
    with torch.no_grad():
        return torch.cat(lm.encode_audio([waveform(9000, 1)]))


def test_block_of_the_decoder_is_that_of_the_paper_with_dropout_before_both_sums():
    """The reference adds up the layers of a block itself, in the order of arXiv:1706.03762, section 5.4."""
    lm, plain = student(2), student(2)
    add_dropout(lm, RATE)
    block, reference = lm.train().hf.model.language_model.layers[0], plain.hf.model.language_model.layers[0]
    hidden = torch.randn(2, 5, lm.hf.config.text_config.hidden_size)
    rope = plain.hf.model.language_model.rotary_emb(hidden, torch.arange(5)[None])
    torch.manual_seed(3)
    found = block(hidden, position_embeddings=rope)
    torch.manual_seed(3)
    attended = reference.self_attn(reference.input_layernorm(hidden), position_embeddings=rope, attention_mask=None)[0]
    states = hidden + dropout(attended, RATE)
    expected = states + dropout(reference.mlp(reference.post_attention_layernorm(states)), RATE)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, reference(hidden, position_embeddings=rope))


@pytest.mark.parametrize("name", MODELS)
def test_each_block_has_two_and_they_are_off_in_evaluation_and_in_the_context(name):
    lm = MODELS[name](2)
    before = audio_of(lm)
    add_dropout(lm, RATE)
    towers = lm.hf.model.audio_tower.layers, lm.hf.model.language_model.layers
    assert all(sum(NAME in path for path, _ in block.named_modules()) == 2 for tower in towers for block in tower)
    assert torch.equal(audio_of(lm), before) and not drops_audio(lm)
    lm.train()
    assert drops_audio(lm) and not torch.allclose(audio_of(lm), before)
    with without_dropout(lm):
        assert torch.equal(audio_of(lm), before) and not drops_audio(lm)
        assert lm.training  # only dropout is switched
    assert drops_audio(lm) and lm.state_dict().keys() == MODELS[name](2).state_dict().keys()


def test_frozen_layers_have_none():
    lm = student(2)
    before = audio_of(lm)
    add_dropout(lm, RATE)
    lm.train().hf.model.audio_tower.requires_grad_(False)
    assert not drops_audio(lm) and torch.equal(audio_of(lm), before)


def test_rate_0_changes_no_module():
    lm = student(2)
    add_dropout(lm, 0.0)
    assert not any(NAME in path for path, _ in lm.named_modules())

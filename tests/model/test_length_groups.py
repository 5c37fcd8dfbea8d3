"""Groups of clips of similar length, and the decoder that runs over them."""

from __future__ import annotations

import pytest
import torch
from tiny import student, teacher

from arkasr.model.length_groups import length_groups
from arkasr.model.speech_lm import base

LENGTHS = [600, 40, 55, 610, 43, 300, 50]


def padded(groups: list[list[int]], lengths: list[int]) -> int:
    return sum(len(clips) * max(lengths[i] for i in clips) for clips in groups)


def test_groups_hold_every_clip_once_and_little_padding():
    groups = length_groups(LENGTHS)
    assert sorted(i for clips in groups for i in clips) == list(range(7))
    assert groups == [[1, 2, 4, 6], [5], [0, 3]]
    assert padded(groups, LENGTHS) < 1.05 * sum(LENGTHS) < 0.5 * padded([list(range(7))], LENGTHS)


@pytest.mark.parametrize("lengths", [[9], [30, 30, 30], [200, 190, 195, 205], [5, 60, 12]])
def test_clips_of_similar_length_are_one_group(lengths):
    assert length_groups(lengths) == [list(range(len(lengths)))]


@pytest.mark.parametrize("make", [student, teacher])
@pytest.mark.parametrize("mode", ["without gradient", "with gradient", "sharded"])
def test_grouped_states_equal_those_of_single_clips(monkeypatch, make, mode):
    lm, generator = make(3), torch.Generator().manual_seed(0)
    ids = [[5 + n % 40, 7, 9, 11][: 1 + n % 4] for n in LENGTHS]
    width = lm.hf.config.text_config.hidden_size
    prompts = [torch.randn(n + 1 - len(i), width, generator=generator) for n, i in zip(LENGTHS, ids)]
    alone = torch.cat([lm.transcript_states([p], [i]) for p, i in zip(prompts, ids)]).detach()
    positions = []
    lm.hf.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: positions.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    if mode == "sharded":
        monkeypatch.setattr(base, "FSDPModule", type(lm))
    with torch.set_grad_enabled(mode == "with gradient"):
        together = lm.transcript_states(prompts, ids)
    torch.testing.assert_close(together.detach(), alone, rtol=1e-4, atol=1e-5)
    if mode == "without gradient":
        assert len(positions) == 3 and sum(positions) < 1.05 * sum(LENGTHS)
    else:
        assert positions == [7 * max(LENGTHS)]

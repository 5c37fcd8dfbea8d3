"""Encoding, decoding and scoring on a GPU without values: no operation mixes devices, dtypes or reads a value."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import DEVICE, fake_gpu, on_gpu
from tiny import student, teacher, waveform
from tiny_teachers import glm

from arkasr.model import log_mel
from arkasr.model.generation import StepMode, choosing, engine, schedule, weights
from arkasr.model.generation.batch import DecodingBatch

MODELS = {"qwen2": lambda: student(10), "qwen3": lambda: teacher(10), "llama": lambda: glm()}
CHOICES = {"greedy": choosing.Choice(), "nucleus": choosing.Choice(0.7, 0.9)}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_all_work_of_a_rollout_stays_on_the_gpu(make, choice, monkeypatch):
    lm, languages = make(), ["English"] * 3
    monkeypatch.setattr(log_mel, "_check", lambda *_: None)  # reads waveforms, which are on the host
    monkeypatch.setattr(log_mel, "mel_filters", lambda num_mel, device: torch.empty(201, num_mel, device=device))
    with fake_gpu():
        on_gpu(lm)
        prompts = lm.embed_prompts(lm.encode_audio([waveform(n) for n in (16000, 4000, 24000)]), languages)
        own = (lm.hf.model.language_model, lm.head, lm.blocked, torch.zeros(1, dtype=torch.long, device=DEVICE))
        decoding = engine.Engine(weights.DecoderWeights(*own, is_copy=False, is_fixed=False))
        batch = DecodingBatch(decoding, schedule.GPU, choice, [len(p) for p in prompts], [20] * 3, 4)
        batch.read_prompts(prompts)
        for _ in range(3):
            decoding.step(batch.state, 256, choice, StepMode())
        batch._keep(range(3), 3)
        batch._shrink([0, 2])
        states = lm.transcript_states(prompts, [[1, 2, 3]] * 3)
    found = {name: (value.device, value.dtype) for name, value in vars(batch.state).items() if torch.is_tensor(value)}
    assert found.pop("memory") == (DEVICE, torch.bfloat16) and found.pop("done") == (DEVICE, torch.bool)
    assert found.pop("changed") == (DEVICE, torch.bool)
    assert set(found.values()) == {(DEVICE, torch.long)} == {(t.device, t.dtype) for t in (batch.ids, batch.topk)}
    assert states.shape[0] == 9 and (states.device, states.dtype) == (DEVICE, torch.bfloat16)


def test_a_mix_of_devices_and_a_read_value_are_found():
    with fake_gpu():
        numbers = torch.ones(3, device=DEVICE)
        with pytest.raises(RuntimeError, match="devices"):
            numbers + torch.ones(3)
        with pytest.raises(RuntimeError, match="_local_scalar_dense"):
            numbers.sum().item()

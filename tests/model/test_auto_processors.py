"""Saved folders of all model types, opened and used by transformers alone."""

from __future__ import annotations

import json

import pytest
import torch
from tiny import eager_to_stop, student, teacher, waveform
from tiny_teachers import glm
from transformers import AutoModelForMultimodalLM, AutoProcessor, GenerationConfig

from arkasr.model.generation import generate

MODELS = {"arkasr": lambda: student(5), "qwen3_asr": lambda: teacher(2), "glmasr": lambda: glm(4)}
CLIPS = [waveform(16000, 3), waveform(9600, 1)]


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory):
    lm = eager_to_stop(MODELS[request.param](), 2.0)
    folder = tmp_path_factory.mktemp("saved") / request.param
    lm.save(folder)
    return lm, folder


def request_for(processor, lm, clips):
    language = {"language": "English"} if lm.hf.config.model_type == "qwen3_asr" else {}
    return processor.apply_transcription_request([clip.numpy() for clip in clips], **language)


@torch.no_grad()
def test_processor_of_a_saved_model_writes_its_prompt(saved):
    lm, folder = saved
    processor = AutoProcessor.from_pretrained(folder)
    before, after = lm.prompt_text("English")
    for clip in CLIPS:
        ids = request_for(processor, lm, [clip])["input_ids"][0].tolist()
        [count] = lm.count_audio_tokens(lm.count_frames([clip]))
        audio = [lm.hf.config.audio_token_id] * count
        assert ids == lm._ids(before) + audio + lm._ids(after)


@torch.no_grad()
def test_generate_of_a_saved_model_equals_decoding(saved, caplog):
    lm, folder = saved
    model, processor = AutoModelForMultimodalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    expected = generate(lm, lm.embed_prompts(lm.encode_audio(CLIPS), ["English"] * 2), [256] * 2).ids
    for clip, ids in zip(CLIPS, expected):
        inputs = request_for(processor, lm, [clip])
        found = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :].tolist()
        assert found == ids
    assert not caplog.records and max(map(len, expected)) > 1


def test_generation_config_of_a_saved_model_is_that_of_decoding(saved):
    lm, folder = saved
    config = GenerationConfig.from_pretrained(folder)
    ends = [config.eos_token_id] if isinstance(config.eos_token_id, int) else config.eos_token_id
    assert ends == lm.stop_ids and config.suppress_tokens == lm.suppressed_ids
    assert (config.max_new_tokens, config.do_sample) == (256, False)
    assert "_from_model_config" not in json.loads((folder / "generation_config.json").read_text())

"""Qwen3-ASR against transformers' processor of it and full forward passes."""

from __future__ import annotations

import copy
import math
from functools import lru_cache

import pytest
import torch
from tiny import teacher, teacher_tokenizer, waveform
from transcript_scores import STOP, scored
from transformers import Qwen3ASRFeatureExtractor, Qwen3ASRProcessor

CHAT = """
{%- set system = messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | list -%}
{%- set context = system[0] if system else '' -%}
{{- '<|im_start|>system\n' -}}
{%- if context is string -%}{{- context -}}{%- else -%}{{- context[0].text -}}{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- for message in messages if message.role != 'system' -%}
{{- '<|im_start|>' + message.role + '\n' -}}
{%- for part in message.content -%}
{%- if part.type == 'audio' -%}{{- '<|audio_start|><|audio_pad|><|audio_end|>' -}}
{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
"""


@lru_cache
def processor():
    """Qwen3-ASR's own processor around the tiny tokenizer."""
    tokenizer = copy.deepcopy(teacher_tokenizer())
    tokenizer.audio_token, tokenizer.audio_bos_token = "<|audio_pad|>", "<|audio_start|>"
    tokenizer.audio_eos_token = "<|audio_end|>"
    return Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(feature_size=16), tokenizer, chat_template=CHAT)


def reference_scores(lm, clip, language, transcript):
    """Compute logits [S, V] and ids [S] of one clip and transcript with transformers only."""
    audio = [clip.numpy()]
    [prompt] = processor().apply_transcription_request(audio, language=[language], tokenize=False)
    inputs = processor()(text=[prompt + transcript], audio=audio, return_tensors="pt")
    with torch.no_grad():
        return lm.hf(**inputs).logits[0], inputs["input_ids"][0]


@pytest.mark.parametrize("samples", [160, 4000, 8000, 12160, 16000, 17760, 31840, 48000, 144000])
@pytest.mark.parametrize(("language", "text"), [("English", "the lazy dog"), ("Chinese", "\u4eca\u5929\u5929\u6c14")])
def test_qwen_scores_match_its_official_processor(qwen, samples, language, text):
    clip = waveform(samples // 160 * 160, seed=samples % 7)
    logits, ids = reference_scores(qwen, clip, language, text + STOP)
    target = qwen.text_ids(text)
    assert ids[-len(target) :].tolist() == target and qwen.tokenizer.convert_ids_to_tokens(target)[-1] == STOP
    scores = scored(qwen, [clip], [language], [target])
    expected = logits[-len(target) - 1 : -1]
    assert expected.std() > 0.1
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        [prompt] = qwen.embed_prompts(qwen.encode_audio([clip]), [language])
    assert len(prompt) == len(ids) - len(target)


def test_qwen_audio_token_counts_match_its_processor(qwen):
    frames = torch.arange(1, 3001)
    assert qwen.count_audio_tokens(frames.tolist()) == processor()._get_audio_token_length(frames).tolist()


@pytest.mark.parametrize("samples", [1, 2, 159, 7999, 8001, 15999, 16161, 20000])
def test_qwen_drops_a_partial_hop(qwen, samples):
    """The audio embeddings are those of the clip's whole hops, and their count is that of the encoder's output."""
    clip = waveform(samples)
    with torch.no_grad():
        [rows] = qwen.encode_audio([clip])
        [whole] = qwen.encode_audio([clip[: max(samples // 160, 1) * 160]])
    seconds, rest = divmod(max(samples // 160, 50), 100)
    assert len(rows) == qwen.count_audio_tokens(qwen.count_frames([clip]))[0] == 13 * seconds + math.ceil(rest / 8)
    torch.testing.assert_close(rows, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("audio", [{}, {"n_window": 200, "max_position_embeddings": 50}, {"n_window_infer": 100}])
def test_qwen_encode_audio_does_not_depend_on_batch_composition(audio):
    lm = teacher(5, **audio)
    sizes = [3000, 16000, 40000, 17777, 161]
    clips = [waveform(n, seed=i) for i, n in enumerate(sizes)]
    with torch.no_grad():
        for clip, got in zip(clips, lm.encode_audio(clips)):
            [alone] = lm.encode_audio([clip])
            torch.testing.assert_close(got, alone, atol=1e-5, rtol=1e-5)

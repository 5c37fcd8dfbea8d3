"""GLM-ASR against transformers' processor and model for one clip at a time, and its windows."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from mapper_cases import drive
from steps import InMemory
from tiny import student, waveform
from tiny_teachers import STATES, glm, glm_tokenizer
from transformers import GlmAsrProcessor, WhisperFeatureExtractor

from arkasr.errors import UserError
from arkasr.testing.host_reads import forbid_host_reads

CHAT = """
{%- for message in messages -%}
{{- '<|' + message.role + '|>\n' -}}
{%- for part in message.content -%}
{%- if part.type == 'audio' -%}{{- '<|begin_of_audio|><|pad|><|end_of_audio|><|user|>\n' -}}
{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%}
"""
WINDOW = 2 * STATES * 160  # samples


@lru_cache
def processor():
    """Return GLM-ASR's own processor with the tiny tokenizer and windows of 2 s."""
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=WINDOW // 16000)
    return GlmAsrProcessor(extractor, glm_tokenizer(), chat_template=CHAT)


def reference_scores(lm, clip, transcript):
    """Compute logits [S, V] and ids [S] of one clip and transcript with transformers only."""
    audio = [clip.numpy()]
    [prompt] = processor().apply_transcription_request(audio, tokenize=False)
    inputs = processor()(text=[prompt + transcript], audio=audio)
    with torch.no_grad():
        return lm.hf(**inputs).logits[0], inputs["input_ids"][0]


def scored(lm, clips, token_ids):
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(clips))
        return lm.transcript_states(prompts, token_ids) @ lm.head.T, prompts


@pytest.fixture(scope="module")
def lm():
    return glm(4)


@pytest.mark.parametrize(
    "samples", [1120, 1121, 4000, 8001, 16000, 17777, WINDOW - 1, WINDOW, WINDOW + 5000, 2 * WINDOW + 1, 3 * WINDOW]
)
def test_glm_scores_match_its_official_processor(lm, samples):
    """The encoder attends to the silence up to the window's end. The prompt has as many audio tokens as there."""
    clip = waveform(samples, seed=samples % 7)
    logits, ids = reference_scores(lm, clip, "the lazy dog<|user|>")
    target = lm.text_ids("the lazy dog")
    assert ids[-len(target) :].tolist() == target
    scores, [prompt] = scored(lm, [clip], [target])
    assert len(prompt) == len(ids) - len(target)
    expected = logits[-len(target) - 1 : -1]
    assert expected.std() > 0.1
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("samples", [1, 160, 1100])
def test_glm_gives_one_audio_token_to_the_shortest_clips(lm, samples):
    with torch.no_grad():
        [rows] = lm.encode_audio([waveform(samples)])
    assert rows.shape == (1, 24) and rows.isfinite().all()


@pytest.mark.parametrize("clip", [torch.zeros(0), torch.full((900,), torch.nan), torch.zeros(2, 900)])
def test_glm_encode_audio_names_an_invalid_clip(lm, clip):
    with pytest.raises(UserError, match="clip 1 of 3"):
        lm.encode_audio([waveform(2 * WINDOW), clip, waveform(900)])


def test_glm_encode_audio_does_not_depend_on_batch_composition(lm):
    clips = [waveform(n, seed=i) for i, n in enumerate([3000, WINDOW + 9000, 17777, 161, 2 * WINDOW])]
    with torch.no_grad():
        for clip, got in zip(clips, lm.encode_audio(clips), strict=True):
            [alone] = lm.encode_audio([clip])
            torch.testing.assert_close(got, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("states", [97, 98, 99, 100, 3])
def test_glm_window_holds_whole_audio_tokens(states):
    lm = glm(1, states)
    assert lm.window % 8 == 0 and 0 <= lm.window - 2 * states < 8
    clips = [waveform(n, seed=n % 5) for n in (2000, lm.window * 160 + 4000)]
    with torch.no_grad():
        rows = lm.encode_audio(clips)
    frames = [-(-len(clip) // 160) for clip in clips]
    assert [len(r) for r in rows] == [max((n + 1) // 2 // 4, 1) for n in frames]


def test_glm_stop_ids_are_allowed_and_not_text(lm):
    assert lm.tokenizer.convert_ids_to_tokens(lm.stop_ids) == ["<|user|>", "<|endoftext|>", "<|observation|>"]
    assert not lm.blocked[lm.stop_ids].any() and lm.blocked[lm.hf.config.audio_token_id]
    assert lm.text([*lm.text_ids("sea"), *lm.stop_ids]) == "sea"


@pytest.mark.parametrize(
    ("mapper", "options"), [("shared_strings", {}), ("byte_offsets", {"min_mapped_mass": 0.0})], ids=["shared", "bytes"]
)
def test_glm_teaches_a_student_with_another_vocabulary(lm, mapper, options):
    drive(mapper, student(10), InMemory(lm), [waveform(n, n % 7) for n in (16000, 4000, WINDOW + 5000)], options)


def test_layers_compute_on_contiguous_states(lm):
    """Transposed states would make each norm copy and each sum read across memory."""
    seen = []
    layer = lm.hf.model.audio_tower.layers[-1]
    hook = layer.register_forward_pre_hook(lambda _, states: seen.append(states[0].is_contiguous()))
    with torch.no_grad():
        lm.encode_audio([waveform(8000), waveform(WINDOW + 9000)])
    hook.remove()
    assert seen == [True]


def test_encode_audio_has_no_host_read(lm):
    clips = [waveform(8000), waveform(WINDOW + 9000), waveform(100)]
    lm.encode_audio(clips)  # mel filters are copied once per process
    for clip in clips:
        clip._counts_as_host = True  # as `count_host_reads` marks tensors on the host
    with torch.no_grad(), forbid_host_reads():
        lm.encode_audio(clips)

"""SpeechLM against transformers' processor of Qwen3-ASR and full forward passes, and its texts and blocked ids."""

from __future__ import annotations

import copy
import math
import os
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import QWEN_SIZES, bpe_bytes, piece_bytes, student, teacher, teacher_tokenizer, waveform
from transformers import Qwen3ASRFeatureExtractor, Qwen3ASRProcessor
from transformers.models.qwen3_asr.modeling_qwen3_asr import get_audio_cu_seqlens

from arkasr.model.build import build_fresh, prompt_examples
from arkasr.model.speech_lm.arkasr import ArkSpeechLM
from arkasr.model.speech_lm.auto import wrap
from arkasr.model.speech_lm.qwen3_asr import QwenSpeechLM

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
STOP = "<|im_end|>"


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


@pytest.fixture(scope="module")
def qwen():
    return teacher(4)


@pytest.fixture(scope="module")
def ark():
    return student(4)


def scored(lm, clips, languages, token_ids):
    """Compute the logits [P, V] of the transcripts with SpeechLM."""
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(clips), languages)
        return lm.transcript_states(prompts, token_ids) @ lm.head.T


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
    mask = torch.arange(3000) < frames[:, None]
    assert qwen.count_audio_tokens(mask.long()) == processor()._get_audio_token_length(frames).tolist()


@pytest.mark.parametrize("samples", [1, 2, 159, 7999, 8001, 15999, 16161, 20000])
def test_qwen_drops_a_partial_hop(qwen, samples):
    """The audio embeddings are those of the clip's whole hops, and their count is that of the encoder's output."""
    clip = waveform(samples)
    with torch.no_grad():
        [rows] = qwen.encode_audio([clip])
        _, mask = qwen.features([clip])
        [whole] = qwen.encode_audio([clip[: max(samples // 160, 1) * 160]])
    seconds, rest = divmod(max(samples // 160, 50), 100)
    assert len(rows) == qwen.count_audio_tokens(mask)[0] == 13 * seconds + math.ceil(rest / 8)
    torch.testing.assert_close(rows, whole, atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 1700), min_size=1, max_size=4))
def test_qwen_attention_windows_match_transformers(lengths):
    lm, padded = shared_teacher(), -(-max(lengths) // 100) * 100
    mask = (torch.arange(padded) < torch.tensor(lengths)[:, None]).long()
    chunks = mask.view(len(lengths), -1, 100).sum(-1).reshape(-1)
    expected = get_audio_cu_seqlens(chunks, mask.sum(-1), 800, 50)
    windows = lm.encoder_arguments(lm.count_audio_tokens(mask))["cu_seqlens"]
    if max(lengths) >= 97:  # one whole chunk; below it transformers uses a shorter window, which no clip fills
        assert windows.tolist() == expected.tolist() and windows.dtype == expected.dtype
    else:
        assert windows[1:].diff().ne(0).all() and windows[-1] == expected[-1]


@lru_cache
def shared_teacher():
    return teacher(7)


@pytest.mark.parametrize("audio", [{}, {"n_window": 200, "max_position_embeddings": 50}, {"n_window_infer": 100}])
def test_qwen_encode_audio_does_not_depend_on_batch_composition(audio):
    lm = teacher(5, **audio)
    sizes = [3000, 16000, 40000, 17777, 161]
    clips = [waveform(n, seed=i) for i, n in enumerate(sizes)]
    with torch.no_grad():
        for clip, got in zip(clips, lm.encode_audio(clips)):
            [alone] = lm.encode_audio([clip])
            torch.testing.assert_close(got, alone, atol=1e-5, rtol=1e-5)


def test_student_encode_audio_does_not_depend_on_batch_composition(ark):
    clips = [waveform(n, seed=i) for i, n in enumerate([3000, 16000, 17777, 161, 1])]
    with torch.no_grad():
        for clip, got in zip(clips, ark.encode_audio(clips)):
            [alone] = ark.encode_audio([clip])
            assert len(alone) == max((max(len(clip) // 160, 1) + 1) // 2 // 4, 1)
            torch.testing.assert_close(got, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ark", "qwen"])
def test_transcript_states_match_a_full_forward(kind, request):
    """Row j of a clip gives the model's logits after the prompt and the first j tokens of the transcript."""
    lm = request.getfixturevalue(kind)
    clips = [waveform(n, seed=i) for i, n in enumerate([8000, 16000, 4000])]
    token_ids = [[5, 9, 200, 7, lm.stop_ids[0]], [lm.stop_ids[0]], [11, 12]]
    got = scored(lm, clips, ["English", "Chinese", "English"], token_ids).split([5, 1, 2])
    for clip, language, ids, rows in zip(clips, ["English", "Chinese", "English"], token_ids, got):
        before, after = lm.prompt_text(language)
        with torch.no_grad():
            [audio] = lm.encode_audio([clip])
            ends = [lm.tokenizer.encode(part, add_special_tokens=False) for part in (before, after)]
            embed = lm.hf.get_input_embeddings().weight
            whole = torch.cat([embed[ends[0]], audio, embed[ends[1] + ids]])
            logits = lm.hf(inputs_embeds=whole[None]).logits[0]
        start = len(ends[0]) + len(audio) + len(ends[1]) - 1
        torch.testing.assert_close(rows, logits[start : start + len(ids)], atol=1e-5, rtol=1e-5)


def test_embeddings_are_looked_up_twice_for_any_number_of_clips(ark):
    """Each lookup costs a gradient of the whole table in backward: one for the prompts, one for the transcripts."""
    calls = []
    hook = ark.hf.get_input_embeddings().register_forward_hook(lambda *_: calls.append(1))
    clips = [waveform(1600 * n) for n in (3, 5, 4)]
    prompts = ark.embed_prompts(ark.encode_audio(clips), ["English", "Chinese", "English"])
    states = ark.transcript_states(prompts, [[5, 6, 7], [8], [9, 10]])
    hook.remove()
    assert len(states) == 6 and len(calls) == 2


def test_prompt_text_matches_the_published_prompts(ark, qwen):
    assert "".join(ark.prompt_text("Chinese")) == (
        "<|user|><|begin_of_audio|><|end_of_audio|>Please transcribe this audio.<|assistant|>"
    )
    assert "".join(qwen.prompt_text("Chinese")) == (
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|><|audio_end|><|im_end|>\n"
        "<|im_start|>assistant\nlanguage Chinese<asr_text>"
    )
    for kind in ("arkasr", "qwen3_asr"):
        assert all(isinstance(text, str) and text for text in prompt_examples(kind))


@pytest.mark.parametrize("kind", ["ark", "qwen"])
@pytest.mark.parametrize("text", ["the quick fox", "\u4eca\u5929 hello \U0001f600", "", "caf\u00e9"])
def test_text_inverts_text_ids(kind, text, request):
    lm = request.getfixturevalue(kind)
    ids = lm.text_ids(text)
    assert ids[-1] == lm.stop_ids[0] and not set(ids[:-1]) & set(lm.stop_ids)
    assert lm.text(ids) == lm.text(ids[:-1]) == text
    assert not lm.blocked[ids].any()


def test_text_drops_special_tokens(ark, qwen):
    assert ark.text([*ark.text_ids(" the sea ")[:-1], *range(len(ark.tokenizer) - 8, len(ark.tokenizer))]) == "the sea"
    assert qwen.text([*qwen.stop_ids, *qwen.text_ids("sea")]) == "sea"


@pytest.mark.parametrize("kind", ["ark", "qwen"])
def test_blocked_allows_text_and_stop_ids_only(kind, request):
    lm = request.getfixturevalue(kind)
    text_tokens = (piece_bytes if kind == "ark" else bpe_bytes)(lm.tokenizer)
    allowed = set((~lm.blocked).nonzero()[:, 0].tolist())
    assert allowed == set(text_tokens) | set(lm.stop_ids)
    assert [lm.tokenizer.convert_ids_to_tokens(i) for i in lm.stop_ids] == [STOP, "<|endoftext|>"][: len(lm.stop_ids)]
    assert "blocked" not in lm.state_dict()


def test_blocked_includes_ids_beyond_the_tokenizer(ark):
    hf = copy.deepcopy(ark.hf)
    hf.resize_token_embeddings(len(ark.tokenizer) + 7)
    larger = wrap(hf, ark.tokenizer)
    assert larger.blocked[-7:].all() and torch.equal(larger.blocked[:-7], ark.blocked)


def test_wrap_chooses_the_class_by_model_type(ark, qwen):
    assert type(ark) is ArkSpeechLM and type(qwen) is QwenSpeechLM
    assert (ark.num_mel, qwen.num_mel) == (16, 16)


def test_ctc_head_covers_vocabulary_and_blank_and_is_not_saved(ark, tmp_path):
    lm = wrap(ark.hf, ark.tokenizer)
    lm.add_ctc_head()
    [audio] = lm.encode_audio([waveform(8000)])
    assert lm.ctc_head(audio).shape == (len(audio), len(lm.tokenizer) + 1)
    lm.save(tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in tmp_path.iterdir()}
    assert b"ctc" not in (tmp_path / "model.safetensors").read_bytes()[:20000]


def test_build_fresh_uses_the_initializer_range():
    torch.manual_seed(0)
    lm = build_fresh("qwen3_asr", QWEN_SIZES | {"initializer_range": 0.05}, teacher_tokenizer()).requires_grad_(False)
    assert float(lm.head.std()) == pytest.approx(0.05, rel=0.05)
    assert float(lm.hf.model.audio_tower.layers[0].fc1.weight.std()) == pytest.approx(0.05, rel=0.05)
    convolution = lm.hf.model.audio_tower.conv2d2.weight
    assert float(convolution.std()) == pytest.approx(2 / (8 * 9) ** 0.5, rel=0.15)
    assert lm.head.data_ptr() == lm.hf.get_input_embeddings().weight.data_ptr()


def test_forward_runs_the_function_on_the_model(ark):
    assert ark(lambda lm: lm is ark)


@pytest.mark.parametrize("shard", ["50GB", "9KB"])
def test_save_gives_weights_the_permissions_of_the_configuration(shard, tmp_path):
    before = os.umask(0o027)
    try:
        student().save(tmp_path, max_shard_size=shard)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}

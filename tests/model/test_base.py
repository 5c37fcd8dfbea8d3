"""SpeechLM of both model types against full forward passes, its texts and blocked ids."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from tiny import bpe_bytes, piece_bytes, student, waveform
from transcript_scores import STOP, scored

from arkasr.model.speech_lm.auto import wrap
from arkasr.testing.host_reads import count_host_reads


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


def test_ctc_head_covers_vocabulary_and_blank_and_is_not_saved(ark, tmp_path):
    lm = wrap(ark.hf, ark.tokenizer)
    lm.add_ctc_head()
    [audio] = lm.encode_audio([waveform(8000)])
    assert lm.ctc_head(audio).shape == (len(audio), len(lm.tokenizer) + 1)
    lm.save(tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in tmp_path.iterdir()}
    assert b"ctc" not in (tmp_path / "model.safetensors").read_bytes()[:20000]


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


@pytest.mark.parametrize("kind", ["ark", "qwen"])
def test_transcript_states_attend_causally_and_read_nothing(kind, request, monkeypatch):
    lm = request.getfixturevalue(kind)
    prompts, ids = [torch.randn(n, lm.head.shape[1]) for n in (9, 4)], [[5, 6, 7], [8, 9]]
    with torch.no_grad(), count_host_reads() as reads:
        states = lm.transcript_states(prompts, ids)
    monkeypatch.setattr(lm, "_causal_masks", lambda: None)  # transformers builds the masks
    with torch.no_grad(), count_host_reads() as checked:
        expected = lm.transcript_states(prompts, ids)
    assert torch.equal(states, expected) and reads.total == 0 < checked.total

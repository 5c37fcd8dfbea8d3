"""A folder in the published layout, loaded by arkasr, against a reference implementation of the published code.

A difference is the largest one of any logit, divided by the largest logit. `pytest -rP` shows it.
"""

from __future__ import annotations

import copy
import json
import math
from functools import lru_cache, partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import reference_audio_embeddings, reference_greedy, reference_logits
from published_folder import (
    TINY_ENCODER,
    TINY_SIZES,
    published_config,
    random_weights,
    write_published,
)
from tiny import student_tokenizer, waveform
from torch import nn
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, WhisperFeatureExtractor

from arkasr import ArkasrConfig, ArkasrForConditionalGeneration, ArkasrProcessor, generate, load_speech_lm
from arkasr.model.arkasr import published_weights

TOKENIZER = student_tokenizer()
IDS = {"audio_token_id": TOKENIZER.convert_tokens_to_ids("<|audio|>"), "eos_token_id": TOKENIZER.eos_token_id} | {
    "pad_token_id": TOKENIZER.pad_token_id,
    "bos_token_id": TOKENIZER.pad_token_id,
}
CONFIG = published_config(TINY_SIZES | {"vocab_size": len(TOKENIZER) + 5}, TINY_ENCODER, **IDS)
STORED = random_weights(CONFIG, seed=3)
W = {name: tensor.double() for name, tensor in STORED.items()}
LIMIT, LENGTHS = 1e-5, range(3, 49)
CLIPS = [4800, 7777, 1, 1600, 16001, 330, 12800]  # samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in the published layout. Tests do not write into it."""
    path = tmp_path_factory.mktemp("published")
    write_published(path, CONFIG, STORED, TOKENIZER)
    return path


@pytest.fixture(scope="module")
def hf(folder):
    return ArkasrForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def lm(folder):
    return load_speech_lm(str(folder))


@pytest.fixture(scope="module")
def unmasked(folder, tmp_path_factory):
    """The same model with the authors' treatment of padding set in config.json."""
    path = tmp_path_factory.mktemp("unmasked")
    write_published(path, CONFIG | {"mask_padding": False}, STORED, TOKENIZER)
    return load_speech_lm(str(path))


def mel(frames, seed=0):
    return torch.randn(16, frames, generator=torch.Generator().manual_seed(frames + 1000 * seed))


def tokens(frames):
    """Count the audio tokens of one clip: 12.5 per second, at least one."""
    return max(math.ceil(frames / 2) // 4, 1)


def prompt(frames, text=""):
    audio = "<|audio|>" * tokens(frames)
    whole = f"<|user|><|begin_of_audio|>{audio}<|end_of_audio|>Please transcribe this audio.<|assistant|>{text}"
    return TOKENIZER.encode(whole, add_special_tokens=False)


def native_logits(hf, frames):
    with torch.no_grad():
        return hf(
            input_ids=torch.tensor([prompt(frames, "the sea")]),
            input_features=mel(frames)[None],
            input_features_mask=torch.ones(1, frames, dtype=torch.long),
        ).logits[0]


@lru_cache
def expected_logits(frames):
    audio = reference_audio_embeddings(CONFIG, W, mel(frames))
    return reference_logits(CONFIG, W, prompt(frames, "the sea"), audio)


def difference(got, expected):
    assert got.shape == expected.shape and expected.std() > 0.1
    return float((got - expected).abs().max() / expected.abs().max())


def blocked():
    """Return the blocked ids: ids beyond the tokenizer, <unk>, and all added tokens except the stop token."""
    added = [i for i in TOKENIZER.added_tokens_decoder if i != CONFIG["eos_token_id"]]
    return [*added, TOKENIZER.unk_token_id, *range(len(TOKENIZER), CONFIG["vocab_size"])]


@pytest.mark.parametrize("frames", [1, 2, *LENGTHS, 2999, 3000])
def test_logits_match_the_published_code(hf, frames):
    found = difference(native_logits(hf, frames), expected_logits(frames))
    print(f"{frames} frames: {found:.1e}")
    assert found < LIMIT


def reordered(hf, rows):
    """Copy the published q and k into the encoder, with the rows of each head in the order `rows(head size)`."""
    size = 32 // 2
    order = torch.cat([head * size + rows(size) for head in range(2)])
    with torch.no_grad():
        for n, layer in enumerate(hf.model.audio_tower.layers):
            for part in ("q_proj.weight", "q_proj.bias", "k_proj.weight"):
                stored = STORED[f"audio_encoder.whisper.layers.{n}.self_attn.{part}"]
                layer.self_attn.get_parameter(part).copy_(stored[order])


def evens_first(size, part):
    rotated = int(size * part)
    return torch.cat([torch.arange(0, rotated, 2), torch.arange(1, rotated, 2), torch.arange(rotated, size)])


def two_norms(hf):
    """Apply a second layer norm before the adapter."""
    hf.model.audio_tower.norm = nn.Sequential(hf.model.audio_tower.layers[0].input_layernorm, hf.model.audio_tower.norm)


WRONG = {
    "rows as published": partial(reordered, rows=torch.arange),
    "whole heads reordered": partial(reordered, rows=partial(evens_first, part=1.0)),
    "no norm": lambda hf: setattr(hf.model.audio_tower, "norm", nn.Identity()),
    "two norms": two_norms,
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_conversion_of_the_checkpoint_changes_logits(hf, name):
    wrong = copy.deepcopy(hf)
    WRONG[name](wrong)
    found = [difference(native_logits(wrong, frames), expected_logits(frames)) for frames in (*LENGTHS, 3000)]
    print(f"{name}: {min(found):.1e} to {max(found):.1e}")
    assert min(found) > 1e-3


def test_row_order_is_even_rows_first_in_half_of_each_head(hf):
    again = copy.deepcopy(hf)
    reordered(again, rows=partial(evens_first, part=0.5))
    assert torch.equal(native_logits(again, 40), native_logits(hf, 40))


def test_loading_without_reordering_changes_logits(folder, monkeypatch):
    monkeypatch.setattr(published_weights, "row_order", lambda config: torch.arange(config.hidden_size))
    wrong = ArkasrForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    assert min(difference(native_logits(wrong, frames), expected_logits(frames)) for frames in LENGTHS) > 1e-3


def whisper_features(clips):
    """Compute the authors' features [B, 16, T]: waveforms padded with zeros to the longest, at least 201 samples."""
    extractor = WhisperFeatureExtractor(feature_size=16)
    padded = [torch.nn.functional.pad(c, (0, max(201 - len(c), 0))).numpy() for c in clips]
    return extractor(padded, sampling_rate=16000, padding="longest", return_tensors="pt").input_features


def reference_transcripts(clips, features, cap=12):
    transcripts = []
    for clip, feature in zip(clips, features):
        rows = reference_audio_embeddings(CONFIG, W, feature)
        transcripts.append(reference_greedy(CONFIG, W, prompt(max(len(clip) // 160, 1)), rows, blocked(), cap))
    return transcripts


def transcripts(lm, clips, cap=12):
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(clips))
        return generate(lm, prompts, [cap] * len(clips)).ids


def clips(sizes=CLIPS):
    return [waveform(n, seed) for seed, n in enumerate(sizes)]


def test_greedy_transcripts_of_waveforms_match_the_published_code(lm):
    alone = [whisper_features([clip])[0] for clip in clips()]
    expected = reference_transcripts(clips(), alone)
    assert transcripts(lm, clips()) == expected
    assert len({tuple(ids) for ids in expected}) > 3 and {ids[-1] == CONFIG["eos_token_id"] for ids in expected} == {
        True,
        False,
    }


def test_greedy_transcripts_of_mel_match_the_published_code(lm):
    lengths = [3, 8, 12, 37, 48]
    features = [mel(frames, seed=1) for frames in lengths]
    batch = torch.stack([torch.nn.functional.pad(m, (0, 48 - m.shape[1])) for m in features])
    mask = (torch.arange(48) < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad():
        rows = lm.hf.model.get_audio_features(batch, mask).pooler_output.split([tokens(n) for n in lengths])
        ids = generate(lm, lm.embed_prompts(rows, ["English"] * 5), [12] * 5).ids
    assert ids == [
        reference_greedy(CONFIG, W, prompt(n), reference_audio_embeddings(CONFIG, W, m), blocked(), 12)
        for n, m in zip(lengths, features)
    ]


@pytest.mark.parametrize("samples", [7777, 16001])
def test_model_card_snippet_gives_the_published_transcript(folder, samples):
    """The published snippet without `trust_remote_code`: special tokens are blocked, the processor adds the prompt."""
    clip = waveform(samples, seed=5)
    processor, tokenizer = AutoProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    instruction = {"type": "text", "text": "Please transcribe this audio."}
    turn = {"role": "user", "content": [{"type": "audio", "audio": clip}, instruction]}
    inputs = processor.apply_chat_template([turn], add_generation_prompt=True, return_tensors="pt")
    blocked_ids = [i for i in tokenizer.all_special_ids if i != tokenizer.eos_token_id]
    output = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=12,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bad_words_ids=[[i] for i in blocked_ids],
    )
    rows = reference_audio_embeddings(CONFIG, W, whisper_features([clip])[0])
    expected = reference_greedy(CONFIG, W, prompt(samples // 160), rows, blocked_ids, 12)
    assert output[0, inputs["input_ids"].shape[1] :].tolist() == expected


def scores(lm, clips):
    """Compute the logits [L, V] of one transcript for each clip."""
    ids = TOKENIZER.encode("the sea shore", add_special_tokens=False)
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(clips))
        logits = lm.transcript_states(prompts, [ids] * len(clips)) @ lm.head.T
    return logits.split(len(ids))


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)  # random examples would sometimes hit near ties
@given(st.lists(st.integers(1, 9000), min_size=2, max_size=5), st.integers(0, 99))
def test_scores_and_transcripts_do_not_depend_on_batch_composition(lm, sizes, seed):
    batch = [waveform(n, seed + i) for i, n in enumerate(sizes)]
    for clip, got, ids in zip(batch, scores(lm, batch), transcripts(lm, batch, cap=6)):
        assert difference(got, scores(lm, [clip])[0]) < 2 * LIMIT
        assert [ids] == transcripts(lm, [clip], cap=6)


def test_unmasked_model_uses_the_authors_features(unmasked):
    processor = ArkasrProcessor.from_pretrained(unmasked.tokenizer.name_or_path)
    inputs = processor(clips())
    for features, mask in (unmasked.features(clips()), (inputs["input_features"], inputs["input_features_mask"])):
        torch.testing.assert_close(features, whisper_features(clips()), atol=2e-4, rtol=0)
        assert mask.sum(-1).tolist() == [max(n // 160, 1) for n in CLIPS]


def test_unmasked_model_matches_the_published_code_on_a_padded_batch(unmasked, lm):
    assert not unmasked.hf.config.mask_padding and lm.hf.config.mask_padding
    features, _ = unmasked.features(clips())
    text = TOKENIZER.encode("the sea shore", add_special_tokens=False)
    for clip, feature, got, masked in zip(clips(), features, scores(unmasked, clips()), scores(lm, clips())):
        ids = prompt(max(len(clip) // 160, 1), "the sea shore")
        expected = reference_logits(CONFIG, W, ids, reference_audio_embeddings(CONFIG, W, feature))[-len(text) - 1 : -1]
        assert difference(got, expected) < LIMIT
        assert (difference(masked, expected) > 1e-2) == (len(clip) < max(CLIPS))
    assert transcripts(unmasked, clips()) == reference_transcripts(clips(), whisper_features(clips()))


def test_mask_padding_does_not_change_a_single_clip(unmasked, lm):
    for clip in clips():
        assert difference(scores(unmasked, [clip])[0], scores(lm, [clip])[0]) < 1e-6


def test_mask_padding_is_saved_in_either_layout(unmasked, tmp_path):
    for published in (False, True):
        unmasked.save(tmp_path)
        unmasked.hf.save_pretrained(tmp_path, save_original_format=published)
        assert not ArkasrProcessor.from_pretrained(tmp_path).feature_extractor.mask_padding
        assert ("whisper_config" in json.loads((tmp_path / "config.json").read_text())) == published
        assert ArkasrConfig.from_pretrained(tmp_path).mask_padding is False

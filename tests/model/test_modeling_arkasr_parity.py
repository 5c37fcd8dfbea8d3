"""A folder in the published layout, loaded by our classes, against the slow rendering of the published architecture.

Differences are the largest of any logit, divided by the largest logit; `pytest -rP` shows them.
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
from published import audio_rows, decoder_logits, greedy
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
STORED = random_weights(CONFIG)
W = {name: tensor.double() for name, tensor in STORED.items()}
LIMIT, LENGTHS = 1e-5, range(3, 49)
CLIPS = [4800, 7777, 1, 1600, 16001, 330, 12800]  # samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published folder; not to be written into."""
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
    """The same model, its config.json asking for the authors' treatment of padding."""
    path = tmp_path_factory.mktemp("unmasked")
    write_published(path, CONFIG | {"mask_padding": False}, STORED, TOKENIZER)
    return load_speech_lm(str(path))


def mel(frames, seed=0):
    return torch.randn(16, frames, generator=torch.Generator().manual_seed(frames + 1000 * seed))


def tokens(frames):
    """Count a clip's audio tokens: 12.5 a second, at least one."""
    return max(math.ceil(frames / 2) // 4, 1)


def prompt(frames, text=""):
    audio = "<|audio|>" * tokens(frames)
    said = f"<|user|><|begin_of_audio|>{audio}<|end_of_audio|>Please transcribe this audio.<|assistant|>{text}"
    return TOKENIZER.encode(said, add_special_tokens=False)


def native_logits(hf, frames):
    with torch.no_grad():
        return hf(
            input_ids=torch.tensor([prompt(frames, "the sea")]),
            input_features=mel(frames)[None],
            input_features_mask=torch.ones(1, frames, dtype=torch.long),
        ).logits[0]


@lru_cache
def rendered_logits(frames):
    return decoder_logits(CONFIG, W, prompt(frames, "the sea"), audio_rows(CONFIG, W, mel(frames)))


def difference(got, expected):
    assert got.shape == expected.shape and expected.std() > 0.1
    return float((got - expected).abs().max() / expected.abs().max())


def blocked():
    """What never stands in a transcript: ids past the tokenizer, <unk> and the added tokens but the stop."""
    added = [i for i in TOKENIZER.added_tokens_decoder if i != CONFIG["eos_token_id"]]
    return [*added, TOKENIZER.unk_token_id, *range(len(TOKENIZER), CONFIG["vocab_size"])]


@pytest.mark.parametrize("frames", [1, 2, *LENGTHS, 2999, 3000])
def test_logits_are_those_of_the_published_architecture(hf, frames):
    found = difference(native_logits(hf, frames), rendered_logits(frames))
    print(f"{frames} frames: {found:.1e}")
    assert found < LIMIT


def reordered(hf, rows):
    """Put the published q and k into the encoder, rows in the order `rows(head size)` within each head."""
    size = 32 // 2
    order = torch.cat([head * size + rows(size) for head in range(2)])
    with torch.no_grad():
        for n, layer in enumerate(hf.model.audio_tower.layers):
            for part in ("q_proj.weight", "q_proj.bias", "k_proj.weight"):
                stored = STORED[f"audio_encoder.whisper.layers.{n}.self_attn.{part}"]
                layer.self_attn.get_parameter(part).copy_(stored[order])


def evens_first(size, part):
    turned = int(size * part)
    return torch.cat([torch.arange(0, turned, 2), torch.arange(1, turned, 2), torch.arange(turned, size)])


def two_norms(hf):
    """Keep a norm of the tower's own before the adapter's."""
    hf.model.audio_tower.norm = nn.Sequential(hf.model.audio_tower.layers[0].input_layernorm, hf.model.audio_tower.norm)


SPOILT = {
    "rows as published": partial(reordered, rows=torch.arange),
    "whole heads reordered": partial(reordered, rows=partial(evens_first, part=1.0)),
    "no norm": lambda hf: setattr(hf.model.audio_tower, "norm", nn.Identity()),
    "two norms": two_norms,
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_wrong_reading_of_the_checkpoint_shows(hf, name):
    spoilt = copy.deepcopy(hf)
    SPOILT[name](spoilt)
    found = [difference(native_logits(spoilt, frames), rendered_logits(frames)) for frames in (*LENGTHS, 3000)]
    print(f"{name}: {min(found):.1e} to {max(found):.1e}")
    assert min(found) > 1e-3


def test_the_right_order_of_rows_is_evens_first_in_half_a_head(hf):
    again = copy.deepcopy(hf)
    reordered(again, rows=partial(evens_first, part=0.5))
    assert torch.equal(native_logits(again, 40), native_logits(hf, 40))


def test_loading_without_the_reordering_shows(folder, monkeypatch):
    monkeypatch.setattr(published_weights, "row_order", lambda config: torch.arange(config.hidden_size))
    spoilt = ArkasrForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    assert min(difference(native_logits(spoilt, frames), rendered_logits(frames)) for frames in LENGTHS) > 1e-3


def whisper_features(clips):
    """The authors' features [B, 16, T]: waveforms completed with zeros to the longest; a window needs 201 samples."""
    extractor = WhisperFeatureExtractor(feature_size=16)
    padded = [torch.nn.functional.pad(c, (0, max(201 - len(c), 0))).numpy() for c in clips]
    return extractor(padded, sampling_rate=16000, padding="longest", return_tensors="pt").input_features


def rendered_transcripts(clips, features, cap=12):
    made = []
    for clip, feature in zip(clips, features):
        rows = audio_rows(CONFIG, W, feature)
        made.append(greedy(CONFIG, W, prompt(max(len(clip) // 160, 1)), rows, blocked(), cap))
    return made


def transcripts(lm, clips, cap=12):
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(clips))
        return generate(lm, prompts, [cap] * len(clips)).ids


def clips(sizes=CLIPS):
    return [waveform(n, seed) for seed, n in enumerate(sizes)]


def test_greedy_transcripts_from_waveforms_are_those_of_the_published_architecture(lm):
    alone = [whisper_features([clip])[0] for clip in clips()]
    expected = rendered_transcripts(clips(), alone)
    assert transcripts(lm, clips()) == expected
    assert len({tuple(ids) for ids in expected}) > 3 and {ids[-1] == CONFIG["eos_token_id"] for ids in expected} == {
        True,
        False,
    }


def test_greedy_transcripts_from_mel_are_those_of_the_published_architecture(lm):
    lengths = [3, 8, 12, 37, 48]
    features = [mel(frames, seed=1) for frames in lengths]
    batch = torch.stack([torch.nn.functional.pad(m, (0, 48 - m.shape[1])) for m in features])
    mask = (torch.arange(48) < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad():
        rows = lm.hf.model.get_audio_features(batch, mask).pooler_output.split([tokens(n) for n in lengths])
        made = generate(lm, lm.embed_prompts(rows, ["English"] * 5), [12] * 5).ids
    assert made == [
        greedy(CONFIG, W, prompt(n), audio_rows(CONFIG, W, m), blocked(), 12) for n, m in zip(lengths, features)
    ]


@pytest.mark.parametrize("samples", [7777, 16001])
def test_the_model_cards_own_lines_give_the_published_transcript(folder, samples):
    """As shown there but for `trust_remote_code`: only special tokens are barred, and the processor writes the prompt."""
    clip = waveform(samples, seed=5)
    processor, tokenizer = AutoProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    said = {"type": "text", "text": "Please transcribe this audio."}
    turn = {"role": "user", "content": [{"type": "audio", "audio": clip}, said]}
    inputs = processor.apply_chat_template([turn], add_generation_prompt=True, return_tensors="pt")
    barred = [i for i in tokenizer.all_special_ids if i != tokenizer.eos_token_id]
    made = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=12,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bad_words_ids=[[i] for i in barred],
    )
    rows = audio_rows(CONFIG, W, whisper_features([clip])[0])
    expected = greedy(CONFIG, W, prompt(samples // 160), rows, barred, 12)
    assert made[0, inputs["input_ids"].shape[1] :].tolist() == expected


def scores(lm, clips):
    """Logits [L, V] of one transcript under each clip."""
    ids = TOKENIZER.encode("the sea shore", add_special_tokens=False)
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(clips))
        logits = lm.transcript_states(prompts, [ids] * len(clips)) @ lm.head.T
    return logits.split(len(ids))


@settings(max_examples=12, deadline=None, derandomize=True)  # near ties of two tokens would be found some day
@given(st.lists(st.integers(1, 9000), min_size=2, max_size=5), st.integers(0, 99))
def test_a_clip_does_not_depend_on_its_batch(lm, sizes, seed):
    batch = [waveform(n, seed + i) for i, n in enumerate(sizes)]
    for clip, got, ids in zip(batch, scores(lm, batch), transcripts(lm, batch, cap=6)):
        assert difference(got, scores(lm, [clip])[0]) < 2 * LIMIT
        assert [ids] == transcripts(lm, [clip], cap=6)


def test_the_authors_padding_comes_with_the_authors_features(unmasked):
    processor = ArkasrProcessor.from_pretrained(unmasked.tokenizer.name_or_path)
    inputs = processor(clips())
    for features, mask in (unmasked.features(clips()), (inputs["input_features"], inputs["input_features_mask"])):
        torch.testing.assert_close(features, whisper_features(clips()), atol=2e-4, rtol=0)
        assert mask.sum(-1).tolist() == [max(n // 160, 1) for n in CLIPS]


def test_unmasked_is_the_published_architecture_on_a_padded_batch(unmasked, lm):
    assert not unmasked.hf.config.mask_padding and lm.hf.config.mask_padding
    features, _ = unmasked.features(clips())
    text = TOKENIZER.encode("the sea shore", add_special_tokens=False)
    for clip, feature, got, masked in zip(clips(), features, scores(unmasked, clips()), scores(lm, clips())):
        ids = prompt(max(len(clip) // 160, 1), "the sea shore")
        expected = decoder_logits(CONFIG, W, ids, audio_rows(CONFIG, W, feature))[-len(text) - 1 : -1]
        assert difference(got, expected) < LIMIT
        assert (difference(masked, expected) > 1e-2) == (len(clip) < max(CLIPS))
    assert transcripts(unmasked, clips()) == rendered_transcripts(clips(), whisper_features(clips()))


def test_a_clip_alone_is_the_same_in_both_modes(unmasked, lm):
    for clip in clips():
        assert difference(scores(unmasked, [clip])[0], scores(lm, [clip])[0]) < 1e-6


def test_mask_padding_is_kept_by_either_layout(unmasked, tmp_path):
    for published in (False, True):
        unmasked.save(tmp_path)
        unmasked.hf.save_pretrained(tmp_path, save_original_format=published)
        assert not ArkasrProcessor.from_pretrained(tmp_path).feature_extractor.mask_padding
        assert ("whisper_config" in json.loads((tmp_path / "config.json").read_text())) == published
        assert ArkasrConfig.from_pretrained(tmp_path).mask_padding is False

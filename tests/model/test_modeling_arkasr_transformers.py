"""Ark-ASR in transformers' auto classes, configurations and ways to generate."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny import eager_to_stop, student, waveform
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, GenerationConfig

from arkasr import ArkasrConfig, ArkasrForConditionalGeneration, ArkasrProcessor, load_speech_lm
from arkasr.model.arkasr.configuration_arkasr import ArkasrEncoderConfig
from arkasr.model.arkasr.encoder_arkasr import ArkasrEncoder
from arkasr.model.arkasr.modeling_arkasr import ArkasrModel


@pytest.fixture(scope="module")
def lm():
    return eager_to_stop(student(5), 2.0)


@pytest.fixture(scope="module")
def folder(lm, tmp_path_factory):
    """A saved student. Tests do not write into it."""
    path = tmp_path_factory.mktemp("saved") / "model"
    lm.save(path)
    return path


@pytest.fixture(scope="module")
def inputs(lm):
    return ArkasrProcessor.from_config(lm.hf.config, lm.tokenizer)([waveform(n, n) for n in (8000, 5000, 11000)])


def features(inputs):
    return {name: inputs[name] for name in ("input_features", "input_features_mask")}


def generated(model, inputs, **options):
    """Return the generated ids up to the stop token, clip by clip."""
    rows = model.generate(**inputs, **({"max_new_tokens": 10} | options))[:, inputs["input_ids"].shape[1] :].tolist()
    stop = model.generation_config.eos_token_id
    return [row[: row.index(stop) + 1] if stop in row else row for row in rows]


def log_probability(model, inputs, clip, ids):
    """Sum the log-probabilities of a transcript of one clip, with the blocked ids left out."""
    alone = {name: tensor[clip : clip + 1] for name, tensor in inputs.items()}
    start = alone["input_ids"].shape[1]
    alone["input_ids"] = torch.cat([alone["input_ids"], torch.tensor([ids])], dim=1)
    alone["attention_mask"] = torch.cat([alone["attention_mask"], torch.ones(1, len(ids), dtype=torch.long)], dim=1)
    logits = model(**alone).logits[0, start - 1 : -1]
    logits[:, model.generation_config.suppress_tokens] = -torch.inf
    return float(logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum())


@torch.no_grad()
def test_auto_model_loads_the_model_without_head(lm, folder, inputs, tmp_path):
    model = AutoModel.from_pretrained(folder)
    assert type(model) is ArkasrModel and ArkasrModel.config_class is ArkasrConfig
    assert ArkasrEncoder.config_class is ArkasrEncoderConfig
    states = model(**inputs).last_hidden_state
    torch.testing.assert_close(states @ lm.head.T, lm.hf(**inputs).logits, atol=1e-5, rtol=1e-5)
    lm.save(tmp_path, save_original_format=True)
    published = AutoModel.from_pretrained(tmp_path)
    assert all(torch.equal(weight, published.state_dict()[name]) for name, weight in model.state_dict().items())


@torch.no_grad()
def test_get_audio_features_returns_the_states_of_all_layers(lm, inputs):
    seen, layers = [], lm.hf.model.audio_tower.layers
    hooks = [layer.register_forward_hook(lambda m, i, out: seen.append(out)) for layer in layers]
    plain = lm.hf.get_audio_features(**features(inputs))
    for hook in hooks:
        hook.remove()
    found = lm.hf.get_audio_features(**features(inputs), output_hidden_states=True)
    assert plain.hidden_states is None and torch.equal(found.pooler_output, plain.pooler_output)
    assert len(found.hidden_states) == len(seen) + 1
    for state, expected in zip(found.hidden_states[1:-1], seen):
        assert torch.equal(state, expected)
    frames = -(-inputs["input_features"].shape[-1] // 2)
    assert torch.equal(found.hidden_states[-1], lm.hf.model.audio_tower.norm(seen[-1]))
    assert found.last_hidden_state.shape[1] == -(-frames // 4) * 4


@torch.no_grad()
def test_get_audio_features_returns_attentions_that_leave_padding_out(folder, inputs):
    model = ArkasrForConditionalGeneration.from_pretrained(folder, attn_implementation="eager")
    found = model.get_audio_features(**features(inputs), output_attentions=True)
    assert len(found.attentions) == 2 and found.hidden_states is None
    states = (inputs["input_features_mask"].sum(-1) + 1) // 2
    for weights in found.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        assert all(not weights[clip, :, : int(n), int(n) :].any() for clip, n in enumerate(states))
    as_tuple = model.get_audio_features(**features(inputs), return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[1], found.pooler_output)


def test_loaded_configuration_equals_the_saved_one(lm, tmp_path):
    config = ArkasrConfig.from_dict(lm.hf.config.to_dict())
    config.save_pretrained(tmp_path / "inner")
    for loaded in (
        ArkasrConfig.from_pretrained(tmp_path / "inner"),
        ArkasrConfig.from_pretrained(tmp_path, subfolder="inner"),
    ):
        assert loaded.to_dict() == config.to_dict()
    for part in (ArkasrEncoderConfig, type(config.text_config)):
        assert part.from_pretrained(tmp_path / "inner").hidden_size in (32, 24)


def test_subfolder_keeps_blocked_ids_and_processor(lm, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "inner")
    written = json.loads((tmp_path / "inner/generation_config.json").read_text())
    expected = written.pop("suppress_tokens")
    (tmp_path / "inner/generation_config.json").write_text(json.dumps(written))
    model = AutoModelForCausalLM.from_pretrained(tmp_path, subfolder="inner")
    assert model.generation_config.suppress_tokens == expected == lm.suppressed_ids
    processor = ArkasrProcessor.from_pretrained(tmp_path, subfolder="inner")
    assert processor.to_dict() == AutoProcessor.from_pretrained(folder).to_dict()


def test_saved_files_do_not_tell_how_the_tokenizer_was_loaded(folder, tmp_path):
    load_speech_lm(str(folder)).save(tmp_path / "again")
    ArkasrProcessor.from_pretrained(folder, local_files_only=True).save_pretrained(tmp_path / "processor")
    for name in ("again", "processor"):
        settings = json.loads((tmp_path / name / "tokenizer_config.json").read_text())
        assert not settings.keys() & {"is_local", "local_files_only", "name_or_path"}


def test_saved_generation_config_has_a_limit_of_tokens(lm, folder):
    config = GenerationConfig.from_pretrained(folder)
    assert (config.max_new_tokens, config.do_sample, config.eos_token_id) == (256, False, lm.stop_ids[0])
    lm.set_generation(99)
    assert lm.hf.generation_config.max_new_tokens == 99


def test_model_without_generation_config_has_a_limit_of_tokens(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model/generation_config.json").unlink()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").generation_config.max_new_tokens == 256


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static", "disable_compile": True},
        {"do_sample": True, "top_k": 1},
        {"use_cache": False},
    ],
    ids=["static cache", "sampling from one token", "no cache"],
)
def test_ways_to_generate_that_equal_greedy_decoding(folder, inputs, options):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert generated(model, inputs, **options) == generated(model, inputs)


@torch.no_grad()
def test_assisted_decoding_equals_greedy_decoding(folder, inputs):
    model, draft = (AutoModelForCausalLM.from_pretrained(folder) for _ in range(2))
    with torch.no_grad():
        draft.lm_head.weight.mul_(-1)  # proposes other tokens
    one = {name: tensor[2:] for name, tensor in inputs.items()}
    assert generated(model, one, assistant_model=draft) == generated(model, one)


@torch.no_grad()
def test_beam_search_finds_likelier_transcripts_than_greedy_decoding(folder, inputs):
    model = AutoModelForCausalLM.from_pretrained(folder)
    beams = generated(model, inputs, num_beams=8, length_penalty=0.0)
    greedy = generated(model, inputs)
    pairs = [[log_probability(model, inputs, i, ids) for ids in both] for i, both in enumerate(zip(beams, greedy))]
    assert all(beam >= other - 1e-4 for beam, other in pairs) and any(beam > other + 0.01 for beam, other in pairs)


def test_sampling_repeats_with_the_same_seed(folder, inputs):
    model, found = AutoModelForCausalLM.from_pretrained(folder), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(generated(model, inputs, do_sample=True, temperature=2.0))
    assert found[0] == found[1] != found[2]

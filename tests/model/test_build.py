"""Students assembled from tiny pretrained parts, against the classes of these parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from corpus_fixture import CONF
from pretrained import WIDTH, assembled, glm, mel, qwen2, saved, whisper
from safetensors.torch import load_file, save_file
from tiny import ARK_SIZES, QWEN_SIZES, student, student_tokenizer, teacher_tokenizer, waveform

from arkasr.config.load import load_config
from arkasr.config.schema import ModelConfig
from arkasr.errors import UserError
from arkasr.model.build import assemble, build_fresh, student_sizes
from arkasr.model.generation import generate
from arkasr.model.loading import load_speech_lm
from arkasr.model.tokenization import ARK_TOKENS
from arkasr.training.train import train

WHISPER_V3 = {"model_type": "whisper", "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20}
WHISPER_V3 |= {"encoder_ffn_dim": 5120, "num_mel_bins": 128, "max_source_positions": 1500, "vocab_size": 51866}
GLM_NANO = {"model_type": "glmasr", "text_config": {"model_type": "llama"}, "audio_token_id": 59260}
GLM_NANO["audio_config"] = {"model_type": "glmasr_encoder", "hidden_size": 1280, "intermediate_size": 5120} | {
    "num_hidden_layers": 32, "num_attention_heads": 20, "num_key_value_heads": 20, "num_mel_bins": 128,
    "max_position_embeddings": 1500, "hidden_act": "gelu", "attention_dropout": 0.0, "partial_rotary_factor": 0.5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
}  # fmt: skip
QWEN_HALF_B = {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
QWEN_HALF_B |= {"num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "rms_norm_eps": 1e-6}
QWEN_HALF_B |= {"rope_theta": 1000000.0, "max_position_embeddings": 32768, "tie_word_embeddings": True}
QWEN_HALF_B |= {"torch_dtype": "bfloat16", "bos_token_id": 151643, "eos_token_id": 151643}


# Encoders


@pytest.mark.parametrize("layout", ["audio_tower.", "model.audio_tower."])
def test_assemble_copies_the_encoder_of_glm_asr(tmp_path, layout):
    source = glm()
    source.save_pretrained(tmp_path, save_original_format=layout == "audio_tower.")
    assert any(key.startswith(layout) for key in load_file(tmp_path / "model.safetensors"))
    lm = assembled(encoder=str(tmp_path))
    features = mel(24)
    with torch.no_grad():
        expected = source.model.audio_tower(features).last_hidden_state
        assert (
            torch.equal(lm.hf.model.audio_tower(features).last_hidden_state, expected) and expected.abs().mean() > 0.1
        )
    assert not torch.equal(
        lm.hf.model.multi_modal_projector.linear_2.weight, source.model.multi_modal_projector.linear_2.weight
    )


@pytest.mark.parametrize("published", [False, True])
def test_assemble_copies_the_encoder_of_an_arkasr_in_either_layout(tmp_path, published):
    other = student(5)
    other.tokenizer.save_pretrained(tmp_path)
    other.hf.save_pretrained(tmp_path, save_original_format=published)
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert any(key.startswith("audio_encoder.whisper.") for key in keys) == published
    lm = assembled(encoder=str(tmp_path))
    copied, source = (model.hf.model.audio_tower.state_dict() for model in (lm, other))
    assert copied.keys() == source.keys() and all(torch.equal(copied[name], source[name]) for name in copied)


# Decoders


@pytest.mark.parametrize("tied", [True, False])
def test_assembled_model_on_text_equals_its_decoder_bit_for_bit(tmp_path, tied):
    size = len(student_tokenizer()) + 7
    source = qwen2(size, tied)
    lm = assembled(decoder=saved(source, tmp_path))
    ids = torch.randint(0, size, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = source(input_ids=ids).logits
        assert torch.equal(lm.hf(input_ids=ids).logits, expected) and expected.std() > 0.1
    assert lm.hf.config.text_config.vocab_size == size
    assert (lm.hf.lm_head.weight is lm.hf.get_input_embeddings().weight) == tied
    assert lm.blocked[-7:].all() and lm.stop_ids == [student_tokenizer().eos_token_id]


def test_assemble_sets_additional_rows_to_the_mean_row(tmp_path):
    source = qwen2(len(student_tokenizer()) - 5, tied=False)
    lm = assembled(decoder=saved(source, tmp_path))
    for table, other in (
        (lm.hf.get_input_embeddings().weight, source.get_input_embeddings().weight),
        (lm.hf.lm_head.weight, source.lm_head.weight),
    ):
        assert torch.equal(table[:-5], other) and len(table) == len(student_tokenizer())
        torch.testing.assert_close(table[-5:], other.mean(0).expand(5, -1))


def test_assembled_model_decodes_the_same_after_saving_and_loading(tmp_path):
    torch.manual_seed(0)
    keys = {
        "encoder": saved(glm(), tmp_path / "g"),
        "decoder": saved(qwen2(len(student_tokenizer())), tmp_path / "q"),
    }
    lm = assembled(**keys, dtype="bfloat16")
    assert {p.dtype for p in lm.parameters()} == {torch.bfloat16}
    assert lm.hf.model.audio_tower.rotary_emb.inv_freq.dtype == torch.float32
    torch.manual_seed(0)
    lm = assembled(**keys)
    lm.save(tmp_path / "student")
    again = load_speech_lm(str(tmp_path / "student"))
    transcripts = [
        generate(one, one.embed_prompts(one.encode_audio([waveform(9000)]), ["English"]), [6]).ids
        for one in (lm, again)
    ]
    assert transcripts[0] == transcripts[1]
    torch.manual_seed(1)
    other = assembled(**keys)
    name = "model.multi_modal_projector.linear_1.weight"
    assert not torch.equal(other.hf.get_parameter(name), lm.hf.get_parameter(name))
    assert torch.equal(other.hf.model.audio_tower.conv1.weight, lm.hf.model.audio_tower.conv1.weight)


# The true size


def test_paper_configuration_starts_base_from_two_parts():
    paper = Path(__file__).parents[2] / "egs" / "conf" / "paper.yaml"
    model, tokenizer = (getattr(load_config(str(paper), "base", "exp", "data", []), k) for k in ("model", "tokenizer"))
    assert (model.encoder, model.decoder) == ("zai-org/GLM-ASR-Nano-2512", "Qwen/Qwen2.5-0.5B")
    assert (model.path, model.sizes, tokenizer.path) == ("", {}, "")


@pytest.mark.parametrize(
    ("encoder", "positions", "table"),
    [(WHISPER_V3, "learned", 0), ({"model_type": "glmasr"}, "rotary", 1500 * 1280), (GLM_NANO, "rotary", 1500 * 1280)],
)
def test_student_sizes_give_the_published_number_of_parameters(tmp_path, encoder, positions, table):
    """The published files hold a table of positions that they do not use."""
    for name, config in (("encoder", encoder), ("qwen", QWEN_HALF_B)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    config = ModelConfig(encoder=str(tmp_path / "encoder"), decoder=str(tmp_path / "qwen"))
    with torch.device("meta"):
        hf = build_fresh("arkasr", student_sizes(config, 151670), student_tokenizer()).hf
    text, audio = hf.config.text_config, hf.config.audio_config
    assert (text.vocab_size, text.rope_parameters["rope_theta"], text.tie_word_embeddings) == (151936, 1e6, True)
    assert (audio.num_mel_bins, audio.hidden_size // audio.num_attention_heads, audio.hidden_act) == (128, 64, "gelu")
    assert {p.dtype for p in hf.parameters()} == {torch.float32}
    speech_tokens = (163958 - 151936) * 896  # in the published files only
    assert audio.positions == positions
    assert sum(p.numel() for p in hf.parameters()) + table + speech_tokens == 1_152_556_800
    if positions == "rotary":  # Base can be exported in the published layout
        assert hf.config.to_published_dict()["whisper_config"]["encoder_layers"] == 32


def test_build_fresh_uses_the_initializer_range():
    torch.manual_seed(0)
    lm = build_fresh("qwen3_asr", QWEN_SIZES | {"initializer_range": 0.05}, teacher_tokenizer()).requires_grad_(False)
    assert float(lm.head.std()) == pytest.approx(0.05, rel=0.05)
    assert float(lm.hf.model.audio_tower.layers[0].fc1.weight.std()) == pytest.approx(0.05, rel=0.05)
    convolution = lm.hf.model.audio_tower.conv2d2.weight
    assert float(convolution.std()) == pytest.approx(2 / (8 * 9) ** 0.5, rel=0.15)
    assert lm.head.data_ptr() == lm.hf.get_input_embeddings().weight.data_ptr()


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.encoder.conv2.bias"), "config.json: no tensor for model.audio_tower.conv2.bias"),
        (
            lambda w: w.update({"model.encoder.layers.1.self_attn.k_proj.bias": torch.zeros(WIDTH)}),
            "model.safetensors: model.encoder.layers.1.self_attn.k_proj.bias matches no parameter of the model",
        ),
        (
            lambda w: w.update({"model.encoder.layers.0.fc1.weight": torch.zeros(40, WIDTH)}),
            r"model.safetensors: model.encoder.layers.0.fc1.weight has shape \[40, 32\], expected \[48, 32\]",
        ),
        (
            lambda w: w.update({"model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(8, WIDTH)}),
            r"self_attn.q_proj.weight has shape \[8, 32\], expected \[32, 32\]",
        ),
        (lambda w: [w.pop(k) for k in list(w) if "encoder" in k], "and 32 more"),
    ],
)
def test_assemble_names_tensors_that_do_not_match(tmp_path, change, message):
    path = saved(whisper(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message):
        assembled(encoder=path)


def test_assemble_reads_shards_and_names_a_missing_one(tmp_path):
    source = qwen2(400)
    source.save_pretrained(tmp_path, max_shard_size="20KB")
    files = sorted(tmp_path.glob("model-*.safetensors"))
    lm = assembled(decoder=str(tmp_path))
    state = lm.hf.model.language_model.state_dict()
    assert len(files) > 1 and all(torch.equal(state[n], t) for n, t in source.model.state_dict().items())
    files[0].unlink()
    with pytest.raises(UserError, match=files[0].name):
        assembled(decoder=str(tmp_path))


def test_assemble_names_an_embedding_with_a_missing_row(tmp_path):
    path = saved(qwen2(400), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:-1].clone()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"embed_tokens.weight has shape \[399, 24\], expected \[400, 24\]"):
        assembled(decoder=path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"encoder": "w", "sizes": ARK_SIZES},
            "`model.sizes.audio` is not allowed beside .*/w, which defines",
        ),
        (
            {"decoder": "q", "sizes": ARK_SIZES},
            "`model.sizes.text` is not allowed beside .*/q, which defines",
        ),
        ({"sizes": {"text": {}}}, "`model.sizes.audio` is missing"),
        ({"encoder": "w", "sizes": {}}, "`model.sizes.text` is missing"),
        ({"encoder": "q", "sizes": {"text": {}}}, "q: model_type 'qwen2' is not one of whisper, glmasr, arkasr"),
        ({"decoder": "w", "sizes": {"audio": {}}}, "w: model_type 'whisper' is not qwen2"),
        ({"decoder": "none", "sizes": {"audio": {}}}, "none: no config.json"),
        (
            {"type": "qwen3_asr", "encoder": "w", "sizes": {"text": {}}},
            "only model.type arkasr can be assembled .*, not qwen3_asr",
        ),
        ({"encoder": "pickled", "sizes": {"text": {}}}, "pickled: no safetensors found"),
        ({"encoder": "broken", "sizes": {"text": {}}}, "model.safetensors: cannot be read as safetensors"),
    ],
)
def test_assemble_refuses_wrong_settings(tmp_path, keys, message):
    saved(whisper(), tmp_path / "w")
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "config.json").write_text('{"model_type": "qwen2"}')
    for name in ("pickled", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text((tmp_path / "w" / "config.json").read_text())
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nothing")
    keys = {key: str(tmp_path / value) if key in ("encoder", "decoder") else value for key, value in keys.items()}
    if keys["sizes"] == {"text": {}} and "encoder" in keys:
        keys["sizes"] = {"text": ARK_SIZES["text"]}
    with pytest.raises(UserError, match=message):
        assemble(ModelConfig(**keys), student_tokenizer())


# Training


def test_train_starts_from_pretrained_parts_with_the_decoders_tokenizer(tmp_path, datadir):
    source = qwen2(len(teacher_tokenizer()) + 2)
    teacher_tokenizer().save_pretrained(saved(source, tmp_path / "q"))
    settings = yaml.safe_load(CONF)
    settings["model"] = {"encoder": saved(whisper(), tmp_path / "w"), "decoder": str(tmp_path / "q")}
    settings["runs"] = {"base": {}}
    del settings["tokenizer"]
    conf = tmp_path / "conf.yaml"
    conf.write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match="`data.max_clip_seconds` 30: the encoder has learned positions for 4 s; set"):
        train(str(conf), "base", str(tmp_path / "long"), str(datadir), [])
    train(str(conf), "base", str(tmp_path), str(datadir), ["data.max_clip_seconds=4"])
    lm = load_speech_lm(str(tmp_path / "base" / "final"))
    assert lm.tokenizer.encode("she sells") == teacher_tokenizer().encode("she sells")
    missing = set(ARK_TOKENS) - teacher_tokenizer().get_vocab().keys()
    assert len(lm.head) == len(lm.tokenizer) == len(teacher_tokenizer()) + len(missing) > len(source.lm_head.weight)
    change = (lm.head[: len(source.lm_head.weight)] - source.lm_head.weight).abs().max()
    assert 0 < change < 0.1  # four small optimizer steps
    with pytest.raises(UserError, match="`tokenizer.path` must be empty .*got other: .*q has its own tokenizer"):
        train(str(conf), "base", str(tmp_path / "two"), str(datadir), ["tokenizer.path=other"])

"""An encoder with learned positions computes what Whisper's encoder computes, on fresh and on real weights."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from forked_ranks import Forked
from pretrained import HEADS, LAYERS, assembled, glm, mel, saved, whisper
from safetensors.torch import load_file
from tiny import ARK_SIZES, student, student_tokenizer, waveform
from torch import nn
from transformers import WhisperForConditionalGeneration

from arkasr.config.schema import ModelConfig
from arkasr.errors import ClipTooLongError, UserError
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig, ArkasrEncoderConfig
from arkasr.model.build import assemble, build_fresh
from arkasr.model.loading import load_speech_lm
from arkasr.model.log_mel import log_mel
from arkasr.model.sharding import checkpoint_blocks, shard
from arkasr.planning.model_sizes import count_parameters, meta_model

REAL = Path(__file__).parents[3] / "shared" / "models" / "whisper-tiny.en"
SPEECH = Path(__file__).parents[3] / "shared" / "speech" / "speechocean762"
needs_weights = pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/models/whisper-tiny.en")


def reference_encoder(weights, features):
    """Whisper's encoder written from its paper, in float64, for one clip [M, T] without padding."""
    w = {k.removeprefix("model.encoder."): v.double() for k, v in weights.items() if k.startswith("model.encoder.")}
    gelu, norm = nn.functional.gelu, nn.functional.layer_norm

    def affine(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def normed(x, name):
        return norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    x = gelu(nn.functional.conv1d(features.double(), w["conv1.weight"], w["conv1.bias"], padding=1))
    x = gelu(nn.functional.conv1d(x, w["conv2.weight"], w["conv2.bias"], stride=2, padding=1)).T
    x = x + w["embed_positions.weight"][: len(x)]
    for layer in (f"layers.{n}" for n in range(LAYERS)):
        y = normed(x, f"{layer}.self_attn_layer_norm")
        q, k, v = (affine(y, f"{layer}.self_attn.{n}_proj").unflatten(-1, (HEADS, -1)).transpose(0, 1) for n in "qkv")
        weight = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + affine((weight @ v).transpose(0, 1).flatten(1), f"{layer}.self_attn.out_proj")
        y = normed(x, f"{layer}.final_layer_norm")
        x = x + affine(gelu(affine(y, f"{layer}.fc1")), f"{layer}.fc2")
    return normed(x, "layer_norm")


def test_assembled_encoder_equals_whisper_on_a_whole_window(tmp_path):
    source = whisper()
    lm = assembled(encoder=saved(source, tmp_path))
    features = mel(2 * source.config.max_source_positions)
    with torch.no_grad():
        expected, found = (m(features).last_hidden_state for m in (source.model.encoder, lm.hf.model.audio_tower))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        lm.hf.model.audio_tower.embed_positions.weight.zero_()
        assert (lm.hf.model.audio_tower(features).last_hidden_state - expected).abs().max() > 0.05


def test_batch_of_mixed_lengths_equals_whisper_on_each_clip_alone(tmp_path):
    source = whisper()
    tower = assembled(encoder=saved(source, tmp_path)).hf.model.audio_tower
    lengths = torch.tensor([40, 33])
    features = mel(40) * (torch.arange(40) < lengths[:, None])[:, None]
    with torch.no_grad():
        found = tower(features, lengths).last_hidden_state
    for row, clip, frames in zip(found, features, lengths.tolist()):
        expected = reference_encoder(source.state_dict(), clip[:, :frames]).float()
        torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-4, atol=1e-5)


def test_assemble_keeps_the_rows_and_the_table_of_whisper(tmp_path):
    source = whisper()
    tower = assembled(encoder=saved(source, tmp_path)).hf.model.audio_tower
    assert torch.equal(tower.embed_positions.weight, source.model.encoder.embed_positions.weight)
    assert not hasattr(tower, "rotary_emb")
    for layer, other in zip(tower.layers, source.model.encoder.layers):
        assert torch.equal(layer.self_attn.q_proj.weight, other.self_attn.q_proj.weight)
        assert torch.equal(layer.self_attn.k_proj.weight, other.self_attn.k_proj.weight)
        assert torch.equal(layer.self_attn.q_proj.bias, other.self_attn.q_proj.bias)


def test_assembled_glm_asr_keeps_rope_and_its_own_names(tmp_path):
    source = glm()
    lm = assembled(encoder=saved(source, tmp_path))
    tower = lm.hf.model.audio_tower
    assert lm.hf.config.audio_config.positions == "rotary" and tower.embed_positions is None
    assert lm.hf.config.audio_config.rope_parameters == source.config.audio_config.rope_parameters
    assert lm.max_seconds is None
    in_source = source.model.audio_tower.state_dict()
    assert tower.state_dict().keys() == in_source.keys()
    assert all(torch.equal(tensor, in_source[name]) for name, tensor in tower.state_dict().items())


# Configuration and files


def learned(rows: int = 200, seed: int = 3, **text):
    """A fresh student with learned positions, with a table that is far from its initial values."""
    torch.manual_seed(seed)
    sizes = ARK_SIZES | {"audio": ARK_SIZES["audio"] | {"positions": "learned", "max_position_embeddings": rows}}
    lm = build_fresh("arkasr", sizes, student_tokenizer()).eval()
    with torch.no_grad():
        lm.hf.model.audio_tower.embed_positions.weight.normal_()
    return lm


def test_saved_student_with_learned_positions_loads_unchanged(tmp_path):
    lm = learned()
    lm.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["audio_config"]["positions"] == "learned"
    names = load_file(tmp_path / "model.safetensors").keys()
    assert "model.audio_tower.embed_positions.weight" in names
    again = load_speech_lm(str(tmp_path))
    clips = [waveform(16000), waveform(9000)]
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(lm.encode_audio(clips), again.encode_audio(clips)))
    copy = assembled(encoder=str(tmp_path))  # the encoder of one student for another
    table = copy.hf.model.audio_tower.embed_positions.weight
    assert torch.equal(table, lm.hf.model.audio_tower.embed_positions.weight)


def test_published_layout_refuses_learned_positions(tmp_path):
    with pytest.raises(UserError, match="positions must be 'rotary' in the published layout, got 'learned'"):
        learned().save(tmp_path, save_original_format=True)


def test_configurations_without_the_key_have_rotary_positions(tmp_path):
    student(1).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["audio_config"].pop("positions", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    lm = load_speech_lm(str(tmp_path))
    assert lm.hf.config.audio_config.positions == "rotary" and lm.hf.model.audio_tower.embed_positions is None
    with pytest.raises(UserError, match="positions must be 'rotary' or 'learned', got 'sinusoidal'"):
        ArkasrEncoderConfig(positions="sinusoidal")


def test_fresh_table_has_whispers_sinusoids():
    """Row 0 has sines of 0 and cosines of 0. The first column is the sine of the position itself."""
    torch.manual_seed(0)
    sizes = ARK_SIZES | {"audio": ARK_SIZES["audio"] | {"positions": "learned", "max_position_embeddings": 30}}
    table = build_fresh("arkasr", sizes, student_tokenizer()).hf.model.audio_tower.embed_positions.weight
    half = table.shape[1] // 2
    assert torch.equal(table[0], torch.cat([torch.zeros(half), torch.ones(half)]))
    torch.testing.assert_close(table[:, 0], torch.arange(30.0).sin())
    assert table.requires_grad


def test_the_table_counts_as_parameters_of_the_encoder():
    def encoder_size(**keys):
        audio = ARK_SIZES["audio"] | keys
        return count_parameters(meta_model(ArkasrConfig(audio_config=audio, text_config=ARK_SIZES["text"]))).encoder

    assert encoder_size(positions="learned", max_position_embeddings=77) - encoder_size() == 77 * 32


# Audio


def test_audio_beyond_the_table_is_refused_per_clip():
    lm = learned(rows=50)  # 1 s
    assert lm.max_seconds == 1.0
    assert len(lm.encode_audio([waveform(16000 + 159)])) == 1
    with pytest.raises(
        ClipTooLongError, match=r"a clip has 1\.01 s, but .* positions for 1 s; use shorter clips"
    ) as caught:
        lm.encode_audio([waveform(4000), waveform(16160)])
    assert isinstance(caught.value, UserError)
    features, _ = log_mel([waveform(16160)], lm.num_mel)
    with pytest.raises(ClipTooLongError, match="51 encoder states, .* 50 learned positions"):
        lm.hf.model.audio_tower(features)
    assert student(1).max_seconds is None
    assert len(student(1).encode_audio([waveform(40 * 16000)])) == 1


def test_each_used_position_gets_a_gradient():
    lm = learned(rows=60).train()
    lm.encode_audio([waveform(16000), waveform(4000)])[0].square().sum().backward()
    gradient = lm.hf.model.audio_tower.embed_positions.weight.grad.abs().sum(-1)
    assert (gradient[:50] > 0).all() and (gradient[50:] == 0).all()


def test_outputs_do_not_depend_on_the_other_clips_of_a_batch():
    lm = learned()
    alone = [lm.encode_audio([waveform(n)])[0] for n in (5000, 16000, 11111)]
    together = lm.encode_audio([waveform(n) for n in (5000, 16000, 11111)])
    for a, b in zip(alone, together):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# Sharding


def _sharded_step(folder: Path, dtype: str) -> None:
    torch.distributed.init_process_group("gloo")
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    lm = shard(checkpoint_blocks(learned(rows=61).train()), mesh, dtype)
    loss = lm(lambda model: torch.cat(model.encode_audio([waveform(16000)])).square().mean())
    loss.backward()
    weight = lm.hf.model.audio_tower.embed_positions.weight
    gradient = weight.grad.full_tensor()
    with torch.no_grad():
        table = weight.full_tensor()
    if torch.distributed.get_rank() == 0:
        torch.save({"loss": loss.detach(), "gradient": gradient, "table": table}, folder / "result.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.1)])
def test_sharded_table_gives_the_same_loss_and_gradient(tmp_path, dtype, tolerance):
    Forked(2, lambda: _sharded_step(tmp_path, dtype), tmp_path / "output").succeed()
    found = torch.load(tmp_path / "result.pt")
    lm = learned(rows=61).train()
    loss = torch.cat(lm.encode_audio([waveform(16000)])).square().mean()
    loss.backward()
    table = lm.hf.model.audio_tower.embed_positions.weight
    assert torch.equal(found["table"], table.detach()) and len(table) == 61
    torch.testing.assert_close(found["loss"].float(), loss.detach(), rtol=tolerance, atol=1e-6)
    difference = (found["gradient"] - table.grad).norm() / table.grad.norm()
    assert difference < tolerance and (found["gradient"][50:] == 0).all()


# Real weights


@pytest.fixture(scope="module")
def real():
    """Whisper tiny.en, and a student assembled from its encoder."""
    source = WhisperForConditionalGeneration.from_pretrained(REAL, dtype=torch.float32).eval()
    config = ModelConfig(encoder=str(REAL), sizes={"text": ARK_SIZES["text"]})
    torch.manual_seed(0)
    return source, assemble(config, student_tokenizer()).eval()


def speech(samples: int, seed: int = 0):
    """One clip of real speech, or noise if the corpus is absent."""
    if not SPEECH.is_dir():
        return waveform(samples, seed)
    import soundfile

    files = [json.loads(line)["audio"] for line in (SPEECH / "test-adult.jsonl").read_text().splitlines()]
    whole = torch.from_numpy(soundfile.read(SPEECH / files[seed], dtype="float32")[0])
    return whole.repeat(1 + samples // len(whole))[:samples]


def whisper_states(source, features):
    """Run Whisper's own encoder without padding, by giving it a window of this even number of frames."""
    encoder = source.model.encoder
    states, whole = (features.shape[-1] + 1) // 2, encoder.embed_positions
    rows, encoder.config.max_source_positions = encoder.config.max_source_positions, states
    encoder.embed_positions = nn.Embedding.from_pretrained(whole.weight[:states])
    try:
        with torch.no_grad():
            return encoder(features).last_hidden_state
    finally:
        encoder.embed_positions, encoder.config.max_source_positions = whole, rows


@needs_weights
@pytest.mark.slow
def test_real_whisper_and_its_copy_agree_on_a_padded_window(real):
    source, lm = real
    features, _ = log_mel([nn.functional.pad(speech(60000), (0, 30 * 16000 - 60000))], 80)
    with torch.no_grad():
        expected = source.model.encoder(features).last_hidden_state
        found = lm.hf.model.audio_tower(features).last_hidden_state
    assert lm.max_seconds == 30.0 and expected.std() > 0.5
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@needs_weights
@pytest.mark.slow
def test_real_whisper_and_its_copy_agree_on_unpadded_clips_in_one_batch(real):
    source, lm = real
    clips = [speech(n, seed) for seed, n in enumerate((80000, 32000, 56320))]
    features, lengths = log_mel(clips, 80)
    with torch.no_grad():
        found = lm.hf.model.audio_tower(features, lengths).last_hidden_state
    for row, clip in zip(found, clips):
        expected = whisper_states(source, log_mel([clip], 80)[0])[0]
        torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-3, atol=1e-3)
        assert (row[: len(expected)] - expected).abs().mean() < 1e-5


@needs_weights
@pytest.mark.slow
def test_real_copy_survives_saving_and_bfloat16(real, tmp_path):
    """In bfloat16 it is compared with Whisper in bfloat16: how far single states then are from those in float32
    depends on the processor's kernels, for both alike."""
    source, lm = real
    lm.save(tmp_path)
    clip = speech(48000)
    expected = whisper_states(source, log_mel([clip], 80)[0])
    for name in "float32", "bfloat16":
        dtype = getattr(torch, name)
        again = load_speech_lm(str(tmp_path), name)
        features, lengths = again.features([clip])[0], torch.tensor([300])
        with torch.no_grad():
            states = again.hf.model.audio_tower(features, lengths).last_hidden_state
        own = whisper_states(copy.deepcopy(source).to(dtype), features.to(dtype))
        assert states.dtype == own.dtype == dtype
        assert nn.functional.cosine_similarity(states.float(), own.float(), dim=-1).min() > 0.99999
        assert nn.functional.cosine_similarity(states.float(), expected, dim=-1).median() > 0.999

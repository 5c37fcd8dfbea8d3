"""The published layout is read, written, restored bit for bit, and refused if it is incomplete.

The expected files are built independently: a table lists all names, and a loop orders the rows of q and k.
"""

from __future__ import annotations

import json
import math
import shutil
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import student
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
    Qwen2Config,
)

from arkasr import ArkasrConfig, ArkasrForConditionalGeneration, load_speech_lm
from arkasr.errors import UserError

D, HEADS, ROTATED = 32, 2, 8  # width, heads of 16, of which RoPE rotates 8
LAYER = "model.audio_tower.layers.N."
NAMES = {  # published to native, of layer N
    "audio_encoder.whisper.layers.N.self_attn.q_proj.weight": "model.audio_tower.layers.N.self_attn.q_proj.weight",
    "audio_encoder.whisper.layers.N.self_attn.q_proj.bias": "model.audio_tower.layers.N.self_attn.q_proj.bias",
    "audio_encoder.whisper.layers.N.self_attn.k_proj.weight": "model.audio_tower.layers.N.self_attn.k_proj.weight",
    "audio_encoder.whisper.layers.N.self_attn.v_proj.weight": "model.audio_tower.layers.N.self_attn.v_proj.weight",
    "audio_encoder.whisper.layers.N.self_attn.v_proj.bias": "model.audio_tower.layers.N.self_attn.v_proj.bias",
    "audio_encoder.whisper.layers.N.self_attn.out_proj.weight": "model.audio_tower.layers.N.self_attn.o_proj.weight",
    "audio_encoder.whisper.layers.N.self_attn.out_proj.bias": "model.audio_tower.layers.N.self_attn.o_proj.bias",
    "audio_encoder.whisper.layers.N.self_attn_layer_norm.weight": "model.audio_tower.layers.N.input_layernorm.weight",
    "audio_encoder.whisper.layers.N.self_attn_layer_norm.bias": "model.audio_tower.layers.N.input_layernorm.bias",
    "audio_encoder.whisper.layers.N.final_layer_norm.weight": f"{LAYER}post_attention_layernorm.weight",
    "audio_encoder.whisper.layers.N.final_layer_norm.bias": f"{LAYER}post_attention_layernorm.bias",
    "audio_encoder.whisper.layers.N.fc1.weight": "model.audio_tower.layers.N.mlp.fc1.weight",
    "audio_encoder.whisper.layers.N.fc1.bias": "model.audio_tower.layers.N.mlp.fc1.bias",
    "audio_encoder.whisper.layers.N.fc2.weight": "model.audio_tower.layers.N.mlp.fc2.weight",
    "audio_encoder.whisper.layers.N.fc2.bias": "model.audio_tower.layers.N.mlp.fc2.bias",
    "audio_encoder.whisper.conv1.weight": "model.audio_tower.conv1.weight",
    "audio_encoder.whisper.conv1.bias": "model.audio_tower.conv1.bias",
    "audio_encoder.whisper.conv2.weight": "model.audio_tower.conv2.weight",
    "audio_encoder.whisper.conv2.bias": "model.audio_tower.conv2.bias",
    "audio_encoder.layer_norm.weight": "model.audio_tower.norm.weight",
    "audio_encoder.layer_norm.bias": "model.audio_tower.norm.bias",
    "audio_encoder.adapting.0.weight": "model.multi_modal_projector.linear_1.weight",
    "audio_encoder.adapting.0.bias": "model.multi_modal_projector.linear_1.bias",
    "audio_encoder.adapting.2.weight": "model.multi_modal_projector.linear_2.weight",
    "audio_encoder.adapting.2.bias": "model.multi_modal_projector.linear_2.bias",
    "model.embed_tokens.weight": "model.language_model.embed_tokens.weight",
    "model.norm.weight": "model.language_model.norm.weight",
    "model.layers.N.input_layernorm.weight": "model.language_model.layers.N.input_layernorm.weight",
    "model.layers.N.post_attention_layernorm.weight": "model.language_model.layers.N.post_attention_layernorm.weight",
    "model.layers.N.self_attn.q_proj.weight": "model.language_model.layers.N.self_attn.q_proj.weight",
    "model.layers.N.self_attn.q_proj.bias": "model.language_model.layers.N.self_attn.q_proj.bias",
    "model.layers.N.self_attn.k_proj.weight": "model.language_model.layers.N.self_attn.k_proj.weight",
    "model.layers.N.self_attn.k_proj.bias": "model.language_model.layers.N.self_attn.k_proj.bias",
    "model.layers.N.self_attn.v_proj.weight": "model.language_model.layers.N.self_attn.v_proj.weight",
    "model.layers.N.self_attn.v_proj.bias": "model.language_model.layers.N.self_attn.v_proj.bias",
    "model.layers.N.self_attn.o_proj.weight": "model.language_model.layers.N.self_attn.o_proj.weight",
    "model.layers.N.mlp.gate_proj.weight": "model.language_model.layers.N.mlp.gate_proj.weight",
    "model.layers.N.mlp.up_proj.weight": "model.language_model.layers.N.mlp.up_proj.weight",
    "model.layers.N.mlp.down_proj.weight": "model.language_model.layers.N.mlp.down_proj.weight",
    "lm_head.weight": "lm_head.weight",
}
POSITIONS = "audio_encoder.whisper.embed_positions.weight"
AUTO = [AutoModelForCausalLM, AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq, ArkasrForConditionalGeneration]


def interleaved(tensor):
    """Convert native rows (RoPE pairs i and i + 4) to published rows (RoPE pairs 2i and 2i + 1)."""
    rows = [None] * D
    for head in range(HEADS):
        start = head * D // HEADS
        for i in range(ROTATED // 2):
            rows[start + 2 * i], rows[start + 2 * i + 1] = tensor[start + i], tensor[start + i + ROTATED // 2]
        for i in range(ROTATED, D // HEADS):
            rows[start + i] = tensor[start + i]
    return torch.stack(rows)


def whisper_positions(length):
    """Return Whisper's table: sines of decreasing frequency, then cosines."""
    rates = [math.exp(-math.log(10000) * i / (D // 2 - 1)) for i in range(D // 2)]
    rows = [[math.sin(t * r) for r in rates] + [math.cos(t * r) for r in rates] for t in range(length)]
    return torch.tensor(rows)


def reference_published_state(state):
    """Convert native tensors to published ones."""
    result = {}
    for published, native in NAMES.items():
        for n in "01" if "layers.N" in published else "0":
            tensor = state[native.replace("layers.N", f"layers.{n}")].clone()
            rotated = published.startswith("audio") and ("q_proj" in published or "k_proj" in published)
            result[published.replace("layers.N", f"layers.{n}")] = interleaved(tensor) if rotated else tensor
    return result


def flat(lm, **changes):
    """Return a published config.json."""
    ids = {"eos_token_id": lm.tokenizer.eos_token_id, "pad_token_id": lm.tokenizer.pad_token_id, "bos_token_id": None}
    whisper = {"model_type": "whisper", "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2}
    whisper |= {"encoder_ffn_dim": 64, "num_mel_bins": 16, "max_source_positions": 1500, "decoder_layers": 32}
    return {
        "architectures": ["ArkasrForConditionalGeneration"],
        "model_type": "arkasr",
        "auto_map": {"AutoConfig": "gone.ArkasrConfig", "AutoModelForCausalLM": "gone.ArkasrForConditionalGeneration"},
        "vocab_size": len(lm.tokenizer),
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_theta": 1e6,
        "rope_scaling": None,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "transformers_version": "4.57.3",
        "spec_aug": False,
        "max_whisper_length": 1500,
        "adapter_type": "mlp",
        "mlp_adapter_act": "gelu",
        "merge_factor": 4,
        "use_rope": True,
        "audio_token_id": lm.hf.config.audio_token_id,
        "whisper_config": whisper,
        **ids,
        **changes,
    }


@pytest.fixture(scope="module")
def lm():
    return student(7)


@pytest.fixture(scope="module")
def published(lm, tmp_path_factory):
    """A folder in the published layout, built by the reference. Tests do not write into it."""
    folder = tmp_path_factory.mktemp("published")
    tensors = reference_published_state(lm.hf.state_dict()) | {POSITIONS: torch.ones(1500, D)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(flat(lm)))
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def native(lm, tmp_path_factory):
    """A folder in the native layout. Tests do not write into it."""
    folder = tmp_path_factory.mktemp("native")
    lm.save(folder)
    return folder


@pytest.fixture(params=["published", "native"])
def folder(request, published, native, tmp_path):
    """A copy to break, in either layout."""
    source = {"published": published, "native": native}[request.param]
    return shutil.copytree(source, tmp_path / request.param)


def name(folder, published_name):
    """Return the name of a tensor in the files of this folder."""
    return published_name if folder.name == "published" else NAMES[published_name]


def change(folder, edit):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def same(before, after):
    assert before.keys() == after.keys()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []


def tensors(folder):
    """Read all tensors of a folder and check that none occurs twice."""
    found = [pair for file in sorted(folder.glob("*.safetensors")) for pair in load_file(file).items()]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_table_of_names_has_every_parameter_once(lm):
    expanded = [native.replace("layers.N", f"layers.{n}") for native in NAMES.values() for n in "01"]
    assert set(expanded) == set(lm.hf.state_dict()) and len(set(NAMES.values())) == len(NAMES)


@pytest.mark.parametrize("auto", AUTO)
@pytest.mark.parametrize("trust", [None, True, False])
def test_auto_classes_read_published_files_without_their_code(lm, published, auto, trust):
    hf = auto.from_pretrained(published, trust_remote_code=trust)
    assert type(hf) is ArkasrForConditionalGeneration and not hf.training
    same(lm.hf.state_dict(), hf.state_dict())
    assert hf.lm_head.weight is hf.get_input_embeddings().weight
    assert hf.config.mask_padding is True and not hasattr(hf.config, "auto_map")


def test_load_speech_lm_reads_published_files(lm, published):
    loaded = load_speech_lm(str(published))
    same(lm.hf.state_dict(), loaded.hf.state_dict())
    assert loaded.hf.config.instruction == lm.hf.config.instruction and loaded.prompt_text("") == lm.prompt_text("")


def test_published_weights_are_converted_to_the_dtype(lm, published, tmp_path):
    folder = shutil.copytree(published, tmp_path / "half")
    change(folder, lambda t: t.update({key: value.bfloat16() for key, value in t.items()}))
    (folder / "config.json").write_text(json.dumps(flat(lm, torch_dtype="bfloat16")))
    rounded = {key: value.bfloat16() for key, value in lm.hf.state_dict().items()}
    same(rounded, ArkasrForConditionalGeneration.from_pretrained(folder).state_dict())
    same({key: value.float() for key, value in rounded.items()}, load_speech_lm(str(folder)).hf.state_dict())
    loaded = ArkasrForConditionalGeneration.from_pretrained(folder, dtype=torch.float16)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float16}


def test_save_pretrained_writes_the_reference_tensors(lm, tmp_path):
    lm.hf.save_pretrained(tmp_path, save_original_format=True)
    written = tensors(tmp_path)
    torch.testing.assert_close(written.pop(POSITIONS), whisper_positions(1500), atol=1e-3, rtol=0)
    same(reference_published_state(lm.hf.state_dict()), written)


def test_save_pretrained_writes_the_native_layout_by_default(published, native, tmp_path):
    for number, source in enumerate((published, native)):
        ArkasrForConditionalGeneration.from_pretrained(source).save_pretrained(tmp_path / str(number))
    for number in "01":
        same(tensors(native), tensors(tmp_path / number))
        assert "text_config" in json.loads((tmp_path / number / "config.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("size", ["50GB", "9KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trips_between_layouts_keep_all_tensors(native, published, tmp_path, size, dtype):
    """Convert native to published to native, and published to native to published, in one file and in shards."""
    for start, first in ((native, True), (published, False)):
        folders = [start, *(tmp_path / f"{start.name}-{n}" for n in range(4))]
        for step, (source, target) in enumerate(pairwise(folders)):
            hf = ArkasrForConditionalGeneration.from_pretrained(source, dtype=dtype)
            hf.save_pretrained(target, save_original_format=first is (step % 2 == 0), max_shard_size=size)
            assert (target / "model.safetensors.index.json").is_file() is (size == "9KB")
        same(tensors(folders[1]), tensors(folders[3]))
        same(tensors(folders[2]), tensors(folders[4]))
        expected = {key: value.to(dtype) for key, value in tensors(start).items() if key != POSITIONS}
        same(expected, {key: value for key, value in tensors(folders[2]).items() if key != POSITIONS})
        configs = [(folder / "config.json").read_text() for folder in folders[1:]]
        assert configs[0] == configs[2] and configs[1] == configs[3]


@pytest.mark.parametrize("with_head", [True, False])
@pytest.mark.parametrize("original", [True, False])
def test_save_pretrained_writes_the_state_dict_argument(lm, tmp_path, original, with_head):
    state = {key: value + 1 for key, value in lm.hf.state_dict().items()}
    if not with_head:
        del state["lm_head.weight"]
    lm.hf.save_pretrained(tmp_path, state_dict=state, save_original_format=original)
    loaded = ArkasrForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    same({key: value + 1 for key, value in lm.hf.state_dict().items()}, loaded)


def test_from_pretrained_reads_a_state_dict_in_either_layout(lm, published, native):
    for source in (published, native):
        hf = ArkasrForConditionalGeneration.from_pretrained(None, config=lm.hf.config, state_dict=tensors(source))
        same(lm.hf.state_dict(), hf.state_dict())


def test_untied_head_is_saved_and_loaded(lm, tmp_path):
    config = ArkasrConfig.from_dict(flat(lm, tie_word_embeddings=False))
    torch.manual_seed(1)
    hf = ArkasrForConditionalGeneration(config)
    assert not torch.equal(hf.lm_head.weight, hf.get_input_embeddings().weight)
    for original in (True, False):
        hf.save_pretrained(tmp_path, save_original_format=original)
        same(hf.state_dict(), ArkasrForConditionalGeneration.from_pretrained(tmp_path).state_dict())
    hf.save_pretrained(tmp_path, save_original_format=True)
    assert torch.equal(tensors(tmp_path)["lm_head.weight"], hf.lm_head.weight)


def test_from_dict_reads_a_published_configuration(lm):
    config = ArkasrConfig.from_dict(flat(lm))
    assert (config.merge_factor, config.audio_token_id) == (4, lm.hf.config.audio_token_id)
    assert config.audio_config.rope_parameters == {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
    }
    audio, text = config.audio_config, config.text_config
    assert (audio.hidden_size, audio.intermediate_size, audio.num_hidden_layers) == (32, 64, 2)
    assert (audio.num_attention_heads, audio.num_mel_bins, audio.max_position_embeddings) == (2, 16, 1500)
    assert type(text) is Qwen2Config and text.rope_parameters == {"rope_type": "default", "rope_theta": 1e6}
    assert (text.hidden_size, text.intermediate_size, text.num_hidden_layers) == (24, 48, 2)
    assert (text.num_attention_heads, text.num_key_value_heads, text.max_position_embeddings) == (4, 2, 512)
    assert text.vocab_size == len(lm.tokenizer) and config.eos_token_id == text.eos_token_id == lm.stop_ids[0]


def test_to_published_dict_inverts_from_dict(lm):
    original = flat(lm, merge_factor=2, mlp_adapter_act="relu", vocab_size=500, rms_norm_eps=1e-5)
    written = ArkasrConfig.from_dict(original).to_published_dict()
    changed = {"auto_map", "rope_scaling", "transformers_version", "whisper_config"}
    for key in original.keys() - changed:
        assert written[key] == original[key], key
    kept = {k: v for k, v in original["whisper_config"].items() if k != "decoder_layers"}
    assert written["whisper_config"] == kept | {"activation_function": "gelu", "attention_dropout": 0, "init_std": 0.02}
    assert not {"auto_map", "rope_scaling", "text_config", "audio_config", "rope_parameters"} & set(written)
    again = ArkasrConfig.from_dict(json.loads(json.dumps(written)))
    assert again.to_dict() == ArkasrConfig.from_dict(original).to_dict()


def test_to_published_dict_writes_own_keys_only_if_not_default(lm):
    plain = ArkasrConfig.from_dict(flat(lm))
    assert not {"mask_padding", "instruction"} & set(plain.to_published_dict())
    plain.mask_padding, plain.instruction = False, "Write."
    again = ArkasrConfig.from_dict(plain.to_published_dict())
    assert again.mask_padding is False and again.instruction == "Write."


def test_scaled_rope_of_the_decoder_is_kept(lm):
    scaled = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    config = ArkasrConfig.from_dict(flat(lm, rope_scaling=scaled))
    assert config.text_config.rope_parameters == scaled | {"rope_theta": 1e6}
    written = config.to_published_dict()
    assert written["rope_scaling"] == scaled and written["rope_theta"] == 1e6
    assert ArkasrConfig.from_dict(written).text_config.rope_parameters == scaled | {"rope_theta": 1e6}


def test_from_pretrained_takes_mask_padding(published):
    hf = AutoModelForCausalLM.from_pretrained(published, mask_padding=False)
    assert hf.config.mask_padding is False and hf.model.config.mask_padding is False


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_rope", False),
        ("adapter_type", "qformer"),
        ("rope_ratio", 2),
        ("mlp_adapter_act", "selu"),
        ("merge_factor", 0),
        ("merge_factor", "4"),
        ("merge_factor", True),
        ("whisper_config", None),
        ("whisper_config", [1]),
        ("whisper_config", {"rope_ratio": 4}),
        ("whisper_config", {"use_rope": False}),
    ],
)
def test_published_configuration_of_another_architecture_is_refused(lm, published, tmp_path, key, value):
    folder = shutil.copytree(published, tmp_path / "other")
    (folder / "config.json").write_text(json.dumps(flat(lm, **{key: value})))
    inner = next(iter(value)) if isinstance(value, dict) else key
    for read in (ArkasrConfig, AutoConfig, AutoModelForCausalLM, ArkasrForConditionalGeneration):
        with pytest.raises(UserError) as caught:
            read.from_pretrained(folder)
        assert str(folder) in str(caught.value) and inner in str(caught.value) and "config.json" in str(caught.value)
    with pytest.raises(UserError, match=inner):
        load_speech_lm(str(folder))


def test_constructor_refuses_a_flat_configuration(lm):
    with pytest.raises(UserError, match="from_dict"):
        ArkasrConfig(**flat(lm))


def test_from_dict_refuses_a_flat_configuration_without_an_encoder(lm):
    with pytest.raises(UserError, match="no whisper_config"):
        ArkasrConfig.from_dict({k: v for k, v in flat(lm).items() if k != "whisper_config"})


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("audio_config", "num_key_value_heads", 1),
        ("audio_config", "rope_parameters", {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.5}),
        ("", "projector_hidden_act", "silu"),
    ],
)
def test_published_layout_refuses_what_it_cannot_represent(lm, tmp_path, part, key, value):
    config = ArkasrConfig.from_dict(flat(lm))
    setattr(getattr(config, part) if part else config, key, value)
    hf = ArkasrForConditionalGeneration(config)
    with pytest.raises(UserError, match=key):
        hf.save_pretrained(tmp_path / "new", save_original_format=True)
    assert not (tmp_path / "new").exists()


def test_published_layout_refuses_offloaded_weights_and_push_to_hub(lm, tmp_path):
    state = lm.hf.state_dict()
    state["model.audio_tower.norm.bias"] = state["model.audio_tower.norm.bias"].to("meta")
    with pytest.raises(UserError, match=r"model\.audio_tower\.norm\.bias is offloaded"):
        lm.hf.save_pretrained(tmp_path, state_dict=state, save_original_format=True)
    with pytest.raises(UserError, match="upload"):
        lm.hf.save_pretrained(tmp_path, save_original_format=True, push_to_hub=True)


def refused(folder, *words):
    """Check that every way to load refuses the folder, with these words in the message."""
    for load in (load_speech_lm, AutoModelForCausalLM.from_pretrained, ArkasrForConditionalGeneration.from_pretrained):
        with pytest.raises(UserError) as caught:
            load(str(folder))
        for word in (str(folder), *words):
            assert word in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "audio_encoder.layer_norm.bias",
        "audio_encoder.whisper.layers.1.self_attn.k_proj.weight",
        "audio_encoder.whisper.layers.0.final_layer_norm.weight",
        "audio_encoder.adapting.2.bias",
        "model.layers.0.self_attn.o_proj.weight",
        "model.norm.weight",
    ],
)
def test_missing_tensor_has_its_name_in_the_file(folder, key):
    layer = next((n for n in "01" if f"layers.{n}." in key), "N")
    key = name(folder, key.replace(f"layers.{layer}.", "layers.N.")).replace("layers.N.", f"layers.{layer}.")
    change(folder, lambda t: t.pop(key))
    refused(folder, "missing: " + key)


def test_missing_head_and_embedding_are_named(folder):
    change(folder, lambda t: (t.pop("lm_head.weight", None), t.pop(name(folder, "model.embed_tokens.weight"))))
    refused(folder, "missing", name(folder, "model.embed_tokens.weight"))


@pytest.mark.parametrize(
    "key",
    [
        "surprise",
        "audio_encoder.proj.weight",
        "audio_encoder.whisper.layer_norm.weight",
        "audio_encoder.whisper.layers.0.self_attn.k_proj.bias",
        "audio_encoder.whisper.layers.2.fc1.bias",
        "model.layers.2.input_layernorm.weight",
    ],
)
def test_unexpected_tensor_is_named(published, tmp_path, key):
    folder = shutil.copytree(published, tmp_path / "published")
    change(folder, lambda t: t.update({key: torch.ones(D)}))
    refused(folder, "unexpected: " + key)


@pytest.mark.slow
def test_error_names_only_the_first_tensors(folder):
    change(folder, lambda t: t.update({f"surprise.{n}": torch.ones(1) for n in range(8)}))
    refused(folder, "surprise.0", "surprise.4 and 3 more")


@pytest.mark.parametrize("size", [[5], [D, 2 * D], [2 * D, D]])
@pytest.mark.parametrize(
    "key", ["audio_encoder.whisper.layers.N.self_attn.q_proj.weight", "audio_encoder.whisper.layers.N.fc1.bias"]
)
def test_mismatched_tensor_is_named_with_both_shapes(folder, key, size):
    wrong = name(folder, key).replace("layers.N", "layers.1")
    expected = load_file(folder / "model.safetensors")[wrong].shape
    change(folder, lambda t: t.update({wrong: torch.ones(size)}))
    refused(folder, f"{wrong} (in the file {size}, in the model {list(expected)})")


def test_ignore_mismatched_sizes_is_respected(folder):
    change(folder, lambda t: t.update({name(folder, "audio_encoder.adapting.2.bias"): torch.ones(5)}))
    hf, info = ArkasrForConditionalGeneration.from_pretrained(
        folder, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert [key for key, *_ in info["mismatched_keys"]] == ["model.multi_modal_projector.linear_2.bias"]
    assert hf.model.multi_modal_projector.linear_2.bias.shape == (24,)


def test_only_the_published_table_of_positions_is_ignored(folder):
    change(folder, lambda t: t.update({POSITIONS: torch.zeros(3)}))
    ArkasrForConditionalGeneration.from_pretrained(folder)
    change(folder, lambda t: (t.pop(POSITIONS), t.update({"model.audio_tower.embed_positions.weight": torch.zeros(3)})))
    refused(folder, "unexpected", "embed_positions")


@pytest.mark.parametrize(
    ("layout", "key"),
    [
        ("published", "model.language_model.norm.weight"),
        ("published", "language_model.norm.weight"),
        ("published", "model.audio_tower.layers.0.self_attn.q_proj.bias"),
        ("native", "model.norm.weight"),
        ("native", "language_model.norm.weight"),
        ("native", "audio_encoder.whisper.layers.0.self_attn.q_proj.bias"),
        ("native", "audio_encoder.whisper.layers.0.fc1.bias"),
    ],
)
def test_two_names_of_one_parameter_are_refused(published, native, tmp_path, layout, key):
    folder = shutil.copytree({"published": published, "native": native}[layout], tmp_path / layout)
    change(folder, lambda t: t.update({key: torch.ones(24)}))
    refused(folder, key, "both map to parameter")


def test_tied_head_that_differs_from_the_embedding_is_refused(folder):
    embedding = name(folder, "model.embed_tokens.weight")
    change(folder, lambda t: t.update({"lm_head.weight": t[embedding] + 1}))
    refused(folder, "lm_head.weight", "ties")


def test_tensor_in_two_shards_is_refused(lm, tmp_path):
    lm.hf.save_pretrained(tmp_path, max_shard_size="9KB", save_original_format=True)
    first, second, *_ = sorted(tmp_path.glob("*.safetensors"))
    twice = next(iter(load_file(first)))
    save_file(load_file(second) | {twice: load_file(first)[twice]}, second, metadata={"format": "pt"})
    refused(tmp_path, twice, "more than one")


def test_broken_file_is_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:300])
    refused(folder, "model.safetensors", "cannot be read as safetensors")

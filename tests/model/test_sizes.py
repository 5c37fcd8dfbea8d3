"""Sizes that describe no model are refused by their key, before anything is allocated."""

from __future__ import annotations

import json
import resource

import pytest
from tiny import ARK_SIZES, QWEN_SIZES, student, student_tokenizer, teacher
from tiny_teachers import glm, save_whisper
from transformers import AutoModelForCausalLM, WhisperForConditionalGeneration

from arkasr.config.schema import ModelConfig
from arkasr.errors import UserError
from arkasr.model.build import assemble, build_fresh, student_sizes
from arkasr.model.loading import load_pretrained, load_speech_lm
from arkasr.model.size_limits import LIMITS
from arkasr.model.sizes import check_sizes


def changed(sizes, section, **keys):
    return sizes | {section: sizes[section] | keys} if section else sizes | keys


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("audio", "hidden_size", -1, r"`model.sizes.audio.hidden_size` must be a whole number from 1 to \d+, got -1"),
        ("audio", "hidden_size", 0, "audio.hidden_size` must be a whole number"),
        ("audio", "hidden_size", "64", "audio.hidden_size` must be a whole number .* got '64'"),
        ("audio", "hidden_size", 64.0, "audio.hidden_size` must be a whole number .* got 64.0"),
        ("audio", "hidden_size", True, "audio.hidden_size` must be a whole number .* got True"),
        ("audio", "hidden_size", 10**12, "audio.hidden_size` must be a whole number"),
        ("audio", "hidden_size", 33, "audio.num_attention_heads` must divide hidden_size 33, got 2; change"),
        ("audio", "num_mel_bins", 0, "audio.num_mel_bins` must be a whole number from 1 to 1024, got 0"),
        ("audio", "num_hidden_layers", 10**9, "audio.num_hidden_layers` must be a whole number from 1 to 512"),
        ("audio", "hidden_sise", 64, "`model.sizes.audio.hidden_sise` is unknown; did you mean .*audio.hidden_size?"),
        ("audio", "d_model", 64, "`model.sizes.audio.d_model` is unknown"),
        ("audio", "positions", "sinusoidal", "positions must be 'rotary' or 'learned', got 'sinusoidal'"),
        ("audio", "hidden_act", "gello", "audio.hidden_act` must be one of .*, got 'gello'"),
        ("audio", "attention_dropout", 1.5, "attention_dropout` must be a number at least 0 and below 1, got 1.5"),
        ("audio", "rope_parameters", 3, "`model.sizes`: not the sizes of a model of type arkasr: .*rope_parameters"),
        ("audio", "initializer_range", 0.1, "set model.sizes.initializer_range"),
        ("text", "num_key_value_heads", 3, "text.num_key_value_heads` must divide num_attention_heads 4, got 3"),
        ("text", "vocab_size", -5, "text.vocab_size` must be a whole number"),
        ("text", "rms_norm_eps", 0, "text.rms_norm_eps` must be a number above 0"),
        ("text", "pad_token_id", 3, "`model.sizes.text.pad_token_id` is unknown"),
        (
            "text",
            "vocab_size",
            3,
            "text.vocab_size` must be at least 385, the length of the tokenizer, got 3",
        ),
        (
            "text",
            "rope_parameters",
            {"rope_type": "foo"},
            "rope_parameters.rope_type` must be one of default, .*'foo'",
        ),
        ("text", "rope_parameters", {"rope_theta": -1}, "text.rope_parameters.rope_theta` must be a number above 0"),
        ("text", "rope_parameters", {"rope_type": "yarn"}, "`model.sizes`"),
        ("text", "layer_types", ["full"], "`model.sizes`: not the sizes of a model of type arkasr"),
        ("", "initializer_range", -0.1, "`model.sizes.initializer_range` must be a number above 0 and below 1"),
        ("", "initializer_range", "wide", "`model.sizes.initializer_range` must be a number .* got 'wide'"),
        ("", "audoi", {}, r"`model.sizes.audoi` is unknown; did you mean model.sizes.audio\?"),
        ("", "text", 3, "`model.sizes.text` must be a mapping of sizes, got 3"),
    ],
)
def test_wrong_sizes_are_refused_by_their_dotted_key(section, key, value, message):
    with pytest.raises(UserError, match=message) as caught:
        assemble(ModelConfig(sizes=changed(ARK_SIZES, section, **{key: value})), student_tokenizer())
    assert "\n" not in str(caught.value)


def test_wrong_sizes_of_a_teacher_are_refused():
    for key, value in (("d_model", 0), ("encoder_attention_heads", 5), ("output_dim", 7), ("n_window", "x")):
        with pytest.raises(UserError, match=f"`model.sizes.audio.{key}`"):
            student_sizes(ModelConfig(type="qwen3_asr", sizes=changed(QWEN_SIZES, "audio", **{key: value})), 0)


@pytest.mark.parametrize(
    ("kind", "section", "keys", "key"),
    [
        ("arkasr", "text", {"hidden_size": 20}, "hidden_size` must give heads an even width, got 5"),
        (
            "arkasr",
            "audio",
            {"hidden_size": 33, "num_attention_heads": 3, "positions": "learned"},
            "hidden_size` must be",
        ),
        ("qwen3_asr", "text", {"head_dim": 7}, "head_dim` must give heads an even width, got 7"),
        ("qwen3_asr", "audio", {"d_model": 33, "encoder_attention_heads": 3}, "d_model` must be even, got 33"),
    ],
)
def test_widths_that_positions_cannot_use_are_refused(kind, section, keys, key):
    sizes = changed(ARK_SIZES if kind == "arkasr" else QWEN_SIZES, section, **keys)
    with pytest.raises(UserError, match=f"`model.sizes.{section}.{key}"):
        student_sizes(ModelConfig(type=kind, sizes=sizes), 0)


def test_sizes_of_the_recipes_and_of_the_tests_are_accepted():
    check_sizes(ARK_SIZES, "arkasr")
    check_sizes(QWEN_SIZES, "qwen3_asr")


def test_a_fresh_model_must_fit_into_memory():
    sizes = changed(ARK_SIZES, "text", vocab_size=LIMITS["vocab_size"], hidden_size=16384, intermediate_size=8)
    with pytest.raises(UserError, match=r"`model.sizes`: 2\d\d,\d{3},\d{3},\d{3} parameters need 1,\d{3} GiB, but"):
        build_fresh("arkasr", sizes, student_tokenizer())


# config.json of existing models


MODELS = {
    "arkasr": lambda folder: student(1).save(folder),
    "qwen3_asr": lambda folder: teacher(1).save(folder),
    "glmasr": lambda folder: glm(1).save(folder),
    "whisper": save_whisper,
}
HUGE = [
    ("text_config", "vocab_size", 8_000_000),
    ("text_config", "hidden_size", 32_000),
    ("text_config", "intermediate_size", 200_000),
    ("text_config", "num_hidden_layers", 300),
]


def edit(folder, section, key, value):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    table = config[section] if section else config
    table[key] = value
    table.pop("layer_types", None)  # one per layer, which would be refused already
    file.write_text(json.dumps(config))


def load(folder, kind):
    if kind == "whisper":
        return load_pretrained(str(folder), {"whisper": WhisperForConditionalGeneration})
    return load_speech_lm(str(folder))


@pytest.mark.parametrize(
    ("kind", "section", "key", "value"),
    [
        *((kind, *case) for kind in ("arkasr", "qwen3_asr", "glmasr") for case in HUGE),
        ("whisper", "", "vocab_size", 8_000_000),
        ("whisper", "", "d_model", 32_000),
        ("whisper", "", "encoder_layers", 300),
        ("whisper", "", "max_source_positions", 10_000_000),
    ],
)
def test_huge_sizes_are_compared_with_the_files_before_allocation(tmp_path, kind, section, key, value):
    MODELS[kind](tmp_path)
    edit(tmp_path, section, key, value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=f"{tmp_path}: the weights do not match config.json"):
        load(tmp_path, kind)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 700_000, "kilobytes"


@pytest.mark.parametrize(
    ("kind", "section", "key", "value"),
    [
        ("arkasr", "text_config", "num_hidden_layers", 10**9),
        ("arkasr", "audio_config", "hidden_size", 10**13),
        ("arkasr", "audio_config", "num_mel_bins", 0),
        ("arkasr", "audio_config", "num_attention_heads", 5),
        ("arkasr", "", "merge_factor", -1),
        ("qwen3_asr", "audio_config", "encoder_layers", 10**9),
        ("glmasr", "text_config", "vocab_size", -1),
        ("whisper", "", "decoder_layers", 10**9),
        ("whisper", "", "d_model", "wide"),
    ],
)
def test_impossible_sizes_in_config_json_are_named(tmp_path, kind, section, key, value):
    MODELS[kind](tmp_path)
    edit(tmp_path, section, key, value)
    with pytest.raises(UserError, match=f"{tmp_path}.*{key}.* in config.json must "):
        load(tmp_path, kind)


def test_users_of_auto_classes_get_the_same_protection(tmp_path):
    student(1).save(tmp_path)
    edit(tmp_path, "text_config", "vocab_size", 8_000_000)
    with pytest.raises(UserError, match="the weights do not match config.json; of another shape: "):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    edit(tmp_path, "text_config", "num_hidden_layers", 10**9)
    with pytest.raises(UserError, match="num_hidden_layers in config.json must be a whole number"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_pretrained_part_with_impossible_sizes_is_named(tmp_path):
    save_whisper(tmp_path)
    edit(tmp_path, "", "encoder_layers", 10**9)
    with pytest.raises(UserError, match="encoder_layers in config.json must be a whole number from 1 to 512"):
        student_sizes(ModelConfig(encoder=str(tmp_path), sizes={"text": ARK_SIZES["text"]}), 0)


def test_a_pretrained_part_is_compared_with_its_files_before_allocation(tmp_path):
    save_whisper(tmp_path)
    edit(tmp_path, "", "encoder_ffn_dim", 200_000)
    edit(tmp_path, "", "encoder_layers", 500)
    with pytest.raises(UserError, match=f"{tmp_path}: tensors do not match its config.json"):
        assemble(ModelConfig(encoder=str(tmp_path), sizes={"text": ARK_SIZES["text"]}), student_tokenizer())

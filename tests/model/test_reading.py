"""Model folders are data: code that they name never runs, and damaged files are named in one sentence."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from tiny import student

from arkasr.config.schema import Config, ModelConfig, TokenizerConfig
from arkasr.errors import UserError
from arkasr.model.arkasr.processing_arkasr import ArkasrProcessor
from arkasr.model.loading import load_speech_lm
from arkasr.model.reading import load_tokenizer, reading
from arkasr.model.size_limits import check_config
from arkasr.training.run_tokenizer import _new_tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a complete student. Tests do not write into it."""
    folder = tmp_path_factory.mktemp("reading") / "model"
    student(9).save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def with_new_tokenizer(**sections):
    return _new_tokenizer(Config(**sections))


def from_tokenizer_path(folder):
    return with_new_tokenizer(tokenizer=TokenizerConfig(path=str(folder)))


def from_model_decoder(folder):
    return with_new_tokenizer(model=ModelConfig(decoder=str(folder)))


WAYS_IN = {
    "processor": ArkasrProcessor.from_pretrained,
    "tokenizer.path": from_tokenizer_path,
    "model.decoder": from_model_decoder,
    "teacher": lambda folder: load_speech_lm(str(folder)),
}


@pytest.mark.parametrize("way_in", WAYS_IN)
def test_code_of_a_folder_never_runs_whatever_the_user_answers(folder, tmp_path, monkeypatch, way_in):
    """The folder's tokenizer class exists only in its code, so transformers asks whether to run it, and hears yes."""
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil:\n    pass\n")
    for name, classes in {
        "tokenizer_config.json": ["AutoTokenizer"],
        "config.json": ["AutoConfig", "AutoModel"],
    }.items():
        content = json.loads((folder / name).read_text())
        content["auto_map"] = {each: [None, "evil.Evil"] if "Token" in each else "evil.Evil" for each in classes}
        content["tokenizer_class"] = "EvilTokenizer"
        if way_in in ("tokenizer.path", "model.decoder"):
            content.pop("model_type", None)
        (folder / name).write_text(json.dumps(content))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    try:
        WAYS_IN[way_in](folder)
    except UserError as error:
        assert str(folder) in str(error)
    assert not marker.exists()
    assert sys.stdin.tell() == 0, "the user was asked whether to run the code"


DAMAGE = {
    "empty": "",
    "torn": '{"model_type": "ark',
    "a list": "[1, 2]",
    "not UTF-8": b"\xff\xfe{}",
    "too deep": "[" * 100_000,
}
LOADERS = {
    "config.json": ("processor", "teacher"),
    "tokenizer.json": tuple(WAYS_IN),
    "tokenizer_config.json": tuple(WAYS_IN),
    "processor_config.json": ("processor",),
    "preprocessor_config.json": ("processor",),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", LOADERS)
def test_damaged_json_files_are_named(folder, name, damage):
    if name == "preprocessor_config.json":  # in older folders, instead of processor_config.json
        extractor = json.loads((folder / "processor_config.json").read_text()).get("feature_extractor", {})
        (folder / name).write_text(json.dumps(extractor))
    content = DAMAGE[damage]
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for way_in in LOADERS[name]:
        with pytest.raises(UserError, match=rf"/{name}: (not valid JSON|must hold a JSON object)") as caught:
            WAYS_IN[way_in](folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "way_in"),
    [
        ("tokenizer.json", {}, "teacher"),
        ("tokenizer.json", {"model": 3}, "processor"),
        ("tokenizer.json", {"version": "1.0", "model": {"type": "BPE", "vocab": [], "merges": {}}}, "tokenizer.path"),
        ("tokenizer_config.json", {"tokenizer_class": 7}, "teacher"),
        ("tokenizer_config.json", {"extra_special_tokens": 7}, "model.decoder"),
        ("config.json", {"model_type": "arkasr", "text_config": []}, "teacher"),
        ("config.json", {"model_type": "arkasr", "audio_config": 3}, "processor"),
        ("config.json", {"model_type": ["arkasr"]}, "teacher"),
        ("processor_config.json", {"feature_extractor": {"feature_size": "many"}}, "processor"),
        ("processor_config.json", {"feature_extractor": 4}, "processor"),
        ("processor_config.json", {"merge_factor": "x"}, "processor"),
        ("processor_config.json", {"instruction": 3}, "processor"),
        ("processor_config.json", {"audio_token": True}, "processor"),
    ],
)
def test_files_with_values_of_a_wrong_type_are_refused_in_one_sentence(folder, name, content, way_in):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        WAYS_IN[way_in](folder)
    assert "\n" not in str(caught.value) and ";" in str(caught.value)


def test_processor_refuses_features_that_the_model_cannot_read(folder):
    content = json.loads((folder / "processor_config.json").read_text())
    content["feature_extractor"]["feature_size"] = 80
    (folder / "processor_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="feature_size in .* is 80, but num_mel_bins in config.json is 16"):
        ArkasrProcessor.from_pretrained(folder)


def test_load_tokenizer_returns_the_saved_one(saved):
    assert load_tokenizer(str(saved)).get_vocab() == student(9).tokenizer.get_vocab()


def test_reading_leaves_bugs_and_full_memory_alone():
    for error in (RuntimeError("bug"), MemoryError()):
        with pytest.raises(type(error)), reading("somewhere"):
            raise error


def test_damaged_folder_without_the_file_is_accepted(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        load_tokenizer(str(Path(tmp_path)))


@pytest.mark.parametrize("section", ["", "text_config", "audio_config"])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("value", ["kernels-community/evil", "someone/evil@v1:f", {"": "someone/evil"}])
def test_kernels_of_the_hub_are_refused(section, key, value):
    config = {"model_type": "arkasr", "text_config": {}, "audio_config": {}}
    (config[section] if section else config)[key] = value
    with pytest.raises(UserError, match=f"folder.*{key} in config.json must be one of eager, sdpa.*never run"):
        check_config(config, "folder")


def test_quantised_weights_are_refused_and_usual_attention_is_not():
    with pytest.raises(UserError, match="folder: quantization_config in config.json: quantised weights cannot be read"):
        check_config({"quantization_config": {"quant_method": "bitsandbytes"}}, "folder")
    check_config({"quantization_config": None, "attn_implementation": "sdpa", "_attn_implementation": None}, "folder")


@pytest.mark.parametrize("error", [ImportError("install it"), ValueError("pass the argument `trust_remote_code=True`")])
def test_missing_packages_and_code_are_one_sentence(error):
    with pytest.raises(UserError) as refused, reading("folder"):
        raise error
    assert "trust_remote_code" not in str(refused.value)
    assert str(refused.value).startswith("folder: cannot be read as a model: ")

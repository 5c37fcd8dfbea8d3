"""Values of --checkpoint: names of rows, folders, ids on the Hub, plugins, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import student

from arkasr.config.load import dump_config, load_config
from arkasr.errors import UserError
from arkasr.evaluation.checkpoint_values import parse_checkpoints
from arkasr.evaluation.checkpoints import Checkpoint
from arkasr.evaluation.checkpoints import write_checkpoint as write


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny student, as an export would be."""
    folder = tmp_path_factory.mktemp("models") / "mine" / "export"
    student(7).save(folder)
    return folder


def mkdir(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_names_are_made_of_paths_and_models_are_told_from_plugins(model, echo, tmp_path):
    values = [str(model), "Qwen/Qwen3-ASR-0.6B", "ark=AutoArk-AI/ARK-ASR-0.6B", "echo:some/voice", f"e=echo:{model}"]
    assert parse_checkpoints(values, str(tmp_path)) == [
        Checkpoint("mine", str(model)),
        Checkpoint("Qwen3-ASR-0.6B", "Qwen/Qwen3-ASR-0.6B"),
        Checkpoint("ark", "AutoArk-AI/ARK-ASR-0.6B"),
        Checkpoint("voice", "some/voice", "echo"),
        Checkpoint("e", str(model), "echo"),
    ]


def test_relative_folders_are_made_absolute(model, tmp_path, monkeypatch):
    monkeypatch.chdir(model.parent)
    assert parse_checkpoints(["export"], str(tmp_path))[0].path == str(model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["x="], "--checkpoint x=: names no model"),
        (["echo:"], "names no model"),
        (["no/such/folder"], "no model here (no no/such/folder/config.json)"),
        (["{tmp}/whisper"], "model_type 'whisper' in config.json is not one of arkasr, glmasr, qwen3_asr"),
        (["{tmp}/whisper"], "as PLUGIN:{tmp}/whisper"),
        (["wisper:a/b"], "no teacher is called 'wisper'; did you mean 'whisper'?"),
        (["a b=x/y"], "'a b' cannot be the name of a row"),
        (["base=x/y"], "base is the name of a run; choose another name with NAME=x/y"),
        (["test_sets=x/y"], "test_sets is a folder of results"),
        (["{tmp}/adapter"], "no model here (no {tmp}/gone/config.json)"),
        (["own=x/y"], "own is the name of a run"),
        (["x/y", "z/y"], "two models have the name y; name one of them with NAME=z/y"),
        (["old=x/y"], "{tmp}/old belongs to the model x/z"),
    ],
)
def test_unusable_models_and_names_are_errors_of_one_sentence(values, message, conf, datadir, echo, tmp_path):
    dump_config(load_config(conf, "base", str(tmp_path), str(datadir)), mkdir(tmp_path / "own") / "config.yaml")
    (mkdir(tmp_path / "whisper") / "config.json").write_text('{"model_type": "whisper"}')
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "gone")}
    (mkdir(tmp_path / "adapter") / "adapter_config.json").write_text(json.dumps(adapter))
    write(Checkpoint("old", "x/z"), str(tmp_path))
    with pytest.raises(UserError) as caught:
        parse_checkpoints([value.format(tmp=tmp_path) for value in values], str(tmp_path))
    assert message.format(tmp=tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_folder_of_adapters_is_a_model_of_its_base(model, tmp_path):
    folder = mkdir(tmp_path / "tuned" / "adapter")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(model)}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    assert parse_checkpoints([str(folder)], str(tmp_path)) == [Checkpoint("tuned", str(folder))]

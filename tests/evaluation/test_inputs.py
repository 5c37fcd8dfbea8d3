"""What changed since hypotheses were decoded and models were trained."""

from __future__ import annotations

import pytest
from json_lines import write_lines

from arkasr.data.manifests import digest
from arkasr.evaluation.inputs import changed_inputs, describe_teacher, teacher_of
from arkasr.utils.files import sampled_digest


def model(folder, content=b"weights"):
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    return {"path": str(folder), "weights": sampled_digest(folder)}


def test_changed_inputs_names_parent_data_and_teacher_that_changed(tmp_path):
    data = tmp_path / "train.jsonl"
    write_lines(data, [{"id": "a"}])
    teacher = {"name": "qwen3_asr", "options": {}} | model(tmp_path / "teacher")
    inputs = {
        "data": {"path": str(data), "sha256": digest(str(data))},
        "parent": model(tmp_path / "base"),
        "teacher": teacher,
    }
    assert changed_inputs({"inputs": inputs}) == []
    write_lines(data, [{"id": "b"}])
    model(tmp_path / "base", b"trained again")
    model(tmp_path / "teacher", b"another")
    sentences = changed_inputs({"inputs": inputs})
    assert [name in text for name, text in zip(("base", "train.jsonl", "teacher"), sentences)] == [True] * 3


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        {},
        {"data": None, "parent": None, "teacher": None},
        {"data": {"path": "/nowhere/train.jsonl.gz", "sha256": "00"}, "parent": {"path": "/nowhere", "weights": "00"}},
        {"parent": {"path": "Qwen/Qwen2.5-0.5B", "weights": ""}},
        {"data": ["x"], "parent": "x", "teacher": 3},
        {"data": {"path": 3, "sha256": 4}, "parent": {"path": 3, "weights": 4}},
    ],
)
def test_changed_inputs_does_not_compare_what_is_not_recorded_or_gone(inputs):
    assert changed_inputs({"inputs": inputs}) == []
    assert changed_inputs({}) == []


def test_teacher_of_uses_record_or_configuration():
    options = {"path": "Qwen/A", "url": "http://user:hunter2@host"}
    config = {"objective": "opd", "teacher": {"name": "x", "options": options}}
    recorded = {"name": "x", "options": {}, "path": "Qwen/A", "weights": "ff"}
    assert teacher_of({"config": config, "inputs": {"teacher": recorded}}) == recorded
    found = teacher_of({"config": config})
    assert (found["name"], found["path"], found["weights"]) == ("x", "Qwen/A", "") and "hunter2" not in str(found)
    assert teacher_of({"config": {"objective": "sft"}}) is None and teacher_of({"config": {}}) is None
    assert teacher_of({"config": {"objective": "opd"}})["name"] == ""


def test_describe_teacher_hides_secrets():
    teacher = {"name": "http", "options": {"url": "http://u:hunter2@h"}, "path": "", "weights": "0123456789abcdef"}
    assert describe_teacher(teacher) == "`http`, http://***@h, weights 0123456789ab"

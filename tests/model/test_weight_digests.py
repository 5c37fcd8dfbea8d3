"""A flipped bit in the weights of a model is found when the model is loaded."""

from __future__ import annotations

import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import ARK_SIZES, student, student_tokenizer, teacher
from transformers import AutoModelForCausalLM

from arkasr.config.schema import ModelConfig
from arkasr.errors import UserError
from arkasr.model import weight_digests
from arkasr.model.build import assemble
from arkasr.model.loading import load_speech_lm


def flip(file, at: int = -5):
    """Flip one bit of the last tensor."""
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("make", [student, teacher])
def test_flipped_bit_is_refused(make, tmp_path):
    make(3).save(tmp_path)
    load_speech_lm(str(tmp_path))
    flip(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"{tmp_path}/model.safetensors: the weights were changed or damaged .*; copy"):
        load_speech_lm(str(tmp_path))
    (tmp_path / "SHA256SUMS").unlink()
    load_speech_lm(str(tmp_path))


def test_flipped_bit_in_a_shard_is_refused(tmp_path):
    student(3).save(tmp_path, max_shard_size="50KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2 and (tmp_path / "SHA256SUMS").read_text().count(".safetensors\n") == len(shards)
    flip(shards[1])
    with pytest.raises(UserError, match=shards[1].name):
        load_speech_lm(str(tmp_path))


def test_flipped_bit_in_a_pretrained_part_is_refused(tmp_path):
    student(3).save(tmp_path)
    flip(tmp_path / "model.safetensors")
    config = ModelConfig(encoder=str(tmp_path), sizes={"text": ARK_SIZES["text"]})
    with pytest.raises(UserError, match="model.safetensors: the weights were changed or damaged"):
        assemble(config, student_tokenizer())


@pytest.mark.parametrize("published", [False, True])
def test_digests_are_those_of_sha256sum(tmp_path, published):
    student(3).save(tmp_path, save_original_format=published)
    names = [*sorted(path.name for path in tmp_path.glob("*.json")), "model.safetensors"]
    found = subprocess.run(["sha256sum", *names], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted((tmp_path / "SHA256SUMS").read_text().splitlines()) == sorted(found.stdout.splitlines())
    assert {"config.json", "tokenizer.json"} <= set(names)


def test_saving_again_replaces_the_digests(tmp_path):
    student(3).save(tmp_path)
    student(4).save(tmp_path)
    load_speech_lm(str(tmp_path))
    AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=False).save_pretrained(tmp_path)
    assert not (tmp_path / "SHA256SUMS").exists()
    load_speech_lm(str(tmp_path))


@pytest.mark.parametrize("content", [b"\x00", b"", b"abc  model.safetensors\n", b"\xff\xfe"])
def test_damaged_list_of_digests_is_named(tmp_path, content):
    student(3).save(tmp_path)
    (tmp_path / "SHA256SUMS").write_bytes(content)
    with pytest.raises(UserError, match=f"{tmp_path}/SHA256SUMS: (is empty|.* is not a digest and a file name)"):
        load_speech_lm(str(tmp_path))


def test_each_file_is_read_once_per_process(tmp_path, monkeypatch):
    student(3).save(tmp_path)
    read = []
    monkeypatch.setattr(weight_digests, "sha256", lambda file: read.append(file) or "0" * 64)
    for _ in range(3):
        with pytest.raises(UserError, match="changed or damaged"):
            load_speech_lm(str(tmp_path))
    assert len(read) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    student(3).save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.language_model.norm.weight"][3] = value
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(
        UserError, match=r"model.language_model.norm.weight holds NaN or infinite values as float32; use"
    ):
        load_speech_lm(str(tmp_path))


def test_weights_beyond_the_range_of_a_dtype_are_named(tmp_path):
    lm = student(3)
    with torch.no_grad():
        lm.hf.model.language_model.norm.weight[0] = 1e6
    lm.save(tmp_path)
    load_speech_lm(str(tmp_path), "bfloat16")
    with pytest.raises(UserError, match="norm.weight holds NaN or infinite values as float16"):
        load_speech_lm(str(tmp_path), "float16")

"""Qwen3-ASR in its original layout, as vLLM and SGLang read it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import teacher
from tiny_teachers import save_original_qwen

from arkasr.errors import UserError
from arkasr.model.loading import load_speech_lm
from arkasr.model.weight_digests import check_digests, digested_files


@pytest.fixture(scope="module")
def lm():
    return teacher()


def read_config(folder):
    return json.loads((folder / "config.json").read_text())


def test_original_layout_has_the_tensors_and_settings_of_published_folders(lm, tmp_path):
    expected = save_original_qwen(lm, tmp_path / "reference")
    lm.save(tmp_path / "written", save_original_format=True)
    found = load_file(tmp_path / "written" / "model.safetensors")
    tied = {"thinker.lm_head.weight"}  # files leave a tied head out
    assert found.keys() == expected.keys() - tied and all(torch.equal(found[name], expected[name]) for name in found)
    reference, written = (read_config(tmp_path / name)["thinker_config"] for name in ("reference", "written"))
    for part in ("audio_config", "text_config"):
        known = reference[part].keys() - {"num_experts", "is_decoder", "rope_scaling"}
        assert {key: written[part][key] for key in known} == {key: reference[part][key] for key in known}
    assert sum(written["text_config"]["rope_scaling"]["mrope_section"]) == lm.hf.config.text_config.head_dim // 2
    assert read_config(tmp_path / "written")["architectures"] == ["Qwen3ASRForConditionalGeneration"]


def test_original_layout_has_the_features_of_whisper(lm, tmp_path):
    lm.save(tmp_path, save_original_format=True)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert settings["feature_extractor_type"] == "WhisperFeatureExtractor"
    assert settings["feature_size"] == lm.num_mel and settings["chunk_length"] == 30
    assert not (tmp_path / "processor_config.json").exists() and (tmp_path / "tokenizer.json").is_file()


@pytest.mark.parametrize("shards", ["50GB", "100KB"])
def test_original_layout_loads_as_the_same_model(lm, tmp_path, shards):
    lm.save(tmp_path, save_original_format=True, max_shard_size=shards)
    check_digests(digested_files(tmp_path))
    loaded = load_speech_lm(str(tmp_path))
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 or shards == "50GB"
    assert all(torch.equal(loaded.hf.state_dict()[name], value) for name, value in lm.hf.state_dict().items())
    for part in ("audio_config", "text_config"):
        was, now = (getattr(model.hf.config, part).to_dict() for model in (lm, loaded))
        assert {k: v for k, v in now.items() if k != "dtype"} == {k: v for k, v in was.items() if k != "dtype"}


def test_original_layout_of_other_chunks_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"audio_config.n_window must be 50 in the published layout, got 25; write the"):
        teacher(n_window=25).save(tmp_path / "out", save_original_format=True)
    assert not (tmp_path / "out").exists()

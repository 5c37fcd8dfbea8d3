"""A checkpoint's model loads in one process, and one whose configuration and tensors differ is refused."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from tiny import student, waveform
from torch.distributed.checkpoint.state_dict import get_model_state_dict

from arkasr.errors import UserError
from arkasr.model.checkpoint_files import COMPLETE, describe, load_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint as earlier versions wrote it, with sizes and no digests, and its model."""
    lm, folder = student(4), tmp_path / "step-00000001"
    lm.add_ctc_head()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": get_model_state_dict(lm)}, checkpoint_id=folder / "weights", no_dist=True)
    describe(folder, lm)
    seal(folder)
    return folder, lm


def seal(folder):
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    sizes.pop(COMPLETE, None)
    (folder / COMPLETE).write_text(json.dumps(sizes))


def test_load_checkpoint_restores_the_student(checkpoint):
    folder, lm = checkpoint
    loaded = load_checkpoint(folder)
    before, after = lm.hf.state_dict(), loaded.hf.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        assert torch.equal(lm.encode_audio([waveform(9000)])[0], loaded.encode_audio([waveform(9000)])[0])


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("text_config", "vocab_size", 8_000_000, r"asks for \(8000000, 24\); use another checkpoint"),
        ("text_config", "num_hidden_layers", 300, r"layers.2.* has the shape None, but model/config.json asks for"),
        ("audio_config", "num_hidden_layers", 10**9, "num_hidden_layers in config.json must be a whole number"),
    ],
)
def test_load_checkpoint_compares_shapes_before_it_allocates(checkpoint, section, key, value, message):
    folder, file = checkpoint[0], checkpoint[0] / "model" / "config.json"
    config = json.loads(file.read_text())
    config[section][key] = value
    config[section].pop("layer_types", None)
    file.write_text(json.dumps(config))
    seal(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_load_checkpoint_names_a_torn_file(checkpoint, name):
    folder = checkpoint[0]
    (folder / "model" / name).write_text('{"a": ')
    seal(folder)
    with pytest.raises(UserError, match=f"{folder}/model/{name}: not valid JSON"):
        load_checkpoint(folder)

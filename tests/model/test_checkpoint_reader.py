"""Weights of a checkpoint are read as data: a file that would run code is refused, and the code does not run."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from arkasr.errors import UserError
from arkasr.model.checkpoint_reader import read_weights, saved_shapes


class RunsCode:
    """Creates a file when it is unpickled."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def written(folder: Path, state: dict) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, no_dist=True)
    return folder


def test_tensors_and_settings_are_read(tmp_path):
    state = {"model": {"w": torch.arange(6.0).view(2, 3)}, "lr": 0.5, "betas": (0.9, 0.95), "names": ["a", "b"]}
    folder = written(tmp_path / "weights", state)
    found = {"model": {"w": torch.zeros(2, 3)}, "lr": 0.0, "betas": (0.0, 0.0), "names": []}
    read_weights(folder, found)
    assert torch.equal(found["model"].pop("w"), state["model"].pop("w")) and found == state
    assert saved_shapes(folder) == {"model.w": (2, 3)}


@pytest.mark.parametrize("read", [saved_shapes, lambda folder: read_weights(folder, {"w": torch.zeros(2)})])
def test_description_that_runs_code_is_refused(tmp_path, read):
    folder, witness = written(tmp_path / "weights", {"w": torch.zeros(2)}), tmp_path / "witness"
    (folder / ".metadata").write_bytes(pickle.dumps(RunsCode(witness)))
    with pytest.raises(UserError, match=f"^{folder}: cannot be read .*mkdir, which does not describe a tensor.*; use"):
        read(folder)
    assert not witness.exists()


def test_value_that_runs_code_is_refused(tmp_path):
    witness = tmp_path / "witness"
    folder = written(tmp_path / "weights", {"w": torch.zeros(2), "lr": RunsCode(witness)})
    with pytest.raises(UserError, match=f"^{folder}: cannot be read"):
        read_weights(folder, {"w": torch.zeros(2), "lr": 0.0})
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"half", pickle.dumps({"a": 1}), b"\x80\x04K\x01."])
def test_damaged_description_is_one_sentence(tmp_path, content):
    folder = written(tmp_path / "weights", {"w": torch.zeros(2)})
    (folder / ".metadata").write_bytes(content)
    for read in (saved_shapes, lambda folder: read_weights(folder, {"w": torch.zeros(2)})):
        with pytest.raises(UserError, match=f"^{folder}: cannot be read") as failure:
            read(folder)
        assert len(str(failure.value).splitlines()) == 1

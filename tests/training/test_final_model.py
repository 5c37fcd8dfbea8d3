"""Whether a run counts as finished: only with a whole `final`, and with one sentence for a damaged one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from arkasr.errors import UserError
from arkasr.training.final_model import is_finished


@pytest.fixture
def run(trained, tmp_path) -> Path:
    shutil.copytree(trained / "base" / "final", tmp_path / "base" / "final")
    return tmp_path / "base"


def test_whole_model_counts_and_absent_one_does_not(run, tmp_path):
    assert is_finished(run) and not is_finished(tmp_path / "other")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_empty_or_cut_file_is_named(run, name, share):
    path = run / "final" / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=rf"^{path}: .*; delete {run / 'final'} and run the same command again"):
        is_finished(run)


@pytest.mark.parametrize(
    ("name", "what"),
    [("model.safetensors", "weights were"), ("config.json", "file was"), ("tokenizer.json", "file was")],
)
def test_flipped_bit_is_named(run, name, what):
    path = run / "final" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    # a flipped bit may also make the JSON invalid
    with pytest.raises(UserError, match=rf"^{path}: (the {what} changed or damaged|.*).*; delete {run / 'final'}"):
        is_finished(run)


def test_another_valid_configuration_is_named(run):
    path = run / "final" / "config.json"
    path.write_text(path.read_text().replace("{", "{ ", 1))
    with pytest.raises(UserError, match=rf"^{path}: the file was changed or damaged .*; delete {run / 'final'}"):
        is_finished(run)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_absent_file_is_named(run, name):
    (run / "final" / name).unlink()
    with pytest.raises(UserError, match=rf"^{run / 'final'}: (not a whole model|no weights).*; delete"):
        is_finished(run)

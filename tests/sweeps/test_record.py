"""A sweep that has changed since its folder was made is refused with what changed. Extensions are allowed."""

from __future__ import annotations

import json

import pytest
from sweeps import write_sweep

from arkasr.errors import UserError
from arkasr.sweeps.record import open_record
from arkasr.sweeps.runner import STATE
from arkasr.sweeps.sweep_file import read_sweep
from arkasr.sweeps.tasks import Folders

TEXT = """
conf: CONF
shared: [base]
runs: [teacher, base_opd]
grid: {distill.top_k: [2, 4]}
seeds: [1, 2]
overrides: {optim.lr: 0.5, runs.teacher.seed: 9}
"""
ONCE = TEXT.replace("runs: [teacher,", "once: [teacher]\nruns: [").replace(", runs.teacher.seed: 9", "")


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "data").mkdir()
    return Folders(tmp_path / "exp", tmp_path / "data")


def opened(conf, tmp_path, folders, *change, own_conf=None, text=TEXT):
    text = text.replace(*change) if change else text
    open_record(read_sweep(write_sweep(tmp_path, own_conf or conf, text)), folders)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("optim.lr: 0.5", "optim.lr: 0.25"), "base: optim.lr was 0.5, is 0.25; top_k-2/teacher: optim.lr was 0.5"),
        (("[2, 4]", "[2]"), "top_k-4/teacher: removed; top_k-4/base_opd: removed"),
        (("seeds: [1, 2]", "seeds: [2, 3]"), "seeds: 1 removed"),
        (("runs.teacher.seed: 9", "runs.teacher.seed: 8"), "top_k-2/teacher: seed was 9, is 8"),
        (("runs: [teacher, base_opd]", "runs: [teacher]"), "top_k-2/base_opd: removed"),
        (
            ("optim.lr: 0.5", 'optim.lr: 0.5, loss.options: {temperature: 2.0}'),
            "base: loss.options.temperature was null, is 2.0",
        ),
    ],
)  # fmt: skip
def test_changed_sweep_is_refused(conf, tmp_path, folders, change, message):
    opened(conf, tmp_path, folders)
    before = (folders.expdir / STATE / "sweep.json").read_text()
    with pytest.raises(UserError) as raised:
        opened(conf, tmp_path, folders, *change)
    assert message in str(raised.value) and "restore the file, or use another --expdir" in str(raised.value)
    assert (folders.expdir / STATE / "sweep.json").read_text() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds: [1, 2]", "seeds: [2, 1]"), "teacher: seed was 1, is 2; restore"),
        (("seeds: [1, 2]", "seeds: [5, 1, 2]"), "teacher: seed was 1, is 5; restore"),
        (("once: [teacher]\n", ""), "teacher: removed; restore"),
        (("shared: [base]\nonce: [teacher]", "shared: [base, teacher]"), "teacher: was in once, is in shared; restore"),
        (("shared: [base]\nonce: [teacher]", "once: [teacher, base]"), "base: was in shared, is in once; restore"),
        (("optim.lr: 0.5", "runs.teacher.optim.lr: 0.25, optim.lr: 0.5"), "teacher: optim.lr was 0.5, is 0.25"),
    ],
)
def test_change_of_runs_trained_once_is_refused(conf, tmp_path, folders, change, message):
    opened(conf, tmp_path, folders, text=ONCE)
    with pytest.raises(UserError) as raised:
        opened(conf, tmp_path, folders, *change, text=ONCE)
    assert message in str(raised.value)


def test_seeds_may_be_added_after_the_one_of_runs_trained_once(conf, tmp_path, folders, capsys):
    opened(conf, tmp_path, folders, text=ONCE)
    opened(conf, tmp_path, folders, "seeds: [1, 2]", "seeds: [1, 2, 7]\nroundings: [0, 1]", text=ONCE)
    assert "the sweep was extended by seeds 7, roundings 1" in capsys.readouterr().out


def test_changed_configuration_and_data_directory_are_refused(conf, tmp_path, folders):
    opened(conf, tmp_path, folders)
    (tmp_path / "other.yaml").write_text(conf.read_text().replace("vocab_size: 40", "vocab_size: 44"))
    with pytest.raises(UserError, match="base: tokenizer.vocab_size was 40, is 44"):
        opened(conf, tmp_path, folders, own_conf=tmp_path / "other.yaml")
    with pytest.raises(UserError, match="--datadir was .*data, is .*elsewhere"):
        opened(conf, tmp_path, Folders(folders.expdir, tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("change", "added"),
    [
        (("seeds: [1, 2]", "seeds: [5, 1, 2]\nroundings: [0, 1]"), "seeds 5, roundings 1"),
        (("[2, 4]", "[2, 4, 8]"), "top_k-8/teacher, top_k-8/base_opd"),
        (("seeds:", "controls: [base]\nskip: [top_k-4]\ntitle: x\nseeds:"), ""),
    ],
)
def test_extended_sweep_is_accepted(conf, tmp_path, folders, change, added, capsys):
    opened(conf, tmp_path, folders)
    opened(conf, tmp_path, folders, *change)
    out = capsys.readouterr().out
    assert f"the sweep was extended by {added}" in out if added else "extended" not in out


def test_record_of_an_earlier_version_lacks_keys_that_have_their_default(conf, tmp_path, folders):
    opened(conf, tmp_path, folders)
    path = folders.expdir / STATE / "sweep.json"
    record = json.loads(path.read_text())
    for values in record["settings"].values():
        del values["train"]["keep_best"], values["fsdp"]
    path.write_text(json.dumps(record))
    opened(conf, tmp_path, folders)
    assert "keep_best" in path.read_text()


def test_folder_of_something_else_is_refused(conf, tmp_path, folders):
    (folders.expdir / "base").mkdir(parents=True)
    with pytest.raises(UserError, match=r"exp: holds other files \(base\) and is no folder of a sweep"):
        opened(conf, tmp_path, folders)

"""What is decoded: test sets of one name are kept apart, and clips without a language get that of their set."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from arkasr.config.load import dump_config, load_config
from arkasr.errors import UserError
from arkasr.evaluation.decode import decode
from arkasr.evaluation.decode_record import changed_inputs
from arkasr.evaluation.identity import teacher_identity
from arkasr.evaluation.sources import Source

ECHO = ["v=echo:some/voice"]


@pytest.fixture
def manifest(tmp_path):
    """A manifest of one clip of a second that names no language."""
    path = tmp_path / "one.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32), 16000)
    spoken = SupervisionSegment("c", "c", 0.0, 1.0, text="ja")
    cut = MonoCut("c", 0.0, 1.0, 0, [spoken], recording=Recording.from_file(path))
    (tmp_path / "own").mkdir()
    CutSet.from_cuts([cut]).to_file(tmp_path / "own" / "calls.jsonl.gz")
    return tmp_path / "own" / "calls.jsonl.gz"


def hypotheses(tmp_path, name):
    return [json.loads(line) for line in (tmp_path / "exp" / "v" / "decode" / f"{name}.jsonl").open()]


def test_language_of_a_test_set_is_that_of_its_clips(tmp_path, manifest, echo, datadir):
    for value in (f"calls:German={manifest}", f"others={manifest}"):
        decode(str(tmp_path / "exp"), str(datadir), [], [value], ECHO)
    assert [row["hypothesis"] for row in hypotheses(tmp_path, "calls")] == ["German 16000"]
    assert [row["hypothesis"] for row in hypotheses(tmp_path, "others")] == ["English 16000"]  # of the data directory


def test_hypotheses_of_another_test_set_of_the_same_name_are_not_overwritten(tmp_path, manifest, echo, datadir):
    decode(str(tmp_path / "exp"), str(datadir), [], [], ECHO)
    before = hypotheses(tmp_path, "test-a")
    target = tmp_path / "exp" / "v" / "decode" / "test-a.jsonl"
    source = f"{datadir}/test-a.jsonl.gz"
    message = (
        f"{manifest}: {target} are of another test set with the name test-a ({source}); give this one another name"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        decode(str(tmp_path / "exp"), str(datadir), [], [f"test-a={manifest}"], ECHO)
    assert hypotheses(tmp_path, "test-a") == before
    record = json.loads(target.with_suffix(".json").read_text())
    assert record["source"] == source


def test_copied_manifest_is_the_same_test_set(tmp_path, echo, own_data, capsys):
    decode(str(tmp_path / "exp"), str(own_data), [], [], ECHO)
    moved = own_data.rename(tmp_path / "moved")
    capsys.readouterr()
    decode(str(tmp_path / "exp"), str(moved), [], [], ECHO)
    assert capsys.readouterr().out.count("already exists") == 2


def test_trained_teacher_is_a_run_until_a_distilled_run_names_one(tmp_path, trained, conf, datadir):
    expdir = tmp_path / "exp"
    shutil.copytree(trained / "teacher", expdir / "teacher")
    decode(str(expdir), str(datadir), ["teacher"])
    record = json.loads((expdir / "teacher/decode/test-a.json").read_text())
    assert record["teacher"] is None and record["weights"]
    (expdir / "base_opd").mkdir()
    for teacher, kept in (("teacher", True), ("base", False)):
        path = f"teacher.options.path={expdir}/{teacher}/final"
        shutil.copytree(trained / "base", expdir / "base", dirs_exist_ok=True)
        config = load_config(conf, "base_opd", str(expdir), str(datadir), [path])
        dump_config(config, expdir / "base_opd" / "config.yaml")
        source = Source.of(expdir, "teacher", ["teacher"])
        inputs = {"manifest": record["manifest"], "weights": "", "teacher": teacher_identity(source.config.teacher)}
        changed = changed_inputs(record, inputs | {"settings": {}}, "m", "w")
        assert source.is_teacher and (changed == []) is kept

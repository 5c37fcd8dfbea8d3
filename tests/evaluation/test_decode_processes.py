"""`arkasr decode` and `arkasr label` in several processes: the files of one process, also after one was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from corpus_fixture import write_cuts
from lhotse import CutSet
from processes import has_ended, wait_until
from slow_teacher import SlowTeacher
from tiny import eager_to_stop, student

from arkasr.config.load import dump_config, load_config
from arkasr.errors import UserError
from arkasr.evaluation.decode import decode
from arkasr.evaluation.label import label

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

ONE_CLIP = "decode.max_seconds=0.1"  # per batch


@pytest.fixture
def teacher(tmp_path) -> SlowTeacher:
    return SlowTeacher(tmp_path / "slow")


def write_config(conf: Path, expdir: Path, datadir: Path, run: str, *overrides: str) -> None:
    dump_config(load_config(conf, run, str(expdir), str(datadir), overrides), expdir / run / "config.yaml")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*"))}


def test_decode_with_two_processes_writes_the_files_of_one(conf, own_data, tmp_path, capfd):
    """One clip has no audio. The two processes have loader processes of their own."""
    cuts = list(CutSet.from_file(own_data / "test-a.jsonl.gz"))
    cuts[2].recording.sources[0].source = str(tmp_path / "absent.wav")
    write_cuts(own_data / "test-a.jsonl.gz", cuts)
    found = []
    for ngpu in (1, 2):
        expdir = tmp_path / f"exp-{ngpu}"
        eager_to_stop(student(7), 2.0).save(expdir / "base" / "final")
        loaders = f"data.num_workers={2 * (ngpu - 1)}"
        write_config(conf, expdir, own_data, "base", "decode.max_seconds=2", "data.max_failed_share=0.2", loaders)
        decode(str(expdir), str(own_data), ["base"], ngpu)
        found.append(files(expdir / "base" / "decode"))
        output = capfd.readouterr().out
        assert output.count(f"dropped {cuts[2].id}") == 1 and "test-a.jsonl: 4 clips" in output
        assert output.count("decode base test-a: 5/5 clips") == 1
    assert found[0] == found[1] and list(found[0]) == ["test-a.json", "test-a.jsonl", "test-b.json", "test-b.jsonl"]
    assert json.loads(found[0]["test-a.json"])["failed"] == 1
    ids = [json.loads(line)["id"] for line in found[0]["test-a.jsonl"].splitlines()]
    assert ids == [cut.id for cut in cuts if cut.id != cuts[2].id]  # in the order of the manifest


@pytest.mark.parametrize(("killed", "resumed"), [("process", 3), ("command", 1), ("group", 2)])
def test_killed_decoding_loses_nothing_and_resumes_with_another_number(
    conf, datadir, tmp_path, teacher, killed, resumed
):
    expdir = tmp_path / "exp"
    write_config(conf, expdir, datadir, "base_opd", "teacher.name=slow", ONE_CLIP)
    words = ["decode", "--expdir", expdir, "--datadir", datadir, "--runs", "teacher", "--ngpu"]
    cuts = sorted(CutSet.from_file(datadir / "test-a.jsonl.gz"), key=lambda cut: -cut.duration)
    (teacher.folder / "wait").write_text(" ".join(str(cut.num_samples) for cut in cuts[2:]))
    process = teacher.start(*words, 2)
    part = expdir / "teacher" / "decode" / "test-a.jsonl.part"

    def waits():
        assert process.poll() is None, process.stdout.read()
        clips = [each for found in teacher.clips().values() for each in found]
        return len(clips) == 4 and part.read_text().count("\n") == 2

    wait_until(waits)
    pids = list(teacher.clips())
    if killed == "group":  # as Ctrl-C in a terminal
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid if killed == "command" else pids[1], signal.SIGKILL)
    output = process.communicate()[0]
    assert len(pids) == 2 and process.pid not in pids
    wait_until(lambda: all(map(has_ended, pids)))
    if killed == "process":
        assert process.returncode == 2 and output.count("arkasr decode: error: ") == 1 and "Traceback" not in output
        assert "of 2 on cpu was ended by SIGKILL; if memory ran out, lower decode.max_seconds" in output
    if killed == "group":
        assert process.returncode == 130 and "Traceback" not in output
        assert output.endswith("arkasr decode: interrupted; run the same command again to resume\n")
    finished = part.read_text().splitlines()
    assert len(finished) == 2
    (teacher.folder / "wait").unlink()
    teacher.forget()
    again = teacher.start(*words, resumed)
    output = again.communicate()[0]
    assert again.returncode == 0, output
    clips = [each for found in teacher.clips().values() for each in found]
    assert len(clips) == 3 + 3  # the others of test-a, and all of test-b
    assert len(teacher.clips()) == min(resumed, 3)
    rows = (expdir / "teacher" / "decode" / "test-a.jsonl").read_text().splitlines()
    assert set(finished) < set(rows)
    expected = [(cut.id, f"English {cut.num_samples}") for cut in CutSet.from_file(datadir / "test-a.jsonl.gz")]
    assert [(row["id"], row["hypothesis"]) for row in map(json.loads, rows)] == expected


@pytest.mark.parametrize(
    ("fail", "message"),
    [("os", "no server"), ("user", "more than data.max_failed_share=0.05 failed, 1 of 4 (1 not transcribed)")],
)
def test_failing_processes_give_one_message(conf, datadir, tmp_path, teacher, fail, message):
    overrides = ["teacher.name=slow", f"teacher.options.fail={fail}", ONE_CLIP]
    process = teacher.start("label", conf, "--expdir", tmp_path, "--datadir", datadir, "--ngpu", 2, *overrides)
    output = process.communicate()[0]
    assert process.returncode == 2 and output.count("error: ") == 1 and message in output, output
    assert "Traceback" not in output and not (tmp_path / "td_teacher.jsonl").exists()


def test_label_with_two_processes_writes_the_files_of_one(conf, trained, own_data, tmp_path):
    found = []
    for ngpu in (1, 2):
        expdir = tmp_path / f"exp-{ngpu}"
        expdir.mkdir()
        (expdir / "teacher").symlink_to(trained / "teacher")
        label(str(conf), str(expdir), str(own_data), [ONE_CLIP], ngpu)
        labels = {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(expdir / "td_teacher.jsonl.gz")}
        record = json.loads((expdir / "td_teacher.json").read_text())
        found.append((labels, record["counts"], (expdir / "td_teacher.jsonl").read_bytes()))
    assert found[0] == found[1] and found[0][0]


def test_decode_refuses_more_processes_than_gpus(conf, datadir, tmp_path, monkeypatch):
    eager_to_stop(student(7), 2.0).save(tmp_path / "base" / "final")
    write_config(conf, tmp_path, datadir, "base")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match="--ngpu 2: this machine has 1 GPUs that are visible; use at most 1"):
        decode(str(tmp_path), str(datadir), ["base"], 2)
    assert not list((tmp_path / "base" / "decode").glob("test*"))
    shutil.rmtree(tmp_path / "base")

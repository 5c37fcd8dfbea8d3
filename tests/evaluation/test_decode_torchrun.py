"""`arkasr decode` and `arkasr label` under torchrun: the files of one process, after kills, signals and errors too."""

from __future__ import annotations

import json
import os
import signal
import socket
from functools import partial
from pathlib import Path

import pytest
import torch.distributed as dist
from corpus_fixture import write_cuts
from forked_ranks import Forked
from fresh_plugins import fresh_plugins
from lhotse import CutSet
from processes import has_ended, wait_until
from slow_teacher import SlowTeacher
from tiny import eager_to_stop, student

from arkasr.config.load import dump_config, load_config
from arkasr.errors import UserError
from arkasr.evaluation.decode import decode
from arkasr.evaluation.label import label

pytestmark = [
    pytest.mark.slow,
    pytest.mark.distributed,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo"),
]

ONE_CLIP = "decode.max_seconds=0.1"  # per batch


@pytest.fixture
def teacher(tmp_path) -> SlowTeacher:
    return SlowTeacher(tmp_path / "slow")


def ranks(number: int, restarts: int = 0) -> list[str]:
    """Return the options of torchrun for ranks on one machine."""
    return ["--standalone", "--nproc-per-node", str(number), "--max-restarts", str(restarts)]


def write_config(conf: Path, expdir: Path, datadir: Path, run: str, *overrides: str) -> None:
    dump_config(load_config(conf, run, str(expdir), str(datadir), overrides), expdir / run / "config.yaml")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*"))}


@pytest.fixture
def here(teacher, monkeypatch):
    """Make the slow teacher a plugin of this process too."""
    monkeypatch.setenv("SLOW_FOLDER", str(teacher.folder))
    monkeypatch.syspath_prepend(teacher.folder)
    with fresh_plugins("fake_slow"):
        yield teacher


class SlowDecoding:
    """`arkasr decode` of a slow teacher in a folder of its own. The two longest clips of test-a do not wait."""

    def __init__(self, teacher: SlowTeacher, conf: Path, datadir: Path, expdir: Path, *overrides: str):
        write_config(conf, expdir, datadir, "base_opd", "teacher.name=slow", ONE_CLIP, *overrides)
        self.teacher, self.datadir, self.folder = teacher, datadir, expdir / "teacher" / "decode"
        self.words = ["decode", "--expdir", expdir, "--datadir", datadir, "--runs", "teacher"]
        self.cuts = sorted(CutSet.from_file(datadir / "test-a.jsonl.gz"), key=lambda cut: -cut.duration)
        (teacher.folder / "wait").write_text(" ".join(str(cut.num_samples) for cut in self.cuts[2:]))

    def start(self, *torchrun: str):
        return self.teacher.start(*self.words, torchrun=torchrun)

    def run(self) -> None:
        """Decode in this process."""
        decode(str(self.folder.parents[1]), str(self.datadir), ["teacher"])

    def rows(self) -> list[str]:
        return [line for path in sorted(self.folder.glob("test-a.jsonl.part-*")) for line in path.open()]

    def waiting(self, process, number: int) -> dict[int, list[int]]:
        """Return the clips by process, once this number of processes wait with a clip and two clips are written."""

        def waits():
            assert process is None or process.poll() is None, process.stdout.read()
            alive = {pid: clips for pid, clips in self.teacher.clips().items() if not has_ended(pid)}
            held = [pid for pid, clips in alive.items() if clips[-1:] and clips[-1] <= self.cuts[2].num_samples]
            return len(held) == number and len(self.rows()) == 2

        wait_until(waits)
        return {pid: clips for pid, clips in self.teacher.clips().items() if not has_ended(pid)}

    def release(self) -> None:
        (self.teacher.folder / "wait").unlink()
        self.teacher.forget()

    def check_result(self, first: list[str]) -> None:
        """Check the hypotheses of test-a, which contain these rows of an earlier start."""
        rows = (self.folder / "test-a.jsonl").read_text().splitlines(keepends=True)
        cuts = CutSet.from_file(self.datadir / "test-a.jsonl.gz")
        expected = [(cut.id, f"English {cut.num_samples}") for cut in cuts]
        assert set(first) < set(rows)
        assert [(row["id"], row["hypothesis"]) for row in map(json.loads, rows)] == expected
        assert not list(self.folder.glob("*.part*"))


def test_decode_and_label_write_the_same_bytes_with_1_2_and_4_ranks(conf, trained, own_data, tmp_path):
    """One clip has no audio. Weights are in bfloat16, so that a sample is compared with float32."""
    cuts = list(CutSet.from_file(own_data / "test-a.jsonl.gz"))
    cuts[2].recording.sources[0].source = str(tmp_path / "absent.wav")
    write_cuts(own_data / "test-a.jsonl.gz", cuts)
    found, labels = [], []
    for number in (1, 2, 4):
        expdir, printed = tmp_path / f"exp-{number}", tmp_path / f"printed-{number}"
        eager_to_stop(student(7), 2.0).save(expdir / "base" / "final")
        loaders = f"data.num_workers={int(number == 4)}"
        changes = ["decode.max_seconds=2", "data.max_failed_share=0.2", "decode.dtype=bfloat16", loaders]
        write_config(conf, expdir, own_data, "base", *changes)
        (expdir / "teacher").symlink_to(trained / "teacher")
        arguments = (str(expdir), str(own_data))
        Forked(number, partial(decode, *arguments, ["base"]), printed).succeed()
        output = printed.read_text()
        if number < 4:
            Forked(number, partial(label, str(conf), *arguments, [ONE_CLIP]), tmp_path / "label").succeed()
            texts = {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(expdir / "td_teacher.jsonl.gz")}
            counted = json.loads((expdir / "td_teacher.json").read_text())["counts"]
            labels.append((texts, counted, (expdir / "td_teacher.jsonl").read_bytes()))
        found.append(files(expdir / "base" / "decode"))
        assert output.count(f"dropped {cuts[2].id}") == 1 and "test-a.jsonl: 4 clips" in output
        assert output.count("decode base test-a: 5/5 clips") == 1
    assert found[0] == found[1] == found[2]
    assert list(found[0]) == ["test-a.json", "test-a.jsonl", "test-b.json", "test-b.jsonl"]
    record = json.loads(found[0]["test-a.json"])
    assert record["failed"] == 1 and record["agreement"]["clips"] == 4
    ids = [json.loads(line)["id"] for line in found[0]["test-a.jsonl"].splitlines()]
    assert ids == [cut.id for cut in cuts if cut.id != cuts[2].id]  # in the order of the manifest
    assert labels[0] == labels[1] and labels[0][0]


def test_killed_rank_is_restarted_and_another_number_of_ranks_resumes(conf, datadir, tmp_path, here):
    """A second launch in the folder is refused meanwhile."""
    slow = SlowDecoding(here, conf, datadir, tmp_path / "exp")
    process = slow.start(*ranks(2, restarts=1))
    pids = slow.waiting(process, 2)
    first = slow.rows()
    os.kill(max(pids), signal.SIGKILL)
    wait_until(lambda: all(map(has_ended, pids)))
    again = slow.waiting(process, 2)  # torchrun has restarted both ranks
    assert slow.rows() == first
    with pytest.raises(UserError, match=r"decode: decoding teacher, process \d+ on \S+ is using this folder"):
        slow.run()
    os.kill(process.pid, signal.SIGTERM)
    process.communicate()
    wait_until(lambda: all(map(has_ended, again)))
    assert slow.rows() == first
    slow.release()
    slow.run()
    (clips,) = here.clips().values()
    assert len(clips) == 3 + 3  # the others of test-a, and all of test-b
    slow.check_result(first)


def test_signal_at_one_rank_stops_all_with_status_0(conf, datadir, tmp_path, here):
    slow = SlowDecoding(here, conf, datadir, tmp_path / "exp")
    forked = Forked(2, slow.run, tmp_path / "printed")
    waiting = slow.waiting(None, 2)
    os.kill(forked.pids[1], signal.SIGUSR1)
    (here.folder / "wait").write_text(f"{waiting[forked.pids[0]][-1]}")
    wait_until(lambda: has_ended(forked.pids[1]))
    (here.folder / "wait").unlink()
    forked.succeed()
    assert "decode: stopped by a signal; finished clips are kept" in (tmp_path / "printed").read_text()
    assert (tmp_path / "exp" / ".arkasr.stopped").is_file() and not (slow.folder / "test-b.json").exists()
    first = slow.rows()
    assert len(first) == 4  # each rank has finished its batch
    Forked(3, slow.run, tmp_path / "printed").succeed()
    assert not (tmp_path / "exp" / ".arkasr.stopped").exists()
    slow.check_result(first)


@pytest.mark.parametrize(
    ("fail", "message"),
    [("os", "no server"), ("user", "more than data.max_failed_share=0.25 failed, 2 of 4 (2 not transcribed)")],
)
def test_failures_over_all_ranks_give_one_message(conf, datadir, tmp_path, here, fail, message):
    """One failed clip of four is allowed, which no rank exceeds by its first clip."""
    overrides = ["teacher.name=slow", f"teacher.options.fail={fail}", ONE_CLIP, "data.max_failed_share=0.25"]
    forked = Forked(2, partial(label, str(conf), str(tmp_path), str(datadir), overrides), tmp_path / "printed")
    statuses, output = forked.wait(), (tmp_path / "printed").read_text()
    assert sorted(statuses) == [1, 2] and output.count("error of rank") == 1 and message in output, output
    assert not (tmp_path / "td_teacher.jsonl").exists() and (tmp_path / ".arkasr.failed").is_file()


def test_hanging_rank_is_noticed(conf, datadir, tmp_path, here):
    slow = SlowDecoding(here, conf, datadir, tmp_path / "exp", "train.hang_seconds=3")
    forked = Forked(1, slow.run, tmp_path / "printed")
    assert forked.wait() == [70] and len(slow.rows()) == 2
    assert "arkasr decode: error: no progress for 3 s; check that the teacher" in (tmp_path / "printed").read_text()


def test_restart_on_another_machine_restarts_all_ranks(conf, datadir, tmp_path, teacher):
    slow = SlowDecoding(teacher, conf, datadir, tmp_path / "exp")
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    common = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "2"]
    common += ["--master-addr", "localhost", "--master-port", str(port)]
    agents = [slow.start(*common, "--node-rank", str(node)) for node in (0, 1)]
    pids = slow.waiting(agents[0], 2)
    first = slow.rows()
    of_second = [pid for pid in pids if Path(f"/proc/{pid}/stat").read_text().split()[3] == str(agents[1].pid)]
    os.kill(of_second[0], signal.SIGKILL)
    wait_until(lambda: has_ended(of_second[0]))
    slow.release()
    outputs = [agent.communicate()[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(outputs)
    slow.check_result(first)

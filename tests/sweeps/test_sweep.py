"""`arkasr sweep` with tiny models: runs of all points, labels, failures, shares, resuming and results."""

from __future__ import annotations

import json
import shutil

import pytest
from sweeps import Finished, HereLauncher, write_sweep

from arkasr.cli import main
from arkasr.errors import UserError
from arkasr.sweeps import runner
from arkasr.sweeps.sweep import sweep

TEXT = """
conf: CONF
once: [teacher]
shared: [base]
runs: [base_td, base_opd]
grid: {distill.top_k: [2, 4]}
controls: [base]
overrides: {train.eval_every: 0, train.steps: 2, train.save_every: 0}
"""


class CopyShared(Finished):
    """Stands for the training of teacher and Base: copies trained ones. Other tasks run in this process."""

    def __init__(self, exp, trained, launch):
        super().__init__(0)
        self.exp, self.trained, self.launch = exp, trained, launch

    def __call__(self, task, log, slot):
        if task.experiment.point is None and task.step in ("teacher", "base"):
            shutil.copytree(self.trained / task.step, task.folder(self.exp) / task.step)
            return self
        return self.launch(task, log, slot)


@pytest.mark.slow
def test_sweep_trains_labels_scores_and_resumes(conf, datadir, tmp_path, trained, monkeypatch, capsys):
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.01)
    path, exp = write_sweep(tmp_path, conf, TEXT), tmp_path / "exp"
    launch = HereLauncher(exp, datadir, fails=("seed-1/top_k-4/base_opd",))
    sweep(str(path), str(exp), str(datadir), dry_run=True)
    assert not exp.exists()
    with pytest.raises(UserError, match=r"1 of 11 tasks failed \(seed-1/top_k-4/base_opd\)"):
        sweep(str(path), str(exp), str(datadir), launch=CopyShared(exp, trained, launch))
    out = capsys.readouterr().out
    assert "failed: seed-1/top_k-4/base_opd: the disk is full; remove files" in out
    assert "10 of 11 tasks are done, 1 failed, 0 wait" in out
    points = [f"seed-1/top_k-{k}/{step}" for k in (2, 4) for step in ("base_td", "base_opd", "score")]
    assert launch.ran == ["once/score", "seed-1/shared/score", "once/label", *points]
    text = (exp / "SWEEP.md").read_text()
    assert "| top_k-4/base_opd | not run |" in text and "- top_k-4/base_opd (seed-1): not run" in text
    point = exp / "seed-1/top_k-2"
    assert "Base+OPD" in (point / "RESULTS.md").read_text() and "Teacher" in (point / "RESULTS.md").read_text()
    entry = json.loads((point / "base_td/scores.json").read_text())["sets"]["test-a"]
    assert entry["against_base"]["hypotheses"]
    launch.fails = ()
    sweep(str(path), str(exp), str(datadir), launch=launch)
    assert launch.ran[9:] == ["seed-1/top_k-4/base_opd", "seed-1/top_k-4/score"]
    files = {name: (exp / name).read_bytes() for name in ("SWEEP.md", "sweep.csv", "sweep.png")}
    sweep(str(path), str(exp), str(datadir), launch=launch)
    assert len(launch.ran) == 11 and {name: (exp / name).read_bytes() for name in files} == files
    assert "not run" not in files["SWEEP.md"].decode() and files["sweep.csv"].count(b"\n") == 1 + 6 * 2


def test_stopped_sweep_writes_the_table_of_what_is_done(conf, datadir, tmp_path, monkeypatch):
    monkeypatch.setattr(runner.Runner, "run", lambda self: setattr(self, "stopped", True))
    exp = tmp_path / "exp"
    with pytest.raises(KeyboardInterrupt):
        sweep(str(write_sweep(tmp_path, conf, TEXT)), str(exp), str(datadir))
    assert "| top_k-4/base_opd | not run |" in (exp / "SWEEP.md").read_text() and (exp / "sweep.csv").is_file()


@pytest.mark.parametrize(
    ("share", "message"),
    [("0/2", "must be I/N"), ("3/2", "must be I/N"), ("a", r"--task a: must be I/N, with I from 1 to N")],
)
def test_wrong_share_is_refused(conf, datadir, tmp_path, share, message):
    with pytest.raises(UserError, match=message):
        sweep(str(write_sweep(tmp_path, conf, TEXT)), str(tmp_path / "e"), str(datadir), share=share)


def test_array_job_of_slurm_works_on_its_share(conf, datadir, tmp_path, monkeypatch, capsys):
    for key, value in {"ID": "5", "COUNT": "2", "MIN": "3", "STEP": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{key}", value)
    path = write_sweep(tmp_path, conf, TEXT)
    assert main(["sweep", str(path), "--expdir", "e", "--datadir", str(datadir), "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "share 2/2: 1 of 2 experiments" in out
    assert "seed-1/top_k-4 " in out and "seed-1/shared " in out and "top_k-2" not in out


def test_unprepared_data_are_refused(conf, tmp_path):
    with pytest.raises(UserError, match="has no corpus.json; prepare the data with --stage 1"):
        sweep(str(write_sweep(tmp_path, conf, TEXT)), str(tmp_path / "e"), str(tmp_path))
    assert not (tmp_path / "e").exists()

"""Tasks of a sweep: their commands, what shows that they are done, and links to shared runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sweeps import write_sweep

from arkasr.cli import parse
from arkasr.errors import UserError
from arkasr.sweeps.plan import make_plan
from arkasr.sweeps.sweep_file import read_sweep
from arkasr.sweeps.tasks import Folders

TEXT = "conf: CONF\nshared: [teacher, base]\nruns: [base_td, base_td_opd]\ngrid: {distill.top_k: [2]}"


@pytest.fixture
def tasks(conf, tmp_path):
    return make_plan(read_sweep(write_sweep(tmp_path, conf, TEXT))).tasks


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_commands_are_accepted_by_arkasr(tasks, conf, tmp_path):
    folders = Folders(tmp_path / "exp", Path("D"))
    (train,) = tasks["seed-1/top_k-2/base_td_opd"].commands(folders)
    folder = f"{tmp_path}/exp/seed-1/top_k-2"
    words = ["train", str(conf), "--run", "base_td_opd", "--expdir", folder, "--datadir", "D", "seed=1"]
    assert train == [*words, "distill.top_k=2"]
    for task in tasks.values():
        assert [parse(words)[0] for words in task.commands(folders)] in (["train"], ["label"], ["decode", "score"])


def test_results_show_what_is_done(tasks, tmp_path):
    td, score, label = (tasks[f"seed-1/{name}"] for name in ("top_k-2/base_td", "top_k-2/score", "shared/label"))
    assert not td.is_done(tmp_path) and not score.is_done(tmp_path) and not label.is_done(tmp_path)
    touch(tmp_path / "seed-1/top_k-2/base_td/final/config.json")
    assert td.is_done(tmp_path) and not score.is_done(tmp_path)
    assert score.commands(Folders(tmp_path, tmp_path))[0][-1] == "base_td"  # what is trained
    touch(tmp_path / "seed-1/top_k-2/base_td/scores.json")
    assert score.is_done(tmp_path)
    touch(tmp_path / "seed-1/top_k-2/base_td_opd/final/config.json")
    assert not score.is_done(tmp_path)  # a run that failed before was trained later
    touch(tmp_path / "seed-1/shared/td_teacher.jsonl.gz")
    assert label.is_done(tmp_path)


def test_folder_of_a_point_has_links_to_shared_runs_and_labels(tasks, tmp_path):
    touch(tmp_path / "seed-1/shared/base/final/config.json")
    for _ in range(2):
        tasks["seed-1/top_k-2/base_td"].prepare(tmp_path)
    folder = tmp_path / "seed-1/top_k-2"
    links = {path.name: os.readlink(path) for path in folder.iterdir()}
    names = ["teacher", "base", "td_teacher.jsonl.gz", "td_teacher.jsonl", "td_teacher.json"]
    assert links == {name: f"../shared/{name}" for name in names}
    assert (folder / "base/final/config.json").is_file()


def test_folders_have_links_to_runs_trained_once(conf, tmp_path):
    text = TEXT.replace("shared: [teacher, base]", "once: [teacher]\nshared: [base]\nseeds: [1, 2]")
    tasks = make_plan(read_sweep(write_sweep(tmp_path, conf, text))).tasks
    for name in ("once/teacher", "seed-2/shared/base", "seed-2/top_k-2/base_td"):
        tasks[name].prepare(tmp_path / "exp")
    folders = tmp_path / "exp/once", tmp_path / "exp/seed-2/shared", tmp_path / "exp/seed-2/top_k-2"
    links = [{path.name: os.readlink(path) for path in folder.iterdir()} for folder in folders]
    labels = {name: f"../../once/{name}" for name in ("td_teacher.jsonl.gz", "td_teacher.jsonl", "td_teacher.json")}
    assert links == [
        {}, {"teacher": "../../once/teacher"},
        {"teacher": "../../once/teacher", "base": "../shared/base", **labels},
    ]  # fmt: skip
    (train,) = tasks["once/teacher"].commands(Folders(Path("E"), Path("D")))
    assert train[2:] == ["--run", "teacher", "--expdir", "E/once", "--datadir", "D", "seed=1"]


def test_folder_in_the_place_of_a_link_is_refused(tasks, tmp_path):
    (tmp_path / "seed-1/top_k-2/base").mkdir(parents=True)
    with pytest.raises(UserError, match=r"top_k-2/base: is no link to \.\./shared/base, the shared run; move it away"):
        tasks["seed-1/top_k-2/base_td"].prepare(tmp_path)

"""Rows for models that are no runs: decoding and scoring of a folder and of a teacher plugin."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from decoded import scores_of
from score_examples import rows_of
from tiny import eager_to_stop, student

from arkasr.config.load import dump_config, load_config, read_config
from arkasr.errors import UserError
from arkasr.evaluation import paper_numbers
from arkasr.evaluation.checkpoints import Checkpoint, Weights, read_checkpoint, weights_of
from arkasr.evaluation.checkpoints import write_checkpoint as write
from arkasr.evaluation.decode import decode
from arkasr.reporting.score import score


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny student of random weights that stops some transcripts, as an export would be."""
    folder = tmp_path_factory.mktemp("models") / "mine" / "export"
    eager_to_stop(student(7), 2.0).save(folder)
    return folder


def _mkdir(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_configuration_takes_decoding_and_data_of_a_run_and_keeps_changes(conf, datadir, tmp_path):
    overrides = ["decode.max_new_tokens=9", "data.max_failed_share=0.5"]
    config = load_config(conf, "base", str(tmp_path), str(datadir), overrides)
    dump_config(config, _mkdir(tmp_path / "base") / "config.yaml")
    row = Checkpoint("ark", "owner/ark")
    path = write(row, str(tmp_path))
    saved = read_config(path)
    assert (saved.decode, saved.data, saved.model.path) == (config.decode, config.data, "owner/ark")
    saved.decode.max_new_tokens = 10
    dump_config(saved, path)
    write(row, str(tmp_path))
    assert read_config(path).decode.max_new_tokens == 10 and read_checkpoint(tmp_path, "ark") == row


def test_weights_of_a_hub_id_are_its_revision(tmp_path, monkeypatch):
    write(Checkpoint("ark", "owner/ark"), str(tmp_path))
    assert weights_of(tmp_path, "ark") == Weights("owner/ark", "")
    cached = lambda path, name: f"/cache/models--owner--ark/snapshots/0123abcd/{name}"  # noqa: E731
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    assert weights_of(tmp_path, "ark") == Weights("owner/ark", "0123abcd")


@pytest.mark.parametrize(
    ("run", "path", "row"),
    [
        ("base", "", "base"),
        ("own", "", ""),
        ("q", "Qwen/Qwen3-ASR-0.6B", "qwen3_asr_0.6b"),
        ("q", "/models/Qwen/Qwen3-ASR-1.7B", "teacher"),
        ("q", "someone/Qwen3-ASR-0.6B", ""),
    ],
)
def test_published_models_stand_beside_their_row_of_the_paper(run, path, row):
    assert paper_numbers.row(run, {"checkpoint": {"path": path, "plugin": ""}} if path else {}) == row


# Decoding and scoring


def table(expdir):
    return rows_of((expdir / "RESULTS.md").read_text().split("## Table 1", 1)[1].split("\n#", 1)[0])


@pytest.mark.slow
def test_folder_and_plugin_are_decoded_and_scored_in_rows_of_their_own(model, echo, datadir, tmp_path, capsys):
    expdir, values = tmp_path / "exp", [str(model), "voice=echo:some/voice"]
    decode(str(expdir), str(datadir), [], [], values)
    for name in ("mine", "voice"):
        files = sorted(path.name for path in (expdir / name / "decode").glob("[!.]*"))
        assert files == ["test-a.json", "test-a.jsonl", "test-b.json", "test-b.jsonl"]
    mine, voice = (json.loads((expdir / name / "decode" / "test-a.json").read_text()) for name in ("mine", "voice"))
    assert mine["weights"] and mine["settings"]["max_new_tokens"] == 256 and mine["teacher"] is None
    assert voice["teacher"]["name"] == "echo" and voice["teacher"]["path"] == "some/voice" and not voice["weights"]
    score(str(expdir), str(datadir), [], [], values)
    assert [row[0] for row in table(expdir)[2:4]] == ["mine", "voice (`echo`, some/voice)"]
    assert scores_of(expdir, "voice")["checkpoint"] == {"path": "some/voice", "plugin": "echo"}
    text = (expdir / "RESULTS.md").read_text()
    assert f"arkasr decode --expdir {expdir} --datadir {datadir} --checkpoint mine={model} voice=echo:some/vo" in text
    capsys.readouterr()
    decode(str(expdir), str(datadir), ["mine", "voice"])  # also by name
    assert capsys.readouterr().out.count("already exists") == 4


@pytest.mark.slow
def test_checkpoint_beside_runs_is_compared_with_base_and_notices_new_weights(model, conf, datadir, tmp_path, capsys):
    expdir, own = tmp_path / "exp", Path(shutil.copytree(model, tmp_path / "own"))
    shutil.copytree(model, expdir / "base" / "final")
    dump_config(load_config(conf, "base", str(expdir), str(datadir)), expdir / "base" / "config.yaml")
    for verb in (decode, score):
        verb(str(expdir), str(datadir), ["base"])
        verb(str(expdir), str(datadir), [], [], [str(own)])
    assert [row[0] for row in table(expdir)[2:4]] == ["Base", "own"]
    assert scores_of(expdir, "own")["sets"]["test-a"]["against_base"]["difference_percent"] == 0
    assert read_config(expdir / "own" / "checkpoint.yaml").decode == read_config(expdir / "base" / "config.yaml").decode
    eager_to_stop(student(8), 2.0).save(own)
    with pytest.raises(UserError, match=f"decoded with other weights than {own} holds now"):
        score(str(expdir), str(datadir), [], [], [str(own)])
    capsys.readouterr()
    decode(str(expdir), str(datadir), [], [], [str(own)])
    assert f"out of date (changed: weights in {own}); decoding again" in capsys.readouterr().out

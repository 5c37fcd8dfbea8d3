"""Runs that end once their dev error rate no longer falls: when, what they write, and that they cannot be extended."""

from __future__ import annotations

import json

import pytest
from corpus_fixture import make_trainer, metrics
from safetensors.torch import load_file
from training_runs import cost_free, script_dev_errors, train_until

from arkasr.config.load import read_config
from arkasr.errors import UserError
from arkasr.evaluation.run_records import last_step
from arkasr.training.early_stopping import EarlyStopping
from arkasr.training.train import train

RATES = [0.9, 0.7, 0.7, 0.8, None, 0.6, 0.5]  # without patience, the run would go on to 0.6
PATIENT = ["train.steps=14", "train.eval_every=2", "train.save_every=3", "train.patience=2", "train.keep=9"]


def reached_after(patience: int, rates: list[float | None]) -> int | None:
    """Return the number of rates after which a run ends."""
    stopping = EarlyStopping(patience)
    for number, rate in enumerate(rates, 1):
        stopping.add(rate)
        if stopping.reached:
            return number
    return None


@pytest.mark.parametrize(
    ("patience", "rates", "expected"),
    [
        (1, [0.9, 0.8, 0.8], 3),  # an equal rate is no improvement
        (2, RATES, 4),
        (3, RATES, None),  # the rate that was not measured does not count
        (2, [0.5, 0.9, 0.4, 0.6, 0.3, 0.3, 0.3], 7),  # in a row
        (0, [0.5, 0.6, 0.7, 0.8], None),
    ],
)
def test_run_ends_after_rates_in_a_row_without_improvement(patience, rates, expected):
    assert reached_after(patience, rates) == expected


def test_state_continues_and_earlier_checkpoints_have_none():
    stopping, other = EarlyStopping(2), EarlyStopping(2)
    other.load_state_dict(json.loads(json.dumps(stopping.state_dict())))
    other.add(0.5)
    stopping.load_state_dict(json.loads(json.dumps(other.state_dict())))
    assert (stopping.lowest, stopping.waited) == (0.5, 0)
    stopping.load_state_dict({})
    stopping.add(0.9)
    assert stopping.waited == 0


@pytest.fixture
def scripted(monkeypatch):
    """Let the dev error rates at steps 2, 4 and so on be those of `RATES`."""
    script_dev_errors(monkeypatch, RATES)


@pytest.mark.slow
def test_run_ends_early_with_a_final_model_and_resumes_exactly(conf, datadir, tmp_path, monkeypatch, capsys, scripted):
    arguments = [[str(conf), "base", str(tmp_path / name), str(datadir), PATIENT] for name in ("whole", "cut")]
    train(*arguments[0])
    whole, cut = (tmp_path / name / "base" for name in ("whole", "cut"))
    assert f"{whole}: ends after step 8: the dev error rate has not fallen below 70.0 % in 2" in capsys.readouterr().out
    assert [row["step"] for row in metrics(whole)] == list(range(1, 9))
    saved = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert saved == ["step-00000003", "step-00000006", "step-00000008"]  # the last step is not due, but saved
    assert json.loads((whole / "run.json").read_text())["final"] == {"step": 8, "checkpoints": []}
    assert last_step(whole.parent, "base", read_config(whole / "config.yaml")) == 8
    train_until(monkeypatch, 7, *arguments[1])  # between the two rates without improvement
    train(*arguments[1])
    assert cost_free(metrics(cut)) == cost_free(metrics(whole))
    weights = [load_file(folder / "final" / "model.safetensors") for folder in (whole, cut)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


@pytest.mark.slow
def test_ended_run_takes_no_step_and_is_not_extended(conf, datadir, tmp_path, capsys, scripted):
    arguments = [str(conf), "base", str(tmp_path), str(datadir)]
    train(*arguments, PATIENT)
    final = tmp_path / "base" / "final" / "model.safetensors"
    before = load_file(final)
    for path in final.parent.iterdir():  # lost, so it is written again
        path.unlink()
    final.parent.rmdir()
    train(*arguments, PATIENT)
    assert [row["step"] for row in metrics(tmp_path / "base")] == list(range(1, 9))
    after = load_file(final)
    assert all((before[name] == after[name]).all() for name in before)
    message = f"{tmp_path / 'base'}: train.steps raised from 14, but this run ended early after step 8, because the dev"
    with pytest.raises(UserError, match=message):
        train(*arguments, [*PATIENT, "train.steps=20"][1:])
    with pytest.raises(UserError, match=r"other settings \(train.patience\)"):
        train(*arguments, [*PATIENT[:3], "train.patience=5", "train.keep=9"])
    assert final.is_file()


@pytest.mark.parametrize(("key", "value", "remedy"), [("patience", 1, 0), ("final", "best", "last")])
def test_setting_that_needs_dev_clips_is_refused_before_the_first_step(
    conf, datadir, tmp_path, monkeypatch, key, value, remedy
):
    monkeypatch.setattr("arkasr.training.dev_error.dev_sets", lambda *arguments, **options: [])
    trainer = make_trainer(conf, "base", tmp_path, datadir, f"train.{key}={value}")
    message = (
        rf"^config key `train.{key}` {value}: {datadir}/dev.jsonl.gz has no dev clips .*; set train.{key} to {remedy}"
    )
    with pytest.raises(UserError, match=message):
        trainer.run()
    assert not (tmp_path / "base" / "metrics.jsonl").exists() and trainer.step == 0

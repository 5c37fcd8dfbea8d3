"""Plans of runs: sizes of their models, totals, the printed table, and messages. Weights are never read."""

from __future__ import annotations

import contextlib
import json

import pytest
from corpus_fixture import make_trainer, write_corpus
from planned_runs import PAPER, planned
from tiny import student

from arkasr import cli
from arkasr.config.load import load_config
from arkasr.errors import UserError
from arkasr.planning.plan import student_outline
from arkasr.planning.table import table


def test_student_outline_predicts_vocabulary_of_trained_tokenizer(conf, tmp_path):
    data = write_corpus(tmp_path / "data")
    for run, override in (("base", "tokenizer.vocab_size=24"), ("teacher", "tokenizer.vocab_size=262")):
        trainer = make_trainer(conf, run, tmp_path, data, override)
        config = load_config(conf, run, "{expdir}", "{datadir}", [override])
        predicted = student_outline(str(conf), config).config.text_config.vocab_size
        assert predicted == trainer.student.hf.config.text_config.vocab_size, run


def test_plan_counts_the_tokens_of_the_ctc_head(conf, tmp_path):
    words = ["train.ctc_vocab_size=20"]
    found, shared = (planned("base", tuple(each), str(conf), gpus=1) for each in (words, []))
    trainer = make_trainer(conf, "base", tmp_path, write_corpus(tmp_path / "data"), *words)
    head, text = trainer.student.ctc_head, trainer.student.hf.config.text_config
    assert head.out_features < text.vocab_size + 1
    fewer = (text.vocab_size + 1 - head.out_features) * (text.hidden_size + 1)
    assert shared["student"]["parameters"]["adapter"] - found["student"]["parameters"]["adapter"] == fewer
    for part in ("student", "backward"):
        assert 0 < found["tflop"][part] < shared["tflop"][part]
    assert found["memory_gib"]["items"]["logits"] < shared["memory_gib"]["items"]["logits"]
    assert planned("base", ("train.ctc_weight=0", *words), str(conf)) == planned(
        "base", ("train.ctc_weight=0",), str(conf)
    )


def test_student_outline_of_paper_is_glm_encoder_adapter_and_qwen_decoder():
    config = load_config(PAPER, "base_opd", "{expdir}", "{datadir}")
    counts = student_outline(PAPER, config).counts
    hidden = 2 * 896
    assert counts.decoder == 494_032_768
    assert counts.encoder == 636_968_960 - 1500 * 1280  # the sizes of Whisper's encoder, without its positions
    assert counts.adapter == (5120 * hidden + hidden) + (hidden * 896 + 896)
    assert planned()["teacher"]["parameters"]["total"] == 2_038_052_480


def test_student_outline_keeps_the_learned_positions_of_a_whisper_encoder():
    counts = planned("base", ("model.encoder=openai/whisper-large-v3",))["student"]["parameters"]
    assert counts["encoder"] == 636_968_960


def test_forecast_follows_unset_keys(conf):
    sizes = "model.sizes.audio=null", "model.encoder=zai-org/GLM-ASR-Nano-2512"
    assert planned("base", sizes, str(conf))["student"]["parameters"]["encoder"] == 636_968_960 - 1500 * 1280
    with pytest.raises(UserError, match="`model.sizes.audio` is missing"):
        planned("base", sizes[:1], str(conf))


def test_forecast_reads_model_folder_and_follows_runs_of_same_configuration(conf, tmp_path):
    student().save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    result = planned("base", (f"model.path={tmp_path / 'model'}", "train.ctc_weight=0"), str(conf))
    assert result["student"]["parameters"]["total"] == sum(p.numel() for p in student().parameters())
    assert result["student"]["source"] == "its folder"
    opd = planned("base_td_opd", conf=str(conf))
    assert opd["student"]["source"] == "run base_td: run base: model.sizes"
    assert opd["teacher"]["source"] == "run teacher: model.sizes"


def test_forecast_errors_name_the_key_and_what_to_do(conf):
    for override, message in (
        ("model.path=someone/model", "someone/model: no config.json here or in the Hub's cache"),
        ("model.path={expdir}/nothing/final", "no run is called 'nothing'"),
        ("model.path=Qwen/Qwen2.5-0.5B", "model_type 'qwen2' is not supported"),
        ("fsdp.replicate=5", "fsdp.replicate=5: 24 ranks cannot be split into 5 equal groups"),
        ("tokenizer.path=someone/words", "`model.sizes.text.vocab_size` is missing: set it"),
    ):
        with pytest.raises(UserError, match=message):
            planned("base", (override,), str(conf))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mfu", 5.0, "--mfu 5: must be above 0 and at most 1;"),
        ("batch_fill", 9.0, "--batch_fill 9: must be above 0 and at most 1;"),
        ("batch_fill", 0.0, "--batch_fill 0: must be above 0 and at most 1;"),
        ("max_length_ratio", 0.1, "--max_length_ratio 0.1: must be at least 1 and at most 1000;"),
        ("clip_seconds", 31.0, "--clip_seconds 31: must be at most data.max_clip_seconds=30,"),
        ("reserved_memory", 80.0, "--reserved_memory 80: must be below --gpu_memory 80;"),
        ("tflops", 1e30, r"--tflops 1e\+30: must be above 0 and at most 100000;"),
        ("hours", -1.0, r"--hours -1: must be at least 0 and at most 1e\+09;"),
        ("kernel_us", float("nan"), "--kernel_us nan: must be above 0 and at most 10000;"),
        ("gpus", 0, "--gpus 0: must be at least 1 and"),
    ],
)
def test_forecast_refuses_absurd_assumptions(name, value, message):
    with pytest.raises(UserError, match=message):
        planned(**{name: value})


def test_plan_verb_reports_an_absurd_assumption_in_one_sentence(capsys):
    assert cli.main(["plan", PAPER, "--run", "base", "--gpus", "1", "--mfu", "5"]) == 2
    assert capsys.readouterr().err == (
        "arkasr plan: error: --mfu 5: must be above 0 and at most 1; see docs/plan.md for its meaning\n"
    )


def test_forecast_totals_are_steps_times_step():
    shape = {"clip_seconds": 12.0, "batch_fill": 1.0, "tokens_per_second": 4.0}
    result = planned(overrides=("train.steps=30000",), hours=960.0, **shape)
    assert result["step"]["clips"] == 24 * 40 and result["step"]["audio_seconds"] == 24 * 480
    assert result["step"]["tokens"] == 24 * 40 * 49
    total = result["all"]
    assert total["steps"] == 30000 and total["steps_per_epoch"] == pytest.approx(960 / 3.2)
    assert total["audio_hours"] == pytest.approx(96000) and total["epochs"] == pytest.approx(100)
    assert total["gpu_hours"] == pytest.approx(24 * total["hours"])
    assert total["hours"] == pytest.approx(30000 * sum(result["seconds"].values()) / 3600)
    assert planned()["all"]["epochs"] is None
    twice = planned("base_opd", ("train.accumulate=2",), batch_fill=1.0)
    assert twice["step"]["clips"] == 2 * result["step"]["clips"]


@pytest.mark.parametrize("run", ["base", "base_opd"])
def test_table_fits_80_columns_and_reports_insufficient_memory(run):
    for assumptions, fits in (({}, True), ({"gpus": 1, "hours": 100000.0}, True), ({"gpu_memory": 5.0}, False)):
        lines = table(planned(run, **assumptions))
        assert max(map(len, lines)) <= 80
        assert any("DOES NOT FIT" in line for line in lines) is not fits


def test_plan_names_activation_checkpointing_and_the_peak_of_the_other_choice():
    kept = ("fsdp.activation_checkpointing=none",)
    for overrides, other, chosen in (((), kept, "blocks"), (kept, (), "none")):
        result, opposite = (planned("base_opd", words, gpus=1, clip_seconds=15.0) for words in (overrides, other))
        choice = result["activation_checkpointing"]
        assert choice["chosen"] == chosen
        assert choice["peak_gib"] == max(opposite["memory_gib"]["peaks"].values())
        assert choice["step_seconds"] == pytest.approx(opposite["step"]["seconds"])
        shown = " ".join(" ".join(table(result)).split())
        assert f"activation checkpointing: {chosen} (fsdp.activation_checkpointing); " in shown
        fits = "does not fit" if chosen == "blocks" else "fits"
        assert f"would make the peak {choice['peak_gib']:.1f} GiB, which {fits}, and a step" in shown


def test_plan_verb_prints_table_and_json(capsys, conf):
    words = ["plan", PAPER, "--run", "base_opd", "--gpus", "24", "--hours", "960", "fsdp.replicate=0"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert (
        shown.startswith("run base_opd (opd), GPUs or processes: 24")
        and "epochs" in shown
        and "assumed: gpus 24" in shown
    )
    assert cli.main([*words, "--json", "--mfu", "0.5"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["assumptions"]["mfu"] == 0.5 and result["memory_gib"]["items"]["weights"] > 0
    assert cli.main(["plan", str(conf), "--run", "base", "--gpus", "1", "model.path=no/where"]) == 2
    with contextlib.suppress(SystemExit):
        cli.main(["plan", PAPER, "--run", "base", "--gpus", "1", "--mfu", "none"])
    assert "must be a number above 0, got 'none'" in capsys.readouterr().err


def test_plan_computes_steps_from_epochs_and_hours():
    """3.2 h per step: 3 epochs of 960 h are 900 steps, and 1,000 h are 312.5."""
    shape = {"clip_seconds": 12.0, "batch_fill": 1.0}
    found = planned(overrides=("train.epochs=3",), hours=960.0, **shape)["all"]
    assert found["steps"] == 900 and found["epochs"] == pytest.approx(3)
    assert planned(overrides=("train.hours=1000",), **shape)["all"]["steps"] == 313
    assert planned(overrides=("train.epochs=2", "data.hours=96"), **shape)["all"]["steps"] == 60
    unknown = planned(overrides=("train.epochs=3",), **shape)
    assert unknown["all"]["steps"] is unknown["all"]["hours"] is None and unknown["seconds"]["backward"] > 0
    assert "train.epochs 3: add --hours for the steps and the time of the run" in table(unknown)

"""The environment in RESULTS.md: teachers and versions, without secrets."""

from __future__ import annotations

from arkasr.reporting.report_facts import environment, training_facts


def test_environment_groups_runs_by_teacher_and_names_unrecorded_ones():
    header = {"jiwer": "4.0.0", "sets": {}}
    header["bootstrap"] = {"resamples": 1000, "seed": 0}
    teacher = {"name": "http", "options": {"url": "http://u:hunter2@h"}, "path": "", "weights": ""}
    scores = {run: header | {"teacher": teacher} for run in ("teacher", "base_opd")}
    scores["base"] = header | {"recorded": False}
    text = environment(scores, {run: {} for run in scores})
    assert "- teacher (row Teacher, Base+OPD): `http`, http://***@h" in text
    assert "- Base: decoded by an older version of arkasr" in text


def test_environment_names_the_weights_of_checkpoints():
    header = {"jiwer": "4.0.0", "sets": {}, "bootstrap": {"resamples": 1000, "seed": 0}}
    scores = {"mine": header | {"checkpoint": {"path": "/m/mine", "plugin": ""}, "weights": "0123456789abcdef"}}
    scores["tiny"] = header | {"checkpoint": {"path": "p", "plugin": "whisper"}, "weights": ""}
    text = environment(scores, {run: {"checkpoint": {}} for run in scores})
    assert "- row mine: /m/mine, weights 0123456789ab" in text and "row tiny:" not in text


def test_training_facts_say_what_each_run_starts_from():
    lora = {"rank": 16, "encoder": False}
    optim = {"optim": {"lr": 2e-4}, "seed": 1}
    records = {
        "base": {"config": {"objective": "none", "model": {"path": "AutoArk-AI/ARK-ASR-0.6B", "lora": lora}} | optim},
        "base_opd": {"config": {"objective": "opd", "model": {"path": "/m/mine", "lora": lora}} | optim},
        "base_td": {"config": {"objective": "sft", "model": {"path": "exp/base/final", "lora": {"rank": 0}}} | optim},
        "fresh": {"config": {"objective": "sft", "model": {"path": ""}} | optim},
    }
    text = training_facts({}, records)
    rows = {line.split(" | ")[0]: line for line in text.splitlines()}
    assert rows["| Base"].endswith("| 1 | - |") and rows["| Base+OPD"].endswith("| 1 | 0.0002 |")
    assert "- Base: `AutoArk-AI/ARK-ASR-0.6B`, not trained" in text
    assert "- Base+OPD: starts from `/m/mine`, trains LoRA adapters of rank 16 on decoder" in text
    assert text.endswith("- Base+TD: starts from `exp/base/final`")

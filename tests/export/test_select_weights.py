"""The weights that `--checkpoint` names: final, latest, best or one step."""

from __future__ import annotations

import json
import shutil

from arkasr.export.select_weights import find_source


def test_find_source_selects_final_latest_best_and_named_checkpoint(expdir):
    rows = [json.loads(line) for line in (expdir / "base_opd/metrics.jsonl").read_text().splitlines()]
    for row, error in zip(rows, (0.0, 0.4, 0.2, 0.3), strict=True):  # the best checkpoint, step 1, was deleted
        row["dev_error"] = error
    (expdir / "base_opd/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.rmtree(expdir / "base_opd/checkpoints/step-00000001")
    found = {name: find_source(str(expdir), "base_opd", name) for name in ("final", "latest", "best", "step-00000002")}
    assert {name: source.step for name, source in found.items()} == {
        "final": 4, "latest": 4, "best": 3, "step-00000002": 2,
    }  # fmt: skip
    assert found["best"].name == "step-00000003"
    shutil.rmtree(expdir / "base_opd/final")
    assert find_source(str(expdir), "base_opd", "latest").name == "step-00000004"


def test_find_source_best_prefers_final_and_ignores_rows_without_a_measurement(expdir):
    rows = [{"step": 1, "loss": 1.0, "dev_error": None}, {"step": 4, "loss": 1.0, "dev_error": 0.5}]
    rows += [{"step": 2, "loss": 1.0, "dev_error": float("nan")}, {"step": 3, "loss": 1.0}]
    (expdir / "base_opd/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert find_source(str(expdir), "base_opd", "best").name == "final"


def test_find_source_best_leaves_out_a_final_model_that_is_a_mean(expdir):
    """No dev error rate was measured for the mean. That of its step is the one of the checkpoint."""
    rows = [{"step": 4, "loss": 1.0, "dev_error": 0.5}]
    (expdir / "base_opd/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = expdir / "base_opd/config.yaml"
    settings.write_text(settings.read_text().replace("average: 1", "average: 2"))
    assert find_source(str(expdir), "base_opd", "best").name == "step-00000004"

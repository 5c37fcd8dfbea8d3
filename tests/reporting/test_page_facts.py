"""Settings that differ between runs, and what runs have cost."""

from __future__ import annotations

from arkasr.reporting.page import facts


def cells(table):
    return [
        ["".join(span.text for span in cell).replace("\u00a0", " ") for cell in row]
        for row in [table.header, *table.rows]
    ]


def record(**config):
    return {"command": "arkasr train", "config": config}


def test_settings_are_the_keys_that_differ():
    records = {
        "base": record(run="base", seed=1, optim={"lr": 0.1, "betas": [0.9, 0.95]}, teacher={"options": {}}),
        "base_opd": record(
            run="base_opd", seed=1, optim={"lr": 0.2, "betas": [0.9, 0.95]}, teacher={"options": {"k": 3}}
        ),
    }
    text, table = facts.settings(records).blocks
    assert cells(table) == [
        ["Key", "Base", "Base+OPD"],
        ["optim.lr", "0.1", "0.2"],
        ["teacher.options", "{}", "-"],
        ["teacher.options.k", "-", "3"],
    ]
    assert "2 keys are equal" in "".join(span.text for span in text.line)


def test_settings_hide_passwords():
    records = {
        run: record(teacher={"options": {"url": f"http://me:{run}@host/v1", "api_key": run}}) for run in ("a", "b")
    }
    shown = str(facts.settings(records))
    assert "***" not in shown  # without their secrets, the values are equal
    records["a"]["config"]["teacher"]["options"]["url"] = "http://me:a@other/v1"
    shown = str(facts.settings(records))
    assert "***@other" in shown and "me:" not in shown


def test_settings_of_one_run_are_absent_with_a_reason():
    assert "fewer than two runs" in facts.settings({"base": record(seed=1), "teacher": {}})


ROWS = [
    {"step": 10, "hours_seen": 0.5, "tokens_seen": 90.0, "time/step": 40.0, "memory/peak_gib": 1.5},
    {"step": 20, "hours_seen": 1.0, "tokens_seen": 180.0, "time/step": 50.0, "time/dev": 8.0, "memory/peak_gib": 1.25},
]


def test_cost_is_the_recorded_one():
    recorded = {**record(), "flops": 2.5e15, "wall_seconds": 7265.0, "hours": 1.25, "tokens": 181.0}
    found = dict(zip(*cells(facts.cost({"base": ROWS}, {"base": recorded}).blocks[1])))
    assert found == {
        "Run": "Base",
        "Steps": "20",
        "Audio (h)": "1.25",
        "Tokens": "181",
        "Wall time": "2 h 01 min",
        "Operations (TFLOP)": "2,500",
        "Peak memory (GiB)": "1.50",
    }


def test_cost_without_a_record_is_that_of_the_log_and_says_so():
    text, table = facts.cost({"base": ROWS}, {"base": record()}).blocks
    found = dict(zip(*cells(table)))
    assert found["Wall time"] == "~1 min 38 s" and found["Audio (h)"] == "1.00" and found["Tokens"] == "180"
    assert "Operations (TFLOP)" not in found and "Times marked ~" in "".join(span.text for span in text.line)


def test_cost_of_models_that_were_not_trained_here_is_absent_with_a_reason():
    assert "no run" in facts.cost({"teacher": []}, {"teacher": {}})

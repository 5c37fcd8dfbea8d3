"""The tasks of a sweep: their order, what they need, and what a failed or skipped one blocks."""

from __future__ import annotations

import pytest
from sweeps import write_sweep

from arkasr.errors import UserError
from arkasr.sweeps.experiments import experiments
from arkasr.sweeps.plan import make_plan
from arkasr.sweeps.sweep_file import read_sweep

SHARED = "shared: [teacher, base]\nruns: [base_td, base_td_opd]\ngrid: {distill.top_k: [2, 4]}\nseeds: [1, 2]"

ONCE = SHARED.replace("shared: [teacher, base]", "once: [teacher]\nshared: [base]")


def plan_of(conf, tmp_path, text):
    return make_plan(read_sweep(write_sweep(tmp_path, conf, f"conf: CONF\n{text}")))


def test_tasks_stand_after_those_that_they_need(conf, tmp_path):
    tasks = plan_of(conf, tmp_path, SHARED).tasks
    assert list(tasks)[:7] == [
        "seed-1/shared/teacher", "seed-1/shared/base", "seed-1/shared/score", "seed-1/shared/label",
        "seed-1/top_k-2/base_td", "seed-1/top_k-2/base_td_opd", "seed-1/top_k-2/score",
    ]  # fmt: skip
    assert len(tasks) == 2 * (4 + 2 * 3)
    places = {name: number for number, name in enumerate(tasks)}
    assert all(places[other] < places[name] for name, task in tasks.items() for other in (*task.needs, *task.after))
    assert tasks["seed-2/top_k-4/base_td"].needs == ("seed-2/shared/base", "seed-2/shared/label")
    assert tasks["seed-2/top_k-4/base_td_opd"].needs == ("seed-2/top_k-4/base_td", "seed-2/shared/teacher")


def test_runs_trained_once_and_their_labels_serve_all_seeds(conf, tmp_path):
    tasks = plan_of(conf, tmp_path, f"{ONCE}\nroundings: [0, 1]").tasks
    assert list(tasks)[:6] == [
        "once/teacher", "once/score", "seed-1/shared/base", "seed-1/shared/score", "once/label",
        "seed-1/top_k-2/base_td",
    ]  # fmt: skip
    assert [name for name in tasks if name.endswith(("/teacher", "/label"))] == ["once/teacher", "once/label"]
    assert tasks["once/label"].needs == ("once/teacher",)
    assert tasks["seed-2-rounding-1/top_k-4/base_td"].needs == ("seed-2/shared/base", "once/label")
    assert tasks["seed-2/top_k-4/base_td_opd"].needs == ("seed-2/top_k-4/base_td", "once/teacher")
    assert tasks["seed-2/shared/score"].after == ("seed-2/shared/base", "once/score")
    assert tasks["seed-2/top_k-4/score"].after[2:] == ("once/score", "seed-2/shared/score")


def test_label_of_a_pretrained_teacher_needs_no_run(conf, tmp_path):
    text = 'runs: [base, base_td]\nseeds: [1, 2]\noverrides: {teacher.options.path: "/some/teacher"}'
    tasks = plan_of(conf, tmp_path, text).tasks
    assert (
        list(tasks)[:3] == ["once/label", "seed-1/runs/base", "seed-1/runs/base_td"] and not tasks["once/label"].needs
    )
    assert tasks["seed-2/runs/base_td"].needs == ("seed-2/runs/base", "once/label") and "once/score" not in tasks


def test_share_includes_the_runs_trained_once(conf, tmp_path):
    plan = plan_of(conf, tmp_path, ONCE)
    points = experiments(plan.tasks["once/teacher"].experiment.sweep)
    names = plan.needed_by([points[3]])
    assert names == [name for name in plan.tasks if name.startswith(("once/", "seed-2/shared/", "seed-2/top_k-4/"))]


def test_skipped_or_failed_run_trained_once_blocks_all_seeds(conf, tmp_path):
    plan = plan_of(conf, tmp_path, f"{ONCE}\nskip: [teacher]")
    assert "once/teacher" not in plan.tasks and "once/score" not in plan.tasks
    expected = {"once/label"} | {name for name in plan.tasks if "top_k" in name}
    assert plan.blocked(()) == dict.fromkeys(expected, "once/teacher")
    assert set(plan_of(conf, tmp_path, ONCE).blocked({"once/teacher"})) == expected | {"once/score"}


def test_point_with_its_own_teacher_labels_for_itself(conf, tmp_path):
    text = "shared: [base]\nruns: [teacher, base_td]\ngrid: {runs.teacher.train.steps: [2, 4]}"
    tasks = plan_of(conf, tmp_path, text).tasks
    assert tasks["seed-1/steps-4/base_td"].needs == ("seed-1/shared/base", "seed-1/steps-4/label")
    assert tasks["seed-1/steps-4/label"].needs == ("seed-1/steps-4/teacher",)
    assert "seed-1/shared/label" not in tasks


def test_share_needs_the_shared_runs_of_its_seeds_only(conf, tmp_path):
    plan = plan_of(conf, tmp_path, SHARED)
    points = experiments(next(iter(plan.tasks.values())).experiment.sweep)
    names = plan.needed_by([points[3]])
    assert names == [name for name in plan.tasks if name.startswith(("seed-2/shared/", "seed-2/top_k-4/"))]


def test_failed_task_blocks_only_what_needs_it(conf, tmp_path):
    plan = plan_of(conf, tmp_path, SHARED)
    assert plan.blocked({"seed-1/top_k-2/base_td_opd"}) == {}  # base_td is scored without it
    assert plan.blocked({"seed-1/top_k-2/base_td"}) == {
        "seed-1/top_k-2/base_td_opd": "seed-1/top_k-2/base_td",
        "seed-1/top_k-2/score": "seed-1/top_k-2/base_td",
    }
    blocked = plan.blocked({"seed-1/shared/teacher"})
    assert "seed-1/shared/base" not in blocked and "seed-1/shared/score" not in blocked
    assert {name for name in plan.tasks if name.startswith("seed-1/top_k-2/")} <= set(blocked)
    assert set(blocked.values()) == {"seed-1/shared/teacher"} and all(name.startswith("seed-1") for name in blocked)


def test_skipped_run_blocks_what_needs_it(conf, tmp_path):
    plan = plan_of(conf, tmp_path, f"{SHARED}\nskip: [base_td, top_k-4]")
    assert not [name for name in plan.tasks if "top_k-4" in name or name.endswith("base_td")]
    assert plan.blocked(())["seed-1/top_k-2/base_td_opd"] == "seed-1/top_k-2/base_td"


def test_runs_that_start_from_each_other_are_refused(conf, tmp_path):
    text = 'runs: [base, teacher]\noverrides: {runs.base.model.path: "{expdir}/teacher/f", '
    text += 'runs.teacher.model.path: "{expdir}/base/f"}'
    with pytest.raises(UserError, match="the runs base, teacher start from each other"):
        plan_of(conf, tmp_path, text)

"""Points of a sweep: names, combinations, and overrides of single runs."""

from __future__ import annotations

import pytest

from arkasr.errors import UserError
from arkasr.sweeps.points import Point, make_points, overrides_of


def names(grid, listed=None):
    return [point.name for point in make_points(grid, listed or {}, "f.yaml")]


def test_grid_makes_each_combination_and_names_it_by_the_last_part_of_the_key():
    points = make_points({"distill.top_k": [4, 16], "optim.lr": [1e-3, 2e-3]}, {}, "f.yaml")
    assert [p.name for p in points] == [
        "top_k-4_lr-0.001",
        "top_k-4_lr-0.002",
        "top_k-16_lr-0.001",
        "top_k-16_lr-0.002",
    ]
    assert points[1].overrides == {"distill.top_k": 4, "optim.lr": 2e-3} and points[1].place == (4, 2e-3)


def test_keys_that_end_alike_name_points_in_full():
    found = names({"rollout.temperature": [0.5], "loss.options.temperature": [2]})
    assert found == ["rollout.temperature-0.5_loss.options.temperature-2"]


def test_values_become_names_of_folders():
    assert names({"loss.name": ["a b/c"], "rollout.top_p": [1e-6]}) == ["name-a-b-c_top_p-1e-06"]
    assert names({"a.b": [True, False]}) == ["b-true", "b-false"]


def test_listed_points_follow_the_grid_and_a_sweep_without_both_has_one_point():
    assert names({"distill.top_k": [4]}, {"wide": {"distill.top_k": 64}}) == ["top_k-4", "wide"]
    assert make_points({}, {}, "f.yaml") == [Point("", {})]


@pytest.mark.parametrize(
    ("grid", "listed", "message"),
    [
        ({"distill.top_k": []}, {}, "f.yaml: grid.distill.top_k has no values"),
        ({"distill.mix": [{"student": 1}]}, {}, "grid.distill.mix has a value that cannot name a point"),
        ({"a.b": ["x/y", "x y"]}, {}, "two points are called b-x-y"),
        ({"a.b": list(range(40)), "a.c": list(range(40))}, {}, "1600 points are more than 1000"),
        ({}, {"a/b": {}}, "point 'a/b' cannot be the name of a folder"),
        ({}, {"A": {}, "a": {}}, "two points are called a"),
    ],
)
def test_wrong_points_are_refused(grid, listed, message):
    with pytest.raises(UserError, match=message):
        make_points(grid, listed, "f.yaml")


def test_overrides_of_one_run_win_over_those_of_all_runs():
    layers = {"seed": 1, "optim.lr": 1.0}, {"runs.teacher.seed": 2, "optim.lr": 2.0}, {"runs.base.optim.lr": 3.0}
    assert overrides_of("teacher", *layers) == {"seed": 2, "optim.lr": 2.0}
    assert overrides_of("base", *layers) == {"seed": 1, "optim.lr": 3.0}
    assert overrides_of("", *layers) == {"seed": 1, "optim.lr": 2.0}

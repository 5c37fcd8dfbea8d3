"""Figures: which are drawn, their size, and that they show the logged values."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from score_examples import sets_of

from arkasr.reporting import figures

SETS = sets_of(name="toy", language="Chinese", test_sets=["test", "other"])


def scores(**rates):
    entries = {run: {"rate_percent": rate, "interval_percent": [rate - 1, rate + 1]} for run, rate in rates.items()}
    return {run: {"sets": {"test": entries[run], "other": entries[run]}} for run in rates}


def supervised(num_steps):
    return [{"step": i, "loss": 3.0 / i} for i in range(1, num_steps + 1)]


def distilled(num_steps):
    return [{"step": i, "loss": 1.0 / i, "vuss": 20 - i / 9, "overlap": 0.5} for i in range(1, num_steps + 1)]


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@pytest.mark.slow
def test_draw_writes_three_figures_1200_pixels_wide(tmp_path):
    metrics = {"teacher": [], "base": supervised(60), "base_opd": distilled(60)}
    drawn = figures.draw(tmp_path, SETS, scores(teacher=3, base=40, base_opd=20), metrics)
    assert [path.name for path in drawn] == ["error_rates.png", "loss.png", "vuss.png"]
    for path in drawn:
        width, height = png_size(path)
        assert width == 1200 and 400 < height < 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in drawn)


def test_draw_skips_figures_without_data(tmp_path):
    unknown = {"base": {"sets": {name: {"rate_percent": None, "interval_percent": None} for name in ("test", "other")}}}
    (tmp_path / "error_rates.png").write_bytes(b"of an earlier call")
    assert figures.draw(tmp_path, SETS, unknown, {"base": []}) == []
    assert not list(tmp_path.iterdir())
    assert [path.name for path in figures.draw(tmp_path, SETS, unknown, {"base": supervised(1)})] == ["loss.png"]
    assert not list(tmp_path.glob("vuss*"))


@pytest.fixture
def saved(monkeypatch):
    """Collect the figures instead of saving them, to inspect their axes."""
    kept = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure) or path)
    return kept


def test_error_bars_show_rates_and_intervals(saved, tmp_path):
    figures.error_bars(tmp_path / "x.png", SETS, scores(base=40, base_opd=20))
    (axis,) = saved[0].axes
    assert [patch.get_height() for patch in axis.patches] == [40, 40, 20, 20]
    assert axis.get_ylabel() == "CER (%)" and [tick.get_text() for tick in axis.get_xticklabels()] == ["test", "other"]
    segments = axis.collections[0].get_segments()
    assert np.allclose([segment[:, 1] for segment in segments], [[39, 41], [39, 41]])


def test_error_bars_leave_out_runs_and_sets_without_a_rate(saved, tmp_path):
    found = scores(base=40, base_opd=20, base_td=10)
    nothing = {"rate_percent": None, "interval_percent": None}
    found["base_opd"]["sets"] = {"test": nothing, "other": nothing}
    found["base_td"]["sets"]["test"] = nothing
    assert figures.error_bars(tmp_path / "x.png", SETS, found) is not None
    (axis,) = saved[0].axes
    assert [patch.get_height() for patch in axis.patches] == [40, 40, 10]
    assert [text.get_text() for text in saved[0].legends[0].get_texts()] == ["Base", "Base+TD"]
    starts = [patch.get_x() for patch in axis.patches]
    assert starts[0] < 0 < starts[1] < 1 < starts[2] + 0.4  # the last bar belongs to the second set


def test_error_bars_of_mixed_metrics_say_which_and_fit(saved, tmp_path):
    found = scores(base=40, base_opd=20)
    del found["base_opd"]["sets"]["other"]  # not scored on it
    figures.error_bars(tmp_path / "x.png", [SETS[0], replace(SETS[1], metric="wer")], found)
    (axis,) = saved[0].axes
    assert [patch.get_height() for patch in axis.patches] == [40, 40, 20] and axis.get_ylabel() == "WER or CER (%)"
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["test\n(CER)", "other\n(WER)"]
    many = {f"run{i}": found["base"] for i in range(9)}
    figures.error_bars(tmp_path / "x.png", SETS, many)
    assert {text.get_rotation() for text in saved[1].axes[0].texts} == {90.0}
    colors = {patch.get_facecolor() for patch in saved[1].axes[0].patches}
    assert len(colors) == 6


def test_figures_show_names_with_dollar_signs_and_underscores(tmp_path):
    sets = sets_of(name=r"a$\oops$b", test_sets=["$x$"])
    found = {"_run$1": {"sets": {"$x$": {"rate_percent": 1.0, "interval_percent": [0.5, 2.0]}}}}
    drawn = figures.draw(tmp_path, sets, found, {"_run$1": supervised(3)})
    assert [path.name for path in drawn] == ["error_rates.png", "loss.png"]


@pytest.mark.parametrize("letter", "in")
def test_titles_of_any_length_stay_inside_the_figure(letter):
    figure = Figure(figsize=(8, 3), layout="constrained")
    figure.subplots()
    figures.put_title(figure, f"{letter * 9} " * 20 + "with $ and _")
    figure.canvas.draw()
    (title,) = (text for text in figure.texts if letter * 9 in text.get_text())
    box = title.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_losses_leaves_out_runs_without_a_finite_loss(saved, tmp_path):
    lost = [{"step": i, "loss": None, "vuss": None} for i in range(1, 4)]
    assert figures.losses(tmp_path / "x.png", "toy", {"base": lost}) is None
    assert figures.supports(tmp_path / "x.png", "toy", {"base": lost}) is None
    figures.losses(tmp_path / "x.png", "toy", {"base": lost, "base_td": [*supervised(2), *lost]})
    (axis,) = saved[0].axes
    assert np.allclose(axis.lines[0].get_ydata(), [3.0, 1.5])


def test_losses_has_one_panel_per_objective_and_labelled_axes(saved, tmp_path):
    metrics = {"base": supervised(5), "base_td": supervised(5), "base_opd": distilled(5)}
    figures.losses(tmp_path / "x.png", "toy", metrics)
    left, right = saved[0].axes
    assert [line.get_label() for line in left.lines] == ["Base", "Base+TD"]
    assert [line.get_label() for line in right.lines] == ["Base+OPD"]
    assert np.allclose(right.lines[0].get_ydata(), [1.0 / i for i in range(1, 6)])
    assert all(axis.get_xlabel() and "nats" in axis.get_ylabel() for axis in (left, right))


def test_supports_shows_vuss_and_overlap_of_distilled_runs_only(saved, tmp_path):
    figures.supports(tmp_path / "x.png", "toy", {"base": supervised(5), "base_opd": distilled(5)})
    top, bottom = saved[0].axes
    assert np.allclose(top.lines[0].get_ydata(), [20 - i / 9 for i in range(1, 6)]) and len(top.lines) == 1
    assert np.allclose(bottom.lines[0].get_ydata(), 0.5)


def test_losses_draws_long_curve_as_logged_and_smoothed(saved, tmp_path):
    figures.losses(tmp_path / "x.png", "toy", {"base": supervised(figures.SMOOTH_FROM)})
    pale, strong = saved[0].axes[0].lines
    assert pale.get_alpha() < 1 and np.allclose(pale.get_ydata(), [3.0 / i for i in range(1, 41)])
    assert np.isclose(strong.get_ydata()[1], (3 + 1.5 + 1) / 3)


def test_color_differs_for_unknown_run_names():
    runs = ["base", "other_a", "other_b"]
    assert len({figures.color(run, runs) for run in runs}) == 3


@pytest.mark.parametrize("num_runs", [1, 4])
def test_labels_of_many_test_sets_do_not_overlap(tmp_path, saved, num_runs):
    names = ["aishell-test", "wenetspeech-test-meeting", "wenetspeech-test-net", "librispeech-test-clean", "a" * 40]
    sets = sets_of(name="toy", language="Chinese", test_sets=names)
    entry = {"rate_percent": 5.0, "interval_percent": [4.0, 6.0]}
    scored = {f"run{number}": {"sets": dict.fromkeys(names, entry)} for number in range(num_runs)}
    figures.error_bars(tmp_path / "x.png", sets, scored)
    (figure,) = saved
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert "".join(figure.axes[0].get_xticklabels()[1].get_text().split("\n")) == "wenetspeech-test-meeting"

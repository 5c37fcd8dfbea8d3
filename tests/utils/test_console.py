"""Progress lines: rate and remaining time, with a simulated clock."""

from __future__ import annotations

import io
import sys

import pytest

from arkasr.utils import console


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when the test calls it."""
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])

    def pass_seconds(seconds: float) -> None:
        now[0] += seconds

    return pass_seconds


def test_progress_of_resumed_run_estimates_time_left_from_own_steps_and_evaluations(clock, capsys):
    """Resumed at step 700 of 1000: 100 steps of 0.25 s and one evaluation of 25 s. That is 0.5 s per step."""
    progress = console.Progress("train base", 1000, "steps", initial=700)
    for step in range(100):
        clock(25.0 if step == 49 else 0.0)
        clock(0.25)
        progress.update()
    progress.close()
    assert capsys.readouterr().out.splitlines()[-1].endswith("train base: 800/1000 steps, 2.0 steps/s, 1:40 left")


def test_progress_logs_line_every_ten_seconds(clock, capsys):
    progress = console.Progress("work", None, "files")
    for _ in range(25):
        clock(1.0)
        progress.update(note="loss 1")
    assert [line.split("(arkasr) ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "work: 10 files, 1.0 files/s, loss 1",
        "work: 20 files, 1.0 files/s, loss 1",
    ]


def test_progress_bar_estimates_time_left_from_mean_rate(monkeypatch):
    terminal_like = io.StringIO()
    terminal_like.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal_like)
    progress = console.Progress("train base", 1000, "steps", initial=700)
    bar = progress.bar
    bar.start_t, bar._time = 0.0, lambda: 50.0
    bar.n = 800
    shown = bar.format_meter(**bar.format_dict)
    bar.close()
    assert bar.smoothing == 0 and "800/1000" in shown and "<01:40" in shown


def test_log_shows_terminal_escapes_and_hides_passwords(capsys):
    console.log("\x1b[2Jserver https://user:hunter2@host \u202ereversed é 你好 1\u00a0000")
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\\x1b[2Jserver https://***@host \\u202ereversed é 你好" in printed


LENGTHS = [(4.384, "4.38 h"), (1234.5, "1,234.50 h"), (0.5, "30.0 min"), (0.005, "18 s"), (0, "0 s")]


@pytest.mark.parametrize(("hours", "text"), LENGTHS)
def test_length_of_audio_has_a_fitting_unit(hours, text):
    assert console.length_text(hours) == text


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "window", "0 windows"),
        (1, "stretch", "1 stretch"),
        (2, "stretch", "2 stretches"),
        (1234, "file", "1,234 files"),
    ],
)
def test_number_of_things_has_singular_and_plural(number, noun, text):
    assert console.count_text(number, noun) == text

"""The metrics of every step on worked examples, and the page docs/metrics.md."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from corpus_fixture import metrics

from arkasr.distill.metrics import MAXIMA, rates, rollout_sums, support_sums, teacher_sums
from arkasr.distill.rollout import Rollout
from arkasr.distributions.views import DenseView
from arkasr.interfaces import Alignment, Support
from arkasr.model.generation import Generation
from arkasr.training.train import train


def support(*sizes_and_overlaps, width=6):
    """Return a support with one position per (number of valid tokens, number of them in both top-k sets)."""
    sizes = torch.tensor([size for size, _ in sizes_and_overlaps]).reshape(-1)
    valid = torch.arange(width) < sizes[:, None]
    ids = torch.zeros(len(sizes), width, dtype=torch.long)
    shared = torch.arange(width) < torch.tensor([shared for _, shared in sizes_and_overlaps]).reshape(-1)[:, None]
    return Support(ids, ids, valid, valid, shared, ids[:, 0], ids[:, 0])


def sums_of(union, top_k=3):
    return {name: float(value) for name, value in support_sums(union, top_k).items()}


def test_support_sums_on_worked_example():
    """With k = 3, sizes 4, 5 and 2 are counted with overlaps 2, 1 and 0. Sizes 1 and 0 are not counted."""
    sums = sums_of(support((4, 2), (1, 1), (5, 1), (0, 0), (2, 0)))
    assert sums == {
        "positions": 3,
        "vuss": 11,
        "overlap": pytest.approx(2 / 3 + 1 / 3),
        "vuss_max": 5,
        "neg_vuss_min": -2,
    }


def test_rates_on_worked_example():
    """Of four rollouts one is empty and two loop. Four transcripts are scored, two of them provided texts."""
    sources, generation = ["student", "reference", "teacher", "student"], Generation([], [], torch.zeros(0, 3))
    rollout = Rollout([0, 1, 2, 3], generation, 1, num_stopped=3, num_looping=2, num_rolled=4, sources=sources)
    rows = torch.arange(7)
    sums = sums_of(support((4, 2), (5, 1), (2, 0))) | {
        name: float(value) for name, value in rollout_sums(rollout, Alignment([], rows, rows, 10, 2), 5).items()
    }
    assert rates(sums | {"teacher_missing": 2.0}) == {
        "vuss": pytest.approx(11 / 3),
        "vuss_min": 2,
        "vuss_max": 5,
        "overlap": pytest.approx(1 / 3),
        "stop_rate": 0.75,
        "cut_rate": 0.25,
        "empty_rate": 0.25,
        "loop_rate": 0.5,
        "share/student": 0.5,
        "share/teacher": 0.25,
        "share/reference": 0.25,
        "mismatch_rate": 0.5,
        "coverage": 0.7,
        "teacher_missing_rate": 2 / 7,
    }


@pytest.mark.parametrize("union", [support(), support((1, 1), (0, 0))])
def test_rates_without_counted_position_are_absent(union):
    sums = sums_of(union)
    assert (sums["positions"], sums["vuss"], sums["overlap"]) == (0, 0, 0)
    assert sums["vuss_max"] == sums["neg_vuss_min"] == -math.inf
    rollout = Rollout([0], Generation([], [], torch.zeros(0, 3)), 0, 0, sources=["student"], scored=False)
    rows = torch.arange(0)
    none = {name: float(value) for name, value in rollout_sums(rollout, Alignment([[3]], rows, rows, 9, 1), 0).items()}
    assert (
        none["rollout_tokens"] == none["teacher_tokens"] == none["mismatched"] == 0
    )  # the transcript is kept, but not scored
    none["teacher_missing"] = 0.0
    assert rates(sums | none) == {}


def test_support_sums_add_over_micro_batches():
    """Sums are added and extremes are reduced by the maximum. A part without counted positions changes neither."""
    parts = [support((4, 2), (6, 3)), support(), support((1, 0)), support((2, 1), (3, 3))]
    together = sums_of(support((4, 2), (6, 3), (1, 0), (2, 1), (3, 3)))
    merged = {}
    for part in map(sums_of, parts):
        for name, value in part.items():
            merged[name] = max(merged.get(name, value), value) if name in MAXIMA else merged.get(name, 0.0) + value
    assert merged == pytest.approx(together)
    assert set(MAXIMA) <= set(together)


def test_rates_omits_means_with_count_zero():
    sums = sums_of(support()) | dict.fromkeys(("clips", "rolled", "stopped", "empty", "looping", "transcripts"), 0.0)
    sums |= dict.fromkeys(("from_student", "from_teacher", "from_reference", "mismatched", "rollout_tokens"), 0.0)
    logged = rates(
        sums | {"paired": 0.0, "teacher_missing": 0.0, "kl/all": 3.0, "kl/all#": 4.0, "kl/wrong": 0.0, "kl/wrong#": 0.0}
    )
    assert logged["kl/all"] == 0.75 and "kl/wrong" not in logged and not any("#" in name for name in logged)


def test_teacher_sums_add_unmapped_and_dropped_mass():
    """The student has the best token at the first position, none at the second, and both at the third."""
    view, nan = DenseView(torch.zeros(4, 8)), torch.nan
    logprobs = torch.tensor([[0.5, 0.25], [0.5, 0.125], [0.75, 0.25], [nan, 0.5]]).log()
    union = support(*[(4, 2)] * 4, width=4)
    union.from_teacher = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]).bool()
    found = {name: float(value) for name, value in teacher_sums(view, logprobs, union).items()}
    assert found == {"dropped_mass": pytest.approx(0.25 + 0.625), "dropped_mass#": 3, "teacher_missing": 1}
    view.dropped = torch.tensor([0.125, 0.0, 0.0625, nan])
    assert float(teacher_sums(view, logprobs, union)["dropped_mass"]) == pytest.approx(0.875 + 0.1875)


@pytest.mark.slow
def test_metrics_page_lists_logged_keys(conf, trained, datadir, tmp_path):
    """The tables list every logged key and no other. `<...>` is a placeholder for a name."""
    overrides = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    overrides += [
        "distill.diagnose_every=1",
        "distill.mix={student: 2, teacher: 1}",
        "train.save_every=2",
        "train.peak_tflops=1",
    ]
    train(str(conf), "base_opd", str(tmp_path), str(datadir), overrides)
    logged = {key for folder in (tmp_path / "base_opd", trained / "base") for row in metrics(folder) for key in row}
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    page, _, scoring = page.partition("\n## Scoring\n")
    assert scoring
    named = {
        name for line in page.splitlines() if line[:3] == "| `" for name in re.findall("`([^`]+)`", line.split("|")[1])
    }
    patterns = [re.compile(re.sub("<[a-z]+>", ".+", name)) for name in named]
    assert [key for key in sorted(logged) if not any(pattern.fullmatch(key) for pattern in patterns)] == []
    not_logged = {p.pattern for p in patterns if not any(p.fullmatch(key) for key in logged)}
    assert not_logged <= {
        "dropped_mass",
        "stop/early",
        "stop/late",
        "kl/correct",
        "kl/wrong",
        "vuss/correct_word",
        "dev_error/.+",
    }
    assert len(page.splitlines()) <= 100

"""Counts and intervals against independent scorers: kaldialign, a plain dynamic program, and sclite if it is there."""

from __future__ import annotations

import random
import shutil
import subprocess
from functools import cache

import numpy as np
import pytest
from kaldialign import bootstrap_wer_ci, edit_distance

from arkasr.scoring.alignment import tokens
from arkasr.scoring.significance import compare
from arkasr.scoring.tally import count, summary

WORDS = list(dict.fromkeys(tokens("the cat dog sat on a mat and then it ran off to see who was there", "wer")))
CHARACTERS = "今天气很好我们去公园走吧他说不是"


def corrupted(draw, units, text):
    """Return the tokens of a text after random errors, about one in six."""
    found = []
    for unit in text:
        kind = draw.random()
        found += [] if kind < 0.05 else [draw.choice(units)] if kind < 0.12 else [unit]
        found += [draw.choice(units)] if kind > 0.95 else []
    return found


@cache
def pairs(metric, number=300):
    draw, units = random.Random(metric), WORDS if metric == "wer" else list(CHARACTERS)
    units = [*units, "app", "ok"] if metric == "mer" else units
    join = (" " if metric != "cer" else "").join
    references = [[draw.choice(units) for _ in range(draw.randint(0, 25))] for _ in range(number)]
    return [join(text) for text in references], [join(corrupted(draw, units, text)) for text in references]


def reference_distance(reference, hypothesis):
    """Return the edit distance by Wagner and Fischer's table."""
    row = list(range(len(hypothesis) + 1))
    for i, left in enumerate(reference, 1):
        corner, row[0] = row[0], i
        for j, right in enumerate(hypothesis, 1):
            corner, row[j] = row[j], min(corner + (left != right), row[j - 1] + 1, row[j] + 1)
    return row[-1]


@pytest.mark.parametrize("metric", ["wer", "cer", "mer"])
def test_count_agrees_with_kaldialign_and_a_plain_dynamic_program(metric):
    references, hypotheses = pairs(metric)
    split = [(tokens(r, metric), tokens(h, metric)) for r, h in zip(references, hypotheses, strict=True)]
    tally, kaldi = count(references, hypotheses, metric), [edit_distance(r, h) for r, h in split]
    assert tally.errors.tolist() == [each["total"] for each in kaldi] == [reference_distance(*each) for each in split]
    assert tally.lengths.tolist() == [each["ref_len"] for each in kaldi] == [len(r) for r, _ in split]
    # Alignments with equally few errors split them differently, but insertions and deletions keep their difference.
    balance = (tally.insertions - tally.deletions).tolist()
    assert balance == [each["ins"] - each["del"] for each in kaldi]
    equal = np.mean([s == each["sub"] for s, each in zip(tally.substitutions, kaldi, strict=True)])
    assert equal > 0.9 and 0.1 < tally.errors.sum() / tally.lengths.sum() < 0.3


def test_interval_agrees_with_kaldialign():
    references, hypotheses = pairs("wer")
    got = summary(count(references, hypotheses, "wer"))
    found = bootstrap_wer_ci([r.split() for r in references], [h.split() for h in hypotheses], replications=1000)
    low, high = got["interval_percent"]
    assert (low, high) == pytest.approx((100 * found["ci95min"], 100 * found["ci95max"]), abs=0.4)
    assert high - low > 2  # so that the tolerance is small beside it


def test_comparison_of_two_systems_agrees_with_kaldialign():
    references, hypotheses = pairs("wer")
    better = [r if i % 3 else h for i, (r, h) in enumerate(zip(references, hypotheses, strict=True))]
    got = compare(count(references, better, "wer"), count(references, hypotheses, "wer"))
    texts = [[text.split() for text in side] for side in (references, better, hypotheses)]
    found = bootstrap_wer_ci(*texts, replications=1000)
    assert found["p_s2_improv_over_s1"] == 0 and got["p_bootstrap"] == pytest.approx(2 / 1001)
    assert found["system1"]["wer"] < found["system2"]["wer"] and got["difference_percent"] < 0


@pytest.mark.skipif(shutil.which("sclite") is None, reason="sclite (Debian package sctk) is not installed")
def test_count_agrees_with_sclite(tmp_path):
    references, hypotheses = pairs("wer")
    for name, texts in (("ref", references), ("hyp", hypotheses)):
        lines = [f"{text} (spk-{index:04})\n" for index, text in enumerate(texts)]
        (tmp_path / f"{name}.trn").write_text("".join(lines))
    files = ["-r", str(tmp_path / "ref.trn"), "trn", "-h", str(tmp_path / "hyp.trn"), "trn", "-i", "spu_id"]
    command = [shutil.which("sclite"), *files, "-o", "pralign", "stdout"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [tuple(map(int, line.split(")")[-1].split())) for line in shown.splitlines() if line.startswith("Scores:")]
    tally = count(references, hypotheses, "wer")
    assert len(found) == len(references)
    # sclite weighs substitutions 4 and others 3, so it may choose an alignment with one error more.
    different = np.abs(tally.errors - [s + d + i for _, s, d, i in found])
    assert different.max() <= 1 and (different > 0).mean() < 0.02

"""RESULTS.md: commands, commits, versions, settings, and the warning at miniature scale."""

from __future__ import annotations

import json
from dataclasses import replace

from score_examples import CORPUS, METRICS, SCORES, SETS, rows_of, sets_of

from arkasr.reporting import report

RECORDS = {
    "teacher": {"config": {}},
    "base": {"commit": "abc1", "versions": {"torch": "2.12"}, "command": "arkasr train a --run base", "config": {}},
    "base_opd": {
        "commit": "abc2",
        "versions": {"torch": "2.12"},
        "command": "arkasr train a --run base_opd",
        "started": "2026-01-01",
        "config": {"seed": 7, "train": {"steps": 300}, "distill": {"top_k": 16}, "rollout": {"temperature": 0.0}},
    },
}


def results(datadir="data", **corpus):
    sets = [replace(each, datadir=str(datadir)) for each in sets_of(**corpus)]
    return report.markdown(report.sections("exp", str(datadir), sets, SCORES, METRICS, RECORDS, []))


def test_results_contains_commands_commits_versions_settings_and_corpus(tmp_path):
    data = tmp_path / "my data"
    data.mkdir()
    (data / "corpus.json").write_text(json.dumps(CORPUS))
    text = results(data)
    for part in (
        "arkasr train a --run base_opd",
        f"arkasr score --expdir exp --datadir '{data}' --runs 'teacher base base_opd'",
        "Base+OPD: commit `abc2`, torch 2.12",
        "profile `unicode` version 1, jiwer 4.0.0",
        "| train | 7 | 0.500 | 2 | 1 empty audio, 3 no text |",
    ):
        assert part in text
    assert "Teacher: " not in text.split("## Runs")[1]  # it was not trained here
    header, _, *rows = rows_of(text.split("## Runs")[1])
    assert dict(zip(header, rows[1])) == {
        "Run": "Base+OPD",
        "Last logged step": "4",
        "Seed": "7",
        "Steps": "300",
        "Top-k": "16",
    }


def test_results_warns_about_comparison_at_miniature_scale_only():
    assert "# Results: librispeech, miniature" in results() and "not comparable to the paper's" in results()
    assert "miniature" not in results(scale="paper").lower()


def test_results_of_a_corpus_that_is_not_in_the_paper_have_no_numbers_of_the_paper():
    text = results(name="own", paper={}, scale="paper")
    assert "This corpus is not in the paper" in text and "paper:" not in text and "Qwen3-ASR-0.6B" not in text
    assert "## Table 2" in text  # one of the runs was distilled


def test_results_state_that_the_split_of_errors_depends_on_the_aligner():
    assert "split of the errors into substitutions, deletions and insertions depends on the aligner" in " ".join(
        results().split()
    )


def test_results_have_warnings_only_if_there_are_some():
    assert "## Warnings" not in results()
    doubtful = {**SCORES, "base": {**SCORES["base"], "warnings": ["trained again"]}}
    text = report.markdown(report.sections("exp", "data", SETS, doubtful, METRICS, RECORDS, []))
    assert "## Warnings" in text and "\n- Base: trained again.\n" in text

"""Tables of RESULTS.md and of the terminal: each number is in its cell, the paper's numbers have their own columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from score_examples import CORPUS, SCORES, SETS, TEACHER, rows_of, run_scores, set_scores, sets_of

from arkasr.errors import UserError
from arkasr.evaluation.paper_numbers import COLUMNS
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting import changes, tables
from arkasr.scoring.tally import NO_COUNTS

TITLE = "Teacher (`qwen3_asr`, models/Qwen3-ASR-1.7B)"


def test_error_rates_has_separate_columns_for_paper():
    header, _, *rows = rows_of(tables.error_rates(SETS, SCORES))
    assert header[1].startswith("test-clean WER") and header[3:] == [
        "paper: model",
        "paper: Libri clean",
        "paper: Libri Other",
    ]
    assert rows[1] == ["Base", "40.00 [39.00, 42.00]", "40.00 [39.00, 42.00]", "Ark-Base", "3.75", "7.17"]
    assert rows[0][0] == TITLE and rows[0][3:] == ["Qwen3-ASR-1.7B", "2.20", "4.05"]
    assert rows[3] == ["(paper only)", "-", "-", "Qwen3-ASR-0.6B", "2.81", "5.05"]


def test_error_rates_without_paper_columns_has_runs_only():
    header, _, *rows = rows_of(tables.error_rates(sets_of(paper={"test-clean": None}), SCORES))
    assert len(header) == 3 and [row[0] for row in rows] == [TITLE, "Base", "Base+OPD"]


def test_error_rates_rejects_unknown_paper_column_and_lists_columns():
    with pytest.raises(UserError, match="'Libri dirty'.*Libri clean"):
        tables.error_rates(sets_of(paper={"test-clean": "Libri dirty"}), SCORES)


def test_counts_are_percentages_of_reference():
    header, _, *rows = rows_of(tables.counts(SETS, SCORES))
    row = dict(zip(header, rows[0]))
    assert (row["Wrd"], row["Corr"], row["Sub"], row["Del"], row["Ins"]) == ("200", "75.0", "15.0", "10.0", "2.0")
    assert (row["Err"], row["S.Err"]) == ("27.0", "90.0")
    assert "Chr" in rows_of(tables.counts(sets_of(language="Chinese"), SCORES))[0]


def test_tables_show_unknown_rate_as_dash():
    scores = {"base": run_scores(None)}
    assert rows_of(tables.error_rates(SETS, scores))[2][1:3] == ["-", "-"]


def test_tables_mark_doubtful_rates_and_changes():
    doubtful = run_scores(20, -50)
    doubtful["sets"]["test-clean"]["warnings"] = ["half of the clips are missing"]
    scores = SCORES | {"base_opd": doubtful}
    rows = rows_of(tables.error_rates(SETS, scores))
    assert rows[4][1:3] == ["20.00 [19.00, 22.00] (!)", "20.00 [19.00, 22.00]"]
    assert rows_of(changes.changes(SETS, scores))[3][1].endswith("+1.50]) (!)")
    assert tables.warnings(scores) == [("Base+OPD, test-clean", "half of the clips are missing")]
    whole = SCORES | {"base_opd": {**run_scores(20, -50), "warnings": ["of another model"]}}
    assert [cell[-3:] for cell in rows_of(tables.error_rates(SETS, whole))[4][1:3]] == ["(!)", "(!)"]
    assert tables.warnings(whole) == [("Base+OPD", "of another model")]


def test_tables_show_what_was_not_measured_as_dash():
    entry = {**set_scores(None), **NO_COUNTS, "utterances": 10, "transcripts": 0, "missing_hypotheses": 10}
    entry |= dict.fromkeys(("distinct_hypotheses", "most_frequent_hypothesis", "not_stopped", "looping"))
    scores = {"base": run_scores(40), "base_opd": {"sets": dict.fromkeys(CORPUS["test_sets"], entry)}}
    assert rows_of(tables.counts(SETS, scores))[3][2:] == ["10", *["-"] * 7]
    assert rows_of(tables.transcripts(SETS, scores))[3][2:] == ["10", "10 (100.0 %)", *["-"] * 5]
    assert rows_of(changes.changes(SETS, scores))[2][1:3] == ["-", "-"]


def test_transcripts_has_counts_and_shares_of_each_run():
    header, _, first, *_ = rows_of(tables.transcripts(SETS, SCORES))
    assert dict(zip(header, first)) == {
        "Model": TITLE,
        "Set": "test-clean",
        "Clips": "10",
        "Not decoded": "2 (20.0 %)",
        "Empty": "1 (12.5 %)",
        "Cut off": "3 (37.5 %)",
        "Looping": "-",
        "Distinct": "6 (75.0 %)",
        "Most frequent": "2 (25.0 %)",
    }


def test_transcripts_shows_agreement_with_float32_where_it_was_measured():
    assert not tables.has_agreement(SCORES)
    entry = {**SCORES["base_opd"]["sets"]["test-clean"], "agreement": {"clips": 64, "equal": 63, "error": 0.001}}
    scores = SCORES | {"base_opd": {**SCORES["base_opd"], "sets": SCORES["base_opd"]["sets"] | {"test-clean": entry}}}
    header, _, *rows = rows_of(tables.transcripts(SETS, scores))
    assert tables.has_agreement(scores) and header[-1] == "Equal in float32"
    assert sorted(row[-1] for row in rows) == ["-"] * (len(rows) - 1) + ["63 of 64"]


def test_row_title_says_which_teacher():
    assert tables.row_title("teacher", {}) == "Teacher (not recorded)"
    remote = {"name": "qwen3_asr_http", "options": {"url": "http://host:8000"}, "path": "", "weights": ""}
    assert tables.row_title("teacher", {"teacher": remote}) == "Teacher (`qwen3_asr_http`, http://host:8000)"
    assert tables.row_title("base_opd", {"teacher": TEACHER}) == "Base+OPD"


@pytest.mark.parametrize("paper", [None, {}, {"test-clean": None, "test-other": None}])
def test_tables_of_a_corpus_that_is_not_in_the_paper_have_no_paper_columns(paper):
    sets = sets_of(name="own", paper=paper)
    for text in (tables.error_rates(sets, SCORES), changes.changes(sets, SCORES)):
        assert "paper" not in text


def five_columns():
    names = dict(zip(("a-test", "w-meeting", "w-net", "l-clean", "l-other"), COLUMNS, strict=True))
    sets = [TestSet(name, Path("m"), "wer" if name[0] == "l" else "cer", "raw", column=names[name]) for name in names]
    scores = {run: {"sets": {name: set_scores(rate) for name in names}} for run, rate in (("base", 9), ("base_opd", 8))}
    return sets, scores


def test_table_1_has_the_five_columns_of_the_paper_beside_ours():
    sets, scores = five_columns()
    qwen = {"checkpoint": {"path": "Qwen/Qwen3-ASR-0.6B", "plugin": ""}, "sets": {"l-clean": set_scores(3)}}
    header, _, *rows = rows_of(tables.error_rates(sets, scores | {"q": qwen}))
    assert [cell.split()[1] for cell in header[1:6]] == ["CER", "CER", "CER", "WER", "WER"]
    assert header[6:] == ["paper: model", *(f"paper: {column}" for column in COLUMNS)]
    assert rows[0][6:] == ["Ark-Base", "3.48", "10.22", "7.74", "3.75", "7.17"]
    assert rows[2][1:6] == ["-", "-", "-", "3.00 [2.00, 5.00]", "-"]
    assert rows[2][0] == "q" and rows[2][6:] == ["Qwen3-ASR-0.6B", "2.07", "5.57", "5.45", "2.81", "5.05"]
    assert len(rows) == 3  # the paper's row of this checkpoint is not repeated


def test_counts_of_mixed_metrics_say_which():
    sets, scores = five_columns()
    header, _, first, *_ = rows_of(tables.counts(sets, scores))
    assert header[3] == "Wrd/Chr" and first[1] == "a-test (CER)"


def test_row_title_names_the_plugin_of_a_checkpoint():
    plugin = {"checkpoint": {"path": "p", "plugin": "whisper"}}
    teacher = {"name": "whisper", "options": {}, "path": "openai/whisper-tiny", "weights": ""}
    assert tables.row_title("tiny", plugin | {"teacher": teacher}) == "tiny (`whisper`, openai/whisper-tiny)"
    assert tables.row_title("mine", {"checkpoint": {"path": "p", "plugin": ""}, "teacher": None}) == "mine"


def test_marker_shows_what_changed_since_scoring():
    entry = set_scores(20) | {"outdated": ["changed since it was scored: its hypotheses"]}
    scores = {"base": {"sets": {"test-clean": entry}}}
    assert rows_of(tables.error_rates(SETS, scores))[2][1:3] == ["20.00 [19.00, 22.00] (!)", "-"]
    assert tables.warnings(scores) == [("Base, test-clean", entry["outdated"][0])]

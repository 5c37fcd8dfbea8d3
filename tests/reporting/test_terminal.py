"""Table 1 for a terminal: its width, its numbers, and the warnings below it."""

from __future__ import annotations

from dataclasses import replace

from score_examples import SCORES, SETS, run_scores, set_scores, sets_of

from arkasr.reporting import terminal


def test_terminal_fits_80_columns_with_longest_names():
    changes = {"test_sets": ["test_meeting"], "paper": {"test_meeting": "Wenet meeting"}}
    entry = {"sets": {"test_meeting": set_scores(120.25, -12.5)}}
    text = terminal.table(sets_of(**changes), {"base": entry, "base_td_opd": entry})
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[-1].split() == ["Base+TD+OPD", "120.25", "119.25", "to", "122.25", "-12.5", "%", "5.92"]
    assert "miniature" in text and "miniature" not in terminal.table(sets_of(**changes, scale="paper"), {"base": entry})


def test_table_shows_unknown_rate_as_dash():
    lines = terminal.table(SETS, {"base": run_scores(None)}).splitlines()
    assert lines[-1].split()[1:] == ["Base", "-", "-", "-", "7.17"]


def test_table_of_a_corpus_that_is_not_in_the_paper_does_not_mention_it():
    text = terminal.table(sets_of(paper={}), SCORES)
    assert "paper" not in text and text.startswith("Table 1: librispeech (miniature)\n")


def test_table_ends_with_teacher_and_wrapped_warnings():
    doubtful = run_scores(20, -50)
    doubtful["sets"]["test-clean"]["warnings"] = ["transcripts hardly depend on the audio " + "and so on " * 9]
    lines = terminal.table(SETS, SCORES | {"base_opd": doubtful}).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[:3] for line in lines[3:6]] == [
        ["test-clean", "Teacher", "5.00"],
        ["Base", "40.00", "39.00"],
        ["Base+OPD", "20.00", "!"],
    ]
    start = lines.index("Teacher: `qwen3_asr`, /models/Qwen3-ASR-1.7B, weights 0123456789ab")
    assert lines[start + 1].startswith("! Base+OPD, test-clean: transcripts hardly depend on the audio")
    assert lines[start + 2].startswith("  ")


def test_table_of_mixed_metrics_or_long_names_has_a_line_for_each_test_set():
    long = "a-set-with-quite-a-long-name-that-leaves-no-room-for-numbers"
    scores = {run: {"sets": {"en": set_scores(20, -50), long: set_scores(20)}} for run in ("base", "base_td_opd")}
    scores["base"]["sets"].pop(long)
    sets = [replace(each, name=name) for each, name in zip(SETS, ("en", long), strict=True)]
    for shown, heading in ((sets, "WER %"), ([sets[0], replace(sets[1], metric="cer")], "error %")):
        lines = terminal.table(shown, scores).splitlines()
        assert max(map(len, lines)) <= 80 and heading in lines[2] and "paper" in lines[2]
        metric = shown[1].metric.upper()
        assert [line.split()[:2] for line in lines[3:]] == [
            ["en", "(WER)"],
            ["Base", "20.00"],
            ["Base+TD+OPD", "20.00"],
            [long, f"({metric})"],
            ["Base+TD+OPD", "20.00"],
        ]

"""Tables of parts of the test sets."""

from __future__ import annotations

from score_examples import SETS, rows_of, run_scores

from arkasr.reporting import breakdown_tables


def part(label, rate, utterances=5):
    return {"label": label, "utterances": utterances, "reference_length": 50, "errors": 5, "rate_percent": rate}


def scores():
    content = {"base": run_scores(40), "base_opd": run_scores(20, -50)}
    for run, factor in (("base", 2), ("base_opd", 1)):
        content[run]["sets"]["test-clean"] |= {
            "breakdown": {
                "duration": [part("under 2 s", 10.0 * factor), part("2 to 5 s", 5.0 * factor)],
                "speaker": [part("s1", 1.0), part("s2", 9.0 * factor), part("s3", 3.0), part("s|4", None)],
            },
            "hallucination": {
                "clips": 8,
                "clips_with_words": 2 * factor,
                "clips_percent": 25.0 * factor,
                "words": 3 * factor,
                "seconds": None,
                "words_per_minute": None,
            },
        }
    return content


def test_by_class_has_a_column_for_each_run():
    header, _, *rows = rows_of(breakdown_tables.by_class(SETS, scores(), "duration"))
    assert header == ["Set", "Duration", "Clips", "Length", "Base", "Base+OPD"]
    assert rows == [
        ["test-clean", "under 2 s", "5", "50", "20.00", "10.00"],
        ["test-clean", "2 to 5 s", "5", "50", "10.00", "5.00"],
    ]


def test_by_class_shows_a_dash_for_a_run_without_the_breakdown():
    content = scores()
    del content["base"]["sets"]["test-clean"]["breakdown"]
    assert rows_of(breakdown_tables.by_class(SETS, content, "duration"))[2][4:] == ["-", "10.00"]


def test_by_speaker_shows_the_spread_and_the_worst_speaker():
    _, _, first, second = rows_of(breakdown_tables.by_speaker(SETS, scores()))
    assert first == ["test-clean", "Base", "4", "1.00", "3.00", "18.00", "s2"]
    assert second[3:] == ["1.00", "3.00", "9.00", "s2"]


def test_on_silence_counts_clips_and_words():
    _, _, first, second = rows_of(breakdown_tables.on_silence(SETS, scores()))
    assert first == ["test-clean", "Base", "8", "4 (50.0 %)", "6", "-"]
    assert second == ["test-clean", "Base+OPD", "8", "2 (25.0 %)", "3", "-"]


def test_tables_are_empty_without_such_scores():
    old = {"base": run_scores(40)}
    assert breakdown_tables.by_class(SETS, old, "condition") == breakdown_tables.by_speaker(SETS, old) == ""
    assert breakdown_tables.on_silence(SETS, old) == ""

"""Scores add up over data directories, test sets and runs, and say what has changed since."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from decoded import ENGLISH, MANDARIN, scores_of, write_data, write_hypotheses, write_manifest
from score_examples import rows_of

from arkasr.errors import UserError
from arkasr.reporting.score import score

EN, ZH = {"u1": "the cat sat", "u2": "a dog"}, {"z1": "\u6211\u4eec", "z2": "\u4f60\u597d"}
EN_WRONG, ZH_WRONG = {"u1": "the cat sat", "u2": "a frog"}, {"z1": "\u6211", "z2": "\u4f60\u597d"}


@pytest.fixture
def two(tmp_path):
    """Two data directories, and the runs `base` and `base_opd` that were decoded on both."""
    exp, en, zh = (tmp_path / name for name in ("exp", "en", "zh"))
    write_data(en, "libri", {"test-en": EN}, ENGLISH)
    write_data(zh, "aishell", {"test-zh": ZH}, MANDARIN)
    for run, english, mandarin in (("base", EN_WRONG, ZH_WRONG), ("base_opd", EN, ZH)):
        (exp / run / "final").mkdir(parents=True)
        (exp / run / "final" / "weights").write_text(run)
        write_hypotheses(exp, run, "test-en", english, en / "test-en.jsonl.gz")
        write_hypotheses(exp, run, "test-zh", mandarin, zh / "test-zh.jsonl.gz")
    return exp, en, zh


def table(exp, heading):
    """Return the rows of the first table below a heading of RESULTS.md."""
    return rows_of((exp / "RESULTS.md").read_text().split(heading, 1)[1].split("\n#", 1)[0])


def test_scores_of_two_data_directories_add_up_with_their_own_metrics(two, capsys):
    exp, en, zh = two
    score(str(exp), str(en), ["base", "base_opd"])
    score(str(exp), str(zh), ["base", "base_opd"])
    sets = scores_of(exp)["sets"]
    assert {name: entry["rate_percent"] for name, entry in sets.items()} == {"test-en": 20, "test-zh": 25}
    facts = {key: sets["test-zh"][key] for key in ("metric", "language", "corpus", "datadir", "manifest")}
    assert facts == {
        "metric": "cer",
        "language": "Chinese",
        "corpus": "aishell",
        "datadir": str(zh),
        "manifest": str(zh / "test-zh.jsonl.gz"),
    }
    assert sets["test-zh"]["profile"]["name"] == sets["test-en"]["profile"]["name"] == "unicode"
    header, _, base, opd = table(exp, "## Table 1")[:4]
    assert header[1:3] == ["test-en WER [95 %]", "test-zh CER [95 %]"]
    assert (base[1].split()[0], base[2].split()[0], opd[1].split()[0]) == ("20.00", "25.00", "0.00")
    where = table(exp, "### Test sets")
    assert [[*row[:3], Path(row[-1]).resolve()] for row in where[2:]] == [
        ["test-en", "libri", "English", en / "test-en.jsonl.gz"],
        ["test-zh", "aishell", "Chinese", zh / "test-zh.jsonl.gz"],
    ]
    changes = table(exp, "### Change from Base")
    assert [cell.split()[0] for cell in changes[2][1:]] == ["-100.0", "-100.0"]
    text = (exp / "RESULTS.md").read_text()
    assert text.startswith("# Results: libri, aishell, miniature") and "(!)" not in text
    assert "words (WER) or characters (CER)" in text and "scored with: profile `unicode` version 1," in text
    for data in (en, zh):
        assert f"arkasr score --expdir {exp} --datadir {data} --runs 'base base_opd'" in text
    lines = capsys.readouterr().out.split("Table 1: ")[-1].splitlines()
    assert [line.split()[:2] for line in lines[3:6]] == [["test-en", "(WER)"], ["Base", "20.00"], ["Base+OPD", "0.00"]]


def test_scoring_again_replaces_only_its_own_test_sets(two):
    exp, en, zh = two
    for data in (en, zh):
        score(str(exp), str(data), ["base"])
    before = scores_of(exp)["sets"]
    write_hypotheses(exp, "base", "test-en", EN, en / "test-en.jsonl.gz")
    score(str(exp), str(en), ["base"])
    after = scores_of(exp)["sets"]
    assert after["test-en"]["rate_percent"] == 0
    assert after["test-zh"] == before["test-zh"] | {"outdated": []}


def change_hypotheses(exp, zh):
    write_hypotheses(exp, "base", "test-zh", ZH)


def change_references(exp, zh):
    write_manifest(zh / "test-zh.jsonl.gz", ZH | {"z1": "\u4ed6"}, "Chinese")


def change_weights(exp, zh):
    (exp / "base" / "final" / "weights").write_text("trained again")
    write_hypotheses(exp, "base", "test-en", EN, zh.parent / "en" / "test-en.jsonl.gz")


def change_profile(exp, zh):
    scores = scores_of(exp)
    scores["sets"]["test-zh"]["profile"]["version"] = "0"
    (exp / "base" / "scores.json").write_text(json.dumps(scores))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (change_hypotheses, "its hypotheses"),
        (change_references, "clips or texts of {zh}/test-zh.jsonl.gz"),
        (change_weights, "weights in {exp}/base/final"),
        (change_profile, "scoring profile unicode (version 0)"),
        (lambda exp, zh: (zh / "test-zh.jsonl.gz").unlink(), ""),  # gone, so that nothing can be compared
    ],
)
def test_earlier_test_set_is_marked_if_it_has_changed_since(two, change, what, capsys):
    exp, en, zh = two
    for data in (zh, en):
        score(str(exp), str(data), ["base"])
    change(exp, zh)
    score(str(exp), str(en), ["base"])
    text, row = (exp / "RESULTS.md").read_text(), table(exp, "## Table 1")[2]
    clause = f"changed since it was scored: {what.format(exp=exp, zh=zh)}; run --stage 5 on it again"
    assert (f"- Base, test-zh: {clause}." in text) == bool(what)
    assert row[1].endswith("(!)") == bool(what) and "(!)" not in row[2]
    assert scores_of(exp)["sets"]["test-zh"]["outdated"] == ([clause] if what else [])


def test_comparison_with_base_is_dropped_if_base_was_decoded_again(two):
    exp, en, zh = two
    for data in (en, zh):
        score(str(exp), str(data), ["base", "base_opd"])
    write_hypotheses(exp, "base", "test-en", EN, en / "test-en.jsonl.gz")
    score(str(exp), str(en), ["base"])
    rows = table(exp, "### Change from Base")
    assert rows[2][1] == "-" and rows[2][2].startswith("-100.0 %")
    assert "- Base+OPD, test-en: Base was decoded again since" in (exp / "RESULTS.md").read_text()


def test_runs_that_are_not_scored_now_keep_their_rows_and_base_is_compared_with(two):
    exp, en, _ = two
    score(str(exp), str(en), ["base"])
    (exp / "broken").mkdir()
    (exp / "broken" / "scores.json").write_text("{")
    score(str(exp), str(en), ["base_opd"])
    assert [row[0] for row in table(exp, "## Table 1")[2:4]] == ["Base", "Base+OPD"]
    assert scores_of(exp, "base_opd")["sets"]["test-en"]["against_base"]["relative_percent"] == -100


def test_run_that_was_not_scored_on_a_set_has_a_dash(two):
    exp, en, zh = two
    score(str(exp), str(en), ["base", "base_opd"])
    score(str(exp), str(zh), ["base"])
    rows = {row[0]: row for row in table(exp, "## Table 1")}
    assert rows["Base+OPD"][2] == "-" and rows["Base"][2].startswith("25.00")
    assert [row[:2] for row in table(exp, "## Counts")[2:]] == [
        ["Base", "test-en (WER)"],
        ["Base+OPD", "test-en (WER)"],
        ["Base", "test-zh (CER)"],
    ]


def test_two_test_sets_of_one_name_are_refused(two, tmp_path):
    exp, en, _ = two
    score(str(exp), str(en), ["base"])
    other = write_data(tmp_path / "other", "other", {"test-en": {"u1": "other words"}}, ENGLISH)
    before = (exp / "base" / "scores.json").read_bytes()
    message = f"{other}/test-en.jsonl.gz: the scores of base are of another test set with the name test-en ({en}/test-"
    with pytest.raises(UserError, match=re.escape(message) + r".*--test_sets NAME="):
        score(str(exp), str(other), ["base"])
    assert (exp / "base" / "scores.json").read_bytes() == before


def test_moved_data_directory_is_the_same(two, tmp_path):
    exp, en, _ = two
    score(str(exp), str(en), ["base"])
    en.rename(tmp_path / "moved")
    score(str(exp), str(tmp_path / "moved"), ["base"])
    assert list(scores_of(exp)["sets"]) == ["test-en"] and scores_of(exp)["sets"]["test-en"]["datadir"].endswith(
        "moved"
    )


def test_scores_of_older_versions_are_read(two):
    exp, en, zh = two
    score(str(exp), str(zh), ["base"])
    old = scores_of(exp)
    entry = old["sets"]["test-zh"]
    kept = {key: entry[key] for key in ("utterances", "rate_percent", "interval_percent", "reference_length", "hits")}
    rest = ("substitutions", "deletions", "insertions", "errors", "utterances_with_errors", "empty_references")
    kept |= {key: entry[key] for key in (*rest, "transcripts", "missing_hypotheses", "empty_hypotheses", "not_stopped")}
    kept |= {key: entry[key] for key in ("looping", "distinct_hypotheses", "most_frequent_hypothesis", "warnings")}
    header = {
        "metric": "cer",
        "normalizer": {"name": "mandarin", "version": "2"},
        "jiwer": "3.0.0",
        "bootstrap": old["bootstrap"],
    }
    (exp / "base" / "scores.json").write_text(json.dumps({"run": "base", **header, "sets": {"test-zh": kept}}))
    score(str(exp), str(en), ["base"])
    assert scores_of(exp)["sets"]["test-zh"]["metric"] == "cer"
    assert table(exp, "### Test sets")[2][-1] == "not recorded"


def test_rows_keep_their_order_when_other_runs_are_scored_later(two):
    exp, en, _ = two
    score(str(exp), str(en), ["base_opd"])
    score(str(exp), str(en), ["base"])
    assert [row[0] for row in table(exp, "## Table 1")[2:]] == ["Base", "Base+OPD"]
    score(str(exp), str(en), ["base_opd"])
    assert [row[0] for row in table(exp, "## Table 1")[2:]] == ["Base", "Base+OPD"]

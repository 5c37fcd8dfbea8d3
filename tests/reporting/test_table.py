"""`arkasr table`: each score is in its cell, the published numbers are beside it, and bad input is refused."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from score_examples import rows_of
from scored_experiments import entry, numbers, write_metrics, write_scores

from arkasr.cli import TABLE_ARGUMENTS, TABLES, main
from arkasr.errors import UserError
from arkasr.reporting.combined.formats import CSV_HEADER, FORMATS, escape
from arkasr.reporting.combined.table import NAMES, build, table


@pytest.fixture
def libri(tmp_path):
    """LibriSpeech: Base and Base+OPD on both sets, and Base+TD+OPD on test-clean only."""
    folder = tmp_path / "libri"
    clean = entry("Libri clean", unicode=numbers(4.5), paper=numbers(4.0), leaderboard=numbers(3.0, whisper="1"))
    other = entry(
        "Libri Other", clips=2939, unicode=numbers(8.5), paper=numbers(8.0), leaderboard=numbers(7.0, whisper="1")
    )
    sets = {"test-clean": clean, "test-other": other}
    write_scores(folder, "base", sets)
    write_scores(folder, "base_opd", sets)
    write_scores(folder, "base_td_opd", {"test-clean": sets["test-clean"]})
    write_metrics(folder, "base_opd", 50.0, 54.0)
    return folder


@pytest.fixture
def aishell(tmp_path):
    folder, mixed = tmp_path / "aishell", numbers(6, metric="mer")
    for run, rate in (("base", 3.98), ("own_run", 9)):
        write_scores(folder, run, {"test": entry("AISHELL-1", "wenet", wenet=mixed, paper=numbers(rate, metric="cer"))})
    return folder


def records(expdirs, capsys, **options):
    table([str(each) for each in expdirs], "csv", **options)
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def find(rows, title, test_set, model):
    [row] = [
        row for row in rows if row["table"].startswith(title) and (row["test_set"], row["model"]) == (test_set, model)
    ]
    return row


def shown(row):
    return [row[key] for key in ("value", "low", "high", "published_model", "published", "difference", "status")]


def test_table_puts_scores_beside_published_numbers(libri, aishell, capsys):
    rows = records([libri, aishell], capsys)
    assert tuple(rows[0]) == CSV_HEADER
    base = find(rows, "Table 1", "Libri clean", "Base")
    assert shown(base) == ["4", "3", "5", "Ark-Base", "3.75", "0.25", ""] and base["profile"] == "paper 1 (WER)"
    assert base["experiment"] == str(libri) and base["metric"] == "WER"
    assert shown(find(rows, "Table 1", "AISHELL-1", "Base")) == ["3.98", "2.98", "4.98", "Ark-Base", "3.48", "0.5", ""]
    assert shown(find(rows, "Table 1", "AISHELL-1", "own_run")) == ["9", "8", "10", "", "", "", ""]
    assert shown(find(rows, "Table 1", "AISHELL-1", "Base+OPD")) == ["", "", "", "Ark-Base+OPD", "3", "", "not run"]
    assert shown(find(rows, "Table 1", "Wenet net", "Qwen3-ASR-0.6B")) == [
        "",
        "",
        "",
        "Qwen3-ASR-0.6B",
        "5.45",
        "",
        "not run",
    ]
    english = find(rows, "English", "LS Clean", "Base+TD+OPD")
    assert shown(english) == ["3", "2", "4", "Ark-ASR", "1.93", "1.07", ""]
    assert english["profile"] == "leaderboard-2026-08 1 (WER, whisper 1)"
    assert shown(find(rows, "English", "AMI", "Base+TD+OPD")) == ["", "", "", "Ark-ASR", "11.67", "", "not run"]
    assert find(rows, "Chinese", "AISHELL-1", "Base")["value"] == "3.98"


def test_table_1_has_every_published_row_and_column(libri, capsys):
    rows = [row for row in records([libri], capsys) if row["table"].startswith("Table 1")]
    columns = list(dict.fromkeys(row["test_set"] for row in rows))
    assert columns == ["AISHELL-1", "Wenet meeting", "Wenet net", "Libri clean", "Libri other"]
    models = ["Base", "Base+OPD", "Base+TD+OPD", "Qwen3-ASR-0.6B", "Teacher"]
    assert [row["model"] for row in rows] == models * 5


def test_average_needs_every_column(tmp_path, capsys):
    rates = {"AISHELL-1": 1, "Wenet meeting": 2, "Wenet net": 6}
    three = {name: entry(name, "paper", paper=numbers(rate, metric="cer")) for name, rate in rates.items()}
    write_scores(tmp_path / "one", "base_td_opd", three)
    write_scores(tmp_path / "one", "teacher", {"AISHELL-1": three["AISHELL-1"]})
    rows = records([tmp_path / "one"], capsys, names=["chinese"])
    assert shown(find(rows, "Chinese", "Average", "Base+TD+OPD")) == ["3", "", "", "Ark-ASR", "4.3", "-1.3", ""]
    assert shown(find(rows, "Chinese", "Average", "Teacher"))[-1] == "not run"


def test_rows_without_published_number_are_left_out_where_nothing_was_run(libri, capsys):
    rows = records([libri], capsys, names=["english"])
    models = {column: [row["model"] for row in rows if row["test_set"] == column] for column in ("AMI", "LS Clean")}
    published = ["Base+TD+OPD", "Qwen3-ASR-0.6B", "Teacher"]
    assert models == {"AMI": published, "LS Clean": [*published, "Base", "Base+OPD"]}
    assert [row["model"] for row in rows if row["test_set"] == "Average"] == published


def test_table_2_compares_vuss_of_the_same_k_only(libri, tmp_path, capsys):
    write_scores(tmp_path / "small", "base_opd", {"test": entry(unicode=numbers(1.0))})
    write_metrics(tmp_path / "small", "base_opd", 20.0, 24.0, top_k=16)
    rows = [row for row in records([libri, tmp_path / "small"], capsys) if row["table"].startswith("Table 2")]
    mean = {row["model"]: shown(row) for row in rows if row["test_set"] == "Mean"}
    assert mean[f"{libri}: Before TD (Base+OPD), k = 32"] == ["52", "", "", "k = 32", "53.06", "-1.06", ""]
    assert mean[f"{tmp_path}/small: Before TD (Base+OPD), k = 16"] == ["22", "", "", "k = 32", "53.06", "", ""]
    assert mean["After TD (Base+TD+OPD)"] == ["", "", "", "k = 32", "51.61", "", "not run"]


def test_published_checkpoints_are_beside_their_row(tmp_path, capsys):
    facts = {"checkpoint": {"path": "Qwen/Qwen3-ASR-0.6B", "plugin": "qwen3_asr"}}
    write_scores(tmp_path / "one", "qwen", {"test-clean": entry("Libri clean", paper=numbers(2.9))}, **facts)
    rows = records([tmp_path / "one"], capsys, names=["table1"])
    assert shown(find(rows, "Table 1", "Libri clean", "qwen"))[3:6] == ["Qwen3-ASR-0.6B", "2.81", "0.09"]


def test_other_test_sets_use_their_default_profile(libri, capsys):
    own = {"calls": entry("", "raw", raw=numbers(12.0), unicode=numbers(10.0))}
    write_scores(libri.parent / "own", "base", own)
    rows = records([libri, libri.parent / "own"], capsys, names=["other"])
    assert [(row["test_set"], row["model"], row["value"], row["profile"]) for row in rows] == [
        ("corpus calls", "Base", "12", "raw 1 (WER)")
    ]
    assert records([libri], capsys, names=["other"]) == []


def test_scores_of_versions_without_profiles_are_of_the_rules_that_they_had(tmp_path, capsys):
    old = {key: value for key, value in entry("Libri clean", unicode=numbers(7.0)).items() if key[:7] != "profile"}
    write_scores(tmp_path / "old", "base", {"clean": old | {"normalizer": {"name": "english", "version": "2"}}})
    rows = records([tmp_path / "old"], capsys, names=["table1"], profile="unicode")
    assert find(rows, "Table 1", "Libri clean", "Base")["value"] == "7"
    assert shown(find(records([tmp_path / "old"], capsys), "Table 1", "Libri clean", "Base"))[-1] == "not scored"


def test_another_profile_has_no_difference(libri, capsys):
    base = find(records([libri], capsys, profile="unicode"), "Table 1", "Libri clean", "Base")
    assert (base["value"], base["published"], base["difference"]) == ("4.5", "3.75", "")
    [first, *_] = build([str(libri)], ["table1"], "unicode")
    assert "Scored with profile unicode. The numbers of the paper are of profile paper" in first.notes[0]


def test_scores_without_the_profile_are_named_not_mixed(libri, capsys):
    write_scores(libri.parent / "zh", "base", {"test": entry("AISHELL-1", unicode=numbers(3.0))})
    rows = records([libri, libri.parent / "zh"], capsys, names=["table1"])
    assert shown(find(rows, "Table 1", "AISHELL-1", "Base"))[-1] == "not scored"
    [first] = build([str(libri.parent / "zh")], ["table1"], "")
    assert any(note.startswith("Base on AISHELL-1: not scored with profile paper. Add it") for note in first.notes)


def test_named_experiments_have_rows_of_their_own(libri, capsys):
    second = libri.parent / "second"
    write_scores(second, "base", {"test-clean": entry("Libri clean", paper=numbers(5.0))})
    rows = records([libri, f"wide={second}"], capsys, names=["table1"])
    assert find(rows, "Table 1", "Libri clean", "wide: Base")["value"] == "5"
    assert find(rows, "Table 1", "Libri clean", "Base")["value"] == "4"
    assert shown(find(rows, "Table 1", "Libri other", "wide: Base"))[-1] == "not run"


@pytest.mark.parametrize("layout", ["markdown", "csv", "latex"])
def test_output_is_deterministic_and_complete(libri, aishell, capsys, layout):
    texts = []
    for _ in range(2):
        table([str(libri), str(aishell)], layout)
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    for word in (
        "Table 1",
        "Table 2",
        "English error rates",
        "Chinese error rates",
        "not run",
        "3.75",
        "Qwen3-ASR-1.7B",
    ):
        assert word in texts[0]


def test_markdown_has_columns_of_their_own_for_published_numbers(libri, capsys):
    table([str(libri)], "markdown", ["table1"])
    header, _, *rows = rows_of(capsys.readouterr().out)
    assert header == ["Test set", "Model", "Error rate, % [95 %]", "paper: model", "paper", "Difference"]
    assert rows[15] == ["Libri clean (WER)", "Base", "4.00 [3.00, 5.00]", "Ark-Base", "3.75", "+0.25"]
    assert rows[16][:3] == ["", "Base+OPD", "4.00 [3.00, 5.00]"] and {len(row) for row in rows} == {6}


def test_latex_escapes_and_closes_its_environments(libri, capsys):
    table([f"a_b={libri}"], "latex")
    text = capsys.readouterr().out
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended) == ["table"] * 4 + ["tabular"] * 4
    for line in text.splitlines():
        if line.endswith("\\\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 5
    assert not re.search(r"(?<!\\)[%#_]", text)
    assert (
        escape("5 % of a_b & {c}") == "5 \\% of a\\_b \\& \\{c\\}" and escape("-0.5") == "$-$0.5" and escape("-") == "-"
    )


def test_doubtful_scores_are_marked_and_explained(libri, capsys):
    doubtful = entry("Wenet net", paper=numbers(3.0, metric="cer")) | {"warnings": ["2 of 100 clips not decoded"]}
    write_scores(libri.parent / "wenet", "base", {"net": doubtful})
    table([str(libri.parent / "wenet")], "markdown", ["table1"])
    text = capsys.readouterr().out
    assert "3.00 [2.00, 4.00] (!)" in text and "- (!) Base on Wenet net: 2 of 100 clips not decoded." in text
    rows = records([libri.parent / "wenet"], capsys, names=["table1"])
    assert find(rows, "Table 1", "Wenet net", "Base")["warnings"] == "2 of 100 clips not decoded"


def test_notes_name_small_scales_and_models_with_other_weights(libri, tmp_path):
    small = entry("AISHELL-1", scale="mini", paper=numbers(30.0, metric="cer")) | {"weights": "aaa"}
    write_scores(tmp_path / "mini", "base", {"test": small})
    path = write_scores(libri, "base", {"test-clean": entry("Libri clean", paper=numbers(4.0)) | {"weights": "bbb"}})
    assert path.is_file()
    [first] = build([str(libri), str(tmp_path / "mini")], ["table1"], "")
    assert "No difference from published numbers, scale mini: AISHELL-1." in first.notes
    values = {line.column: (line.published, line.difference) for line in first.lines if line.model == "Base"}
    assert values["AISHELL-1"] == (3.48, None) and values["Libri clean"] == (3.75, pytest.approx(0.25))
    assert "Base: the numbers are of 2 models with different weights." in first.notes


def test_scores_of_other_clips_have_no_difference(tmp_path):
    write_scores(tmp_path / "ami", "base_td_opd", {"test": entry("AMI", clips=900, leaderboard=numbers(12.0))})
    [english] = build([str(tmp_path / "ami")], ["english"], "")
    [line] = [line for line in english.lines if (line.column, line.model) == ("AMI", "Base+TD+OPD")]
    assert (line.value, line.published, line.difference) == (12.0, 11.67, None)
    reason = "900 clips, but the published numbers are of 12643"
    assert english.notes[0] == f"No difference from published numbers, {reason}: AMI."


def refused(*expdirs, profile=""):
    with pytest.raises(UserError) as caught:
        build([str(each) for each in expdirs], NAMES, profile)
    return str(caught.value)


def test_doubled_scores_are_refused(libri, tmp_path):
    second = tmp_path / "again"
    write_scores(second, "base", {"clean": entry("libri clean", paper=numbers(5.0))})
    message = refused(libri, second)
    assert f"{second}/base/scores.json, set clean: {libri} has a score of base on Libri clean too" in message
    assert f"second={second}" in message and "arkasr sweep" in message
    assert refused(libri, libri / ".").endswith("name each experiment once")
    write_scores(second, "base", {name: entry("AMI", paper=numbers(5.0)) for name in ("a", "b")})
    assert "set b: is in the column AMI, and so is a; correct `test`" in refused(second)


def test_different_versions_and_test_sets_in_one_column_are_refused(libri, tmp_path):
    write_scores(tmp_path / "old", "base_td", {"test-clean": entry("Libri clean", paper=numbers(5.0, "0"))})
    message = refused(libri, tmp_path / "old")
    assert "scored with paper 0 (WER)" in message and "with paper 1 (WER); scores of different profiles" in message
    write_scores(tmp_path / "old", "base_td", {"test-clean": entry("Libri clean", clips=7, paper=numbers(5.0))})
    assert "number of clips 7 is not 2620" in refused(libri, tmp_path / "old")
    write_scores(tmp_path / "old", "base_td", {"test-clean": entry("Libri clean", scale="mini", paper=numbers(5.0))})
    assert "scale mini is not paper" in refused(libri, tmp_path / "old")


def test_different_default_profiles_of_one_test_set_are_refused(tmp_path):
    write_scores(tmp_path / "a", "base", {"calls": entry("", "raw", raw=numbers(5.0))})
    write_scores(tmp_path / "b", "base_opd", {"calls": entry("", "unicode", unicode=numbers(5.0))})
    assert "scored with profile unicode, but" in refused(tmp_path / "a", tmp_path / "b")
    assert "unknown" in refused_by_verb(tmp_path / "a")


def refused_by_verb(expdir):
    with pytest.raises(UserError) as caught:
        table([str(expdir)], profile="leaderbord")
    return str(caught.value)


def test_experiments_without_scores_say_which_stage_to_run(libri, tmp_path):
    empty = tmp_path / "empty"
    assert refused(empty).startswith(f"{empty}: no such folder")
    empty.mkdir()
    assert "has no runs" in refused(empty)
    (empty / "base").mkdir()
    (empty / "base" / "run.json").write_text("{}")
    assert refused(empty).endswith("its runs are not decoded; run the recipe from --stage 4")
    (empty / "base" / "decode").mkdir()
    (empty / "base" / "decode" / "test.jsonl").write_text("")
    assert refused(empty).endswith("base decoded, but not scored; run the recipe from --stage 5")
    assert refused(libri / "base").endswith(f"is the folder of one run; name the experiment, {libri}")
    (libri / "base_td" / "decode").mkdir(parents=True)
    (libri / "base_td" / "decode" / "test.jsonl").write_text("")
    tables = build([str(libri)], NAMES, "")
    assert tables[-1].notes[-1] == f"{libri}: base_td decoded, but not scored. Run the recipe from --stage 5."


BROKEN = entry("AMI", paper=numbers(1.0)) | {"profiles": {"paper": {"version": 1, "packages": {}, "metric": "wer"}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('{"run": "base"}', "'sets'"),
        (json.dumps({"sets": {"test": BROKEN}}), "set test, profile paper"),
        (json.dumps({"sets": {"test": BROKEN | {"profiles": []}}}), "'profiles'"),
    ],
)
def test_broken_scores_are_refused(libri, text, message):
    (libri / "base" / "scores.json").write_text(text)
    found = refused(libri)
    assert message in found and f"{libri}/base/scores.json" in found and "--stage 5" in found


def test_what_is_logged_is_no_part_of_the_tables(libri, capsys):
    with (libri / "base_opd" / "metrics.jsonl").open("a") as stream:
        stream.write("torn")
    table([str(libri)], "csv")
    found = capsys.readouterr()
    assert found.out.startswith("table,test_set") and "not a metrics row" in found.err


def test_command_prints_tables_and_refuses_unknown_words(libri, capsys):
    assert main(["table", str(libri), "--tables", "table1", "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("Table 1") == 25
    assert main(["table", str(libri / "none")]) == 2
    assert "no such folder; name an experiment" in capsys.readouterr().err
    for words in (["--tables", "table3"], ["--format", "html"]):
        with pytest.raises(SystemExit):
            main(["table", str(libri), *words])
        assert "invalid choice" in capsys.readouterr().err
    assert TABLES == NAMES and TABLE_ARGUMENTS["--format"]["choices"] == tuple(FORMATS)

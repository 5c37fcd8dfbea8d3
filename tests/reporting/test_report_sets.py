"""What RESULTS.md says about test sets and corpora."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from score_examples import CORPUS, SETS, rows_of

from arkasr.reporting.report_sets import corpora, corpus_facts, test_sets
from arkasr.reporting.shown_sets import facts_of

COUNTS = {"cuts": 4, "hours": 0.5, "speakers": 2, "dropped": {}}


def test_corpus_table_counts_cuts_without_transcript_if_there_are_some():
    assert "Without transcript" not in corpus_facts(CORPUS)
    header, _, row = rows_of(corpus_facts({"sets": {"opd": COUNTS | {"untranscribed": 3}}}))
    assert dict(zip(header, row))["Without transcript"] == "3"


def test_uses_have_hours_and_say_where_they_come_from(tmp_path):
    sets = {"base": COUNTS | {"untranscribed": 0}, "td": COUNTS | {"cuts": 0}}
    sets["opd"] = COUNTS | {"cuts": 9, "hours": 1.25, "untranscribed": 5}
    uses = {use: {"from": value} for use, value in (("base", 0.3), ("td", "none"), ("opd", ["calls", "radio"]))}
    (tmp_path / "corpus.json").write_text(json.dumps(CORPUS | {"sets": sets, "uses": uses}))
    _, table = corpora(str(tmp_path), [])
    assert rows_of(table)[2:] == [
        ["supervised training (Base)", "base", "30 % of the transcribed cuts", "0.500", "4", "0"],
        ["on-policy distillation (OPD)", "opd", "calls, radio", "1.250", "9", "5"],
    ]


def test_uses_of_a_mix_name_its_members(tmp_path):
    sets = {"base": COUNTS | {"members": {"libri": {}, "aishell": {}}}}
    (tmp_path / "corpus.json").write_text(json.dumps(CORPUS | {"sets": sets}))
    assert rows_of(corpora(str(tmp_path), [])[1])[2][2] == "libri, aishell"
    sets["base"]["members"] = {"libri": {"hours": 960, "share": 0.705}, "aishell": {"hours": 150, "share": 0.295}}
    (tmp_path / "corpus.json").write_text(json.dumps(CORPUS | {"sets": sets}))
    assert rows_of(corpora(str(tmp_path), [])[1])[2][2] == "libri 70.5 %, aishell 29.5 %"


def test_every_data_directory_that_is_still_there_has_its_table(tmp_path, capsys):
    folders = [tmp_path / name for name in ("one", "two", "broken")]
    for folder in folders:
        folder.mkdir()
        (folder / "corpus.json").write_text(json.dumps(CORPUS | {"name": folder.name}))
    (folders[2] / "corpus.json").write_text("{")
    sets = [replace(SETS[0], datadir=str(folder)) for folder in (*folders, tmp_path / "gone")]
    sets.append(replace(SETS[0], datadir=str(folders[1]), spec="x=y"))
    parts = corpora(str(folders[0]), sets)
    assert [part for part in parts if part.startswith("#")] == [f"### {f.name}, `{f}`" for f in folders[:2]]
    assert "broken/corpus.json" in capsys.readouterr().out


def test_manifests_near_the_working_directory_are_relative(tmp_path, monkeypatch):
    (tmp_path / "egs" / "mix").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "egs" / "mix")
    paths = [tmp_path / "egs" / "aishell" / "test.jsonl.gz", Path("/elsewhere/test.jsonl.gz")]
    sets = [replace(SETS[0], name=path.parent.name, manifest=path) for path in paths]
    scores = {"base": {"sets": {each.name: facts_of(each) | {"utterances": 1} for each in sets}}}
    assert [row[-1] for row in rows_of(test_sets(sets, scores))[2:]] == ["../aishell/test.jsonl.gz", str(paths[1])]


def test_corpus_facts_show_known_speakers_of_test_sets():
    sets = {"train": COUNTS, "new": COUNTS | {"speakers_in_training": 0}, "test": COUNTS | {"speakers_in_training": 1}}
    cells = [row[3] for row in rows_of(corpus_facts({"sets": sets}))[2:]]
    assert cells == ["2", "2 (0 in training)", "2 (1 in training)"]

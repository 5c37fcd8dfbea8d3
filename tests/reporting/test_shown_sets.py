"""The order, names and metrics of test sets in tables, from what scores.json keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from score_examples import SETS, sets_of

from arkasr.evaluation.paper_numbers import COLUMNS
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.shown_sets import facts_of, is_miniature, labels, metric_names, shown_sets, title


def scores_of(*sets):
    return {"base": {"sets": {each.name: facts_of(each) for each in sets}}}


def paper_set(column):
    mandarin = not column.startswith("Libri")
    scoring = ("cer", ("unicode",), "Chinese") if mandarin else ("wer", ("unicode",), "English")
    manifest, name = SETS[0].manifest.absolute(), column.lower().replace(" ", "-")
    return TestSet(name, manifest, *scoring, "c", column, "paper")


def test_sets_are_read_back_from_scores():
    sets = [replace(each, manifest=each.manifest.absolute(), spec="x=y") for each in SETS]
    assert shown_sets(scores_of(*sets)) == sets


def test_sets_are_in_the_order_of_first_scoring_unless_all_columns_of_the_paper_are_there():
    five = [paper_set(column) for column in ("Libri other", "Libri clean", *COLUMNS[:3])]
    own = TestSet("own", five[0].manifest, "wer", ("unicode",), "German", "own")
    assert shown_sets(scores_of(own, *five[1:])) == [own, *five[1:]]
    found = shown_sets(scores_of(own, *five))
    assert tuple(each.column for each in found) == (*COLUMNS, "") and found[-1] == own
    assert [each.metric for each in found] == ["cer"] * 3 + ["wer"] * 3


def test_entry_that_says_more_is_preferred_to_one_of_an_older_version():
    old = {"test-clean": {"metric": "wer", "profile": {"name": "unicode", "version": "1"}}}
    scores = {"old": {"sets": old}} | scores_of(replace(SETS[0], manifest=SETS[0].manifest.absolute()))
    assert shown_sets(scores)[0].corpus == "librispeech"


@pytest.mark.parametrize(
    ("corpora", "expected"), [(["a", "a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c", "d"], "4 corpora")]
)
def test_title_names_the_corpora(corpora, expected):
    assert title([replace(SETS[0], corpus=name) for name in corpora]) == expected


def test_labels_hold_the_metric_if_metrics_differ():
    mixed = [SETS[0], replace(SETS[1], metric="cer")]
    assert list(labels(SETS).values()) == ["test-clean", "test-other"] and metric_names(SETS) == "WER"
    assert list(labels(mixed).values()) == ["test-clean (WER)", "test-other (CER)"]
    assert metric_names(mixed) == "WER or CER"


def test_one_set_of_a_miniature_makes_a_miniature():
    paper = sets_of(scale="paper")
    assert not is_miniature(paper) and is_miniature([*paper, SETS[0]])

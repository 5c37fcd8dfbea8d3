"""Which labelled clips are trained on, and the reason for each of the others."""

from __future__ import annotations

import json

import pytest
from corpus_fixture import make_cut

from arkasr.evaluation.label_selection import ABOVE, CUT, EMPTY, FAILED, LOOPING, select, with_teacher_text


@pytest.fixture
def corpus(tmp_path):
    facts = {"name": "x", "profiles": ["unicode"], "test_sets": ["test"]}
    (tmp_path / "corpus.json").write_text(json.dumps(facts))
    return tmp_path


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, FAILED),
        ({"hypothesis": " "}, EMPTY),
        ({"hypothesis": "", "looping": True, "stopped": False}, EMPTY),
        ({"hypothesis": "one two", "looping": True, "stopped": False}, LOOPING),
        ({"hypothesis": "one two", "looping": True, "stopped": True}, LOOPING),
        ({"hypothesis": "one two", "looping": False, "stopped": False}, CUT),
        ({"hypothesis": "one two", "looping": None, "stopped": False}, CUT),
        ({"hypothesis": "three two", "looping": False, "stopped": True}, ABOVE),
        ({"hypothesis": "One two.", "looping": False, "stopped": True}, ""),
        ({"hypothesis": "one two", "looping": None, "stopped": None}, ""),
        ({"hypothesis": "one two"}, ""),
    ],
)
def test_select_names_first_reason(corpus, row, reason):
    cut = make_cut(corpus, "c", 0.5, "one two")
    kept, counts = select([cut], {"c": row} if row else {}, 0.4, corpus)
    assert [one.id for one in kept] == ([] if reason else ["c"])
    assert {name for name, number in counts.items() if number} == ({reason} if reason else set())


def test_text_of_teacher_replaces_reference(corpus):
    cut = with_teacher_text(make_cut(corpus, "c", 0.5, "one two"), "two")
    assert cut.supervisions[0].text == "two" and cut.supervisions[0].custom == {"reference": "one two"}


def test_clips_of_a_mix_are_judged_by_the_metric_of_their_member(tmp_path):
    own = {"profiles": ["unicode", "paper"]}
    members = {
        name: {"language": language} | own for name, language in (("en", "English"), ("zh", "Chinese"), ("both", ""))
    }
    facts = {"name": "mix", "test_sets": [], "members": members} | own
    (tmp_path / "corpus.json").write_text(json.dumps(facts))
    texts = {"en/a": ("one two", "one"), "zh/a": ("今天喝水", "今天喝茶"), "both/a": ("今天喝水", "今天喝茶")}
    cuts = []
    for name, (reference, _) in texts.items():
        (cut := make_cut(tmp_path, name.replace("/", "-"), 0.5, reference)).id = name
        cut.supervisions[0].language = "English" if name == "en/a" else "Chinese"
        cuts.append(cut)
    rows = {name: {"hypothesis": hypothesis} for name, (_, hypothesis) in texts.items()}
    kept, counts = select(cuts, rows, 0.4, tmp_path)  # words: 1 of 2 and 1 of 1; characters: 1 of 4
    assert [cut.id for cut in kept] == ["zh/a", "both/a"] and counts[ABOVE] == 1
    assert len(select(cuts, rows, 0.2, tmp_path)[0]) == 0 and len(select(cuts, rows, 0.5, tmp_path)[0]) == 3

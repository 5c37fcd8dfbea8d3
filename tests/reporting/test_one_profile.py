"""Scores by different rules are not shown in one column."""

from __future__ import annotations

import json

import pytest
from decoded import scores_of, write_data, write_hypotheses
from score_examples import rows_of

from arkasr.errors import UserError
from arkasr.reporting.one_profile import rules_of, with_one_profile
from arkasr.reporting.score import score

TEXTS = {"u1": "The cat sat", "u2": "a dog"}
FACTS = {"language": "English", "profiles": ["unicode", "paper"]}


@pytest.fixture
def scored(tmp_path):
    """Return the folders of an experiment with two runs, of which Base is scored, and of its data."""
    data = write_data(tmp_path / "data", "libri", {"test": TEXTS}, FACTS)
    for run in ("base", "base_opd"):
        write_hypotheses(tmp_path / "exp", run, "test", {"u1": "the cat sat", "u2": "a dog"})
    score(str(tmp_path / "exp"), str(data), ["base"])
    return tmp_path / "exp", data


def table(exp, heading):
    part = (exp / "RESULTS.md").read_text().split(heading, 1)[1]
    return rows_of(part.split("\n#", 1)[0])


@pytest.mark.slow
def test_run_that_was_scored_by_another_profile_is_not_shown_beside_it(scored, capsys):
    exp, data = scored
    before = (exp / "base" / "scores.json").read_bytes()
    write_data(data, "libri", {"test": TEXTS}, FACTS | {"profiles": ["raw", "paper"]})
    capsys.readouterr()
    score(str(exp), str(data), ["base_opd"])
    base, opd = table(exp, "## Table 1")[2:4]
    assert (base[1], opd[1].split()[0]) == ("- (!)", "20.00")
    clause = (
        "not shown, because it was scored by profile unicode version 1 and its column by raw version 1; run --stage 5"
    )
    assert f"- Base, test: {clause} on it again." in (exp / "RESULTS.md").read_text()
    assert f"warning: Base, test: {clause}" in capsys.readouterr().out
    assert (exp / "base" / "scores.json").read_bytes() == before  # nothing is lost
    assert scores_of(exp, "base_opd")["sets"]["test"]["against_base"]["difference_percent"] == 0  # both by raw
    score(str(exp), str(data), ["base"])
    assert [row[1].split()[0] for row in table(exp, "## Table 1")[2:4]] == ["20.00", "20.00"]


@pytest.mark.parametrize("change", [{"version": "0"}, {"packages": {"wetext": "0.1.7"}}])
def test_other_versions_of_a_second_profile_are_not_shown(scored, change):
    exp, data = scored
    scores = scores_of(exp)
    scores["sets"]["test"]["profiles"]["paper"] |= change
    (exp / "base" / "scores.json").write_text(json.dumps(scores))
    score(str(exp), str(data), ["base_opd"])
    assert [row[2:4] for row in table(exp, "### Scoring profiles")[2:]] == [
        ["0.00 [0.00, 0.00]", "-"],
        ["0.00 [0.00, 0.00]", "0.00 [0.00, 0.00]"],
    ]
    own = rules_of({"name": "paper", "version": "1"} | change)
    assert f"- profile paper: not shown where it was scored by {own}, because" in (exp / "RESULTS.md").read_text()


@pytest.mark.slow
def test_scores_of_older_versions_have_the_rules_of_unicode(scored):
    exp, data = scored
    scores = scores_of(exp)
    for key in ("profile", "profiles"):
        del scores["sets"]["test"][key]
    scores["sets"]["test"]["normalizer"] = {"name": "english", "version": "2"}
    (exp / "base" / "scores.json").write_text(json.dumps(scores))
    score(str(exp), str(data), ["base_opd"])
    assert [row[1] for row in table(exp, "## Table 1")[2:4]] == ["0.00 [0.00, 0.00]"] * 2
    scores["sets"]["test"]["normalizer"] = {"name": "english", "version": "1"}
    (exp / "base" / "scores.json").write_text(json.dumps(scores))
    score(str(exp), str(data), ["base_opd"])
    assert table(exp, "## Table 1")[2][1] == "- (!)"


@pytest.mark.slow
def test_option_profile_leads_and_the_others_follow(scored):
    exp, data = scored
    score(str(exp), str(data), ["base", "base_opd"], profile="raw")
    entry = scores_of(exp)["sets"]["test"]
    assert (entry["profile"]["name"], list(entry["profiles"])) == ("raw", ["raw", "unicode", "paper"])
    assert [row[1].split()[0] for row in table(exp, "## Table 1")[2:4]] == ["20.00", "20.00"]
    before = (exp / "base" / "scores.json").read_bytes()
    for name, message in (("zh_tn", "has no rules for English"), ("unicod", "did you mean unicode")):
        with pytest.raises(UserError, match=f"--profile {name}, test set test: scoring profile .*{message}"):
            score(str(exp), str(data), ["base"], profile=name)
    assert (exp / "base" / "scores.json").read_bytes() == before


def test_rules_are_those_of_what_is_scored_now_else_of_the_first_run():
    first, second = ({"profile": {"name": name, "version": "1"}, "utterances": 3} for name in ("raw", "paper"))
    scores = {"a": {"sets": {"x": first}}, "b": {"sets": {"x": second}}}
    hidden = [["x" for entry in content["sets"].values() if entry.get("warnings")] for content in
              with_one_profile(scores, {}).values()]  # fmt: skip
    assert hidden == [[], ["x"]]
    shown = with_one_profile(scores, {"b": {"x": second}})
    assert shown["a"]["sets"]["x"]["rate_percent"] is None and shown["b"]["sets"]["x"] == second
    assert shown["a"]["sets"]["x"]["utterances"] == 3 and "warnings" not in first


def test_rules_name_the_packages():
    profile = {"name": "zh_tn", "version": "1", "packages": {"wetext": "0.1.8"}}
    assert rules_of(profile) == "zh_tn version 1 (wetext 0.1.8)"

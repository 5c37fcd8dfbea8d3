"""Data directories and scores of older versions, which named a normaliser."""

from __future__ import annotations

import pytest

from arkasr.scoring.older import profile_of, with_profiles
from arkasr.scoring.profiles import default_profiles


@pytest.mark.parametrize(
    ("facts", "profiles", "scored_as"),
    [
        ({"metric": "wer", "normalizer": "english", "language": "English"}, default_profiles("English"), None),
        ({"metric": "cer", "normalizer": "mandarin", "language": "Chinese"}, default_profiles("Chinese"), None),
        ({"metric": "cer", "normalizer": "characters", "language": "ja"}, ("unicode", "paper"), None),
        ({"metric": "wer", "normalizer": "words", "language": ""}, ("unicode", "paper"), None),
        ({"metric": "cer", "normalizer": "mandarin"}, ("unicode", "paper"), "Chinese"),  # several languages
        ({"metric": "cer", "normalizer": "characters", "language": "Korean"}, ("unicode-cer", "paper"), None),
        ({"metric": "wer", "normalizer": "raw", "language": "German"}, ("raw", "paper"), None),
    ],
)
def test_normalisers_become_profiles_with_the_same_rules(facts, profiles, scored_as):
    found = with_profiles({"cuts": 3} | facts)
    assert tuple(found.pop("profiles")) == profiles and found.pop("scored_as", None) == scored_as
    assert found == {"cuts": 3} | ({"language": facts["language"]} if "language" in facts else {})


@pytest.mark.parametrize(
    "facts",
    [
        {"cuts": 3},
        {"profiles": ["raw"], "normalizer": "english", "metric": "wer"},
        {"metric": "mer", "normalizer": "raw"},
        {"metric": "wer", "normalizer": "mandarin", "language": "Chinese"},  # words of Chinese
        {"metric": "wer", "normalizer": "oral"},
        {"metric": ["wer"], "normalizer": "raw"},
    ],
)
def test_facts_that_no_profile_has_are_left_as_they_are(facts):
    assert with_profiles(facts) == facts


def test_scores_of_the_last_versions_are_those_of_profile_unicode():
    for name, version in (("english", "2"), ("words", "1"), ("mandarin", "2"), ("characters", "1")):
        assert profile_of({"name": name, "version": version}) == {"name": "unicode", "version": "1", "packages": {}}
    assert profile_of({"name": "mandarin", "version": "1"}) == {
        "name": "unicode",
        "version": "mandarin 1",
        "packages": {},
    }
    assert profile_of({"name": "raw", "version": "1"})["name"] == "raw"

"""Speakers of training and test sets are disjoint."""

from __future__ import annotations

import pytest

from arkasr.corpora.synthetic.speakers import make_speakers
from arkasr.corpora.synthetic.synth import ROLES, STUDY_ROLES


@pytest.mark.parametrize(
    "recipe, language", [("librispeech", "English"), ("aishell", "Chinese"), ("wenet_speech", "Chinese")]
)
def test_training_and_test_speakers_are_disjoint(recipe, language):
    speakers_of = {role.part: make_speakers(language, role.people, role.first_number) for role in ROLES[recipe]}
    train = speakers_of.pop(ROLES[recipe][0].part)
    assert len(train) >= 16
    variants = {speaker.voice.name.split("+")[1] for speaker in train}
    numbers = {speaker.number for speaker in train}
    for speakers in speakers_of.values():
        assert not variants & {speaker.voice.name.split("+")[1] for speaker in speakers}
        assert not numbers & {speaker.number for speaker in speakers}
    assert all(role.sentences != "train" for role in ROLES[recipe][1:])


def test_speakers_of_the_study_are_disjoint_and_its_test_voices_are_new():
    roles = STUDY_ROLES["librispeech"]
    speakers = {role.part: make_speakers("English", role.people, role.first_number) for role in roles}
    numbers = [speaker.number for each in speakers.values() for speaker in each]
    assert len(set(numbers)) == len(numbers)
    training = [role.part for role in roles if role.part.startswith("train")]
    variants = {part: {speaker.voice.name.split("+")[1] for speaker in each} for part, each in speakers.items()}
    known = set().union(*(variants[part] for part in training))
    for part in ("dev-clean", "test-clean", "test-other"):
        assert not variants[part] & known and len(speakers[part]) == len({s.voice for s in speakers[part]})
    assert not variants["test-clean"] & variants["test-other"] and not variants["dev-clean"] & variants["test-clean"]
    assert not variants["train-clean-100"] & variants["train-clean-360"]
    assert len(speakers["test-clean"]) >= 20 and len(speakers["test-other"]) >= 20
    assert {role.sentences for role in roles if role.part not in training} == {"dev", "test"}

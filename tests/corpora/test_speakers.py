"""Speakers of training and test sets are disjoint."""

from __future__ import annotations

import pytest

from arkasr.corpora.synthetic.speakers import make_speakers
from arkasr.corpora.synthetic.synth import ROLES


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

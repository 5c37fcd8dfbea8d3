"""Rows of a hypothesis file: token caps from the audio length, and very short clips."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from tiny import batch, eager_to_stop, student, teacher

from arkasr.config.load import load_config
from arkasr.config.schema import DecodeConfig
from arkasr.errors import UserError
from arkasr.evaluation import hypotheses
from arkasr.evaluation.hypotheses import transcribe
from arkasr.interfaces import Transcript


def monotonous(token: int):
    """Return a student that generates only one token, the `token`-th of those it may generate."""
    lm = student(2)
    with torch.no_grad():
        lm.hf.get_input_embeddings().weight.zero_()
    allowed = [i for i in range(len(lm.blocked)) if not lm.blocked[i] and i not in lm.stop_ids]
    lm.blocked[:] = True
    lm.blocked[allowed[token]] = False
    return lm


@pytest.mark.parametrize(
    ("most", "rate", "expected"),
    [(64, 50.0, [3, 7, 52]), (20, 50.0, [3, 7, 20]), (20, 0.0, [20] * 3), (64, 10, [3, 3, 12])],
)
def test_transcribe_caps_tokens_by_audio_length(most, rate, expected):
    rows = transcribe(
        monotonous(40), batch([160, 1600, 16000]), DecodeConfig(max_new_tokens=most, tokens_per_second=rate)
    )
    assert [row["num_tokens"] for row in rows] == expected
    assert not any(row["stopped"] for row in rows)
    assert [row["looping"] for row in rows] == [n >= 12 for n in expected]


@pytest.mark.slow
def test_transcribe_default_cap_allows_fast_speech_in_single_bytes():
    """25 characters per second for 4 s, two single-byte tokens each."""
    [row] = transcribe(monotonous(40), batch([4 * 16000]), DecodeConfig())
    assert row["num_tokens"] >= 2 * 25 * 4


@pytest.mark.parametrize("make", [student, teacher])
def test_transcribe_handles_very_short_and_silent_clips(make):
    lm, config = eager_to_stop(make(10), 2.0), DecodeConfig(max_new_tokens=9, tokens_per_second=12)
    sizes, caps = [1, 80, 160, 1599, 8000], [3, 3, 3, 4, 8]
    clips = batch(sizes)
    clips.waveforms[2:] = [torch.zeros(n) for n in sizes[2:]]  # three silent clips
    rows = transcribe(lm, clips, config)
    for i, (row, cap) in enumerate(zip(rows, caps, strict=True)):
        assert isinstance(row["hypothesis"], str) and 1 <= row["num_tokens"] <= cap
        assert row["stopped"] or row["num_tokens"] == cap
        assert row["seconds"] == round(sizes[i] / 16000, 3)
        assert transcribe(lm, clips.select([i]), config) == [row]


def test_transcribe_of_empty_batch_returns_no_rows():
    assert transcribe(student(1), batch([]), DecodeConfig()) == []


@pytest.mark.parametrize("section", ["decode", "rollout"])
@pytest.mark.parametrize("rate", ["-1", ".inf"])
def test_config_rejects_invalid_tokens_per_second(conf, section, rate):
    with pytest.raises(UserError, match="tokens_per_second must be finite and at least 0"):
        load_config(str(conf), "base", "exp", "data", [f"{section}.tokens_per_second={rate}"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one", (None, None, None)),
        (Transcript("one", False, True, 7), (7, False, True)),
        (Transcript("one"), (None,) * 3),
    ],
)
def test_row_holds_what_the_teacher_reports(text, expected):
    made = hypotheses.row(batch([16000]), 0, text)
    assert type(made["hypothesis"]) is str and made["hypothesis"] == "one"
    assert (made["num_tokens"], made["stopped"], made["looping"]) == expected


def test_transcript_is_a_str_that_survives_pickling():
    text = pickle.loads(pickle.dumps(Transcript("one two", True, False, 3)))
    assert text == "one two" and (text.stopped, text.looping, text.num_tokens) == (True, False, 3)
    assert json.dumps([text]) == '["one two"]' and {"one two": 1}[text] == 1

"""Token caps of the recipes: every transcript fits, whatever the length of the audio."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from arkasr.config.load import load_config
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model.generation import token_caps
from arkasr.model.train_tokenizer import train_byte_bpe, train_sentencepiece
from arkasr.plugins import registry

EGS = Path(__file__).parents[2] / "egs"
READ_ENGLISH = Path(__file__).parents[3] / "shared" / "speech" / "speechocean762"
SYNTHETIC = ("librispeech", "aishell", "wenet_speech")
LETTERS_PER_SECOND, CHARACTERS_PER_SECOND = 20, 8  # of fast speech in English and in Mandarin


@cache
def parts(scale: str) -> dict[str, Any]:
    config = load_config(EGS / "conf" / f"{scale}.yaml", "base_opd", "EXP", "DATA")
    options = registry.check_plugin("teacher", config.teacher.name, config.teacher.options)
    return {"rollout": config.rollout, "decode": config.decode, "teacher": options}


def caps(scale: str, seconds: float) -> dict[str, int]:
    """Return the token caps for one clip: in rollouts, in decoding, and of the teacher's transcripts."""
    clip = torch.zeros(round(seconds * SAMPLE_RATE))
    return {k: token_caps([clip], part.max_new_tokens, part.tokens_per_second)[0] for k, part in parts(scale).items()}


@pytest.mark.parametrize("seconds", [0.5, 3.0, 12.0, 30.0])
def test_mini_caps_hold_fast_speech_in_single_bytes(seconds):
    """Byte fallback writes characters that the tokenizer's training text lacks. One more token stops the transcript."""
    most = 1 + seconds * max(LETTERS_PER_SECOND, 3 * CHARACTERS_PER_SECOND)
    assert all(cap >= most for cap in caps("mini", seconds).values())


@pytest.mark.parametrize("seconds", [0.5, 3.0, 12.0, 30.0, 35.0])
def test_paper_caps_hold_fast_speech_in_qwens_tokens(seconds):
    """Qwen's tokens hold 2 letters of English or one Chinese character, if not more."""
    most = 1 + seconds * max(LETTERS_PER_SECOND / 2, CHARACTERS_PER_SECOND)
    assert all(cap >= most for cap in caps("paper", seconds).values())


def test_caps_hold_sentences_of_33_words():
    """They need 55 to 83 tokens of the student at scale mini and 40 to 63 of the teacher, in at least 8 seconds."""
    assert min(caps("mini", 8.0).values()) > 83
    assert min(caps("mini", 20.0).values()) < max(caps("mini", 30.0).values())


@pytest.mark.slow
@pytest.mark.parametrize("corpus", SYNTHETIC)
def test_caps_hold_every_transcript_of_the_synthetic_corpora_in_single_bytes(corpus):
    pytest.importorskip("espeakng_loader")
    from arkasr.corpora.synthetic.synth import ROLES, clips

    language = "English" if corpus == "librispeech" else "Chinese"
    for role in ROLES[corpus]:
        for clip in clips(language, role, 40, seed=20):
            text = (" " if language == "English" else "").join(clip.words)
            room = caps("mini", len(clip.samples) / SAMPLE_RATE)
            assert len(text.encode()) + 1 <= min(room.values()), (text, room)


@pytest.mark.slow
@pytest.mark.skipif(not READ_ENGLISH.is_dir(), reason="the recordings are not in this checkout")
def test_caps_hold_every_transcript_of_read_english_in_tokens_of_the_recipe():
    """The longest need 7.7 tokens per second of the student and 7.1 of the teacher, 33 words 66 and 54 tokens."""
    rows = [json.loads(line) for path in READ_ENGLISH.glob("*.jsonl") for line in path.open(encoding="utf-8")]
    texts = [row["text"].upper() for row in rows]
    for tokenizer in (train_sentencepiece(texts, 200), train_byte_bpe(texts, 600)):
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        assert 50 < 33 * sum(map(len, ids)) / sum(len(text.split()) for text in texts) < 70
        for row, one in zip(rows, ids, strict=True):
            assert len(one) + 1 <= min(caps("mini", row["duration"]).values()) / 2

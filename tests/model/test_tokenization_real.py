"""Token bytes, prompts, blocked ids and text policies with the real tokenizer of Qwen3."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import pytest
from hypothesis import example, given, settings
from mapper_cases import TEXT
from real_tokenizer import NUM_BASE, TEXTS, VOCAB_SIZE, bytes_of, needs_tokenizer, plain, with_tokens
from tiny import bpe_bytes, student, teacher

from arkasr.model.arkasr.prompt import INSTRUCTION, prompt_parts
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS, blocked_ids, holds_reserved_tokens

pytestmark = [needs_tokenizer, pytest.mark.slow]
MODELS = {"arkasr": (ARK_TOKENS, student), "qwen3_asr": (QWEN_TOKENS, teacher)}


def ids_of(text, kind="arkasr"):
    return with_tokens(kind).encode(text, add_special_tokens=False)


@lru_cache
def model(kind):
    return MODELS[kind][1](0, with_tokens(kind))


def test_token_bytes_are_those_of_the_vocabulary():
    table = bytes_of()
    assert {i: piece for i, piece in enumerate(table) if piece is not None} == bpe_bytes(plain())
    assert [i for i, piece in enumerate(table) if piece is None] == list(range(NUM_BASE, len(plain())))
    assert table[plain().convert_tokens_to_ids("<unk>")] == b"<unk>"  # an ordinary token, which Qwen's has


@settings(max_examples=100, deadline=None)
@given(TEXT)
@example("甚至出现 mixed 文本")
def test_bytes_of_ids_are_the_composed_text(text):
    table, composed = bytes_of(), unicodedata.normalize("NFC", text)
    ids = plain().encode(text, add_special_tokens=False)
    assert b"".join(table[i] for i in ids) == composed.encode()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_transcript_is_restored_from_its_ids(kind, text):
    lm = model(kind)
    ids = lm.text_ids(text)
    assert lm.text(ids) == text.strip()
    assert not holds_reserved_tokens(ids, lm.blocked_ids, lm.stop_ids)


@pytest.mark.parametrize("kind", MODELS)
def test_special_tokens_of_the_prompt_are_single_ids_and_the_rest_is_ordinary(kind):
    lm = model(kind)
    for language in ("English", "Chinese"):
        text = "".join(lm.prompt_text(language))
        ids, specials = ids_of(text, kind), re.findall(r"<[^<>]+>", text)
        tokens = lm.tokenizer.convert_ids_to_tokens(ids)
        assert [token for token in tokens if token in MODELS[kind][0]] == specials
        ordinary = b"".join(bytes_of(kind)[i] or b"" for i in ids)
        assert ordinary.decode() == re.sub(r"<[^<>]+>", "", text)
    assert INSTRUCTION in "".join(prompt_parts())


@pytest.mark.parametrize("kind", MODELS)
def test_blocked_are_all_added_tokens_but_the_stop(kind):
    tokenizer = with_tokens(kind)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    blocked = blocked_ids(tokenizer, [stop], VOCAB_SIZE)
    assert blocked.nonzero()[:, 0].tolist() == [i for i in range(NUM_BASE, VOCAB_SIZE) if i != stop]


@pytest.mark.parametrize(
    ("text", "reserved"),
    [
        ("he said <think> aloud", True),
        ("the tag <tool_call>", True),
        ("end <|im_end|> early", True),
        ("<|user|>", True),
        ("a < b and c > d", False),
        ("<unk>", False),
        ("<|im_end", False),
    ],
)
def test_texts_that_spell_special_tokens_are_recognised(text, reserved):
    lm = model("arkasr")
    assert holds_reserved_tokens(lm.text_ids(text), lm.blocked_ids, lm.stop_ids) is reserved

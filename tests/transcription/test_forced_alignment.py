from __future__ import annotations

from itertools import groupby, product

import pytest
import torch
from tiny import ctc_tokens
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from arkasr.transcription.forced_alignment import align

WORDS = ["a", "b"]  # the tokens 0 and 1 of the head below, and 2 is its blank


def word_tokens() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def byte_tokens() -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE({char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tokenizer


def random_scores(frames: int, classes: int, seed: int) -> torch.Tensor:
    return torch.randn(frames, classes, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def reference_align(scores: torch.Tensor, ids: list[int]) -> tuple[list[tuple[int, int]], float]:
    """Return the frames of the tokens on the best of all paths, and its score."""
    blank, best = scores.shape[1] - 1, None
    for path in product(range(scores.shape[1]), repeat=len(scores)):
        runs, first = [], 0
        for label, run in groupby(path):
            length = len(list(run))
            runs += [(label, first, first + length)] * (label != blank)
            first += length
        score = float(scores[range(len(scores)), path].sum())
        if [label for label, *_ in runs] == ids and (best is None or score > best[1]):
            best = [(start, end) for _, start, end in runs], score
    return best


@pytest.mark.parametrize("text", [["a"], ["a", "b"], ["b", "b"], ["a", "b", "a"], ["b", "a", "a"]])
@pytest.mark.parametrize("seed", range(3))
def test_align_finds_the_best_of_all_paths(text, seed):
    scores = random_scores(6, 3, seed)
    frames, score = reference_align(scores, [WORDS.index(word) for word in text])
    found = align(scores, text, True, word_tokens())
    assert found.frames == frames
    assert found.score == pytest.approx(score, abs=1e-4)


def spelled(tokenizer: Tokenizer, text: str, every: int) -> torch.Tensor:
    """Return scores in which token k of the text is in frame `every * k` and all other frames are blank."""
    ids, classes = tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.get_vocab_size() + 1
    best = torch.full((every * len(ids),), classes - 1)
    best[::every] = torch.tensor(ids)
    return torch.nn.functional.one_hot(best, classes).float().mul(10).log_softmax(-1)


@pytest.mark.parametrize("make", [byte_tokens, ctc_tokens])
def test_words_of_several_tokens_last_from_the_first_to_the_last(make):
    tokenizer, words = make(), ["she", "sells", "the", "sea"]
    found = align(spelled(tokenizer, " ".join(words), 3), words, True, tokenizer)
    assert len(found.frames) == 4
    ids = tokenizer.encode(" ".join(words), add_special_tokens=False)
    assert found.frames[0][0] == 0
    assert found.frames[-1][1] == 3 * (len(ids) - 1) + 1
    for before, after in zip(found.frames, found.frames[1:]):
        assert after[0] == before[1] + 2  # two frames are blank between neighbours
    pieces = [len(tokenizer.encode(part, add_special_tokens=False)) for part in ("she", " sells", " the", " sea")]
    if make is byte_tokens:
        assert [(end - start - 1) // 3 + 1 for start, end in found.frames] == pieces


def test_characters_of_several_bytes_get_all_their_frames():
    tokenizer, parts = byte_tokens(), ["你", "好,", " abc", "吧"]
    found = align(spelled(tokenizer, "你好, abc吧", 1), parts, False, tokenizer)
    assert found.frames == [(0, 3), (3, 7), (7, 11), (11, 14)]


def test_a_text_with_more_tokens_than_frames_is_not_aligned():
    assert align(random_scores(1, 3, 0), ["a", "b"], True, word_tokens()) is None
    assert align(random_scores(2, 3, 0), ["a", "a"], True, word_tokens()) is None  # the blank between them has no room
    assert align(random_scores(3, 3, 0), ["a", "a"], True, word_tokens()).frames == [(0, 1), (2, 3)]


def test_a_text_without_tokens_is_not_aligned():
    assert align(random_scores(4, 3, 0), [""], True, word_tokens()) is None

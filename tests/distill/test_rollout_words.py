"""Correct and wrong words of rollouts, on worked examples and against a slow reference implementation."""

from __future__ import annotations

import random

import pytest

from arkasr.distill.rollout_words import GROUPS, split, word_groups


def tokens(text: str) -> list[bytes]:
    """Write tokens as `a|bc|`, where the last empty one is a stop token."""
    return [token.encode() for token in text.split("|")]


def named(transcript: str, reference: str, language: str = "English", source: str = "student") -> list[str]:
    [groups] = word_groups([tokens(transcript)], [reference], [language], [source])
    return [GROUPS[group] for group in groups]


C, W, N, R = GROUPS


@pytest.mark.parametrize(
    ("transcript", "reference", "expected"),
    [
        ("the| cat| s|at|", "THE CAT SAT", [C, C, C, C, N]),  # case does not count
        ("the| cat| s|it|", "the cat sat", [C, C, W, W, N]),  # both tokens of the substituted word
        ("the| big| cat|", "the cat", [C, W, C, N]),  # an inserted word
        ("the|,| sat|.|", "the cat sat", [C, C, C, C, N]),  # a deleted word has no token, `sat.` is one piece
        ("the| ,| cat|", "the cat", [C, N, C, N]),  # a sign alone is no word
        ("well|-|known| fact|", "well knows fact", [W, W, W, C, N]),  # one piece of two words, one of them wrong
        ("a| b", "a b", [C, C]),  # cut off: no stop token
        ("|", "a b", [N, N]),  # an empty transcript
        ("uh| huh|", "...", [W, W, N]),  # a reference without words: all is inserted
        ("a| b|", " ", [R, R, R]),  # no reference
    ],
)
def test_word_groups_on_worked_examples(transcript, reference, expected):
    assert named(transcript, reference) == expected


def test_word_groups_of_texts_that_the_student_did_not_write():
    assert named("a| x|", "a b", source="reference") == [N, N, N]
    assert named("a| x|", "a b", source="teacher") == [N, N, N]


def test_word_groups_by_characters():
    """For languages scored by CER each character is a word. A token with one wrong character is wrong."""
    assert named("今天|天气|", "今天天空", "Chinese") == [C, W, N]
    assert named("打开|ＡPP|。|", "打开 app", "Chinese") == [C, C, N, N]  # noqa: RUF001
    halves = "气".encode()
    [groups] = word_groups([["天".encode(), halves[:2], halves[2:], b""]], ["天气"], ["Chinese"], ["student"])
    assert [GROUPS[group] for group in groups] == [C, C, C, N]  # two tokens of one character
    [groups] = word_groups([["天".encode(), halves[:2]]], ["天气"], ["Chinese"], ["student"])
    assert [GROUPS[group] for group in groups] == [C, N]  # half a character is none
    assert named("cafe\u0301|", "café", "German") == [C, N]
    assert named("e\u0301|", "é", "Chinese") == [C, N]


def test_word_groups_of_unknown_language_are_words():
    assert named("qo| vI|", "qo vi", "Klingon") == [C, C, N]


def test_split_returns_byte_ranges():
    assert split("Ä b,  c".encode(), "German") == [(0, 2, ["ä"]), (3, 5, ["b"]), (7, 8, ["c"])]


def reference_distance(left: list[str], right: list[str]) -> int:
    """Return the fewest substitutions, deletions and insertions, by plain recursion over prefixes."""
    row = list(range(len(right) + 1))
    for i, one in enumerate(left, 1):
        before, row = row, [i]
        for j, other in enumerate(right, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (one != other)))
    return row[-1]


def test_word_groups_agree_with_edit_distance():
    """One token per word: correct tokens are words of the reference in its order, and no fewer edits are possible."""
    draw = random.Random(5)
    for _ in range(200):
        reference, words = ([draw.choice("abcd") for _ in range(draw.randint(1, 9))] for _ in range(2))
        transcript = [f" {word}".encode() for word in words]
        [groups] = word_groups([transcript], [" ".join(reference)], ["English"], ["student"])
        correct = [word for word, group in zip(words, groups) if GROUPS[group] == C]
        assert set(groups) <= {GROUPS.index(C), GROUPS.index(W)}
        rest = iter(reference)
        assert all(word in rest for word in correct)  # a common subsequence
        unmatched = len(reference) - len(correct), len(words) - len(correct)
        substituted = sum(unmatched) - reference_distance(reference, words)  # each takes one of both sides
        assert 0 <= substituted <= min(unmatched)

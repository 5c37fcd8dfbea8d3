"""Bonus and back-off of hotwords, against plain searches in token sequences."""

from __future__ import annotations

import copy

import pytest
import torch
from hotword_reference import bonuses, reference_match, reference_occurrences
from hypothesis import given, settings
from hypothesis import strategies as st
from real_tokenizer import needs_tokenizer, plain
from tiny import student_tokenizer, teacher_tokenizer

from arkasr.errors import UserError
from arkasr.model.hotwords.automaton import Automaton, hotword_automaton
from arkasr.model.hotwords.compiled import hotword_tables, to_tables
from arkasr.model.hotwords.phrases import Phrase, spellings

WEIGHT = 0.5
# Tokens 0 to 3 begin a word, 4 and 5 continue it, 6 is a comma, 7 ends the text.
BEGINS = [False, False, False, False, True, True, False, False]
ENDS = [True, True, True, True, True, True, False, False]
STOP = 7
token = st.integers(0, 6)


@st.composite
def phrase(draw):
    ids = tuple(draw(st.lists(token, min_size=1, max_size=4)))
    return Phrase(ids, inside=not BEGINS[ids[0]], closed=ENDS[ids[-1]])


many = st.lists(phrase(), min_size=1, max_size=6)
text = st.lists(token, max_size=14)


def bonus_of(tables, states):
    return tables.add_bonus(torch.zeros(len(states), len(tables.outside)), torch.tensor(list(states)))


def automaton(phrases):
    return Automaton(phrases, BEGINS, ENDS, WEIGHT)


@settings(max_examples=60, deadline=None)
@given(many, text)
def test_state_is_the_longest_end_of_the_text_that_begins_a_hotword(phrases, ids):
    found, state = automaton(phrases), 0
    for place, each in enumerate(ids, 1):
        state = found.next(state, each)
        assert found.depth[state] == len(reference_match(phrases, ids[:place], ENDS))
        assert found.root[state] == ENDS[each]


@settings(max_examples=60, deadline=None)
@given(many, text)
def test_text_without_a_whole_hotword_gains_nothing(phrases, ids):
    total = sum(bonuses(automaton(phrases), [*ids, STOP]))
    whole = [phrase for _, phrase in reference_occurrences(phrases, ids, BEGINS, ENDS)]
    assert total >= WEIGHT * max((len(each.ids) for each in whole), default=0)
    assert whole or total == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([(0, 4), (1,), (2, 3, 5)]), min_size=1, unique=True), text)
def test_hotwords_without_common_tokens_earn_their_bonus_once_per_occurrence(chosen, ids):
    phrases = [Phrase(each, True, True) for each in chosen]
    whole = reference_occurrences(phrases, ids, BEGINS, ENDS)
    assert sum(bonuses(automaton(phrases), [*ids, STOP])) == WEIGHT * sum(len(each.ids) for _, each in whole)


def test_bonus_matches_values_by_hand():
    found = automaton([Phrase((0, 1), True, True), Phrase((1, 2, 3), True, True)])
    assert bonuses(found, [0, 1, 6]) == [0.5, 0.5, 0]  # whole
    assert bonuses(found, [0, 2]) == [0.5, -0.5]  # left after one token
    assert bonuses(found, [0, 1, 4]) == [0.5, 0.5, -1]  # a part of a longer word
    assert bonuses(found, [0, 0, 1, STOP]) == [0.5, 0, 0.5, 0]  # pays back 0.5 and begins again
    assert bonuses(found, [1, 2, 0]) == [0.5, 0.5, -0.5]  # pays back 1.0 and begins another
    assert bonuses(found, [0, 1, 2, 3, STOP]) == [0.5, 0.5, 1.0, 0.5, 0]  # both: five tokens


@settings(max_examples=60, deadline=None)
@given(many, text)
def test_tokens_of_a_match_are_unfinished_without_a_whole_hotword(phrases, ids):
    found, state = automaton(phrases), 0
    for each in ids:
        state = found.next(state, each)
    match = reference_match(phrases, ids, ENDS)
    for kind, following in enumerate((0, 4)):
        occurrences = reference_occurrences(phrases, [*ids, following], BEGINS, ENDS)
        ends = [start + len(each.ids) for start, each in occurrences if start >= len(ids) - len(match)]
        inside = [end for end in ends if end <= len(ids)]
        assert (found.unfinished[state][kind] == len(match)) == (not inside or not match)
        is_whole = any((start, each.ids) == (len(ids) - len(match), match) for start, each in occurrences)
        assert not is_whole or found.unfinished[state][kind] == 0


def test_hotword_inside_another_keeps_its_bonus_if_the_longer_one_fails():
    found = automaton([Phrase((0, 1, 2), True, True), Phrase((1,), True, True)])
    assert bonuses(found, [0, 1, 6]) == [0.5, 0.5, -0.5]
    longer = automaton([Phrase((0,), True, True), Phrase((0, 1, 2), True, True)])
    assert bonuses(longer, [0, 1, 6]) == [0.5, 0.5, -0.5]
    assert bonuses(automaton([Phrase((0,), True, True), Phrase((0, 4), True, True)]), [0, 4, 5]) == [0.5, 0.5, -1]


@settings(max_examples=60, deadline=None)
@given(many, st.lists(text, min_size=1, max_size=4))
def test_tables_hold_the_automaton(phrases, texts):
    found = automaton(phrases)
    tables = to_tables(found, 10)
    states = []
    for ids in texts:
        state, last = 0, torch.zeros(1, dtype=torch.long)
        for each in ids:
            state, last = found.next(state, each), tables.next(last, torch.tensor([each]))
            assert last.tolist() == [state]
        states.append(state)
    expected = [[found.bonus(state, each) for each in range(8)] for state in states]
    for state in range(len(found.depth)):
        left = [0 if each in found.longer[state] else found.unfinished[state][BEGINS[each]] for each in range(8)]
        assert tables.left(torch.full((8,), state), torch.arange(8)).tolist() == left
        assert tables.is_open(torch.tensor([state])).tolist() == [any(found.unfinished[state])]
    bonus = bonus_of(tables, states)
    assert torch.allclose(bonus[:, :8], torch.tensor(expected), atol=1e-5)
    assert torch.equal(bonus[:, 8:], bonus[:, STOP:].expand(-1, 3)[:, 1:])  # ids beyond the tokenizer


TOKENIZERS = [
    pytest.param(student_tokenizer, id="sentencepiece"),
    pytest.param(teacher_tokenizer, id="byte_bpe"),
    pytest.param(plain, id="qwen3", marks=[needs_tokenizer, pytest.mark.slow]),
]
WHOLE = ["{}", "{} here", "we saw {}", "we saw {}, once", "a well-{}", 'she said "{}"', "{}'s house", "l'{}"]
PARTS = ["pre{}", "the {}ness", "{}2"]


@pytest.mark.parametrize("make", TOKENIZERS)
@pytest.mark.parametrize("hotword", ["Zanzibar", "ark asr", "McAllister"])
def test_hotword_is_found_in_every_tokenisation(make, hotword):
    tokenizer = make()
    found = hotword_automaton([hotword], tokenizer, 1.0)
    encode = lambda text: [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]  # noqa: E731
    for spelling in spellings(hotword):
        for form in WHOLE:
            assert sum(bonuses(found, encode(form.format(spelling)))) > 0, form.format(spelling)
        for form in PARTS:
            assert sum(bonuses(found, encode(form.format(spelling)))) == 0, form.format(spelling)


@pytest.mark.parametrize("make", TOKENIZERS)
@pytest.mark.parametrize("form", ["{}", "我们在{}见面", "他说{}。", "app{}"])
def test_hotword_of_a_script_without_spaces_is_found_anywhere(make, form):
    tokenizer = make()
    ids = [*tokenizer.encode(form.format("方舟"), add_special_tokens=False), tokenizer.eos_token_id]
    assert sum(bonuses(hotword_automaton(["方舟"], tokenizer, 1.0), ids)) > 0


@pytest.mark.parametrize("hotword", ["<|im_end|>", "the <|user|> sea"])
def test_hotword_that_cannot_be_written_is_reported(hotword):
    with pytest.raises(UserError, match="cannot write") as error:
        hotword_automaton(["sea", hotword], student_tokenizer(), 1.0)
    assert hotword in str(error.value) and "sea," not in str(error.value)
    with pytest.raises(UserError, match="empty hotword"):
        hotword_automaton(["sea", " "], student_tokenizer(), 1.0)


def test_number_of_reported_hotwords_is_limited():
    hotwords = [f"<|im_end|> {number}" for number in range(5)]
    with pytest.raises(UserError, match="<|im_end|> 2 and 2 more: the tokenizer"):
        hotword_automaton(hotwords, student_tokenizer(), 1.0)


def test_padding_of_an_earlier_call_is_not_a_part_of_hotwords():
    tokenizer = copy.deepcopy(student_tokenizer())
    expected = hotword_automaton(["sea", "a quick fox"], tokenizer, 1.0).starts
    tokenizer(["a", "longer text"], padding=True)
    assert tokenizer.backend_tokenizer.padding is not None
    assert hotword_automaton(["sea", "a quick fox"], tokenizer, 1.0).starts == expected


def test_tables_of_similar_lists_have_one_shape_and_are_kept():
    tokenizer = student_tokenizer()
    size = len(tokenizer) + 8
    first, second = (hotword_tables([word], tokenizer, size) for word in ("ship", "shop"))
    assert first.shape == second.shape and hotword_tables(["ship"], tokenizer, size) is first
    held = first.clone()
    held.copy_(second)
    assert torch.equal(bonus_of(held, range(3)), bonus_of(second, range(3)))
    assert not torch.equal(bonus_of(held, range(3)), bonus_of(first, range(3)))

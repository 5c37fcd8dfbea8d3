"""The byte-offset mapper against a slow rendering: every teacher token, one at a time, in Python's own numbers."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mapper_cases import SPECIAL, TEXT, chopped, side, with_prefix
from steps import SIZES, InMemory
from tiny import (
    TEXTS,
    batch,
    bpe_bytes,
    eager_to_stop,
    piece_bytes,
    student,
    student_tokenizer,
    teacher,
    teacher_tokenizer,
)

from arkasr.builtin.losses import UnionTopkKl, UnionTopkKlOptions
from arkasr.builtin.mappers.byte_offsets import STEPS_BACK, ByteOffsets, ByteOffsetsOptions
from arkasr.builtin.mappers.byte_views import FLOOR
from arkasr.builtin.mappers.common import NoMapperOptions
from arkasr.builtin.mappers.shared_strings import SharedStrings
from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.distill.step import Opd
from arkasr.distill.support import union_support
from arkasr.distributions.views import DenseView, HeadView
from arkasr.errors import UserError
from arkasr.interfaces import TokenMapper
from arkasr.model.tokenization import train_byte_bpe, train_sentencepiece
from arkasr.plugins.registry import create
from arkasr.testing import check_token_mapper
from arkasr.utils.timing import Phases

NUMBERS = ["SEVEN SEVENTY SIX", "SEVEN", "SEVENTY", "SIX"] * 4
EXACT = ByteOffsetsOptions(least_told=0.0)


@lru_cache
def letters(texts=tuple(NUMBERS)):
    """A tokenizer whose pieces are single characters."""
    return train_sentencepiece(sorted(set("".join(texts))), 300)


@lru_cache
def words():
    """Byte-level BPE that has whole numbers as tokens."""
    return train_byte_bpe(NUMBERS, 400)


def bytes_of(tokenizer):
    return piece_bytes(tokenizer) if "<0x00>" in tokenizer.get_vocab() else bpe_bytes(tokenizer)


class Case:
    """A student and a teacher, the mapper, and both byte tables by another hand."""

    def __init__(self, ours, theirs, options=EXACT):
        self.ours, self.theirs = side(ours, "<|im_end|>"), side(theirs, "<|im_end|>")
        self.mapper = ByteOffsets(options, student=self.ours, teacher=self.theirs)
        self.student, self.teacher = bytes_of(ours), bytes_of(theirs)
        self.prefixed = '"prepend_scheme":"always"' in theirs.backend_tokenizer.to_str().replace(" ", "")
        self.piece_of = {b: i for i, b in sorted(self.student.items())}
        self.stop, self.their_stop = self.ours.stop_ids[0], self.theirs.stop_ids[0]

    def ids(self, text, stopped=True):
        return self.ours.tokenizer.encode(text, add_special_tokens=False) + [self.stop] * stopped

    @cache
    def spell(self, text):
        """Spell bytes in student tokens, as far as it goes."""
        if text in self.piece_of:
            return (self.piece_of[text],)
        head = text.decode("utf-8", "ignore").encode()
        head = head if text.startswith(head) and len(text) - len(head) < 4 else text[: first_error(text)]
        ids = self.ours.tokenizer.encode(head.decode(), add_special_tokens=False)
        if b"".join(self.student.get(i, b"") for i in ids) != head:
            ids, head = [], b""
        rest = text[len(head) :]
        while rest:
            fits = [b for b in self.piece_of if rest.startswith(b)]
            if not fits:
                break
            ids.append(self.piece_of[max(fits, key=len)])
            rest = rest[len(max(fits, key=len)) :]
        return tuple(ids)


def first_error(text):
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(text)


@lru_cache
def case(name):
    made = {
        "pieces": lambda: Case(student_tokenizer(), teacher_tokenizer()),
        "turned": lambda: Case(teacher_tokenizer(), student_tokenizer()),
        "letters": lambda: Case(letters(tuple(TEXTS)), teacher_tokenizer()),
        "numbers": lambda: Case(letters(), words()),
        "same": lambda: Case(teacher_tokenizer(), teacher_tokenizer()),
        "back": lambda: Case(words(), letters()),
        "prefixed": lambda: Case(teacher_tokenizer(), with_prefix(student_tokenizer())),
        "prefixed letters": lambda: Case(teacher_tokenizer(), with_prefix(letters(tuple(TEXTS)))),
        "letters, prefixed": lambda: Case(letters(tuple(TEXTS)), with_prefix(student_tokenizer())),
    }
    return made[name]()


PREFIXED = ["prefixed", "prefixed letters", "letters, prefixed"]
PAIRS = ["pieces", "turned", "letters", "same", *PREFIXED]


def scored(made, size, seed=0, scale=3.0):
    draw = torch.Generator().manual_seed(seed)
    return DenseView(scale * torch.randn(sum(map(len, made.teacher_ids)), size, generator=draw))


def whole_rows(view):
    ids = torch.arange(view.vocab_size)
    return view.logprobs_at(ids.expand(len(view.topk(1)[0]), -1))


def slow_row(one, ids, s, p):
    """The student-token probabilities at position s of one transcript, and whether it is known; p: teacher's rows."""
    stopped = ids[-1] == one.stop
    spelt = [one.student.get(i, b"") for i in (ids[:-1] if stopped else ids)]
    data = b"".join(spelt)
    text = data[: first_error(data)].decode()
    new = one.theirs.tokenizer.encode(text, add_special_tokens=False)
    read = b"".join(spelt[:s])
    spaced = one.prefixed and not text.startswith(" ")
    opening = {token: text.removeprefix(b" ") for token, text in one.teacher.items()}
    tables = [opening if spaced else one.teacher, *[one.teacher] * len(new)]
    borders = {0: b""}
    for row, token in enumerate(new):
        before = borders[row] + tables[row].get(token, b"")
        if token not in one.teacher or not data.startswith(before):
            break
        borders[row + 1] = before
    own = max(row for row, before in borders.items() if read.startswith(before))
    partial, total, told = read[len(borders[own]) :], 0.0, {}
    for row in range(own, max(own - STEPS_BACK - 1, -1), -1):
        start = read[len(borders[row]) :]
        at = [n for n in range(len(ids)) if b"".join(spelt[:n]) == borders[row]]
        visited = tuple(ids[at[0] : s]) if at else None
        weight = 1 / math.prod(p[j][new[j]] for j in range(row, own))
        if row < own and not start:  # after a space alone that is not of the text: the whole first row but for it
            total += weight * (1 - sum(p[row][token] for token in one.teacher))
            told[one.stop] = told.get(one.stop, 0.0) + weight * p[row][one.their_stop]
        for token, text in tables[row].items():
            spelling = one.spell(text)
            agrees = visited is not None and spelling[: len(visited)] == visited
            if not text.startswith(start) or (row < own and not agrees):
                continue
            if text == start:
                total += weight * p[row][token] * bool(partial)
                continue
            if partial or row < own:
                total += weight * p[row][token]
            known = agrees and len(spelling) > len(visited)
            rest = spelling[len(visited) :] if known else one.spell(text[len(start) :])
            if rest:
                told[rest[0]] = told.get(rest[0], 0.0) + weight * p[row][token]
    if not partial:
        total += 1
        told[one.stop] = told.get(one.stop, 0.0) + p[own][one.their_stop]
    end = read + (one.student.get(ids[s], b""))
    inside = [row for row, before in borders.items() if read < before and len(read) < len(before) < len(end)]
    if inside:
        last = max(inside)
        rest = end[len(borders[last]) :]
        chain = math.prod(p[j][new[j]] for j in range(own, last))
        chain *= sum(p[last][t] for t, b in one.teacher.items() if b.startswith(rest))
        text, at = tables[own][new[own]], [n for n in range(len(ids)) if b"".join(spelt[:n]) == borders[own]]
        visited = tuple(ids[at[0] : s]) if at else None
        spelling = one.spell(text)
        agrees = visited is not None and spelling[: len(visited)] == visited and len(spelling) > len(visited)
        rest = spelling[len(visited) :] if agrees else one.spell(text[len(partial) :])
        told[ids[s]] = told.get(ids[s], 0.0) + chain
        if rest:
            told[rest[0]] -= chain
    return {i: v / total for i, v in told.items()} if total >= 1e-6 else None


def check(one, transcripts, seed=0):
    """Align, translate, and compare every pair with the slow rendering; returns alignment and view."""
    made = one.mapper.align(transcripts)
    view = scored(made, len(one.theirs.tokenizer), seed)
    found = one.mapper.translate(view, made)
    p, q = whole_rows(view).double().exp().tolist(), whole_rows(found).double().exp()
    assert q.shape == (len(made.student_rows), len(one.ours.tokenizer)) and not q.isnan().any()
    assert (q.sum(-1) <= 1 + 1e-5).all()
    first_s = first_t = 0
    places = dict(zip(made.student_rows.tolist(), range(len(q))))
    for ids, new in zip(transcripts, made.teacher_ids):
        for s in range(len(ids)):
            if (n := places.get(first_s + s)) is not None:
                compare(slow_row(one, ids, s, p[first_t : first_t + len(new)]), q[n], float(found.dropped[n]))
        first_s, first_t = first_s + len(ids), first_t + len(new)
    return made, found


def compare(expected, row, dropped):
    if expected is None:
        assert not row.any() and dropped == 1.0
        return
    told = torch.zeros_like(row)
    for token, value in expected.items():
        told[token] = value
    torch.testing.assert_close(row, torch.where(row > 0, told.clamp(min=FLOOR), 0.0), rtol=1e-3, atol=1e-6)
    assert dropped == pytest.approx(max(1 - float(told.sum()), 0), abs=1e-4)
    assert told[row == 0].sum() == 0


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(PAIRS),
    st.lists(st.tuples(TEXT, st.integers(0, 30), st.booleans()), min_size=1, max_size=2),
)
@example("turned", [("\u4f60\u597d\u9f98", 3, False), ("caf\u0065\u0301 sea", 30, True)])
@example("letters", [("the quick \U0001f600\u9f98", 30, True), ("", 0, True)])
@example("prefixed", [("\u4f60\u597d the sea", 30, True), (" the", 30, True)])
@example("prefixed letters", [("the sea", 30, True), ("\u4f60", 1, False)])
@example("letters, prefixed", [("the quick", 30, True), ("", 0, True)])
def test_texts_are_told_as_the_slow_rendering_tells_them(name, clips):
    one = case(name)
    transcripts = [one.ids(text, False)[:cut] + [one.stop] * ended for text, cut, ended in clips]
    made, _ = check(one, [ids or [one.stop] for ids in transcripts])
    assert all(ids[-1] == one.their_stop for ids in made.teacher_ids)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(TEXT, st.lists(st.booleans(), max_size=6), st.integers(0, 30), st.booleans()), max_size=2))
@example([("\u4f60\u597d", [True], 2, False), ("\u4eca\u5929 hello", [False, True], 40, True)])
@example([("\U0001f600", [True], 2, True), ("", [], 0, True)])
def test_byte_pieces_and_halved_characters_too(clips):
    one = case("pieces")
    transcripts = [chopped(text, choices)[:cut] + [one.stop] * ended for text, choices, cut, ended in clips]
    check(one, [ids or [one.stop] for ids in transcripts], seed=1)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PAIRS), TEXT, st.integers(0, 2**31))
def test_any_ids_at_all_are_aligned_and_told(name, text, seed):
    one = case(name)
    draw = torch.Generator().manual_seed(seed)
    ids = [*one.ids(text, False), *torch.randint(len(one.ours.tokenizer), (5,), generator=draw).tolist()]
    made = one.mapper.align([ids])
    found = one.mapper.translate(scored(made, len(one.theirs.tokenizer), seed), made)
    q = whole_rows(found).exp()
    assert (q.sum(-1) <= 1 + 1e-5).all() and (found.dropped >= 0).all() and (found.dropped <= 1).all()
    assert made.student_rows[0] == 0 and (made.student_rows.diff() > 0).all() and (made.teacher_rows.diff() >= 0).all()


@pytest.mark.parametrize("text", ["the quick brown fox", "\u4eca\u5929 hello \u4e16\u754c", ""])
def test_equal_tokenizers_keep_the_exact_distribution(text):
    one = case("same")
    ids = one.ids(text)
    made = one.mapper.align([ids])
    assert made.teacher_ids == [ids] and made.teacher_rows.tolist() == list(range(len(ids)))
    view = scored(made, len(one.theirs.tokenizer))
    allowed = one.mapper.to_student(torch.arange(view.vocab_size)) >= 0
    expected = whole_rows(view)
    found = whole_rows(one.mapper.translate(view, made))
    torch.testing.assert_close(found[:, allowed], expected[:, allowed])
    assert (found[:, ~allowed] == -torch.inf).all()


def token(one, text):
    """The teacher's token of a text, a piece rather than a byte token."""
    return max(i for i, b in one.teacher.items() if b == text.encode())


def piece(one, text):
    return one.piece_of[text.encode()]


def given_rows(one, rows):
    """A teacher's view of rows {token text: probability}; the stop is written as the empty text."""
    p = torch.zeros(len(rows), len(one.theirs.tokenizer))
    for n, row in enumerate(rows):
        for text, value in row.items():
            p[n, token(one, text) if text else one.their_stop] = value
    return DenseView(p.log())


def told(view, n, one, *texts):
    ids = torch.tensor([piece(one, text) if text else one.stop for text in texts])
    return view.at(torch.tensor([n])).logprobs_at(ids[None])[0].exp().tolist()


def test_letters_under_words_by_hand():
    """Row 0: SEVEN .5, SEVENTY .2, SIX .2, stop .1; the student wrote S E V E N and stopped."""
    one = case("numbers")
    made = one.mapper.align([one.ids("SEVEN")])
    assert made.teacher_ids == [[token(one, "SEVEN"), one.their_stop]] and made.num_mismatched == 0
    assert made.partials == [b"", b"S", b"SE", b"SEV", b"SEVE", b""]
    view = given_rows(one, [{"SEVEN": 0.5, "SEVENTY": 0.2, "SIX": 0.2, "": 0.1}, {"": 0.9, "SIX": 0.1}])
    found = one.mapper.translate(view, made)
    assert told(found, 0, one, "S", "", "E") == pytest.approx([0.9, 0.1, FLOOR], rel=1e-4)
    assert told(found, 1, one, "E", "I") == pytest.approx([7 / 9, 2 / 9])
    assert told(found, 4, one, "N") == pytest.approx([1.0])
    # after SEVEN: TY of the teacher's SEVENTY, else what comes after its SEVEN
    assert told(found, 5, one, "T", "", "S") == pytest.approx([2 / 7, 5 / 7 * 0.9, 5 / 7 * 0.1])
    assert found.dropped.tolist() == pytest.approx([0.0] * 6, abs=1e-5)


def test_a_token_that_ends_where_the_student_went_on_is_dropped():
    """The teacher says SEVEN, the student wrote SEVENTY: that it goes on with TY is no news of the teacher's."""
    one = Case(letters(), words(), ByteOffsetsOptions())
    made = one.mapper.align([one.ids("SEVENTY")])
    rows = [{"SEVEN": 0.8, "SEVENTY": 0.2}, {"": 1.0}]
    found = one.mapper.translate(given_rows(one, rows), made)
    assert made.partials[5] == b"SEVEN" and float(found.dropped[5]) == 1.0
    assert (found.topk(3)[1][5] == -torch.inf).all()
    lenient = case("numbers").mapper.translate(given_rows(one, rows), made)
    assert told(lenient, 5, one, "T") == pytest.approx([0.2]) and float(lenient.dropped[5]) == pytest.approx(0.8)


def test_words_over_letters_by_hand():
    """Student token SEVEN, teacher letters: its chained probability, taken from the mass of the student's S."""
    one = case("back")
    made = one.mapper.align([one.ids("SEVEN")])
    assert len(made.teacher_ids[0]) == 6 and made.partials == [b"", b""] and made.teacher_rows.tolist() == [0, 5]
    rows = [{"S": 0.9, "": 0.1}, {"E": 0.5, "I": 0.5}, {"V": 0.8, "T": 0.2}, {"E": 1.0}, {"N": 0.7, "T": 0.3}]
    found = one.mapper.translate(given_rows(one, [*rows, {"": 1.0}]), made)
    chain = 0.9 * 0.5 * 0.8 * 0.7
    assert told(found, 0, one, "SEVEN", "S", "", "SIX") == pytest.approx([chain, 0.9 - chain, 0.1, FLOOR], rel=1e-4)
    assert told(found, 1, one, "") == pytest.approx([1.0])


def test_what_the_teacher_does_not_expect_is_not_known():
    one = case("numbers")
    made = one.mapper.align([one.ids("SIX")])
    rows = [{"SIX": 1e-8, "SEVEN": 1 - 1e-8}, {"": 1.0}]
    found = one.mapper.translate(given_rows(one, rows), made)
    assert found.dropped.tolist()[2] == 1.0 and (whole_rows(found)[2] == -torch.inf).all()
    assert told(found, 1, one, "E") == pytest.approx([1.0])


def test_a_stop_inside_a_character_is_told_how_the_character_goes_on():
    one = case("pieces")
    ids = [one.piece_of[b"\xe4"], one.stop]
    made, found = check(one, [ids])
    assert made.partials == [b"", b"\xe4"] and made.num_mismatched == 1
    assert float(found.logprobs_at(torch.full((2, 1), one.stop))[1].exp()) <= 2 * FLOOR


def test_a_teacher_known_by_its_best_tokens_only():
    one = Case(student_tokenizer(), teacher_tokenizer(), ByteOffsetsOptions(top_k=4, least_told=0.0))
    made = one.mapper.align([one.ids("the sea")])
    view = scored(made, len(one.theirs.tokenizer))
    ids, values = view.topk(4)
    wire = SimpleNamespace(vocab_size=view.vocab_size, topk=view.topk, entropy=lambda: None)
    expected = {}
    for i, value in zip(ids[0].tolist(), values[0].exp().tolist()):
        begun = one.stop if i == one.their_stop else (*one.spell(one.teacher.get(i, b"")), None)[0]
        expected[begun] = expected.get(begun, 0.0) + value
    expected.pop(None, None)
    found = one.mapper.translate(wire, made)
    compare(expected, whole_rows(found)[0].double().exp(), float(found.dropped[0]))
    assert 0.1 < sum(expected.values()) < 0.999


def test_a_view_that_is_whole_but_not_dense():
    one = case("pieces")
    made = one.mapper.align([one.ids("the sea")])
    states = torch.randn(len(made.teacher_ids[0]), 8, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(len(one.theirs.tokenizer), 8, generator=torch.Generator().manual_seed(1))
    head = HeadView(states, weight, torch.zeros(len(weight), dtype=torch.bool))
    both = [one.mapper.translate(view, made) for view in (head, DenseView(states @ weight.T))]
    torch.testing.assert_close(whole_rows(both[0]), whole_rows(both[1]), rtol=1e-4, atol=1e-4)


def test_it_speaks_the_students_ids_in_both_directions():
    one = case("pieces")
    ids = torch.tensor([[-1, 10**6, one.stop]])
    spoken = [i for i in range(len(one.ours.tokenizer)) if i in one.student or i == one.stop]
    for mapped in (one.mapper.to_student, one.mapper.to_teacher):
        assert mapped(ids).tolist() == [[-1, -1, one.stop]]
        known = mapped(torch.arange(len(one.ours.tokenizer)))
        assert known[known >= 0].tolist() == spoken and torch.equal(known[spoken], torch.tensor(spoken))
    assert isinstance(one.mapper, TokenMapper)


@pytest.mark.parametrize("name", PAIRS)
def test_the_plugin_kit_is_content(name):
    one = case(name)
    check_token_mapper(one.mapper, one.ours, one.theirs, same_bytes=False, translates_to=one.ours)


def given_view(logprobs):
    """A view of log-probabilities as they are, whatever they are."""
    return SimpleNamespace(
        vocab_size=logprobs.shape[-1],
        topk=lambda k: logprobs.topk(k)[::-1],
        logprobs_at=lambda ids: logprobs.gather(-1, ids),
        entropy=lambda: logprobs.sum(-1),
    )


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(PAIRS),
    st.lists(TEXT, min_size=1, max_size=3),
    st.integers(0, 60),
    st.sampled_from([(math.nan, True), (-math.inf, True), (math.inf, True), (math.nan, False), (math.inf, False)]),
)
@example("letters", ["the sea", "sea shells", "the quick fox"], 0, (math.nan, True))
@example("pieces", ["the sea", "sea shells"], 1, (-math.inf, True))
@example("turned", ["the sea", "sea shells"], 2, (math.inf, False))
def test_a_broken_teacher_row_costs_only_what_depends_on_it(name, texts, row, broken):
    """Everything else is as without it; a row is broken as a whole, or by one value."""
    one = case(name)
    made = one.mapper.align([one.ids(text) for text in texts])
    whole, bad = scored(made, len(one.theirs.tokenizer)).logprobs(), row % sum(map(len, made.teacher_ids))
    spoilt = whole.clone()
    spoilt[bad, slice(None) if broken[1] else 0] = broken[0]
    before, after = (one.mapper.translate(given_view(rows), made) for rows in (whole, spoilt))
    lost = after.logprobs.isnan().any(-1)
    assert torch.equal(lost, after.logprobs.isnan().all(-1)) and (after.dropped[lost] == 1).all()
    torch.testing.assert_close(after.logprobs[~lost], before.logprobs[~lost], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.dropped[~lost], before.dropped[~lost], rtol=1e-5, atol=1e-6)
    clip_of = torch.tensor([n for n, ids in enumerate(made.teacher_ids) for _ in ids])
    rows = made.teacher_rows
    following = torch.cat([rows[1:], rows[-1:] + 1])  # no chain goes on past the row of the next position
    near = (clip_of[rows] == clip_of[bad]) & (rows <= bad + STEPS_BACK) & ((following >= bad) | (rows >= bad))
    assert not lost[~near].any() and lost[rows == bad].all()


def test_a_broken_row_is_lost_on_the_words_that_it_may_begin():
    """SEVENTY may begin at the first row and say TY after SEVEN; nothing at the third row may be SEVENTY's."""
    one = case("numbers")
    made = one.mapper.align([one.ids("SEVEN SEVEN")])
    view = scored(made, len(one.theirs.tokenizer)).logprobs()
    view[0] = math.nan
    found = one.mapper.translate(given_view(view), made)
    assert made.partials[:6] == [b"", b"S", b"SE", b"SEV", b"SEVE", b""]
    assert found.logprobs.isnan().all(-1).tolist()[:6] == [True] * 6 and not found.logprobs[-1].isnan().any()


@pytest.mark.parametrize("name", PREFIXED)
def test_a_space_of_the_teachers_tokenizer_is_none_of_the_text(name):
    one = case(name)
    transcripts = [one.ids(text) for text in [*TEXTS[:4], ""]]
    made = one.mapper.align(transcripts)
    assert made.num_mismatched == 0 and len(made.student_rows) == made.num_student
    check(one, transcripts)


def test_the_first_token_is_told_without_the_space():
    """What the space alone goes on with is not known; a stop at the first row is a stop."""
    one = case("prefixed")
    for text in ("the sea", ""):
        made = one.mapper.align([one.ids(text)])
        row = {" the": 0.5, "the": 0.125, " br": 0.125, " ": 0.125, "": 0.125}
        view = given_rows(one, [row, *[{"": 1.0}] * (len(made.teacher_ids[0]) - 1)])
        found, expected = one.mapper.translate(view, made), {one.stop: 0.125}
        for word, value in ((b"the", 0.625), (b"br", 0.125)):
            expected[one.spell(word)[0]] = expected.get(one.spell(word)[0], 0.0) + value
        compare(expected, whole_rows(found)[0].double().exp(), float(found.dropped[0]))


def test_the_space_as_a_token_is_passed_over():
    """Row 0: the space alone .5, " the" .25, stop .25; row 1: the letter q .75, stop .25. q or a stop, or `the`."""
    one = case("prefixed letters")
    made = one.mapper.align([one.ids("q")])
    assert made.teacher_rows.tolist() == [1, 2] and len(made.teacher_ids[0]) == 3
    view = given_rows(one, [{" ": 0.5, "t": 0.25, "": 0.25}, {"q": 0.75, "": 0.25}, {"": 1.0}])
    found = one.mapper.translate(view, made)
    assert told(found, 0, one, "q", "t", "") == pytest.approx([0.375, 0.25, 0.375], rel=1e-4)
    assert told(found, 1, one, "") == pytest.approx([1.0])


def test_pairs_stay_before_a_special_token_on_either_side():
    one = case("pieces")
    spelt = [one.piece_of[bytes([b])] for b in b"a<|im_end|><b"]
    made = one.mapper.align([[*spelt, one.stop]])
    assert made.teacher_rows.tolist() == [0, 1, 1] and made.partials == [b"", b"", b"<"]  # a teacher token goes on
    special = one.ours.tokenizer.convert_tokens_to_ids("<|user|>")
    assert one.mapper.align([[*one.ids("a", False), special, *one.ids("b")]]).student_rows.tolist() == [0, 1]


def test_each_stop_is_told_by_its_name_and_the_rest_by_the_first():
    tokenizer = teacher_tokenizer()
    ours, theirs = side(tokenizer, *SPECIAL), side(tokenizer, "<|im_end|>", "<asr_text>", "<|endoftext|>")
    mapper = ByteOffsets(EXACT, student=ours, teacher=theirs)
    made = mapper.align([[ours.stop_ids[1]]])
    p = torch.zeros(1, len(tokenizer))
    p[0, theirs.stop_ids] = torch.tensor([0.5, 0.125, 0.375])
    found = mapper.translate(DenseView(p.log()), made).logprobs_at(torch.tensor([ours.stop_ids]))[0].exp()
    assert found.tolist() == pytest.approx([0.625, 0.375, FLOOR])
    assert mapper.to_teacher(torch.tensor(ours.stop_ids)).tolist() == ours.stop_ids
    assert float(mapper.translate(DenseView(p.log()), made).dropped[0]) == pytest.approx(0.0, abs=1e-6)


def test_transcripts_without_anything_are_aligned():
    one = case("pieces")
    made = one.mapper.align([[], [one.stop], []])
    assert made.teacher_ids == [[one.their_stop]] * 3 and made.num_student == 1 and made.num_mismatched == 0
    assert (made.student_rows.tolist(), made.teacher_rows.tolist()) == ([0], [1])


def test_no_positions_at_all():
    one = case("pieces")
    made = one.mapper.align([one.ids("the sea")])
    made.student_rows, made.teacher_rows = made.student_rows[:0], made.teacher_rows[:0]
    view = one.mapper.translate(scored(made, len(one.theirs.tokenizer)), made)
    assert view.topk(3)[0].shape == (0, 3) and view.dropped.shape == (0,)


@pytest.mark.parametrize("options", [{"top_k": 0}, {"least_told": 1.5}])
def test_options_out_of_range_are_refused(options):
    both = side(student_tokenizer(), "<|im_end|>")
    with pytest.raises(UserError, match="top_k must be above 0 and least_told within 0 and 1"):
        create("token_mapper", "byte_offsets", options, student=both, teacher=both)


def gradient(one, mapper, s):
    """The gradient of the loss by the logits of a uniform student at position s, after SEVEN was written."""
    made = mapper.align([one.ids("SEVEN")])
    found = mapper.translate(given_rows(one, [{"SEVEN": 0.98, "SIX": 0.01, "": 0.01}, {"": 1.0}]), made)
    logits = torch.zeros(1, len(one.ours.tokenizer), requires_grad=True)
    best = torch.tensor([[piece(one, t) for t in "SEVN"] + [one.stop]])
    row = made.student_rows.tolist().index(s)
    support = union_support(found.topk(4)[0][[row]], best, torch.tensor([piece(one, "S")]), mapper)
    total, count = UnionTopkKl(UnionTopkKlOptions())(DenseView(logits), found.at(torch.tensor([row])), support)
    total.backward() if total.requires_grad else None
    return logits.grad if logits.grad is not None else torch.zeros_like(logits), int(count)


def test_the_loss_raises_the_letter_that_begins_the_teachers_word():
    one = case("numbers")
    slope, count = gradient(one, one.mapper, 0)
    assert count == 1 and slope[0].argmin() == piece(one, "S") and slope[0].min() < -0.5
    strings = SharedStrings(NoMapperOptions(), student=one.ours, teacher=one.theirs)
    slope, _ = gradient(one, strings, 0)
    assert slope[0, piece(one, "S")] >= 0


def test_a_step_of_letters_under_words_counts_every_position():
    lm = eager_to_stop(student(10, letters(tuple(TEXTS))), 2.0)
    lm.blocked[[i for i, b in piece_bytes(lm.tokenizer).items() if b >= b"\x80"]] = True  # half characters
    its_teacher = InMemory(eager_to_stop(teacher(10), 2.0))
    mapper = ByteOffsets(ByteOffsetsOptions(), student=lm, teacher=its_teacher)
    loss = UnionTopkKl(UnionTopkKlOptions())
    one = Opd(its_teacher, mapper, loss, RolloutConfig(max_new_tokens=9), DistillConfig(top_k=6))
    made = one.collect(lm, batch(SIZES), Phases())
    total, count = one.rescore(lm, made)
    total.backward()
    assert math.isfinite(float(total.detach())) and float(total.detach()) > 0
    assert float(made.sums["paired"]) == float(made.sums["rollout_tokens"])
    assert int(count) == int((made.teacher_view.dropped < 1).sum()) > 10
    assert all(p.grad.isfinite().all() for p in lm.hf.parameters() if p.grad is not None)

"""The byte_offsets mapper compared with a slow reference in Python: every teacher token, one at a time."""

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
from arkasr.model.train_tokenizer import train_byte_bpe, train_sentencepiece
from arkasr.plugins.registry import create
from arkasr.testing import check_token_mapper
from arkasr.utils.timing import Phases

NUMBERS = ["SEVEN SEVENTY SIX", "SEVEN", "SEVENTY", "SIX"] * 4
EXACT = ByteOffsetsOptions(min_mapped_mass=0.0)


@lru_cache
def letters(texts=tuple(NUMBERS)):
    """Return a tokenizer whose pieces are single characters."""
    return train_sentencepiece(sorted(set("".join(texts))), 300)


@lru_cache
def words():
    """Return a byte-level BPE tokenizer that has whole numbers as tokens."""
    return train_byte_bpe(NUMBERS, 400)


def bytes_of(tokenizer):
    return piece_bytes(tokenizer) if "<0x00>" in tokenizer.get_vocab() else bpe_bytes(tokenizer)


class Case:
    """A student, a teacher, the mapper, and independently computed byte tables of both tokenizers."""

    def __init__(self, student, teacher, options=EXACT):
        self.student, self.teacher = side(student, "<|im_end|>"), side(teacher, "<|im_end|>")
        self.mapper = ByteOffsets(options, student=self.student, teacher=self.teacher)
        self.student_bytes, self.teacher_bytes = bytes_of(student), bytes_of(teacher)
        self.prefixed = '"prepend_scheme":"always"' in teacher.backend_tokenizer.to_str().replace(" ", "")
        self.piece_of = {b: i for i, b in sorted(self.student_bytes.items())}
        self.stop, self.teacher_stop = self.student.stop_ids[0], self.teacher.stop_ids[0]
        self.spell = cache(self._spell)

    def ids(self, text, stopped=True):
        return self.student.tokenizer.encode(text, add_special_tokens=False) + [self.stop] * stopped

    def _spell(self, text):
        """Spell bytes in student tokens, up to the first byte that has no token."""
        if text in self.piece_of:
            return (self.piece_of[text],)
        head = text.decode("utf-8", "ignore").encode()
        head = head if text.startswith(head) and len(text) - len(head) < 4 else text[: first_error(text)]
        ids = self.student.tokenizer.encode(head.decode(), add_special_tokens=False)
        if b"".join(self.student_bytes.get(i, b"") for i in ids) != head:
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
    cases = {
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
    return cases[name]()


PREFIXED = ["prefixed", "prefixed letters", "letters, prefixed"]
PAIRS = ["pieces", "turned", "letters", "same", *PREFIXED]


def scored(alignment, size, seed=0, scale=3.0):
    draw = torch.Generator().manual_seed(seed)
    return DenseView(scale * torch.randn(sum(map(len, alignment.teacher_ids)), size, generator=draw))


def whole_rows(view):
    ids = torch.arange(view.vocab_size)
    return view.logprobs_at(ids.expand(len(view.topk(1)[0]), -1))


def reference_row(one, ids, s, p):
    """Return the probabilities of student tokens at position s, and the share of the mass that they come from.

    Return None if they are unknown. p: the teacher's rows.
    """
    stopped = ids[-1] == one.stop
    pieces = [one.student_bytes.get(i, b"") for i in (ids[:-1] if stopped else ids)]
    data = b"".join(pieces)
    text = data[: first_error(data)].decode()
    teacher_ids = one.teacher.tokenizer.encode(text, add_special_tokens=False)
    read = b"".join(pieces[:s])
    added_space = one.prefixed and not text.startswith(" ")
    without_space = {token: text.removeprefix(b" ") for token, text in one.teacher_bytes.items()}
    tables = [without_space if added_space else one.teacher_bytes, *[one.teacher_bytes] * len(teacher_ids)]
    boundaries = {0: b""}
    for row, token in enumerate(teacher_ids):
        before = boundaries[row] + tables[row].get(token, b"")
        if token not in one.teacher_bytes or not data.startswith(before):
            break
        boundaries[row + 1] = before
    own = max(row for row, before in boundaries.items() if read.startswith(before))
    pending, total, ignored, mass = read[len(boundaries[own]) :], 0.0, 0.0, {}
    for row in range(own, max(own - STEPS_BACK - 1, -1), -1):
        start = read[len(boundaries[row]) :]
        at = [n for n in range(len(ids)) if b"".join(pieces[:n]) == boundaries[row]]
        visited = tuple(ids[at[0] : s]) if at else None
        weight = 1 / math.prod(p[j][teacher_ids[j]] for j in range(row, own))
        if row < own and not start:  # the added space is one token: the whole first row except it
            total += weight * (1 - sum(p[row][token] for token in one.teacher_bytes))
            mass[one.stop] = mass.get(one.stop, 0.0) + weight * p[row][one.teacher_stop]
        for token, text in tables[row].items():
            spelling = one.spell(text)
            agrees = visited is not None and spelling[: len(visited)] == visited
            if not text.startswith(start):
                continue
            if row < own and not agrees:
                unusual = visited is not None and visited != one.spell(start)
                ignored += weight * p[row][token] * (unusual and text != start)
                continue
            if text == start:
                total += weight * p[row][token] * bool(pending)
                continue
            if pending or row < own:
                total += weight * p[row][token]
            known = agrees and len(spelling) > len(visited)
            rest = spelling[len(visited) :] if known else one.spell(text[len(start) :])
            if rest:
                mass[rest[0]] = mass.get(rest[0], 0.0) + weight * p[row][token]
    if not pending:
        total += 1
        mass[one.stop] = mass.get(one.stop, 0.0) + p[own][one.teacher_stop]
    end = read + (one.student_bytes.get(ids[s], b""))
    inside = [row for row, before in boundaries.items() if read < before and len(read) < len(before) < len(end)]
    if inside:
        last = max(inside)
        rest = end[len(boundaries[last]) :]
        chain = math.prod(p[j][teacher_ids[j]] for j in range(own, last))
        chain *= sum(p[last][t] for t, b in one.teacher_bytes.items() if b.startswith(rest))
        text = tables[own][teacher_ids[own]]
        at = [n for n in range(len(ids)) if b"".join(pieces[:n]) == boundaries[own]]
        visited = tuple(ids[at[0] : s]) if at else None
        spelling = one.spell(text)
        agrees = visited is not None and spelling[: len(visited)] == visited and len(spelling) > len(visited)
        rest = spelling[len(visited) :] if agrees else one.spell(text[len(pending) :])
        mass[ids[s]] = mass.get(ids[s], 0.0) + chain
        if rest:
            mass[rest[0]] -= chain
    return ({i: v / total for i, v in mass.items()}, total / (total + ignored)) if total >= 1e-6 else None


def check(one, transcripts, seed=0):
    """Align, translate, and compare every pair with the reference. Return alignment and view."""
    alignment = one.mapper.align(transcripts)
    view = scored(alignment, len(one.teacher.tokenizer), seed)
    found = one.mapper.translate(view, alignment)
    p, probs = whole_rows(view).double().exp().tolist(), whole_rows(found).double().exp()
    assert probs.shape == (len(alignment.student_rows), len(one.student.tokenizer)) and not probs.isnan().any()
    assert (probs.sum(-1) <= 1 + 1e-5).all()
    first_s = first_t = 0
    places = dict(zip(alignment.student_rows.tolist(), range(len(probs))))
    for ids, teacher_ids in zip(transcripts, alignment.teacher_ids):
        rows = p[first_t : first_t + len(teacher_ids)]
        for s in range(len(ids)):
            if (n := places.get(first_s + s)) is not None:
                compare(reference_row(one, ids, s, rows), probs[n], float(found.dropped[n]))
        first_s, first_t = first_s + len(ids), first_t + len(teacher_ids)
    return alignment, found


def compare(expected, row, dropped):
    if expected is None:
        assert not row.any() and dropped == 1.0
        return
    probs, (masses, used) = torch.zeros_like(row), expected
    for token, value in masses.items():
        probs[token] = value
    torch.testing.assert_close(row, torch.where(row > 0, probs.clamp(min=FLOOR), 0.0), rtol=1e-3, atol=1e-6)
    assert dropped == pytest.approx(max(1 - used * float(probs.sum()), 0), abs=1e-4)
    assert probs[row == 0].sum() == 0


@pytest.mark.slow
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
@example("letters, prefixed", [("ishe", 4, False)])  # read as is|he. No teacher token is longer than ish
def test_translate_matches_reference_for_texts(name, clips):
    one = case(name)
    transcripts = [one.ids(text, False)[:cut] + [one.stop] * ended for text, cut, ended in clips]
    alignment, _ = check(one, [ids or [one.stop] for ids in transcripts])
    assert all(ids[-1] == one.teacher_stop for ids in alignment.teacher_ids)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(TEXT, st.lists(st.booleans(), max_size=6), st.integers(0, 30), st.booleans()), max_size=2))
@example([("\u4f60\u597d", [True], 2, False), ("\u4eca\u5929 hello", [False, True], 40, True)])
@example([("\U0001f600", [True], 2, True), ("", [], 0, True)])
def test_translate_matches_reference_for_byte_pieces_and_cut_characters(clips):
    one = case("pieces")
    transcripts = [chopped(text, choices)[:cut] + [one.stop] * ended for text, choices, cut, ended in clips]
    check(one, [ids or [one.stop] for ids in transcripts], seed=1)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PAIRS), TEXT, st.integers(0, 2**31))
def test_translate_accepts_any_ids(name, text, seed):
    one = case(name)
    draw = torch.Generator().manual_seed(seed)
    ids = [*one.ids(text, False), *torch.randint(len(one.student.tokenizer), (5,), generator=draw).tolist()]
    alignment = one.mapper.align([ids])
    found = one.mapper.translate(scored(alignment, len(one.teacher.tokenizer), seed), alignment)
    assert (whole_rows(found).exp().sum(-1) <= 1 + 1e-5).all()
    assert (found.dropped >= 0).all() and (found.dropped <= 1).all()
    assert alignment.student_rows[0] == 0
    assert (alignment.student_rows.diff() > 0).all() and (alignment.teacher_rows.diff() >= 0).all()


@pytest.mark.parametrize("text", ["the quick brown fox", "\u4eca\u5929 hello \u4e16\u754c", ""])
def test_equal_tokenizers_keep_exact_distribution(text):
    one = case("same")
    ids = one.ids(text)
    alignment = one.mapper.align([ids])
    assert alignment.teacher_ids == [ids] and alignment.teacher_rows.tolist() == list(range(len(ids)))
    view = scored(alignment, len(one.teacher.tokenizer))
    allowed = one.mapper.to_student(torch.arange(view.vocab_size)) >= 0
    expected = whole_rows(view)
    found = whole_rows(one.mapper.translate(view, alignment))
    torch.testing.assert_close(found[:, allowed], expected[:, allowed])
    assert (found[:, ~allowed] == -torch.inf).all()


def token(one, text):
    """Return the teacher's token of a text, preferring a piece to a byte token."""
    return max(i for i, b in one.teacher_bytes.items() if b == text.encode())


def piece(one, text):
    return one.piece_of[text.encode()]


def teacher_view(one, rows):
    """Make a teacher's view from rows {token text: probability}. The stop token is written as the empty text."""
    p = torch.zeros(len(rows), len(one.teacher.tokenizer))
    for n, row in enumerate(rows):
        for text, value in row.items():
            p[n, token(one, text) if text else one.teacher_stop] = value
    return DenseView(p.log())


def probs_of(view, n, one, *texts):
    ids = torch.tensor([piece(one, text) if text else one.stop for text in texts])
    return view.at(torch.tensor([n])).logprobs_at(ids[None])[0].exp().tolist()


def test_student_letters_under_teacher_words_worked_example():
    """This is the worked example of the mapper's docstring."""
    one = case("numbers")
    alignment = one.mapper.align([one.ids("SEVEN")])
    assert alignment.teacher_ids == [[token(one, "SEVEN"), one.teacher_stop]] and alignment.num_mismatched == 0
    assert alignment.pending == [b"", b"S", b"SE", b"SEV", b"SEVE", b""]
    view = teacher_view(one, [{"SEVEN": 0.5, "SEVENTY": 0.2, "SIX": 0.2, "": 0.1}, {"": 0.9, "SIX": 0.1}])
    found = one.mapper.translate(view, alignment)
    assert probs_of(found, 0, one, "S", "", "E") == pytest.approx([0.9, 0.1, FLOOR], rel=1e-4)
    assert probs_of(found, 1, one, "E", "I") == pytest.approx([7 / 9, 2 / 9])
    assert probs_of(found, 4, one, "N") == pytest.approx([1.0])
    # after SEVEN: TY of the teacher's SEVENTY, otherwise the row after its SEVEN
    assert probs_of(found, 5, one, "T", "", "S") == pytest.approx([2 / 7, 5 / 7 * 0.9, 5 / 7 * 0.1])
    assert found.dropped.tolist() == pytest.approx([0.0] * 6, abs=1e-5)


def test_mass_of_tokens_past_an_unusual_spelling_is_dropped():
    """SEVEN 0.5, SEVENTY 0.2 begin the row. After S E V E N, a student with the token SEVEN cannot get SEVENTY's T."""
    one = Case(words(), words())
    pieces = [one.piece_of[letter.encode()] for letter in "SEVEN"]
    alignment = one.mapper.align([[*pieces, one.stop]])
    rows = torch.full((2, len(words())), 1e-30)
    seven, seventy, six = (one.piece_of[text] for text in (b"SEVEN", b"SEVENTY", b"SIX"))
    assert alignment.teacher_ids == [[seven, one.teacher_stop]]
    rows[0, [seven, seventy, six, one.teacher_stop]] = torch.tensor([0.5, 0.2, 0.2, 0.1])
    rows[1, [one.teacher_stop, six]] = torch.tensor([0.9, 0.1])
    found = one.mapper.translate(DenseView(rows.log()), alignment)
    assert float(found.dropped[-1]) == pytest.approx(2 / 7, abs=1e-6)
    usual = one.mapper.align([[seven, one.stop]])
    assert one.mapper.translate(DenseView(rows.log()), usual).dropped.tolist() == pytest.approx([0.0, 0.0], abs=1e-5)


def test_teacher_token_that_ends_inside_student_text_is_dropped():
    """The student wrote SEVENTY. What the teacher expects after its token SEVEN is unknown."""
    one = Case(letters(), words(), ByteOffsetsOptions())
    alignment = one.mapper.align([one.ids("SEVENTY")])
    rows = [{"SEVEN": 0.8, "SEVENTY": 0.2}, {"": 1.0}]
    found = one.mapper.translate(teacher_view(one, rows), alignment)
    assert alignment.pending[5] == b"SEVEN" and float(found.dropped[5]) == 1.0
    assert (found.topk(3)[1][5] == -torch.inf).all()
    lenient = case("numbers").mapper.translate(teacher_view(one, rows), alignment)
    assert probs_of(lenient, 5, one, "T") == pytest.approx([0.2]) and float(lenient.dropped[5]) == pytest.approx(0.8)


def test_student_words_over_teacher_letters_worked_example():
    """The chained probability of the student's SEVEN is taken from the mass of the student's S."""
    one = case("back")
    alignment = one.mapper.align([one.ids("SEVEN")])
    assert len(alignment.teacher_ids[0]) == 6
    assert alignment.pending == [b"", b""] and alignment.teacher_rows.tolist() == [0, 5]
    rows = [{"S": 0.9, "": 0.1}, {"E": 0.5, "I": 0.5}, {"V": 0.8, "T": 0.2}, {"E": 1.0}, {"N": 0.7, "T": 0.3}]
    found = one.mapper.translate(teacher_view(one, [*rows, {"": 1.0}]), alignment)
    chain = 0.9 * 0.5 * 0.8 * 0.7
    assert probs_of(found, 0, one, "SEVEN", "S", "", "SIX") == pytest.approx([chain, 0.9 - chain, 0.1, FLOOR], rel=1e-4)
    assert probs_of(found, 1, one, "") == pytest.approx([1.0])


def test_pending_bytes_without_teacher_mass_are_unknown():
    one = case("numbers")
    alignment = one.mapper.align([one.ids("SIX")])
    rows = [{"SIX": 1e-8, "SEVEN": 1 - 1e-8}, {"": 1.0}]
    found = one.mapper.translate(teacher_view(one, rows), alignment)
    assert found.dropped.tolist()[2] == 1.0 and (whole_rows(found)[2] == -torch.inf).all()
    assert probs_of(found, 1, one, "E") == pytest.approx([1.0])


def test_stop_inside_character_gets_no_mass():
    one = case("pieces")
    ids = [one.piece_of[b"\xe4"], one.stop]
    alignment, found = check(one, [ids])
    assert alignment.pending == [b"", b"\xe4"] and alignment.num_mismatched == 1
    assert float(found.logprobs_at(torch.full((2, 1), one.stop))[1].exp()) <= 2 * FLOOR


def test_view_of_best_tokens_only():
    one = Case(student_tokenizer(), teacher_tokenizer(), ByteOffsetsOptions(top_k=4, min_mapped_mass=0.0))
    alignment = one.mapper.align([one.ids("the sea")])
    view = scored(alignment, len(one.teacher.tokenizer))
    ids, values = view.topk(4)
    sparse = SimpleNamespace(vocab_size=view.vocab_size, topk=view.topk, entropy=lambda: None)
    expected = {}
    for i, value in zip(ids[0].tolist(), values[0].exp().tolist()):
        first = one.stop if i == one.teacher_stop else (*one.spell(one.teacher_bytes.get(i, b"")), None)[0]
        expected[first] = expected.get(first, 0.0) + value
    expected.pop(None, None)
    found = one.mapper.translate(sparse, alignment)
    compare((expected, 1.0), whole_rows(found)[0].double().exp(), float(found.dropped[0]))
    assert 0.1 < sum(expected.values()) < 0.999


def test_head_view_gives_same_result_as_dense_view():
    one = case("pieces")
    alignment = one.mapper.align([one.ids("the sea")])
    states = torch.randn(len(alignment.teacher_ids[0]), 8, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(len(one.teacher.tokenizer), 8, generator=torch.Generator().manual_seed(1))
    head = HeadView(states, weight, torch.zeros(len(weight), dtype=torch.bool))
    both = [one.mapper.translate(view, alignment) for view in (head, DenseView(states @ weight.T))]
    torch.testing.assert_close(whole_rows(both[0]), whole_rows(both[1]), rtol=1e-4, atol=1e-4)


def test_id_maps_are_identity_on_student_ids():
    one = case("pieces")
    ids = torch.tensor([[-1, 10**6, one.stop]])
    usable = [i for i in range(len(one.student.tokenizer)) if i in one.student_bytes or i == one.stop]
    for mapped in (one.mapper.to_student, one.mapper.to_teacher):
        assert mapped(ids).tolist() == [[-1, -1, one.stop]]
        known = mapped(torch.arange(len(one.student.tokenizer)))
        assert known[known >= 0].tolist() == usable and torch.equal(known[usable], torch.tensor(usable))
    assert isinstance(one.mapper, TokenMapper)


@pytest.mark.parametrize("name", PAIRS)
def test_mapper_passes_plugin_check(name):
    one = case(name)
    check_token_mapper(one.mapper, one.student, one.teacher, same_bytes=False, translates_to=one.student)


def raw_view(logprobs):
    """Make a view that returns a table of log-probabilities unchanged."""
    return SimpleNamespace(
        vocab_size=logprobs.shape[-1],
        topk=lambda k: logprobs.topk(k)[::-1],
        logprobs_at=lambda ids: logprobs.gather(-1, ids),
        entropy=lambda: logprobs.sum(-1),
    )


@pytest.mark.slow
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
def test_invalid_teacher_row_affects_only_dependent_positions(name, texts, row, invalid):
    """The invalid row has one invalid value, or only invalid values. All other positions keep their values."""
    one = case(name)
    alignment = one.mapper.align([one.ids(text) for text in texts])
    intact, bad = scored(alignment, len(one.teacher.tokenizer)).logprobs(), row % sum(map(len, alignment.teacher_ids))
    changed = intact.clone()
    changed[bad, slice(None) if invalid[1] else 0] = invalid[0]
    before, after = (one.mapper.translate(raw_view(rows), alignment) for rows in (intact, changed))
    lost = after.logprobs.isnan().any(-1)
    assert torch.equal(lost, after.logprobs.isnan().all(-1)) and (after.dropped[lost] == 1).all()
    torch.testing.assert_close(after.logprobs[~lost], before.logprobs[~lost], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.dropped[~lost], before.dropped[~lost], rtol=1e-5, atol=1e-6)
    clip_of = torch.tensor([n for n, ids in enumerate(alignment.teacher_ids) for _ in ids])
    rows = alignment.teacher_rows
    following = torch.cat([rows[1:], rows[-1:] + 1])  # no chain extends past the row of the next position
    near = (clip_of[rows] == clip_of[bad]) & (rows <= bad + STEPS_BACK) & ((following >= bad) | (rows >= bad))
    assert not lost[~near].any() and lost[rows == bad].all()


def test_invalid_teacher_row_affects_words_that_may_start_there():
    """SEVENTY may start at the first row and continue with TY after SEVEN. It cannot reach the last position."""
    one = case("numbers")
    alignment = one.mapper.align([one.ids("SEVEN SEVEN")])
    view = scored(alignment, len(one.teacher.tokenizer)).logprobs()
    view[0] = math.nan
    found = one.mapper.translate(raw_view(view), alignment)
    assert alignment.pending[:6] == [b"", b"S", b"SE", b"SEV", b"SEVE", b""]
    assert found.logprobs.isnan().all(-1).tolist()[:6] == [True] * 6 and not found.logprobs[-1].isnan().any()


@pytest.mark.parametrize("name", PREFIXED)
def test_added_space_is_not_part_of_text(name):
    one = case(name)
    transcripts = [one.ids(text) for text in [*TEXTS[:4], ""]]
    alignment = one.mapper.align(transcripts)
    assert alignment.num_mismatched == 0 and len(alignment.student_rows) == alignment.num_student
    check(one, transcripts)


def test_first_teacher_token_is_read_without_added_space():
    """What follows a token that is the space alone is unknown. A stop at the first row is a stop."""
    one = case("prefixed")
    for text in ("the sea", ""):
        alignment = one.mapper.align([one.ids(text)])
        row = {" the": 0.5, "the": 0.125, " br": 0.125, " ": 0.125, "": 0.125}
        view = teacher_view(one, [row, *[{"": 1.0}] * (len(alignment.teacher_ids[0]) - 1)])
        found, expected = one.mapper.translate(view, alignment), {one.stop: 0.125}
        for word, value in ((b"the", 0.625), (b"br", 0.125)):
            expected[one.spell(word)[0]] = expected.get(one.spell(word)[0], 0.0) + value
        compare((expected, 1.0), whole_rows(found)[0].double().exp(), float(found.dropped[0]))


def test_added_space_as_own_token_is_skipped():
    """Row 0 is space 0.5, t 0.25, stop 0.25. Row 1 is q 0.75, stop 0.25."""
    one = case("prefixed letters")
    alignment = one.mapper.align([one.ids("q")])
    assert alignment.teacher_rows.tolist() == [1, 2] and len(alignment.teacher_ids[0]) == 3
    view = teacher_view(one, [{" ": 0.5, "t": 0.25, "": 0.25}, {"q": 0.75, "": 0.25}, {"": 1.0}])
    found = one.mapper.translate(view, alignment)
    assert probs_of(found, 0, one, "q", "t", "") == pytest.approx([0.375, 0.25, 0.375], rel=1e-4)
    assert probs_of(found, 1, one, "") == pytest.approx([1.0])


def test_pairs_end_before_special_token_of_either_side():
    one = case("pieces")
    pieces = [one.piece_of[bytes([b])] for b in b"a<|im_end|><b"]
    alignment = one.mapper.align([[*pieces, one.stop]])
    assert alignment.teacher_rows.tolist() == [0, 1, 1]
    assert alignment.pending == [b"", b"", b"<"]  # some teacher token continues "<"
    special = one.student.tokenizer.convert_tokens_to_ids("<|user|>")
    assert one.mapper.align([[*one.ids("a", False), special, *one.ids("b")]]).student_rows.tolist() == [0, 1]


def test_stop_mass_goes_to_stop_of_same_string_or_first_stop():
    tokenizer = teacher_tokenizer()
    student_side, teacher_side = side(tokenizer, *SPECIAL), side(tokenizer, "<|im_end|>", "<asr_text>", "<|endoftext|>")
    mapper = ByteOffsets(EXACT, student=student_side, teacher=teacher_side)
    alignment = mapper.align([[student_side.stop_ids[1]]])
    p = torch.zeros(1, len(tokenizer))
    p[0, teacher_side.stop_ids] = torch.tensor([0.5, 0.125, 0.375])
    found = mapper.translate(DenseView(p.log()), alignment).logprobs_at(torch.tensor([student_side.stop_ids]))[0].exp()
    assert found.tolist() == pytest.approx([0.625, 0.375, FLOOR])
    assert mapper.to_teacher(torch.tensor(student_side.stop_ids)).tolist() == student_side.stop_ids
    assert float(mapper.translate(DenseView(p.log()), alignment).dropped[0]) == pytest.approx(0.0, abs=1e-6)


def test_empty_transcripts_are_aligned():
    one = case("pieces")
    alignment = one.mapper.align([[], [one.stop], []])
    assert alignment.teacher_ids == [[one.teacher_stop]] * 3
    assert alignment.num_student == 1 and alignment.num_mismatched == 0
    assert (alignment.student_rows.tolist(), alignment.teacher_rows.tolist()) == ([0], [1])


def test_translate_without_positions():
    one = case("pieces")
    alignment = one.mapper.align([one.ids("the sea")])
    alignment.student_rows, alignment.teacher_rows = alignment.student_rows[:0], alignment.teacher_rows[:0]
    view = one.mapper.translate(scored(alignment, len(one.teacher.tokenizer)), alignment)
    assert view.topk(3)[0].shape == (0, 3) and view.dropped.shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "`mapper.options.top_k` must be at least 1, got 0"),
        ({"min_mapped_mass": 1.5}, "`mapper.options.min_mapped_mass` must be between 0 and 1, got 1.5"),
    ],
)
def test_options_out_of_range_raise(options, message):
    both = side(student_tokenizer(), "<|im_end|>")
    with pytest.raises(UserError, match=message):
        create("token_mapper", "byte_offsets", options, student=both, teacher=both)


def gradient(one, mapper, s):
    """Return the loss gradient of a uniform student's logits at position s of SEVEN, and the count."""
    alignment = mapper.align([one.ids("SEVEN")])
    found = mapper.translate(teacher_view(one, [{"SEVEN": 0.98, "SIX": 0.01, "": 0.01}, {"": 1.0}]), alignment)
    logits = torch.zeros(1, len(one.student.tokenizer), requires_grad=True)
    best = torch.tensor([[piece(one, t) for t in "SEVN"] + [one.stop]])
    row = alignment.student_rows.tolist().index(s)
    support = union_support(found.topk(4)[0][[row]], best, torch.tensor([piece(one, "S")]), mapper)
    total, count = UnionTopkKl(UnionTopkKlOptions())(DenseView(logits), found.at(torch.tensor([row])), support)
    total.backward() if total.requires_grad else None
    return logits.grad if logits.grad is not None else torch.zeros_like(logits), int(count)


def test_loss_raises_letter_that_begins_teacher_word():
    one = case("numbers")
    slope, count = gradient(one, one.mapper, 0)
    assert count == 1 and slope[0].argmin() == piece(one, "S") and slope[0].min() < -0.5
    strings = SharedStrings(NoMapperOptions(), student=one.student, teacher=one.teacher)
    slope, _ = gradient(one, strings, 0)
    assert slope[0, piece(one, "S")] >= 0


def test_step_with_letters_under_words_counts_every_position():
    lm = eager_to_stop(student(10, letters(tuple(TEXTS))), 2.0)
    lm.blocked[[i for i, b in piece_bytes(lm.tokenizer).items() if b >= b"\x80"]] = True  # bytes inside characters
    its_teacher = InMemory(eager_to_stop(teacher(10), 2.0))
    mapper = ByteOffsets(ByteOffsetsOptions(), student=lm, teacher=its_teacher)
    loss = UnionTopkKl(UnionTopkKlOptions())
    one = Opd(its_teacher, mapper, loss, RolloutConfig(max_new_tokens=9), DistillConfig(top_k=6))
    result = one.collect(lm, batch(SIZES), Phases())
    total, count = one.rescore(lm, result)
    total.backward()
    assert math.isfinite(float(total.detach())) and float(total.detach()) > 0
    assert float(result.sums["paired"]) == float(result.sums["rollout_tokens"])
    assert int(count) == int((result.teacher_view.dropped < 1).sum()) > 10
    assert all(p.grad.isfinite().all() for p in lm.hf.parameters() if p.grad is not None)

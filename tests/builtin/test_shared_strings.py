"""The mapper `shared_strings`, compared with a byte-by-byte reference alignment."""

from __future__ import annotations

import unicodedata
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mapper_cases import SPECIAL, TEXT, byte_ids, chopped, parts, prefixed, reference_alignment
from tiny import student_tokenizer
from transformers.tokenization_python import PythonBackend

from arkasr.errors import UserError
from arkasr.plugins import registry
from arkasr.testing import check_token_mapper


def check(transcripts, case=None):
    case = case or parts()
    alignment = case[2].align(transcripts)
    expected = [reference_alignment(ids, case) for ids in transcripts]
    assert alignment.teacher_ids == [teacher_ids for teacher_ids, _, _ in expected]
    assert all(alignment.teacher_ids)
    assert alignment.num_student == sum(map(len, transcripts))
    assert alignment.num_mismatched == sum(not same for _, _, same in expected)
    pairs, row_s, row_t = [], 0, 0
    for ids, (teacher_ids, found, _) in zip(transcripts, expected):
        pairs += [(row_s + s, row_t + t) for s, t in found]
        row_s, row_t = row_s + len(ids), row_t + len(teacher_ids)
    assert list(zip(alignment.student_rows.tolist(), alignment.teacher_rows.tolist())) == pairs
    assert alignment.student_rows.dtype == alignment.teacher_rows.dtype == torch.int64
    return alignment


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TEXT, st.lists(st.booleans(), max_size=6), st.integers(0, 40), st.booleans()), max_size=4))
@example([("\u4f60\u597d", [True], 40, True), ("\u4eca\u5929 hello", [False, True], 40, False)])
@example([("caf\u0065\u0301", [False], 40, True)])
@example([("\U0001f600", [True], 2, True), ("", [], 0, True)])
@example([("the fox", [], 40, False), ("", [], 40, True), ("sea ", [True], 40, True)])
def test_shared_strings_pairs_positions_with_equal_bytes_read(clips):
    """Some pieces are byte tokens. Transcripts are cut anywhere, with or without a stop token."""
    stop = parts()[0].stop_ids[0]
    transcripts = [chopped(text, choices)[:cut] + [stop] * ended for text, choices, cut, ended in clips]
    check([ids or [stop] for ids in transcripts])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.integers(0, len(student_tokenizer()) - 1), max_size=12), max_size=3), st.booleans())
def test_shared_strings_aligns_any_ids(transcripts, ended):
    stop = parts()[0].stop_ids[0]
    words = [[i for i in ids if i != stop] for ids in transcripts]
    check([ids + [stop] * (ended or not ids) for ids in words])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(TEXT, st.sampled_from([*SPECIAL, "<", "<|"])), min_size=1, max_size=5), st.booleans())
@example(["a", "<|im_end|>", ">", "<b"], True)
@example(["sea", "<|im_end|>", "<|im_end|>", "<|im_end|>"], True)
def test_shared_strings_with_special_tokens_in_plain_text(pieces, ended):
    """The teacher's tokenizer reads these as special tokens. Its distributions after one belong to another text."""
    pieces_ids = [[byte_ids()[b] for b in p.encode()] if p.startswith("<") else chopped(p, []) for p in pieces]
    ids = [i for piece_ids in pieces_ids for i in piece_ids] + [parts()[0].stop_ids[0]] * ended
    check([ids or [parts()[0].stop_ids[0]]])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXT, st.integers(0, 40), st.booleans()), min_size=1, max_size=3))
@example([("the quick \u4f60\u597d", 40, True), ("", 0, True), (" the sea", 40, True)])
@example([("\u4eca\u5929 hello", 40, True), ("\u4f60", 1, False)])
def test_shared_strings_with_teacher_that_adds_space(clips):
    student = prefixed()[0]
    words = [(student.tokenizer.encode(text, add_special_tokens=False)[:cut], ended) for text, cut, ended in clips]
    check([ids + [student.stop_ids[0]] * (ended or not ids) for ids, ended in words], prefixed())


def test_shared_strings_with_added_space_skips_only_first_position():
    student, teacher, mapper, _, _ = prefixed()
    ids = [*student.tokenizer.encode("the sea"), student.stop_ids[0]]
    alignment = mapper.align([ids])
    assert teacher.tokenizer.convert_ids_to_tokens(alignment.teacher_ids[0])[0].startswith("\u2581")
    assert alignment.num_mismatched == 0 and alignment.teacher_ids[0][-1] == teacher.stop_ids[0]
    assert 0 not in alignment.student_rows.tolist() and alignment.student_rows.tolist()[-1] == len(ids) - 1
    check_token_mapper(mapper, student, teacher, same_bytes=False)


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_shared_strings_pairs_first_token_and_stop_of_normalised_text(text):
    stop = parts()[0].stop_ids[0]
    ids = [*chopped(unicodedata.normalize("NFC", text), []), stop]
    alignment = check([ids])
    assert alignment.num_mismatched == 0 and alignment.teacher_ids[0][-1] == parts()[1].stop_ids[0]
    assert (alignment.student_rows[0], alignment.teacher_rows[0]) == (0, 0)
    assert (alignment.student_rows[-1], alignment.teacher_rows[-1]) == (len(ids) - 1, len(alignment.teacher_ids[0]) - 1)


def test_shared_strings_pairs_stop_of_empty_transcript():
    student, teacher, mapper, _, _ = parts()
    alignment = mapper.align([[student.stop_ids[0]]] * 2)
    assert alignment.teacher_ids == [[teacher.stop_ids[0]]] * 2 and alignment.num_mismatched == 0
    assert alignment.student_rows.tolist() == alignment.teacher_rows.tolist() == [0, 1]


def test_shared_strings_counts_decomposed_text_as_mismatch_and_pairs_common_prefix():
    student, teacher, _, student_bytes, _ = parts()
    ids = [*chopped("the cafe\u0301 sea", [True]), student.stop_ids[0]]
    alignment = check([ids])
    assert alignment.num_mismatched == 1 and teacher.stop_ids[0] not in alignment.teacher_ids[0]
    before = [sum(len(student_bytes[i]) for i in ids[:s]) for s in alignment.student_rows.tolist()]
    assert before and max(before) <= len(b"the caf")
    assert teacher.tokenizer.decode(alignment.teacher_ids[0]) == "the caf\u00e9 sea"


def test_shared_strings_reads_rollout_up_to_cut_character():
    alignment = check([[byte_ids()[b] for b in b"sea \xe4\xbd"], chopped("sea", [])])
    assert parts()[1].tokenizer.decode(alignment.teacher_ids[0]) == "sea " and alignment.num_mismatched == 1


def test_shared_strings_pairs_end_before_special_token_in_plain_text():
    """The teacher's tokenizer reads `<|im_end|>` in a text as one token without bytes. Nothing after it is paired."""
    alignment = check([[*(byte_ids()[b] for b in b"a<|im_end|>b"), parts()[0].stop_ids[0]]])
    assert alignment.num_mismatched == 1 and alignment.teacher_rows.tolist() == [0, 1]


def test_shared_strings_maps_tokens_one_to_one():
    student, teacher, mapper, student_bytes, teacher_bytes = parts()
    student_ids, teacher_ids = torch.arange(len(student.tokenizer)), torch.arange(len(teacher.tokenizer))
    there, back = mapper.to_teacher(student_ids), mapper.to_student(teacher_ids)
    known = there >= 0
    assert torch.equal(back[there[known]], student_ids[known])
    assert torch.equal(there[back[back >= 0]], teacher_ids[back >= 0])
    shared = set(student_bytes.values()) & set(teacher_bytes.values())
    assert int(known.sum()) == int((back >= 0).sum()) == len(shared) + 1
    for s, t in zip(student_ids[known].tolist(), there[known].tolist()):
        stops = (s, t) == (student.stop_ids[0], teacher.stop_ids[0])
        assert stops or student_bytes[s] == teacher_bytes[t]


def test_shared_strings_prefers_piece_to_byte_token():
    student, teacher, mapper, _, _ = parts()
    [piece], [letter] = student.tokenizer.encode("q"), teacher.tokenizer.encode("q")
    assert mapper.to_student(torch.tensor([letter])).tolist() == [piece]
    assert mapper.to_teacher(torch.tensor([piece, byte_ids()[ord("q")]])).tolist() == [letter, -1]


def test_shared_strings_maps_other_special_tokens_to_nothing():
    student, teacher, mapper, _, _ = parts()
    special = [i for i in teacher.tokenizer.added_tokens_decoder if i != teacher.stop_ids[0]]
    assert mapper.to_student(torch.tensor(special)).eq(-1).all()
    special = [i for i in student.tokenizer.added_tokens_decoder if i != student.stop_ids[0]]
    assert mapper.to_teacher(torch.tensor(special)).eq(-1).all()


class SlowTokenizer(PythonBackend):
    """A tokenizer without a tokenizer.json."""

    vocab_size = 2

    def get_vocab(self):
        return {"a": 0, "b": 1}


@pytest.mark.parametrize("mapper", ["shared_strings", "byte_offsets"])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_slow_tokenizer_is_refused_at_construction(mapper, side):
    student, teacher = parts()[:2]
    slow = SimpleNamespace(tokenizer=SlowTokenizer(), stop_ids=[1])
    sides = {"student": student, "teacher": teacher} | {side: slow}
    with pytest.raises(UserError, match=r"SlowTokenizer is a slow tokenizer.*tokenizer\.json"):
        registry.create("token_mapper", mapper, {}, **sides)

"""Token mappers against a byte-by-byte rendering of what they promise."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import bpe_bytes, piece_bytes, student_tokenizer, teacher_tokenizer
from transformers import AutoTokenizer

from arkasr.builtin.mappers import Identity, NoOptions, SharedStrings
from arkasr.interfaces import TokenMapper, UserError

TEXT = st.text(
    st.one_of(
        st.sampled_from("the quick brown fox  'AZ09."),
        st.sampled_from("\u4f60\u597d\u4e16\u754c\u4eca\u5929\u9f98\uff0c"),
        st.sampled_from("\U0001f600\U0001f468\u200d\u00e9\u0301e\u00df\u1100\u1161"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\u2581<"),
    ),
    max_size=16,
)


def side(tokenizer, *stops):
    return SimpleNamespace(tokenizer=tokenizer, stop_ids=[tokenizer.convert_tokens_to_ids(t) for t in stops])


@lru_cache
def parts():
    """The student's side, the teacher's side, the mapper, and both byte tables by another hand."""
    ours, theirs = side(student_tokenizer(), "<|im_end|>"), side(teacher_tokenizer(), "<|im_end|>", "<|endoftext|>")
    mapper = SharedStrings(NoOptions(), student=ours, teacher=theirs)
    return ours, theirs, mapper, piece_bytes(ours.tokenizer), bpe_bytes(theirs.tokenizer)


@lru_cache
def byte_ids():
    """The student's byte-fallback token of every byte."""
    return {b: parts()[0].tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in range(256)}


def chopped(text, choices):
    """Encode a text, some of whose pieces fall back to bytes."""
    ids = []
    for number, token in enumerate(parts()[0].tokenizer.encode(text, add_special_tokens=False)):
        split = choices[number % len(choices)] if choices else False
        ids += [byte_ids()[b] for b in parts()[3][token]] if split else [token]
    return ids


def rendered(ids):
    """Align one transcript the slow way: teacher ids, (student, teacher) positions, and whether all was read back."""
    ours, theirs, _, student_bytes, teacher_bytes = parts()
    stopped = len(ids) > 0 and ids[-1] in ours.stop_ids
    spelt = [student_bytes.get(i, b"") for i in ids[: len(ids) - stopped]]
    data, text = b"".join(spelt), None
    for end in range(len(data), -1, -1):
        try:
            text = data[:end].decode("utf-8")
            break
        except UnicodeDecodeError:
            continue
    new = theirs.tokenizer.encode(text, add_special_tokens=False)
    read = [teacher_bytes.get(i, b"") for i in new]
    same = b"".join(read) == data
    teacher_ids = [*new, theirs.stop_ids[0]] if (stopped and same) or not new else new
    pairs = []
    for s in range(len(ids)):
        matches = [t for t in range(len(teacher_ids)) if b"".join(read[:t]) == b"".join(spelt[:s])]
        pairs += [(s, t) for t in matches[:1]]
    return teacher_ids, pairs, same


def check(transcripts):
    _, _, mapper, _, _ = parts()
    made = mapper.align(transcripts)
    slow = [rendered(ids) for ids in transcripts]
    assert made.teacher_ids == [new for new, _, _ in slow]
    assert all(made.teacher_ids)
    assert made.num_student == sum(map(len, transcripts))
    assert made.num_mismatched == sum(not same for _, _, same in slow)
    pairs, row_s, row_t = [], 0, 0
    for ids, (new, found, _) in zip(transcripts, slow):
        pairs += [(row_s + s, row_t + t) for s, t in found]
        row_s, row_t = row_s + len(ids), row_t + len(new)
    assert list(zip(made.student_rows.tolist(), made.teacher_rows.tolist())) == pairs
    assert made.student_rows.dtype == made.teacher_rows.dtype == torch.int64
    return made


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TEXT, st.lists(st.booleans(), max_size=6), st.integers(0, 40), st.booleans()), max_size=4))
@example([("\u4f60\u597d", [True], 40, True), ("\u4eca\u5929 hello", [False, True], 40, False)])
@example([("caf\u0065\u0301", [False], 40, True)])
@example([("\U0001f600", [True], 2, True), ("", [], 0, True)])
@example([("the fox", [], 40, False), ("", [], 40, True), ("sea ", [True], 40, True)])
def test_texts_are_aligned_where_equal_bytes_were_read(clips):
    """Texts, some of whose pieces are bytes, cut anywhere, ended or not."""
    stop = parts()[0].stop_ids[0]
    transcripts = [chopped(text, choices)[:cut] + [stop] * ended for text, choices, cut, ended in clips]
    check([ids or [stop] for ids in transcripts])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.integers(0, len(student_tokenizer()) - 1), max_size=12), max_size=3), st.booleans())
def test_any_ids_at_all_are_aligned(transcripts, ended):
    stop = parts()[0].stop_ids[0]
    words = [[i for i in ids if i != stop] for ids in transcripts]
    check([ids + [stop] * (ended or not ids) for ids in words])


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_an_ended_composed_transcript_pairs_its_first_token_and_its_stop(text):
    stop = parts()[0].stop_ids[0]
    ids = [*chopped(unicodedata.normalize("NFC", text), []), stop]
    made = check([ids])
    assert made.num_mismatched == 0 and made.teacher_ids[0][-1] == parts()[1].stop_ids[0]
    assert (made.student_rows[0], made.teacher_rows[0]) == (0, 0)
    assert (made.student_rows[-1], made.teacher_rows[-1]) == (len(ids) - 1, len(made.teacher_ids[0]) - 1)


def test_a_transcript_that_is_only_a_stop_pairs_it():
    ours, theirs, mapper, _, _ = parts()
    made = mapper.align([[ours.stop_ids[0]]] * 2)
    assert made.teacher_ids == [[theirs.stop_ids[0]]] * 2 and made.num_mismatched == 0
    assert made.student_rows.tolist() == made.teacher_rows.tolist() == [0, 1]


def test_decomposed_text_counts_as_mismatch_and_pairs_its_common_prefix():
    ours, theirs, _, student_bytes, teacher_bytes = parts()
    ids = [*chopped("the cafe\u0301 sea", [True]), ours.stop_ids[0]]
    made = check([ids])
    assert made.num_mismatched == 1 and theirs.stop_ids[0] not in made.teacher_ids[0]
    before = [sum(len(student_bytes[i]) for i in ids[:s]) for s in made.student_rows.tolist()]
    assert before and max(before) <= len(b"the caf")
    assert theirs.tokenizer.decode(made.teacher_ids[0]) == "the caf\u00e9 sea"


def test_a_rollout_cut_inside_a_character_is_read_up_to_it():
    made = check([[byte_ids()[b] for b in b"sea \xe4\xbd"], chopped("sea", [])])
    assert parts()[1].tokenizer.decode(made.teacher_ids[0]) == "sea " and made.num_mismatched == 1


def test_pairs_stay_before_a_special_token_spelt_in_plain_text():
    """The teacher's tokenizer reads `<|im_end|>` in a text as one token without bytes: nothing after it pairs."""
    made = check([[*(byte_ids()[b] for b in b"a<|im_end|>b"), parts()[0].stop_ids[0]]])
    assert made.num_mismatched == 1 and made.teacher_rows.tolist() == [0, 1]


def test_shared_tokens_map_one_to_one():
    ours, theirs, mapper, student_bytes, teacher_bytes = parts()
    student, teacher = torch.arange(len(ours.tokenizer)), torch.arange(len(theirs.tokenizer))
    there, back = mapper.to_teacher(student), mapper.to_student(teacher)
    known = there >= 0
    assert torch.equal(back[there[known]], student[known])
    assert torch.equal(there[back[back >= 0]], teacher[back >= 0])
    shared = set(student_bytes.values()) & set(teacher_bytes.values())
    assert int(known.sum()) == int((back >= 0).sum()) == len(shared) + 1
    for s, t in zip(student[known].tolist(), there[known].tolist()):
        stops = (s, t) == (ours.stop_ids[0], theirs.stop_ids[0])
        assert stops or student_bytes[s] == teacher_bytes[t]


def test_a_piece_is_preferred_to_its_byte_token():
    ours, theirs, mapper, _, _ = parts()
    [piece], [letter] = ours.tokenizer.encode("q"), theirs.tokenizer.encode("q")
    assert mapper.to_student(torch.tensor([letter])).tolist() == [piece]
    assert mapper.to_teacher(torch.tensor([piece, byte_ids()[ord("q")]])).tolist() == [letter, -1]


def test_ids_of_any_shape_map_and_strangers_do_not():
    _, _, mapper, _, _ = parts()
    assert mapper.to_teacher(torch.tensor([[-1, 10**6], [3, 4]])).shape == (2, 2)
    assert mapper.to_teacher(torch.tensor([-1, 10**6])).tolist() == [-1, -1]
    assert mapper.to_student(torch.tensor([-1, 10**6])).tolist() == [-1, -1]
    assert mapper.to_student(torch.zeros(0, 5, dtype=torch.long)).shape == (0, 5)


def test_other_special_tokens_map_to_nothing():
    ours, theirs, mapper, _, _ = parts()
    special = [i for i in theirs.tokenizer.added_tokens_decoder if i != theirs.stop_ids[0]]
    assert mapper.to_student(torch.tensor(special)).eq(-1).all()
    special = [i for i in ours.tokenizer.added_tokens_decoder if i != ours.stop_ids[0]]
    assert mapper.to_teacher(torch.tensor(special)).eq(-1).all()


def test_identity_refuses_other_vocabularies():
    ours, theirs, *_ = parts()
    with pytest.raises(UserError, match="identity.*student ids are other tokens.*shared_strings"):
        Identity(NoOptions(), student=ours, teacher=theirs)


def test_identity_refuses_one_swapped_token(tmp_path):
    teacher_tokenizer().save_pretrained(tmp_path)
    spec = (tmp_path / "tokenizer.json").read_text()
    swapped = spec.replace('"a":', '"SWAP":', 1).replace('"b":', '"a":', 1).replace('"SWAP":', '"b":', 1)
    assert swapped != spec
    (tmp_path / "tokenizer.json").write_text(swapped)
    other = AutoTokenizer.from_pretrained(tmp_path)
    assert other.get_vocab()["a"] == teacher_tokenizer().get_vocab()["b"]
    with pytest.raises(UserError, match="2 student ids"):
        Identity(NoOptions(), student=side(teacher_tokenizer(), "<|im_end|>"), teacher=side(other, "<|im_end|>"))


def test_identity_gives_the_teacher_the_students_ids():
    both = side(teacher_tokenizer(), "<|im_end|>", "<|endoftext|>")
    mapper = Identity(NoOptions(), student=both, teacher=both)
    end, other_end = both.stop_ids
    made = mapper.align([[3, 4, end], [end], [5, 6], [7, other_end]])
    assert made.teacher_ids == [[3, 4, end], [end], [5, 6], [7, end]]
    assert made.student_rows.tolist() == made.teacher_rows.tolist() == list(range(8))
    assert (made.num_student, made.num_mismatched) == (8, 0)
    table = bpe_bytes(both.tokenizer)
    for i in range(len(both.tokenizer)):
        expected = i if i in table or i == end else -1
        assert mapper.to_teacher(torch.tensor(i)) == mapper.to_student(torch.tensor(i)) == expected


def test_identity_leaves_what_the_teacher_has_beyond_the_student():
    """The published student and teacher: equal text ids, other special tokens above them."""
    ours, theirs = side(teacher_tokenizer(), "<|im_end|>"), side(teacher_tokenizer(), "<|endoftext|>")
    mapper = Identity(NoOptions(), student=ours, teacher=theirs)
    assert mapper.align([[3, ours.stop_ids[0]]]).teacher_ids == [[3, theirs.stop_ids[0]]]
    assert mapper.to_student(torch.tensor(ours.stop_ids[0])) == -1


def test_both_fulfil_the_protocol():
    same = side(teacher_tokenizer(), "<|im_end|>")
    assert isinstance(parts()[2], TokenMapper)
    assert isinstance(Identity(NoOptions(), student=same, teacher=same), TokenMapper)

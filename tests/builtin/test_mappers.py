"""Token mappers against a byte-by-byte rendering of what they promise."""

from __future__ import annotations

import unicodedata

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mapper_cases import SPECIAL, TEXT, byte_ids, chopped, parts, prefixed, rendered, side
from tiny import bpe_bytes, student_tokenizer, teacher_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoTokenizer

from arkasr.builtin.losses import UnionTopkKl, UnionTopkKlOptions
from arkasr.builtin.mappers.common import NoMapperOptions
from arkasr.builtin.mappers.identity import Identity
from arkasr.builtin.mappers.shared_strings import SharedStrings
from arkasr.distill.support import union_support
from arkasr.distributions.views import DenseView
from arkasr.errors import UserError
from arkasr.interfaces import TokenMapper
from arkasr.plugins.registry import create
from arkasr.testing import check_token_mapper


def check(transcripts, given=None):
    given = given or parts()
    made = given[2].align(transcripts)
    slow = [rendered(ids, given) for ids in transcripts]
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


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(TEXT, st.sampled_from([*SPECIAL, "<", "<|"])), min_size=1, max_size=5), st.booleans())
@example(["a", "<|im_end|>", ">", "<b"], True)
@example(["sea", "<|im_end|>", "<|im_end|>", "<|im_end|>"], True)
def test_special_tokens_spelt_in_plain_text(pieces, ended):
    """The teacher's tokenizer reads these as tokens without bytes: what it says after one is of another text."""
    spelt = [[byte_ids()[b] for b in p.encode()] if p.startswith("<") else chopped(p, []) for p in pieces]
    ids = [i for some in spelt for i in some] + [parts()[0].stop_ids[0]] * ended
    check([ids or [parts()[0].stop_ids[0]]])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXT, st.integers(0, 40), st.booleans()), min_size=1, max_size=3))
@example([("the quick \u4f60\u597d", 40, True), ("", 0, True), (" the sea", 40, True)])
@example([("\u4eca\u5929 hello", 40, True), ("\u4f60", 1, False)])
def test_a_teacher_whose_tokenizer_writes_a_space_of_its_own(clips):
    ours = prefixed()[0]
    words = [(ours.tokenizer.encode(text, add_special_tokens=False)[:cut], ended) for text, cut, ended in clips]
    check([ids + [ours.stop_ids[0]] * (ended or not ids) for ids, ended in words], prefixed())


def test_a_space_of_the_teachers_own_costs_the_first_position_only():
    ours, theirs, mapper, _, _ = prefixed()
    ids = [*ours.tokenizer.encode("the sea"), ours.stop_ids[0]]
    made = mapper.align([ids])
    assert theirs.tokenizer.convert_ids_to_tokens(made.teacher_ids[0])[0].startswith("\u2581")
    assert made.num_mismatched == 0 and made.teacher_ids[0][-1] == theirs.stop_ids[0]
    assert 0 not in made.student_rows.tolist() and made.student_rows.tolist()[-1] == len(ids) - 1
    check_token_mapper(mapper, ours, theirs, same_bytes=False)


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


STOPS = st.permutations(SPECIAL).flatmap(lambda names: st.integers(1, 3).map(lambda n: names[:n]))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([SharedStrings, Identity]), STOPS, STOPS)
@example(Identity, SPECIAL[:2], SPECIAL[:2])
def test_further_stops_are_mapped_by_their_strings(kind, ours, theirs):
    tokenizer = teacher_tokenizer()
    sides = {"student": side(tokenizer, *ours), "teacher": side(tokenizer, *theirs)}
    mapper, ids = kind(NoMapperOptions(), **sides), {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    expected = {ours[0]: ids[theirs[0]]} | {name: ids[name] if name in theirs[1:] else -1 for name in ours[1:]}
    assert {name: int(mapper.to_teacher(torch.tensor(ids[name]))) for name in ours} == expected
    every = torch.arange(len(tokenizer))
    for there, back in ((mapper.to_teacher, mapper.to_student), (mapper.to_student, mapper.to_teacher)):
        known = there(every) >= 0
        assert torch.equal(back(there(every)[known]), every[known])
        assert int(known.sum()) == len(bpe_bytes(tokenizer)) + sum(i >= 0 for i in expected.values())


@pytest.mark.parametrize("name", ["identity", "shared_strings", "byte_offsets"])
def test_a_premature_stop_is_unlearnt_by_either_stop(name):
    """A student that is about to stop by its second stop id, and a teacher that would go on."""
    both = side(teacher_tokenizer(), *SPECIAL[:2])
    mapper = create("token_mapper", name, {}, student=both, teacher=both)
    letters = both.tokenizer.convert_tokens_to_ids(["q", "x"])
    ids, second = [letters[0], both.stop_ids[1]], both.stop_ids[1]
    made = mapper.align([ids])
    logits = torch.zeros(len(made.teacher_ids[0]), len(both.tokenizer))
    logits[:, letters] = torch.tensor([16.0, 14.0])
    teacher = mapper.translate(DenseView(logits), made).at(torch.tensor([1]))
    student = torch.zeros(1, len(both.tokenizer)).index_fill_(1, torch.tensor([second]), 16.0).requires_grad_()
    best = [view.topk(2)[0] for view in (teacher, DenseView(student.detach()))]
    total, count = UnionTopkKl(UnionTopkKlOptions())(
        DenseView(student), teacher, union_support(*best, torch.tensor([second]), mapper)
    )
    total.backward()
    assert int(count) == 1 and float(student.grad[0, second]) > 0.9


class Copies(TorchDispatchMode):
    """Counts the tensors that are copied to another device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


def test_a_table_is_copied_to_a_device_once():
    ours, theirs, *_ = parts()
    mapper, ids = SharedStrings(NoMapperOptions(), student=ours, teacher=theirs), torch.arange(5)
    expected, away = mapper.to_teacher(ids), ids.to("meta")
    with Copies() as copies:
        assert mapper.to_teacher(away).device.type == "meta" and copies.count == 1
        assert torch.equal(mapper.to_teacher(ids), expected)
        mapper.to_teacher(away)
    assert copies.count == 1


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
        Identity(NoMapperOptions(), student=ours, teacher=theirs)


def test_identity_refuses_one_swapped_token(tmp_path):
    teacher_tokenizer().save_pretrained(tmp_path)
    spec = (tmp_path / "tokenizer.json").read_text()
    swapped = spec.replace('"a":', '"SWAP":', 1).replace('"b":', '"a":', 1).replace('"SWAP":', '"b":', 1)
    assert swapped != spec
    (tmp_path / "tokenizer.json").write_text(swapped)
    other = AutoTokenizer.from_pretrained(tmp_path)
    assert other.get_vocab()["a"] == teacher_tokenizer().get_vocab()["b"]
    with pytest.raises(UserError, match="2 student ids"):
        Identity(NoMapperOptions(), student=side(teacher_tokenizer(), "<|im_end|>"), teacher=side(other, "<|im_end|>"))


def test_identity_gives_the_teacher_the_students_ids():
    both = side(teacher_tokenizer(), "<|im_end|>", "<|endoftext|>")
    mapper = Identity(NoMapperOptions(), student=both, teacher=both)
    end, other_end = both.stop_ids
    made = mapper.align([[3, 4, end], [end], [5, 6], [7, other_end]])
    assert made.teacher_ids == [[3, 4, end], [end], [5, 6], [7, end]]
    assert made.student_rows.tolist() == made.teacher_rows.tolist() == list(range(8))
    assert (made.num_student, made.num_mismatched) == (8, 0)
    table = bpe_bytes(both.tokenizer)
    for i in range(len(both.tokenizer)):
        expected = i if i in table or i in both.stop_ids else -1
        assert mapper.to_teacher(torch.tensor(i)) == mapper.to_student(torch.tensor(i)) == expected


def test_identity_leaves_what_the_teacher_has_beyond_the_student():
    """The published student and teacher: equal text ids, other special tokens above them."""
    ours, theirs = side(teacher_tokenizer(), "<|im_end|>"), side(teacher_tokenizer(), "<|endoftext|>")
    mapper = Identity(NoMapperOptions(), student=ours, teacher=theirs)
    assert mapper.align([[3, ours.stop_ids[0]]]).teacher_ids == [[3, theirs.stop_ids[0]]]
    assert mapper.to_student(torch.tensor(ours.stop_ids[0])) == -1


def test_both_fulfil_the_protocol():
    same = side(teacher_tokenizer(), "<|im_end|>")
    assert isinstance(parts()[2], TokenMapper)
    assert isinstance(Identity(NoMapperOptions(), student=same, teacher=same), TokenMapper)

"""`check_token_mapper` rejects mappers that break one promise: a correct mapper with one line changed."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace

import pytest
import torch
from kit import failure_message, student, teacher

from arkasr.distributions.views import DenseView
from arkasr.interfaces import Alignment
from arkasr.model.train_tokenizer import train_byte_bpe
from arkasr.testing import TableView, check_token_mapper, create
from arkasr.testing.rollouts import TEXTS, make_rollouts, shared_boundaries, vocabulary


def good_mapper():
    return create("token_mapper", "shared_strings", {}, student=student(), teacher=teacher())


class Delegating:
    """Delegates to a correct mapper. Each subclass breaks one promise."""

    def __init__(self):
        self.good = good_mapper()

    def __getattr__(self, name):
        return getattr(self.good, name)

    def to_student(self, ids):
        return self.good.to_student(ids)

    def to_teacher(self, ids):
        return self.good.to_teacher(ids)

    def align(self, ids):
        return self.good.align(ids)

    def translate(self, view, alignment):
        return self.good.translate(view, alignment)


def with_fields(**change):
    """Return a mapper class that replaces fields of its alignments by functions of the alignment."""

    class ChangedFields(Delegating):
        def align(self, ids):
            alignment = self.good.align(ids)
            fields = {name: function(alignment) for name, function in change.items()}
            return Alignment(**(vars(alignment) | fields))

    return ChangedFields


class NegativeIndex(Delegating):
    """Reads the end of its table for negative ids."""

    def to_teacher(self, ids):
        known = ids < len(self.good._forward)
        return self.good._forward[ids.clamp(max=len(self.good._forward) - 1)].masked_fill(~known, -1)


class WithoutRangeCheck(Delegating):
    def to_student(self, ids):
        return self.good._backward[ids]


class OffByOne(Delegating):
    """Shifts the ids of words by one in both maps."""

    def to_teacher(self, ids):
        found = self.good.to_teacher(ids)
        return torch.where((found >= 100) & (found < 300), (found - 100 + 1) % 200 + 100, found)

    def to_student(self, ids):
        back = torch.where((ids >= 100) & (ids < 300), (ids - 100 - 1) % 200 + 100, ids)
        return self.good.to_student(back)


class ManyToOne(Delegating):
    def to_teacher(self, ids):
        found = self.good.to_teacher(ids)
        words = (found >= 0) & (found < 300)
        return torch.where(words, found[words].min() if words.any() else found, found)


class NoStop(Delegating):
    def to_teacher(self, ids):
        found = self.good.to_teacher(ids)
        return found.masked_fill(found == self.good.teacher_stop, -1)


class StopOnly(Delegating):
    def to_teacher(self, ids):
        found = self.good.to_teacher(ids)
        return found.masked_fill(found != self.good.teacher_stop, -1)


class FlatShape(Delegating):
    def to_teacher(self, ids):
        return self.good.to_teacher(ids).flatten()


class Floats(Delegating):
    def to_student(self, ids):
        return self.good.to_student(ids).float()


class WholeCharacters(Delegating):
    """Fails for half a character."""

    def align(self, ids):
        for clip in ids:
            vocabulary(student()).decode_bytes(clip).decode()
        return self.good.align(ids)


class ChangesIds(Delegating):
    def align(self, ids):
        alignment = self.good.align(ids)
        ids[0].pop()
        return alignment


class FirstClipRows(Delegating):
    """Ignores where a clip begins: pairs the rows of the first clip repeatedly."""

    def align(self, ids):
        parts = [self.good.align([clip]) for clip in ids]
        rows = [torch.cat([getattr(part, name) for part in parts]) for name in ("student_rows", "teacher_rows")]
        total = sum(part.num_student for part in parts)
        return Alignment([part.teacher_ids[0] for part in parts], *rows, total)


class BatchDependent(Delegating):
    """Omits the first pair in batches of several clips."""

    def align(self, ids):
        alignment = self.good.align(ids)
        keep = slice(1, None) if len(ids) > 1 else slice(None)
        return Alignment(
            alignment.teacher_ids, alignment.student_rows[keep], alignment.teacher_rows[keep], alignment.num_student
        )


class WithoutLast(Delegating):
    """Never pairs the last position of each clip."""

    def align(self, ids):
        alignment = self.good.align(ids)
        last = torch.tensor(list(itertools.accumulate(map(len, ids)))) - 1
        keep = ~torch.isin(alignment.student_rows, last)
        return Alignment(
            alignment.teacher_ids, alignment.student_rows[keep], alignment.teacher_rows[keep], alignment.num_student
        )


class LastOnly(Delegating):
    """Pairs only the last position of each clip."""

    def align(self, ids):
        alignment = self.good.align(ids)
        keep = torch.isin(alignment.student_rows, torch.tensor(list(itertools.accumulate(map(len, ids)))) - 1)
        return Alignment(
            alignment.teacher_ids,
            alignment.student_rows[keep],
            alignment.teacher_rows[keep],
            alignment.num_student,
            alignment.num_mismatched,
        )


class NotDeterministic(Delegating):
    """Omits the last pair from the second batch of several clips on."""

    batches = 0

    def align(self, ids):
        alignment = self.good.align(ids)
        self.batches += len(ids) > 1
        keep = slice(-1) if len(ids) > 1 and self.batches > 1 else slice(None)
        rows = alignment.student_rows[keep], alignment.teacher_rows[keep]
        return Alignment(alignment.teacher_ids, *rows, alignment.num_student, alignment.num_mismatched)


class BatchMismatch(Delegating):
    """Counts one mismatch too many in batches."""

    def align(self, ids):
        alignment = self.good.align(ids)
        alignment.num_mismatched += len(ids) > 1
        return alignment


class PreviousRow(Delegating):
    """Pairs positions with the teacher's row before the right one."""

    def align(self, ids):
        alignment = self.good.align(ids)
        inside = (alignment.teacher_rows[1:] - alignment.teacher_rows[:-1] == 1).nonzero()[:, 0] + 1
        first = inside[torch.isin(alignment.teacher_rows[inside] - 1, alignment.teacher_rows)]
        starts = torch.tensor([0, *itertools.accumulate(map(len, ids))])
        first = first[~torch.isin(alignment.student_rows[first], starts)]
        rows = alignment.teacher_rows[first] - 1
        return Alignment(alignment.teacher_ids, alignment.student_rows[first], rows, alignment.num_student)


class AllRows(Delegating):
    def translate(self, view, alignment):
        return view


class ReversedRows(Delegating):
    def translate(self, view, alignment):
        return view.at(alignment.teacher_rows.flip(0))


class SmallVocabulary(Delegating):
    def translate(self, view, alignment):
        return DenseView(view.logits[alignment.teacher_rows][:, :100])


class BestOnly(Delegating):
    """Keeps the best token's probability and spreads the rest evenly."""

    def translate(self, view, alignment):
        logprobs = view.at(alignment.teacher_rows).logprobs()
        best = logprobs.max(-1, keepdim=True)
        rest = ((1 - best.values.exp()) / (logprobs.shape[-1] - 1)).log().expand_as(logprobs)
        return DenseView(rest.scatter(-1, best.indices, best.values))


class RaisesForNoPositions(Delegating):
    def translate(self, view, alignment):
        return view.at(alignment.teacher_rows[alignment.teacher_rows.argmax() * 0 :])


class Logits(Delegating):
    def translate(self, view, alignment):
        return TableView(view.logits[alignment.teacher_rows])


@pytest.mark.parametrize(
    ("mapper", "sentence"),
    [
        (NegativeIndex, "to_teacher maps ids outside the vocabulary"),
        (WithoutRangeCheck, "to_student.* raises IndexError"),
        (OffByOne, r"to_teacher maps id \d+ \(b'.*'\) to id \d+ \(b'.*'\)"),
        (ManyToOne, "not one to one"),
        (NoStop, r"to_teacher maps stop id \d+ to -1"),
        (StopOnly, "to_teacher maps only the stop token"),
        (FlatShape, r"to_teacher returns int64 \[\d+\]; it must return int64 \[1, \d+, 1\]"),
        (Floats, "returns float32"),
        (WholeCharacters, "align .*cut inside a character.* raises UnicodeDecodeError"),
        (ChangesIds, "align changes the token ids"),
        (FirstClipRows, "strictly increasing"),
        (BatchDependent, "alone and in a batch"),
        (WithoutLast, "align pairs no stop token"),
        (LastOnly, r"only \d of the 27 positions of texts that both tokenizers split alike"),
        (NotDeterministic, "a different alignment for the same batch"),
        (BatchMismatch, r"num_mismatched is \d+ for a batch, but \d+ for its clips one by one"),
        (
            with_fields(num_mismatched=lambda m: len(m.teacher_ids)),
            "'the sea', stopped: Alignment.num_mismatched is 1; .* and the teacher's b'the",
        ),
        (
            with_fields(num_mismatched=lambda m: 0),
            r"'the sea', cut inside .*: Alignment.num_mismatched is 0; .* b'the sea\\xc2' and",
        ),
        (
            with_fields(teacher_ids=lambda m: [[], *m.teacher_ids[1:]]),
            "teacher_ids is empty for a rollout that is only",
        ),
        (with_fields(teacher_ids=lambda m: [[10**6], *m.teacher_ids[1:]]), "teacher_ids has invalid ids"),
        (with_fields(teacher_ids=lambda m: m.teacher_ids[1:]), r"teacher_ids has \d+ lists for \d+ clips"),
        (with_fields(student_rows=lambda m: m.student_rows.int()), "student_rows is int32"),
        (with_fields(student_rows=lambda m: m.student_rows + 10**4), "there are only"),
        (with_fields(teacher_rows=lambda m: m.teacher_rows[:-1]), "teacher_rows is int64"),
        (with_fields(teacher_rows=lambda m: m.teacher_rows + 2), "another clip"),
        (PreviousRow, r"student row 1 with teacher row 0, but the text before them is b'.+' and b''"),
        (with_fields(teacher_rows=lambda m: m.teacher_rows // 2), "strictly increasing"),
        (with_fields(num_student=lambda m: 3), "num_student is 3"),
        (with_fields(num_mismatched=lambda m: 10**3), "num_mismatched is 1000"),
        (AllRows, "result of translate: topk returns ids"),
        (ReversedRows, "translate changes the teacher's distributions"),
        (BestOnly, "translate changes the teacher's distributions; it must return them complete"),
        (SmallVocabulary, "translate returns a view with vocab_size 100"),
        (RaisesForNoPositions, "translate for 0 aligned positions raises"),
        (Logits, "not raw logits"),
    ],
)
def test_check_token_mapper_rejects_broken_mapper(mapper, sentence):
    assert re.search(sentence, failure_message(check_token_mapper, mapper(), student(), teacher()))


def test_same_bytes_false_accepts_tokens_with_different_bytes():
    """With `same_bytes=False` only the comparison of bytes is skipped."""
    with pytest.raises(AssertionError, match="mapped tokens must have the same bytes"):
        check_token_mapper(OffByOne(), student(), teacher())
    check_token_mapper(OffByOne(), student(), teacher(), same_bytes=False)


class StudentVocabulary(Delegating):
    """Translates into the student's vocabulary. Tokens without a counterpart get probability 0."""

    def to_student(self, ids):
        return torch.where((ids >= 0) & (ids < len(self.good._forward)), ids, -1)

    to_teacher = to_student

    def translate(self, view, alignment):
        names = self.good._forward
        scores = view.logits[alignment.teacher_rows][:, names.clamp(min=0)]
        return DenseView(scores.masked_fill(names < 0, -torch.inf))


def test_translates_to_accepts_another_vocabulary():
    check_token_mapper(StudentVocabulary(), student(), teacher(), translates_to=student())
    assert "to_teacher" in failure_message(check_token_mapper, StudentVocabulary(), student(), teacher())


def test_make_rollouts_covers_all_kinds():
    vocab = vocabulary(student())
    rollouts = make_rollouts(vocab, ["the sea", "", "\U0001f600"])
    assert [vocab.stop_ids[0]] in [ids for ids, _ in rollouts] and all(ids for ids, _ in rollouts)
    broken = [what for ids, what in rollouts if "\ufffd" in vocab.decode_bytes(ids).decode(errors="replace")]
    assert len(broken) == 5 and all("character" in what for what in broken)
    stopped = [ids[-1] in vocab.stop_ids for ids, _ in rollouts]
    assert any(stopped) and not all(stopped)


def test_shared_boundaries_on_worked_examples():
    vocab_s, vocab_t = vocabulary(student()), vocabulary(teacher())
    rollouts = make_rollouts(vocab_s, ["the sea", "it's 9", "ok \U0001f600"])
    found = {what: shared_boundaries(ids, vocab_s, vocab_t) for ids, what in rollouts}
    assert found["'the sea', stopped"] == {0, 1, 2} and found["'the sea', cut"] == {0, 1}
    assert found["'the sea', cut inside a character"] == set() == found["a rollout that is only a stop"]
    pieces = [vocab_s.token_bytes[i] for i in vocab_s.tokenizer.encode("ok \U0001f600")]
    assert len(pieces) == 7 and found["'ok \U0001f600', stopped"] == {0, 1, 2, 3, 7}  # the emoji is four single bytes
    different = vocab_s.tokenizer.encode("the quick brown fox")
    assert shared_boundaries(different, vocab_s, vocab_t) == set()  # the tokenizers split it differently


def test_check_token_mapper_accepts_tokenizers_that_split_all_texts_differently():
    """A byte tokenizer and a word tokenizer share almost no boundaries."""
    letters = train_byte_bpe(["a"], 300)
    letters = SimpleNamespace(tokenizer=letters, stop_ids=[letters.eos_token_id])
    mapper = create("token_mapper", "shared_strings", {}, student=letters, teacher=teacher())
    vocab_s, vocab_t = vocabulary(letters), vocabulary(teacher())
    shared = {what for ids, what in make_rollouts(vocab_s, TEXTS) if shared_boundaries(ids, vocab_s, vocab_t)}
    assert len(shared) <= 2
    check_token_mapper(mapper, letters, teacher())


def test_check_token_mapper_rejects_object_that_is_no_mapper():
    assert "lacks" in failure_message(check_token_mapper, object(), student(), teacher())

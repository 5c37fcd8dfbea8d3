"""Each check of a token mapper catches a mapper that breaks one promise, a good one with a single line changed."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace

import pytest
import torch
from kit import caught, student, teacher

from arkasr.distributions.views import DenseView
from arkasr.interfaces import Alignment
from arkasr.model.tokenization import train_byte_bpe
from arkasr.testing import TableView, check_token_mapper, create
from arkasr.testing.rollouts import TEXTS, alike, make_rollouts, side


def good_mapper():
    return create("token_mapper", "shared_strings", {}, student=student(), teacher=teacher())


class Around:
    """A mapper around a good one; subclasses break one thing."""

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


def remade(**change):
    """Return a mapper class whose alignments have these fields changed; each is a function of the alignment."""

    class Remade(Around):
        def align(self, ids):
            made = self.good.align(ids)
            fields = {name: function(made) for name, function in change.items()}
            return Alignment(**(vars(made) | fields))

    return Remade


class FromTheEnd(Around):
    """Indexes its table with -1."""

    def to_teacher(self, ids):
        known = ids < len(self.good._forward)
        return self.good._forward[ids.clamp(max=len(self.good._forward) - 1)].masked_fill(~known, -1)


class Unchecked(Around):
    def to_student(self, ids):
        return self.good._backward[ids]


class OffByOne(Around):
    """Shifts the ids of words by one, there and back."""

    def to_teacher(self, ids):
        found = self.good.to_teacher(ids)
        return torch.where((found >= 100) & (found < 300), (found - 100 + 1) % 200 + 100, found)

    def to_student(self, ids):
        back = torch.where((ids >= 100) & (ids < 300), (ids - 100 - 1) % 200 + 100, ids)
        return self.good.to_student(back)


class ManyToOne(Around):
    def to_teacher(self, ids):
        found = self.good.to_teacher(ids)
        words = (found >= 0) & (found < 300)
        return torch.where(words, found[words].min() if words.any() else found, found)


class NoStop(Around):
    def to_teacher(self, ids):
        found = self.good.to_teacher(ids)
        return found.masked_fill(found == self.good.teacher_stop, -1)


class StopOnly(Around):
    def to_teacher(self, ids):
        found = self.good.to_teacher(ids)
        return found.masked_fill(found != self.good.teacher_stop, -1)


class Flat(Around):
    def to_teacher(self, ids):
        return self.good.to_teacher(ids).flatten()


class Floats(Around):
    def to_student(self, ids):
        return self.good.to_student(ids).float()


class Whole(Around):
    """Cannot read half a character."""

    def align(self, ids):
        for clip in ids:
            side(student()).read(clip).decode()
        return self.good.align(ids)


class Popping(Around):
    def align(self, ids):
        made = self.good.align(ids)
        ids[0].pop()
        return made


class First(Around):
    """Forgets where a clip begins: pairs the rows of the first clip again and again."""

    def align(self, ids):
        made = [self.good.align([clip]) for clip in ids]
        rows = [torch.cat([getattr(m, name) for m in made]) for name in ("student_rows", "teacher_rows")]
        total = sum(m.num_student for m in made)
        return Alignment([m.teacher_ids[0] for m in made], *rows, total)


class Crowd(Around):
    """Pairs less where the batch is large."""

    def align(self, ids):
        made = self.good.align(ids)
        keep = slice(1, None) if len(ids) > 1 else slice(None)
        return Alignment(made.teacher_ids, made.student_rows[keep], made.teacher_rows[keep], made.num_student)


class Drop(Around):
    """Never pairs the last position of a clip."""

    def align(self, ids):
        made = self.good.align(ids)
        last = torch.tensor(list(itertools.accumulate(map(len, ids)))) - 1
        keep = ~torch.isin(made.student_rows, last)
        return Alignment(made.teacher_ids, made.student_rows[keep], made.teacher_rows[keep], made.num_student)


class LastOnly(Around):
    """Pairs the last position of a clip alone."""

    def align(self, ids):
        made = self.good.align(ids)
        keep = torch.isin(made.student_rows, torch.tensor(list(itertools.accumulate(map(len, ids)))) - 1)
        return Alignment(
            made.teacher_ids, made.student_rows[keep], made.teacher_rows[keep], made.num_student, made.num_mismatched
        )


class Wavering(Around):
    """Forgets the last pair of a large batch, from the second one on."""

    batches = 0

    def align(self, ids):
        made = self.good.align(ids)
        self.batches += len(ids) > 1
        keep = slice(-1) if len(ids) > 1 and self.batches > 1 else slice(None)
        rows = made.student_rows[keep], made.teacher_rows[keep]
        return Alignment(made.teacher_ids, *rows, made.num_student, made.num_mismatched)


class Crying(Around):
    """Counts a mismatch more in batches."""

    def align(self, ids):
        made = self.good.align(ids)
        made.num_mismatched += len(ids) > 1
        return made


class Late(Around):
    """Pairs each position of a text with the teacher's row before it."""

    def align(self, ids):
        made = self.good.align(ids)
        inside = (made.teacher_rows[1:] - made.teacher_rows[:-1] == 1).nonzero()[:, 0] + 1
        first = inside[torch.isin(made.teacher_rows[inside] - 1, made.teacher_rows)]
        starts = torch.tensor([0, *itertools.accumulate(map(len, ids))])
        first = first[~torch.isin(made.student_rows[first], starts)]
        rows = made.teacher_rows[first] - 1
        return Alignment(made.teacher_ids, made.student_rows[first], rows, made.num_student)


class Untranslated(Around):
    def translate(self, view, alignment):
        return view


class Backwards(Around):
    def translate(self, view, alignment):
        return view.at(alignment.teacher_rows.flip(0))


class Thin(Around):
    def translate(self, view, alignment):
        return DenseView(view.logits[alignment.teacher_rows][:, :100])


class BestOnly(Around):
    """Keeps the best token's probability and spreads the others' evenly."""

    def translate(self, view, alignment):
        logprobs = view.at(alignment.teacher_rows).logprobs()
        best = logprobs.max(-1, keepdim=True)
        rest = ((1 - best.values.exp()) / (logprobs.shape[-1] - 1)).log().expand_as(logprobs)
        return DenseView(rest.scatter(-1, best.indices, best.values))


class NothingToTranslate(Around):
    def translate(self, view, alignment):
        return view.at(alignment.teacher_rows[alignment.teacher_rows.argmax() * 0 :])


class Logits(Around):
    def translate(self, view, alignment):
        return TableView(view.logits[alignment.teacher_rows])


@pytest.mark.parametrize(
    ("mapper", "sentence"),
    [
        (FromTheEnd, "to_teacher: ids outside .* do not"),
        (Unchecked, "to_student.* raises IndexError"),
        (OffByOne, r"to_teacher: id \d+ is b'.*', but \d+ is b'.*'"),
        (ManyToOne, "not one to one"),
        (NoStop, "to_teacher: stop id .* maps to -1"),
        (StopOnly, "to_teacher maps nothing but the stop"),
        (Flat, r"to_teacher returns int64 \[\d+\], not int64 \[1, \d+, 1\]"),
        (Floats, "returns float32"),
        (Whole, "align .*cut inside a character.* raises UnicodeDecodeError"),
        (Popping, "align writes into the ids"),
        (First, "strictly increasing"),
        (Crowd, "alone and in a batch"),
        (Drop, "no text's stop is paired"),
        (LastOnly, r"only \d of the 14 positions of texts that both tokenizers spell alike"),
        (Wavering, "another alignment when it is called again"),
        (Crying, r"num_mismatched is (\d+), but \d+ over the same clips"),
        (
            remade(num_mismatched=lambda m: len(m.teacher_ids)),
            "'the sea', stopped: num_mismatched is 1 where .* as b'the",
        ),
        (
            remade(num_mismatched=lambda m: 0),
            r"'the sea', cut inside .*: num_mismatched is 0 where .* b'the sea\\xc2' as",
        ),
        (remade(teacher_ids=lambda m: [[], *m.teacher_ids[1:]]), "teacher_ids is empty for a rollout that is only"),
        (remade(teacher_ids=lambda m: [[10**6], *m.teacher_ids[1:]]), "teacher_ids are out of range"),
        (remade(teacher_ids=lambda m: m.teacher_ids[1:]), r"teacher_ids holds \d+ of \d+ clips"),
        (remade(student_rows=lambda m: m.student_rows.int()), "student_rows is int32"),
        (remade(student_rows=lambda m: m.student_rows + 10**4), "there are"),
        (remade(teacher_rows=lambda m: m.teacher_rows[:-1]), "teacher_rows is int64"),
        (remade(teacher_rows=lambda m: m.teacher_rows + 2), "another clip"),
        (Late, r"rows 1 and 0 are paired, but have read b'.+' and b''"),
        (remade(teacher_rows=lambda m: m.teacher_rows // 2), "strictly increasing"),
        (remade(num_student=lambda m: 3), "num_student is 3"),
        (remade(num_mismatched=lambda m: 10**3), "num_mismatched is 1000"),
        (Untranslated, "what translate returns: topk's ids"),
        (Backwards, "translate does not return the teacher's distributions"),
        (BestOnly, "translate does not return the teacher's distributions, whole"),
        (Thin, "translate answers over 100 tokens"),
        (NothingToTranslate, "translate at 0 aligned positions raises"),
        (Logits, "are these raw logits"),
    ],
)
def test_a_broken_mapper_is_caught(mapper, sentence):
    assert re.search(sentence, caught(check_token_mapper, mapper(), student(), teacher()))


def test_tokens_may_be_paired_on_purpose():
    """`same_bytes` off: only the bytes are not compared."""
    with pytest.raises(AssertionError, match="but"):
        check_token_mapper(OffByOne(), student(), teacher())
    check_token_mapper(OffByOne(), student(), teacher(), same_bytes=False)


class InTheStudentsWords(Around):
    """Answers in the student's vocabulary: each token by its counterpart, the rest nothing."""

    def to_student(self, ids):
        return torch.where((ids >= 0) & (ids < len(self.good._forward)), ids, -1)

    to_teacher = to_student

    def translate(self, view, alignment):
        names = self.good._forward
        scores = view.logits[alignment.teacher_rows][:, names.clamp(min=0)]
        return DenseView(scores.masked_fill(names < 0, -torch.inf))


def test_a_mapper_may_answer_in_another_vocabulary():
    check_token_mapper(InTheStudentsWords(), student(), teacher(), translates_to=student())
    assert "to_teacher" in caught(check_token_mapper, InTheStudentsWords(), student(), teacher())


def test_the_rollouts_are_of_every_kind():
    ours = side(student())
    made = make_rollouts(ours, ["the sea", "", "\U0001f600"])
    assert [ours.stops[0]] in [ids for ids, _ in made] and all(ids for ids, _ in made)
    broken = [what for ids, what in made if "\ufffd" in ours.read(ids).decode(errors="replace")]
    assert len(broken) == 5 and all("character" in what for what in broken)
    ended = [ids[-1] in ours.stops for ids, _ in made]
    assert any(ended) and not all(ended)


def test_texts_that_both_spell_alike():
    ours, theirs = side(student()), side(teacher())
    found = {
        what: alike(ids, ours, theirs) for ids, what in make_rollouts(ours, ["the sea", "it's 9", "ok \U0001f600"])
    }
    assert found["'the sea', stopped"] == {0, 1, 2} and found["'the sea', cut"] == {0, 1}
    assert found["'the sea', cut inside a character"] == set() == found["a rollout that is only a stop"]
    pieces = [ours.bytes[i] for i in ours.tokenizer.encode("ok \U0001f600")]
    assert len(pieces) == 7 and found["'ok \U0001f600', stopped"] == {0, 1, 2, 3, 7}  # the last is four single bytes
    assert alike(ours.tokenizer.encode("the quick brown fox"), ours, theirs) == set()  # cut differently


def test_tokenizers_that_cut_every_text_differently_pass():
    """Single bytes against words: next to nothing is spelled alike, and the mapper pairs what it can."""
    letters = train_byte_bpe(["a"], 300)
    letters = SimpleNamespace(tokenizer=letters, stop_ids=[letters.eos_token_id])
    mapper = create("token_mapper", "shared_strings", {}, student=letters, teacher=teacher())
    ours, theirs = side(letters), side(teacher())
    spelled = {what for ids, what in make_rollouts(ours, TEXTS) if alike(ids, ours, theirs)}
    assert len(spelled) <= 2
    check_token_mapper(mapper, letters, teacher())


def test_what_is_no_mapper_is_said_so():
    assert "lacks" in caught(check_token_mapper, object(), student(), teacher())
